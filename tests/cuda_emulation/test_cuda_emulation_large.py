"""Tensors of more than 2^32 elements, emulated: indices stay right where 32 bits overflow, and grids within limits.

Tensors lie in memory that is mapped and not there until it is touched. The first and last rows and directions hold
numbers, and only the blocks at the ends of a grid run.
"""

import mmap
from collections.abc import Sequence
from math import prod

import emulated
import pytest
import torch
from test_cuda_emulation_attention import Case
from test_cuda_emulation_rows import RULES, arguments
from test_cuda_emulation_sketch import bits
from torch import Tensor

from equivengine.ops.activation import scale_tangents
from equivengine.ops.attention import cotangents_of
from equivengine.ops.split_tf32 import split_tf32

NOT_RESERVED = 0x4000  # MAP_NORESERVE of Linux, which `mmap` does not name before Python 3.12
HALF = torch.bfloat16


def sparse(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Zeros that take memory where they are touched."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NOT_RESERVED
    try:
        memory = mmap.mmap(-1, prod(shape) * dtype.itemsize, flags=flags)
    except (OSError, ValueError) as error:
        pytest.skip(f"this system maps no large memory: {error}")
    return torch.frombuffer(memory, dtype=dtype).view(tuple(shape))


def ends(t: Tensor, sizes: tuple[int, ...], of: Sequence[int]) -> Tensor:
    """A large tensor whose first and last entries along the dimensions `of` are those of `t`, which has two of each."""
    large = sparse([sizes[i] if i in of else length for i, length in enumerate(t.shape)], t.dtype)
    large[tuple(slice(None, None, sizes[i] - 1) if i in of else slice(None) for i in range(t.dim()))] = t
    return large


@pytest.fixture
def at_the_ends(kernels, monkeypatch):
    """The kernels, of whose blocks those at the ends run, with results in sparse memory."""
    monkeypatch.setattr(emulated, "unwritten", sparse)
    kernels.device.edge = 2
    return kernels


@pytest.mark.parametrize("width", [1024, 1021])  # by packs, and by elements
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rows_beyond_32_bits(kernels, at_the_ends, rule, width):
    k, r = 6, 2**20 + 1
    small = arguments(rule, k, 2, width, (HALF, HALF))
    weight = (len(small) - 2 if "vjp" in rule.name else len(small) - 1) if "norm" in rule.name else None
    large = [t if i == weight else ends(t, (r, r), [int(t.dim() == 3)]) for i, t in enumerate(small)]
    assert large[0][:-1].numel() > 2**32
    if rule is scale_tangents:  # elementwise: blocks have no rows, but the last two at least 256 elements
        out = at_the_ends.scale_tangents(large[0].flatten(1), large[1].flatten())
        expected = small[0] * small[1]
        assert torch.equal(out[:, :256], expected[:, 0, :256])
        assert torch.equal(out[:, -256:], expected[:, 1, -256:])
    else:
        out = getattr(at_the_ends, rule.name)(*large)
        kernels.device.edge = 0
        assert torch.equal(out[:, :: r - 1], getattr(kernels, rule.name)(*small))


def test_attention_beyond_32_bits(kernels, at_the_ends):
    many, heads = (4, 2**20, 16), (0, 1, 2)
    case = Case((2, 2, 2, 5, 5, 16, 16), HALF)
    q, k, v, p, *rest = case.primal
    dq, dk, dv, g = (ends(t, many, heads) for t in (*case.tangents, case.g))
    primal = (*(ends(t, many[1:], (0, 1)) for t in (q, k, v, p)), *rest)
    assert dq.numel() > 2**32
    jvp = at_the_ends.attention_jvp(dq, dk, dv, *primal)
    vjp = at_the_ends.attention_vjp(g, *primal)
    kernels.device.edge = 0
    expected = kernels.attention_jvp(*case.tangents, *case.primal)
    for end in (0, -1):
        assert torch.equal(jvp[end, end, end], expected[end, end, end])
    pulled = cotangents_of(vjp, *primal[:3])
    wanted = cotangents_of(kernels.attention_vjp(case.g, *case.primal), q, k, v)
    for ours, plain in zip(pulled, wanted, strict=True):
        for end in (0, -1):
            assert torch.equal(ours[end, end, end], plain[end, end, end])


@pytest.mark.parametrize("dim", [2**30, 2**30 + 3])
def test_sketches_beyond_32_bits(at_the_ends, dim):
    at_the_ends.device.processors = 2**30
    out = sparse((5, dim), torch.float32)
    at_the_ends.fill_sketch(out, 5, 7, 0, "gaussian", 1)
    for row, offset in ((0, 0), (4, dim - 100)):
        wanted = torch.empty(1, 100)
        torch.ops.equivengine.fill_sketch.reference(wanted, 5, 7 + row, offset, "gaussian", 1)
        assert torch.equal(bits(out[row, offset : offset + 100]), bits(wanted[0]))


@pytest.mark.parametrize("size", [2**32 + 4, 2**32 + 5])
def test_splits_beyond_32_bits(at_the_ends, size):
    at_the_ends.device.processors = 2**30
    x = sparse((size,), torch.float32)
    x[:100], x[-100:] = torch.randn(100), torch.randn(100)
    high, low = at_the_ends.split_tf32(x)
    for end in (slice(100), slice(-100, None)):
        assert all(map(torch.equal, (high[end], low[end]), split_tf32.reference(x[end])))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_grid_of_many_directions_is_within_limits(kernels, at_the_ends, rule):
    at_the_ends.device.processors = 10**6
    small = arguments(rule, 4, 1, 3, (HALF, HALF))
    k = 4 * 65_535 + 4  # one group more than a grid is tall
    many = [t[:1].expand(k, 1, 3) if t.dim() == 3 else t for t in small]
    out = getattr(at_the_ends, rule.name)(*many)
    kernels.device.edge = 0
    assert torch.equal(out[:: k - 1], getattr(kernels, rule.name)(*small)[:1].expand(2, 1, 3))
