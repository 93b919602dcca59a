"""``openimages:ROOT``: Open Images, with the labels that people verified."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import equivengine as eqv
from equivengine_plugins.datasets import images, paths
from equivengine_plugins.datasets.annotations import bad_line, distinct_labels, rows, table, unusable_name
from equivengine_plugins.datasets.listed import COMMON, ListedImages, choice, missing
from equivengine_plugins.datasets.sampling import Sampling

EQUIVENGINE_API = (1, 0)

SPLITS = ("validation", "train", "test")
MAX_TABLE_BYTES = 2**36
"""Largest table of labels; the largest published ones have some 10 GB."""

MAX_CLASSES = 10**6
"""Most classes of a table; some 20,000 are published."""

RULES = ("rarest", "first", "single")
FOLDERS = ("{split}", "images/{split}", "images")
#: Folders below the root in which tables are looked for.
PLACES = ("", "annotations", "labels", "metadata")
CLASS_FILES = (
    "oidv7-class-descriptions.csv",
    "oidv6-class-descriptions.csv",
    "class-descriptions.csv",
    "oidv7-class-descriptions-boxable.csv",
    "class-descriptions-boxable.csv",
)
LABEL_FILES = (
    "oidv7-{short}-annotations-human-imagelabels.csv",
    "oidv6-{split}-annotations-human-imagelabels.csv",
    "{split}-annotations-human-imagelabels.csv",
    "{split}-annotations-human-imagelabels-boxable.csv",
)
COLUMNS = ("ImageID", "LabelName", "Confidence")


class OpenImages(ListedImages):
    """The images of a split that are there, in order of their name, with human-verified image-level labels.

    An image has several labels, from "Animal" to "Terrier". ``?label=rarest``, the default, takes the one that is
    verified in the fewest rows of the whole table: the rarest is the most particular. The order of rows, which
    ``?label=first`` goes by, says nothing about the image. ``?label=single`` takes only the images with exactly one.
    An image without a verified label has none. Sample.details has them all, with those that people found absent, and
    those on which rows disagree, which count as neither.
    """

    name = "openimages"
    summary = "Open Images, with labels that people verified"
    examples = ("openimages:ROOT", "openimages:ROOT?split=train&label=single", "openimages:ROOT?per_class=3&short=drop")

    def __init__(self, uri: eqv.URI) -> None:
        """Read tables row by row, keeping those of images that are there; no image is opened.

        Raises:
            UsageError: If the address makes no sense.
            DataError: If part of the layout is missing, or a table cannot be used.
        """
        uri.allow_options((*COMMON, "split", "label"))
        self._split = choice(uri, "split", SPLITS, "validation")
        self._rule = choice(uri, "label", RULES, "rarest")
        root = paths.Root.of(uri)
        folder, files, self._skipped = _images(root, self._split)
        short = "val" if self._split == "validation" else self._split
        candidates = [name.format(split=self._split, short=short) for name in LABEL_FILES]
        found = root.first(paths.places(dict.fromkeys(candidates), PLACES))
        if found is None:
            raise missing(
                f"the labels of {self._split!r} are not there",
                root,
                paths.places(dict.fromkeys(candidates), PLACES),
                "put the table of human-verified image-level labels there; images without labels are folder:PATH",
            )
        if "sample" in uri.options and self._rule != "single":
            files = Sampling.of(uri).draw(files, self._class_of, uri)  # the rows of those are all that is kept
        self._source = found
        self._verified = _Verified(root.inside(found), [_image_id(file) for file in files])
        descriptions = root.first(paths.places(CLASS_FILES, PLACES))
        self._labels = {} if descriptions is None else _descriptions(root.inside(descriptions))
        if self._rule == "single":
            files = [file for file in files if len(self._verified.present(_image_id(file))) == 1]
            if not files:
                raise eqv.DataError(
                    f"no image in {str(root.path / folder)!r} has exactly one verified label",
                    expected="at least one, with label=single",
                    got=f"none by {found}",
                    hint="pass label=rarest",
                )
        self._take(uri, root, folder, files)
        self.remarks = paths.left_out(self._skipped)

    @property
    def skipped(self) -> tuple[str, ...]:
        """What lies among the images and was not taken for one, in order."""
        return self._skipped

    def _class_of(self, name: str) -> Any:
        present = self._verified.present(_image_id(name))
        if self._rule == "rarest":
            return min(present, key=lambda label: (self._verified.count[label], label), default=None)
        return next(iter(present), None)

    def _label(self, name: str) -> str | None:
        label = self._class_of(name)
        return None if label is None else self._called(label)

    def _called(self, label: str) -> str:
        return self._labels.get(label, label)

    def _details(self, name: str) -> dict[str, object]:
        image = _image_id(name)
        return {
            "split": self._split,
            "image_id": image,
            "label_rule": self._rule,
            "labels_from": self._source,
            "class": self._class_of(name),
            "present": [self._called(label) for label in self._verified.present(image)],
            "absent": [self._called(label) for label in self._verified.absent(image)],
            "disputed": [self._called(label) for label in self._verified.disputed(image)],
        }


class _Verified:
    """The rows of a table of image-level labels that are of some images.

    Attributes:
        count: How many rows of the whole table say that a label is present.
    """

    def __init__(self, path: Path, wanted: list[str]) -> None:
        self.count: Counter[str] = Counter()
        # Of each label of an image: 1 where rows say present, 2 where they say absent, 3 where they disagree.
        self._said: dict[str, dict[str, int]] = {image: {} for image in wanted}
        for number, (image, label, confidence) in table(path, COLUMNS, MAX_TABLE_BYTES):
            if len(image) != 16 or not image.isalnum():
                raise bad_line(path, number, "an ImageID of 16 hexadecimal digits", image)
            if not label.startswith("/") or unusable_name(label):
                raise bad_line(path, number, "a LabelName such as /m/01226z", label)
            present = _confidence(path, number, confidence)
            if present:
                self.count[label] += 1
                if len(self.count) > MAX_CLASSES:
                    raise bad_line(path, number, f"at most {MAX_CLASSES:,} classes", "one more")
            said = self._said.get(image)
            if said is not None and present is not None:
                label = sys.intern(label)
                said[label] = said.get(label, 0) | (1 if present else 2)

    def present(self, image: str) -> list[str]:
        """Labels that are verified present, in the order of the table."""
        return self._that(image, 1)

    def absent(self, image: str) -> list[str]:
        """Labels that are verified absent."""
        return self._that(image, 2)

    def disputed(self, image: str) -> list[str]:
        """Labels that rows say both of."""
        return self._that(image, 3)

    def _that(self, image: str, said: int) -> list[str]:
        return [label for label, value in self._said[image].items() if value == said]


def _confidence(path: Path, number: int, text: str) -> bool | None:
    """Present, absent, or None for what a machine was not sure of."""
    if text in ("1", "0"):
        return text == "1"
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:  # NaN as well
        raise bad_line(path, number, "a Confidence of 1 (present) or 0 (absent)", text)
    return bool(value) if value in (0, 1) else None


def _images(root: paths.Root, split: str) -> tuple[str, list[str], tuple[str, ...]]:
    """The folder of a split, the images in it, and what else is there."""
    folders = [folder.format(split=split) for folder in FOLDERS]
    for folder in folders:
        if not root.is_directory(folder):
            continue
        directories, files = root.entries(folder)
        found = [file for file in files if os.path.splitext(file)[1].lower() in images.SUFFIXES]
        if found:
            twice = [image for image, count in Counter(map(_image_id, found)).items() if count > 1]
            if twice:
                raise eqv.DataError(
                    f"{str(root.path / folder)!r} holds an image twice",
                    expected="one file for each ImageID",
                    got=f"{', '.join(repr(file) for file in found if _image_id(file) == twice[0])}",
                    hint="move one of them away",
                )
            taken = set(found)
            return folder, found, tuple(name for name in (*directories, *files) if name not in taken)
    raise missing(
        f"{str(root.path)!r} holds no images of {split!r}",
        root,
        [f"{folder}/0001eeaf4aed83f9.jpg" for folder in folders],
        "give the directory above the splits, or another ?split",
    )


def _image_id(file: str) -> str:
    return file.rpartition(".")[0]


def _descriptions(path: Path) -> Mapping[str, str]:
    """What classes are called: rows such as ``/m/011k07,Tortoise``, below a header or not."""
    names: dict[str, str] = {}
    for number, row in _without_header(rows(path)):
        problem = unusable_name(row[1]) if len(row) == 2 else f"{len(row)} fields"
        if problem or not row[0].startswith("/"):
            raise bad_line(
                path, number, "a LabelName and what it is called, such as /m/011k07,Tortoise", problem or row
            )
        if names.setdefault(row[0], row[1]) != row[1]:
            raise bad_line(path, number, "one name for each LabelName", f"{row[0]} for a second time")
    return distinct_labels(names, path)


def _without_header(found: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    for place, (number, row) in enumerate(found):
        if place or row != ["LabelName", "DisplayName"]:
            yield number, row


@eqv.hookimpl
def equivengine_register_datasets() -> list[type[eqv.Dataset]]:
    """Provide `OpenImages`."""
    return [OpenImages]
