"""How numbers are written for people: in tables, sentences and figures alike."""

from __future__ import annotations

import math


def number(value: float) -> str:
    """Four significant digits; powers of ten where zeros would pile up; "-" for what was not measured."""
    if not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    size = abs(value)
    if value == int(value) and size < 1e7:
        return f"{int(value):,}"
    if size < 1e-3:
        return f"{value:.3g}"
    if size >= 1e6:
        return f"{value:.3e}"
    return f"{value:,.0f}" if size >= 1e4 else f"{value:.4g}"


def between(interval: tuple[float, float]) -> str:
    """An interval, both ends as `number` writes them: ``"2.487 .. 18.04"``."""
    return f"{number(interval[0])} .. {number(interval[1])}"
