"""Carries out a plan: runs units, publishes each, consolidates. Nothing that was published is computed again."""

from __future__ import annotations

import functools
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from equivengine.contracts.probe import ProbeTask
from equivengine.contracts.result import ProbeResult
from equivengine.contracts.unit import SampleRef, Unit, UnitOutcome
from equivengine.errors import DataError, EngineError, ModelError, NumericsError, PluginError, StoreError
from equivengine.ops.record import recording
from equivengine.runtime import provenance
from equivengine.runtime.config import RunConfig, probe_params
from equivengine.runtime.loading import Workbench, default_registry, use_registry
from equivengine.runtime.plan import Plan, make_plan
from equivengine.runtime.registry import Registry, from_environment
from equivengine.store import RunDirectory

OnDone = Callable[[Unit, UnitOutcome], None]


@dataclass
class RunReport:
    """What became of a run.

    Attributes:
        directory: The run directory.
        outcomes: Counts of "published", "skipped" (already there) and "failed" units.
        failures: The failed units and why, in order.
        problems: What observing plugins did wrong; the run is not affected.
        seconds: Wall time, seconds.
        duplicates: Units that were planned twice because two samples have the same content.
    """

    directory: Path
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[Unit, UnitOutcome]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    duplicates: int = 0


@dataclass(frozen=True)
class WorkerContext:
    """What a worker needs to run a unit; strings only, so that it crosses processes."""

    directory: str
    device: str
    blocked: tuple[str, ...] = ()


def execute(
    config: RunConfig,
    *,
    registry: Registry | None = None,
    on_plan: Callable[[Plan, Path, int], None] = lambda plan, path, done: None,
    on_done: OnDone = lambda unit, outcome: None,
    blocked: Sequence[str] = (),
) -> RunReport:
    """Plan and run a configuration; finishes a run that its directory already holds.

    Args:
        config: What to do.
        registry: Plugins; the installed ones when None.
        on_plan: Called with the plan, the run directory and the number of published units before the first unit.
        on_done: Called after each unit.
        blocked: Plugins that workers must leave out too.

    Raises:
        EngineError: If the plan cannot be made or the directory cannot be used. A unit that fails does not raise: it is
            recorded in the report and in the store.
        KeyboardInterrupt: If the user interrupts. Published units stay; the same call continues.
    """
    registry = registry or default_registry()
    bench = Workbench(registry, config.device, keep=max(1, len(config.models)))
    plan = make_plan(config, bench)
    path = Path(config.out) if config.out else Path("runs") / default_name(config, plan)
    return _carry_out(plan, path, bench, config, on_plan, on_done, blocked)


def resume(
    path: str | Path,
    *,
    device: str = "auto",
    executor: str = "serial",
    registry: Registry | None = None,
    on_plan: Callable[[Plan, Path, int], None] = lambda plan, path, done: None,
    on_done: OnDone = lambda unit, outcome: None,
    blocked: Sequence[str] = (),
) -> RunReport:
    """Finish what is missing or failed in a run directory. Arguments as for `execute`.

    Raises:
        StoreError: If the directory holds no run.
        EngineError: If its plan cannot be carried out any more.
    """
    registry = registry or default_registry()
    directory = RunDirectory.open(path)
    try:
        plan = Plan.from_json(directory.plan)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"the plan of {str(path)!r} cannot be read", got=error, hint="start the run again in another directory"
        ) from None
    config = plan.config.model_copy(update={"device": device, "executor": executor, "out": str(path)})
    bench = Workbench(registry, device, keep=max(1, len(config.models)))
    return _carry_out(plan, Path(path), bench, config, on_plan, on_done, blocked)


def _carry_out(
    plan: Plan,
    path: Path,
    bench: Workbench,
    config: RunConfig,
    on_plan: Callable[[Plan, Path, int], None],
    on_done: OnDone,
    blocked: Sequence[str],
) -> RunReport:
    start = time.perf_counter()
    executor = bench.registry.executor(config.executor)[0]()
    directory = RunDirectory.create_or_open(path, plan.to_json(), plan.digest)
    done = directory.published() & {unit.unit_id for unit in plan.units}
    report = RunReport(path, duplicates=plan.duplicates)
    on_plan(plan, path, len(done))
    hook = functools.partial(_observe, bench.registry, report)
    hook("equivengine_run_started", run_directory=str(path), unit_count=len(plan.units), published=len(done))

    def finished(unit: Unit, outcome: UnitOutcome) -> None:
        report.outcomes[outcome.outcome] += 1
        if outcome.outcome == "failed":
            report.failures.append((unit, outcome))
        hook("equivengine_unit_finished", unit=unit, outcome=outcome)
        on_done(unit, outcome)

    todo = [unit for unit in plan.units if unit.unit_id not in done]
    report.outcomes["skipped"] += len(plan.units) - len(todo)
    context = WorkerContext(str(path), config.device, tuple(blocked))
    _benches[context] = bench
    try:
        executor.map(functools.partial(run_unit, context), todo, on_done=finished)
    finally:
        _benches.pop(context, None)
    directory.consolidate()
    hook("equivengine_run_finished", run_directory=str(path), outcomes=dict(report.outcomes))
    report.seconds = time.perf_counter() - start
    return report


