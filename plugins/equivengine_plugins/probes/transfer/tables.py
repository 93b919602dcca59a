"""Arrays of a result: one row for each pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

import equivengine as eqv
from equivengine_plugins.probes.transfer.rates import total_variation

if TYPE_CHECKING:
    import numpy as np

    from equivengine_plugins.probes.transfer.measure import Answers, Measured
    from equivengine_plugins.probes.transfer.parameters import TransferParams


def arrays_of(task: eqv.ProbeTask[TransferParams], measured: Measured) -> dict[str, eqv.Array]:
    """All arrays; their dimensions are pair, variant and classes."""
    arrays = _pairs(task, measured)
    for answers in measured.answers:
        arrays |= _head(measured, answers)
    return arrays


def _pairs(task: eqv.ProbeTask[TransferParams], measured: Measured) -> dict[str, eqv.Array]:
    import numpy as np
    import torch

    pairs, matched = measured.pairs, measured.matched
    size = len(task.samples)
    ids = list(task.sample_ids) if len(task.sample_ids) == size else [str(place) for place in range(size)]
    labels = [label or "" for label in task.labels] if len(task.labels) == size else [""] * size
    arrays = {}
    for end, places in (("original", pairs.original), ("target", pairs.target)):
        content = pairs.content[places]
        arrays[f"{end}_image"] = eqv.Array(
            content, ("pair",), "1", f"which image is the {end}: equal ones are the same"
        )
        arrays[f"{end}_id"] = _text([ids[place] for place in places], ("pair",), f"which image is the {end}")
        arrays[f"{end}_label"] = _text([labels[place] for place in places], ("pair",), "its label, empty if unknown")
    arrays["converged"] = eqv.Array(matched.reached, ("pair",), "1", "within the tolerance")
    arrays["stop"] = _text(matched.stop, ("pair",), "why the solver stopped")
    arrays["jacobians"] = eqv.Array(matched.jacobians, ("pair",), "1", "linearizations")
    arrays["equivalents"] = eqv.Array(matched.equivalents, ("pair",), "forward pass", "cost")
    arrays["variant"] = _text(measured.variants, ("variant",), "what an input of a pair is")
    distance = np.stack([measured.to_target(variant) for variant in measured.variants], axis=1)
    axes = ("pair", "variant")
    arrays["distance"] = eqv.Array(distance, axes, "embedding", "|f(input) - f(target)|")
    arrays["relative"] = eqv.Array(distance / measured.held.median, axes, "1", "the same over the yardstick")
    change = [measured.change(variant) for variant in measured.variants]
    for name, values, text in (
        ("l2", [torch.linalg.vector_norm(d, dim=1) for d in change], "L2 distance from the original"),
        ("linf", [d.abs().amax(dim=1) for d in change], "largest difference of a coordinate from the original"),
        ("mean_change", [d.abs().mean(dim=1) for d in change], "mean absolute difference from the original"),
    ):
        arrays[name] = eqv.Array(torch.stack(values, dim=1).cpu().numpy(), axes, "pixel", text)
    arrays["yardstick_distances"] = measured.held.quantile_array()
    arrays["head"] = _text([a.head.name for a in measured.answers], ("head",), "heads that were asked")
    arrays["head_title"] = _text([a.head.title for a in measured.answers], ("head",), "what they are")
    return arrays


def _head(measured: Measured, answers: Answers) -> dict[str, eqv.Array]:
    """Class probabilities (Fig. 1(d) and (h) of the paper), predictions and confusion of one head."""
    import numpy as np

    head, variants = answers.head, measured.variants
    name, classes = head.name, np.array(head.classes, dtype=np.str_)
    target, matched = (answers.predicted[:, variants.index(variant)] for variant in ("target", "matched"))
    seen, places = np.unique(np.concatenate([target, matched]), return_inverse=True)
    confusion = np.zeros((len(seen), len(seen)), dtype=np.int64)
    np.add.at(confusion, (places[: len(target)], places[len(target) :]), 1)
    axes = ("pair", "variant")
    return {
        head.axis: eqv.Array(classes, (head.axis,), "1", "names of classes"),
        f"probabilities_{name}": eqv.Array(
            answers.probabilities, (*axes, head.axis), "1", f"class probabilities, {head.title}"
        ),
        f"predicted_{name}": eqv.Array(classes[answers.predicted], axes, "1", f"predicted class, {head.title}"),
        f"tv_{name}": eqv.Array(
            np.stack([total_variation(answers.probabilities, variants, v, "target") for v in variants], axis=1),
            axes,
            "1",
            f"total-variation distance from the target's class probabilities, {head.title}",
        ),
        f"confusion_{name}": eqv.Array(
            confusion, (f"target_{name}", f"matched_{name}"), "pair", "target's predicted class, matched's"
        ),
        f"confusion_classes_{name}": eqv.Array(classes[seen], (f"target_{name}",), "1", "classes of the confusion"),
    }


def _text(values: list[str] | tuple[str, ...], dims: tuple[str, ...], description: str) -> eqv.Array:
    import numpy as np

    data: np.ndarray = np.array(list(values), dtype=np.str_)
    return eqv.Array(data, dims, "1", description)
