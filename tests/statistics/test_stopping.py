"""The rule that stops where an interval is narrow: its error is computed, and held by enumeration and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from equivengine.errors import UsageError
from equivengine.statistics import bootstrap
from equivengine.stopping import MedianRule, RatioRule, blocks, looks, ranks

#: Distributions whose median is known: skewed, heavy in the tails, and one of three values.
KNOWN = {
    "exponential": (lambda g, shape: g.exponential(size=shape), math.log(2)),
    "cauchy, far from 0": (lambda g, shape: 10 + g.standard_cauchy(shape), 10.0),
    "three values": (lambda g, shape: g.choice([1.0, 2.0, 3.0], p=[0.4, 0.2, 0.4], size=shape), 2.0),
}


def _family(values: np.ndarray, truth: float, counts: tuple[int, ...], cuts: tuple[int, ...]) -> np.ndarray:
    """Whether each sample [R, n] misses the truth at each look: [R, looks]."""
    missed = []
    for count, rank in zip(counts, cuts, strict=True):
        ordered = np.sort(values[:, :count], axis=1)
        missed.append((ordered[:, rank - 1] > truth) | (ordered[:, -rank] < truth))
    return np.stack(missed, axis=1)


@pytest.mark.parametrize("counts", [(8, 12, 17), (10, 11, 12, 13, 14), (9, 18)])
def test_the_error_of_all_looks_together_is_at_most_5_percent_by_counting_every_walk(counts):
    found = ranks(counts)
    n = counts[-1]
    walks = (np.arange(2**n)[:, None] >> np.arange(n)) & 1

    def misses(cuts):
        out = np.zeros(2**n, dtype=bool)
        for count, rank in zip(counts, cuts, strict=True):
            heads = walks[:, :count].sum(axis=1)
            out |= (heads < rank) | (heads > count - rank)
        return out.mean()

    assert misses(found) <= 0.05
    greedier = (*found[:-1], found[-1] + 1)
    assert misses(greedier) > 0.05  # no error is left that would have bought a shorter interval at the end


def test_a_single_look_is_the_textbook_interval_of_order_statistics():
    assert ranks((100,)) == (40,)  # 40th and 61st of 100: 96.5% (David and Nagaraja, section 7.1)
    assert ranks((9,)) == (2,)
    assert ranks((5,)) == (0,)  # smallest to largest of 5 misses in 2 / 2^5 = 6%


def test_large_caps_cost_nothing_and_go_over_into_the_normal_walk():
    counts = looks(1_000_000)
    standard = [(n / 2 - rank) / (math.sqrt(n) / 2) for n, rank in zip(counts, ranks(counts), strict=True)]
    assert len(counts) == 16
    assert min(standard) > 1.96  # wider than one look
    assert max(standard) < 2.96  # narrower than Bonferroni's 16 looks: the looks share observations


@pytest.mark.parametrize("name", KNOWN)
def test_every_look_of_a_family_holds_with_95_percent_and_naive_looks_do_not(name):
    draw, truth = KNOWN[name]
    counts = looks(512)
    values = draw(np.random.default_rng(1), (4000, 512))
    missed = _family(values, truth, counts, ranks(counts)).any(axis=1).mean()
    # Binomial(4000, 0.05) exceeds 0.062 in three of ten thousand cases.
    assert missed <= 0.062
    if name != "three values":  # where the median is an atom, intervals are wider than they need be
        assert missed >= 0.03
        naive = tuple(ranks((count,))[0] for count in counts)
        assert _family(values, truth, counts, naive).any(axis=1).mean() > 0.10


@pytest.mark.parametrize("tolerance", [0.5, 0.2, 0.1])
def test_intervals_at_the_place_where_sampling_stops_cover_the_median(tolerance):
    generator = np.random.default_rng(2)
    rule = MedianRule(tolerance, cap=1024)
    covered, used, trials = 0, [], 600
    for _ in range(trials):
        values = generator.exponential(size=1024)
        for _, stop in rule.blocks():
            found = rule.judge(values[:stop])
            if found.finished:
                break
        assert found.reached or found.estimate.n == 1024
        covered += found.estimate.low <= math.log(2) <= found.estimate.high
        used.append(found.estimate.n)
    assert covered / trials >= 0.92  # Binomial(600, 0.95) lies below in one of a thousand cases
    assert (np.mean(used) < 900) == (tolerance > 0.1)  # 10% of this median takes about 1,600


def test_looks_and_blocks_depend_on_the_cap_alone_and_nest():
    assert looks(100) == (32, 64, 100)
    assert blocks(100) == [(0, 32), (32, 64), (64, 100)]
    assert looks(32) == (32,)
    assert looks(10) == (10,)
    assert looks(0) == () == tuple(blocks(0))
    for cap, larger in itertools.pairwise((20, 64, 100, 1000, 4096)):
        shared = [block for block in blocks(cap) if block[1] < cap]
        assert shared == blocks(larger)[: len(shared)]


def test_effort_says_what_was_reached_and_what_to_do():
    values = np.random.default_rng(3).normal(10, 1, 64)
    loose, tight = (MedianRule(tolerance, cap=64).judge(values) for tolerance in (0.2, 0.001))
    assert (loose.reached, loose.finished, loose.stopped_for) == (True, True, "tolerance")
    assert loose.shortage("m", "draws") == ""
    assert (tight.reached, tight.finished, tight.stopped_for) == (False, True, "cap")
    said = tight.shortage("m", "draws")
    assert "m is known within" in said
    assert "0.1% was asked: raise draws to about" in said
    wanted = int(said.split("about ")[1].split(", or")[0].replace(",", ""))
    assert wanted == pytest.approx(64 * (tight.half_width / 0.001) ** 2, rel=0.1)
    assert tight.to_json() == {
        "tolerance": 0.001,
        "half_width": tight.half_width,
        "used": 64,
        "cap": 64,
        "stopped_for": "cap",
    }
    assert MedianRule(0.1, cap=128).judge(values[:32]).stopped_for in ("", "tolerance")


def test_what_says_nothing_never_counts_as_narrow():
    assert MedianRule(0.5, cap=4096, first=8).judge(np.ones(8)).estimate.low == -math.inf  # too few for so many looks
    assert not MedianRule(0.5, cap=4096, first=8).judge(np.ones(8)).reached
    assert MedianRule(0.5, cap=64).judge(np.ones(64)).reached  # all equal: the interval is a point
    assert not MedianRule(0.5, cap=64).judge(np.zeros(64)).reached  # relative to zero
    broken = MedianRule(0.5, cap=64).judge(np.array([np.nan] * 32))
    assert not broken.reached
    assert "no interval after 32" in broken.shortage("m", "draws")


def test_the_interval_agrees_with_the_bootstrap_of_one_look():
    values = np.random.default_rng(4).lognormal(size=1000)
    found = MedianRule(0.5, cap=1000, first=1000).judge(values).estimate
    naive = bootstrap(values)
    assert found.value == naive.value
    assert found.high - found.low == pytest.approx(naive.high - naive.low, rel=0.15)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param({"tolerance": 0.0}, id="tolerance of 0"),
        pytest.param({"cap": -1}, id="negative cap"),
        pytest.param({"first": 4}, id="first look too early"),
        pytest.param({"level": 1.0}, id="level of 1"),
    ],
)
def test_impossible_rules_are_refused(bad):
    with pytest.raises(UsageError, match=next(iter(bad))):
        MedianRule(**{"tolerance": 0.1, "cap": 10, **bad})


def test_only_looks_are_looked_at():
    with pytest.raises(UsageError, match="no look"):
        MedianRule(0.1, cap=64).judge(np.ones(40))


# -- ratios -----------------------------------------------------------------------------------------------------------


def _grown(rule, numerator, denominator):
    """How far two samples grow until the ratio of their medians is known: the effort, and how many of each."""
    samples = (numerator, denominator)
    steps = [iter(blocks(cap, rule.first)) for cap in rule.caps]
    used = [next(step)[1] for step in steps]
    while True:
        values = [sample[:count] for sample, count in zip(samples, used, strict=True)]
        grows = rule.grows(*values)
        if grows is None:
            return rule.judge(*values), used
        used[grows] = next(steps[grows])[1]


@pytest.mark.parametrize(("above", "below"), [("exponential", "exponential"), ("cauchy, far from 0", "three values")])
def test_intervals_of_a_ratio_hold_at_every_pair_of_looks_with_95_percent(above, below):
    counts = (looks(256), looks(512))
    truth = KNOWN[above][1] / KNOWN[below][1]
    ordered = []
    for place, name in enumerate((above, below)):
        values = KNOWN[name][0](np.random.default_rng(place), (3000, counts[place][-1]))
        ordered.append([np.sort(values[:, :count], axis=1) for count in counts[place]])

    def held(*cuts):
        ends = [
            [(o[:, rank - 1], o[:, -rank]) for o, rank in zip(of_one, ranked, strict=True)]
            for of_one, ranked in zip(ordered, cuts, strict=True)
        ]
        found = np.ones(3000, dtype=bool)
        for (a_low, a_high), (b_low, b_high) in itertools.product(*ends):
            found &= (a_low / b_high <= truth) & (truth <= a_high / b_low)
        return found.mean()

    # Binomial(3000, 0.95) lies below in one of a thousand cases.
    assert held(*(ranks(of_one, math.sqrt(0.95)) for of_one in counts)) >= 0.938
    narrow = [tuple(count // 2 - round(0.4 * math.sqrt(count)) for count in of_one) for of_one in counts]
    assert held(*narrow) < 0.9  # and intervals less than half as wide do not


@pytest.mark.parametrize("tolerance", [0.5, 0.25])
def test_intervals_of_a_ratio_cover_it_where_sampling_stops(tolerance):
    generator = np.random.default_rng(5)
    rule = RatioRule(tolerance, (1024, 1024))
    covered, used, trials = 0, [], 300
    for _ in range(trials):
        found, counts = _grown(rule, generator.lognormal(1, 0.25, 1024), generator.exponential(size=1024))
        assert found.reached or counts == [1024, 1024]
        covered += found.estimate.low <= math.e / math.log(2) <= found.estimate.high
        used.append(counts)
    assert covered / trials >= 0.91  # Binomial(300, 0.95) lies below in one of a thousand cases
    narrow, wide = np.mean(used, axis=0)
    assert narrow < wide / 3  # the sample that is known less well is the one that grows


def test_a_ratio_is_the_quotient_of_the_medians_between_the_extreme_quotients_of_their_intervals():
    generator = np.random.default_rng(6)
    a, b = generator.normal(10, 1, 64), generator.normal(-2, 0.1, 128)
    parts = [MedianRule(0.5, cap, level=math.sqrt(0.95)).judge(x).estimate for cap, x in ((64, a), (256, b))]
    found = RatioRule(0.5, (64, 256)).judge(a, b)
    assert found.estimate.value == parts[0].value / parts[1].value
    assert found.estimate.low == parts[0].high / parts[1].high
    assert found.estimate.high == parts[0].low / parts[1].low
    assert (found.estimate.n, found.cap, found.reached) == (192, 320, True)
    assert RatioRule(0.5, (64, 256)).grows(a, b) is None


def test_a_ratio_to_what_may_be_zero_has_no_bound_and_takes_all():
    generator = np.random.default_rng(7)
    rule = RatioRule(0.9, (64, 64))
    found, used = _grown(rule, generator.normal(10, 1, 64), generator.normal(0, 1, 64))
    assert used == [64, 64]
    assert (found.estimate.low, found.estimate.high) == (-math.inf, math.inf)
    assert found.stopped_for == "cap"
    assert "no interval after 128: raise a + b" in found.shortage("a / b", "a + b")
    assert not rule.judge(np.ones(64), np.zeros(64)).reached


def test_a_sample_at_its_cap_leaves_growing_to_the_other():
    generator = np.random.default_rng(8)
    rule = RatioRule(0.01, (32, 256))
    found, used = _grown(rule, generator.exponential(size=32), generator.exponential(size=256))
    assert used == [32, 256]
    assert "or ratio_tolerance" in found.shortage("a / b", "a + b", "ratio_tolerance")


def test_impossible_rules_of_ratios_are_refused():
    with pytest.raises(UsageError, match="tolerance of a stopping rule"):
        RatioRule(0.0, (64, 64))
    with pytest.raises(UsageError, match="no look"):
        RatioRule(0.1, (64, 64)).judge(np.ones(64), np.ones(40))
