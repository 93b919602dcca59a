"""The configuration of a run survives being written as TOML."""

from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from equivengine.report.repeat import as_toml

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
VALUE = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), TEXT
)
SETTINGS = st.dictionaries(TEXT, st.one_of(VALUE, st.none(), st.lists(VALUE, max_size=3)), max_size=4)


@given(
    st.fixed_dictionaries(
        {
            "models": st.lists(TEXT, max_size=3),
            "limit": st.none() | st.integers(1, 9),
            "seed": st.integers(0, 2**62),
            "title": TEXT,
            "probes": st.lists(st.fixed_dictionaries({"name": TEXT, "set": SETTINGS}), min_size=1, max_size=3),
        }
    )
)
def test_a_configuration_is_read_back_as_it_was(config):
    given = {key: value for key, value in config.items() if value is not None}
    requests = [(r["name"], {k: v for k, v in r["set"].items() if v is not None}) for r in config["probes"]]
    found = tomllib.loads(as_toml(config))
    assert [(r["name"], r.get("set", {})) for r in found.pop("probes")] == requests
    assert found == {key: value for key, value in given.items() if key != "probes"}
