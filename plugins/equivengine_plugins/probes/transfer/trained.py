"""Heads that are made from labeled reference embeddings: class means, nearest neighbor, linear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

import equivengine as eqv
from equivengine_plugins.probes.transfer.head import Head, cosines, softmax
from equivengine_plugins.probes.transfer.ridge import fit, onto_simplex


@dataclass(frozen=True)
class Population:
    """Labeled references that are in no pair.

    Attributes:
        embeddings: [R, n] float64.
        labels: One for each.
        classes: Their different labels, sorted.
        index: Place of each one's label among the classes, [R].
    """

    embeddings: torch.Tensor
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    index: torch.Tensor

    @classmethod
    def of(cls, embeddings: torch.Tensor, labels: Sequence[str]) -> Population:
        """From embeddings [R, n] and their labels."""
        classes = tuple(sorted(set(labels)))
        index = torch.tensor([classes.index(label) for label in labels], dtype=torch.long, device=embeddings.device)
        return cls(embeddings, tuple(labels), classes, index)


def trained_head(name: str, population: Population, temperature: float, source: str) -> Head:
    """Head ``mean``, ``mean_cosine``, ``nn`` or ``linear``.

    Args:
        name: Which one.
        population: What it is made from.
        temperature: Factor of cosines before softmax.
        source: Where that comes from.

    Raises:
        UsageError: If there are too few references or classes for it.
    """
    if len(population.classes) < 2:
        raise eqv.UsageError(
            "heads that are made from images need labeled references, of two classes and in no pair",
            expected="labels of at least two classes",
            got=f"{len(population.labels)} such references, labels: {', '.join(population.classes) or 'none'}",
            hint="name a labeled image set with --targets, or raise references",
        )
    if name == "mean_cosine":
        return _mean_cosine(population, temperature, source)
    return {"mean": _mean, "nn": _nearest, "linear": _linear}[name](population)


def _members(population: Population) -> torch.Tensor:
    """Number of references of each class, [C]."""
    return torch.bincount(population.index, minlength=len(population.classes))


def _means(population: Population) -> torch.Tensor:
    z = population.embeddings
    sums = z.new_zeros(len(population.classes), z.shape[1]).index_add_(0, population.index, z)
    return sums / _members(population)[:, None]


def _mean(population: Population) -> Head:
    """Nearest class mean; probabilities as of equally likely isotropic Gaussians of one variance (pooled within)."""
    means, z = _means(population), population.embeddings
    freedom = (len(z) - len(means)) * z.shape[1]
    variance = float((z - means[population.index]).square().sum()) / freedom if freedom > 0 else 0.0
    if not variance > 0:
        raise eqv.UsageError(
            "class means need a class with two different references, for the variance within classes",
            got=f"{len(z)} references of {len(means)} classes",
            hint="raise references, or name a larger labeled set with --targets",
        )
    return Head(
        "mean",
        "nearest class mean",
        population.classes,
        "class_reference",
        lambda embeddings: -torch.cdist(embeddings, means, compute_mode="donot_use_mm_for_euclid_dist").square(),
        lambda scores: softmax(scores / (2 * variance)),
        {"references": len(z), "variance_within": variance},
    )


def _mean_cosine(population: Population, temperature: float, source: str) -> Head:
    """Class mean of the largest cosine; probabilities as of zero-shot prompts."""
    means = _means(population)
    return Head(
        "mean_cosine",
        "class mean of largest cosine",
        population.classes,
        "class_reference",
        lambda embeddings: cosines(embeddings, means),
        lambda scores: softmax(temperature * scores),
        {"references": len(population.embeddings), "temperature": temperature, "temperature_from": source},
    )


def _nearest(population: Population) -> Head:
    """The class of the nearest reference; it votes for one class with probability 1."""
    count = len(population.classes)

    def scores(embeddings: torch.Tensor) -> torch.Tensor:
        apart = torch.cdist(embeddings, population.embeddings, compute_mode="donot_use_mm_for_euclid_dist")
        found = apart.new_full((len(apart), count), -torch.inf)
        return found.scatter_reduce_(1, population.index.expand(len(apart), -1), -apart, "amax")

    def votes(scores: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(scores.argmax(dim=1), count).to(scores)

    return Head(
        "nn",
        "nearest neighbor",
        population.classes,
        "class_reference",
        scores,
        votes,
        {"references": len(population.embeddings)},
    )


def _linear(population: Population) -> Head:
    """Ridge regression on one-hot classes; probabilities are the nearest probability vectors of its scores."""
    ridge = fit(population.embeddings, population.index, len(population.classes))
    return Head(
        "linear",
        "linear (ridge)",
        population.classes,
        "class_reference",
        ridge.scores,
        onto_simplex,
        {"references": len(population.embeddings), "penalty": ridge.penalty, "accuracy_left_out": ridge.left_out},
    )
