"""The text tower of a CLIP-like model of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import equivengine as eqv
from equivengine_plugins.backends.hf.checkpoint import Checkpoint

# Any one of these beside config.json is a tokenizer.
_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model")


def has_tokenizer(checkpoint: Checkpoint) -> bool:
    """Whether there is a tokenizer beside the weights; on the hub, that is found out when it is needed."""
    return not checkpoint.local or any((Path(checkpoint.name) / name).is_file() for name in _FILES)


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The tokenizer beside the weights.

    Raises:
        ModelError: If there is none, or it is broken. Where files are missing, transformers makes one that knows no
            words at all and says nothing.
    """
    from transformers import AutoTokenizer

    found = checkpoint.part("tokeniser", AutoTokenizer.from_pretrained) if has_tokenizer(checkpoint) else None
    if found is None or len(found) <= len(set(found.all_special_ids)):
        raise eqv.ModelError(
            f"{checkpoint.uri.text!r} has no tokenizer",
            expected=f"one of {', '.join(_FILES)} beside config.json, with words in it",
            got="none" if found is None else f"{type(found).__name__} with {len(found)} tokens, none of them a word",
            hint=f"save the model's own there with its save_pretrained({checkpoint.name!r})",
        )
    return found


class TextTower:
    """Text embeddings [P, n] in float32, projected, not normalized, on the device of the image tower.

    The tokenizer is read at the first call. Prompts are padded as the model was trained: CLIP's to the longest, with a
    mask; SigLIP's to the full length, without one.
    """

    def __init__(self, checkpoint: Checkpoint, whole: Any, visual: nn.Module) -> None:
        self._checkpoint = checkpoint
        self._text: nn.Module = whole.text_model
        self._projection: nn.Module | None = getattr(whole, "text_projection", None)
        self._visual = visual
        self._length = int(whole.config.text_config.max_position_embeddings)
        self._full_length = str(whole.config.model_type).startswith("siglip")
        self._tokenizer: Any = None

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        """Embed prompts.

        Raises:
            UsageError: If they are not strings.
            ModelError: If the tokenizer cannot be had.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise eqv.UsageError("text prompts must be strings", expected="one or more", got=prompts[:3])
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self._checkpoint)
        tokens = self._tokenizer(
            prompts,
            padding="max_length" if self._full_length else True,
            truncation=True,
            max_length=self._length,
            return_tensors="pt",
        )
        device = next(self._visual.parameters()).device
        arguments = {"input_ids": tokens["input_ids"].to(device)}
        if not self._full_length:
            arguments["attention_mask"] = tokens["attention_mask"].to(device)
        with torch.no_grad():
            pooled: torch.Tensor = self._text.to(device)(**arguments).pooler_output
            if self._projection is not None:
                pooled = self._projection.to(device)(pooled)
        return pooled.float()
