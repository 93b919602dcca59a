"""What a plugin leaves changed for the whole process is put back, and told: no unit depends on its neighbors."""

from __future__ import annotations

import random
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from equivengine import load_encoder, open_run
from equivengine.runtime import switches
from equivengine.runtime.config import validated
from equivengine.runtime.engine import execute
from equivengine.runtime.registry import Registry

NOISE = "noise:3?size=8&mode=L"


def _enter_autocast():
    torch.set_autocast_enabled("cpu", True)


#: How a switch is left on, and what it is called.
FLIPS = {
    "default dtype": (lambda: torch.set_default_dtype(torch.float64), "torch.get_default_dtype"),
    "default device": (lambda: torch.set_default_device("meta"), "torch.get_default_device"),
    "threads": (lambda: torch.set_num_threads(torch.get_num_threads() + 1), "torch.get_num_threads"),
    "grad mode": (lambda: torch.set_grad_enabled(False), "torch.is_grad_enabled"),
    "anomaly": (lambda: torch.autograd.set_detect_anomaly(True, False), "torch.autograd.set_detect_anomaly"),
    "denormal": (lambda: torch.set_flush_denormal(True), "torch.set_flush_denormal"),
    # As torch.use_deterministic_algorithms does, which imports its compiler along: seconds.
    "deterministic": (
        lambda: torch._C._set_deterministic_algorithms(True, warn_only=False),
        "torch.use_deterministic_algorithms",
    ),
    "warn only": (
        lambda: torch._C._set_deterministic_algorithms(True, warn_only=True),
        "torch.use_deterministic_algorithms",
    ),
    "autocast": (_enter_autocast, "torch.set_autocast_enabled('cpu')"),
    "matmul precision": (lambda: torch.set_float32_matmul_precision("medium"), "torch.get_float32_matmul_precision"),
    "tf32": (lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True), "fp32_precision of cuda.matmul"),
    "tf32 of cudnn": (lambda: setattr(torch.backends.cudnn, "allow_tf32", False), "torch.backends.cudnn.allow_tf32"),
    "newer tf32": (
        lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
        "fp32_precision of cuda.matmul",
    ),
    "newer tf32, all": (lambda: setattr(torch.backends, "fp32_precision", "tf32"), "fp32_precision of generic.all"),
    "bf16 of mkldnn": (
        lambda: setattr(torch.backends.mkldnn.conv, "fp32_precision", "bf16"),
        "fp32_precision of mkldnn.conv",
    ),
    "benchmark": (lambda: setattr(torch.backends.cudnn, "benchmark", True), "torch.backends.cudnn.benchmark"),
    "attention": (lambda: torch.backends.cuda.enable_math_sdp(False), "torch.backends.cuda.enable_math_sdp"),
    "numpy": (lambda: np.seterr(all="raise"), "numpy.seterr"),
    "truncated files": (
        lambda: setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True),
        "PIL.ImageFile.LOAD_TRUNCATED_IMAGES",
    ),
    "huge files": (lambda: setattr(Image, "MAX_IMAGE_PIXELS", None), "PIL.Image.MAX_IMAGE_PIXELS"),
}


@pytest.fixture
def unsaid(monkeypatch):
    """As in a process that has warned of nothing."""
    monkeypatch.setattr(switches, "_said", set())


@pytest.mark.parametrize("name", FLIPS)
def test_each_switch_is_put_back_and_noticed(name, unsaid):
    flip, switch = FLIPS[name]
    before = switches._positions()
    with switches.noticing() as changes, switches.put_back("a plugin"):
        flip()
        assert switches._positions() != before
    assert switches._positions() == before
    assert switch in {change.switch for change in changes}
    assert {change.left_by for change in changes} == {"a plugin"}
    assert all(change.before != change.after for change in changes)


def test_all_at_once_they_are_put_back(unsaid):
    before = switches._positions()

    def fail():
        for flip, _ in FLIPS.values():
            flip()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), switches.put_back("a plugin"):
        fail()
    assert switches._positions() == before


@pytest.mark.slow
def test_deterministic_algorithms_are_put_back_where_the_public_function_set_them(unsaid):
    with switches.put_back("a plugin"):
        torch.use_deterministic_algorithms(True)
    assert not torch.are_deterministic_algorithms_enabled()
    import torch._inductor.config as compiler

    assert not compiler.deterministic


def test_what_a_user_has_set_stays(unsaid):
    with switches.put_back("the test"):
        torch.set_default_dtype(torch.float64)
        torch.backends.fp32_precision = "tf32"  # older names raise from here on
        before = switches._positions()
        with switches.put_back("a plugin"):
            torch.set_default_dtype(torch.float32)
            torch.backends.mkldnn.matmul.fp32_precision = "ieee"
        assert switches._positions() == before
        assert torch.get_default_dtype() == torch.float64


def test_where_nothing_is_changed_nothing_is_said(caplog):
    with switches.noticing() as changes, switches.put_back("a plugin"):
        torch.zeros(3).sum()
    assert changes == []
    assert not caplog.records


def test_generators_start_from_the_seed_and_go_on_where_they_were():
    def draw():
        return random.random(), float(np.random.random()), float(torch.rand(()))

    with switches.generators_put_back():
        state = torch.get_rng_state()
        with switches.generators_put_back(7):
            first = draw()
        assert torch.equal(torch.get_rng_state(), state)
        draw()
        with switches.generators_put_back(7):
            assert draw() == first
        with switches.generators_put_back(8):
            assert draw() != first


