"""Whatever a model, an image set or a probe does wrong is laid at its own door, and costs its own units alone."""

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import equivengine as eqv
from equivengine import open_run
from equivengine.errors import DataError, ModelError, PluginError
from equivengine.runtime.engine import execute

NOISE = "noise:2?size=8&mode=L"


def failures(directory):
    with open_run(directory) as run:
        return [failure.message for failure in run.failures.values()]


def raising(error):
    def raises(*arguments):
        raise error

    return raises


class Mute(Exception):
    """One that cannot be worded."""

    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize("error", [Mute(), SystemExit(3), ZeroDivisionError("by zero"), ValueError("x" * 100_000)])
def test_an_error_of_a_probe_fails_its_units_in_few_words(make_config, registry, toy_module, monkeypatch, error):
    monkeypatch.setattr(toy_module.Measure, "run", raising(error))
    report = execute(make_config(images=[NOISE]), registry=registry)
    assert +report.outcomes == {"failed": 2}
    for message in failures(report.directory):
        assert message.startswith("probe 'measure': ")
        assert len(message) < 2200


@pytest.mark.parametrize("summary", [{"norm": 1.0}, {"norm": "much"}, {3: eqv.Scalar(1.0, "1", "one")}])
def test_a_result_of_plain_values_fails_its_units(make_config, registry, toy_module, monkeypatch, summary):
    monkeypatch.setattr(toy_module.Measure, "run", lambda self, task: eqv.ProbeResult({}, summary))
    report = execute(make_config(images=[NOISE]), registry=registry)
    assert +report.outcomes == {"failed": 2}


@pytest.mark.parametrize("error", [OSError("disk on fire"), SystemExit(3), IndexError("17")])
def test_an_image_that_its_set_cannot_give_fails_alone(make_config, registry, monkeypatch, error):
    cls, _ = registry.dataset("noise")
    whole = cls.__getitem__
    monkeypatch.setattr(cls, "__getitem__", lambda self, index: raising(error)() if index == 1 else whole(self, index))
    report = execute(make_config(images=["noise:3?size=8&mode=L"]), registry=registry)
    assert +report.outcomes == {"published": 2, "failed": 1}


@pytest.mark.parametrize("error", [OSError("disk on fire"), SystemExit(3)])
def test_an_image_that_cannot_be_loaded_is_the_fault_of_its_set(make_config, registry, monkeypatch, error):
    cls, _ = registry.dataset("noise")
    monkeypatch.setattr(cls, "__getitem__", lambda self, index: eqv.Sample(f"n{index}", f"{index:064}", raising(error)))
    report = execute(make_config(images=[NOISE]), registry=registry)
    assert +report.outcomes == {"failed": 2}
    assert all("plugin 'noise'" in message and "probe" not in message for message in failures(report.directory))


def test_what_a_preprocessing_raises_is_the_fault_of_its_model(make_config, registry, monkeypatch):
    monkeypatch.setattr(eqv.Preprocessing, "__call__", raising(ZeroDivisionError("by zero")))
    report = execute(make_config(images=[NOISE]), registry=registry)
    assert +report.outcomes == {"failed": 2}
    assert all("plugin 'toys'" in message and "cannot preprocess" in message for message in failures(report.directory))


@pytest.mark.parametrize(
    ("sample", "what"),
    [
        pytest.param(("n", "0" * 64), "of a wrong type", id="a tuple"),
        pytest.param(Image.new("L", (8, 8)), "of a wrong type", id="an image"),
        pytest.param(eqv.Sample(3, "0" * 64, str), "id of image 0", id="number for an id"),
        pytest.param(eqv.Sample("", "0" * 64, str), "id of image 0", id="empty id"),
        pytest.param(eqv.Sample("n", None, str), "digest of image 0", id="no digest"),
    ],
)
def test_what_is_no_sample_is_refused_before_it_is_planned(make_plan, registry, monkeypatch, sample, what):
    cls, _ = registry.dataset("noise")
    monkeypatch.setattr(cls, "__getitem__", lambda self, index: sample)
    with pytest.raises(PluginError, match=what) as caught:
        make_plan(images=[NOISE])
    assert "plugin 'noise'" in caught.value.hint


@pytest.mark.parametrize("error", [SystemExit(3), RuntimeError("meta tensor")])
def test_what_a_module_does_on_its_first_call_is_the_fault_of_its_backend(make_plan, toy_module, monkeypatch, error):
    from torch import nn

    monkeypatch.setattr(nn.Module, "eval", raising(error))
    with pytest.raises(ModelError, match="'toy' cannot be loaded") as caught:
        make_plan(images=[NOISE])
    assert "plugin 'toys'" in caught.value.got


@pytest.mark.parametrize(("kind", "default"), [(float, float("nan")), (Any, object())], ids=["nan", "object"])
def test_parameters_that_cannot_be_stored_are_the_fault_of_their_probe(
    make_plan, toy_module, monkeypatch, kind, default
):
    class Odd(eqv.Params):
        odd: kind = default

    monkeypatch.setattr(toy_module.Measure, "Params", Odd)
    with pytest.raises(PluginError, match="parameters of probe 'measure' cannot be stored"):
        make_plan(images=[NOISE])


def test_a_plugin_that_leaves_the_working_directory_loses_nothing(
    make_config, registry, toy_module, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    run, load = toy_module.Measure.run, toy_module.Toy.load
    monkeypatch.setattr(toy_module.Measure, "run", lambda self, task: os.chdir("/") or run(self, task))
    monkeypatch.setattr(toy_module.Toy, "load", lambda self, uri: os.chdir("/") or load(self, uri))
    report = execute(make_config(images=[NOISE], out="here"), registry=registry)
    assert +report.outcomes == {"published": 2}
    assert Path.cwd() == tmp_path
    assert (tmp_path / "here" / "run.h5").exists()


def test_levels_are_not_clipped():
    import numpy as np

    take = eqv.Preprocessing(size=(4, 4), mode="L", mean=(0.0,), std=(1.0,))
    for array in (np.full((4, 4), 30_000, np.uint16), np.full((4, 4), -1, np.int32), np.full((4, 4), 0.5, np.float32)):
        with pytest.raises(DataError, match="8-bit form"):
            take(Image.fromarray(array))
    assert take(Image.fromarray(np.full((4, 4), 255, np.uint16))).min() == 1
    with pytest.raises(DataError, match="no pixels"):
        take(Image.new("L", (0, 3)))
    with pytest.raises(DataError, match="too long"):
        eqv.Preprocessing(size=(224, 224))(Image.new("L", (1, 60_000)))
