"""The encoder wrapper: what it refuses, what it fixes by itself, and what its digest and its copies promise."""

import pytest
import torch
from encoder_cases import SHAPE, Small, batch, wrap
from torch import nn

import equivengine as eqv


def variant(forward):
    """A `Small` with another ``forward(self, x)``."""
    return type("Variant", (Small,), {"forward": forward})()


class ModelOutput(dict):
    """Looks like the output of a transformers model."""


def half_forward(self, x):
    return self.embed(x).to(torch.bfloat16)


def train_mode_norm(self, x):
    x = nn.functional.batch_norm(self.conv(x), None, None, training=True)
    return self.head(x.mean((2, 3)) + x.amax((2, 3)))


def stuck_dropout(self, x):
    self.drop.train()
    return self.embed(x)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        pytest.param(lambda self, x: self.embed(x) * float("nan"), "returns NaN or infinity", id="NaN"),
        pytest.param(lambda self, x: (self.embed(x), x), "does not return one tensor[^$]*tuple of 2", id="tuple"),
        pytest.param(
            lambda self, x: {"pooled": self.embed(x)}, "does not return one tensor[^$]*dict with keys", id="dict"
        ),
        pytest.param(
            lambda self, x: ModelOutput(pooler=self.embed(x)),
            "does not return one tensor[^$]*ModelOutput with keys",
            id="ModelOutput",
        ),
        pytest.param(lambda self, x: self.conv(x), "output of a wrong shape", id="feature map"),
        pytest.param(lambda self, x: self.embed(x)[:1], "output of a wrong shape", id="another batch size"),
        pytest.param(lambda self, x: self.embed(x)[:, :0], "output of a wrong shape", id="no columns"),
        pytest.param(half_forward, "another dtype than its input's", id="another dtype"),
        pytest.param(
            lambda self, x: self.embed(x) + 0.1 * torch.rand(5),
            "the same input gave two different embeddings",
            id="noise",
        ),
        pytest.param(
            lambda self, x: self.head(nn.functional.dropout(self.conv(x).mean((2, 3)))),
            "two different embeddings",
            id="dropout",
        ),
        pytest.param(stuck_dropout, "switches itself back to training mode[^$]*drop", id="stuck dropout"),
        pytest.param(train_mode_norm, "depends on what else is in the batch", id="train-mode norm"),
        pytest.param(lambda self, x: self.embed(x.detach()), "no gradient reaches the input", id="detached"),
        pytest.param(torch.no_grad()(lambda self, x: self.embed(x)), "no gradient reaches the input", id="no_grad"),
        pytest.param(lambda self, x: self.embed(x * 0), "gradient of exactly zero", id="zero gradient"),
        pytest.param(
            lambda self, x: self.embed(x) + (x * 0).sum((1, 2, 3)).sqrt()[:, None],
            "gradient holds NaN or infinity",
            id="infinite gradient",
        ),
        pytest.param(
            lambda self, x: self.embed(x[:, :2]), "fails on noise of its declared input shape", id="another input shape"
        ),
    ],
)
def test_module_that_breaks_the_contract_is_refused(forward, message):
    with pytest.raises(eqv.ModelError, match=message):
        wrap(variant(forward))


def test_what_is_no_model_is_refused():
    with pytest.raises(eqv.ModelError, match="something else than a model"):
        eqv.Encoder(Small(), uri="x")
    with pytest.raises(eqv.ModelError, match=r"wrong type\n  expected: a torch\.nn\.Module"):
        wrap(lambda x: x)
    with pytest.raises(eqv.ModelError, match="input_shape and preprocessing disagree"):
        wrap(Small(), input_shape=(3, 9, 9))
    with pytest.raises(eqv.ModelError, match="input shape is not known"):
        wrap(Small(), preprocessing=lambda raw: raw)


def test_spec_says_what_was_wrapped():
    module = Small()
    spec = wrap(module, random_weights=True, activation="tanh", license="mit", details={"a": 1}).spec
    assert (spec.input_shape, spec.embedding_dim, spec.input_dim) == (SHAPE, 5, 192)
    assert (spec.random_weights, spec.activation, spec.license, spec.details) == (True, "tanh", "mit", {"a": 1})
    assert spec.parameters == sum(p.numel() for p in module.parameters())
    assert spec.preprocessing["resize"] == "shortest"


def test_module_is_frozen_and_in_eval_mode():
    module = Small().train().half()
    encoder = wrap(module)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not any(part.training for part in encoder.modules())
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    with pytest.raises(eqv.UsageError, match="stays in eval mode"):
        encoder.train()
    assert encoder.eval() is encoder


def test_gradient_checkpointing_is_switched_off():
    module = Small()
    module.checkpointing = True
    module.set_grad_checkpointing = lambda enable: setattr(module, "checkpointing", enable)
    wrap(module)
    assert module.checkpointing is False


def test_input_changed_in_place_stays_the_callers():
    encoder = wrap(
        variant(lambda self, x: self.embed(x.mul_(2).sub_(1))), preprocessing=lambda raw: raw, input_shape=SHAPE
    )
    x = batch()
    before = x.clone()
    first = encoder(x)
    assert torch.equal(x, before)
    assert torch.equal(encoder(x), first)
    leaf = x.clone().requires_grad_(True)
    encoder(leaf).sum().backward()
    assert bool(leaf.grad.abs().max() > 0)


