"""A picture of 8-bit levels, and its PNG file. NumPy and Pillow only, since results cross processes without torch."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np

from equivengine.errors import PluginError

#: Pixels of one picture, at most (8192 x 8192): well below where Pillow takes a file for a decompression bomb.
MAX_PIXELS = 1 << 26


@dataclass(frozen=True)
class Picture:
    """An image to look at.

    Attributes:
        levels: uint8 [H, W] (gray, 0 is black) or uint8 [H, W, 3] (red, green, blue; sRGB). Stored without loss.
        description: One line.

    Raises:
        PluginError: If the levels are of another dtype or shape, or are empty or more than `MAX_PIXELS`.
    """

    levels: np.ndarray
    description: str

    def __post_init__(self) -> None:
        levels = np.ascontiguousarray(self.levels)
        object.__setattr__(self, "levels", levels)
        if levels.dtype != np.uint8:
            raise PluginError(
                f"picture {self.description!r} has levels of a wrong dtype",
                expected="uint8",
                got=levels.dtype,
                hint="use equivengine.pictures.picture, which rounds",
            )
        problem = shape_problem(levels.shape)
        if problem is not None:
            raise PluginError(f"picture {self.description!r} has a wrong shape", expected=problem, got=levels.shape)

    def png(self) -> bytes:
        """The picture as a PNG file, with its description as the text ``Description``."""
        return encode_png(self.levels, self.description)


def shape_problem(shape: tuple[int, ...]) -> str | None:
    """What the shape of a picture should have been, or None if it is one."""
    if len(shape) not in (2, 3) or shape[2:] not in ((), (3,)) or 0 in shape:
        return "[H, W] or [H, W, 3], not empty"
    return f"at most {MAX_PIXELS:,} pixels" if shape[0] * shape[1] > MAX_PIXELS else None


def encode_png(levels: np.ndarray, description: str = "") -> bytes:
    """PNG file of levels uint8 [H, W] or [H, W, 3]; lossless."""
    from PIL import Image, PngImagePlugin

    texts = PngImagePlugin.PngInfo()
    if description:
        texts.add_itxt("Description", description)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG", pnginfo=texts)
    return buffer.getvalue()


def decode_png(data: bytes) -> np.ndarray:
    """Levels uint8 [H, W] or [H, W, 3] of a PNG file that `encode_png` made."""
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        return np.asarray(image)
