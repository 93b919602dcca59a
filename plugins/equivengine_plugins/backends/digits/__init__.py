"""The ``digits`` backend: a small vision transformer, trained on handwritten digits, that comes with the package.

It needs no download, and everything can be checked on it against dense float64 derivatives within seconds. Data,
license, accuracy and training stand in ``data/MODEL_CARD.md``; ``make digits-weights`` trains it again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import equivengine as eqv
from equivengine_plugins.backends import weights
from equivengine_plugins.backends.checkpoint_file import read_checkpoint

EQUIVENGINE_API = (1, 0)

DATA = Path(__file__).parent / "data"


class DigitsBackend(eqv.Backend):
    """``digits``: the shipped weights; ``digits?weights=random&seed=N`` or ``?weights=FILE`` for others."""

    name = "digits"
    summary = "a small ViT trained on handwritten digits, bundled: the default"
    examples = ("digits", "digits?weights=random&seed=0")

    def load(self, uri: eqv.URI) -> eqv.LoadedModel:
        """Build the model on the CPU, in float32.

        Raises:
            UsageError: If the address has a path or an unknown option.
            WeightsError: If the shipped file is damaged, or a file of one's own does not fit.
        """
        uri.refuse_path()
        uri.allow_options(weights.OPTIONS)
        source = weights.Source.of(uri)
        from equivengine_plugins.backends.digits.model import DigitsViT, DigitsViTConfig

        card = json.loads((DATA / "digits_vit.json").read_text(encoding="utf-8"))
        with weights.seeded(source.seed):
            model = DigitsViT(DigitsViTConfig(**card["architecture"]))
        path = source.path
        if source.kind == "hub":
            path = _shipped(card)
        if path is not None:
            weights.fit(model, read_checkpoint(path), path)
        trained = source.kind == "hub"
        given = card["input"]
        return eqv.LoadedModel(
            module=model,
            preprocessing=eqv.Preprocessing(
                size=(given["height"], given["width"]),
                mode="L",
                resize="squash",
                interpolation=given["interpolation"],
                mean=tuple(given["mean"]),
                std=tuple(given["std"]),
            ),
            random_weights=source.kind == "random",
            activation="gelu",
            license=card["licence"] if trained else None,
            class_names=tuple(card["classes"]),
            classify=model.classify,
            details=_details(card, source, trained),
        )


def _shipped(card: dict[str, Any]) -> Path:
    """Path of the shipped weights, which must hash to what the card says.

    Raises:
        WeightsError: If the file is missing or damaged.
    """
    path = DATA / str(card["weights"]["file"])
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    if found != card["weights"]["sha256"]:
        raise eqv.WeightsError(
            f"the bundled weights {path.name} are damaged",
            expected=f"sha256 {card['weights']['sha256']}",
            got=found,
            hint="install the package again",
        )
    return path


def _details(card: dict[str, Any], source: weights.Source, trained: bool) -> dict[str, object]:
    details: dict[str, object] = {"architecture": card["architecture"]}
    if not trained:
        return {**details, **source.describe()}
    return {**details, "weights": "bundled", "held_out": card["held_out"], "training": card["training"]}


@eqv.hookimpl
def equivengine_register_backends() -> list[type[eqv.Backend]]:
    """Register `DigitsBackend`."""
    return [DigitsBackend]
