"""The embedding around an image: on a plane of one null and one normal direction, and along single directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from concept_style import COLOURS, plain
from matplotlib.figure import Figure

import equivengine as eqv

KEY = 0  # of the random directions
NORMAL, NULL = 0.6, 6.0  # how far the plane reaches along either direction, L2 length, pixels
POINTS = 61
LENGTHS = np.geomspace(1e-5, 10, 37)  # along single directions, L2 length, pixels


def changes(encoder: Any, x: torch.Tensor, moves: torch.Tensor) -> np.ndarray:
    """|f(x + move) - f(x)| of moves [K, m], each in the encoder's own precision; [K]."""
    inputs = torch.cat([x.flatten()[None], x.flatten() + moves.to(x.dtype)]).reshape(-1, *x.shape)
    with torch.no_grad():
        values = encoder(inputs)  # in one batch, since roundoff depends on its shape
    return (values[1:] - values[0]).double().norm(dim=1).numpy()


def draw() -> tuple[Figure, dict[str, str]]:
    """Draw both, and the numbers of the page."""
    encoder = eqv.load_encoder("digits")
    exact = encoder.at_precision("fp64")
    x = encoder.preprocess(eqv.load_images("digits")[0].load())
    svd = eqv.linalg.svd(eqv.JacobianOperator(encoder, x, precision="fp64"))
    space = eqv.linalg.Subspace(svd.Vh[: svd.rank])
    top, null = svd.Vh[0].double(), space.random_null(KEY, 0, 1)[0]
    random = eqv.linalg.gaussian_directions(KEY, 1, 1, x.numel())[0].double()
    random = random / random.norm()

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows, columns = (torch.linspace(-reach, reach, POINTS, dtype=torch.float64) for reach in (NORMAL, NULL))
    plane = (rows[:, None, None] * top + columns[None, :, None] * null).flatten(0, 1)
    apart = changes(exact, x.double(), plane).reshape(POINTS, POINTS)
    levels = np.geomspace(0.1, 3.2, 11)
    filled = left.contourf(columns.numpy(), rows.numpy(), apart, levels, norm="log", cmap="viridis", extend="both")
    figure.colorbar(filled, ax=left, label="|f(z) - f(x)|, embedding", format="%.2g")
    left.plot(0, 0, "o", color="white", markersize=4)
    left.set(xlabel="along a null direction, pixels (L2)", ylabel="along the top right singular vector, pixels (L2)")

    directions = {"top right singular vector": top, "random": random, "null, in fp64": null}
    lengths = torch.from_numpy(LENGTHS)[:, None]
    curves = {name: changes(exact, x.double(), lengths * d) for name, d in directions.items()}
    curves["null, in fp32"] = changes(encoder, x, lengths * null)
    for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
        right.loglog(LENGTHS, curve, color=colour, label=name, linestyle=":" if "32" in name else "-")
    right.set(xlabel="length of the move, pixels (L2)", ylabel="|f(z) - f(x)|, embedding", ylim=(1e-12, 30))
    right.legend(frameon=False, fontsize=8)
    plain(left, right)

    numbers = {}
    for name, curve in curves.items():
        near, far = np.exp(np.interp(np.log([1e-3, 1.0]), np.log(LENGTHS), np.log(curve)))
        numbers[f"|f(z) - f(x)| along {name}, 0.001 and 1 pixel away"] = f"{near:.2g}  {far:.2g}"
    small = LENGTHS <= 1e-2
    for name in ("random", "null, in fp64"):
        slope = np.polyfit(np.log(LENGTHS[small]), np.log(curves[name][small]), 1)[0]
        numbers[f"it grows within 0.01 pixel along {name} with the power"] = f"{slope:.2f}"
    return figure, numbers
