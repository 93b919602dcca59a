"""The ``hf_text`` backend: language encoders of transformers, with a sequence of token embeddings as their input."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, cast

import equivengine as eqv
from equivengine_plugins.backends import weights
from equivengine_plugins.backends.hf.checkpoint import OPTIONS, Checkpoint

if TYPE_CHECKING:
    import torch
    from torch import nn

EQUIVENGINE_API = (1, 0)

_POOLS = ("mean", "cls", "pooler")
_SHORT = ("refuse", "pad")
_DEFAULT_TOKENS = 16


class HfTextBackend(eqv.Backend):
    """``hf_text:DIRECTORY?tokens=T`` or ``hf_text:ORG/NAME?tokens=T``: BERT, RoBERTa, DistilBERT, MPNet and others.

    Tokens are discrete, so the input is what a token becomes first: f maps T rows of the embedding table [T, D] to one
    embedding of the text. Positions, token types and everything after are inside f. A text is tokenized with its tokens
    of begin and end and cut to T; every position is attended to, so that f is one map for all texts. A text of fewer
    tokens is refused, or with ``?short=pad`` filled up with padding tokens, which are attended to as any other (the
    model's own embedding of that text, with padding masked, is then another one).

    The embedding is the mean over all positions (``?pool=mean``), that of the first (``cls``) or the pooled output
    (``pooler``). ``input_range`` spans the smallest and largest entry of the embedding table; the model itself takes
    any number. Weights as for ``hf:``.
    """

    name = "hf_text"
    summary = "language encoders of the transformers library, on token embeddings"
    examples = (
        "hf_text:/folder",
        "hf_text:sentence-transformers/all-mpnet-base-v2?tokens=16",
        "hf_text:/folder?tokens=32&pool=cls&short=pad",
        "hf_text:/folder?weights=random&seed=0",
    )

    def load(self, uri: eqv.URI) -> eqv.LoadedModel:
        """Build the model that ``uri`` names, on the CPU, in float32.

        Raises:
            UsageError: If the address makes no sense, or names a model of something else than texts.
            WeightsError: If the weights cannot be had or do not fit.
            ModelError: If the checkpoint wants code to be run, or has no tokenizer.
        """
        uri.allow_options((*OPTIONS, "tokens", "pool", "short"))
        length = uri.integer("tokens", _DEFAULT_TOKENS, minimum=1, maximum=1 << 16)
        pool, short = uri.options.get("pool", "mean"), uri.options.get("short", "refuse")
        for name, value, known in (("pool", pool, _POOLS), ("short", short, _SHORT)):
            if value not in known:
                raise eqv.UsageError(
                    f"option {name!r} of {uri.text!r} is not usable", expected=" or ".join(known), got=repr(value)
                )
        checkpoint = Checkpoint.of(uri)
        _require_text(checkpoint)
        from equivengine_plugins.backends.hf.sequence import Sequence, check_inputs
        from equivengine_plugins.backends.hf.text import load_tokenizer

        tokenizer = load_tokenizer(checkpoint)
        whole, recorded = checkpoint.build()
        model = whole.base_model
        table = model.get_input_embeddings()
        check_inputs(checkpoint, model, tokenizer, length, pool)
        activations = weights.activations(model)
        return eqv.LoadedModel(
            module=Sequence(model, pool),
            preprocessing=_Tokens(tokenizer, table, length, pad=short == "pad"),
            input_shape=(length, int(table.weight.shape[1])),
            input_range=(float(table.weight.min()), float(table.weight.max())),
            random_weights=checkpoint.source.kind == "random",
            activation=next(iter(activations), "unknown"),
            details={
                **recorded,
                "pool": pool,
                "tokens": length,
                "mask": "none: every position is attended to",
                "short_texts": short,
                "tokenizer": type(tokenizer).__name__,
                "tokenizer_sha256": _digest(tokenizer),
                "vocabulary": int(table.weight.shape[0]),
                "parameters": sum(p.numel() for p in model.parameters()),
                "activations": activations,
            },
        )


@eqv.hookimpl
def equivengine_register_backends() -> list[type[eqv.Backend]]:
    """Provide the ``hf_text`` backend."""
    return [HfTextBackend]


def _require_text(checkpoint: Checkpoint) -> None:
    model_class, config = checkpoint.model_class, checkpoint.config
    vision = model_class.main_input_name == "pixel_values" or hasattr(config, "vision_config")
    if not vision and model_class.main_input_name == "input_ids" and not config.is_encoder_decoder:
        return
    raise eqv.UsageError(
        f"{checkpoint.uri.text!r} is no language encoder",
        expected="a model that takes input_ids, without a decoder",
        got=f"{model_class.__name__}, which takes {model_class.main_input_name}",
        hint=f"name a vision model as hf:{checkpoint.uri.path}" if vision else None,
    )


class _Tokens:
    """A text to the rows of the embedding table [T, D] that its tokens name, float32."""

    def __init__(self, tokenizer: Any, table: nn.Module, length: int, *, pad: bool) -> None:
        self._tokenizer = tokenizer
        self._table = table
        self._length = length
        self._pad = pad

    def __call__(self, raw: Any) -> torch.Tensor:
        import torch

        if not isinstance(raw, str):
            raise eqv.DataError(
                "a sample is no text",
                expected="a str",
                got=type(raw).__name__,
                hint="take a set of texts, such as sentences or lines:FILE",
            )
        padding = "max_length" if self._pad else False
        found = self._tokenizer(raw, truncation=True, max_length=self._length, padding=padding)["input_ids"]
        if len(found) != self._length:
            raise eqv.DataError(
                f"the text {raw[:40]!r} is too short",
                expected=f"at least {self._length} tokens",
                got=f"{len(found)} tokens, those of begin and end included",
                hint="ask for fewer (?tokens=N), leave such texts out, or pass ?short=pad",
            )
        weight = cast("torch.Tensor", self._table.weight)
        return weight.detach()[torch.tensor(found, device=weight.device)].float()


def _digest(tokenizer: Any) -> str | None:
    """The sha256 of a fast tokeniser's whole description: it decides what a text becomes."""
    core = getattr(tokenizer, "backend_tokenizer", None)
    return None if core is None else hashlib.sha256(core.to_str().encode()).hexdigest()
