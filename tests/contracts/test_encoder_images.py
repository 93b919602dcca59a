"""Between images and inputs: preprocessing, display, and what a sample must be."""

import io

import numpy as np
import pytest
import torch
from encoder_cases import SHAPE, Small, wrap
from PIL import Image

import equivengine as eqv


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
