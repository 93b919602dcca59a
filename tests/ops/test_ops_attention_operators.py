"""attention_jvp and attention_vjp as operators: dispatch, checks, shape rules and batching."""

import itertools

import pytest
import torch
from torch import Tensor

from equivengine.ops.attention import attention_jvp, attention_probabilities, attention_vjp

RULES = [attention_jvp, attention_vjp]
NAMES = {attention_jvp: ("dq", "dk", "dv", "q", "k", "v", "p"), attention_vjp: ("g", "q", "k", "v", "p")}
rules = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
K, B, H, L, S, E, F = 3, 2, 2, 4, 5, 6, 3


def arguments_of(rule, dtype: torch.dtype = torch.float64) -> list:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(B, H, *s, generator=generator, dtype=torch.float64) for s in ((L, E), (S, E), (S, F)))
    p = attention_probabilities(q, k, None, 0.3)
    shapes = [(L, F)] if rule is attention_vjp else [(L, E), (S, E), (S, F)]
    tangents = [torch.randn(K, B, H, *s, generator=generator, dtype=torch.float64) for s in shapes]
    return [*(t.to(dtype) for t in (*tangents, q, k, v, p)), 0.3, "ieee"]


@rules
def test_the_kernels_run_where_the_extension_is_loaded(rule, compiled):
    assert all(rule.path(*arguments_of(rule, dtype)).startswith("cpu-") for dtype in (torch.float32, torch.bfloat16))


@rules
@pytest.mark.parametrize("dtypes", [{}, {"p": torch.float64}, {"q": torch.bfloat16}], ids=["float16", "p", "q"])
def test_what_the_kernels_do_not_take_runs_the_reference(rule, dtypes):
    default = torch.float32 if dtypes else torch.float16
    arguments = arguments_of(rule)
    arguments[:-2] = [t.to(dtypes.get(n, default)) for n, t in zip(NAMES[rule], arguments, strict=False)]
    assert rule.path(*arguments) == "reference"


@rules
@pytest.mark.parametrize("overload", ["kernel", "plain"])
def test_precision_is_one_of_three_words_and_changes_nothing_on_cpus(rule, overload):
    *arguments, _ = arguments_of(rule, torch.float32)
    run = getattr(rule, overload)
    expected = run(*arguments, "ieee")
    assert all(torch.equal(run(*arguments, precision), expected) for precision in ("tf32", "tf32x3"))
    with pytest.raises(ValueError, match=r"precision: expected ieee \| tf32 \| tf32x3, got 'tf64'"):
        run(*arguments, "tf64")


@pytest.mark.parametrize("overload", ["kernel", "plain"])
def test_no_tangent_at_all_is_an_error(overload):
    with pytest.raises(ValueError, match="dq, dk, dv: expected"):
        getattr(attention_jvp, overload)(None, None, None, *arguments_of(attention_jvp)[3:])


@pytest.mark.parametrize(
    ("position", "bad", "message"),
    [
        (0, torch.zeros(K, B, H, L), "dq, dk, dv: expected 5 dimensions"),
        (1, torch.zeros(K, B, H, S, E + 1), "dk: expected shape"),
        (2, torch.zeros(K + 1, B, H, S, F), "dv: expected shape"),
        (2, torch.zeros(K, B, H, S, F, dtype=torch.float64), "dv: expected dtype Float, got Double"),
        (3, torch.zeros(B, L, E), "q: expected 4 dimensions"),
        (3, torch.zeros(B, H, L, E, dtype=torch.float16), "q: expected one of"),
        (4, torch.zeros(B, H, S, E + 1), "k: expected shape"),
        (5, torch.zeros(B, H, S + 1, F), "v: expected shape"),
        (6, torch.zeros(B, H, S, L), "p: expected shape"),
        (6, torch.zeros(B, H, L, S, dtype=torch.float64), "p: expected dtype"),
    ],
)
def test_the_kernel_names_the_argument_that_does_not_fit(compiled, position, bad, message):
    arguments = arguments_of(attention_jvp, torch.float32)
    arguments[position] = bad
    with pytest.raises((ValueError, TypeError), match=message):
        attention_jvp.kernel(*arguments)


def test_the_kernel_names_a_cotangent_that_does_not_fit(compiled):
    with pytest.raises(ValueError, match="g: expected shape"):
        attention_vjp.kernel(torch.zeros(K, B, H, L, F + 1), *arguments_of(attention_vjp, torch.float32)[1:])


