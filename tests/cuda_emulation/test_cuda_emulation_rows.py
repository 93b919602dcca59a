"""The CUDA kernels of the row-wise and elementwise rules, emulated, against the formulas in float64."""

import itertools

import pytest
import torch
from torch import Tensor

from equivengine.ops.activation import scale_tangents
from equivengine.ops.layer_norm import layer_norm_jvp, layer_norm_vjp
from equivengine.ops.rms_norm import rms_norm_jvp, rms_norm_vjp
from equivengine.ops.softmax import softmax_jvp
from equivengine.ops.split_tf32 import split_tf32

DTYPES = [
    (torch.float64, torch.float64),
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.bfloat16, torch.float32),
]
# One warp, unaligned rows, several warps, rows too long for shared memory.
WIDTHS = [1, 7, 96, 1000, 5200]
RULES = [layer_norm_jvp, layer_norm_vjp, rms_norm_jvp, rms_norm_vjp, softmax_jvp, scale_tangents]
rules = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
dtypes = pytest.mark.parametrize("dtypes", DTYPES, ids=lambda pair: f"{pair[0]}-{pair[1]}".replace("torch.", ""))


def arguments(rule, k: int, r: int, d: int, dtypes, *, optional: bool = True, seed: int = 0) -> list[Tensor | None]:
    """The rule's arguments for K tangents of R rows of width D, with offsets that make cancellation matter."""
    generator = torch.Generator().manual_seed(seed)
    tangent_dtype, dtype = dtypes

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tangents, x = (normal(k, r, d) + 0.5).to(tangent_dtype), (2 * normal(r, d) + 1).to(dtype)
    if rule is softmax_jvp:
        return [tangents, x.double().softmax(-1).to(dtype)]
    if rule is scale_tangents:
        return [tangents, x]
    wide = x.to(torch.float64 if dtype == torch.float64 else torch.float32)
    mean = wide.mean(-1)
    statistics = [mean, (wide.var(-1, correction=0) + 1e-5).rsqrt()] if "layer" in rule.name else [
        (wide.square().mean(-1) + 1e-5).rsqrt()
    ]  # fmt: skip
    weight = normal(d).to(dtype) if optional else None
    residual = [normal(k, r, d).to(tangent_dtype) if optional else None] if "vjp" in rule.name else []
    return [tangents, x, *statistics, weight, *residual]


def wide(arguments: list[Tensor | None]) -> list[Tensor | None]:
    return [None if t is None else t.double() for t in arguments]


def sliced(t: Tensor | None) -> Tensor | None:
    """The same values, rows dense but apart and unaligned."""
    if t is None or t.dim() < 2:
        return t
    holder = torch.full((*t.shape[:-1], t.shape[-1] + 3), torch.nan, dtype=t.dtype)
    holder[..., 1:-2] = t
    return holder[..., 1:-2]


def assert_as_accurate(rule, arguments: list[Tensor | None], result: Tensor) -> None:
    """At most twice the plain formula's error, or half a unit in the last place of the largest term."""
    exact = rule.reference(*wide(arguments))
    plain = rule.reference(*arguments)
    error, plain_error = ((t.double() - exact).norm().item() for t in (result, plain))
    accumulator = torch.float64 if arguments[1].dtype == torch.float64 else torch.float32
    tangents = arguments[0].double()
    gain = max((t.double().abs().max().item() for t in arguments[2:] if t is not None), default=1.0)
    rounding = max(torch.finfo(accumulator).eps, torch.finfo(result.dtype).eps * (error == plain_error))
    assert result.dtype == plain.dtype
    assert error <= max(2 * plain_error, rounding * max(gain, 1.0) ** 2 * tangents.norm().item())


@rules
@dtypes
@pytest.mark.parametrize("width", WIDTHS)
def test_error_is_at_most_twice_that_of_plain_pytorch(kernels, rule, dtypes, width):
    for k, layout, optional in itertools.product([1, 6], [Tensor.contiguous, sliced], [True, False]):
        if rule is scale_tangents and layout is sliced:
            continue
        given = arguments(rule, k, 3, width, dtypes, optional=optional)
        given = [None if t is None else layout(t) for t in given]
        assert_as_accurate(rule, given, getattr(kernels, rule.name)(*given))


@rules
@dtypes
def test_bits_depend_neither_on_the_order_of_threads_nor_on_the_number_of_processors(kernels, rule, dtypes):
    given = arguments(rule, 9, 2, 520, dtypes)
    results = []
    for kernels.device.order, kernels.device.processors in [(0, 1), (1, 1), (2, 1), (0, 200), (3, 200)]:
        results.append(getattr(kernels, rule.name)(*given))
    assert all(torch.equal(results[0], other) for other in results[1:])


@rules
def test_expanded_tangents_are_read_where_they_are(kernels, rule):
    tangents, *rest = arguments(rule, 5, 3, 96, DTYPES[1])
    repeated = tangents[:1].expand(5, 3, 96)
    run = getattr(kernels, rule.name)
    assert torch.equal(run(repeated, *rest), run(repeated.contiguous(), *rest))


@pytest.mark.parametrize("shape", [(1,), (257,), (4, 1000)])
def test_the_tf32_split_has_the_bits_of_the_formula(kernels, shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator) * 10 ** torch.empty(shape).uniform_(-30, 30, generator=generator)
    if x.numel() > 10:
        specials = [torch.nan, torch.inf, -torch.inf, 3.4028235e38, 0.0, -0.0, 1e-45, 1 + 2**-11]
        x.view(-1)[:8] = torch.tensor(specials)
    for ours, expected in zip(kernels.split_tf32(x), split_tf32.reference(x), strict=True):
        assert torch.equal(ours.view(torch.int32), expected.view(torch.int32))
