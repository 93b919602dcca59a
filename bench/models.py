"""The models that benchmarks run, with random weights, and what their arithmetic amounts to."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

#: Names that users type: where a model comes from, and its name there.
MODELS = {
    "vit_s16": ("timm", "vit_small_patch16_224"),
    "vit_b16": ("timm", "vit_base_patch16_224"),
    "clip_b32": ("open_clip", "ViT-B-32"),
    "swin_t": ("timm", "swin_tiny_patch4_window7_224"),
    "beit_b16": ("timm", "beit_base_patch16_224"),
    "clip_h14": ("open_clip", "ViT-H-14"),
    # For trying a benchmark out.
    "tiny": ("timm", "test_vit"),
}


@dataclass(eq=False)
class Subject:
    """A model, one input, and both in another dtype."""

    name: str
    model: nn.Module
    x: Tensor

    def f(self, z: Tensor) -> Tensor:
        """[3, H, W] -> [n]."""
        return self.model(z.unsqueeze(0)).squeeze(0)

    @functools.cached_property
    def outputs(self) -> int:
        """The dimension n of the embedding."""
        with torch.no_grad():
            return int(self.f(self.x).shape[0])

    @functools.cached_property
    def in_bfloat16(self) -> Subject:
        """A copy that is kept as long as this one."""
        return self.to(torch.bfloat16)

    def to(self, dtype: torch.dtype) -> Subject:
        """A copy with weights and input converted."""
        return Subject(self.name, copy.deepcopy(self.model).to(dtype), self.x.to(dtype))


def load(name: str, device: torch.device) -> Subject:
    """A model in eval mode, frozen, and an image of noise.

    Raises:
        ImportError: The library that it comes from is not installed.
    """
    library, original = MODELS[name]
    torch.manual_seed(0)
    with torch.device(device):
        model, size = _timm(original) if library == "timm" else _open_clip(original)
    model = model.to(device).eval().requires_grad_(False)
    return Subject(name, model, torch.rand(3, size, size, generator=torch.Generator().manual_seed(0)).to(device))


def _timm(name: str) -> tuple[nn.Module, int]:
    import timm

    model = timm.create_model(name, num_classes=0)
    return model, int(model.pretrained_cfg["input_size"][-1])


def _open_clip(name: str) -> tuple[nn.Module, int]:
    import open_clip

    model = open_clip.create_model(name, pretrained=None).visual
    return model, int(model.image_size[0])


@contextlib.contextmanager
def differentiable(*, math: bool = True) -> Iterator[None]:
    """Attention that stock PyTorch can differentiate: not the fast path of `nn.MultiheadAttention`.

    Args:
        math: Take the math backend, which forward mode needs (pytorch#98164).
    """
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH) if math else contextlib.nullcontext():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)


def flops(subject: Subject) -> dict[str, int]:
    """Floating-point operations of one forward pass, and of one JVP or VJP at a primal that is kept.

    A product of two activations has two tangents, so attention counts twice in a derivative. Rows that an
    implementation knows how to leave out are counted nevertheless.
    """
    with torch.no_grad(), differentiable(), FlopCounterMode(display=False) as counter:
        subject.f(subject.x)
    counts = {str(op): count for op, count in counter.get_flop_counts()["Global"].items()}
    total, attention = sum(counts.values()), counts.get("aten.bmm", 0)
    return {"forward": total, "derivative": total + attention}


def widest_product(subject: Subject) -> tuple[int, int, int]:
    """Rows, inputs and outputs of the linear layer with the most work, for one image."""
    found: list[tuple[int, int, int]] = []

    def note(layer: nn.Linear, inputs: tuple[Any, ...]) -> None:
        found.append((inputs[0].numel() // layer.in_features, layer.in_features, layer.out_features))

    hooks = [layer.register_forward_pre_hook(note) for layer in subject.model.modules() if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        subject.f(subject.x)
    for hook in hooks:
        hook.remove()
    return max(found, key=lambda sizes: sizes[0] * sizes[1] * sizes[2])
