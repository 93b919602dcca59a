"""Shares of pairs with their intervals, from what heads predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import equivengine as eqv
from equivengine.statistics import wilson

if TYPE_CHECKING:
    import numpy as np


def share(hits: np.ndarray, worth: float, description: str, group: str) -> eqv.Scalar | None:
    """The share of True in [n], with Wilson's 95% interval; None where there is nothing to count.

    Args:
        hits: [n].
        worth: How many independent ones these are worth (`equivengine.statistics.independent_pairs`).
        description: One line.
        group: Heading.
    """
    n = len(hits)
    if n == 0:
        return None
    value = float(hits.mean())
    return eqv.Scalar(value, "1", description, wilson(value * worth, worth), n, group)


def agrees(predicted: np.ndarray, variants: tuple[str, ...], one: str, other: str) -> np.ndarray:
    """On which pairs the predictions [..., P, V] for two variants are the same: [..., P] bool."""
    import numpy as np

    return np.asarray(predicted[..., variants.index(one)] == predicted[..., variants.index(other)])


def total_variation(probabilities: np.ndarray, variants: tuple[str, ...], one: str, other: str) -> np.ndarray:
    """Total-variation distance between the class probabilities [P, V, C] of two variants: [P], 0 .. 1."""
    import numpy as np

    p, q = (probabilities[:, variants.index(name)] for name in (one, other))
    return np.asarray(0.5 * np.abs(p - q).sum(axis=-1))
