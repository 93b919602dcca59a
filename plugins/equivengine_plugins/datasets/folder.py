"""``folder:PATH``: the image files below a directory."""

from __future__ import annotations

import operator
import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import equivengine as eqv
from equivengine_plugins.datasets import images, paths

EQUIVENGINE_API = (1, 0)


class Folder(eqv.Dataset):
    """Every file with an image suffix below a directory, ordered by relative POSIX path.

    Hidden files and directories are left out; `remarks` says how many, and what else was. Linked directories are
    followed, each real directory once, except links to the set itself or to a directory that contains it. A file is
    first opened when its sample is asked for (to hash it) and decoded by `Sample.load`; what a file holds is found out
    there, not here.

    ``?labels=dirs`` takes the first directory of the relative path for the label; files beside those have none.
    """

    name = "folder"
    summary = "image files below a directory"
    examples = ("folder:photos", "folder:~/photos", "folder:birds?labels=dirs")

    def __init__(self, uri: eqv.URI) -> None:
        """List the directory; no file is opened.

        Raises:
            UsageError: If no path is given or an option is unknown.
            DataError: If there is no such directory, a directory cannot be listed or no file has an image suffix.
        """
        typed = uri.require_path("a directory", "folder:PATH")
        uri.allow_options(("labels",))
        labels = uri.options.get("labels")
        if labels not in (None, "dirs"):
            raise eqv.UsageError(f"option 'labels' of {uri.text!r} is not usable", expected="dirs", got=repr(labels))
        self._labelled = labels is not None
        self._root = paths.directory(typed)
        listing = _Listing(self._root)
        self._paths = sorted(listing.images)
        self._skipped = tuple(sorted(listing.others))
        self.remarks = paths.left_out(self._skipped, listing.hidden)
        if not self._paths:
            raise eqv.DataError(
                f"{str(self._root)!r} holds no images",
                expected=f"files named *{', *'.join(sorted(images.SUFFIXES))}",
                got=_inventory(self._skipped, listing.hidden),
                hint="check the path",
            )

    @property
    def skipped(self) -> Sequence[str]:
        """Relative paths of the files that were not taken for images, in order; hidden ones are not listed."""
        return self._skipped

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: Any) -> Any:
        """The `Sample` at ``index``; its file is hashed now.

        Raises:
            IndexError: If ``index`` is past either end.
            DataError: If the file cannot be read. (That it cannot be decoded shows in `Sample.load`.)
        """
        relative = self._paths[operator.index(index)]
        path = self._root / relative
        digest = images.file_digest(path)
        label = paths.storable(relative.partition("/")[0]) if self._labelled and "/" in relative else None
        return eqv.Sample(paths.storable(relative), digest, partial(images.load_image, path, digest), label)


class _Listing:
    """Walks a directory; names only, relative to it, with forward slashes."""

    def __init__(self, root: Path) -> None:
        self.images: list[str] = []
        self.others: list[str] = []
        self.hidden = 0
        self._root = os.path.realpath(root)
        self._seen: set[str] = set()
        # Linked directories wait until all real ones are known: a directory then goes by its own name, and a loop,
        # or two names for one directory, ends at a real path that has been seen.
        self._links: list[str] = []
        self._walk("")
        while self._links:
            links, self._links = sorted(self._links), []
            for link in links:
                self._walk(link)

    def _walk(self, start: str) -> None:
        pending = [start]
        while pending:
            relative = pending.pop()
            directory = os.path.join(self._root, relative)
            real = os.path.realpath(directory)
            if real in self._seen or (relative and Path(self._root).is_relative_to(real)):
                continue
            self._seen.add(real)
            try:
                with os.scandir(directory) as entries:
                    pending += self._sort(entries, f"{relative}/" if relative else "")
            except OSError as error:
                raise paths.unlistable(directory, error) from error

    def _sort(self, entries: Any, prefix: str) -> list[str]:
        """Put the files where they belong and the links aside; return the real directories."""
        directories: list[str] = []
        for entry in entries:
            relative = prefix + entry.name
            if entry.name.startswith("."):
                self.hidden += 1
            elif paths.is_directory(entry):
                (self._links if entry.is_symlink() else directories).append(relative)
            elif os.path.splitext(entry.name)[1].lower() in images.SUFFIXES:
                self.images.append(relative)
            else:
                self.others.append(relative)
        return directories


def _inventory(others: Sequence[str], hidden: int) -> str:
    count = len(others)
    if count:
        suffixes = Counter(os.path.splitext(other)[1].lower() or "(none)" for other in others).most_common()
        shown = ", ".join(suffix for suffix, _ in suffixes[:8]) + (", ..." if len(suffixes) > 8 else "")
        found = f"{count:,} file{'s' if count > 1 else ''}, none with an image suffix: {shown}"
    else:
        found = "an empty directory" if not hidden else "no visible files"
    return f"{found}; {hidden:,} hidden entries left out" if hidden else found


@eqv.hookimpl
def equivengine_register_datasets() -> list[type[eqv.Dataset]]:
    """Provide `Folder`."""
    return [Folder]
