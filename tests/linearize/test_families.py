"""Families of encoders, tiny and with random weights: each becomes a program, and its products are right."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from equivengine.linearize import ARITHMETICS
from equivengine.linearize.derivative import Derivative
from equivengine.ops.substitute import batch_norm_written_out

SMALL = {"num_classes": 0, "img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


def timm_model(name: str, **options: Any) -> Callable[[], tuple[nn.Module, int]]:
    def build() -> tuple[nn.Module, int]:
        import timm

        size = options.get("img_size", 64)
        return timm.create_model(name, **options), size

    return build


def mixer() -> tuple[nn.Module, int]:
    from timm.models.mlp_mixer import MlpMixer

    return MlpMixer(num_classes=0, img_size=32, patch_size=8, embed_dim=32, num_blocks=2), 32


def open_clip_tower(**options: Any) -> Callable[[], tuple[nn.Module, int]]:
    def build() -> tuple[nn.Module, int]:
        from open_clip.model import CLIPVisionCfg, _build_vision_tower

        quick = options.pop("quick_gelu", False)
        size = options.pop("size", 32)
        config = CLIPVisionCfg(image_size=size, **options)
        return _build_vision_tower(32, config, quick_gelu=quick), size

    return build


def transformers_model(name: str, attention: str, output: str = "first", **options: Any) -> Callable[[], Any]:
    def build() -> tuple[nn.Module, int]:
        transformers = pytest.importorskip("transformers")
        plain = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        config = getattr(transformers, f"{name}Config")(**{**plain, "image_size": 32, "patch_size": 8, **options})
        config._attn_implementation = attention
        model = getattr(transformers, f"{name}Model")(config)

        class Embedding(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                out = self.model(x)
                return out.pooler_output if output == "pooled" else out.last_hidden_state[:, 0]

        return Embedding(), 32

    return build


SWIN = {"num_classes": 0, "img_size": 32, "patch_size": 2, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4)}
HF_SWIN = {"embed_dim": 16, "depths": [2, 2], "num_attention_heads": [2, 2], "window_size": 4, "patch_size": 2}

TRANSFORMERS_OF_TIMM = {
    "vit": timm_model("vit_tiny_patch16_224", **SMALL),
    "vit_average": timm_model("vit_tiny_patch16_224", **SMALL, global_pool="avg"),
    "vit_registers": timm_model("vit_tiny_patch16_224", **SMALL, reg_tokens=2, class_token=False, global_pool="map"),
    "deit": timm_model("deit_tiny_distilled_patch16_224", **SMALL),
    "deit3": timm_model("deit3_small_patch16_224", **SMALL),
    "beit": timm_model("beit_base_patch16_224", **SMALL),
    "eva02": timm_model("eva02_tiny_patch14_224", **SMALL),
    "siglip": timm_model("vit_base_patch16_siglip_224", **SMALL),
    "dinov2": timm_model("vit_small_patch14_reg4_dinov2", **SMALL),
    "swin": timm_model("swin_tiny_patch4_window7_224", **SWIN, window_size=4),
    "swinv2": timm_model("swinv2_tiny_window8_256", **SWIN, window_size=4),
    "cait": timm_model("cait_xxs24_224", **SMALL),
    "xcit": timm_model("xcit_nano_12_p8_224", num_classes=0, img_size=32, embed_dim=32, depth=2, num_heads=2),
    "pvt": timm_model(
        "pvt_v2_b0", num_classes=0, depths=(1, 1, 1, 1), embed_dims=(8, 16, 16, 16), num_heads=(1, 1, 2, 2)
    ),
}
OTHERS_OF_TIMM = {
    "convnext": timm_model("test_convnext", num_classes=0),
    "resnet": timm_model("test_resnet", num_classes=0),
    "efficientnet": timm_model("test_efficientnet", num_classes=0),
    "mobilenet": timm_model("mobilenetv2_050", num_classes=0),
    "mobilevit": timm_model("mobilevit_xxs", num_classes=0),
    "mixer": mixer,
}
OF_OPEN_CLIP = {
    "clip": open_clip_tower(layers=2, width=32, head_width=16, patch_size=8),
    "clip_quick": open_clip_tower(layers=2, width=32, head_width=16, patch_size=8, quick_gelu=True),
    "clip_pooled": open_clip_tower(layers=2, width=32, head_width=16, patch_size=8, attentional_pool=True),
    "clip_timm": open_clip_tower(timm_model_name="test_vit", timm_pool="token", timm_proj="linear", size=160),
    "clip_resnet": open_clip_tower(layers=(1, 1, 1, 1), width=8, head_width=64),
}
OF_TRANSFORMERS = {
    f"hf_{name}_{attention}": transformers_model(kind, attention, **options)
    for attention in ("sdpa", "eager")
    for name, kind, options in (
        ("vit", "ViT", {}),
        ("deit", "DeiT", {}),
        ("beit", "Beit", {"use_relative_position_bias": True}),
        ("swin", "Swin", {**HF_SWIN, "output": "pooled"}),
        ("mae", "ViTMAE", {"mask_ratio": 0.0}),
        ("msn", "ViTMSN", {}),
        ("dinov2", "Dinov2", {}),
        ("dinov2_registers", "Dinov2WithRegisters", {}),
        ("siglip", "SiglipVision", {"output": "pooled"}),
        ("clip", "CLIPVision", {"output": "pooled"}),
    )
}
ALL = {**TRANSFORMERS_OF_TIMM, **OTHERS_OF_TIMM, **OF_OPEN_CLIP, **OF_TRANSFORMERS}


def made(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model, size = ALL[name]()
    with torch.no_grad():  # zero-initialized scales and biases would hide whole branches
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    model.eval().requires_grad_(False)
    return model, torch.rand(1, 3, size, size)


def of_autograd(model: nn.Module, x: torch.Tensor, v: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """f(x), J v (by the double-vjp trick) and J^T u, with PyTorch's own operations."""
    math = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with math, batch_norm_written_out(), torch.enable_grad():
        z = x.clone().requires_grad_(True)
        w = torch.zeros_like(u, requires_grad=True)
        value = model(z)
        (pulled,) = torch.autograd.grad(value, z, w, create_graph=True)
        (pushed,) = torch.autograd.grad(pulled, w, v)
        (pulled,) = torch.autograd.grad(model(z), z, u)
    return value.detach(), pushed, pulled


