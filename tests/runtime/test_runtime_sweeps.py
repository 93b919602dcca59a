"""Run files: what they expand to, and one error that names file, line and key for what contradicts itself."""

from __future__ import annotations

import json

import pytest

from equivengine import open_run
from equivengine.errors import UsageError
from equivengine.report.repeat import as_toml
from equivengine.runtime.config import ProbeRequest, load_toml, validated
from equivengine.runtime.engine import execute, plan_of

MEASURE = '[[probes]]\nname = "measure"\n'
PAIRS = '[[probes]]\nname = "difference"\n'
HEAD = 'models = ["toy"]\nimages = ["noise:3?size=8&mode=L"]\n'


@pytest.fixture
def plan(registry, tmp_path):
    """The plan of a run file."""

    def make(text, overrides=None):
        (tmp_path / "sweep.toml").write_text(text)
        return plan_of(load_toml(tmp_path / "sweep.toml", overrides), registry)[0]

    return make


def test_a_grid_is_the_product_of_its_values_in_order():
    request = ProbeRequest(name="p", set={"c": 0}, grid={"a": [1, 2], "b": ["x", "y"]})
    assert request.settings() == [
        {"c": 0, "a": 1, "b": "x"}, {"c": 0, "a": 1, "b": "y"}, {"c": 0, "a": 2, "b": "x"}, {"c": 0, "a": 2, "b": "y"}
    ]  # fmt: skip
    assert ProbeRequest(name="p").settings() == [{}]


def test_a_grid_gives_the_units_that_its_combinations_give(plan):
    grid = plan(
        HEAD + '[[probes]]\nname = "measure"\nset = { label = "a" }\ngrid = { scale = [1, 2.5], count = [2, 3] }'
    )
    text = "".join(
        f'[[probes]]\nname = "measure"\nset = {{ label = "a", scale = {scale}, count = {count} }}\n'
        for scale in (1, 2.5)
        for count in (2, 3)
    )
    assert len(grid.units) == 12
    assert grid.units == plan(HEAD + text).units


def test_a_plan_repeats_from_the_configuration_that_is_stored_with_it(plan, registry, tmp_path):
    text = HEAD.replace('["noise', '[{ uri = "digits", limit = 2 }, "noise') + (
        '[[probes]]\nname = "measure"\nlimit = 1\ngrid.scale = [1, 2]\n[[probes]]\nname = "difference"'
    )
    found = plan(text)
    (tmp_path / "again.toml").write_text(as_toml(found.to_json()["config"]))
    again, _ = plan_of(load_toml(tmp_path / "again.toml"), registry)
    assert again.units == found.units
    assert again.digest == found.digest


def counts(plan):
    found = {}
    for unit in plan.units:
        key = unit.probe, unit.samples[0].images
        found[key] = found.get(key, 0) + 1
    return found


@pytest.mark.parametrize(
    "images",
    [
        'images = [{ uri = "digits", limit = 5 }, "noise:9?size=8&mode=L"]\nlimit = 2\n',
        'images = ["digits", "noise:9?size=8&mode=L"]\nlimit = 2\nlimits = { digits = 5 }\n',
        'limit = 2\n[[images]]\nuri = "digits"\nlimit = 5\n[[images]]\nuri = "noise:9?size=8&mode=L"\n',
    ],
)
def test_an_image_set_and_a_probe_may_have_limits_of_their_own(plan, images):
    found = plan(
        'models = "toy"\n' + images + '[[probes]]\nname = "measure"\n[[probes]]\nname = "difference"\nlimit = 3'
    )
    assert counts(found) == {
        ("measure", "digits"): 5,
        ("measure", "noise:9?size=8&mode=L"): 2,
        ("difference", "digits"): 3,
        ("difference", "noise:9?size=8&mode=L"): 2,
    }
    assert found.config.images == ("digits", "noise:9?size=8&mode=L")


def test_one_image_set_may_stand_as_a_table(plan):
    assert len(plan('models = "toy"\nimages = { uri = "digits", limit = 4 }\n[[probes]]\nname = "measure"').units) == 4


