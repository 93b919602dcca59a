"""Write `records` anew: ``python tests/errors/write_records.py [TESTS...]``.

Runs the tests that are named (all that the records name, and tests/errors, where none is), and takes for each place at
which an error is made the plainest of what it saw. Records that still hold stay as they are. Calls may run side by
side: records are read and written in one step, after the tests.
"""

from __future__ import annotations

import ast
import fcntl
import functools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import error_records
import error_sites
from error_records import Record


def main(arguments: list[str]) -> int:
    """Run the tests, and write what they saw."""
    tests = arguments
    if not tests:
        named = {record.test.partition("::")[0] for record in error_records.records().values()}
        tests = sorted({"tests/errors", *named})
    with tempfile.TemporaryDirectory() as temporary:
        log = Path(temporary) / "seen.jsonl"
        # Tests fail where records are out of date: what they saw counts.
        subprocess.run([sys.executable, "-m", "pytest", "-q", "--record-errors", log, *tests], cwd=error_sites.ROOT)
        seen = [Record(*json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []
    folder = os.open(error_records.FOLDER, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        error_records.records.cache_clear()  # another call may have written while the tests ran
        merge(error_records.records(), seen)
    finally:
        os.close(folder)
    return 0


def merge(known: dict[str, Record], seen: Iterable[Record]) -> None:
    """Write known records and new ones; say what is left.

    Args:
        known: Records by site; those whose test ran and did not provoke them are dropped.
        seen: What was made; with an empty site, a test that ran.
    """
    sites = error_sites.sites()
    elsewhere = error_records.elsewhere()
    candidates: dict[str, list[Record]] = {}
    made: dict[str, set[str]] = {}
    ran: set[str] = set()
    for record in seen:
        if not record.site:
            ran.add(record.test)
        if record.site in sites and not _is_property(record.test):
            candidates.setdefault(record.site, []).append(record)
            made.setdefault(record.test, set()).add(record.site)
    found = {
        site: record
        for site, record in known.items()
        if site in sites and site not in elsewhere and (record.test not in ran or site in candidates)
    }
    for site, records in candidates.items():
        if site in elsewhere:
            continue
        kept = found.get(site)
        same = [r for r in records if kept and r.test == kept.test and r.comparable() == kept.comparable()]
        if not same and (kept is None or kept.test in ran):
            found[site] = min(records, key=lambda record: _plainness(record, len(made[record.test])))
    error_records.write(found)
    left = [site for site in sites if site not in found and site not in elsewhere]
    print(f"{len(found)} records, {len(elsewhere)} made elsewhere, {len(left)} without either")
    for site in left:
        print(f"  {site}")


def _plainness(record: Record, errors: int) -> tuple[bool, bool, int, bool, int]:
    """Commands before addresses and calls; tests that make one error only, since others may be caught on the way."""
    vague = re.search(r"\*\w|^\w+\(\)$", record.call) is not None
    ours = not record.test.startswith("tests/errors/")
    return (not record.command, vague, errors, ours, len(record.command + record.call) + len(record.text))


@functools.cache
def _is_property(test: str) -> bool:
    """Whether hypothesis draws what the test is called with: other values each time."""
    path, _, name = test.partition("::")
    function = name.rpartition("::")[2].partition("[")[0]
    tree = ast.parse((error_sites.ROOT / path).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return any(re.match(r"(hypothesis\.)?given\(", ast.unparse(mark)) for mark in node.decorator_list)
    return False


if __name__ == "__main__":
    os.chdir(error_sites.ROOT)
    sys.exit(main(sys.argv[1:]))
