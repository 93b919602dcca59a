"""Names, versions and limits of the format, and its JSON. ``docs/format.md`` is the prose of this file."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from equivengine.contracts.unit import Unit, canonical_json
from equivengine.contracts.units import UnitIds, UnitList
from equivengine.contracts.units_as_json import batch_sizes_from_json, units_from_json
from equivengine.errors import PluginError, StoreError

#: (major, minor) that is written.
VERSION = (2, 1)
VERSION_TEXT = f"{VERSION[0]}.{VERSION[1]}"
#: The last minor that is known of each major that is read. A newer minor is read too; what is not known of it is passed
#: over.
KNOWN_MINORS = {1: 2, 2: 1}

#: The field of JSON files that holds the digest of the rest, and the version that brought it.
SEAL = "sha256"
SEALED_SINCE = (1, 2)

RUN_FORMAT = "equivengine-run"
SHARD_FORMAT = "equivengine-shard"
PLAN_FORMAT = "equivengine-plan"
FAILURE_FORMAT = "equivengine-failure"

PLAN_FILE = "plan.json"
RUN_FILE = "run.h5"
SHARDS = "shards"
FAILURES = "failures"
PICTURES = "pictures"
#: What a unit's group holds: this, and the groups of its arrays and pictures.
RECORD = "record"
ARRAYS = "arrays"
#: Where files go that were set aside: what cannot be trusted, and whole results of units that the plan does not list.
DAMAGED = "damaged"
FOREIGN = "foreign"
#: Shards that hold several units carry this prefix; a shard named ``<unit_id>.h5`` holds exactly that unit.
PACK_PREFIX = "pack."

#: netCDF-4's name for a dimension that is no variable, and for a variable that is named like a dimension that it does
#: not run along. With both, netCDF readers see dimensions as their own files have them.
DIMENSION_ONLY = "This is a netCDF dimension but not a netCDF variable."
NON_COORDINATE = "_nc4_non_coord_"

#: Names that the per-probe tables of ``run.h5`` use for themselves.
TABLE_NAMES = ("unit", "unit_id", "model", "sample", "status")

#: Bytes in front of the HDF5 part of each file (HDF5's "user block"): magic, format, digest of the rest.
USER_BLOCK = 512
MAGIC = b"equivengine\n"

#: A file is opened by the oldest HDF5 that knows creation order, and has one layout whichever HDF5 wrote it.
LIBVER = ("v108", "v108")

MAX_DATASET_BYTES = 2 << 30
MAX_TEXT_BYTES = 64 << 20
MAX_CHUNK_BYTES = 4 << 20
MAX_ATTRIBUTE_BYTES = 60_000  # HDF5 ends at 64 KB including headers
MAX_JSON_FILE_BYTES = 64 << 20
#: Values in one JSON text; a list of empty lists takes 20 times its text in memory.
MAX_JSON_VALUES = 2_000_000
#: Entries of a group: units of a run, and what one unit holds (scalars, arrays, pictures).
MAX_UNITS = 1_000_000
MAX_ENTRIES = 10_000
#: deflate cannot expand more than this (zlib's technical details: 1032:1).
MAX_EXPANSION = 1032

#: What may unpack to far more than it is stored in; larger datasets may unpack to `MAX_RATIO` times their stored bytes.
UNPACKED_FREELY_BYTES = 64 << 20
MAX_RATIO = 100
#: Chunks of a dataset; ours are of about 1 MiB.
MAX_CHUNKS = 65_536
#: Bytes of a name.
MAX_NAME_BYTES = 1_000

#: Arrays at least this large are chunked, compressed and checksummed; smaller ones are contiguous.
CHUNKED_FROM_BYTES = 16 << 10
CHUNK_BYTES = 1 << 20
#: Columns over units are read some rows at a time, several of them side by side, and HDF5 keeps a chunk of each.
COLUMN_CHUNK_BYTES = 64 << 10

_UNIT_ID = re.compile(r"[0-9a-f]{64}")


def is_unit_id(text: str) -> bool:
    """Whether ``text`` has the form of a unit id (64 lower-case hex digits)."""
    return _UNIT_ID.fullmatch(text) is not None


def shard_path(unit_id: str) -> str:
    """Path of a unit's shard relative to the run directory.

    Raises:
        StoreError: If this is no unit id (it becomes a path, so nothing else may pass).
    """
    if not is_unit_id(unit_id):
        raise StoreError("a unit id is not usable", expected="64 lower-case hex digits", got=repr(unit_id))
    return f"{SHARDS}/{unit_id[:2]}/{unit_id}.h5"


def chunk_shape(shape: tuple[int, ...], itemsize: int, most: int | None = None) -> tuple[int, ...]:
    """Chunks of about ``most`` bytes (`CHUNK_BYTES`): whole trailing axes first, so that a row is one read."""
    room = max(1, (CHUNK_BYTES if most is None else most) // itemsize)
    chunks: list[int] = []
    for length in reversed(shape):
        take = min(length, room)
        chunks.append(take)
        room = max(1, room // take)
    return tuple(reversed(chunks))


def is_known(version: tuple[int, int]) -> bool:
    """Whether nothing of a version is passed over: it is none of a newer minor release."""
    return version[1] <= KNOWN_MINORS.get(version[0], -1)


def check_version(what: object, version: str, expected_format: str) -> tuple[int, int]:
    """Parse ``"major.minor"`` and refuse a newer major.

    Raises:
        StoreError: If the major is none that is read, or this is no version.
    """
    match = re.fullmatch(r"(\d{1,6})\.(\d{1,6})", version)
    if match is None:
        raise StoreError(f"{what} names no format version", expected="major.minor", got=repr(version[:80]))
    major, minor = int(match[1]), int(match[2])
    if major not in KNOWN_MINORS:
        raise StoreError(
            f"{what} was written in format version {version}",
            expected=f"{expected_format} {' or '.join(f'{known}.x' for known in KNOWN_MINORS)}",
            got=version,
            hint="install the equivengine release that wrote it, or a newer one",
        )
    return major, minor


def check_format(what: object, found_format: object, version: object, expected_format: str) -> tuple[int, int]:
    """Refuse another format or a newer major of ours.

    Raises:
        StoreError: In both cases.
    """
    if found_format != expected_format:
        raise StoreError(
            f"{what} is not in the format that belongs here",
            expected=expected_format,
            got=repr(found_format)[:80] if found_format else "no format name",
            hint="pass a run directory, or its run.h5",
        )
    return check_version(what, str(version), expected_format)


def to_json(value: object, what: str) -> str:
    """Canonical JSON (ASCII); NaN and infinity become the strings "NaN", "Infinity" and "-Infinity".

    A measurement is not to be lost because its provenance holds a NaN or a NumPy scalar.

    Raises:
        PluginError: If the value holds anything else that JSON lacks.
    """
    try:
        return canonical_json(_plain(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise PluginError(f"{what} cannot be stored", expected="JSON types", got=error) from error


def _plain(value: object) -> object:
    if type(value) in _LEAVES:  # most of what there is
        return value
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict) or isinstance(value, Mapping):  # noqa: SIM101  the second one is slow
        if not all(issubclass(kind, str) for kind in set(map(type, value))):
            raise TypeError("a key that is not a string")
        return {key: item if type(item) in _LEAVES else _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [item if type(item) in _LEAVES else _plain(item) for item in value]
    return value


_LEAVES = frozenset((str, int, bool, type(None)))


def parse_json(text: str | bytes, what: object) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        StoreError: If it is none, holds NaN or infinity as numbers, or has more than `MAX_JSON_VALUES` values.
    """
    values = values_in(text)
    if values > MAX_JSON_VALUES:
        raise StoreError(f"{what} is damaged", expected=f"at most {MAX_JSON_VALUES} values", got=values)
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{what} is damaged", expected="JSON", got=error) from error
    if not isinstance(value, dict):
        raise StoreError(f"{what} is damaged", expected="a JSON object", got=type(value).__name__)
    return value


