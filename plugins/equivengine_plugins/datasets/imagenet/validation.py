"""Which class each of the validation images is of that lie beside each other, not in folders of synsets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import equivengine as eqv
from equivengine_plugins.datasets import paths
from equivengine_plugins.datasets.annotations import bad_line, filled_lines, table
from equivengine_plugins.datasets.imagenet.synsets import NAME_FILES, ORDER_FILES, PLACES, SYNSET, Names, read_order
from equivengine_plugins.datasets.listed import missing

FLAT = re.compile(r"ILSVRC2012_val_([0-9]{8})\.(?:JPEG|JPG|jpeg|jpg)")
FLAT_NAME = "ILSVRC2012_val_00000001.JPEG"

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
SOLUTION = "LOC_val_solution.csv"
SYNSET_LABELS = "imagenet_2012_validation_synset_labels.txt"
CAFFE = "val.txt"

#: In the order in which they are looked for: those that name synsets first.
TRUTH_FILES = (SOLUTION, SYNSET_LABELS, GROUND_TRUTH, CAFFE)


def read_truth(
    root: paths.Root, folder: str, files: Sequence[str], names: Names | None
) -> tuple[Mapping[str, str], str, Names | None]:
    """The synset of each file, which file says so, and the names of classes.

    Args:
        root: Of the set.
        folder: Of the images, relative to it.
        files: Names that match `FLAT`.
        names: Names of classes, if any are known.

    Raises:
        DataError: If there is no file of labels, it cannot be used, or it lacks an image.
    """
    candidates = paths.places(TRUTH_FILES, PLACES if folder == "." else (*PLACES, folder))
    found = root.first(candidates)
    if found is None:
        raise missing(
            f"the classes of the {len(files):,} validation images in {str(root.path / folder)!r} are not known",
            root,
            candidates,
            f"put {GROUND_TRUTH} of the development kit there, with map_clsloc.txt or meta.mat, or Kaggle's "
            f"{SOLUTION}; or sort the images into folders of synsets",
        )
    path = root.inside(found)
    name = found.rpartition("/")[2]
    if name == SOLUTION:
        return _by_name(path, files, _solution(path)), found, names
    if name == SYNSET_LABELS:
        return _by_number(path, files, "a synset such as n01440764", _synset), found, names
    if name == GROUND_TRUTH:
        order = names if names is not None and names.order else read_order(root)
        if order is None:
            raise missing(
                f"{str(path)!r} numbers the classes in an order of its own, which no file here gives",
                root,
                paths.places(ORDER_FILES, PLACES),
                "put map_clsloc.txt or meta.mat of the development kit there: lines such as 'n02119789 1 kit_fox'",
            )
        return (
            _by_number(path, files, f"an index that {order.source} has", _devkit(order)),
            f"{found} by {order.source}",
            names or order,
        )
    if names is None:
        raise missing(
            f"{str(path)!r} numbers the classes in the order of their synsets, which no file here lists",
            root,
            paths.places((*NAME_FILES, *ORDER_FILES), PLACES),
            "put LOC_synset_mapping.txt or synset_words.txt there: lines such as 'n01440764 tench, Tinca tinca'",
        )
    return _by_name(path, files, _caffe(path, sorted(names.names))), f"{found} by {names.source}", names


def _by_number(path: Path, files: Sequence[str], expected: str, synset: Callable[[str], str | None]) -> dict[str, str]:
    """Line N is of image N; every line has to hold what was expected."""
    found: list[str] = []
    for number, line in filled_lines(path):
        value = synset(line)
        if value is None:
            raise bad_line(path, number, expected, line)
        found.append(value)
    truth: dict[str, str] = {}
    for file in files:
        match = FLAT.fullmatch(file)
        place = int(match[1]) if match else 0
        if not 1 <= place <= len(found):
            raise _lacks(path, file, f"line {place} of {len(found):,}")
        truth[file] = found[place - 1]
    return truth


def _by_name(path: Path, files: Sequence[str], entries: Iterator[tuple[int, str, str]]) -> dict[str, str]:
    """Entries of line number, name of the image without suffix, synset."""
    found: dict[str, str] = {}
    for number, stem, synset in entries:
        if stem in found:
            raise bad_line(path, number, "each image once", f"{stem} for a second time")
        found[stem] = synset
    for file in files:
        if file.rpartition(".")[0] not in found:
            raise _lacks(path, file, f"{len(found):,} other images")
    return {file: found[file.rpartition(".")[0]] for file in files}


def _synset(line: str) -> str | None:
    return line if SYNSET.fullmatch(line) else None


def _devkit(order: Names) -> Callable[[str], str | None]:
    def synset(line: str) -> str | None:
        return order.order.get(int(line)) if re.fullmatch("[0-9]{1,5}", line) else None

    return synset


def _solution(path: Path) -> Iterator[tuple[int, str, str]]:
    """Rows such as ``ILSVRC2012_val_00048981,n03995372 85 1 499 272``: a synset and its boxes."""
    for number, (image, prediction) in table(path, ("ImageId", "PredictionString")):
        synset = prediction.partition(" ")[0]
        if not FLAT.fullmatch(f"{image}.JPEG") or not SYNSET.fullmatch(synset):
            raise bad_line(path, number, "an image and its synset, as published", f"{image},{prediction}")
        yield number, image, synset


def _caffe(path: Path, synsets: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Lines such as ``ILSVRC2012_val_00000001.JPEG 65``: the index, from 0, in the order of synsets."""
    for number, line in filled_lines(path):
        name, _, index = line.rpartition(" ")
        file = name.strip().rpartition("/")[2]
        if not FLAT.fullmatch(file) or not re.fullmatch("[0-9]{1,5}", index) or int(index) >= len(synsets):
            expected = f"an image and an index of {len(synsets):,} synsets, from 0, such as {FLAT_NAME} 65"
            raise bad_line(path, number, expected, line)
        yield number, file.rpartition(".")[0], synsets[int(index)]


def _lacks(path: Path, file: str, got: str) -> eqv.DataError:
    return eqv.DataError(
        f"{str(path)!r} does not say what {file!r} shows",
        expected="a class for each validation image that is there",
        got=got,
        hint="copy the file again, or move images that are not of the set away",
    )
