"""Runs one batch of units and publishes each; in the parent process or in a worker of its own."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from equivengine.contracts.encoder import Encoder
from equivengine.contracts.probe import Params, Probe, ProbeTask
from equivengine.contracts.result import ProbeResult
from equivengine.contracts.unit import Batch, Unit, UnitOutcome
from equivengine.errors import EngineError, ModelError, NumericsError, PluginError
from equivengine.ops.record import recording
from equivengine.runtime import contract, provenance
from equivengine.runtime.config import probe_params
from equivengine.runtime.inputs import Inputs
from equivengine.runtime.loading import Workbench, staying_here, use_registry, without_deprecations
from equivengine.runtime.registry import PluginRecord, from_environment
from equivengine.runtime.switches import generators_put_back, noticing, seeded
from equivengine.store import RunDirectory

#: A result with its provenance, or why there is none.
Found = tuple[ProbeResult, dict[str, Any]] | BaseException


@dataclass(frozen=True)
class WorkerContext:
    """What a worker needs to run units; strings only, so that it crosses processes.

    Attributes:
        directory: The run directory.
        device: Where encoders go.
        blocked: Plugins that are left out.
        executor: Name of the executor, for provenance.
        executor_set: Its parameters that differ from their defaults, as canonical JSON, for provenance.
    """

    directory: str
    device: str
    blocked: tuple[str, ...] = ()
    executor: str = "serial"
    executor_set: str = "{}"


_inputs: dict[WorkerContext, Inputs] = {}
_on_begun: ContextVar[Callable[[Batch], object]] = ContextVar("on_begun", default=lambda batch: None)


@contextlib.contextmanager
def watched(on_begun: Callable[[Batch], object]) -> Iterator[None]:
    """Be told of each batch that this thread begins within, before anything of it is loaded; not of published ones."""
    token = _on_begun.set(on_begun)
    try:
        yield
    finally:
        _on_begun.reset(token)


@contextlib.contextmanager
def lent(context: WorkerContext, bench: Workbench) -> Iterator[None]:
    """Let units that run in this process use what the plan has loaded already."""
    _inputs[context] = Inputs(bench)
    try:
        yield
    finally:
        _inputs.pop(context, None)


def inputs_of(context: WorkerContext) -> Inputs:
    """Encoders and image sets of this process; in a fresh one, after its plugins have been loaded."""
    if context not in _inputs:  # a fresh worker process
        registry = from_environment(context.blocked)
        use_registry(registry)
        _inputs[context] = Inputs(Workbench(registry, context.device))
    return _inputs[context]


def run_batch(context: WorkerContext, batch: Batch) -> tuple[UnitOutcome, ...]:
    """Run the units of a batch in one call of their probe, and publish those that are not published yet.

    The whole batch is computed if any of its units is missing: what a unit gives may depend on its companions, in the
    last bits. A unit whose samples cannot be used fails alone and the rest runs without it. Whatever a plugin raises
    becomes a failed outcome, which is stored too.

    Args:
        context: Where to publish and on which device to run.
        batch: The units; they differ in their samples alone.

    Returns:
        One outcome for each unit, in order; each accounts for an equal share of the time.

    Raises:
        StoreError: If nothing can be kept: better to stop than to compute what cannot be stored.
        KeyboardInterrupt: If the user interrupts.
    """
    return compute_batch(context, batch)()


def compute_batch(context: WorkerContext, batch: Batch) -> Callable[[], tuple[UnitOutcome, ...]]:
    """The first half of `run_batch`: all but publishing.

    Args:
        context: As for `run_batch`.
        batch: As for `run_batch`.

    Returns:
        The second half: publishes, and returns the outcomes; raises StoreError. It may be called in another thread.

    Raises:
        KeyboardInterrupt: If the user interrupts.
    """
    start = time.perf_counter()
    directory = RunDirectory(Path(context.directory).absolute())
    if all(directory.is_published(unit.unit_id) for unit in batch):
        skipped = tuple(UnitOutcome(unit.unit_id, "skipped") for unit in batch)
        return lambda: skipped
    _on_begun.get()(batch)
    try:
        with without_deprecations(), staying_here():
            found = _measure(batch, context, start)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # plugins may raise anything, SystemExit included
        found = [error] * len(batch)
    seconds = (time.perf_counter() - start) / len(batch)

    def publish() -> tuple[UnitOutcome, ...]:
        return tuple(_keep(context, directory, unit, one, seconds) for unit, one in zip(batch, found, strict=True))

    return publish


def facts(context: WorkerContext) -> dict[str, Any]:
    """What is recorded of the process that a unit failed in."""
    return {**provenance.environment(), "executor": _executor(context)}


def _executor(context: WorkerContext) -> dict[str, Any]:
    return {"name": context.executor, "set": json.loads(context.executor_set), "host": socket.gethostname()}


def _keep(context: WorkerContext, directory: RunDirectory, unit: Unit, found: Found, seconds: float) -> UnitOutcome:
    if directory.is_published(unit.unit_id):
        return UnitOutcome(unit.unit_id, "skipped")
    if isinstance(found, BaseException):
        return _failed(context, directory, unit, found, seconds)
    result, record = found
    try:
        directory.publish(unit, result, record)
    except PluginError as error:  # the result holds what cannot be stored
        return _failed(context, directory, unit, error, seconds)
    return UnitOutcome(unit.unit_id, "published", result.message, seconds, status=result.status)


def _failed(
    context: WorkerContext, directory: RunDirectory, unit: Unit, error: BaseException, seconds: float
) -> UnitOutcome:
    message = str(error) if isinstance(error, EngineError) else f"probe {unit.probe!r}: {contract.one_line(error)}"
    message = message.encode("utf-8", "backslashreplace").decode()  # names of files may be no UTF-8
    kind = type(error).__name__
    directory.record_failure(unit, message, error_type=kind, provenance={**facts(context), "seconds": seconds})
    return UnitOutcome(unit.unit_id, "failed", message, seconds, error_type=kind)


def _measure(batch: Batch, context: WorkerContext, start: float) -> list[Found]:
    """What each unit gives. Raises what concerns all of them."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    inputs = inputs_of(context)
    bench = inputs.bench
    first = batch[0]
    cls, owner = _probe_as_planned(first, bench)
    encoder = _encoder_as_planned(first, bench)
    params = probe_params(cls, json.loads(first.params))
    owners = {"probe": owner, "backend": bench.backend_owner(first.model)}
    if first.references:
        owners["references"] = bench.dataset_owner(first.references[0].images)
    seed = int(first.unit_id[:15], 16)  # what draws from the global generators gives the same, whatever ran before it

    results: dict[str, ProbeResult | BaseException] = {}
    tasks: dict[str, ProbeTask[Any]] = {}
    details: dict[str, list[dict[str, object]]] = {}
    with noticing() as changes, generators_put_back():
        inputs_from = f"inputs of {first.model!r}, {owners['backend'].owner}"
        with seeded(inputs_from, seed):  # those of the unit before may serve again: nothing is to depend on that
            references = inputs.references(first)
        with seeded(inputs_from, seed):
            for unit in batch:
                try:
                    samples, details[unit.unit_id] = inputs.samples(unit)
                    tasks[unit.unit_id] = _task(unit, encoder, samples, params, references)
                except KeyboardInterrupt:
                    raise
                except BaseException as error:
                    results[unit.unit_id] = error
        with recording() as operations, seeded(owner.owner, seed):
            results |= zip(tasks, _call(cls, owner, params, list(tasks.values())), strict=True)
    changes = [*bench.changes(first.model), *changes]
    seconds = (time.perf_counter() - start) / len(batch)

    found: list[Found] = []
    for unit in batch:
        result = results[unit.unit_id]
        if isinstance(result, BaseException):
            found.append(result)
            continue
        roles = zip(("images", "targets"), unit.samples, strict=False)
        plugins = owners | {role: bench.dataset_owner(ref.images) for role, ref in roles}
        record = provenance.describe(unit, details[unit.unit_id], encoder, plugins, operations, seconds, started)
        record["executor"] = _executor(context)
        if changes:
            record["switches"] = [change.to_json() for change in changes]
        if len(batch) > 1:
            record["batch"] = {"units": list(tasks), "position": list(tasks).index(unit.unit_id)}
        found.append((result.in_unit(encoder.spec.input_unit), record))
    return found


