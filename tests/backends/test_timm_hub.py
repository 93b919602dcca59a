"""Weights of timm models that are, or are not, to be had from a hub."""

import socket
import time

import pytest
import timm as timm_library
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from timm_cases import load, own

import equivengine as eqv


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub cache and no network, whatever the machine has."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


def assert_three_ways(error, cache):
    for way in ("?weights=/file.safetensors", "?weights=random&seed=0", "HF_HUB_OFFLINE", str(cache)):
        assert way in error.hint
    assert error.exit_code == 1


@pytest.mark.parametrize("name", ["test_vit", "test_vit.r160_in1k", "hf-hub:timm/test_vit.r160_in1k", "test_vit.nope"])
def test_pretrained_weights_that_cannot_be_had_name_three_ways_out(hub, name):
    with pytest.raises(eqv.WeightsError) as caught:
        load(f"timm:{name}")
    assert_three_ways(caught.value, hub)
    if name.endswith("nope"):
        assert "Known tags: r160_in1k" in caught.value.got


def test_model_without_published_weights_names_three_ways_out(hub):
    name = next(
        n for n in timm_library.list_models("vit_*") if not timm_library.models.get_pretrained_cfg(n).has_weights
    )
    with pytest.raises(eqv.WeightsError, match="knows no pretrained weights") as caught:
        load(f"timm:{name}")
    assert_three_ways(caught.value, hub)


@pytest.mark.parametrize("listening", [False, True], ids=["refused", "silent"])
def test_unreachable_hub_fails_fast_and_leaves_no_setting_behind(hub, monkeypatch, listening):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listening:
            server.listen()  # connects, and never answers
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(eqv.WeightsError) as caught:
            load("timm:test_vit")
        assert time.monotonic() - start < 20
    assert_three_ways(caught.value, hub)
    assert constants.HF_HUB_OFFLINE is False
    assert socket.getdefaulttimeout() is None


def test_weights_in_the_hub_cache_load_without_network(hub, monkeypatch):
    model = own("test_vit", 11)
    repository = hub / "models--timm--test_vit.r160_in1k"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    save_file(model.state_dict(), snapshot / "model.safetensors")
    loaded = load("timm:test_vit")
    assert not loaded.random_weights
    assert loaded.details["pretrained_tag"] == "r160_in1k"
    assert loaded.license == timm_library.models.get_pretrained_cfg("test_vit").license is not None
    assert len(loaded.class_names) == 1000
    x = torch.rand(1, 3, 160, 160)
    with torch.no_grad():
        assert torch.allclose(loaded.classify(loaded.module.eval()(x)), model(x), rtol=1e-5, atol=1e-5)


def test_local_dir_loads_what_timm_saved(tmp_path):
    model = own("test_resnet", 6, num_classes=5)
    timm_library.models.save_for_hf(model, tmp_path, safe_serialization=True)
    loaded = load(f"timm:local-dir:{tmp_path}")
    assert loaded.details["architecture"] == "test_resnet"
    assert torch.equal(loaded.module.conv1[0].weight, model.conv1[0].weight)
    assert not loaded.random_weights
    drawn = load(f"timm:local-dir:{tmp_path}?weights=random")
    assert drawn.random_weights
    assert not torch.equal(drawn.module.conv1[0].weight, model.conv1[0].weight)


def test_absent_local_dir_is_a_weights_error(tmp_path):
    with pytest.raises(eqv.WeightsError) as caught:
        load(f"timm:local-dir:{tmp_path}")
    assert "config.json" in caught.value.expected
