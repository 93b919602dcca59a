"""Reference populations: drawn strictly at random, equal for all units, part of their identity, stored once."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from equivengine import open_run
from equivengine.contracts.probe import Params, ProbeTask
from equivengine.errors import DataError, StoreError
from equivengine.runtime.drawing import Draws
from equivengine.runtime.engine import execute, plan_of, resume
from equivengine.runtime.inputs import Inputs
from equivengine.runtime.loading import Workbench
from equivengine.runtime.plan import Plan
from equivengine.store import RunDirectory, schema
from equivengine.store.layout import StoredPlan

TEN = "noise:10?size=8&mode=L"
OTHERS = "noise:12?size=8&mode=L&seed=4"


def drawn(plan):
    """Places of the references, which all units must share."""
    (references,) = {unit.references for unit in plan.units}
    return [reference.index for reference in references]


@pytest.fixture
def referred(make_plan):
    def make(count=4, **options):
        return make_plan("together", {"references": count}, **{"images": [TEN], **options})

    return make


def test_all_units_of_a_probe_and_an_image_set_share_their_references(referred):
    found = drawn(referred())
    assert len(found) == len(set(found)) == 4
    assert drawn(referred()) == found
    assert drawn(referred(limit=2)) == found  # which originals are measured does not matter
    assert drawn(referred(models=["toy?seed=1"])) == found
    assert drawn(referred(seed=1)) != found
    assert drawn(referred(6))[:4] == found


def test_references_come_from_the_targets_where_a_set_is_named(referred):
    plan = referred(targets=OTHERS)
    assert {reference.images for unit in plan.units for reference in unit.references} == {OTHERS}
    assert {reference.images for unit in referred().units for reference in unit.references} == {TEN}


def test_a_single_target_is_joined_by_images_since_it_makes_no_population(referred):
    one = "noise:1?size=8&mode=L&seed=4"
    references = next(unit.references for unit in referred(targets=one).units)
    assert [reference.images for reference in references] == [one, TEN, TEN, TEN]
    assert [reference.index for reference in references[1:]] == drawn(referred())[:3]
    assert [reference.images for reference in referred(1, targets=one).units[0].references] == [one]
    first = f"{TEN}&seed=0"  # the same content as TEN under another address: its image is not taken twice
    found = referred(99, targets=first.replace("noise:10", "noise:1")).units[0].references
    assert len({reference.digest for reference in found}) == len(found) == 10
    two = "noise:2?size=8&mode=L&seed=4"
    assert {reference.images for reference in referred(targets=two).units[0].references} == {two}


def test_each_image_set_has_references_of_its_own(referred):
    plan = referred(images=[TEN, OTHERS])
    for unit in plan.units:
        assert {reference.images for reference in unit.references} == {unit.samples[0].images}


def test_a_small_set_gives_all_that_it_holds(referred):
    assert sorted(drawn(referred(99))) == list(range(10))


def test_references_are_drawn_strictly_at_random(registry, make_config):
    """Over 600 seeds each of 10 images is one of the 3 drawn 180 times, with a standard deviation of 11.2."""
    bench = Workbench(registry)
    counts = torch.zeros(10)
    firsts = torch.zeros(10)
    for seed in range(600):
        found = Draws(make_config(images=[TEN], seed=seed), bench).references(TEN, 3)
        places = [reference.index for reference in found]
        counts[places] += 1
        firsts[places[0]] += 1
    assert (counts - 180).abs().max() < 4.5 * 11.2
    assert (firsts - 60).abs().max() < 4.5 * (600 * 0.1 * 0.9) ** 0.5


def test_images_that_cannot_be_read_are_passed_over(make_plan, photos, tmp_path):
    (photos / "broken.png").write_bytes(b"no image")
    (photos / "gone.png").symlink_to(tmp_path / "nowhere.png")
    plan = make_plan("together", {"references": 9})
    assert len(plan.units) == 5  # as units they stand among the failures
    assert sorted(reference.id for reference in plan.units[0].references) == ["a.png", "b.png", "c.png"]
    for path in photos.iterdir():
        path.unlink()
    (photos / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no image of .* can be read"):
        make_plan("together", {"references": 9})


def test_references_are_part_of_the_identity_of_a_unit(referred):
    unit = referred().units[0]
    assert unit.references
    assert replace(unit, references=()).unit_id != unit.unit_id
    assert replace(unit, references=unit.references[::-1]).unit_id != unit.unit_id
    moved = tuple(replace(reference, images="folder:elsewhere", index=77, id="x") for reference in unit.references)
    assert replace(unit, references=moved).unit_id == unit.unit_id


def test_a_plan_lists_its_references_once_and_its_units_hold_them(referred, version_1):
    plan = referred(images=[TEN, OTHERS])
    old, data = version_1(plan), json.loads(json.dumps(plan.to_json()))
    assert [len(population) for population in old["references"]] == [4, 4]
    assert [len(table["id"]) for (table,) in data["references"]] == [4, 4]
    assert [entry["references"] for entry in data["groups"]] == [0, 1]
    for one in (old, data):
        assert schema.plan_units(one) == [unit.unit_id for unit in plan.units]
        again = Plan.from_json(one)
        assert again.units == plan.units
        assert again.digest == plan.digest


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data.pop("references"), id="no references"),
        pytest.param(lambda data: data["references"].reverse(), id="reversed"),
        pytest.param(lambda data: data["references"][0].pop(), id="one shorter"),
        pytest.param(lambda data: data["units"][0].update(references=2), id="index too large"),
        pytest.param(lambda data: data["units"][0].update(references=-1), id="negative index"),
        pytest.param(lambda data: data["units"][0].pop("references"), id="no index"),
        pytest.param(lambda data: data["units"][0].update(seed=5), id="another seed"),
    ],
)
def test_a_plan_of_version_1_with_other_references_than_its_units_had_is_refused(
    referred, version_1, tmp_path, registry, damage
):
    plan = referred(images=[TEN, OTHERS])
    data = version_1(plan)
    damage(data)
    RunDirectory.create_or_open(tmp_path / "damaged", data, plan.digest)
    with pytest.raises(StoreError, match=r"the plan of .* cannot be read"):
        resume(tmp_path / "damaged", registry=registry)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data.pop("references"), id="no references"),
        pytest.param(lambda data: data["references"].reverse(), id="reversed"),
        pytest.param(lambda data: data["references"][0].pop(), id="one shorter"),
        pytest.param(lambda data: data["references"][0][0]["digest"].reverse(), id="another digest of a reference"),
        pytest.param(lambda data: data["groups"][0].update(references=2), id="index too large"),
        pytest.param(lambda data: data["groups"][0].update(references=-1), id="negative index"),
        pytest.param(lambda data: data["groups"][0].pop("references"), id="no index"),
        pytest.param(lambda data: data["groups"][0].update(seed=5), id="another seed"),
        pytest.param(lambda data: data["samples"][0]["digest"].reverse(), id="another digest of a sample"),
        pytest.param(lambda data: data["groups"].reverse(), id="groups reversed"),
    ],
)
def test_a_plan_with_other_content_than_its_digest_is_neither_written_nor_read(referred, tmp_path, damage):
    plan = referred(images=[TEN, OTHERS])
    data = plan.to_json()
    RunDirectory.create_or_open(tmp_path / "whole", data, plan.digest)
    damage(data)
    with pytest.raises(StoreError, match="the plan is damaged"):
        RunDirectory.create_or_open(tmp_path / "damaged", data, plan.digest)
    assert not (tmp_path / "damaged").exists()
    text = schema.sealed_json(StoredPlan(data, plan.digest).to_json(), "the plan")
    (tmp_path / "whole" / "plan.json").write_text(text)
    with pytest.raises(StoreError, match=r"plan\.json is damaged"):
        RunDirectory.open(tmp_path / "whole")


def test_a_probe_sees_the_references_preprocessed_and_without_labels(registry, make_config):
    config = make_config("together", {"references": 4}, images=["digits"], limit=3)
    report = execute(config, registry=registry)
    bench = Workbench(registry)
    encoder, images = bench.encoder("toy"), bench.images("digits")
    with open_run(report.directory) as run:
        records = run.units()
        assert len(records) == 3
        for record in records:
            unit = record.unit
            expected = [encoder.preprocess(images[r.index].load()).double().mean().item() for r in unit.references]
            assert record.arrays["mean"].data.tolist() == pytest.approx(expected, rel=1e-12)
            words = [f"{reference.digest[:8]} None" for reference in unit.references]
            assert record.arrays["reference"].data.tolist() == words
            assert record.provenance["plugins"]["references"]["name"] == "digits_images"
            assert record.unit_id == unit.unit_id


def test_a_unit_without_references_gets_an_empty_population(registry, make_config):
    plan, bench = plan_of(make_config(), registry)
    found = Inputs(bench).references(plan.units[0])
    assert (found.shape, found.dtype) == ((0, 1, 8, 8), torch.float32)
    x = bench.encoder("toy").preprocess(bench.images(plan.config.images[0])[0].load())
    by_hand = ProbeTask(bench.encoder("toy"), [x], Params(), 0)
    assert (by_hand.references.shape, by_hand.references.dtype) == ((0, 1, 8, 8), torch.float32)


def test_references_are_loaded_once_for_all_batches(registry, make_config, monkeypatch):
    plan, bench = plan_of(make_config("together", {"references": 4, "largest": 3}, images=[TEN]), registry)
    inputs = Inputs(bench)
    first = inputs.references(plan.units[0])
    assert first.shape == (4, 1, 8, 8)
    other = replace(plan.units[0], references=plan.units[0].references[:2])
    assert inputs.references(plan.units[5]) is first
    assert inputs.references(other).shape[0] == 2
    again = inputs.references(plan.units[0])
    assert again is not first
    assert torch.equal(again, first)


def test_a_reference_that_is_gone_or_not_finite_fails_the_units_with_its_name(registry, make_config, photos):
    from PIL import Image

    Image.new("L", (8, 8), 0).save(photos / "black.png")
    config = make_config("together", {"references": 4, "largest": 2}, models=["toy:nan_when_dark"])
    report = execute(config, registry=registry)
    assert report.outcomes == {"failed": 4, "skipped": 0}
    assert all("returns NaN or infinity for 'black.png'" in outcome.message for _, outcome in report.failures)

    config = make_config("together", {"references": 4}, out=f"{config.out}-2")
    execute(config, registry=registry)
    for shard in (RunDirectory.open(config.out).path / "shards").rglob("*.h5"):
        shard.unlink()
    (photos / "black.png").unlink()
    report = resume(config.out, registry=registry)
    assert report.outcomes == {"failed": 4, "skipped": 0}
    assert all("'black.png' is no longer in" in outcome.message for _, outcome in report.failures)
