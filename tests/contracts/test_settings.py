"""What sets the parameters of units apart, in words."""

import json
from itertools import product

import equivengine as eqv


def unit(**params):
    return eqv.Unit("match", "1", json.dumps(params), "digits", "0" * 64, (), 0, "fp32")


def test_only_what_differs_is_named():
    units = [unit(solver="gd", rate=rate, steps=100) for rate in (0.001, 0.01, 0.001)]
    assert eqv.settings(units) == ["rate=0.001", "rate=0.01", "rate=0.001"]


def test_units_of_one_setting_are_called_nothing():
    assert eqv.settings([unit(rate=1), unit(rate=1)]) == ["", ""]
    assert eqv.settings([]) == []


def test_what_is_unset_is_named_only_where_nothing_else_is():
    units = [unit(solver="lm", rate=None), unit(solver="gd", rate=0.5)]
    assert eqv.settings(units) == ["solver=lm", "solver=gd, rate=0.5"]
    assert eqv.settings([unit(rate=None), unit(rate=0.5)]) == ["rate=null", "rate=0.5"]


def test_values_are_as_set_takes_them():
    units = [unit(box=True, heads=["own", "nn"]), unit(box=False, heads=None)]
    assert eqv.settings(units) == ['box=true, heads=["own", "nn"]', "box=false"]


def test_a_parameter_that_one_version_lacks_sets_it_apart():
    assert eqv.settings([unit(a=1), unit(a=1, b=2)]) == ["b=null", "b=2"]


def test_different_parameters_have_different_words():
    values = (None, False, 1, "text")
    units = [unit(one=one, other=other) for one, other in product(values, repeat=2)]
    assert len(set(eqv.settings(units))) == len(units)
