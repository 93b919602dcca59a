"""The open_clip backend: its embeddings are open_clip's own, the text tower is beside it, errors say the way out."""

import json
import logging
import time

import numpy as np
import open_clip as open_clip_library
import pytest
import torch
from huggingface_hub import constants
from open_clip import pretrained as tag_table
from PIL import Image
from safetensors.torch import load_file, save_file

import equivengine as eqv
from equivengine_plugins.backends import open_clip as plugin

TINY = "eqv-tiny"
CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def load(text):
    return plugin.OpenClipBackend().load(eqv.URI.parse(text))


def own(seed, name=TINY, **arguments):
    """The library's model with weights drawn from ``seed``, nothing of ours in between."""
    torch.manual_seed(seed)
    model, _, transform = open_clip_library.create_model_and_transforms(name, **arguments)
    return model.eval(), transform


def picture(width, height):
    generator = np.random.default_rng(5)
    small = generator.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((width, height)), dtype=np.int16)
    noise = generator.integers(-20, 21, (height, width, 3), dtype=np.int16)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


@pytest.fixture(autouse=True)
def tiny(tmp_path, monkeypatch):
    """A small architecture in open_clip's registry, for one test."""
    monkeypatch.setitem(open_clip_library.factory._MODEL_CONFIGS, TINY, CONFIG)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub cache and no network, whatever the machine has."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.fixture
def saved(tmp_path):
    model, _ = own(11)
    path = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), path)
    return model, path


@pytest.mark.parametrize("name", [TINY, "ViT-S-32-alt"])
@pytest.mark.parametrize("size", [(301, 203), (140, 233)])
def test_embedding_is_open_clips_own_on_its_own_preprocessing(name, size):
    uri = f"open_clip:{name}?weights=random&seed=3"
    encoder = eqv.Encoder(load(uri), uri=uri)
    model, transform = own(3, name)
    image = picture(*size)
    x = encoder.preprocess(image)
    pixels = open_clip_library.image_transform(encoder.input_shape[-1], is_train=False, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert float((x - pixels(image)).abs().max()) < 1e-6
    prompts = ["a photograph of a cat", "two dogs"]
    with torch.no_grad():
        expected = model.encode_image(transform(image)[None], normalize=False)
        assert torch.allclose(encoder(x[None]), expected, rtol=1e-5, atol=1e-5)
        expected = model.encode_text(open_clip_library.get_tokenizer(name)(prompts), normalize=False)
        assert torch.allclose(encoder.embed_text(prompts), expected, rtol=1e-5, atol=1e-5)
    assert encoder.spec.random_weights
    assert not encoder.spec.normalized_output


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "random"])
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(301, 203), (90, 151)])
def test_every_declared_preprocessing_is_open_clips(interpolation, resize_mode, size):
    cfg = {"size": 96, "interpolation": interpolation, "resize_mode": resize_mode}
    cfg |= {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4), "fill_color": 0}
    declared = plugin._preprocessing(eqv.URI.parse("open_clip:x"), cfg)
    plain = open_clip_library.transform.PreprocessCfg(**{**cfg, "mean": (0.0,) * 3, "std": (1.0,) * 3})
    expected = open_clip_library.transform.image_transform_v2(plain, is_train=False)(picture(*size))
    assert float((declared(picture(*size)) - expected).abs().max()) < 1e-6
    assert (declared.mean, declared.std) == (cfg["mean"], cfg["std"])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"size": (96, 64)}, id="not square"),
        pytest.param({"resize_mode": "longest", "fill_color": 255}, id="fitted by padding"),
    ],
)
def test_preprocessing_that_cannot_be_declared_is_refused(change):
    cfg = {"size": 96, "mean": (0.5,) * 3, "std": (0.5,) * 3, **change}
    with pytest.raises(eqv.ModelError, match="cannot be declared"):
        plugin._preprocessing(eqv.URI.parse("open_clip:x"), cfg)


