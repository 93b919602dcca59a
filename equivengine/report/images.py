"""Figures and pictures as a page holds them: within itself, as data URIs."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from equivengine.contracts.result import Picture
from equivengine.report.drawing import Drawn


@dataclass(frozen=True)
class Image:
    """A figure or a picture within a page.

    Attributes:
        title: What is written beside it.
        description: What it shows, for those who cannot see it.
        caption: What is written below the title; empty where the title says it.
        uri: The PNG file.
        width: Pixels.
        height: Pixels.
    """

    title: str
    description: str
    uri: str
    width: int
    height: int
    caption: str = ""


def of_figure(drawn: Drawn, probe: str) -> Image:
    """A figure that a probe drew."""
    said = ". ".join(filter(None, (f"{probe}: {drawn.title}", drawn.caption)))
    return Image(drawn.title, said, _uri(drawn.png), drawn.width, drawn.height, drawn.caption)


def of_picture(name: str, picture: Picture) -> Image:
    """A stored picture. Its description is its caption where it says more than its name."""
    height, width = picture.levels.shape[:2]
    title = name.replace("_", " ")
    more = picture.description.removeprefix("the ") != title
    return Image(title, picture.description, _uri(picture.png()), width, height, picture.description if more else "")


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


class Allowance:
    """Bytes that the images of a page may take. No part takes what the later ones need, up to an equal share of each.

    Attributes:
        left_out: Images that were not taken in.
    """

    def __init__(self, size: int, needs: Sequence[int]) -> None:
        """Share out.

        Args:
            size: Bytes of all images together.
            needs: About how many bytes each part of the page will ask for.
        """
        self.left_out = 0
        self._left, self._share = size, 0
        self._needs = list(needs)

    def next_part(self) -> None:
        """Begin with the next part of the page."""
        fair = self._left // max(1, len(self._needs))
        later = sum(min(need, fair) for need in self._needs[1:])
        self._needs = self._needs[1:]
        self._share = max(fair, self._left - later)

    @contextlib.contextmanager
    def half(self) -> Iterator[None]:
        """Keep half of what the part may still take for what comes after the block."""
        kept = self._share // 2
        self._share -= kept
        yield
        self._share += kept

    @property
    def spent(self) -> bool:
        """Whether the part has taken what it may: nothing more need be drawn for it."""
        return self._share <= 0

    def admits(self, images: Sequence[Image]) -> bool:
        """Take images in if all of them fit; else the part is full."""
        size = sum(len(image.uri) for image in images)
        if size > self._share:
            self.left_out += len(images)
            self._share = 0
            return False
        self._share -= size
        self._left -= size
        return True
