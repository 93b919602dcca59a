"""The whole measurement of one set: components, coordinates, matched pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

import equivengine as eqv
from equivengine_plugins.probes import yardstick
from equivengine_plugins.probes.projection.components import Components, principal_components
from equivengine_plugins.probes.transfer.matched import Matched, match_pairs
from equivengine_plugins.probes.transfer.pairs import Pairs, draw_pairs

if TYPE_CHECKING:
    from equivengine_plugins.probes.projection.parameters import ProjectionParams


@dataclass(frozen=True)
class MatchedPairs:
    """Pairs and what became of them.

    Attributes:
        pairs: Which pairs.
        held: The yardstick of distances.
        matched: What the solver found.
        embeddings: Of the matched inputs, [P, n] float64.
    """

    pairs: Pairs
    held: yardstick.Yardstick
    matched: Matched
    embeddings: torch.Tensor


@dataclass(frozen=True)
class Measured:
    """What the probe measured on a set.

    Attributes:
        components: Of the population.
        images: Embeddings of the set, [N, n] float64.
        references: Embeddings of the references, [R, n] float64; [0, n] where the images are the population.
        found: Matched pairs; None without.
    """

    components: Components
    images: torch.Tensor
    references: torch.Tensor
    found: MatchedPairs | None

    @property
    def population(self) -> torch.Tensor:
        """Embeddings that components were made from."""
        return self.references if len(self.references) else self.images


def measure(task: eqv.ProbeTask[ProjectionParams]) -> Measured:
    """Measure one set.

    Raises:
        UsageError: If there are too few images for components, or none for pairs.
        NumericsError: If all embeddings are equal, or nothing can be matched.
    """
    params = task.params
    images = torch.cat([yardstick.embeddings(task, torch.stack(part)) for part in _chunks(task.samples)])
    references = images[:0]
    if params.basis == "references":
        references = yardstick.embeddings(task, task.references) if len(task.references) else references
    population = references if params.basis == "references" else images
    components = principal_components(population, seed=task.stream("bootstrap") % 2**32, resamples=params.resamples)
    return Measured(components, images, references, _matched(task, images) if params.pairs else None)


def _matched(task: eqv.ProbeTask[ProjectionParams], images: torch.Tensor) -> MatchedPairs:
    params = task.params
    pairs = draw_pairs(task, params.pairs, params.other_class)
    held = yardstick.measure(task)
    matched = match_pairs(
        task,
        pairs,
        images[pairs.target.tolist()],
        distance=params.tolerance * held.median,
        solver=params.solver,
        max_jacobians=params.max_jacobians,
        together=params.together,
    )
    return MatchedPairs(pairs, held, matched, yardstick.embeddings(task, matched.x))


def _chunks(samples: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Images in parts that are stacked one at a time: a set may be large."""
    for start in range(0, len(samples), yardstick.TOGETHER):
        yield list(samples[start : start + yardstick.TOGETHER])
