"""Between float images and 8-bit levels: rounded, never truncated; what a PNG file of an image holds."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from equivengine.errors import NumericsError, UsageError
from equivengine.pictures.raster import Picture, decode_png, encode_png


def to_levels(x: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """The nearest of 256 levels for each value.

    ``round(255 (x - low) / (high - low))``, computed in float64, ties to the even level, values outside of
    [low, high] to its ends. Truncation instead would lower nearly every value that float32 cannot hold exactly.

    Args:
        x: Float tensor of any shape, an image [..., C, H, W] as a rule.
        low: The value of level 0.
        high: The value of level 255.

    Returns:
        uint8, of the shape and on the device of ``x``; no gradient.

    Raises:
        UsageError: If ``x`` is not of a real float dtype, or ``high`` is not above ``low``.
        NumericsError: If a value is NaN, which no level stands for.
    """
    _check_float("x", x)
    if not high > low:
        raise UsageError("a range of levels is empty", expected="low < high", got=f"low={low}, high={high}")
    if bool(x.isnan().any()):
        raise NumericsError(
            "an image has no levels",
            expected="numbers",
            got=f"NaN in {int(x.isnan().sum())} of {x.numel()} values, shape {list(x.shape)}",
        )
    scaled = x.detach().double().sub(low).mul(255.0 / (high - low))
    return scaled.round().clamp(0.0, 255.0).to(torch.uint8)


def from_levels(levels: Tensor) -> Tensor:
    """``levels / 255``, correctly rounded, so that every device gives the same bits as reading an image file does.

    Args:
        levels: uint8 tensor of any shape.

    Returns:
        float32 in [0, 1], of the same shape and on the same device.

    Raises:
        UsageError: If the levels are not uint8.
    """
    if levels.dtype != torch.uint8:
        raise UsageError("levels are of a wrong dtype", expected="uint8", got=levels.dtype, hint="use to_levels")
    # a table, because CUDA divides by a constant by multiplying with its rounded inverse
    table = torch.from_numpy(np.arange(256, dtype=np.float32) / np.float32(255)).to(levels.device)
    return table[levels.long()]


def reread(x: Tensor) -> Tensor:
    """What comes back when each image is saved as a PNG file and loaded again.

    Images of one or three channels are really encoded and decoded, by Pillow in memory. PNG has no images of other
    numbers of channels; those are rounded to levels, which is what a lossless file of them would hold.

    Args:
        x: Float images [..., C, H, W] in [0, 1]; what is outside is clamped, as a file would.

    Returns:
        float32 [..., C, H, W] in [0, 1], on the device of ``x``; no gradient.

    Raises:
        UsageError: If these are no images.
        NumericsError: If a value is NaN.
    """
    _check_float("x", x)
    check_images("x", x)
    levels = to_levels(x)
    channels, height, width = x.shape[-3:]
    if channels not in (1, 3):
        return from_levels(levels)
    flat = levels.cpu().reshape(-1, channels, height, width)
    read = [_planes(decode_png(encode_png(_raster(image)))) for image in flat]
    back = torch.stack(read) if read else flat
    return from_levels(back.reshape(x.shape).to(x.device))


def picture(x: Tensor, description: str) -> Picture:
    """An image as a picture of a result.

    Args:
        x: Float image [C, H, W] in [0, 1] with one channel (gray) or three (RGB); what is outside is clamped.
        description: One line.

    Raises:
        UsageError: If this is no such image.
        NumericsError: If a value is NaN.
    """
    _check_float("x", x)
    check_images("x", x)
    if x.ndim != 3 or x.shape[0] not in (1, 3):
        raise UsageError(
            "this image cannot be shown as a picture",
            expected="shape [1, H, W] or [3, H, W]",
            got=list(x.shape),
            hint="pass one image; of other numbers of channels choose one or three",
        )
    return Picture(_raster(to_levels(x).cpu()), description)


def difference(x: Tensor, y: Tensor, description: str, gain: float = 50.0) -> Picture:
    """The picture of ``gain * |y - x|``: black where two images are equal, white from a difference of ``1 / gain`` on.

    The sign is not shown. The default gain is that of the paper (Fig. 2); a difference of one level is then 50 of 255.

    Args:
        x: Float image [C, H, W] in [0, 1] with one or three channels.
        y: Image of the same shape.
        description: One line; it should name the gain.
        gain: How often the difference is amplified.

    Raises:
        UsageError: If these are no two such images, or the gain is not positive and finite.
        NumericsError: If a value is NaN or infinite.
    """
    _check_float("x", x)
    _check_float("y", y)
    check_same("x", x, "y", y)
    if not 0 < gain < float("inf"):
        raise UsageError("the gain of a difference is not usable", expected="a positive number", got=gain)
    gap = (y.detach().double() - x.detach().double()).abs()
    if not bool(gap.isfinite().all()):
        raise NumericsError("a difference of images is not finite", expected="finite pixels", got=f"{gap.max()}")
    return picture((gap * gain).clamp(0.0, 1.0), description)


def check_images(name: str, x: Tensor) -> None:
    """Refuse what has no channels, height and width.

    Raises:
        UsageError: If it has fewer than three axes, or an image in it is empty.
    """
    if x.ndim < 3 or 0 in x.shape[-3:]:
        raise UsageError(f"{name} is no image", expected="shape [..., C, H, W], not empty", got=list(x.shape))


def check_same(name: str, x: Tensor, other: str, y: Tensor) -> None:
    """Refuse two tensors that are not images of one shape.

    Raises:
        UsageError: If they are not.
    """
    check_images(name, x)
    check_images(other, y)
    if x.shape != y.shape:
        raise UsageError(
            f"{name} and {other} are images of different shapes", expected=f"{list(x.shape)} twice", got=list(y.shape)
        )


def _check_float(name: str, x: Tensor) -> None:
    if not x.dtype.is_floating_point:
        raise UsageError(
            f"{name} is of a wrong dtype", expected="a float image", got=x.dtype, hint="from_levels makes one of uint8"
        )


def _raster(levels: Tensor) -> np.ndarray:
    """uint8 [C, H, W] -> [H, W] or [H, W, 3], contiguous."""
    planes = levels.numpy()
    return planes[0] if len(planes) == 1 else np.ascontiguousarray(planes.transpose(1, 2, 0))


def _planes(raster: np.ndarray) -> Tensor:
    """uint8 [H, W] or [H, W, 3] -> [C, H, W]."""
    return torch.from_numpy(np.array(raster[None] if raster.ndim == 2 else raster.transpose(2, 0, 1)))
