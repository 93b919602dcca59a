"""What image sets of a known layout share: files below a root, in a fixed order, with classes. Not a plugin."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import partial
from typing import Any

import equivengine as eqv
from equivengine_plugins.datasets import images, paths
from equivengine_plugins.datasets.sampling import OPTIONS, Sampling

#: Options that every such set takes.
COMMON = (*OPTIONS, paths.FOLLOW)


class ListedImages(eqv.Dataset):
    """Image files in one directory below a root. A subclass lists them with `_take` and says what is known of each.

    Opening the set reads names and annotations; a file is opened first when its sample is asked for (to hash it), and
    decoded by `Sample.load`. What is wrong with a file is an error of its own sample.
    """

    _root: paths.Root
    _folder: str
    _names: Sequence[str]

    def _take(self, uri: eqv.URI, root: paths.Root, folder: str, names: Sequence[str]) -> None:
        """Keep what the address asks for of the files ``names``, relative to ``folder``, itself relative to the root.

        Raises:
            UsageError: If it asks for more than there are.
        """
        self._root, self._folder = root, folder
        sampling = Sampling.of(uri)
        self._names = sampling.draw(names, self._class_of, uri, self._identity)
        self.random_order = sampling.sample is not None

    def _identity(self, name: str) -> str:
        """What samples go by: equal for one image wherever it lies, and for no two."""
        return name

    def _class_of(self, name: str) -> Any:
        """The class of a file, something that can be ordered, or None."""
        raise NotImplementedError

    def _label(self, name: str) -> str | None:
        """What its class is called."""
        raise NotImplementedError

    def _details(self, name: str) -> dict[str, object]:
        """Whatever else is known of it, JSON types only."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: Any) -> Any:
        """The `Sample` at ``index``; its file is hashed now.

        Raises:
            IndexError: If ``index`` is past either end.
            DataError: If the file cannot be read, or a link leads out of the set. (That it cannot be decoded shows in
                `Sample.load`.)
        """
        name = self._names[operator.index(index)]
        path = self._root.inside(f"{self._folder}/{name}")
        digest = images.file_digest(path)
        return eqv.Sample(
            paths.storable(name),
            digest,
            partial(images.load_image, path, digest),
            self._label(name),
            self._details(name),
        )


def choice(uri: eqv.URI, option: str, values: Sequence[str], default: str) -> str:
    """An option that takes one of a few words.

    Raises:
        UsageError: If it is another.
    """
    value = uri.options.get(option, default)
    if value not in values:
        raise eqv.UsageError(
            f"option {option!r} of {uri.text!r} is not usable", expected=" or ".join(values), got=repr(value)
        )
    return value


def missing(what: str, root: paths.Root, looked: Sequence[str], hint: str) -> eqv.DataError:
    """What to raise where part of a layout is not there."""
    return eqv.DataError(
        what,
        expected=f"below {str(root.path)!r}, one of: {', '.join(looked)}",
        got="none of them",
        hint=hint,
    )
