"""Models in a table, from one or many runs: a row for each, a column for each scalar that a probe names as headline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from equivengine.contracts.result import Scalar
from equivengine.contracts.unit import Unit, settings
from equivengine.contracts.wording import suggest
from equivengine.errors import UsageError
from equivengine.report.cautions import compared, marked, whole
from equivengine.report.gathering import Failed, Group, gather
from equivengine.report.pooled import Pooled
from equivengine.report.presentation import Presenter
from equivengine.report.standings import Entry, Leaderboard, Metric, Standing
from equivengine.report.summary import noun_of
from equivengine.report.twice import repeated
from equivengine.statistics import ENOUGH
from equivengine.store.run import Run


@dataclass
class _Collected:
    """What the runs hold, by model and by what was measured."""

    pools: dict[tuple[str, str], dict[Unit, Pooled]] = field(default_factory=dict)
    kinds: dict[Unit, Group | None] = field(default_factory=dict)
    runs: dict[tuple[str, str], dict[str, None]] = field(default_factory=dict)
    parts: dict[tuple[tuple[str, str], Unit], list[tuple[Run, Group]]] = field(default_factory=dict)

    def take(self, run: Run, unit: Unit, group: Group | None, failed: Failed | None) -> None:
        model, kind = (unit.model, unit.weights_digest), _kind(unit)
        self.runs.setdefault(model, {})[str(run.path)] = None
        if group is not None:
            self.parts.setdefault((model, kind), []).append((run, group))
        self.kinds[kind] = self.kinds.get(kind) or group
        self.pools.setdefault(model, {}).setdefault(kind, Pooled(noun_of(unit))).take(group, failed)


def _kind(unit: Unit) -> Unit:
    """What was measured, whatever the model and the images: equal for the units of one column."""
    return replace(unit, model="", weights_digest="", samples=(), references=(), seed=0, attention="")


def leaderboard(
    runs: Sequence[Run],
    presenter: Presenter,
    *,
    scalars: Sequence[str] = (),
    common: bool = False,
    sort: str | None = None,
) -> Leaderboard:
    """Put the models of one or many runs into a table.

    Units of one model with one set of weights are taken together, whichever run they stand in; equal ones count once.

    Args:
        runs: At least one.
        presenter: Asks probes for their headlines.
        scalars: Further columns, as ``PROBE.NAME``.
        common: Take only images that all models of a column have seen.
        sort: Key of the column to sort by, largest first; the order of the runs otherwise.

    Raises:
        UsageError: If there is nothing to show, or a named scalar is not there.
        StoreError: If a shard cannot be read, or two runs have results of one unit that contradict each other.
    """
    found = _Collected()
    for run in runs:
        gathered = gather(run)
        for key, group in gathered.groups.items():
            found.take(run, group.unit, group, gathered.failures.pop(key, None))
        for failed in gathered.failures.values():
            found.take(run, failed.unit, None, failed)
    columns = _columns(found, presenter, scalars)
    if not columns:
        raise UsageError(
            "there is nothing for a leaderboard",
            expected="results of a probe that names headlines",
            got="; ".join(presenter.remarks)
            or ", ".join(dict.fromkeys(kind.probe for kind in found.kinds))
            or "no results",
            hint="name columns: --scalar PROBE.NAME; `equivengine show RUN --json` lists the names",
        )
    numbering: dict[str, int] = {}
    cautions = whole(runs)
    for (_, kind), parts in found.parts.items():
        if any(kind == other for other, _ in columns):
            cautions += [f"{_words(columns, kind)}: {said}" for said in repeated(parts)]
    for kind in dict.fromkeys(kind for kind, _ in columns):
        pools = {model: mine[kind] for model, mine in found.pools.items() if kind in mine}
        cautions += compared(_words(columns, kind), pools, numbering, common)
    rows = [_row(model, found, columns, numbering) for model in found.pools]
    metrics = [metric for _, metric in columns]
    if sort is not None:
        rows = _sorted(rows, metrics, sort)
    cautions += marked(rows)
    configs = [run.plan.get("config") for run in runs]
    titles = {str(config.get("title") or "") if isinstance(config, dict) else "" for config in configs}
    title = titles.pop() if len(titles) == 1 else ""
    return Leaderboard(metrics, rows, cautions, [(str(run.path), run.plan_digest) for run in runs], common, title)


def _columns(found: _Collected, presenter: Presenter, scalars: Sequence[str]) -> list[tuple[Unit, Metric]]:
    """Columns in the order in which probes first occur; those that were asked for by name follow their probe's."""
    probes: dict[str, list[Unit]] = {}
    for kind in found.kinds:
        probes.setdefault(kind.probe, []).append(kind)
    asked = _asked(scalars, found, probes)
    columns = []
    for probe, kinds in probes.items():
        versions = len({kind.probe_version for kind in kinds}) > 1
        for kind, words in zip(kinds, settings(kinds), strict=True):
            group = found.kinds[kind]
            known = group.scalars if group is not None else {}
            titles = presenter.headlines(presenter.probe_of(kind), json.loads(kind.params), probe)
            for name in asked.get(probe, []):
                if name in known:
                    titles.setdefault(name, known[name].description)
            setting = ", ".join(filter(None, (words, f"version {kind.probe_version}" if versions else "")))
            for name, title in titles.items():
                like = known.get(name)
                columns.append(
                    (
                        kind,
                        Metric(
                            key=f"{probe}.{name}" + (f" [{setting}]" if setting else ""),
                            title=title,
                            probe=probe,
                            version=kind.probe_version,
                            setting=setting,
                            params=kind.params,
                            name=name,
                            description=_described(like, title),
                            unit=like.unit if like is not None else "1",
                            share=group is not None and name in known and group.binary(name),
                        ),
                    )
                )
    return columns


