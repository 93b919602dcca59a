"""A linear head in closed form: ridge regression on one-hot classes, its weight chosen by leaving one out."""

from __future__ import annotations

from dataclasses import dataclass

import torch

#: Weights that are tried, over the largest eigenvalue of the centered Gram matrix.
WEIGHTS = tuple(10.0**-power for power in range(9))


@dataclass(frozen=True)
class Ridge:
    """scores = (z - center) weights + offset.

    Attributes:
        centre: Mean embedding, [n].
        weights: [n, C].
        offset: Share of each class, [C].
        penalty: Of |weights|^2, relative to the largest eigenvalue of the Gram matrix.
        left_out: Share of the embeddings that are classified right by the head made without them.
    """

    centre: torch.Tensor
    weights: torch.Tensor
    offset: torch.Tensor
    penalty: float
    left_out: float

    def scores(self, embeddings: torch.Tensor) -> torch.Tensor:
        """[B, n] -> [B, C]."""
        return (embeddings - self.centre) @ self.weights + self.offset


def fit(embeddings: torch.Tensor, classes: torch.Tensor, count: int) -> Ridge:
    """Regress one-hot classes on embeddings, with an intercept that is not penalized.

    Of `WEIGHTS` it takes the one with the smallest squared error of predictions for embeddings that were left out. They
    need no refit: such a residual is the ordinary one over 1 - h_ii, h being the hat matrix (Hastie, Tibshirani and
    Friedman, The Elements of Statistical Learning, 2009, section 7.10).

    Args:
        embeddings: [R, n] float64, R >= 2.
        classes: [R], 0 .. count - 1.
        count: Number of classes.
    """
    wanted = torch.nn.functional.one_hot(classes, count).to(embeddings)
    centre, offset = embeddings.mean(dim=0), wanted.mean(dim=0)
    z, y = embeddings - centre, wanted - offset
    values, vectors = torch.linalg.eigh(z @ z.T)
    values = values.clamp_min(0)
    top = float(values[-1]) or 1.0
    best: tuple[float, float, torch.Tensor] | None = None
    for weight in WEIGHTS:
        shrink = values / (values + weight * top)
        hat = (vectors.square() * shrink).sum(dim=1) + 1 / len(z)
        residual = (y - vectors @ (shrink[:, None] * (vectors.T @ y))) / (1 - hat).clamp_min(1e-12)[:, None]
        error = float(residual.square().sum())
        if best is None or error < best[0]:
            best = (error, weight, residual)
    assert best is not None
    _, weight, residual = best
    dual = vectors @ ((vectors.T @ y) / (values + weight * top)[:, None])
    left_out = float(((wanted - residual).argmax(dim=1) == classes).double().mean())
    return Ridge(centre, z.T @ dual, offset, weight, left_out)


def onto_simplex(scores: torch.Tensor) -> torch.Tensor:
    """The nearest probability vectors (L2) of scores [B, C].

    The largest score stays the largest (Held, Wolfe and Crowder, Math. Program. 6, 1974).
    """
    ordered = scores.sort(dim=1, descending=True).values
    excess = ordered.cumsum(dim=1) - 1
    number = torch.arange(1, scores.shape[1] + 1, device=scores.device)
    kept = (ordered - excess / number > 0).sum(dim=1, keepdim=True)
    return (scores - excess.gather(1, kept - 1) / kept).clamp_min(0)
