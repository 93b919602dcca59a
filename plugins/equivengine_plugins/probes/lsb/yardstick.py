"""What a change of the embedding is held against."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Yardstick:
    """A length of the embedding space.

    Attributes:
        length: In embedding units.
        name: What it is, as it stands in headings.
        n: How many reference images it rests on; None without them.
    """

    length: float
    name: str
    n: int | None = None


def yardstick(embedding: torch.Tensor, references: torch.Tensor | None = None) -> Yardstick:
    """The median distance of f(x) [n] from embeddings of other images [R, n]; without any, |f(x)|."""
    if references is None or len(references) == 0:
        return Yardstick(float(torch.linalg.vector_norm(embedding)), "|f(x)|")
    apart = torch.linalg.vector_norm(references.double() - embedding.double(), dim=1)
    # Not torch.median, which takes the lower of the two middle values.
    return Yardstick(float(apart.quantile(0.5)), "the median distance from reference images", len(references))
