"""Changes that nobody aimed: random levels, and what truncation does to an image that is a little off the lattice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

import equivengine as eqv
from equivengine_plugins.probes.lsb.lattice import truncated

if TYPE_CHECKING:
    from equivengine_plugins.probes.lsb.evaluation import Evaluation
    from equivengine_plugins.probes.lsb.parameters import LsbParams

KINDS = ("uniform", "signs", "truncation")


def drawn(task: eqv.ProbeTask[LsbParams], evaluation: Evaluation, kind: str, start: int, count: int) -> torch.Tensor:
    """Moves number ``start`` on of a kind, [count, m] int16; a function of seed, image and number alone.

    ``uniform``: every pixel by -levels .. levels, all equally likely; ``signs``: by -levels or levels. What would
    leave the scale stays at its end, as with any noise on an image. ``truncation``: x plus Gaussian noise, truncated.
    """
    params, lattice = task.params, evaluation.lattice
    m, device = len(lattice.start), lattice.start.device
    key = task.stream(kind)
    if kind == "signs":
        return lattice.clamp(params.levels * eqv.linalg.sign_directions(key, start, count, m, device=device))
    normal = eqv.linalg.gaussian_directions(key, start, count, m, device=device)
    if kind == "uniform":
        share = 0.5 * (1 + torch.erf(normal / 2**0.5))
        return lattice.clamp((share * (2 * params.levels + 1)).floor() - params.levels)
    low, high = task.encoder.spec.input_range
    noise = (params.noise * (high - low) * normal).float()
    return (truncated(lattice.x + noise, (low, high)) - lattice.start).to(torch.int16)


def moments(evaluation: Evaluation, kind: str, levels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of every pixel's move, [m] each, in levels, of the kinds ``uniform`` and ``signs``."""
    lattice = evaluation.lattice
    values = torch.arange(-levels, levels + 1, device=lattice.start.device)
    if kind == "signs":
        values = values[[0, -1]]
    outcomes = lattice.clamp(values[:, None].expand(-1, len(lattice.start))).double()
    return outcomes.mean(dim=0), outcomes.var(dim=0, correction=0)
