"""A float64 copy of a model that computes in float32 inside: found, said, and counted in what numbers promise."""

from __future__ import annotations

import copy

import open_clip
import pytest
import torch
import transformers
from torch import nn

import equivengine as eqv
from equivengine.testing import derivative_requirements as derivative
from equivengine.testing.encoder_subject import EncoderSubject

SHAPE = (6, 32)


class OfEmbeddings(nn.Module):
    """A language model of token embeddings."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(inputs_embeds=x).last_hidden_state.mean(1)


def wrap(module, shape=SHAPE):
    loaded = eqv.LoadedModel(module, lambda raw: raw, input_shape=shape, input_range=(-1.0, 1.0), random_weights=True)
    return eqv.Encoder(loaded, "test")


def llama(attention):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlamaConfig(**sizes, vocab_size=40, attn_implementation=attention)
    return wrap(OfEmbeddings(transformers.LlamaModel(config)))


@pytest.fixture(scope="module")
def casting():
    """Root mean square norms in float32, whatever the parameters are in."""
    return llama("sdpa")


@pytest.fixture(scope="module")
def x():
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(1))


def test_norms_and_softmax_that_stay_in_float32_are_named():
    encoder = llama("eager")
    assert encoder.narrowed == {"fp32": ()}
    assert encoder.epsilon("fp64") == torch.finfo(torch.float32).eps
    kinds = {place.kind for place in encoder.narrowed["fp64"]}
    assert kinds == {"LlamaRMSNorm", "LlamaAttention"}
    assert encoder.at_precision("fp64").narrowed == encoder.narrowed


def test_float64_that_is_float64_says_so():
    encoder = eqv.load_encoder("digits")
    assert encoder.epsilon("fp32") == torch.finfo(torch.float32).eps
    assert encoder.epsilon("fp64") == torch.finfo(torch.float64).eps
    assert encoder.narrowed == {"fp32": (), "fp64": ()}


def test_a_module_that_cannot_follow_is_named_by_the_error():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Linear(32, 16), open_clip.transformer.LayerNormFp32(16)

        def forward(self, x):
            return self.norm(self.first(x)).flatten(1)

    encoder = wrap(Mixed())
    for asked in (
        lambda: encoder.at_precision("fp64"),
        lambda: eqv.JacobianOperator(encoder, torch.rand(SHAPE), precision="fp64"),
    ):
        with pytest.raises(eqv.ModelError, match="cannot be evaluated in float64") as caught:
            asked()
        assert "norm (LayerNormFp32): float32" in str(caught.value)


def test_resolution_of_singular_values_is_that_of_the_narrowest_place(casting, x):
    J = eqv.JacobianOperator(casting, x, precision="fp64")
    assert J.epsilon == torch.finfo(torch.float32).eps
    found = eqv.linalg.svd(J)
    assert found.resolution == pytest.approx(1e-6 * float(found.S[0]))
    with pytest.raises(eqv.UsageError, match="fp64 with fp32 inside"):
        eqv.linalg.svd(J, tol=1e-9)
    # The same function in float64 throughout is off by more than 2e-14, and less than 1e-6.
    truth = eqv.linalg.svd(eqv.JacobianOperator(in_float64(casting), x.double(), precision="fp64"))
    gap = float((found.S - truth.S).abs().max() / truth.S[0])
    assert 1e-12 < gap < 1e-6
    assert bool((found.lower <= truth.S).all())
    assert bool(((found.S - truth.S).abs() <= found.error).all())


def in_float64(encoder):
    """The same function with its norms in float64."""

    class Norm(nn.Module):
        def __init__(self, norm):
            super().__init__()
            self.weight, self.eps = norm.weight, norm.variance_epsilon

        def forward(self, x):
            return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))

    module = copy.deepcopy(encoder.module).double()
    for name, norm in list(module.named_modules()):
        if type(norm).__name__ == "LlamaRMSNorm":
            module.set_submodule(name, Norm(norm))
    return lambda x: module(x)


def test_a_trace_with_float32_inside_is_a_program(casting, x):
    J = eqv.JacobianOperator(casting, x, precision="fp64")
    J.jvp(torch.ones(1, *SHAPE, dtype=torch.float64))
    assert "all" not in J.coverage()


def test_plain_functions_and_modules_are_looked_at_too(casting, x):
    for f in (casting.module, lambda z: casting.at_precision("fp64").module(z)):
        J = eqv.JacobianOperator(f, x, precision="fp64")
        assert J.epsilon == torch.finfo(torch.float32).eps
        assert any(place.kind == "LlamaRMSNorm" for place in J.narrowed) == isinstance(f, nn.Module)


def test_float32_with_bfloat16_inside_is_no_float32():
    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.last = nn.Linear(32, 8), nn.Linear(8, 4)

        def forward(self, x):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                inner = self.layer(x.flatten(1)[:, :32])
            return self.last(inner.to(x.dtype))

    encoder = wrap(Inside())
    assert encoder.epsilon("fp32") == torch.finfo(torch.bfloat16).eps
    J = eqv.JacobianOperator(encoder, torch.rand(SHAPE))
    assert eqv.linalg.svd(J, noise_directions=0).resolution >= 2e-2 * float(eqv.linalg.svd(J).S[0])


def test_plugin_check_says_it_and_holds_the_rest_to_float32(casting):
    class Loads(eqv.Backend):
        name = "test"

        def load(self, uri):
            return casting.loaded

    subject = EncoderSubject(Loads, raw=lambda: torch.rand(SHAPE))
    assert "not float64 throughout: model.layers.0.input_layernorm" in derivative.runs_in_float64(subject)
    assert derivative.agrees_with_differences(subject)
    assert derivative.agrees_with_its_adjoint(subject)
