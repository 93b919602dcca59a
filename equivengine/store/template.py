"""Small shards made one after another from one HDF5 file in memory.

The results of a probe mostly have one structure: the same arrays, of the same types and shapes. Making the HDF5 objects
for them takes several times as long as giving them values. So the file is kept, and for the next result of its
structure the unit in it is renamed and its values are replaced, all by HDF5 itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import h5py

from equivengine.contracts.result import ProbeResult
from equivengine.contracts.unit import Unit
from equivengine.store import elements, files, nodes, schema

#: Files that are kept, those used last; each as large as one shard, which is at most `guard.IN_MEMORY_BYTES`.
KEPT = 8
#: Records take multiples of this, filled with zero bytes, so that the next one has room where the last one was.
RECORD_STEP = 256

#: What HDF5 makes of a result, whatever its values are.
Structure = tuple[tuple[Any, ...], tuple[Any, ...]]


def structure_of(result: ProbeResult) -> Structure:
    """Results of equal structure make the same HDF5 objects."""
    return (
        tuple(
            (name, one.dims, one.data.shape, one.data.dtype.str, one.unit, one.description)
            for name, one in result.arrays.items()
        ),
        tuple((name, one.levels.shape, one.description) for name, one in result.pictures.items()),
    )


def fits(result: ProbeResult) -> bool:
    """Whether only values differ between results of this structure: the width of texts and chunks do not."""
    data = [*(one.data for one in result.arrays.values()), *(one.levels for one in result.pictures.values())]
    return all(one.dtype.kind in "biuf" and not elements.is_chunked(one) for one in data)


class Template:
    """The shard of a unit, which becomes that of another one.

    Args:
        unit: The unit.
        result: What was found; it `fits`.
        width: Bytes of its record, with what fills it up.
        fill: Writes the unit into the root of a file.
    """

    def __init__(self, unit: Unit, result: ProbeResult, width: int, fill: Callable[[h5py.Group], None]) -> None:
        self.width = width
        self._unit_id = unit.unit_id
        self._file = files.MemoryFile(schema.SHARD_FORMAT)
        try:
            fill(self._file.root)
            self._units = nodes.open_group(self._file.root, "units")
            group = nodes.open_group(self._units, unit.unit_id)
            self._record = nodes.open_dataset(group, schema.RECORD)
            self._arrays = _arrays(group, result)
            self._pictures = _pictures(group, result)
        except BaseException:
            self._file.close()
            raise

    def content(self) -> bytes:
        """The bytes of the shard."""
        return self._file.content()

    def replace(self, unit: Unit, result: ProbeResult, record: bytes) -> None:
        """Make it the shard of another unit.

        Args:
            unit: The unit.
            result: A result of the same structure.
            record: Its record, of `width` bytes.
        """
        if unit.unit_id != self._unit_id:
            nodes.rename(self._units, self._unit_id, unit.unit_id)
            self._unit_id = unit.unit_id
        nodes.replace_text(self._record, record)
        for name, node in self._arrays.items():
            nodes.replace_values(node, elements.stored_values(name, result.arrays[name].data)[0])
        for name, node in self._pictures.items():
            nodes.replace_values(node, result.pictures[name].levels)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def _arrays(unit: h5py.Group, result: ProbeResult) -> dict[str, h5py.Dataset]:
    if not result.arrays:
        return {}
    group = nodes.open_group(unit, schema.ARRAYS)
    dims = {dim for array in result.arrays.values() for dim in array.dims}
    return {
        name: nodes.open_dataset(group, elements.stored_name(name, array.dims, dims))
        for name, array in result.arrays.items()
    }


def _pictures(unit: h5py.Group, result: ProbeResult) -> dict[str, h5py.Dataset]:
    if not result.pictures:
        return {}
    group = nodes.open_group(unit, schema.PICTURES)
    return {name: nodes.open_dataset(group, name) for name in result.pictures}


class Templates:
    """Those of this process. A template is taken out while it is used: threads do not meet in one."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Structure, int], Template] = {}

    def content(
        self, unit: Unit, result: ProbeResult, text: str, write: Callable[[h5py.Group, bytes], None]
    ) -> tuple[bytes, bool]:
        """The bytes of a shard, and whether they were made from another one.

        Args:
            unit: The unit.
            result: What was found; it `fits`.
            text: Its record, ASCII.
            write: Writes the unit into the root of a file, with the record as bytes.

        Raises:
            StoreError: If HDF5 refuses something.
        """
        width = min(-(-len(text) // RECORD_STEP) * RECORD_STEP, schema.MAX_TEXT_BYTES)
        record = text.encode("ascii").ljust(width, b"\0")
        key = structure_of(result), width
        with files.refusals("a file in memory"):
            found = self._kept.pop(key, None)
            made = found or Template(unit, result, width, lambda root: write(root, record))
            try:
                if found is not None:
                    found.replace(unit, result, record)
                content = made.content()
            except BaseException:
                made.close()
                raise
        self._keep(key, made)
        return content, found is not None

    def _keep(self, key: tuple[Structure, int], template: Template) -> None:
        for dropped in (self._kept.pop(key, None), *self._surplus()):
            if dropped is not None:
                dropped.close()
        self._kept[key] = template

    def _surplus(self) -> list[Template | None]:
        oldest = list(self._kept)[: max(0, len(self._kept) - KEPT + 1)]
        return [self._kept.pop(key, None) for key in oldest]
