"""Two Jacobians against each other: their spectra, and the angles between their normal spaces."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import equivengine as eqv
from equivengine_plugins.probes.spectrum.baseline import random_angles
from equivengine_plugins.probes.spectrum.identified import spans_of
from equivengine_plugins.probes.spectrum.measure import Measured

if TYPE_CHECKING:
    import numpy as np

    from equivengine_plugins.probes.spectrum.identified import Spans
    from equivengine_plugins.probes.spectrum.parameters import SpectrumParams

#: Pairs of random subspaces.
_DRAWS = 20
#: Heading.
_SPACES = "normal spaces: spans of leading right singular vectors"
#: What inputs are called in descriptions, where that is not their name.
_WORDS = {"matched": "matched input"}


@dataclass
class Comparison:
    """What the comparison found.

    Attributes:
        arrays: Arrays by name.
        summary: Scalars by name.
        checks: Checks by name.
        faults: Why the compared spaces are not identified, and what to do; empty where they are.
    """

    arrays: dict[str, eqv.Array]
    summary: dict[str, eqv.Scalar]
    checks: dict[str, eqv.Check]
    faults: list[str] = field(default_factory=list)


def compare(
    task: eqv.ProbeTask[SpectrumParams], original: Measured, target: Measured, name: str = "target"
) -> Comparison:
    """Hold the leading k right singular vectors of two Jacobians against each other.

    Args:
        task: The task.
        original: Of the original.
        target: Of the other input.
        name: What that one is called.

    Raises:
        UsageError: More angles are asked for than there are vectors.
    """
    import numpy as np

    both = {"original": original, name: target}
    spans = {whose: spans_of(measured) for whose, measured in both.items()}
    k = _how_many(task.params, both, spans)
    spaces = {}
    for whose, measured in both.items():
        assert measured.found.Vh is not None
        spaces[whose] = eqv.linalg.Subspace(measured.found.Vh[:k])
    m = original.shape[1]
    angles = spaces["original"].principal_angles(spaces[name]).cpu().numpy()
    distance = float(np.sqrt(np.sum(angles**2)))
    off = sum(math.asin(min(1.0, float(each.sine[k - 1]))) for each in spans.values())
    chance = random_angles(k, m, _DRAWS, task.stream("random subspaces"))
    distances = np.sqrt(np.sum(chance**2, axis=1))
    seen = {
        "original": _share(original, spaces[name], k),
        name: _share(target, spaces["original"], k),
    }

    def angle(which: str, value: float, description: str) -> eqv.Scalar:
        ends = max(0.0, value - off), min(math.pi / 2, value + off)
        return eqv.Scalar(value, "rad", f"{which} {description}", ends, group=_SPACES)

    identified = all(bool(each.identified[k - 1]) for each in spans.values())
    summary = _ratios(original, target, name)
    summary |= {
        "compared": eqv.Scalar(k, "1", "leading vectors of each, k", group=_SPACES),
        "identified": eqv.Scalar(identified, "1", "both spans identified (1) or not (0)", group=_SPACES),
        "angle_smallest": angle("smallest", float(angles[0]), "principal angle"),
        "angle_median": angle("median", float(np.median(angles)), "principal angle"),
        "angle_largest": angle("largest", float(angles[-1]), "principal angle"),
        "grassmann_distance": eqv.Scalar(
            distance,
            "rad",
            "Grassmann distance, sqrt(sum of squared angles)",
            (max(0.0, distance - k**0.5 * off), min(k**0.5 * math.pi / 2, distance + k**0.5 * off)),
            group=_SPACES,
        ),
        "random_distance": eqv.Scalar(
            float(distances.mean()),
            "rad",
            "the same of independent random subspaces",
            (
                float(distances.mean() - 1.96 * distances.std(ddof=1)),
                float(distances.mean() + 1.96 * distances.std(ddof=1)),
            ),
            group=_SPACES,
        ),
        "overlap": eqv.Scalar(
            float(np.mean(np.cos(angles) ** 2)), "1", "overlap, mean of squared cosines", group=_SPACES
        ),
    }
    for whose, other in (("original", name), (name, "original")):
        weights = both[whose].values[:k] ** 2
        summary[f"{whose}_in_{other}"] = eqv.Scalar(
            float(np.sum(weights * seen[whose]) / np.sum(weights)),
            "1",
            f"share of the {_WORDS.get(whose, whose)}'s s_i^2 in the {_WORDS.get(other, other)}'s span",
            group=_SPACES,
        )
    summary["random_share"] = eqv.Scalar(k / m, "1", "overlap of independent random subspaces, k / m", group=_SPACES)
    for whose, each in spans.items():
        summary[f"{whose}_span_error"] = eqv.Scalar(
            float(each.sine[k - 1]), "1", f"sine of the error of the {_WORDS.get(whose, whose)}'s span", group=_SPACES
        )
    gap = abs(float(np.sum(np.cos(angles) ** 2) - np.sum(seen["original"]))) / k
    checks = {"shares": eqv.Check.at_most(gap, 1e-5, "squared cosines add up to the shares of the vectors, over k")}
    arrays = _arrays(angles, chance, seen, original, target, name)
    return Comparison(arrays, summary, checks, _faults(task, k, both, spans))


def _how_many(params: SpectrumParams, both: dict[str, Measured], spans: dict[str, Spans]) -> int:
    """As asked; else ``rank``; else the most that are identified and above the resolution in both."""
    import numpy as np

    most = min(len(measured.values) for measured in both.values())
    if params.angles is not None:
        if params.angles > most:
            raise eqv.UsageError(
                "there are fewer singular vectors than angles", expected=f"at most {most}", got=params.angles
            )
        return params.angles
    if params.rank is not None:
        return most
    resolved = min(measured.found.rank for measured in both.values())
    good = np.logical_and(*(each.identified[:resolved] for each in (_cut(s, most) for s in spans.values())))
    return int(np.flatnonzero(good)[-1]) + 1 if good.any() else resolved


def _cut(spans: Spans, most: int) -> Spans:
    return type(spans)(spans.sine[:most], spans.apart[:most])


def _share(measured: Measured, space: eqv.linalg.Subspace, k: int) -> np.ndarray:
    """|P v_i|^2 of the leading k right vectors, P being the projection onto a space; [k]."""
    import torch

    assert measured.found.Vh is not None
    vectors = measured.found.Vh[:k].to(torch.float64)
    inside = torch.linalg.vector_norm(vectors @ space.basis, dim=1)
    return (inside / torch.linalg.vector_norm(vectors, dim=1)).square().cpu().numpy()


def _ratios(original: Measured, target: Measured, name: str) -> dict[str, eqv.Scalar]:
    group = f"{name} / original"
    ends = None
    if float(original.found.lower[0]) > 0:
        (low, high), (low_t, high_t) = (
            (float(each.found.lower[0]), float(each.found.S[0] + each.found.error[0])) for each in (original, target)
        )
        ends = low_t / high, high_t / low
    fro = [each.frobenius_interval or (each.frobenius, each.frobenius) for each in (original, target)]
    exact = original.frobenius_interval is None and target.frobenius_interval is None
    return {
        "ratio_s_1": eqv.Scalar(
            float(target.values[0] / original.values[0]), "1", "largest singular values, ratio", ends, group=group
        ),
        "ratio_frobenius": eqv.Scalar(
            target.frobenius / original.frobenius,
            "1",
            "|J|_F, ratio",
            None if exact else (fro[1][0] / fro[0][1], fro[1][1] / fro[0][0]),
            group=group,
        ),
    }


def _arrays(
    angles: np.ndarray,
    chance: np.ndarray,
    seen: dict[str, np.ndarray],
    original: Measured,
    target: Measured,
    name: str,
) -> dict[str, eqv.Array]:
    common = min(original.found.rank, target.found.rank)
    return {
        "ratio": eqv.Array(
            target.values[:common] / original.values[:common],
            ("common",),
            "1",
            f"singular values of the {_WORDS.get(name, name)} over the original's, above the resolution of both",
        ),
        "principal_angles": eqv.Array(angles, ("angle",), "rad", "principal angles between the spans, ascending"),
        "random_angles": eqv.Array(
            chance.mean(axis=0), ("angle",), "rad", "mean principal angles of independent random subspaces"
        ),
        **{
            f"{whose}_in_{other}": eqv.Array(seen[whose], ("leading",), "1", _share_words(whose, other))
            for whose, other in (("original", name), (name, "original"))
        },
    }


def _share_words(whose: str, other: str) -> str:
    one, another = (_WORDS.get(name, name) for name in (whose, other))
    return f"share of each of the {one}'s right vectors in the {another}'s span"


def _faults(
    task: eqv.ProbeTask[SpectrumParams], k: int, both: dict[str, Measured], spans: dict[str, Spans]
) -> list[str]:
    """Whose span is not identified, and what to do about it."""
    import numpy as np

    equal = [whose for whose, each in spans.items() if not each.apart[k - 1]]
    coarse = [whose for whose, each in spans.items() if each.apart[k - 1] and not each.identified[k - 1]]
    if not equal and not coarse:
        return []
    faults = []
    if equal:
        faults.append(
            f"the span of the leading {k} right vectors of {' and '.join(equal)} is not identifiable: the last of them "
            "and the one that follows have equal singular values within their errors"
        )
    if coarse:
        faults.append(f"the span of the leading {k} right vectors of {' and '.join(coarse)} is not accurate enough")
    advice = []
    most = min(len(each.sine) for each in spans.values())
    good = np.flatnonzero(np.logical_and(*(each.identified[:most] for each in spans.values()))) + 1
    if len(good):
        near = sorted(good[np.argsort(np.abs(good - k), kind="stable")][:3])
        advice.append(f"--set angles={' or '.join(str(other) for other in near)}")
    if any(measured.found.method == "randomized" for measured in both.values()):
        more = k + max(4, k // 2)
        if task.params.rank is not None and task.params.rank < more <= min(both["original"].shape):
            advice.append(f"look for more than is compared (--set rank={more} --set angles={k})")
        advice.append("lower tol, or --set method=exact")
    elif task.precision == "fp32":
        advice.append("--precision fp64")
    faults.append("so their angles say little" + (f"; instead: {', or '.join(advice)}" if advice else ""))
    return faults
