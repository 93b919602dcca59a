"""Pieces of the output: numbers, safe text, progress."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivengine.cli.progress import Bar, JsonLines, Lines, make_progress
from equivengine.cli.text import command_line, printable
from equivengine.contracts.unit import SampleRef, Unit, UnitOutcome
from equivengine.contracts.wording import number

UNIT = Unit("measure", "1", "{}", "toy", "w", (SampleRef("folder:x", 0, "[red]a.png[/nothing]", "d"),), 0, "fp32")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1.0, "1"), (-3.0, "-3"), (63.0, "63"), (76737.0, "76,737"), (1.2345678, "1.235"), (0.5, "0.5"),
        (0.001234, "0.001234"), (0.0001234, "0.000123"), (1.71e-6, "1.71e-06"), (12345.6, "12,346"), (123.456, "123.5"),
        (1.5e9, "1.500e+09"), (1e-300, "1e-300"), (math.nan, "-"), (math.inf, "-"), (-math.inf, "-"),
    ],
)  # fmt: skip
def test_a_number(value, text):
    assert number(value) == text


@given(st.floats(-1e300, 1e300))
def test_numbers_keep_three_digits_and_stay_short(value):
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=5.1e-3)
    assert len(number(value)) <= len("-1.000e+100")


@given(st.text())
def test_printable_text_holds_no_control_characters(text):
    import unicodedata

    assert not [c for c in printable(text) if unicodedata.category(c) == "Cc" and c != "\n"]
    assert printable(printable(text)) == printable(text)


def test_commands_can_be_pasted():
    assert command_line("equivengine", "show", Path("runs/a b")) == "equivengine show 'runs/a b'"


def outcome(kind="published", **options):
    return UnitOutcome(UNIT.unit_id, kind, options.pop("message", ""), 1.5, **options)


def test_plain_progress_counts_what_is_left_to_do(capsys):
    with Lines() as progress:
        progress.start(Path("run"), 5, 3)
        progress.unit_done(UNIT, outcome())
        progress.unit_done(UNIT, outcome("failed", message="no\nluck"))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "5 units, 3 of them published already; results go to run",
        "[1/2] measure [red]a.png[/nothing]: published (1.5 s)",
        "[2/2] measure [red]a.png[/nothing]: failed (1.5 s; 1 failed)",
        "    no",
        "    luck",
    ]


def test_json_progress_is_one_object_for_each_event(capsys):
    with JsonLines() as progress:
        progress.start(Path("run"), 1, 0)
        progress.unit_done(UNIT, outcome("failed", message="no\nluck"))
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert first == {"event": "run_started", "directory": "run", "units": 1, "published": 0}
    assert second["samples"] == ["[red]a.png[/nothing]"]
    assert (second["outcome"], second["message"], second["seconds"]) == ("failed", "no\nluck", 1.5)


def test_the_bar_takes_names_as_they_are(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with Bar() as progress:
        progress.start(Path("run"), 2, 0)
        progress.unit_done(UNIT, outcome())
        progress.unit_done(UNIT, outcome("failed", message="no luck"))
    assert "measure [red]a.png[/nothing]: failed" in stream.getvalue()


@pytest.mark.parametrize("kind", ["plain", "json"])
def test_progress_that_nobody_reads_falls_silent(monkeypatch, kind):
    attempts = []

    class Gone(io.StringIO):
        def write(self, text):
            if isinstance(text, bytes):
                raise TypeError("click tries what kind of stream this is")
            if text:
                attempts.append(text)
                raise BrokenPipeError
            return 0

    monkeypatch.setattr("sys.stderr", Gone())
    with make_progress(kind) as progress:
        progress.start(Path("run"), 2, 0)
        progress.unit_done(UNIT, outcome())
    assert len(attempts) == 1


def test_auto_is_plain_where_there_is_no_terminal(monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert type(make_progress("auto")) is Lines
