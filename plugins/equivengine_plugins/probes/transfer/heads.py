"""Downstream heads: what one would build on embeddings, none of which matching knows of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

import equivengine as eqv
from equivengine_plugins.probes.transfer.head import NAMES, Head, softmax
from equivengine_plugins.probes.transfer.text import text_head
from equivengine_plugins.probes.transfer.trained import Population, trained_head

if TYPE_CHECKING:
    from equivengine_plugins.probes.transfer.parameters import TransferParams

#: Factor of cosines before softmax where the model does not say: the bound that CLIP's logit scale was trained to.
TEMPERATURE = 100.0


def make_heads(
    task: eqv.ProbeTask[TransferParams], population: Population, names: Sequence[str]
) -> tuple[list[Head], dict[str, str]]:
    """All heads that are wanted and can be had, and why the others cannot.

    Args:
        task: The task.
        population: What heads are made from.
        names: Names of classes for prompts: the labels that are known.

    Raises:
        UsageError: If a head that was asked for cannot be had, or none can.
    """
    params = task.params
    wanted = params.heads or NAMES
    asked = set(params.heads or ()) | ({"text"} if params.prompts is not None else set())
    heads: list[Head] = []
    missing: dict[str, str] = {}
    for name in wanted:
        try:
            heads.append(_make(task, population, names, name))
        except eqv.EngineError as error:
            if name in asked:
                raise
            missing[name] = error.what
    if params.prompts is not None and "text" not in wanted:
        raise eqv.UsageError(
            "prompts are given, but head text is not among the heads",
            expected="text among heads",
            got=", ".join(wanted),
            hint="add text to --set heads=..., or leave prompts out",
        )
    if not heads:
        raise eqv.UsageError(
            "nothing can classify these embeddings",
            expected="a classifier of the model, labeled references, or a text tower",
            got="; ".join(f"{name}: {reason}" for name, reason in missing.items()),
            hint="name a labeled image set with --targets (folder:PATH?labels=dirs takes labels from subfolders), "
            "or use a model with a classifier or a text tower",
        )
    return heads, missing


def _make(task: eqv.ProbeTask[TransferParams], population: Population, names: Sequence[str], name: str) -> Head:
    if name == "own":
        return _own(task)
    temperature, source = _temperature(task)
    if name == "text":
        return text_head(task, names, temperature, source)
    return trained_head(name, population, temperature, source)


def _temperature(task: eqv.ProbeTask[TransferParams]) -> tuple[float, str]:
    """Factor of cosines, and where it comes from."""
    if task.params.temperature is not None:
        return task.params.temperature, "parameter temperature"
    recorded = task.encoder.loaded.details.get("logit_scale")
    if isinstance(recorded, int | float) and recorded > 0:
        return float(recorded), "the model's logit_scale"
    return TEMPERATURE, "default; the model records no logit_scale"


def _own(task: eqv.ProbeTask[TransferParams]) -> Head:
    """The classifier that came with the encoder; it takes float32."""
    encoder = task.encoder
    if not encoder.classify_ability:
        raise eqv.UsageError(
            f"{encoder.spec.uri!r} has no classifier of its own", hint="leave head own out, or use another model"
        )

    def scores(embeddings: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            logits = encoder.classify(embeddings.float())
        if not bool(torch.isfinite(logits).all()):
            raise eqv.NumericsError(
                "the model's own classifier returns NaN or infinity",
                expected="finite logits",
                hint="check its weights, or leave own out of --set heads=...",
            )
        return logits.to(torch.float64)

    count = scores(torch.zeros(1, encoder.spec.embedding_dim, device=encoder.device)).shape[1]
    names = encoder.loaded.class_names
    classes = tuple(map(str, names)) if names is not None else tuple(f"class {number}" for number in range(count))
    if len(classes) != count:
        raise eqv.ModelError(
            "the model names another number of classes than it tells apart",
            expected=count,
            got=names,
            hint="leave own out of --set heads=...",
        )
    return Head("own", "the model's own head", classes, "class_own", scores, softmax)
