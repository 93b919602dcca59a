"""Writes miniature image sets in the layouts and file formats of ImageNet, MS-COCO and Open Images."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

TENCH, GOLDFISH, CRANE_BIRD, CRANE, KIT_FOX = "n01440764", "n01443537", "n02012849", "n03126707", "n02119789"

#: As LOC_synset_mapping.txt has them; two classes of ImageNet are called "crane".
WORDS = {
    TENCH: "tench, Tinca tinca",
    GOLDFISH: "goldfish, Carassius auratus",
    CRANE_BIRD: "crane",
    KIT_FOX: "kit fox, Vulpes macrotis",
    CRANE: "crane",
}
LABELS = {
    TENCH: "tench",
    GOLDFISH: "goldfish",
    CRANE_BIRD: "crane (n02012849)",
    KIT_FOX: "kit fox",
    CRANE: "crane (n03126707)",
}


def jpeg(path: Path, seed: int) -> Path:
    """A gray 8 x 8 JPEG that is a function of a seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(1, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "JPEG", quality=95)
    return path


# -- ImageNet ---------------------------------------------------------------------------------------------------------


def val_name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def imagenet_train(root: Path, classes: Iterable[str] = (TENCH, GOLDFISH, CRANE), count: int = 3) -> Path:
    """ROOT/train/n01440764/n01440764_10026.JPEG"""
    for place, synset in enumerate(classes):
        for index in range(count):
            jpeg(root / "train" / synset / f"{synset}_{10026 + index}.JPEG", 100 * place + index)
    return root


def imagenet_folders(root: Path, classes: Sequence[str], below: str = "val") -> Path:
    """ROOT/val/n01440764/ILSVRC2012_val_00000001.JPEG, one image for each class named, in order of their number."""
    for number, synset in enumerate(classes, 1):
        jpeg(root / below / synset / val_name(number), number)
    return root


def imagenet_flat(root: Path, count: int, below: str = "val") -> Path:
    """ROOT/val/ILSVRC2012_val_00000001.JPEG"""
    for number in range(1, count + 1):
        jpeg(root / below / val_name(number), number)
    return root


def mapping(root: Path, words: Mapping[str, str] = WORDS, name: str = "LOC_synset_mapping.txt") -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("".join(f"{synset} {text}\n" for synset, text in sorted(words.items())))
    return root


def ground_truth(root: Path, indices: Iterable[int], below: str = "ILSVRC2012_devkit_t12/data") -> Path:
    path = root / below / "ILSVRC2012_validation_ground_truth.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{index}\n" for index in indices))
    return path


# -- MS-COCO ----------------------------------------------------------------------------------------------------------

CATEGORIES = {1: "person", 18: "dog", 62: "chair"}


def coco_image(number: int, split: str = "val2017") -> str:
    return f"{number:012d}.jpg" if split.endswith("2017") else f"COCO_{split}_{number:012d}.jpg"


def instances(
    images: Mapping[int, Sequence[tuple[int, float]]],
    split: str = "val2017",
    categories: Mapping[int, str] = CATEGORIES,
) -> dict:
    """The document of instances_SPLIT.json: for each image, category and area of each instance."""
    numbers = iter(range(1, 10**6))
    return {
        "info": {"description": "COCO 2017 Dataset", "year": 2017},
        "licenses": [{"url": "http://creativecommons.org/licenses/by/2.0/", "id": 4, "name": "Attribution License"}],
        "images": [
            {
                "license": 4,
                "file_name": coco_image(number, split),
                "coco_url": f"http://images.cocodataset.org/{split}/{coco_image(number, split)}",
                "height": 8,
                "width": 8,
                "date_captured": "2013-11-21 01:34:01",
                "id": number,
            }
            for number in images
        ],
        "annotations": [
            {
                "segmentation": [[1.0, 1.0, 3.0, 1.0, 3.0, 3.0]],
                "area": area,
                "iscrowd": 0,
                "image_id": number,
                "bbox": [1.0, 1.0, 2.0, 2.0],
                "category_id": category,
                "id": next(numbers),
            }
            for number, found in images.items()
            for category, area in found
        ],
        "categories": [{"supercategory": "any", "id": key, "name": name} for key, name in categories.items()],
    }


def captions(images: Mapping[int, Sequence[str]]) -> dict:
    numbers = iter(range(1, 10**6))
    return {
        "info": {},
        "licenses": [],
        "images": [],
        "annotations": [
            {"image_id": number, "id": next(numbers), "caption": text}
            for number, texts in images.items()
            for text in texts
        ],
    }


def coco(root: Path, document: dict | None = None, split: str = "val2017", caption: dict | None = None) -> Path:
    """ROOT/val2017/000000000139.jpg and ROOT/annotations/instances_val2017.json; images are written as listed."""
    if document is None:
        document = instances(
            {
                139: [(1, 40.0), (62, 25.0), (62, 25.0)],  # chairs together are the largest
                285: [(18, 300.5)],
                632: [],
                724: [(18, 10.0), (1, 10.0)],
                776: [(1, 5.5), (1, 4.5)],
            },
            split,
        )
    for image in document["images"]:
        jpeg(root / split / image["file_name"], image["id"])
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
    if caption is not None:
        (root / "annotations" / f"captions_{split}.json").write_text(json.dumps(caption))
    return root


# -- Open Images ------------------------------------------------------------------------------------------------------

MIDS = {"/m/0jbk": "Animal", "/m/0bt9lr": "Dog", "/m/01g317": "Person", "/m/0c9ph5": "Flower"}
ROWS = [
    ("0001eeaf4aed83f9", "verification", "/m/0jbk", "1"),
    ("0001eeaf4aed83f9", "crowdsource-verification", "/m/0bt9lr", "1"),
    ("0001eeaf4aed83f9", "verification", "/m/01g317", "0"),
    ("00075905539074f2", "verification", "/m/0jbk", "1"),
    ("0009bad4d8539bb4", "verification", "/m/01g317", "1"),
    ("0009bad4d8539bb4", "verification", "/m/0c9ph5", "1"),
    ("0009bad4d8539bb4", "crowdsource-verification", "/m/0c9ph5", "0"),
    ("000a045a0715d64d", "verification", "/m/0c9ph5", "0"),
    ("ffffffffffffffff", "verification", "/m/01g317", "1"),
    ("fffffffffffffffe", "verification", "/m/01g317", "1"),
]


def write_csv(path: Path, header: Sequence[str] | None, rows: Iterable[Sequence[str]], end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator=end)
        if header is not None:
            writer.writerow(header)
        writer.writerows(rows)
    return path


def openimages(
    root: Path,
    rows: Sequence[Sequence[str]] = ROWS,
    classes: Mapping[str, str] = MIDS,
    images: Iterable[str] = ("0001eeaf4aed83f9", "00075905539074f2", "0009bad4d8539bb4", "000a045a0715d64d"),
    labels: str = "validation-annotations-human-imagelabels.csv",
    descriptions: str = "class-descriptions.csv",
    below: str = "validation",
) -> Path:
    """ROOT/validation/0001eeaf4aed83f9.jpg, the table of labels and that of class descriptions."""
    for seed, image in enumerate(images):
        jpeg(root / below / f"{image}.jpg", seed)
    write_csv(root / labels, ("ImageID", "Source", "LabelName", "Confidence"), rows)
    header = ("LabelName", "DisplayName") if descriptions.startswith("oidv7") else None
    write_csv(root / descriptions, header, classes.items())
    return root
