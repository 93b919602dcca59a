"""How far f(x) + J d stays a good approximation of f(x + d) (paper, Eq. 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.probes.numerics.evaluation import values

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class Linearisation:
    """The linear approximation along D directions of one kind, at L lengths |d|; NumPy arrays.

    Attributes:
        lengths: |d|, [L].
        slope: |J d| / |d|, [D].
        error: |f(x + d) - f(x) - J d|, [L, D].
        response: |f(x + d) - f(x)|, [L, D].
        outside: Share of the coordinates of x + d that lie outside the input range, [L, D].
    """

    lengths: np.ndarray
    slope: np.ndarray
    error: np.ndarray
    response: np.ndarray
    outside: np.ndarray

    @classmethod
    def join(cls, parts: list[Linearisation]) -> Linearisation:
        """Directions of one part after those of the other; at least one part, all at the same lengths."""
        import numpy as np

        slope = np.concatenate([part.slope for part in parts])
        rest = (np.concatenate([getattr(p, name) for p in parts], axis=1) for name in ("error", "response", "outside"))
        return cls(parts[0].lengths, slope, *rest)

    def relative(self, scale: float) -> np.ndarray:
        """Error over scale x |d|, [L, D]: in units of what a reference direction of the same length moves."""
        return self.error / (scale * self.lengths[:, None])

    def relative_own(self) -> np.ndarray:
        """Error over the response along the same d, [L, D]; 0 where neither moves."""
        import numpy as np

        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.error > 0, self.error / self.response, 0.0)


def measure_linearisation(
    task: eqv.ProbeTask[Any], operator: eqv.JacobianOperator, directions: torch.Tensor, lengths: np.ndarray
) -> Linearisation:
    """Hold f against its linear approximation, in float64.

    Args:
        task: The task.
        operator: The float64 Jacobian at x.
        directions: Unit directions [D, m], float64.
        lengths: |d|, [L].
    """
    import numpy as np
    import torch

    low, high = task.encoder.spec.input_range
    x = operator.x.flatten()
    linear = operator.jvp(directions.reshape(-1, *operator.x.shape))
    size = operator.chunk(1 + len(directions))
    rows = []
    for length in lengths:
        points = x + float(length) * directions
        moved = values(task, points, "fp64", 1, size) - operator.value
        outside = ((points < low) | (points > high)).to(torch.float64).mean(dim=1)
        gap = torch.linalg.vector_norm(moved - float(length) * linear, dim=1)
        rows.append(torch.stack([gap, torch.linalg.vector_norm(moved, dim=1), outside]))
    error, response, outside = torch.stack(rows, dim=1).cpu().numpy()
    slopes = torch.linalg.vector_norm(linear, dim=1).cpu().numpy()
    return Linearisation(np.asarray(lengths), slopes, error, response, outside)


def crossing(lengths: np.ndarray, relative: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The length at which a relative error first passes a level, by interpolation in log-log.

    Args:
        lengths: [L], rising.
        relative: [L, D].
        level: The level.

    Returns:
        Radii [D], and [D]: 0 where the level is passed within the sweep, 1 where it is not passed (the radius is then
        the longest length, a lower bound), -1 where the shortest length is beyond it already (an upper bound).
    """
    import numpy as np

    count = relative.shape[1]
    beyond = ~(relative < level)  # NaN ends a radius
    first = np.where(beyond.any(axis=0), beyond.argmax(axis=0), len(lengths))
    radii = np.empty(count)
    censored = np.where(first == len(lengths), 1, np.where(first == 0, -1, 0))
    for k in range(count):
        if censored[k]:
            radii[k] = lengths[-1] if censored[k] > 0 else lengths[0]
            continue
        ends = [first[k] - 1, first[k]]
        below, above = np.log(np.maximum(relative[ends, k], np.finfo(float).tiny))
        share = (np.log(level) - below) / (above - below) if np.isfinite(above) else 0.0
        radii[k] = lengths[ends[0]] * (lengths[ends[1]] / lengths[ends[0]]) ** share
    return radii, censored
