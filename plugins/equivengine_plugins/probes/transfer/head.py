"""What a head is: a classifier of embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

#: Names of the heads, in the order of results.
NAMES = ("own", "mean", "mean_cosine", "nn", "linear", "text")


@dataclass(frozen=True)
class Head:
    """A classifier of embeddings.

    Attributes:
        name: One of `NAMES`.
        title: What it is, in a few words.
        classes: Names of its classes.
        axis: Name of the dimension that its classes make; equal for heads of equal classes.
        scores: Embeddings [B, n] float64 -> scores [B, C] float64; the largest one is the predicted class.
        probabilities: Scores -> [B, C], rows that add up to 1.
        details: What it was made from, JSON types.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    axis: str
    scores: Callable[[torch.Tensor], torch.Tensor]
    probabilities: Callable[[torch.Tensor], torch.Tensor]
    details: Mapping[str, object] = field(default_factory=dict)


def softmax(scores: torch.Tensor) -> torch.Tensor:
    """Of scores [B, C]."""
    return scores.softmax(dim=1)


def cosines(embeddings: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """[B, n], [C, n] -> [B, C]; zero where one of the two is zero."""
    a, b = (torch.nn.functional.normalize(v.to(torch.float64), dim=1) for v in (embeddings, directions))
    return a @ b.T
