"""The arrays of one name in many units, to be seen as one array: what they have in common, and where they differ."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from equivengine.contracts.result import Array
from equivengine.errors import StoreError
from equivengine.store.lazy import StoredArray
from equivengine.store.published import UnitRecord

#: Coordinates up to this size are read at once, to see whether all units share them.
COORDINATE_BYTES = 64 << 10
#: float64 holds every integer up to here.
EXACT = 1 << 53


@dataclass
class Stack:
    """Arrays of one name, with equal dimensions.

    Attributes:
        name: Their name.
        dims: One name for each axis; the second axis of one name is called ``name.2``.
        parts: By place of the unit.
        absent: Whether some units have no such array.
    """

    name: str
    dims: tuple[str, ...]
    parts: dict[int, StoredArray] = field(default_factory=dict)
    absent: bool = False

    @property
    def unit(self) -> str:
        """Units of the values; several, joined, if they differ."""
        return _joined(part.unit for part in self.parts.values())

    @property
    def description(self) -> str:
        """One line; several, joined, if they differ."""
        return _joined(part.description for part in self.parts.values())

    @property
    def longest(self) -> tuple[int, ...]:
        """Largest length of each axis."""
        return tuple(max(part.shape[axis] for part in self.parts.values()) for axis in range(len(self.dims)))

    @property
    def shortest(self) -> tuple[int, ...]:
        """Smallest length of each axis."""
        return tuple(min(part.shape[axis] for part in self.parts.values()) for axis in range(len(self.dims)))

    def dtype_for(self, shape: tuple[int, ...]) -> np.dtype:
        """Type that holds all values, and NaN if some units have fewer than ``shape`` ([units, ...])."""
        dtype = np.result_type(*(part.dtype for part in self.parts.values()))
        if dtype.kind in "biu" and (self.absent or any(part.shape != shape[1:] for part in self.parts.values())):
            dtype = np.promote_types(dtype, np.float16)  # exact but for 64 bits: see `read_into`
        return dtype

    def read_into(self, out: np.ndarray, place: int, axes: Sequence[np.ndarray]) -> None:
        """Read from one unit what is at the given places.

        Args:
            out: [1, ...]; where the unit has no values it is left as it is.
            place: Place of the unit.
            axes: For each axis of the array the places that are wanted, ascending.

        Raises:
            StoreError: If the file cannot be read, or an integer has no exact float64 where padding needs one.
        """
        part = self.parts.get(place)
        if part is None:
            return
        inside = [places[places < length] for places, length in zip(axes, part.shape, strict=True)]
        counts = [len(places) for places in inside]
        if not all(counts):
            return
        bounds = tuple(slice(int(places[0]), int(places[-1]) + 1) for places in inside)
        values = part[bounds]
        if any(len(places) != bound.stop - bound.start for places, bound in zip(inside, bounds, strict=True)):
            values = values[np.ix_(*(places - places[0] for places in inside))]
        if out.dtype.kind == "f" and values.dtype.kind in "iu" and values.dtype.itemsize == 8:
            self._check_exact(values)
        out[0][tuple(slice(count) for count in counts)] = values

    def _check_exact(self, values: np.ndarray) -> None:
        if values.size and (int(values.max()) > EXACT or int(values.min()) < -EXACT):
            raise StoreError(
                f"array {self.name!r} holds integers that padding with NaN would round",
                expected=f"at most {EXACT} in size where units differ in length",
                hint=f"read record.arrays[{self.name!r}] of single units, or leave it out: to_xarray(arrays=[...])",
            )


def stack(records: Sequence[UnitRecord], wanted: Collection[str], *, taken: Sequence[str]) -> list[Stack]:
    """Arrays by name, in the order in which they first occur; opens each unit's file once.

    Those of one name with other dimensions, or numbers where others are texts, make a stack of their own.

    Args:
        records: The units.
        wanted: Names of arrays.
        taken: Names that no dimension may have.

    Raises:
        StoreError: If a shard cannot be read.
    """
    found: dict[tuple[str, tuple[str, ...], bool], Stack] = {}
    for place, record in enumerate(records):
        if not set(wanted).intersection(record.arrays):
            continue
        for name, part in record.arrays.open_all().items():
            if name in wanted:
                dims = _distinct(part.dims, taken)
                key = (name, dims, part.dtype.kind == "U")
                found.setdefault(key, Stack(name, dims)).parts[place] = part
    for one in found.values():
        one.absent = len(one.parts) < len(records)
    return list(found.values())


def coordinate_of(values: Stack) -> Array | None:
    """The array along its own name that all units share, shorter units up to their length; None if there is none."""
    longest = max(values.parts.values(), key=lambda part: part.shape[0])
    if longest.nbytes > COORDINATE_BYTES or len({part.dtype.kind for part in values.parts.values()}) > 1:
        return None
    shared = longest.read()
    for part in values.parts.values():
        if part is not longest and not np.array_equal(part[...], shared.data[: len(part)]):
            return None
    return shared


def lengths(stacks: Sequence[Stack], dim: str, count: int) -> np.ndarray:
    """Length of a dimension in each unit; int64 [units], 0 where a unit has no array along it."""
    found = np.zeros(count, dtype=np.int64)
    for one in stacks:
        if dim in one.dims:
            for place, part in one.parts.items():
                found[place] = part.shape[one.dims.index(dim)]
    return found


def _distinct(dims: Sequence[str], taken: Sequence[str]) -> tuple[str, ...]:
    """Dimensions as xarray wants them: none twice, and none of a name that means something else."""
    found: list[str] = []
    for dim in dims:
        number, name = 1, dim
        while name in taken or name in found:
            number += 1
            name = f"{dim}.{number}"
        found.append(name)
    return tuple(found)


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))
