"""Expands a configuration into a frozen list of units."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from equivengine.contracts.unit import SampleRef, Unit
from equivengine.contracts.units import Batches, Group, UnitList, plan_digest
from equivengine.contracts.units_as_json import batch_sizes_from_json, units_from_json, units_to_json
from equivengine.contracts.wording import counted
from equivengine.errors import DataError, StoreError
from equivengine.ops.substitute import ATTENTION
from equivengine.runtime.config import RunConfig
from equivengine.runtime.contract import remarks_of
from equivengine.runtime.drawing import Draws
from equivengine.runtime.loading import UNREADABLE, Workbench, blamed, resolve_device
from equivengine.runtime.tables import PLACES
from equivengine.runtime.wanted import wanted_of
from equivengine.store.enough import StopRule, digest_with, in_own_order_of
from equivengine.store.layout import StoredPlan
from equivengine.store.schema import MAX_UNITS

#: What is written. Version 1, in which each unit stands by itself, is read too, and has the same digest.
PLAN_VERSION = 2


@dataclass(frozen=True)
class Plan:
    """What is to be done, in order.

    Attributes:
        config: The configuration it came from.
        units: One for each probe, model and sample tuple; no two alike. Made when they are asked for.
        duplicates: Units left out because another one is the same work on the same content.
        batch_sizes: How many units share a call of their probe, in order, as pairs of a size and how often it comes;
            empty where each is run by itself. Frozen with the plan, so that a resumed run groups them as before.
        in_own_order: Image sets under stop rules that are taken in an order that is not known to be random.
        remarks: What image sets remark of themselves, as pairs of a URI and a line; no unit depends on it.
    """

    config: RunConfig
    units: UnitList
    duplicates: int = 0
    batch_sizes: tuple[tuple[int, int], ...] = ()
    in_own_order: tuple[str, ...] = ()
    remarks: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "batch_sizes", Batches(self.units, self.batch_sizes).sizes)

    def batches(self) -> Batches:
        """The units in order, cut into those that are computed together."""
        return Batches(self.units, self.batch_sizes)

    def to_json(self) -> dict[str, Any]:
        """JSON types only. Where results go is not part of the plan."""
        unset = {name for name in ("stop", "for_models") if not getattr(self.config, name)}
        unset |= {"order"} if self.config.order == "own" else set()
        plan: dict[str, Any] = {
            "version": PLAN_VERSION,
            "config": self.config.model_dump(mode="json", exclude=unset | PLACES),
            **units_to_json(self.units),
        }
        if self.batch_sizes:
            plan["batches"] = [list(pair) for pair in self.batch_sizes]
        if self.in_own_order:
            plan["in_own_order"] = list(self.in_own_order)
        if self.remarks:
            plan["remarks"] = [list(pair) for pair in self.remarks]
        return plan

    @property
    def cautions(self) -> list[str]:
        """What may make its results mislead, as far as a plan can tell."""
        return [
            f"stop: the images of {uri!r} are taken in its own order, which is not known to be random. A stop rule "
            'takes them for independent draws: pass --order random (order = "random" in a run file), or an address '
            "that samples"
            for uri in self.in_own_order
        ]

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) over the units' identities, in order, how they are cut into batches, and stop rules if any."""
        return digest_with(plan_digest(self.units.ids, self.batch_sizes), self.stop_rules)

    @cached_property
    def stop_rules(self) -> tuple[StopRule, ...]:
        """Where units may turn out not to be needed."""
        return tuple(StopRule.from_json(rule.model_dump()) for rule in self.config.stop)

    @classmethod
    def from_store(cls, stored: StoredPlan, path: Path) -> Plan:
        """Rebuild the plan of a run directory, and hold its units and batches against its digest.

        Args:
            stored: What `equivengine.store` read.
            path: Where, for messages.

        Raises:
            StoreError: If it is no plan of a version that is known, or not the one of its digest.
        """
        hint = "start the run again in another directory"
        try:
            plan = cls.from_json(stored.plan, stored.units)
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
    def from_json(cls, data: Mapping[str, Any], units: UnitList | None = None) -> Plan:
        """Rebuild a plan from `to_json`.

        Args:
            data: JSON types.
            units: Its units, where they have been read already.

        Raises:
            KeyError, TypeError, ValueError: If it is not a plan of a version that is known.
        """
        version, batches = data["version"], data.get("batches", ())
        if version == 1:
            units, sizes = _units_of_version_1(data), tuple((size, 1) for size in batches)
        elif version == PLAN_VERSION:
            units, sizes = units or units_from_json(data, MAX_UNITS), batch_sizes_from_json(batches)
        else:
            raise ValueError(f"plan version {version!r} is none of 1 to {PLAN_VERSION}")
        config, in_own_order = RunConfig.model_validate(data["config"]), in_own_order_of(data)
        remarks = tuple((str(uri), str(text)) for uri, text in data.get("remarks", ()))
        return cls(config, units, batch_sizes=sizes, in_own_order=in_own_order, remarks=remarks)


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
    probes = wanted_of(config, bench.registry)
    with config.naming("executor"):
        bench.registry.executor(config.executor)
    with config.naming("device"):
        resolve_device(config.device)
    for number, uri in enumerate(config.images):
        with config.naming("images", number):
            bench.images(uri)
    draws = Draws(config, bench)
    groups = []
    for number, model in enumerate(config.models):
        with config.naming("models", number):
            weights = bench.encoder(model).spec.weights_digest
        for probe in probes[model]:
            for uri in config.images:
                common = Unit(
                    probe=probe.cls.name,
                    probe_version=probe.cls.version,
                    params=probe.params,
                    model=model,
                    weights_digest=weights,
                    samples=(),
                    seed=config.seed,
                    precision=config.precision_of(model),
                    attention=ATTENTION,
                    references=probe.reads(draws.references(uri, probe.references)),
                )
                limit = config.limit_of(uri, probe.request, model)
                groups.append(Group(common, draws.rows(probe.arity, uri, limit), probe.cls.labelled))
    planned = UnitList(draws.table(), groups)
    units = planned.without_repetitions()
    largest = {(probe.cls.name, probe.params): probe.batch for of_model in probes.values() for probe in of_model}
    return Plan(
        config,
        units,
        len(planned) - len(units),
        cut(units, largest),
        _in_own_order(config, bench),
        _remarks(config, bench, planned.samples),
    )


