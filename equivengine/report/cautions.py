"""What stands between the columns of a comparison, or the rows of a leaderboard, and a fair comparison of models."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from equivengine.contracts.wording import counted
from equivengine.statistics import ENOUGH
from equivengine.store.run import Run

if TYPE_CHECKING:
    from equivengine.report.comparison import Column
    from equivengine.report.gathering import Group
    from equivengine.report.pooled import Pooled
    from equivengine.report.standings import Standing


def cautions(columns: Sequence[Column], units: Collection[str], runs: Sequence[Run]) -> list[str]:
    """What a reader must know first.

    Args:
        columns: What is compared.
        units: Units of all scalars.
        runs: The run of each column.
    """
    sections = [column.section for column in columns]
    found = [*_images(columns)]
    params = [section.params for section in sections]
    for name in dict.fromkeys(name for each in params for name in each):
        values = [each.get(name) for each in params]
        if any(value != values[0] for value in values):
            told = "; ".join(f"{c.label}: {value}" for c, value in zip(columns, values, strict=True))
            found.append(f"the parameter {name} differs ({told})")
    for what, words in (
        ("versions of the probe", [column.group.unit.probe_version for column in columns]),
        ("precisions", [section.facts["precision"] for section in sections]),
        ("seeds", [section.facts["seed"] for section in sections]),
    ):
        if len(set(words)) > 1:
            found.append(f"{what} differ: {', '.join(dict.fromkeys(words))}")
    found += _inputs([column.group for column in columns])
    if len({section.model for section in sections}) > 1 and any("embedding" in unit for unit in units):
        found.append(
            "numbers in units of the embedding have its scale, which is each model's own: compare ratios, ranks and "
            "shares"
        )
    found += _counts(columns, runs)
    for warning in dict.fromkeys(warning for section in sections for warning in section.warnings):
        whose = [column.label for column in columns if warning in column.section.warnings]
        found.append(f"{'all' if len(whose) == len(columns) else ', '.join(whose)}: {warning}")
    return found


def _images(columns: Sequence[Column]) -> list[str]:
    found = []
    sets = [column.group.samples for column in columns]
    shared, every = set.intersection(*sets), set.union(*sets)
    if shared != every:
        found.append(f"not on the same images: {len(shared):,} of {len(every):,} are common to all columns")
        if not shared:
            found.append("no image is common to all columns: only medians over different images stand side by side")
    for column in columns[1:]:
        common = len(np.intersect1d(column.subjects.images, columns[0].subjects.images, assume_unique=True))
        if 1 < common < ENOUGH <= min(column.images, columns[0].images):
            found.append(
                f"{column.label} against {columns[0].label}: {common} images of both: beside ratios and differences "
                "stand smallest and largest, in place of 95% intervals"
            )
    first = _targets(columns[0])
    for column in columns[1:]:
        mine = _targets(column)
        apart = sum(mine[subject] != first[subject] for subject in mine.keys() & first.keys())
        if apart:
            found.append(
                f"{column.label} has other targets than {columns[0].label} for {apart:,} of its originals: pairs are "
                "paired by their originals"
            )
    return found


def _inputs(groups: Sequence[Group]) -> list[str]:
    """Whether one number of an input is not the same thing for all."""
    kinds = dict.fromkeys(name for group in groups for name in group.input_units)
    if len(kinds) < 2:
        return []
    return [f"inputs are of several kinds ({', '.join(kinds)}): lengths of changes, and what is per unit, differ"]


def _targets(column: Column) -> dict[str, frozenset[str]]:
    """The targets of each original."""
    group = column.group
    if not any(group.targets):
        return {}
    if not column.subjects.repeated:
        return {s: frozenset((t,)) for s, t in zip(group.subjects, group.targets, strict=True)}
    found: dict[str, set[str]] = {}
    for subject, target in zip(group.subjects, group.targets, strict=True):
        found.setdefault(subject, set()).add(target)
    return {subject: frozenset(targets) for subject, targets in found.items()}


def _counts(columns: Sequence[Column], runs: Sequence[Run]) -> list[str]:
    """What is small, and what is missing. Units that did not converge are among the warnings of their section."""
    found = []
    for column in columns:
        section, images = column.section, column.images
        noun = "set" if section.noun == "set" else "image"
        if images == 1:
            found.append(
                f"{column.label}: one {noun}: its intervals are of the measurement, and say nothing of other {noun}s"
            )
        elif images < ENOUGH:
            found.append(f"{column.label}: {images} {noun}s: in place of 95% intervals stand smallest and largest")
        if column.subjects.repeated:
            found.append(
                f"{column.label}: {section.units:,} units of {counted(images, noun)}: the median of each counts once"
            )
        if section.failed:
            found.append(
                f"{column.label}: {_share(section.failed, section.units + section.failed)} failed, and "
                f"{_are(section.failed)} in no number"
            )
    return found + whole(list({id(run): run for run in runs}.values()))


def whole(runs: Sequence[Run]) -> list[str]:
    """What runs have left out: units that are missing, and image sets that a stop rule ended."""
    found = []
    for run in runs:
        found += [f"{run.path}: stop: {ending}" for ending in run.endings]
        if run.missing:
            count = len(run.missing)
            found.append(f"{run.path}: {counted(count, 'unit')} of the plan {_are(count)} missing, and in no number")
    return found


def _share(count: int, total: int) -> str:
    return f"{count:,} of {counted(total, 'unit')}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def compared(words: str, pools: Mapping[tuple[str, str], Pooled], numbering: dict[str, int], common: bool) -> list[str]:
    """What stands between the models of a leaderboard's column and a fair comparison.

    Args:
        words: What the column is called.
        pools: Units by model and digest of its weights.
        numbering: Numbers of images by digest. Grows.
        common: Whether to keep only the images that all models have seen.
    """
    found = []
    filled = {model: pool for model, pool in pools.items() if pool.units}
    sets = {model: pool.number(numbering) for model, pool in filled.items()}
    if len(sets) > 1:
        shared, every = set.intersection(*sets.values()), set.union(*sets.values())
        noun = next(iter(filled.values())).noun
        noun = "sets of images" if noun == "set" else "images"
        if shared != every:
            what = "only these are taken" if common else "--common takes only these"
            found.append(
                f"{words}: the models did not see the same {noun}; {len(shared):,} of {len(every):,} are common to all "
                f"({what})"
            )
            if common:
                for pool in filled.values():
                    pool.keep(shared)
    for said in _inputs([group for pool in filled.values() for group in pool.groups]):
        found.append(f"{words}: {said}")
    images = {model: len(numbers) for model, numbers in sets.items() if filled[model].noun != "set"}
    single = [model[0] for model, count in images.items() if count == 1]
    if single:
        found.append(
            f"{words}: one image of {', '.join(dict.fromkeys(single))}: its intervals are of the measurement, and say "
            "nothing of other images"
        )
    small = [model[0] for model, count in images.items() if 1 < count < ENOUGH]
    if small:
        found.append(
            f"{words}: fewer than {ENOUGH} images of {', '.join(dict.fromkeys(small))}: smallest and largest stand in "
            "place of 95% intervals"
        )
    failed = {model[0]: pool for model, pool in pools.items() if pool.failed}
    for model, pool in failed.items():
        share = _share(pool.failed, pool.failed + pool.units)
        found.append(f"{words}: {share} of {model} failed, and {_are(pool.failed)} in no number")
    for (model, _), pool in filled.items():
        if pool.not_converged:
            found.append(
                f"{words}: {_share(pool.not_converged, pool.units)} of {model} did not converge; "
                f"{'it is' if pool.not_converged == 1 else 'they are'} in the numbers"
            )
    return found


def marked(rows: Sequence[Standing]) -> list[str]:
    """What is to be known of the models of a leaderboard."""
    found = []
    twice = {row.model for row in rows if sum(other.model == row.model for other in rows) > 1}
    for model in sorted(twice):
        digests = ", ".join(row.weights_digest[:12] for row in rows if row.model == model)
        found.append(f"{model} stands there with several weights: sha256 {digests}")
    random = [row.model for row in rows if row.random]
    if random:
        found.append(f"random weights, which say nothing about a trained model: {', '.join(dict.fromkeys(random))}")
    slow = [row.model for row in rows if row.reference_path]
    if slow:
        found.append(f"reference path, no compiled kernels: {', '.join(dict.fromkeys(slow))}")
    return found
