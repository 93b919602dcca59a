"""Addresses of models and image sets that cannot be opened, as one types them."""

from __future__ import annotations

import sys

import pytest
import torch

#: After ``module:nets.Net``; the rest of each address.
SIZE = "size=8&mode=L"
MODELS = {
    "module-no-weights": f"module:nets.Net?{SIZE}",
    "module-no-input": "module:nets.Net?weights=random",
    "module-no-range": "module:nets.Net?weights=random&input_shape=64",
    "module-range-of-pixels": f"module:nets.Net?weights=random&{SIZE}&range=0,1",
    "module-mode": "module:nets.Net?weights=random&size=8&mode=RGBA",
    "module-no-attribute": f"module:nets?weights=random&{SIZE}",
    "module-absent": f"module:nest.Net?weights=random&{SIZE}",
    "module-no-such-attribute": f"module:nets.Nett?weights=random&{SIZE}",
    "module-number": f"module:nets.NUMBER?weights=random&{SIZE}",
    "module-broken": f"module:broken.Net?weights=random&{SIZE}",
    "module-argument": f"module:nets.Net?weights=random&{SIZE}&wdith=5",
    "module-fails": f"module:nets.fails?weights=random&{SIZE}",
    "module-nothing": f"module:nets.nothing?weights=random&{SIZE}",
    "module-fickle": f"module:nets.fickle?weights=own&{SIZE}",
    "seed-of-a-file": f"module:nets.Net?weights=net.pt&seed=1&{SIZE}",
    "weights-empty": f"module:nets.Net?weights=&{SIZE}",
    "weights-absent": f"module:nets.Net?weights=net.safetensors&{SIZE}",
    "weights-kind": f"module:nets.Net?weights=nets.py&{SIZE}",
    "weights-damaged": f"module:nets.Net?weights=damaged.safetensors&{SIZE}",
    "weights-damaged-torch": f"module:nets.Net?weights=damaged.pt&{SIZE}",
    "weights-code": f"module:nets.Net?weights=code.pt&{SIZE}",
    "weights-list": f"module:nets.Net?weights=list.pt&{SIZE}",
    "weights-strangers": f"module:nets.Net?weights=strangers.pt&{SIZE}",
    "weights-of-another": f"module:nets.Net?weights=other.pt&{SIZE}",
    "timm-name": "timm:facebook/dinov2-base",
    "timm-model": "timm:test_vitt?weights=random",
    "timm-tag": "timm:test_vit.r160_in2k",
    "timm-size": "timm:test_vit?weights=random&img_size=0",
    "open-clip-model": "open_clip:ViT-B-33?weights=random",
    "open-clip-tag": "open_clip:ViT-B-32/laion3b",
    "imagebind-switch": "imagebind:tiny?weights=random&normalize=maybe",
    "imagebind-size": "imagebind:base?weights=random",
    "imagebind-weights": "imagebind:huge?weights=imagebind_huge.pth",
    "imagebind-none": "imagebind:tiny",
    "imagebind-other": "imagebind:other.pt",
    "hf-directory": "hf:./nowhere",
    "hf-empty": "hf:.",
    "hf-revision": "hf:.?revision=main",
    "hf-text-option": "hf_text:.?short=yes",
}
IMAGES = {
    "folder-labels": "folder:photos?labels=names",
    "folder-links": "folder:photos?links=all",
    "folder-absent": "folder:nowhere",
    "folder-empty": "folder:empty",
    "noise-count": "noise:many",
    "noise-mode": "noise:3?mode=CMYK",
    "noise-size": "noise:3?size=big",
    "lines-absent": "lines:nowhere.txt",
    "lines-empty": "lines:empty.txt",
    "coco-nothing": "coco:empty",
    "imagenet-nothing": "imagenet:empty",
    "openimages-nothing": "openimages:empty",
    "imagenet-exclusive": "imagenet:empty?sample=3&per_class=2",
    "imagenet-short": "imagenet:empty?per_class=2&short=perhaps",
    "imagenet-seed": "imagenet:empty?seed=3",
    "imagenet-split": "imagenet:empty?split=test",
}


class Code:
    """What a pickle may run."""

    def __reduce__(self):
        return (print, ("this ran",))


@pytest.fixture
def here(nets, tmp_path, photos):
    """A directory with modules, weights and texts to name."""
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged.safetensors").write_bytes(b"not tensors")
    (tmp_path / "damaged.pt").write_bytes(b"not tensors")
    torch.save(Code(), tmp_path / "code.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"epoch": 3, "optimizer": "adam"}, tmp_path / "strangers.pt")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    (tmp_path / "empty.txt").write_text("")
    yield tmp_path
    sys.modules.pop("broken", None)


@pytest.mark.parametrize("fault", MODELS)
def test_a_model_that_cannot_be_opened(refused, here, fault, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = ("probe", "--plugin", "measure", "--model", MODELS[fault], "--images", "folder:photos")
    said = refused(*words, code=(1, 2))
    assert "next: " in said or "expected: " in said


@pytest.mark.parametrize("fault", IMAGES)
def test_an_image_set_that_cannot_be_opened(refused, here, fault):
    said = refused("probe", "--plugin", "measure", "--model", "toy", "--images", IMAGES[fault], code=(1, 2))
    assert "next: " in said or "expected: " in said