@pytest.fixture
def messy(site):
    """Plugins beside the toys: a probe that draws from everything global, and one that leaves it all changed."""
    site.install("toys", module="equivengine_toys")
    site.install(
        "messy",
        """
        import random
        import warnings

        import numpy as np

        import equivengine as eqv

        EQUIVENGINE_API = (1, 0)

        class Watchful(eqv.Probe[eqv.Params]):
            name = "watchful"
            version = "1"
            summary = "what it sees of the process"

            def run(self, task):
                import torch

                values = {
                    "python": random.random(),
                    "numpy": np.random.random(),
                    "torch": float(torch.rand(())),
                    "bits": torch.finfo(torch.get_default_dtype()).bits,
                    "grad": torch.is_grad_enabled(),
                    "filters": len(warnings.filters),
                    "sum": float(torch.ones(3).div(3).sum()),
                }
                return eqv.ProbeResult({}, {name: eqv.Scalar(float(one), "1", name) for name, one in values.items()})

        class Vandal(eqv.Probe[eqv.Params]):
            name = "vandal"
            version = "1"
            summary = "leaves everything changed"

            def run(self, task):
                import torch

                torch.set_default_dtype(torch.float64)
                torch.set_grad_enabled(False)
                torch.manual_seed(0)
                np.random.seed(0)
                random.seed(0)
                warnings.simplefilter("error")
                return eqv.ProbeResult({}, {"one": eqv.Scalar(1.0, "1", "one")})

        class Careless(eqv.Backend):
            name = "careless"
            summary = "the toy, loaded carelessly"

            def load(self, uri):
                import torch
                import equivengine_toys

                torch.set_default_dtype(torch.float64)
                warnings.simplefilter("error")
                torch.backends.cudnn.benchmark = True
                torch.manual_seed(0)
                model = equivengine_toys.Toy().load(eqv.URI.parse("toy"))
                return eqv.LoadedModel(module=model.module.float(), preprocessing=model.preprocessing)

        @eqv.hookimpl
        def equivengine_register_probes():
            return [Watchful, Vandal]

        @eqv.hookimpl
        def equivengine_register_backends():
            return [Careless]
        """,
    )
    return Registry.load(only=["toys", "messy", "noise", "serial"])


def test_what_a_module_sets_while_it_is_imported_and_an_observer_between_units_is_put_back(site, tmp_path, unsaid):
    site.install("toys", module="equivengine_toys")
    site.install(
        "noisy",
        """
        import torch

        import equivengine as eqv

        EQUIVENGINE_API = (1, 0)
        torch.backends.cudnn.benchmark = True
        calls = []

        @eqv.hookimpl
        def equivengine_unit_finished(unit, outcome):
            calls.append(torch.get_default_dtype())
            torch.set_default_dtype(torch.float64)
        """,
    )
    registry = Registry.load(only=["toys", "noisy", "noise", "serial"])
    assert [record.state for record in registry.records if record.name == "noisy"] == ["loaded"]
    assert not torch.backends.cudnn.benchmark
    config = {"probes": [{"name": "measure"}], "models": ["toy"], "images": [NOISE], "out": str(tmp_path / "run")}
    report = execute(validated(config), registry=registry)
    assert +report.outcomes == {"published": 3}
    assert sys.modules["plugin_noisy"].calls == [torch.float32] * 3
    assert torch.get_default_dtype() == torch.float32


def run(registry, path, probes, model="toy"):
    config = {"probes": [{"name": name} for name in probes], "models": [model], "images": [NOISE], "out": str(path)}
    report = execute(validated(config), registry=registry)
    assert not report.failures
    with open_run(path) as opened:
        return {record.unit_id: record for record in opened.units("watchful")}


def test_a_unit_does_not_depend_on_what_ran_before_it(messy, tmp_path, unsaid, caplog):
    alone = run(messy, tmp_path / "alone", ["watchful"])
    after = run(messy, tmp_path / "after", ["vandal", "watchful"])
    assert {key: one.summary for key, one in alone.items()} == {key: one.summary for key, one in after.items()}
    draws = {one.summary["torch"].value for one in alone.values()}
    assert len(draws) == 3, "each unit draws its own numbers"
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()


def test_who_left_a_switch_changed_stands_in_provenance_and_in_one_warning(messy, tmp_path, unsaid, caplog):
    run(messy, tmp_path / "run", ["vandal", "watchful"])
    with open_run(tmp_path / "run") as opened:
        (first, *_), watchful = opened.units("vandal"), opened.units("watchful")
    assert [(one["switch"], one["before"], one["after"]) for one in first.provenance["switches"]] == [
        ("torch.get_default_dtype", "torch.float32", "torch.float64"),
        ("torch.is_grad_enabled", "True", "False"),
    ]
    assert "plugin 'messy'" in first.provenance["switches"][0]["left_by"]
    assert all("switches" not in record.provenance for record in watchful)
    warned = [record.getMessage() for record in caplog.records if "left torch." in record.getMessage()]
    assert len(warned) == 2
    assert "plugin 'messy'" in warned[0]
    assert "it was put back to torch.float32" in warned[0]


def test_what_loading_leaves_changed_is_put_back_and_told_with_each_unit(messy, tmp_path, unsaid):
    filters = list(warnings.filters)
    state = torch.get_rng_state()
    load_encoder("careless", registry=messy)
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch.get_default_dtype(), torch.backends.cudnn.benchmark) == (torch.float32, False)
    assert warnings.filters == filters
    for record in run(messy, tmp_path / "run", ["watchful"], "careless").values():
        names = [change["switch"] for change in record.provenance["switches"]]
        assert names == ["torch.get_default_dtype", "torch.backends.cudnn.benchmark"]
