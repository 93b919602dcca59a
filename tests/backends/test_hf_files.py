"""Files of transformers models: weights, and directories that are something else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

transformers = pytest.importorskip("transformers")
import hf_cases as cases  # noqa: E402  # after the skip
from hf_loading import encode, load  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

import equivengine as eqv  # noqa: E402

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
