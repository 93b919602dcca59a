"""Condenses what was measured into a result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import equivengine as eqv
from equivengine.statistics import bootstrap, wilson

if TYPE_CHECKING:
    import numpy as np

    from equivengine_plugins.probes.projection.measure import MatchedPairs, Measured
    from equivengine_plugins.probes.projection.parameters import ProjectionParams

UNIT = "embedding"


def make_result(task: eqv.ProbeTask[ProjectionParams], measured: Measured) -> eqv.ProbeResult:
    """The probe's result."""
    status, message = _status(task, measured)
    arrays = _component_arrays(task, measured)
    if measured.found is not None:
        arrays |= _pair_arrays(task, measured, measured.found)
    return eqv.ProbeResult(
        arrays,
        _summary(task, measured),
        _checks(measured),
        status=status,
        message=message,
        provenance={
            "basis": task.params.basis,
            "images_of_basis": measured.components.size,
            "sign": "the entry of largest size of each component is positive",
            "eligible_pairs": measured.found.pairs.eligible if measured.found else None,
        },
    )


def _kept(task: eqv.ProbeTask[ProjectionParams], measured: Measured) -> int:
    return min(task.params.components, len(measured.components.variance))


def _labels(labels: Sequence[str | None], size: int) -> list[str]:
    return [label or "" for label in labels] if len(labels) == size else [""] * size


def _component_arrays(task: eqv.ProbeTask[ProjectionParams], measured: Measured) -> dict[str, eqv.Array]:
    import numpy as np

    parts, kept, size = measured.components, _kept(task, measured), len(measured.images)
    ids = list(task.sample_ids) if len(task.sample_ids) == size else [str(place) for place in range(size)]
    arrays = {
        "explained": eqv.Array(parts.ratio, ("rank",), "1", "share of the variance along each component"),
        "explained_interval": eqv.Array(
            parts.ratio_interval, ("rank", "end"), "1", "its 95% bootstrap interval over images, low and high"
        ),
        "variance": eqv.Array(parts.variance, ("rank",), f"{UNIT}^2", "variance along each component"),
        "variance_error": eqv.Array(
            parts.variance_error, ("rank",), f"{UNIT}^2", "its standard error over resampled images"
        ),
        "degenerate": eqv.Array(
            parts.degenerate, ("rank",), "1", "variance not distinct from a neighbor's: direction arbitrary"
        ),
        "components": eqv.Array(
            parts.vectors[:kept].cpu().numpy(), ("component", "embedding"), "1", "components, unit vectors"
        ),
        "mean": eqv.Array(parts.mean.cpu().numpy(), ("embedding",), UNIT, "mean embedding of the basis"),
        "coordinates": eqv.Array(
            parts.coordinates(measured.images, kept).cpu().numpy(),
            ("image", "component"),
            UNIT,
            "images of the set along the components",
        ),
        "image_id": eqv.Array(np.array(ids, dtype=np.str_), ("image",), "1", "which images"),
        "label": eqv.Array(
            np.array(_labels(task.labels, size), dtype=np.str_), ("image",), "1", "their labels, empty if unknown"
        ),
    }
    if len(measured.references):
        labels = _labels(task.reference_labels, len(measured.references))
        arrays["reference_coordinates"] = eqv.Array(
            parts.coordinates(measured.references, kept).cpu().numpy(),
            ("reference", "component"),
            UNIT,
            "references along the components",
        )
        arrays["reference_label"] = eqv.Array(
            np.array(labels, dtype=np.str_), ("reference",), "1", "their labels, empty if unknown"
        )
    return arrays


def _pair_arrays(
    task: eqv.ProbeTask[ProjectionParams], measured: Measured, found: MatchedPairs
) -> dict[str, eqv.Array]:
    import numpy as np
    import torch

    parts, kept = measured.components, _kept(task, measured)
    pairs, matched = found.pairs, found.matched
    arrays = {
        "pair_original": eqv.Array(pairs.original, ("pair",), "1", "place of the original among the images"),
        "pair_target": eqv.Array(pairs.target, ("pair",), "1", "place of the target among the images"),
        "pair_matched": eqv.Array(
            parts.coordinates(found.embeddings, kept).cpu().numpy(),
            ("pair", "component"),
            UNIT,
            "matched inputs along the components",
        ),
        "converged": eqv.Array(matched.reached, ("pair",), "1", "within the tolerance"),
        "stop": eqv.Array(np.array(matched.stop, dtype=np.str_), ("pair",), "1", "why the solver stopped"),
    }
    originals = torch.stack([task.samples[place] for place in pairs.original])
    moved = (matched.x.double() - originals.double()).flatten(1)
    arrays["l2"] = eqv.Array(
        torch.linalg.vector_norm(moved, dim=1).cpu().numpy(), ("pair",), "pixel", "L2 change of the input"
    )
    for name, values in _distances(measured, found).items():
        arrays[name] = eqv.Array(values, ("pair",), "1", _DISTANCES[name])
    return arrays


_DISTANCES = {
    "relative_before": "|f(original) - f(target)| over the yardstick",
    "relative_after": "|f(matched) - f(target)| over the yardstick",
    "relative_moved": "|f(matched) - f(original)| over the yardstick",
}


