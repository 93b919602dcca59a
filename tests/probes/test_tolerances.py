"""The tolerances of numerics and lsb: where they stop, and that what was drawn before is the same."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from equivengine.stopping import MedianRule
from equivengine_plugins.probes.lsb import Lsb, LsbParams
from equivengine_plugins.probes.numerics import Numerics, NumericsParams

CHEAP_STEPS = {"directions": 2, "steps": 5, "lengths": 4}
CHEAP_SEARCH = {"pixels": 1, "starts": 1, "steps": 1, "references": 0}


def test_numerics_draws_directions_of_each_kind_until_their_radius_is_known(task):
    caps = {"radius_directions": 64, "normal_directions": 128, "null_directions": 0}
    params = NumericsParams(tolerance=0.3, **caps, **CHEAP_STEPS)
    found = Numerics().run(task(params, 2))
    assert set(found.provenance["effort"]) == {"radius_random", "radius_normal"}
    for name, cap in (("radius_random", 64), ("radius_normal", 128)):
        radii = found.arrays[name].data
        judged = MedianRule(0.3, cap).judge(radii)
        assert judged.finished
        assert found.summary[f"directions_{name}"].value == len(radii)
        assert found.summary[f"width_{name}"].value == judged.half_width
        assert found.summary[name].interval == judged.estimate.interval
    plain = Numerics().run(
        task(params.model_copy(update={"tolerance": None, "radius_directions": 64, "normal_directions": 0}), 2)
    )
    used = len(found.arrays["radius_random"].data)
    assert np.array_equal(plain.arrays["random_error"].data[:, :used], found.arrays["random_error"].data)
    assert "effort" not in plain.provenance


def test_numerics_says_where_the_cap_came_first(task):
    params = NumericsParams(tolerance=0.001, radius_directions=8, normal_directions=0, null_directions=9, **CHEAP_STEPS)
    found = Numerics().run(task(params, 2))
    assert found.status == "not_converged"
    assert "the median of radius_null is known within" in found.message
    assert "raise null_directions to about" in found.message
    assert "raise radius_directions" in found.message


def test_lsb_draws_until_the_medians_of_all_kinds_are_known(task):
    params = LsbParams(draws_tolerance=0.15, draws=128, **CHEAP_SEARCH)
    found = Lsb().run(task(params, 2))
    kinds = ("uniform", "signs", "truncation")
    used = {len(found.arrays[kind].data) for kind in kinds}
    assert len(used) == 1
    (n,) = used
    judged = {kind: MedianRule(0.15, 128).judge(found.arrays[kind].data) for kind in kinds}
    assert n < 128
    assert all(judged[kind].reached for kind in kinds)
    assert found.summary["signs"].interval == judged["signs"].estimate.interval
    assert found.summary["draws_truncation"].value == n
    plain = Lsb().run(task(params.model_copy(update={"draws_tolerance": None}), 2))
    for kind in kinds:
        assert np.array_equal(plain.arrays[kind].data[:n], found.arrays[kind].data)


def test_lsb_says_where_the_cap_came_first(task):
    found = Lsb().run(task(LsbParams(draws_tolerance=0.001, draws=8, **CHEAP_SEARCH), 2))
    assert found.status == "not_converged"
    assert "the median of uniform is known within" in found.message
    assert "raise draws to about" in found.message


def test_tolerances_make_room_for_themselves_unless_counts_are_given():
    assert (LsbParams().draws, LsbParams(draws_tolerance=0.1).draws) == (64, 4096)
    assert NumericsParams().null_directions == 12
    assert NumericsParams(tolerance=0.1).null_directions == 1024
    assert NumericsParams(tolerance=0.1, null_directions=0).null_directions == 0


@pytest.mark.parametrize("bad", [0, 1, -0.1, float("nan"), "narrow"])
def test_bad_tolerances_are_refused(bad):
    with pytest.raises(ValidationError):
        NumericsParams(tolerance=bad)
    with pytest.raises(ValidationError):
        LsbParams(draws_tolerance=bad)
