"""The encoder wrapper: what it refuses, what it fixes by itself, and what its digest and its copies promise."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import equivengine as eqv
from equivengine.contracts.encoder import weights_digest

SHAPE = (3, 8, 8)


class Small(nn.Module):
    """A model that keeps the contract."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, 4, 3)
            self.norm = nn.BatchNorm2d(4)
            self.drop = nn.Dropout(0.5)
            self.head = nn.Linear(4, 5)

    def embed(self, x):
        return self.head(self.drop(torch.tanh(self.norm(self.conv(x)))).mean((2, 3)))

    def forward(self, x):
        return self.embed(x)


def wrap(module, **changes):
    changes = {"preprocessing": eqv.Preprocessing(size=SHAPE[1:]), **changes}
    return eqv.Encoder(eqv.LoadedModel(module, **changes), uri="x")


def variant(forward):
    """A `Small` with another ``forward(self, x)``."""
    return type("Variant", (Small,), {"forward": forward})()


def batch(count=2, seed=1):
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


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


# -- precision ------------------------------------------------------------------------------------------------------


def test_float64_copy_has_the_same_weights_and_leaves_the_original_alone():
    encoder = wrap(Small(), preprocessing=eqv.Preprocessing(size=SHAPE[1:], mean=(0.3,) * 3, std=(0.2,) * 3))
    state = {key: value.clone() for key, value in encoder.module.state_dict().items()}
    x = batch()
    single = encoder(x)
    double = encoder.at_precision("fp64")
    assert double is not encoder
    assert encoder.at_precision("fp64") is double
    assert double.at_precision("fp64") is double
    assert encoder.at_precision("fp32") is encoder
    for key, value in double.module.state_dict().items():
        assert value.dtype == (torch.float64 if state[key].is_floating_point() else state[key].dtype)
        assert torch.equal(value.to(state[key].dtype), state[key])
        assert torch.equal(encoder.module.state_dict()[key], state[key])
        assert encoder.module.state_dict()[key].dtype == state[key].dtype
    assert torch.equal(encoder(x), single)
    precise = double(x.double())
    assert precise.dtype == torch.float64
    assert 0 < float((precise - single).abs().max()) < 1e-5
    assert double.spec == encoder.spec


def test_float64_copy_is_no_submodule_and_cannot_go_back():
    encoder = wrap(Small())
    names = [name for name, _ in encoder.named_modules()]
    double = encoder.at_precision("fp64")
    assert [name for name, _ in encoder.named_modules()] == names
    with pytest.raises(eqv.UsageError, match="keep the float32 encoder"):
        double.at_precision("fp32")
    with pytest.raises(eqv.UsageError, match="unknown precision"):
        encoder.at_precision("fp16")


# -- digest ---------------------------------------------------------------------------------------------------------


def flip_lowest_bit(module):
    with torch.no_grad():
        module.conv.weight.view(torch.int32)[0, 0, 0, 0] ^= 1


def rename(module):
    module.neck = module.head
    del module.head


def add_hidden_buffer(module):
    module.register_buffer("table", torch.ones(3), persistent=False)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(flip_lowest_bit, id="one bit"),
        pytest.param(rename, id="a name"),
        pytest.param(add_hidden_buffer, id="a hidden buffer"),
        pytest.param(lambda module: module.head.double(), id="a dtype"),
        pytest.param(lambda module: module.norm.running_mean.add_(1e-3), id="a buffer"),
        pytest.param(
            lambda module: setattr(module.head, "weight", nn.Parameter(module.head.weight.reshape(4, 5))), id="a shape"
        ),
    ],
)
def test_digest_sees_every_change(change):
    module = Small()
    before = weights_digest(module)
    assert before == weights_digest(Small()) != weights_digest(Small(seed=1))
    change(module)
    assert weights_digest(module) != before


def test_digest_does_not_see_mode_order_or_layout():
    module = Small()
    before = weights_digest(module)
    module.eval().requires_grad_(False)
    module._modules = dict(reversed(list(module._modules.items())))
    module.conv.weight.data = module.conv.weight.data.to(memory_format=torch.channels_last)
    assert weights_digest(module) == before


def test_digest_reads_a_hidden_buffers_values():
    digests = set()
    for value in (1.0, 2.0):
        module = Small()
        module.register_buffer("table", torch.full((3,), value), persistent=False)
        digests.add(weights_digest(module))
    assert len(digests) == 2


