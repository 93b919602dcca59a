"""Condenses what was measured into a result."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

import equivengine as eqv
from equivengine.statistics import median_interval
from equivengine_plugins.probes.transfer.grid import grid
from equivengine_plugins.probes.transfer.rates import agrees, share, total_variation
from equivengine_plugins.probes.transfer.tables import arrays_of

if TYPE_CHECKING:
    import numpy as np

    from equivengine_plugins.probes.transfer.measure import Answers, Measured
    from equivengine_plugins.probes.transfer.pairs import Pairs
    from equivengine_plugins.probes.transfer.parameters import TransferParams


def make_result(task: eqv.ProbeTask[TransferParams], measured: Measured) -> eqv.ProbeResult:
    """The probe's result."""
    status, message = _status(task, measured)
    reasons = Counter(measured.matched.stop)
    return eqv.ProbeResult(
        arrays_of(task, measured),
        _summary(task, measured),
        _checks(task, measured),
        status=status,
        message=message,
        provenance={
            "solver": task.params.solver,
            "stop": dict(sorted(reasons.items())),
            "eligible_pairs": measured.pairs.eligible,
            "only_different_labels": measured.pairs.other_class,
            "heads": {a.head.name: {"title": a.head.title, **a.head.details} for a in measured.answers},
            "missing_heads": dict(measured.missing),
            "references": len(task.references),
        },
        pictures=_pictures(task, measured),
    )


class _Rows:
    """Collects the scalars of a summary."""

    def __init__(self, pairs: Pairs) -> None:
        self.summary: dict[str, eqv.Scalar] = {}
        self._pairs, self.worth = pairs, pairs.worth()

    def share(
        self, name: str, hits: np.ndarray, description: str, group: str, chosen: np.ndarray | None = None
    ) -> None:
        """The share of all pairs [P], or of those that are chosen [P]; nothing where there are none."""
        worth = self.worth if chosen is None else self._pairs.worth(chosen)
        scalar = share(hits if chosen is None else hits[chosen], worth, description, group)
        if scalar is not None:
            self.summary[name] = scalar

    def median(self, name: str, values: np.ndarray, unit: str, description: str, group: str) -> None:
        """The median over all pairs and its interval."""
        import numpy as np

        interval = median_interval(values, self.worth)
        self.summary[name] = eqv.Scalar(float(np.median(values)), unit, description, interval, len(values), group)

    def plain(self, name: str, value: float, unit: str, description: str, group: str, n: int | None = None) -> None:
        self.summary[name] = eqv.Scalar(value, unit, description, n=n, group=group)


def _summary(task: eqv.ProbeTask[TransferParams], measured: Measured) -> dict[str, eqv.Scalar]:
    import numpy as np
    import torch

    rows = _Rows(measured.pairs)
    pairs, matched, held = measured.pairs, measured.matched, measured.held
    files = "png" in measured.variants
    group = "pairs"
    rows.plain("images", len(pairs.places), "1", "different images among them", group)
    rows.plain("pairs_worth", rows.worth, "1", "independent pairs that these are worth, at least", group, n=len(pairs))
    rows.share("converged", matched.reached, f"matched to {task.params.tolerance:g} or less, share", group)
    rows.plain("failed", matched.stop.count("failed"), "1", "raised a numerical error", group, n=len(pairs))
    rows.median("jacobians", matched.jacobians, "1", "linearizations of a pair, median", group)
    rows.median("equivalents", matched.equivalents, "forward pass", "cost of a pair, median", group)

    group = "distance from the target's embedding, relative; median"
    for variant, text in _named(measured).items():
        if variant != "target":
            rows.median(f"relative_{variant}", measured.to_target(variant) / held.median, "1", text, group)
    worst = float(measured.to_target("matched").max()) / held.median
    rows.plain("relative_matched_max", worst, "1", "matched, largest", group, n=len(pairs))
    rows.summary |= held.summary()

    group = "change of the pixels; median"
    change = measured.change("matched")
    length = torch.linalg.vector_norm(change, dim=1).cpu().numpy()
    rows.median("l2", length, "pixel", "L2", group)
    rows.median("mean_change", change.abs().mean(dim=1).cpu().numpy(), "pixel", "mean of a coordinate", group)
    rows.median("linf", change.abs().amax(dim=1).cpu().numpy(), "pixel", "largest of a coordinate", group)

    _rates(rows, measured, files)
    _agreement(rows, measured, files)
    for answers in measured.answers:
        apart = total_variation(answers.probabilities, measured.variants, "matched", "target")
        group = "class probabilities, matched against target: total variation"
        rows.median(f"tv_{answers.head.name}", apart, "1", f"{answers.head.title}, median", group)
        rows.plain(f"tv_max_{answers.head.name}", float(np.max(apart)), "1", "largest", group, n=len(apart))
    group = "accuracy before: originals against their labels"
    for answers in measured.answers:
        right = _right(task, measured, answers)
        scalar = share(right, len(right), answers.head.title, group)  # different images: independent ones
        if scalar is not None:
            rows.summary[f"accuracy_{answers.head.name}"] = scalar
    return rows.summary


