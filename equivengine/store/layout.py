"""Where things lie in a run directory, and its JSON files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equivengine.contracts.unit import Unit
from equivengine.errors import StoreError
from equivengine.store import atomic, guard, schema


@dataclass(frozen=True)
class Failure:
    """Why a unit has no result.

    Attributes:
        unit: The unit.
        message: What went wrong, and what to do.
        error_type: Class name of the exception.
        provenance: Where and with what it was run; JSON types.
    """

    unit: Unit
    message: str
    error_type: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON types only; `from_json` reverses it."""
        return {
            "format": schema.FAILURE_FORMAT,
            "format_version": schema.VERSION_TEXT,
            "unit": self.unit.to_json(),
            "message": self.message,
            "error_type": self.error_type,
            "provenance": self.provenance,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], what: str) -> Failure:
        """Rebuild a failure; ``what`` names it in errors.

        Raises:
            StoreError: If it is damaged, or of a newer major version.
        """
        schema.check_format(what, data.get("format"), data.get("format_version"), schema.FAILURE_FORMAT)
        unit, provenance = data.get("unit"), data.get("provenance")
        if not isinstance(unit, dict) or not isinstance(provenance, dict):
            raise StoreError(f"{what} is damaged", expected="a unit and its provenance", got=", ".join(data))
        return cls(
            schema.parse_unit(unit, what), str(data.get("message", "")), str(data.get("error_type", "")), provenance
        )


@dataclass(frozen=True)
class StoredPlan:
    """A frozen plan and the digest that it was published with."""

    plan: dict[str, Any]
    digest: str

    def to_json(self) -> dict[str, Any]:
        """JSON types only; `from_json` reverses it."""
        return {
            "format": schema.PLAN_FORMAT,
            "format_version": schema.VERSION_TEXT,
            "digest": self.digest,
            "plan": self.plan,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], what: str) -> StoredPlan:
        """Rebuild a plan; ``what`` names it in errors.

        Raises:
            StoreError: If it is damaged, or of a newer major version.
        """
        schema.check_format(what, data.get("format"), data.get("format_version"), schema.PLAN_FORMAT)
        plan = data.get("plan")
        if not isinstance(plan, dict):
            raise StoreError(f"{what} is damaged", expected="an object under 'plan'", got=type(plan).__name__)
        return cls(plan, str(data.get("digest", "")))


def read_json_file(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of bounded size.

    Raises:
        StoreError: If it is absent, unreadable, too large or damaged.
    """
    with guard.damage(path):
        size = guard.regular_size(path)
        if size > schema.MAX_JSON_FILE_BYTES:
            raise guard.Refused(f"{size} bytes", f"at most {schema.MAX_JSON_FILE_BYTES}")
        return schema.parse_json(path.read_bytes(), str(path))


def read_plan(root: Path) -> StoredPlan:
    """The frozen plan of a run directory.

    Raises:
        StoreError: If it is absent or damaged.
    """
    path = root / schema.PLAN_FILE
    return StoredPlan.from_json(read_json_file(path), str(path))


def read_failures(root: Path, published: Iterable[str]) -> dict[str, Failure]:
    """Last failure by unit id, of the units that have not been published since.

    Raises:
        StoreError: If one is damaged.
    """
    done = set(published)
    found = {}
    for path in _entries(root / schema.FAILURES):
        if path.suffix == ".json" and schema.is_unit_id(path.stem) and path.stem not in done:
            try:
                found[path.stem] = Failure.from_json(read_json_file(path), str(path))
            except StoreError:
                if path.exists():  # otherwise its unit was published while we looked
                    raise
    return found


def find_units(root: Path) -> dict[str, str]:
    """Paths of shards, relative to ``root``, by the ids of the units that they hold, sorted by id.

    Raises:
        StoreError: If a shard that holds several units is damaged (the others are not opened).
    """
    found = {}
    for directory in _entries(root / schema.SHARDS):
        for path in _entries(directory):
            if path.suffix != ".h5" or atomic.is_temporary(path):
                continue
            relative = str(path.relative_to(root))
            if schema.is_unit_id(path.stem):
                found[path.stem] = relative
            elif path.name.startswith(schema.PACK_PREFIX):
                for unit_id in _packed(path):
                    found.setdefault(unit_id, relative)
    return dict(sorted(found.items()))


def in_plan_order(plan: Mapping[str, Any], unit_ids: Iterable[str]) -> list[str]:
    """Unit ids as the plan orders them; those that it does not list follow, sorted.

    Raises:
        StoreError: If the plan is damaged.
    """
    present = set(unit_ids)
    planned = [unit_id for unit_id in schema.plan_units(plan) if unit_id in present]
    return planned + sorted(present.difference(planned))


def _packed(path: Path) -> list[str]:
    with guard.open_untrusted(path, schema.SHARD_FORMAT) as file:
        return [name for name in guard.names(guard.group(file, "units")) if schema.is_unit_id(name)]


def _entries(directory: Path) -> list[Path]:
    """Entries of a directory, sorted; none if it is no directory or absent."""
    with guard.damage(directory):
        try:
            with os.scandir(directory) as entries:
                return sorted(Path(entry.path) for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            return []
