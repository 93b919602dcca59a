"""The self-adjoint K-tangent operators softmax_jvp and scale_tangents, on every implementation there is."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from equivengine.ops.activation import scale_tangents
from equivengine.ops.softmax import softmax_jvp

RULES = [softmax_jvp, scale_tangents]
#: Dtypes of the tangents and of the primal.
DTYPES = [
    (torch.float64, torch.float64),
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.bfloat16, torch.float32),
]
FLOAT32, FLOAT64 = DTYPES[1], DTYPES[0]
WIDTHS = [1, 7, 48, 197, 1000]
rules = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
dtypes = pytest.mark.parametrize("dtypes", DTYPES, ids=["float64", "float32", "bfloat16", "bfloat16 around float32"])


def rows(rule, k: int, r: int, d: int, dtypes: tuple[torch.dtype, torch.dtype], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Tangents [K, R, D], with an offset that cancels, and probabilities or factors [R, D]."""
    generator = torch.Generator().manual_seed(seed)
    tangents = torch.randn(k, r, d, generator=generator, dtype=torch.float64) + 1
    primal = torch.randn(r, d, generator=generator, dtype=torch.float64)
    if rule is softmax_jvp:
        primal = torch.softmax(primal, -1)
    return tangents.to(dtypes[0]), primal.to(dtypes[1])


def exact(rule, tangents: Tensor, primal: Tensor) -> np.ndarray:
    """The rule on the given (rounded) arguments in long double."""
    t, p = (a.double().numpy().astype(np.longdouble) for a in (tangents, primal))
    return p * (t - (p * t).sum(-1, keepdims=True)) if rule is softmax_jvp else p * t


def sliced(t: Tensor) -> Tensor:
    """The same values, rows dense but apart and unaligned."""
    holder = torch.full((*t.shape[:-1], t.shape[-1] + 3), float("nan"), dtype=t.dtype)
    view = holder[..., 1 : 1 + t.shape[-1]]
    view.copy_(t)
    return view


def transposed(t: Tensor) -> Tensor:
    return t.mT.contiguous().mT


def assert_at_most_twice_the_reference_error(rule, arguments: tuple[Tensor, Tensor], result: Tensor) -> None:
    plain = rule.reference(*arguments)
    assert result.dtype == plain.dtype
    assert result.shape == plain.shape
    if not result.numel():
        return
    expected = exact(rule, *arguments)

    def error(value: Tensor) -> float:
        return float(np.linalg.norm((value.double().numpy() - expected).ravel()))

    # The plain formula may be exact by luck: half a unit in the last place of p t is always allowed.
    terms = float((arguments[0].double() * arguments[1].double()).norm())
    accumulator = torch.float64 if result.dtype == torch.float64 else torch.float32
    assert error(result) <= max(2 * error(plain), torch.finfo(accumulator).eps / 2 * terms)


@rules
@dtypes
@pytest.mark.parametrize("width", WIDTHS)
def test_error_is_at_most_twice_that_of_plain_pytorch(rule, dtypes, width):
    for k, layout in itertools.product([0, 1, 3, 16], [Tensor.contiguous, sliced, transposed]):
        arguments = tuple(map(layout, rows(rule, k, 5, width, dtypes)))
        assert_at_most_twice_the_reference_error(rule, arguments, rule(*arguments))


@rules
@dtypes
def test_half_precision_rounds_once(rule, dtypes):
    if dtypes[0] != torch.bfloat16:
        return
    arguments = rows(rule, 3, 8, 768, dtypes)
    expected = torch.from_numpy(exact(rule, *arguments).astype(np.float64))
    assert (rule(*arguments).double() - expected).norm() <= 1.01 * (expected.bfloat16().double() - expected).norm()


@rules
def test_is_linear_self_adjoint_and_zero_at_zero(rule):
    (u, v), p = rows(rule, 2, 5, 96, FLOAT64)[0][:, None], rows(rule, 1, 5, 96, FLOAT64)[1]
    ju, jv = rule(u, p), rule(v, p)
    scale = torch.finfo(torch.float64).eps * p.max() * u.norm() * v.norm()
    assert ((ju * v).sum() - (u * jv).sum()).abs() <= 64 * scale
    assert (rule(0.5 * u + 4 * v, p) - (0.5 * ju + 4 * jv)).norm() <= 64 * scale
    assert not rule(torch.zeros_like(u), p).any()


@rules
def test_no_rows_and_no_columns(rule):
    assert rule(*rows(rule, 3, 0, 8, FLOAT32)).shape == (3, 0, 8)
    assert rule(*rows(rule, 3, 4, 0, FLOAT32)).shape == (3, 4, 0)


@rules
def test_expanded_tangents_are_one_tangent_repeated(rule):
    tangents, primal = rows(rule, 1, 5, 96, FLOAT32)
    assert torch.equal(rule(tangents.expand(4, 5, 96), primal), rule(tangents, primal).expand(4, 5, 96))


