"""Images as observations: what several units of one image count, and differences on the images of both."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equivengine.report.paired import Subjects, difference
from equivengine.report.summary import ENOUGH

values = st.one_of(st.floats(-1e6, 1e6), st.just(math.nan))
units = st.lists(st.tuples(st.integers(0, 5), values), min_size=1, max_size=30)


def of(pairs):
    numbering = {}
    subjects = Subjects(numbering, [str(image) for image, _ in pairs])
    names = {number: name for name, number in numbering.items()}
    found = subjects.medians(np.array([value for _, value in pairs], dtype=float))
    return {names[int(number)]: value for number, value in zip(subjects.images, found, strict=True)}


@settings(max_examples=50)
@given(units)
def test_an_image_counts_once_by_the_median_of_its_units(pairs):
    found = of(pairs)
    assert set(found) == {str(image) for image, _ in pairs}
    for image, median in found.items():
        mine = [value for one, value in pairs if str(one) == image and math.isfinite(value)]
        assert median == pytest.approx(np.median(mine) if mine else math.nan, nan_ok=True)


@settings(max_examples=50)
@given(units, st.randoms())
def test_the_order_of_units_does_not_matter(pairs, random):
    shuffled = list(pairs)
    random.shuffle(shuffled)
    first, second = of(pairs), of(shuffled)
    assert {k: repr(v) for k, v in first.items()} == {k: repr(v) for k, v in second.items()}


def both(first: dict[str, float], second: dict[str, float]):
    numbering: dict[str, int] = {}
    sides = []
    for side in (first, second):
        subjects = Subjects(numbering, list(side))
        sides += [subjects, subjects.medians(np.array(list(side.values()), dtype=float))]
    return sides


images = st.dictionaries(st.sampled_from("abcdefghij"), values, min_size=1)


@settings(max_examples=50)
@given(images, images)
def test_differences_are_taken_on_the_images_that_both_could_measure(first, second):
    a, x, b, y = both(first, second)
    found, turned = difference(a, x, b, y), difference(b, y, a, x)
    common = [k for k in first if k in second and math.isfinite(first[k]) and math.isfinite(second[k])]
    assert found.n == turned.n == len(common)
    gaps = [first[k] - second[k] for k in common]
    assert found.value == pytest.approx(np.median(gaps) if gaps else math.nan, nan_ok=True)
    assert found.larger == sum(gap > 0 for gap in gaps)
    if gaps:
        assert found.value == -turned.value
    if 1 < len(gaps) < ENOUGH:
        assert found.interval == (min(gaps), max(gaps))
        assert not found.clear
    positive = common and min(min(first[k], second[k]) for k in common) > 0
    assert (found.ratio is not None) == bool(positive)


def test_pairing_sees_what_the_spread_of_images_hides():
    generator = np.random.default_rng(0)
    hard = generator.lognormal(0, 2, 40)  # images differ by orders of magnitude, models by a tenth
    names = [str(k) for k in range(40)]
    first = dict(zip(names, hard, strict=True))
    second = dict(zip(names, hard * generator.normal(1.1, 0.02, 40), strict=True))
    a, x, b, y = both(second, first)
    found = difference(a, x, b, y)
    assert found.clear
    assert found.ratio == pytest.approx(1.1, abs=0.02)
    assert found.larger == 40
    low, high = np.percentile(x, [25, 75])
    assert high / low > 5


def test_the_interval_holds_the_difference_about_as_often_as_it_says():
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(120):
        base = generator.normal(0, 5, 30)
        a, x, b, y = both(dict(enumerate_names(base + 1 + generator.normal(0, 1, 30))), dict(enumerate_names(base)))
        low, high = difference(a, x, b, y).interval
        hits += low <= 1 <= high
    # Binomial(120, 0.93), a percentile bootstrap of thirty, lies within [0.85, 0.99] but for one time in a thousand.
    assert 0.85 <= hits / 120 <= 0.99


def enumerate_names(array):
    return ((str(place), float(value)) for place, value in enumerate(array))


def test_one_image_or_none_claims_nothing():
    a, x, b, y = both({"a": 2.0}, {"a": 1.0})
    one = difference(a, x, b, y)
    assert (one.value, one.interval, one.n, one.clear, str(one)) == (1.0, None, 1, False, "x 2")
    a, x, b, y = both({"a": 2.0}, {"b": 1.0})
    none = difference(a, x, b, y)
    assert math.isnan(none.value)
    assert (none.n, str(none), none.clear) == (0, "", False)


def test_a_value_that_is_not_positive_is_compared_by_the_difference():
    a, x, b, y = both({"a": 2.0, "b": 1.0}, {"a": 3.0, "b": 0.0})
    assert str(difference(a, x, b, y)) == "+ 0 (-1 .. 1)"