def _remarks(config: RunConfig, bench: Workbench, samples: Iterable[SampleRef]) -> tuple[tuple[str, str], ...]:
    """What image sets say of themselves, and which of their images cannot be read."""
    unreadable: dict[str, list[str]] = {}
    for sample in samples:
        if sample.digest.startswith(UNREADABLE):
            unreadable.setdefault(sample.images, []).append(f"[{sample.index}]")  # as its unit is called
    sets = dict.fromkeys((*config.images, *([config.targets] if config.targets is not None else [])))
    found = []
    for uri in sets:
        owner = bench.dataset_owner(uri)
        with blamed(owner, DataError, f"{uri!r} cannot say what it left out"):
            found += [(uri, text) for text in remarks_of(bench.images(uri), uri, owner.owner)]
        if names := unreadable.get(uri):
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            found.append((uri, f"{counted(len(names), 'image')} cannot be read, and will fail: {shown}"))
    return tuple(found)


def _in_own_order(config: RunConfig, bench: Workbench) -> tuple[str, ...]:
    """Stop rules take images for independent draws; in an order that is not random, the first ones are none."""
    if not config.stop or config.order == "random":
        return ()
    return tuple(uri for uri in dict.fromkeys(config.images) if not bench.images(uri).random_order)


def cut(units: UnitList, largest: Mapping[tuple[str, str], int]) -> tuple[tuple[int, int], ...]:
    """Sizes of the batches: consecutive units that differ in their samples alone, in as few nearly equal parts as fit.

    20 units of which 16 may share a call become 10 and 10: an odd remainder would cost as much as a full batch.

    Returns:
        Pairs of a size and how often it comes, in order.
    """
    sizes: list[tuple[int, int]] = []
    for common, alike in itertools.groupby(units.groups, key=lambda group: group.common):
        count = sum(len(group.rows) for group in alike)
        parts = -(-count // largest[common.probe, common.params])
        size, more = divmod(count, parts)
        sizes += [(size + 1, more), (size, parts - more)] if more else [(size, parts)]
    return tuple(sizes)


def _units_of_version_1(data: Mapping[str, Any]) -> UnitList:
    """Each unit stands by itself; lists of references stand once, and the units that have some carry their ids."""
    lists = data.get("references", [])
    populations = {place: tuple(SampleRef(**sample) for sample in refs) for place, refs in enumerate(lists)}
    return UnitList.of(_unit(entry, populations) for entry in data["units"])


def _unit(entry: dict[str, Any], populations: Mapping[int, tuple[SampleRef, ...]]) -> Unit:
    if "unit_id" not in entry:
        return Unit.from_json(entry)
    values = dict(entry)
    unit_id, references = values.pop("unit_id"), populations[values.pop("references")]
    unit = replace(Unit.from_json(values), references=references)
    if unit.unit_id != unit_id:
        raise ValueError(f"unit {unit_id} has other content than its id")
    return unit