def _named(measured: Measured) -> dict[str, str]:
    texts = {
        "original": "original",
        "target": "target",
        "matched": "matched",
        "png": "matched, re-read from an 8-bit PNG",
        "control": "original, changed at random by the same L2",
    }
    return {variant: texts[variant] for variant in measured.variants}


def _rates(rows: _Rows, measured: Measured, files: bool) -> None:
    """Which class is predicted, by head."""
    variants, reached = measured.variants, measured.matched.reached
    kinds = [("success", "matched", "")] + ([("success_png", "png", ", re-read from PNG")] if files else [])
    for name, variant, text in kinds:
        for answers in measured.answers:
            hits = agrees(answers.predicted, variants, variant, "target")
            head = answers.head
            rows.share(f"{name}_{head.name}", hits, head.title, f"class of the target predicted{text}; share of pairs")
    for name, variant, text in kinds:
        for answers in measured.answers:
            hits = agrees(answers.predicted, variants, variant, "target")
            group = f"class of the target predicted{text}; of converged pairs"
            rows.share(f"{name}_converged_{answers.head.name}", hits, answers.head.title, group, reached)
    for name, one, other, text in (
        ("stayed", "matched", "original", "class of the original predicted for the matched input"),
        ("before", "original", "target", "original and target of one class before matching"),
        ("control", "control", "original", "control: a random change of the same L2 changes the class"),
    ):
        for answers in measured.answers:
            hits = agrees(answers.predicted, variants, one, other)
            hits = ~hits if name == "control" else hits
            rows.share(f"{name}_{answers.head.name}", hits, answers.head.title, f"{text}; share of pairs")


def _agreement(rows: _Rows, measured: Measured, files: bool) -> None:
    """On how many pairs no head tells matched and target apart."""
    import numpy as np

    group = f"all {len(measured.answers)} heads answer as for the target; share of pairs"
    if len(measured.answers) == 1:
        group = "the one head answers as for the target; share of pairs"
    for variant, text in (("matched", "matched"), ("png", "re-read from PNG")):
        if variant == "png" and not files:
            continue
        same = np.stack([agrees(a.predicted, measured.variants, variant, "target") for a in measured.answers])
        everyone = np.asarray(same.all(axis=0))
        name = "agreement" if variant == "matched" else "agreement_png"
        rows.share(name, everyone, text, group)
        rows.share(f"{name}_converged", everyone, f"{text}; of converged pairs", group, measured.matched.reached)


def _right(task: eqv.ProbeTask[TransferParams], measured: Measured, answers: Answers) -> np.ndarray:
    """Whether each different original whose label is a class of the head is given that class."""
    import numpy as np

    found: dict[int, bool] = {}
    labels = task.labels or [None] * len(task.samples)
    for row, place in enumerate(measured.pairs.original.tolist()):
        label = labels[place]
        if label is not None and label in answers.head.classes:
            found[place] = answers.head.classes[answers.predicted[row, 0]] == label
    return np.array(list(found.values()), dtype=bool)


