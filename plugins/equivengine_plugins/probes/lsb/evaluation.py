"""Responses of the encoder to moves on the lattice, as they are and as the linear model predicts them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch

import equivengine as eqv
from equivengine_plugins.probes.lsb.lattice import Lattice, nearest

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Responses:
    """What K moves of one kind do; NumPy arrays [K].

    Attributes:
        measured: |f(x + d) - f(x)|.
        linear: |J d|.
        length: |d|, L2.
        changed: Share of the pixels that move.
        other_class: Whether another class is predicted than at x; False where the encoder has no classifier.
    """

    measured: np.ndarray
    linear: np.ndarray
    length: np.ndarray
    changed: np.ndarray
    other_class: np.ndarray

    @classmethod
    def join(cls, parts: list[Responses]) -> Responses:
        """One after the other."""
        import numpy as np

        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))


@dataclass
class Visited:
    """What all images that the encoder was shown have in common.

    Attributes:
        count: How many moved images there were.
        off_lattice: Largest distance of a value from the lattice's, as the encoder got it, in levels.
        beyond: Largest change beyond the budget or the range, in levels.
    """

    count: int = 0
    off_lattice: float = 0.0
    beyond: int = 0


class Evaluation:
    """f and J at one image of the lattice, in the precision of the run.

    Args:
        task: The task.
        lattice: Around which image.
        precision: Instead of the run's own.
    """

    def __init__(self, task: eqv.ProbeTask[Any], lattice: Lattice, precision: str | None = None) -> None:
        self.task, self.lattice = task, lattice
        self.shape = task.samples[0].shape
        self.operator = task.jacobian(lattice.x.reshape(self.shape), precision=precision)
        self.visited = Visited()

    @property
    def value(self) -> torch.Tensor:
        """f(x), [n] float64."""
        return self.operator.value.double()

    def chunk(self, count: int) -> int:
        """How many of ``count`` moves are evaluated in one pass."""
        return self.operator.chunk(count + 1)

    def differences(self, moves: torch.Tensor) -> torch.Tensor:
        """f(x + d) - f(x) of moves [B, m]: [B, n], float64.

        x goes through the model in the same batch as x + d, since roundoff depends on the size of a batch.
        """
        parts = []
        for part in moves.split(self.chunk(len(moves))):
            points = self.lattice.points(part)
            self._look_at(points)
            batch = torch.cat([self.lattice.x[None], points]).reshape(-1, *self.shape)
            f = self.task.jacobian(batch, precision=self.operator.precision).value.double()
            parts.append(f[1:] - f[0])
        return torch.cat(parts)

    def embeddings(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings of images [B, *input_shape], whether on the lattice or not: [B, n], float64."""
        parts = images.split(self.chunk(len(images)))
        return torch.cat([self.task.jacobian(part, precision=self.operator.precision).value.double() for part in parts])

    def lengths(self, moves: torch.Tensor) -> torch.Tensor:
        """|f(x + d) - f(x)| of moves [B, m]: [B], float64."""
        return torch.linalg.vector_norm(self.differences(moves), dim=1)

    def responses(self, moves: torch.Tensor) -> Responses:
        """All that is reported of moves [B, m]."""
        changes = self.lattice.changes(moves)
        differences = self.differences(moves)
        linear = self.operator.jvp(changes.reshape(-1, *self.shape)).double()
        columns = (
            torch.linalg.vector_norm(differences, dim=1),
            torch.linalg.vector_norm(linear, dim=1),
            torch.linalg.vector_norm(changes, dim=1),
            (moves != 0).double().mean(dim=1),
            self._classes(self.value + differences) != self._classes(self.value[None]),
        )
        return Responses(*(column.cpu().numpy() for column in columns))

    def uphill(self, moves: torch.Tensor) -> torch.Tensor:
        """Gradient of |f(x + d) - f(x)|^2 / 2 in d, J(x + d)^T (f(x + d) - f(x)), of moves [B, m]: [B, m] float64."""
        parts = []
        for part in moves.split(self.chunk(len(moves))):
            points = self.lattice.points(part).reshape(-1, *self.shape)
            there = self.task.jacobian(points, precision=self.operator.precision, reverse=True)
            residuals = there.value.double() - self.value
            parts.append(there.vjp(residuals[None])[0].flatten(1).double())
        return torch.cat(parts)

    def _classes(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Predicted classes of embeddings [B, n]; zeros without a classifier, which is float32 in any run."""
        if not self.task.encoder.classify_ability:
            return torch.zeros(len(embeddings), dtype=torch.long, device=embeddings.device)
        with torch.no_grad():
            return self.task.encoder.classify(embeddings.float()).argmax(dim=1)

    def _look_at(self, points: torch.Tensor) -> None:
        """Hold what the encoder is about to be shown, [B, m], against lattice, range and budget."""
        lattice, seen = self.lattice, self.visited
        levels = nearest(points, self.task.encoder.spec.input_range)
        off = (points.double() - lattice.table[levels].double()).abs().max() / lattice.step
        moves = levels - lattice.start
        beyond = torch.maximum(lattice.lowest - moves, moves - lattice.highest).amax()
        seen.count += len(points)
        seen.off_lattice = max(seen.off_lattice, float(off))
        seen.beyond = max(seen.beyond, int(beyond))
