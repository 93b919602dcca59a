"""The operator behind random directions: one set of bits from every implementation, and how good the numbers are."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from equivengine.ops import extension, record
from equivengine.ops.sketch import minus_two_log, normal_pair, sketch

KINDS = [("gaussian", 1), ("sign", 1), ("sign", 3), ("sign", 2**31)]
kinds = pytest.mark.parametrize(("kind", "sparsity"), KINDS)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)

#: Key 7, vectors 2^63 + 5 and 2^63 + 6. Normal numbers from coordinate 2^33 + 1 on; signs of sparsity 3 from 0 on.
GAUSSIAN = [
    [
        "0x1.9693620000000p+1",
        "-0x1.7661060000000p+0",
        "-0x1.5d3aa00000000p-2",
        "-0x1.93ff540000000p-2",
        "0x1.d3f7b60000000p-1",
        "0x1.ef4b820000000p+0",
    ],
    [
        "-0x1.39623c0000000p-2",
        "-0x1.48b92a0000000p-1",
        "-0x1.60a7d80000000p-1",
        "-0x1.2a51660000000p+0",
        "0x1.8cb0c80000000p-1",
        "0x1.877af60000000p-5",
    ],
]
SIGN = [[1, 0, 0, 0, 0, 0, 1, 0, 0, 0, -1, 0], [0, 1, 0, 0, 1, 1, 0, 1, 0, 0, 0, 0]]

fill = torch.ops.equivengine.fill_sketch


def signed(word: int) -> int:
    return word - (1 << 64) if word >= 1 << 63 else word


def by_formula(
    key: int,
    start: int,
    count: int,
    dim: int,
    *,
    kind: str,
    sparsity: int = 1,
    offset: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Tensor:
    out = torch.full((count, dim), torch.nan, dtype=dtype, device=device)
    fill.reference(out, signed(key), signed(start), offset, kind, sparsity)
    return out


def assert_same_bits(a: Tensor, b: Tensor) -> None:
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    bits = torch.int32 if a.dtype == torch.float32 else torch.int64
    assert torch.equal(a.cpu().view(bits), b.cpu().view(bits))


@settings(max_examples=60, deadline=None)
@given(
    key=st.integers(0, 2**64 - 1),
    start=st.one_of(st.integers(0, 2**64 - 4), st.integers(2**63 - 4, 2**63 + 4), st.just(2**64 - 4)),
    count=st.integers(0, 4),
    dim=st.integers(0, 200),
    offset=st.one_of(st.integers(0, 9), st.integers(2**34 - 9, 2**34 + 9), st.just(2**58 - 200)),
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_compiled_kernels_have_the_bits_of_the_formula(key, start, count, dim, offset, kind, dtype):
    arguments = {"kind": kind[0], "sparsity": kind[1], "offset": offset, "dtype": dtype}
    assert_same_bits(
        sketch(key, start, count, dim, device="cpu", **arguments), by_formula(key, start, count, dim, **arguments)
    )


@kinds
@dtypes
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_many_numbers_have_the_bits_of_the_formula_for_any_number_of_threads(compiled, kind, sparsity, dtype, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        arguments = {"kind": kind, "sparsity": sparsity, "offset": 3, "dtype": dtype}
        assert_same_bits(sketch(9, 5, 7, 30_011, device="cpu", **arguments), by_formula(9, 5, 7, 30_011, **arguments))
    finally:
        torch.set_num_threads(before)


@dtypes
def test_float64_has_the_numbers_of_float32(dtype):
    for kind, sparsity in KINDS:
        out = sketch(1, 2, 3, 1001, kind=kind, sparsity=sparsity, dtype=dtype, device="cpu")
        assert torch.equal(out.double(), by_formula(1, 2, 3, 1001, kind=kind, sparsity=sparsity).double())


def test_the_bits_stay_what_they_are():
    """Stored results name their random streams: these numbers may never change."""
    gaussian = sketch(7, 2**63 + 5, 2, 6, kind="gaussian", offset=2**33 + 1, dtype=torch.float32, device="cpu")
    assert [[value.hex() for value in row] for row in gaussian.tolist()] == GAUSSIAN
    sign = sketch(7, 2**63 + 5, 2, 12, kind="sign", sparsity=3, dtype=torch.float32, device="cpu")
    assert (sign / sign.abs().max()).int().tolist() == SIGN
    assert sign.abs().max().item() == torch.tensor(3.0).sqrt().item()


def words(count: int, seed: int) -> Tensor:
    """Random words, and those at which the formulas change their branch."""
    generator = torch.Generator().manual_seed(seed)
    edges = [0, 1, 2, 3, 0x55555555, 0xAAAAAAAA, 2**32 - 1, 2**32 - 2]
    edges += [2**k + step for k in range(2, 32) for step in (-1, 0, 1)]
    return torch.cat([torch.tensor(edges), torch.randint(0, 2**32, (count,), generator=generator)])


def test_the_logarithm_keeps_its_relative_accuracy_at_both_ends():
    word = words(500_000, seed=0)
    odd = (word | 1).double()
    exact = -2 * torch.where(odd < 2**31, torch.log(odd / 2**32), torch.log1p(-(2**32 - odd) / 2**32))
    assert ((minus_two_log(word).double() - exact) / exact).abs().max() <= 3e-7


def test_numbers_are_those_of_box_and_muller_to_single_precision():
    radius_word, angle_word = words(500_000, seed=1), words(500_000, seed=2).flip(0)
    odd = (radius_word | 1).double()
    log = torch.where(odd < 2**31, torch.log(odd / 2**32), torch.log1p(-(2**32 - odd) / 2**32))
    radius = (-2 * log).sqrt()
    within = ((angle_word << 2 & 0xFFFFFFFF) | 2) ^ 0x80000000
    angle = (within - 0x80000000).double() * (math.pi / 2 / 2**32)
    along = torch.where(angle_word >= 2**31, -radius * angle.cos(), radius * angle.cos())
    across = radius * angle.sin()
    swapped = (angle_word >> 30 & 1).bool()
    exact = torch.where(swapped, across, along), torch.where(swapped, along, across)
    for ours, wanted in zip(normal_pair(radius_word, angle_word), exact, strict=True):
        assert (ours.double() - wanted).abs().max() <= 2e-6
        assert ((ours.double() - wanted) / wanted).abs().max() <= 5e-7


def test_the_largest_number_has_its_documented_size():
    radius, _ = normal_pair(torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert radius.tolist() == pytest.approx([math.sqrt(2 * 32 * math.log(2))] * 2, rel=1e-6)
    assert (radius < 6.67).all()


@pytest.mark.parametrize("overload", ["default", "reference"])
@pytest.mark.parametrize(
    ("out", "kind", "sparsity", "message"),
    [
        (torch.empty(2, 3, dtype=torch.bfloat16), "gaussian", 1, "expected dtype float32 or float64"),
        (torch.empty(2, 3), "cauchy", 1, r"gaussian \| sign"),
        (torch.empty(2, 3), "sign", 0, r"1 to 2\^31"),
        (torch.empty(2, 3), "sign", 2**31 + 1, r"1 to 2\^31"),
    ],
)
def test_refuses(compiled, overload, out, kind, sparsity, message):
    with pytest.raises((TypeError, ValueError), match=message):
        getattr(fill, overload)(out, 0, 0, 0, kind, sparsity)


def test_the_kernel_refuses_a_tensor_that_is_not_dense(compiled):
    with pytest.raises(ValueError, match="contiguous"):
        fill.default(torch.empty(3, 2).T, 0, 0, 0, "gaussian", 1)


@pytest.mark.parametrize("overload", ["default", "reference"])
@kinds
def test_opcheck(overload, kind, sparsity):
    torch.library.opcheck(getattr(fill, overload), (torch.empty(3, 5), 1, 2, 3, kind, sparsity))


def test_works_inside_transforms():
    expected = sketch(1, 0, 2, 3, kind="gaussian", dtype=torch.float64, device="cpu")

    def project(x: Tensor) -> Tensor:
        return sketch(1, 0, 2, 3, kind="gaussian", dtype=torch.float64, device="cpu") @ x

    x = torch.arange(12.0, dtype=torch.float64).reshape(4, 3)
    assert torch.equal(torch.func.vmap(project)(x), torch.stack([expected @ row for row in x]))
    assert torch.allclose(torch.func.jacfwd(project)(x[1]), expected)
    assert torch.allclose(torch.func.jacrev(project)(x[1]), expected)


def test_notes_what_ran(compiled):
    with record.recording() as log:
        sketch(1, 0, 2, 3, kind="gaussian", dtype=torch.float64, device="cpu")
    assert log.paths() == {"sketch": {"cpu-base": 1}}


def test_without_the_extension_the_formula_runs_and_says_so(in_fresh_process):
    source = """
