"""bench/model_families.py measures every family that the documentation promises."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
pytest.importorskip("transformers")

import model_families as bench  # after the path is known

import equivengine as eqv

PROMISED = (
    *("timm ViT", "timm DeiT", "timm BEiT", "timm EVA-02", "timm Swin", "timm ConvNeXt", "timm ResNet"),
    *("open_clip ViT-B-32", "open_clip ViT-B-32-quickgelu", "imagebind, scaled down", "hf_text BERT"),
    *("hf BEiT", "hf DeiT", "hf Swin", "hf ViTMAE", "hf ViTMSN"),
)


def test_every_family_is_there_with_weights_that_are_said_to_be_random():
    assert {family.name for family in bench.FAMILIES} == set(PROMISED)
    for family in bench.FAMILIES:
        uri = eqv.URI.parse(family.address)
        assert uri.options["weights"] == "random"
        assert ("{folder}" in family.address) == (family.write is not None)


@pytest.mark.parametrize("name", [name for name in PROMISED if name.startswith("hf")])
def test_what_is_written_for_transformers_loads(name, tmp_path):
    (family,) = [family for family in bench.FAMILIES if family.name == name]
    family.write(tmp_path)
    encoder = eqv.load_encoder(family.address.format(folder=tmp_path), device="cpu")
    assert encoder.spec.random_weights
    x = encoder.preprocess(eqv.load_images(family.samples)[0].load())
    assert tuple(x.shape) == ((16, 256) if name == "hf_text BERT" else (3, 224, 224))
