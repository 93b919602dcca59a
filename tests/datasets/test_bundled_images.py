"""``samples`` and ``digits``: complete, licensed, and refused when damaged."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest

import equivengine as eqv
from equivengine_plugins.datasets import digits, samples
from equivengine_plugins.datasets.digits import HeldOutDigits
from equivengine_plugins.datasets.samples import Samples


def recorded() -> list[dict]:
    return json.loads((samples.DATA / "samples.json").read_text(encoding="utf-8"))["images"]


@pytest.fixture
def copied_data(tmp_path, monkeypatch):
    """A copy of the bundled files that a test may damage."""
    copy = tmp_path / "data"
    shutil.copytree(samples.DATA, copy)
    for module in (samples, digits):
        monkeypatch.setattr(module, "DATA", copy)
    return copy


def open_samples() -> Samples:
    return Samples(eqv.URI.parse("samples"))


def open_digits() -> HeldOutDigits:
    return HeldOutDigits(eqv.URI.parse("digits"))


@pytest.mark.parametrize("dataset", [Samples, HeldOutDigits])
@pytest.mark.parametrize("rest", [":x", "?seed=1"])
def test_neither_takes_a_path_or_options(dataset, rest):
    with pytest.raises(eqv.UsageError):
        dataset(eqv.URI.parse(dataset.name + rest))


@pytest.mark.parametrize("open_set", [open_samples, open_digits])
def test_both_are_sequences(open_set):
    dataset = open_set()
    last = len(dataset) - 1
    assert dataset[-1].id == dataset[last].id == dataset[np.int64(last)].id
    assert len({sample.id for sample in dataset}) == len(dataset)
    for index in (len(dataset), -len(dataset) - 1):
        with pytest.raises(IndexError):
            dataset[index]
    with pytest.raises(TypeError):
        dataset[0:1]


def test_every_photograph_is_there_and_says_where_it_is_from():
    dataset = open_samples()
    assert len(dataset) >= 3
    assert {"chelsea", "coffee"} <= {sample.id for sample in dataset}
    for sample, entry in zip(dataset, recorded(), strict=True):
        assert sample.digest == hashlib.sha256((samples.DATA / entry["file"]).read_bytes()).hexdigest()
        image = sample.load()
        assert (image.mode, image.width, image.height) == (entry["mode"], entry["width"], entry["height"])
        assert all(sample.details[key] for key in ("title", "author", "licence", "source"))


def test_a_changed_photograph_is_refused_and_the_others_are_not(copied_data):
    dataset = open_samples()
    name = recorded()[1]["file"]
    with open(copied_data / name, "ab") as file:
        file.write(b"\0")
    with pytest.raises(eqv.DataError, match="damaged") as caught:
        dataset[1]
    assert name in str(caught.value)
    assert "reinstall" in str(caught.value)
    dataset[0].load()


def test_a_missing_photograph_is_a_data_error(copied_data):
    dataset = open_samples()
    (copied_data / recorded()[0]["file"]).unlink()
    with pytest.raises(eqv.DataError, match="cannot be read"):
        dataset[0]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "null",
        "\x00",
        None,
        '{"format_version": 2, "images": [{}]}',
        '{"format_version": 1}',
        '{"format_version": 1, "images": []}',
        '{"format_version": 1, "images": [1]}',
        '{"format_version": 1, "images": [{"name": "x"}]}',
    ],
)
def test_a_damaged_description_is_refused(copied_data, content):
    path = copied_data / "samples.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(eqv.DataError, match=r"samples\.json"):
        open_samples()


def test_the_digits_are_small_grey_labelled_and_all_ten():
    dataset = open_digits()
    assert len(dataset) == 360
    assert {sample.label for sample in dataset} == set("0123456789")
    sample = dataset[7]
    assert sample.id == "digit-0007"
    image = sample.load()
    assert (image.mode, image.size) == ("L", (8, 8))
    assert np.asarray(image).max() > 128
    assert {"index", "title", "author", "licence", "source"} <= set(sample.details)
    json.dumps(dict(sample.details))


def test_a_digit_is_hashed_over_its_shape_and_pixels():
    for sample in list(open_digits())[:5]:
        pixels = np.asarray(sample.load())
        assert sample.digest == hashlib.sha256(b"uint8[8,8]\n" + pixels.tobytes()).hexdigest()


def test_changing_a_loaded_digit_leaves_the_set_alone():
    dataset = open_digits()
    before = dataset[0].load().getpixel((0, 0))
    image = dataset[0].load()
    image.putpixel((0, 0), 255 - before)
    assert dataset[0].load().getpixel((0, 0)) == before


def test_damaged_digits_are_refused(copied_data):
    path = copied_data / "digits_heldout.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(eqv.DataError, match="damaged"):
        open_digits()


@pytest.mark.parametrize("name", ["digits_heldout.safetensors", "digits_heldout.json"])
def test_missing_digits_are_a_data_error(copied_data, name):
    (copied_data / name).unlink()
    with pytest.raises(eqv.DataError, match=name):
        open_digits()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"source": {}}'])
def test_a_damaged_record_is_refused(copied_data, content):
    (copied_data / "digits_heldout.json").write_text(content)
    with pytest.raises(eqv.DataError, match="damaged"):
        open_digits()


def test_arrays_that_do_not_fit_the_record_are_refused(copied_data):
    from safetensors.numpy import save

    wrong = save({"images": np.zeros((3, 8, 9), np.uint8), "labels": np.zeros(3), "indices": np.zeros(3)})
    record = json.loads((copied_data / "digits_heldout.json").read_text())
    for content in (wrong, b"no safetensors at all"):
        (copied_data / record["file"]).write_bytes(content)
        record["sha256"] = hashlib.sha256(content).hexdigest()
        (copied_data / "digits_heldout.json").write_text(json.dumps(record))
        with pytest.raises(eqv.DataError, match="damaged"):
            open_digits()
