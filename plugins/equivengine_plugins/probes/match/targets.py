"""What originals are matched with: embeddings of target images, or of a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.probes.yardstick import embeddings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from equivengine_plugins.probes.match.parameters import MatchParams


@dataclass(frozen=True)
class Pairs:
    """Originals and target embeddings of B units.

    Attributes:
        tasks: The units.
        originals: Inputs [B, *input_shape], float32.
        start: Their embeddings, [B, n] float64.
        images: Target images [B, *input_shape]; None where the target is a text.
        embeddings: Target embeddings [B, n], float64.
        text_norm: Length of the text's embedding before it was scaled; None for images.
    """

    tasks: Sequence[eqv.ProbeTask[MatchParams]]
    originals: torch.Tensor
    start: torch.Tensor
    images: torch.Tensor | None
    embeddings: torch.Tensor
    text_norm: float | None

    @classmethod
    def of(cls, tasks: Sequence[eqv.ProbeTask[MatchParams]]) -> Pairs:
        """Originals and targets of tasks with equal parameters.

        Raises:
            UsageError: If there is no text tower, or if its embeddings are of another length than the images'.
            NumericsError: If a target embedding is not finite, or that of a text is zero.
        """
        import torch

        originals = torch.stack([task.samples[0] for task in tasks])
        start = embeddings(tasks[0], originals)
        text = tasks[0].params.text
        if text is not None:
            targets, norm = _of_text(tasks[0], text, start)
            return cls(tasks, originals, start, None, targets, norm)
        images = torch.stack([task.samples[1] for task in tasks])
        return cls(tasks, originals, start, images, embeddings(tasks[0], images), None)

    def take(self, rows: Sequence[int]) -> Pairs:
        """Some of them."""
        import torch

        at = torch.tensor(rows, dtype=torch.long, device=self.originals.device)
        return Pairs(
            [self.tasks[row] for row in rows],
            self.originals[at],
            self.start[at],
            None if self.images is None else self.images[at],
            self.embeddings[at],
            self.text_norm,
        )

    def __len__(self) -> int:
        return len(self.tasks)


def _of_text(task: eqv.ProbeTask[Any], text: str, start: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The text's direction at the length of each original's embedding [B, n], and the text's own length.

    Text and image towers are trained by their cosine alone, so the length of a text embedding means nothing to images;
    where the encoder normalizes, all lengths are 1.
    """
    import torch

    encoder = task.encoder
    if encoder.loaded.embed_text is None:
        raise eqv.UsageError(
            f"{encoder.spec.uri!r} has no text tower",
            expected="an encoder of images and texts, since text is set",
            got=f"text={text!r}",
            hint="take one that has, for example --model open_clip:ViT-B-32/laion2b_s34b_b79k, or leave text out",
        )
    embedding = encoder.embed_text([text]).detach().to(start)
    if embedding.shape != (1, start.shape[1]):
        raise eqv.UsageError(
            f"text embeddings of {encoder.spec.uri!r} do not lie in the space of its images",
            expected=f"a text embedding [1, {start.shape[1]}]",
            got=list(embedding.shape),
            hint="leave text out",
        )
    norm = float(torch.linalg.vector_norm(embedding))
    if not (0 < norm < float("inf")):
        raise eqv.NumericsError(
            "the embedding of a text has no direction", expected="a finite length above zero", got=norm
        )
    return embedding / norm * torch.linalg.vector_norm(start, dim=1, keepdim=True), norm
