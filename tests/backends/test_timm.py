"""The timm backend: its embeddings are timm's own, its errors say the way out, and no file makes it run code."""

import argparse
import json
import os
import pickle
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import timm as timm_library
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file

import equivengine as eqv
from equivengine_plugins.backends import timm as plugin
from equivengine_plugins.backends import weights

SMALL = ("test_vit", "test_resnet", "test_convnext", "test_efficientnet")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Models this small lose more than they gain when threads wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def load(text):
    return plugin.TimmBackend().load(eqv.URI.parse(text))


def own(name, seed, **arguments):
    """The library's model with weights drawn from ``seed``, nothing of ours in between."""
    torch.manual_seed(seed)
    return timm_library.create_model(name, **arguments).eval()


def picture(width, height):
    generator = np.random.default_rng(5)
    small = generator.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((width, height)), dtype=np.int16)
    noise = generator.integers(-20, 21, (height, width, 3), dtype=np.int16)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def own_transform(config, **changes):
    return timm_library.data.create_transform(**{**config, **changes}, is_training=False)


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


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub cache and no network, whatever the machine has."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [(301, 203), (140, 233)])
def test_embedding_is_timms_own_on_timms_own_preprocessing(name, size):
    uri = f"timm:{name}?weights=random&seed=3"
    encoder = eqv.Encoder(load(uri), uri=uri)
    reference = own(name, 3, num_classes=0)
    config = timm_library.data.resolve_model_data_config(reference)
    image = picture(*size)
    x = encoder.preprocess(image)
    pixels = own_transform(config, mean=(0, 0, 0), std=(1, 1, 1))(image)
    assert float((x - pixels).abs().max()) < 1e-6
    with torch.no_grad():
        expected = reference(own_transform(config)(image)[None])
        assert torch.allclose(encoder(x[None]), expected, rtol=1e-5, atol=1e-5)
    assert encoder.spec.embedding_dim == reference.num_features
    assert encoder.spec.random_weights


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    ("crop_mode", "crop_pct"), [("center", 0.875), ("center", 1.0), ("squash", 1.0), ("squash", 0.9)]
)
@pytest.mark.parametrize("size", [(301, 203), (90, 151)])
def test_every_declared_preprocessing_is_timms(interpolation, crop_mode, crop_pct, size):
    config = {"input_size": (3, 96, 96), "interpolation": interpolation, "crop_mode": crop_mode, "crop_pct": crop_pct}
    config |= {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    declared = plugin._preprocessing(eqv.URI.parse("timm:x"), SimpleNamespace(pretrained_cfg=config), None)
    image = picture(*size)
    expected = own_transform(config, mean=(0, 0, 0), std=(1, 1, 1))(image)
    assert float((declared(image) - expected).abs().max()) < 1e-6
    assert (declared.mean, declared.std) == (config["mean"], config["std"])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"crop_mode": "border"}, id="crop mode"),
        pytest.param({"input_size": (3, 96, 64)}, id="not square"),
        pytest.param({"input_size": (4, 96, 96), "mean": (0.0,) * 4, "std": (1.0,) * 4}, id="four channels"),
        pytest.param({"interpolation": "hamming"}, id="interpolation"),
    ],
)
def test_preprocessing_that_cannot_be_declared_is_refused(change):
    model = SimpleNamespace(pretrained_cfg={"input_size": (3, 96, 96), **change})
    with pytest.raises(eqv.ModelError, match="preprocessing of 'timm:x' cannot be declared"):
        plugin._preprocessing(eqv.URI.parse("timm:x"), model, None)


def test_random_weights_follow_the_seed_and_leave_the_global_state_alone():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first, again, other = (load(f"timm:test_vit?weights=random&seed={seed}").module for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(first.blocks[0].attn.qkv.weight, other.blocks[0].attn.qkv.weight)


def test_record_is_json_and_names_what_was_loaded():
    loaded = load("timm:test_vit?weights=random&seed=7")
    details = json.loads(json.dumps(loaded.details))
    assert details["library"] == f"timm {timm_library.__version__}"
    assert (details["architecture"], details["pool"], details["seed"]) == ("test_vit", "token", 7)
    assert details["parameters"] == sum(p.numel() for p in loaded.module.parameters())
    assert loaded.activation == "gelu"
    assert loaded.license is None  # drawn weights are nobody's
    assert loaded.classify is None


@pytest.mark.parametrize(("name", "activation"), [("test_resnet", "relu"), ("test_efficientnet", "silu")])
def test_activation_is_read_from_the_modules(name, activation):
    assert load(f"timm:{name}?weights=random").activation == activation


def test_quickgelu_is_told_from_gelu():
    model = timm_library.create_model("test_vit", num_classes=0, act_layer=timm_library.layers.QuickGELU)
    assert list(weights.activations(model)) == ["quickgelu"]
    assert list(weights.activations(torch.nn.GELU(approximate="tanh"))) == ["gelu_tanh"]


# -- local files ----------------------------------------------------------------------------------------------------


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


# -- the hub --------------------------------------------------------------------------------------------------------


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


# -- addresses ------------------------------------------------------------------------------------------------------


def test_unknown_name_suggests_close_ones():
    with pytest.raises(eqv.UsageError) as caught:
        load("timm:vit_bse_patch16_224")
    assert "vit_base_patch16_224" in caught.value.expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("timm", "needs the name of a timm model"),
        ("timm:test_vit?wieghts=random", "does not know the option 'wieghts'"),
        ("timm:test_vit?seed=1", "random weights only"),
        ("timm:test_vit?weights=", "'weights' is empty"),
        ("timm:test_vit?weights=random&seed=x", "option 'seed'"),
        ("timm:test_vit?weights=random&img_size=0", "option 'img_size'"),
        ("timm:timm/test_vit", "timm:hf-hub:timm/test_vit"),
        ("timm:test_vit.nope?weights=random", "no tag 'nope'"),
    ],
)
def test_address_that_makes_no_sense_is_a_usage_error(text, message):
    with pytest.raises(eqv.UsageError, match=message):
        load(text)


def test_plugin_registers_and_imports_neither_torch_nor_timm():
    code = (
        "import sys; from equivengine_plugins.backends import timm as t, open_clip as o; "
        "names = [b.name for m in (t, o) for b in m.equivengine_register_backends()]; "
        "assert names == ['timm', 'open_clip'] and t.EQUIVENGINE_API == o.EQUIVENGINE_API == (1, 0); "
        "print(sorted({'torch', 'timm', 'open_clip', 'huggingface_hub', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
