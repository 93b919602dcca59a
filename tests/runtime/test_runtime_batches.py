"""Units that share a call: how they are grouped, and that sharing changes neither what fails nor what resume gives."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivengine import open_run
from equivengine.contracts.unit import SampleRef, Unit
from equivengine.contracts.units import UnitList
from equivengine.errors import PluginError
from equivengine.runtime.engine import execute, plan_of, resume
from equivengine.runtime.plan import Plan, cut
from equivengine.runtime.worker import WorkerContext, run_batch
from equivengine.store import RunDirectory

SEVEN = "noise:7?size=8&mode=L"


@pytest.fixture(autouse=True)
def calls(toy_module):
    """The ids of the units of each call."""
    toy_module.Together.calls.clear()
    return toy_module.Together.calls


def unit(index, params="{}", model="toy", references=()):
    sample = SampleRef("noise", index, f"noise-{index}", f"{index:064}")
    return Unit("together", "1", params, model, "w" * 64, (sample,), 0, "fp32", references=references)


def cut_in(units, largest):
    """The sizes of all batches."""
    return [size for size, times in cut(UnitList.of(units), largest) for _ in range(times)]


@given(count=st.integers(1, 200), largest=st.integers(1, 50))
def test_batches_are_as_few_as_fit_and_equal_but_for_one_unit(count, largest):
    sizes = cut_in([unit(index) for index in range(count)], {("together", "{}"): largest})
    assert sum(sizes) == count
    assert len(sizes) == -(-count // largest)
    assert 1 <= min(sizes) <= max(sizes) <= min(largest, min(sizes) + 1)


def test_twenty_units_of_which_sixteen_may_share_a_call_become_two_tens():
    assert cut_in([unit(index) for index in range(20)], {("together", "{}"): 16}) == [10, 10]


def test_a_batch_holds_one_probe_with_one_set_of_parameters_one_model_and_one_population():
    population = (SampleRef("noise", 9, "noise-9", "9" * 64),)
    units = [
        *(unit(index) for index in range(3)),
        *(unit(index, params='{"a":1}') for index in range(2)),
        *(unit(index, model="other") for index in range(2)),
        *(unit(index, references=population) for index in range(2)),
    ]
    assert cut_in(units, {("together", "{}"): 8, ("together", '{"a":1}'): 8}) == [3, 2, 2, 2]


def test_the_batches_of_a_plan_hold_its_units_in_order_and_survive_json(make_plan):
    plan = make_plan("together", images=[SEVEN])
    assert [[u.samples[0].index for u in batch] for batch in plan.batches()] == [[0, 1, 2, 3], [4, 5, 6]]
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again.batches() == plan.batches()
    assert again.digest == plan.digest
    assert pickle.loads(pickle.dumps(plan.batches())) == plan.batches()


def test_how_units_are_grouped_is_part_of_a_plan_and_not_of_its_units(make_plan, monkeypatch, toy_module):
    plan = make_plan("together", images=[SEVEN])
    monkeypatch.setattr(toy_module.Together, "batch_of", classmethod(lambda cls, params: 3))
    other = make_plan("together", images=[SEVEN])
    assert other.units == plan.units
    assert [len(batch) for batch in other.batches()] == [3, 2, 2]
    assert other.digest != plan.digest


def test_a_plan_of_probes_that_share_nothing_says_nothing_of_batches(make_plan):
    plan = make_plan()
    assert set(plan.to_json()) == {"version", "config", "samples", "tuples", "groups"}
    assert set(plan.to_json()["groups"][0]) == {
        "probe", "probe_version", "params", "model", "weights_digest", "seed", "precision", "attention", "tuples"
    }  # fmt: skip
    assert set(plan.to_json()["samples"][0]) == {"images", "index", "id", "digest"}
    assert plan.batches() == tuple((one,) for one in plan.units)


@pytest.mark.parametrize("batches", [[4], [4, 4], [8, -1], [3.5, 3.5], ["7"], [7, 0]])
def test_batches_that_do_not_fit_the_units_are_no_plan(make_plan, version_1, batches):
    plan = make_plan("together", images=[SEVEN])
    with pytest.raises((TypeError, ValueError)):
        Plan.from_json({**version_1(plan), "batches": batches})
    with pytest.raises((TypeError, ValueError)):
        Plan.from_json({**plan.to_json(), "batches": [[size, 1] for size in batches]})


@pytest.mark.parametrize("batches", [[4, 3], [[4, 1]], [[4, 1], [3, 1], [1, 1]], [[0, 1], [7, 1]], [[7, True]], 7])
def test_counts_of_batches_that_do_not_fit_the_units_are_no_plan(make_plan, batches):
    with pytest.raises((TypeError, ValueError)):
        Plan.from_json({**make_plan("together", images=[SEVEN]).to_json(), "batches": batches})


@pytest.mark.parametrize("executor", ["serial", "twice"])
def test_each_unit_of_a_batch_is_reported_observed_and_stored_by_itself(registry, make_config, calls, executor):
    seen = []
    config = make_config("together", images=[SEVEN], executor=executor)
    report = execute(config, registry=registry, on_done=lambda u, outcome: seen.append((u.samples[0].index, outcome)))
    assert [(index, outcome.outcome) for index, outcome in seen] == [(index, "published") for index in range(7)]
    assert all(outcome.seconds > 0 for _, outcome in seen)
    assert report.outcomes == {"published": 7, "skipped": 0}
    assert list(map(len, calls)) == [4, 3]
    log = [json.loads(line) for line in (report.directory / "log.jsonl").read_text().splitlines()]
    assert [line["samples"] for line in log if line["event"] == "unit_finished"] == [
        [name] for call in calls for name in call
    ]
    with open_run(report.directory) as run:
        for batch in plan_of(config, registry)[0].batches():
            for position, member in enumerate(batch):
                record = next(r for r in run.units() if r.unit_id == member.unit_id)
                assert record.provenance["batch"] == {"units": [u.unit_id for u in batch], "position": position}
                assert record.summary["companions"].value == len(batch)


def test_a_unit_by_itself_says_nothing_of_a_batch(registry, make_config):
    with open_run(execute(make_config(), registry=registry).directory) as run:
        assert all("batch" not in record.provenance for record in run.units())


def test_a_probe_that_takes_batches_gets_a_single_unit_as_one(registry, make_config, calls, monkeypatch, toy_module):
    monkeypatch.setattr(toy_module.Together, "run", None)
    assert execute(make_config("together", limit=1), registry=registry).outcomes["published"] == 1
    assert calls == [["a.png"]]


def test_a_probe_that_takes_single_units_is_run_and_not_run_in_batches(registry, make_config, monkeypatch, toy_module):
    monkeypatch.setattr(toy_module.Measure, "run_batch", None)
    assert execute(make_config(), registry=registry).outcomes["published"] == 3


def test_the_default_batch_runs_each_task(registry, make_config, monkeypatch, toy_module):
    alone = execute(make_config(), registry=registry)
    monkeypatch.setattr(toy_module.Measure, "batch_of", classmethod(lambda cls, params: 2))
    config = make_config(out=f"{alone.directory}-2")
    together = execute(config, registry=registry)
    with open_run(alone.directory) as first, open_run(together.directory) as second:
        assert [r.summary for r in first.units()] == [r.summary for r in second.units()]
        assert sorted(len(r.provenance.get("batch", {"units": [0]})["units"]) for r in second.units()) == [1, 2, 2]


# -- resuming ---------------------------------------------------------------------------------------------------------


def test_a_batch_with_a_missing_unit_is_computed_in_full_and_only_that_unit_published(
    registry, make_config, calls, content, tmp_path
):
    config = make_config("together", images=[SEVEN])
    execute(config, registry=registry)
    whole = content(config.out)
    run = RunDirectory.open(config.out)
    shards = {path.stem: path for path in (run.path / "shards").rglob("*.h5")}
    gone = plan_of(config, registry)[0].units[2]
    shards.pop(gone.unit_id).unlink()
    before = {path: path.stat().st_mtime_ns for path in shards.values()}
    del calls[:]
    seen = []
    report = resume(run.path, registry=registry, on_done=lambda one, outcome: seen.append(one))
    assert report.outcomes == {"published": 1, "skipped": 6}
    assert seen == [gone]
    assert list(map(len, calls)) == [4]
    assert {path: path.stat().st_mtime_ns for path in shards.values()} == before
    assert content(config.out) == whole


def test_a_run_that_ends_within_a_batch_resumes_to_what_an_undisturbed_one_gives(
    registry, make_config, content, monkeypatch, tmp_path
):
    config = make_config("together", images=[SEVEN], settings={"references": 2})
    publish = RunDirectory.publish
    published = []

    def interrupted(self, one, *arguments):
        if len(published) == 5:
            raise KeyboardInterrupt
        published.append(one)
        publish(self, one, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(RunDirectory, "publish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            execute(config, registry=registry)
    assert RunDirectory.open(config.out).published() == {one.unit_id for one in published}
    assert resume(config.out, registry=registry).outcomes == {"published": 2, "skipped": 5}
    undisturbed = execute(config.model_copy(update={"out": str(tmp_path / "other")}), registry=registry)
    assert content(config.out) == content(undisturbed.directory)


def test_resume_groups_units_as_planned_also_where_the_probe_says_otherwise_now(
    registry, make_config, calls, monkeypatch, toy_module
):
    config = make_config("together", images=[SEVEN])
    with monkeypatch.context() as patched:
        patched.setattr(toy_module.Together, "run_batch", lambda self, tasks: 1 / 0)
        execute(config, registry=registry)
    monkeypatch.setattr(toy_module.Together, "batch_of", classmethod(lambda cls, params: 2))
    assert resume(config.out, registry=registry).outcomes["published"] == 7
    assert list(map(len, calls)) == [4, 3]


def test_batches_run_in_processes_of_their_own(registry, make_config, content, tmp_path):
    config = make_config("together", images=[SEVEN], settings={"references": 3})
    plan, _ = plan_of(config, registry)
    RunDirectory.create_or_open(config.out, plan.to_json(), plan.digest)
    task = partial(run_batch, WorkerContext(config.out, "cpu"))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        outcomes = [outcome for batch in pool.map(task, plan.batches()) for outcome in batch]
    assert [(o.unit_id, o.outcome) for o in outcomes] == [(one.unit_id, "published") for one in plan.units]
    assert resume(config.out, registry=registry).outcomes == {"skipped": 7}
    here = execute(config.model_copy(update={"out": str(tmp_path / "here")}), registry=registry)
    assert content(config.out) == content(here.directory)


# -- failing ----------------------------------------------------------------------------------------------------------


def outcomes(report):
    return {failed.samples[0].id: outcome.message for failed, outcome in report.failures}


def test_an_image_that_cannot_be_read_fails_alone(registry, make_config, photos, calls):
    config = make_config("together")
    (photos / "b.png").write_bytes(b"no image")
    report = execute(config, registry=registry)
    assert set(outcomes(report)) == {"b.png"}
    assert "b.png" in outcomes(report)["b.png"]
    assert calls == [["a.png", "c.png"]]
    with open_run(report.directory) as run:
        first, second = run.units()
        assert first.provenance["batch"] == {"units": [first.unit_id, second.unit_id], "position": 0}
        assert second.provenance["batch"]["position"] == 1


def test_an_embedding_that_is_not_finite_fails_alone(registry, make_config, photos, calls):
    from PIL import Image

    Image.new("L", (8, 8), 0).save(photos / "b.png")
    report = execute(make_config("together", models=["toy:nan_when_dark"]), registry=registry)
    assert set(outcomes(report)) == {"b.png"}
    assert "returns NaN or infinity for 'b.png'" in outcomes(report)["b.png"]
    assert calls == [["a.png", "c.png"]]


def test_no_call_is_made_where_nothing_can_be_read(registry, make_config, photos, calls):
    for path in photos.iterdir():
        path.write_bytes(path.name.encode())
    report = execute(make_config("together"), registry=registry)
    assert set(outcomes(report)) == {"a.png", "b.png", "c.png"}
    assert calls == []


@pytest.mark.parametrize(
    ("behaviour", "failed", "message"),
    [
        ("raises", "abc", "probe 'together': ValueError: none of us"),
        ("short", "abc", "Together.run_batch did not return one result for each task"),
        ("iterator", "abc", "got: list_iterator"),
        ("second_is_nothing", "b", "probe 'together' returned something else than a result"),
        ("second_fails", "b", "not this one"),
    ],
)
def test_what_a_probe_does_wrong_fails_the_units_it_concerns(registry, make_config, behaviour, failed, message):
    report = execute(make_config("together", {"behaviour": behaviour}), registry=registry)
    assert set(outcomes(report)) == {f"{name}.png" for name in failed}
    assert all(message in said for said in outcomes(report).values())
    assert report.outcomes["published"] == 3 - len(failed)


def test_an_interruption_within_a_batch_is_no_failure(registry, make_config, monkeypatch, toy_module):
    def interrupted(self, tasks):
        raise KeyboardInterrupt

    monkeypatch.setattr(toy_module.Together, "run_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        execute(make_config("together"), registry=registry)
    assert RunDirectory.open(make_config().out).failures() == {}


@pytest.mark.parametrize("method", ["batch_of", "references_of"])
@pytest.mark.parametrize("answer", [-1, 1.0, True, None, "3", 1 / 3])
def test_an_answer_that_is_no_count_is_the_plugin_s_fault(make_plan, monkeypatch, method, answer, toy_module):
    monkeypatch.setattr(toy_module.Measure, method, classmethod(lambda cls, params: answer))
    with pytest.raises(PluginError, match=rf"Measure\.{method} returns no count") as caught:
        make_plan()
    assert caught.value.expected == f"an int of at least {int(method == 'batch_of')}"
    assert caught.value.got == repr(answer)


def test_a_batch_of_no_units_is_no_batch(make_plan, monkeypatch, toy_module):
    monkeypatch.setattr(toy_module.Measure, "batch_of", classmethod(lambda cls, params: 0))
    with pytest.raises(PluginError, match="returns no count"):
        make_plan()


@pytest.mark.parametrize("method", ["batch_of", "references_of"])
def test_a_probe_that_fails_to_say_its_count_is_named(make_plan, monkeypatch, method, toy_module):
    monkeypatch.setattr(toy_module.Measure, method, classmethod(lambda cls, params: params.nothing))
    with pytest.raises(PluginError, match=rf"Measure\.{method} failed") as caught:
        make_plan()
    assert "nothing" in caught.value.got


def test_an_executor_that_loses_an_outcome_is_named(registry, make_config, monkeypatch, toy_module):
    def lossy(self, function, batches, *, on_done):
        for batch in batches:
            on_done(batch, function(batch)[:-1])

    monkeypatch.setattr(toy_module.Twice, "map", lossy)
    with pytest.raises(PluginError, match="executor 'twice' stopped"):
        execute(make_config("together", executor="twice"), registry=registry)


def test_units_of_a_batch_differ_in_their_samples_alone(make_plan):
    plan = make_plan("together", images=[SEVEN, "noise:3?size=8&mode=L&seed=5"], models=["toy", "toy?seed=1"])
    assert Counter(map(len, plan.batches())) == {4: 2, 3: 4}
    for batch in plan.batches():
        assert len({replace(one, samples=()) for one in batch}) == 1
