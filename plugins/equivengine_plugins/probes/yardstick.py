"""What distances between embeddings are held against: the median distance of random pairs of reference images.

|f(x) - f(y)| means little by itself: embeddings have no unit. Divided by the median distance of images of different
classes it says how far apart two inputs are for an encoder that keeps classes apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import equivengine as eqv

if TYPE_CHECKING:
    import numpy as np
    import torch

#: Inputs that are evaluated in one pass, and coordinates of inputs that are multiplied at once.
TOGETHER, COLUMNS = 32, 1 << 15
#: Resamples of the reference images behind the interval of the median.
RESAMPLES = 200


@dataclass(frozen=True)
class Yardstick:
    """A population of distances between reference images.

    Attributes:
        median: Median distance of their embeddings, embedding units; what relative distances are divided by.
        quantiles: 5% and 95% quantiles of the same distances.
        interval: 95% interval of the median for another draw of as many images: percentile bootstrap over images,
            since pairs share images and are not independent.
        pairs: How many pairs there are.
        images: How many images they are made of.
        different_classes: Whether they are the pairs of different known classes; otherwise all pairs of different
            content.
        pixel_l2: Median L2 distance of the same pairs of images, input units.
        distances: All distances of the embeddings, sorted, [pairs] float64.
    """

    median: float
    quantiles: tuple[float, float]
    interval: tuple[float, float]
    pairs: int
    images: int
    different_classes: bool
    pixel_l2: float
    distances: np.ndarray

    @property
    def name(self) -> str:
        """What it is, as it stands in headings and descriptions."""
        which = "of different classes" if self.different_classes else "of any class"
        return f"median distance of reference pairs {which}"

    def summary(self, group: str = "yardstick") -> dict[str, eqv.Scalar]:
        """What a result says of it."""
        low, high = self.quantiles
        return {
            "yardstick": eqv.Scalar(self.median, "embedding", self.name, self.interval, self.pairs, group),
            "yardstick_low": eqv.Scalar(low, "embedding", "their 5% quantile", n=self.pairs, group=group),
            "yardstick_high": eqv.Scalar(high, "embedding", "their 95% quantile", n=self.pairs, group=group),
            "yardstick_pixels": eqv.Scalar(
                self.pixel_l2, "pixel", "median L2 between the images of these pairs", n=self.pairs, group=group
            ),
        }

    def quantile_array(self) -> eqv.Array:
        """The distances by their percentiles 0 to 100: a run stores these and not the population once for each unit."""
        import numpy as np

        values = np.quantile(self.distances, np.linspace(0, 1, 101))
        return eqv.Array(values, ("percentile",), "embedding", "distances of reference pairs, percentiles 0 to 100")


def measure(task: eqv.ProbeTask[Any]) -> Yardstick:
    """The yardstick of a task's references (`equivengine.Probe.references_of`), in the precision of the run.

    Pairs are all those of different known classes; where there is none, all pairs of different content.

    Raises:
        UsageError: If the references make no pair of different content.
        ModelError: If the encoder cannot be evaluated.
        NumericsError: If an embedding is not finite, or if the median distance is zero.
    """
    import numpy as np

    count = len(task.references)
    which, different_classes = _pairs(task.reference_labels, task.reference_digests, count)
    if not len(which):
        raise eqv.UsageError(
            "there are no two reference images to measure distances between",
            expected="at least two reference images of different content",
            got=f"{count} reference image{'' if count == 1 else 's'}" + (", all of one content" if count > 1 else ""),
            hint="pass a larger set with --targets (or --images), or raise references",
        )
    values = _finite(task)
    apart = _distances(values)[which[:, 0], which[:, 1]]
    pixels = _distances(task.references.flatten(1))[which[:, 0], which[:, 1]]
    median = float(np.median(apart))
    if median == 0:
        raise eqv.NumericsError(
            "reference images have equal embeddings",
            expected="a median distance above zero",
            got=f"0 over {len(apart)} pairs",
            hint="distances cannot be held against these images: pass another set with --targets",
        )
    low, high = np.quantile(apart, [0.05, 0.95])
    return Yardstick(
        median=median,
        quantiles=(float(low), float(high)),
        interval=_interval(apart, which, count),
        pairs=len(apart),
        images=count,
        different_classes=different_classes,
        pixel_l2=float(np.median(pixels)),
        distances=np.sort(apart),
    )


def embeddings(task: eqv.ProbeTask[Any], images: torch.Tensor, precision: str | None = None) -> torch.Tensor:
    """Embeddings of images [B, *input_shape] in the precision of the run, or another: [B, n] float64."""
    import torch

    parts = images.split(TOGETHER)
    return torch.cat([task.jacobian(part, precision=precision).value.to(torch.float64) for part in parts])


def _finite(task: eqv.ProbeTask[Any]) -> torch.Tensor:
    """Embeddings of the references; the first that has none is named."""
    try:
        return embeddings(task, task.references)
    except eqv.NumericsError as error:
        for place, image in enumerate(task.references):
            try:
                embeddings(task, image[None])
            except eqv.NumericsError:
                raise eqv.NumericsError(
                    "the embedding of a reference image holds NaN or infinity",
                    expected="finite embeddings",
                    got=f"reference {place} of {len(task.references)} "
                    f"(sha256 {''.join(task.reference_digests[place : place + 1])[:16] or 'unknown'})",
                    hint="leave this image out of the set",
                ) from error
        raise


def _pairs(labels: Sequence[str | None], digests: Sequence[str], count: int) -> tuple[np.ndarray, bool]:
    """Which pairs are taken, [pairs, 2] with i < j, and whether they are those of different classes."""
    import numpy as np

    i, j = np.triu_indices(count, 1)
    if len(digests) == count:
        content = np.array(digests)
        differ = content[i] != content[j]
        i, j = i[differ], j[differ]
    if len(labels) == count:
        known = np.array([label is not None for label in labels], dtype=bool)
        classes = np.array([label or "" for label in labels])
        apart = known[i] & known[j] & (classes[i] != classes[j])
        if apart.any():
            return np.stack([i[apart], j[apart]], axis=1), True
    return np.stack([i, j], axis=1), False


def _distances(points: torch.Tensor) -> np.ndarray:
    """Distances of rows [R, k]: [R, R] float64, from a float64 Gram matrix of centered rows.

    Relative error: machine epsilon times (|a - mean| / |a - b|)^2.
    """
    import torch

    gram = torch.zeros(len(points), len(points), dtype=torch.float64, device=points.device)
    for part in points.split(COLUMNS, dim=1):
        part = part.to(torch.float64)
        part = part - part.mean(dim=0)
        gram += part @ part.T
    square = gram.diagonal()[:, None] + gram.diagonal() - 2 * gram
    return square.clamp_min(0).sqrt().cpu().numpy()


def _interval(apart: np.ndarray, which: np.ndarray, count: int) -> tuple[float, float]:
    """95% percentile interval of the median over resampled images; a pair weighs as often as both of its images."""
    import numpy as np

    order = np.argsort(apart)
    values, first, second = apart[order], which[order, 0], which[order, 1]
    generator = np.random.Generator(np.random.Philox(0))
    medians = []
    for _ in range(RESAMPLES):
        weight = np.bincount(generator.integers(0, count, count), minlength=count)
        total = np.cumsum(weight[first] * weight[second])
        if total[-1]:
            medians.append(values[np.searchsorted(total, total[-1] / 2)])
    low, high = np.quantile(medians, [0.025, 0.975]) if medians else (np.median(values), np.median(values))
    return float(low), float(high)
