"""A unit of work: strings, numbers and canonical JSON only, so that any worker can carry it out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Literal


def canonical_json(value: object) -> str:
    """Serialize to JSON that is equal for equal values: sorted keys, no spaces, no NaN.

    Raises:
        ValueError: If the value holds NaN or infinity.
        TypeError: If it holds anything that JSON lacks.
    """
    return _CANONICAL.encode(value)


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


@dataclass(frozen=True)
class SampleRef:
    """Which sample of which image set, and the digest of its content.

    Attributes:
        images: Image URI.
        index: Its place in that set when the run was planned.
        id: Its short name.
        digest: sha256 (hex) of its content.
        label: Its class, in units of probes that are `labelled`; None elsewhere and where it is not known.
    """

    images: str
    index: int
    id: str
    digest: str
    label: str | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON types only; without a label there is no such field. ``SampleRef(**data)`` reverses it."""
        data = asdict(self)
        if self.label is None:
            del data["label"]
        return data


@dataclass(frozen=True)
class Unit:
    """One probe, on one tuple of samples, with one encoder: the smallest thing that is run, stored and resumed.

    Attributes:
        probe: Name of the probe.
        probe_version: Its version.
        params: Its parameters as canonical JSON.
        model: Model URI.
        weights_digest: sha256 of the model's weights.
        samples: The samples, originals first, then targets.
        seed: Seed of everything random in this unit.
        precision: "fp32" or "fp64".
        attention: How attention was evaluated ("substituted": by `equivengine.ops`).
        references: The population that distances are held against, equal for all units of a probe and an image set;
            empty unless the probe asks for one (`Probe.references_of`).
    """

    probe: str
    probe_version: str
    params: str
    model: str
    weights_digest: str
    samples: tuple[SampleRef, ...]
    seed: int
    precision: str
    attention: str = "substituted"
    references: tuple[SampleRef, ...] = ()

    @cached_property
    def unit_id(self) -> str:
        """sha256 (hex) over everything that determines the result; the same on every machine.

        Where a sample was found does not matter, only what it holds. References and labels are part of it where there
        are any. The batch that a unit is computed in is not: it may change a result by roundoff, and is recorded.
        """
        return hashlib.sha256(canonical_json(self.identity()).encode()).hexdigest()

    def identity(self) -> dict[str, Any]:
        """What `unit_id` is the digest of, JSON types."""
        identity: dict[str, Any] = {
            "probe": [self.probe, self.probe_version],
            "params": json.loads(self.params),
            "model": [self.model, self.weights_digest],
            "samples": [s.digest for s in self.samples],
            "seed": self.seed,
            "precision": self.precision,
            "attention": self.attention,
        }
        if self.references:
            identity["references"] = [s.digest for s in self.references]
        if any(s.label is not None for s in (*self.samples, *self.references)):
            identity["labels"] = [[s.label for s in self.samples], [s.label for s in self.references]]
        return identity

    def to_json(self) -> dict[str, Any]:
        """JSON types only, without what is empty by default; `from_json` reverses it."""
        data: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        data["samples"] = [s.to_json() for s in self.samples]
        if self.references:
            data["references"] = [s.to_json() for s in self.references]
        else:
            del data["references"]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Unit:
        """Rebuild a unit from `to_json`.

        Raises:
            KeyError, TypeError: If fields are missing, unknown or of a wrong type.
        """
        values = dict(data)
        values["samples"] = tuple(SampleRef(**s) for s in values["samples"])
        values["references"] = tuple(SampleRef(**s) for s in values.get("references", ()))
        return cls(**values)


#: Units that share one call of a probe: they differ in their samples alone.
Batch = tuple[Unit, ...]


def settings(units: Sequence[Unit]) -> list[str]:
    """What sets each unit apart from the others but for samples and seed: ``"rate=0.01, steps=100"``.

    Args:
        units: Of one probe.

    Returns:
        One text for each unit: its model and precision where several occur, then parameters. Empty throughout where
        there is nothing to tell apart. Values are as ``--set`` takes them; a parameter that is unset (null) is named
        only where nothing else would be.
    """
    params = {text: json.loads(text) for text in dict.fromkeys(unit.params for unit in units)}
    names = dict.fromkeys(name for values in params.values() for name in values)
    apart = [name for name in names if len({canonical_json(values.get(name)) for values in params.values()}) > 1]
    words = {}
    for text, values in params.items():
        chosen = [name for name in apart if values.get(name) is not None] or apart
        words[text] = [f"{name}={_as_set(values.get(name))}" for name in chosen]
    several = [name for name in ("model", "precision") if len({getattr(unit, name) for unit in units}) > 1]
    return [", ".join([*(getattr(unit, name) for name in several), *words[unit.params]]) for unit in units]


def _as_set(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class UnitOutcome:
    """What became of a unit; small, since it crosses processes.

    Attributes:
        unit_id: Which unit.
        outcome: ``"published"``, ``"skipped"`` (was already published) or ``"failed"``.
        message: Why it failed, or the probe's remark.
        seconds: Wall time, seconds.
        status: The probe's own status, if it ran.
        error_type: Class name of the exception, if it failed.
    """

    unit_id: str
    outcome: Literal["published", "skipped", "failed"]
    message: str = ""
    seconds: float = 0.0
    status: str = ""
    error_type: str = ""
