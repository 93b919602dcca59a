"""How long a plan takes and how much disk it needs, from a few of its batches that are run and thrown away.

With stop rules both are ranges of their own: from the units that are needed whatever comes out of them to all.
"""

from __future__ import annotations

import operator
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from equivengine.contracts.unit import Unit
from equivengine.contracts.units import Batches, UnitList
from equivengine.runtime import provenance, worker
from equivengine.runtime.loading import Workbench, resolve_device
from equivengine.runtime.plan import Plan
from equivengine.runtime.waves import at_least
from equivengine.runtime.worker import WorkerContext, run_batch
from equivengine.store import RunDirectory, schema

#: Seconds after which no further batch of a kind is begun.
MOST_SECONDS = 5.0
#: Where one batch was measured, its cost is taken to be uncertain by this factor.
SPREAD = 2.0

#: Low, middle and high.
Range = tuple[float, float, float]
#: Model, probe, parameters and precision.
Key = tuple[str, str, str, str]


@dataclass
class Kind:
    """Units of a plan that are expected to cost the same: those of one model, probe, parameters and precision.

    Attributes:
        common: What they share; no samples, no references.
        places: Where they stand in the plan.
        least: How many of them are needed in any case; fewer than `units` where a stop rule may leave some out.
        images: How many of them there are by the image set of their first sample.
        seconds: Wall seconds of a unit, storing included: of the fastest batch that was run, the median and the
            slowest one. Where one was run, half and twice its seconds. None if none succeeded.
        bytes: Of a unit, in its shard and pictures; None likewise.
        batches: How many were run.
        problem: Why there is no estimate.
    """

    common: Unit
    places: list[range] = field(default_factory=list)
    least: int = 0
    images: Counter[str] = field(default_factory=Counter)
    seconds: Range | None = None
    bytes: float | None = None
    batches: int = 0
    problem: str = ""

    @property
    def units(self) -> int:
        """How many there are."""
        return sum(map(len, self.places))


_ALL: Callable[[Kind], int] = operator.attrgetter("units")
_LEAST: Callable[[Kind], int] = operator.attrgetter("least")


@dataclass
class Estimate:
    """What a plan costs where it was estimated: in one process, one batch after the other.

    Attributes:
        kinds: In the order of the plan.
        loading: Seconds to load each model again that was loaded for its batches.
        consolidation: Seconds of consolidation for each unit.
        run_file: Bytes of ``run.h5`` for each byte of shards and pictures.
        measured_on: Device, threads and versions.
    """

    kinds: list[Kind]
    loading: dict[str, float]
    consolidation: float
    run_file: float
    measured_on: dict[str, Any]

    @property
    def seconds(self) -> Range | None:
        """Of the whole plan; None if a kind is unknown."""
        return self._seconds(_ALL)

    @property
    def least_seconds(self) -> Range | None:
        """Of what is needed in any case."""
        return self._seconds(_LEAST)

    @property
    def bytes(self) -> float | None:
        """Shards, pictures and ``run.h5`` of the whole plan; None if a kind is unknown."""
        return self._bytes(_ALL)

    @property
    def least_bytes(self) -> float | None:
        """Those of what is needed in any case."""
        return self._bytes(_LEAST)

    def _seconds(self, count: Callable[[Kind], int]) -> Range | None:
        found = [(count(kind), kind.seconds) for kind in self.kinds]
        if any(seconds is None for _, seconds in found):
            return None
        more = sum(self.loading.values()) + self.consolidation * sum(units for units, _ in found)
        low, middle, high = (
            sum(units * seconds[end] for units, seconds in found if seconds is not None) + more for end in range(3)
        )
        return low, middle, high

    def _bytes(self, count: Callable[[Kind], int]) -> float | None:
        if any(kind.bytes is None for kind in self.kinds):
            return None
        return (1 + self.run_file) * sum(count(kind) * kind.bytes for kind in self.kinds if kind.bytes is not None)


def kinds_of(plan: Plan) -> list[Kind]:
    """The units of a plan by what they share but for samples and references, in its order; makes no unit."""
    units, needed = plan.units, at_least(plan)
    found: dict[Key, Kind] = {}
    counted: dict[int, Counter[str]] = {}  # models share rows
    for group, places in units.places():
        common = group.common
        kind = found.setdefault(key_of(common), Kind(common))
        kind.places.append(places)
        kind.least += int(np.count_nonzero(needed[places.start : places.stop]))
        if id(group.rows) not in counted:
            counted[id(group.rows)] = Counter(units.samples[row].images for row in group.rows[:, 0].tolist())
        kind.images += counted[id(group.rows)]
    return list(found.values())


