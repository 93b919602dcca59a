"""A run of many units costs a page of bounded size: one pass, records let go of, and what is left out is counted."""

from __future__ import annotations

import json
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_cases import PROVENANCE, scalar, unit

from equivengine.contracts.result import Array, Check, Picture
from equivengine.report import page as pages
from equivengine.report import templates
from equivengine.report.gathering import gather
from equivengine.report.page import page_of
from equivengine.report.summary import summarise
from equivengine.report.tallies import MOST_TEXTS, CheckTally, Remarks, Spaced, Texts
from equivengine.runtime.registry import from_environment
from equivengine.store.layout import Failure
from equivengine.store.run import UnitRecord


class Many:
    """A run whose units are made as they are asked for; counts those that somebody holds."""

    path = Path("/runs/many")
    plan_digest = "digest"
    endings = ()

    def __init__(self, count, failed=0, models=1, settings=1, pictures=0):
        self.count, self.models, self.settings = count, models, settings
        self.pictures = pictures
        self.plan = {"config": {"title": "Many"}}
        self.missing = [f"{place:064x}" for place in range(count // 10)]
        self.failures = {
            f"{place:064x}": Failure(unit(place), f"no luck with number {place}", "ValueError")
            for place in range(failed)
        }
        self.passes = self.held = self.most_held = 0

    def each(self):
        self.passes += 1
        shade = np.random.default_rng(0).integers(0, 256, (96, 96), dtype=np.uint8)  # noise: PNG saves nothing
        for place in range(self.count):
            record = self._record(place, shade)
            self.held += 1
            weakref.finalize(record, self._let_go)
            self.most_held = max(self.most_held, self.held)
            yield record
            del record

    def _let_go(self):
        self.held -= 1

    def _record(self, place, shade):
        one = unit(
            place,
            model=f"model-{place % self.models}",
            probe="measure",
            params={"step": place // self.models % self.settings},
        )
        value = 1.0 + place % 997
        bad = place % 50 == 0
        message = f"raise steps beyond {place}" if bad else "x" * (place // 70) if place % 70 == 1 else ""
        return UnitRecord(
            unit_id=f"{place:064x}",
            unit=one,
            status="not_converged" if bad else "ok",
            message=message,
            summary={f"s_{k}": scalar(value * k, f"number {k}", interval=(0, 1e9)) for k in range(1, 13)},
            checks={"small": Check.at_most(value, 990, "it is small")},
            arrays={"row": Array(np.arange(20.0), ("index",), "1", "a row")},
            provenance={**PROVENANCE, "seconds": 0.5, "started": f"2026-01-01T{place:06d}"},
            probe_provenance={},
            pictures={f"picture_{k}": Picture(shade, "noise") for k in range(self.pictures)},
        )


def written(run, **options):
    page = page_of(run, from_environment(), **options)  # where no probe is called `measure`
    return page, templates.render("report.html", page=page)


@pytest.fixture(scope="module")
def large():
    run = Many(6000, failed=300)
    return run, *written(run)


def test_one_pass_is_enough_and_records_are_let_go_of(large):
    run, page, _ = large
    assert run.passes == 1
    # The first ones, whose figures are drawn; overviews keep arrays, not records.
    assert run.most_held <= 3 + 2
    assert page.units == 6000


def test_the_page_stays_small_and_says_what_there_is_beside_it(large):
    _, page, text = large
    assert len(text) < 500_000
    assert "6,000 units published, 300 failed, 600 missing" in " ".join(text.split())
    assert text.count("no luck with number") == pages.REASONS
    assert f"{300 - pages.REASONS} more: other reasons" in text
    (warning,) = page.warnings
    assert "not converged: raise steps beyond 0 (120 of 6,000 units, with other numbers)" in warning.sentences
    assert "note: other remarks on 77 units; `equivengine export` lists them" in warning.sentences
    assert len(warning.sentences) < 12
    assert "writes a row for each of the 6,000 units" in " ".join(text.split())
    assert "120 of 6,000 units did not converge" in " ".join(text.split())


def test_what_is_told_of_many_units_is_true_of_them(large):
    run, page, _ = large
    section = page.chapters[0].sections[0]
    values = np.array([1.0 + place % 997 for place in range(run.count)])
    spread = section.spreads[0]
    assert (spread.n, spread.name) == (6000, "s_1")
    assert spread.quantiles == tuple(np.quantile(values, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1]))
    told = {telling.unit_id: telling.why for telling in section.telling}
    assert told[f"{0:064x}"] == "did not converge; smallest number 1: 1; smallest number 2: 2; smallest number 3: 3"
    assert "failed the check: it is small" in told[f"{990:064x}"]
    assert "largest number 1: 997" in told[f"{996:064x}"]
    assert section.section.rows[0].value == np.median(values)
    assert section.section.checks[0].total == 6000
    assert section.section.checks[0].passed == (values <= 990).sum()


def test_images_stop_where_the_page_is_full():
    run = Many(33, models=3, pictures=3)  # a picture is about 12 kB in base64
    page, text = written(run, pictures=11, figures=1, megabytes=0.8)
    assert len(text) < 800_000
    shown = [len(chapter.sections[0].pictured) for chapter in page.chapters]
    assert all(0 < count < 11 for count in shown)
    assert max(shown) - min(shown) <= 3  # no model takes the room of another
    assert any("left out to keep the page below 0.8 MB" in remark for remark in page.remarks)
    assert "The first" in text


def test_sections_stop_where_the_page_is_full():
    page, text = written(Many(600, settings=300), figures=0, megabytes=2.0)
    assert len(text) < 2_000_000
    assert any("more sets of parameters, probes or models are not on this page" in remark for remark in page.remarks)
    assert page.units == 600


def test_a_summary_of_many_units_is_bounded_too():
    (section,) = summarise(Many(3000))
    assert section.units == 3000
    assert len(section.images) == 1000
    assert len(section.warnings) < 12
    document = json.dumps(section.warnings) + json.dumps(section.images)
    assert len(document) < 100_000


@pytest.mark.parametrize("count", [0, 1, 199, 200, 201, 399, 400, 401, 5000])
def test_kept_units_are_evenly_spaced(count):
    spaced = Spaced(200)
    for place in range(count):
        spaced.offer(lambda place=place: place)
    assert spaced.seen == count
    steps = set(np.diff(spaced.kept))
    assert len(steps) <= 1
    assert min(count, 100) <= len(spaced.kept) <= 200
    assert spaced.kept[:1] == [0] * min(count, 1)


def test_texts_beyond_the_first_are_counted():
    texts = Texts()
    for place in range(3 * MOST_TEXTS):
        texts.add(str(place))
        texts.add("0")
    assert len(texts.counts) == MOST_TEXTS
    assert texts.total() == 6 * MOST_TEXTS
    assert texts.counts["0"] == 1 + 3 * MOST_TEXTS


def test_remarks_that_differ_in_their_numbers_are_one():
    remarks = Remarks()
    for text in ("at 1.5 of 3", "at 2e-07 of 3", "elsewhere", "elsewhere", "at 9 of 1,000"):
        remarks.add(text)
    assert remarks.kinds() == [("at 1.5 of 3", 3, True), ("elsewhere", 2, False)]
    assert remarks.total() == 5


def test_references_of_units_are_shared():
    run = Many(4)
    references = tuple(replace(unit(place).samples[0]) for place in range(5))
    records = [
        replace(record, unit=replace(record.unit, references=tuple(replace(one) for one in references)))
        for record in run.each()
    ]
    run.each = lambda: iter(records)
    (group,) = gather(run, drawn=True).groups.values()
    kept = [one.references for one, _ in group.drawn.kept]
    assert all(each == references for each in kept)
    assert len({id(each) for each in kept}) == 1


def test_a_check_is_remembered_by_its_first_failures():
    tally = CheckTally()
    for place in range(100):
        tally.add(Check.at_most(place, 49, "small"), place)
    assert (tally.passed, tally.total, tally.worst) == (50, 100, 99)
    assert tally.failed == list(range(50, 60))
