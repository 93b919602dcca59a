"""Write the photographs of the `samples` image set: `python tools/bundle_samples.py`.

Needs scikit-image 0.26, which carries the originals. A picture is taken only if its photographer or publisher put it
under CC0 or in the public domain and nobody disputes that. scikit-image's `rocket` is left out: its publisher released
it under CC0 in 2015 and has shown CC BY-NC 2.0 on the same page since 2019 (scikit-image issue 5095).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from PIL import Image

FOLDER = Path(__file__).parents[1] / "plugins" / "equivengine_plugins" / "datasets" / "data"
SHORT_SIDE = 512
QUALITY = 92


class Photograph(NamedTuple):
    """A picture in `skimage.data` and whose it is."""

    name: str
    title: str
    author: str
    licence: str
    source: str


PHOTOGRAPHS = (
    Photograph(
        "chelsea",
        "Chelsea the cat",
        "Stéfan van der Walt",
        "CC0-1.0",
        "scikit-image 0.26, skimage.data.chelsea",
    ),
    Photograph(
        "coffee",
        "Coffee cup, Pikolo Espresso Bar",
        "Rachel Michetti",
        "CC0-1.0",
        "scikit-image 0.26, skimage.data.coffee",
    ),
    Photograph(
        "astronaut",
        "Astronaut Eileen Collins",
        "NASA",
        "Public domain (work of NASA, a United States government agency)",
        "scikit-image 0.26, skimage.data.astronaut; NASA Great Images, https://flic.kr/p/r9qvLn",
    ),
    Photograph(
        "camera",
        "A photographer at work",
        "Lav Varshney",
        "CC0-1.0",
        "scikit-image 0.26, skimage.data.camera; https://github.com/scikit-image/scikit-image/issues/3927",
    ),
)


def bundle(folder: Path) -> int:
    """Write the JPEG files and `samples.json`; returns the bytes that all pictures take."""
    from skimage import data

    entries = []
    for photograph in PHOTOGRAPHS:
        image = Image.fromarray(getattr(data, photograph.name)())
        shrink = SHORT_SIDE / min(image.size)
        if shrink < 1:
            image = image.resize([round(side * shrink) for side in image.size], Image.Resampling.LANCZOS)
        path = folder / f"{photograph.name}.jpg"
        image.save(path, "JPEG", quality=QUALITY, optimize=True)
        entries.append(
            {
                **photograph._asdict(),
                "file": path.name,
                "width": image.width,
                "height": image.height,
                "mode": image.mode,
                "bytes": path.stat().st_size,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
        )
    record = {"format_version": 1, "images": entries}
    text = json.dumps(record, indent=2, ensure_ascii=False)
    (folder / "samples.json").write_text(text + "\n", encoding="utf-8")
    return sum(entry["bytes"] for entry in entries)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write into (default: the package's)")
    print(f"{bundle(parser.parse_args().out)} bytes")
