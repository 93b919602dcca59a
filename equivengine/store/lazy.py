"""What a unit holds that may be large: read from disk on each access, not when the run is opened."""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from equivengine.contracts.result import Array, Picture
from equivengine.errors import StoreError
from equivengine.store import elements, guard, pictures, refusal

_Value = TypeVar("_Value")


class Opening:
    """Whether a run is still open, for all that was taken from it."""

    closed = False


class Source:
    """A file that units are read from: kept open (``run.h5``) or opened for each read (there may be many shards)."""

    def __init__(self, path: Path, file_format: str, opening: Opening | None = None) -> None:
        self.path, self.format = path, file_format
        self._opening = opening or Opening()
        self.file: h5py.File | None = None
        #: What holds ``file`` open; arrays and pictures may outlive the run that they were taken from.
        self.opened: contextlib.ExitStack | None = None
        self._checked = False

    def __getstate__(self) -> dict[str, Any]:
        """Another process opens the file for each read (dask does that)."""
        return {**self.__dict__, "file": None, "opened": None}

    @contextlib.contextmanager
    def unit(self, unit_id: str) -> Iterator[h5py.Group]:
        """The group of a unit.

        Raises:
            StoreError: If the run was closed, or the file cannot be read; also for errors within the ``with`` block.
        """
        if self._opening.closed:
            raise StoreError(
                f"{self.path} was closed", hint="read arrays and pictures before leaving the `with` block of the run"
            )
        with contextlib.ExitStack() as stack:
            file = self.file
            if file is None:
                check = False if self._checked else None
                file = stack.enter_context(guard.open_untrusted(self.path, self.format, check=check))
                self._checked = True
            stack.enter_context(refusal.damage(self.path))
            yield guard.group(guard.group(file, "units"), unit_id)


class _Lazy(Mapping[str, _Value]):
    """Values of a unit by name, in the order of its probe; ``stored`` maps names to those of their datasets."""

    def __init__(self, source: Source, unit_id: str, stored: Mapping[str, str]) -> None:
        self._source, self._unit_id, self._stored = source, unit_id, stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def __contains__(self, name: object) -> bool:
        return name in self._stored


@dataclass(frozen=True)
class StoredArray:
    """An array on disk: what it is has been read, its values have not.

    Indexing with integers, slices and ``...`` reads the chunks that hold what is selected (about 1 MiB each; an array
    that is not chunked has less than 16 KiB): ``V[0]``, ``V[10:20, ::4]``. Each access goes through the guard, opens
    the file and unpacks whole chunks, so take many rows at once where many are needed.

    Attributes:
        name: Its name.
        shape: Its shape.
        dtype: Type of its values; of texts, one that is wide enough.
        dims: One name per axis.
        unit: Unit of the values ("1" if none).
        description: One line.
        chunks: Shape of the chunks; None if it is stored in one piece.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    dims: tuple[str, ...]
    unit: str
    description: str
    chunks: tuple[int, ...] | None
    _source: Source = field(repr=False)
    _unit_id: str = field(repr=False)
    _stored: str = field(repr=False)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that all values take in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError(f"array {self.name!r} is a scalar")
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read a part.

        Raises:
            IndexError: If the index is out of range, or no integers, slices and ``...``.
            StoreError: If the file cannot be read, or the run was closed.
        """
        selection, turned = _basic(key, self.shape, self.name)
        with self._source.unit(self._unit_id) as group:
            node = guard.dataset(guard.group(group, "arrays"), self._stored)
            elements.expect(node, "array")
            if node.shape != self.shape:
                raise refusal.Refused(f"shape {node.shape} of {self.name!r}", str(self.shape))
            data = elements.decode_values(node, np.asarray(node[selection]))
        return data[turned]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All values."""
        return np.asarray(self[...], dtype=dtype)

    def read(self) -> Array:
        """All of it.

        Raises:
            StoreError: If the file cannot be read, or the run was closed.
        """
        return Array(self[...], self.dims, self.unit, self.description)


class LazyArrays(_Lazy[Array]):
    """Arrays of a unit by name, in the order of its probe.

    ``arrays[name]`` reads a whole array on each access; ``arrays.open(name)`` reads what it is, and parts as asked for.
    """

    def __getitem__(self, name: str) -> Array:
        stored = self._stored[name]
        with self._source.unit(self._unit_id) as group:
            return elements.read_array(guard.group(group, "arrays"), stored)

    def open(self, name: str) -> StoredArray:
        """An array whose values are read where it is indexed.

        Raises:
            KeyError: If the unit has no such array.
            StoreError: If the file cannot be read, or the run was closed.
        """
        stored = self._stored[name]
        with self._source.unit(self._unit_id) as group:
            return self._describe(guard.group(group, "arrays"), name, stored)

    def open_all(self) -> dict[str, StoredArray]:
        """`open` for all arrays, by name; opens the file once.

        Raises:
            StoreError: If the file cannot be read, or the run was closed.
        """
        if not self._stored:
            return {}
        with self._source.unit(self._unit_id) as group:
            parent = guard.group(group, "arrays")
            return {name: self._describe(parent, name, stored) for name, stored in self._stored.items()}

    def _describe(self, parent: h5py.Group, name: str, stored: str) -> StoredArray:
        node = guard.dataset(parent, stored)
        elements.expect(node, "array")
        dims = guard.text(node, "dims")
        dtype = node.dtype.newbyteorder("=")
        if dtype.kind == "S":  # no text has more characters than bytes
            dtype = np.dtype(f"U{dtype.itemsize}")
        elif guard.text(node, "dtype") == "bool":
            dtype = np.dtype(bool)
        return StoredArray(
            name=name,
            shape=node.shape,
            dtype=dtype,
            dims=tuple(dims.split(",")) if dims else (),
            unit=guard.text(node, "unit"),
            description=guard.text(node, "description"),
            chunks=node.chunks,
            _source=self._source,
            _unit_id=self._unit_id,
            _stored=stored,
        )


class LazyPictures(_Lazy[Picture]):
    """Pictures of a unit by name, in the order of its probe; each access reads one from disk."""

    def __getitem__(self, name: str) -> Picture:
        stored = self._stored[name]
        with self._source.unit(self._unit_id) as group:
            return pictures.read_picture(group, stored)


def _basic(key: Any, shape: tuple[int, ...], name: str) -> tuple[tuple[int | slice, ...], tuple[slice, ...]]:
    """What HDF5 is to read (steps are positive there), and how what was read is to be turned."""
    keys = key if isinstance(key, tuple) else (key,)
    dots = [place for place, one in enumerate(keys) if one is Ellipsis]
    if len(dots) > 1 or len(keys) - len(dots) > len(shape):
        raise IndexError(f"too many indices for array {name!r} of shape {shape}")
    place = dots[0] if dots else len(keys)
    rest = len(shape) - len(keys) + len(dots)
    keys = (*keys[:place], *[slice(None)] * rest, *keys[place + 1 :])
    selection: list[int | slice] = []
    turned: list[slice] = []
    for one, length in zip(keys, shape, strict=True):
        if isinstance(one, slice):
            found = range(length)[one]
            ahead = found if found.step > 0 else found[::-1]
            selection.append(slice(ahead.start, ahead.stop, ahead.step) if len(found) else slice(0, 0))
            turned.append(slice(None, None, 1 if found.step > 0 else -1))
            continue
        if isinstance(one, bool | np.bool_) or not hasattr(one, "__index__") or np.ndim(one):
            raise IndexError(f"array {name!r} takes integers, slices and ... as indices, not {type(one).__name__}")
        selection.append(range(length)[operator.index(one)])
    return tuple(selection), tuple(turned)
