"""Expands a configuration into a frozen list of units."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from equivengine.contracts.probe import Arity, Probe
from equivengine.contracts.unit import Batch, SampleRef, Unit, canonical_json
from equivengine.errors import StoreError, UsageError
from equivengine.ops.substitute import ATTENTION
from equivengine.runtime import contract
from equivengine.runtime.config import ProbeRequest, RunConfig, probe_params
from equivengine.runtime.drawing import Draws, unlabelled
from equivengine.runtime.loading import Workbench
from equivengine.store.layout import StoredPlan

PLAN_VERSION = 1


@dataclass(frozen=True)
class Plan:
    """What is to be done, in order.

    Attributes:
        config: The configuration it came from.
        units: One for each probe, model and sample tuple; no two alike.
        duplicates: Units left out because another one is the same work on the same content.
        batch_sizes: How many units share a call of their probe, in order; empty where each is run by itself. Frozen
            with the plan, so that a resumed run groups them as before.
    """

    config: RunConfig
    units: tuple[Unit, ...]
    duplicates: int = 0
    batch_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        sizes = self.batch_sizes
        if all(size == 1 for size in sizes):
            object.__setattr__(self, "batch_sizes", ())
        elif not all(type(size) is int and size > 0 for size in sizes) or sum(sizes) != len(self.units):
            raise ValueError(f"{len(self.units)} units cannot be cut into batches of {sizes}")

    def batches(self) -> tuple[Batch, ...]:
        """The units in order, cut into those that are computed together."""
        if not self.batch_sizes:
            return tuple((unit,) for unit in self.units)
        rest = iter(self.units)
        return tuple(tuple(itertools.islice(rest, size)) for size in self.batch_sizes)

    def to_json(self) -> dict[str, Any]:
        """JSON types only. Where results go is not part of the plan.

        References are equal for many units: they are listed once, under "references", and a unit that has some holds
        the number of its list and its own id.
        """
        populations: dict[tuple[SampleRef, ...], int] = {}
        units = []
        for unit in self.units:
            entry = replace(unit, references=()).to_json()
            if unit.references:
                entry["references"] = populations.setdefault(unit.references, len(populations))
                entry["unit_id"] = unit.unit_id
            units.append(entry)
        plan: dict[str, Any] = {
            "version": PLAN_VERSION,
            "config": self.config.model_dump(mode="json", exclude={"out", "device", "executor"}),
            "units": units,
        }
        if populations:
            plan["references"] = [[sample.to_json() for sample in population] for population in populations]
        if self.batch_sizes:
            plan["batches"] = list(self.batch_sizes)
        return plan

    @property
    def digest(self) -> str:
        """sha256 (hex) over the units' identities, in order, and over how they are cut into batches if they are."""
        content: Any = [unit.unit_id for unit in self.units]
        if self.batch_sizes:
            content = {"units": content, "batches": self.batch_sizes}
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()

    @classmethod
    def from_store(cls, stored: StoredPlan, path: Path) -> Plan:
        """Rebuild the plan of a run directory, and hold its units and batches against its digest.

        Args:
            stored: What `equivengine.store` read.
            path: Where, for messages.

        Raises:
            StoreError: If it is no plan of this version, or not the one of its digest.
        """
        hint = "start the run again in another directory"
        try:
            plan = cls.from_json(stored.plan)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            got = f"{type(error).__name__}: {error}"[:500]
            raise StoreError(f"the plan of {str(path)!r} cannot be read", got=got, hint=hint) from None
        if plan.digest != stored.digest:
            raise StoreError(
                f"the plan of {str(path)!r} cannot be read: its units are not those of its digest",
                expected=f"plan {stored.digest[:80]}",
                got=f"plan {plan.digest}",
                hint=hint,
            )
        return plan

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """Rebuild a plan from `to_json`.

        Raises:
            KeyError, TypeError, ValueError: If it is not a plan of this version.
        """
        if data["version"] != PLAN_VERSION:
            raise ValueError(f"plan version {data['version']!r} is not {PLAN_VERSION}")
        lists = data.get("references", [])
        populations = {place: tuple(SampleRef(**sample) for sample in refs) for place, refs in enumerate(lists)}
        return cls(
            RunConfig.model_validate(data["config"]),
            tuple(_unit(entry, populations) for entry in data["units"]),
            batch_sizes=tuple(data.get("batches", ())),
        )


