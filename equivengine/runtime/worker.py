"""Runs one unit and publishes it; in the parent process or in a worker of its own."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from equivengine.contracts.encoder import Encoder
from equivengine.contracts.probe import ProbeTask
from equivengine.contracts.result import ProbeResult
from equivengine.contracts.unit import Unit, UnitOutcome
from equivengine.errors import EngineError, ModelError, NumericsError, PluginError
from equivengine.ops.record import recording
from equivengine.runtime import contract, provenance
from equivengine.runtime.config import probe_params
from equivengine.runtime.loading import Workbench, use_registry, without_deprecations
from equivengine.runtime.registry import from_environment
from equivengine.store import RunDirectory


@dataclass(frozen=True)
class WorkerContext:
    """What a worker needs to run a unit; strings only, so that it crosses processes."""

    directory: str
    device: str
    blocked: tuple[str, ...] = ()


_benches: dict[WorkerContext, Workbench] = {}


@contextlib.contextmanager
def lent(context: WorkerContext, bench: Workbench) -> Iterator[None]:
    """Let units that run in this process use what the plan has loaded already."""
    _benches[context] = bench
    try:
        yield
    finally:
        _benches.pop(context, None)


def _bench(context: WorkerContext) -> Workbench:
    if context not in _benches:  # a fresh worker process
        registry = from_environment(context.blocked)
        use_registry(registry)
        _benches[context] = Workbench(registry, context.device)
    return _benches[context]


def run_unit(context: WorkerContext, unit: Unit) -> UnitOutcome:
    """Run one unit and publish it. Whatever a plugin raises becomes a failed outcome, which is stored too.

    Args:
        context: Where to publish and on which device to run.
        unit: The unit.

    Raises:
        StoreError: If nothing can be kept: better to stop than to compute what cannot be stored.
        KeyboardInterrupt: If the user interrupts.
    """
    start = time.perf_counter()
    directory = RunDirectory(Path(context.directory).absolute())
    if directory.is_published(unit.unit_id):
        return UnitOutcome(unit.unit_id, "skipped")
    try:
        with without_deprecations():
            result, record = _measure(unit, _bench(context), start)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # plugins may raise anything, SystemExit included
        return _failed(directory, unit, error, start)
    try:
        directory.publish(unit, result, record)
    except PluginError as error:  # the result holds what cannot be stored
        return _failed(directory, unit, error, start)
    return UnitOutcome(unit.unit_id, "published", result.message, time.perf_counter() - start, status=result.status)


def _failed(directory: RunDirectory, unit: Unit, error: BaseException, start: float) -> UnitOutcome:
    message = str(error) if isinstance(error, EngineError) else f"probe {unit.probe!r}: {contract.one_line(error)}"
    message = message.encode("utf-8", "backslashreplace").decode()  # names of files may be no UTF-8
    seconds = time.perf_counter() - start
    kind = type(error).__name__
    facts = {**provenance.environment(), "seconds": seconds}
    directory.record_failure(unit, message, error_type=kind, provenance=facts)
    return UnitOutcome(unit.unit_id, "failed", message, seconds, error_type=kind)


def _measure(unit: Unit, bench: Workbench, start: float) -> tuple[ProbeResult, dict[str, Any]]:
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
            hint="put the old weights back and resume, or repeat the command with another --out",
        )
    samples = [encoder.preprocess(bench.sample(ref).load()) for ref in unit.samples]
    _check_embeddings(encoder, samples, unit)
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
            hint=f"report it to the authors of {probe_owner.owner}",
        )
    if result.status == "failed":
        raise NumericsError(result.message)
    owners = {"probe": probe_owner, "backend": bench.backend_owner(unit.model)}
    for role, ref in zip(("images", "targets"), unit.samples, strict=False):
        owners[role] = bench.dataset_owner(ref.images)
    record = provenance.describe(unit, encoder, owners, operations, time.perf_counter() - start, started)
    return result, record


def _check_embeddings(encoder: Encoder, samples: list[torch.Tensor], unit: Unit) -> None:
    """One forward pass for each sample: a probe must not have to guess why its numbers are NaN."""
    for x, ref in zip(samples, unit.samples, strict=True):
        with torch.no_grad():
            embedding = encoder(x[None])
        if not bool(torch.isfinite(embedding).all()):
            raise NumericsError(
                f"{unit.model!r} returns NaN or infinity for {ref.id!r}",
                expected="a finite embedding",
                got=f"{int((~torch.isfinite(embedding)).sum())} of {embedding.numel()} values are not finite",
                hint="look at the image, or leave it out of the set",
            )
