"""The match probe on maps whose answers are known: each number made again by hand, and everything that can go wrong."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from torch import nn

import equivengine as eqv
from equivengine.contracts.probe import ProbeTask
from equivengine_plugins.probes.match import Match, MatchParams
from equivengine_plugins.probes.yardstick import measure

SHAPE = (1, 4, 6)


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def image(seed=0, shape=SHAPE):
    """Levels [*shape] of which about a sixth lie at an end of the scale."""
    levels = torch.randint(-25, 281, shape, generator=torch.Generator().manual_seed(seed))
    return levels.clamp(0, 255).float() / 255


class Map(nn.Module):
    """f(x) = g(P x), with P [n, m] drawn once."""

    def __init__(self, n=4, shape=SHAPE, g=lambda y: y, seed=0):
        super().__init__()
        self.P = nn.Parameter(gaussian(n, int(np.prod(shape)), seed=seed))
        self.g = g

    def forward(self, x):
        return self.g(x.flatten(1) @ self.P.T)


def encoder_of(module, shape=SHAPE, **loaded):
    return eqv.Encoder(eqv.LoadedModel(module, preprocessing=lambda raw: raw, input_shape=shape, **loaded), "map")


LINEAR = encoder_of(Map())
#: Takes an embedding for its largest coordinate.
CLASSIFIER = encoder_of(Map(), classify=lambda f: f, class_names=["ant", "bee", "cat", "dog"])


def curved(**loaded):
    return encoder_of(Map(g=lambda y: torch.tanh(y / 3)), **loaded)


def task_of(encoder=LINEAR, original=0, target=1, precision="fp32", references=12, transform=lambda x: x, **params):
    """A task on images drawn from seeds; ``target=None`` leaves it out."""
    shape = encoder.input_shape
    samples = [transform(image(s, shape)) if isinstance(s, int) else s for s in (original, target) if s is not None]
    return ProbeTask(
        encoder,
        samples,
        MatchParams(**params),
        seed=0,
        precision=precision,
        sample_digests=[f"{original}", f"{target}"],
        references=torch.stack([transform(image(100 + s, shape)) for s in range(references)]),
        reference_labels=["a", "b"] * (references // 2),
    )


def run(*arguments, **options):
    return Match().run(task_of(*arguments, **options))


def values(result):
    return {name: scalar.value for name, scalar in result.summary.items()}


def failed_checks(result):
    return {name: check for name, check in result.checks.items() if not check.passed}


# -- known answers ----------------------------------------------------------------------------------------------------


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


# -- regions ----------------------------------------------------------------------------------------------------------


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000), l2=st.sampled_from([None, 0.2, 1.0]), linf=st.sampled_from([None, 0.03, 0.3]))
def test_what_is_found_lies_in_the_region_whether_it_matches_or_not(seed, l2, linf):
    found = run(curved(), original=seed, target=seed + 1, l2=l2, linf=linf)
    assert not failed_checks(found)
    n = values(found)
    assert n["outside"] == 0
    assert l2 is None or n["l2_matched"] <= l2 * (1 + 1e-6)
    assert linf is None or n["linf_matched"] <= linf
    assert (found.status == "ok") == (n["relative_matched"] <= 1.1e-6)


def test_a_target_beyond_the_budget_is_not_converged_and_says_by_how_much_and_what_to_do():
    found = run(l2=0.05)
    assert found.status == "not_converged"
    n = values(found)
    assert f"{n['relative_matched']:.3g} of the yardstick" in found.message
    assert "raise l2, set box=false" in found.message
    assert n["relative_matched"] > 0.1
    assert np.isnan(n["equivalents_1e3"])
    # No shift of length 0.05 does better by more than the optimality of a search: P is known.
    start = torch.from_numpy(found.arrays["embedding_original"].data - found.arrays["embedding_target"].data)
    assert n["distance_matched"] >= float(start.norm() - 0.05 * torch.linalg.matrix_norm(LINEAR.module.P.double(), 2))


def test_a_target_out_of_reach_of_the_box_is_within_reach_without_it():
    """Of a linear map the furthest embedding of the box in any direction is known."""
    P = LINEAR.module.P.detach()
    corner = (P.sum(dim=0) > 0).float()
    v = P @ corner
    encoder = encoder_of(Map(), embed_text=lambda prompts: -v[None])
    furthest = float((P.T @ (-v / v.norm())).clamp_min(0).sum())
    assert furthest < 0.9 * float(v.norm())  # the target lies at |v| in that direction
    boxed, free = (
        run(encoder, original=corner.reshape(SHAPE), target=None, text="opposite", box=box) for box in (True, False)
    )
    assert boxed.status == "not_converged"
    assert "set box=false" in boxed.message
    assert not failed_checks(boxed)
    assert values(boxed)["distance_matched"] >= float(v.norm()) - furthest - 1e-4
    assert free.status == "ok", free.message
    assert values(free)["outside"] > 0
    assert "in_box" not in free.checks


def test_one_jacobian_is_not_enough_for_a_curved_map():
    found = run(curved(), max_jacobians=1)
    assert found.status == "not_converged"
    assert "all 1 Jacobian is spent; raise max_jacobians" in found.message
    assert values(found)["jacobians"] == 1


def test_roundoff_is_good_enough_where_no_tolerance_was_asked_for():
    """A long constant part of the embedding makes 1e-6 of the distances less than its roundoff."""

    class Offset(Map):
        def forward(self, x):
            return super().forward(x) + 3e4

    encoder = encoder_of(Offset(), embed_text=lambda prompts: torch.ones(1, 4))  # f(x) all equal: within reach
    asked = run(encoder, target=None, text="even", box=False, tolerance=1e-6)
    assert asked.status == "not_converged"
    assert "roundoff of fp32; pass --precision fp64" in asked.message
    default = run(encoder, target=None, text="even", box=False)
    assert default.status == "ok"
    assert "matched to the roundoff of fp32" in default.message
    assert not failed_checks(default)
    precise = run(encoder, target=None, text="even", box=False, tolerance=1e-6, precision="fp64")
    assert precise.status == "ok", precise.message


# -- gradient descent -------------------------------------------------------------------------------------------------


def descended(steps, rate, low=-np.inf, high=np.inf):
    """Eq. 4 of the paper by hand, on the linear map."""
    P, x, target = LINEAR.module.P.detach().double(), image(0).double().flatten(), image(1).double().flatten()
    path = [x]
    for _ in range(steps):
        path.append((path[-1] - rate * P.T @ (P @ (path[-1] - target))).clamp(low, high))
    return torch.stack(path), P @ target


@pytest.mark.parametrize("clamp", [False, True])
def test_gd_takes_the_steps_of_the_paper(clamp):
    rate = 0.02
    path, target = descended(7, rate, *((0, 1) if clamp else ()))
    found = run(solver="gd", rate=rate, steps=7, clamp=clamp, tolerance=1e-9)
    assert np.allclose(found.arrays["matched"].data.flatten(), path[-1], atol=1e-5)
    distances = torch.linalg.vector_norm(path @ LINEAR.module.P.detach().double().T - target, dim=1)
    assert np.allclose(found.arrays["trace_distance"].data, distances, atol=1e-4)
    assert np.allclose(found.arrays["trace_mean"].data, (path - path[0]).abs().mean(1), atol=1e-6)
    assert values(found)["steps"] == 7
    assert values(found)["products"] == 7
    assert ("in_box" in found.checks) == clamp
    assert found.status == "not_converged"
    assert "all 7 steps are spent; raise steps or rate" in found.message


def test_the_mean_loss_is_the_sum_at_two_nths_of_the_rate():
    summed = run(solver="gd", rate=0.02, steps=5, tolerance=1e-9)
    mean = run(solver="gd", rate=0.02 * 4 / 2, steps=5, tolerance=1e-9, loss="mean")
    assert np.allclose(summed.arrays["matched"].data, mean.arrays["matched"].data, atol=1e-6)
    assert mean.provenance["details"]["rate"] == pytest.approx(0.02)


def test_gd_stops_at_the_tolerance_and_with_a_cosine_only_there_too():
    near = run(solver="gd", rate=0.02, tolerance=0.1)
    assert near.status == "ok"
    course = near.arrays["trace_distance"].data
    goal = 0.1 * values(near)["yardstick"]
    assert course[-1] <= goal < course[-2]
    wanted = (1 + values(near)["cosine_matched"]) / 2
    both = run(solver="gd", rate=0.02, tolerance=0.1, cosine=wanted)
    assert both.status == "ok"
    assert values(both)["cosine_matched"] > wanted
    assert values(both)["steps"] > values(near)["steps"]
    spent = run(solver="gd", rate=0.02, tolerance=0.1, cosine=1 - 1e-12, steps=int(values(near)["steps"]) + 1)
    assert spent.status == "not_converged"
    assert "not yet above" in spent.message


def test_gd_at_too_high_a_rate_diverges_and_says_so():
    found = run(solver="gd", rate=1.0)
    assert found.status == "not_converged"
    assert "diverged, the distance grew a thousandfold" in found.message
    assert "lower rate" in found.message
    assert values(found)["distance_matched"] <= values(found)["distance_start"]
    assert len(Match().figures(found.arrays)) == 3


def test_gd_that_meets_a_gradient_that_is_not_finite_says_so():
    bad = image(3)
    bad.view(-1)[0] = 0.5
    found = run(encoder_of(Cusp()), original=bad, solver="gd")
    assert found.status == "not_converged"
    assert "the embedding is no longer finite" in found.message
    assert len(Match().figures(found.arrays)) == 3


# -- the smallest change ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tolerance", [1e-1, 2e-3])
def test_the_smallest_change_of_a_linear_map_is_found(tolerance):
    """Without a box it is P^T (P P^T + w)^-1 r, w such that the distance is the tolerance."""
    found = run(solver="minimal", box=False, tolerance=tolerance)
    assert found.status == "ok", found.message
    P, n = LINEAR.module.P.detach().double(), values(found)
    r = P @ (image(1) - image(0)).double().flatten()
    goal, low, high = tolerance * n["yardstick"], 1e-9, 1e9
    for _ in range(200):
        w = (low * high) ** 0.5
        d = P.T @ torch.linalg.solve(P @ P.T + w * torch.eye(4), r)
        low, high = (w, high) if float((P @ d - r).norm()) <= goal else (low, w)
    assert float(d.norm()) * (1 - 1e-6) <= n["l2_matched"] <= 1.02 * float(d.norm())
    assert n["optimality"] < 1e-3
    assert n["l2_matched"] < values(run())["l2_matched"] * 1.001
    assert not failed_checks(found)


def test_a_smallest_change_beyond_the_budget_is_not_converged():
    found = run(solver="minimal", l2=0.05)
    assert found.status == "not_converged"
    assert "beyond the budget l2 of 0.05; raise l2" in found.message


@pytest.mark.parametrize("tolerance", [1e-1, 1e-2])
def test_the_smallest_largest_change_of_a_linear_map_is_found(tolerance):
    """No smaller one exists: by weak duality |d|_inf >= (u.r - goal |u|) / |P^T u|_1 for any u, maximised here."""
    found = run(solver="minimal-linf", box=False, tolerance=tolerance)
    assert found.status == "ok", found.message
    P, n = LINEAR.module.P.detach().double(), values(found)
    x, z = (torch.from_numpy(found.arrays[name].data).double().flatten() for name in ("original", "matched"))
    r = P @ (image(1).double().flatten() - x)
    goal = tolerance * n["yardstick"]

    def bound(u):
        return (u @ r - goal * u.norm()) / (P.T @ u).abs().sum()

    u = (r - P @ (z - x)).clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS([u], max_iter=300, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        value = -bound(u)
        value.backward()
        return value

    optimiser.step(loss)
    best = float(bound(u.detach()))
    assert n["linf_matched"] >= best * (1 - 1e-6)
    assert n["linf_matched"] <= 1.05 * best
    assert n["linf_matched"] < values(run(solver="minimal", box=False, tolerance=tolerance))["linf_matched"]
    assert not failed_checks(found)


# -- 8-bit levels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [{}, {"solver": "gd", "rate": 0.02, "tolerance": 1e-2}, {"linf": 0.4}])
def test_with_quantize_the_match_lies_on_levels_and_its_file_holds_all_of_it(solver):
    found = run(CLASSIFIER, quantize=True, **solver)
    n = values(found)
    assert not failed_checks(found)
    levels = found.arrays["matched"].data.astype(float) * 255
    assert np.abs(levels - levels.round()).max() < 1e-4
    with Image.open(io.BytesIO(found.pictures["matched"].png())) as file:
        assert np.array_equal(np.asarray(file).astype(np.float32) / np.float32(255), found.arrays["matched"].data[0])
    assert n["distance_png"] == pytest.approx(n["distance_matched"], abs=3 * n["noise"])
    assert n["distance_matched"] < 0.5 * n["distance_float_png"]  # than by rounding alone
    assert found.arrays["matched_float"].data.shape == SHAPE
    assert n["equivalents_lattice"] > 0
    assert n["class_float_png"] in (0, 1)
    assert len(Match().figures(found.arrays)) == 3


def test_levels_that_miss_a_tolerance_are_no_success_where_one_was_asked_for():
    asked = run(quantize=True, tolerance=1e-6)
    assert asked.status == "not_converged"
    assert "on 8-bit levels" in asked.message
    assert f"{values(asked)['relative_matched']:.3g} of the yardstick" in asked.message
    assert values(asked)["relative_float"] <= 2e-6
    default = run(quantize=True)
    assert default.status == "ok"
    assert values(default)["distance_matched"] == values(asked)["distance_matched"]


def test_without_a_box_the_match_on_levels_lies_in_the_range_all_the_same():
    found = run(box=False, quantize=True, original=3, target=4)
    assert 0 <= found.arrays["matched"].data.min() <= found.arrays["matched"].data.max() <= 1


# -- text -------------------------------------------------------------------------------------------------------------


def tower(prompts):
    return torch.stack([0.01 * LINEAR(image(len(prompt))[None])[0] for prompt in prompts])


def test_a_text_is_matched_at_the_length_of_the_original_and_the_result_says_so():
    found = run(encoder_of(Map(), embed_text=tower), target=None, text="zebra", box=False, tolerance=1e-5)
    assert found.status == "ok", found.message
    target = torch.from_numpy(found.arrays["embedding_target"].data)
    direction = tower(["zebra"])[0].double()
    start = torch.from_numpy(found.arrays["embedding_original"].data)
    assert float(target.norm()) == pytest.approx(float(start.norm()), rel=1e-6)
    assert float(nn.functional.cosine_similarity(target, direction, dim=0)) == pytest.approx(1, abs=1e-9)
    assert "scaled to the length of f(original)" in found.message
    n = values(found)
    assert n["text_norm"] == pytest.approx(float(direction.norm()), rel=1e-6)
    assert n["text_scaled"] == pytest.approx(float(start.norm()), rel=1e-6)
    assert n["cosine_matched"] == pytest.approx(1, abs=1e-8)
    assert "target" not in found.arrays
    assert "target" not in found.pictures
    assert len(Match().figures(found.arrays)) == 3
    assert (Match.arity_of(MatchParams(text="a")), Match.arity_of(MatchParams())) == ("one", "pair")


def test_an_encoder_without_a_text_tower_is_one_clear_error():
    with pytest.raises(eqv.UsageError, match="no text tower") as caught:
        run(target=None, text="zebra")
    assert "--model" in caught.value.hint


@pytest.mark.parametrize("bad", [torch.zeros(1, 4), torch.full((1, 4), float("nan"))])
def test_a_text_without_a_direction_is_refused(bad):
    with pytest.raises(eqv.NumericsError, match="no direction"):
        run(encoder_of(Map(), embed_text=lambda prompts: bad), target=None, text="zebra")


def test_text_embeddings_of_another_length_are_refused():
    with pytest.raises(eqv.UsageError, match="not lie in the space"):
        run(encoder_of(Map(), embed_text=lambda prompts: torch.ones(1, 5)), target=None, text="zebra")


# -- batches ----------------------------------------------------------------------------------------------------------


def test_pairs_of_a_batch_get_what_they_get_alone():
    encoder = curved(classify=lambda f: f)
    tasks = [task_of(encoder, original=k, target=k + 20) for k in range(5)]
    together = Match().run_batch(tasks)
    for given_task, one in zip(tasks, together, strict=True):
        alone = Match().run(given_task)
        assert one.provenance["solved_together"] == 5
        assert alone.provenance["solved_together"] == 1
        assert np.abs(one.arrays["matched"].data - alone.arrays["matched"].data).max() < 1e-5
        assert values(one)["jacobians"] == values(alone)["jacobians"]
        assert one.status == alone.status == "ok"


def test_the_same_task_gives_the_same_bits_and_seeds_change_nothing():
    first, again, other = (
        Match().run_batch(
            [dataclasses.replace(task_of(curved(), original=k, target=k + 20), seed=seed) for k in (1, 2)]
        )
        for seed in (0, 0, 7)
    )
    for a, b, c in zip(first, again, other, strict=True):
        for name, array in a.arrays.items():
            assert np.array_equal(array.data, b.arrays[name].data, equal_nan=array.data.dtype.kind == "f")
            assert np.array_equal(array.data, c.arrays[name].data, equal_nan=array.data.dtype.kind == "f")


class Cusp(nn.Module):
    """Linear, but for a cusp at x_0 = 1/2 where the gradient is not finite though the value is."""

    def __init__(self):
        super().__init__()
        self.map = Map()

    def forward(self, x):
        return self.map(x) + 1e-3 * (x.flatten(1)[:, :1] - 0.5).abs().sqrt()


def test_a_pair_without_a_gradient_fails_alone():
    encoder = encoder_of(Cusp())
    bad = image(3)
    bad.view(-1)[0] = 0.5
    tasks = [task_of(encoder, original=o, target=t, tolerance=1e-3) for o, t in ((1, 21), (bad, 22), (2, 23))]
    found = Match().run_batch(tasks)
    assert [one.status for one in found] == ["ok", "failed", "ok"]
    assert "NaN" in found[1].message
    with pytest.raises(eqv.NumericsError):
        Match().run(tasks[1])


def test_a_pair_of_one_embedding_fails_alone_with_one_message():
    twin = image(4) + torch.linalg.svd(LINEAR.module.P.double())[2][-1].reshape(SHAPE).float() * 0.01
    tasks = [task_of(original=1, target=21), task_of(original=image(4), target=twin), task_of(original=2, target=22)]
    found = Match().run_batch(tasks)
    assert [one.status for one in found] == ["ok", "failed", "ok"]
    assert "one embedding already: there is nothing to match" in found[1].message
    assert found[0].provenance["solved_together"] == 2
    alone = Match().run(tasks[1])
    assert alone.status == "failed"
    assert alone.message.splitlines()[0] == found[1].message.splitlines()[0]


def test_an_original_out_of_range_fails_alone():
    outside = image(3) + 0.5
    found = Match().run_batch([task_of(original=outside), task_of(original=2)])
    assert [one.status for one in found] == ["failed", "ok"]
    assert "outside the box" in found[0].message


def test_an_original_within_the_tolerance_is_left_as_it_is_and_says_so():
    near = image(1) + 1e-3 * gaussian(*SHAPE).abs()
    near = near.clamp(0, 1)
    found = run(original=near, target=1, tolerance=0.5)
    assert found.status == "ok"
    assert "within the tolerance already" in found.message
    assert np.array_equal(found.arrays["matched"].data, found.arrays["original"].data)
    assert len(Match().figures(found.arrays)) == 3


# -- other inputs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7,), (3, 8), (4, 3, 3)])
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


# -- options ----------------------------------------------------------------------------------------------------------


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
