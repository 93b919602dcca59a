"""Condenses what was found for a pair into a result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import equivengine as eqv
from equivengine_plugins.probes.match.measured import Measured as Measured
from equivengine_plugins.probes.match.status import status_of
from equivengine_plugins.probes.match.summary import steps_of, summary_of, unit_image
from equivengine_plugins.probes.match.variants import is_image

if TYPE_CHECKING:
    import numpy as np
    import torch

GAIN = 50
#: Levels k / 255 are rounded to the run's dtype: a budget of whole levels is met but for this share of the range.
LEVEL_ROUNDOFF = 1e-6


def make_result(measured: Measured, row: int) -> eqv.ProbeResult:
    """The result of the pair at ``row``."""
    status, message = status_of(measured, row)
    found, lattice = measured.solved.float_, measured.solved.lattice
    region = measured.solved.region
    pairs = measured.pairs
    provenance: dict[str, object] = {
        "solver": found.solver,
        "stop": found.stop[row],
        "details": _of_pair(found.details, row, len(pairs)),
        "reducible": _known(float(found.reducible[row])),
        "goal": measured.solved.goal,
        "box": [region.low, region.high] if measured.params.bounded else None,
        "solved_together": len(pairs),
        "seconds": measured.seconds,
    }
    if lattice is not None:
        provenance["lattice"] = {"stop": lattice.stop[row], "details": _of_pair(lattice.details, row, len(pairs))}
    if pairs.text_norm is not None:
        provenance["text"] = {
            "prompt": measured.params.text,
            "norm": pairs.text_norm,
            "scaled_to": float(pairs.start[row].norm()),
            "encoder_normalises": measured.task.encoder.spec.normalized_output,
        }
    return eqv.ProbeResult(
        _arrays(measured, row),
        summary_of(measured, row),
        _checks(measured, row),
        status=status,
        message=message,
        provenance=provenance,
        pictures=_pictures(measured, row),
    )


def _of_pair(details: Mapping[str, object], row: int, count: int) -> dict[str, object]:
    """Facts of a solver, of those with one value for each pair the one of this pair."""
    return {
        name: value[row] if isinstance(value, list) and len(value) == count else value
        for name, value in details.items()
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _numpy(values: torch.Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def _arrays(measured: Measured, row: int) -> dict[str, eqv.Array]:
    import numpy as np

    pairs, variants = measured.pairs, measured.variants
    shape = measured.task.encoder.input_shape
    dims = ("channel", "row", "column") if len(shape) == 3 else tuple(f"axis_{k}" for k in range(len(shape)))
    arrays = {"original": eqv.Array(_numpy(pairs.originals[row]), dims, "pixel", "the original")}
    if pairs.images is not None:
        arrays["target"] = eqv.Array(_numpy(pairs.images[row]), dims, "pixel", "the target")
    arrays["matched"] = eqv.Array(_numpy(variants["matched"].x[row]), dims, "pixel", variants["matched"].words)
    if "float" in variants:
        arrays["matched_float"] = eqv.Array(_numpy(variants["float"].x[row]), dims, "pixel", variants["float"].words)
    embeddings = {
        "original": (pairs.start, "f(original)"),
        "target": (pairs.embeddings, "f(target)" if pairs.text_norm is None else "the text's embedding, scaled"),
        "matched": (variants["matched"].embedding, f"f(x), {variants['matched'].words}"),
    }
    if "png" in variants:
        embeddings["png"] = (variants["png"].embedding, f"f(x), {variants['png'].words}")
    for name, (values, words) in embeddings.items():
        arrays[f"embedding_{name}"] = eqv.Array(_numpy(values[row]), ("embedding",), "embedding", words)
    if variants["start"].predicted is not None:
        arrays |= _predicted(measured, row)
    if measured.params.keep_trace:
        arrays |= _trace(measured, row)
    arrays["reference_quantiles"] = measured.yardstick.quantile_array()
    arrays["reference_pairs"] = eqv.Array(
        np.array([measured.yardstick.pairs]), ("one",), "1", f"how many, of {measured.yardstick.images} images"
    )
    arrays["input_range"] = eqv.Array(
        np.array(measured.task.encoder.spec.input_range), ("end",), "pixel", "smallest and largest value of an input"
    )
    return arrays


def _predicted(measured: Measured, row: int) -> dict[str, eqv.Array]:
    """Predicted classes: their numbers, their names where there are any, and whose they are."""
    import numpy as np

    found = {
        name: int(variant.predicted[row])
        for name, variant in measured.variants.items()
        if variant.predicted is not None
    }
    if measured.target_classes is not None:
        found["target"] = int(measured.target_classes[row])
    names = measured.task.encoder.loaded.class_names
    words = [str(names[k]) if names is not None and k < len(names) else str(k) for k in found.values()]
    return {
        "predicted": eqv.Array(np.array(list(found.values())), ("input",), "1", "predicted class, number"),
        "predicted_names": eqv.Array(np.array(words), ("input",), "1", "predicted class, name"),
        "predicted_of": eqv.Array(np.array(list(found)), ("input",), "1", "which input: start is the original"),
    }


def _trace(measured: Measured, row: int) -> dict[str, eqv.Array]:
    trace = measured.solved.float_.trace
    rows = steps_of(measured, row) + 1
    columns = (
        ("distance", trace.distance, "embedding", "|f(x) - f(target)|"),
        ("cosine", trace.cosine, "1", "cosine of f(x) and f(target)"),
        ("mean", trace.mean, "pixel", "mean absolute difference from the original"),
        ("l2", trace.l2, "pixel", "L2 difference from the original"),
        ("equivalents", trace.equivalents, "1", "forward equivalents spent so far"),
    )
    return {
        f"trace_{name}": eqv.Array(_numpy(values[:rows, row]), ("step",), unit, f"{words}, after each step")
        for name, values, unit, words in columns
    }


def _pictures(measured: Measured, row: int) -> dict[str, eqv.Picture]:
    if not is_image(measured.task.encoder.input_shape):
        return {}
    pairs, matched = measured.pairs, measured.variants["matched"]
    original, found = (unit_image(measured, x[row]) for x in (pairs.originals, matched.x))
    pictures = {"original": eqv.pictures.picture(original, "the original")}
    if pairs.images is not None:
        pictures["target"] = eqv.pictures.picture(unit_image(measured, pairs.images[row]), "the target")
    pictures["matched"] = eqv.pictures.picture(found, matched.words)
    pictures["difference"] = eqv.pictures.difference(original, found, f"|matched - original| x {GAIN}", GAIN)
    return pictures


def _checks(measured: Measured, row: int) -> dict[str, eqv.Check]:
    params, solved = measured.params, measured.solved
    found = [measured.variants[name] for name in ("matched", "float") if name in measured.variants]
    points = [variant.x[row].double() for variant in found]
    low, high = measured.task.encoder.spec.input_range
    checks = {}
    if params.bounded:
        beyond = max(max(low - float(x.min()), float(x.max()) - high) for x in points)
        checks["in_box"] = eqv.Check.at_most(beyond, 0, "no pixel leaves the input range, largest excess")
    if params.linf is not None:
        beyond = max(float(variant.linf[row]) for variant in found) - params.linf
        checks["in_linf"] = eqv.Check.at_most(
            beyond, LEVEL_ROUNDOFF * (high - low), "no pixel changes by more than linf, largest excess"
        )
    if params.l2 is not None:
        longest = max(float(variant.l2[row]) for variant in found)
        checks["in_l2"] = eqv.Check.at_most(longest / params.l2, 1 + 1e-6, "L2 change over the budget l2")
    noise = float(measured.again.noise[row])
    handed = solved.lattice or solved.float_
    checks["same_distance"] = eqv.Check.at_most(
        abs(float(handed.distance[row] - measured.again.distance[row])),
        3 * noise + float(measured.roundoff[row]),
        "the solver's distance is that of a fresh evaluation in fp64, within roundoff",
    )
    start = float(measured.variants["start"].distance[row])
    nearest = float(found[-1].distance[row])
    checks["nearer"] = eqv.Check.at_most(nearest / start, 1.0, "matching brings f(x) no further away, ratio")
    if solved.lattice is not None:
        scaled = unit_image(measured, points[0]) * 255
        checks["on_lattice"] = eqv.Check.at_most(
            float((scaled - scaled.round()).abs().max()), 1e-4, "matched holds whole levels, largest distance"
        )
        rounded = solved.lattice.details["rounded"]
        assert isinstance(rounded, list)
        checks["no_worse_than_rounded"] = eqv.Check.at_most(
            float(solved.lattice.distance[row]) - rounded[row],
            0,
            "on levels it matches no worse than by rounding alone",
        )
    return checks
