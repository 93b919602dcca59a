"""The match probe on maps whose answers are known: each number made again by hand; inputs, figures, options."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import torch
from match_cases import CLASSIFIER, LINEAR, Map, curved, encoder_of, failed_checks, image, run, task_of, values
from PIL import Image
from pydantic import ValidationError
from torch import nn

import equivengine as eqv
from equivengine_plugins.probes.match import Match, MatchParams
from equivengine_plugins.probes.yardstick import measure

# -- known answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "relative"), [("fp32", 1e-6), ("fp64", 1e-13)])
def test_lm_matches_a_linear_map_to_roundoff(precision, relative):
    found = run(precision=precision, tolerance=relative if precision == "fp64" else None)
    assert found.status == "ok", found.message
    assert values(found)["relative_matched"] <= 2 * relative
    assert not failed_checks(found)
    assert found.arrays["matched"].data.dtype == (np.float32 if precision == "fp32" else np.float64)


def test_every_number_is_what_a_plain_evaluation_of_the_stored_arrays_gives():
    encoder = curved(classify=lambda f: f)
    given_task = task_of(encoder)
    found = Match().run(given_task)
    n, double = values(found), encoder.at_precision("fp64")
    x, target, matched = (
        torch.from_numpy(found.arrays[name].data).double() for name in ("original", "target", "matched")
    )
    f = {name: double(each[None])[0] for name, each in (("x", x), ("t", target), ("m", matched))}
    length = measure(given_task).median
    assert n["yardstick"] == length
    assert n["distance_start"] == pytest.approx(float((f["x"] - f["t"]).norm()), rel=1e-5)
    assert n["relative_start"] == pytest.approx(n["distance_start"] / length)
    assert n["distance_fp64"] == pytest.approx(float((f["m"] - f["t"]).norm()), rel=1e-6)
    assert abs(n["distance_matched"] - n["distance_fp64"]) <= 3 * n["noise"] + 1e-12
    assert n["cosine_start"] == pytest.approx(float(nn.functional.cosine_similarity(f["x"], f["t"], dim=0)), rel=1e-5)
    assert n["cosine_matched"] == pytest.approx(1, abs=1e-10)
    moved = matched - x
    assert n["mean_matched"] == pytest.approx(float(moved.abs().mean()))
    assert n["l2_matched"] == pytest.approx(float(moved.norm()))
    assert n["linf_matched"] == pytest.approx(float(moved.abs().max()))
    assert n["l2_relative"] == pytest.approx(n["l2_matched"] / n["yardstick_pixels"])
    assert n["l2_target"] == pytest.approx(float((target - x).norm()))
    assert n["psnr_matched"] == pytest.approx(-10 * np.log10(float(moved.square().mean())))
    assert n["ssim_matched"] == pytest.approx(float(eqv.pictures.ssim(x[None], matched[None])[0]))
    assert n["ssim_target_matched"] == pytest.approx(float(eqv.pictures.ssim(target[None], matched[None])[0]))
    for name, each in (("original", "x"), ("target", "t"), ("matched", "m")):
        assert np.allclose(found.arrays[f"embedding_{name}"].data, f[each], atol=1e-5)
    assert n["equivalents"] == n["forwards"] + n["products"]
    assert n["products"] == 4 * n["jacobians"]  # n = 4: J is written out
    assert n["class_matched"] == 1


def test_the_course_starts_at_the_original_and_ends_at_the_match():
    found = run(curved())
    n = values(found)
    course = {name: found.arrays[f"trace_{name}"].data for name in ("distance", "cosine", "mean", "l2", "equivalents")}
    assert course["distance"][0] == pytest.approx(n["distance_start"], rel=1e-5)
    assert course["l2"][0] == 0
    assert course["mean"][-1] == pytest.approx(n["mean_matched"])
    assert course["equivalents"][-1] == n["equivalents"]
    assert all(np.isfinite(values).all() for values in course.values())
    for name, level in (("3e2", 3e-2), ("1e2", 1e-2), ("1e3", 1e-3)):
        first = int(np.argmax(course["distance"] <= level * n["yardstick"]))
        assert n[f"equivalents_{name}"] == course["equivalents"][first]
    assert n["equivalents_3e2"] <= n["equivalents_1e2"] <= n["equivalents_1e3"] <= n["equivalents"]


def test_the_numbers_of_the_png_are_those_of_the_picture_saved_and_read_by_hand():
    found = run(CLASSIFIER)
    with Image.open(io.BytesIO(found.pictures["matched"].png())) as file:
        pixels = torch.from_numpy(np.asarray(file).copy()).double() / 255
    double = LINEAR.at_precision("fp64")
    x, target = (torch.from_numpy(found.arrays[name].data).double() for name in ("original", "target"))
    n = values(found)
    distance = float((double(pixels[None, None]) - double(target[None])).norm())
    assert n["distance_png"] == pytest.approx(distance, abs=3 * n["noise"])
    assert n["distance_png"] > 100 * n["distance_matched"]
    assert n["l2_png"] == pytest.approx(float((pixels - x[0]).norm()), rel=1e-6)
    assert n["mean_png"] == pytest.approx(float((pixels - x[0]).abs().mean()), rel=1e-6)
    assert n["linf_png"] == pytest.approx(float((pixels - x[0]).abs().max()), rel=1e-6)
    shown = found.pictures["difference"].levels
    by_hand = np.clip(50 * np.abs(found.arrays["matched"].data.astype(float) - found.arrays["original"].data), 0, 1)
    assert np.abs(shown - 255 * by_hand[0]).max() <= 0.5 + 1e-6
    assert list(found.pictures) == ["original", "target", "matched", "difference"]


def test_classes_are_those_of_the_classifier_and_the_match_gets_the_targets():
    target = next(s for s in range(1, 20) if CLASSIFIER(image(s)[None]).argmax() != CLASSIFIER(image(0)[None]).argmax())
    found = run(CLASSIFIER, original=0, target=target)
    whose, number, name = (found.arrays[f"predicted{each}"].data.tolist() for each in ("_of", "", "_names"))
    assert whose == ["start", "matched", "png", "target"]
    by_hand = {
        each: int(CLASSIFIER(torch.from_numpy(found.arrays[array].data)[None]).argmax())
        for each, array in (("start", "original"), ("matched", "matched"), ("target", "target"))
    }
    assert dict(zip(whose, number, strict=True)) | by_hand == dict(zip(whose, number, strict=True))
    assert name == [("ant", "bee", "cat", "dog")[k] for k in number]
    assert (values(found)["class_start"], values(found)["class_matched"]) == (0, 1)
    assert not [each for each in values(run()) if each.startswith("class")]


@pytest.mark.parametrize("input_range", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_other_input_ranges_are_kept_and_their_png_has_levels_of_their_own(input_range):
    low, high = input_range
    encoder = encoder_of(Map(), input_range=input_range)
    found = run(encoder, transform=lambda x: low + (high - low) * x, tolerance=1e-5)
    matched = found.arrays["matched"].data
    assert low <= matched.min() <= matched.max() <= high
    assert not failed_checks(found)
    with Image.open(io.BytesIO(found.pictures["matched"].png())) as file:
        pixels = low + (high - low) * torch.from_numpy(np.asarray(file).copy()).double() / 255
    gap = encoder(pixels[None, None].float()) - torch.from_numpy(found.arrays["embedding_target"].data)
    assert values(found)["distance_png"] == pytest.approx(float(gap.norm()), rel=1e-3)
    assert len(Match().figures(found.arrays)) == 3


# -- other inputs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((7,), id="a vector"),
        pytest.param((3, 8), id="a matrix"),
        pytest.param((4, 3, 3), id="four channels"),
    ],
)
def test_inputs_that_are_no_images_are_matched_without_png_rows(shape):
    encoder = encoder_of(Map(shape=shape, n=3), shape=shape)
    found = run(encoder)
    assert found.status == "ok"
    assert "are no images" in found.message
    assert not found.pictures
    assert not [name for name in found.summary if "png" in name or "ssim" in name or "psnr" in name]
    assert found.arrays["matched"].data.shape == shape
    assert "Course of the matching" in Match().figures(found.arrays)
    with pytest.raises(eqv.UsageError, match="quantize=true needs inputs that are images"):
        run(encoder, quantize=True)


def test_colour_images_are_shown_in_colour():
    encoder = encoder_of(Map(shape=(3, 5, 5)), shape=(3, 5, 5))
    found = run(encoder)
    assert found.pictures["matched"].levels.shape == (5, 5, 3)
    assert len(Match().figures(found.arrays)) == 3


def test_the_trace_can_be_left_out():
    found = run(keep_trace=False)
    assert not [name for name in found.arrays if name.startswith("trace")]
    assert list(Match().figures(found.arrays)) == ["Original, target and matched"]


def test_figures_name_their_axes_and_how_many_stand_behind_them():
    figures = Match().figures(run(CLASSIFIER).arrays)
    for figure in figures.values():
        for axes in figure.axes:
            assert axes.get_xlabel()
    row = figures["Original, target and matched"]
    assert [axes.get_title().split("\n")[0] for axes in row.axes] == [
        "original",
        "target",
        "matched",
        "|matched - original| x 50",
    ]
    assert "class" in row.axes[0].get_title()
    labels = [text.get_text() for text in figures["Distance against cost"].axes[0].get_legend().get_texts()]
    assert any("n = 36" in label for label in labels)
    assert figures["Course of the matching"].axes[0].get_yscale() == "log"


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        {"solver": "adam"},
        {"tolerance": 0},
        {"tolerance": 1},
        {"tolerance": float("nan")},
        {"l2": 0},
        {"linf": -0.1},
        {"max_jacobians": 0},
        {"jacobian": "sparse"},
        {"solver": "gd", "rate": 0},
        {"solver": "gd", "steps": 0},
        {"solver": "gd", "cosine": 1},
        {"solver": "gd", "loss": "median"},
        {"solver": "gd", "box": False},
        {"solver": "gd", "max_jacobians": 5},
        {"solver": "gd", "jacobian": "dense"},
        {"solver": "minimal-linf", "jacobian": "products"},
        {"solver": "minimal-linf", "max_jacobians": 1},
        {"rate": 0.1},
        {"steps": 10},
        {"clamp": True},
        {"cosine": 0.9},
        {"loss": "mean"},
        {"text": ""},
        {"references": 1},
        {"together": 0},
        {"unknown": 1},
    ],
)
def test_options_out_of_range_are_refused(bad):
    with pytest.raises(ValidationError):
        MatchParams(**bad)


def test_minimal_is_the_smallest_l2_change_and_each_solver_has_a_tolerance_of_its_own():
    assert MatchParams(solver="minimal") == MatchParams(solver="minimal-l2")
    assert [MatchParams(solver=s).relative for s in ("lm", "minimal", "minimal-linf", "gd")] == [1e-6, 2e-3, 2e-3, 3e-2]
    assert MatchParams(tolerance=0.01).relative == 0.01
    assert (Match.batch_of(MatchParams(together=7)), Match.references_of(MatchParams(references=9))) == (7, 9)


def test_a_set_too_small_for_a_yardstick_is_one_error():
    with pytest.raises(eqv.UsageError, match="no two reference images"):
        Match().run(dataclasses.replace(task_of(), references=image(1)[None], reference_labels=["a"]))
