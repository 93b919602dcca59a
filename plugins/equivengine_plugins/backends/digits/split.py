"""Which digits train the model and which are held out: `python -m equivengine_plugins.backends.digits.split --out DIR`.

The held-out images ship as package data, so that only training needs scikit-learn.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save

from equivengine.errors import DataError, EngineError
from equivengine_plugins.backends.digits.pixels import to_uint8

DATA = Path(__file__).parents[2] / "datasets" / "data"
ARRAYS_NAME, RECORD_NAME = "digits_heldout.safetensors", "digits_heldout.json"
HELD_OUT = 360
SEED = 1998

SOURCE = {
    "title": "Optical Recognition of Handwritten Digits",
    "authors": "E. Alpaydin, C. Kaynak",
    "year": 1998,
    "publisher": "UCI Machine Learning Repository",
    "doi": "10.24432/C50P49",
    "licence": "CC BY 4.0",
    "licence_url": "https://creativecommons.org/licenses/by/4.0/",
    "copy": "sklearn.datasets.load_digits (the 1797 images of the source's test set)",
    "changes": "ink counts 0..16 scaled to grey levels 0..255 and rounded half to even; 360 of 1797 images kept",
}


@dataclass(frozen=True)
class Digits:
    """Some digits.

    Attributes:
        images: uint8 [N, 8, 8], values 0 to 255, bright strokes on black.
        labels: int64 [N], 0 to 9.
        indices: int64 [N], places in the source of 1797.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_source() -> Digits:
    """All 1797 digits of scikit-learn's copy.

    Raises:
        DataError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "the training digits come with scikit-learn, which is not installed",
            hint="pip install 'equivengine[train]'",
        ) from error
    source = load_digits()
    return Digits(to_uint8(source.images), source.target.astype(np.int64), np.arange(len(source.target)))


def choose(labels: np.ndarray, held_out: int = HELD_OUT, seed: int = SEED) -> tuple[np.ndarray, np.ndarray]:
    """Hold digits out at random, each class in its share (largest remainders).

    Args:
        labels: int64 [N].
        held_out: How many to hold out.
        seed: Fixes the choice.

    Returns:
        Sorted int64 indices to train on, [N - held_out], and to hold out, [held_out].
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    classes, counts = np.unique(labels, return_counts=True)
    shares = counts * held_out / len(labels)
    take = np.floor(shares).astype(int)
    take[np.argsort(take - shares, kind="stable")[: held_out - take.sum()]] += 1
    chosen = [
        generator.permutation(np.flatnonzero(labels == digit))[:count]
        for digit, count in zip(classes, take, strict=True)
    ]
    held = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(labels)), held), held


def write(folder: Path) -> Path:
    """Write the held-out digits, both index lists and a record with digest and attribution; returns the array file."""
    source = load_source()
    train, held = choose(source.labels)
    arrays = {
        "images": source.images[held],
        "labels": source.labels[held],
        "indices": held,
        "train_indices": train,
    }
    path = folder / ARRAYS_NAME
    path.write_bytes(save({name: torch.from_numpy(array) for name, array in arrays.items()}))
    record = {
        "file": ARRAYS_NAME,
        "sha256": sha256(path),
        "held_out": len(held),
        "training": len(train),
        "seed": SEED,
        "arrays": {
            "images": "uint8 [360, 8, 8], grey levels 0..255 of the held-out digits",
            "labels": "int64 [360], digits 0..9",
            "indices": "int64 [360], places of the held-out digits in the source",
            "train_indices": "int64 [1437], places of the training digits in the source",
        },
        "source": SOURCE,
    }
    (folder / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return path


def load_heldout() -> Digits:
    """The shipped held-out digits: images uint8 [360, 8, 8], labels and indices int64 [360]."""
    arrays = load_file(DATA / ARRAYS_NAME)
    return Digits(arrays["images"].numpy(), arrays["labels"].numpy(), arrays["indices"].numpy())


def load_training() -> Digits:
    """The training digits: images uint8 [1437, 8, 8], labels and indices int64 [1437].

    Raises:
        DataError: scikit-learn is missing, or its digits are not those that the split was drawn from.
    """
    source, held = load_source(), load_heldout()
    if not (
        np.array_equal(source.images[held.indices], held.images)
        and np.array_equal(source.labels[held.indices], held.labels)
    ):
        raise DataError(
            f"scikit-learn's digits are not those from which {ARRAYS_NAME} was drawn",
            expected="the 1797 digits that scikit-learn 1.9 carries",
            hint="install the version of scikit-learn named in MODEL_CARD.md",
        )
    rows = load_file(DATA / ARRAYS_NAME)["train_indices"].numpy()
    return Digits(source.images[rows], source.labels[rows], rows)


def main(arguments: list[str] | None = None) -> int:
    """Write the split into a folder; returns the exit status."""
    parser = argparse.ArgumentParser(prog="equivengine_plugins.backends.digits.split", description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    options = parser.parse_args(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        path = write(options.out)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{path.name}  sha256 {sha256(path)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
