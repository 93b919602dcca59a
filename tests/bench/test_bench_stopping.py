"""bench/stopping.py counts what it says, and docs/ldlc.md shows what bench/results/ holds of it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import stopping  # noqa: E402

KEPT = sorted((ROOT / "bench" / "results").glob("stopping-*.json"))


def test_the_page_shows_the_tables_of_a_kept_result():
    page = (ROOT / "docs" / "ldlc.md").read_text(encoding="utf-8")
    kept = [json.loads(path.read_text())["results"] for path in KEPT]
    assert any(stopping.table(rows) in page and stopping.ratio_table(rows) in page for rows in kept)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_kept_results_hold_what_is_promised(path):
    results = json.loads(path.read_text())["results"]
    assert results
    assert [short for row in results for short in stopping.short(row)] == []


def test_it_counts_intervals_that_miss():
    biased = stopping.Population("biased", lambda g, shape: g.lognormal(0, 0.25, shape), 1.2)
    row, naive = stopping.measure(biased, [0.1], samples=40, pairs=2, resamples=20)
    assert (row["looks"], naive["looks"]) == ("rule", "naive")
    assert row["covered"] < 0.1
    assert stopping.short(row)
    assert stopping.short({**naive, "covered": 0.0}) == []  # nothing is promised of naive looks
    assert row["used"] > naive["used"]


def test_it_counts_intervals_of_ratios_that_miss():
    one, other = (
        stopping.Population(name, lambda g, shape: g.lognormal(0, 0.25, shape), median)
        for name, median in (("true", 1.0), ("biased", 1.5))
    )
    (good,) = stopping.measure_ratio(one, one, [0.2], samples=20, pairs=2, resamples=20)
    (row,) = stopping.measure_ratio(other, one, [0.2], samples=20, pairs=2, resamples=20)
    assert good["covered"] > 0.8 > 0.5 > row["covered"]
    assert row["population"] == "biased / true"
    assert stopping.short(row)
    assert 64 < row["used"] < 512  # both samples
    assert "| biased / true | 0.2 |" in stopping.ratio_table([row])


def test_samples_stop_at_the_first_narrow_look():
    assert stopping.stopped(np.array([[0.3, 0.1, 0.2], [0.3, 0.3, 0.3]]), 0.2).tolist() == [1, 2]