# -- images ---------------------------------------------------------------------------------------------------------


def test_display_rounds_so_that_tiny_noise_moves_no_level():
    encoder = wrap(Small())
    levels = torch.arange(256).repeat(3, 1).reshape(3, 16, 16)
    x = levels.float() / 255
    for noise in (0, 1e-7, -1e-7):
        shown = np.asarray(encoder.display(x + noise)).transpose(2, 0, 1)
        assert np.array_equal(shown, levels.numpy())
    assert np.asarray(encoder.display(torch.tensor([-0.3, 1.4]).reshape(1, 1, 2))).tolist() == [[0, 255]]
    with pytest.raises(eqv.UsageError, match="no images"):
        encoder.display(torch.zeros(2, 4, 4))


def test_preprocessing_then_display_gives_the_image_back():
    levels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    encoder = wrap(Small())
    x = encoder.preprocess(Image.fromarray(levels))
    assert (x.dtype, tuple(x.shape)) == (torch.float32, SHAPE)
    assert np.array_equal(np.asarray(encoder.display(x)), levels)


@pytest.mark.parametrize(
    ("produced", "message"),
    [
        pytest.param(torch.zeros(3, 9, 9), "did not produce an input", id="wrong shape"),
        pytest.param(np.zeros(SHAPE), "did not produce an input", id="a numpy array"),
        pytest.param(torch.full(SHAPE, float("inf")), "holds NaN or infinity", id="infinity"),
    ],
)
def test_preprocessing_that_yields_no_input_is_a_data_error(produced, message):
    encoder = wrap(Small(), preprocessing=lambda raw: produced, input_shape=SHAPE)
    with pytest.raises(eqv.DataError, match=message):
        encoder.preprocess(None)


def test_image_that_breaks_off_is_a_data_error():
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    broken = Image.open(io.BytesIO(file.getvalue()[:2000]))
    with pytest.raises(eqv.DataError, match="cannot be decoded"):
        wrap(Small()).preprocess(broken)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"mean": (0.0,)}, id="one mean"),
        pytest.param({"mode": "L"}, id="gray for three channels"),
        pytest.param({"std": (1.0, 0.0, 1.0)}, id="std of 0"),
    ],
)
def test_preprocessing_that_contradicts_itself_is_refused(arguments):
    with pytest.raises(eqv.UsageError, match=r"Preprocessing\.(mean|std)"):
        eqv.Preprocessing(size=(8, 8), **arguments)


@pytest.mark.parametrize(
    ("resize", "resize_to", "expected"),
    [("shortest", 10, (10, 20)), ("longest", 10, (5, 10)), ("squash", None, (8, 8)), ("squash", 10, (10, 10))],
)
def test_resize_refers_to_the_length_it_is_given(resize, resize_to, expected, monkeypatch):
    shapes = []
    original = Image.Image.resize

    def resize_and_note(image, size, *rest):
        shapes.append(size[::-1])
        return original(image, size, *rest)

    monkeypatch.setattr(Image.Image, "resize", resize_and_note)
    preprocessing = eqv.Preprocessing(size=(8, 8), resize=resize, resize_to=resize_to)
    assert tuple(preprocessing(Image.new("RGB", (80, 40))).shape) == SHAPE
    assert shapes == [expected]


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


@pytest.mark.parametrize(("rounding", "left"), [("even", 2), ("down", 1)])
def test_half_a_pixel_of_margin_goes_where_it_is_declared_to_go(rounding, left):
    """Three columns too many: torchvision and timm begin at round(1.5) = 2, transformers at 1."""
    columns = np.tile(np.arange(11, dtype=np.uint8), (8, 1))
    declared = eqv.Preprocessing(size=(8, 8), mode="L", mean=(0.0,), std=(1.0,), crop_rounding=rounding)
    pixels = declared(Image.fromarray(columns)).mul(255).round()
    assert pixels[0, 0].tolist() == list(range(left, left + 8))


@pytest.mark.parametrize("raw", ["a text", np.zeros((8, 8, 3)), None])
def test_sample_that_is_no_image_is_a_data_error(raw):
    with pytest.raises(eqv.DataError, match="no image"):
        wrap(Small()).preprocess(raw)


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
