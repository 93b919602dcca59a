"""Images of 8 bits: nothing is truncated, a PNG file holds what was said, likeness is the field's."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import equivengine as eqv
from equivengine.pictures import difference, from_levels, picture, psnr, reread, ssim, to_levels

LEVELS = torch.arange(256, dtype=torch.uint8)
DTYPES = [torch.float64, torch.float32, torch.float16]


def images(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


# ------------------------------------------------------------------------------------------------------------ levels


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_256_levels_come_back(dtype):
    x = from_levels(LEVELS).to(dtype)
    assert torch.equal(to_levels(x), LEVELS)
    assert torch.equal(from_levels(LEVELS), LEVELS.float() / 255)


@pytest.mark.parametrize("noise", [1e-7, -1e-7])
def test_noise_of_rounding_changes_no_level(noise):
    assert torch.equal(to_levels(from_levels(LEVELS) + noise), LEVELS)


def test_truncation_would_lower_the_levels_that_noise_touches():
    x = from_levels(LEVELS) - 1e-7
    assert int(((x * 255).clamp(0, 255).to(torch.uint8) < LEVELS).sum()) > 200


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (-3.0, -1.5)])
def test_ranges_map_their_ends_to_0_and_255_and_beyond_is_clamped(low, high):
    x = torch.tensor([low, high, low - 1, high + 1, float("-inf"), float("inf")])
    assert to_levels(x, low, high).tolist() == [0, 255, 0, 255, 0, 255]
    spread = torch.linspace(low, high, 256, dtype=torch.float64)
    assert torch.equal(to_levels(spread, low, high), LEVELS)


def test_ties_go_to_the_even_level():
    assert to_levels(torch.tensor([0.5, 1.5, 2.5, 253.5, 254.5]), 0, 255).tolist() == [0, 2, 2, 254, 254]


@settings(deadline=None)
@given(st.floats(0, 1, width=32))
def test_no_level_is_nearer_than_the_one_that_is_chosen(value):
    level = int(to_levels(torch.tensor(value)))
    assert abs(level - value * 255) <= 0.5


def test_shapes_devices_and_gradients():
    x = images(2, 5, 3, 4, 6).requires_grad_()
    levels = to_levels(x)
    assert (levels.shape, levels.dtype, levels.requires_grad) == (x.shape, torch.uint8, False)
    assert from_levels(levels).dtype == torch.float32


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_reread_is_the_nearest_levels_and_rereading_again_changes_nothing(channels):
    x = images(2, 3, channels, 5, 7) * 1.5 - 0.25
    back = reread(x)
    assert (back.shape, back.dtype) == (x.shape, torch.float32)
    assert torch.equal(back, from_levels(to_levels(x)))
    assert torch.equal(reread(back), back)
    assert torch.equal(reread(x[0, 0]), back[0, 0])


@pytest.mark.parametrize("channels", [1, 3])
def test_reread_goes_through_a_png_file(channels, monkeypatch):
    made = []
    save = Image.Image.save
    monkeypatch.setattr(
        Image.Image, "save", lambda self, *a, **k: (made.append((self.mode, k["format"])), save(self, *a, **k))
    )
    reread(images(2, channels, 4, 4))
    assert made == [("L" if channels == 1 else "RGB", "PNG")] * 2


def test_reread_of_no_images_is_no_images():
    assert reread(torch.empty(0, 3, 4, 4)).shape == (0, 3, 4, 4)


# ---------------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_holds_the_levels_of_its_image_and_so_does_its_png(channels):
    x = images(channels, 5, 7)
    made = picture(x, "Bild, µ")
    assert isinstance(made, eqv.Picture)
    assert made.levels.shape == ((5, 7) if channels == 1 else (5, 7, 3))
    assert made.levels.flags["C_CONTIGUOUS"]
    expected = to_levels(x).permute(1, 2, 0).squeeze(-1).numpy()
    np.testing.assert_array_equal(made.levels, expected)
    with Image.open(io.BytesIO(made.png())) as file:
        np.testing.assert_array_equal(np.asarray(file), expected)
        assert file.text["Description"] == "Bild, µ"


def test_a_difference_is_amplified_clipped_and_without_sign():
    x = torch.full((3, 2, 2), 0.5, dtype=torch.float64)
    y = x + torch.tensor([[0.0, 1 / 255], [-1 / 255, 0.4]], dtype=torch.float64)
    for one, other in ((x, y), (y, x)):
        assert difference(one, other, "50 x").levels[..., 0].tolist() == [[0, 50], [50, 255]]
    assert difference(x, y, "10 x", gain=10).levels[0, 1].tolist() == [10, 10, 10]


def test_equal_pictures_have_equal_files():
    assert picture(images(3, 9, 9), "a").png() == picture(images(3, 9, 9), "a").png()


# ---------------------------------------------------------------------------------------------------------- likeness


def test_psnr_is_ten_log_ten_of_peak_over_error():
    x = images(3, 3, 8, 8) / 2
    y = x.double() + torch.tensor([0.1, 0.01, 0.0], dtype=torch.float64).view(3, 1, 1, 1)
    np.testing.assert_allclose(psnr(x.double(), y).numpy(), [20, 40, np.inf], rtol=1e-9)
    np.testing.assert_allclose(psnr(x.double(), y, peak=10).numpy(), [40, 60, np.inf], rtol=1e-9)
    assert torch.equal(psnr(x.double(), y), psnr(y, x.double()))
    assert psnr(x, x).dtype == torch.float64


def test_psnr_of_one_level_is_the_known_48_decibels():
    x = from_levels(torch.full((1, 1, 4, 4), 100, dtype=torch.uint8)).double()
    assert float(psnr(x, x + 1 / 255)) == pytest.approx(20 * np.log10(255))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 11, 11), (3, 11, 40), (2, 23, 12), (3, 64, 48)])
@pytest.mark.parametrize("noise", [1e-3, 0.1, 1.0])
def test_ssim_is_that_of_scikit_image(shape, noise):
    metrics = pytest.importorskip("skimage.metrics")
    x = images(2, *shape, dtype=torch.float64)
    y = (x + noise * (images(2, *shape, seed=1, dtype=torch.float64) - 0.5)).clamp(0, 1)
    expected = [
        metrics.structural_similarity(
            a.numpy(), b.numpy(), channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
            data_range=1,
        )
        for a, b in zip(x, y, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(ssim(x, y).numpy(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5), (8, 8), (10, 30), (11, 11), (20, 13)])
def test_ssim_is_one_for_equal_images_symmetric_and_below_one_otherwise(size):
    x, y = images(4, 3, *size), images(4, 3, *size, seed=1)
    assert ssim(x, x).tolist() == [1.0] * 4
    assert torch.equal(ssim(x, y), ssim(y, x))
    assert bool((ssim(x, y) < 1).all())
    assert bool((ssim(x, y) > -1).all())


def test_ssim_of_flat_images_is_the_luminance_term():
    a, b = 0.2, 0.7
    x, y = torch.full((1, 3, 16, 16), a), torch.full((1, 3, 16, 16), b)
    assert float(ssim(x, y)) == pytest.approx((2 * a * b + 1e-4) / (a * a + b * b + 1e-4), rel=1e-6)


def test_ssim_of_a_single_window_is_the_formula():
    x, y = images(1, 1, 11, 11, dtype=torch.float64), images(1, 1, 11, 11, seed=1, dtype=torch.float64)
    g = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    w = np.outer(g, g) / np.outer(g, g).sum()
    a, b = x[0, 0].numpy(), y[0, 0].numpy()
    ma, mb = (w * a).sum(), (w * b).sum()
    va, vb, vab = (w * (a - ma) ** 2).sum(), (w * (b - mb) ** 2).sum(), (w * (a - ma) * (b - mb)).sum()
    expected = (2 * ma * mb + 1e-4) * (2 * vab + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
    assert float(ssim(x, y)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_likeness_does_not_depend_on_batch_flips_or_the_order_of_channels(measure):
    x, y = images(3, 3, 16, 18), images(3, 3, 16, 18, seed=1)
    expected = measure(x, y)
    torch.testing.assert_close(torch.cat([measure(x[k : k + 1], y[k : k + 1]) for k in range(3)]), expected)
    for change in (lambda v: v.flip(-1), lambda v: v.flip(1), lambda v: v.transpose(-1, -2)):
        torch.testing.assert_close(measure(change(x), change(y)), expected)


def test_ssim_falls_with_noise_and_with_blur():
    x = images(1, 3, 32, 32)
    noise = images(1, 3, 32, 32, seed=1) - 0.5
    found = [float(ssim(x, x + level * noise)) for level in (0.0, 0.05, 0.2, 0.8)]
    assert found == sorted(found, reverse=True)
    blurred = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    assert float(ssim(x, blurred)) < 0.9


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("call", "words"),
    [
        pytest.param(lambda: reread(torch.rand(4, 4)), r"\[4, 4\]", id="reread a matrix"),
        pytest.param(lambda: reread(torch.rand(3, 0, 4)), r"\[3, 0, 4\]", id="reread an empty image"),
        pytest.param(lambda: psnr(torch.rand(3, 4, 4), torch.rand(3, 4, 4)), r"\[3, 4, 4\]", id="psnr of one image"),
        pytest.param(
            lambda: ssim(torch.rand(2, 3, 4, 4), torch.rand(1, 3, 4, 4)), r"\[1, 3, 4, 4\]", id="ssim of other sizes"
        ),
        pytest.param(
            lambda: psnr(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4), peak=0), "peak", id="psnr with a peak of 0"
        ),
        pytest.param(lambda: picture(torch.rand(2, 4, 4), "x"), r"\[2, 4, 4\]", id="picture of two channels"),
        pytest.param(lambda: picture(torch.rand(1, 3, 4, 4), "x"), r"\[1, 3, 4, 4\]", id="picture of a batch"),
        pytest.param(
            lambda: difference(torch.rand(3, 4, 4), torch.rand(3, 4, 5), "x"),
            r"\[3, 4, 5\]",
            id="difference of other sizes",
        ),
        pytest.param(
            lambda: difference(torch.rand(3, 4, 4), torch.rand(3, 4, 4), "x", gain=0),
            "gain",
            id="difference with a gain of 0",
        ),
        pytest.param(lambda: to_levels(torch.zeros(3, 4, 4, dtype=torch.uint8)), "uint8", id="levels of levels"),
        pytest.param(lambda: to_levels(torch.rand(3, 4, 4), 1.0, 1.0), "low=1.0", id="levels of an empty range"),
        pytest.param(lambda: from_levels(torch.rand(3, 4, 4)), "float32", id="pixels of pixels"),
    ],
)
def test_what_is_no_image_is_a_clear_error(call, words):
    with pytest.raises(eqv.UsageError, match=words):
        call()


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(to_levels, id="to_levels"),
        pytest.param(reread, id="reread"),
        pytest.param(lambda x: picture(x, "x"), id="picture"),
        pytest.param(lambda x: difference(x, x, "x"), id="difference"),
    ],
)
def test_nan_has_no_level(call):
    x = torch.rand(3, 4, 4)
    x[0, 0, 0] = float("nan")
    with pytest.raises(eqv.NumericsError):
        call(x)


def test_the_class_loads_without_torch():
    code = (
        "import sys, equivengine.contracts.result, equivengine.pictures as p; p.Picture; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_every_public_name_is_there():
    for name in eqv.pictures.__all__:
        assert callable(getattr(eqv.pictures, name))
    assert eqv.pictures.Picture is eqv.Picture
    with pytest.raises(AttributeError, match="no attribute"):
        _ = eqv.pictures.absent
