"""Calls in Python that are refused, beyond those that the tests of each room make."""

from __future__ import annotations

import dataclasses
import importlib
import types

import numpy as np
import pytest
import torch

import equivengine as eqv
from equivengine.errors import ExtensionError
from equivengine.linalg import svd
from equivengine.linalg.orthonormal import orthonormalise
from equivengine.matching import levenberg_marquardt
from equivengine.ops import extension
from equivengine_plugins.probes.transfer import trained

X = torch.rand(1, 4)
DESCRIBED = ("k",), "1", "What it is."


class Hungry:
    """Fits into memory when it is called, and not when it is differentiated."""

    def __init__(self):
        self.calls = 0

    def __call__(self, z):
        self.calls += 1
        if self.calls > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return z


def broken(z):
    raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


REFUSED = {
    "array-dtype": (lambda: eqv.Array(np.array([None]), *DESCRIBED), "dtype that cannot be stored"),
    "array-dims": (lambda: eqv.Array(np.zeros((2, 2)), *DESCRIBED), "one dimension name per axis"),
    "interval": (lambda: eqv.Scalar(0.5, "1", "share", interval=(1.0, 0.0)), "is reversed"),
    "status": (lambda: eqv.ProbeResult({}, {}, status="odd"), "unknown status"),
    "message": (lambda: eqv.ProbeResult({}, {}, status="failed"), "needs a message"),
    "lengths": (
        lambda: eqv.ProbeResult({"a": eqv.Array([1], *DESCRIBED), "b": eqv.Array([1, 2], *DESCRIBED)}, {}),
        "two lengths",
    ),
    "name": (lambda: eqv.ProbeResult({}, {"a b": eqv.Scalar(1.0, "1", "one")}), "result name"),
    "picture": (lambda: eqv.Picture(np.zeros((2, 2, 4), np.uint8), "Four channels."), "has a wrong shape"),
    "class-means": (
        lambda: trained._mean(types.SimpleNamespace(embeddings=X.repeat(2, 1), index=torch.arange(2), classes="ab")),
        "two different references",
    ),
    "module": (
        lambda: eqv.Encoder(eqv.LoadedModel(module=len, preprocessing=None, random_weights=True), uri="x"),
        "wrong type",
    ),
    "memory": (lambda: eqv.JacobianOperator(Hungry(), X[0]).vjp(X), "does not fit into memory"),
    "f-changes-dtype": (lambda: eqv.JacobianOperator(lambda z: z.double(), X[0]), "changes the dtype"),
    "matrix-nan": (lambda: svd(torch.full((3, 3), float("nan"))).require(), "could not be computed"),
    "matrix-3d": (lambda: svd(torch.zeros(2, 2, 2)), "svd needs a matrix"),
    "matrix-int": (lambda: svd(torch.eye(3, dtype=torch.int64)), "float32 or float64"),
    "matrix-empty": (lambda: svd(torch.zeros(0, 3)), "operator is empty"),
    "operator-none": (lambda: svd("matrix"), "a matrix or an operator"),
    "operator-complex": (lambda: svd(types.SimpleNamespace(shape=(2, 2), dtype="complex64")), "real operator"),
    "operator-bare": (lambda: svd(types.SimpleNamespace(shape=(2, 2))), "cannot multiply"),
    "f-raises": (lambda: levenberg_marquardt(broken, X, X[:, :2], distance=1e-3), "cannot be evaluated"),
}


@pytest.mark.parametrize("call", REFUSED)
def test_a_call_that_is_refused(call):
    made, says = REFUSED[call]
    with pytest.raises(eqv.EngineError, match=says):
        made()


def test_rows_whose_random_completion_depends_on_them_are_an_error(monkeypatch):
    """As if random numbers were bad: zeros are no directions."""
    monkeypatch.setattr(torch, "randn", lambda shape, **options: torch.zeros(shape, dtype=options["dtype"]))
    with pytest.raises(eqv.NumericsError, match="depend on the rows"):
        orthonormalise(torch.ones(2, 4))


