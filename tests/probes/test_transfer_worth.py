"""What the pairs of a set are worth, and the intervals that go by it."""

from __future__ import annotations

import numpy as np
import pytest

from equivengine.statistics import median_interval, wilson
from equivengine_plugins.probes.transfer.pairs import Pairs
from equivengine_plugins.probes.transfer.rates import share
from equivengine_plugins.probes.transfer.result import _Rows


def pairs(original, target, content=None):
    size = 1 + max(*original, *target)
    numbers = np.arange(size) if content is None else np.array(content)
    return Pairs(np.array(original), np.array(target), 100, False, numbers)


def test_one_image_twice_in_a_set_is_one_image():
    apart = pairs([0, 2], [1, 3])
    twins = pairs([0, 2], [1, 3], content=[0, 1, 0, 2])
    assert apart.worth() == 2
    assert twins.worth() == pytest.approx(1)


def test_chosen_pairs_are_worth_what_they_are_by_themselves():
    drawn = pairs([0, 0, 0, 1], [1, 2, 3, 4])
    chosen = np.array([True, False, False, True])
    assert drawn.worth(chosen) == pairs([0, 1], [1, 4]).worth()
    assert drawn.worth(~chosen) == pytest.approx(1)
    assert drawn.worth(np.zeros(4, bool)) == 0


def test_rates_and_medians_have_the_interval_of_so_many_independent_pairs():
    drawn = pairs(list(range(12)) * 2, [*range(1, 13), *range(2, 14)])
    hits, values = np.arange(24) % 3 > 0, np.arange(24.0)
    rows = _Rows(drawn)
    rows.share("rate", hits, "rate", "")
    rows.median("middle", values, "1", "middle", "")
    assert 1 < rows.worth < 24
    assert rows.summary["rate"].interval == pytest.approx(wilson(16 / 24 * rows.worth, rows.worth))
    assert (rows.summary["rate"].n, rows.summary["middle"].value) == (24, 11.5)
    assert rows.summary["middle"].interval == median_interval(values, rows.worth)
    wide = wilson(16, 24)
    low, high = rows.summary["rate"].interval
    assert low < wide[0] < wide[1] < high


def test_nothing_to_count_is_no_rate():
    rows = _Rows(pairs([0], [1]))
    rows.share("rate", np.array([True]), "rate", "", chosen=np.array([False]))
    assert rows.summary == {}
    assert share(np.array([], dtype=bool), 0.0, "rate", "") is None
