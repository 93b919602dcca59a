"""The timm backend: its embeddings are timm's own, its errors say the way out, and no file makes it run code."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import timm as timm_library
import torch
from PIL import Image
from timm_cases import load, own

import equivengine as eqv
from equivengine_plugins.backends import timm as plugin
from equivengine_plugins.backends import weights

SMALL = ("test_vit", "test_resnet", "test_convnext", "test_efficientnet")


def picture(width, height):
    generator = np.random.default_rng(5)
    small = generator.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((width, height)), dtype=np.int16)
    noise = generator.integers(-20, 21, (height, width, 3), dtype=np.int16)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def own_transform(config, **changes):
    return timm_library.data.create_transform(**{**config, **changes}, is_training=False)


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
