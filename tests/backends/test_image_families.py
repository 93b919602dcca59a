"""Families of timm and open_clip, from folders in their own layouts: embedding, J v and J^T u are the library's."""

from __future__ import annotations

import json
from typing import Any

import open_clip
import pytest
import timm
import torch
from library_oracle import assert_same_map
from safetensors.torch import save_file

import equivengine as eqv
from equivengine.runtime.config import ProbeRequest, RunConfig
from equivengine.runtime.engine import execute

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
SWIN = {"img_size": 32, "patch_size": 2, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}
OF_TIMM: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit_tiny_patch16_224", VIT),
    "deit": ("deit_tiny_patch16_224", VIT),
    "deit_distilled": ("deit_tiny_distilled_patch16_224", VIT),
    "beit": ("beit_base_patch16_224", VIT),
    "eva02": ("eva02_tiny_patch14_224", VIT),
    "siglip": ("vit_base_patch16_siglip_224", VIT),
    "dinov2": ("vit_small_patch14_reg4_dinov2", VIT),
    "swin": ("swin_tiny_patch4_window7_224", SWIN),
    "convnext": ("convnext_atto", {"dims": (8, 16, 24, 32), "depths": (1, 1, 2, 1)}),
    "resnet": ("test_resnet", {}),
}
CLIP = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
SIGLIP_TEXT = {**TEXT, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
OF_OPEN_CLIP: dict[str, dict[str, Any]] = {
    "clip": {"vision_cfg": CLIP},
    "clip_quickgelu": {"vision_cfg": CLIP, "quick_gelu": True},
    # open_clip's own attention, in place of nn.MultiheadAttention
    "clip_custom_attention": {"vision_cfg": {**CLIP, "block_type": "custom"}},
    "clip_normed_attention": {"vision_cfg": {**CLIP, "qk_norm": True, "scale_heads": True}},
    "siglip": {
        "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit3", "timm_pool": "map", "timm_proj": "none"},
        "text_cfg": SIGLIP_TEXT,
        "custom_text": True,
        "init_logit_bias": -10,
        "embed_dim": 96,
    },
    "eva": {
        "vision_cfg": {
            "image_size": 224,
            "timm_model_name": "eva02_tiny_patch14_224",
            "timm_pool": "token",
            "timm_proj": None,
        },
        "embed_dim": 192,
        "custom_text": True,
    },
    "clip_convnext": {
        "vision_cfg": {"image_size": 64, "timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear"}
    },
    "clip_resnet": {"vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}},
}


def moved(model):
    """Every parameter away from zero, which would hide a branch, and running statistics that are no default."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1)
    return model.eval()


def save_timm(family, folder):
    name, arguments = OF_TIMM[family]
    torch.manual_seed(0)
    side = 32 if arguments.get("img_size") else 64
    overlay = {"input_size": (3, side, side), "crop_pct": 1.0}
    model = moved(timm.create_model(name, num_classes=4, pretrained_cfg_overlay=overlay, **arguments))
    kept = {key: value for key, value in arguments.items() if key != "img_size"}
    timm.models.save_for_hf(model, folder, model_args=arguments if side == 32 else kept, safe_serialization=True)
    return model


def normalised(declared, own):
    mean, std = (torch.tensor(values).double().view(3, 1, 1) for values in (declared["mean"], declared["std"]))
    return lambda x: own((x - mean) / std)


@pytest.mark.parametrize("family", sorted(OF_TIMM))
def test_timm_family_computes_what_timm_computes(family, tmp_path):
    own = save_timm(family, tmp_path).double()
    encoder = eqv.load_encoder(f"timm:local-dir:{tmp_path}", device="cpu")
    config = timm.data.resolve_model_data_config(own)
    own.reset_classifier(0)
    assert_same_map(encoder, normalised(config, own))
    assert not encoder.spec.random_weights
    assert encoder.spec.details["architecture"] == OF_TIMM[family][0]


@pytest.mark.parametrize("family", sorted(OF_OPEN_CLIP))
def test_open_clip_family_computes_what_open_clip_computes(family, tmp_path):
    config = {"embed_dim": 24, "text_cfg": TEXT, **OF_OPEN_CLIP[family]}
    preprocessing = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocessing}))
    torch.manual_seed(0)
    drawn, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}", load_weights=False)
    save_file(moved(drawn).state_dict(), tmp_path / "open_clip_model.safetensors")
    own = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    encoder = eqv.load_encoder(f"open_clip:local-dir:{tmp_path}", device="cpu")
    prompts = ["a photograph of a cat", "two dogs"]
    with torch.no_grad():
        texts = own.encode_text(open_clip.get_tokenizer(f"local-dir:{tmp_path}")(prompts), normalize=False)
    assert torch.allclose(encoder.embed_text(prompts), texts, rtol=1e-4, atol=1e-5)
    double = own.double()
    assert_same_map(encoder, normalised(preprocessing, lambda x: double.encode_image(x, normalize=False)))
    assert (encoder.spec.activation == "quickgelu") == (family == "clip_quickgelu")
    if family not in ("clip_convnext", "clip_resnet"):
        coverage = eqv.JacobianOperator(encoder, torch.rand(encoder.input_shape)).coverage()
        assert set(coverage["scaled_dot_product_attention"]) <= {"reference", "cpu-base", "cpu-avx2", "cpu-avx512"}
        assert not [operation for operation, rules in coverage.items() if "torch" in rules]


@pytest.mark.parametrize("family", ["convnext", "resnet"])
def test_probe_runs_on_an_encoder_without_attention(family, tmp_path):
    save_timm(family, tmp_path / "model")
    few = {"directions": 8, "null_directions": 4, "gradient_steps": 2, "singular_directions": 4}
    config = RunConfig(
        probes=(ProbeRequest(name="ldlc", set=few),),
        models=f"timm:local-dir:{tmp_path / 'model'}",
        images="samples",
        limit=1,
        device="cpu",
        out=str(tmp_path / "run"),
    )
    report = execute(config)
    assert not report.failures
    ((_, result),) = eqv.open_run(tmp_path / "run").results("ldlc")
    failed = {name for name, check in result.checks.items() if not check.passed}
    # Around an image a network of ReLUs is linear: null values are roundoff, and the probe says so.
    assert failed == ({"null_above_noise"} if family == "resnet" else set())
    assert (result.summary["null_curvature"].value == 0) == (family == "resnet")
