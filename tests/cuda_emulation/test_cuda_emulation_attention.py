"""Attention's CUDA kernels, emulated, against the formulas in float64."""

import itertools

import pytest
import torch
from torch import Tensor

from equivengine.ops.attention import attention_jvp, attention_vjp, cotangents_of

ARITHMETIC = [
    (torch.float64, "ieee"),
    (torch.float32, "ieee"),
    (torch.float32, "tf32x3"),
    (torch.float32, "tf32"),
    (torch.bfloat16, "ieee"),
]
arithmetic = pytest.mark.parametrize(
    ("dtype", "precision"),
    ARITHMETIC,
    ids=[f"{dtype}-{precision}".removeprefix("torch.") for dtype, precision in ARITHMETIC],
)
# K, B, H, L, S, E, F: odd sizes, one tile, several tiles and blocks of rows, wide heads, wider than a block's result.
SIZES = [
    (2, 1, 2, 5, 7, 3, 5),
    (1, 2, 1, 16, 32, 32, 32),
    (2, 1, 1, 70, 67, 64, 64),
    (1, 1, 1, 20, 65, 80, 80),
    (1, 1, 1, 65, 20, 96, 128),
    (1, 1, 1, 9, 9, 40, 150),
]


class Case:
    """Tangents, a cotangent and a primal of given sizes; keys share a direction, so that scores cancel."""

    def __init__(self, sizes: tuple[int, ...], dtype: torch.dtype, precision: str = "ieee", seed: int = 0) -> None:
        K, B, H, L, S, E, F = sizes
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        self.dq, self.dk, self.dv = normal(K, B, H, L, E), normal(K, B, H, S, E), normal(K, B, H, S, F)
        self.g = normal(K, B, H, L, F)
        q, k, v = normal(B, H, L, E), normal(B, H, S, E) + 0.5, normal(B, H, S, F)
        p = torch.softmax(q.double() @ k.double().mT / E**0.5, -1).to(dtype)
        self.tangents = (self.dq, self.dk, self.dv)
        self.primal = (q, k, v, p, E**-0.5, precision)


def wide(arguments) -> list:
    return [t.double() if isinstance(t, Tensor) else t for t in arguments]


#: What an arithmetic loses relative to the plain formula's, which is exact for float64 as it is the measure.
COARSER = {"ieee": 4 * torch.finfo(torch.float64).eps, "tf32x3": 2**-22, "tf32": 2**-10}


def assert_as_accurate(result: Tensor, plain: Tensor, exact: Tensor, precision: str) -> None:
    """At most twice the plain formula's error, or as coarse as the arithmetic."""
    error, plain_error = (torch.linalg.vector_norm(t.double() - exact).item() for t in (result, plain))
    assert error <= max(2 * plain_error, COARSER[precision] * torch.linalg.vector_norm(exact).item())


def assert_both_rules_are_accurate(kernels, case: Case) -> None:
    precision = case.primal[-1]
    given = (*case.tangents, *case.primal)
    exact = attention_jvp.reference(*wide(given))
    assert_as_accurate(kernels.attention_jvp(*given), attention_jvp.reference(*given), exact, precision)
    given = (case.g, *case.primal)
    results = kernels.attention_vjp(*given), attention_vjp.reference(*given), attention_vjp.reference(*wide(given))
    for each in zip(*(cotangents_of(out, *case.primal[:3]) for out in results), strict=True):
        assert_as_accurate(*each, precision)


@arithmetic
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_error_is_at_most_twice_that_of_plain_pytorch(kernels, sizes, dtype, precision):
    assert_both_rules_are_accurate(kernels, Case(sizes, dtype, precision))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_devices_without_tensor_cores_multiply_exactly(kernels, dtype):
    kernels.device.capability = 7
    for precision in ("ieee", "tf32"):
        case = Case(SIZES[2], dtype, precision)
        assert_both_rules_are_accurate(kernels, case)
        exactly = Case(SIZES[2], dtype, "ieee")
        ours = kernels.attention_jvp(*case.tangents, *case.primal)
        assert torch.equal(ours, kernels.attention_jvp(*exactly.tangents, *exactly.primal))


