"""Both LDLC estimators along given directions, and random directions to measure along."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import equivengine as eqv

if TYPE_CHECKING:
    import numpy as np
    import torch

    from equivengine_plugins.probes.ldlc.parameters import LdlcParams


@dataclass
class Along:
    """What was measured along K directions of one kind; arrays [K], NumPy.

    Attributes:
        at_zero: |J(x) d|.
        tangent: Largest |J(x + a d) d| over the grid.
        secant: Largest difference quotient over the grid.
        bending: Largest |J(x + a d) d - J(x) d| over the grid: what curvature adds.
        outside: Share of coordinates that leave the input range at a = eps or -eps.
        distortion: |realized - intended grid step| over the intended one: rounding of pixels bends secants by this.
    """

    at_zero: np.ndarray
    tangent: np.ndarray
    secant: np.ndarray
    bending: np.ndarray
    outside: np.ndarray
    distortion: np.ndarray

    @classmethod
    def join(cls, parts: list[Along]) -> Along:
        """One after the other."""
        import numpy as np

        names = tuple(field.name for field in fields(cls))
        if not parts:
            return cls(*(np.empty(0) for _ in names))
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def split(self, count: int) -> list[Along]:
        """Into ``count`` equal parts, in order."""
        import numpy as np

        columns = [np.split(getattr(self, field.name), count) for field in fields(self)]
        return [Along(*part) for part in zip(*columns, strict=True)]


def random_directions(
    task: eqv.ProbeTask[LdlcParams],
    operator: eqv.JacobianOperator,
    start: int,
    count: int,
    space: eqv.linalg.Subspace | None,
) -> torch.Tensor:
    """Unit directions [count, m], float64, number ``start`` on of their stream."""
    import torch

    if space is not None:
        return space.random_null(task.stream("null"), start, count)
    vectors = eqv.linalg.gaussian_directions(task.stream("random"), start, count, operator.shape[1])
    vectors = vectors.to(operator.x.device)
    return vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)


def measure_along(
    operator: eqv.JacobianOperator,
    input_range: tuple[float, float],
    directions: torch.Tensor,
    points: torch.Tensor | None,
    params: LdlcParams,
) -> Along:
    """Both estimators along unit directions [K, m] (float64), at x or at points [K, m] of their own."""
    import torch

    alphas = torch.linspace(-params.eps, params.eps, params.grid, dtype=torch.float64, device=directions.device)
    alphas[params.grid // 2] = 0.0
    shape = operator.x.shape
    centre = operator.x.flatten().to(torch.float64)
    rows = max(1, (128 << 20) // (8 * params.grid * directions.shape[1]))
    parts = []
    for start in range(0, len(directions), rows):
        d = directions[start : start + rows].to(torch.float64)
        base = centre.expand_as(d) if points is None else points[start : start + rows].to(torch.float64)
        z = (base[:, None] + alphas[None, :, None] * d[:, None]).to(operator.dtype)  # [k, a, m]
        tangents = d.to(operator.dtype)[:, None].expand_as(z)
        f, df = operator.along(z.reshape(-1, *shape), tangents.reshape(-1, *shape), together=params.grid)
        f = f.reshape(*z.shape[:2], -1).to(torch.float64)
        df = df.reshape(*z.shape[:2], -1).to(torch.float64)
        # Rounding moves the points: divide by the step that was really made (numerics: one part in a hundred else).
        made = z[:, 1:].to(torch.float64) - z[:, :-1].to(torch.float64)
        steps = torch.linalg.vector_norm(made, dim=2)
        wanted = alphas.diff()
        bent = torch.linalg.vector_norm(made - wanted[None, :, None] * d[:, None], dim=2) / wanted
        differences = torch.linalg.vector_norm(f[:, 1:] - f[:, :-1], dim=2)
        quotients = torch.where(steps > 0, differences / steps, 0.0)
        slopes = torch.linalg.vector_norm(df, dim=2)
        tangent = slopes.amax(1)
        secant, where = quotients.max(1)
        missed = torch.nonzero(secant > tangent * (1 + 1e-3)).flatten()
        if len(missed):
            middle = (alphas[where[missed]] + alphas[where[missed] + 1]) / 2
            z_mid = (base[missed] + middle[:, None] * d[missed]).to(operator.dtype)
            _, refined = operator.along(z_mid.reshape(-1, *shape), d[missed].to(operator.dtype).reshape(-1, *shape))
            tangent[missed] = torch.maximum(tangent[missed], torch.linalg.vector_norm(refined.to(torch.float64), dim=1))
        low, high = input_range
        ends = z[:, [0, -1]].to(torch.float64)
        zero = params.grid // 2
        parts.append(
            Along(
                at_zero=slopes[:, zero].cpu().numpy(),
                tangent=tangent.cpu().numpy(),
                secant=secant.cpu().numpy(),
                bending=torch.linalg.vector_norm(df - df[:, zero : zero + 1], dim=2).amax(1).cpu().numpy(),
                outside=((ends < low) | (ends > high)).to(torch.float64).mean(dim=(1, 2)).cpu().numpy(),
                distortion=bent.amax(1).cpu().numpy(),
            )
        )
    return Along.join(parts)
