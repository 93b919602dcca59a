"""Results as xarray objects: scalars in memory, arrays read where they are used. Imported by `Run.to_xarray` only."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import xarray
from xarray.core import indexing

from equivengine.errors import StoreError
from equivengine.store.columns import scalar_columns, varying_params
from equivengine.store.published import UnitRecord
from equivengine.store.stacking import Stack, coordinate_of, lengths, stack
from equivengine.store.tables import sample_text

UNIT = "unit"


def names_of(records: Sequence[UnitRecord], arrays: bool | Collection[str]) -> set[str]:
    """Names of the arrays that are wanted.

    Raises:
        StoreError: If no unit has an array of a name that is asked for.
    """
    if arrays is False:
        return set()
    known = {name for record in records for name in record.arrays}
    if arrays is True:
        return known
    wanted = {arrays} if isinstance(arrays, str) else set(arrays)
    unknown = sorted(wanted - known)
    if unknown:
        raise StoreError(
            f"there is no array called {unknown[0]!r}", expected=", ".join(sorted(known)) or "no name: there are none"
        )
    return wanted


def tree(records: Sequence[UnitRecord], arrays: set[str], facts: Mapping[str, Any]) -> xarray.DataTree:
    """One dataset for each probe and model, at ``/probe/model``; slashes in the names of models become ``_``.

    Args:
        records: The units.
        arrays: Names of the arrays that are wanted.
        facts: Attributes of the root.

    Raises:
        StoreError: If a shard cannot be read.
    """
    groups: dict[tuple[str, str], list[UnitRecord]] = {}
    for record in records:
        groups.setdefault((record.unit.probe, record.unit.model), []).append(record)
    nodes: dict[str, xarray.Dataset] = {"/": xarray.Dataset(attrs=dict(facts))}
    for (probe, model), units in groups.items():
        nodes[_free(f"/{probe}/{re.sub('/+', '_', model)}", nodes)] = dataset(units, arrays, {})
    return xarray.DataTree.from_dict(nodes)


def dataset(records: Sequence[UnitRecord], arrays: set[str], facts: Mapping[str, Any]) -> xarray.Dataset:
    """The units of one probe, along ``unit``.

    Args:
        records: At least one.
        arrays: Names of the arrays that are wanted.
        facts: More attributes of the dataset.

    Raises:
        StoreError: If a shard cannot be read.
    """
    coordinates, common = _coordinates(records)
    variables = _scalars(records) | _checks(records)
    stacks = stack(records, arrays, taken=[UNIT, *coordinates, *variables])
    _add_arrays(variables, coordinates, stacks, len(records))
    attributes = {**facts, "probe": records[0].unit.probe, "params": json.dumps(common, ensure_ascii=False)}
    return xarray.Dataset(variables, coordinates, attributes)


def _coordinates(records: Sequence[UnitRecord]) -> tuple[dict[str, Any], dict[str, Any]]:
    units = [record.unit for record in records]
    found: dict[str, Any] = {
        "unit_id": (UNIT, np.array([record.unit_id for record in records])),
        "model": (UNIT, np.array([unit.model for unit in units])),
        "sample": (UNIT, np.array([sample_text(unit) for unit in units])),
        "status": (UNIT, np.array([record.status for record in records])),
        # an object each: one long message is not to widen all
        "unit.message": (UNIT, np.array([record.message for record in records], dtype=object)),
        "unit.seed": (UNIT, np.array([unit.seed for unit in units])),
        "unit.precision": (UNIT, np.array([unit.precision for unit in units])),
    }
    varying, common = varying_params(units)
    for name, values in varying.items():
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        texts = [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values]
        found[f"param.{name}"] = (UNIT, np.array(values if numbers else texts))
    return found, common


def _scalars(records: Sequence[UnitRecord]) -> dict[str, xarray.Variable]:
    found = {}
    for name, column in scalar_columns([record.summary for record in records]).items():
        attributes: dict[str, Any] = {"units": column.unit, "long_name": column.description}
        if column.group:
            attributes["group"] = column.group
        if column.binary:  # as the CF conventions say it, section 3.5
            attributes |= {"flag_values": [0.0, 1.0], "flag_meanings": "no yes"}
        found[name] = xarray.Variable(UNIT, column.values, attributes)
        if not (np.isnan(column.low) & np.isnan(column.high)).all():
            ends = {"low": (column.low, "lower"), "high": (column.high, "upper")}
            for end, (values, word) in ends.items():
                title = f"{column.description}: {word} end of the 95% interval"
                found[f"{name}.{end}"] = xarray.Variable(UNIT, values, {"units": column.unit, "long_name": title})
        if (column.n >= 0).any():
            title = f"{column.description}: observations, -1 where not given"
            found[f"{name}.n"] = xarray.Variable(UNIT, column.n, {"units": "1", "long_name": title})
    return found


def _checks(records: Sequence[UnitRecord]) -> dict[str, xarray.Variable]:
    found = {}
    first = {name: check for record in reversed(records) for name, check in record.checks.items()}
    for name in dict.fromkeys(name for record in records for name in record.checks):
        cells = [record.checks.get(name) for record in records]
        attributes = {"long_name": first[name].description}
        for part, kind in (("value", float), ("bound", float), ("passed", bool)):
            values = [np.nan if cell is None else kind(getattr(cell, part)) for cell in cells]
            label = f"check.{name}" if part == "value" else f"check.{name}.{part}"
            found[label] = xarray.Variable(UNIT, np.array(values), attributes)
    return found


def _add_arrays(variables: dict[str, Any], coordinates: dict[str, Any], stacks: list[Stack], count: int) -> None:
    sizes: dict[str, int] = {}
    for one in stacks:
        for dim, length in zip(one.dims, one.longest, strict=True):
            sizes[dim] = max(length, sizes.get(dim, 0))
    taken, padded = {UNIT, *variables, *coordinates, *sizes}, set()
    for one in stacks:
        own = coordinate_of(one) if one.dims == (one.name,) else None
        if own is not None and len(own.data) == sizes[one.name]:
            attributes = {"units": own.unit, "long_name": own.description}
            coordinates[one.name] = xarray.Variable(one.name, own.data, attributes)
            continue
        shape = (count, *(sizes[dim] for dim in one.dims))
        short = [dim for dim, length in zip(one.dims, one.shortest, strict=True) if length < sizes[dim]]
        padded.update(short)
        values = Stacked(one, shape)
        attributes = {"units": one.unit, "long_name": one.description}
        if short or one.absent:
            attributes["padding"] = values.padding
        name = _free(f"{one.name}.array" if one.name in taken else one.name, variables)
        variables[name] = xarray.Variable((UNIT, *one.dims), indexing.LazilyIndexedArray(values), attributes)
    for dim in sizes:
        if dim in padded:
            title = {"units": "1", "long_name": f"length of {dim} in this unit; 0 where it has none"}
            coordinates[f"{dim}.length"] = xarray.Variable(UNIT, lengths(stacks, dim, count), title)


def _free(name: str, taken: Mapping[str, Any]) -> str:
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}.{number}"
    return found


class Stacked(xarray.backends.BackendArray):
    """One array of many units, as xarray reads it: each access reads the units and the parts that it selects."""

    def __init__(self, parts: Stack, shape: tuple[int, ...]) -> None:
        self._parts, self.shape = parts, shape
        self.dtype = parts.dtype_for(shape)

    @property
    def padding(self) -> str:
        """What stands where a unit has no value."""
        return '""' if self.dtype.kind == "U" else "NaN"

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        if isinstance(key, indexing.VectorizedIndexer):
            return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)
        return self._read(key.tuple)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        """Integers, slices and arrays of integers, each for its own axis; each place is read once."""
        places = [np.atleast_1d(np.arange(n)[k]) for k, n in zip(key, self.shape, strict=True)]
        wanted = [np.unique(one, return_inverse=True) for one in places]
        units, *axes = (distinct for distinct, _ in wanted)
        out = np.full([len(units), *map(len, axes)], np.nan if self.dtype.kind == "f" else 0, self.dtype)
        if self.dtype.kind == "U":
            out[...] = ""
        for row, unit in enumerate(units):
            self._parts.read_into(out[row : row + 1], int(unit), axes)
        for axis, (distinct, order) in enumerate(wanted):
            if not np.array_equal(order, np.arange(len(distinct))):
                out = out.take(order, axis)
        return out[tuple(slice(None) if isinstance(k, slice) or np.ndim(k) else 0 for k in key)]
