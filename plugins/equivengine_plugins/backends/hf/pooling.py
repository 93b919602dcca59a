"""From the outputs of a vision model of transformers to one embedding for each image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import equivengine as eqv

if TYPE_CHECKING:
    from equivengine_plugins.backends.hf.checkpoint import Checkpoint

#: What ``?pool=`` may say.
POOLS = ("projection", "pooler", "cls", "mean")
# More tokens than these before the patches (a class token and registers) mean that they are not one per patch.
_MOST_PREFIX_TOKENS = 32


class Tower(nn.Module):
    """Normalized pixels [B, 3, H, W] to embeddings [B, n].

    Args:
        model: The vision model.
        pool: ``"projection"`` (its pooled output, projected into the space that it shares with texts), ``"pooler"``
            (its pooled output), ``"cls"`` (the first token) or ``"mean"`` (of the patches, without the tokens before).
        projection: The projection, for ``"projection"``.
        prefix: Tokens before those of the patches.
    """

    def __init__(self, model: nn.Module, pool: str, projection: nn.Module | None, prefix: int) -> None:
        super().__init__()
        self.model = model
        self.projection = projection
        self._pool = pool
        self._prefix = prefix

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings of x."""
        out = output(self.model, x)
        if self._pool in ("projection", "pooler"):
            pooled: torch.Tensor = out.pooler_output.flatten(1)  # convolutional models keep two sides of length one
            return pooled if self.projection is None else self.projection(pooled)
        tokens: torch.Tensor = out.last_hidden_state
        if tokens.dim() == 4:
            return tokens.mean(dim=(2, 3))
        return tokens[:, 0] if self._pool == "cls" else tokens[:, self._prefix :].mean(dim=1)


def output(model: nn.Module, x: torch.Tensor) -> Any:
    """The output of a vision model, every patch kept and in order.

    A masked autoencoder leaves a random part of the patches out, also in eval mode (He et al., "Masked autoencoders are
    scalable vision learners", CVPR 2022). With ratio 0 it keeps all of them, in the order of a noise that it would
    draw; an ascending one is the order of the image.
    """
    config: Any = model.config
    if not hasattr(config, "mask_ratio"):
        return model(pixel_values=x)
    patches = int(model.embeddings.patch_embeddings.num_patches)  # type: ignore[union-attr, arg-type]  # transformers is untyped
    order = torch.arange(patches, device=x.device).expand(x.shape[0], patches)
    return model(pixel_values=x, noise=order)


def make_tower(checkpoint: Checkpoint, whole: nn.Module, size: tuple[int, int]) -> tuple[Tower, str, int]:
    """The part of a model that embeds images, how it pools, and the number of tokens before its patches.

    Args:
        checkpoint: What ``whole`` was read from; its address may choose the pooling.
        whole: The model as it was saved, heads and text tower included.
        size: (height, width) of an input, pixels.

    Raises:
        UsageError: If the address asks for a pooling that this model does not have.
        ModelError: If the model does not take such images.
    """
    untyped: Any = whole
    vision = (
        untyped.vision_model if isinstance(getattr(untyped, "vision_model", None), nn.Module) else untyped.base_model
    )
    if hasattr(vision.config, "mask_ratio"):
        vision.config.mask_ratio = 0.0
    try:
        with torch.no_grad():
            out = output(vision, torch.zeros(1, 3, *size))
    except Exception as error:
        raise eqv.ModelError(
            f"{checkpoint.uri.text!r} does not take the images that its image processor makes",
            expected=f"a model of {size[0]} x {size[1]} pixels, three channels",
            got=str(error).partition("\n")[0],
            hint="check that preprocessor_config.json was saved with this model",
        ) from error
    tokens: torch.Tensor = out.last_hidden_state
    projection = getattr(whole, "visual_projection", None)
    prefix = _prefix(vision, tokens, size)
    has = {
        "projection": projection is not None,
        "pooler": getattr(out, "pooler_output", None) is not None,
        "cls": tokens.dim() == 3 and prefix > 0,
        "mean": tokens.dim() in (3, 4),
    }
    pool = checkpoint.uri.options.get("pool") or next(name for name in POOLS if has[name])
    if not has.get(pool, False):
        raise eqv.UsageError(
            f"{checkpoint.model_class.__name__} has no pooling {pool!r}",
            expected=" or ".join(name for name in POOLS if has[name]),
            got=repr(checkpoint.uri.text),
        )
    return Tower(vision, pool, projection if pool == "projection" else None, prefix), pool, prefix


def _prefix(vision: Any, tokens: torch.Tensor, size: tuple[int, int]) -> int:
    """Tokens before those of the patches; 0 where patches are merged on the way (Swin has no others)."""
    patch = getattr(vision.config, "patch_size", None)
    if tokens.dim() != 3 or patch is None:
        return 0
    high, wide = (patch, patch) if isinstance(patch, int) else tuple(patch)
    extra = tokens.shape[1] - (size[0] // high) * (size[1] // wide)
    return extra if 0 <= extra <= _MOST_PREFIX_TOKENS else 0


def find_classifier(whole: nn.Module, tower: Tower, size: tuple[int, int]) -> nn.Linear | None:
    """The linear head that turns the embedding into the model's own logits; None if there is no such one.

    There is none where the head reads more than the embedding (DINOv2: class token and mean of patches) or where two
    are averaged (distilled DeiT).
    """
    head: object = getattr(whole, "classifier", None)
    if isinstance(head, nn.Sequential) and len(head):  # convolutional models flatten first
        head = head[-1]
    if not isinstance(head, nn.Linear):
        return None
    x = torch.rand((1, 3, *size), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits: torch.Tensor = whole(pixel_values=x).logits
        embedding = tower(x)
        if embedding.shape[1] != head.in_features or logits.shape[1] != head.out_features:
            return None
        same = torch.allclose(head(embedding), logits, rtol=1e-4, atol=1e-4 * float(logits.abs().max()))
    return head if same else None


class Classifier:
    """Logits [B, classes] of embeddings [B, n], on whichever device and in whichever dtype the embeddings come."""

    def __init__(self, head: nn.Linear) -> None:
        self._head = head.eval().requires_grad_(False)

    def __call__(self, embeddings: torch.Tensor) -> torch.Tensor:
        """The logits."""
        bias = self._head.bias
        return nn.functional.linear(
            embeddings, self._head.weight.to(embeddings), None if bias is None else bias.to(embeddings)
        )
