"""Miniatures in place of the weights and image sets that pages name: what a reader has at these addresses."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / folder) for folder in ("backends", "datasets") if str(TESTS / folder) not in sys.path]


def hf_vision(folder: Path) -> str:
    """A vision checkpoint in transformers' layout."""
    import hf_cases

    hf_cases.save(hf_cases.FAMILIES["dinov2"], folder)
    return f"hf:{folder}"


def hf_text(folder: Path) -> str:
    """A language checkpoint in transformers' layout, with its tokenizer."""
    import hf_cases
    import transformers

    settings = {**hf_cases.PLAIN, "vocab_size": 40, "max_position_embeddings": 64}
    transformers.BertModel(transformers.BertConfig(**settings)).eval().save_pretrained(folder)
    hf_cases.save_tokenizer(folder)
    return f"hf_text:{folder}"


def timm_folder(folder: Path) -> str:
    """What timm's `save_for_hf` writes."""
    import timm

    timm.models.save_for_hf(timm.create_model("test_vit"), folder, safe_serialization=True)
    return f"timm:local-dir:{folder}"


def open_clip_folder(folder: Path) -> str:
    """A folder with open_clip's configuration and weights."""
    import open_clip
    from safetensors.torch import save_file

    vision = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    return f"open_clip:local-dir:{folder}"


def imagebind(folder: Path) -> str:
    """A checkpoint with the published names, scaled down."""
    from imagebind_reference import Sizes, state_dict
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    save_file(state_dict(Sizes()), folder / "tiny.safetensors")
    return f"imagebind:{folder}/tiny.safetensors?heads=4&text_heads=2"


def photographs(folder: Path) -> str:
    """Image files in folders that are called after what they show."""
    from miniatures import jpeg

    for seed in range(60):  # more than `--limit 50`, so that some are in no pair
        jpeg(folder / f"kind-{seed // 3:02d}" / f"{seed}.jpg", seed)
    return f"folder:{folder}"


def imagenet(folder: Path) -> str:
    """Training images of three classes, with their names."""
    import miniatures

    miniatures.mapping(miniatures.imagenet_train(folder))
    return f"imagenet:{folder}"


#: What stands on pages (an address without its options), and what is there instead.
STAND_INS: dict[str, Callable[[Path], str]] = {
    r"hf:(facebook/(dinov2|vit-mae)-base|microsoft/beit-base-patch16-224|/folder)": hf_vision,
    r"hf_text:(sentence-transformers/all-mpnet-base-v2|/folder)": hf_text,
    r"timm:local-dir:/folder": timm_folder,
    r"timm:(vit_base_patch16_224|NAME)": lambda _: "timm:test_vit?weights=random",
    r"timm:resnet50\.a1_in1k": lambda _: "timm:test_resnet?weights=random",
    r"open_clip:(local-dir:/folder|ViT-[BHL]-\d\d(-quickgelu)?/(openai|laion2b_s3\db_b79k))": open_clip_folder,
    r"imagebind:/path/to/imagebind_huge\.pth": imagebind,
    r"folder:(PATH|photos)": photographs,
    r"imagenet:/path/to/ILSVRC": imagenet,
}


class Shelf:
    """Builds stand-ins when they are first asked for.

    Args:
        folder: Where they are written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.built: dict[str, str] = {}

    def replaced(self, command: str) -> str:
        """A command with addresses that exist here."""
        for pattern, build in STAND_INS.items():

            def here(match: re.Match[str], build: Callable[[Path], str] = build) -> str:
                named = match["address"]
                if named not in self.built:
                    self.built[named] = build(self.folder / str(len(self.built)))
                address, _, own = self.built[named].partition("?")
                pairs = [pair for text in (own, (match["options"] or "")[1:]) for pair in text.split("&") if pair]
                options = {pair.partition("=")[0]: pair for pair in pairs}  # the page's own count more
                return address + ("?" if options else "") + "&".join(options.values())

            # Not within a longer address; options behind a question mark are kept.
            command = re.sub(rf"(?<![\w:/])(?P<address>{pattern})(?![\w/])(?P<options>\?[^\s\"']+)?", here, command)
        return command
