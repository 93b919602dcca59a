"""The summary of a run: warnings, a table for each probe and model, checks, failures, where it is, what next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from equivengine.cli.output import console, literal
from equivengine.cli.text import command_line
from equivengine.contracts.wording import counted, number

if TYPE_CHECKING:
    from rich.console import Console

    from equivengine.report.summary import Row, Section
    from equivengine.runtime.engine import RunReport
    from equivengine.store import Failure, Run

#: Different reasons for failure, and names under one reason, that are printed; ``--json`` lists more.
REASONS, NAMES = 5, 8
#: Sections that are printed.
SECTIONS = 60
#: Characters that names of quantities have in narrow terminals.
_NAMES = 20


def run_document(run: Run) -> dict[str, Any]:
    """Everything that `print_run` shows, as JSON types."""
    from equivengine.report.summary import condense

    sections, pictures = condense(run)
    return {
        "run": str(run.path),
        "plan": run.plan_digest,
        "title": _title(run),
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
        "missing": list(run.missing),
        "unneeded": run.unneeded,
        "endings": [str(ending) for ending in run.endings],
        "pictures": None if pictures is None else asdict(pictures),
        "sections": [asdict(section) for section in sections],
    }


def print_run(run: Run, report: RunReport | None = None) -> None:
    """Print the summary; after a run (``report``) also what was done and what to do next."""
    from equivengine.report.summary import condense

    out = console()
    sections, pictures = condense(run)
    if title := _title(run):
        out.print(literal(title, "bold"))
        out.print()
    for section in sections[:SECTIONS]:
        _print_section(out, section)
    if len(sections) > SECTIONS:
        more = f"{counted(len(sections) - SECTIONS, 'more set', 'more sets')} of parameters, probes or models"
        out.print(literal(f"{more}: --json lists all; `equivengine leaderboard` has a line for each model", "yellow"))
    if pictures is not None:
        counts = f"{counted(pictures.pictures, 'picture')} of {counted(pictures.units, 'unit')}"
        place = pictures.folder or f"within {run.path} (UnitRecord.pictures); no PNG files beside it"
        out.print(literal(f"{counts}: {place}"), soft_wrap=True)
    _print_failures(out, run.failures)
    for ending in run.endings:
        style = "" if ending.effort is None or ending.effort.reached else "yellow"
        out.print(literal(f"stop: {ending}", style), soft_wrap=True)
    if run.missing:
        count = len(run.missing)
        advice = f": {command_line('equivengine', 'resume', run.path)}" if run.path.is_dir() else ""
        out.print(literal(f"{count} unit{'s are' if count > 1 else ' is'} missing{advice}", "yellow"), soft_wrap=True)
    if report is not None:
        counts = ", ".join(
            f"{report.outcomes[name]} {label}"
            for name, label in (("published", "computed"), ("skipped", "already there"), ("failed", "failed"))
            if report.outcomes[name]
        )
        line = f"{counts} in {report.seconds:.1f} s -> {report.directory / 'run.h5'}"
        out.print(literal(line), soft_wrap=True)
        _print_next(out, run, sections, report)


def _title(run: Run) -> str:
    """What its run file calls it; empty where that says nothing."""
    config = run.plan.get("config", {})
    title = config.get("title") if isinstance(config, dict) else None
    return title if isinstance(title, str) else ""


def _print_section(out: Console, section: Section) -> None:
    from rich.padding import Padding
    from rich.table import Table

    out.print(literal(f"{section.name} · {section.model} · {counted(section.units, section.noun)}", "bold"))
    for warning in section.warnings:
        out.print(literal(f"! {warning}", "yellow"))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(
        f"median over {counted(section.units, section.noun)}" if section.over_units else "",
        overflow="fold",
        min_width=_NAMES,
    )
    for title in ("value", section.interval, f"{section.noun}s" if section.over_units else "n"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    group = None
    for row in section.rows:
        if row.group != group:
            group = row.group
            if group:
                table.add_row(literal(group, "bold"))
        table.add_row(Padding(literal(row.description), (0, 0, 0, 2)), *map(literal, _cells(row, section.interval)))
    out.print(table)
    if section.checks:
        checks = Table(box=None, pad_edge=False, header_style="bold")
        checks.add_column("checks", overflow="fold", min_width=_NAMES)
        checks.add_column("passed", justify="right", no_wrap=True)
        checks.add_column("worst value", justify="right", no_wrap=True)
        checks.add_column("must be", no_wrap=True)
        for check in section.checks:
            good = check.passed == check.total
            checks.add_row(
                Padding(literal(check.description), (0, 0, 0, 2)),
                literal(f"{check.passed} of {check.total}" if good else f"FAILED, {check.passed} of {check.total}"),
                literal(number(check.worst)),
                literal(f"{'at most' if check.at_most else 'at least'} {number(check.bound)}"),
                style="" if good else "red",
            )
        out.print(checks)
    facts = section.facts
    out.print(
        literal(
            f"{facts['device']}, {facts['precision']}, kernels {facts['kernels']}, seed {facts['seed']}, "
            f"weights {facts['weights']}",
            "dim",
        )
    )
    out.print()


def _cells(row: Row, heading: str) -> tuple[str, str, str, str]:
    return row.shown, row.shown_interval(heading), "" if row.n is None else f"{row.n:,}", row.shown_unit


def _print_failures(out: Console, failures: Mapping[str, Failure]) -> None:
    """Failures by reason: a thousand units that fail alike are one thing to know."""
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for failure in failures.values():
        samples = " -> ".join(sample.id for sample in failure.unit.samples[:2])
        reasons.setdefault((failure.unit.probe, failure.unit.model, failure.message), []).append(samples)
    for (probe, model, message), names in list(reasons.items())[:REASONS]:
        more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
        count = f"{len(names)} units: " if len(names) > 1 else ""
        out.print(
            literal(f"failed: {probe} · {model} · {count}{', '.join(names[:NAMES])}{more}", "red"), soft_wrap=True
        )
        for line in message.splitlines():
            out.print(literal(f"    {line}"), soft_wrap=True)
    if len(reasons) > REASONS:
        out.print(literal(f"failed: {counted(len(reasons) - REASONS, 'more reason')}; --json lists all", "red"))
    if any(failure.error_type == "DataError" for failure in failures.values()):
        advice = "A repaired image is new content: repeat the command with another --out."
        out.print(literal(f"{advice} `resume` tries the old content again."))


def _print_next(out: Console, run: Run, sections: list[Section], report: RunReport) -> None:
    directory = report.directory
    commands = []
    if report.failures:
        commands.append(command_line("equivengine", "resume", directory))
    probes = {section.probe for section in sections}
    if sections:
        commands.append(command_line("equivengine", "show", directory))
        if "ldlc" in probes and all(section.model == "digits" for section in sections):
            model = "timm:vit_small_patch16_224?weights=random"
            commands.append(f'equivengine probe --plugin ldlc --model "{model}" --images samples --limit 1')
        elif probes == {"ldlc"}:
            commands.append(_same_images(run, "spectrum", sections[0].model))
        commands.append(command_line("equivengine", "report", directory))
    out.print(literal("next:", "bold"))
    for command in commands:
        out.print(literal(f"  {command}"), soft_wrap=True)


def _same_images(run: Run, probe: str, model: str) -> str:
    """The command that runs another probe on the first image set of a run."""
    config = run.plan.get("config", {})
    words = ["equivengine", "probe", "--plugin", probe, "--model", model, "--images", *config.get("images", [])[:1]]
    limit = config.get("limit")
    return " ".join(map(shlex.quote, [*words, *(["--limit", str(limit)] if limit else [])]))
