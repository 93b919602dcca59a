"""The K-tangent operators layer_norm_jvp and layer_norm_vjp against float64, on every implementation there is."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from equivengine.ops import extension
from equivengine.ops.layer_norm import layer_norm_jvp, layer_norm_vjp

RULES = [layer_norm_jvp, layer_norm_vjp]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]
WIDTHS = [1, 7, 48, 96, 384, 768, 1000]
rules = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = x.mean(-1)
    return mean, ((x - mean.unsqueeze(-1)).square().mean(-1) + 1e-5).rsqrt()


def rows(
    k: int, r: int, d: int, dtype: torch.dtype, *, weighted: bool = True, seed: int = 0, device: str = "cpu"
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Tangents [K, R, D], x [R, D], mean [R], rstd [R], weight [D], with offsets that make cancellation matter."""
    generator = torch.Generator().manual_seed(seed)
    tangents = (torch.randn(k, r, d, generator=generator, dtype=torch.float64) + 0.5).to(dtype)
    x = (2 * torch.randn(r, d, generator=generator, dtype=torch.float64) + 1).to(dtype)
    weight = torch.randn(d, generator=generator, dtype=torch.float64).to(dtype) if weighted else None
    wide = x.to(accumulator(dtype))
    mean, rstd = statistics(wide)
    moved = [None if t is None else t.to(device) for t in (tangents, x, mean, rstd, weight)]
    return moved[0], moved[1], moved[2], moved[3], moved[4]


def exact(rule, tangents, x, mean, rstd, weight) -> np.ndarray:
    """The rule on the given (rounded) arguments in long double, by the chain rule written out: J t or J^T t."""
    t, x, mean, rstd = (a.cpu().double().numpy().astype(np.longdouble) for a in (tangents, x, mean, rstd))
    w = 1 if weight is None else weight.cpu().double().numpy().astype(np.longdouble)
    xhat = (x - mean[:, None]) * rstd[:, None]
    v = t if rule is layer_norm_jvp else t * w
    along = (v * xhat).mean(-1, keepdims=True)
    projected = rstd[:, None] * (v - v.mean(-1, keepdims=True) - xhat * along)
    return projected * w if rule is layer_norm_jvp else projected


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
    tangents, _, _, rstd, weight = arguments
    terms = tangents.double() * rstd.double().unsqueeze(-1) * (1 if weight is None else weight.double())
    rounding = torch.finfo(accumulator(result.dtype)).eps / 2 * terms.norm().item()
    assert error(result) <= max(2 * error(plain), rounding)


@rules
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("k", [0, 1, 3, 16])
@pytest.mark.parametrize("layout", [Tensor.contiguous, strided, sliced], ids=["contiguous", "strided", "sliced"])
def test_error_is_at_most_twice_that_of_plain_pytorch(rule, dtype, width, k, layout):
    tangents, x, *rest = rows(k, 5, width, dtype)
    arguments = (layout(tangents), layout(x), *rest)
    assert_at_most_twice_the_reference_error(rule, arguments, rule(*arguments))


@rules
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_error_without_weight(rule, dtype):
    arguments = rows(3, 4, 96, dtype, weighted=False)
    assert_at_most_twice_the_reference_error(rule, arguments, rule(*arguments))


@rules
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_rows_gives_no_rows(rule, dtype):
    assert rule(*rows(3, 0, 8, dtype)).shape == (3, 0, 8)


@rules
def test_expanded_tangents_are_one_tangent_repeated(rule):
    tangents, *primal = rows(1, 5, 96, torch.float32)
    assert torch.equal(rule(tangents.expand(4, 5, 96), *primal), rule(tangents, *primal).expand(4, 5, 96))


