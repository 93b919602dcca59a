"""The hf_text backend: on token embeddings, each family computes what transformers computes on tokens."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

transformers = pytest.importorskip("transformers")

import hf_cases as cases  # noqa: E402  # after the skip
from library_oracle import assert_same_map  # noqa: E402

import equivengine as eqv  # noqa: E402
from equivengine_plugins.backends import hf_text as plugin  # noqa: E402

SMALL = {**cases.PLAIN, "vocab_size": 40, "max_position_embeddings": 24, "pad_token_id": 0}
DISTIL = {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2, "vocab_size": 40, "max_position_embeddings": 24}
FAMILIES = {
    "BertModel": SMALL,
    "BertForMaskedLM": SMALL,
    "DistilBertModel": DISTIL,
    "RobertaModel": {**SMALL, "pad_token_id": 1},
    "MPNetModel": {**SMALL, "pad_token_id": 1},
    "ElectraModel": {**SMALL, "embedding_size": 20},
}
TEXT = "the cat sings on a dog"


def load(text):
    return plugin.HfTextBackend().load(eqv.URI.parse(text))


def save(folder, name="BertModel", **changes):
    torch.manual_seed(0)
    model_class = getattr(transformers, name)
    model = model_class(model_class.config_class(**{**FAMILIES[name], **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model, cases.save_tokenizer(folder, 24)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_family_computes_what_transformers_computes(name, tmp_path):
    model, tokenizer = save(tmp_path, name)
    uri = f"hf_text:{tmp_path}?tokens=8"
    encoder = eqv.Encoder(load(uri), uri)
    x = encoder.preprocess(TEXT)
    tokens = tokenizer(TEXT, truncation=True, max_length=8, return_tensors="pt")["input_ids"]
    assert tokens.shape == (1, 8)
    own = model.base_model
    with torch.no_grad():
        expected = own(input_ids=tokens).last_hidden_state.mean(dim=1)
        assert torch.allclose(encoder(x[None]), expected, rtol=1e-4, atol=1e-6)
    double = own.double()
    assert_same_map(encoder, lambda x: double(inputs_embeds=x).last_hidden_state.mean(dim=1), x)
    coverage = eqv.JacobianOperator(encoder, x).coverage()
    assert not [operation for operation, rules in coverage.items() if "torch" in rules]
    assert encoder.input_shape == (8, 20 if name == "ElectraModel" else 32)
    details = json.loads(json.dumps(encoder.spec.details))
    assert (details["pool"], details["tokens"], details["short_texts"]) == ("mean", 8, "refuse")
    assert len(details["tokenizer_sha256"]) == 64


@pytest.mark.parametrize("pool", ["cls", "pooler"])
def test_pooling_is_chosen(pool, tmp_path):
    model, tokenizer = save(tmp_path)
    loaded = load(f"hf_text:{tmp_path}?tokens=6&pool={pool}")
    tokens = torch.tensor([tokenizer(TEXT, truncation=True, max_length=6)["input_ids"]])
    with torch.no_grad():
        out = model(tokens)
        expected = out.pooler_output if pool == "pooler" else out.last_hidden_state[:, 0]
        assert torch.allclose(loaded.module(loaded.preprocessing(TEXT)[None]), expected, atol=1e-6)


def test_input_range_holds_every_text(tmp_path):
    model, _ = save(tmp_path)
    loaded = load(f"hf_text:{tmp_path}?tokens=6")
    table = model.get_input_embeddings().weight.detach()
    low, high = loaded.input_range
    assert (low, high) == (float(table.min()), float(table.max()))
    x = loaded.preprocessing(TEXT)
    assert low <= float(x.min()) < float(x.max()) <= high


def test_short_texts_are_refused_or_padded_with_tokens_that_are_attended_to(tmp_path):
    model, tokenizer = save(tmp_path)
    refusing, padding = (load(f"hf_text:{tmp_path}?tokens=12{more}") for more in ("", "&short=pad"))
    with pytest.raises(eqv.DataError, match="too short") as caught:
        refusing.preprocessing("a cat")
    assert "4 tokens" in caught.value.got
    tokens = torch.tensor([tokenizer("a cat", padding="max_length", max_length=12)["input_ids"]])
    assert int((tokens == tokenizer.pad_token_id).sum()) == 8
    with torch.no_grad():
        expected = model(tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state.mean(dim=1)
        assert torch.allclose(padding.module(padding.preprocessing("a cat")[None]), expected, atol=1e-6)
    assert padding.details["short_texts"] == "pad"


def test_bundled_sentences_are_long_enough_for_the_default(tmp_path):
    save(tmp_path)
    encoder = eqv.Encoder(load(f"hf_text:{tmp_path}"), "x")
    sentences = eqv.load_images("sentences")
    inputs = [encoder.preprocess(sample.load()) for sample in sentences]
    assert {tuple(x.shape) for x in inputs} == {(16, 32)}
    assert all(len(sample.load().split()) >= 15 and sample.load().endswith(".") for sample in sentences)


def test_text_and_image_models_refuse_each_others_samples(tmp_path):
    save(tmp_path)
    with pytest.raises(eqv.DataError, match="no text"):
        load(f"hf_text:{tmp_path}?tokens=6").preprocessing(cases.picture(32, 32))
    with pytest.raises(eqv.DataError, match="no image"):
        eqv.load_encoder("digits").preprocess(TEXT)


def test_random_weights_are_said(tmp_path):
    save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    uri = f"hf_text:{tmp_path}?weights=random&seed=3&tokens=6"
    encoders = [eqv.Encoder(load(uri), uri) for _ in range(2)]
    assert encoders[0].spec.random_weights
    assert encoders[0].spec.weights_digest == encoders[1].spec.weights_digest


def test_what_is_no_language_encoder_is_refused(tmp_path):
    cases.save(cases.FAMILIES["vit"], tmp_path / "vit")
    with pytest.raises(eqv.UsageError, match="no language encoder") as caught:
        load(f"hf_text:{tmp_path}/vit")
    assert f"hf:{tmp_path}/vit" in caught.value.hint
    config = transformers.T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=40)
    transformers.T5Model(config).save_pretrained(tmp_path / "t5")
    with pytest.raises(eqv.UsageError, match="no language encoder"):
        load(f"hf_text:{tmp_path}/t5")


def test_missing_and_foreign_tokenisers_are_named(tmp_path):
    save(tmp_path / "whole")
    model, _ = save(tmp_path / "bare")
    for file in (tmp_path / "bare").glob("tokenizer*"):
        file.unlink()
    with pytest.raises(eqv.ModelError, match="has no tokenizer"):
        load(f"hf_text:{tmp_path}/bare?tokens=6")
    (tmp_path / "bare" / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    with pytest.raises(eqv.ModelError, match="has no tokenizer") as caught:
        load(f"hf_text:{tmp_path}/bare?tokens=6")
    assert "none of them a word" in caught.value.got
    (tmp_path / "bare" / "tokenizer.json").write_text("{")
    with pytest.raises(eqv.ModelError, match="cannot be had"):
        load(f"hf_text:{tmp_path}/bare?tokens=6")
    save(tmp_path / "foreign", vocab_size=20)
    with pytest.raises(eqv.ModelError, match="does not belong to its model"):
        load(f"hf_text:{tmp_path}/foreign?tokens=6")
    cases.edit(tmp_path / "whole" / "config.json", auto_map={"AutoModel": "evil.Model"})
    with pytest.raises(eqv.ModelError, match="refused"):
        load(f"hf_text:{tmp_path}/whole?tokens=6")
    assert model.config.vocab_size == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("tokens=0", "option 'tokens'"),
        ("tokens=25", "does not take 25 tokens"),
        ("pool=max", "option 'pool'"),
        ("short=yes", "option 'short'"),
        ("size=3", "does not know the option 'size'"),
    ],
)
def test_address_that_makes_no_sense_is_a_usage_error(tmp_path, options, message):
    save(tmp_path)
    with pytest.raises(eqv.UsageError, match=message):
        load(f"hf_text:{tmp_path}?{options}")


def test_pooler_that_a_model_does_not_have_is_a_usage_error(tmp_path):
    save(tmp_path, "DistilBertModel")
    with pytest.raises(eqv.UsageError, match="no pooling 'pooler'"):
        load(f"hf_text:{tmp_path}?tokens=6&pool=pooler")


def test_plugins_import_neither_torch_nor_transformers():
    code = (
        "import sys; from equivengine_plugins.backends import hf_text; "
        "from equivengine_plugins.datasets import lines, sentences; "
        "print(sorted({'torch', 'transformers', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