def _observe(registry: Registry, report: RunReport, name: str, **arguments: Any) -> None:
    report.problems += [problem for problem in registry.hook(name, **arguments) if problem not in report.problems]


def default_name(config: RunConfig, plan: Plan) -> str:
    """Directory name of a run: the same work gets the same name, so repeating a command continues or shows it."""
    probes = "+".join(request.name for request in config.probes)
    models = "+".join(config.models) if len(config.models) < 3 else f"{len(config.models)}-models"
    slug = re.sub(r"[^A-Za-z0-9.+-]+", "_", f"{probes}-{models}")[:80]
    return f"{slug}-{plan.digest[:8]}"


# -- in a worker ------------------------------------------------------------------------------------------------------

_benches: dict[WorkerContext, Workbench] = {}


def _bench(context: WorkerContext) -> Workbench:
    if context not in _benches:  # a fresh worker process
        registry = from_environment(context.blocked)
        use_registry(registry)
        _benches[context] = Workbench(registry, context.device)
    return _benches[context]


def run_unit(context: WorkerContext, unit: Unit) -> UnitOutcome:
    """Run one unit and publish it. Everything but KeyboardInterrupt becomes a failed outcome, which is stored too.

    Args:
        context: Where to publish and on which device to run.
        unit: The unit.
    """
    start = time.perf_counter()
    directory = RunDirectory(Path(context.directory).absolute())
    try:
        if directory.is_published(unit.unit_id):
            return UnitOutcome(unit.unit_id, "skipped")
        bench = _bench(context)
        result, record = _measure(unit, bench, start)
        directory.publish(unit, result, record)
        return UnitOutcome(unit.unit_id, "published", result.message, time.perf_counter() - start, status=result.status)
    except KeyboardInterrupt:
        raise
    except StoreError:
        raise  # nothing can be kept: stop, rather than compute what cannot be stored
    except BaseException as error:  # plugins may raise anything, SystemExit included
        message = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
        outcome = UnitOutcome(
            unit.unit_id, "failed", message, time.perf_counter() - start, error_type=type(error).__name__
        )
        directory.record_failure(
            unit,
            message,
            error_type=outcome.error_type,
            provenance={**provenance.environment(), "seconds": outcome.seconds},
        )
        return outcome


def _measure(unit: Unit, bench: Workbench, start: float) -> tuple[ProbeResult, dict[str, Any]]:
    import json

    started = datetime.now(UTC).isoformat(timespec="seconds")
    cls, probe_owner = bench.registry.probe(unit.probe)
    if cls.version != unit.probe_version:
        raise PluginError(
            f"probe {unit.probe!r} has changed since the run was planned",
            expected=f"version {unit.probe_version}",
            got=f"version {cls.version}",
            hint="start a new run, or install the version that planned this one",
        )
    encoder = bench.encoder(unit.model)
    if encoder.spec.weights_digest != unit.weights_digest:
        raise ModelError(
            f"the weights of {unit.model!r} have changed since the run was planned",
            expected=f"sha256 {unit.weights_digest[:16]}...",
            got=f"sha256 {encoder.spec.weights_digest[:16]}...",
            hint="start a new run",
        )
    samples = [encoder.preprocess(_load(ref, bench)) for ref in unit.samples]
    task: ProbeTask[Any] = ProbeTask(
        encoder=encoder,
        samples=samples,
        params=probe_params(cls, json.loads(unit.params)),
        seed=unit.seed,
        precision=unit.precision,  # type: ignore[arg-type]
        sample_ids=[ref.id for ref in unit.samples],
        sample_digests=[ref.digest for ref in unit.samples],
    )
    with recording() as operations:
        result = cls().run(task)
    if not isinstance(result, ProbeResult):
        raise PluginError(
            f"probe {unit.probe!r} returned something else than a result",
            expected="equivengine.ProbeResult",
            got=type(result).__name__,
        )
    if result.status == "failed":
        raise NumericsError(result.message)
    owners = {"probe": probe_owner, "backend": bench.backend_owner(unit.model)}
    for role, ref in zip(("images", "targets"), unit.samples, strict=False):
        owners[role] = bench.dataset_owner(ref.images)
    record = provenance.describe(unit, encoder, owners, operations, time.perf_counter() - start, started)
    return result, record


def _load(ref: SampleRef, bench: Workbench) -> Any:
    sample = bench.images(ref.images)[ref.index]  # raises DataError where the sample cannot even be hashed
    if sample.digest != ref.digest:
        raise DataError(
            f"sample {ref.id!r} of {ref.images!r} has changed since the run was planned",
            expected=f"sha256 {ref.digest[:16]}...",
            got=f"sha256 {sample.digest[:16]}...",
            hint="start a new run, or put the file back",
        )
    return sample.load()
