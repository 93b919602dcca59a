"""Values of the encoder at many points, and random directions to put points along."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import equivengine as eqv

if TYPE_CHECKING:
    import torch


def values(task: eqv.ProbeTask[Any], points: torch.Tensor, precision: str, together: int, size: int) -> torch.Tensor:
    """Values of f at points [B, m], in a precision of JacobianOperator; [B, n] in float64.

    Args:
        task: The task.
        points: Points, flattened, in the dtype of the precision.
        precision: ``"fp32"`` or ``"fp64"``.
        together: How many consecutive points go through the model in one batch: roundoff depends on its size.
        size: Points per batch at most; rounded to a multiple of ``together``.
    """
    import torch

    shape = task.samples[0].shape
    size = max(together, size - size % together)
    parts = [task.jacobian(part.reshape(-1, *shape), precision=precision).value for part in points.split(size)]
    return torch.cat(parts).to(torch.float64)


def random_units(
    task: eqv.ProbeTask[Any],
    stream: str,
    count: int,
    m: int,
    space: eqv.linalg.Subspace | None = None,
    kind: str = "",
    start: int = 0,
) -> torch.Tensor:
    """Random unit directions [count, m], float64, uniform on the sphere of a subspace.

    Args:
        task: The task, whose seed and sample the directions depend on.
        stream: Name of the random stream.
        count: How many.
        m: Number of input coordinates.
        space: The row space of J; ``None`` for directions of the whole input space.
        kind: ``"normal"`` (within the row space) or ``"null"`` (orthogonal to it).
        start: Number of the first one in the stream.
    """
    import torch

    if space is not None:
        draw = space.random_normal if kind == "normal" else space.random_null
        return draw(task.stream(stream), start, count)
    vectors = eqv.linalg.gaussian_directions(task.stream(stream), start, count, m, device=task.samples[0].device)
    return vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