def test_module_is_the_image_tower_alone():
    loaded = load(f"open_clip:{TINY}?weights=random")
    names = set(loaded.module.state_dict())
    model, _ = own(0)
    image = sum(p.numel() for p in model.visual.parameters())
    assert names == set(model.visual.state_dict())
    assert loaded.details["parameters"] == image
    assert loaded.details["text_parameters"] == sum(p.numel() for p in model.parameters()) - image
    assert not any("token" in name or "text" in name or "logit" in name for name in names)
    digests = {
        eqv.Encoder(load(f"open_clip:{TINY}?weights=random&seed={s}"), uri="x").spec.weights_digest for s in (0, 0, 1)
    }
    assert len(digests) == 2


def test_text_tower_is_read_lazily_and_follows_the_image_tower(monkeypatch):
    made = []
    tokenizer = open_clip_library.get_tokenizer
    monkeypatch.setattr(open_clip_library, "get_tokenizer", lambda name: made.append(name) or tokenizer(name))
    loaded = load(f"open_clip:{TINY}?weights=random")
    assert not made
    embeddings = loaded.embed_text(["a", "b", "c"])
    loaded.embed_text("one string is one prompt")
    assert made == [TINY]
    assert (embeddings.shape, embeddings.dtype, embeddings.requires_grad) == ((3, 24), torch.float32, False)
    assert loaded.embed_text("one string is one prompt").shape == (1, 24)
    norms = embeddings.norm(dim=-1)
    assert not torch.allclose(norms, torch.ones(3), atol=1e-3)
    for nonsense in ([], [3]):
        with pytest.raises(eqv.UsageError, match="text prompts"):
            loaded.embed_text(nonsense)
    double = eqv.Encoder(loaded, uri="x").at_precision("fp64")
    assert double.embed_text(["a"]).dtype == torch.float32


