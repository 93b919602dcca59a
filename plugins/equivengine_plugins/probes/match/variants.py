"""What was found, looked at afresh: embeddings and pixels of every form that a matched input takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.probes.yardstick import embeddings

if TYPE_CHECKING:
    import torch

    from equivengine_plugins.probes.match.solving import Solved
    from equivengine_plugins.probes.match.targets import Pairs


@dataclass(frozen=True)
class Variant:
    """One form of the matched inputs of B pairs; numbers are float64 [B].

    Attributes:
        words: What it is, as it stands in a table.
        x: Inputs [B, *input_shape].
        embedding: Their embeddings, [B, n].
        distance: |f(x) - target|.
        cosine: Cosine between f(x) and the target.
        mean: Mean absolute difference from the original, input units.
        l2: L2 difference from the original, input units.
        linf: Largest absolute difference from the original, input units.
        psnr: Against the original, dB; None where inputs are no images.
        ssim: Against the original; likewise.
        ssim_target: Against the target image; None where there is none.
        predicted: Predicted class, [B] integers; None without a classifier.
    """

    words: str
    x: torch.Tensor
    embedding: torch.Tensor
    distance: torch.Tensor
    cosine: torch.Tensor
    mean: torch.Tensor
    l2: torch.Tensor
    linf: torch.Tensor
    psnr: torch.Tensor | None
    ssim: torch.Tensor | None
    ssim_target: torch.Tensor | None
    predicted: torch.Tensor | None


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether inputs of this shape can be shown, and saved as PNG files."""
    return len(shape) == 3 and shape[0] in (1, 3)


def to_unit(x: torch.Tensor, input_range: tuple[float, float]) -> torch.Tensor:
    """Inputs with their range brought to [0, 1], float64."""
    low, high = input_range
    return (x.double() - low) / (high - low)


def reread(x: torch.Tensor, input_range: tuple[float, float]) -> torch.Tensor:
    """What comes back from PNG files of inputs [B, C, H, W]; in input units, float32."""
    low, high = input_range
    levels = eqv.pictures.reread(to_unit(x, input_range)).double()
    return (low + (high - low) * levels).float()


def look(pairs: Pairs, solved: Solved) -> dict[str, Variant]:
    """All forms, by name: "start" (the original itself), "matched" (what is handed out) and "png" (its file).

    With ``quantize`` "matched" lies on 8-bit levels; "float" is what it began from, and "float_png" its file.
    """
    task = pairs.tasks[0]
    shape, input_range = task.encoder.input_shape, task.encoder.spec.input_range
    forms = {"start": (pairs.originals, "original"), "matched": (solved.x, "matched")}
    if is_image(shape):
        forms["png"] = (reread(solved.x, input_range), "matched, from its 8-bit PNG")
    if solved.lattice is not None:
        forms["matched"] = (solved.x, "matched on 8-bit levels")
        forms["float"] = (solved.float_.x, "matched as float, before")
        if is_image(shape):
            forms["float_png"] = (reread(solved.float_.x, input_range), "that, rounded to an 8-bit PNG")
    return {name: _variant(task, pairs, x, words) for name, (x, words) in forms.items()}


def _variant(task: eqv.ProbeTask[Any], pairs: Pairs, x: torch.Tensor, words: str) -> Variant:
    import torch

    f = embeddings(task, x)
    target = pairs.embeddings
    sizes = torch.linalg.vector_norm(f, dim=1) * torch.linalg.vector_norm(target, dim=1)
    moved = (x.double() - pairs.originals.double()).flatten(1)
    psnr = ssim = ssim_target = None
    if is_image(task.encoder.input_shape):
        here, original = (to_unit(each, task.encoder.spec.input_range) for each in (x, pairs.originals))
        psnr, ssim = eqv.pictures.psnr(original, here), eqv.pictures.ssim(original, here)
        if pairs.images is not None:
            ssim_target = eqv.pictures.ssim(to_unit(pairs.images, task.encoder.spec.input_range), here)
    return Variant(
        words=words,
        x=x,
        embedding=f,
        distance=torch.linalg.vector_norm(f - target, dim=1),
        cosine=(f * target).sum(dim=1) / sizes,
        mean=moved.abs().mean(dim=1),
        l2=torch.linalg.vector_norm(moved, dim=1),
        linf=moved.abs().amax(dim=1),
        psnr=psnr,
        ssim=ssim,
        ssim_target=ssim_target,
        predicted=classes(task, f),
    )


def classes(task: eqv.ProbeTask[Any], f: torch.Tensor) -> torch.Tensor | None:
    """Predicted classes [B] of embeddings [B, n]; the classifier is float32 in any run. None without one."""
    import torch

    if not task.encoder.classify_ability:
        return None
    with torch.no_grad():
        return task.encoder.classify(f.float()).argmax(dim=1)


@dataclass(frozen=True)
class Again:
    """The same distances, made in another way, [B] float64.

    Attributes:
        distance: |f(matched) - f(target)| in float64; with a text against its embedding, which has no other precision.
        noise: Largest |f(x) - f_64(x)| over original, target and matched; machine epsilon times |f(x)| in float64 runs.
    """

    distance: torch.Tensor
    noise: torch.Tensor


def evaluate_again(pairs: Pairs, matched: Variant) -> Again:
    """Evaluate original, target and matched in float64."""
    import torch

    task = pairs.tasks[0]
    groups = [(pairs.originals, pairs.start), (matched.x, matched.embedding)]
    if pairs.images is not None:
        groups.append((pairs.images, pairs.embeddings))
    precise = [embeddings(task, x, "fp64") for x, _ in groups]
    target = precise[2] if pairs.images is not None else pairs.embeddings
    if task.precision == "fp64":
        eps = task.encoder.epsilon("fp64")
        noise = torch.stack([eps * torch.linalg.vector_norm(f, dim=1) for f in precise])
    else:
        noise = torch.stack(
            [torch.linalg.vector_norm(f - fine, dim=1) for (_, f), fine in zip(groups, precise, strict=True)]
        )
    return Again(torch.linalg.vector_norm(precise[1] - target, dim=1), noise.amax(dim=0))
