"""Probes on a language encoder: nothing in them needs images, and no number is said to be of pixels."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

transformers = pytest.importorskip("transformers")

import torch  # noqa: E402  # after the skip

import equivengine as eqv  # noqa: E402
from equivengine.runtime.config import ProbeRequest, RunConfig  # noqa: E402
from equivengine.runtime.engine import execute  # noqa: E402

sys.path.append(str(Path(__file__).parents[1] / "backends"))
import hf_cases as cases  # noqa: E402

PROBES = {
    "spectrum": {},
    "ldlc": {"directions": 16, "null_directions": 8, "gradient_steps": 3},
    "numerics": {"directions": 3, "radius_directions": 3, "normal_directions": 3, "null_directions": 3, "steps": 19},
    "lipschitz": {"starts": 1, "steps": 2},
    "match": {"references": 6},
}


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = transformers.BertConfig(**cases.PLAIN, vocab_size=40, max_position_embeddings=24)
    model = transformers.BertModel(config)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(20)  # far from where LayerNorm divides by next to nothing
    model.save_pretrained(folder)
    cases.save_tokenizer(folder, 24)
    return f"hf_text:{folder}?tokens=6"


@pytest.mark.parametrize("probe", sorted(PROBES))
def test_probe_runs_on_token_embeddings_and_names_no_pixels(probe, uri, tmp_path):
    request = ProbeRequest(name=probe, set=PROBES[probe])
    out = str(tmp_path / "r")
    config = RunConfig(probes=(request,), models=uri, images="sentences", limit=1, device="cpu", out=out)
    report = execute(config)
    assert not report.failures
    ((_, unit),) = eqv.open_run(out).results(probe)
    assert unit.summary
    assert all(check.passed for check in unit.checks.values())
    said = [*unit.summary.values(), *unit.arrays.values()]
    units = {one.unit for one in said}
    assert not [one for one in said if "pixel" in one.unit or "pixel" in one.description]
    assert any("coordinate" in one for one in units)


def test_figures_of_a_report_name_no_pixels(uri, tmp_path, monkeypatch):
    from matplotlib.text import Text

    from equivengine.report import presentation
    from equivengine.report.presentation import Presenter
    from equivengine.runtime.loading import default_registry

    request = ProbeRequest(name="spectrum")
    out = str(tmp_path / "r")
    execute(RunConfig(probes=(request,), models=uri, images="sentences", limit=1, device="cpu", out=out))
    labels = []
    real = presentation.drawn

    def noting(title, figure, **facts):
        labels.extend([title, *(text.get_text() for text in figure.findobj(Text))])
        return real(title, figure, **facts)

    monkeypatch.setattr(presentation, "drawn", noting)
    probe, _ = default_registry().probe("spectrum")
    presenter = Presenter(default_registry())
    for record in eqv.open_run(out).units():
        assert presenter.figures(probe(), record)
    assert not presenter.remarks
    assert any("embedding / coordinate" in label for label in labels)
    assert not [label for label in labels if "pixel" in label]
