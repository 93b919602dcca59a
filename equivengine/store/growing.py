"""Columns that grow by a row at a time and are written to HDF5 in blocks: only the last rows of each are in memory."""

from __future__ import annotations

import itertools
import os
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol

import h5py
import numpy as np

from equivengine.errors import PluginError
from equivengine.store import atomic, elements, nodes, schema

#: Rows of a block.
ROWS = 1024


class Column(Protocol):
    """What is written as a column: numbers, or UTF-8 of fixed width."""

    @property
    def dtype(self) -> np.dtype:
        """Type of its values."""
        ...

    def __len__(self) -> int: ...

    def blocks(self) -> Iterator[np.ndarray]:
        """All rows, `ROWS` at a time; may be asked for again."""
        ...


class Overflow:
    """A file without a name, for the rows that do not stay in memory: made when the first ones come.

    It is closed when it is left as a context manager, or with the last that refers to it.

    Args:
        folder: Where there is room for it; None for the folder of temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._opened: IO[bytes] | None = None
        self._close: Callable[[], object] = lambda: None

    def keep(self, raw: bytes | bytearray) -> int:
        """Append bytes; returns where they are.

        Raises:
            OSError: If the file cannot be made, or not be written to.
        """
        if self._opened is None:
            self._opened = tempfile.TemporaryFile(prefix=atomic.TMP_PREFIX, dir=self._folder)  # noqa: SIM115  see _close
            self._close = weakref.finalize(self, self._opened.close)
        place = self._opened.seek(0, os.SEEK_END)
        self._opened.write(raw)
        return place

    def read(self, place: int, size: int) -> bytes:
        """Bytes that were kept."""
        if self._opened is None:
            raise ValueError("nothing was kept")
        self._opened.seek(place)
        return self._opened.read(size)

    def __enter__(self) -> Overflow:
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()


class Numbers:
    """A column of numbers.

    Args:
        overflow: Where rows go that do not stay in memory.
        code: Type of the values, as `array.array` names it.
        before: Rows in front of the first that is appended, filled with ``fill``.
        fill: Their value.
        rows: Rows of a block; so many stay in memory, at most.
    """

    def __init__(
        self, overflow: Overflow, code: str, before: int = 0, fill: float = 0, rows: int | None = None
    ) -> None:
        self._overflow, self._before, self._fill = overflow, before, fill
        self._rows = ROWS if rows is None else rows
        self._last: array[Any] = array(code)
        self._places = array("q")
        self.dtype = np.dtype(code)

    def append(self, value: float) -> None:
        """Add a row."""
        self._last.append(value)
        if len(self._last) == self._rows:
            self._places.append(self._overflow.keep(self._last.tobytes()))
            del self._last[:]

    def __len__(self) -> int:
        return self._before + self._rows * len(self._places) + len(self._last)

    def blocks(self) -> Iterator[np.ndarray]:
        """All rows, some at a time."""
        for start in range(0, self._before, self._rows):
            yield np.full(min(self._rows, self._before - start), self._fill, self.dtype)
        for place in self._places:
            yield np.frombuffer(self._overflow.read(place, self._rows * self.dtype.itemsize), self.dtype)
        if self._last:
            yield np.array(self._last, self.dtype)


class Texts:
    """A column of texts that may all differ."""

    def __init__(self, overflow: Overflow) -> None:
        self._overflow, self._sizes = overflow, Numbers(overflow, "Q")
        self._last, self._places = bytearray(), array("q")
        self._widest = 1

    @property
    def dtype(self) -> np.dtype:
        """UTF-8 as wide as the longest."""
        return np.dtype(("S", self._widest))

    def append(self, text: str) -> None:
        """Add a row."""
        raw = text.encode("utf-8", "backslashreplace")
        self._widest = max(self._widest, len(raw))
        self._last += raw
        self._sizes.append(len(raw))
        if len(self._sizes) % ROWS == 0:
            self._places.append(self._overflow.keep(self._last))
            self._last.clear()

    def __len__(self) -> int:
        return len(self._sizes)

    def blocks(self) -> Iterator[np.ndarray]:
        """All rows, at most `ROWS` at a time."""
        for place, sizes in itertools.zip_longest(self._places, self._sizes.blocks()):
            ends = np.cumsum(sizes).tolist()
            raw = bytes(self._last) if place is None else self._overflow.read(place, ends[-1])
            starts = [0, *ends[:-1]]
            yield np.array([raw[start:end] for start, end in zip(starts, ends, strict=True)], self.dtype)


class Words:
    """A column of texts of which there are few different ones."""

    def __init__(self, overflow: Overflow) -> None:
        self._known: dict[str, int] = {}
        self._codes = Numbers(overflow, "I")

    @property
    def dtype(self) -> np.dtype:
        """UTF-8 as wide as the longest."""
        return self._words().dtype

    def append(self, text: str) -> None:
        """Add a row."""
        self._codes.append(self._known.setdefault(text, len(self._known)))

    def __len__(self) -> int:
        return len(self._codes)

    def blocks(self) -> Iterator[np.ndarray]:
        """All rows, at most `ROWS` at a time."""
        words = self._words()
        return (words[codes] for codes in self._codes.blocks())

    def _words(self) -> np.ndarray:
        raw = [text.encode("utf-8", "backslashreplace") for text in self._known]
        return np.array(raw, np.dtype(("S", max(1, *map(len, raw), 0))))


class Derived:
    """A column whose rows follow from others.

    Args:
        dtype: Of its values.
        length: Rows.
        make: Makes the blocks.
    """

    def __init__(self, dtype: np.dtype, length: int, make: Callable[[], Iterator[np.ndarray]]) -> None:
        self.dtype, self._length, self.blocks = dtype, length, make

    def __len__(self) -> int:
        return self._length


def write_column(parent: h5py.Group, name: str, column: Column) -> h5py.Dataset:
    """Write a column as `elements.write_values` would, a block at a time.

    Raises:
        PluginError: If it is too large.
    """
    length, dtype = len(column), column.dtype
    if dtype.kind == "S":
        dtype = h5py.string_dtype("utf-8", nodes.width(dtype.itemsize))
    size = length * dtype.itemsize
    if size < schema.CHUNKED_FROM_BYTES or dtype.itemsize > schema.CHUNK_BYTES:
        return elements.write_values(parent, name, np.concatenate([np.empty(0, dtype), *column.blocks()]), "column")
    if size > schema.MAX_DATASET_BYTES:
        raise PluginError(f"column {name!r} is too large", expected=f"{schema.MAX_DATASET_BYTES} bytes", got=size)
    chunks = schema.chunk_shape((length,), dtype.itemsize, schema.COLUMN_CHUNK_BYTES)

    def write(**packed: Any) -> h5py.Dataset:
        node = parent.create_dataset(name, shape=(length,), dtype=dtype, chunks=chunks, fletcher32=True, **packed)
        start = 0
        for block in column.blocks():
            node[start : start + len(block)] = block.astype(dtype)
            start += len(block)
        return node

    node = write(compression="gzip", compression_opts=1, shuffle=True)
    if size > schema.UNPACKED_FREELY_BYTES:
        node.id.flush()
        if size > schema.MAX_RATIO * node.id.get_storage_size():  # a reader would take it for a bomb
            del parent[name]
            node = write()
    elements.label(node, "column")
    return node