def test_other_images_on_the_command_line_leave_the_limits_of_the_file_s_aside(plan):
    text = 'models = "toy"\nimages = { uri = "digits", limit = 4 }\n[[probes]]\nname = "measure"'
    assert len(plan(text, {"images": ["noise:6?size=8&mode=L"]}).units) == 6
    assert len(plan(text, {"limit": 2}).units) == 4  # the set's own limit counts more than that of all


NOISE = 'images = ["noise:3?size=8&mode=L"]\n'
#: The same in three ways.
TABLES = [
    """models = [{ uri = "toy", precision = "fp64", limit = 2, set = { measure = { scale = 3 } } }, "toy?seed=1"]\n"""
    + NOISE,
    """models = ["toy", "toy?seed=1"]\nfor_models.toy = { precision = "fp64", limit = 2, set.measure.scale = 3 }\n"""
    + NOISE,
    NOISE
    + """[[models]]
uri = "toy"
precision = "fp64"
limit = 2
set.measure = { scale = 3 }
[[models]]
uri = "toy?seed=1"
""",
]


@pytest.mark.parametrize("models", TABLES)
def test_a_model_may_have_precision_limit_and_parameters_of_its_own(plan, models):
    found = plan(models + "[[probes]]\nname = 'measure'\nset = { count = 5 }\n[[probes]]\nname = 'difference'")
    seen = {}
    for unit in found.units:
        key = unit.model, unit.probe, unit.precision, json.loads(unit.params).get("scale")
        seen[key] = seen.get(key, 0) + 1
    assert seen == {
        ("toy", "measure", "fp64", 3.0): 2,
        ("toy", "difference", "fp64", None): 2,
        ("toy?seed=1", "measure", "fp32", 1.0): 3,
        ("toy?seed=1", "difference", "fp32", None): 3,
    }
    assert {json.loads(unit.params)["count"] for unit in found.units if unit.probe == "measure"} == {5}
    assert found.config.models == ("toy", "toy?seed=1")


def test_a_plan_with_tables_of_models_repeats_from_what_is_stored_and_runs(plan, registry, tmp_path):
    found = plan(TABLES[0] + MEASURE)
    stored = found.to_json()
    assert set(stored["config"]["for_models"]) == {"toy"}
    (tmp_path / "again.toml").write_text(as_toml(stored["config"]))
    assert plan_of(load_toml(tmp_path / "again.toml"), registry)[0].digest == found.digest
    done = execute(load_toml(tmp_path / "again.toml", {"out": str(tmp_path / "run")}), registry=registry)
    assert done.outcomes["published"] == 5
    with open_run(tmp_path / "run") as run:
        assert {record.unit.precision for record in run.units()} == {"fp32", "fp64"}


def test_plans_without_tables_of_models_are_what_they_were(plan):
    found = plan(HEAD + MEASURE + "set.scale = 2\n" + PAIRS)
    assert "for_models" not in found.to_json()["config"]
    as_table = HEAD.replace('["toy"]', '[{ uri = "toy" }]')
    assert found.digest == plan(as_table + MEASURE + "set.scale = 2\n" + PAIRS).digest


def test_other_models_on_the_command_line_leave_tables_aside(plan):
    found = plan(TABLES[0] + MEASURE, {"models": ["toy"]})
    assert {(unit.model, unit.precision) for unit in found.units} == {("toy", "fp32")}
    found = plan(TABLES[0] + MEASURE, {"precision": "fp32", "limit": 1})
    assert [unit.precision for unit in found.units] == ["fp64", "fp32"]  # its own counts more than that of all