@settings(max_examples=40, deadline=None)
@given(r=st.integers(1, 4), d=st.integers(1, 70), weighted=st.booleans(), seed=st.integers(0, 2**20))
def test_jvp_and_vjp_are_adjoint(r, d, weighted, seed):
    v, *primal = rows(1, r, d, torch.float64, weighted=weighted, seed=seed)
    u = torch.randn(1, r, d, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    jv, jtu = layer_norm_jvp(v, *primal), layer_norm_vjp(u, *primal)
    # Roundoff of the two sums, in units of the sizes that were added up.
    _, _, rstd, weight = primal
    gain = rstd.max() * (1 if weight is None else weight.abs().max())
    bound = 64 * torch.finfo(torch.float64).eps * gain * v.norm() * u.norm()
    assert ((jv * u).sum() - (v * jtu).sum()).abs() <= bound


@rules
def test_is_linear_in_the_tangents(rule):
    tangents, *primal = rows(2, 5, 96, torch.float64)
    # Powers of two: scaling is exact, so only the addition rounds.
    combined = rule(0.5 * tangents[:1] + 4 * tangents[1:], *primal)
    separate = rule(tangents, *primal)
    expected = 0.5 * separate[:1] + 4 * separate[1:]
    assert (combined - expected).norm() <= 8 * torch.finfo(torch.float64).eps * expected.norm()


@rules
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["tangents", "x", "weight"])
@pytest.mark.parametrize("width", [7, 96])
def test_nan_and_infinity_propagate_as_in_pytorch(rule, dtype, bad, where, width):
    tangents, x, _, _, weight = rows(3, 4, width, dtype)
    {"tangents": tangents[1, 2], "x": x[2], "weight": weight}[where][3] = bad
    arguments = (tangents, x, *statistics(x.to(accumulator(dtype))), weight)
    result, expected = rule(*arguments), rule.reference(*arguments)
    assert torch.equal(result.isnan(), expected.isnan())
    assert torch.equal(result.isinf(), expected.isinf())
    assert not expected.isfinite().all()


@rules
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("k", "r"), [(16, 1), (3, 64)])
def test_bits_do_not_depend_on_the_number_of_threads(rule, dtype, k, r):
    arguments = rows(k, r, 1000, dtype)
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
    tangents, *primal = rows(16, 5, 768, torch.float32)
    together = rule(tangents, *primal)
    assert all(torch.equal(together[k : k + 1], rule(tangents[k : k + 1], *primal)) for k in range(16))


@rules
def test_half_precision_rounds_once(rule):
    """Accumulating in float32, the bfloat16 result is the exact one rounded, but for ties and last-bit roundoff."""
    arguments = rows(3, 8, 768, torch.bfloat16)
    expected = torch.from_numpy(exact(rule, *arguments).astype(np.float64))
    result = rule(*arguments).double()
    assert (result - expected).norm() <= 1.01 * (expected.bfloat16().double() - expected).norm()


@rules
@pytest.mark.parametrize(
    "dtypes",
    [
        {"tangents": torch.float16, "x": torch.float16, "weight": torch.float16},
        {"weight": torch.float64},
        {"tangents": torch.bfloat16},
    ],
    ids=["float16", "mixed weight", "mixed tangents"],
)
def test_what_the_kernels_do_not_take_runs_the_reference(rule, dtypes):
    names = ("tangents", "x", "mean", "rstd", "weight")
    arguments = [t.to(dtypes.get(name, t.dtype)) for name, t in zip(names, rows(3, 4, 48, torch.float32), strict=True)]
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
    ],
)
def test_the_kernel_names_the_argument_that_does_not_fit(compiled, position, bad, message):
    arguments = list(rows(3, 4, 48, torch.float32))
    arguments[position] = bad
    with pytest.raises((ValueError, TypeError), match=message):
        layer_norm_jvp.kernel(*arguments)


_RUN_CASES = """
import torch
from equivengine.ops import extension, layer_norm
cases = torch.load({path!r})
rules = [layer_norm.layer_norm_jvp, layer_norm.layer_norm_vjp]
results = [(rule(*case), rule.path(*case)) for rule in rules for case in cases]
torch.save([extension.load().facts["isa_chosen"], results], {path!r})
"""


@pytest.mark.parametrize("cap", ["base", "avx2", "avx512"])
def test_each_instruction_set_is_as_accurate(compiled, in_fresh_process, tmp_path, cap):
    cases = [rows(3, 5, width, dtype) for dtype in DTYPES for width in WIDTHS]
    path = str(tmp_path / "cases.pt")
    torch.save(cases, path)
    in_fresh_process(_RUN_CASES.format(path=path), EQUIVENGINE_CPU_ISA=cap)
    chosen, results = torch.load(path)
    if chosen != cap:
        pytest.skip(f"this processor or build has no {cap}; it chose {chosen}")
    for (rule, case), (result, taken) in zip(itertools.product(RULES, cases), results, strict=True):
        assert taken == f"cpu-{cap}"
        assert_at_most_twice_the_reference_error(rule, case, result)


