"""The page of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import equivengine
from equivengine.report import templates
from equivengine.report.comparison import Comparison, Headlines, compare
from equivengine.report.gathering import Group
from equivengine.report.images import Image, of_figure
from equivengine.report.page import named
from equivengine.report.presentation import Presenter
from equivengine.report.summary import Section
from equivengine.runtime.registry import Registry
from equivengine.store import atomic
from equivengine.store.run import Run

#: Classes of one scalar that a page shows, at most.
CLASSES = 60


def write_comparison(
    runs: Sequence[Run], registry: Registry, path: Path, *, per_class: bool = False
) -> list[Comparison]:
    """Compare runs and write the page.

    Args:
        runs: At least one.
        registry: Plugins, which draw figures.
        path: The file; replaced if it is there.
        per_class: Whether to compare each class of images too.

    Returns:
        What was written.

    Raises:
        UsageError: If there is nothing to compare.
        StoreError: If a run cannot be read, or the file not be written.
    """
    presenter = Presenter(registry)
    comparisons = compare(runs, drawn=True, per_class=per_class, headlines=headlines_of(presenter))
    figures = [_figures(comparison, presenter) for comparison in comparisons]
    models = dict.fromkeys(column.section.model for comparison in comparisons for column in comparison.columns)
    page = templates.render(
        "compare.html",
        title=_title([comparison.probe for comparison in comparisons], list(models)),
        paths=[str(run.path) for run in runs],
        comparisons=comparisons,
        figures=figures,
        classes=CLASSES,
        remarks=list(presenter.remarks),
        letters=_letters(max(len(comparison.columns) for comparison in comparisons)),
        version=equivengine.__version__,
    )
    atomic.make_directory(path.parent)
    atomic.publish_text(path, page, overwrite=True)
    return comparisons


def headlines_of(presenter: Presenter) -> Headlines:
    """What probes name as their headlines."""

    def ask(section: Section, group: Group) -> dict[str, str]:
        return presenter.headlines(presenter.probe_of(group.unit), section.params, section.probe)

    return ask


def _title(probes: Sequence[str], models: Sequence[str]) -> str:
    if len(models) == 1:
        return f"{named(probes)} on {models[0]}: settings side by side"
    return " against ".join(models) if len(models) == 2 else f"{named(probes)} on {len(models)} models"


def _letters(count: int) -> list[str]:
    """A, B, ... Z, AA, AB: what columns are called where their names are too long."""
    return [
        chr(65 + number) if number < 26 else f"{chr(64 + number // 26)}{chr(65 + number % 26)}"
        for number in range(count)
    ]


def _figures(comparison: Comparison, presenter: Presenter) -> list[Image]:
    """What the probe draws over the units of all columns, if all were measured by one version of it."""
    groups = [column.group for column in comparison.columns]
    if len({group.unit.probe_version for group in groups}) > 1:
        return []
    probe = presenter.probe_of(groups[0].unit)
    return [of_figure(drawn, comparison.probe) for drawn in presenter.overview(probe, groups)]
