"""What a unit holds that may be large: read from disk on each access, not when the run is opened."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import h5py

from equivengine.contracts.result import Array, Picture
from equivengine.errors import StoreError
from equivengine.store import elements, guard, pictures

_Value = TypeVar("_Value")


class Source:
    """A file that units are read from: kept open (``run.h5``) or opened for each read (there may be many shards)."""

    def __init__(self, path: Path, file_format: str) -> None:
        self.path, self.format = path, file_format
        self.file: h5py.File | None = None
        self.closed = self._checked = False

    @contextlib.contextmanager
    def unit(self, unit_id: str) -> Iterator[h5py.Group]:
        """The group of a unit.

        Raises:
            StoreError: If the run was closed, or the file cannot be read; also for errors within the ``with`` block.
        """
        if self.closed:
            raise StoreError(
                f"{self.path} was closed", hint="read arrays and pictures before leaving the `with` block of the run"
            )
        with contextlib.ExitStack() as stack:
            file = self.file
            if file is None:
                check = False if self._checked else None
                file = stack.enter_context(guard.open_untrusted(self.path, self.format, check=check))
                self._checked = True
            stack.enter_context(guard.damage(self.path))
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


class LazyArrays(_Lazy[Array]):
    """Arrays of a unit by name, in the order of its probe; each access reads one from disk."""

    def __getitem__(self, name: str) -> Array:
        stored = self._stored[name]
        with self._source.unit(self._unit_id) as group:
            return elements.read_array(guard.group(group, "arrays"), stored)


class LazyPictures(_Lazy[Picture]):
    """Pictures of a unit by name, in the order of its probe; each access reads one from disk."""

    def __getitem__(self, name: str) -> Picture:
        stored = self._stored[name]
        with self._source.unit(self._unit_id) as group:
            return pictures.read_picture(group, stored)
