"""Make and copy HDF5 objects in few calls.

A unit is a hundred small objects, for which the comfort of h5py's upper layer takes several times what HDF5 takes. What
is made here is byte for byte what that layer makes with the options that `equivengine.store` uses.
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
def _text_type(width: int) -> h5t.TypeID:
    kind = h5t.C_S1.copy()
    kind.set_size(width)
    kind.set_strpad(h5t.STR_NULLPAD)
    kind.set_cset(h5t.CSET_UTF8)
    return kind


def _width(raw: bytes) -> int:
    """NetCDF readers take a text of width 1 for raw characters, so no text is narrower than 2."""
    return max(2, len(raw))


def set_bytes(node: h5py.HLObject, name: str, raw: bytes) -> None:
    """Give a node a fixed-width UTF-8 attribute that it does not have yet."""
    kind = _text_type(_width(raw))
    h5a.create(node.id, name.encode(), kind, _SCALAR).write(np.array(raw, dtype=f"S{_width(raw)}"), kind)


def make_group(parent: h5py.Group, name: str) -> h5py.Group:
    """A group that keeps the order of its entries and attributes."""
    return h5py.Group(h5g.create(parent.id, name.encode(), lcpl=_LINK, gcpl=_GROUP))


def make_text(parent: h5py.Group, name: str, raw: bytes) -> h5py.Dataset:
    """A scalar dataset of fixed-width UTF-8."""
    kind = _text_type(_width(raw))
    node = h5d.create(parent.id, name.encode(), kind, _SCALAR, _DATASET, _LINK)
    node.write(_SCALAR, _SCALAR, np.array(raw, dtype=f"S{_width(raw)}"), kind)
    return h5py.Dataset(node)


def make_float(parent: h5py.Group, name: str, value: float) -> h5py.Dataset:
    """A scalar dataset of float64."""
    node = h5d.create(parent.id, name.encode(), h5t.IEEE_F64LE, _SCALAR, _DATASET, _LINK)
    node.write(_SCALAR, _SCALAR, np.array(value, dtype=np.float64))
    return h5py.Dataset(node)


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


def attach_scale(node: h5py.Dataset, axis: int, scale: h5py.Dataset) -> None:
    """Attach a dimension scale to an axis."""
    h5ds.attach_scale(node.id, scale.id, axis)
