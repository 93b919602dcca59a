"""Write and read the elements that files are made of: texts, JSON, arrays with named dimensions.

Writers take any h5py group of a file being made; readers go through `guard` only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import h5py
import numpy as np

from equivengine.contracts.result import Array
from equivengine.errors import PluginError
from equivengine.store import guard, nodes, refusal, schema

# ---------------------------------------------------------------------------------------------------------- writing


def set_text(node: h5py.HLObject, name: str, value: str) -> None:
    """Set a fixed-width UTF-8 attribute; an empty text is left out.

    Raises:
        PluginError: If it is longer than HDF5 takes, or no valid Unicode.
    """
    if value:
        raw = _encode(value, name)
        if len(raw) > schema.MAX_ATTRIBUTE_BYTES:
            raise PluginError(f"{name} is too long", expected=f"{schema.MAX_ATTRIBUTE_BYTES} bytes", got=len(raw))
        nodes.set_bytes(node, name, raw)


def label(node: h5py.HLObject, encoding: str, version: str = schema.VERSION_TEXT) -> Any:
    """Say what an element is; returns it."""
    nodes.set_bytes(node, "encoding-type", encoding.encode())
    nodes.set_bytes(node, "encoding-version", version.encode())
    return node


def new_group(parent: h5py.Group, name: str, encoding: str) -> h5py.Group:
    """A group that lists its entries in the order in which they were written."""
    return label(nodes.make_group(parent, name), encoding)


def write_text(
    parent: h5py.Group, name: str, value: str, encoding: str = "string", version: str = schema.VERSION_TEXT
) -> h5py.Dataset:
    """Write a scalar fixed-width UTF-8 dataset; ``version`` is that of what it says.

    Raises:
        PluginError: If it is longer than `schema.MAX_TEXT_BYTES`, or no valid Unicode.
    """
    raw = _encode(value, name)
    if len(raw) > schema.MAX_TEXT_BYTES:
        raise PluginError(f"{name} is too long", expected=f"{schema.MAX_TEXT_BYTES} bytes", got=len(raw))
    return label(nodes.make_text(parent, name, raw), encoding, version)


def write_record(unit: h5py.Group, raw: bytes) -> h5py.Dataset:
    """Write the record of a unit: JSON, filled with zero bytes if it is to have room."""
    return label(nodes.make_text(unit, schema.RECORD, raw), "json")


def stored_values(name: str, data: np.ndarray) -> tuple[np.ndarray, np.dtype]:
    """An array's values as they are stored, and their type for HDF5. See `write_values`.

    Raises:
        PluginError: As `write_values`.
    """
    kind = data.dtype.kind
    if kind == "U":
        try:
            raw = np.char.encode(data, "utf-8")
        except UnicodeEncodeError as error:
            raise PluginError(
                f"array {name!r} holds text that is no valid Unicode",
                got=error,
                hint="pass text.encode('utf-8', 'backslashreplace').decode()",
            ) from error
        dtype = h5py.string_dtype("utf-8", nodes.width(raw.dtype.itemsize))
        data = raw.astype(dtype)
    elif kind == "S":  # UTF-8 already
        dtype = h5py.string_dtype("utf-8", nodes.width(data.dtype.itemsize))
        data = data.astype(dtype)
    elif kind == "b":
        data = data.astype(np.int8)
        dtype = data.dtype
    else:
        data = data.astype(data.dtype.newbyteorder("<"), copy=False)
        dtype = data.dtype
    if kind == "f" and data.itemsize > 8:
        raise PluginError(f"array {name!r} has a dtype that cannot be stored", expected="float64", got=dtype)
    if data.nbytes > schema.MAX_DATASET_BYTES:
        raise PluginError(f"array {name!r} is too large", expected=f"{schema.MAX_DATASET_BYTES} bytes", got=data.nbytes)
    return data, dtype


def is_chunked(data: np.ndarray) -> bool:
    """Whether an array, as it is stored, goes in chunks and is compressed."""
    return data.ndim > 0 and data.nbytes >= schema.CHUNKED_FROM_BYTES and data.itemsize <= schema.CHUNK_BYTES


def write_values(parent: h5py.Group, name: str, data: np.ndarray, encoding: str = "array") -> h5py.Dataset:
    """Write an array without its dimensions: bool as int8 (netCDF has none), str as fixed-width UTF-8, little endian.

    Bytes are UTF-8 already.

    Raises:
        PluginError: If it is too large, or of a dtype that not every reader has.
    """
    is_bool = data.dtype.kind == "b"
    data, dtype = stored_values(name, data)
    storage: dict[str, Any] = {}
    if is_chunked(data):
        chunks = schema.chunk_shape(data.shape, data.itemsize)
        storage = {"chunks": chunks, "compression": "gzip", "compression_opts": 1, "shuffle": True, "fletcher32": True}
    if not storage:
        node = nodes.make_values(parent, name, data)
    else:
        node = parent.create_dataset(name, data=data, dtype=dtype, **storage)
    if storage and data.nbytes > schema.UNPACKED_FREELY_BYTES:
        node.id.flush()
        if data.nbytes > schema.MAX_RATIO * node.id.get_storage_size():  # a reader would take it for a bomb
            del parent[name]
            node = parent.create_dataset(name, data=data, dtype=dtype, chunks=storage["chunks"], fletcher32=True)
    label(node, encoding)
    if is_bool:
        set_text(node, "dtype", "bool")  # xarray's own convention
    return node


def stored_name(name: str, dims: tuple[str, ...], all_dims: Iterable[str]) -> str:
    """What an array is called in its group: netCDF reserves the name of a dimension for the array along it."""
    return schema.NON_COORDINATE + name if name in set(all_dims) and dims != (name,) else name


def write_dimensions(group: h5py.Group, sizes: Mapping[str, int]) -> dict[str, h5py.Dataset]:
    """Give the axes of a group their scales, where no array of that name is one already; returns them by name."""
    scales = {}
    for dim, size in sizes.items():
        if not guard.has(group, dim):
            scales[dim] = label(nodes.make_dimension(group, dim, size), "dimension")
            nodes.make_scale(scales[dim], f"{schema.DIMENSION_ONLY}{size:10d}")
        else:
            scales[dim] = nodes.open_dataset(group, dim)
            nodes.make_scale(scales[dim], dim)
    return scales


def attach(found: Mapping[str, h5py.Dataset], name: str, dims: tuple[str, ...]) -> None:
    """Name the axes of a dataset, as text for us and as HDF5 dimension scales for others.

    Args:
        found: The datasets of its group by name (or the group itself).
        name: Its name there.
        dims: One for each axis, by the names of their scales.
    """
    node = found[name]
    set_text(node, "dims", ",".join(dims))
    for axis, dim in enumerate(dims):
        if name != dim:
            nodes.attach_scale(node, axis, found[dim])


def write_arrays(group: h5py.Group, arrays: Mapping[str, Array]) -> None:
    """Write arrays in order, with one scale per dimension.

    Raises:
        PluginError: As `write_values`.
    """
    sizes = {dim: size for array in arrays.values() for dim, size in zip(array.dims, array.data.shape, strict=True)}
    made: dict[str, h5py.Dataset] = {}
    for name, array in arrays.items():
        stored = stored_name(name, array.dims, sizes)
        made[stored] = write_values(group, stored, array.data)
        set_text(made[stored], "unit", array.unit)
        set_text(made[stored], "description", array.description)
    made |= write_dimensions(group, sizes)
    for name, array in arrays.items():
        attach(made, stored_name(name, array.dims, sizes), array.dims)


def _encode(value: str, what: str) -> bytes:
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PluginError(
            f"{what} is no valid Unicode", got=error, hint="pass text.encode('utf-8', 'backslashreplace').decode()"
        ) from error


# ---------------------------------------------------------------------------------------------------------- reading


def expect(node: h5py.HLObject, encoding: str) -> tuple[int, int]:
    """Hold an element against what belongs in its place; returns its version.

    Raises:
        StoreError: If it is something else, or of a newer major version.
    """
    found, version = guard.text(node, "encoding-type"), guard.text(node, "encoding-version")
    if (found, version) == (encoding, schema.VERSION_TEXT):
        return schema.VERSION
    return schema.check_format(guard.Where(node, file=True), found, version, encoding)


def read_text(parent: h5py.Group, name: str, encoding: str = "string") -> str:
    """Read a scalar text; empty where it is absent.

    Raises:
        Refused, StoreError: If it is something else.
    """
    if not guard.has(parent, name):
        return ""
    node = guard.dataset(parent, name)
    expect(node, encoding)
    dtype = node.id.dtype
    if dtype.kind != "S" or node.id.rank or dtype.itemsize > schema.MAX_TEXT_BYTES:
        raise refusal.Refused(f"{node.name} is {node.dtype} {node.shape}", "one text")
    return nodes.read_text(node).decode("utf-8")


def read_json(parent: h5py.Group, name: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        Refused, StoreError: If it is something else.
    """
    return schema.parse_json(read_text(parent, name, "json"), guard.Where(parent, name, file=True))


