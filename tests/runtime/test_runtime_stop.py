"""Runs that end image sets early: the same units whatever carries them out, fails, or interrupts."""

from __future__ import annotations

import itertools
import json

import pytest

from equivengine import open_run
from equivengine.errors import PluginError, StoreError, UsageError
from equivengine.runtime.config import validated
from equivengine.runtime.engine import execute, plan_of, resume
from equivengine.store import RunDirectory, inspect_run

IMAGES = ["noise:24?size=8&mode=L", "noise:8?size=8&mode=L&seed=1"]
RULE = {"scalar": "measure/norm", "tolerance": 0.1}


@pytest.fixture
def make(tmp_path):
    def config(name, stop=RULE, probes=({"name": "measure"},), **options):
        given = {"probes": list(probes), "models": ["toy"], "images": IMAGES, "stop": stop, "device": "cpu"}
        return validated({**given, "out": str(tmp_path / name), **options})

    return config


def published(path):
    with open_run(path) as run:
        return run.published


def test_images_after_a_narrow_interval_do_not_run_and_are_not_missing(registry, make):
    report = execute(make("run"), registry=registry)
    with open_run(report.directory) as run:
        first, second = run.endings
        assert first.effort.reached
        assert 8 <= first.needed < 24
        assert len(run.published) == first.needed + second.needed == report.outcomes["published"]
        assert len(run.unneeded) == 32 - len(run.published)
        assert run.missing == []
        values = [record.summary["norm"].value for record in run.units()][: first.needed]
        assert min(values) <= first.effort.estimate.low <= first.effort.estimate.high <= max(values)
    with open_run(report.directory / "run.h5") as alone:  # the file says the same by itself
        assert [str(ending) for ending in alone.endings] == [str(first), str(second)]
        assert alone.missing == []
    found = inspect_run(report.directory)
    assert (found.missing, found.findings, found.outdated) == ([], [], False)
    assert len(found.unneeded) == 32 - report.outcomes["published"]
    again = resume(report.directory, registry=registry)
    assert again.outcomes == {"skipped": report.outcomes["published"]}


def test_executors_that_repeat_and_resumed_runs_do_the_same_units(registry, make, toy_module, monkeypatch):
    plain = execute(make("plain"), registry=registry)
    twice = execute(make("twice", executor="twice"), registry=registry)
    assert published(twice.directory) == published(plain.directory)
    seen = 0

    def stop_in_the_second_wave(unit, outcome):
        nonlocal seen
        seen += 1
        if seen == 19:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(make("broken"), registry=registry, on_done=stop_in_the_second_wave)
    with open_run(plain.directory.parent / "broken") as run:
        assert not all(ending.decided for ending in run.endings)
        assert run.missing
    resume(plain.directory.parent / "broken", registry=registry)
    assert published(plain.directory.parent / "broken") == published(plain.directory)


THREE = ["toy", "toy?seed=1", "toy?seed=2"]


@pytest.fixture
def loads(toy_module, monkeypatch):
    """Addresses of the models that are loaded, in order."""
    found = []
    real = toy_module.Toy.load
    monkeypatch.setattr(toy_module.Toy, "load", lambda self, uri: found.append(uri.text) or real(self, uri))
    return found


def test_each_model_is_finished_before_the_next_and_loaded_once(registry, make, loads):
    seen = []
    config = make("run", models=THREE, probes=[{"name": "measure"}, {"name": "difference"}])
    execute(
        config,
        registry=registry,
        on_plan=lambda *arguments: loads.clear(),  # to plan, each was loaded for the digest of its weights
        on_done=lambda unit, outcome: seen.append(unit.model),
    )
    assert list(dict.fromkeys(seen)) == THREE
    assert sum(before != after for before, after in itertools.pairwise(seen)) == 2
    with open_run(config.out) as run:
        assert sum(ending.needed > 8 for ending in run.endings) >= 2  # there were later looks to load models for
    assert sorted(set(loads)) == sorted(loads)


