"""``coco:ROOT``: MS-COCO, with categories as labels and captions beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import equivengine as eqv
from equivengine_plugins.datasets import paths
from equivengine_plugins.datasets.annotations import distinct_labels, shown, unusable_name
from equivengine_plugins.datasets.json_records import Record, records
from equivengine_plugins.datasets.listed import COMMON, ListedImages, choice, missing

EQUIVENGINE_API = (1, 0)

#: Splits that are taken without being asked for, in this order.
DEFAULT_SPLITS = ("val2017", "val2014")
FOLDERS = ("{split}", "images/{split}")


@dataclass
class _Image:
    """What the annotations say of an image: its number, and the total area of each category in it, by number."""

    number: int
    areas: dict[int, float] = field(default_factory=dict)

    @property
    def largest(self) -> int | None:
        """The category of the largest total area; of several, that of the smallest number."""
        return min(self.areas, key=lambda category: (-self.areas[category], category), default=None)


class Coco(ListedImages):
    """The images that ``annotations/instances_SPLIT.json`` lists, in order of their number.

    An image shows things of several categories. ``?label=largest``, the default, labels it with the category whose
    instances (crowds included) have the largest total area; without instances it has no label. ``?label=single`` takes
    only the images with instances of exactly one category. Sample.details has the areas of all categories, and the
    captions where ``annotations/captions_SPLIT.json`` is there.

    An image that is listed and not there is an error of its own sample; ``?missing=skip`` leaves such images out.
    """

    name = "coco"
    summary = "MS-COCO, with categories as labels, and captions"
    examples = ("coco:ROOT", "coco:ROOT?split=val2014&label=single", "coco:ROOT?per_class=2&short=keep")

    def __init__(self, uri: eqv.URI) -> None:
        """Read annotations, record by record; no image is opened.

        Raises:
            UsageError: If the address makes no sense.
            DataError: If part of the layout is missing, or an annotation file cannot be used.
        """
        uri.allow_options((*COMMON, "split", "label", "missing"))
        self._rule = choice(uri, "label", ("largest", "single"), "largest")
        absent = choice(uri, "missing", ("report", "skip"), "report")
        root = paths.Root.of(uri)
        self._split = _split(uri, root)
        folders = [folder.format(split=self._split) for folder in FOLDERS]
        folder = next((name for name in folders if root.is_directory(name)), None)
        if folder is None:
            raise missing(
                f"the images of {self._split!r} are not there", root, folders, f"unpack {self._split}.zip in the root"
            )
        self._images, self._labels = _instances(root.inside(_annotations("instances", self._split)))
        names = sorted(self._images, key=lambda name: self._images[name].number)
        if self._rule == "single":
            names = [name for name in names if len(self._images[name].areas) == 1]
        if absent == "skip":
            names = [name for name in names if (root.path / folder / name).exists()]
        if not names:
            raise eqv.DataError(
                f"no image of {self._split!r} is left",
                expected="at least one image" + (" of a single category" if self._rule == "single" else ""),
                got=f"{len(self._images):,} that are listed",
                hint="check the folder of images, or pass other options",
            )
        self._take(uri, root, folder, names)
        self._captions = self._read_captions()

    def _read_captions(self) -> Mapping[int, list[str]] | None:
        """Captions of the images that were taken, by number; None if there is no file of them."""
        found = self._root.first((_annotations("captions", self._split),))
        if found is None:
            return None
        path = self._root.inside(found)
        captions: dict[int, list[str]] = {self._images[name].number: [] for name in self._names}
        for member, place, values in records(path, ("annotations",)):
            record = Record(path, member, place, values)
            caption, number = record.text("caption"), record.integer("image_id")
            if number in captions:
                captions[number].append(caption)
        return captions

    def _class_of(self, name: str) -> Any:
        return self._images[name].largest

    def _label(self, name: str) -> str | None:
        category = self._images[name].largest
        return None if category is None else self._labels[category]

    def _details(self, name: str) -> dict[str, object]:
        image = self._images[name]
        details: dict[str, object] = {
            "split": self._split,
            "image_id": image.number,
            "label_rule": self._rule,
            "areas": {self._labels[key]: area for key, area in sorted(image.areas.items(), key=lambda item: -item[1])},
        }
        if self._captions is not None:
            details["captions"] = self._captions[image.number]
        return details


def _annotations(kind: str, split: str) -> str:
    return f"annotations/{kind}_{split}.json"


def _split(uri: eqv.URI, root: paths.Root) -> str:
    """The split that an address asks for, or the one that is there."""
    asked = uri.options.get("split")
    if asked is not None and not re.fullmatch("[A-Za-z0-9_]{1,40}", asked):
        raise eqv.UsageError(
            f"option 'split' of {uri.text!r} is not usable", expected="a name such as val2017", got=repr(asked)
        )
    files = root.entries("annotations")[1] if root.is_directory("annotations") else []
    there = [match[1] for name in files if (match := re.fullmatch(r"instances_([A-Za-z0-9_]{1,40})\.json", name))]
    found = asked or next((split for split in DEFAULT_SPLITS if split in there), there[0] if len(there) == 1 else None)
    if found in there:
        return str(found)
    if found is None and there:
        raise eqv.UsageError(
            f"{uri.text!r} does not say which split", expected=f"?split={there[0]}", got=f"there are {', '.join(there)}"
        )
    got = [_annotations("instances", split) for split in ([asked] if asked else DEFAULT_SPLITS)]
    raise missing(
        f"{str(root.path)!r} has no instances" + (f" of {asked!r}" if asked else ""),
        root,
        got,
        "unpack annotations_trainval2017.zip in the root; images without annotations are folder:PATH",
    )


def _instances(path: Path) -> tuple[dict[str, _Image], dict[int, str]]:
    """Images by file name, labels of categories by number."""
    images: dict[str, _Image] = {}
    numbers: set[int] = set()
    categories: dict[int, str] = {}
    areas: dict[int, dict[int, float]] = {}
    instances: set[int] = set()
    for member, place, values in records(path, ("images", "annotations", "categories")):
        record = Record(path, member, place, values)
        number = record.integer("id")
        if member == "images":
            file = record.text("file_name")
            if not paths.plain_name(file):
                raise record.bad("file_name", "a name below the folder of images, without '..' or a leading '/'")
            if number in numbers or file in images:
                raise record.bad("id" if number in numbers else "file_name", "each image once")
            numbers.add(number)
            images[file] = _Image(number)
        elif member == "categories":
            problem = unusable_name(record.text("name"))
            if problem or number in categories:
                raise (
                    record.bad("name", f"a name, not {problem}") if problem else record.bad("id", "each category once")
                )
            categories[number] = record.text("name")
        else:
            if number in instances:
                raise record.bad("id", "each instance once")
            instances.add(number)
            of_image = areas.setdefault(record.integer("image_id"), {})
            category = record.integer("category_id")
            of_image[category] = of_image.get(category, 0.0) + record.size("area")
    _require_known(path, "image_id", areas.keys() - numbers)
    _require_known(
        path, "category_id", {category for found in areas.values() for category in found} - categories.keys()
    )
    for image in images.values():
        image.areas = areas.get(image.number, {})
    return images, distinct_labels(categories, path)


def _require_known(path: Path, column: str, unknown: set[int]) -> None:
    if unknown:
        raise eqv.DataError(
            f"annotations of {str(path)!r} refer to what the file does not hold",
            expected=f"each {column} among the {'images' if column == 'image_id' else 'categories'}",
            got=f"{column} {shown(min(unknown))}" + (f" and {len(unknown) - 1:,} others" if len(unknown) > 1 else ""),
            hint="copy the file again; correct it if you made it yourself",
        )


@eqv.hookimpl
def equivengine_register_datasets() -> list[type[eqv.Dataset]]:
    """Provide `Coco`."""
    return [Coco]
