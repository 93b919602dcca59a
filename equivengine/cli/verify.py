"""``equivengine verify``: whether a run is what was written, and what to do where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from equivengine.cli.options import json_option

if TYPE_CHECKING:
    from pathlib import Path

    from equivengine.store import Finding, Inspection
    from equivengine.store.layout import StoredPlan

#: Units that are printed by name; ``--json`` lists all.
NAMES = 5


@click.command("verify")
@click.argument("run", type=click.Path())
@json_option
def command(run: str, as_json: bool) -> int:
    """Read everything in a run directory or a run.h5, and say what is wrong.

    Finds flipped bits, truncated, missing, misplaced and foreign shards, and a run.h5 that was made from other files.
    Changes nothing; `equivengine resume` repairs a directory. Exits with 1 if something is wrong, with 0 if not: also
    where units are missing because they were never published.
    """
    from equivengine.cli.output import print_json
    from equivengine.store import inspect_run

    found = inspect_run(run, check_plan=_check_plan)
    if as_json:
        print_json(_document(found))
    else:
        _print(found)
    return 1 if found.findings else 0


def _check_plan(stored: StoredPlan, path: Path) -> None:
    """Hold a plan of our engine against its digest; what others put in a run directory has one of their own."""
    from equivengine.runtime.plan import Plan

    if "version" in stored.plan or "config" in stored.plan:
        Plan.from_store(stored, path)


def _document(found: Inspection) -> dict[str, Any]:
    return {
        "run": str(found.path),
        "ok": not found.findings,
        "shards": found.shards,
        "failures": found.failures,
        "bytes": found.bytes,
        "findings": [
            {
                "file": str(finding.path),
                "kind": finding.kind,
                "what": finding.error.what,
                "expected": finding.error.expected,
                "got": finding.error.got,
                "next": finding.error.hint,
                "rerun": list(finding.unit_ids),
            }
            for finding in found.findings
        ],
        "rerun": found.rerun,
        "missing": list(found.missing),
        "unneeded": found.unneeded,
        "failed": found.failed,
        "outdated": found.outdated,
        "next": _resume(found),
    }


def _print(found: Inspection) -> None:
    from equivengine.cli.output import console, literal
    from equivengine.contracts.wording import counted

    out = console()

    def line(text: str, style: str = "") -> None:
        out.print(literal(text, style), soft_wrap=True)

    for finding in found.findings:
        line(f"{finding.kind}: {finding.error.what}", "red")
        for name, text in (("expected", finding.error.expected), ("got", finding.error.got)):
            if text is not None:
                line(f"  {name}: {text}")
        line(f"  next: {finding.error.hint}")
        if finding.unit_ids:
            line(f"  to compute again: {_names(finding)}")
    if found.unneeded:
        line(
            f"{counted(len(found.unneeded), 'unit')} of the plan not needed: its stop rules end image sets before them"
        )
    for unit_ids, what in ((found.missing, "not published yet"), (found.failed, "failed")):
        if unit_ids:
            line(f"{counted(len(unit_ids), 'unit')} {what}: {', '.join(one[:12] for one in unit_ids[:NAMES])}"
                 + (f" and {len(unit_ids) - NAMES} more" if len(unit_ids) > NAMES else ""), "yellow")  # fmt: skip
    if found.outdated and not found.findings:
        line("run.h5 does not hold what the directory holds by now, or is not there", "yellow")
    files = (
        f"{counted(found.shards, 'shard')}, {counted(found.failures, 'failure')}" if found.path.is_dir() else "1 file"
    )
    size = f"{found.bytes / 1e6:.1f} MB" if found.path.is_dir() else f"{found.path.stat().st_size / 1e6:.1f} MB"
    verdict = counted(len(found.findings), "finding") if found.findings else "nothing is damaged"
    line(f"{verdict}: {files}, {size} read")
    if _resume(found):
        line("next:", "bold")
        line(f"  {_resume(found)}")


def _names(finding: Finding) -> str:
    return ", ".join(finding.unit_ids[:NAMES]) + (" and more" if len(finding.unit_ids) > NAMES else "")


def _resume(found: Inspection) -> str | None:
    """The command that puts right what was found; None if there is nothing to do, or nothing that it could do."""
    from equivengine.cli.text import command_line
    from equivengine.store.schema import PLAN_FILE

    beyond = not found.path.is_dir() or any(finding.path.name == PLAN_FILE for finding in found.findings)
    todo = found.findings or found.missing or found.failed or found.outdated
    return command_line("equivengine", "resume", found.path) if todo and not beyond else None
