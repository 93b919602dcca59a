"""ldlc with a tolerance: where it stops, what it says, and that the directions before are the same ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from equivengine.errors import UsageError
from equivengine.runtime.config import probe_params
from equivengine.stopping import MedianRule, RatioRule
from equivengine_plugins.probes.ldlc import Ldlc, LdlcParams
from equivengine_plugins.probes.ldlc.sampling import Place, sample

#: What the other parts of the probe cost is not what is tested here.
BARE = {"singular_directions": 0, "gradient_steps": 0, "noise_directions": 2}
LOOSE = LdlcParams(tolerance=0.4, directions=512, null_directions=256, **BARE)


@pytest.fixture(scope="module")
def tasks(digits, images):
    """Three pairs; constants of digit 1 spread twice as widely as those of digit 2."""
    from equivengine.contracts.probe import ProbeTask

    def build(params, *originals, seed=0):
        return [
            ProbeTask(
                digits,
                [digits.preprocess(images[i].load()) for i in (k, k + 8)],
                params,
                seed=seed,
                sample_digests=[images[k].digest, images[k + 8].digest],
            )
            for k in originals
        ]

    return build


@pytest.fixture(scope="module")
def loose(tasks):
    return [Ldlc().run(task) for task in tasks(LOOSE, 1, 2)]


def test_drawing_stops_at_the_first_look_that_is_narrow_enough_each_kind_and_image_for_itself(loose):
    counts = set()
    for result in loose:
        for kind, cap in (("random", 512), ("null", 256)):
            values = result.arrays[f"{kind}_tangent"].data
            rule = MedianRule(0.4, cap)
            looked = [rule.judge(values[:n]) for n in rule.looks if n <= len(values)]
            assert [look.finished for look in looked] == [False] * (len(looked) - 1) + [True]
            assert result.summary[kind].interval == looked[-1].estimate.interval
            assert result.summary[kind].n == len(values) == result.summary[f"directions_{kind}"].value
            assert result.summary[f"width_{kind}"].value == looked[-1].half_width <= 0.4
            assert result.provenance["effort"][kind] == looked[-1].to_json()
            counts.add(len(values))
        assert result.status == "ok"
    assert len(counts) > 1  # images differ in how many they need


def test_the_directions_of_a_run_that_stops_are_the_first_ones_of_any_other_to_the_bit(loose, tasks):
    used = int(loose[1].summary["directions_null"].value)
    plain = Ldlc().run(tasks(LdlcParams(directions=64, null_directions=2 * used, **BARE), 2)[0])
    for name in ("tangent", "secant", "at_zero", "bending"):
        short, long = (result.arrays[f"null_{name}"].data for result in (loose[1], plain))
        assert len(long) == 2 * used
        assert np.array_equal(short, long[:used]), name
    assert "effort" not in plain.provenance
    assert not any(name.startswith(("directions_", "width_")) for name in plain.summary)


def test_a_count_between_looks_changes_numbers_by_roundoff_alone(tasks):
    given = tasks(LdlcParams(directions=40, **BARE), 2)[0]
    place = Place(given, given.jacobian(given.samples[0]), None)
    forty = sample([place], "random")[0].along.tangent
    sixty = sample([Place(tasks(LdlcParams(directions=64), 2)[0], place.operator, None)], "random")[0].along.tangent
    assert np.array_equal(forty[:32], sixty[:32])
    assert np.allclose(forty, sixty[:40], rtol=1e-5)


def test_a_cap_that_comes_first_is_reported_with_what_would_do(tasks):
    params = LOOSE.model_copy(update={"tolerance": 0.02, "directions": 64, "null_directions": 0})
    found = Ldlc().run(tasks(params, 2)[0])
    assert found.status == "not_converged"
    assert "the median of random is known within" in found.message
    assert "2.0% was asked: raise directions to about" in found.message
    assert found.summary["random"].n == 64
    assert found.summary["width_random"].value > 0.02
    assert found.provenance["effort"]["random"]["stopped_for"] == "cap"
    assert "null" not in found.provenance["effort"]  # none were asked for


def test_pairs_measured_together_stop_where_they_stop_alone_and_agree(loose, tasks):
    together = Ldlc().run_batch(tasks(LOOSE.model_copy(update={"together": 2}), 1, 2))
    for alone, shared in zip(loose, together, strict=True):
        for kind in ("random", "null"):
            assert shared.summary[f"directions_{kind}"].value == alone.summary[f"directions_{kind}"].value
            for name in ("tangent", "at_zero"):
                a, b = (result.arrays[f"{kind}_{name}"].data for result in (alone, shared))
                rtol, floor = (1e-5, 0.0) if name == "tangent" else (1e-5, 1e-12)  # null at zero is roundoff itself
                assert np.allclose(a, b, rtol=rtol, atol=floor), (kind, name)


def test_a_bad_pair_fails_alone(tasks):
    params = LdlcParams(directions=8, null_directions=8, together=2, **BARE)
    good, bad = tasks(params, 1, 2)
    bad = type(bad)(
        bad.encoder, [torch.full_like(x, torch.nan) for x in bad.samples], params, 0, sample_digests=bad.sample_digests
    )
    found = Ldlc().run_batch([good, bad])
    assert [result.status for result in found] == ["ok", "failed"]
    assert "NaN" in found[1].message


def test_a_tolerance_makes_room_for_itself_unless_counts_are_given():
    assert (LdlcParams().directions, LdlcParams().null_directions) == (64, 32)
    assert (LdlcParams(tolerance=0.1).directions, LdlcParams(tolerance=0.1).null_directions) == (4096, 4096)
    assert LdlcParams(tolerance=0.1, directions=100).directions == 100
    stored = LdlcParams(tolerance=0.1).model_dump(mode="json")
    assert stored["directions"] == 4096  # part of a unit's identity
    assert LdlcParams.model_validate(stored) == LdlcParams(tolerance=0.1)
    assert Ldlc.batch_of(LdlcParams()) == 1
    assert Ldlc.batch_of(LdlcParams(together=4)) == 4


def test_findings_say_how_many_were_drawn_and_what_that_leaves(loose):
    said = " ".join(Ldlc().findings(loose[0].summary, LOOSE))
    used, width = (loose[0].summary[f"{name}_random"].value for name in ("directions", "width"))
    assert f"known within 40.0%: {int(used):,} random directions leave {width:.1%}" in said
    plain = {name: value for name, value in loose[0].summary.items() if not name.startswith("directions_")}
    assert "known within" not in " ".join(Ldlc().findings(plain, LdlcParams()))


# -- the ratio --------------------------------------------------------------------------------------------------------

OF_RATIO = LdlcParams(ratio_tolerance=0.5, directions=512, null_directions=256, **BARE)


def test_the_ratio_is_a_target_and_the_kind_that_is_known_less_well_grows(loose, tasks):
    found = Ldlc().run(tasks(OF_RATIO, 1)[0])
    values = [found.arrays[f"{kind}_tangent"].data for kind in ("random", "null")]
    effort = RatioRule(0.5, (512, 256)).judge(*values)
    ratio = found.summary["random_over_null"]
    assert effort.reached
    assert (ratio.value, ratio.interval) == (effort.estimate.value, effort.estimate.interval)
    assert ratio.n == min(map(len, values))
    assert found.summary["width_random_over_null"].value == effort.half_width <= 0.5
    assert found.summary["directions_random_over_null"].value == sum(map(len, values))
    assert found.provenance["effort"] == {"random_over_null": effort.to_json()}
    assert found.status == "ok"
    for kind, drawn in zip(("random", "null"), values, strict=True):  # the first ones of any other run
        other = loose[0].arrays[f"{kind}_tangent"].data
        count = min(len(drawn), len(other))
        assert np.array_equal(drawn[:count], other[:count])
    before = values[0][: len(values[0]) // 2], values[1][: len(values[1]) // 2]
    assert not any(
        RatioRule(0.5, (512, 256)).judge(*earlier).reached
        for earlier in ((before[0], values[1]), (values[0], before[1]))
        if all(len(part) >= 32 for part in earlier)
    )  # neither kind was drawn beyond need
    said = " ".join(Ldlc().findings(found.summary, OF_RATIO))
    assert f"The ratio of random to null was to be known within 50.0%: {sum(map(len, values))} directions" in said


def test_a_ratio_beside_medians_goes_on_until_all_are_known_or_says_what_would_do(tasks):
    params = LOOSE.model_copy(update={"ratio_tolerance": 0.01, "directions": 64, "null_directions": 33})
    found = Ldlc().run(tasks(params, 2)[0])
    assert set(found.provenance["effort"]) == {"random", "null", "random_over_null"}
    assert (found.summary["random"].n, found.summary["null"].n) == (64, 33)  # the caps: 1% takes thousands
    assert found.status == "not_converged"
    assert "random_over_null is known within" in found.message
    assert "or ratio_tolerance" in found.message


def test_a_ratio_takes_both_kinds_and_unset_it_leaves_no_trace_in_what_a_unit_is():
    assert LdlcParams(ratio_tolerance=0.1).null_directions == 4096
    assert "ratio_tolerance" not in LdlcParams().model_dump(mode="json")
    stored = OF_RATIO.model_dump(mode="json")
    assert stored["ratio_tolerance"] == 0.5
    assert LdlcParams.model_validate(stored) == OF_RATIO
    with pytest.raises(UsageError, match="'ratio_tolerance' is not usable") as caught:
        probe_params(Ldlc, {"ratio_tolerance": 0.1, "null_directions": 0})
    assert "a ratio takes both kinds of directions" in caught.value.expected