import torch
from equivengine.ops import record
from equivengine.ops.sketch import sketch
with record.recording() as log:
    out = sketch(7, 2**63 + 5, 2, 6, kind="gaussian", offset=2**33 + 1, dtype=torch.float32, device="cpu")
print([log.paths(), [[value.hex() for value in row] for row in out.tolist()]])
"""
    paths, numbers = eval(in_fresh_process(source, EQUIVENGINE_EXTENSION="off"))
    assert paths == {"sketch": {"reference": 1}}
    assert numbers == GAUSSIAN


@pytest.mark.cuda
@kinds
@dtypes
def test_cuda_has_the_bits_of_the_formula(kind, sparsity, dtype):
    if not torch.cuda.is_available() or extension.kernel_path("cuda") is None:
        pytest.skip("no CUDA device, or no CUDA kernels in the extension")
    for count, dim, offset in [(1, 1, 0), (5, 4099, 3), (300, 64, 2**34), (3, 150_528, 4)]:
        arguments = {"kind": kind, "sparsity": sparsity, "offset": offset, "dtype": dtype}
        with record.recording() as log:
            out = sketch(3, 2**63 - 2, count, dim, device="cuda", **arguments)
        assert log.paths() == {"sketch": {"cuda": 1}}
        for device in ("cpu", "cuda"):
            assert_same_bits(out, by_formula(3, 2**63 - 2, count, dim, device=device, **arguments))
