"""docs/hooks.md and the hook specifications say the same, and every example of the page does what it is there for."""

import ast
import inspect
import logging
import re
import types
import warnings
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import equivengine as eqv
from equivengine.contracts import hookspecs
from equivengine.contracts.unit import SampleRef
from equivengine.runtime.config import RunConfig
from equivengine.runtime.engine import execute
from equivengine.runtime.loading import load_encoder, load_images
from equivengine.runtime.registry import Registry

PAGE = (Path(__file__).parents[1] / "docs" / "hooks.md").read_text(encoding="utf-8")
SPECS = {name: spec for name, spec in vars(hookspecs).items() if name.startswith("equivengine_")}
SECTIONS = {
    re.match(r"\w+", part).group(): part for part in re.split(r"^## (?=equivengine_)", PAGE, flags=re.MULTILINE)[1:]
}


def signature(spec) -> str:
    tree = ast.parse(inspect.getsource(spec)).body[0]
    assert isinstance(tree, ast.FunctionDef)
    return f"{tree.name}({ast.unparse(tree.args)}) -> {ast.unparse(tree.returns)}"


def example(hook: str) -> str:
    (block,) = re.findall(r"```python\n(.*?)```", SECTIONS[hook], re.DOTALL)
    return block


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Install the example of a hook as a plugin beside the shipped ones; returns the registry."""

    def install(hook: str) -> Registry:
        module = f"example_of_{hook}"
        (tmp_path / f"{module}.py").write_text(example(hook), encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        shipped = [
            ("spectrum", "equivengine_plugins.probes.spectrum"),
            ("noise", "equivengine_plugins.datasets.noise"),
            ("serial", "equivengine_plugins.executors.serial"),
            ("example", module),
        ]
        registry = Registry.load(entries=[EntryPoint(name, value, "equivengine") for name, value in shipped])
        assert [(record.state, record.reason) for record in registry.records] == [("loaded", "")] * len(shipped)
        return registry

    return install


def run(registry: Registry, tmp_path: Path, **changes):
    """A run of one small unit on a linear encoder that needs no backend plugin."""
    settings = {
        "probes": [{"name": "spectrum", "set": {"noise_directions": 0}}],
        "models": ["pooled:2"],
        "images": ["noise:1?size=32&mode=L"],
        "out": str(tmp_path / "run"),
    }
    if "pooled" not in registry.backends.names():
        namespace: dict = {}
        exec(example("equivengine_register_backends"), namespace)
        registry.backends.add(namespace["Pooled"], registry.records[0])
    return execute(RunConfig.model_validate(settings | changes), registry=registry)


@pytest.mark.parametrize("name", SPECS)
def test_the_page_shows_the_signature_and_says_when_it_fires(name):
    assert name in SECTIONS, f"docs/hooks.md has no section for {name}"
    assert SECTIONS[name].splitlines()[0] == signature(SPECS[name])
    assert " ".join(SPECS[name].__doc__.split()) in " ".join(SECTIONS[name].split())


def test_the_page_shows_no_hook_that_does_not_exist():
    assert set(SECTIONS) == set(SPECS)


def test_every_hook_is_tried_below():
    tried = {name.removeprefix("test_hook_") for name in globals() if name.startswith("test_hook_")}
    assert tried == {name.removeprefix("equivengine_") for name in SPECS}


@pytest.mark.parametrize("name", SECTIONS)
def test_an_example_implements_its_hook_and_nothing_else(name):
    functions = [node.name for node in ast.parse(example(name)).body if isinstance(node, ast.FunctionDef)]
    assert functions == [name]


def test_hook_register_backends(plugin):
    encoder = load_encoder("pooled:4", device="cpu", registry=plugin("equivengine_register_backends"))
    image = load_images("noise:1?size=32&mode=L", registry=plugin("equivengine_register_backends"))[0].load()
    operator = eqv.JacobianOperator(encoder, encoder.preprocess(image))
    assert operator.shape == (16, 1024)
    # Each output is the mean of 64 pixels.
    assert operator.dense().sum().item() == pytest.approx(16)
    assert operator.dense().max().item() == pytest.approx(1 / 64)


def test_hook_register_probes(plugin, tmp_path):
    registry = plugin("equivengine_register_probes")
    report = run(registry, tmp_path, probes=[{"name": "brightness", "set": {"step": 0.01}}])
    assert report.outcomes["published"] == 1
    with eqv.open_run(report.directory) as found:
        (record,) = found.units("brightness")
        assert record.summary["slope"].value == pytest.approx(2.0)  # |(1, 1, 1, 1)|
        assert all(check.passed for check in record.checks.values())


def test_hook_register_datasets(plugin):
    images = load_images("grey:3", registry=plugin("equivengine_register_datasets"))
    assert [sample.id for sample in images] == ["grey-000", "grey-128", "grey-255"]
    assert [sample.load().getpixel((0, 0)) for sample in images] == [0, 128, 255]
    assert len({sample.digest for sample in images}) == 3


def test_hook_register_executors(plugin, tmp_path):
    registry = plugin("equivengine_register_executors")
    assert run(registry, tmp_path, executor="retry").outcomes["published"] == 1
    calls, done = [], []

    def fail_once(batch):
        calls.append(batch)
        again = len(calls) > 1
        found = ("skipped", "published") if again else ("published", "failed")
        return tuple(eqv.UnitOutcome(unit, outcome) for unit, outcome in zip(batch, found, strict=True))

    registry.executor("retry")[0]().map(fail_once, [("a", "b")], on_done=lambda batch, found: done.append(found))
    assert calls == [("a", "b")] * 2
    assert [[outcome.outcome for outcome in outcomes] for outcomes in done] == [["published", "published"]]


def test_hook_run_started(plugin, tmp_path, monkeypatch):
    registry = plugin("equivengine_run_started")
    seen = []
    monkeypatch.setattr("shutil.disk_usage", lambda path: seen.append(path) or types.SimpleNamespace(free=10))
    with pytest.warns(UserWarning, match="1 units may not fit"):
        assert run(registry, tmp_path).problems == []
    assert seen == [str(tmp_path / "run")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # all is published: nothing to warn of
        assert run(registry, tmp_path).problems == []


def test_hook_unit_finished(plugin, caplog):
    registry = plugin("equivengine_unit_finished")
    sample = SampleRef("noise:1", 0, "noise-000000", "0" * 64)
    unit = eqv.Unit("spectrum", "1", "{}", "pooled:2", "0" * 64, (sample,), 0, "fp32")
    with caplog.at_level(logging.WARNING):
        for seconds in (1.0, 90.0):
            outcome = eqv.UnitOutcome(unit.unit_id, "published", seconds=seconds)
            assert registry.hook("equivengine_unit_finished", unit=unit, outcome=outcome) == []
    assert [record.getMessage() for record in caplog.records] == ["spectrum on noise-000000 took 90 s"]


def test_hook_run_finished(plugin, tmp_path):
    report = run(plugin("equivengine_run_finished"), tmp_path)
    assert report.problems == []
    line = (report.directory / "run.h5.sha256").read_text()
    assert re.fullmatch(r"[0-9a-f]{64}  run\.h5\n", line)


def test_an_observer_that_raises_is_reported_and_harms_nothing(plugin, tmp_path, monkeypatch):
    registry = plugin("equivengine_run_started")

    def broken(path):
        raise OSError("no such disk")

    monkeypatch.setattr("shutil.disk_usage", broken)
    report = run(registry, tmp_path)
    assert report.outcomes["published"] == 1
    (problem,) = report.problems
    assert "'example'" in problem
    assert "no such disk" in problem
