"""The numbers of one pair."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import equivengine as eqv
from equivengine_plugins.probes.match.variants import to_unit

if TYPE_CHECKING:
    import torch

    from equivengine_plugins.probes.match.measured import Measured

#: Relative distances up to which the cost is reported.
COST_LEVELS = {"3e2": 3e-2, "1e2": 1e-2, "1e3": 1e-3}

#: What the optimality residual of a smallest change is; 0 at a minimum, which is local.
OPTIMALITY = {
    "minimal-l2": "first-order residual over the change; 0 at a local minimum",
    "minimal-linf": "what the linear model would still save, share; 0 at a local minimum",
}


def summary_of(measured: Measured, row: int) -> dict[str, eqv.Scalar]:
    """Scalars of the pair at ``row``, in the order in which they are shown."""
    summary: dict[str, eqv.Scalar] = {}

    def add(name: str, value: float | torch.Tensor, unit: str, description: str, group: str) -> None:
        summary[name] = eqv.Scalar(float(value), unit, description, group=group)

    yardstick = measured.yardstick
    group = "distance |f(x) - f(target)|"
    for name, variant in measured.variants.items():
        add(f"distance_{name}", variant.distance[row], "embedding", variant.words, group)
    add("distance_fp64", measured.again.distance[row], "embedding", "matched, evaluated again in fp64", group)
    group = "relative distance: the same over the yardstick"
    for name, variant in measured.variants.items():
        add(f"relative_{name}", variant.distance[row] / yardstick.median, "1", variant.words, group)
    add("tolerance", measured.params.relative, "1", "tolerance: where the solver stops", group)
    group = "cosine of f(x) and f(target)"
    for name, variant in measured.variants.items():
        add(f"cosine_{name}", variant.cosine[row], "1", variant.words, group)
    summary |= _classes(measured, row)
    _add_changes(measured, row, summary)
    _add_cost(measured, row, summary)
    if measured.pairs.text_norm is not None:
        group = "text"
        add("text_norm", measured.pairs.text_norm, "embedding", "length of its embedding, which was scaled", group)
        add("text_scaled", measured.pairs.start[row].norm(), "embedding", "to |f(original)|", group)
    summary |= yardstick.summary()
    against = "fp32 against fp64" if measured.task.precision == "fp32" else "machine epsilon x |f(x)|"
    add("noise", measured.again.noise[row], "embedding", f"of an embedding, {against}", "noise floor")
    return summary


def _classes(measured: Measured, row: int) -> dict[str, eqv.Scalar]:
    """Whether each form is taken for the class that the target is taken for."""
    if measured.target_classes is None:
        return {}
    group = "predicted class equals the target's"
    target = int(measured.target_classes[row])
    return {
        f"class_{name}": eqv.Scalar(int(variant.predicted[row]) == target, "1", variant.words, group=group, binary=True)
        for name, variant in measured.variants.items()
        if variant.predicted is not None
    }


def _add_changes(measured: Measured, row: int, summary: dict[str, eqv.Scalar]) -> None:
    """Differences of pixels."""
    pairs, params = measured.pairs, measured.params
    group = ""

    def add(name: str, value: float | torch.Tensor, unit: str, description: str) -> None:
        summary[name] = eqv.Scalar(float(value), unit, description, group=group)

    # On levels the file holds the match itself: a second group of the same numbers would say nothing.
    files = ("png", "float_png") if measured.solved.lattice is not None else ()
    for name, variant in measured.matches.items():
        if name in files:
            continue
        group = f"difference from the original, {variant.words}"
        add(f"mean_{name}", variant.mean[row], "pixel", "mean absolute difference")
        add(f"l2_{name}", variant.l2[row], "pixel", "L2")
        if name == "matched" and measured.yardstick.pixel_l2 > 0:
            add("l2_relative", variant.l2[row] / measured.yardstick.pixel_l2, "1", "L2 over that of reference pairs")
        add(f"linf_{name}", variant.linf[row], "pixel", "L-infinity: largest absolute difference")
        if variant.psnr is not None and variant.ssim is not None:
            add(f"psnr_{name}", variant.psnr[row], "dB", "PSNR")
            add(f"ssim_{name}", variant.ssim[row], "1", "SSIM")
        if name == "matched":
            add("outside", _outside(measured, row), "1", "pixels out of the input range, share")
            if params.solver.startswith("minimal"):
                optimality = measured.solved.float_.optimality[row]
                add("optimality", optimality, "1", OPTIMALITY[params.solver])
    if pairs.images is not None:
        group = "likeness to the target"
        moved = (pairs.images[row].double() - pairs.originals[row].double()).flatten()
        add("l2_target", moved.norm(), "pixel", "L2 between original and target")
        for name in ("start", "matched"):
            variant = measured.variants[name]
            if variant.ssim_target is not None:
                add(f"ssim_target_{name}", variant.ssim_target[row], "1", f"SSIM to the target image, {variant.words}")


def _outside(measured: Measured, row: int) -> torch.Tensor:
    low, high = measured.task.encoder.spec.input_range
    x = measured.variants["matched"].x[row].double()
    return ((x < low) | (x > high)).double().mean()


def _add_cost(measured: Measured, row: int, summary: dict[str, eqv.Scalar]) -> None:
    found, group = measured.solved.float_, "cost"

    def add(name: str, value: float | torch.Tensor, description: str) -> None:
        summary[name] = eqv.Scalar(float(value), "1", description, group=group)

    if measured.params.solver == "gd":
        add("steps", steps_of(measured, row), "steps")
    else:
        add("jacobians", found.jacobians[row], "Jacobians")
    add("forwards", found.cost.forwards[row], "forward passes")
    add("products", found.cost.products[row], "products with J or J^T")
    add("equivalents", found.cost.equivalents[row], "forward equivalents: passes and products")
    for name, level in COST_LEVELS.items():
        # A course that begins at another solver's match does not know what that one spent on the way.
        known = float(found.trace.l2[0, row]) == 0
        spent = found.trace.cost_to(level * measured.yardstick.median)[row] if known else math.nan
        add(f"equivalents_{name}", spent, f"forward equivalents to a relative distance of {level:g}")
    lattice = measured.solved.lattice
    if lattice is not None:
        add("equivalents_lattice", lattice.cost.equivalents[row], "forward equivalents of the match on 8-bit levels")


def steps_of(measured: Measured, row: int) -> int:
    """Steps that the solver took; the course has one row more, the start."""
    return int(measured.solved.float_.trace.equivalents[:, row].isfinite().nonzero().max())


def unit_image(measured: Measured, x: torch.Tensor) -> torch.Tensor:
    """An input [C, H, W] with its range brought to [0, 1]."""
    return to_unit(x, measured.task.encoder.spec.input_range)
