"""Which pairs are taken: strictly at random from all that are eligible, by the stored seed, none picked afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine.statistics import independent_pairs

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Pairs:
    """Ordered pairs of places in a set.

    Attributes:
        original: Places of the originals, [P].
        target: Places of the targets, [P].
        eligible: How many ordered pairs there were to draw from.
        other_class: Whether only pairs of different labels were.
        content: Number of the content of each image of the set; equal ones are one image twice.
    """

    original: np.ndarray
    target: np.ndarray
    eligible: int
    other_class: bool
    content: np.ndarray

    def __len__(self) -> int:
        return len(self.original)

    @property
    def places(self) -> list[int]:
        """Places of the images that occur, each once, ascending."""
        return sorted({*self.original.tolist(), *self.target.tolist()})

    def worth(self, chosen: np.ndarray | None = None) -> float:
        """How many independent pairs these are worth, or those that are chosen, [P] bool.

        Pairs that share an image depend on each other (`equivengine.statistics.independent_pairs`).
        """
        one, other = self.content[self.original], self.content[self.target]
        return independent_pairs(one, other) if chosen is None else independent_pairs(one[chosen], other[chosen])


def draw_pairs(task: eqv.ProbeTask[Any], count: int, other_class: bool | None) -> Pairs:
    """Draw ordered pairs without replacement, all eligible ones with the same chance; fewer where there are fewer.

    Eligible are pairs of different content, and of different labels with ``other_class``; None stands for whether all
    labels of the set are known.

    Raises:
        UsageError: If there is no such pair.
    """
    import numpy as np

    size = len(task.samples)
    labels, digests = _padded(task.labels, size), _padded(task.sample_digests, size)
    if other_class is None:
        other_class = all(label is not None for label in labels)
    content, classes = _codes([digest or place for place, digest in enumerate(digests)]), _codes(labels)
    known = np.array([label is not None for label in labels])

    def eligible(row: int) -> np.ndarray:
        apart = content != content[row]
        return apart & known & known[row] & (classes != classes[row]) if other_class else apart

    counts = np.array([np.count_nonzero(eligible(row)) for row in range(size)])
    ends = np.cumsum(counts)
    total = int(ends[-1])
    if total == 0:
        raise _nothing(size, other_class, labels)
    generator = np.random.Generator(np.random.Philox(task.stream("pairs")))
    numbers = generator.choice(total, size=min(count, total), replace=False)
    rows = np.searchsorted(ends, numbers, side="right")
    ranks = numbers - (ends - counts)[rows]
    columns = [np.flatnonzero(eligible(row))[rank] for row, rank in zip(rows, ranks, strict=True)]
    return Pairs(rows, np.array(columns), total, other_class, content)


def _padded(values: Sequence[str | None], size: int) -> list[str | None]:
    return list(values) if len(values) == size else [None] * size


def _codes(values: Sequence[object]) -> np.ndarray:
    """Equal numbers for equal values."""
    import numpy as np

    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values])


def _nothing(size: int, other_class: bool, labels: Sequence[str | None]) -> eqv.UsageError:
    if other_class and size > 1:
        known = sorted({label for label in labels if label is not None})
        return eqv.UsageError(
            "no two images of the set have different labels",
            expected="images of at least two classes",
            got=f"{size} images, labels: {', '.join(known) or 'none known'}",
            hint="raise --limit, name another set with --images, or pass --set other_class=false",
        )
    return eqv.UsageError(
        "pairs are drawn from the image set, and it holds no two different images",
        expected="at least two images of different content",
        got=f"{size} image{'' if size == 1 else 's'}",
        hint="raise --limit, or name a larger set with --images",
    )
