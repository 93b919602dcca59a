"""Seeded samples of a listing: functions of the seed and of the names in it alone. Not a plugin."""

from __future__ import annotations

import hashlib
import heapq
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import equivengine as eqv

OPTIONS = ("sample", "per_class", "short", "seed")
"""Options of an address that `Sampling.of` reads."""


@dataclass(frozen=True)
class Sampling:
    """What to take of a listing.

    The rank of an image is the sha256 of the seed and its identity; those of lowest rank are taken. Every choice of
    as many images is equally likely over seeds, as far as sha256 is random, on every machine and for any order of the
    listing; an image that is added displaces one at most; and a smaller sample is the beginning of a larger one.

    Attributes:
        sample: How many images of all, in order of rank; None for all.
        per_class: How many of each class: the first of each class in order of the classes, then the second of each.
            Images without a class are left out.
        short: What becomes of classes that have fewer: None (an error), "keep" (all of them) or "drop" (none).
        seed: Of the ranks.
    """

    sample: int | None = None
    per_class: int | None = None
    short: str | None = None
    seed: int = 0

    @classmethod
    def of(cls, uri: eqv.URI) -> Sampling:
        """What an address asks for.

        Raises:
            UsageError: If an option is not usable, or has no meaning beside the others.
        """
        sample, per_class = (
            uri.integer(name, 1, minimum=1) if name in uri.options else None for name in ("sample", "per_class")
        )
        short = uri.options.get("short")
        if short not in (None, "keep", "drop"):
            raise eqv.UsageError(
                f"option 'short' of {uri.text!r} is not usable", expected="keep or drop", got=repr(short)
            )
        if sample is not None and per_class is not None:
            raise eqv.UsageError(
                f"'sample' and 'per_class' exclude each other in {uri.text!r}", hint="keep one of the two"
            )
        if short is not None and per_class is None:
            raise _alone(uri, "short", "per_class")
        if "seed" in uri.options and sample is None and per_class is None:
            raise _alone(uri, "seed", "sample or per_class")
        return cls(sample, per_class, short, uri.integer("seed", 0, maximum=2**64 - 1))

    def draw(
        self,
        names: Sequence[str],
        class_of: Callable[[str], Any],
        uri: eqv.URI,
        identity: Callable[[str], str] = str,
    ) -> list[str]:
        """The names to take, in the order of the set.

        Args:
            names: The listing, relative paths.
            class_of: Class of a name, something that can be ordered; None where it is not known.
            uri: For messages.
            identity: What stands for an image of a name; no two alike, or they are drawn together.

        Raises:
            UsageError: If there are fewer than asked for.
        """
        if self.sample is not None:
            if self.sample > len(names):
                raise eqv.UsageError(
                    f"{uri.text!r} asks for more images than there are",
                    expected=f"a sample of at most {len(names):,}",
                    got=f"sample={self.sample}",
                )
            return heapq.nsmallest(self.sample, names, key=self._rank(identity))
        if self.per_class is not None:
            return self._of_each_class(names, class_of, uri, self._rank(identity))
        return list(names)

    def _of_each_class(
        self,
        names: Sequence[str],
        class_of: Callable[[str], Any],
        uri: eqv.URI,
        rank: Callable[[str], tuple[bytes, str]],
    ) -> list[str]:
        count = self.per_class or 0
        members: dict[Any, list[str]] = {}
        for name in names:
            key = class_of(name)
            if key is not None:
                members.setdefault(key, []).append(name)
        short = [key for key, found in members.items() if len(found) < count]
        if (short and self.short is None) or not members or (self.short == "drop" and len(short) == len(members)):
            smallest = min(map(len, members.values()), default=0)
            raise eqv.UsageError(
                f"{uri.text!r} asks for more images of a class than there are",
                expected=f"per_class of at most {smallest:,}, which every class has" if members else "labeled images",
                got=f"per_class={count}; {len(short):,} of {len(members):,} classes have fewer",
                hint="add &short=keep to take all of those classes, or &short=drop to leave them out",
            )
        dropped = set(short) if self.short == "drop" else set()
        drawn = [heapq.nsmallest(count, members[key], key=rank) for key in sorted(members) if key not in dropped]
        return [found[turn] for turn in range(count) for found in drawn if turn < len(found)]

    def _rank(self, identity: Callable[[str], str]) -> Callable[[str], tuple[bytes, str]]:
        def rank(name: str) -> tuple[bytes, str]:
            return hashlib.sha256(os.fsencode(f"{self.seed}/{identity(name)}")).digest(), name

        return rank


def _alone(uri: eqv.URI, option: str, needed: str) -> eqv.UsageError:
    return eqv.UsageError(
        f"option {option!r} of {uri.text!r} has no meaning without {needed}", hint=f"add {needed}, or leave it out"
    )