def _checks(task: eqv.ProbeTask[TransferParams], measured: Measured) -> dict[str, eqv.Check]:
    import numpy as np
    import torch

    low, high = task.encoder.spec.input_range
    images = torch.cat([x.double().flatten() for name, x in measured.inputs.items() if name in ("matched", "control")])
    beyond = float(torch.maximum(low - images, images - high).max())
    lengths = [torch.linalg.vector_norm(measured.change(name), dim=1) for name in ("matched", "control")]
    solved = measured.matched.distance
    # Batches of other sizes round differently, by about so many of the embedding's roundoffs.
    eps = float(np.finfo(np.float32 if task.precision == "fp32" else np.float64).eps)
    size = float(torch.linalg.vector_norm(measured.embeddings["target"], dim=1).max())
    again = np.nanmax(np.abs(measured.to_target("matched") - solved)) / (eps * size)
    sums = max(float(np.abs(a.probabilities.sum(axis=-1) - 1).max()) for a in measured.answers)
    return {
        "in_range": eqv.Check.at_most(beyond, 0.0, "matched inputs and controls lie in the input range, beyond it"),
        "control_length": eqv.Check.at_most(
            float(((lengths[1] - lengths[0]).abs() / lengths[0].clamp_min(1e-12)).max()),
            1e-4,
            "random changes are as long as those by matching, relative difference",
        ),
        "distance_again": eqv.Check.at_most(
            float(again), 1000.0, "distances of the solver, evaluated again, difference in roundoffs of |f|"
        ),
        "probabilities": eqv.Check.at_most(sums, 1e-9, "class probabilities add up to 1, difference"),
    }


def _status(task: eqv.ProbeTask[TransferParams], measured: Measured) -> tuple[Literal["ok", "not_converged"], str]:
    pairs, matched, params = measured.pairs, measured.matched, task.params
    faults, notes = [], []
    failed, reached = matched.stop.count("failed"), int(matched.reached.sum())
    if reached + failed < len(pairs):
        faults.append(
            f"{len(pairs) - reached - failed} of {len(pairs)} pairs did not come within {params.tolerance:g} of the "
            "target; they are counted, and rates of converged pairs stand beside: raise max_jacobians or tolerance"
        )
    if failed:
        faults.append(f"{failed} of {len(pairs)} pairs failed and were left as they are ({'; '.join(matched.errors)})")
    if len(pairs) < params.pairs:
        which = " of different labels" if pairs.other_class else ""
        notes.append(
            f"the set of {len(task.samples)} images has {pairs.eligible} ordered pairs{which}: all are taken, "
            f"{params.pairs} were asked for"
        )
    if measured.missing:
        names: dict[str, list[str]] = {}
        for name, reason in measured.missing.items():
            names.setdefault(reason, []).append(name)
        notes += [f"without head {', '.join(heads)}: {reason}" for reason, heads in names.items()]
    if "png" not in measured.variants:
        notes.append("inputs are no images, so no PNG was written")
    return ("not_converged" if faults else "ok"), "; ".join([*faults, *notes])


def _pictures(task: eqv.ProbeTask[TransferParams], measured: Measured) -> dict[str, eqv.Picture]:
    shown = min(task.params.shown, len(measured.pairs))
    if shown == 0 or "png" not in measured.variants or task.encoder.input_shape[0] not in (1, 3):
        return {}
    low, high = task.encoder.spec.input_range
    columns = [(measured.inputs[name][:shown] - low) / (high - low) for name in ("original", "target", "matched")]
    return {
        "pairs": grid(
            columns, f"first {shown} of {len(measured.pairs)} pairs; left to right: original, target, matched"
        )
    }
