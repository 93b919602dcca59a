"""The ``hf`` backend: vision encoders in the checkpoint layout of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.backends import weights
from equivengine_plugins.backends.hf.checkpoint import OPTIONS, Checkpoint

if TYPE_CHECKING:
    from torch import nn

EQUIVENGINE_API = (1, 0)


class HfBackend(eqv.Backend):
    """``hf:DIRECTORY`` or ``hf:ORG/NAME``: BEiT, DeiT, Swin, ViT, ViTMAE, ViTMSN, DINOv2, SigLIP, CLIP and others.

    The class that the configuration names is loaded whole, every tensor accounted for, and its vision model taken. The
    embedding is, in this order, what the model has of: the projection of its pooled output into the space of texts
    (CLIP), its pooled output, its class token, the mean of its patches; ``?pool=projection|pooler|cls|mean`` chooses. A
    masked autoencoder sees every patch.

    ``?weights=random&seed=N`` draws the weights of the architecture that the configuration describes;
    ``?weights=FILE`` reads them from another file; ``?revision=`` is a branch, tag or commit on the hub. Code that a
    checkpoint brings along is never run.
    """

    name = "hf"
    summary = "vision encoders of the transformers library, from a directory or the hub"
    examples = (
        "hf:/folder",
        "hf:facebook/dinov2-base",
        "hf:/folder?pool=mean",
        "hf:/folder?weights=random&seed=0",
        "hf:/folder?weights=/file.safetensors",
    )

    def load(self, uri: eqv.URI) -> eqv.LoadedModel:
        """Build the model that ``uri`` names, on the CPU, in float32.

        Raises:
            UsageError: If the address makes no sense, or names a text model.
            WeightsError: If the weights cannot be had or do not fit.
            ModelError: If the checkpoint wants code to be run, or its preprocessing cannot be declared.
        """
        uri.allow_options((*OPTIONS, "pool"))
        import transformers

        checkpoint = Checkpoint.of(uri)
        _require_vision(checkpoint)
        from equivengine_plugins.backends.hf import pooling, preprocessing, text

        declared, _, processor = preprocessing.read(checkpoint)
        whole, recorded = checkpoint.build()
        tower, pool, prefix = pooling.make_tower(checkpoint, whole, declared.size)
        head = pooling.find_classifier(whole, tower, declared.size)
        speaks = isinstance(getattr(whole, "text_model", None), transformers.PreTrainedModel)
        # Texts share a space with the pooled output alone (SigLIP), or with its projection (CLIP).
        shared = pool == ("projection" if hasattr(whole, "visual_projection") else "pooler")
        embeds_text = speaks and shared and text.has_tokenizer(checkpoint)
        activations = weights.activations(tower)
        return eqv.LoadedModel(
            module=tower,
            preprocessing=declared,
            random_weights=checkpoint.source.kind == "random",
            activation=next(iter(activations), "unknown"),
            class_names=None if head is None else _class_names(checkpoint.config, head),
            classify=None if head is None else pooling.Classifier(head),
            embed_text=text.TextTower(checkpoint, whole, tower) if embeds_text else None,
            details={
                **recorded,
                **processor,
                "pool": pool,
                "tokens_before_patches": prefix,
                "masking": "none: every patch kept, in order" if hasattr(tower.model.config, "mask_ratio") else None,
                "parameters": sum(p.numel() for p in tower.parameters()),
                "activations": activations,
                **_of_texts(whole if embeds_text else None),
            },
        )


@eqv.hookimpl
def equivengine_register_backends() -> list[type[eqv.Backend]]:
    """Provide the ``hf`` backend."""
    return [HfBackend]


def _require_vision(checkpoint: Checkpoint) -> None:
    model_class = checkpoint.model_class
    if model_class.main_input_name == "pixel_values" or hasattr(checkpoint.config, "vision_config"):
        return
    raise eqv.UsageError(
        f"{checkpoint.uri.text!r} is no vision model",
        expected="a model that takes pixel_values",
        got=f"{model_class.__name__}, which takes {model_class.main_input_name}",
        hint=f"name a text encoder as hf_text:{checkpoint.uri.path}",
    )


def _class_names(config: Any, head: nn.Linear) -> list[str] | None:
    names = [str(config.id2label[index]) for index in sorted(config.id2label)]
    # transformers makes up LABEL_0, LABEL_1, ... where nobody named the classes.
    made_up = all(name == f"LABEL_{index}" for index, name in enumerate(names))
    return None if made_up or len(names) != head.out_features else names


def _of_texts(whole: Any) -> dict[str, object]:
    """What training did to cosines before the softmax (CLIP) or the sigmoid (SigLIP)."""
    if whole is None:
        return {}
    bias = getattr(whole, "logit_bias", None)
    return {
        "text_normalized": False,
        "text_parameters": sum(p.numel() for p in whole.text_model.parameters()),
        "logit_scale": float(whole.logit_scale.exp().flatten()[0]),
        "logit_bias": None if bias is None else float(bias.flatten()[0]),
    }