def _distances(measured: Measured, found: MatchedPairs) -> dict[str, np.ndarray]:
    """Relative distances in the whole embedding space, each [P]."""
    import torch

    original, target = (measured.images[p.tolist()] for p in (found.pairs.original, found.pairs.target))
    gaps = (original - target, found.embeddings - target, found.embeddings - original)
    lengths = [torch.linalg.vector_norm(gap, dim=1).cpu().numpy() / found.held.median for gap in gaps]
    return dict(zip(_DISTANCES, lengths, strict=True))


def _summary(task: eqv.ProbeTask[ProjectionParams], measured: Measured) -> dict[str, eqv.Scalar]:
    import numpy as np

    parts = measured.components
    group = f"variance of {parts.size} {'references' if len(measured.references) else 'images'}"
    summary = {}
    for place in range(_kept(task, measured)):
        low, high = parts.ratio_interval[place]
        text = f"component {place + 1}" + (", direction arbitrary" if parts.degenerate[place] else "")
        summary[f"explained_{place + 1}"] = eqv.Scalar(parts.ratio[place], "1", text, (low, high), parts.size, group)
    n = parts.size
    summary["rank_90"] = eqv.Scalar(
        int(np.searchsorted(np.cumsum(parts.ratio), 0.9 - 1e-12) + 1), "1", "components for 90% of it", n=n, group=group
    )
    summary["participation"] = eqv.Scalar(parts.participation, "1", "participation ratio", n=n, group=group)
    summary["effective"] = eqv.Scalar(parts.effective, "1", "exp of the entropy of the shares", n=n, group=group)
    summary["rank"] = eqv.Scalar(len(parts.variance), "1", "components above roundoff", n=n, group=group)
    group = "components"
    summary["degenerate"] = eqv.Scalar(
        parts.degenerate.sum(),
        "1",
        "of arbitrary direction: variance not distinct from a neighbor's",
        n=len(parts.ratio),
        group=group,
    )
    if measured.found is None:
        return summary
    found = measured.found
    group, reached = "matched pairs", found.matched.reached
    count = int(reached.sum())
    summary["converged"] = eqv.Scalar(
        count / len(reached),
        "1",
        f"matched to {task.params.tolerance:g} or less, share",
        wilson(count, len(reached)),
        len(reached),
        group,
    )
    for name, values in _distances(measured, found).items():
        middle = bootstrap(np.asarray(values), seed=task.stream("bootstrap") % 2**32)
        text = f"{_DISTANCES[name]}, median"
        summary[name] = eqv.Scalar(middle.value, "1", text, middle.interval, middle.n, group)
        if name == "relative_after":
            summary[f"{name}_max"] = eqv.Scalar(np.max(values), "1", "the same, largest", n=middle.n, group=group)
    return summary | found.held.summary()


def _checks(measured: Measured) -> dict[str, eqv.Check]:
    import torch

    parts, population = measured.components, measured.population
    z = parts.coordinates(population, len(parts.variance))
    total = float((population - parts.mean).square().sum())
    product = parts.vectors @ parts.vectors.T
    covariance = z.T @ z / (parts.size - 1)
    off = covariance - torch.diag(torch.as_tensor(parts.variance, device=z.device))
    return {
        "orthonormal": eqv.Check.at_most(
            float((product - torch.eye(len(product), device=product.device, dtype=product.dtype)).abs().max()),
            1e-10,
            "components are orthonormal, largest deviation",
        ),
        "variance": eqv.Check.at_most(
            abs(float(z.square().sum()) / total - 1), 1e-9, "variances add up to that of the embeddings, relative"
        ),
        "uncorrelated": eqv.Check.at_most(
            float(off.abs().max()) / float(parts.variance[0]),
            1e-10,
            "coordinates are uncorrelated, over the first variance",
        ),
        "centred": eqv.Check.at_most(
            float(z.mean(dim=0).abs().max()) / float(parts.variance[0]) ** 0.5,
            1e-10,
            "coordinates have mean 0, over sd",
        ),
    }


def _status(task: eqv.ProbeTask[ProjectionParams], measured: Measured) -> tuple[Literal["ok", "not_converged"], str]:
    parts, kept = measured.components, _kept(task, measured)
    faults, notes = [], []
    found = measured.found
    if found is not None:
        reached, failed, total = int(found.matched.reached.sum()), found.matched.stop.count("failed"), len(found.pairs)
        if reached + failed < total:
            faults.append(
                f"{total - reached - failed} of {total} pairs did not come within {task.params.tolerance:g} of the "
                "target: raise max_jacobians or tolerance"
            )
        if failed:
            faults.append(f"{failed} of {total} pairs failed ({'; '.join(found.matched.errors)})")
        if total < task.params.pairs:
            notes.append(
                f"the set has {found.pairs.eligible} such pairs: all are taken, {task.params.pairs} were asked for"
            )
    loose = [str(place + 1) for place in range(kept) if parts.degenerate[place]]
    if loose:
        one = len(loose) == 1
        which = f"direction of component {loose[0]} is" if one else f"directions of components {', '.join(loose)} are"
        whose = "its variance is" if one else "their variances are"
        notes.append(f"the {which} not determined by {parts.size} images: {whose} not distinct from a neighbor's")
    if kept < task.params.components:
        notes.append(f"{parts.size} images have {kept} components, {task.params.components} were asked for")
    return ("not_converged" if faults else "ok"), "; ".join([*faults, *notes])
