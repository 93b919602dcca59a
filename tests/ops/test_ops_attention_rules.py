"""The K-tangent operators attention_jvp and attention_vjp against float64, on every implementation there is."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from equivengine.ops.attention import attention_jvp, attention_probabilities, attention_vjp, cotangents_of

RULES = [attention_jvp, attention_vjp]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]
#: L, S, E, F: ViT's, odd ones, one of everything, keys unlike queries, and scores of more than one block.
SIZES = [(197, 197, 64, 64), (7, 7, 80, 80), (1, 1, 1, 1), (5, 31, 33, 17), (257, 70, 128, 32)]
rules = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)


def heads(*shape: int, dtype: torch.dtype, seed: int) -> Tensor:
    """[..., H, rows, width], in memory [..., rows, H, width], as a linear layer makes them."""
    generator = torch.Generator().manual_seed(seed)
    *lead, count, rows, width = shape
    return torch.randn(*lead, rows, count, width, generator=generator, dtype=torch.float64).to(dtype).transpose(-3, -2)


def arguments_of(
    rule, k: int, sizes: tuple[int, int, int, int], dtype: torch.dtype, *, b: int = 1, h: int = 2, seed: int = 0
) -> list:
    """Arguments of a rule; one query in three rows sees no key."""
    length, keys, e, f = sizes
    q = heads(b, h, length, e, dtype=dtype, seed=seed)
    key = heads(b, h, keys, e, dtype=dtype, seed=seed + 1)
    v = heads(b, h, keys, f, dtype=dtype, seed=seed + 2)
    mask = torch.zeros(length, keys, dtype=torch.float64)
    mask[1::3] = -torch.inf
    p = attention_probabilities(q.double(), key.double(), mask, 0.3).to(dtype)
    if rule is attention_vjp:
        tangents = [heads(k, b, h, length, f, dtype=dtype, seed=seed + 3)]
    else:
        shapes = ((length, e), (keys, e), (keys, f))
        tangents = [heads(k, b, h, *shape, dtype=dtype, seed=seed + 3 + i) for i, shape in enumerate(shapes)]
    return [*tangents, q, key, v, p, 0.3, "ieee"]


def parts_of(rule, out: Tensor, arguments: list) -> tuple[Tensor, ...]:
    return (out,) if rule is attention_jvp else cotangents_of(out, *arguments[1:4])


def assert_at_most_twice_the_reference_error(rule, arguments: list, result: Tensor) -> None:
    plain = rule.reference(*arguments)
    assert (result.dtype, result.shape, result.stride()) == (plain.dtype, plain.shape, plain.stride())
    # In float64 the oracle is the reference itself, and what is asked is agreement to roundoff. The plain formula may
    # round few numbers well by luck: a unit is always allowed (half in bfloat16, where the result's rounding prevails).
    units = {torch.float64: 8, torch.float32: 1, torch.bfloat16: 0.5}[result.dtype]
    exact = rule.reference(*(a.double() if isinstance(a, Tensor) else a for a in arguments))
    for got, reference, expected in zip(
        *(parts_of(rule, out, arguments) for out in (result, plain, exact)), strict=True
    ):
        rounding = units * torch.finfo(result.dtype).eps * expected.norm()
        assert (got - expected).norm() <= max(2 * (reference - expected).norm(), rounding)


def gapped(t: Tensor) -> Tensor:
    """The same values, with gaps between the elements of a row."""
    holder = torch.full((*t.shape[:-1], 2 * t.shape[-1]), float("nan"), dtype=t.dtype)
    holder[..., ::2] = t
    return holder[..., ::2]


def sliced(t: Tensor) -> Tensor:
    """The same values, rows dense but apart and unaligned, between values that must not be read."""
    holder = torch.full((*t.shape[:-2], t.shape[-2] + 2, t.shape[-1] + 3), float("nan"), dtype=t.dtype)
    view = holder[..., 1:-1, 1 : 1 + t.shape[-1]]
    view.copy_(t)
    return view


@rules
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("k", [0, 1, 3, 16])
def test_error_is_at_most_twice_that_of_plain_pytorch(rule, dtype, sizes, k):
    arguments = arguments_of(rule, k, sizes, dtype)
    assert_at_most_twice_the_reference_error(rule, arguments, rule(*arguments))


@rules
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", SIZES[1:], ids=str)
@pytest.mark.parametrize("layout", [Tensor.contiguous, gapped, sliced])
def test_memory_layout_changes_no_bit(rule, compiled, dtype, sizes, layout):
    arguments = arguments_of(rule, 2, sizes, dtype)
    elsewhere = [layout(a) if isinstance(a, Tensor) else a for a in arguments]
    assert torch.equal(rule(*elsewhere), rule(*arguments))


@rules
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_error_for_many_keys(rule, dtype):
    arguments = arguments_of(rule, 1, (1025, 1025, 64, 64), dtype, h=1)
    assert_at_most_twice_the_reference_error(rule, arguments, rule(*arguments))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("given", list(itertools.product([False, True], repeat=3))[1:])
def test_a_tangent_that_is_none_is_zero(dtype, given):
    arguments = arguments_of(attention_jvp, 3, (7, 9, 8, 6), dtype)
    tangents = [t if present else torch.zeros_like(t) for t, present in zip(arguments, given, strict=False)]
    expected = attention_jvp(*tangents, *arguments[3:])
    arguments[:3] = [t if present else None for t, present in zip(arguments, given, strict=False)]
    assert torch.equal(attention_jvp(*arguments), expected)
    assert_at_most_twice_the_reference_error(attention_jvp, arguments, expected)


@rules
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("empty", ["L", "S", "E", "F", "B", "H"])
def test_empty_dimensions_give_empty_sums(rule, dtype, empty):
    sizes = tuple(0 if name == empty else 5 for name in "LSEF")
    arguments = arguments_of(rule, 2, sizes, dtype, b=int(empty != "B"), h=2 * int(empty != "H"))
    assert torch.allclose(rule(*arguments), rule.reference(*arguments), rtol=torch.finfo(dtype).eps * 8, atol=1e-6)


def test_joining_the_heads_of_a_tangent_copies_nothing():
    out = attention_jvp(*arguments_of(attention_jvp, 3, (7, 9, 8, 6), torch.float32, b=2))
    assert out.shape == (3, 2, 2, 7, 6)
    assert out.transpose(2, 3).is_contiguous()


def test_a_layer_that_makes_q_k_and_v_together_reads_its_cotangent_as_one_matrix():
    arguments = arguments_of(attention_vjp, 3, (7, 7, 8, 8), torch.float32, b=2)
    out = attention_vjp(*arguments)
    together = torch.stack([t.transpose(2, 3) for t in cotangents_of(out, *arguments[1:4])], dim=3)
    assert torch.equal(out.view(3, 2, 7, 3, 2, 8), together)


@rules
def test_expanded_tangents_are_one_tangent_repeated(rule, compiled):
    arguments = arguments_of(rule, 1, (7, 9, 8, 6), torch.float32)
    repeated = [t.expand(4, *t.shape[1:]) if isinstance(t, Tensor) and t.dim() == 5 else t for t in arguments]
    assert torch.equal(rule(*repeated), rule(*arguments).expand(4, *rule(*arguments).shape[1:]))


@settings(max_examples=40, deadline=None)
@given(sizes=st.tuples(*[st.integers(1, 40)] * 4), seed=st.integers(0, 2**20))
def test_jvp_and_vjp_are_adjoint(sizes, seed):
    *t, q, k, v, p, scale, precision = arguments_of(attention_jvp, 1, sizes, torch.float64, seed=seed)
    g = heads(1, 1, 2, sizes[0], sizes[3], dtype=torch.float64, seed=seed + 9)
    left = (attention_jvp(*t, q, k, v, p, scale, precision) * g).sum()
    pulled = cotangents_of(attention_vjp(g, q, k, v, p, scale, precision), q, k, v)
    terms = [a * b for a, b in zip(pulled, t, strict=True)]
    # Roundoff of the sums, in units of what was added up.
    size = 1 + max(x.norm() for x in (q, k, v)) ** 2
    bound = 16 * torch.finfo(torch.float64).eps * g.norm() * sum(x.norm() for x in t) * size
    assert (left - sum(term.sum() for term in terms)).abs() <= bound


@rules
def test_is_linear_in_the_tangents(rule):
    arguments = arguments_of(rule, 2, (7, 9, 8, 6), torch.float64)
    count = 3 if rule is attention_jvp else 1
    tangents, primal = arguments[:count], arguments[count:]
    combined = rule(*(0.5 * t[:1] + 4 * t[1:] for t in tangents), *primal)
    separate = rule(*arguments)
    expected = 0.5 * separate[:1] + 4 * separate[1:]
    assert (combined - expected).norm() <= 8 * torch.finfo(torch.float64).eps * expected.norm()
    assert not rule(*(torch.zeros_like(t) for t in tangents), *primal).any()


@rules
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", range(5))
def test_nan_and_infinity_propagate_as_in_pytorch(rule, dtype, bad, where):
    arguments = arguments_of(rule, 3, (7, 9, 8, 6), dtype)
    arguments[where][(*(-1,) * (arguments[where].dim() - 1), 0)] = bad
    result, expected = rule(*arguments), rule.reference(*arguments)
    assert torch.equal(result.isfinite(), expected.isfinite())
    assert not expected.isfinite().all()
    assert expected.isfinite().any()


@rules
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("k", "h"), [(1, 1), (3, 2), (16, 3)])
def test_bits_do_not_depend_on_the_number_of_threads(rule, compiled, dtype, k, h):
    arguments = arguments_of(rule, k, (197, 101, 48, 40), dtype, h=h)
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
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_tangent_has_the_same_bits_alone_and_among_others(rule, compiled, dtype):
    arguments = arguments_of(rule, 5, (50, 101, 48, 40), dtype)
    together = rule(*arguments)
    for k in range(5):
        alone = [a[k : k + 1] if isinstance(a, Tensor) and a.dim() == 5 else a for a in arguments]
        assert torch.equal(together[k : k + 1], rule(*alone))


_RUN_CASES = """
import torch
from equivengine.ops import attention, extension
cases = torch.load({path!r})
results = [(getattr(attention, name)(*case), getattr(attention, name).path(*case)) for name, case in cases]
torch.save([extension.load().facts["isa_chosen"], results], {path!r})
"""


@pytest.mark.parametrize("cap", ["base", "avx2", "avx512"])
def test_each_instruction_set_is_as_accurate(compiled, in_fresh_process, tmp_path, cap):
    sizes = [*SIZES[1:], *((3, s, 8, 8) for s in range(1, 20, 2)), *((3, 5, e, 2 * e) for e in range(1, 70, 6))]
    cases = [(rule.name, arguments_of(rule, 2, s, dtype)) for rule in RULES for s in sizes for dtype in DTYPES]
    path = str(tmp_path / "cases.pt")
    torch.save(cases, path)
    in_fresh_process(_RUN_CASES.format(path=path), EQUIVENGINE_CPU_ISA=cap)
    chosen, results = torch.load(path)
    if chosen != cap:
        pytest.skip(f"this processor or build has no {cap}; it chose {chosen}")
    by_name = {rule.name: rule for rule in RULES}
    for (name, case), (result, taken) in zip(cases, results, strict=True):
        assert taken == f"cpu-{cap}"
        assert_at_most_twice_the_reference_error(by_name[name], case, result)
