"""Where things lie in a run directory, and its JSON files."""

from __future__ import annotations

import io
import os
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py

from equivengine.contracts.unit import Unit
from equivengine.contracts.units import Batches, UnitIds, UnitList, plan_digest
from equivengine.errors import StoreError
from equivengine.store import atomic, digests, elements, guard, refusal, schema
from equivengine.store.enough import Enough, StopRule, digest_with, in_own_order_of
from equivengine.store.shards import Shards, ShardsOfPlan


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
        """JSON types only, without the seal of the file; `from_json` reverses it."""
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
        _check(data, what, schema.FAILURE_FORMAT)
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

    @cached_property
    def units(self) -> UnitList | None:
        """Its units, made when they are asked for; None for a plan that lists them one by one (or only their ids).

        Raises:
            StoreError: If they are damaged.
        """
        return schema.grouped_units(self.plan, "the plan") if "groups" in self.plan else None

    @cached_property
    def unit_ids(self) -> UnitIds:
        """Ids of its units, in order.

        Raises:
            StoreError: If they are damaged.
        """
        return schema.plan_units(self.plan) if self.units is None else self.units.ids

    @cached_property
    def enough(self) -> Enough | None:
        """What decides which units are needed; None where all of them are.

        Raises:
            StoreError: If the plan is damaged.
        """
        rules, units = StopRule.all_of(self.plan), self.units
        if not rules or units is None:
            return None
        batches = Batches(units, schema.plan_batches(self.plan, "the plan"))
        try:
            return Enough(rules, units, batches, in_own_order_of(self.plan))
        except ValueError as error:
            raise StoreError("the plan is damaged", expected="in_own_order: image URIs", got=error) from error

    def check(self, what: str) -> None:
        """Read the units, and hold those of a plan with groups against the digest; ``what`` names it in errors.

        A plan that lists its units may carry any digest: whoever knows what else is in it checks that.

        Raises:
            StoreError: If they are damaged, or others than those of the digest.
        """
        if "groups" not in self.plan:
            self.__dict__["unit_ids"] = schema.plan_units(self.plan, what)  # as the cached property would
            return
        units = self.__dict__["units"] = schema.grouped_units(self.plan, what)
        digest = plan_digest(units.ids, schema.plan_batches(self.plan, what))
        if digest_with(digest, StopRule.all_of(self.plan)) != self.digest:
            raise StoreError(
                f"{what} is damaged: its units are not those of its digest",
                expected=f"plan {self.digest[:80]}",
                hint="start the run again in another directory",
            )

    def to_json(self) -> dict[str, Any]:
        """JSON types only, without the seal of the file; `from_json` reverses it."""
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
        _check(data, what, schema.PLAN_FORMAT)
        plan, digest = data.get("plan"), data.get("digest", "")
        if not isinstance(plan, dict):
            raise StoreError(f"{what} is damaged", expected="an object under 'plan'", got=type(plan).__name__)
        if not isinstance(digest, str):
            raise StoreError(f"{what} is damaged", expected="a text under 'digest'", got=type(digest).__name__)
        stored = cls(plan, digest)
        stored.check(what)
        return stored


def _check(data: Mapping[str, Any], what: str, expected_format: str) -> None:
    """Format, version and seal; what a newer minor version seals is for its own readers and `inspect_run` to check."""
    version = schema.check_format(what, data.get("format"), data.get("format_version"), expected_format)
    if schema.is_known(version):
        schema.check_seal(data, what, version)


