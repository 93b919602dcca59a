"""The K-tangent operators of LayerNorm and RMSNorm against float64, on every implementation there is."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from norm_cases import (
    DTYPES,
    FLOAT32,
    FLOAT64,
    RULES,
    VJPS,
    WIDTHS,
    accumulator,
    assert_at_most_twice_the_reference_error,
    dtypes,
    exact,
    names,
    rows,
    rules,
    statistics,
)
from torch import Tensor

from equivengine.ops import extension


def strided(t: Tensor) -> Tensor:
    """The same values, with gaps between the elements of a row."""
    holder = torch.full((*t.shape[:-1], t.shape[-1] * 2), float("nan"), dtype=t.dtype, device=t.device)
    view = holder[..., ::2]
    view.copy_(t)
    return view


def sliced(t: Tensor) -> Tensor:
    """The same values, rows dense but apart and unaligned."""
    holder = torch.full((*t.shape[:-1], t.shape[-1] + 3), float("nan"), dtype=t.dtype, device=t.device)
    view = holder[..., 1 : 1 + t.shape[-1]]
    view.copy_(t)
    return view


LAYOUTS = [Tensor.contiguous, strided, sliced]


@rules
@dtypes
@pytest.mark.parametrize("width", WIDTHS)
def test_error_is_at_most_twice_that_of_plain_pytorch(rule, dtypes, width):
    for k, layout in itertools.product([0, 1, 3, 16], LAYOUTS):
        tangents, x, *rest = rows(rule, k, 5, width, dtypes)
        arguments = (layout(tangents), layout(x), *rest)
        assert_at_most_twice_the_reference_error(rule, arguments, rule(*arguments))


@rules
@dtypes
def test_error_without_weight(rule, dtypes):
    arguments = rows(rule, 3, 4, 96, dtypes, weighted=False)
    assert_at_most_twice_the_reference_error(rule, arguments, rule(*arguments))


@pytest.mark.parametrize("rule", VJPS, ids=lambda rule: rule.name)
@dtypes
@pytest.mark.parametrize("width", [1, 7, 96, 1000])
def test_error_with_a_residual(rule, dtypes, width):
    *arguments, residual = rows(rule, 3, 40, width, dtypes, residual=True)
    for layout in LAYOUTS:
        given = (*arguments, layout(residual))
        assert_at_most_twice_the_reference_error(rule, given, rule(*given))


@rules
@dtypes
def test_no_rows_gives_no_rows(rule, dtypes):
    assert rule(*rows(rule, 3, 0, 8, dtypes)).shape == (3, 0, 8)


@rules
def test_expanded_tangents_are_one_tangent_repeated(rule):
    tangents, *primal = rows(rule, 1, 5, 96, FLOAT32)
    assert torch.equal(rule(tangents.expand(4, 5, 96), *primal), rule(tangents, *primal).expand(4, 5, 96))


@settings(max_examples=40, deadline=None)
@given(
    centred=st.booleans(),
    r=st.integers(1, 4),
    d=st.integers(1, 70),
    weighted=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_jvp_and_vjp_are_adjoint(centred, r, d, weighted, seed):
    push, pull = RULES[:2] if centred else RULES[2:]
    v, *primal = rows(push, 1, r, d, FLOAT64, weighted=weighted, seed=seed)
    u = torch.randn(1, r, d, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    jv, jtu = push(v, *primal), pull(u, *primal, None)
    # Roundoff of the two sums, in units of the sizes that were added up.
    *_, rstd, weight = primal
    gain = rstd.max() * (1 if weight is None else weight.abs().max())
    bound = 64 * torch.finfo(torch.float64).eps * gain * v.norm() * u.norm()
    assert ((jv * u).sum() - (v * jtu).sum()).abs() <= bound


@rules
def test_is_linear_in_the_tangents(rule):
    tangents, *primal = rows(rule, 2, 5, 96, FLOAT64)
    # Powers of two: scaling is exact, so only the addition rounds.
    combined = rule(0.5 * tangents[:1] + 4 * tangents[1:], *primal)
    separate = rule(tangents, *primal)
    expected = 0.5 * separate[:1] + 4 * separate[1:]
    assert (combined - expected).norm() <= 8 * torch.finfo(torch.float64).eps * expected.norm()


@rules
@dtypes
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["tangents", "x", "weight"])
@pytest.mark.parametrize("width", [7, 96])
def test_nan_and_infinity_propagate_as_in_pytorch(rule, dtypes, bad, where, width):
    tangents, x, *_ = arguments = list(rows(rule, 3, 4, width, dtypes))
    weight = arguments[names(rule).index("weight")]
    {"tangents": tangents[1, 2], "x": x[2], "weight": weight}[where][3] = bad
    found = statistics(rule, x.to(accumulator(x.dtype)))
    arguments[2 : 2 + len(found)] = found
    result, expected = rule(*arguments), rule.reference(*arguments)
    assert torch.equal(result.isnan(), expected.isnan())
    assert torch.equal(result.isinf(), expected.isinf())
    assert not expected.isfinite().all()


@rules
@dtypes
@pytest.mark.parametrize(("k", "r"), [(16, 1), (3, 64)])
def test_bits_do_not_depend_on_the_number_of_threads(rule, dtypes, k, r):
    arguments = rows(rule, k, r, 1000, dtypes)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            results.append(rule(*arguments))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(results[0], other) for other in results[1:])


@rules
def test_a_tangent_has_the_same_bits_alone_and_among_others(rule, compiled):
    tangents, *primal = rows(rule, 16, 5, 768, FLOAT32)
    together = rule(tangents, *primal)
    assert all(torch.equal(together[k : k + 1], rule(tangents[k : k + 1], *primal)) for k in range(16))


@rules
@pytest.mark.parametrize("dtypes", DTYPES[2:], ids=["bfloat16", "bfloat16 around float32"])
def test_half_precision_rounds_once(rule, dtypes):
    """Accumulating in float32, the bfloat16 result is the exact one rounded, but for ties and last-bit roundoff."""
    arguments = rows(rule, 3, 8, 768, dtypes)
    expected = torch.from_numpy(exact(rule, *arguments).astype(np.float64))
    result = rule(*arguments).double()
    assert (result - expected).norm() <= 1.01 * (expected.bfloat16().double() - expected).norm()


@pytest.mark.cuda
@rules
@dtypes
@pytest.mark.parametrize("layout", LAYOUTS, ids=["contiguous", "strided", "sliced"])
def test_cuda_error_is_at_most_twice_that_of_plain_pytorch(rule, dtypes, layout):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if extension.kernel_path("cuda") is None:
        pytest.skip("the extension is absent or was built without CUDA kernels")
    # 5121 and 20000 exceed what a block keeps in shared memory; 400 rows exceed what is split over tangents.
    for width, k, r in itertools.product([*WIDTHS, 5121, 20000], [0, 1, 3, 16], [5, 400]):
        if width > 1000 and r > 5:
            continue
        tangents, x, *rest = rows(rule, k, r, width, dtypes, device="cuda")
        arguments = (layout(tangents), layout(x), *rest)
        assert rule.path(*arguments) == "cuda"
        assert_at_most_twice_the_reference_error(rule, arguments, rule(*arguments))


@pytest.mark.cuda
@rules
def test_cuda_bits_do_not_depend_on_how_tangents_are_split(rule):
    if not torch.cuda.is_available() or extension.kernel_path("cuda") is None:
        pytest.skip("no CUDA device, or no CUDA kernels in the extension")
    tangents, *primal = rows(rule, 16, 5, 768, FLOAT32, device="cuda")
    together = rule(tangents, *primal)
    assert all(torch.equal(together[k : k + 1], rule(tangents[k : k + 1], *primal)) for k in range(16))
