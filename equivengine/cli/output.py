"""What commands print on stdout: tables for people, one JSON document for programs."""

from __future__ import annotations

import json
import math
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from equivengine.report.summary import Row, Section
    from equivengine.runtime.engine import RunReport
    from equivengine.store import Run


def console() -> Console:
    """A console on stdout; 110 columns where stdout is no terminal, so that logs and pipes keep tables whole."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 110
    return Console(width=width, highlight=False, markup=False, soft_wrap=False)


def print_json(document: dict[str, Any]) -> None:
    """One JSON document; NaN and infinity become null."""
    click.echo(json.dumps(_finite(document), indent=2, ensure_ascii=False))


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """A plain table."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_literal(cell) for cell in row))
    console().print(table)


def run_document(run: Run) -> dict[str, Any]:
    """Everything that `print_run` shows, as JSON types."""
    from equivengine.report.summary import summarise

    return {
        "run": str(run.path),
        "published": len(run.published),
        "failed": [
            {
                "unit_id": unit_id,
                "samples": [sample.id for sample in failure.unit.samples],
                "probe": failure.unit.probe,
                "model": failure.unit.model,
                "error": failure.error_type,
                "message": failure.message,
            }
            for unit_id, failure in run.failures.items()
        ],
        "missing": run.missing,
        "sections": [asdict(section) for section in summarise(run)],
    }


def print_run(run: Run, report: RunReport | None = None) -> None:
    """The summary of a run: warnings, a table for each probe and model, checks, failures, where it is, what next."""
    from equivengine.report.summary import summarise

    out = console()
    sections = summarise(run)
    for section in sections:
        _print_section(out, section)
    for unit_id, failure in run.failures.items():
        samples = " -> ".join(sample.id for sample in failure.unit.samples)
        out.print(f"failed: {failure.unit.probe} {samples} (unit {unit_id[:12]})", style="red")
        for line in failure.message.splitlines():
            out.print(f"    {line}")
    if run.missing:
        out.print(f"{len(run.missing)} units are missing: equivengine resume {run.path}", style="yellow")
    if report is not None:
        counts = ", ".join(
            f"{report.outcomes[name]} {label}"
            for name, label in (("published", "computed"), ("skipped", "already there"), ("failed", "failed"))
            if report.outcomes[name]
        )
        out.print(f"{counts} in {report.seconds:.1f} s -> {report.directory / 'run.h5'}")
        _print_next(out, run, sections, report)


def _print_section(out: Console, section: Section) -> None:
    from rich.rule import Rule
    from rich.table import Table

    images = f"{section.units} image{'s' * (section.units != 1)}"
    out.print(Rule(_literal(f"{section.probe} · {section.model} · {images}"), align="left"))
    for warning in section.warnings:
        out.print(f"! {warning}", style="yellow")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"median over {images}" if section.over_units else "", overflow="fold", ratio=1)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("95% interval", justify="right", no_wrap=True)
    table.add_column("images" if section.over_units else "n", justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    group = None
    for row in section.rows:
        if row.group != group:
            group = row.group
            if group:
                table.add_row(_literal(group, "bold"))
        table.add_row(_literal(f"  {row.description}"), *_numbers(row))
    out.print(table)
    if section.checks:
        out.print("checks", style="bold")
        for check in section.checks:
            good = check.passed == check.total
            mark = "passed" if good else "FAILED"
            share = f"{check.passed}/{check.total}"
            out.print(
                f"  {mark} {share}  {check.description}: worst {number(check.worst)}, bound {number(check.bound)}",
                style=None if good else "red",
            )
    facts = section.facts
    out.print(
        f"{facts['device']}, {facts['precision']}, kernels {facts['kernels']}, seed {facts['seed']}, "
        f"weights {facts['weights']}"
    )


def _numbers(row: Row) -> tuple[str, str, str, str]:
    interval = "" if row.interval is None else f"{number(row.interval[0])} .. {number(row.interval[1])}"
    return (
        number(row.value),
        interval,
        "" if row.n is None else str(row.n),
        "" if row.unit == "1" else row.unit,
    )


def number(value: float) -> str:
    """Four significant digits; powers of ten where zeros would pile up; "-" for what was not measured."""
    if not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value):,}"
    size = abs(value)
    if size >= 1e6 or size < 1e-3:
        return f"{value:.3g}" if size < 1e-3 else f"{value:.3e}"
    return f"{value:,.0f}" if size >= 1e4 else f"{value:.4g}"


def _print_next(out: Console, run: Run, sections: list[Section], report: RunReport) -> None:
    commands = [f"equivengine show {report.directory}"]
    if report.failures:
        commands.append(f"equivengine resume {report.directory}")
    probes = {section.probe for section in sections}
    if "ldlc" in probes and all(section.model == "digits" for section in sections):
        commands.append(
            'equivengine probe --plugin ldlc --model "timm:vit_small_patch16_224?weights=random" --images samples '
            "--limit 1"
        )
    elif probes and "spectrum" not in probes:
        commands.append(f"equivengine probe --plugin spectrum --model '{sections[0].model}'")
    commands.append(f"python -c \"import equivengine as eqv; print(eqv.open_run('{report.directory}').probes)\"")
    out.print("next:", style="bold")
    for command in commands:
        out.print(f"  {command}", soft_wrap=True)


def _literal(text: str, style: str = "") -> Any:
    """Text that rich takes as it is; names from files and plugins may hold brackets."""
    from rich.text import Text

    return Text(text, style=style)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
