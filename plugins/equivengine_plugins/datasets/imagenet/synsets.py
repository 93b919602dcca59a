"""What the classes of ImageNet are called, and the order in which the development kit counts them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import equivengine as eqv
from equivengine_plugins.datasets import images, paths
from equivengine_plugins.datasets.annotations import (
    bad_line,
    distinct_labels,
    document,
    filled_lines,
    shown,
    unusable_name,
)

SYNSET = re.compile(r"n[0-9]{8}")
"""A WordNet id as ImageNet writes it."""

PLACES = ("", "devkit", "devkit/data", "ILSVRC2012_devkit_t12/data", "ILSVRC/devkit/data")
"""Folders below the root in which files of the development kit, and those that others made, are looked for."""

MAX_MAT_BYTES = 2**23

#: In the order in which they are looked for.
NAME_FILES = ("LOC_synset_mapping.txt", "synset_words.txt", "imagenet_class_index.json")
ORDER_FILES = ("map_clsloc.txt", "meta.mat")


@dataclass(frozen=True)
class Names:
    """Names of classes, and where they come from.

    Attributes:
        names: All names of each synset, as the file has them ("tench, Tinca tinca").
        labels: The first of them, told apart where two synsets share it.
        source: The file, relative to the root; None if there is none.
        order: Synset of each index, from 1, of the development kit's order; empty if the file does not say.
    """

    names: Mapping[str, str]
    labels: Mapping[str, str]
    source: str | None
    order: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def unknown(cls) -> Names:
        """No names: synsets go by their ids."""
        return cls({}, {}, None)

    @classmethod
    def of(cls, path: Path, source: str, names: dict[str, str], order: Mapping[int, str] | None = None) -> Names:
        """Names of a file that has been read.

        Raises:
            DataError: If there are none, or they cannot be told apart.
        """
        if not names:
            raise eqv.DataError(
                f"{str(path)!r} names no classes", expected="a line or entry for each", got="none", hint="copy it again"
            )
        first = {synset: text.partition(",")[0].strip() or text for synset, text in names.items()}
        return cls(names, distinct_labels(first, path), source, order or {})


def read_names(root: paths.Root) -> Names | None:
    """The names of the first file found that has some.

    Raises:
        DataError: If that file cannot be used.
    """
    found = root.first(paths.places(NAME_FILES, PLACES))
    if found is None:
        return read_order(root)
    path = root.inside(found)
    return Names.of(path, found, _class_index(path) if found.endswith(".json") else _words(path))


def read_order(root: paths.Root) -> Names | None:
    """Names with the development kit's order, from its own files.

    Raises:
        DataError: If the file found cannot be used.
    """
    found = root.first(paths.places(ORDER_FILES, PLACES))
    if found is None:
        return None
    path = root.inside(found)
    names: dict[str, str] = {}
    order: dict[int, str] = {}
    for index, synset, text in _meta(path) if found.endswith(".mat") else _map_clsloc(path):
        if synset in names or index in order:
            raise _twice(path, f"synset {synset}, index {index}")
        names[synset], order[index] = text, synset
    return Names.of(path, found, names, order)


def _words(path: Path) -> dict[str, str]:
    """Lines such as ``n01440764 tench, Tinca tinca``."""
    found: dict[str, str] = {}
    for number, line in filled_lines(path):
        synset, _, names = line.partition(" ")
        problem = unusable_name(names)
        if not SYNSET.fullmatch(synset) or problem:
            raise bad_line(path, number, "a synset and its names, such as n01440764 tench, Tinca tinca", line)
        if synset in found:
            raise _twice(path, f"line {number:,}: {synset}")
        found[synset] = names.strip()
    return found


def _class_index(path: Path) -> dict[str, str]:
    """``{"0": ["n01440764", "tench"], ...}``; underscores stand for spaces."""
    found: dict[str, str] = {}
    entries = document(path)
    if not isinstance(entries, dict):
        raise bad_line(path, 1, 'an object such as {"0": ["n01440764", "tench"]}', entries)
    for key, entry in entries.items():
        synset, name = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
        known = isinstance(synset, str) and SYNSET.fullmatch(synset) and synset not in found
        if not re.fullmatch("[0-9]{1,5}", key) or not known or unusable_name(name):
            raise eqv.DataError(
                f"entry {shown(key)} of {str(path)!r} is not usable",
                expected='an index, a synset that occurs once, and a name, such as "0": ["n01440764", "tench"]',
                got=shown(entry),
                hint="copy the file again",
            )
        found[str(synset)] = str(name).replace("_", " ")
    return found


def _map_clsloc(path: Path) -> Iterator[tuple[int, str, str]]:
    """Index, synset and name, from lines such as ``n02119789 1 kit_fox``."""
    for number, line in filled_lines(path):
        match = re.fullmatch(rf"({SYNSET.pattern})[ \t]+([0-9]{{1,5}})[ \t]+(.+)", line)
        if match is None or unusable_name(match[3]):
            raise bad_line(path, number, "a synset, its index and its name, such as n02119789 1 kit_fox", line)
        yield int(match[2]), match[1], match[3].replace("_", " ")


def _meta(path: Path) -> Iterator[tuple[int, str, str]]:
    """Index, synset and names, from the MATLAB structure ``synsets``; classes are the entries without children."""
    for place, entry in enumerate(_loaded(path), 1):
        try:
            index, synset, text = int(entry["ILSVRC2012_ID"]), entry["WNID"], entry["words"]
            leaf = int(entry["num_children"]) == 0
        except Exception as error:  # whatever a MATLAB file of unknown origin has in these places
            raise _bad_meta(path, f"entry {place}: {type(error).__name__}: {error}") from error
        if leaf:
            if not isinstance(synset, str) or not SYNSET.fullmatch(synset) or unusable_name(text):
                raise _bad_meta(path, f"entry {place}: {shown(synset)}, {shown(text)}")
            yield index, str(synset), str(text)


def _loaded(path: Path) -> Any:
    import io

    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise eqv.DataError(
            f"{str(path)!r} is a MATLAB file, which scipy reads",
            expected="scipy, or a text file beside it: LOC_synset_mapping.txt for names, map_clsloc.txt for the order",
            got="no scipy in this environment",
            hint="pip install scipy",
        ) from error
    with images.opened(path, "an annotation file") as file:
        data = file.read(MAX_MAT_BYTES + 1)
    if len(data) > MAX_MAT_BYTES:
        raise _bad_meta(path, f"more than {MAX_MAT_BYTES:,} bytes")
    try:
        return iter(loadmat(io.BytesIO(data), squeeze_me=True, variable_names=["synsets"])["synsets"])
    except Exception as error:  # whatever a parser may trip over
        raise _bad_meta(path, f"{type(error).__name__}: {error}") from error


def _bad_meta(path: Path, got: str) -> eqv.DataError:
    return eqv.DataError(
        f"{str(path)!r} cannot be read",
        expected="the meta.mat of the development kit: a structure 'synsets' with ILSVRC2012_ID, WNID, words and "
        "num_children",
        got=got[:200],
        hint="copy it again, or put map_clsloc.txt of the development kit beside it",
    )


def _twice(path: Path, got: str) -> eqv.DataError:
    return eqv.DataError(
        f"{str(path)!r} has a class twice",
        expected="each synset and each index once",
        got=f"{got} for a second time",
        hint="copy the file again; correct it if you made it yourself",
    )
