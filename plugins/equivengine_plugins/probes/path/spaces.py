"""How the normal space turns along a path: principal angles between spans of leading right singular vectors."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

import equivengine as eqv

if TYPE_CHECKING:
    from equivengine_plugins.probes.path.curve import Curve
    from equivengine_plugins.probes.path.parameters import PathParams

#: Bytes of a Jacobian up to which it is written out: its spaces are then as exact as J itself.
WRITTEN_OUT = 256 << 20


@dataclass(frozen=True)
class Turning:
    """Normal spaces at P points of a path, spanned by k vectors each.

    Attributes:
        t: Where the points are, [P].
        from_start: Principal angles with the space at the start, [P, k], ascending, radians; row 0 is zero.
        to_next: Principal angles with the space at the next point, [P - 1, k].
        values: Leading singular values, [P, k].
        error: Estimated sine of the largest error of each space, [P], at most 1.
        identified: How many of the spaces are determined: the k-th and the next singular value differ.
    """

    t: np.ndarray
    from_start: np.ndarray
    to_next: np.ndarray
    values: np.ndarray
    error: np.ndarray
    identified: int

    @property
    def overlap(self) -> np.ndarray:
        """Mean squared cosine with the space at the start, [P]; 1 for the same space, k / m for random ones."""
        return (np.cos(self.from_start) ** 2).mean(axis=1)


def turning(task: eqv.ProbeTask[PathParams], curve: Curve) -> Turning:
    """Compare the normal spaces at ``spaces`` corners of a path, evenly spaced in their number.

    Raises:
        NumericsError: If a Jacobian is not finite.
    """
    last = len(curve.nodes) - 1
    chosen = np.unique(np.linspace(0, last, min(task.params.spaces, last + 1)).round().astype(int))
    spaces, values, errors, identified = [], [], [], 0
    for place in chosen.tolist():
        operator = task.jacobian(curve.nodes[place].to(torch.float32 if task.precision == "fp32" else torch.float64))
        rank = min(task.params.rank, *operator.shape)
        n, m = operator.shape
        method = "exact" if 8 * n * m <= WRITTEN_OUT else "auto"
        found = eqv.linalg.svd(operator, rank, method=method, seed=task.stream(f"svd-{place}")).require()
        operator.release()
        assert found.Vh is not None
        spaces.append(eqv.linalg.Subspace(found.Vh))
        values.append(found.S.cpu().numpy())
        errors.append(min(1.0, found.subspace_error))
        identified += found.subspace == "identified"
    start = spaces[0]
    angles = [np.zeros(start.dim), *(start.principal_angles(space).cpu().numpy() for space in spaces[1:])]
    following = [a.principal_angles(b).cpu().numpy() for a, b in itertools.pairwise(spaces)]
    return Turning(chosen / last, np.stack(angles), np.stack(following), np.stack(values), np.array(errors), identified)


def normal_dim(task: eqv.ProbeTask[PathParams]) -> int:
    """How many vectors span a normal space here."""
    return min(task.params.rank, task.encoder.spec.embedding_dim, int(torch.Size(task.encoder.input_shape).numel()))