def _described(like: Scalar | None, title: str) -> str:
    """With its heading, which the line of a table can do without."""
    if like is None:
        return title
    return f"{like.group}: {like.description}" if like.group else like.description


def _asked(scalars: Sequence[str], found: _Collected, probes: dict[str, list[Unit]]) -> dict[str, list[str]]:
    """Names by probe of the scalars that were asked for."""
    asked: dict[str, list[str]] = {}
    for text in scalars:
        probe, dot, name = text.rpartition(".")
        if not dot or probe not in probes:
            raise UsageError(
                "--scalar takes PROBE.NAME", expected=f"a probe of these runs: {', '.join(probes)}", got=repr(text)
            )
        groups = [group for kind in probes[probe] if (group := found.kinds[kind]) is not None]
        known = dict.fromkeys(each for group in groups for each in group.scalars)
        if name not in known:
            raise UsageError(f"the probe {probe!r} stores no scalar {name!r}", expected=suggest(name, known))
        asked.setdefault(probe, []).append(name)
    return asked


def _row(
    model: tuple[str, str], found: _Collected, columns: Sequence[tuple[Unit, Metric]], numbering: dict[str, int]
) -> Standing:
    pools = found.pools[model]
    groups = [group for pool in pools.values() for group in pool.groups]
    entries = [_entry(pools, kind, metric, numbering) for kind, metric in columns]
    return Standing(
        model=model[0],
        weights_digest=model[1],
        random=any(group.random for group in groups),
        reference_path=any(group.unavailable.total() for group in groups),
        size=next((group.size for group in groups if group.size is not None), None),
        runs=list(found.runs[model]),
        entries=entries,
    )


def _entry(pools: dict[Unit, Pooled], kind: Unit, metric: Metric, numbering: dict[str, int]) -> Entry:
    pool = pools.get(kind)
    if pool is None:
        others = [other for other in pools if other.probe == kind.probe]
        return Entry(why=f"{kind.probe} {_otherwise(kind, others)}")
    entry = Entry(units=pool.units, not_converged=pool.not_converged, failed=pool.failed, noun=pool.noun)
    entry = replace(entry, unit=pool.unit_of(metric.name) or metric.unit)
    if not pool.units:
        first = next(iter(pool.reasons), "")
        whose = "its one unit" if pool.failed == 1 else f"all {pool.failed:,} units"
        return replace(entry, why=f"{whose} failed: {first.splitlines()[0] if first else ''}")
    if not pool.has(metric.name):
        return replace(entry, why="its units do not have this number")
    alone = pool.alone(metric.name)
    if alone is not None:
        if not np.isfinite(alone.value):
            return replace(entry, why="its one unit could not measure it")
        kind_of = "measurement" if alone.interval is not None else ""
        within = "observation" if alone.n is not None else pool.noun
        n = alone.n if alone.n is not None else 1
        return replace(entry, value=alone.value, interval=alone.interval, kind=kind_of, n=n, noun=within)
    middle, observed, noun = pool.middle(metric.name, numbering)
    if middle.n == 0:
        return replace(
            entry, why=f"none of {pool.units:,} units could measure it" if observed else "no image in common"
        )
    few = observed < ENOUGH and not pool.binary(metric.name)
    kind_of = "" if middle.ends is None else "min .. max" if few else "95%"
    return replace(entry, value=middle.value, interval=middle.ends, kind=kind_of, n=middle.n, noun=noun)


def _otherwise(kind: Unit, others: Sequence[Unit]) -> str:
    """How a probe ran that did not run like this."""
    if not others:
        return "did not run"
    for name, what in (("params", "parameters"), ("precision", "precision"), ("probe_version", "version")):
        if all(getattr(other, name) != getattr(kind, name) for other in others):
            found = ", ".join(dict.fromkeys(getattr(other, name) for other in others))
            return f"ran with other {what}" if name == "params" else f"ran in another {what}: {found}"
    return "ran with other settings"


def _words(columns: Sequence[tuple[Unit, Metric]], kind: Unit) -> str:
    metric = next(metric for other, metric in columns if other is kind or other == kind)
    return f"{metric.probe}, {metric.setting}" if metric.setting else metric.probe


def _sorted(rows: Sequence[Standing], metrics: Sequence[Metric], key: str) -> list[Standing]:
    keys = [metric.key for metric in metrics]
    if key not in keys:
        raise UsageError(f"there is no column {key!r} to sort by", expected=suggest(key, keys))
    place = keys.index(key)

    def rank(row: Standing) -> tuple[bool, float]:
        value = row.entries[place].value
        return (value is None, 0.0 if value is None else -value)

    return sorted(rows, key=rank)
