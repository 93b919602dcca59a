"""What a probe may return, and what is refused before it is stored."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from equivengine.contracts.result import MAX_PICTURE_NAME, Array, Check, Picture, ProbeResult, Scalar
from equivengine.errors import PluginError
from equivengine.pictures.raster import MAX_PIXELS


def levels(*shape, dtype=np.uint8):
    return np.zeros(shape, dtype)


@pytest.mark.parametrize("shape", [(1, 1), (4, 6), (4, 6, 3)])
def test_grey_and_coloured_levels_make_a_picture(shape):
    assert Picture(levels(*shape), "x").levels.shape == shape


def test_levels_of_a_picture_are_contiguous():
    turned = Picture(np.arange(24, dtype=np.uint8).reshape(3, 2, 4).transpose(1, 2, 0), "x").levels
    assert turned.flags["C_CONTIGUOUS"]
    assert turned[1, 2].tolist() == [6, 14, 22]


@pytest.mark.parametrize(
    "given",
    [
        levels(4),
        levels(4, 6, 1),
        levels(4, 6, 4),
        levels(3, 4, 6),
        levels(2, 4, 6, 3),
        levels(0, 6),
        np.broadcast_to(np.uint8(0), (1, MAX_PIXELS + 1)),
    ],
    ids=lambda given: str(given.shape),
)
def test_other_shapes_are_refused_by_their_shape(given):
    with pytest.raises(PluginError, match="'the cat' has a wrong shape") as caught:
        Picture(given, "the cat")
    assert caught.value.got == str(given.shape)


@pytest.mark.parametrize("dtype", ["f4", "i1", "u2", "?"])
def test_other_dtypes_are_refused_with_a_way_out(dtype):
    with pytest.raises(PluginError, match="uint8") as caught:
        Picture(levels(4, 6, dtype=dtype), "x")
    assert "equivengine.pictures.picture" in caught.value.hint


@pytest.mark.parametrize("name", ["a b", "../x", "", "é", "x.png", "x" * (MAX_PICTURE_NAME + 1)])
def test_names_of_pictures_are_identifiers_and_short(name):
    with pytest.raises(PluginError, match="picture's name"):
        ProbeResult({}, {}, pictures={name: Picture(levels(2, 2), "x")})
    assert ProbeResult({}, {}, pictures={"x" * MAX_PICTURE_NAME: Picture(levels(2, 2), "x")}).pictures


def test_pictures_are_of_the_class():
    with pytest.raises(PluginError, match="wrong type") as caught:
        ProbeResult({}, {}, pictures={"x": levels(2, 2)})
    assert (caught.value.expected, caught.value.got) == ("equivengine.Picture", "ndarray")


def test_a_result_has_no_pictures_unless_it_is_given_some():
    assert ProbeResult({}, {}).pictures == {}


def test_inputs_that_are_no_images_have_no_pixels():
    result = ProbeResult(
        arrays={"pixel_s": Array(np.ones(2), ("pixel",), "embedding / pixel", "values of each pixel, of 2 pixels")},
        summary={"s_1": Scalar(1.0, "embedding / pixel", "per pixel", group="change of the pixels")},
        checks={"in_box": Check.at_most(0, 1, "no pixel leaves the input range")},
        status="not_converged",
        message="few pixels moved",
    )
    assert result.in_unit("pixel") is result
    worded = result.in_unit("coordinate")
    assert worded.arrays["pixel_s"].unit == "embedding / coordinate"
    assert worded.arrays["pixel_s"].dims == ("pixel",)
    assert worded.arrays["pixel_s"].description == "values of each coordinate, of 2 coordinates"
    assert worded.summary["s_1"].unit == "embedding / coordinate"
    assert worded.summary["s_1"].group == "change of the coordinates"
    assert worded.checks["in_box"].description == "no coordinate leaves the input range"
    assert worded.message == "few coordinates moved"
    assert "pixel" in result.message


def test_a_scalar_is_written_as_a_sentence_takes_it():
    def said(value, unit="1", interval=None):
        return str(Scalar(value, unit, "a number", interval))

    assert said(0.16412, "embedding / pixel", (0.15049, 0.58681)) == "0.1641 embedding / pixel (0.1505 .. 0.5868)"
    assert said(183312.6, interval=(152469, 194923)) == "183,313 (152,469 .. 194,923)"
    assert said(94, interval=(94, 94)) == said(94, "") == "94"
    assert said(2.19301, interval=(2.19300, 2.19302)) == "2.193"
    assert said(float("nan"), "dB") == "- dB"


@pytest.mark.parametrize(
    ("parts", "what", "expected"),
    [
        (({"a": [1, 2]}, {}), "array 'a' is of a wrong type", "equivengine.Array"),
        (({}, {"norm": 1.0}), "scalar 'norm' is of a wrong type", "equivengine.Scalar"),
        (({}, {}, {"sound": True}), "check 'sound' is of a wrong type", "equivengine.Check"),
        (({}, {3: Scalar(1.0, "1", "one")}), "a result name is not usable", "an ASCII identifier"),
    ],
)
def test_plain_values_are_no_measurements(parts, what, expected):
    with pytest.raises(PluginError, match=what) as caught:
        ProbeResult(*parts)
    assert caught.value.expected == expected


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(lambda unit, text: Array([1.0], ("k",), unit, text), id="array"),
        pytest.param(partial(Scalar, 1.0), id="scalar"),
    ],
)
def test_units_and_descriptions_are_texts(made):
    for unit, text in ((None, "x"), ("1", None), (3, "x")):
        with pytest.raises(PluginError, match="is no text") as caught:
            made(unit, text)
        assert "str" in caught.value.expected


def test_a_scalar_is_a_number():
    for value in ("many", None, np.ones(2), 1j):
        with pytest.raises(PluginError, match="'x' is no number"):
            Scalar(value, "1", "x")
    assert Scalar(np.float32(2), "1", "x").value == 2.0
