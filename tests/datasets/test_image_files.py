"""One untrusted image file: decoded completely, or refused in one `DataError`."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

import equivengine as eqv
from equivengine_plugins.datasets import images


def encode(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def photograph(height: int = 24, width: int = 40, mode: str = "RGB") -> Image.Image:
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + data + png_chunk(b"IEND", b"")


@pytest.fixture
def write(tmp_path):
    def write_file(content: bytes, name: str = "image.png"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write_file


def refusal(path, *fragments: str) -> eqv.DataError:
    """The error that loading raises, which must name the file, say what came and what to do."""
    with pytest.raises(eqv.DataError) as caught:
        images.load_image(path)
    error = caught.value
    assert os.path.basename(path) in error.what
    assert error.expected
    assert error.got
    for fragment in fragments:
        assert fragment in str(error)
    return error


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_lossless_formats_come_back_unchanged(write, format, mode):
    image = photograph(mode=mode)
    loaded = images.load_image(write(encode(image, format)))
    assert loaded.mode == mode
    np.testing.assert_array_equal(np.asarray(loaded), np.asarray(image))


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "GIF"])
def test_lossy_formats_are_what_pillow_decodes(write, format):
    content = encode(photograph(), format)
    expected = Image.open(io.BytesIO(content)).convert("RGB")
    loaded = images.load_image(write(content))
    assert loaded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(loaded), np.asarray(expected))


def test_the_content_decides_not_the_suffix(write):
    assert images.load_image(write(encode(photograph(), "PNG"), "really_a_png.jpg")).size == (40, 24)


def test_the_result_is_decoded_and_the_file_is_closed(write):
    path = write(encode(photograph(), "PNG"))
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    loaded = images.load_image(path)
    path.unlink()
    assert type(loaded) is Image.Image
    assert loaded.getpixel((0, 0)) == photograph().getpixel((0, 0))
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
@pytest.mark.parametrize("kept", [1, 8, 20, 40, 0.3, 0.6, 0.9, 0.98])
def test_truncated_files_are_refused_at_every_length(write, format, kept):
    content = encode(photograph(), format)
    length = kept if isinstance(kept, int) else int(len(content) * kept)
    error = refusal(write(content[:length], f"cut.{format.lower()}"))
    assert error.hint


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_a_truncated_file_is_refused_without_a_stray_warning(write, format):
    content = encode(photograph(), format)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refusal(write(content[: len(content) // 2]))


def test_truncated_images_are_not_filled_with_grey(write, monkeypatch):
    content = encode(photograph(), "JPEG")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    refusal(write(content[: len(content) // 2]), "LOAD_TRUNCATED_IMAGES")


def test_flipped_bytes_in_a_png_are_refused(write):
    content = bytearray(encode(photograph(), "PNG"))
    content[len(content) // 2] ^= 0xFF
    refusal(write(bytes(content)))


def test_random_bytes_raise_nothing_but_data_errors(write):
    rng = np.random.default_rng(1)
    for format in images.FORMATS:
        content = np.frombuffer(encode(photograph(), format), dtype=np.uint8)
        for _ in range(40):
            damaged = content.copy()
            places = rng.integers(0, min(len(damaged), 200), 8)
            damaged[places] = rng.integers(0, 256, 8)
            try:
                loaded = images.load_image(write(damaged.tobytes()))
            except eqv.DataError:
                continue
            assert loaded.mode in ("L", "RGB")


def test_text_called_png_is_refused_and_shown(write):
    refusal(write(b"hello, I am a text file"), "JPEG, PNG", "23 bytes", "hello, I am")


def test_an_empty_file_is_refused(write):
    refusal(write(b""), "got: 0 bytes")


def test_a_format_outside_the_list_is_refused(write):
    assert Image.open(io.BytesIO(encode(photograph(), "ICO"))).format == "ICO"
    refusal(write(encode(photograph(), "ICO")), "accepted format")
    refusal(write(encode(photograph(), "EPS")), "accepted format")


@pytest.mark.parametrize("side", [10_000, 50_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(write, side, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    bomb = png(side, side, 8, 0, b"\0" * 100)
    assert len(bomb) < 200
    refusal(write(bomb), "too large")


def test_the_users_pixel_limit_is_respected(write, monkeypatch):
    path = write(encode(photograph(24, 40), "PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 40)
    images.load_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 40 - 1)
    refusal(path, "too large")


def test_the_pixel_limit_does_not_depend_on_warning_filters(write, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 40 - 1)
    monkeypatch.setattr(warnings, "simplefilter", lambda *arguments, **options: None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        refusal(write(encode(photograph(24, 40), "PNG")), "MAX_IMAGE_PIXELS = 959")


def test_pillows_bomb_warning_is_an_error_by_itself(write, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 40 - 1)
    monkeypatch.setattr(images, "_require_small", lambda *arguments: None)
    refusal(write(encode(photograph(24, 40), "PNG")), "decompression bomb")


def test_a_lifted_pixel_limit_leaves_the_byte_limit(write, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    refusal(write(png(20_000, 20_000, 8, 0, b"\0" * 100)), "400,000,000 bytes")
    # a palette grows to four bytes per pixel when it is expanded
    refusal(write(png(9_000, 9_000, 8, 3, b"\0" * 100, png_chunk(b"PLTE", b"\0\0\0"))), "324,000,000 bytes")


def test_a_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "sparse.webp"
    with open(path, "wb") as file:
        file.write(b"RIFF\xff\xff\xff\x7fWEBPVP8 ")
        file.truncate(images.MAX_FILE_BYTES + 1)
    refusal(path, "too large for an image file")


def test_a_missing_file_is_a_data_error(tmp_path):
    refusal(tmp_path / "gone.png", "No such file")
    with pytest.raises(eqv.DataError, match=r"gone\.png"):
        images.file_digest(tmp_path / "gone.png")


def test_an_impossible_name_is_a_data_error():
    with pytest.raises(eqv.DataError, match="null"):
        images.load_image("a\0b.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.timeout(20)
def test_a_named_pipe_is_refused_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    refusal(tmp_path / "pipe.png", "regular file")


def test_a_directory_is_a_data_error(tmp_path):
    (tmp_path / "folder.png").mkdir()
    refusal(tmp_path / "folder.png", "directory")


def test_control_characters_in_a_name_are_escaped(write):
    with pytest.raises(eqv.DataError) as caught:
        images.load_image(write(b"", "\x1b[31m.png"))
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(write, format, orientation):
    stored = Image.new("L", (48, 32), 0)
    stored.paste(255, (0, 0, 16, 16))  # one bright corner: each orientation puts it elsewhere or swaps the sides
    stored.paste(128, (32, 0, 48, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {"quality": 95} if format == "JPEG" else {}
    loaded = images.load_image(write(encode(stored.convert("RGB"), format, exif=exif, **options))).convert("L")
    steps = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.T,
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).T,
        8: lambda a: np.rot90(a, 1),
    }
    expected = steps[orientation](np.asarray(stored)).astype(int)
    assert loaded.size == (expected.shape[1], expected.shape[0])
    assert np.abs(np.asarray(loaded) - expected).max() < 30


def test_broken_exif_leaves_the_pixels(write):
    content = encode(photograph(), "JPEG", exif=b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x05garbage")
    expected = np.asarray(Image.open(io.BytesIO(encode(photograph(), "JPEG"))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(np.asarray(images.load_image(write(content))), expected)


def test_alpha_is_composited_on_black(write):
    pixels = np.zeros((1, 3, 4), dtype=np.uint8)
    pixels[0] = [[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 51]]
    loaded = images.load_image(write(encode(Image.fromarray(pixels), "PNG")))
    assert np.asarray(loaded).tolist() == [[[200, 100, 50], [0, 0, 0], [40, 20, 10]]]


def test_grey_with_alpha_stays_grey(write):
    pixels = np.array([[[200, 255], [200, 0], [200, 51]]], dtype=np.uint8)
    image = Image.merge("LA", [Image.fromarray(np.ascontiguousarray(pixels[..., i])) for i in range(2)])
    loaded = images.load_image(write(encode(image, "PNG")))
    assert loaded.mode == "L"
    assert np.asarray(loaded).tolist() == [[200, 0, 40]]


def test_transparent_palette_entries_are_black(write):
    image = Image.new("P", (2, 1))
    image.putpalette([250, 10, 20, 30, 240, 50])
    image.putpixel((1, 0), 1)
    loaded = images.load_image(write(encode(image, "PNG", transparency=b"\xff\x00")))
    assert np.asarray(loaded).tolist() == [[[250, 10, 20], [0, 0, 0]]]
    assert images.load_image(write(encode(image, "GIF", transparency=0), "a.gif")).getpixel((0, 0)) == (0, 0, 0)


def test_colour_key_transparency_is_black_and_forgotten(write):
    image = Image.fromarray(np.array([[[9, 8, 7], [1, 2, 3]]], dtype=np.uint8))
    loaded = images.load_image(write(encode(image, "PNG", transparency=(9, 8, 7))))
    assert np.asarray(loaded).tolist() == [[[0, 0, 0], [1, 2, 3]]]
    assert loaded.info == {}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF"])
def test_no_metadata_is_left(write, format):
    options = {"comment": b"hello"} if format == "GIF" else {"dpi": (72, 72)}
    content = encode(photograph(), format, **options)
    assert Image.open(io.BytesIO(content)).info
    assert images.load_image(write(content)).info == {}


def test_16_bit_grey_keeps_its_high_byte(write):
    values = np.array([[0, 255, 256, 0x1234, 65535, 200 * 257]], dtype=np.uint16)
    expected = [[0, 0, 1, 0x12, 255, 200]]
    big_endian = values.astype(">u2").tobytes()
    files = {
        "png": png(6, 1, 16, 0, b"\0" + big_endian),
        "pgm": b"P5 6 1 65535\n" + big_endian,
        "tiff": encode(Image.fromarray(values), "TIFF"),
    }
    for suffix, content in files.items():
        loaded = images.load_image(write(content, f"deep.{suffix}"))
        assert loaded.mode == "L"
        assert np.asarray(loaded).tolist() == expected, suffix


def test_16_bit_grey_and_16_bit_colour_agree(write):
    values = np.array([0, 255, 256, 0x1234, 65535], dtype=">u2")
    grey = images.load_image(write(png(5, 1, 16, 0, b"\0" + values.tobytes())))
    colour = images.load_image(write(png(5, 1, 16, 2, b"\0" + np.repeat(values, 3).tobytes())))
    assert colour.mode == "RGB"
    assert np.asarray(colour)[..., 1].tolist() == np.asarray(grey).tolist()


def test_16_bit_grey_colour_key_is_black(write):
    values = np.array([0x1234, 0x5678], dtype=">u2").tobytes()
    loaded = images.load_image(write(png(2, 1, 16, 0, b"\0" + values, png_chunk(b"tRNS", b"\x12\x34"))))
    assert np.asarray(loaded).tolist() == [[0, 0x56]]


def tiff_16_bit(bits: int, photometric: int) -> bytes:
    """A TIFF of 2 x 1 samples, uncompressed: 0x0102 and 0x0304 in 16 bits."""
    entries = [(256, 2), (257, 1), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, 1), (279, 4)]
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in entries) + b"\0\0\0\0"
    return b"II\x2a\0" + struct.pack("<I", 12) + struct.pack("<HH", 0x0102, 0x0304) + directory


def test_of_16_bit_tiff_only_the_unambiguous_kind_is_taken(write):
    loaded = images.load_image(write(tiff_16_bit(16, 1), "plain.tiff"))
    assert np.asarray(loaded).tolist() == [[1, 3]]
    refusal(write(tiff_16_bit(16, 0), "white_is_zero.tiff"), "8-bit form")
    refusal(write(tiff_16_bit(12, 1), "twelve_bits.tiff"), "8-bit form")


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_samples_without_a_white_level_are_refused(write, dtype):
    content = encode(Image.fromarray(np.arange(6, dtype=dtype).reshape(2, 3)), "TIFF")
    refusal(write(content, "science.tiff"), "8-bit form", "convert it")


def test_black_and_white_becomes_grey(write):
    image = Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1")
    loaded = images.load_image(write(encode(image, "PNG")))
    assert (loaded.mode, np.asarray(loaded).tolist()) == ("L", [[0, 255]])


def test_cmyk_becomes_rgb(write):
    loaded = images.load_image(write(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")))
    assert loaded.mode == "RGB"
    red, green, blue = loaded.getpixel((4, 4))
    assert red > 240
    assert max(green, blue) < 20


def test_of_an_animation_the_first_frame_is_taken(write):
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "lime", "blue")]
    for format in ("GIF", "PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if format == "WEBP" else {}
        content = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert images.load_image(write(content)).getpixel((1, 1)) == (255, 0, 0), format


def test_a_file_that_changed_after_hashing_is_refused(write):
    path = write(encode(photograph(), "PNG"))
    digest = images.file_digest(path)
    assert images.load_image(path, digest).size == (40, 24)
    write(encode(photograph(24, 41), "PNG"))
    with pytest.raises(eqv.DataError, match="has changed"):
        images.load_image(path, digest)


def test_pixel_digest_depends_on_shape_and_content_not_on_blocks():
    whole = images.pixel_digest((2, 3), [b"abcdef"])
    assert whole == images.pixel_digest((2, 3), [b"ab", b"", b"cdef"])
    assert whole != images.pixel_digest((3, 2), [b"abcdef"])
    assert whole != images.pixel_digest((2, 3), [b"abcdeg"])
