"""Probes and commands on a scaled-down ImageBind, through its address."""

import json

import pytest
import torch
from imagebind_reference import Sizes, state_dict

import equivengine as eqv
from equivengine.cli import main

SIZES = Sizes()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("imagebind") / "scaled_down.pth"
    torch.save(state_dict(SIZES), path)
    return f"imagebind:{path}?heads=4&text_heads=2"


@pytest.fixture
def probe(model, tmp_path, monkeypatch, capsys):
    """Run one probe on bundled photographs, and return the document that it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EQUIVENGINE_PROGRESS", "none")

    def run(name, *arguments, options="", limit=1):
        capsys.readouterr()
        given = ["--model", model + options, "--images", "samples", "--limit", str(limit), "--out", "run", "--json"]
        code = main.run(["probe", "--plugin", name, *given, *map(str, arguments)])
        said = capsys.readouterr()
        assert code == 0, said.err + said.out
        return json.loads(said.out)

    return run


def settings(**values):
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def rows(document):
    return {row["name"]: row["value"] for section in document["sections"] for row in section["rows"]}


def test_ldlc_tells_null_random_and_gradient_directions_apart(probe):
    found = rows(probe("ldlc", *settings(directions=6, null_directions=3, singular_directions=1, gradient_steps=2)))
    assert found["null"] < 1e-3 * found["random"]
    assert found["null_leakage"] < 1e-12 * found["random"]
    assert 2 * found["random"] < found["gradient_first"] <= 1.001 * found["s_1"]
    assert found["singular_top"] == pytest.approx(found["s_1"], rel=1e-3)


@pytest.mark.parametrize(("options", "rank"), [("", 19), ("&normalize=false", 20)])
def test_spectrum_lacks_the_direction_that_normalisation_takes(probe, options, rank):
    found = rows(probe("spectrum", options=options))
    assert found["rank"] == rank
    assert found["null_dim"] == 3 * SIZES.image**2 - rank


def test_match_makes_one_photograph_embed_like_another(probe):
    found = rows(probe("match", *settings(references=3, max_jacobians=12), limit=2))
    assert found["relative_start"] > 0.1
    assert found["relative_matched"] < 1e-5
    assert found["cosine_matched"] > 1 - 1e-9
    assert found["cosine_start"] < 0.9


def test_match_makes_a_photograph_embed_like_a_text(probe):
    found = rows(probe("match", *settings(references=3, max_jacobians=12, text="a photo of a cat")))
    assert found["text_norm"] == pytest.approx(1, abs=1e-6)
    assert found["text_scaled"] == pytest.approx(1, abs=1e-6)
    assert found["cosine_start"] < 0.5
    assert found["cosine_matched"] > 1 - 1e-9


def test_transfer_classifies_by_prompts_at_the_recorded_scale(probe, tmp_path):
    prompts = json.dumps(["a photo of a cat", "a photo of a cup of coffee"])
    document = probe("transfer", *settings(pairs=2, heads="text", prompts=prompts, references=3), limit=3)
    found = rows(document)
    assert found["converged"] == 1
    assert found["success_text"] == 1
    assert found["tv_max_text"] < 1e-3
    with eqv.open_run(tmp_path / "run") as run:
        ((_, result),) = run.results("transfer")
    assert "the model's logit_scale" in json.dumps(dict(result.provenance), default=str)


def test_no_operation_is_left_to_pytorchs_own_derivative(capsys):
    assert main.run(["doctor", "--json", "--device", "cpu", "--model", "imagebind:tiny?weights=random"]) == 0
    coverage = json.loads(capsys.readouterr().out)["model"]["coverage"]
    assert coverage["scaled_dot_product_attention"]
    assert coverage["convolution"] == {"matrix product": 1}
    assert not [name for name, rules in coverage.items() if "torch" in rules]


def test_wrong_checkpoint_is_one_short_message(tmp_path, monkeypatch, capsys):
    state = state_dict(SIZES)
    del state["modality_heads.vision.0.bias"]
    torch.save(state, tmp_path / "wrong.pth")
    monkeypatch.chdir(tmp_path)
    model = f"imagebind:{tmp_path / 'wrong.pth'}?heads=4&text_heads=2"
    assert main.run(["probe", "--plugin", "ldlc", "--model", model, "--images", "samples", "--limit", "1"]) == 1
    said = capsys.readouterr().err
    assert "1 missing: modality_heads.vision.0.bias" in " ".join(said.split())
    assert "Traceback" not in said
    assert len(said.splitlines()) < 12