@arithmetic
def test_bits_depend_neither_on_the_order_of_threads_nor_on_keeping_the_scores(kernels, dtype, precision):
    case = Case((2, 1, 1, 70, 75, 20, 24), dtype, precision)
    results = []
    for kernels.device.order, kernels.device.shared_per_processor in itertools.product(
        [0, 1, 2], [228 << 10, 64 << 10]
    ):
        jvp = kernels.attention_jvp(*case.tangents, *case.primal)
        results.append([jvp, kernels.attention_vjp(case.g, *case.primal)])
    assert all(torch.equal(ours, first) for other in results for ours, first in zip(other, results[0], strict=True))


@pytest.mark.parametrize("given", list(itertools.product([True, False], repeat=3))[:-1], ids=str)
def test_a_tangent_that_is_none_is_zero(kernels, given):
    case = Case(SIZES[0], torch.float64)
    some = [t if is_given else None for t, is_given in zip(case.tangents, given, strict=True)]
    zeros = [t if is_given else torch.zeros_like(t) for t, is_given in zip(case.tangents, given, strict=True)]
    result = kernels.attention_jvp(*some, *case.primal)
    expected = attention_jvp.reference(*zeros, *case.primal)
    assert (result - expected).norm() <= 1e-14 * expected.norm()


@arithmetic
def test_heads_may_lie_anywhere(kernels, dtype, precision):
    """Heads of a fused qkv, expanded tangents, rows with gaps: the bits are those of dense tensors."""
    case = Case((2, 1, 2, 33, 33, 16, 16), dtype, precision)

    def fused(t: Tensor) -> Tensor:
        holder = torch.full((*t.shape[:-3], t.shape[-2], 3, t.shape[-3], t.shape[-1]), torch.nan, dtype=t.dtype)
        view = holder[..., 1, :, :].transpose(-2, -3)
        view.copy_(t)
        return view

    def unaligned(t: Tensor) -> Tensor:
        holder = torch.full((*t.shape[:-1], t.shape[-1] + 3), torch.nan, dtype=t.dtype)
        holder[..., 1:-2] = t
        return holder[..., 1:-2]

    q, k, v, p, *rest = case.primal
    dq = case.dq[:1].expand(2, -1, -1, -1, -1)
    dense = kernels.attention_jvp(dq.contiguous(), case.dk, case.dv, q, k, v, p, *rest)
    cotangents = kernels.attention_vjp(case.g, q, k, v, p, *rest)
    for layout in (fused, unaligned):
        primal = (*map(layout, (q, k, v, p)), *rest)
        assert torch.equal(kernels.attention_jvp(dq, layout(case.dk), layout(case.dv), *primal), dense)
        assert torch.equal(kernels.attention_vjp(layout(case.g), *primal), cotangents)


def test_jvp_and_vjp_are_adjoint(kernels):
    case = Case((1, 1, 2, 40, 37, 24, 20), torch.float64)
    pushed = (kernels.attention_jvp(*case.tangents, *case.primal) * case.g).sum()
    cotangents = cotangents_of(kernels.attention_vjp(case.g, *case.primal), *case.primal[:3])
    pulled = sum((t * ct).sum() for t, ct in zip(case.tangents, cotangents, strict=True))
    assert (pushed - pulled).abs() <= 1e-13 * case.g.norm() * case.dq.norm()


@pytest.mark.parametrize(
    "sizes", [(2, 1, 1, 3, 0, 4, 5), (2, 1, 1, 0, 3, 4, 5), (2, 1, 1, 3, 4, 5, 0), (0, 1, 1, 3, 4, 5, 6)]
)
def test_empty_dimensions(kernels, sizes):
    case = Case(sizes, torch.float64)
    given = (*case.tangents, *case.primal)
    torch.testing.assert_close(kernels.attention_jvp(*given), attention_jvp.reference(*given))
    given = (case.g, *case.primal)
    torch.testing.assert_close(kernels.attention_vjp(*given), attention_vjp.reference(*given))


@arithmetic
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so_and_stays_in_its_row(kernels, dtype, precision, bad):
    case = Case(SIZES[0], dtype, precision)
    case.dq[0, 0, 1, 2, 1] = bad
    result = kernels.attention_jvp(*case.tangents, *case.primal)
    assert not result[0, 0, 1, 2].isfinite().any()
    result[0, 0, 1, 2] = 0
    assert result.isfinite().all()
