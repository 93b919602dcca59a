"""``gratings:COUNT[?period=8]``: sine gratings at COUNT orientations, each labeled with its angle."""

from __future__ import annotations

import hashlib
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import equivengine as eqv

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

EQUIVENGINE_API = (1, 0)

SIDE = 96


class Gratings(eqv.Dataset):
    """Gray images of 96 x 96 pixels; grating i is turned by i / COUNT of half a turn."""

    name = "gratings"
    summary = "sine gratings of known orientation and period"
    examples = ("gratings:6", "gratings:12?period=16")

    def __init__(self, uri: eqv.URI) -> None:
        """Read the address; nothing is drawn.

        Raises:
            UsageError: If COUNT or the period is not usable.
        """
        uri.allow_options(("period",))
        count = uri.require_path("the number of gratings", "gratings:6")
        if not (count.isascii() and count.isdigit() and 1 <= int(count) <= 180):
            raise eqv.UsageError(
                f"the number of gratings in {uri.text!r} is not usable", expected="1 to 180", got=repr(count)
            )
        self._period = uri.integer("period", 8, minimum=2, maximum=SIDE)
        self._angles = [180 * index / int(count) for index in range(int(count))]

    def __len__(self) -> int:
        return len(self._angles)

    def __getitem__(self, index: Any) -> eqv.Sample:
        """The sample at ``index``; its digest is that of its pixels."""
        angle = self._angles[index]
        digest = hashlib.sha256(f"{SIDE} x {SIDE} grey ".encode() + pixels(angle, self._period).tobytes()).hexdigest()
        return eqv.Sample(
            id=f"{angle:06.2f}-degrees",
            digest=digest,
            load=partial(image, angle, self._period),
            label=f"{angle:g} degrees",
            details={"angle": angle, "period": self._period},
        )


def pixels(angle: float, period: int) -> np.ndarray:
    """Levels of a grating, uint8 [96, 96]; ``angle`` in degrees, ``period`` in pixels."""
    import numpy as np

    row, column = np.mgrid[0:SIDE, 0:SIDE]
    turn = math.radians(angle)
    wave = np.cos(2 * math.pi * (column * math.cos(turn) + row * math.sin(turn)) / period)
    return np.rint(127 + 100 * wave).astype(np.uint8)


def image(angle: float, period: int) -> Image.Image:
    """The same as a Pillow image."""
    from PIL import Image

    return Image.fromarray(pixels(angle, period))


@eqv.hookimpl
def equivengine_register_datasets() -> list[type[eqv.Dataset]]:
    """Provide `Gratings`."""
    return [Gratings]
