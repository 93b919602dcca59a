"""A language encoder as a map of token embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import equivengine as eqv
from equivengine_plugins.backends import weights

if TYPE_CHECKING:
    from equivengine_plugins.backends.hf.checkpoint import Checkpoint


class Sequence(nn.Module):
    """Token embeddings [B, T, D] to embeddings of texts [B, n]; every position is attended to.

    Args:
        model: An encoder of transformers that takes ``inputs_embeds``.
        pool: ``"mean"`` over positions, ``"cls"`` (the first) or ``"pooler"`` (its pooled output).
    """

    def __init__(self, model: nn.Module, pool: str) -> None:
        super().__init__()
        self.model = model
        self._pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings of x."""
        return pooled(self.model(inputs_embeds=x), self._pool)


def pooled(out: Any, pool: str) -> torch.Tensor:
    """One embedding for each text: [B, n]."""
    if pool == "pooler":
        found: torch.Tensor = out.pooler_output
        return found
    hidden: torch.Tensor = out.last_hidden_state
    return hidden[:, 0] if pool == "cls" else hidden.mean(dim=1)


def check_inputs(checkpoint: Checkpoint, model: Any, tokenizer: Any, length: int, pool: str) -> None:
    """Hold the model on rows of its embedding table against itself on the tokens that they belong to.

    Raises:
        UsageError: If it does not take that many tokens, or has no such pooling.
        ModelError: If it takes no ``inputs_embeds``, or does something to tokens before its table or after it.
    """
    table = model.get_input_embeddings()
    rows = int(table.weight.shape[0])
    special = set(getattr(tokenizer, "all_special_ids", ()))
    plain = [token for token in range(min(rows, 4096)) if token not in special] or [0]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.tensor(plain)[torch.randint(len(plain), (2, length), generator=generator)]
    vocabulary = len(tokenizer)
    if vocabulary > rows:
        raise eqv.ModelError(
            f"the tokenizer of {checkpoint.uri.text!r} does not belong to its model",
            expected=f"at most {rows} tokens, the rows of the embedding table",
            got=f"{vocabulary} tokens",
            hint="save the tokenizer that the model was trained with",
        )
    with torch.no_grad():
        try:
            own = model(input_ids=tokens)
        except Exception as error:
            raise eqv.UsageError(
                f"{checkpoint.uri.text!r} does not take {length} tokens",
                expected=f"at most {getattr(checkpoint.config, 'max_position_embeddings', 'fewer')}, some of which a "
                "model may keep for itself",
                got=weights.first_line(error),
                hint="pass ?tokens=N",
            ) from error
        if pool == "pooler" and getattr(own, "pooler_output", None) is None:
            raise eqv.UsageError(
                f"{type(model).__name__} has no pooling 'pooler'", expected="mean or cls", got=repr(checkpoint.uri.text)
            )
        try:
            ours = model(inputs_embeds=table.weight[tokens])
        except Exception as error:
            raise eqv.ModelError(
                f"{type(model).__name__} does not take token embeddings",
                expected="a model whose forward has inputs_embeds",
                got=weights.first_line(error),
            ) from error
    expected, found = pooled(own, pool), pooled(ours, pool)
    difference = float((found - expected).norm() / expected.norm())
    if not difference < 1e-5:
        raise eqv.ModelError(
            f"{type(model).__name__} computes something else from token embeddings than from tokens",
            expected="the same embedding",
            got=f"a relative difference of {difference:.1e}",
            hint="it scales or projects rows of its table on the way; wrap it as module:package.attr",
        )