@dataclass(frozen=True)
class _Wanted:
    """What a probe with its parameters says of its units."""

    cls: type[Probe[Any]]
    params: str
    arity: Arity
    batch: int
    references: int

    def reads(self, samples: tuple[SampleRef, ...]) -> tuple[SampleRef, ...]:
        """Labels are part of a unit only where the probe reads them."""
        return samples if self.cls.labelled else unlabelled(samples)


def make_plan(config: RunConfig, bench: Workbench) -> Plan:
    """Resolve every name in the configuration, list the units and cut them into batches.

    Each model is loaded, since the digest of its weights is part of every unit's identity; samples are hashed, not
    decoded (references are). Pairs are drawn strictly at random from the seed, without replacement against the original
    alone.

    Raises:
        UsageError: If a name, parameter, limit or pairing makes no sense.
        PluginError: If a probe does not say how many samples, units or references it takes.
        WeightsError, ModelError, DataError: If a model or image set cannot be had.
    """
    probes = [_wanted(request, bench) for request in config.probes]
    if config.pairing != "any" and all(probe.arity != "pair" for probe in probes):
        raise UsageError(
            f"--pairing {config.pairing} has no meaning here: no probe of this run takes pairs",
            expected="a probe of an original and a target",
            got=", ".join(probe.cls.name for probe in probes),
            hint="leave --pairing out",
        )
    bench.registry.executor(config.executor)

    for uri in config.images:
        bench.images(uri)
    draws = Draws(config, bench)
    units: dict[str, Unit] = {}
    planned = 0
    for model in config.models:
        weights = bench.encoder(model).spec.weights_digest
        for probe in probes:
            for uri in config.images:
                references = probe.reads(draws.references(uri, probe.references))
                for samples in draws.samples(probe.arity, uri):
                    unit = Unit(
                        probe=probe.cls.name,
                        probe_version=probe.cls.version,
                        params=probe.params,
                        model=model,
                        weights_digest=weights,
                        samples=probe.reads(samples),
                        seed=config.seed,
                        precision=config.precision,
                        attention=ATTENTION,
                        references=references,
                    )
                    planned += 1
                    units.setdefault(unit.unit_id, unit)
    largest = {(probe.cls.name, probe.params): probe.batch for probe in probes}
    found = tuple(units.values())
    return Plan(config, found, planned - len(units), cut(found, largest))


def _wanted(request: ProbeRequest, bench: Workbench) -> _Wanted:
    cls, _ = bench.registry.probe(request.name)
    params = probe_params(cls, request.set)
    return _Wanted(
        cls,
        canonical_json(params.model_dump(mode="json")),
        contract.arity_of(cls, params),
        contract.batch_of(cls, params),
        contract.references_of(cls, params),
    )


def cut(units: Iterable[Unit], largest: Mapping[tuple[str, str], int]) -> tuple[int, ...]:
    """Sizes of the batches: consecutive units that differ in their samples alone, in as few nearly equal parts as fit.

    20 units of which 16 may share a call become 10 and 10: an odd remainder would cost as much as a full batch.
    """
    sizes: list[int] = []
    for common, alike in itertools.groupby(units, key=lambda unit: replace(unit, samples=())):
        count = sum(1 for _ in alike)
        parts = -(-count // largest[common.probe, common.params])
        sizes += [count // parts + (part < count % parts) for part in range(parts)]
    return tuple(sizes)


def _unit(entry: dict[str, Any], populations: Mapping[int, tuple[SampleRef, ...]]) -> Unit:
    if "unit_id" not in entry:
        return Unit.from_json(entry)
    values = dict(entry)
    unit_id, references = values.pop("unit_id"), populations[values.pop("references")]
    unit = replace(Unit.from_json(values), references=references)
    if unit.unit_id != unit_id:
        raise ValueError(f"unit {unit_id} has other content than its id")
    return unit