@rules
@pytest.mark.parametrize("overload", ["kernel", "plain"])
@pytest.mark.parametrize("square", [True, False])
def test_opcheck(rule, overload, square):
    arguments = arguments_of(rule, torch.float32)
    if square:  # one shape for q, k and v
        arguments = [a[..., :L, :3] if isinstance(a, Tensor) else a for a in arguments]
        arguments[-3] = arguments_of(rule, torch.float32)[-3][..., :L]
    torch.library.opcheck(getattr(rule, overload), arguments)


@pytest.mark.parametrize("overload", ["kernel", "plain"])
def test_opcheck_with_a_tangent_that_is_none(overload):
    arguments = arguments_of(attention_jvp, torch.float32)
    torch.library.opcheck(getattr(attention_jvp, overload), [None, arguments[1], None, *arguments[3:]])


@rules
def test_the_fake_result_has_the_real_layout(rule):
    from torch._subclasses.fake_tensor import FakeTensorMode

    arguments = arguments_of(rule, torch.bfloat16)
    real = rule.kernel(*arguments)
    with FakeTensorMode() as mode:
        fake = rule.kernel(*(mode.from_tensor(a) if isinstance(a, Tensor) else a for a in arguments))
    assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)


def batched_cases() -> list:
    several = [(rule, b) for rule in RULES for b in itertools.product([False, True], repeat=len(NAMES[rule]))]
    return [(rule, b) for rule, b in several if any(b) and (rule is attention_vjp or sum(b) in (1, 2, 6, 7))]


@pytest.mark.parametrize(("rule", "batched"), batched_cases())
def test_vmap_equals_a_loop_for_combinations_of_batched_arguments(rule, batched):
    size, arguments, in_dims = 3, [], []
    *plain, scale, precision = arguments_of(rule)
    for index, (tensor, is_batched) in enumerate(zip(plain, batched, strict=True)):
        dim = index % (tensor.dim() + 1) if is_batched else None
        arguments.append(torch.stack([tensor * i for i in range(1, size + 1)], dim) if is_batched else tensor)
        in_dims.append(dim)

    def member(index: int) -> list[Tensor]:
        return [t if dim is None else t.select(dim, index) for t, dim in zip(arguments, in_dims, strict=True)]

    expected = torch.stack([rule(*member(index), scale, precision) for index in range(size)])
    got = torch.func.vmap(lambda *a: rule(*a, scale, precision), tuple(in_dims))(*arguments)
    assert torch.allclose(got, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("given", [(0,), (1,), (2,), (0, 2)])
@pytest.mark.parametrize("rows", [False, True])
def test_vmap_takes_tangents_that_are_none(given, rows):
    *tensors, scale, precision = arguments_of(attention_jvp)
    batch = [torch.stack([t, -2 * t]) for t in tensors]
    arguments = [None if i < 3 and i not in given else batch[i] if i < 3 or rows else tensors[i] for i in range(7)]
    in_dims = tuple(None if a is None or (i >= 3 and not rows) else 0 for i, a in enumerate(arguments))
    got = torch.func.vmap(lambda *a: attention_jvp(*a, scale, precision), in_dims)(*arguments)
    members = [[a if dim is None else a[i] for a, dim in zip(arguments, in_dims, strict=True)] for i in range(2)]
    assert torch.allclose(got, torch.stack([attention_jvp(*m, scale, precision) for m in members]))


def test_under_vmap_joining_the_heads_copies_nothing():
    """The batch folds into K, and the unfolded result keeps the layout."""
    *tensors, scale, precision = arguments_of(attention_jvp)
    batch = [torch.stack([t[:1]] * 4) for t in tensors[:3]]
    joined = torch.func.vmap(lambda *t: attention_jvp(*t, *tensors[3:], scale, precision).transpose(2, 3))(*batch)
    assert joined.shape == (4, 1, B, L, H, F)
    assert joined.is_contiguous()


@rules
def test_a_batch_of_none_is_empty(rule):
    *tensors, scale, precision = arguments_of(rule)
    tangents = len(tensors) - 4
    empty = [t.new_empty(0, *t.shape) for t in tensors[:tangents]]
    got = torch.func.vmap(lambda *t: rule(*t, *tensors[tangents:], scale, precision))(*empty)
    assert got.shape == (0, *rule(*tensors, scale, precision).shape)
