"""A polygon through the input space, and the curve that its embedding follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

import equivengine as eqv
from equivengine_plugins.probes.yardstick import embeddings


@dataclass(frozen=True)
class Curve:
    """Embeddings along a polygon of S segments, each looked at in c points inside; float64.

    Attributes:
        nodes: The corners, [S + 1, *input_shape].
        t: Where points are, as shares of the number of segments, [S (c + 1) + 1]; from 0 to 1.
        f: Embeddings there, [S (c + 1) + 1, n], fp64.
        inside: How many points lie inside each segment, c.
        predicted: Predicted class at all points; None without a classifier.
    """

    nodes: torch.Tensor
    t: torch.Tensor
    f: torch.Tensor
    inside: int
    predicted: torch.Tensor | None

    @property
    def at_nodes(self) -> torch.Tensor:
        """Embeddings at the corners, [S + 1, n]."""
        return self.f[:: self.inside + 1]

    def cosines(self, to: torch.Tensor) -> torch.Tensor:
        """Cosines with an embedding [n], at all points."""
        size = torch.linalg.vector_norm(self.f, dim=1) * torch.linalg.vector_norm(to)
        return self.f @ to / size.clamp_min(torch.finfo(size.dtype).tiny)

    def distances(self, to: torch.Tensor) -> torch.Tensor:
        """|f - to| at all points."""
        return torch.linalg.vector_norm(self.f - to, dim=1)

    def deviations(self) -> torch.Tensor:
        """|f(t) - ((1 - t) f(0) + t f(1))| over |f(1) - f(0)|, at all points.

        Zero everywhere for an affine f along a straight line, and 0 at both ends always.
        """
        chord = torch.lerp(self.f[:1], self.f[-1:], self.t[:, None])
        return torch.linalg.vector_norm(self.f - chord, dim=1) / torch.linalg.vector_norm(self.f[-1] - self.f[0])

    @property
    def detour(self) -> float:
        """Length of the curve, as far as it is seen, over the distance of its ends; at least 1."""
        pieces = torch.linalg.vector_norm(self.f.diff(dim=0), dim=1).sum()
        return float(pieces / torch.linalg.vector_norm(self.f[-1] - self.f[0]))


def straight(task: eqv.ProbeTask[Any], start: torch.Tensor, end: torch.Tensor, points: int) -> Curve:
    """The line from ``start`` to ``end`` [*input_shape], at ``points`` points and half-way between them."""
    shares = torch.linspace(0, 1, points, dtype=torch.float64, device=start.device)
    shares = shares.reshape(-1, *[1] * start.dim())
    return along(task, torch.lerp(start.double(), end.double(), shares), 1)


def along(task: eqv.ProbeTask[Any], nodes: torch.Tensor, inside: int) -> Curve:
    """The polygon through ``nodes`` [S + 1, *input_shape], with so many points inside each segment."""
    nodes = nodes.double()
    parts = [torch.lerp(nodes[:-1], nodes[1:], number / (inside + 1)) for number in range(inside + 1)]
    points = torch.cat([torch.stack(parts, dim=1).flatten(0, 1), nodes[-1:]])
    t = torch.linspace(0, 1, len(points), dtype=torch.float64, device=nodes.device)
    f = embeddings(task, points, "fp64")
    return Curve(nodes, t, f, inside, _classes(task, f))


def _classes(task: eqv.ProbeTask[Any], f: torch.Tensor) -> torch.Tensor | None:
    """Predicted classes [B] of embeddings [B, n]; the classifier is float32 in any run. None without one."""
    if not task.encoder.classify_ability:
        return None
    with torch.no_grad():
        return task.encoder.classify(f.float()).argmax(dim=1)
