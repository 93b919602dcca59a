"""The whole measurement of one set: draw pairs, match them, ask every head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

import equivengine as eqv
from equivengine_plugins.probes import yardstick
from equivengine_plugins.probes.transfer.head import Head
from equivengine_plugins.probes.transfer.heads import make_heads
from equivengine_plugins.probes.transfer.matched import Matched, is_image, match_pairs, random_changes, reread
from equivengine_plugins.probes.transfer.pairs import Pairs, draw_pairs
from equivengine_plugins.probes.transfer.trained import Population

if TYPE_CHECKING:
    import numpy as np

    from equivengine_plugins.probes.transfer.parameters import TransferParams


@dataclass(frozen=True)
class Answers:
    """What a head says of the inputs of all pairs.

    Attributes:
        head: Which head.
        probabilities: [P, V, C].
        predicted: Place of the predicted class, [P, V].
    """

    head: Head
    probabilities: np.ndarray
    predicted: np.ndarray


@dataclass(frozen=True)
class Measured:
    """What the probe measured on a set. V inputs belong to each of P pairs.

    Attributes:
        pairs: Which pairs.
        held: The yardstick of distances.
        matched: What the solver found.
        inputs: By the name of the variant: ``original``, ``target``, ``matched``, ``png`` (the matched input as it
            comes back from an 8-bit file; left out where inputs are no images) and ``control`` (the original changed at
            random by the same length); [P, *input_shape].
        embeddings: Of each, [P, n] float64.
        answers: One for each head.
        missing: Heads that cannot be had, and why.
    """

    pairs: Pairs
    held: yardstick.Yardstick
    matched: Matched
    inputs: dict[str, torch.Tensor]
    embeddings: dict[str, torch.Tensor]
    answers: list[Answers]
    missing: dict[str, str]

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the V inputs of a pair."""
        return tuple(self.inputs)

    def to_target(self, variant: str) -> np.ndarray:
        """|f(variant) - f(target)| of each pair, [P]."""
        gap = self.embeddings[variant] - self.embeddings["target"]
        return torch.linalg.vector_norm(gap, dim=1).cpu().numpy()

    def change(self, variant: str) -> torch.Tensor:
        """Change of the pixels against the original, [P, m] float64."""
        return (self.inputs[variant].double() - self.inputs["original"].double()).flatten(1)


def measure(task: eqv.ProbeTask[TransferParams]) -> Measured:
    """Measure one set.

    Raises:
        UsageError: If there are no pairs, no references, or no head.
        NumericsError: If nothing can be matched.
    """
    params = task.params
    pairs = draw_pairs(task, params.pairs, params.other_class)
    heads, missing = make_heads(task, _population(task, pairs), _known_labels(task))
    held = yardstick.measure(task)

    inputs = {
        "original": torch.stack([task.samples[place] for place in pairs.original]),
        "target": torch.stack([task.samples[place] for place in pairs.target]),
    }
    embedded = {name: yardstick.embeddings(task, x) for name, x in inputs.items()}
    matched = match_pairs(
        task,
        pairs,
        embedded["target"],
        distance=params.tolerance * held.median,
        solver=params.solver,
        max_jacobians=params.max_jacobians,
        together=params.together,
    )
    inputs["matched"] = matched.x
    if is_image(task):
        inputs["png"] = reread(task, matched.x)
    moved = (matched.x.double() - inputs["original"].double()).flatten(1)
    inputs["control"] = random_changes(task, inputs["original"], torch.linalg.vector_norm(moved, dim=1))
    embedded |= {name: yardstick.embeddings(task, x) for name, x in inputs.items() if name not in embedded}
    answers = [ask(head, embedded) for head in heads]
    return Measured(pairs, held, matched, inputs, embedded, answers, missing)


def ask(head: Head, embedded: dict[str, torch.Tensor]) -> Answers:
    """What a head says of embeddings [P, n] of V variants."""
    scores = {name: head.scores(z) for name, z in embedded.items()}
    probabilities = torch.stack([head.probabilities(score) for score in scores.values()], dim=1)
    predicted = torch.stack([score.argmax(dim=1) for score in scores.values()], dim=1)
    return Answers(head, probabilities.cpu().numpy(), predicted.cpu().numpy())


def _population(task: eqv.ProbeTask[TransferParams], pairs: Pairs) -> Population:
    """Labeled references of other content than the images in the pairs: a head must not know what it is asked."""
    asked = {task.sample_digests[place] for place in pairs.places} if task.sample_digests else set()
    digests = task.reference_digests or [""] * len(task.references)
    rows, labels = [], []
    for row, (label, digest) in enumerate(zip(task.reference_labels, digests, strict=False)):
        if label is not None and digest not in asked:
            rows.append(row)
            labels.append(label)
    if not rows:
        return Population.of(torch.zeros(0, task.encoder.spec.embedding_dim, dtype=torch.float64), [])
    return Population.of(yardstick.embeddings(task, task.references[rows]), labels)


def _known_labels(task: eqv.ProbeTask[TransferParams]) -> list[str]:
    return sorted({label for label in (*task.labels, *task.reference_labels) if label is not None})