def read_json_file(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of bounded size.

    Raises:
        StoreError: If it is absent, unreadable, too large or damaged.
    """
    with refusal.damage(path):
        size = digests.regular_size(path)
        if size > schema.MAX_JSON_FILE_BYTES:
            raise refusal.Refused(f"{size} bytes", f"at most {schema.MAX_JSON_FILE_BYTES}")
        return schema.parse_json(path.read_bytes(), str(path))


def read_plan(root: Path) -> StoredPlan:
    """The frozen plan of a run directory.

    Raises:
        StoreError: If it is absent or damaged.
    """
    path = root / schema.PLAN_FILE
    with refusal.damage(path):
        return StoredPlan.from_json(read_json_file(path), str(path))


def read_failure(path: Path) -> Failure:
    """The failure in one file.

    Raises:
        StoreError: If it is absent, damaged, or of another unit than its name says.
    """
    with refusal.damage(path):
        failure = Failure.from_json(read_json_file(path), str(path))
        if failure.unit.unit_id != path.stem:
            raise StoreError(f"{path} holds the failure of another unit", expected=path.stem, got=failure.unit.unit_id)
    return failure


def check_canonical(path: Path) -> None:
    """Refuse a JSON file that says what it should in other bytes than ours (a flipped bit may change no value).

    Raises:
        StoreError: If it is not the canonical JSON of what it holds.
    """
    data = read_json_file(path)
    with refusal.damage(path):
        if path.read_bytes() != schema.to_json(data, str(path)).encode():
            raise refusal.Refused("JSON in another form than ours", "canonical JSON: ASCII, sorted keys, no spaces")


def stored_plan(file: h5py.File, what: str, known: StoredPlan | None = None) -> StoredPlan:
    """The plan in an open ``run.h5``.

    Args:
        file: The file.
        what: Names it in errors.
        known: A plan that is in memory already, and was checked; where it is the same, this object is returned.

    Raises:
        Refused, StoreError: If it is damaged.
    """
    digest = guard.text(guard.dataset(file, "plan"), "digest")
    text = elements.read_text(file, "plan", "json")
    if known is not None and known.digest == digest and schema.to_json(known.plan, what) == text:
        return known
    stored = StoredPlan(schema.parse_json(text, guard.Where(file, "plan", file=True)), digest)
    stored.check(what)
    return stored


def stored_failures(file: h5py.File, what: str) -> dict[str, Failure]:
    """The failures in an open ``run.h5``, by unit id.

    Raises:
        Refused, StoreError: If one is damaged.
    """
    kept = guard.group(file, "failures")
    return {
        name: Failure.from_json(elements.read_json(kept, name), f"{what}:/failures/{name}")
        for name in guard.names(kept, schema.MAX_UNITS)
    }


def read_failures(root: Path, published: Container[str]) -> dict[str, Failure]:
    """Last failure by unit id, of the units that have not been published since.

    Raises:
        StoreError: If one is damaged.
    """
    found = {}
    for path in failure_files(root):
        if schema.is_unit_id(path.stem) and path.stem not in published:
            try:
                found[path.stem] = read_failure(path)
            except StoreError:
                if path.exists():  # otherwise its unit was published while we looked
                    raise
    return found


def failure_files(root: Path) -> list[Path]:
    """Everything in the folder of failures that ends in ``.json``, sorted."""
    return [path for path in _entries(root / schema.FAILURES) if path.suffix == ".json" and not is_aside(path)]


def shard_files(root: Path) -> Iterator[Path]:
    """Everything among the shards that ends in ``.h5``, sorted: also what has no place there.

    One folder is listed at a time, when its turn comes.
    """
    for entry in _entries(root / schema.SHARDS):
        yield from (path for path in (entry, *_entries(entry)) if path.suffix == ".h5" and not is_aside(path))


def is_aside(path: Path) -> bool:
    """Whether readers pass over a file: a temporary one, or a hidden one that belongs to another program."""
    return atomic.is_temporary(path) or path.name.startswith(".")


def is_in_place(root: Path, path: Path) -> bool:
    """Whether a shard of one unit lies where readers look for it."""
    return schema.is_unit_id(path.stem) and str(path) == f"{root}/{schema.shard_path(path.stem)}"


def find_units(root: Path) -> Shards:
    """Paths of shards, relative to ``root``, by the ids of the units that they hold, sorted by id.

    Raises:
        StoreError: If a shard that holds several units is damaged (the others are not opened).
    """
    own, packed = io.BytesIO(), {}
    for path, unit_ids in _units_of_shards(root):
        if unit_ids is None:
            own.write(bytes.fromhex(path.stem))
        else:
            packed.update(dict.fromkeys(unit_ids, str(path.relative_to(root))))
    return Shards(UnitIds(own.getvalue()), packed)


def find_planned(root: Path, planned: UnitIds) -> ShardsOfPlan:
    """`find_units` for who has the ids of the plan: of each unit, a byte is kept.

    Raises:
        StoreError: As `find_units`.
    """
    found = ShardsOfPlan(planned)
    for path, unit_ids in _units_of_shards(root):
        if unit_ids is None:
            found.add(path.stem)
        else:
            found.add_packed(unit_ids, str(path.relative_to(root)))
    return found


def _units_of_shards(root: Path) -> Iterator[tuple[Path, list[str] | None]]:
    """Each shard with its units; None for one of a unit, which is called like it."""
    for path in shard_files(root):
        if is_in_place(root, path):
            yield path, None
        elif path.name.startswith(schema.PACK_PREFIX):
            yield path, packed_units(path)


def packed_units(path: Path) -> list[str]:
    """Ids of the units in a shard that may hold several.

    Raises:
        StoreError: If it cannot be read.
    """
    with guard.open_untrusted(path, schema.SHARD_FORMAT) as file:
        return [name for name in guard.names(guard.group(file, "units"), schema.MAX_UNITS) if schema.is_unit_id(name)]


def _entries(directory: Path) -> list[Path]:
    """Entries of a directory, sorted; none if it is no directory or absent."""
    with refusal.damage(directory):
        try:
            with os.scandir(directory) as entries:
                return sorted(Path(entry.path) for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            return []