def test_processes_of_one_wave_get_the_looks_of_all_models_and_do_the_same_units(
    registry, make, toy_module, content, monkeypatch
):
    by_model = execute(make("models", models=THREE), registry=registry)
    waves = []
    real = toy_module.Twice.map

    def noted(self, function, batches, **rest):
        waves.append({unit.model for batch in batches for unit in batch})
        real(self, function, batches, **rest)

    monkeypatch.setattr(toy_module.Twice, "map", noted)
    monkeypatch.setattr(toy_module.Twice, "fresh_processes", True)
    by_look = execute(make("looks", models=THREE, executor="twice"), registry=registry)
    assert waves[0] == set(THREE)
    assert published(by_look.directory) == published(by_model.directory)
    assert content(by_look.directory) == content(by_model.directory)


def test_an_executor_that_leaves_needed_units_undone_is_told_apart_from_a_rule(registry, make):
    with pytest.raises(PluginError, match=r"left \d+ of \d+ units undone"):
        execute(make("lazy", executor="lazy"), registry=registry)


def test_a_damaged_result_before_the_look_is_computed_again_and_nothing_else(registry, make):
    report = execute(make("run"), registry=registry)
    before = published(report.directory)
    shard = next(path for path in (report.directory / "shards").rglob(f"{before[3]}.h5"))
    shard.write_bytes(shard.read_bytes()[:-50])
    found = inspect_run(report.directory)
    assert found.rerun == [before[3]]
    again = resume(report.directory, registry=registry)
    assert again.outcomes["published"] == 1
    assert published(report.directory) == before


def test_units_that_fail_are_no_observations_and_no_reason_to_wait(registry, make):
    failing = make("run", probes=[{"name": "measure", "set": {"behaviour": "fails"}}])
    report = execute(failing, registry=registry)
    assert report.outcomes == {"failed": 32, "skipped": 0}
    with open_run(report.directory) as run:
        assert [ending.needed for ending in run.endings] == [24, 8]
        assert run.missing == run.unneeded == []


def test_other_probes_of_the_run_see_all_images(registry, make):
    report = execute(make("run", probes=[{"name": "measure"}, {"name": "difference"}]), registry=registry)
    with open_run(report.directory) as run:
        assert len(run.units("difference")) == 32
        assert len(run.units("measure")) < 32


def test_a_plan_with_rules_is_another_plan_and_one_without_is_as_it_was(registry, make, tmp_path):
    with_rule, other, without = (
        plan_of(make("x", stop), registry)[0] for stop in (RULE, {**RULE, "tolerance": 0.3}, ())
    )
    assert len({plan.digest for plan in (with_rule, other, without)}) == 3
    assert "stop" not in without.to_json()["config"]
    stored = with_rule.to_json()
    RunDirectory.create_or_open(tmp_path / "kept", stored, with_rule.digest)
    path = tmp_path / "kept" / "plan.json"
    text = json.loads(path.read_text())
    text["plan"]["config"]["stop"][0]["tolerance"] = 0.3
    text.pop("sha256")
    from equivengine.store.schema import sealed_json

    path.write_text(sealed_json(text, "the plan"))
    with pytest.raises(StoreError, match="digest"):
        open_run(tmp_path / "kept")


def test_a_scalar_that_results_do_not_have_is_an_error_after_the_first_look(registry, make):
    with pytest.raises(UsageError, match="have no scalar 'nrom'") as caught:
        execute(make("run", {"scalar": "measure/nrom", "tolerance": 0.1}), registry=registry)
    assert "norm" in str(caught.value.expected)


