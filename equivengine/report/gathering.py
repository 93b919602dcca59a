"""Reads a run once, and keeps of each unit a few numbers and names: what summaries, comparisons and pages are made of.

Of these, the last ones of each group are in memory and the others in a temporary file: some 100 bytes for each unit,
and 8 for each of its scalars. Records, arrays and pictures are let go of, but for the few that are shown.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from equivengine.contracts.result import Scalar
from equivengine.contracts.unit import SampleRef, Unit
from equivengine.report.spilled import Spill, SpilledNumbers, SpilledTexts
from equivengine.report.tallies import MOST_FAILED, CheckTally, Remarks, Spaced, Texts
from equivengine.store.run import Failure, Run, UnitRecord


class Key(NamedTuple):
    """What the units of one group have in common."""

    probe: str
    model: str
    params: str
    precision: str

    @classmethod
    def of(cls, unit: Unit) -> Key:
        """The key of a unit."""
        return cls(unit.probe, unit.model, unit.params, unit.precision)


@dataclass
class Group:
    """The published units of one probe, model, set of parameters and precision, condensed.

    Attributes:
        unit: The first of them.
        version: Version of equivengine that computed the first.
        names: Short names of the samples of each unit: ``"a.png -> b.png"``.
        unit_ids: Their ids.
        subjects: What each is about: the digest of its first sample, the original; of a set, of all samples together.
        targets: Digest of the second sample of a pair; empty elsewhere.
        scalars: One of each name, in the probe's order.
        checks: Checks by name.
        notes: Remarks of units that are ok.
        converged: 1 for each unit that did, 0 for one that did not.
        unconverged: What units that did not converge say to do.
        unconverged_at: Places of the first of them.
        random: Units of random weights.
        narrowed: Where the model computes in less than a precision that it was used in.
        unavailable: Reasons for which units ran without the compiled extension.
        facts: What occurs of device, precision, seed, attention, kernels and weights.
        input_units: What one number of an input is.
        size: (embedding_dim, numbers of an input) of the encoder; None where results do not say.
        drawn: Units with their arrays, for figures over units.
        first: The first records, for figures of units.
        pictured: The first records with pictures.
        pictured_of: Units with pictures.
    """

    unit: Unit
    spill: InitVar[Spill]
    version: str = ""
    names: SpilledTexts = field(init=False)
    unit_ids: SpilledTexts = field(init=False)
    subjects: SpilledTexts = field(init=False)
    targets: SpilledTexts = field(init=False)
    scalars: dict[str, Scalar] = field(default_factory=dict)
    checks: dict[str, CheckTally] = field(default_factory=dict)
    notes: Remarks = field(default_factory=Remarks)
    converged: bytearray = field(default_factory=bytearray)
    unconverged: Remarks = field(default_factory=Remarks)
    unconverged_at: list[int] = field(default_factory=list)
    random: int = 0
    narrowed: Texts = field(default_factory=Texts)
    unavailable: Texts = field(default_factory=Texts)
    facts: dict[str, Texts] = field(default_factory=dict)
    input_units: Texts = field(default_factory=Texts)
    size: tuple[int, int] | None = None
    drawn: Spaced[tuple[Unit, Any]] = field(default_factory=Spaced)
    first: list[UnitRecord] = field(default_factory=list)
    pictured: list[UnitRecord] = field(default_factory=list)
    pictured_of: int = 0
    _values: dict[str, SpilledNumbers] = field(default_factory=dict)
    _in_sets: set[str] = field(default_factory=set)
    _is_set: bytearray = field(default_factory=bytearray)

    def __post_init__(self, spill: Spill) -> None:
        self._spill = spill
        self.names, self.unit_ids, self.subjects, self.targets = (SpilledTexts(spill) for _ in range(4))

    @property
    def count(self) -> int:
        """How many units."""
        return len(self.unit_ids)

    @property
    def samples(self) -> set[str]:
        """Digests of all samples."""
        units = zip(self.subjects, self.targets, self._is_set, strict=True)
        alone = {digest for subject, target, is_set in units if not is_set for digest in (subject, target) if digest}
        return alone | self._in_sets

    def binary(self, name: str) -> bool:
        """Whether a scalar says yes (1) or no (0) of each unit that could tell."""
        if not self.scalars[name].binary:
            return False
        values = self.values(name)
        return bool(((values == 0) | (values == 1) | np.isnan(values)).all())

    def values(self, name: str) -> np.ndarray:
        """A scalar over the units, float64 [count]; NaN where a unit lacks it or could not measure it."""
        return self._values[name].values()

    def _take(self, record: UnitRecord) -> None:
        place = self.count
        unit = record.unit
        self.names.append(" -> ".join(sample.id for sample in unit.samples))
        self.unit_ids.append(record.unit_id)
        self.subjects.append(subject_of(unit))
        self.targets.append(unit.samples[1].digest if len(unit.samples) == 2 else "")
        is_set = len(unit.samples) > 2
        self._is_set.append(is_set)
        if is_set:
            self._in_sets.update(sample.digest for sample in unit.samples)
        for name, scalar in record.summary.items():
            if name not in self._values:
                self.scalars[name] = scalar
                self._values[name] = SpilledNumbers(self._spill, before=place)
            elif scalar.binary and not self.scalars[name].binary:  # units before it were stored without the kind
                self.scalars[name] = scalar
            self._values[name].append(scalar.value)
        for column in self._values.values():
            if len(column) == place:
                column.append(math.nan)
        for name, check in record.checks.items():
            self.checks.setdefault(name, CheckTally()).add(check, place)
        self.converged.append(record.status != "not_converged")
        if record.status == "not_converged":
            self.unconverged.add(record.message)
            if len(self.unconverged_at) < MOST_FAILED:
                self.unconverged_at.append(place)
        elif record.message:
            self.notes.add(record.message)
        self._take_provenance(record)

    def _take_provenance(self, record: UnitRecord) -> None:
        provenance = record.provenance
        self.random += bool(provenance.get("random_weights"))
        for words in _narrowed(provenance.get("narrowed")):
            self.narrowed.add(words)
        extension = provenance.get("extension", {})
        if not extension.get("available", True):
            self.unavailable.add(next(iter(str(extension.get("reason", "")).splitlines()), ""))
        for name, words in _facts(record).items():
            self.facts.setdefault(name, Texts()).add(words)
        model = provenance.get("model")
        # Stored results that do not say are of images.
        self.input_units.add(str(model.get("input_unit", "pixel")) if isinstance(model, dict) else "pixel")
        self.version = self.version or str(provenance.get("equivengine", ""))
        self.size = self.size or _size(model)


@dataclass
class Failed:
    """Failed units of one group.

    Attributes:
        unit: The first of them.
        texts: Why.
        names: For each reason, the samples of the first units.
        unit_ids: Their ids.
    """

    unit: Unit
    texts: Texts = field(default_factory=Texts)
    names: dict[str, list[str]] = field(default_factory=dict)
    unit_ids: list[str] = field(default_factory=list)

    def _take(self, unit_id: str, failure: Failure) -> None:
        self.unit_ids.append(unit_id)
        self.texts.add(failure.message)
        if failure.message in self.texts.counts:
            names = self.names.setdefault(failure.message, [])
            if len(names) < MOST_FAILED:
                names.append(" → ".join(sample.id for sample in failure.unit.samples[:2]))


@dataclass
class Gathering:
    """What a pass over a run brought.

    Attributes:
        groups: Published units by what they have in common, in the order of the plan.
        failures: Failed units, in the same way.
        pictures: Pictures of each unit that has any, by its id.
        labels: Class of each sample by its digest, as far as units say; None where they say different ones.
    """

    groups: dict[Key, Group] = field(default_factory=dict)
    failures: dict[Key, Failed] = field(default_factory=dict)
    pictures: dict[str, int] = field(default_factory=dict)
    labels: dict[str, str | None] = field(default_factory=dict)

    def _label(self, unit: Unit) -> None:
        for sample in unit.samples:
            if sample.label is not None and self.labels.setdefault(sample.digest, sample.label) != sample.label:
                self.labels[sample.digest] = None


def gather(
    run: Run,
    *,
    drawn: bool = False,
    figures: int = 0,
    pictures: int = 0,
    watch: Callable[[UnitRecord], None] | None = None,
) -> Gathering:
    """Read the published units of a run, one after the other.

    Args:
        run: The run.
        drawn: Whether to keep units for figures over units.
        figures: Records of each group to keep for figures of single units.
        pictures: Records with pictures of each group to keep.
        watch: Called with each record.

    Raises:
        StoreError: If a shard cannot be read.
    """
    found, spill = Gathering(), Spill()
    references: dict[tuple[SampleRef, ...], tuple[SampleRef, ...]] = {}
    for record in run.each():
        unit = record.unit
        group = found.groups.get(Key.of(unit))
        if group is None:
            group = found.groups[Key.of(unit)] = Group(unit, spill)
        group._take(record)
        found._label(unit)
        if record.pictures:
            found.pictures[record.unit_id] = len(record.pictures)
            group.pictured_of += 1
            if len(group.pictured) < pictures:
                group.pictured.append(record)
        if len(group.first) < figures:
            group.first.append(record)

        def kept(record: UnitRecord = record) -> tuple[Unit, Any]:
            # Each unit lists the references that all share.
            listed = record.unit.references
            shared = references.setdefault(listed, listed) if listed else ()
            return replace(record.unit, references=shared), record.arrays

        if drawn:
            group.drawn.offer(kept)
        if watch is not None:
            watch(record)
    for unit_id, failure in run.failures.items():
        found.failures.setdefault(Key.of(failure.unit), Failed(failure.unit))._take(unit_id, failure)
    return found


def subject_of(unit: Unit) -> str:
    """What a unit is about: the digest of its original; of a set, a digest of all."""
    if len(unit.samples) <= 2:
        return unit.samples[0].digest if unit.samples else ""
    return hashlib.sha256("/".join(sorted(sample.digest for sample in unit.samples)).encode()).hexdigest()


def _size(model: Any) -> tuple[int, int] | None:
    try:
        return int(model["embedding_dim"]), math.prod(int(length) for length in model["input_shape"])
    except (TypeError, KeyError, ValueError):  # stored by another program, or of a plugin's own making
        return None


def _narrowed(places: Any) -> list[str]:
    """One sentence for each precision that the model does not keep throughout; from what a file says, so anything."""
    if not isinstance(places, dict):
        return []
    return [
        f"{precision} is not kept throughout the model: {first}" + (f", and {len(rest):,} more" if rest else "")
        for precision, (first, *rest) in ((p, w) for p, w in places.items() if isinstance(w, list) and w)
    ]


def _facts(record: UnitRecord) -> dict[str, str]:
    provenance = record.provenance
    ran: dict[str, set[str]] = {}
    for operation, calls in provenance.get("operations", {}).items():
        for path in calls:
            ran.setdefault(path, set()).add(operation.removesuffix("_jvp").removesuffix("_vjp"))
    return {
        "device": str(provenance.get("device", {}).get("name", "unknown")),
        "precision": record.unit.precision,
        "seed": str(record.unit.seed),
        "attention": record.unit.attention,
        "kernels": ", ".join(f"{path} ({', '.join(sorted(ran[path]))})" for path in sorted(ran)) or "torch",
        "weights": f"sha256 {record.unit.weights_digest[:12]}",
    }
