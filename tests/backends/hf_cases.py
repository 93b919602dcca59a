"""Small checkpoints of random weights, written by transformers itself in its own layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

PLAIN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
IMAGE = {**PLAIN, "image_size": 32, "patch_size": 8}
SWIN = {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4, "patch_size": 2, "image_size": 32}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SQUASH = {"size": {"height": 32, "width": 32}}
SHORTEST = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}


@dataclass(frozen=True)
class Case:
    """A model class with its settings, an image processor with its, and what the embedding must be."""

    model: str
    config: dict[str, Any]
    embedding: Callable[[Any, torch.Tensor], torch.Tensor]
    pool: str
    processor: str = "ViTImageProcessor"
    settings: dict[str, Any] = field(default_factory=lambda: SQUASH)


def in_order(model: Any, x: torch.Tensor) -> torch.Tensor:
    """The class token of a masked autoencoder that masks nothing, patches in the order of the image."""
    tokens = model.vit.embeddings.patch_embeddings(x) + model.vit.embeddings.position_embeddings[:, 1:]
    first = (model.vit.embeddings.cls_token + model.vit.embeddings.position_embeddings[:, :1]).expand(len(x), -1, -1)
    hidden = torch.cat([first, tokens], dim=1)
    for layer in model.vit.layers if hasattr(model.vit, "layers") else model.vit.encoder.layer:
        hidden = layer(hidden)
    return model.vit.layernorm(hidden)[:, 0]


FAMILIES = {
    "vit": Case("ViTModel", IMAGE, lambda m, x: m(x).pooler_output, "pooler"),
    "vit_classifier": Case("ViTForImageClassification", IMAGE, lambda m, x: m.vit(x).last_hidden_state[:, 0], "cls"),
    "beit": Case(
        "BeitForImageClassification",
        {**IMAGE, "use_relative_position_bias": True, "num_labels": 3, "id2label": {0: "tench", 1: "<b>", 2: "cat"}},
        lambda m, x: m.beit(x).pooler_output,
        "pooler",
        "BeitImageProcessor",
        {**SQUASH, "do_center_crop": False},
    ),
    "beit_masked": Case(
        "BeitForMaskedImageModeling",
        {**IMAGE, "use_mask_token": True, "use_shared_relative_position_bias": True, "vocab_size": 16},
        lambda m, x: m.beit(x).last_hidden_state[:, 0],
        "cls",
        "BeitImageProcessor",
        {"size": {"height": 36, "width": 36}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True},
    ),
    "deit": Case(
        "DeiTForImageClassificationWithTeacher",
        IMAGE,
        lambda m, x: m.deit(x).last_hidden_state[:, 0],
        "cls",
        "DeiTImageProcessor",
        {"size": {"height": 36, "width": 36}, "crop_size": {"height": 32, "width": 32}},
    ),
    "swin": Case("SwinForImageClassification", SWIN, lambda m, x: m.swin(x).pooler_output, "pooler"),
    "mae": Case(
        "ViTMAEForPreTraining",
        {
            **IMAGE,
            "decoder_hidden_size": 32,
            "decoder_num_hidden_layers": 1,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 32,
        },
        in_order,
        "cls",
    ),
    "msn": Case("ViTMSNModel", IMAGE, lambda m, x: m(x).last_hidden_state[:, 0], "cls"),
    "dinov2": Case(
        "Dinov2Model",
        IMAGE,
        lambda m, x: m(x).pooler_output,
        "pooler",
        "BitImageProcessor",
        {**SHORTEST, "resample": 3},
    ),
    "dinov2_registers": Case("Dinov2WithRegistersModel", IMAGE, lambda m, x: m(x).pooler_output, "pooler"),
    "siglip_vision": Case(
        "SiglipVisionModel", IMAGE, lambda m, x: m(x).pooler_output, "pooler", "SiglipImageProcessor"
    ),
    "clip_vision": Case(
        "CLIPVisionModelWithProjection",
        {**IMAGE, "projection_dim": 24},
        lambda m, x: m(x).image_embeds,
        "projection",
        "CLIPImageProcessor",
        SHORTEST,
    ),
    "clip": Case(
        "CLIPModel",
        {"vision_config": IMAGE, "text_config": {**PLAIN, "vocab_size": 40}, "projection_dim": 24},
        lambda m, x: m.visual_projection(m.vision_model(x).pooler_output),
        "projection",
        "CLIPImageProcessor",
        SHORTEST,
    ),
    "siglip": Case(
        "SiglipModel",
        {"vision_config": IMAGE, "text_config": {**PLAIN, "vocab_size": 40, "max_position_embeddings": 12}},
        lambda m, x: m.vision_model(x).pooler_output,
        "pooler",
        "SiglipImageProcessor",
    ),
    "resnet": Case(
        "ResNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic", "num_labels": 4},
        lambda m, x: m.resnet(x).pooler_output.flatten(1),
        "pooler",
        "ViTImageProcessor",
    ),
}


def build(case: Case, seed: int = 0) -> Any:
    """The library's own model, every parameter random (zeros would hide whole branches), float32, eval mode."""
    model_class = getattr(transformers, case.model)
    torch.manual_seed(seed)
    model = model_class(model_class.config_class(**case.config))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "position_embeddings" not in name or parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)
    return model.eval()


def processor(case: Case) -> Any:
    """The library's image processor, in the variant that computes with Pillow."""
    return variants(case)[0](**case.settings)


def variants(case: Case) -> tuple[Any, Any]:
    """The image processors that compute with Pillow and with torch; which has a suffix depends on the release."""
    pillow = getattr(transformers, f"{case.processor}Pil", None)
    plain = getattr(transformers, case.processor)
    return (pillow, plain) if pillow is not None else (plain, getattr(transformers, f"{case.processor}Fast"))


def save(case: Case, folder: Path, seed: int = 0) -> Any:
    """Write the checkpoint that a family's `save_pretrained` writes, and return the model."""
    model = build(case, seed)
    model.save_pretrained(folder)
    processor(case).save_pretrained(folder)
    return model


def save_tokenizer(folder: Path, length: int = 77, vocabulary: int = 40) -> Any:
    """A tokenizer of letters and a few words, with [CLS] and [SEP] around each text, in the library's layout."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *LETTERS, "##s", "##ing", "the", "cat", "dog", "a", "on"]
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    assert len(vocab) <= vocabulary
    core = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=length, **names)
    tokenizer.save_pretrained(folder)
    return tokenizer


def edit(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file; None removes one."""
    entries = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in entries.items() if value is not None}))


def picture(width: int, height: int) -> Image.Image:
    """A coarse pattern with noise on it."""
    generator = np.random.default_rng(5)
    small = generator.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((width, height)), dtype=np.int16)
    noise = generator.integers(-20, 21, (height, width, 3), dtype=np.int16)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))
