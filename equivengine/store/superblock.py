"""The checksum of an HDF5 file's superblock, which HDF5 before 2.0 leaves wrong in the image of an open file.

There, `get_file_image` clears the mark of a file that is open for writing, and keeps the checksum that was made with
the mark; nothing can open such an image. A superblock of version 2 is 44 bytes and their checksum (HDF5 file format
specification, II.A), Jenkins' lookup3 (HDF5's ``H5_checksum_lookup3``).
"""

from __future__ import annotations

import h5py

_SIZE = 44
_VERSION = 8  # where a superblock says its version
_CLEARS_MARK_ALONE = tuple(h5py.version.hdf5_version_tuple) < (2,)
_MASK = 0xFFFFFFFF


def sealed(image: bytes) -> bytes:
    """The image of an open file as HDF5 2.0 gives it.

    Args:
        image: A file that begins with a superblock of version 2, as `get_file_image` of the HDF5 at hand gives it.
    """
    return with_checksum(image) if _CLEARS_MARK_ALONE else image


def with_checksum(image: bytes) -> bytes:
    """The image with the checksum that belongs to its superblock."""
    if image[_VERSION] != 2:
        raise ValueError(f"expected a superblock of version 2, got {image[_VERSION]}")
    return b"".join((image[:_SIZE], lookup3(image[:_SIZE]).to_bytes(4, "little"), memoryview(image)[_SIZE + 4 :]))


def lookup3(data: bytes) -> int:
    """Bob Jenkins' hash of bytes, ``hashlittle`` of lookup3.c with an initial value of 0; 32 bits."""
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    last = max(0, (len(data) - 1) // 12 * 12)
    for at in range(0, last, 12):
        a, b, c = (a + _word(data, at), b + _word(data, at + 4), c + _word(data, at + 8))
        a, c = (a - c) & _MASK ^ _rotated(c, 4), c + b
        b, a = (b - a) & _MASK ^ _rotated(a, 6), a + c
        c, b = (c - b) & _MASK ^ _rotated(b, 8), b + a
        a, c = (a - c) & _MASK ^ _rotated(c, 16), c + b
        b, a = (b - a) & _MASK ^ _rotated(a, 19), a + c
        c, b = (c - b) & _MASK ^ _rotated(b, 4), b + a
    if not data:
        return c
    a, b, c = a + _word(data, last), b + _word(data, last + 4), c + _word(data, last + 8)
    c = (c ^ b) - _rotated(b, 14)
    a = (a ^ c) - _rotated(c, 11)
    b = (b ^ a) - _rotated(a, 25)
    c = (c ^ b) - _rotated(b, 16)
    a = (a ^ c) - _rotated(c, 4)
    b = (b ^ a) - _rotated(a, 14)
    c = (c ^ b) - _rotated(b, 24)
    return c & _MASK


def _word(data: bytes, at: int) -> int:
    """Four bytes as a number; zeros beyond the end."""
    return int.from_bytes(data[at : at + 4], "little")


def _rotated(value: int, bits: int) -> int:
    value &= _MASK
    return value << bits & _MASK | value >> (32 - bits)
