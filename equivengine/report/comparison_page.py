"""The page of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import equivengine
from equivengine.report import templates
from equivengine.report.comparison import Comparison, compare
from equivengine.report.images import Image, of_figure
from equivengine.report.presentation import Presenter
from equivengine.runtime.registry import Registry
from equivengine.store import atomic
from equivengine.store.run import Run


def write_comparison(runs: Sequence[Run], registry: Registry, path: Path) -> list[Comparison]:
    """Compare runs and write the page.

    Args:
        runs: At least one.
        registry: Plugins, which draw figures.
        path: The file; replaced if it is there.

    Returns:
        What was written.

    Raises:
        UsageError: If there is nothing to compare.
        StoreError: If a run cannot be read, or the file not be written.
    """
    comparisons = compare(runs)
    presenter = Presenter(registry)
    figures = [_figures(comparison, presenter) for comparison in comparisons]
    models = dict.fromkeys(column.section.model for comparison in comparisons for column in comparison.columns)
    page = templates.render(
        "compare.html",
        title=_title([comparison.probe for comparison in comparisons], list(models)),
        paths=[str(run.path) for run in runs],
        comparisons=comparisons,
        figures=figures,
        remarks=list(presenter.remarks),
        letters=_letters(max(len(comparison.columns) for comparison in comparisons)),
        version=equivengine.__version__,
    )
    atomic.make_directory(path.parent)
    atomic.publish_text(path, page, overwrite=True)
    return comparisons


def _title(probes: Sequence[str], models: Sequence[str]) -> str:
    if len(models) == 1:
        return f"{', '.join(probes)} on {models[0]}: settings side by side"
    return " against ".join(models) if len(models) == 2 else f"{', '.join(probes)} on {len(models)} models"


def _letters(count: int) -> list[str]:
    """A, B, ... Z, AA, AB: what columns are called where their names are too long."""
    return [
        chr(65 + number) if number < 26 else f"{chr(64 + number // 26)}{chr(65 + number % 26)}"
        for number in range(count)
    ]


def _figures(comparison: Comparison, presenter: Presenter) -> list[Image]:
    """What the probe draws over the units of all columns, if all were measured by one version of it."""
    versions = {record.unit.probe_version for column in comparison.columns for record in column.records}
    if len(versions) > 1:
        return []
    probe = presenter.probe_of(comparison.columns[0].section, versions.pop())
    records = [record for column in comparison.columns for record in column.records]
    return [of_figure(drawn, comparison.probe) for drawn in presenter.overview(probe, records)]
