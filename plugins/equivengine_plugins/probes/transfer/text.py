"""Zero-shot classification by prompts, for encoders with a text tower (Radford et al., ICML 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

import equivengine as eqv
from equivengine_plugins.probes.transfer.head import Head, cosines, softmax

if TYPE_CHECKING:
    from equivengine_plugins.probes.transfer.parameters import TransferParams

#: Prompts that go through the text tower at once.
TOGETHER = 256


def text_head(task: eqv.ProbeTask[TransferParams], names: Sequence[str], temperature: float, source: str) -> Head:
    """Softmax of the cosines between an embedding and those of prompts, times a temperature.

    Classes are the prompts that are given; otherwise the known labels, otherwise the model's own class names, within
    the template.

    Raises:
        UsageError: If there is no text tower, or fewer than two classes.
        ModelError: If the text tower does not return one finite embedding for each prompt.
    """
    encoder, params = task.encoder, task.params
    if encoder.loaded.embed_text is None:
        raise eqv.UsageError(
            f"{encoder.spec.uri!r} has no text tower",
            expected="a model with a text tower, such as open_clip:ViT-B-32/laion2b_s34b_b79k",
            got="prompts" if params.prompts is not None else "head text",
            hint="leave prompts and head text out, or use such a model",
        )
    classes = params.prompts or tuple(names) or tuple(map(str, encoder.loaded.class_names or ()))
    if len(classes) < 2:
        raise eqv.UsageError(
            "zero-shot classification needs at least two classes",
            expected="labels of images or references, class names of the model, or prompts",
            got=", ".join(classes) or "none",
            hint="""pass --set 'prompts=["a photo of a cat", "a photo of a dog"]'""",
        )
    prompts = list(params.prompts or (params.template.replace("{}", name) for name in classes))
    parts = [encoder.embed_text(prompts[start : start + TOGETHER]) for start in range(0, len(prompts), TOGETHER)]
    if any(part.dim() != 2 for part in parts):
        raise _broken(encoder, len(prompts), [list(part.shape) for part in parts])
    directions = torch.cat(parts).to(device=encoder.device, dtype=torch.float64)
    if tuple(directions.shape) != (len(prompts), encoder.spec.embedding_dim) or not bool(
        (torch.isfinite(directions).all(dim=1) & (directions != 0).any(dim=1)).all()
    ):
        raise _broken(encoder, len(prompts), list(directions.shape))
    return Head(
        "text",
        "zero-shot prompts",
        tuple(classes),
        "class_text",
        lambda embeddings: cosines(embeddings, directions),
        lambda scores: softmax(temperature * scores),
        {"prompts": prompts, "temperature": temperature, "temperature_from": source},
    )


def _broken(encoder: eqv.Encoder, count: int, got: object) -> eqv.ModelError:
    return eqv.ModelError(
        f"the text tower of {encoder.spec.uri!r} does not return one embedding for each prompt",
        expected=f"[{count}, {encoder.spec.embedding_dim}], finite and not zero",
        got=got,
    )