def test_random_weights_follow_the_seed_and_leave_the_global_state_alone(monkeypatch):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a program that configures no logging
    first, again, other = (load(f"open_clip:{TINY}?weights=random&seed={seed}").module for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert logging.getLogger().handlers == []
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(first.proj, other.proj)


def test_coca_returns_one_tensor(monkeypatch):
    vision = {**CONFIG["vision_cfg"], "attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True}
    text = {**CONFIG["text_cfg"], "context_length": 76, "embed_cls": True, "output_tokens": True}
    decoder = {"context_length": 76, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    decoder |= {"attn_pooler_heads": 2}
    coca = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text, "multimodal_cfg": decoder, "custom_text": True}
    monkeypatch.setitem(open_clip_library.factory._MODEL_CONFIGS, "eqv-coca", coca)
    encoder = eqv.Encoder(load("open_clip:eqv-coca?weights=random&seed=2"), uri="x")
    model, _ = own(2, "eqv-coca")
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(encoder.module(x), model.encode_image(x, normalize=False), rtol=1e-5, atol=1e-5)
        tokens = open_clip_library.get_tokenizer("eqv-coca")(["a cat"])
        expected = model.encode_text(tokens, normalize=False)
    assert torch.allclose(encoder.embed_text(["a cat"]), expected, rtol=1e-5, atol=1e-5)


# -- local files and tags -------------------------------------------------------------------------------------------


def test_local_file_gives_both_towers(saved):
    model, path = saved
    loaded = load(f"open_clip:{TINY}?weights={path}")
    assert not loaded.random_weights
    assert torch.equal(loaded.module.proj, model.visual.proj)
    with torch.no_grad():
        expected = model.encode_text(open_clip_library.get_tokenizer(TINY)(["a cat"]))
    assert torch.allclose(loaded.embed_text(["a cat"]), expected, rtol=1e-5, atol=1e-6)


def test_training_checkpoint_is_unwrapped(saved, tmp_path):
    model, _ = saved
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    state["module.logit_scale"] = state["module.logit_scale"].reshape(1)
    torch.save({"epoch": 1, "name": "x", "state_dict": state}, tmp_path / "epoch_1.pt")
    assert torch.equal(load(f"open_clip:{TINY}?weights={tmp_path / 'epoch_1.pt'}").module.proj, model.visual.proj)


def test_misfit_names_the_first_keys(saved, tmp_path):
    _, path = saved
    state = load_file(path)
    del state["visual.proj"]
    state["stranger"] = torch.zeros(1)
    save_file(state, tmp_path / "wrong.safetensors")
    with pytest.raises(eqv.WeightsError) as caught:
        load(f"open_clip:{TINY}?weights={tmp_path / 'wrong.safetensors'}")
    assert "1 missing: visual.proj; 1 unexpected: stranger" in caught.value.got


def test_tag_brings_weights_preprocessing_and_quickgelu(saved, monkeypatch, recwarn):
    _, path = saved
    tag = {"file": str(path), "quick_gelu": True, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    tag |= {"interpolation": "bilinear", "resize_mode": "squash"}
    monkeypatch.setitem(tag_table._PRETRAINED, TINY, {"mine": tag})
    model, transform = own(0, TINY, pretrained="mine", force_quick_gelu=True)
    recwarn.clear()
    for loaded in (load(f"open_clip:{TINY}/mine"), load(f"open_clip:{TINY}/mine?weights={path}")):
        encoder = eqv.Encoder(loaded, uri="x")
        assert loaded.activation == "quickgelu"
        assert not [warning for warning in recwarn if "QuickGELU" in str(warning.message)]
        image = picture(77, 40)
        with torch.no_grad():
            expected = model.encode_image(transform(image)[None])
            assert torch.allclose(encoder(encoder.preprocess(image)[None]), expected, rtol=1e-5, atol=1e-5)
    assert load(f"open_clip:{TINY}/mine").details["pretrained_tag"] == "mine"
    assert load(f"open_clip:{TINY}?weights={path}").activation == "gelu"


@pytest.mark.parametrize(
    ("name", "activation"), [("ViT-B-32/openai", "quickgelu"), ("ViT-B-32/laion2b_s34b_b79k", "gelu")]
)
def test_openai_weights_get_quickgelu(name, activation):
    loaded = load(f"open_clip:{name}?weights=random")
    assert loaded.activation == activation
    assert json.loads(json.dumps(loaded.details))["architecture"] == "ViT-B-32"


def test_local_dir_needs_its_weights(saved, tmp_path):
    model, path = saved
    folder = tmp_path / "folder"
    folder.mkdir()
    preprocessing = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "resize_mode": "squash"}
    config = {"model_cfg": CONFIG, "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(eqv.WeightsError) as caught:
        load(f"open_clip:local-dir:{folder}")
    assert "open_clip_model.safetensors" in caught.value.expected
    path.rename(folder / "open_clip_model.safetensors")
    loaded = load(f"open_clip:local-dir:{folder}")
    assert torch.equal(loaded.module.proj, model.visual.proj)
    assert (loaded.preprocessing.resize, loaded.preprocessing.mean) == ("squash", (0.5,) * 3)
    assert loaded.embed_text(["a cat"]).shape == (1, 24)


# -- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ViT-B-32/laion2b_s34b_b79k", "ViT-B-32/laion", "ViT-B-32", "hf-hub:laion/none"])
def test_pretrained_weights_that_cannot_be_had_name_three_ways_out(hub, name):
    start = time.monotonic()
    with pytest.raises(eqv.WeightsError) as caught:
        load(f"open_clip:{name}")
    assert time.monotonic() - start < 20
    for way in ("?weights=/file.safetensors", "?weights=random&seed=0", "HF_HUB_OFFLINE", str(hub)):
        assert way in caught.value.hint


def test_unreachable_hub_fails_fast(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(eqv.WeightsError, match="cannot be had"):
        load("open_clip:ViT-B-32/openai")
    assert time.monotonic() - start < 20
    assert constants.HF_HUB_OFFLINE is False


def test_unknown_names_suggest_close_ones():
    with pytest.raises(eqv.UsageError) as caught:
        load("open_clip:ViT-B/32")
    assert "ViT-B-32" in caught.value.expected
    with pytest.raises(eqv.WeightsError) as weights_error:
        load("open_clip:ViT-B-32/laion2b_s34b")
    assert "laion2b_s34b_b79k" in weights_error.value.got


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("open_clip", "needs an architecture and a tag"),
        (f"open_clip:{TINY}?img_size=3&weights=random", "does not know the option 'img_size'"),
        (f"open_clip:{TINY}/none?weights=random", "no tag 'none'"),
        (f"open_clip:{TINY}?seed=1", "random weights only"),
    ],
)
def test_address_that_makes_no_sense_is_a_usage_error(text, message):
    with pytest.raises(eqv.UsageError, match=message):
        load(text)