def array_names(group: h5py.Group) -> dict[str, str]:
    """Names of the arrays in a group, in order, with the names of their datasets."""
    found = {}
    for stored in guard.names(group):
        if guard.encoding(group, stored) == "array":
            found[stored.removeprefix(schema.NON_COORDINATE)] = stored
    return found


def read_values(parent: h5py.Group, name: str, encoding: str = "array") -> np.ndarray:
    """Read an array's values in native byte order.

    Raises:
        Refused, StoreError: If it is something else, or would not fit the limits of `schema`.
    """
    node = guard.dataset(parent, name)
    expect(node, encoding)
    return decode_values(node, np.asarray(node[()]))


def decode_values(node: h5py.Dataset, data: np.ndarray) -> np.ndarray:
    """What h5py read of a dataset, or of a part of it, as it was before `write_values`."""
    if data.dtype.kind == "S":
        return np.char.decode(data, "utf-8")
    if guard.text(node, "dtype") == "bool":
        return data.astype(bool)
    return data.astype(data.dtype.newbyteorder("="), copy=False)


def read_array(group: h5py.Group, name: str) -> Array:
    """Read one array by the name of its dataset.

    Raises:
        Refused, StoreError: If it is something else, or would not fit the limits of `schema`.
    """
    data = read_values(group, name)
    node = group[name]
    dims = guard.text(node, "dims")
    return Array(
        data, tuple(dims.split(",")) if dims else (), guard.text(node, "unit"), guard.text(node, "description")
    )
