"""The engine: what it stores with every result, what it does with failures, and what observers get to see."""

from __future__ import annotations

import json
import multiprocessing
import platform
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import pytest
import torch

import equivengine
from equivengine import open_run
from equivengine.errors import DataError, EngineError, StoreError
from equivengine.runtime import provenance
from equivengine.runtime.config import validated
from equivengine.runtime.engine import execute, resume
from equivengine.runtime.loading import Workbench, load_encoder, load_images
from equivengine.runtime.registry import Registry
from equivengine.runtime.worker import WorkerContext, run_batch
from equivengine.store import RunDirectory


def records(path):
    with open_run(path) as run:
        return run.units()


def test_every_result_carries_its_whole_provenance(registry, make_config, photos):
    config = make_config("difference", seed=5, device="cpu", targets="noise:2?size=8&mode=L")
    report = execute(config, registry=registry)
    for record in records(report.directory):
        found = record.provenance
        assert found["equivengine"] == equivengine.__version__
        assert found["plugins"]["probe"] == {
            "name": "toys", "module": "equivengine_toys", "distribution": "toys", "version": "1.0"
        }  # fmt: skip
        assert found["plugins"]["backend"]["name"] == "toys"
        assert found["plugins"]["images"]["name"] == "folder"
        assert found["plugins"]["targets"]["name"] == "noise"
        assert found["libraries"]["torch"] == torch.__version__
        assert {"numpy", "h5py", "timm", "open_clip_torch", "pillow", "pluggy"} <= set(found["libraries"])
        assert "git_commit" in found
        assert found["device"]["type"] == "cpu"
        assert found["device"]["name"]
        assert found["precision"] == "fp32"
        assert found["attention"] == "substituted"
        assert found["random_weights"] is True
        assert set(found["extension"]) == {"available", "loaded", "reason", "facts"}
        assert isinstance(found["reference_operations"], list)
        assert found["seed"] == 5
        assert found["model"]["weights_digest"] == record.unit.weights_digest
        assert found["model"]["license"] == "CC0-1.0"
        assert [s["digest"] for s in found["samples"]] == [s.digest for s in record.unit.samples]
        assert all(len(s["digest"]) == 64 for s in found["samples"])
        assert found["python"] == platform.python_version()
        assert found["threads"] >= 1
        assert found["seconds"] > 0
        assert found["started"].endswith("+00:00")


def test_provenance_says_which_operations_ran_where(registry, tmp_path):
    config = validated({"probes": [{"name": "spectrum"}], "limit": 1, "out": str(tmp_path / "run")})
    report = execute(config, registry=registry)
    (record,) = records(report.directory)
    operations = record.provenance["operations"]
    assert operations
    assert all(count > 0 for calls in operations.values() for count in calls.values())
    by_reference = {name for name, calls in operations.items() if "reference" in calls}
    assert record.provenance["reference_operations"] == sorted(by_reference)


def test_the_commit_is_of_this_checkout_also_within_a_hook_of_another(monkeypatch, tmp_path):
    provenance.git_commit.cache_clear()
    plain = provenance.git_commit()
    provenance.git_commit.cache_clear()
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    assert provenance.git_commit() == plain
    provenance.git_commit.cache_clear()


def test_failures_are_reported_stored_and_tried_again(registry, make_config, photos):
    whole = (photos / "b.png").read_bytes()
    execute(make_config(), registry=registry)
    run = RunDirectory.open(make_config().out)
    for shard in (run.path / "shards").rglob("*.h5"):
        shard.unlink()
    (photos / "b.png").write_bytes(b"gone")
    report = resume(run.path, registry=registry)
    assert report.outcomes == {"published": 2, "failed": 1, "skipped": 0}
    ((unit, outcome),) = report.failures
    assert (unit.samples[0].id, outcome.error_type) == ("b.png", "DataError")
    (failure,) = run.failures().values()
    assert failure.message == outcome.message
    assert failure.provenance["equivengine"] == equivengine.__version__
    (photos / "b.png").write_bytes(whole)
    report = resume(run.path, registry=registry)
    assert report.outcomes == {"published": 1, "skipped": 2}
    assert run.failures() == {}


def test_a_store_error_of_the_store_stops_a_run_and_one_of_a_probe_does_not(registry, make_config, monkeypatch):
    cls, _ = registry.probe("measure")

    def confused(self, task):
        raise StoreError("a file of my own is broken")

    with monkeypatch.context() as patched:
        patched.setattr(cls, "run", confused)
        assert execute(make_config(), registry=registry).outcomes["failed"] == 3

    def full(self, *arguments):
        raise StoreError("there is no room")

    monkeypatch.setattr(RunDirectory, "publish", full)
    with pytest.raises(StoreError, match="no room"):
        resume(make_config().out, registry=registry)


def test_a_probe_of_another_version_than_planned_is_refused(registry, make_config, monkeypatch):
    execute(make_config(settings={"behaviour": "raises"}), registry=registry)
    cls, _ = registry.probe("measure")
    monkeypatch.setattr(cls, "version", "2")
    report = resume(make_config().out, registry=registry)
    assert "has changed since the run was planned" in report.failures[0][1].message
    assert "expected: version 1" in report.failures[0][1].message


