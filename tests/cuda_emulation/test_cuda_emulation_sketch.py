"""The CUDA kernel of random sketches, emulated: bit for bit the formula's numbers, however threads are arranged."""

import pytest
import torch
from torch import Tensor

KINDS = [("gaussian", 1), ("sign", 1), ("sign", 3)]
# count, dim, offset: whole blocks of four coordinates, blocks cut at either end, rows shorter than a block, several
# steps of the grid.
SHAPES = [(3, 1024, 0), (2, 1001, 0), (2, 1000, 3), (9, 2, 3), (7, 1, 0), (2, 60_000, 2**34 + 4)]

fill_reference = torch.ops.equivengine.fill_sketch.reference
kinds = pytest.mark.parametrize(("kind", "sparsity"), KINDS)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def bits(t: Tensor) -> Tensor:
    return t.view(torch.int32 if t.dtype == torch.float32 else torch.int64)


@kinds
@dtypes
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits_are_those_of_the_formula(kernels, kind, sparsity, dtype, shape):
    count, dim, offset = shape
    ours, wanted = (torch.full((count, dim), torch.nan, dtype=dtype) for _ in range(2))
    kernels.fill_sketch(ours, 5, 2**63 - 2, offset, kind, sparsity)
    fill_reference(wanted, 5, 2**63 - 2, offset, kind, sparsity)
    assert torch.equal(bits(ours), bits(wanted))


@dtypes
def test_a_result_that_is_not_aligned_has_the_same_bits(kernels, dtype):
    holder, wanted = torch.full((2 * 64 + 1,), torch.nan, dtype=dtype), torch.empty(2, 64, dtype=dtype)
    kernels.fill_sketch(holder[1:].view(2, 64), 5, 0, 0, "gaussian", 1)
    fill_reference(wanted, 5, 0, 0, "gaussian", 1)
    assert torch.equal(bits(holder[1:].view(2, 64)), bits(wanted))
    assert holder[0].isnan()


def test_bits_depend_neither_on_the_order_of_threads_nor_on_the_number_of_processors(kernels):
    results = []
    for kernels.device.order, kernels.device.processors in [(0, 1), (1, 1), (2, 3), (0, 200)]:
        results.append(torch.full((5, 20_003), torch.nan))
        kernels.fill_sketch(results[-1], 5, 0, 1, "gaussian", 1)
    assert all(torch.equal(bits(results[0]), bits(other)) for other in results[1:])