def test_autocast_around_the_call_changes_nothing():
    encoder = wrap(Small())
    x = batch()
    expected = encoder(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = encoder(x)
        assert torch.is_autocast_enabled("cpu")
    assert inside.dtype == torch.float32
    assert torch.equal(inside, expected)


def test_fast_path_of_attention_is_off_during_a_call_only():
    seen = []

    def forward(self, x):
        seen.append(torch.backends.mha.get_fastpath_enabled())
        return self.embed(x)

    before = torch.backends.mha.get_fastpath_enabled()
    wrap(variant(forward))(batch())
    assert seen
    assert not any(seen)
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_normalisation_is_inside_the_graph():
    mean, std = (0.1, 0.5, 0.7), (0.25, 0.5, 2.0)
    plain = wrap(Small())
    normalised = wrap(Small(), preprocessing=eqv.Preprocessing(size=SHAPE[1:], mean=mean, std=std))
    x = batch()
    scale, shift = torch.tensor(std).view(3, 1, 1), torch.tensor(mean).view(3, 1, 1)
    assert torch.allclose(normalised(x), plain((x - shift) / scale), rtol=1e-6, atol=1e-6)
    inner = ((x - shift) / scale).requires_grad_(True)
    (expected,) = torch.autograd.grad(plain(inner).sum(), inner)
    outer = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(normalised(outer).sum(), outer)
    assert torch.allclose(gradient, expected / scale, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(SHAPE, id="no batch"),
        pytest.param((1, 3, 9, 9), id="too large"),
        pytest.param((1, 1, 8, 8), id="too few channels"),
        pytest.param((1, 1, *SHAPE), id="two batch dimensions"),
    ],
)
def test_input_of_a_wrong_shape_is_refused(shape):
    with pytest.raises(eqv.ModelError, match="input of a wrong shape"):
        wrap(Small())(torch.zeros(shape))


@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(torch.float64, id="float64"),
        pytest.param(torch.bfloat16, id="bfloat16"),
        pytest.param(torch.uint8, id="uint8"),
    ],
)
def test_input_of_a_wrong_dtype_is_refused(dtype):
    with pytest.raises(eqv.ModelError, match="input of another dtype"):
        wrap(Small())(batch().to(dtype))


def test_encoder_without_parameters_is_served():
    encoder = wrap(nn.Flatten())
    assert encoder.at_precision("fp32") is encoder
    assert encoder(batch()).shape == (2, 192)


# -- abilities ------------------------------------------------------------------------------------------------------


def test_abilities_that_a_backend_does_not_give_say_so():
    encoder = wrap(Small())
    assert not encoder.classify_ability
    with pytest.raises(eqv.UsageError, match="has no classifier"):
        encoder.classify(torch.zeros(1, 5))
    with pytest.raises(eqv.UsageError, match="has no text tower"):
        encoder.embed_text(["a"])
    able = wrap(Small(), classify=lambda e: e * 2, embed_text=lambda prompts: torch.zeros(len(prompts), 5))
    assert able.classify_ability
    assert torch.equal(able.classify(torch.ones(1, 5)), torch.full((1, 5), 2.0))
    assert able.embed_text(["a", "b"]).shape == (2, 5)


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param((-float("inf"), float("inf")), id="infinite"),
        pytest.param((0.0, float("nan")), id="NaN"),
        pytest.param((1.0, 0.0), id="reversed"),
        pytest.param((0.5, 0.5), id="empty"),
    ],
)
def test_input_range_that_is_no_interval_is_refused(limits):
    with pytest.raises(eqv.ModelError, match="input range is no interval") as caught:
        wrap(Small(), input_range=limits)
    assert "a box that holds the data" in caught.value.hint


def test_numbers_of_an_input_are_pixels_where_inputs_are_images():
    assert wrap(Small()).spec.input_unit == "pixel"
    line = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    encoder = eqv.Encoder(eqv.LoadedModel(line, preprocessing=torch.as_tensor, input_shape=(3, 4)), uri="x")
    assert encoder.spec.input_unit == "coordinate"


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_module_is_served():
    module = Small()
    scripted = wrap(torch.jit.script(module.eval()))
    assert not any(parameter.requires_grad for parameter in scripted.module.parameters())
    x = batch(1)[0]
    v = batch(3, seed=2)
    torch.testing.assert_close(
        eqv.JacobianOperator(scripted, x).jvp(v), eqv.JacobianOperator(wrap(module), x).jvp(v), rtol=1e-5, atol=1e-6
    )


def compiled_in_place(module):
    module.conv.compile()
    return module


def compiled_in_part(module):
    module.head = torch.compile(module.head)
    return module


@pytest.mark.parametrize("change", [torch.compile, compiled_in_part, compiled_in_place])
def test_what_torch_compile_has_compiled_is_refused(change):
    with pytest.raises(eqv.ModelError, match=r"compiled by torch\.compile") as caught:
        wrap(change(Small()))
    assert caught.value.hint == "leave torch.compile out of the backend"


def test_a_program_of_torch_export_is_served_once_its_eval_works():
    batches = {"x": {0: torch.export.Dim("batch", max=4096)}}

    def program():
        return torch.export.export(Small().eval(), (batch(2),), dynamic_shapes=batches).module()

    with pytest.raises(eqv.ModelError, match="cannot be put into eval mode") as caught:
        wrap(program())
    assert "del module.train, module.eval" in caught.value.hint
    module = program()
    del module.train, module.eval
    torch.testing.assert_close(wrap(module)(batch()), wrap(Small())(batch()))
