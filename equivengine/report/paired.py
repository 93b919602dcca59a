"""Images as observations: one value for each image, and differences between models on the images that both have seen.

Units of one image (several seeds, several targets) are not independent of each other. So the median of an image's units
counts once, and images are what is resampled. For the median of paired differences, resampling pairs is resampling
images. Of units that say yes or no, an image's share of yes counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from equivengine.contracts.wording import between, number
from equivengine.report.summary import Middle, middle_of
from equivengine.statistics import ENOUGH, difference_of_shares


class Subjects:
    """Which image each unit is about.

    Attributes:
        images: int64 [images], ascending: each different one, by its number.
    """

    def __init__(self, numbering: dict[str, int], subjects: Sequence[str]) -> None:
        """Number the images.

        Args:
            numbering: Numbers by digest; equal digests have equal numbers in all columns that share it. Grows.
            subjects: What each unit is about (`Group.subjects`).
        """
        each = np.fromiter((numbering.setdefault(s, len(numbering)) for s in subjects), np.int64, len(subjects))
        self.images, self._place = np.unique(each, return_inverse=True)

    @property
    def repeated(self) -> bool:
        """Whether some image has several units."""
        return len(self.images) < len(self._place)

    def medians(self, values: np.ndarray) -> np.ndarray:
        """For each image the median of its units that could measure it, NaN where none could.

        Args:
            values: [units].

        Returns:
            float64 [images].
        """
        if not self.repeated:
            found = np.empty(len(self.images))
            found[self._place] = values
            return np.where(np.isfinite(found), found, np.nan)
        finite = np.isfinite(values)
        place, values = self._place[finite], values[finite]
        ordered = values[np.lexsort((values, place))]
        counts = np.bincount(place, minlength=len(self.images))
        some = counts > 0
        starts, counts = (np.cumsum(counts) - counts)[some], counts[some]
        medians = np.full(len(self.images), np.nan)
        medians[some] = (ordered[starts + (counts - 1) // 2] + ordered[starts + counts // 2]) / 2
        return medians

    def shares(self, values: np.ndarray) -> np.ndarray:
        """For each image the share of yes among its units that could tell, NaN where none could.

        Args:
            values: 1 (yes), 0 (no) or NaN, [units].

        Returns:
            float64 [images].
        """
        finite = np.isfinite(values)
        counts = np.bincount(self._place[finite], minlength=len(self.images))
        yes = np.bincount(self._place[finite], weights=values[finite], minlength=len(self.images))
        return np.divide(yes, counts, out=np.full(len(self.images), np.nan), where=counts > 0)


@dataclass(frozen=True)
class Difference:
    """One scalar of a model against the same scalar of another, on the images of both.

    Attributes:
        value: Median over images of (this - other); of yes and no, the share of yes here less the share there.
        interval: 95% bootstrap interval of that median; of fewer than six images, smallest and largest; None of one.
            Of shares, Newcombe's 95% interval, of any number.
        n: Images that both could measure.
        larger: On how many of them this is larger.
        ratio: Median over images of this / other; None unless all values are positive, and of shares.
        ratio_interval: As ``interval``, of the ratio.
    """

    value: float
    interval: tuple[float, float] | None
    n: int
    larger: int
    ratio: float | None = None
    ratio_interval: tuple[float, float] | None = None

    def __str__(self) -> str:
        """``"x 0.27 (0.21 .. 0.35)"`` where all values are positive, ``"+ 1.2 (0.3 .. 1.9)"`` otherwise."""
        if self.n == 0:
            return ""
        if self.ratio is not None:
            ends = "" if self.ratio_interval is None else f" ({between(self.ratio_interval)})"
            return f"x {number(self.ratio)}{ends}"
        ends = "" if self.interval is None else f" ({between(self.interval)})"
        return f"{'+' if self.value >= 0 else '-'} {number(abs(self.value))}{ends}"

    @property
    def clear(self) -> bool:
        """Whether what `str` shows leaves out equality; never of fewer images than an interval takes."""
        ends, equal = (self.interval, 0.0) if self.ratio is None else (self.ratio_interval, 1.0)
        return self.n >= ENOUGH and ends is not None and not ends[0] <= equal <= ends[1]


def difference(
    this: Subjects,
    values: np.ndarray,
    other: Subjects,
    others: np.ndarray,
    chosen: np.ndarray | None = None,
    *,
    binary: bool = False,
) -> Difference:
    """How much larger a scalar is than another's on the same images.

    Args:
        this: Images of the one, and with ``values`` [images] what they have.
        values: See there.
        other: Images of the other, numbered alike, and with ``others`` [images] what they have.
        others: See there.
        chosen: Numbers of the images to take; all if it is None.
        binary: Whether the values are shares of yes (`Subjects.shares`).
    """
    common, here, there = np.intersect1d(this.images, other.images, assume_unique=True, return_indices=True)
    a, b = values[here], others[there]
    kept = np.isfinite(a) & np.isfinite(b)
    if chosen is not None:
        kept &= np.isin(common, chosen)
    a, b = a[kept], b[kept]
    if binary and len(a):
        apart = float(a.mean() - b.mean())
        return Difference(apart, difference_of_shares(a, b), len(a), int((a > b).sum()))
    found = middle_of(a - b, len(a))
    ratio = Middle(float("nan"), None, 0)
    if len(a) and a.min() > 0 and b.min() > 0:
        with np.errstate(over="ignore"):
            ratio = middle_of(a / b, len(a))
    return Difference(
        found.value,
        found.ends,
        len(a),
        int((a > b).sum()),
        ratio.value if ratio.n else None,
        ratio.ends,
    )
