"""Configurations: values come through as typed, and everything else is refused by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

import equivengine as eqv
from equivengine.errors import UsageError
from equivengine.runtime.config import load_toml, parse_settings, probe_params, validated

VALUES = st.integers() | st.floats(allow_nan=False) | st.booleans()


@given(st.dictionaries(st.from_regex(r"[a-z_]+", fullmatch=True), VALUES))
def test_settings_are_json_where_they_can_be(values):
    import json

    assert parse_settings(tuple(f"{key}={json.dumps(value)}" for key, value in values.items())) == values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=fp64", "fp64"), ("a=", ""), ("a=x=y", "x=y"), (" a =1", 1), ("a=null", None), ("a=[1, 2]", [1, 2]),
        ('a="5"', "5"), ("a=1e-3", 0.001), ("a=" + "9" * 5000, "9" * 5000),
    ],
)  # fmt: skip
def test_a_setting(text, value):
    assert parse_settings((text,)) == {"a": value}


class Params(eqv.Params):
    low: float = Field(0.0, description="Lower end; pixels.")
    high: float = Field(1.0, description="Upper end; pixels.")
    needed: int = Field(description="Something; count.")

    @model_validator(mode="after")
    def _ordered(self):
        if self.low > self.high:
            raise ValueError("low must not exceed high")
        return self


class Probe(eqv.Probe[Params]):
    name = "ordered"
    version = "1"
    Params = Params


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, ["'needed' is missing", "Something; count", "give needed a value"]),
        ({"needed": 1, "low": 2}, ["the values do not fit together", "low must not exceed high"]),
        ({"needed": 1, "hihg": 2}, ["'hihg' is not known", "perhaps 'high'"]),
        ({"needed": 1, "low": "x" * 500}, ["'low' is not usable (Lower end; pixels)", "..."]),
    ],
)
def test_parameters_are_refused_by_name(settings, says):
    with pytest.raises(UsageError) as caught:
        probe_params(Probe, settings)
    for text in says:
        assert text in str(caught.value)
    assert len(str(caught.value)) < 400


def test_one_model_or_image_set_needs_no_brackets(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('models = "digits"\nimages = "samples"\n[[probes]]\nname = "ldlc"')
    config = load_toml(file)
    assert config.models == ("digits",)
    assert config.images == ("samples",)
    assert load_toml(file, {"device": "cpu"}).device == "cpu"


def test_a_configuration_cannot_be_changed():
    config = validated({"probes": [{"name": "x"}]})
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3
