"""Make and copy HDF5 objects in few calls.

A unit is some dozens of small objects, for which the comfort of h5py's upper layer takes several times what HDF5 takes.
"""

from __future__ import annotations

import functools

import h5py
import numpy as np
from h5py import h5a, h5d, h5ds, h5g, h5o, h5p, h5s, h5t

_SCALAR = h5s.create(h5s.SCALAR)

_LINK = h5p.create(h5p.LINK_CREATE)
_LINK.set_create_intermediate_group(True)
_LINK.set_char_encoding(h5t.CSET_UTF8)

_DATASET = h5p.create(h5p.DATASET_CREATE)
_DATASET.set_obj_track_times(False)

_ORDERED = h5p.CRT_ORDER_TRACKED | h5p.CRT_ORDER_INDEXED
_GROUP = h5p.create(h5p.GROUP_CREATE)
_GROUP.set_obj_track_times(False)
_GROUP.set_link_creation_order(_ORDERED)
_GROUP.set_attr_creation_order(_ORDERED)

#: What does not survive a copy: the references that dimension scales keep on both sides; and an attribute of format 1.1
#: at which xarray's netCDF4 engine stumbles.
_NOT_COPIED = (b"DIMENSION_LIST", b"REFERENCE_LIST", b"_Encoding")


@functools.lru_cache(1024)
def _text_type(size: int) -> h5t.TypeID:
    kind = h5t.C_S1.copy()
    kind.set_size(size)
    kind.set_strpad(h5t.STR_NULLPAD)
    kind.set_cset(h5t.CSET_UTF8)
    return kind


@functools.lru_cache(256)
def _number_type(dtype: np.dtype) -> h5t.TypeID:
    return h5t.py_create(dtype, logical=True)


def width(size: int) -> int:
    """Of how many bytes a text is stored: netCDF readers take a text of width 1 for raw characters."""
    return max(2, size)


def set_bytes(node: h5py.HLObject, name: str, raw: bytes) -> None:
    """Give a node a fixed-width UTF-8 attribute that it does not have yet."""
    size = width(len(raw))
    kind = _text_type(size)
    h5a.create(node.id, name.encode(), kind, _SCALAR).write(np.array(raw, dtype=f"S{size}"), kind)


def make_group(parent: h5py.Group, name: str) -> h5py.Group:
    """A group that keeps the order of its entries and attributes."""
    return h5py.Group(h5g.create(parent.id, name.encode(), lcpl=_LINK, gcpl=_GROUP))


def make_text(parent: h5py.Group, name: str, raw: bytes) -> h5py.Dataset:
    """A scalar dataset of fixed-width UTF-8."""
    size = width(len(raw))
    kind = _text_type(size)
    node = h5d.create(parent.id, name.encode(), kind, _SCALAR, _DATASET, _LINK)
    node.write(_SCALAR, _SCALAR, np.array(raw, dtype=f"S{size}"), kind)
    return h5py.Dataset(node)


def make_values(parent: h5py.Group, name: str, data: np.ndarray) -> h5py.Dataset:
    """A dataset in one piece: numbers, or fixed-width UTF-8 of at least 2 bytes."""
    kind = _text_type(data.dtype.itemsize) if data.dtype.kind == "S" else _number_type(data.dtype)
    space = h5s.create_simple(data.shape) if data.ndim else _SCALAR
    node = h5d.create(parent.id, name.encode(), kind, space, _DATASET, _LINK)
    if data.size:
        node.write(h5s.ALL, h5s.ALL, np.require(data, requirements="C"), kind)
    return h5py.Dataset(node)


def make_dimension(parent: h5py.Group, name: str, size: int) -> h5py.Dataset:
    """A dataset that has a length and no values."""
    return h5py.Dataset(
        h5d.create(parent.id, name.encode(), h5t.IEEE_F32BE, h5s.create_simple((size,)), _DATASET, _LINK)
    )


def make_scale(node: h5py.Dataset, title: str) -> None:
    """Make a dataset a dimension scale."""
    h5ds.set_scale(node.id, title.encode())


def open_group(parent: h5py.Group, name: str) -> h5py.Group:
    """A group of a file of ours that is being made."""
    return h5py.Group(h5g.open(parent.id, name.encode()))


def open_dataset(parent: h5py.Group, name: str) -> h5py.Dataset:
    """A dataset of a file of ours that is being made."""
    return h5py.Dataset(h5d.open(parent.id, name.encode()))


def rename(group: h5py.Group, name: str, other: str) -> None:
    """Give an entry of a group of a file of ours that is being made another name."""
    group.id.links.move(name.encode(), group.id, other.encode(), lcpl=_LINK)


def replace_text(node: h5py.Dataset, raw: bytes) -> None:
    """Give a dataset of `make_text` another text, of as many bytes."""
    size = len(raw)
    node.id.write(_SCALAR, _SCALAR, np.array(raw, dtype=f"S{size}"), _text_type(size))


def replace_values(node: h5py.Dataset, data: np.ndarray) -> None:
    """Give a dataset of `make_values` other numbers, of the same type and shape."""
    if data.size:
        node.id.write(h5s.ALL, h5s.ALL, np.require(data, requirements="C"), _number_type(data.dtype))


def read_text(node: h5py.Dataset) -> bytes:
    """The bytes of a scalar dataset that was found to be one fixed-width text, without those that fill it up."""
    kind = node.id.get_type()
    value = np.empty((), dtype=("S", kind.get_size()))
    node.id.read(_SCALAR, _SCALAR, value, kind)
    return bytes(value[()])


def read_float(node: h5py.Dataset) -> float:
    """The value of a scalar dataset that was found to be one float."""
    value = np.empty((), np.float64)
    node.id.read(_SCALAR, _SCALAR, value)
    return float(value)


def copy(source: h5py.HLObject, parent: h5py.Group, name: str) -> None:
    """Copy a dataset, or a group of datasets, into another file without unpacking anything; orders are kept.

    Args:
        source: A dataset as `guard.dataset` gives it, or a group that `guard.holds_datasets_only`.
        parent: Where to.
        name: Under which name.
    """
    h5o.copy(source.id, b".", parent.id, name.encode(), None, _LINK)


def detach_scales(node: h5py.Dataset) -> None:
    """Forget the dimension scales of a dataset that was copied; those beside the copy are to be attached anew."""
    for name in _NOT_COPIED:
        if h5a.exists(node.id, name):
            h5a.delete(node.id, name)


def detach_own(node: h5py.Dataset, *, scale: bool) -> None:
    """`detach_scales` of what this process wrote: scales have references of one kind, other datasets of the other."""
    name = b"REFERENCE_LIST" if scale else b"DIMENSION_LIST"
    if h5a.exists(node.id, name):
        h5a.delete(node.id, name)


def attach_scale(node: h5py.Dataset, axis: int, scale: h5py.Dataset) -> None:
    """Attach a dimension scale to an axis."""
    h5ds.attach_scale(node.id, scale.id, axis)
