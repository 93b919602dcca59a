"""How accurate a central difference is at each step size, and which step is best.

The error of (f(x + h d) - f(x - h d)) / 2h is a U in log h: truncation, proportional to h^2, rises to the right;
roundoff of f, proportional to 1/h, to the left. They balance at h of the order of eps^(1/3) (Press et al., Numerical
Recipes, 3rd ed., section 5.7), times the length over which f bends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine.statistics import bootstrap
from equivengine_plugins.probes.numerics.evaluation import values

if TYPE_CHECKING:
    import numpy as np
    import torch

    from equivengine.statistics import Estimate

#: Points of a side of the curve lie this far above its minimum, where one of the two errors rules alone.
ABOVE_MINIMUM = 5.0
#: Truncation is proportional to h^2 while it is small: beyond this relative error higher orders count.
ASYMPTOTIC = 0.1
#: Where rounding bends a step by more than this, the quotient follows the rounding.
MAX_DISTORTION = 0.1
#: A point that differs from its smoothed value by more than this factor takes no part in the refinement.
OUTLIER = 3.0
#: A slope is fitted to at least this many points.
ENOUGH = 4


@dataclass(frozen=True)
class Curve:
    """Central differences in one precision along D directions at S step sizes; NumPy arrays.

    Attributes:
        steps: h, [S].
        error: |quotient - J_64 d| / |J_64 d|, [S, D]; NaN where rounding swallowed the step.
        error_own: The same against J d by a JVP of the curve's own precision, [S, D].
        distortion: |realized - intended difference of the points| / 2h, [S, D].
    """

    steps: np.ndarray
    error: np.ndarray
    error_own: np.ndarray
    distortion: np.ndarray


@dataclass(frozen=True)
class Best:
    """What a curve says; each with its bootstrap interval over directions.

    Attributes:
        step: The step size of the smallest error.
        error: The median error there.
        rising: Slope of log error over log h right of the minimum; 2 where truncation rules. n = 0: too few points.
        falling: Slope left of it; -1 where roundoff rules.
        at_end: ``"h_min"`` or ``"h_max"`` where the minimum is the end of the sweep, else empty.
    """

    step: Estimate
    error: Estimate
    rising: Estimate
    falling: Estimate
    at_end: str


def measure_curve(
    task: eqv.ProbeTask[Any],
    operator: eqv.JacobianOperator,
    directions: torch.Tensor,
    own: torch.Tensor,
    exact: torch.Tensor,
    steps: np.ndarray,
) -> Curve:
    """Central differences of f in the operator's precision.

    Args:
        task: The task.
        operator: The Jacobian at x, fp32 or fp64.
        directions: Unit directions [D, m], float64.
        own: J d of the same precision, [D, n].
        exact: J d in float64, [D, n].
        steps: Step sizes [S].
    """
    import numpy as np
    import torch

    x = operator.x.flatten().to(torch.float64)
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64, device=x.device)
    lengths = torch.linalg.vector_norm(exact, dim=1)
    size = operator.chunk(2 * len(directions))
    rows = []
    for h in steps:
        points = (x + float(h) * signs[:, None] * directions[:, None]).to(operator.dtype)  # [D, 2, m]
        f = values(task, points.flatten(0, 1), operator.precision, 2, size).unflatten(0, (-1, 2))
        made = points[:, 0].to(torch.float64) - points[:, 1].to(torch.float64)
        # Rounding moves the points: divide by the step that was really made (0 gives NaN, below).
        quotients = (f[:, 0] - f[:, 1]) / torch.linalg.vector_norm(made, dim=1, keepdim=True)
        rows.append(
            torch.stack(
                [
                    torch.linalg.vector_norm(quotients - exact, dim=1) / lengths,
                    torch.linalg.vector_norm(quotients - own, dim=1) / lengths,
                    torch.linalg.vector_norm(made - 2 * float(h) * directions, dim=1) / (2 * float(h)),
                ]
            )
        )
    error, error_own, distortion = torch.stack(rows, dim=1).cpu().numpy()
    swallowed = ~np.isfinite(error)
    error[swallowed] = error_own[swallowed] = np.nan
    return Curve(np.asarray(steps), error, error_own, distortion)


def best(curve: Curve, seed: int) -> Best:
    """The recommended step of a curve, and the slopes on both sides of it."""
    import numpy as np

    indices = np.arange(curve.error.shape[1], dtype=np.float64)

    def resampled(columns: np.ndarray) -> np.ndarray:
        """Median curve of the chosen directions: [..., D'] -> [..., S]; infinite where there is no quotient."""
        chosen = np.moveaxis(curve.error[:, columns.astype(np.intp)], 0, -2)
        return np.median(np.where(np.isnan(chosen), np.inf, chosen), axis=-1)

    def step_of(columns: np.ndarray, axis: int = -1) -> np.ndarray:
        return minimum(curve.steps, resampled(columns))

    step = bootstrap(indices, statistic=step_of, seed=seed)
    middle = resampled(indices)
    at = int(np.argmin(np.abs(np.log(curve.steps / step.value))))
    right, left = sides(curve, middle, at)

    def slope_over(part: np.ndarray) -> Estimate:
        if len(part) < ENOUGH:
            return bootstrap(np.empty(0))
        return bootstrap(
            indices, statistic=lambda c, axis=-1: slope(curve.steps[part], resampled(c)[..., part]), seed=seed
        )

    ends = {0: "h_min", len(curve.steps) - 1: "h_max"}
    return Best(
        step=step,
        error=bootstrap(np.nan_to_num(curve.error[at], nan=np.inf), seed=seed),
        rising=slope_over(right),
        falling=slope_over(left),
        at_end=ends.get(at, ""),
    )


def smoothed(errors: np.ndarray) -> np.ndarray:
    """Running median of three along the last axis: a single lucky step is no minimum.

    An end becomes the median of itself, its neighbor and the line through its neighbors, in log errors (Tukey,
    Exploratory Data Analysis, 1977, section 7C), so that a curve may fall to the end of the sweep.
    """
    import numpy as np

    out = np.array(errors, copy=True)
    out[..., 1:-1] = np.median(np.stack([errors[..., :-2], errors[..., 1:-1], errors[..., 2:]]), axis=0)
    for end, near, far in ((0, 1, 2), (-1, -2, -3)):
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            line = out[..., near] * (out[..., near] / out[..., far]) ** 2
        line = np.where(np.isfinite(line), line, errors[..., end])
        out[..., end] = np.median(np.stack([errors[..., end], out[..., near], line]), axis=0)
    return out


def minimum(steps: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Where errors [..., S] over equally spaced log steps are smallest, robustly and between grid points.

    The smallest value of the smoothed curve says where; the least-squares parabola through the five points around it,
    in log-log, refines it by at most one grid spacing.
    """
    import numpy as np

    reach = min(2, (len(steps) - 1) // 2)
    smooth = smoothed(errors)
    at = np.argmin(smooth, axis=-1)
    inner = np.clip(at, reach, len(steps) - 1 - reach)
    offsets = np.arange(-reach, reach + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        trusted = np.where(np.abs(np.log(errors / smooth)) < np.log(OUTLIER), errors, smooth)
        around = np.log(np.take_along_axis(trusted, inner[..., None] + offsets, -1))
        fit = np.linalg.pinv(np.vander(offsets, 3).astype(np.float64))  # coefficients of offset^2, offset, 1
        bend, tilt = around @ fit[0], around @ fit[1]
        shift = -tilt / (2 * bend)
    usable = np.isfinite(shift) & (bend > 0) & (at > 0) & (at < len(steps) - 1)
    shift = np.where(usable, np.clip(shift, at - inner - 1, at - inner + 1), at - inner)
    h = np.log(steps)
    return np.exp(h[0] + (inner + shift) * (h[1] - h[0]))


def sides(curve: Curve, middle: np.ndarray, at: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the points right of the minimum where truncation rules, and left of it where roundoff does."""
    import numpy as np

    index = np.arange(len(middle))
    clear = middle > ABOVE_MINIMUM * middle[at]
    right = (index > at) & clear & (middle < ASYMPTOTIC)
    straight = np.median(curve.distortion, axis=1) < MAX_DISTORTION
    left = (index < at) & clear & straight & np.isfinite(middle)
    return index[right], index[left]


def slope(steps: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Slope of log errors [..., S] over log steps [S]: the median over all pairs of points (Theil, 1950; Sen, 1968)."""
    import numpy as np

    first, second = np.triu_indices(len(steps), 1)
    x, y = np.log(steps), np.log(errors)
    return np.median((y[..., second] - y[..., first]) / (x[second] - x[first]), axis=-1)
