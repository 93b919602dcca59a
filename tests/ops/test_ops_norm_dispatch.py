"""Rules of the norms as torch sees them: arguments, shapes, vmap, and what goes to the reference."""

import itertools

import pytest
import torch
from norm_cases import (
    DTYPES,
    FLOAT32,
    FLOAT64,
    RULES,
    VJPS,
    WIDTHS,
    assert_at_most_twice_the_reference_error,
    names,
    rows,
    rules,
)

from equivengine.ops.layer_norm import layer_norm_vjp


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