@pytest.mark.parametrize("shape", [(7,), (2, 3, 4, 5)])
def test_factors_have_any_shape(shape):
    factor, tangents = torch.randn(shape), torch.randn(3, *shape)
    assert torch.equal(scale_tangents(tangents, factor), tangents * factor)
    assert torch.equal(scale_tangents(tangents.mT, factor.mT), (tangents * factor).mT) if len(shape) > 1 else True


@rules
@dtypes
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", [0, 1])
def test_nan_and_infinity_propagate_as_in_pytorch(rule, dtypes, bad, where):
    for width in (7, 96):
        arguments = rows(rule, 3, 4, width, dtypes)
        arguments[where][..., 2, 3] = bad
        result, expected = rule(*arguments), rule.reference(*arguments)
        assert torch.equal(result.isnan(), expected.isnan())
        assert torch.equal(result.isinf(), expected.isinf())


@rules
@dtypes
def test_bits_do_not_depend_on_the_number_of_threads(rule, dtypes):
    for k, r in ((16, 1), (3, 64)):
        arguments = rows(rule, k, r, 3000, dtypes)
        before = torch.get_num_threads()
        try:
            results = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                results.append(rule(*arguments))
        finally:
            torch.set_num_threads(before)
        assert all(torch.equal(results[0], other) for other in results[1:])


@rules
def test_what_the_kernels_do_not_take_runs_the_reference(rule):
    for odd in ((torch.float16, torch.float16), (torch.float64, torch.float32), (torch.float32, torch.bfloat16)):
        arguments = rows(rule, 3, 4, 48, odd)
        assert rule.path(*arguments) == "reference"
        assert rule(*arguments).dtype == odd[0]


@pytest.mark.parametrize(
    ("rule", "tangents", "primal", "message"),
    [
        (softmax_jvp, torch.zeros(3, 5, 48), torch.zeros(4, 48), "tangents: expected shape"),
        (softmax_jvp, torch.zeros(3, 4, 48), torch.zeros(4, 48).half(), "p: expected one of"),
        (softmax_jvp, torch.zeros(3, 4, 48).double(), torch.zeros(4, 48), "tangents: expected dtype"),
        (softmax_jvp, torch.zeros(3, 4, 48), torch.zeros(3, 4, 48), "p: expected 2 dimensions"),
        (scale_tangents, torch.zeros(3, 5, 48), torch.zeros(4, 48), "tangents: expected shape"),
        (scale_tangents, torch.zeros(4, 48), torch.zeros(4, 48), "tangents: expected shape"),
        (scale_tangents, torch.zeros(3, 48).double(), torch.zeros(48), "tangents: expected dtype"),
    ],
)
def test_the_kernel_names_the_argument_that_does_not_fit(compiled, rule, tangents, primal, message):
    with pytest.raises((ValueError, TypeError), match=message):
        rule.kernel(tangents, primal)


_RUN_CASES = """
import torch
from equivengine.ops import activation, extension, softmax
cases = torch.load({path!r})
rules = {{"softmax_jvp": softmax.softmax_jvp, "scale_tangents": activation.scale_tangents}}
results = [(rules[rule](*case), rules[rule].path(*case)) for rule, case in cases]
torch.save([extension.load().facts["isa_chosen"], results], {path!r})
"""


@pytest.mark.parametrize("cap", ["base", "avx2", "avx512"])
def test_each_instruction_set_is_as_accurate(compiled, in_fresh_process, tmp_path, cap):
    cases = [
        (rule, rows(rule, 3, 5, width, dtypes)) for rule, dtypes, width in itertools.product(RULES, DTYPES, WIDTHS)
    ]
    path = str(tmp_path / "cases.pt")
    torch.save([(rule.name, case) for rule, case in cases], path)
    in_fresh_process(_RUN_CASES.format(path=path), EQUIVENGINE_CPU_ISA=cap)
    chosen, results = torch.load(path)
    if chosen != cap:
        pytest.skip(f"this processor or build has no {cap}; it chose {chosen}")
    for (rule, case), (result, taken) in zip(cases, results, strict=True):
        assert taken == f"cpu-{cap}"
        assert_at_most_twice_the_reference_error(rule, case, result)


@rules
@pytest.mark.parametrize("overload", ["kernel", "plain"])
def test_opcheck(rule, overload):
    torch.library.opcheck(getattr(rule, overload), rows(rule, 3, 4, 48, FLOAT32))


@rules
@pytest.mark.parametrize("in_dims", [(0, None), (1, 0), (None, 1), (3, 2)])
@pytest.mark.parametrize("size", [0, 3])
def test_vmap_equals_a_loop(rule, in_dims, size):
    plain = rows(rule, 2, 4, 6, FLOAT64)
    arguments = [
        t if dim is None else torch.stack([t * factor for factor in range(1, 4)], dim).narrow(dim, 0, size)
        for t, dim in zip(plain, in_dims, strict=True)
    ]
    got = torch.func.vmap(rule, in_dims)(*arguments)
    assert got.shape == (size, 2, 4, 6)
    assert torch.equal(got, torch.func.vmap(rule.kernel, in_dims)(*arguments))
    for index in range(size):
        member = [t if dim is None else t.select(dim, index) for t, dim in zip(arguments, in_dims, strict=True)]
        assert torch.equal(got[index], rule(*member))
