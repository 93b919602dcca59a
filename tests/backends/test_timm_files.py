"""Weights of timm models from local files."""

import argparse
import os
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from timm_cases import load, own

import equivengine as eqv


@pytest.fixture
def saved(tmp_path):
    """A whole test_vit with its classifier, and its state dict in a file."""
    model = own("test_vit", 11)
    with torch.no_grad():
        for parameter in model.parameters():  # biases start at zero, which would hide a lost one
            parameter.add_(torch.randn(parameter.shape) * 0.02)
    path = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), path)
    return model, path


def test_local_file_gives_the_models_features_and_logits(saved):
    model, path = saved
    loaded = load(f"timm:test_vit?weights={path}")
    assert not loaded.random_weights
    assert loaded.details["weights"] == str(path)
    assert loaded.details["checkpoint_dtypes"] == ["float32"]
    x = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        features = loaded.module.eval()(x)
        assert torch.equal(features, model.forward_head(model.forward_features(x), pre_logits=True))
        assert torch.allclose(loaded.classify(features), model(x), rtol=1e-5, atol=1e-5)
        assert loaded.classify(features.double()).dtype == torch.float64
    assert len(loaded.class_names) == 1000
    assert loaded.class_names[0].startswith("tench")


def test_file_without_classifier_is_accepted(tmp_path):
    path = tmp_path / "headless.safetensors"
    save_file(own("test_resnet", 4, num_classes=0).state_dict(), path)
    loaded = load(f"timm:test_resnet?weights={path}")
    assert loaded.classify is None
    assert torch.equal(loaded.module.state_dict()["conv1.0.weight"], load_file(path)["conv1.0.weight"])


def test_classifier_of_another_size_is_used_but_not_named(tmp_path):
    model = own("test_resnet", 4, num_classes=7)
    path = tmp_path / "seven.safetensors"
    save_file(model.state_dict(), path)
    loaded = load(f"timm:test_resnet?weights={path}")
    assert loaded.class_names is None
    x = torch.rand(1, 3, 160, 160)
    with torch.no_grad():
        assert torch.allclose(loaded.classify(loaded.module.eval()(x)), model(x), rtol=1e-5, atol=1e-5)


def test_training_checkpoint_is_unwrapped(saved, tmp_path):
    model, _ = saved
    wrapped = {f"module.{key}": value.half() for key, value in model.state_dict().items()}
    path = tmp_path / "checkpoint.pth.tar"
    torch.save({"state_dict": wrapped, "epoch": 3, "args": argparse.Namespace(lr=0.1)}, path)
    loaded = load(f"timm:test_vit?weights={path}")
    assert loaded.details["checkpoint_dtypes"] == ["float16"]
    weight = loaded.module.state_dict()["blocks.0.attn.qkv.weight"]
    assert weight.dtype == torch.float32
    assert torch.equal(weight, model.state_dict()["blocks.0.attn.qkv.weight"].half().float())


def test_file_in_the_original_authors_layout_goes_through_timms_filter(saved, tmp_path):
    model, path = saved
    state = load_file(path)
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].flatten(1)
    flat = tmp_path / "flat.safetensors"
    save_file(state, flat)
    loaded = load(f"timm:test_vit?weights={flat}")
    assert torch.equal(loaded.module.patch_embed.proj.weight, model.patch_embed.proj.weight)


def test_img_size_resamples_a_file_of_the_models_own_size_and_takes_one_of_that_size(saved, tmp_path):
    model, path = saved
    loaded = load(f"timm:test_vit?weights={path}&img_size=96")
    assert loaded.preprocessing.size == (96, 96)
    model.set_input_size(img_size=96)
    x = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(x), pre_logits=True)
        assert torch.allclose(loaded.module.eval()(x), expected, rtol=1e-5, atol=1e-6)
        save_file(model.state_dict(), tmp_path / "resampled.safetensors")
        again = load(f"timm:test_vit?weights={tmp_path / 'resampled.safetensors'}&img_size=96")
        assert torch.equal(again.module.eval()(x), expected)
    with pytest.raises(eqv.WeightsError, match="do not fit"):
        load(f"timm:test_convnext?weights={path}&img_size=96")


def test_img_size_of_a_convolutional_model_changes_the_input_alone():
    loaded = load("timm:test_resnet?weights=random&img_size=64")
    assert loaded.preprocessing.size == (64, 64)
    assert torch.equal(loaded.module.conv1[0].weight, own("test_resnet", 0, num_classes=0).conv1[0].weight)


def test_misfit_names_the_first_keys(saved, tmp_path):
    _, path = saved
    state = load_file(path)
    state["stranger.weight"] = torch.zeros(2)
    del state["blocks.0.norm1.weight"]
    state["norm.weight"] = torch.zeros(3)
    wrong = tmp_path / "wrong.safetensors"
    save_file(state, wrong)
    with pytest.raises(eqv.WeightsError) as caught:
        load(f"timm:test_vit?weights={wrong}")
    for part in (
        "1 missing: blocks.0.norm1.weight",
        "1 unexpected: stranger.weight",
        "norm.weight is [3] instead of [64]",
    ):
        assert part in caught.value.got
    with pytest.raises(eqv.WeightsError, match="do not fit the model"):
        load(f"timm:test_resnet?weights={path}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.safetensors", None, "there is no weights file"),
        ("broken.safetensors", b"\xff" * 64, "no readable safetensors file"),
        ("broken.pt", b"nonsense", "refused|no readable torch checkpoint"),
        ("weights.npz", b"PK", "a kind that is not read"),
    ],
)
def test_unreadable_file_is_a_weights_error(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(eqv.WeightsError, match=message):
        load(f"timm:test_vit?weights={tmp_path / name}")


def test_file_without_state_dict_is_a_weights_error(tmp_path):
    torch.save({"epoch": 3, "weights": {"a": torch.zeros(1)}}, tmp_path / "odd.pt")
    with pytest.raises(eqv.WeightsError, match="holds no state dict"):
        load(f"timm:test_vit?weights={tmp_path / 'odd.pt'}")


class _Malicious:
    def __init__(self, witness):
        self.witness = str(witness)

    def __reduce__(self):
        return (os.mkdir, (self.witness,))


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_pickle_that_brings_code_is_refused_and_not_run(tmp_path, monkeypatch, write):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    witness, path = tmp_path / "witness", tmp_path / "evil.pt"
    write({"state_dict": _Malicious(witness)}, path)
    with pytest.raises(eqv.WeightsError, match="refused: reading it would run code"):
        load(f"timm:test_vit?weights={path}")
    assert not witness.exists()
