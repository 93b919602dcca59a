"""Matching of the pairs, what an 8-bit file keeps of it, and a random change of the same length beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

import equivengine as eqv

if TYPE_CHECKING:
    import numpy as np

    from equivengine_plugins.probes.transfer.pairs import Pairs

Solver = Literal["lm", "minimal"]
#: Linearizations of a pair, at most. Pairs that converge take about ten by ``lm``; the others seldom do later.
MAX_JACOBIANS = {"lm": 30, "minimal": 120}


@dataclass(frozen=True)
class Matched:
    """Inputs matched to the embeddings of others.

    Attributes:
        x: The inputs, [P, *input_shape], in the run's precision.
        distance: |f(x) - target embedding| as the solver has it, [P] float64; NaN where it failed.
        reached: Which pairs came within the tolerance, [P] bool.
        stop: Why the solver stopped at each pair; ``"failed"`` where it raised an error.
        jacobians: Linearizations of each pair, [P].
        equivalents: Forward-pass equivalents of each pair, [P].
        errors: What the failed pairs raised, each text once.
    """

    x: torch.Tensor
    distance: np.ndarray
    reached: np.ndarray
    stop: tuple[str, ...]
    jacobians: np.ndarray
    equivalents: np.ndarray
    errors: tuple[str, ...]


def match_pairs(
    task: eqv.ProbeTask[Any],
    pairs: Pairs,
    target: torch.Tensor,
    *,
    distance: float,
    solver: Solver = "lm",
    max_jacobians: int | None = None,
    together: int = 16,
) -> Matched:
    """Match the originals of pairs within the encoder's input range.

    A pair that raises a numerical error is left as it is and counted; the others of its batch are matched without it.

    Args:
        task: The task.
        pairs: Which images.
        target: Embeddings of the targets, [P, n].
        distance: How near is near enough, embedding units.
        solver: ``"lm"`` for any match, ``"minimal"`` for the smallest L2 change that can be found.
        max_jacobians: Linearizations for each pair, at most; `MAX_JACOBIANS` of the solver when None.
        together: Pairs in one batch.

    Raises:
        NumericsError: If no pair can be matched for such errors.
        UsageError: If an image lies outside the encoder's input range.
    """
    import numpy as np

    originals = torch.stack([task.samples[place] for place in pairs.original])
    low, high = task.encoder.spec.input_range
    solvers: dict[str, Callable[..., eqv.matching.Matching]] = {
        "lm": eqv.matching.levenberg_marquardt,
        "minimal": eqv.matching.smallest_l2,
    }
    solve_with = solvers[solver]

    def solve(rows: slice) -> eqv.matching.Matching:
        return solve_with(
            task.encoder,
            originals[rows],
            target[rows],
            distance=distance,
            region=eqv.matching.Region(low, high),
            precision=task.precision,
            max_jacobians=max_jacobians or MAX_JACOBIANS[solver],
        )

    parts: list[tuple[slice, eqv.matching.Matching | eqv.NumericsError]] = []
    for start in range(0, len(pairs), together):
        rows = slice(start, min(start + together, len(pairs)))
        try:
            parts.append((rows, solve(rows)))
        except eqv.NumericsError:
            for row in range(rows.start, rows.stop):
                alone = slice(row, row + 1)
                try:
                    parts.append((alone, solve(alone)))
                except eqv.NumericsError as error:
                    parts.append((alone, error))
    errors = [found for _, found in parts if isinstance(found, eqv.NumericsError)]
    if len(errors) == len(pairs):
        raise errors[0]
    x = originals.to(torch.float64 if task.precision == "fp64" else torch.float32)
    apart, reached = np.full(len(pairs), np.nan), np.zeros(len(pairs), dtype=bool)
    jacobians, equivalents = (np.zeros(len(pairs), dtype=np.int64) for _ in range(2))
    stop = ["failed"] * len(pairs)
    for rows, found in parts:
        if isinstance(found, eqv.NumericsError):
            continue
        x[rows], stop[rows] = found.x, found.stop
        apart[rows], reached[rows] = found.distance.cpu().numpy(), found.reached.numpy()
        jacobians[rows], equivalents[rows] = found.jacobians.numpy(), found.cost.equivalents.numpy()
    texts = tuple(dict.fromkeys(error.what for error in errors))
    return Matched(x, apart, reached, tuple(stop), jacobians, equivalents, texts)


def is_image(task: eqv.ProbeTask[Any]) -> bool:
    """Whether inputs have channels, height and width, so that a file of 8-bit levels can hold them."""
    return len(task.encoder.input_shape) == 3


def reread(task: eqv.ProbeTask[Any], x: torch.Tensor) -> torch.Tensor:
    """Images [P, C, H, W] as they come back from 8-bit PNG files, float32; levels span the encoder's input range."""
    low, high = task.encoder.spec.input_range
    back = eqv.pictures.reread((x - low) / (high - low))
    return back if (low, high) == (0.0, 1.0) else back * (high - low) + low


def random_changes(task: eqv.ProbeTask[Any], originals: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """Originals changed along random directions, by given L2 lengths, within the input range.

    A direction g is uniform on the sphere; the result is clamp(x + s g). Its distance from x grows with s, so bisection
    finds the s of the length that is asked for.

    Args:
        task: The task; its stream ``control`` gives the directions.
        originals: [P, *input_shape].
        length: [P], input units.

    Returns:
        [P, *input_shape], in the run's precision. Shorter where even the corner of the box is nearer than ``length``.
    """
    low, high = task.encoder.spec.input_range
    x = originals.flatten(1).to(torch.float64)
    key, count = task.stream("control"), len(x)
    g = eqv.linalg.gaussian_directions(key, 0, count, x.shape[1], device=x.device)
    g /= torch.linalg.vector_norm(g, dim=1, keepdim=True)
    goal = length.to(x)[:, None]

    def moved(s: torch.Tensor) -> torch.Tensor:
        return (x + s * g).clamp(low, high)

    def short(s: torch.Tensor) -> torch.Tensor:
        return torch.linalg.vector_norm(moved(s) - x, dim=1, keepdim=True) < goal

    near, far = torch.zeros_like(goal), goal.clone()
    for _ in range(30):  # 2^30 lengths are beyond every corner that any coordinate reaches
        far = torch.where(short(far), 2 * far, far)
    for _ in range(80):
        middle = (near + far) / 2
        less = short(middle)
        near, far = torch.where(less, middle, near), torch.where(less, far, middle)
    dtype = torch.float64 if task.precision == "fp64" else torch.float32
    return moved(far).to(dtype).clamp(low, high).reshape(originals.shape)
