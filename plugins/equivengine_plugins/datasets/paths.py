"""Directories of image sets: what lies in them, and that nothing leads out of them. Not a plugin."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import equivengine as eqv

FOLLOW = "links"
"""Option of the sets that keep to their root: ``?links=follow`` lets links lead out of it."""


#: Names that a remark shows.
_SHOWN = 3


def left_out(names: Sequence[str], hidden: int = 0) -> tuple[str, ...]:
    """Remarks of a set on what lies among its images and was not taken for one.

    >>> left_out(["a.txt", "b.csv", "c/d.pdf", "e"], hidden=1)
    ('left out: 4 that are not named like images (a.txt, b.csv, c/d.pdf, ...), and 1 hidden',)

    Args:
        names: Of what is no image by its name, in order.
        hidden: How many entries are hidden.
    """
    said = []
    if names:
        shown = ", ".join(map(storable, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
        said.append(f"{len(names):,} that {'is' if len(names) == 1 else 'are'} not named like images ({shown})")
    if hidden:
        said.append(f"{hidden:,} hidden")
    return (f"left out: {', and '.join(said)}",) if said else ()


class Root:
    """The directory that a set lies in. Neither names from annotation files nor links lead out of it.

    The directory itself may be a link. A link below it that leads elsewhere is refused, since it may have come with an
    archive of unknown origin, unless ``?links=follow`` says in so many words that it is meant.

    Attributes:
        path: The directory, absolute: a set outlives a change of the working directory.
    """

    def __init__(self, path: Path, *, follow: bool = False) -> None:
        self.path = path
        self._follow = follow
        self._real = os.path.realpath(path)

    @classmethod
    def of(cls, uri: eqv.URI) -> Root:
        """The root that an address names.

        Raises:
            UsageError: If there is no path, or ``links`` is not usable.
            DataError: If there is no such directory.
        """
        typed = uri.require_path("a directory", f"{uri.scheme}:ROOT")
        links = uri.options.get(FOLLOW)
        if links not in (None, "follow"):
            raise eqv.UsageError(f"option {FOLLOW!r} of {uri.text!r} is not usable", expected="follow", got=repr(links))
        return cls(directory(typed), follow=links is not None)

    def inside(self, relative: str) -> Path:
        """The path of what is called ``relative`` below the root.

        Raises:
            DataError: If a link leads out of the root.
        """
        path = self.path / relative
        if not self._follow:
            real = os.path.realpath(path)
            if real != self._real and not real.startswith(self._real.rstrip(os.sep) + os.sep):
                raise eqv.DataError(
                    f"{str(path)!r} leads out of its image set",
                    expected=f"a place below {self._real!r}",
                    got=f"a link to {real!r}",
                    hint=f"pass ?{FOLLOW}=follow if the link is yours, or put what it leads to in its place",
                )
        return path

    def first(self, candidates: Iterable[str]) -> str | None:
        """The first of several relative names under which something lies, be it readable or not.

        Raises:
            DataError: If it is a link that leads out of the root.
        """
        for relative in candidates:
            if os.path.lexists(self.path / relative):
                self.inside(relative)
                return relative
        return None

    def is_directory(self, relative: str) -> bool:
        """Whether there is a directory of that name.

        Raises:
            DataError: If it is a link that leads out of the root.
        """
        return (self.path / relative).is_dir() and self.inside(relative).is_dir()

    def entries(self, relative: str) -> tuple[list[str], list[str]]:
        """Names of the directories and of all else in a directory, in order; hidden ones are left out.

        Raises:
            DataError: If it cannot be listed.
        """
        directories: list[str] = []
        others: list[str] = []
        try:
            with os.scandir(self.inside(relative)) as found:
                for entry in found:
                    if not entry.name.startswith("."):
                        (directories if is_directory(entry) else others).append(entry.name)
        except OSError as error:
            raise unlistable(str(self.path / relative), error) from error
        return sorted(directories), sorted(others)


def plain_name(name: str) -> bool:
    """Whether a name from an annotation file names something below the directory that it is relative to."""
    if "\0" in name or any("\ud800" <= character <= "\udfff" for character in name):
        return False
    return all(part not in ("", ".", "..") for part in name.split("/"))


def directory(typed: str) -> Path:
    """The absolute path of a directory that a user typed, ``~`` expanded.

    Raises:
        DataError: If there is none.
    """
    try:
        root = Path(typed).expanduser()
        if root.is_dir():
            return root.absolute()  # the set outlives a change of the working directory
        exists = root.exists()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the path, a user without a home directory
        raise eqv.DataError(f"{typed!r} cannot be opened", expected="a directory of images", got=error) from error
    raise eqv.DataError(
        f"{str(root)!r} is not a directory" if exists else f"{str(root)!r} does not exist",
        expected="a directory of images",
        got="a file" if exists else f"nothing there, seen from {os.getcwd()!r}",
        hint="name the directory that holds it" if exists else "check the path",
    )


def unlistable(path: str, error: OSError) -> eqv.DataError:
    """What to raise where a directory cannot be listed."""
    return eqv.DataError(
        f"{path!r} cannot be listed",
        expected="a directory that you may read",
        got=error.strerror,
        hint="change its permissions or move it away: a set must not silently lack a part",
    )


def storable(name: str) -> str:
    """File names are bytes; results are UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def places(names: Iterable[str], folders: Sequence[str]) -> list[str]:
    """Each name in each folder ("" for the root itself), names first."""
    return [f"{folder}/{name}" if folder else name for name in names for folder in folders]


def is_directory(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a directory or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: a file that cannot be read
        return False
