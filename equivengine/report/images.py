"""Figures and pictures as a page holds them: within itself, as data URIs."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from equivengine.contracts.result import Picture
from equivengine.report.drawing import Drawn


@dataclass(frozen=True)
class Image:
    """A figure or a picture within a page.

    Attributes:
        title: What is written beside it.
        description: What it shows, for those who cannot see it.
        uri: The PNG file.
        width: Pixels.
        height: Pixels.
    """

    title: str
    description: str
    uri: str
    width: int
    height: int


def of_figure(drawn: Drawn, probe: str) -> Image:
    """A figure that a probe drew."""
    return Image(drawn.title, f"{probe}: {drawn.title}", _uri(drawn.png), drawn.width, drawn.height)


def of_picture(name: str, picture: Picture) -> Image:
    """A stored picture."""
    height, width = picture.levels.shape[:2]
    return Image(name.replace("_", " "), picture.description, _uri(picture.png()), width, height)


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