def _probe_as_planned(unit: Unit, bench: Workbench) -> tuple[type[Probe[Any]], PluginRecord]:
    cls, owner = bench.registry.probe(unit.probe)
    if cls.version != unit.probe_version:
        raise PluginError(
            f"probe {unit.probe!r} has changed since the run was planned",
            expected=f"version {unit.probe_version}",
            got=f"version {cls.version}",
            hint="start a new run, or install the version that planned this one",
        )
    return cls, owner


def _encoder_as_planned(unit: Unit, bench: Workbench) -> Encoder:
    encoder = bench.encoder(unit.model)
    if encoder.spec.weights_digest != unit.weights_digest:
        raise ModelError(
            f"the weights of {unit.model!r} have changed since the run was planned",
            expected=f"sha256 {unit.weights_digest[:16]}...",
            got=f"sha256 {encoder.spec.weights_digest[:16]}...",
            hint="put the old weights back and resume, or repeat the command with another --out",
        )
    return encoder


def _task(
    unit: Unit, encoder: Encoder, samples: list[torch.Tensor], params: Params, references: torch.Tensor
) -> ProbeTask[Any]:
    return ProbeTask(
        encoder=encoder,
        samples=samples,
        params=params,
        seed=unit.seed,
        precision=unit.precision,  # type: ignore[arg-type]
        sample_ids=[ref.id for ref in unit.samples],
        sample_digests=[ref.digest for ref in unit.samples],
        labels=[ref.label for ref in unit.samples],
        references=references,
        reference_labels=[ref.label for ref in unit.references],
        reference_digests=[ref.digest for ref in unit.references],
    )


def _call(
    cls: type[Probe[Any]], owner: PluginRecord, params: Params, tasks: list[ProbeTask[Any]]
) -> list[ProbeResult | BaseException]:
    """One result for each task, or why there is none."""
    if not tasks:
        return []
    try:
        if len(tasks) == 1 and contract.batch_of(cls, params) == 1:
            returned: list[object] = [cls().run(tasks[0])]
        else:
            returned = contract.results_of(cls, cls().run_batch(tasks), len(tasks))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return [error] * len(tasks)
    return [_result(one, cls, owner) for one in returned]


def _result(returned: object, cls: type[Probe[Any]], owner: PluginRecord) -> ProbeResult | EngineError:
    if not isinstance(returned, ProbeResult):
        return PluginError(
            f"probe {cls.name!r} returned something else than a result",
            expected="equivengine.ProbeResult",
            got=type(returned).__name__,
            hint=f"report it to the authors of {owner.owner}",
        )
    if returned.status == "failed":
        return NumericsError(returned.message)
    return returned
