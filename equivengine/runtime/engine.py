"""Carries out a plan: runs units, publishes each, consolidates. Nothing that was published is computed again."""

from __future__ import annotations

import contextlib
import functools
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equivengine.contracts.executor import Executor
from equivengine.contracts.unit import Batch, Unit, UnitOutcome, canonical_json
from equivengine.contracts.wording import counted
from equivengine.errors import EngineError, PluginError, UsageError
from equivengine.runtime import contract, worker
from equivengine.runtime.config import RunConfig, executor_params
from equivengine.runtime.differences import told_apart
from equivengine.runtime.ledger import Ledger
from equivengine.runtime.loading import Workbench, blamed, default_registry
from equivengine.runtime.plan import Plan, make_plan
from equivengine.runtime.registry import PluginRecord, Registry
from equivengine.runtime.room import Room
from equivengine.runtime.waves import Waves
from equivengine.runtime.work import work_of
from equivengine.runtime.worker import WorkerContext, run_batch
from equivengine.store import RunDirectory, SetAside, inspect_run, set_aside

__all__ = ["RunReport", "WorkerContext", "default_name", "execute", "executor_of", "plan_of", "resume", "run_batch"]

#: Encoders that stay loaded: a plan of many models loads each again when its turn comes, rather than holding them all.
KEEP_ENCODERS = 2

OnDone = Callable[[Unit, UnitOutcome], None]
OnCaution = Callable[[str], None]


@dataclass
class RunReport:
    """What became of a run.

    Attributes:
        directory: The run directory.
        outcomes: Counts of "published", "skipped" (already there) and "failed" units.
        failures: The failed units and why, in order.
        problems: What observing plugins did wrong; the run is not affected.
        cautions: What may go wrong with the run, or with what it says.
        seconds: Wall time, seconds.
        duplicates: Units left out of the plan because another one is the same work on the same content.
        set_aside: Files that were moved out of the way before the run was resumed, since they could not be trusted.
    """

    directory: Path
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[Unit, UnitOutcome]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)
    seconds: float = 0.0
    duplicates: int = 0
    set_aside: list[SetAside] = field(default_factory=list)


def execute(
    config: RunConfig,
    *,
    registry: Registry | None = None,
    on_plan: Callable[[Plan, Path, int], None] = lambda plan, path, done: None,
    on_done: OnDone = lambda unit, outcome: None,
    on_caution: OnCaution = lambda text: None,
    blocked: Sequence[str] = (),
) -> RunReport:
    """Plan and run a configuration; finishes a run that its directory already holds.

    Args:
        config: What to do.
        registry: Plugins; the installed ones when None.
        on_plan: Called with the plan, the run directory and the number of published units before the first unit.
        on_done: Called after each unit.
        on_caution: Called with each of `RunReport.cautions`, as soon as it is known.
        blocked: Plugins that workers must leave out too.

    Raises:
        EngineError: If the plan cannot be made or the directory cannot be used. A unit that fails does not raise: it is
            recorded in the report and in the store.
        KeyboardInterrupt: If the user interrupts. Published units stay; the same call continues.
    """
    registry = registry or default_registry()
    where = executor_of(config, registry)
    plan, bench = plan_of(config, registry)
    path = Path(config.out) if config.out else Path("runs") / default_name(config, plan)
    return _carry_out(plan, RunReport(path), bench, config, where, on_plan, on_done, on_caution, blocked)


def plan_of(config: RunConfig, registry: Registry) -> tuple[Plan, Workbench]:
    """The plan of a configuration, and the models and image sets that were loaded to make it."""
    bench = Workbench(registry, config.device, keep=KEEP_ENCODERS)
    return make_plan(config, bench), bench


def executor_of(config: RunConfig, registry: Registry) -> tuple[Executor, PluginRecord]:
    """The executor that a configuration names, with its parameters, and who brought it.

    Raises:
        UsageError: If there is none of that name, or a parameter of it makes no sense.
        EngineError: If it says that it cannot work: a package is not installed, a scheduler does not answer.
    """
    cls, owner = registry.executor(config.executor)
    executor = cls(executor_params(cls, config.executor_set))
    with blamed(owner, PluginError, f"executor {config.executor!r} cannot work here"):
        executor.check(config.device)
    return executor, owner


