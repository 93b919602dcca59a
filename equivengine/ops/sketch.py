"""Random vectors whose numbers are a pure function of (key, vector, coordinate), bit by bit, on every device.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns a counter and a key into
four random words: coordinates 4 b to 4 b + 3 of vector v have the counter (b, v). So numbers can be made in any order,
in chunks of any shape, by any number of threads. Words become numbers by operations that IEEE 754 rounds in one way
only, none of them fused (csrc/math/gaussian.h): compiled kernels and this module's PyTorch formula agree in every bit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from equivengine.ops import extension, record
from equivengine.ops.registration import NAMESPACE

__all__ = ["KINDS", "LARGEST_SPARSITY", "sketch"]

#: What `sketch` makes; the position in this list is part of the counter.
KINDS = ("gaussian", "sign")
#: A word has 31 bits to decide whether an entry is zero.
LARGEST_SPARSITY = 1 << 31

_WORD = 0xFFFFFFFF
#: Counters that the reference makes at once: its temporaries stay within a cache.
_CHUNK = 1 << 15
_SCHEMA = "(Tensor(a!) out, int key, int start, int offset, str kind, int sparsity) -> ()"

_library = torch.library.Library(NAMESPACE, "FRAGMENT")


def sketch(
    key: int,
    start: int,
    count: int,
    dim: int,
    *,
    kind: str,
    sparsity: int = 1,
    offset: int = 0,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Tensor:
    """Coordinates `offset` to `offset + dim - 1` of the vectors `start` to `start + count - 1`.

    Args:
        key: The stream, in [0, 2**64).
        start: The first vector; start + count <= 2**64.
        count: How many vectors.
        dim: How many coordinates.
        kind: "gaussian": standard normal. "sign": +-sqrt(sparsity) with probability 1/(2 sparsity) each, else 0. The
            two are independent; "sign" vectors of different sparsity under one key are not.
        sparsity: At most `LARGEST_SPARSITY`; 1 for gaussian vectors.
        offset: The first coordinate; offset + dim <= 2**58.
        dtype: float32, or float64 for the same float32 values.
        device: Where the result lies.

    Returns:
        Tensor [count, dim].
    """
    out = torch.empty(count, dim, dtype=dtype, device=device)
    path = _path(out.device.type)
    record.note("sketch", path)
    fill = _reference_overload if path == "reference" else _kernel_overload
    fill(out, _signed(key), _signed(start), offset, kind, sparsity)
    return out


def _path(device: str) -> str:
    compiled = torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::fill_sketch", device.upper())
    if not compiled or extension.kernel_path(device) is None:
        return "reference"
    # One compilation serves every processor: it does not change with the instruction set of the other kernels.
    return "cpu-base" if device == "cpu" else device


def _signed(word: int) -> int:
    """The two's complement of an unsigned 64-bit integer, as the operator takes it."""
    return word - (1 << 64) if word >= 1 << 63 else word