def test_a_message_that_is_no_unicode_is_kept(registry, make_config, monkeypatch):
    cls, _ = registry.probe("measure")

    def confused(self, task):
        raise DataError("the file caf\udce9.png is broken")

    monkeypatch.setattr(cls, "run", confused)
    report = execute(make_config(), registry=registry)
    assert "caf\\udce9.png" in report.failures[0][1].message
    with open_run(report.directory) as run:
        assert len(run.failures) == 3


def test_observers_see_the_run_in_order(registry, make_config, site):
    site.install(
        "diary",
        """
        import equivengine as eqv
        EQUIVENGINE_API = (1, 0)
        SEEN = []
        @eqv.hookimpl
        def equivengine_run_started(run_directory, unit_count, published):
            SEEN.append(("started", unit_count, published))
        @eqv.hookimpl
        def equivengine_unit_finished(unit, outcome):
            SEEN.append((unit.samples[0].id, outcome.outcome))
        @eqv.hookimpl
        def equivengine_run_finished(run_directory, outcomes):
            SEEN.append(("finished", outcomes))
        """,
    )
    report = execute(make_config(), registry=Registry.load())
    import plugin_diary

    assert plugin_diary.SEEN == [
        ("started", 3, 0),
        ("a.png", "published"),
        ("b.png", "published"),
        ("c.png", "published"),
        ("finished", {"published": 3, "skipped": 0}),
    ]
    assert report.problems == []


def test_a_log_that_cannot_be_written_is_a_problem_and_no_failure(registry, make_config, tmp_path):
    execute(make_config(), registry=registry)
    log = tmp_path / "run" / "log.jsonl"
    log.unlink()
    log.mkdir()
    report = resume(tmp_path / "run", registry=registry)
    assert report.outcomes == {"skipped": 3}
    assert "plugin 'jsonl_log'" in report.problems[0]


def test_units_run_in_processes_of_their_own(registry, make_config, tmp_path):
    from equivengine.runtime.engine import plan_of

    config = make_config()
    plan, _ = plan_of(config, registry)
    directory = RunDirectory.create_or_open(tmp_path / "run", plan.to_json(), plan.digest)
    task = partial(run_batch, WorkerContext(str(tmp_path / "run"), "cpu", ("jsonl_log",)))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        outcomes = [outcome for (outcome,) in pool.map(task, plan.batches())]
        assert [o.outcome for o in outcomes] == ["published"] * 3
        assert pool.submit(task, plan.batches()[0]).result()[0].outcome == "skipped"
    assert directory.published() == {unit.unit_id for unit in plan.units}


def test_the_result_does_not_depend_on_the_rest_of_the_plan(registry, make_config, tmp_path):
    first = execute(make_config(), registry=registry)
    second = execute(make_config(limit=1, out=str(tmp_path / "one")), registry=registry)
    (alone,) = records(second.directory)
    same = next(r for r in records(first.directory) if r.unit_id == alone.unit_id)
    assert same.summary == alone.summary


def test_errors_cross_processes():
    import pickle

    error = DataError("what", expected=1, got=2, hint="do")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (DataError, str(error))


class TestWorkbench:
    def test_keeps_few_encoders_and_opens_sets_once(self, registry):
        bench = Workbench(registry, "cpu", keep=1)
        first = bench.encoder("toy")
        assert bench.encoder("toy") is first
        bench.encoder("toy?seed=1")
        assert bench.encoder("toy") is not first
        assert bench.images("samples") is bench.images("samples")

    def test_does_not_try_again_what_could_not_be_loaded(self, registry, tmp_path):
        bench = Workbench(registry, "cpu")
        weights = tmp_path / "seed"
        address = f"toy?weights={weights}"
        with pytest.raises(EngineError, match="FileNotFoundError"):
            bench.encoder(address)
        weights.write_text("1")
        with pytest.raises(EngineError, match="FileNotFoundError"):
            bench.encoder(address)

    def test_names_who_is_behind_an_address(self, registry):
        bench = Workbench(registry)
        assert bench.backend_owner("toy?seed=3").name == "toys"
        assert bench.dataset_owner("noise:3").name == "noise"


def test_the_public_loaders_use_what_is_installed(toys, monkeypatch):
    from equivengine.runtime import loading

    monkeypatch.setattr(loading, "_registry", None)
    assert load_encoder("toy", device="cpu").spec.embedding_dim == 5
    assert len(load_images("noise:3?size=8")) == 3
    monkeypatch.setattr(loading, "_registry", None)


def test_the_log_is_one_json_line_for_each_event(registry, make_config):
    report = execute(make_config(settings={"behaviour": "raises"}), registry=registry)
    lines = [json.loads(line) for line in (report.directory / "log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["run_started", *["unit_finished"] * 3, "run_finished"]
    assert lines[0]["units"] == 3
    assert lines[1]["samples"] == ["a.png"]
    assert lines[1]["outcome"] == "failed"
    assert "no luck" in lines[1]["message"]
    assert lines[-1]["outcomes"] == {"failed": 3, "skipped": 0}
    assert all(line["time"].endswith("+00:00") for line in lines)
