"""Images of 8 bits: exact levels, what a PNG file holds, likeness in dB and SSIM, pictures for a result.

The names load on first use: the contracts import `Picture` from `equivengine.pictures.raster`, which needs no torch.

- `raster`: `Picture`, and its PNG file.
- `levels`: between float images and 8-bit levels; pictures of images and of differences.
- `likeness`: PSNR and SSIM.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

_EXPORTS = {
    "Picture": "raster",
    "to_levels": "levels",
    "from_levels": "levels",
    "reread": "levels",
    "picture": "levels",
    "difference": "levels",
    "psnr": "likeness",
    "ssim": "likeness",
}

__all__ = ["Picture", "difference", "from_levels", "picture", "psnr", "reread", "ssim", "to_levels"]

if TYPE_CHECKING:
    from equivengine.pictures.levels import difference as difference
    from equivengine.pictures.levels import from_levels as from_levels
    from equivengine.pictures.levels import picture as picture
    from equivengine.pictures.levels import reread as reread
    from equivengine.pictures.levels import to_levels as to_levels
    from equivengine.pictures.likeness import psnr as psnr
    from equivengine.pictures.likeness import ssim as ssim
    from equivengine.pictures.raster import Picture as Picture


def __getattr__(name: str) -> object:
    module = _EXPORTS.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
