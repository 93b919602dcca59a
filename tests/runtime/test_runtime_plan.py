"""A plan says the same thing everywhere: units are named by what determines their result, and by nothing else."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivengine.contracts.unit import SampleRef, Unit, canonical_json
from equivengine.errors import PluginError, StoreError, UsageError, WeightsError
from equivengine.runtime.config import validated
from equivengine.runtime.engine import default_name, execute, plan_of, resume
from equivengine.runtime.plan import Plan
from equivengine.runtime.registry import Registry
from equivengine.store import RunDirectory, open_run

UNIT = Unit(
    probe="ldlc",
    probe_version="1",
    params='{"directions":200,"eps":0.0001}',
    model="digits",
    weights_digest="ab" * 32,
    samples=(SampleRef("digits", 3, "test/3", "cd" * 32), SampleRef("samples", 0, "chelsea", "ef" * 32)),
    seed=7,
    precision="fp32",
)
GOLDEN = "33c4ef08c6e97fc6ad10d48496a63e6a2f64fb1422508265c99008ed72abb792"


def test_the_id_of_a_unit_is_the_same_in_every_process_on_every_machine():
    assert UNIT.unit_id == GOLDEN
    program = f"from equivengine.contracts.unit import *; print({UNIT!r}.unit_id)"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == GOLDEN


@pytest.mark.parametrize(
    "change",
    [
        {"probe": "spectrum"},
        {"probe_version": "2"},
        {"params": '{"directions":201,"eps":0.0001}'},
        {"model": "digits?seed=1"},
        {"weights_digest": "00" * 32},
        {"samples": UNIT.samples[::-1]},
        {"samples": UNIT.samples[:1]},
        {"samples": (replace(UNIT.samples[0], digest="00" * 32), UNIT.samples[1])},
        {"seed": 8},
        {"precision": "fp64"},
        {"attention": "stock"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_id_changes_with_everything_that_determines_the_result(change):
    assert replace(UNIT, **change).unit_id != GOLDEN


POPULATED = replace(UNIT, references=(SampleRef("digits", 5, "test/5", "12" * 32),))
LABELLED = replace(
    UNIT, samples=tuple(replace(sample, label=label) for sample, label in zip(UNIT.samples, "3c", strict=True))
)


@pytest.mark.parametrize(
    ("unit", "golden"),
    [
        (POPULATED, "ab4dc906972eb84f01be0fb1e30a482f2ac7ff65843bb92ddf69666c92557231"),
        (LABELLED, "e6adb9afa0af4506ac5617bb42b2ca4236d338308725cac752701b3f3be4dcda"),
    ],
    ids=["references", "labels"],
)
def test_the_id_of_a_unit_with_references_or_labels(unit, golden):
    assert unit.unit_id == golden
    assert Unit.from_json(json.loads(json.dumps(unit.to_json()))) == unit


def test_a_label_that_is_not_known_is_no_label():
    half = replace(UNIT, samples=(LABELLED.samples[0], UNIT.samples[1]))
    assert len({half.unit_id, UNIT.unit_id, LABELLED.unit_id}) == 3


def test_the_id_ignores_where_a_sample_lies_and_how_parameters_are_written():
    moved = replace(UNIT.samples[0], images="folder:elsewhere", index=99, id="x.png")
    assert replace(UNIT, samples=(moved, UNIT.samples[1])).unit_id == GOLDEN
    assert replace(UNIT, params='{"eps": 1e-4, "directions": 200}').unit_id == GOLDEN


def test_a_unit_survives_json():
    assert Unit.from_json(json.loads(json.dumps(UNIT.to_json()))) == UNIT


VALUES = st.integers() | st.text() | st.none() | st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(st.text(), VALUES))
def test_canonical_json_does_not_depend_on_order(values):
    turned = dict(reversed(values.items()))
    assert canonical_json(values) == canonical_json(turned)
    assert json.loads(canonical_json(values)) == values


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_canonical_json_refuses_what_json_lacks(value):
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"x": value})


@pytest.fixture
def plan(toys):
    registry = Registry.load()

    def make(**options):
        probe = options.pop("probe", "measure")
        given = {"probes": [{"name": probe}], "models": ["toy"], "images": ["noise:6?size=8&mode=L"], **options}
        return plan_of(validated(given), registry)[0]

    return make


def test_a_plan_is_the_product_in_a_fixed_order(plan):
    sets = ["noise:2?size=8&mode=L", "noise:2?size=8&mode=L&seed=1"]
    found = plan(models=["toy", "toy?seed=1"], images=sets)
    assert [(u.model, u.samples[0].images, u.samples[0].index) for u in found.units] == [
        (model, images, index) for model in ("toy", "toy?seed=1") for images in sets for index in (0, 1)
    ]
    assert len({u.weights_digest for u in found.units}) == 2


def test_plans_are_equal_across_processes_and_differ_by_seed(plan, toys):
    found = plan()
    program = """
