"""The K-tangent operators of LayerNorm and RMSNorm against float64, on every implementation there is."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from equivengine.ops import extension
from equivengine.ops.layer_norm import layer_norm_jvp, layer_norm_vjp
from equivengine.ops.rms_norm import rms_norm_jvp, rms_norm_vjp

RULES = [layer_norm_jvp, layer_norm_vjp, rms_norm_jvp, rms_norm_vjp]
CENTRED = (layer_norm_jvp, layer_norm_vjp)
VJPS = (layer_norm_vjp, rms_norm_vjp)
#: Dtypes of the tangents and of the primal.
DTYPES = [
    (torch.float64, torch.float64),
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.bfloat16, torch.float32),
]
FLOAT32, FLOAT64 = (torch.float32, torch.float32), (torch.float64, torch.float64)
WIDTHS = [1, 7, 48, 96, 384, 768, 1000]
rules = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
dtypes = pytest.mark.parametrize("dtypes", DTYPES, ids=["float64", "float32", "bfloat16", "bfloat16 around float32"])


def accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def names(rule) -> list[str]:
    mean = ["mean"] if rule in CENTRED else []
    return ["tangents", "x", *mean, "rstd", "weight", *(["residual"] if rule in VJPS else [])]


def statistics(rule, x: Tensor) -> tuple[Tensor, ...]:
    if rule not in CENTRED:
        return ((x.square().mean(-1) + 1e-5).rsqrt(),)
    mean = x.mean(-1)
    return mean, ((x - mean.unsqueeze(-1)).square().mean(-1) + 1e-5).rsqrt()


def rows(
    rule,
    k: int,
    r: int,
    d: int,
    dtypes: tuple[torch.dtype, torch.dtype],
    *,
    weighted: bool = True,
    residual: bool = False,
    seed: int = 0,
    device: str = "cpu",
) -> tuple[Any, ...]:
    """The rule's arguments: tangents [K, R, D], x [R, D], mean and rstd [R], weight [D], residual [K, R, D].

    Offsets make cancellation matter.
    """
    generator = torch.Generator().manual_seed(seed)
    dtype, primal = dtypes

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    tangents, x = (normal(k, r, d) + 0.5).to(dtype), (2 * normal(r, d) + 1).to(primal)
    weight = normal(d).to(primal) if weighted else None
    found = [tangents, x, *statistics(rule, x.to(accumulator(primal))), weight]
    if rule in VJPS:
        found.append(normal(k, r, d).to(dtype) if residual else None)
    return tuple(None if t is None else t.to(device) for t in found)


def exact(rule, *arguments) -> np.ndarray:
    """The rule on the given (rounded) arguments in long double, by the chain rule written out: J t or J^T t."""
    wide = [None if a is None else a.cpu().double().numpy().astype(np.longdouble) for a in arguments]
    given = dict(zip(names(rule), wide, strict=True))
    w = 1 if given["weight"] is None else given["weight"]
    rstd = given["rstd"][:, None]
    v = given["tangents"] if rule not in VJPS else given["tangents"] * w
    if rule in CENTRED:
        xhat = (given["x"] - given["mean"][:, None]) * rstd
        v = v - v.mean(-1, keepdims=True)
    else:
        xhat = given["x"] * rstd
    projected = rstd * (v - xhat * (v * xhat).mean(-1, keepdims=True))
    if rule not in VJPS:
        return projected * w
    return projected if given["residual"] is None else projected + given["residual"]


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


def assert_at_most_twice_the_reference_error(rule, arguments, result: Tensor) -> None:
    plain = rule.reference(*arguments)
    assert result.dtype == plain.dtype
    assert result.shape == plain.shape
    if not result.numel():
        return
    expected = exact(rule, *arguments)

    def error(value: Tensor) -> float:
        return float(np.linalg.norm((value.cpu().double().numpy() - expected).ravel()))

    # The plain formula may be exact by luck (D = 1: everything cancels). Half a unit in the last place of what is
    # subtracted is always allowed: rounding it is the least that any implementation does.
    given = dict(zip(names(rule), arguments, strict=True))
    tangents, rstd, weight = given["tangents"], given["rstd"], given["weight"]
    terms = tangents.double() * rstd.double().unsqueeze(-1) * (1 if weight is None else weight.double())
    rounding = torch.finfo(accumulator(result.dtype)).eps / 2 * terms.norm().item()
    assert error(result) <= max(2 * error(plain), rounding)


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


@rules
@pytest.mark.parametrize(
    "odd",
    [
        {"tangents": torch.float16, "x": torch.float16, "weight": torch.float16},
        {"weight": torch.float64},
        {"tangents": torch.float64},
    ],
    ids=["float16", "mixed weight", "wide tangents"],
)
def test_what_the_kernels_do_not_take_runs_the_reference(rule, odd):
    arguments = [
        t if t is None else t.to(odd.get(name, t.dtype))
        for name, t in zip(names(rule), rows(rule, 3, 4, 48, FLOAT32), strict=True)
    ]
    assert rule.path(*arguments) == "reference"
    assert torch.equal(rule(*arguments), rule.reference(*arguments))


@pytest.mark.parametrize(
    ("position", "bad", "message"),
    [
        (0, torch.zeros(4, 48), "tangents: expected 3 dimensions"),
        (0, torch.zeros(3, 5, 48), "tangents: expected shape"),
        (1, torch.zeros(48), "x: expected 2 dimensions"),
        (1, torch.zeros(4, 48, dtype=torch.float16), "x: expected one of"),
        (2, torch.zeros(5), "mean: expected shape"),
        (3, torch.zeros(4, dtype=torch.float64), "rstd: expected dtype Float, got Double"),
        (4, torch.zeros(47), "weight: expected shape"),
        (4, torch.zeros(48, dtype=torch.float64), "weight: expected dtype"),
        (5, torch.zeros(3, 5, 48), "residual: expected shape"),
        (5, torch.zeros(3, 4, 48, dtype=torch.bfloat16), "residual: expected dtype"),
    ],
)
def test_the_kernel_names_the_argument_that_does_not_fit(compiled, position, bad, message):
    arguments = list(rows(layer_norm_vjp, 3, 4, 48, FLOAT32))
    arguments[position] = bad
    with pytest.raises((ValueError, TypeError), match=message):
        layer_norm_vjp.kernel(*arguments)


_RUN_CASES = """
import torch
from equivengine.ops import extension, layer_norm, rms_norm
cases = torch.load({path!r})
rules = {{rule: getattr(module, rule) for module in (layer_norm, rms_norm) for rule in module.__all__}}
results = [(rules[rule](*case), rules[rule].path(*case)) for rule, case in cases]
torch.save([extension.load().facts["isa_chosen"], results], {path!r})
"""


@pytest.mark.parametrize("cap", ["base", "avx2", "avx512"])
def test_each_instruction_set_is_as_accurate(compiled, in_fresh_process, tmp_path, cap):
    cases = [
        (rule, rows(rule, 3, 5, width, dtypes, residual=width == 96))
        for rule, dtypes, width in itertools.product(RULES, DTYPES, WIDTHS)
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
@pytest.mark.parametrize("weighted", [True, False])
def test_opcheck(rule, overload, weighted):
    arguments = rows(rule, 3, 4, 48, FLOAT32, weighted=weighted, residual=weighted)
    torch.library.opcheck(getattr(rule, overload), arguments)


@rules
def test_the_fake_result_has_the_real_shape_dtype_and_device(rule):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        arguments = [t if t is None else mode.from_tensor(t) for t in rows(rule, 3, 4, 48, DTYPES[2])]
        out = rule.kernel(*arguments)
    assert (out.shape, out.dtype, out.device.type) == ((3, 4, 48), torch.bfloat16, "cpu")


@rules
@pytest.mark.parametrize("size", [0, 3])
def test_vmap_equals_a_loop_for_every_combination_of_batched_arguments(rule, size):
    plain = rows(rule, 2, 4, 6, FLOAT64, residual=True)
    for batched in list(itertools.product([False, True], repeat=len(plain)))[1:]:
        arguments, in_dims = [], []
        for index, (tensor, is_batched) in enumerate(zip(plain, batched, strict=True)):
            dim = index % (tensor.dim() + 1) if is_batched else None
            if is_batched:
                copies = [tensor * factor for factor in range(1, max(size, 1) + 1)]
                tensor = torch.stack(copies, dim).narrow(dim, 0, size)
            arguments.append(tensor)
            in_dims.append(dim)
        got = torch.func.vmap(rule, tuple(in_dims), 1)(*arguments)
        assert got.shape == (2, size, 4, 6)
        # The dispatcher's way, which the rules do not take.
        assert torch.equal(got, torch.func.vmap(rule.kernel, tuple(in_dims), 1)(*arguments))
        for index in range(size):
            member = [t if dim is None else t.select(dim, index) for t, dim in zip(arguments, in_dims, strict=True)]
            assert torch.equal(got[:, index], rule(*member))


@rules
def test_nested_vmap_folds_both_levels(rule):
    given = dict(zip(names(rule), rows(rule, 6, 8, 6, FLOAT64), strict=True))
    expected = rule(*given.values())
    statistics = [given[name] for name in ("mean", "rstd") if name in given]
    rest = (given["weight"], None) if rule in VJPS else (given["weight"],)
    none = (None,) * len(statistics)
    inner = torch.func.vmap(lambda t, x, *s: rule(t, x, *s, *rest), (0, None, *none))
    outer = torch.func.vmap(inner, (2, 0, *(0 for _ in statistics)))
    got = outer(
        given["tangents"].reshape(3, 2, 4, 2, 6).movedim(3, 2),
        given["x"].reshape(4, 2, 6).movedim(1, 0),
        *(s.reshape(4, 2).T for s in statistics),
    )
    assert torch.equal(got, expected.reshape(3, 2, 4, 2, 6).movedim(3, 0))


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
