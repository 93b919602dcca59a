"""``imagenet:ROOT``: the ImageNet challenge (ILSVRC 2012), training and validation images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import equivengine as eqv
from equivengine_plugins.datasets import images, paths
from equivengine_plugins.datasets.imagenet.synsets import SYNSET, Names, read_names
from equivengine_plugins.datasets.imagenet.validation import FLAT, FLAT_NAME, read_truth
from equivengine_plugins.datasets.listed import COMMON, ListedImages, choice, missing

EQUIVENGINE_API = (1, 0)

SPLITS = ("val", "train")
#: Where a split lies: as the archives unpack, and as Kaggle's archive does.
FOLDERS = ("{split}", "ILSVRC/Data/CLS-LOC/{split}")


class ImageNet(ListedImages):
    """The images of a split in folders of synsets, or validation images beside each other with their ground truth.

    In order of their relative path. The label is the first name of the class, with the synset behind it where two
    classes share that name ("crane (n02012849)"); the synset alone where no file of names is there.

    ``?split=val|train`` takes a split; without it, val where there is one, else train.
    """

    name = "imagenet"
    summary = "ImageNet (ILSVRC 2012), with class names"
    examples = ("imagenet:ROOT", "imagenet:ROOT?split=train&per_class=5&seed=1", "imagenet:ROOT?sample=1000")

    def __init__(self, uri: eqv.URI) -> None:
        """Read names of files, of classes, and the ground truth where it is needed; no image is opened.

        Raises:
            UsageError: If the address makes no sense.
            DataError: If part of the layout is missing, or a file of annotations cannot be used.
        """
        uri.allow_options((*COMMON, "split"))
        asked = choice(uri, "split", SPLITS, "") if "split" in uri.options else None
        root = paths.Root.of(uri)
        self._split, folder, self._skipped, flat = _split(root, asked)
        names = read_names(root)
        self._truth: Mapping[str, str] = {}
        self._source = "folders of synsets"
        if flat:
            self._truth, self._source, names = read_truth(root, folder, flat, names)
        self._synsets: Names = names or Names.unknown()
        self._take(uri, root, folder, flat or self._foldered(root, folder))
        self.remarks = paths.left_out(self._skipped)

    def _foldered(self, root: paths.Root, folder: str) -> list[str]:
        found: list[str] = []
        skipped = list(self._skipped)
        for synset in root.entries(folder)[0]:
            if SYNSET.fullmatch(synset):
                below, files = root.entries(f"{folder}/{synset}")
                found += (f"{synset}/{name}" for name in files if _is_image(name))
                skipped += (f"{synset}/{name}" for name in (*below, *(file for file in files if not _is_image(file))))
        self._skipped = tuple(skipped)
        if not found:
            raise eqv.DataError(
                f"the folders of synsets in {str(root.path / folder)!r} hold no images",
                expected="files such as n01440764/n01440764_10026.JPEG",
                got=f"{len(skipped):,} other files and folders",
                hint="unpack the archive of each synset into its folder",
            )
        return found

    @property
    def skipped(self) -> tuple[str, ...]:
        """What lies among the images of the split and was not taken for one, in order; relative to its folder."""
        return self._skipped

    def _identity(self, name: str) -> str:
        """Validation images are numbered: they are the same images with and without folders of synsets."""
        file = name.rpartition("/")[2]
        return file if FLAT.fullmatch(file) else name

    def _class_of(self, name: str) -> Any:
        return self._truth[name] if self._truth else name.partition("/")[0]

    def _label(self, name: str) -> str | None:
        synset = str(self._class_of(name))
        return self._synsets.labels.get(synset, synset)

    def _details(self, name: str) -> dict[str, object]:
        synset = self._class_of(name)
        return {
            "split": self._split,
            "synset": synset,
            "names": self._synsets.names.get(synset),
            "names_from": self._synsets.source,
            "class_from": self._source,
        }


def _split(root: paths.Root, asked: str | None) -> tuple[str, str, tuple[str, ...], list[str]]:
    """Split, its folder, what lies there and is no image, and the images that lie there beside each other."""
    looked: list[str] = []
    for split in (asked,) if asked else SPLITS:
        folders = [folder.format(split=split) for folder in FOLDERS]
        looked += (f"{folder}/n01440764" for folder in folders)
        for folder in folders + ["."] * (split == "val"):
            if not root.is_directory(folder):
                continue
            directories, files = root.entries(folder)
            synsets = [name for name in directories if SYNSET.fullmatch(name)]
            flat = [name for name in files if split == "val" and FLAT.fullmatch(name)]
            if folder == "." and not flat:
                continue
            if synsets and flat:
                raise eqv.DataError(
                    f"{str(root.path / folder)!r} holds both folders of synsets and validation images beside them",
                    expected="all images in folders of synsets, or none",
                    got=f"{len(synsets):,} folders and {len(flat):,} files such as {flat[0]!r}",
                    hint="finish sorting the images into folders, or move the folders away",
                )
            if synsets or flat:
                taken = {*synsets, *flat}
                return split, folder, tuple(name for name in (*directories, *files) if name not in taken), flat
        if split == "val":
            looked += (f"{folder}/{FLAT_NAME}" for folder in (*folders, "."))
    raise missing(
        f"{str(root.path)!r} holds no {asked or 'ImageNet'} images in a known layout",
        root,
        [os.path.normpath(place) for place in looked],
        "give the directory above the splits (imagenet:ROOT), laid out as docs/datasets.md shows",
    )


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in images.SUFFIXES


@eqv.hookimpl
def equivengine_register_datasets() -> list[type[eqv.Dataset]]:
    """Provide `ImageNet`."""
    return [ImageNet]