from equivengine.runtime.config import validated
from equivengine.runtime.engine import plan_of
from equivengine.runtime.registry import Registry
config = validated({"probes": [{"name": "measure"}], "models": ["toy"], "images": ["noise:6?size=8&mode=L"]})
print(plan_of(config, Registry.load())[0].digest)
"""
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == found.digest
    assert plan(seed=1).digest != found.digest


def test_where_work_is_done_is_no_part_of_the_plan(plan):
    first, second = plan(), plan(device="cpu", executor="twice", out="elsewhere")
    assert first.digest == second.digest
    assert first.to_json() == second.to_json()


def test_the_digest_of_a_plan_that_shares_no_calls_is_that_of_its_ids(plan):
    found = plan()
    ids = json.dumps([unit.unit_id for unit in found.units], separators=(",", ":"))
    assert found.digest == hashlib.sha256(ids.encode()).hexdigest()


def test_a_plan_from_before_there_was_pairing_still_reads(plan, version_1):
    found = plan()
    data = version_1(found)
    del data["config"]["pairing"]
    again = Plan.from_json(data)
    assert again.units == found.units
    assert again.config.pairing == "any"


def test_a_plan_survives_json(plan):
    found = plan()
    again = Plan.from_json(json.loads(json.dumps(found.to_json())))
    assert again.units == found.units
    assert again.digest == found.digest


@pytest.mark.parametrize("damage", [{"version": 2}, {"units": [{}]}, {"config": {"probes": []}}, {"units": None}])
def test_what_is_no_plan_of_version_1_is_refused(plan, version_1, damage):
    with pytest.raises((KeyError, TypeError, ValueError, StoreError)):
        Plan.from_json({**version_1(plan()), **damage})


@pytest.mark.parametrize("options", [{}, {"probe": "together"}, {"probe": "named"}, {"probe": "difference"}])
def test_a_plan_of_version_1_has_the_units_batches_and_digest_that_it_had(plan, version_1, options):
    found = plan(models=["toy", "toy?seed=1"], **options)
    data = version_1(found)
    again = Plan.from_json(data)
    assert again.units == found.units
    assert list(again.units.ids) == [unit.unit_id for unit in again.units] == list(found.units.ids)
    assert again.batches() == found.batches()
    assert again.digest == found.digest == digest_of_version_1(data)
    assert Plan.from_json(again.to_json()).units == found.units


def digest_of_version_1(data):
    """As it was defined when there was no other version."""
    content = [replace(unit).unit_id for unit in Plan.from_json(data).units]
    content = {"units": content, "batches": data["batches"]} if "batches" in data else content
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


@pytest.mark.parametrize(
    "damage",
    [
        {"version": 3},
        {"version": "2"},
        {"groups": None},
        {"groups": [{}]},
        {"tuples": []},
        {"tuples": [{"size": 0, "rows": []}]},
        {"tuples": [{"size": 4, "rows": {"first": 0, "count": 6}}]},
        {"tuples": [{"size": 1, "rows": [0, 6]}]},
        {"tuples": [{"size": 1, "rows": [0, -1]}]},
        {"tuples": [{"size": 1, "rows": [0, True]}]},
        {"tuples": [{"size": 1, "rows": {"first": 0, "count": 10**9}}]},
        {"samples": None},
        {"samples": [{"images": "noise:1", "index": {"first": 0, "count": 10**12}, "id": [], "digest": []}]},
        {"samples": [{"images": "noise:1", "index": [0], "id": ["a", "b"], "digest": ["c"]}]},
        {"config": {"probes": []}},
    ],
    ids=str,
)
def test_what_is_no_plan_is_refused(plan, damage):
    with pytest.raises((KeyError, TypeError, ValueError, StoreError)):
        Plan.from_json({**plan().to_json(), **damage})


def test_pairs_are_drawn_by_the_seed_for_each_original_on_its_own(plan):
    def targets(**options):
        return {u.samples[0].digest: u.samples[1].digest for u in plan(probe="difference", **options).units}

    drawn = targets()
    assert all(original != target for original, target in drawn.items())
    assert drawn == targets()
    assert drawn != targets(seed=1)
    limited = targets(limit=2)  # neither the number nor the order of the originals matters
    assert limited.items() <= drawn.items()


def test_pairs_take_their_targets_from_the_set_that_is_named(plan):
    for unit in plan(probe="difference", targets="noise:3?size=8&mode=L&seed=4").units:
        assert [s.images for s in unit.samples] == ["noise:6?size=8&mode=L", "noise:3?size=8&mode=L&seed=4"]


def test_a_probe_may_say_from_its_parameters_how_many_samples_it_takes(plan, monkeypatch):
    import equivengine_toys

    arity_of = classmethod(lambda cls, params: {3: "one", 4: "pair", 5: "set"}[params.count])
    monkeypatch.setattr(equivengine_toys.Measure, "arity_of", arity_of)

    def sizes(**settings):
        probes = [{"name": "measure", "set": settings}, {"name": "difference"}]
        return [len(u.samples) for u in plan(probes=probes).units if u.probe == "measure"]

    assert sizes() == [1] * 6
    assert sizes(count=4) == [2] * 6
    assert sizes(count=5) == [6]
    as_pair = plan(probes=[{"name": "measure", "set": {"count": 4}}]).units
    assert [u.samples for u in as_pair] == [u.samples for u in plan(probe="difference").units]


@pytest.mark.parametrize(
    ("answer", "message"),
    [("two", r"Measure\.arity_of returns no arity"), (None, "returns no arity"), (1 / 3, "returns no arity")],
)
def test_an_answer_that_is_no_arity_is_the_plugin_s_fault(plan, monkeypatch, answer, message):
    import equivengine_toys

    monkeypatch.setattr(equivengine_toys.Measure, "arity_of", classmethod(lambda cls, params: answer))
    with pytest.raises(PluginError, match=message) as caught:
        plan()
    assert caught.value.expected == "one or pair or set"


def test_a_probe_that_fails_to_say_its_arity_is_named(plan, monkeypatch):
    import equivengine_toys

    monkeypatch.setattr(equivengine_toys.Measure, "arity_of", classmethod(lambda cls, params: params.nothing))
    with pytest.raises(PluginError, match=r"Measure\.arity_of failed") as caught:
        plan()
    assert "nothing" in caught.value.got


def test_targets_of_the_same_content_are_passed_over(plan, photos, save_image):
    for path in photos.iterdir():
        save_image(path, 0)
    with pytest.raises(UsageError, match="holds no target that differs"):
        plan(probe="difference", images=[f"folder:{photos}"])
    save_image(photos / "z.png", 1)
    found = plan(probe="difference", images=[f"folder:{photos}"])
    assert {tuple(s.id for s in u.samples)[1] for u in found.units} >= {"z.png"}


def test_equal_content_is_planned_once(plan, photos, save_image):
    save_image(photos / "copy of a.png", 0)
    found = plan(images=[f"folder:{photos}", f"folder:{photos}"])
    assert len(found.units) == 3
    assert found.duplicates == 5


def test_with_no_images_named_a_few_digits_are_taken(plan):
    config = validated({"probes": [{"name": "measure"}]})
    assert (config.images, config.limit) == (("digits",), 6)
    assert validated({"probes": [{"name": "measure"}], "limit": 9}).limit == 9
    assert validated({"probes": [{"name": "measure"}], "images": "samples"}).limit is None


def test_a_model_that_cannot_be_had_stops_the_plan(plan):
    with pytest.raises(WeightsError):
        plan(models=["toy", "timm:test_vit?weights=/nowhere.safetensors"])


def test_directories_are_named_by_what_they_hold(plan):
    found = plan()
    assert default_name(found.config, found) == f"measure-toy-{found.digest[:8]}"
    other = plan(models=["toy?seed=1"])
    assert default_name(other.config, other) == f"measure-toy_seed_1-{other.digest[:8]}"


@pytest.mark.parametrize("probe", ["measure", "together"])
def test_a_directory_of_a_plan_of_version_1_is_finished_by_either_command(
    registry, make_config, make_plan, version_1, probe
):
    plan = make_plan(probe)
    directory = RunDirectory.create_or_open(make_config(probe).out, version_1(plan), plan.digest)
    assert resume(directory.path, registry=registry).outcomes == {"published": 3, "skipped": 0}
    assert execute(make_config(probe), registry=registry).outcomes == {"skipped": 3}
    assert directory.plan == version_1(plan)
    with open_run(directory.path / "run.h5") as run:
        assert run.published == list(plan.units.ids)


# -- the order of images ----------------------------------------------------------------------------------------------


def places(plan):
    return [unit.samples[0].index for unit in plan.units]


def test_a_random_order_is_one_of_the_seed_and_a_limit_takes_its_first(make_plan):
    images = ["noise:40?size=8&mode=L"]
    own, first, again, other = (
        make_plan(images=images, **options)
        for options in ({}, {"order": "random"}, {"order": "random"}, {"order": "random", "seed": 1})
    )
    assert places(own) == list(range(40))
    assert sorted(places(first)) == list(range(40))
    assert places(first) == places(again) != places(other)
    assert places(first) != list(range(40))
    assert places(make_plan(images=images, order="random", limit=7)) == places(first)[:7]
    assert set(first.units.ids) == set(own.units.ids)  # the same work in another order
    assert "order" not in own.to_json()["config"]
    assert first.to_json()["config"]["order"] == "random"


def test_a_random_order_leaves_targets_and_references_as_they_are(make_plan):
    images = ["noise:12?size=8&mode=L"]
    own, drawn = (make_plan("difference", images=images, order=order) for order in ("own", "random"))
    assert set(own.units.ids) == set(drawn.units.ids)
