"""How the figures of docs/concepts.md look."""

from __future__ import annotations

from typing import Any

#: Okabe and Ito's colors, which most people with a color-vision deficiency tell apart.
COLOURS = ("#d55e00", "#555555", "#0072b2", "#56b4e9", "#009e73")


def plain(*axes: Any) -> None:
    """Leave out the frame above and to the right."""
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