def toy(text):
    """Images, and a table of the toy model from line 2 on."""
    return NOISE + f'[[models]]\nuri = "toy"\n{text}\n'


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        pytest.param(
            toy("precison = 'fp64'") + MEASURE, 4, ["'models.0.precison'", "perhaps 'precision'"], id="misspelled key"
        ),
        pytest.param(
            toy("precision = 'fp16'") + MEASURE,
            4,
            ["'models.0.precision'", "'fp32' or 'fp64'", "got: 'fp16'"],
            id="unknown precision",
        ),
        pytest.param(
            toy("device = 'cpu'") + MEASURE,
            4,
            ["'models.0.device'", "where units run is not part of a plan"],
            id="device",
        ),
        pytest.param(
            toy("limit = 0") + MEASURE, 4, ["'models.0.limit'", "greater than or equal to 1"], id="limit of 0"
        ),
        pytest.param(
            NOISE + "[[models]]\nlimit = 1\n" + MEASURE, 2, ["'models.0.uri'", "a model URI"], id="no address"
        ),
        pytest.param(
            toy("set.mesure.scale = 1") + MEASURE,
            4,
            ["models.0.set.mesure", "which does not run", "measure"],
            id="probe that does not run",
        ),
        pytest.param(
            toy("set.measure.scael = 1") + MEASURE,
            4,
            ["'measure'", "'scael' is not known", "perhaps 'scale'"],
            id="misspelled parameter",
        ),
        pytest.param(
            toy("[models.set.measure]\ncount = 2\nscale = 99") + MEASURE,
            6,
            ["'scale' is not usable", "99"],
            id="parameter out of range",
        ),
        pytest.param(
            toy("set.measure = { scale = 2 }") + MEASURE + "grid.scale = [1, 2]",
            4,
            ["models.0.set.measure.scale", "in a grid, not in both"],
            id="parameter in a grid",
        ),
        pytest.param(
            toy("set.measure.scale = 2") + MEASURE + "set.scale = 1\n" + MEASURE + "set.scale = 3",
            4,
            ["models.0.set.measure", "two entries of probe 'measure' are the same on 'toy'"],
            id="two probes that become one",
        ),
        pytest.param(
            toy("limit = 1") + "[[models]]\nuri = 'toy'\nlimit = 2\n" + MEASURE,
            6,
            ["'models.1.uri'", "toy once"],
            id="model twice",
        ),
        pytest.param(
            "models = [\n{ uri = 'toy', limit = 1 },\n'toy' ]\n" + MEASURE,
            3,
            ["'models.1'", "a table of its own"],
            id="model in a table and without",
        ),
        pytest.param(
            "models = 'toy'\nfor_models.tyo.limit = 1\n" + MEASURE,
            2,
            ["'for_models.tyo'", "models of this run: toy"],
            id="misspelled model",
        ),
        pytest.param(
            "models = 'toy'\n[for_models.toy]\nlimt = 1\n" + MEASURE,
            3,
            ["'for_models.toy.limt' is not known", "limit"],
            id="misspelled key of a model",
        ),
        pytest.param(
            "models = 'toy'\n[for_models.toy.set]\nlsb.draws = 1\n" + MEASURE,
            3,
            ["for_models.toy.set.lsb", "not run"],
            id="probe of a model that does not run",
        ),
    ],
)
def test_a_table_of_a_model_that_is_wrong_is_one_error_with_file_line_and_key(plan, text, line, says):
    with pytest.raises(UsageError) as caught:
        plan(text)
    for part in ["sweep.toml", f"line {line}", *says]:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (
            HEAD + MEASURE + "set = { scale = 2 }\ngrid = { count = [1], scale = [1, 2] }",
            6,
            ["'probes.0.grid.scale'", "scale in set or in grid, not in both"],
        ),
        (HEAD + MEASURE + "[probes.grid]\ncount = [1]\nscale = []", 7, ["'probes.0.grid.scale'", "at least one value"]),
        (HEAD + MEASURE + "grid.count = 5", 5, ["'probes.0.grid.count'", "valid list", "got: 5"]),
        (HEAD + MEASURE + "grid.count = [\n1,\n2,\n1]", 8, ["'probes.0.grid.count.2'", "each value once; 1 "]),
        (HEAD + MEASURE + "grid.scale = [1, 1.0]", 5, ["equal parameters twice", "measure"]),
        (HEAD + MEASURE + MEASURE + "set.scale = 1.0", 5, ["'measure' stands twice with equal parameters", "line 3"]),
        (HEAD + MEASURE + "grid.count = [3, 4]\n" + MEASURE, 6, ["stands twice", "line 3"]),
        (HEAD + MEASURE + "set.scale = 2\nset.cuont = 1", 6, ["'measure'", "'cuont' is not known", "perhaps 'count'"]),
        (HEAD + MEASURE + "[probes.grid]\ncount = [1]\nscale = [1, 99]", 7, ["'scale' is not usable", "got: 99"]),
        (HEAD + '[[probes]]\nname = "mesure"', 4, ["probes.0.name", "no probe is called 'mesure'", "measure"]),
        (HEAD + 'targets = "digits"\n' + MEASURE, 3, ["targets", "no probe of this run takes targets or references"]),
        (HEAD + 'pairing = "other-class"\n' + MEASURE, 3, ["pairing", "no probe of this run takes pairs"]),
        (HEAD + "limit = 0\n" + MEASURE, 3, ["'limit' is not usable", "greater than or equal to 1"]),
        (HEAD + MEASURE + "limit = 0", 5, ["'probes.0.limit' is not usable"]),
        ('images = [\n"digits",\n{ uri = "digits", limit = 0 }]\n' + MEASURE, 3, ["images.1.limit", "at least 1"]),
        (
            '[[images]]\nuri = "digits"\nlimit = 1\n[[images]]\nuri = "digits"\nlimit = 2\n' + MEASURE,
            6,
            ["'images.1.limit'", "one limit for digits; another one is 1"],
        ),
        ('images = [{ url = "digits" }]\n' + MEASURE, 1, ["'images.0.url'", "uri and limit"]),
        ("images = [{ limit = 3 }]\n" + MEASURE, 1, ["'images.0.uri'", "an image URI"]),
        (HEAD + "limits = { digits = 3 }\n" + MEASURE, 3, ["'limits.digits'", "image sets of this run"]),
        ("models = []\n" + MEASURE, 1, ["'models' is not usable", "at least 1"]),
        ("models = 'toy'\nimages = []\n" + MEASURE, 2, ["'images' is not usable", "at least 1"]),
        ('models = [\n"toy",\n"toyy"]\n' + MEASURE, 3, ["models.1", "toyy"]),
        ('models = "toy"\nimages = ["digits", "didgits"]\n' + MEASURE, 2, ["images.1", "didgits", "perhaps 'digits'"]),
        ('device = "abacus"\nmodels = "toy"\n' + MEASURE, 1, ["device", "abacus"]),
        (HEAD + "seeed = 1\n" + MEASURE, 3, ["'seeed' is not known", "perhaps 'seed'"]),
        (HEAD + MEASURE + PAIRS + "nmae = 1", 7, ["'probes.1.nmae' is not known", "perhaps 'name'"]),
        (HEAD + "[[probes]]\n[probes.set]\ncount = 1", 3, ["'probes.0.name' is missing"]),
        (HEAD + "seed = 1\nseed = 2\n" + MEASURE, 4, ["no TOML", "Cannot overwrite"]),
        (HEAD + "seed = \n" + MEASURE, 3, ["no TOML"]),
    ],
)
def test_what_contradicts_itself_is_one_error_with_file_line_and_key(plan, text, line, says):
    with pytest.raises(UsageError) as caught:
        plan(text)
    for part in ["sweep.toml", f"line {line}", *says]:
        assert part in str(caught.value)


def test_brackets_within_brackets_are_an_error_too(plan):
    with pytest.raises(UsageError, match="is no TOML") as caught:
        plan("seed = " + "[" * 5000)
    assert "recursion" in caught.value.got


def test_what_an_option_says_is_not_blamed_on_the_file(plan):
    with pytest.raises(UsageError, match="targets or references") as caught:
        plan(HEAD + MEASURE, {"targets": "digits"})
    assert "sweep.toml" not in str(caught.value)
    with pytest.raises(UsageError, match="toyy") as caught:
        plan(HEAD + MEASURE, {"models": ["toyy"]})
    assert "sweep.toml" not in str(caught.value)


def test_equal_parameters_from_the_command_line_are_refused_too(registry):
    config = validated({"probes": [{"name": "measure"}, {"name": "measure", "set": {"scale": 1}}], "models": "toy"})
    with pytest.raises(UsageError, match="stands twice"):
        plan_of(config, registry)
