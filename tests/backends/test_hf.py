"""The hf backend: each family's embedding, J v and J^T u are those of transformers' own model in float64."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers")
import hf_cases as cases  # noqa: E402  # after the skip
from hf_loading import encode, load  # noqa: E402
from library_oracle import assert_same_map  # noqa: E402

import equivengine as eqv  # noqa: E402
from equivengine_plugins.backends.hf import preprocessing  # noqa: E402


@pytest.mark.parametrize("name", sorted(cases.FAMILIES))
def test_family_computes_what_transformers_computes(name, tmp_path):
    case = cases.FAMILIES[name]
    cases.save(case, tmp_path)
    model_class = getattr(transformers, case.model)
    attention = "sdpa" if model_class._supports_sdpa else "eager"
    own = model_class.from_pretrained(tmp_path, attn_implementation=attention).eval().double()
    processor = cases.processor(case)
    mean, std = (torch.tensor(values).double().view(3, 1, 1) for values in (processor.image_mean, processor.image_std))
    encoder = encode(f"hf:{tmp_path}")
    assert_same_map(encoder, lambda x: case.embedding(own, (x - mean) / std))
    details = json.loads(json.dumps(encoder.spec.details))
    assert details["pool"] == case.pool
    assert details["attention"] == attention
    assert details["architecture"] == case.model
    assert details["library"] == f"transformers {transformers.__version__}"
    assert encoder.spec.activation == {"clip": "quickgelu", "siglip": "gelu_tanh", "resnet": "relu"}.get(
        name.removesuffix("_vision"), "gelu"
    )
    assert not encoder.spec.random_weights


@pytest.mark.parametrize("size", [(301, 203), (140, 233), (64, 61)])
@pytest.mark.parametrize("name", ["beit", "beit_masked", "clip_vision", "dinov2", "siglip_vision", "swin"])
def test_declared_preprocessing_is_the_image_processors(name, size, tmp_path):
    """Pillow's filters, in the same order on the same 8 bits: nothing is left but the roundoff of float32."""
    case = cases.FAMILIES[name]
    processor = cases.processor(case)
    processor.save_pretrained(tmp_path)
    declared = preprocessing.declare(eqv.URI.parse("hf:x"), processor.to_dict())
    image = cases.picture(*size)
    expected = processor(images=image, return_tensors="pt")["pixel_values"][0]
    assert float((preprocessing.normalized_pixels(declared, image) - expected).abs().max()) < 1e-5


@pytest.mark.parametrize("name", ["vit", "clip_vision"])
def test_torchs_variant_of_the_processor_differs_by_rounding(name):
    """At most 2 levels of 255 in any pixel, a fifth of a level on average: why the variant is fixed and recorded."""
    case = cases.FAMILIES[name]
    image = cases.picture(301, 203)
    made = [variant(**case.settings) for variant in cases.variants(case)]
    pixels = [np.asarray(one(images=image, return_tensors="pt")["pixel_values"][0]) for one in made]
    levels = np.abs(pixels[0] - pixels[1]) * np.reshape(made[0].image_std, (3, 1, 1)) * 255
    assert levels.max() < 2.01
    assert levels.mean() < 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"do_resize": False}, "no resizing", id="no resizing"),
        pytest.param({"do_pad": True}, "padding", id="padding"),
        pytest.param({"size": {"shortest_edge": 32}, "do_center_crop": False}, "not fixed", id="size not fixed"),
        pytest.param(
            {"size": {"shortest_edge": 24}, "do_center_crop": True, "crop_size": 32},
            "shorter side",
            id="crop larger than size",
        ),
        pytest.param(
            {"size": {"height": 40, "width": 36}, "do_center_crop": True, "crop_size": 32},
            "not squares",
            id="not square",
        ),
        pytest.param({"resample": 4}, "filter 4", id="resampling filter"),
    ],
)
def test_preprocessing_that_cannot_be_declared_is_refused(change, message):
    raw = {**cases.processor(cases.FAMILIES["vit"]).to_dict(), **change}
    with pytest.raises(eqv.ModelError, match="cannot be declared") as caught:
        preprocessing.declare(eqv.URI.parse("hf:x"), raw)
    assert message in caught.value.got


def test_processor_that_computes_something_else_is_refused(tmp_path):
    """ConvNeXt's resizes to 256 before it crops 224, which its settings do not say in so many words."""
    case = cases.Case(
        "ViTModel",
        cases.IMAGE,
        lambda m, x: x,
        "pooler",
        "ConvNextImageProcessor",
        {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True},
    )
    cases.save(case, tmp_path)
    with pytest.raises(eqv.ModelError, match="cannot be declared") as caught:
        load(f"hf:{tmp_path}")
    assert "computes something else" in caught.value.got


