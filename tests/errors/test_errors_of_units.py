"""Units that cannot be measured: the run is kept, and says of each what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

NET = "module:nets.Net?weights=random&size=8&mode=L"
WIDE, DEAD = (NET.replace("Net", name) for name in ("wide", "dead"))
GREY = "noise:2?size=8&mode=L"

UNITS = {
    "ldlc-no-null-space": ("ldlc", WIDE, GREY, ()),
    "ldlc-zero": ("ldlc", DEAD, "folder:black", ("--targets", GREY)),
    "spectrum-zero": ("spectrum", DEAD, "folder:black", ()),
    "spectrum-angles": ("spectrum", NET, GREY, ("angles=99",)),
    "lipschitz-zero": ("lipschitz", DEAD, "folder:black", ()),
    "lsb-zero": ("lsb", DEAD, "folder:black", ()),
    "numerics-zero": ("numerics", DEAD, "folder:black", ()),
    "numerics-lengths": ("numerics", NET, GREY, ("length_min=100",)),
    "match-no-text-tower": ("match", NET, GREY, ("text=a zebra",)),
    "projection-few": ("projection", NET, GREY, ()),
    "transfer-no-labels": ("transfer", NET, GREY, ("heads=own",)),
    "transfer-one-image": ("transfer", NET, "noise:1?size=8&mode=L", ("other_class=false",)),
    "transfer-no-classifier": ("transfer", NET, GREY, ("heads=own", "other_class=false")),
    "transfer-no-text-tower": ("transfer", NET, GREY, ("heads=text", "other_class=false")),
    "transfer-prompts": ("transfer", NET, GREY, ('prompts=["a", "b"]', "heads=own", "other_class=false")),
    "transfer-no-head": ("transfer", NET, GREY, ("other_class=false",)),
    "transfer-mean": ("transfer", NET, GREY, ("heads=mean", "other_class=false")),
    "text-of-bytes": ("measure", "toy", "lines:bytes.txt", ()),
    "text-for-images": ("measure", "toy", "sentences", ("--limit", "1")),
    "not-decoded": ("measure", "toy", "folder:broken", ()),
}


@pytest.fixture
def here(nets, tmp_path):
    """A directory with a black image, a file that is no image, and odd texts."""
    for name in ("black", "broken"):
        (tmp_path / name).mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "black" / "black.png")
    (tmp_path / "broken" / "a.png").write_bytes((tmp_path / "black" / "black.png").read_bytes()[:40])
    (tmp_path / "bytes.txt").write_bytes(b"caf\xe9\n")
    return tmp_path


@pytest.mark.parametrize("fault", UNITS)
def test_a_unit_that_cannot_be_measured(refused, here, fault):
    probe, model, images, options = UNITS[fault]
    settings = [word for option in options for word in (("--set", option) if "=" in option[:12] else (option,))]
    if options and options[0].startswith("--"):
        settings = list(options)
    words = ("--plugin", probe, "--model", model, "--images", images, *settings, "--out", "run")
    said = refused("probe", *words, code=(1, 2), keeps=("run",))
    assert "next: " in said or "expected: " in said