def resume(
    path: str | Path,
    *,
    device: str = "auto",
    executor: str = "serial",
    executor_set: Mapping[str, Any] | None = None,
    registry: Registry | None = None,
    on_plan: Callable[[Plan, Path, int], None] = lambda plan, path, done: None,
    on_done: OnDone = lambda unit, outcome: None,
    on_caution: OnCaution = lambda text: None,
    blocked: Sequence[str] = (),
) -> RunReport:
    """Finish what is missing, failed or damaged in a run directory. Arguments as for `execute`.

    Everything in it is read first. What cannot be trusted is moved to ``damaged/``, and its units are computed again;
    what is whole stays. `execute` goes by the names of shards alone, and reads them when it consolidates.

    Raises:
        UsageError: If the path is a file.
        StoreError: If the directory holds no run, or its plan is damaged: nothing is touched then.
        EngineError: If its plan cannot be carried out any more.
    """
    registry = registry or default_registry()
    if Path(path).is_file():
        raise UsageError(
            f"{str(path)!r} is a file", expected="a run directory", hint=f"equivengine resume {Path(path).parent}"
        )
    directory = RunDirectory.open(path)
    stored = directory.stored_plan
    plan = Plan.from_store(stored, Path(path))
    places = {"device": device, "executor": executor, "executor_set": dict(executor_set or {}), "out": str(path)}
    config = plan.config.model_copy(update=places)
    where = executor_of(config, registry)
    bench = Workbench(registry, device, keep=KEEP_ENCODERS)
    inspection = inspect_run(path, known=stored)
    moved = set_aside(inspection)
    current = not (moved or inspection.outdated)
    report = RunReport(Path(path), set_aside=moved)
    return _carry_out(plan, report, bench, config, where, on_plan, on_done, on_caution, blocked, current=current)


def _carry_out(
    plan: Plan,
    report: RunReport,
    bench: Workbench,
    config: RunConfig,
    where: tuple[Executor, PluginRecord],
    on_plan: Callable[[Plan, Path, int], None],
    on_done: OnDone,
    on_caution: OnCaution,
    blocked: Sequence[str],
    *,
    current: bool = False,
) -> RunReport:
    """Run what is missing; ``current``: ``run.h5`` holds what the directory holds, so far."""
    start = time.perf_counter()
    path = report.directory
    executor, owner = where
    apart = functools.partial(told_apart, plan, path)
    directory = RunDirectory.create_or_open(path, plan.to_json(), plan.digest, apart, checked=True)
    ledger = Ledger(plan, directory.published(plan.units.ids))
    report.duplicates = plan.duplicates
    on_plan(plan, path, ledger.done)
    hook = functools.partial(_observe, bench.registry, report)
    hook("equivengine_run_started", run_directory=str(path), unit_count=len(plan.units), published=ledger.done)
    waves = Waves(plan, path, ledger, every_model=executor.fresh_processes)
    count = ledger.left
    report.outcomes["skipped"] += ledger.done

    def caution(text: str) -> None:
        report.cautions.append(text)
        on_caution(text)

    executor.on_caution = caution
    for text in plan.cautions:
        caution(text)
    room = Room(plan, path, waves.sure, waves.possible, caution)

    def finished(batch: Batch, outcomes: tuple[UnitOutcome, ...]) -> None:
        for unit, outcome in zip(batch, outcomes, strict=True):
            if not ledger.cross_off(unit.unit_id):
                continue  # published before; and executors may run a batch more than once
            report.outcomes[outcome.outcome] += 1
            if outcome.outcome == "failed":
                report.failures.append((unit, outcome))
            elif outcome.outcome == "published":
                room.stored(unit)
            hook("equivengine_unit_finished", unit=unit, outcome=outcome)
            on_done(unit, outcome)

    settings = canonical_json(executor.params.model_dump(mode="json", exclude_unset=True))
    context = WorkerContext(str(path), config.device, tuple(blocked), config.executor, settings)
    work = work_of(plan, context, bench.registry)
    try:
        with worker.lent(work.context, bench), contextlib.closing(executor):
            for batches in waves:
                room.look_again()
                executor.map(work, batches, on_done=finished)
    except EngineError:
        raise
    except KeyboardInterrupt:
        directory.sweep()
        raise
    except BaseException as error:
        raise PluginError(
            f"executor {config.executor!r} stopped",
            got=f"{owner.owner}: {contract.one_line(error)}",
            hint=f"what was published stays: equivengine resume {path} --executor serial",
        ) from error
    if current and ledger.left == count:
        directory.write_pictures()
    else:
        directory.consolidate()
    hook("equivengine_run_finished", run_directory=str(path), outcomes=dict(report.outcomes))
    report.seconds = time.perf_counter() - start
    if undone := ledger.left - waves.unneeded:
        raise PluginError(
            f"executor {config.executor!r} left {undone:,} of {counted(count - waves.unneeded, 'unit')} undone",
            got=owner.owner,
            hint=f"equivengine resume {path} --executor serial",
        )
    return report


def _observe(registry: Registry, report: RunReport, name: str, **arguments: Any) -> None:
    report.problems += [problem for problem in registry.hook(name, **arguments) if problem not in report.problems]


def default_name(config: RunConfig, plan: Plan) -> str:
    """Directory name of a run: the same work gets the same name, so repeating a command continues or shows it."""
    probes = "+".join(dict.fromkeys(request.name for request in config.probes))
    models = "+".join(config.models) if len(config.models) < 3 else f"{len(config.models)}-models"
    slug = re.sub(r"[^A-Za-z0-9.+-]+", "_", f"{probes}-{models}")[:80]
    return f"{slug}-{plan.digest[:8]}"
