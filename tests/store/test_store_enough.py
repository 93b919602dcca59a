"""Which units are not needed: a function of the plan and of the results of a prefix of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from equivengine.contracts.unit import SampleRef, Unit
from equivengine.contracts.units import Batches, UnitList
from equivengine.errors import StoreError
from equivengine.stopping import MedianRule
from equivengine.store.enough import Enough, StopRule, digest_with

RULE = StopRule("toy", "size", 0.2, 8)


def _units(count, probe="toy", model="m", images="set", params="{}"):
    return [
        Unit(probe, "1", params, model, "w", (SampleRef(images, i, f"{i}", f"{images}-{i}"),), 0, "fp32")
        for i in range(count)
    ]


def _endings(units, values, sizes=(), rules=(RULE,), asked=None):
    """From values by place in the plan; None past their end: not run. ``asked`` takes the places that are asked for."""
    listed = UnitList.of(units)

    def value_of(unit_id, name):
        place = listed.ids.find(unit_id)
        if asked is not None:
            asked.append(place)
        return values[place] if place < len(values) else None

    return Enough(rules, listed, Batches(listed, sizes)).endings(value_of)


@pytest.fixture(scope="module")
def values():
    return np.random.default_rng(5).lognormal(0, 0.5, 200).tolist()


def test_it_stops_where_the_rule_for_medians_stops_and_asks_for_no_unit_beyond(values):
    rule = MedianRule(0.2, 200, first=8)
    expected = next(n for n in rule.looks if rule.judge(values[:n]).reached)
    assert 8 < expected < 200
    asked = []
    (ending,) = _endings(_units(200), values, asked=asked)
    assert (ending.needed, ending.decided) == (expected, True)
    assert ending.unneeded == range(expected, 200)
    assert ending.effort.estimate == rule.judge(values[:expected]).estimate
    assert max(asked) == expected - 1
    assert f"after {expected} of 200 units" in str(ending)


def test_what_comes_after_a_look_cannot_change_it(values):
    (ending,) = _endings(_units(200), values)
    other = [*values[: ending.needed], *([math.nan] * 200)]
    assert _endings(_units(200), other) == [ending]
    assert _endings(_units(200), values[: ending.needed]) == [ending]  # nor need it have run


def test_what_has_not_run_is_needed_up_to_the_next_look_and_no_further(values):
    for ran, needed in ((0, 8), (7, 8), (8, 16), (20, 32)):
        (ending,) = _endings(_units(200), values[:ran])
        assert (ending.needed, ending.decided) == (needed, False)
        assert len(ending.unneeded) == 0
        assert f"not decided (20.0% asked); the next look is after {needed} of 200 units" in str(ending)
    holes = [None if place == 3 else value for place, value in enumerate(values)]
    assert _endings(_units(200), holes)[0].needed == 8


def test_a_look_comes_after_a_whole_batch(values):
    (ending,) = _endings(_units(200), values[:7], sizes=((12, 16), (8, 1)))
    assert ending.needed == 12
    (ending,) = _endings(_units(200), values, sizes=((12, 16), (8, 1)))
    assert ending.needed % 12 == 0


def test_each_model_parameter_and_image_set_ends_for_itself_and_other_probes_do_not():
    units = [
        *_units(64, images="narrow"),
        *_units(64, images="wide"),
        *_units(64, probe="other"),
        *_units(64, model="n", images="narrow"),
        *_units(64, images="narrow", params='{"a":1}'),
    ]
    generator = np.random.default_rng(6)
    narrow, wide = generator.normal(1, 0.01, 64), generator.normal(1, 3, 64)
    values = np.concatenate([narrow, wide, narrow, narrow, narrow]).tolist()
    endings = _endings(units, values)
    assert [(e.model, e.images, e.places.start, e.needed) for e in endings] == [
        ("m", "narrow", 0, 8),  # smallest to largest of 8
        ("m", "wide", 64, 64),
        ("n", "narrow", 192, 8),
        ("m", "narrow", 256, 8),
    ]
    assert all(ending.decided for ending in endings)
    assert len(endings[1].unneeded) == 0


def test_units_that_failed_count_as_run_and_not_as_observations(values):
    broken = [math.nan if place % 3 == 0 else value for place, value in enumerate(values)]
    (ending,) = _endings(_units(200), broken)
    assert ending.decided
    assert ending.effort.estimate.n == ending.needed - math.ceil(ending.needed / 3)
    assert ending.effort.reached
    (ending,) = _endings(_units(40), [math.nan] * 40)
    assert (ending.needed, ending.decided, ending.effort.estimate.n) == (40, True, 0)
    assert "no interval" in str(ending)


def test_intervals_of_all_looks_hold_together_also_where_units_fail():
    generator = np.random.default_rng(7)
    units, rules = _units(64), (StopRule("toy", "size", 0.9, 8),)
    missed, trials = 0, 400
    for _ in range(trials):
        draws = np.where(generator.random(64) < 0.2, math.nan, generator.exponential(size=64))
        (ending,) = _endings(units, draws.tolist(), rules=rules)
        known = ending.effort.estimate
        missed += not known.low <= math.log(2) <= known.high
    assert missed / trials <= 0.09  # Binomial(400, 0.05) exceeds it in three of ten thousand cases


def test_plans_with_and_without_rules_have_digests_of_their_own():
    assert digest_with("d", ()) == "d"
    found = {digest_with("d", rules) for rules in ((RULE,), (StopRule("toy", "size", 0.3, 8),))}
    assert len(found | {"d"}) == 3


def test_rules_come_from_the_plan():
    plan = {"config": {"stop": [{"scalar": "ldlc/random", "tolerance": 0.1, "min_images": 16}]}}
    assert StopRule.all_of(plan) == (StopRule("ldlc", "random", 0.1, 16),)
    assert StopRule.all_of({"config": {}}) == StopRule.all_of({}) == ()


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param({"scalar": "random", "tolerance": 0.1}, id="scalar without its probe"),
        pytest.param({"scalar": "a/b", "tolerance": 0}, id="tolerance of 0"),
        pytest.param({"scalar": "a/b"}, id="no tolerance"),
        pytest.param({"scalar": 3, "tolerance": 0.1}, id="number for a scalar"),
        pytest.param({"scalar": "a/b", "tolerance": 0.1, "min_images": 2}, id="too few images"),
        pytest.param("a/b", id="no table"),
    ],
)
def test_damaged_rules_are_refused(bad):
    with pytest.raises(StoreError, match="plan is damaged"):
        StopRule.all_of({"config": {"stop": [bad]}})
