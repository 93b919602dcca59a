"""The work of a run as executors carry it about: which plugins it needs, and where results go."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import equivengine
from equivengine.contracts.executor import UnitIds
from equivengine.contracts.unit import Batch, UnitOutcome
from equivengine.contracts.uri import URI
from equivengine.errors import PluginError, StoreError
from equivengine.runtime import worker
from equivengine.runtime.plan import Plan
from equivengine.runtime.registry import PluginRecord, Registry
from equivengine.runtime.worker import WorkerContext
from equivengine.store import RunDirectory


@dataclass(frozen=True)
class NeededPlugin:
    """A plugin that some unit of a plan needs, as it is in the process that planned."""

    name: str
    module: str
    distribution: str
    version: str


@dataclass(frozen=True)
class RunWork:
    """The `equivengine.Work` of a run.

    Attributes:
        context: Where to publish, on which device to run, and what executor runs it.
        plan_digest: Of the plan in the run directory.
        plugins: What the plan needs.
        working_directory: Where the command was given.
        equivengine_version: Of the process that planned.
    """

    context: WorkerContext
    plan_digest: str
    plugins: tuple[NeededPlugin, ...]
    working_directory: str
    equivengine_version: str = equivengine.__version__

    @property
    def directory(self) -> str:
        """Absolute path of the run directory."""
        return self.context.directory

    @property
    def device(self) -> str:
        """What ``--device`` says."""
        return self.context.device

    def __call__(self, batch: Batch | UnitIds) -> tuple[UnitOutcome, ...]:
        """See `equivengine.Work`."""
        return worker.run_batch(self.context, self._units(batch))

    def compute(self, batch: Batch | UnitIds) -> Callable[[], tuple[UnitOutcome, ...]]:
        """See `equivengine.Work`."""
        return worker.compute_batch(self.context, self._units(batch))

    def check(self) -> None:
        """See `equivengine.Work`."""
        host = socket.gethostname()
        _same_version("equivengine", self.equivengine_version, equivengine.__version__, host)
        registry = worker.inputs_of(self.context).bench.registry
        found = {record.name: record for record in registry.records}
        for needed in self.plugins:
            _same_plugin(needed, found.get(needed.name), host)
        self._stored_plan()
        try:
            os.chdir(self.working_directory)
        except OSError as error:
            raise StoreError(
                f"the worker on {host} does not see the directory that the command was given in",
                expected=self.working_directory,
                got=error.strerror,
                hint="images and weights may be named relative to it: start in a directory that all workers share",
            ) from None

    def record_failure(self, batch: Batch | UnitIds, message: str, error_type: str) -> tuple[UnitOutcome, ...]:
        """See `equivengine.Work`."""
        directory = RunDirectory(Path(self.directory))
        outcomes = []
        for unit in self._units(batch):
            if directory.is_published(unit.unit_id):
                outcomes.append(UnitOutcome(unit.unit_id, "skipped"))
                continue
            facts = worker.facts(self.context)
            directory.record_failure(unit, message, error_type=error_type, provenance=facts)
            outcomes.append(UnitOutcome(unit.unit_id, "failed", message, error_type=error_type))
        return tuple(outcomes)

    def _units(self, batch: Batch | UnitIds) -> Batch:
        if not any(isinstance(one, str) for one in batch):
            return batch  # type: ignore[return-value]  # narrowing of tuples by their items is beyond mypy
        if self not in _plans:
            _plans[self] = self._stored_plan()
        units = _plans[self].units
        places = [units.ids.find(one) for one in batch if isinstance(one, str)]
        return tuple(units[place] for place in places if place is not None)

    def _stored_plan(self) -> Plan:
        try:
            stored = RunDirectory.open(self.directory).stored_plan
        except StoreError as error:
            raise StoreError(
                f"the worker on {socket.gethostname()} does not see the run directory",
                expected=f"the run in {self.directory}",
                got=error.what,
                hint="choose an --out on a file system that all workers share",
            ) from None
        if stored.digest != self.plan_digest:
            raise StoreError(
                f"the worker on {socket.gethostname()} sees another run in {self.directory}",
                expected=f"plan {self.plan_digest}",
                got=f"plan {stored.digest[:80]}",
                hint="choose an --out on a file system that all workers share",
            )
        return Plan.from_store(stored, Path(self.directory))


#: Plans that this process has read.
_plans: dict[RunWork, Plan] = {}


def work_of(plan: Plan, context: WorkerContext, registry: Registry) -> RunWork:
    """The work of a plan.

    Args:
        plan: The plan; frozen in the run directory already.
        context: Where to publish and how.
        registry: The plugins that it was planned with.
    """
    absolute = replace(context, directory=str(Path(context.directory).absolute()))
    return RunWork(absolute, plan.digest, needed_plugins(plan, registry), str(Path.cwd()))


def needed_plugins(plan: Plan, registry: Registry) -> tuple[NeededPlugin, ...]:
    """Whatever a unit of the plan needs to be carried out elsewhere, by name."""
    shared = [group.common for group in plan.units.groups]
    probes = {unit.probe for unit in shared}
    models = {unit.model for unit in shared}
    images = {ref.images for ref in plan.units.samples} | {ref.images for unit in shared for ref in unit.references}
    owners = [registry.probe(name)[1] for name in probes]
    owners += [registry.backend(URI.parse(uri).scheme)[1] for uri in models]
    owners += [registry.dataset(URI.parse(uri).scheme)[1] for uri in images]
    records = {owner.name: owner for owner in owners}
    return tuple(
        NeededPlugin(name, records[name].module, records[name].distribution, records[name].version)
        for name in sorted(records)
    )


def _same_plugin(needed: NeededPlugin, found: PluginRecord | None, host: str) -> None:
    wanted = f"plugin {needed.name!r} ({needed.module}, from {needed.distribution} {needed.version})"
    if found is None or found.state != "loaded":
        raise PluginError(
            f"the worker on {host} lacks the plugin {needed.name!r}",
            expected=wanted,
            got="no plugin of that name" if found is None else found.reason,
            hint=f"install {needed.distribution} {needed.version} there as it is here",
        )
    if found.distribution != needed.distribution:
        raise PluginError(
            f"the worker on {host} has another plugin {needed.name!r}",
            expected=wanted,
            got=found.owner,
            hint=f"install {needed.distribution} {needed.version} there as it is here",
        )
    _same_version(f"plugin {needed.name!r}", needed.version, found.version, host, needed.distribution)


def _same_version(what: str, wanted: str, found: str, host: str, distribution: str = "equivengine") -> None:
    if wanted != found:
        raise PluginError(
            f"the worker on {host} has another version of {what}",
            expected=f"{distribution} {wanted}, as where the run was started",
            got=f"{distribution} {found}",
            hint="install the same version on both sides",
        )