def values_in(text: str | bytes) -> int:
    """At least as many as a JSON text has values, counted before they take memory."""
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{")


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def sealed_json(content: Mapping[str, Any], what: str) -> str:
    """Canonical JSON of an object, with the field ``sha256`` added: the digest of its canonical JSON without it.

    Raises:
        PluginError: As `to_json`, or if it is larger than `MAX_JSON_FILE_BYTES`.
    """
    text = to_json({**content, SEAL: seal_of(content, what)}, what)
    if len(text) > MAX_JSON_FILE_BYTES:
        raise PluginError(f"{what} is too large", expected=f"{MAX_JSON_FILE_BYTES} bytes", got=len(text))
    return text


def seal_of(content: Mapping[str, Any], what: str) -> str:
    """sha256 (hex) of the canonical JSON of an object without its seal.

    Raises:
        PluginError: As `to_json`.
    """
    bare = {key: value for key, value in content.items() if key != SEAL}
    return hashlib.sha256(to_json(bare, what).encode()).hexdigest()


def check_seal(content: Mapping[str, Any], what: str, version: tuple[int, int]) -> None:
    """Hold a JSON object against its own digest; before format 1.2 there was none.

    Raises:
        StoreError: If it is another, or missing where it belongs.
    """
    found = content.get(SEAL)
    if found is None and version < SEALED_SINCE:
        return
    actual = seal_of(content, what)
    if found != actual:
        raise StoreError(
            f"{what} is damaged: its content is not what was written",
            expected=f"sha256 {str(found)[:64]}" if found else f"its {SEAL}",
            got=f"sha256 {actual}",
        )


def parse_unit(data: Mapping[str, Any], what: object) -> Unit:
    """Rebuild a unit, passing over fields that a newer minor version may have added.

    Raises:
        StoreError: If a field is missing or of a wrong type.
    """
    known = set(Unit.__dataclass_fields__)
    try:
        unit = Unit.from_json({key: value for key, value in data.items() if key in known})
        wrong = _wrong_types(unit)
        if wrong:
            raise TypeError(f"of a wrong type: {', '.join(wrong)}")
        if values_in(unit.params) > MAX_JSON_VALUES:
            raise ValueError(f"parameters of more than {MAX_JSON_VALUES} values")
        unit.unit_id  # noqa: B018  it is cached, and reads the parameters
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        got = f"{type(error).__name__}: {error}"[:300]
        raise StoreError(f"{what} is damaged", expected="a unit", got=got) from error
    return unit


def _wrong_types(unit: Unit) -> list[str]:
    """Fields that hold another type than they declare: JSON can put any in any place."""
    texts = ("probe", "probe_version", "params", "model", "weights_digest", "precision", "attention")
    wrong = [name for name in texts if not isinstance(getattr(unit, name), str)]
    wrong += ["seed"] * (type(unit.seed) is not int)
    for sample in (*unit.samples, *unit.references):
        known = all(isinstance(text, str) for text in (sample.images, sample.id, sample.digest))
        if not known or type(sample.index) is not int or not isinstance(sample.label, str | None):
            return [*wrong, "samples or references"]
    return wrong


def plan_units(plan: Mapping[str, Any], what: str = "the plan") -> UnitIds:
    """Unit ids of a plan in its order.

    Args:
        plan: JSON types. Either ``plan["groups"]`` and what belongs to it say what the units share and where they
            differ (`units_to_json`), or ``plan["units"]`` lists `Unit.to_json` objects or unit ids.
        what: Names it in errors.

    Raises:
        StoreError: If it is something else.
    """
    if "groups" in plan:
        return grouped_units(plan, what).ids
    entries = plan.get("units", [])
    if not isinstance(entries, list):
        raise StoreError(f"{what} is damaged", expected="a list under 'units'", got=type(entries).__name__)
    return UnitIds.of(_listed(entries, what))


def grouped_units(plan: Mapping[str, Any], what: str) -> UnitList:
    """The units of a plan that has groups.

    Raises:
        StoreError: If they are damaged, or there are more than `MAX_UNITS`.
    """
    try:
        for entry in plan["groups"]:
            if values_in(entry["params"]) > MAX_JSON_VALUES:
                raise ValueError(f"parameters of more than {MAX_JSON_VALUES} values")
        return units_from_json(plan, MAX_UNITS)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise _no_plan(what, "groups of units", error) from error


def plan_batches(plan: Mapping[str, Any], what: str) -> tuple[tuple[int, int], ...]:
    """Sizes of the batches of a plan that has groups, as `Batches` takes them.

    Raises:
        StoreError: If they are damaged.
    """
    try:
        return batch_sizes_from_json(plan.get("batches", ()))
    except (TypeError, ValueError) as error:
        raise _no_plan(what, "sizes of batches", error) from error


def _no_plan(what: str, expected: str, error: Exception) -> StoreError:
    return StoreError(f"{what} is damaged", expected=expected, got=f"{type(error).__name__}: {error}"[:300])


def _listed(entries: list[object], what: str) -> Iterator[str]:
    for entry in entries:
        unit_id = entry if isinstance(entry, str) else _entry_id(entry, what)
        if not is_unit_id(unit_id):
            raise StoreError(f"{what} is damaged", expected="a unit id", got=repr(unit_id)[:80])
        yield unit_id


def _entry_id(entry: object, what: str) -> str:
    if not isinstance(entry, dict):
        raise StoreError(f"{what} is damaged", expected="a unit or its id", got=type(entry).__name__)
    try:
        return str(entry["unit_id"]) if "unit_id" in entry else parse_unit(entry, what).unit_id
    except ValueError as error:
        raise StoreError(f"{what} is damaged", expected="a unit", got=error) from error
