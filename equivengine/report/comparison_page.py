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
        title=f"{' against '.join(models)}" if len(models) > 1 else f"Settings on {next(iter(models))}",
        paths=[str(run.path) for run in runs],
        comparisons=comparisons,
        figures=figures,
        remarks=list(presenter.remarks),
        version=equivengine.__version__,
    )
    atomic.make_directory(path.parent)
    atomic.publish_text(path, page, overwrite=True)
    return comparisons


def _figures(comparison: Comparison, presenter: Presenter) -> list[Image]:
    """What the probe draws over the units of all columns, if all were measured by one version of it."""
    versions = {record.unit.probe_version for column in comparison.columns for record in column.records}
    if len(versions) > 1:
        return []
    probe = presenter.probe_of(comparison.columns[0].section, versions.pop())
    records = [record for column in comparison.columns for record in column.records]
    return [of_figure(drawn, comparison.probe) for drawn in presenter.overview(probe, records)]
