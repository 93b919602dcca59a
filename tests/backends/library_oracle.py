"""Holds an encoder against the library's own model: embedding, J v and J^T u, by autograd in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch

import equivengine as eqv

#: Relative errors of float32 products against float64, at most; a wrong map is off by 1e-2 and more.
SINGLE = 3e-5
DOUBLE = 1e-10


def of_library(
    own: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, v: torch.Tensor, u: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """f(x), J v (by the double-vjp trick) and J^T u of float64 x [1, ...], v like x, u like f(x)."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), torch.enable_grad():
        z = x.clone().requires_grad_(True)
        w = torch.zeros_like(u, requires_grad=True)
        value = own(z)
        (pulled,) = torch.autograd.grad(value, z, w, create_graph=True)
        (pushed,) = torch.autograd.grad(pulled, w, v)
        (pulled,) = torch.autograd.grad(own(z), z, u)
    return value.detach(), pushed, pulled


def off(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Relative L2 distance."""
    return float(torch.linalg.vector_norm(found.double().flatten() - exact.flatten()) / torch.linalg.vector_norm(exact))


def assert_same_map(
    encoder: eqv.Encoder, own: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor | None = None
) -> None:
    """Embedding, J v and J^T u of ``encoder`` are those of ``own``, a function of float64 inputs [1, *input_shape]."""
    generator = torch.Generator().manual_seed(7)
    if x is None:
        x = torch.rand(encoder.input_shape, generator=generator)
    v = torch.randn(x.shape, generator=generator)
    u = torch.randn(encoder.spec.embedding_dim, generator=generator)
    exact = of_library(own, x[None].double(), v[None].double(), u[None].double())
    assert all(float(torch.linalg.vector_norm(part)) > 0 for part in exact)
    for precision, bound in (("fp32", SINGLE), ("fp64", DOUBLE)):
        dtype = torch.float64 if precision == "fp64" else torch.float32
        operator = eqv.JacobianOperator(encoder, x.to(dtype), precision=precision)
        found = (operator.value, operator.jvp(v[None].to(dtype))[0], operator.vjp(u[None].to(dtype))[0])
        for name, one, other in zip(("embedding", "J v", "J^T u"), found, exact, strict=True):
            assert one.dtype == dtype
            assert off(one, other) < bound, f"{name}, {precision}: relative error {off(one, other):.1e}"
