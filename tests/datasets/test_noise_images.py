"""``noise:COUNT``: the same images for everyone, drawn when asked for."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

import equivengine as eqv
from equivengine_plugins.datasets import noise
from equivengine_plugins.datasets.noise import Noise

EXPECTED_RGB = "a3431f5c5b0c94263480ae913b777fadc6fa2852efe13cd9a219ae5ff3a4daf7"
EXPECTED_L = "1fd8467c49b2fcc0eec8c596b9b503d4d8eea7000cfffe22546d2f3827cabb63"


def open_noise(rest: str) -> Noise:
    return Noise(eqv.URI.parse(f"noise:{rest}"))


def pixels(sample: eqv.Sample) -> np.ndarray:
    return np.asarray(sample.load())


def test_the_images_are_the_same_on_every_machine():
    # Philox-4x64-10 with key (0, 0) and (7, 1): fixed once, so that results of different machines can be compared.
    assert hashlib.sha256(pixels(open_noise("1")[0]).tobytes()).hexdigest() == EXPECTED_RGB
    assert hashlib.sha256(pixels(open_noise("2?seed=7&size=3x5&mode=L")[1]).tobytes()).hexdigest() == EXPECTED_L


def test_the_first_words_are_those_of_philox():
    # Counter 1 and key 0: numpy's Philox increments its counter before each block.
    words = [philox_4x64_10(counter, (7, 1)) for counter in (1, 2)]
    expected = b"".join(word.to_bytes(8, "little") for block in words for word in block)
    assert pixels(open_noise("2?seed=7&size=8&mode=L")[1]).tobytes() == expected


def philox_4x64_10(counter: int, key: tuple[int, int]) -> list[int]:
    """Salmon et al. 2011, written out: ten rounds of multiply, xor and key schedule on four 64-bit words."""
    mask = 2**64 - 1
    x, (k0, k1) = [counter, 0, 0, 0], key
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * x[0], 0xCA5A826395121157 * x[2]
        x = [(second >> 64) ^ x[1] ^ k0, second & mask, (first >> 64) ^ x[3] ^ k1, first & mask]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return x


def test_an_image_depends_on_neither_the_count_nor_its_neighbours():
    few, many = open_noise("3?size=16"), open_noise("100?size=16")
    assert [sample.id for sample in few] == [many[i].id for i in range(3)]
    assert [sample.digest for sample in few] == [many[i].digest for i in range(3)]
    np.testing.assert_array_equal(pixels(many[2]), pixels(few[2]))


def test_seed_and_index_each_change_the_image():
    digests = {open_noise(f"4?seed={seed}&size=8")[index].digest for seed in range(4) for index in range(4)}
    assert len(digests) == 16
    assert open_noise("1?size=8")[0].digest == open_noise("1?size=8&seed=0")[0].digest


def test_the_digest_is_that_of_the_loaded_image():
    for rest, shape in (("1", "224,224,3"), ("1?size=5x7&mode=L", "5,7"), (f"1?size=1x{noise.MAX_SIDE}", "1,4096,3")):
        sample = open_noise(rest)[0]
        assert sample.digest == hashlib.sha256(f"uint8[{shape}]\n".encode() + pixels(sample).tobytes()).hexdigest()


def test_the_digest_does_not_depend_on_the_block_size(monkeypatch):
    before = open_noise("1?size=33x35")[0]
    expected = pixels(before)
    monkeypatch.setattr(noise, "_BLOCK", 7)
    after = open_noise("1?size=33x35")[0]
    assert before.digest == after.digest
    np.testing.assert_array_equal(pixels(after), expected)


def test_size_and_mode_are_taken():
    assert pixels(open_noise("1")[0]).shape == (224, 224, 3)
    assert pixels(open_noise("1?size=8x5")[0]).shape == (8, 5, 3)
    image = open_noise("1?size=6&mode=L")[0].load()
    assert (image.mode, image.size) == ("L", (6, 6))


def test_pixels_are_uniform():
    counts = np.bincount(pixels(open_noise("1?size=512")[0]).ravel(), minlength=256)
    expected = counts.sum() / 256
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    assert 255 - 5 * np.sqrt(2 * 255) < chi_squared < 255 + 5 * np.sqrt(2 * 255)


def test_nothing_is_drawn_until_a_sample_is_asked_for(monkeypatch):
    monkeypatch.setattr(noise, "_blocks", lambda *arguments: pytest.fail("drawn"))
    assert len(open_noise("1000000?size=4096")) == 1_000_000


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "0",
        "-1",
        "1.5",
        "ten",
        "1_0",
        " 3",
        "1000001",
        "9" * 5000,
        "٣",
        "3?size=0",
        "3?size=4097",
        "3?size=3x",
        "3?size=x3",
        "3?size=3x3x3",
        "3?size=-3",
        "3?mode=CMYK",
        "3?mode=rgb",
        "3?seed=-1",
        "3?seed=x",
        f"3?seed={2**64}",
        "3?colour=1",
    ],
)
def test_an_address_without_sense_is_a_usage_error(rest):
    with pytest.raises(eqv.UsageError):
        open_noise(rest)


def test_the_largest_seed_is_taken():
    assert open_noise(f"1?size=2&seed={2**64 - 1}")[0].load().size == (2, 2)


def test_it_is_a_sequence():
    dataset = open_noise("3?size=2")
    assert dataset[-1].id == dataset[2].id == dataset[np.int64(2)].id == "noise-000002"
    assert len(list(dataset)) == 3
    for index in (3, -4):
        with pytest.raises(IndexError):
            dataset[index]
    with pytest.raises(TypeError):
        dataset[0:1]
