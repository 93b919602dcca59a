"""Units in an open file, of whatever version: reading what they hold, and copying them."""

from __future__ import annotations

from collections.abc import Mapping

import h5py

from equivengine.contracts.unit import Unit
from equivengine.contracts.units import NO_IDS, UnitIds
from equivengine.store import elements, guard, nodes, pictures, record, refusal, schema, version_1
from equivengine.store.record import Record
from equivengine.store.shards import IdsAsKnown
from equivengine.store.template import Structure


def ids_in(units: h5py.Group, known: UnitIds = NO_IDS) -> UnitIds:
    """Ids of the units in the group of them, in order; what has another name than a unit is passed over.

    Args:
        units: The group.
        known: Ids that are in memory already; where they are the same, this object is returned.

    Raises:
        Refused: If there are more than `schema.MAX_UNITS`.
    """
    found = IdsAsKnown(known)

    def take(name: str) -> None:
        if schema.is_unit_id(name):
            found.append(name)

    guard.each_name(units, take, schema.MAX_UNITS)
    return found.made()


def read_record(group: h5py.Group) -> Record:
    """All that a unit's group holds but arrays and pictures.

    Raises:
        Refused, StoreError: If it is something else, or of a newer major version.
    """
    if elements.expect(group, "unit")[0] == 1:
        return version_1.read_record(group)
    return _parse(group, _record_text(group))


def arrays_of(group: h5py.Group) -> h5py.Group | None:
    """The group of a unit's arrays; None if it has none.

    Raises:
        Refused: If it is something else.
    """
    return guard.group(group, schema.ARRAYS) if guard.has(group, schema.ARRAYS) else None


def array_names(group: h5py.Group) -> dict[str, str]:
    """Names of a unit's arrays, in order, with the names of their datasets.

    Raises:
        Refused: If they are something else.
    """
    arrays = arrays_of(group)
    return {} if arrays is None else elements.array_names(arrays)


def knows_more(group: h5py.Group) -> bool:
    """Whether a newer version wrote fields of the unit that are not known here, so that its id cannot be made again.

    Raises:
        Refused, StoreError: If it is something else.
    """
    if elements.expect(group, "unit")[0] == 1:
        data = elements.read_json(group, "unit")
    else:
        data = schema.parse_json(_record_text(group), guard.Where(group)).get("unit", {})
    return not set(data) <= set(Unit.__dataclass_fields__)


def check_canonical(group: h5py.Group) -> None:
    """Refuse a record that says what it should in other bytes than ours.

    Raises:
        Refused, StoreError: If it does, or is none.
    """
    if elements.expect(group, "unit")[0] > 1:
        text = _record_text(group)
        if schema.to_json(schema.parse_json(text, guard.Where(group)), "a record") != text:
            raise refusal.Refused("JSON in another form than ours", "canonical JSON: ASCII, sorted keys, no spaces")


def copy_unit(source: h5py.Group, parent: h5py.Group, unit_id: str) -> Record:
    """Copy a unit into another file without unpacking its arrays and pictures; one of format 1.x becomes one of ours.

    Args:
        source: A unit's group in a file opened by `guard`.
        parent: The group ``units`` of the file being made.
        unit_id: Its id.

    Returns:
        Its record.

    Raises:
        Refused, StoreError: If it is something else.
    """
    group = elements.new_group(parent, unit_id, "unit")
    if elements.expect(source, "unit")[0] == 1:
        found, version = version_1.read_record(source), schema.VERSION_TEXT
        text = found.to_text()
    else:
        text, version = _record_text(source), guard.text(guard.dataset(source, schema.RECORD), "encoding-version")
        found = _parse(source, text)
    elements.write_text(group, schema.RECORD, text, "json", version)
    arrays = arrays_of(source)
    if arrays is not None and len(arrays):
        _copy_arrays(arrays, group)
    pictures.copy_pictures(source, group)
    return found


def copy_own_unit(source: h5py.Group, parent: h5py.Group, unit_id: str, structure: Structure) -> Record:
    """`copy_unit` for a file that this process wrote: what is in it is known, and nothing of it is looked at again.

    Args:
        source: The root of a shard.
        parent: The group ``units`` of the file being made.
        unit_id: The unit's id.
        structure: Of its result.

    Returns:
        Its record.

    Raises:
        StoreError: If the record is none.
    """
    unit = nodes.open_group(source, f"units/{unit_id}")
    group = elements.new_group(parent, unit_id, "unit")
    node = nodes.open_dataset(unit, schema.RECORD)
    text = nodes.read_text(node)
    elements.write_record(group, text)
    arrays, pictures = structure
    if arrays:
        nodes.copy(nodes.open_group(unit, schema.ARRAYS), group, schema.ARRAYS)
        _attach_own(nodes.open_group(group, schema.ARRAYS), {one[0]: one[1] for one in arrays})
    if pictures:
        nodes.copy(nodes.open_group(unit, schema.PICTURES), group, schema.PICTURES)
    return record.parse(text, guard.Where(node, file=True))


def _attach_own(group: h5py.Group, axes: Mapping[str, tuple[str, ...]]) -> None:
    """Attach the scales of copied arrays, by the names of their axes."""
    dims = {dim for names in axes.values() for dim in names}
    stored = {elements.stored_name(name, names, dims): names for name, names in axes.items()}
    copies = {name: nodes.open_dataset(group, name) for name in (*stored, *sorted(dims - set(stored)))}
    for name, copy in copies.items():
        nodes.detach_own(copy, scale=name in dims)
    for name, names in stored.items():
        for axis, dim in enumerate(names):
            if name != dim:
                nodes.attach_scale(copies[name], axis, copies[dim])


def _parse(group: h5py.Group, text: str) -> Record:
    return record.parse(text, guard.Where(group, schema.RECORD, file=True))


def _record_text(group: h5py.Group) -> str:
    if not guard.has(group, schema.RECORD):
        raise refusal.Refused(f"{group.name} has no {schema.RECORD}", "what was run, and what came of it")
    return elements.read_text(group, schema.RECORD, "json")


def _copy_arrays(source: h5py.Group, unit: h5py.Group) -> None:
    """Copy the group of arrays, then attach the scales of the copies: the references are left dangling by a copy."""
    if guard.holds_datasets_only(source):
        nodes.copy(source, unit, schema.ARRAYS)
        target = nodes.open_group(unit, schema.ARRAYS)
    else:  # a newer version puts something else there too
        target = elements.new_group(unit, schema.ARRAYS, "arrays")
        for stored in guard.names(source):
            if guard.encoding(source, stored) in ("array", "dimension"):
                nodes.copy(guard.dataset(source, stored), target, stored)
    copies = {stored: nodes.open_dataset(target, stored) for stored in guard.names(target)}
    for copy in copies.values():
        guard.check_place(copy)
        nodes.detach_scales(copy)
    for stored, copy in copies.items():
        text = guard.text(copy, "dims")  # only arrays have them
        dims = text.split(",") if text else []
        if text and len(dims) != copy.id.rank:
            raise refusal.Refused(f"{copy.ndim} axes and {len(dims)} dimensions of {stored!r}", "as many")
        for axis, dim in enumerate(dims):
            if stored != dim:
                nodes.attach_scale(copy, axis, copies[dim])
