"""|J|_F from random cotangents, as many as its tolerance takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from spectrum_cases import linear, vector_task

from equivengine.statistics import LEVEL
from equivengine_plugins.probes.spectrum import Spectrum, SpectrumParams
from equivengine_plugins.probes.spectrum.measure import measure
from equivengine_plugins.probes.spectrum.trace import student

VALUES = np.geomspace(10, 1, 40)
FEW = {"rank": 3, "method": "randomized", "noise_directions": 0}


@pytest.fixture(scope="module")
def module():
    return linear(VALUES, 90)


def found(module, seed=0, **params):
    given = vector_task(module, torch.zeros(1, 90), SpectrumParams(**FEW, **params), seed=seed)
    return measure(given, given.jacobian(given.samples[0]), vectors=False)


def test_cotangents_are_drawn_until_the_norm_is_known_and_are_the_first_ones_of_any_run(module):
    tight = found(module, trace_tolerance=0.04)
    used = tight.effort.estimate.n
    assert 16 < used < 1024
    assert tight.effort.reached
    assert tight.frobenius_interval == tight.effort.estimate.interval
    plain = found(module, trace_directions=used)
    assert plain.frobenius == tight.frobenius
    assert plain.effort is None
    assert plain.frobenius_interval[0] > tight.frobenius_interval[0]  # looked at once
    loose = found(module, trace_tolerance=0.2)
    assert loose.effort.estimate.n == 16


def test_where_sampling_stops_the_interval_covers_the_norm(module):
    truth = float(np.sqrt(np.sum(VALUES**2)))
    ends = [found(module, seed, trace_tolerance=0.06).frobenius_interval for seed in range(60)]
    covered = sum(low <= truth <= high for low, high in ends)
    assert covered >= 51  # 95% of 60 are 57; fewer than 51 have probability 1e-3


def test_a_result_says_how_many_were_drawn_and_where_they_did_not_suffice(module):
    params = SpectrumParams(**FEW, trace_tolerance=1e-4, trace_directions=20)
    short = Spectrum().run(vector_task(module, torch.zeros(1, 90), params))
    assert short.status == "not_converged"
    assert "|J|_F is known within" in short.message
    assert "raise trace_directions to about" in short.message
    assert short.summary["cotangents_frobenius"].value == 20
    assert short.summary["width_frobenius"].value > 1e-4
    assert short.provenance["effort"]["frobenius"]["stopped_for"] == "cap"
    whole = Spectrum().run(vector_task(module, torch.zeros(1, 90), SpectrumParams(trace_tolerance=0.1)))
    assert "effort" not in whole.provenance  # J was written out: nothing had to be estimated


def test_student_s_half_widths():
    for freedom, level, expected in ((15, LEVEL, 2.1314), (3, LEVEL, 3.1824), (15, 0.99, 2.9467), (31, 0.995, 3.0221)):
        assert student(freedom, level) == pytest.approx(expected, rel=0.01)
    assert student(10**6, LEVEL) == pytest.approx(1.95996, rel=1e-4)


def test_a_tolerance_makes_room_for_itself():
    assert (SpectrumParams().trace_directions, SpectrumParams(trace_tolerance=0.1).trace_directions) == (16, 1024)
