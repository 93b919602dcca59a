"""Expands a configuration into a frozen list of units."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from equivengine.contracts.dataset import Dataset
from equivengine.contracts.probe import Arity
from equivengine.contracts.unit import SampleRef, Unit, canonical_json
from equivengine.errors import DataError, UsageError
from equivengine.ops.substitute import ATTENTION
from equivengine.runtime.config import RunConfig, probe_params
from equivengine.runtime.contract import arity_of
from equivengine.runtime.loading import UNREADABLE, Workbench

PLAN_VERSION = 1


@dataclass(frozen=True)
class Plan:
    """What is to be done, in order.

    Attributes:
        config: The configuration it came from.
        units: One for each probe, model and sample tuple; no two alike.
        duplicates: Units left out because another one is the same work on the same content.
    """

    config: RunConfig
    units: tuple[Unit, ...]
    duplicates: int = 0

    def to_json(self) -> dict[str, Any]:
        """JSON types only. Where results go is not part of the plan."""
        return {
            "version": PLAN_VERSION,
            "config": self.config.model_dump(mode="json", exclude={"out", "device", "executor"}),
            "units": [unit.to_json() for unit in self.units],
        }

    @property
    def digest(self) -> str:
        """sha256 (hex) over the units' identities, in order."""
        return hashlib.sha256(canonical_json([unit.unit_id for unit in self.units]).encode()).hexdigest()

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """Rebuild a plan from `to_json`.

        Raises:
            KeyError, TypeError, ValueError: If it is not a plan of this version.
        """
        if data["version"] != PLAN_VERSION:
            raise ValueError(f"plan version {data['version']!r} is not {PLAN_VERSION}")
        return cls(RunConfig.model_validate(data["config"]), tuple(Unit.from_json(u) for u in data["units"]))


def make_plan(config: RunConfig, bench: Workbench) -> Plan:
    """Resolve every name in the configuration and list the units.

    Each model is loaded, since the digest of its weights is part of every unit's identity; samples are hashed, not
    decoded. Pairs are drawn strictly at random from the seed, without replacement against the original alone.

    Raises:
        UsageError: If a name, parameter or limit makes no sense.
        PluginError: If a probe does not say how many samples it takes.
        WeightsError, ModelError, DataError: If a model or image set cannot be had.
    """
    probes = []
    for request in config.probes:
        cls, _ = bench.registry.probe(request.name)
        params = probe_params(cls, request.set)
        probes.append((cls, arity_of(cls, params), canonical_json(params.model_dump(mode="json"))))
    bench.registry.executor(config.executor)

    sources = [(uri, bench.images(uri)) for uri in config.images]
    chosen = {uri: _references(uri, dataset, config.limit) for uri, dataset in sources}
    units: dict[str, Unit] = {}
    planned = 0
    for model in config.models:
        weights = bench.encoder(model).spec.weights_digest
        for cls, arity, settings in probes:
            for uri, dataset in sources:
                for samples in _tuples(arity, uri, dataset, chosen[uri], config, bench):
                    unit = Unit(
                        probe=cls.name,
                        probe_version=cls.version,
                        params=settings,
                        model=model,
                        weights_digest=weights,
                        samples=samples,
                        seed=config.seed,
                        precision=config.precision,
                        attention=ATTENTION,
                    )
                    planned += 1
                    units.setdefault(unit.unit_id, unit)
    return Plan(config, tuple(units.values()), planned - len(units))


def _references(uri: str, dataset: Dataset, limit: int | None) -> list[SampleRef]:
    count = len(dataset) if limit is None else min(limit, len(dataset))
    return [_reference(uri, dataset, index) for index in range(count)]


def _reference(uri: str, dataset: Dataset, index: int) -> SampleRef:
    try:
        sample = dataset[index]
    except DataError as error:
        # Unreadable: the unit is planned all the same, so that it stands among the failures and not among the missing.
        name = f"{uri}[{index}]"
        return SampleRef(uri, index, name, UNREADABLE + hashlib.sha256(f"{name}{error}".encode()).hexdigest())
    return SampleRef(uri, index, sample.id, sample.digest)


def _tuples(
    arity: Arity, uri: str, dataset: Dataset, originals: list[SampleRef], config: RunConfig, bench: Workbench
) -> list[tuple[SampleRef, ...]]:
    if arity == "one":
        return [(sample,) for sample in originals]
    if arity == "set":
        return [tuple(originals)]
    target_uri = config.targets or uri
    targets = dataset if target_uri == uri else bench.images(target_uri)
    return [(original, _target(original, target_uri, targets, config)) for original in originals]


def _target(original: SampleRef, uri: str, targets: Dataset, config: RunConfig) -> SampleRef:
    """A target drawn at random, with other content than the original. Each original has a stream of its own."""
    key = hashlib.sha256(f"pair/{config.seed}/{original.digest}".encode()).digest()
    order = np.random.Generator(np.random.Philox(key=np.frombuffer(key[:16], dtype=np.uint64)))
    for index in order.permutation(len(targets))[:64]:
        target = _reference(uri, targets, int(index))
        if target.digest != original.digest:
            return target
    raise UsageError(
        f"{uri!r} holds no target that differs from {original.id!r}",
        expected="at least two different images, or targets of their own",
        got=f"{len(targets)} image{'s' if len(targets) != 1 else ''}",
        hint="pass --targets URI, for example --targets samples or --targets noise:10",
    )
