"""Whether what a run stores fits on its disk: asked before it begins, if it was estimated, and while it goes on."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable
from pathlib import Path

from equivengine.contracts.unit import Unit
from equivengine.contracts.wording import counted
from equivengine.errors import StoreError
from equivengine.runtime.estimate import Key, key_of, kinds_of
from equivengine.runtime.plan import Plan
from equivengine.store import schema

#: How many units of a range of places there are of some sort.
Count = Callable[[range], int]


def free_bytes(out: Path) -> int | None:
    """What may still be written where a run directory is or will be; None where its file system does not say."""
    place = out.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None


def check_room(needed: float, out: Path, what: str, hint: str) -> None:
    """Refuse what cannot fit.

    Args:
        needed: Bytes.
        out: The run directory.
        what: What needs them.
        hint: What to do.

    Raises:
        StoreError: If there is less room.
    """
    free = free_bytes(out)
    if free is not None and needed > free:
        raise StoreError(
            f"the plan does not fit on the disk of {str(out)!r}",
            expected=f"{size_text(needed)} for {what}",
            got=f"{size_text(free)} free",
            hint=hint,
        )


def doubt(needed: float, out: Path, what: str) -> str:
    """What to warn of where what may come does not fit; empty where it does.

    Args:
        needed: Bytes.
        out: The run directory.
        what: What needs them.
    """
    free = free_bytes(out)
    if free is None or needed <= free:
        return ""
    return (
        f"the plan may not fit on the disk of {str(out)!r}: {size_text(needed)} for {what}, unless stop rules end "
        f"image sets before that; {size_text(free)} are free"
    )


def size_text(size: float) -> str:
    """Bytes with a unit.

    >>> size_text(1234), size_text(5.1e9), size_text(12)
    ('1.2 KB', '5.1 GB', '12 bytes')
    """
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size:.0f} bytes"


class Room:
    """Watches, while a run stores its first units of each kind, whether the rest can fit on the disk.

    What is held against the free space is what is sure to come: shards as large as those that are there, and `RUN_FILE`
    of that for ``run.h5``. Kinds of which nothing is stored count for nothing. Units that a stop rule may leave out are
    not sure to come; where they would not fit, that is said once.

    Args:
        plan: The plan.
        directory: Where it is carried out.
        sure: How many units of a range of places are still to be done in any case.
        possible: How many may still have to be done; as many when None.
        on_doubt: Called with a warning.
    """

    #: ``run.h5`` holds every value once more: 0.4 of the shards' blocks where a unit is one number (bench/scale.py),
    #: more where it has arrays.
    RUN_FILE = 0.35
    #: Units of each kind that are looked at; it is asked after the first, second, fourth and eighth whether all fits.
    LOOKS = (1, 2, 4, 8)

    def __init__(
        self,
        plan: Plan,
        directory: Path,
        sure: Count,
        possible: Count | None = None,
        on_doubt: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._directory = directory
        self._counts = (sure, possible or sure)
        self._on_doubt = on_doubt
        self._doubted = False
        self._places = {key_of(kind.common): kind.places for kind in kinds_of(plan)}
        self._sizes: dict[Key, list[int]] = {key: [] for key in self._places}
        self._sure, self._possible = self._count()

    def look_again(self) -> None:
        """Ask anew what is still to be done: results have decided that more of it is, or less.

        Raises:
            StoreError: If what is sure to come cannot fit.
        """
        self._sure, self._possible = self._count()
        self._check()

    def stored(self, unit: Unit) -> None:
        """A unit has been stored.

        Raises:
            StoreError: If what is sure to come cannot fit.
        """
        key = key_of(unit)
        self._sure[key] -= 1
        self._possible[key] -= 1
        sizes = self._sizes[key]
        if len(sizes) >= self.LOOKS[-1]:
            return
        path = self._directory / schema.shard_path(unit.unit_id)
        try:
            sizes.append(512 * path.lstat().st_blocks)
        except OSError:  # elsewhere by now, or on a host whose files are seen here with a delay
            return
        if len(sizes) in self.LOOKS:
            self._check()

    def _count(self) -> list[dict[Key, int]]:
        return [{key: sum(map(count, places)) for key, places in self._places.items()} for count in self._counts]

    def _check(self) -> None:
        sure, needed = self._like_those_stored(self._sure)
        if sure:
            hint = f"make room, then: equivengine resume {self._directory} (what was published stays)"
            check_room(needed, self._directory, f"the {_like_stored(sure)}", hint)
        possible, wanted = self._like_those_stored(self._possible)
        if possible > sure and not self._doubted:
            text = doubt(wanted, self._directory, f"up to {_like_stored(possible)}")
            self._doubted = bool(text)
            if text:
                self._on_doubt(text)

    def _like_those_stored(self, left: dict[Key, int]) -> tuple[int, float]:
        """How many units are left of the kinds of which some are stored, and the bytes that they need."""
        means = {key: statistics.mean(sizes) for key, sizes in self._sizes.items() if sizes}
        needed = (1 + self.RUN_FILE) * sum(left[key] * mean for key, mean in means.items())
        return sum(left[key] for key in means), needed


def _like_stored(count: int) -> str:
    return f"{counted(count, 'unit')} left that {'is' if count == 1 else 'are'} like those stored so far"
