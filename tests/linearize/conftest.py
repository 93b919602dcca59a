"""What the tests of linear programs share: dense Jacobians by torch.autograd, and the same by a program."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from equivengine.linearize import ARITHMETICS, Program, linearize

FP64 = ARITHMETICS["fp64"]
Function = Callable[[torch.Tensor], torch.Tensor]


def autograd_jacobian(f: Function, x: torch.Tensor) -> torch.Tensor:
    """[*output_shape, *input_shape], one row at a time, with the plain formula of attention."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return torch.autograd.functional.jacobian(f, x)


def check_program(f: Function, x: torch.Tensor) -> Program:
    """The program at x agrees with torch.autograd to 1e-10 in both modes, for any K, and leaves its arguments alone."""
    program = linearize(f, x)
    with torch.no_grad():
        value = f(x)
    torch.testing.assert_close(program.value, value, rtol=1e-10, atol=1e-10)
    dense = autograd_jacobian(f, x) if value.numel() else x.new_zeros(0)
    dense = dense.reshape(value.numel(), x.numel())
    generator = torch.Generator().manual_seed(1)
    for k in (0, 1, 3):
        v = torch.randn(k, *x.shape, dtype=x.dtype, generator=generator)
        u = torch.randn(k, *value.shape, dtype=x.dtype, generator=generator)
        before = v.clone(), u.clone()
        pushed, pulled = program.push(v, FP64), program.pull(u, FP64)
        assert pushed.shape == u.shape
        assert pulled.shape == v.shape
        scale = max(1.0, float(dense.abs().max())) if dense.numel() else 1.0
        flat_v, flat_u = v.reshape(k, x.numel()), u.reshape(k, value.numel())
        torch.testing.assert_close(pushed.reshape(flat_u.shape), flat_v @ dense.T, rtol=1e-10, atol=1e-10 * scale)
        torch.testing.assert_close(pulled.reshape(flat_v.shape), flat_u @ dense, rtol=1e-10, atol=1e-10 * scale)
        inner = (pushed.reshape(flat_u.shape) * flat_u).sum(1), (flat_v * pulled.reshape(flat_v.shape)).sum(1)
        torch.testing.assert_close(*inner, rtol=1e-9, atol=1e-9 * scale)
        check_ownership(program, v, u, pushed, pulled, before)
    return program


def check_ownership(
    program: Program,
    v: torch.Tensor,
    u: torch.Tensor,
    pushed: torch.Tensor,
    pulled: torch.Tensor,
    before: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """Arguments are unchanged, results are fresh memory, and writing to them changes nothing that comes after."""
    copies = pushed.clone(), pulled.clone()
    held = {t.untyped_storage().data_ptr() for t in (v, u, program.value) if t.numel()}
    for result in (pushed, pulled):
        if result.numel():
            assert result.untyped_storage().data_ptr() not in held
            result.fill_(7.0)
    assert torch.equal(program.push(v, FP64), copies[0])
    assert torch.equal(program.pull(u, FP64), copies[1])
    assert torch.equal(v, before[0])
    assert torch.equal(u, before[1])


@pytest.fixture
def check() -> Callable[[Function, torch.Tensor], Program]:
    """`check_program`."""
    return check_program
