"""The hf backend: each family's embedding, J v and J^T u are those of transformers' own model in float64."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers")

import hf_cases as cases  # noqa: E402  # after the skip
from library_oracle import assert_same_map  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

import equivengine as eqv  # noqa: E402
from equivengine_plugins.backends import hf as plugin  # noqa: E402
from equivengine_plugins.backends.hf import preprocessing  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Models this small lose more than they gain when threads wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def load(text):
    return plugin.HfBackend().load(eqv.URI.parse(text))


def encode(text):
    return eqv.Encoder(load(text), uri=text)


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


# -- weights ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    return cases.save(cases.FAMILIES["vit"], tmp_path), tmp_path


def test_random_weights_need_the_configuration_alone_and_follow_the_seed(saved):
    _, folder = saved
    (folder / "model.safetensors").unlink()
    with pytest.raises(eqv.WeightsError) as caught:
        load(f"hf:{folder}")
    assert f"hf:{folder}?weights=random&seed=0" in caught.value.hint
    before = torch.random.get_rng_state()
    first, again, other = (encode(f"hf:{folder}?weights=random&seed={seed}") for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.spec.random_weights
    assert first.spec.details["weights"] == "random"
    assert first.spec.weights_digest == again.spec.weights_digest != other.spec.weights_digest


def test_named_file_is_read_in_place_of_the_directorys(saved):
    model, folder = saved
    other = cases.build(cases.FAMILIES["vit"], seed=5)
    torch.save(other.state_dict(), folder / "other.bin")
    loaded = load(f"hf:{folder}?weights={folder}/other.bin")
    assert not loaded.random_weights
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(loaded.module(x), other(x).pooler_output, atol=1e-6)
        assert not torch.allclose(loaded.module(x), model(x).pooler_output, atol=1e-3)


def test_pickled_weights_are_read_by_name_only(saved):
    model, folder = saved
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(eqv.WeightsError, match="cannot be read") as caught:
        load(f"hf:{folder}")
    named = f"hf:{folder}?weights={folder}/pytorch_model.bin"
    assert named in caught.value.hint
    assert not load(named).random_weights


class _Malicious:
    def __init__(self, witness):
        self.witness = str(witness)

    def __reduce__(self):
        return (os.mkdir, (self.witness,))


def test_pickle_that_brings_code_is_refused_and_not_run(saved):
    _, folder = saved
    (folder / "model.safetensors").unlink()
    torch.save({"layer.weight": _Malicious(folder / "witness")}, folder / "pytorch_model.bin")
    for text in (f"hf:{folder}", f"hf:{folder}?weights={folder}/pytorch_model.bin"):
        with pytest.raises(eqv.WeightsError):
            load(text)
    assert not (folder / "witness").exists()


def test_weights_that_do_not_fit_are_named_in_a_few_lines(saved):
    _, folder = saved
    path = folder / "model.safetensors"
    state = load_file(path)
    assert "layernorm.weight" in state
    state["stranger.weight"] = torch.zeros(2)
    state["layernorm.weight"] = torch.zeros(3)
    del state["pooler.dense.bias"]
    save_file(state, path, {"format": "pt"})
    with pytest.raises(eqv.WeightsError, match="do not fit the model") as caught:
        load(f"hf:{folder}")
    for part in ("1 missing: pooler.dense.bias", "1 unexpected: stranger.weight", "is [3] instead of [32]"):
        assert part in caught.value.got
    assert len(str(caught.value).splitlines()) <= 4


def test_more_layers_than_the_configuration_says_are_refused(saved):
    _, folder = saved
    cases.edit(folder / "config.json", num_hidden_layers=1)
    with pytest.raises(eqv.WeightsError, match="do not fit the model"):
        load(f"hf:{folder}")


def test_tensors_of_a_head_that_the_class_does_not_have_are_left_out_and_recorded(tmp_path):
    cases.save(cases.FAMILIES["vit_classifier"], tmp_path)
    cases.edit(tmp_path / "config.json", architectures=["ViTModel"])
    state = load_file(tmp_path / "model.safetensors")
    with pytest.raises(eqv.WeightsError, match="do not fit"):  # its pooler is missing: it would be random
        load(f"hf:{tmp_path}")
    pooler = {"vit.pooler.dense.weight": torch.eye(32), "vit.pooler.dense.bias": torch.zeros(32)}
    save_file({**state, **pooler}, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = load(f"hf:{tmp_path}")
    assert loaded.details["left_out_of_checkpoint"] == ["classifier.bias", "classifier.weight"]


def test_half_precision_becomes_float32_and_is_recorded(saved):
    model, folder = saved
    model.half().save_pretrained(folder)
    loaded = load(f"hf:{folder}")
    assert loaded.details["checkpoint_dtype"] == "float16"
    assert {p.dtype for p in loaded.module.parameters()} == {torch.float32}
    assert torch.equal(loaded.module.model.layernorm.weight, model.layernorm.weight.float())


def test_weights_in_parts_are_put_together(saved):
    model, folder = saved
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="40KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(load(f"hf:{folder}").module(x), model(x).pooler_output, atol=1e-6)
    sorted(folder.glob("model-*.safetensors"))[0].unlink()
    with pytest.raises(eqv.WeightsError):
        load(f"hf:{folder}")


def test_model_in_the_hub_cache_loads_without_network(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    model = cases.save(cases.FAMILIES["vit"], repository / "snapshots" / ("0" * 40))
    loaded = load("hf:org/name")
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(loaded.module(x), model(x).pooler_output, atol=1e-6)
    assert loaded.details["commit"] == "0" * 40
    with pytest.raises(eqv.WeightsError, match="cannot be had"):
        load("hf:org/name?revision=other")


@pytest.mark.parametrize("content", [b"", b"\xff" * 64])
def test_broken_weights_are_a_weights_error(saved, content):
    _, folder = saved
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(eqv.WeightsError, match="cannot be read"):
        load(f"hf:{folder}")


# -- directories that are something else -----------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_code_that_a_checkpoint_brings_along_is_refused_and_not_run(saved, file):
    _, folder = saved
    (folder / "evil.py").write_text(f"import os; os.mkdir({str(folder / 'witness')!r})")
    auto = {"AutoModel": "evil.Model", "AutoConfig": "evil.Config", "AutoImageProcessor": "evil.Processor"}
    cases.edit(folder / file, auto_map=auto)
    with pytest.raises(eqv.ModelError, match="refused"):
        load(f"hf:{folder}")
    cases.edit(folder / file, model_type="evil", image_processor_type="EvilProcessor")
    with pytest.raises(eqv.ModelError):
        load(f"hf:{folder}")
    assert not (folder / "witness").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"model_type": "nonesuch"}, "does not know the kind", id="unknown kind"),
        pytest.param({"architectures": ["Nonesuch"]}, "names no model", id="unknown architecture"),
        pytest.param({"architectures": ["Trainer"]}, "names no model", id="class that is no model"),
        pytest.param({"architectures": ["BeitModel"]}, "names no model", id="model of another kind"),
        pytest.param({"hidden_act": "nonesuch"}, "cannot build ViTModel", id="unknown activation"),
        pytest.param({"hidden_size": 64}, "do not fit the model", id="other width"),
    ],
)
def test_configuration_that_makes_no_sense_is_a_model_error(saved, changes, message):
    _, folder = saved
    cases.edit(folder / "config.json", **changes)
    with pytest.raises(eqv.ModelError, match=message):
        load(f"hf:{folder}")


def test_missing_pieces_are_named(saved, tmp_path):
    _, folder = saved
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(eqv.ModelError, match=r"image processor of .* cannot be had"):
        load(f"hf:{folder}")
    (folder / "config.json").write_text("{")
    with pytest.raises(eqv.ModelError, match="cannot be read"):
        load(f"hf:{folder}")
    (folder / "config.json").unlink()
    with pytest.raises(eqv.WeightsError, match="no checkpoint of transformers"):
        load(f"hf:{folder}")
    with pytest.raises(eqv.WeightsError, match="there is no directory"):
        load(f"hf:{tmp_path}/none")


def test_text_model_is_sent_to_its_backend(tmp_path):
    transformers.BertModel(transformers.BertConfig(**cases.PLAIN, vocab_size=40)).save_pretrained(tmp_path)
    with pytest.raises(eqv.UsageError, match="no vision model") as caught:
        load(f"hf:{tmp_path}")
    assert f"hf_text:{tmp_path}" in caught.value.hint


def test_model_that_is_on_no_reachable_hub_names_three_ways_out(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(eqv.WeightsError, match="cannot be had") as caught:
        load("hf:facebook/vit-msn-small")
    for way in ("hf:/folder with config.json", "?weights=random&seed=0", "HF_HUB_OFFLINE"):
        assert way in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hf", "needs a directory or an identifier"),
        ("hf:{}?poool=cls", "does not know the option 'poool'"),
        ("hf:{}?seed=1", "random weights only"),
        ("hf:{}?revision=main", "no revision"),
    ],
)
def test_address_that_makes_no_sense_is_a_usage_error(saved, text, message):
    with pytest.raises(eqv.UsageError, match=message):
        load(text.format(saved[1]))


@pytest.mark.parametrize("scheme", ["hf", "hf_text"])
def test_missing_library_names_the_extra(scheme, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(eqv.ModelError, match=r"needs equivengine\[hf\]"):
        eqv.load_encoder(f"{scheme}:{tmp_path}")


def test_plugin_imports_neither_torch_nor_transformers():
    code = (
        "import sys; from equivengine_plugins.backends import hf; "
        "assert [b.name for b in hf.equivengine_register_backends()] == ['hf'] and hf.EQUIVENGINE_API == (1, 0); "
        "print(sorted({'torch', 'transformers', 'huggingface_hub', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
