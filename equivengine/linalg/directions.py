"""Random directions that are a function of (key, vector, coordinate) alone, whatever the chunking, device and order."""

from __future__ import annotations

import torch

from equivengine.errors import UsageError
from equivengine.ops.sketch import LARGEST_SPARSITY, sketch

#: A coordinate's number must leave room for the kind of the vector in the generator's counter.
_LARGEST_DIM = 1 << 58


def gaussian_directions(
    key: int,
    start: int,
    count: int,
    dim: int,
    *,
    offset: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Standard normal vectors number ``start`` to ``start + count - 1`` of the stream ``key``.

    Every number has a counter of its own in a Philox generator (Salmon et al., SC 2011). So a stream can be drawn in
    chunks of vectors or of coordinates, in any order, by any number of threads, on CPU and CUDA: the bits are the same.
    The numbers are within 2e-6 of exact normal ones (Box and Muller, 1958), and at most 6.67 in size.

    Args:
        key: Which stream; any integer in [0, 2**64).
        start: Index of the first vector; start + count may be at most 2**64.
        count: How many vectors.
        dim: How many coordinates of each, m.
        offset: Index of the first coordinate; offset + dim may be at most 2**58.
        dtype: float64 or float32. Both hold the same numbers, which are float32's.
        device: Where they are made.

    Returns:
        Tensor [count, dim], not normalized.

    Raises:
        UsageError: If an argument is out of these ranges.
    """
    _check(key, start, count, dim, offset, dtype)
    return sketch(key, start, count, dim, kind="gaussian", offset=offset, dtype=dtype, device=device)


def sign_directions(
    key: int,
    start: int,
    count: int,
    dim: int,
    *,
    sparsity: int = 1,
    offset: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Random signs (Rademacher vectors), or sparse ones with one entry in ``sparsity`` on average.

    Entries are independent: +-sqrt(sparsity) with probability 1 / (2 sparsity) each, otherwise 0, so their mean is 0
    and their variance 1 (Achlioptas, "Database-friendly random projections", PODS 2001; he has sparsity 1 and 3).
    Sparse sign matrices with a fixed number of non-zeros in each column (Martinsson and Tropp, Acta Numerica 2020,
    section 9.2) are not this: there a column ties all vectors of a sketch together, so that none could be drawn
    without knowing how many there are.

    Args:
        key: Which stream, as for `gaussian_directions`, whose vectors of the same key are independent of these. Vectors
            of the same key with another sparsity are not.
        start: Index of the first vector; start + count may be at most 2**64.
        count: How many vectors.
        dim: How many coordinates of each, m.
        sparsity: The reciprocal of the share of entries that are not zero, 1 to 2**31.
        offset: Index of the first coordinate; offset + dim may be at most 2**58.
        dtype: float64 or float32. Both hold the same numbers: sqrt(sparsity) is rounded to float32.
        device: Where they are made.

    Returns:
        Tensor [count, dim], not normalized.

    Raises:
        UsageError: If an argument is out of these ranges.
    """
    _check(key, start, count, dim, offset, dtype)
    _require("sparsity", sparsity, 1, LARGEST_SPARSITY)
    return sketch(key, start, count, dim, kind="sign", sparsity=sparsity, offset=offset, dtype=dtype, device=device)


def _check(key: int, start: int, count: int, dim: int, offset: int, dtype: torch.dtype) -> None:
    _require("key", key, 0, 2**64 - 1)
    _require("count", count, 0, 2**63 - 1)
    _require("start", start, 0, 2**64 - count)
    _require("dim", dim, 0, _LARGEST_DIM)
    _require("offset", offset, 0, _LARGEST_DIM - dim)
    if dtype not in (torch.float32, torch.float64):
        raise UsageError("dtype of random directions is not usable", expected="float32 or float64", got=dtype)
    if count * dim * dtype.itemsize >= 2**63:
        raise UsageError(f"{count:,} directions of {dim:,} coordinates fit no memory", hint="draw them in chunks")


def _require(name: str, value: int, lowest: int, highest: int) -> None:
    if not lowest <= value <= highest:
        raise UsageError(f"{name} is out of range", expected=f"{lowest} to {highest}", got=value)
