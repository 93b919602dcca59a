"""What the probe transfer cannot measure, and says so."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from colours import N, encoder_of, task_of
from pydantic import ValidationError
from torch import nn
from transfer_cases import params

import equivengine as eqv
from equivengine_plugins.probes.transfer import Transfer, TransferParams

# -- what can go wrong ------------------------------------------------------------------------------------------------


def test_without_labels_only_the_own_head_is_asked_and_the_reason_stands():
    found = Transfer().run(task_of(params(), labelled=False))
    assert list(found.arrays["head"].data) == ["own"]
    assert "without head mean, mean_cosine, nn, linear: heads that are made from images" in found.message
    assert "without head text" in found.message
    assert found.provenance["only_different_labels"] is False
    assert "accuracy_own" not in found.summary


def test_inputs_that_are_no_images_are_measured_without_files():
    flat = encoder_of(nn.Sequential(nn.Linear(16, N)), input_shape=(16,))
    task = task_of(params())
    task = dataclasses.replace(
        task, encoder=flat, samples=[x.flatten() for x in task.samples], references=task.references.flatten(1)
    )
    found = Transfer().run(task)
    assert list(found.arrays["variant"].data) == ["original", "target", "matched", "control"]
    assert "no PNG" in found.message
    assert not found.pictures
    assert not [name for name in found.summary if "png" in name]
    assert Transfer().figures(found.arrays)


@pytest.mark.parametrize("range_", [(-1.0, 1.0), (0.0, 255.0)])
def test_files_hold_levels_of_the_models_own_range(range_):
    low, high = range_
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, N))
    encoder = encoder_of(module, input_range=range_)
    task = task_of(params(heads=("nn",), solver="lm"))
    scaled = dataclasses.replace(
        task,
        encoder=encoder,
        samples=[x * (high - low) + low for x in task.samples],
        references=task.references * (high - low) + low,
    )
    found = Transfer().run(scaled)
    step = (high - low) / 255
    gap = found.arrays["linf"].data
    assert (np.abs(gap[:, 3] - gap[:, 2]) <= step / 2 + 1e-4 * (high - low)).all()
    assert found.summary["success_png_nn"].value == 1


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ({"count": 1}, "no two different images", "--limit"),
        ({"given": {"heads": ("text",)}}, "no text tower", "leave prompts"),
        ({"given": {"prompts": ("a", "b")}}, "no text tower", "leave prompts"),
        ({"given": {"heads": ("nn",)}, "labelled": False}, "need labeled references", "--targets"),
        ({"own": False, "labelled": False}, "nothing can classify", "--targets"),
        ({"given": {"heads": ("own",)}, "own": False}, "no classifier of its own", "leave head own out"),
        ({"given": {"other_class": True}, "labelled": False}, "different labels", "other_class=false"),
        ({"references": 1, "given": {"heads": ("own",)}}, "no two reference images", "--targets"),
    ],
)
def test_what_cannot_be_measured_is_one_error_with_advice(change, message, hint):
    change = dict(change)
    given_, own = change.pop("given", {}), change.pop("own", True)
    with pytest.raises(eqv.UsageError, match=message) as caught:
        Transfer().run(task_of(params(**given_), encoder_of(own=own), **change))
    assert hint in caught.value.hint


def test_prompts_without_their_head_are_refused():
    with pytest.raises(eqv.UsageError, match="head text is not among"):
        Transfer().run(task_of(params(prompts=("a", "b"), heads=("own",)), encoder_of(text=True)))


@pytest.mark.parametrize(
    "returned",
    [
        pytest.param(torch.zeros(3, N), id="zeros"),
        pytest.param(torch.full((3, N), torch.nan), id="NaN"),
        pytest.param(torch.ones(3, 2), id="another length"),
        pytest.param(torch.ones(N), id="a vector"),
    ],
)
def test_a_text_tower_that_returns_no_embeddings_is_refused(returned):
    encoder = encoder_of(embed_text=lambda prompts: returned)
    with pytest.raises(eqv.ModelError, match="text tower"):
        Transfer().run(task_of(params(heads=("text",)), encoder))


@pytest.mark.parametrize(
    "bad",
    [
        {"pairs": 0},
        {"pairs": 10_001},
        {"pairs": 1.5},
        {"tolerance": 0},
        {"tolerance": 1},
        {"tolerance": float("nan")},
        {"max_jacobians": 0},
        {"references": 1},
        {"heads": "own,oracle"},
        {"heads": ()},
        {"heads": "own,own"},
        {"prompts": ("a cat",)},
        {"prompts": ("a cat", "a cat")},
        {"template": "a photo"},
        {"temperature": 0},
        {"solver": "gd"},
        {"shown": -1},
        {"unknown": 1},
    ],
)
def test_bad_parameters_are_refused(bad):
    with pytest.raises(ValidationError):
        TransferParams(**bad)


def test_heads_may_be_written_with_commas():
    assert TransferParams(heads="own, nn").heads == ("own", "nn")
    assert Transfer.references_of(TransferParams(references=17)) == 17