@pytest.mark.parametrize(
    ("images", "options", "warned"),
    [
        (["digits"], {}, ["digits"]),
        (["digits", "noise:9?size=8&mode=L"], {}, ["digits"]),
        (["digits"], {"order": "random"}, []),
        (["digits"], {"stop": ()}, []),
        (IMAGES, {}, []),
    ],
)
def test_sets_whose_order_is_not_known_to_be_random_are_warned_of(registry, make, images, options, warned):
    plan, _ = plan_of(make("x", images=images, limit=9, **{"stop": RULE, **options}), registry)
    assert len(plan.cautions) == len(warned)
    for text, uri in zip(plan.cautions, warned, strict=True):
        assert f"the images of {uri!r} are taken in its own order" in text
        assert "--order random" in text


def test_the_warning_comes_before_the_first_unit(registry, make):
    said, units = [], []
    report = execute(
        make("run", images=["digits"], limit=8),
        registry=registry,
        on_caution=lambda text: said.append((len(units), text)),
        on_done=lambda unit, outcome: units.append(unit),
    )
    assert [before for before, _ in said] == [0]
    assert report.cautions == [text for _, text in said]
    again = resume(report.directory, registry=registry)
    assert (again.cautions, again.outcomes) == (report.cautions, {"skipped": 8})  # the results are no better for it
    for path in (report.directory, report.directory / "run.h5"):  # and whoever reads them is told
        with open_run(path) as run:
            assert [ending.in_own_order for ending in run.endings] == [True]
            assert str(run.endings[0]).endswith("units, in an order not known to be random")


def test_a_plan_that_names_no_sets_in_own_order_is_damaged(registry, make, tmp_path):
    plan, _ = plan_of(make("x", images=["digits"], limit=9), registry)
    assert plan.to_json()["in_own_order"] == ["digits"]
    assert "in_own_order" not in plan_of(make("x"), registry)[0].to_json()
    RunDirectory.create_or_open(tmp_path / "kept", {**plan.to_json(), "in_own_order": 3}, plan.digest)
    with pytest.raises(StoreError, match="the plan is damaged") as caught, open_run(tmp_path / "kept") as run:
        assert run.endings
    assert "in_own_order" in str(caught.value.got)


@pytest.mark.parametrize(
    ("stop", "words"),
    [
        ({"scalar": "norm", "tolerance": 0.1}, "probe/scalar"),
        ({"scalar": "ldlc/random", "tolerance": 0.1}, "a probe of this run"),
        ({"scalar": "measure/norm", "tolerance": 2}, "less than 1"),
        ({"scalar": "measure/norm"}, "missing"),
        ({"scalar": "measure/norm", "tolerance": 0.1, "min_images": 3}, "8"),
        ({"scalar": "measure/norm", "tolerance": 0.1, "tolerence": 3}, "tolerance"),
        ([RULE, {"scalar": "measure/response", "tolerance": 0.1}], "one scalar for each probe"),
    ],
)
def test_wrong_rules_are_refused_with_the_key(make, stop, words):
    with pytest.raises(UsageError, match="stop") as caught:
        make("run", stop)
    assert words in f"{caught.value.what} {caught.value.expected}"


def test_a_probe_of_whole_sets_has_no_images_to_stop_at(registry, make):
    config = make("run", {"scalar": "spread/size", "tolerance": 0.1}, probes=[{"name": "spread"}])
    with pytest.raises(UsageError, match="takes a set as one unit"):
        plan_of(config, registry)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_cluster_does_the_same_units_as_one_process(tmp_path):
    pytest.importorskip("distributed")
    asked = {
        "probes": [{"name": "spectrum", "set": {"rank": 2, "noise_directions": 0}}],
        "images": "digits",
        "limit": 24,
        "stop": {"scalar": "spectrum/stable_rank", "tolerance": 0.5},
        "device": "cpu",
    }
    runs = [
        execute(validated({**asked, "executor": name, "executor_set": given, "out": str(tmp_path / name)}))
        for name, given in (("serial", {}), ("dask", {"workers": 2}))
    ]
    serial, dask = (open_run(report.directory) for report in runs)
    with serial, dask:
        assert 8 <= len(serial.published) < 24
        assert serial.published == dask.published
        assert serial.endings == dask.endings
        assert dask.missing == []