def _reference(out: Tensor, key: int, start: int, offset: int, kind: str, sparsity: int) -> None:
    """The plain PyTorch formula; the steps and their order are those of csrc/math."""
    count, dim = out.shape
    if out.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"out: expected dtype float32 or float64, got {out.dtype}")
    if kind not in KINDS or not 1 <= sparsity <= LARGEST_SPARSITY:
        raise ValueError(f"expected kind gaussian | sign and sparsity 1 to 2^31, got {kind!r} and {sparsity}")
    if out.numel() == 0:
        return
    first, end = offset // 4, -(-(offset + dim) // 4)
    width = min(end - first, _CHUNK)
    rows = max(1, _CHUNK // width)
    for row in range(0, count, rows):
        # int64 wraps around as uint64 does.
        vectors = torch.arange(row, min(row + rows, count), device=out.device)[:, None] + start
        for block in range(first, end, width):
            blocks = torch.arange(block, min(block + width, end), device=out.device)
            words = philox(blocks | (KINDS.index(kind) << 56), vectors, key)
            numbers = _gaussian(words) if kind == "gaussian" else _signs(words, sparsity)
            # The coordinates of these blocks, counted from `offset`, may begin before 0 and end after dim.
            begin = 4 * block - offset
            wanted = numbers[:, max(0, -begin) : dim - begin]
            out[row : row + rows, max(0, begin) : max(0, begin) + wanted.shape[1]] = wanted


def philox(position: Tensor, vector: Tensor, key: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10: four words for every counter.

    Args:
        position: Lower half of the counter, 64 bits as int64; `vector`, the upper half, must broadcast with it.
        vector: See above.
        key: 64 bits, of either sign.

    Returns:
        Four int64 tensors that hold 32-bit unsigned words.
    """
    c0, c1, c2, c3 = (half for counter in (position, vector) for half in (counter & _WORD, counter >> 32 & _WORD))
    k0, k1 = key & _WORD, key >> 32 & _WORD
    for _ in range(10):
        # The upper word of a product is right although the product may wrap around into int64's sign.
        product0, product1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (
            (product1 >> 32 & _WORD) ^ c1 ^ k0,
            product1 & _WORD,
            (product0 >> 32 & _WORD) ^ c3 ^ k1,
            product0 & _WORD,
        )
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return c0, c1, c2, c3


def _gaussian(words: tuple[Tensor, ...]) -> Tensor:
    """[rows, blocks] words -> [rows, 4 blocks] numbers."""
    first, second = normal_pair(words[0], words[1])
    third, fourth = normal_pair(words[2], words[3])
    return torch.stack([first, second, third, fourth], dim=-1).flatten(1)


def _signs(words: tuple[Tensor, ...], sparsity: int) -> Tensor:
    word = torch.stack(words, dim=-1).flatten(1)
    size = torch.tensor(math.sqrt(sparsity), dtype=torch.float32, device=word.device)
    entry = torch.where((word & 1).bool(), -size, size)
    return torch.where(word >> 1 < LARGEST_SPARSITY // sparsity, entry, 0.0)


def normal_pair(radius_word: Tensor, angle_word: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent standard normal float32 numbers from two words (Box and Muller, 1958)."""
    # In float64: PyTorch's float32 sqrt on the CPU is MKL's, an ulp off at times. Rounding this one to float32 gives
    # the correctly rounded root, since the root of a float32 number keeps 2^-51 of its size away from any midpoint
    # between two float32 numbers.
    radius = minus_two_log(radius_word).double().sqrt().float()
    angle = _signed_float(angle_word << 2 & _WORD | 2) * float.fromhex("0x1.921fb6p-32")
    square = angle * angle
    sine = angle + (angle * square) * _polynomial(square, _SINE)
    cosine = 1.0 + square * (-0.5 + square * _polynomial(square, _COSINE))
    along = radius * torch.where((angle_word & 0x80000000).bool(), -cosine, cosine)
    across = radius * sine
    swapped = (angle_word & 0x40000000).bool()
    return torch.where(swapped, across, along), torch.where(swapped, along, across)


def minus_two_log(word: Tensor) -> Tensor:
    """-2 log(u) in float32 for u = (word | 1) / 2^32."""
    distance = _signed_float(word | 1) * 2.0**-32
    u = torch.where(distance < 0, 1.0 + distance, distance)
    two_thirds = 0x3F2AAAAB
    shifted = u.view(torch.int32) - two_thirds
    exponent = shifted >> 23
    mantissa = ((shifted & 0x7FFFFF) + two_thirds).view(torch.float32)
    f = torch.where(exponent == 0, distance, mantissa + -1.0)
    log1p = f + (f * f) * (-0.5 + f * _polynomial(f, _LOG))
    return -2.0 * (exponent.to(torch.float32) * float.fromhex("0x1.62e430p-1") + log1p)


def _signed_float(word: Tensor) -> Tensor:
    """The word read as a signed 32-bit integer, rounded to float32."""
    return ((word ^ 0x80000000) - 0x80000000).to(torch.int32).to(torch.float32)


def _polynomial(x: Tensor, coefficients: list[float]) -> Tensor:
    result = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = coefficient + x * result
    return result


def _hex(*numbers: str) -> list[float]:
    return [float.fromhex(number) for number in numbers]


_LOG = _hex(
    *("0x1.555506p-2", "-0x1.fffef0p-3", "0x1.99d028p-3", "-0x1.559dcap-3"),
    *("0x1.1ed71cp-3", "-0x1.f31148p-4", "0x1.1e66a0p-3", "-0x1.080578p-3"),
)
_SINE = _hex("-0x1.555546p-3", "0x1.110760p-7", "-0x1.994eb4p-13")
_COSINE = _hex("0x1.55554ap-5", "-0x1.6c0c8cp-10", "0x1.9a025ap-16")


def _define(overload: str) -> torch._ops.OpOverload:
    """Define one overload. `registration.define` is for operators that take tangents; this one takes no tensor.

    It fills a tensor that the caller made, since the dispatcher finds the device by an operator's tensors.
    """
    qualified = "fill_sketch" if overload == "default" else f"fill_sketch.{overload}"
    _library.define(qualified + _SCHEMA, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(qualified, _reference, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{qualified}", lambda *_: None, lib=_library)
    defined: torch._ops.OpOverload = getattr(getattr(torch.ops, NAMESPACE).fill_sketch, overload)
    return defined


extension.load()
_kernel_overload = _define("default")
_reference_overload = _define("reference")
