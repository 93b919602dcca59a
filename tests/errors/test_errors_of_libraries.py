"""Models and sets that a library, an installation or another process spoils."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

import equivengine as eqv

GREY = "noise:2?size=8&mode=L"
PROBE = ("probe", "--plugin", "measure", "--images", GREY, "--model")


def raises(error):
    def call(*arguments: object, **named: object) -> object:
        raise error

    return call


def test_bundled_weights_that_are_damaged(refused, monkeypatch, tmp_path):
    import equivengine_plugins.backends.digits as digits

    card = {"weights": {"file": "weights.safetensors", "sha256": "0" * 64}}
    monkeypatch.setattr(digits, "DATA", tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"flipped")
    with pytest.raises(eqv.WeightsError, match="install the package again"):
        digits._shipped(card)


def test_digits_of_another_scikit_learn(monkeypatch):
    pytest.importorskip("sklearn")
    from equivengine_plugins.backends.digits import split

    loaded = split.load_source()
    monkeypatch.setattr(split, "load_source", lambda: split.Digits(loaded.images + 1, loaded.labels, loaded.indices))
    with pytest.raises(eqv.DataError, match=r"MODEL_CARD\.md"):
        split.load_training()


@pytest.mark.parametrize(
    ("error", "says"),
    [(RuntimeError("no such block"), "cannot build"), (RuntimeError("please pip install x"), "not installed")],
    ids=["cannot-build", "lacks-package"],
)
def test_open_clip_that_cannot_build_a_model(refused, monkeypatch, error, says):
    import open_clip

    monkeypatch.setattr(open_clip, "create_model", raises(error))
    assert says in refused(*PROBE, "open_clip:ViT-B-32?weights=random", code=1)


def test_a_tokeniser_of_open_clip_that_cannot_be_had(monkeypatch):
    import open_clip

    from equivengine_plugins.backends.open_clip import _TextTower

    tower = object.__new__(_TextTower)
    tower._uri, tower._architecture = eqv.URI.parse("open_clip:ViT-B-16-SigLIP"), "ViT-B-16-SigLIP"
    monkeypatch.setattr(open_clip, "get_tokenizer", raises(OSError("no connection")))
    with pytest.raises(eqv.ModelError, match="install transformers"):
        tower._make_tokenizer()


@pytest.mark.parametrize(
    ("options", "says"), [("", "cannot build"), ("&img_size=13", "img_size=13")], ids=["cannot-build", "size"]
)
def test_timm_that_cannot_build_a_model(refused, monkeypatch, options, says):
    import timm

    monkeypatch.setattr(timm, "create_model", raises(TypeError("an unexpected keyword argument")))
    assert says in refused(*PROBE, f"timm:test_vit?weights=random{options}", code=(1, 2))


def test_a_text_file_that_cannot_be_read(refused, monkeypatch, tmp_path):
    (tmp_path / "texts.txt").write_text("a cat\n")
    opened = Path.open

    def refuse(path, *arguments, **named):
        if str(path) == "texts.txt":  # as it was typed
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", refuse)
    assert "permissions" in refused(
        "probe", "--plugin", "measure", "--model", "toy", "--images", "lines:texts.txt", code=1
    )


def test_a_text_that_was_wiped_out_while_the_file_was_in_use(tmp_path):
    (tmp_path / "texts.txt").write_text("a cat\na dog\n")
    texts = eqv.load_images(f"lines:{tmp_path}/texts.txt")
    (tmp_path / "texts.txt").write_text("     \n     \n")
    with pytest.raises(eqv.DataError, match="is blank"):
        texts[0]


ODD = """
import dataclasses
import torch
import equivengine as eqv
from equivengine_toys import Toy

EQUIVENGINE_API = (1, 0)

class Odd(Toy):
    name = "odd"

    def load(self, uri):
        loaded = super().load(eqv.URI.parse("toy"))
        weight = torch.ones(3, 5) * (float("nan") if uri.path == "nan" else 1.0)
        classify = None if uri.path == "texts" else (lambda embeddings: embeddings @ weight.T)
        names = None if uri.path != "names" else ("one", "two")
        return dataclasses.replace(
            loaded,
            classify=classify,
            class_names=names,
            embed_text=lambda prompts: torch.ones(len(prompts), 5),
        )

@eqv.hookimpl
def equivengine_register_backends():
    return [Odd]
"""


@pytest.mark.parametrize(
    ("model", "heads", "says"),
    [
        ("odd:nan", "own", "returns NaN or infinity"),
        ("odd:names", "own", "another number of classes"),
        ("odd:texts", "text", "at least two classes"),
    ],
    ids=["nan", "names", "one-class"],
)
def test_a_model_that_cannot_classify(refused, toys, model, heads, says):
    toys.install("odd", ODD)
    words = ("--images", GREY, "--set", f"heads={heads}", "--set", "other_class=false", "--out", "run")
    said = refused("probe", "--plugin", "transfer", "--model", model, *words, code=(1, 2), keeps=("run",))
    assert says in said


def test_pairs_of_one_class(refused, toys, photos):
    toys.install("odd", ODD)
    photos.rename(photos.with_name("cat"))
    words = ("--images", "folder:.?labels=dirs", "--set", "heads=own", "--out", "run")
    said = refused("probe", "--plugin", "transfer", "--model", "odd", *words, code=(1, 2), keeps=("run",))
    assert "different labels" in said


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers")


def test_a_configuration_that_transformers_cannot_use(refused, transformers, tmp_path, monkeypatch):
    import hf_cases

    hf_cases.save(hf_cases.FAMILIES["vit"], tmp_path / "vit")
    monkeypatch.setattr(
        transformers.ViTConfig, "from_dict", classmethod(raises(ValueError("hidden_size is no number")))
    )
    assert "check config.json" in refused(*PROBE, "hf:vit", code=1)


def test_an_image_processor_of_another_model(refused, transformers, tmp_path):
    import hf_cases

    hf_cases.save(hf_cases.FAMILIES["vit"], tmp_path / "vit")
    hf_cases.edit(tmp_path / "vit" / "preprocessor_config.json", size={"height": 48, "width": 40})
    assert "preprocessor_config.json" in refused(*PROBE, "hf:vit", code=1)


@pytest.mark.parametrize("fault", ["refuses", "scales"])
def test_a_language_model_that_treats_embeddings_unlike_tokens(transformers, fault):
    from equivengine_plugins.backends.hf import sequence

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(8, 4)

        def get_input_embeddings(self):
            return self.table

        def forward(self, input_ids=None, inputs_embeds=None):
            if inputs_embeds is not None and fault == "refuses":
                raise TypeError("unexpected keyword inputs_embeds")
            hidden = self.table(input_ids) * 2 if inputs_embeds is None else inputs_embeds
            return type("Output", (), {"last_hidden_state": torch.cumsum(hidden, 1) + (inputs_embeds is None)})()

    class Checkpoint:
        uri = eqv.URI.parse("hf_text:/folder")
        config = None

    with pytest.raises(eqv.ModelError, match="token embeddings"):
        sequence.check_inputs(Checkpoint, Model(), [0] * 8, length=3, pool="mean")
