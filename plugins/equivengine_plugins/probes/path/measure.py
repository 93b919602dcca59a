"""The whole measurement of the pairs of one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import equivengine as eqv
from equivengine_plugins.probes.path.curve import Curve, along, straight
from equivengine_plugins.probes.path.parameters import MAX_STEPS, RATE
from equivengine_plugins.probes.path.spaces import Turning, normal_dim, turning
from equivengine_plugins.probes.path.within import Paths, within_classes
from equivengine_plugins.probes.spectrum.baseline import random_angles
from equivengine_plugins.probes.yardstick import Yardstick, embeddings
from equivengine_plugins.probes.yardstick import measure as measure_yardstick

if TYPE_CHECKING:
    from equivengine_plugins.probes.path.parameters import PathParams

#: Pairs of random subspaces that angles are held against.
DRAWS = 20


@dataclass(frozen=True)
class Measured:
    """What is known of one pair.

    Attributes:
        task: Its task.
        yardstick: What distances are held against.
        matched: The input that matches the target, [*input_shape].
        distance: |f(matched) - f(target)| as the solver saw it.
        stop: Why the solver stopped.
        curves: "line" (original to matched) and "images" (original to target), straight; "first" and "last", within the
            class of the original and of the target, unless they are left out.
        turnings: Of "line", and of "first" and "last" likewise.
        random: Principal angles of independent random subspaces, [DRAWS, k].
        claimed: |f(z) - f(start)| of the points of "first" and "last", as the solver saw it.
        ends: f(original) and f(target), fp64, [2, n].
        noise: Largest |f - f_64| of original, target and matched; machine epsilon times |f| in float64 runs.
        equivalents: Forward-pass equivalents of the match and of both paths.
        jacobians: Likewise.
    """

    task: eqv.ProbeTask[PathParams]
    yardstick: Yardstick
    matched: torch.Tensor
    distance: float
    stop: str
    curves: dict[str, Curve]
    turnings: dict[str, Turning]
    random: np.ndarray
    claimed: dict[str, np.ndarray]
    ends: torch.Tensor
    noise: float
    equivalents: dict[str, int]
    jacobians: dict[str, int]

    @property
    def within(self) -> tuple[str, ...]:
        """The paths within classes: "first" and "last", or none."""
        return tuple(self.claimed)

    @property
    def goal(self) -> float:
        """Distance to match points of the paths within classes to, embedding units."""
        return self.task.params.tolerance * self.yardstick.median

    @property
    def match_goal(self) -> float:
        """Distance to match the original to, embedding units."""
        return self.task.params.match_goal * self.yardstick.median


def measure(tasks: Sequence[eqv.ProbeTask[PathParams]]) -> list[eqv.ProbeResult]:
    """Measure pairs of tasks with equal parameters, seeds and references; matches share passes.

    Raises:
        UsageError: If an image lies outside of the input range, or original and target have one embedding.
        NumericsError: If an embedding or a derivative is not finite, or the yardstick is zero.
    """
    from equivengine_plugins.probes.path.result import make_result

    yardstick = measure_yardstick(tasks[0])
    task = tasks[0]
    dtype = torch.float32 if task.precision == "fp32" else torch.float64
    originals, targets = (torch.stack([each.samples[k] for each in tasks]).to(dtype) for k in (0, 1))
    f_original, f_target = embeddings(task, originals), embeddings(task, targets)
    _differ(task, f_original, f_target)
    found = _match(task, originals, f_target, yardstick)
    paths = None
    if task.params.steps:
        paths = within_classes(
            task,
            torch.cat([originals, targets]),
            torch.cat([targets, originals]),
            torch.cat([f_original, f_target]),
            task.params.tolerance * yardstick.median,
        )
    return [make_result(_measured(each, row, yardstick, found, paths)) for row, each in enumerate(tasks)]


def _match(
    task: eqv.ProbeTask[PathParams], originals: torch.Tensor, target: torch.Tensor, yardstick: Yardstick
) -> eqv.matching.Matching:
    params = task.params
    low, high = task.encoder.spec.input_range
    given: dict[str, Any] = {
        "distance": params.match_goal * yardstick.median,
        "region": eqv.matching.Region(low, high) if params.box else eqv.matching.Region.unbounded(),
        "precision": task.precision,
    }
    if params.solver == "gd":
        rate, steps = params.rate or RATE, params.max_steps or MAX_STEPS
        return eqv.matching.gradient_descent(task.encoder, originals, target, rate=rate, steps=steps, **given)
    solve = eqv.matching.levenberg_marquardt if params.solver == "lm" else eqv.matching.smallest_l2
    return solve(
        task.encoder,
        originals,
        target,
        max_jacobians=params.max_jacobians,
        jacobian=params.jacobian,
        **given,
    )


def _measured(
    task: eqv.ProbeTask[PathParams], row: int, yardstick: Yardstick, found: eqv.matching.Matching, paths: Paths | None
) -> Measured:
    params = task.params
    original, target = task.samples[0], task.samples[1]
    matched = found.x[row]
    curves = {
        "line": straight(task, original, matched, params.points),
        "images": straight(task, original, target, params.points),
    }
    claimed: dict[str, np.ndarray] = {}
    equivalents, jacobians = {"line": int(found.cost.equivalents[row])}, {"line": int(found.jacobians[row])}
    if paths is not None:
        for name, place in (("first", row), ("last", row + len(found.x))):
            curves[name] = along(task, paths.nodes[:, place], params.between)
            claimed[name] = paths.distance[:, place].cpu().numpy()
            equivalents[name], jacobians[name] = int(paths.equivalents[place]), int(paths.jacobians[place])
    m = original.numel()
    return Measured(
        task=task,
        yardstick=yardstick,
        matched=matched,
        distance=float(found.distance[row]),
        stop=found.stop[row],
        curves=curves,
        turnings={name: turning(task, curves[name]) for name in ("line", *claimed)},
        random=random_angles(normal_dim(task), m, DRAWS, task.stream("random subspaces")),
        claimed=claimed,
        ends=curves["images"].f[[0, -1]],
        noise=_noise(task, torch.stack([original.to(matched), target.to(matched), matched])),
        equivalents=equivalents,
        jacobians=jacobians,
    )


def _noise(task: eqv.ProbeTask[PathParams], inputs: torch.Tensor) -> float:
    exact = embeddings(task, inputs, "fp64")
    if task.precision == "fp64":
        return torch.finfo(torch.float64).eps * float(torch.linalg.vector_norm(exact, dim=1).max())
    return float(torch.linalg.vector_norm(embeddings(task, inputs) - exact, dim=1).max())


def _differ(task: eqv.ProbeTask[PathParams], f_original: torch.Tensor, f_target: torch.Tensor) -> None:
    eps = torch.finfo(torch.float32 if task.precision == "fp32" else torch.float64).eps
    apart = torch.linalg.vector_norm(f_original - f_target, dim=1)
    floor = eqv.matching.ROUNDOFFS * eps * torch.linalg.vector_norm(f_target, dim=1)
    if bool((apart <= floor).any()):
        raise eqv.UsageError(
            "original and target have one embedding already: no path leads from one class to another",
            expected=f"embeddings further apart than roundoff, {float(floor.min()):.2g}",
            got=f"a distance of {float(apart.min()):.2g}",
            hint="take another target",
        )
