"""The `everyday` probe: how strongly an embedding answers to changes that people would hardly call changes.

An image that gets brighter, or moves by a hundredth of a pixel, changes along a tangent t. |J t| / |t| says how far the
embedding goes, against rms |J v| over random directions v of length 1, which is |J|_F / sqrt(m).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

import equivengine as eqv

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

EQUIVENGINE_API = (1, 0)

CHANGES = ("brighter", "more contrast", "right", "down", "turned", "larger", "blurred")
COLOUR, CHANCE = "#2a6f97", "#7f7f7f"


class EverydayParams(eqv.Params):
    """Parameters of the probe."""

    directions: int = Field(64, ge=8, le=4096, description="Random directions; count.")


class Everyday(eqv.Probe[EverydayParams]):
    """|J t| / |t| for seven everyday changes of an image.

    NaN stands for a change that leaves an image as it is: stripes that move along themselves.
    """

    name = "everyday"
    version = "1"
    summary = "answers of the embedding to brighter, shifted, turned and blurred images"
    arity = "one"
    Params = EverydayParams

    def run(self, task: eqv.ProbeTask[EverydayParams]) -> eqv.ProbeResult:
        """Measure one image.

        Raises:
            UsageError: If inputs of the encoder are no images.
        """
        import torch

        x = task.samples[0]
        if x.dim() != 3:
            raise eqv.UsageError("'everyday' needs images", expected="inputs [C, H, W]", got=list(x.shape))
        T = tangents(x.double())
        sizes = T.flatten(1).norm(dim=1)
        sizes[sizes < 1e-6 * x.numel() ** 0.5] = torch.nan
        J = task.jacobian(x)
        V = eqv.linalg.gaussian_directions(task.stream("directions"), 0, task.params.directions, J.shape[1])
        V = V / V.norm(dim=1, keepdim=True)
        units = T / sizes.nan_to_num(1.0).view(-1, 1, 1, 1)
        both = torch.cat([units.to(J.x), V.to(J.x).view(-1, *x.shape)])
        responses = J.jvp(both)
        lengths = torch.linalg.vector_norm(responses.double(), dim=1).cpu().numpy()
        answers, random = lengths[: len(CHANGES)], lengths[len(CHANGES) :]
        gone = sizes.isnan().cpu().numpy()
        rms = float((random**2).mean() ** 0.5)
        back = J.vjp(responses[:1]).double().flatten() @ both[0].double().flatten()  # <J t, J t> = <t, J^T J t>
        gap = abs(float(back) - float(answers[0] ** 2)) / max(float(answers.max() ** 2), 1e-30)
        answers[gone] = float("nan")
        unit = "embedding / pixel"
        return eqv.ProbeResult(
            arrays={
                "answers": eqv.Array(answers, ("change",), unit, "|J t| / |t|, in the order of 'changes'"),
                "changes": eqv.Array(_words(CHANGES), ("change",), "1", "what the image does along each tangent"),
                "random": eqv.Array(random, ("direction",), unit, "|J v| for random directions of length 1"),
            },
            summary={
                "random_rms": eqv.Scalar(rms, unit, "rms of |J v| over random directions", n=len(random)),
                **{
                    name.replace(" ", "_"): eqv.Scalar(
                        float(answer) / rms,
                        "1",
                        f"{name}: |J t| / |t|, over the rms of random directions",
                        group="ratios",
                    )
                    for name, answer in zip(CHANGES, answers, strict=True)
                },
            },
            checks={"adjoint": eqv.Check.at_most(gap, 1e-3, "forward and reverse products agree, relative")},
            pictures={
                "original": eqv.pictures.picture(x, "the image as the encoder sees it"),
                **{
                    name.replace(" ", "_"): eqv.pictures.picture(_shown(x, t), f"{name}, exaggerated")
                    for name, t, same in zip(CHANGES, T, gone, strict=True)
                    if not same
                },
            },
        )

    def findings(self, summary: Mapping[str, eqv.Scalar], params: EverydayParams) -> Sequence[str]:
        """The strongest and the weakest answer."""
        ratios = {name: summary[name.replace(" ", "_")] for name in CHANGES}
        ratios = {name: ratio for name, ratio in ratios.items() if math.isfinite(ratio.value)}
        strongest = max(ratios, key=lambda name: ratios[name].value)
        weakest = min(ratios, key=lambda name: ratios[name].value)
        return [
            f"Of {len(ratios)} everyday changes, '{strongest}' moves the embedding most: {ratios[strongest]} times as "
            f"far as a random change of equal length; '{weakest}' moves it least: {ratios[weakest]} times."
        ]

    def figures(self, result: Mapping[str, Any]) -> Mapping[str, Figure]:
        """Answers to each change as bars, those to random directions as a band."""
        from matplotlib.figure import Figure

        answers, random = result["answers"].data, result["random"].data
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.barh([str(name) for name in result["changes"].data], answers, color=COLOUR)
        axes.axvspan(random.min(), random.max(), color=CHANCE, alpha=0.4, label=f"{len(random)} random directions")
        axes.invert_yaxis()
        axes.set(xlabel="|J t| / |t|, embedding / pixel")
        axes.legend(fontsize=8)
        return {"Answers to everyday changes": figure}


def tangents(x: Tensor) -> Tensor:
    """How an image [C, H, W] begins to change, [7, C, H, W], in the order of `CHANGES`; not of length 1.

    Shifts, rotation and enlargement follow from the image's gradient by central differences: an image that moves with
    velocity w changes by -<w, grad x>.
    """
    import torch

    height, width = x.shape[1:]
    down, right = torch.gradient(x, dim=(1, 2))
    row = torch.linspace(-1, 1, height, dtype=x.dtype, device=x.device).view(1, -1, 1)
    column = torch.linspace(-1, 1, width, dtype=x.dtype, device=x.device).view(1, 1, -1)
    blurred = torch.gradient(down, dim=1)[0] + torch.gradient(right, dim=2)[0]  # the heat equation
    return torch.stack(
        [
            torch.ones_like(x),
            x - x.mean(),
            -right,
            -down,
            row * right - column * down,
            -(column * right + row * down),
            blurred,
        ]
    )


def _shown(x: Tensor, t: Tensor) -> Tensor:
    """The image, changed along a tangent by so much that it can be seen; in [0, 1]."""
    return (x.double() + 0.25 * t / t.abs().amax()).clamp(0, 1).to(x.dtype)


def _words(words: Sequence[str]) -> Any:
    import numpy as np

    return np.array(words)


@eqv.hookimpl
def equivengine_register_probes() -> list[type[eqv.Probe[Any]]]:
    """Provide `Everyday`."""
    return [Everyday]