@rules
@pytest.mark.parametrize("overload", ["kernel", "plain"])
@pytest.mark.parametrize("weighted", [True, False])
def test_opcheck(rule, overload, weighted):
    arguments = rows(3, 4, 48, torch.float32, weighted=weighted)
    torch.library.opcheck(getattr(rule, overload), arguments)


@rules
def test_the_fake_result_has_the_real_shape_dtype_and_device(rule):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        arguments = [mode.from_tensor(t) for t in rows(3, 4, 48, torch.bfloat16)]
        out = rule.kernel(*arguments)
    assert (out.shape, out.dtype, out.device.type) == ((3, 4, 48), torch.bfloat16, "cpu")


@rules
@pytest.mark.parametrize("batched", list(itertools.product([False, True], repeat=5))[1:])
@pytest.mark.parametrize("size", [0, 3])
def test_vmap_equals_a_loop_for_every_combination_of_batched_arguments(rule, batched, size):
    plain = rows(2, 4, 6, torch.float64)
    arguments, in_dims = [], []
    for index, (tensor, is_batched) in enumerate(zip(plain, batched, strict=True)):
        dim = index % (tensor.dim() + 1) if is_batched else None
        if is_batched:
            tensor = torch.stack([tensor * factor for factor in range(1, max(size, 1) + 1)], dim).narrow(dim, 0, size)
        arguments.append(tensor)
        in_dims.append(dim)
    if size == 0:
        empty = torch.func.vmap(rule, tuple(in_dims))(*arguments)
        assert empty.shape == (0, 2, 4, 6)
        return

    def member(index: int) -> list[Tensor]:
        return [t if dim is None else t.select(dim, index) for t, dim in zip(arguments, in_dims, strict=True)]

    expected = torch.stack([rule(*member(index)) for index in range(size)])
    for out_dim in (0, 1):
        got = torch.func.vmap(rule, tuple(in_dims), out_dim)(*arguments)
        assert torch.equal(got.movedim(out_dim, 0), expected)


@rules
def test_nested_vmap_folds_both_levels(rule):
    tangents, x, mean, rstd, weight = rows(6, 8, 6, torch.float64)
    expected = rule(tangents, x, mean, rstd, weight)
    inner = torch.func.vmap(lambda t, x, m, s: rule(t, x, m, s, weight), (0, None, None, None))
    outer = torch.func.vmap(inner, (2, 0, 0, 0))
    got = outer(
        tangents.reshape(3, 2, 4, 2, 6).movedim(3, 2), x.reshape(4, 2, 6).movedim(1, 0), mean.reshape(4, 2).T,
        rstd.reshape(4, 2).T,
    )  # fmt: skip
    assert torch.equal(got, expected.reshape(3, 2, 4, 2, 6).movedim(3, 0))


@pytest.mark.cuda
@rules
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", [Tensor.contiguous, strided, sliced], ids=["contiguous", "strided", "sliced"])
def test_cuda_error_is_at_most_twice_that_of_plain_pytorch(rule, dtype, layout):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if extension.kernel_path("cuda") is None:
        pytest.skip("the extension is absent or was built without CUDA kernels")
    # 5121 and 20000 exceed what a block keeps in shared memory; 400 rows exceed what is split over tangents.
    for width, k, r in itertools.product([*WIDTHS, 5121, 20000], [0, 1, 3, 16], [5, 400]):
        if width > 1000 and r > 5:
            continue
        tangents, x, *rest = rows(k, r, width, dtype, device="cuda")
        arguments = (layout(tangents), layout(x), *rest)
        assert rule.path(*arguments) == "cuda"
        assert_at_most_twice_the_reference_error(rule, arguments, rule(*arguments))


@pytest.mark.cuda
@rules
def test_cuda_bits_do_not_depend_on_how_tangents_are_split(rule):
    if not torch.cuda.is_available() or extension.kernel_path("cuda") is None:
        pytest.skip("no CUDA device, or no CUDA kernels in the extension")
    tangents, *primal = rows(16, 5, 768, torch.float32, device="cuda")
    together = rule(tangents, *primal)
    assert all(torch.equal(together[k : k + 1], rule(tangents[k : k + 1], *primal)) for k in range(16))