def key_of(common: Unit) -> Key:
    """What units of one kind share."""
    return common.model, common.probe, common.params, common.precision


def estimate(
    plan: Plan,
    bench: Workbench,
    *,
    blocked: Sequence[str] = (),
    on_kind: Callable[[Kind], None] = lambda kind: None,
) -> Estimate:
    """Run up to three batches of each kind in this process, and publish them in a temporary directory.

    They are the first, the middle and the last of their kind: the first one also pays for what later ones share. Only
    the first is run where it takes more than `MOST_SECONDS`. A kind whose batches fail has no estimate, and says why.

    Args:
        plan: The plan.
        bench: Has the models and image sets that the plan was made with.
        blocked: Plugins that are left out.
        on_kind: Called after each kind.

    Raises:
        StoreError: If nothing can be written there.
        EngineError: If a model cannot be loaded.
    """
    kinds = kinds_of(plan)
    batches = plan.batches()
    chosen = [_chosen(kind, batches) for kind in kinds]
    units = [unit for numbers in chosen for number in numbers for unit in batches[number]]
    part = Plan(plan.config, UnitList.of(units))
    loading: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="equivengine-", ignore_cleanup_errors=True) as place:
        directory = RunDirectory.create_or_open(Path(place) / "run", part.to_json(), part.digest)
        context = WorkerContext(str(directory.path), bench.device, tuple(blocked))
        with worker.lent(context, bench):
            for kind, numbers in zip(kinds, chosen, strict=True):
                start = time.perf_counter()
                bench.encoder(kind.common.model)
                loading[kind.common.model] = max(time.perf_counter() - start, loading.get(kind.common.model, 0.0))
                _measure(kind, [batches[number] for number in numbers], context, directory)
                on_kind(kind)
        done = _size(directory.path / schema.SHARDS) + _size(directory.path / schema.PICTURES)
        start = time.perf_counter()
        directory.consolidate()
        consolidation = (time.perf_counter() - start) / max(1, len(directory.published()))
        run_file = _blocks(directory.path / schema.RUN_FILE) / done if done else 1.0
    device = resolve_device(bench.device)
    measured_on = {
        "device": provenance.describe_device(device)["name"],
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "load_average": os.getloadavg()[0],
    }
    return Estimate(kinds, loading, consolidation, run_file, measured_on)


def _chosen(kind: Kind, batches: Batches) -> list[int]:
    """Numbers of the first, the middle and the last batch of a kind."""
    middle = kind.places[len(kind.places) // 2]
    places = (kind.places[0][0], middle[len(middle) // 2], kind.places[-1][-1])
    return list(dict.fromkeys(map(batches.holding, places)))


def _measure(kind: Kind, batches: list[tuple[Unit, ...]], context: WorkerContext, directory: RunDirectory) -> None:
    times: list[float] = []
    before, stored, units = _size(directory.path), 0, 0
    begun = time.perf_counter()
    for batch in batches:
        start = time.perf_counter()
        outcomes = run_batch(context, batch)
        seconds = time.perf_counter() - start
        good = [outcome for outcome in outcomes if outcome.outcome == "published"]
        if good:
            times.append(seconds / len(batch))
            units += len(good)
        else:
            kind.problem = outcomes[0].message.splitlines()[0]
        if time.perf_counter() - begun > MOST_SECONDS:
            break
    kind.batches = len(times)
    if times:
        low, high = (min(times), max(times)) if len(times) > 1 else (times[0] / SPREAD, times[0] * SPREAD)
        kind.seconds = (low, statistics.median(times), high)
        stored = _size(directory.path) - before
        kind.bytes = stored / units
        kind.problem = ""


def _size(folder: Path) -> int:
    """Bytes that files take on disk, whole blocks; links and folders are not counted."""
    return sum(_blocks(Path(place) / name) for place, _, names in os.walk(folder) for name in names)


def _blocks(path: Path) -> int:
    return 512 * path.lstat().st_blocks
