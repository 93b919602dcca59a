"""What a change of the embedding is held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

import equivengine as eqv
from equivengine_plugins.probes.yardstick import measure


@dataclass(frozen=True)
class Held:
    """A length of the embedding space.

    Attributes:
        length: In embedding units.
        name: What it is, as it stands in headings.
        n: How many pairs of reference images it rests on; None without them.
        interval: 95% interval, where it rests on them.
    """

    length: float
    name: str
    n: int | None = None
    interval: tuple[float, float] | None = None


def held_against(task: eqv.ProbeTask[Any], embedding: torch.Tensor) -> Held:
    """The median distance of pairs of reference images; where a set has no two of them, |f(x)|, of f(x) [n].

    Raises:
        NumericsError: If the references have embeddings that are all equal, or not finite.
    """
    try:
        found = measure(task)
    except eqv.UsageError:  # a set of one image, or of copies of one
        return Held(float(torch.linalg.vector_norm(embedding)), "|f(x)|")
    return Held(found.median, f"the {found.name}", found.pairs, found.interval)