def off(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(found.double() - exact) / torch.linalg.vector_norm(exact))


@pytest.mark.parametrize("name", sorted(ALL))
def test_program_is_as_exact_as_autograd(name: str) -> None:
    model, x = made(name)
    derivative = Derivative(model, x, ARITHMETICS["fp32"], model)
    coverage = derivative.coverage()
    assert derivative.reason is None
    assert not {op for op, how in coverage.items() if "torch" in how}
    if name not in OTHERS_OF_TIMM:
        norms = {"native_layer_norm", "scaled_dot_product_attention", "_softmax"} & set(coverage)
        assert norms
        assert all(how.startswith(("cpu", "cuda", "reference")) for op in norms for how in coverage[op])

    v = torch.randn(2, *x.shape)
    with torch.no_grad():
        u = torch.randn(2, *model(x).shape)
    double = copy.deepcopy(model).double()
    pushed, pulled = derivative.push(v), derivative.pull(u)
    for i in range(2):
        exact = of_autograd(double, x.double(), v[i].double(), u[i].double())
        plain = of_autograd(model, x, v[i], u[i])
        for found, by_torch, target in zip((None, pushed[i], pulled[i]), plain, exact, strict=True):
            if found is not None:
                assert off(found, target) <= 2 * off(by_torch, target) + 3e-6
        assert off(model(x), exact[0]) < 1e-4