# -- pooling, classifiers, masking -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["pooler", "cls", "mean"])
def test_pooling_is_chosen_and_leaves_out_tokens_that_are_no_patches(pool, tmp_path):
    model = cases.save(cases.FAMILIES["dinov2_registers"], tmp_path)
    loaded = load(f"hf:{tmp_path}?pool={pool}")
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        out = model(x)
        expected = {
            "pooler": out.pooler_output,
            "cls": out.last_hidden_state[:, 0],
            "mean": out.last_hidden_state[:, 5:].mean(dim=1),
        }[pool]
        assert torch.allclose(loaded.module(x), expected, atol=1e-6)
    assert (loaded.details["pool"], loaded.details["tokens_before_patches"]) == (pool, 5)


@pytest.mark.parametrize(
    ("name", "pool"), [("swin", "cls"), ("siglip_vision", "cls"), ("vit", "projection"), ("vit", "x")]
)
def test_pooling_that_a_model_does_not_have_is_a_usage_error(name, pool, tmp_path):
    cases.save(cases.FAMILIES[name], tmp_path)
    with pytest.raises(eqv.UsageError, match=f"no pooling {pool!r}") as caught:
        load(f"hf:{tmp_path}?pool={pool}")
    assert "pooler" in caught.value.expected


@pytest.mark.parametrize("name", ["beit", "swin", "vit_classifier", "resnet"])
def test_classifier_gives_the_models_own_logits(name, tmp_path):
    model = cases.save(cases.FAMILIES[name], tmp_path)
    loaded = load(f"hf:{tmp_path}")
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(loaded.classify(loaded.module(x)), model(x).logits, atol=1e-5)
    assert loaded.class_names == (["tench", "<b>", "cat"] if name == "beit" else None)


@pytest.mark.parametrize("name", ["deit", "dinov2"])
def test_model_whose_logits_are_no_function_of_the_embedding_has_no_classifier(name, tmp_path):
    cases.save(cases.FAMILIES[name], tmp_path)
    assert load(f"hf:{tmp_path}").classify is None


def test_masked_autoencoder_masks_nothing_and_repeats_itself(tmp_path):
    cases.save(cases.FAMILIES["mae"], tmp_path)
    encoder = encode(f"hf:{tmp_path}?pool=mean")
    x = torch.rand(1, 3, 32, 32)
    changed = x.clone()
    with torch.no_grad():
        first = encoder(x)
        assert torch.equal(first, encoder(x))
        for row in range(0, 32, 8):
            for column in range(0, 32, 8):  # every patch is seen
                changed = x.clone()
                changed[..., row : row + 8, column : column + 8] += 0.1
                assert float((encoder(changed) - first).abs().max()) > 1e-5
    assert encoder.spec.details["masking"].startswith("none")


# -- texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_text_tower_is_the_librarys(name, tmp_path):
    model = cases.save(cases.FAMILIES[name], tmp_path)
    length = model.config.text_config.max_position_embeddings
    tokenizer = cases.save_tokenizer(tmp_path, length)
    loaded = load(f"hf:{tmp_path}")
    prompts = ["a cat", "the dog on a cat on the dog"]
    padding = {"padding": "max_length", "max_length": length} if name == "siglip" else {"padding": True}
    tokens = tokenizer(prompts, return_tensors="pt", **padding)
    tokens = tokens if name == "clip" else {"input_ids": tokens["input_ids"]}
    tokens = {key: value for key, value in tokens.items() if key != "token_type_ids"}
    with torch.no_grad():
        found = model.get_text_features(**tokens)
    expected = found if isinstance(found, torch.Tensor) else found.pooler_output
    assert torch.allclose(loaded.embed_text(prompts), expected, atol=1e-6)
    assert loaded.embed_text("one prompt").shape[1] == encode(f"hf:{tmp_path}").spec.embedding_dim
    assert loaded.details["logit_scale"] == pytest.approx(float(model.logit_scale.detach().exp()))
    assert not any("text" in key for key in loaded.module.state_dict())
    with pytest.raises(eqv.UsageError, match="must be strings"):
        loaded.embed_text([3])


def test_without_tokeniser_or_shared_space_there_are_no_text_embeddings(tmp_path):
    cases.save(cases.FAMILIES["clip"], tmp_path)
    assert load(f"hf:{tmp_path}").embed_text is None
    cases.save_tokenizer(tmp_path)
    assert load(f"hf:{tmp_path}").embed_text is not None
    assert load(f"hf:{tmp_path}?pool=cls").embed_text is None
