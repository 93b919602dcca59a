"""A unit of work: strings, numbers and canonical JSON only, so that any worker can carry it out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal


def canonical_json(value: object) -> str:
    """Serialise to JSON that is equal for equal values: sorted keys, no spaces, no NaN.

    Raises:
        ValueError: If the value holds NaN or infinity.
        TypeError: If it holds anything that JSON lacks.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


@dataclass(frozen=True)
class SampleRef:
    """Which sample of which image set, and the digest of its content."""

    images: str
    index: int
    id: str
    digest: str


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

    @property
    def unit_id(self) -> str:
        """sha256 (hex) over everything that determines the result; the same on every machine.

        Where a sample was found does not matter, only what it holds.
        """
        identity = {
            "probe": [self.probe, self.probe_version],
            "params": json.loads(self.params),
            "model": [self.model, self.weights_digest],
            "samples": [s.digest for s in self.samples],
            "seed": self.seed,
            "precision": self.precision,
            "attention": self.attention,
        }
        return hashlib.sha256(canonical_json(identity).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """JSON types only; `from_json` reverses it."""
        return {**asdict(self), "samples": [asdict(s) for s in self.samples]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Unit:
        """Rebuild a unit from `to_json`.

        Raises:
            KeyError, TypeError: If fields are missing, unknown or of a wrong type.
        """
        fields = dict(data)
        fields["samples"] = tuple(SampleRef(**s) for s in fields["samples"])
        return cls(**fields)


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
