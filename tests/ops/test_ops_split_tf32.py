"""split_tf32: float32 numbers as sums of two TF32 numbers, bit by bit, and what products of the parts are worth."""

import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from equivengine.ops import extension
from equivengine.ops.split_tf32 import round_to_tf32, split_tf32

NORMAL = st.floats(width=32, allow_nan=False, allow_infinity=False).filter(
    lambda x: x == 0 or 2**-100 <= abs(x) < 2**127
)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * 10 ** torch.empty(shape).uniform_(-3, 3, generator=generator)


def is_tf32(x: Tensor) -> bool:
    return not (x.contiguous().view(torch.int32) & 0x1FFF).any()


@settings(max_examples=200, deadline=None)
@given(x=NORMAL)
def test_high_is_a_nearest_tf32_number(x):
    high = round_to_tf32(torch.tensor([x], dtype=torch.float32))
    assert is_tf32(high)
    (bits,) = struct.unpack("I", struct.pack("f", x))
    below, above = (struct.unpack("f", struct.pack("I", (bits & ~0x1FFF) + step))[0] for step in (0, 0x2000))
    nearest = min(abs(x - below), abs(x - above))
    assert abs(x - high.item()) == nearest


@settings(max_examples=200, deadline=None)
@given(x=NORMAL)
def test_the_parts_add_up(x):
    high, low = split_tf32(torch.tensor([x], dtype=torch.float32))
    assert is_tf32(high)
    assert is_tf32(low)
    assert abs(high.double() + low.double() - torch.tensor([x]).double()) <= 2**-22 * abs(x)


def test_ties_go_away_from_zero():
    ulp = 2.0**-10
    x = torch.tensor([1 + ulp / 2, 1 + 3 * ulp / 2, -1 - ulp / 2])
    assert round_to_tf32(x).tolist() == [1 + ulp, 1 + 2 * ulp, -1 - ulp]


def test_what_is_not_finite_has_no_low_part():
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, torch.finfo(torch.float32).max])
    high, low = split_tf32(x)
    assert high[0].isnan()
    assert high[1:].tolist() == [torch.inf, -torch.inf, torch.inf]
    assert low.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("depth", [3, 64, 768])
def test_three_products_of_the_parts_are_a_float32_product(depth):
    a, b = numbers(20, depth), numbers(depth, 30, seed=1)
    exact = a.double() @ b.double()
    (a_high, a_low), (b_high, b_low) = ([part.double() for part in split_tf32(t)] for t in (a, b))
    three = a_low @ b_high + a_high @ b_low + a_high @ b_high
    terms = a.double().abs() @ b.double().abs()
    # Two parts of 2^-22 and the dropped product of the low parts, each at most 2^-11.
    assert ((three - exact).abs() <= 3 * 2**-22 * terms).all()
    assert (three - exact).norm() <= (a @ b - exact).norm() + 2**-22 * exact.norm()
    assert (a_high @ b_high - exact).norm() > 100 * (three - exact).norm()


def test_any_strides_and_shapes():
    x = numbers(6, 5, 4)
    expected = split_tf32(x)
    for view in (lambda t: t.movedim(0, 2), lambda t: t[:, ::2], lambda t: t[:0], lambda t: t[2, 1, 3]):
        for ours, whole in zip(split_tf32(view(x)), expected, strict=True):
            assert torch.equal(ours, view(whole))
    for ours, whole in zip(torch.func.vmap(split_tf32, 1, 1)(x), expected, strict=True):
        assert torch.equal(ours, whole)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(TypeError, match="expected dtype"):
        split_tf32(torch.ones(3, dtype=dtype))


@pytest.mark.parametrize("overload", ["kernel", "plain"])
def test_opcheck(overload):
    torch.library.opcheck(getattr(split_tf32, overload), (numbers(3, 4),))


@pytest.mark.cuda
def test_cuda_has_the_bits_of_the_formula():
    if not torch.cuda.is_available() or extension.kernel_path("cuda") is None:
        pytest.skip("no CUDA device, or no CUDA kernels in the extension")
    for size in (1, 257, 4096):
        x = numbers(size)
        x[:1] = torch.nan
        assert split_tf32.path(x.cuda()) == "cuda"
        for ours, expected in zip(split_tf32(x.cuda()), split_tf32.reference(x), strict=True):
            assert torch.equal(ours.cpu().view(torch.int32), expected.view(torch.int32))