def test_rows_that_no_number_of_passes_makes_orthonormal_are_an_error(monkeypatch):
    """As if the passes were not enough."""
    module = importlib.import_module("equivengine.linalg.orthonormal")
    monkeypatch.setattr(module, "_MAX_PASSES", 1)
    rows = torch.eye(3, 8) + 1e-6 * torch.rand(3, 8)
    rows[1] = rows[0] * (1 - 1e-5) + 1e-4 * rows[1]
    with pytest.raises(eqv.NumericsError, match="not orthonormal after"):
        orthonormalise(rows)


def test_an_extension_that_is_required_and_absent(monkeypatch):
    monkeypatch.setattr(extension, "_module", None)
    monkeypatch.setattr(extension, "find", lambda: None)
    monkeypatch.setenv("EQUIVENGINE_EXTENSION", "require")
    with pytest.raises(ExtensionError, match="there is no compiled extension"):
        extension.load()


def test_an_extension_that_the_loader_does_not_take(monkeypatch, tmp_path):
    def refuse(name):
        raise ImportError("undefined symbol: _ZN3c105Error")

    monkeypatch.setattr(extension, "_module", None)
    monkeypatch.setattr(extension, "find", lambda: tmp_path / "_C.so")
    monkeypatch.setattr(extension, "read_facts", lambda path: {})
    monkeypatch.setattr(extension, "check_facts", lambda facts, path: None)
    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(ExtensionError, match="cannot be loaded"):
        extension.load()


def test_samples_for_a_probe_need_a_model_that_takes_them():
    from equivengine.cli import plugin_worker

    events = []
    plugin_worker.check(plugin_worker.Request("ldlc", None, "samples", ()), events.append)
    assert any("--images needs a model" in str(event) for event in events)


@pytest.fixture
def work(lasting_toys, tmp_path, monkeypatch):
    """The work of a run of one unit, as an executor hands it to a worker."""
    from equivengine.cli import main
    from equivengine.runtime import work as works
    from equivengine.runtime.loading import default_registry
    from equivengine.runtime.plan import Plan
    from equivengine.runtime.worker import WorkerContext
    from equivengine.store import RunDirectory

    monkeypatch.chdir(tmp_path)
    images = "noise:1?size=8&mode=L"
    assert main.run(["probe", "--plugin", "measure", "--model", "toy", "--images", images, "--out", "run"]) == 0
    stored = RunDirectory.open(tmp_path / "run").stored_plan
    plan = Plan.from_store(stored, tmp_path / "run")
    context = WorkerContext(str(tmp_path / "run"), "cpu")
    made = works.work_of(plan, context, default_registry())
    made.check()
    return made


WORKERS = {
    "version": (lambda work: {"equivengine_version": "0.0"}, "another version of equivengine"),
    "no-plugin": (
        lambda work: {"plugins": (dataclasses.replace(work.plugins[0], name="gone"),)},
        "lacks the plugin 'gone'",
    ),
    "other-plugin": (
        lambda work: {"plugins": (dataclasses.replace(work.plugins[0], distribution="other"),)},
        "another plugin",
    ),
    "no-run": (lambda work: {"context": dataclasses.replace(work.context, directory="/nowhere")}, "run directory"),
    "other-run": (lambda work: {"plan_digest": "0" * 64}, "sees another run"),
    "no-directory": (lambda work: {"working_directory": "/nowhere"}, "the directory that the command was given in"),
}


@pytest.mark.parametrize("other", WORKERS)
def test_a_worker_that_is_not_like_where_the_run_was_started(work, other):
    change, says = WORKERS[other]
    with pytest.raises(eqv.EngineError, match=says):
        dataclasses.replace(work, **change(work)).check()


def test_a_plan_whose_units_are_not_those_of_its_digest(work, tmp_path):
    from equivengine.runtime.plan import Plan
    from equivengine.store import RunDirectory

    stored = RunDirectory.open(tmp_path / "run").stored_plan
    with pytest.raises(eqv.EngineError, match="not those of its digest"):
        Plan.from_store(dataclasses.replace(stored, digest="0" * 64), tmp_path / "run")
