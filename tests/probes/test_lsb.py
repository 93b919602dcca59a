"""The lsb probe: the worst move against all moves of small maps, each part against another way, claims on digits."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lsb_cases import SHAPE, Map, gaussian, image, parts_of, task_of
from pydantic import ValidationError

import equivengine as eqv
from equivengine.contracts.probe import ProbeTask
from equivengine_plugins.probes.lsb import Lsb, LsbParams
from equivengine_plugins.probes.lsb.draws import KINDS
from equivengine_plugins.probes.lsb.search import ITERATIONS, linear_maxima


def all_images(x, levels):
    """Every image within a budget of levels of x [*shape] and the scale: [B, *shape], float64."""
    start = (x.flatten() * 255).round().long()
    choices = [sorted({min(max(int(k) + step, 0), 255) for step in range(-levels, levels + 1)}) for k in start]
    return torch.tensor(list(itertools.product(*choices)), dtype=torch.float64).reshape(-1, *x.shape) / 255


def largest(task, levels=1):
    """The true maximum of |f(x + d) - f(x)|, by trying everything."""
    encoder, x = task.encoder.at_precision("fp64"), task.samples[0]
    f = encoder(all_images(x, levels)) - encoder(x[None].double())
    return float(torch.linalg.vector_norm(f, dim=1).max())


def run_on(digits, images, index, params=None, precision="fp32", seed=0):
    sample = images[index]
    x = digits.preprocess(sample.load())
    return Lsb().run(ProbeTask(digits, [x], params or LsbParams(), seed, precision, sample_digests=[sample.digest]))


@pytest.fixture(scope="module")
def result(digits, images):
    return run_on(digits, images, 0)


# -- the shipped model ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [1, 3])
def test_on_digits_every_free_check_passes(digits, images, index):
    found = run_on(digits, images, index)
    assert found.status == "ok", found.message
    assert len(found.checks) == 8
    assert not {name: check for name, check in found.checks.items() if not check.passed}


def test_on_digits_the_worst_change_is_far_beyond_chance(result):
    value = {name: scalar.value for name, scalar in result.summary.items()}
    assert value["worst"] > 4 * max(value["uniform_max"], value["signs_max"], value["truncation_max"])
    assert value["worst"] >= value["singular"] > value["uniform"] > value["pixel"] > 100 * value["noise"]
    assert value["linear_search"] < value["bound"]
    for kind in ("uniform", "signs", "truncation", "pixel"):
        assert value[f"linearity_{kind}"] == pytest.approx(1, abs=0.02)


def test_what_is_reported_is_what_the_saved_images_give(result, digits, images):
    """From the stored 8-bit images alone, by plain float64 evaluation and the dense Jacobian."""
    double = digits.at_precision("fp64")
    levels, worst = (result.arrays[name].data for name in ("levels", "worst_levels"))
    assert levels.dtype == worst.dtype == np.uint8
    x, moved = (torch.from_numpy(k).double() / 255 for k in (levels, worst))
    assert torch.equal(x.float(), digits.preprocess(images[0].load()))
    assert np.abs(worst.astype(int) - levels).max() == 1
    with torch.no_grad():
        apart = float(torch.linalg.vector_norm(double(moved[None]) - double(x[None])))
    assert result.summary["worst"].value == pytest.approx(apart, rel=1e-4)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        J = torch.func.jacrev(lambda z: double(z[None])[0])(x).flatten(1)
    predicted = float(torch.linalg.vector_norm(J @ (moved - x).flatten()))
    assert result.summary["linear_worst"].value == pytest.approx(predicted, rel=1e-4)
    norms = torch.linalg.vector_norm(J, dim=0).reshape(levels.shape) / 255
    assert np.allclose(result.arrays["sensitivity"].data, norms, rtol=1e-4)
    s = float(torch.linalg.matrix_norm(J, 2))
    assert result.summary["bound"].value == pytest.approx(s * 32 / 255, rel=1e-5)
    at = tuple(result.arrays["pixel_index"].data)
    assert result.summary["linear_pixel"].value == pytest.approx(float(norms[at]), rel=1e-4)


def test_precisions_agree_within_the_noise_floor(result, digits, images):
    double = run_on(digits, images, 0, precision="fp64")
    noise = result.summary["noise"].value
    assert 0 < double.summary["noise"].value < 1e-6 * noise
    for kind in KINDS:
        assert np.abs(result.arrays[kind].data - double.arrays[kind].data).max() < 10 * noise
    assert result.summary["worst"].value == pytest.approx(double.summary["worst"].value, rel=1e-3)


def test_leading_triplets_find_nearly_as_much_and_say_that_they_are_leading(result, digits, images):
    leading = run_on(digits, images, 0, LsbParams(method="randomized"))
    assert leading.summary["s_1"].value == pytest.approx(result.summary["s_1"].value, rel=1e-3)
    assert leading.summary["worst"].value == pytest.approx(result.summary["worst"].value, rel=0.02)
    whole, part = result.arrays["sensitivity"].data, leading.arrays["sensitivity_leading"].data
    assert (part <= whole * (1 + 1e-3)).all()
    assert "sensitivity" not in leading.arrays
    assert "8 singular triplets" in leading.provenance["linear_model"]
    assert "leading triplets" in leading.summary["pixel"].description
    assert not [name for name in leading.checks if name.startswith("mean_square")]


def test_one_step_is_not_enough_and_says_so(digits, images):
    found = run_on(digits, images, 2, LsbParams(steps=1, tolerance=1e-4))
    assert found.status == "not_converged"
    assert "raise steps" in found.message
    assert (np.diff(found.arrays["worst_path"].data, axis=0) >= 0).all()


def test_the_same_seed_gives_the_same_result(digits, images):
    few = LsbParams(draws=8, steps=2)
    a, b, c = (run_on(digits, images, 3, few, seed=seed) for seed in (0, 0, 1))
    for name in a.arrays:
        assert np.array_equal(a.arrays[name].data, b.arrays[name].data), name
    for kind in KINDS:
        assert not np.array_equal(a.arrays[kind].data, c.arrays[kind].data)


def test_more_levels_move_the_embedding_further_and_stay_on_the_scale(digits, images):
    one, two = (run_on(digits, images, 0, LsbParams(levels=k, draws=8)) for k in (1, 2))
    assert two.summary["worst"].value > 1.5 * one.summary["worst"].value
    assert two.checks["in_range"].passed
    move = two.arrays["worst_levels"].data.astype(int) - two.arrays["levels"].data
    assert np.abs(move).max() == 2
    assert np.array_equal(one.arrays["truncation"].data, two.arrays["truncation"].data)  # knows of no budget


# -- the worst move, known by trying everything -----------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize("seed", range(4))
def test_over_a_linear_encoder_the_worst_of_all_moves_is_found(precision, seed):
    x = image(seed)
    given = task_of(Map(3, x, seed=seed), x, LsbParams(draws=4), precision)
    found = Lsb().run(given)
    assert found.summary["worst"].value == pytest.approx(largest(given), rel=1e-5)
    assert found.summary["linear_search"].value == pytest.approx(found.summary["worst"].value, rel=1e-5)
    for kind in ("uniform", "signs", "truncation", "singular", "pixel", "worst"):
        assert found.summary[f"linearity_{kind}"].value == pytest.approx(1, rel=1e-4)
    c = torch.linalg.vector_norm(given.encoder.module.P.double(), dim=0)
    assert found.summary["pixel"].value == pytest.approx(float(c.max()) / 255, rel=1e-4)
    assert found.checks["nothing_worse"].passed
    assert found.checks["linear_bound"].passed


@pytest.mark.parametrize("seed", range(4))
def test_over_a_bent_encoder_the_worst_of_all_moves_is_found(seed):
    """f is far from linear over one level: the worst move of J is not that of f."""
    x = image(seed + 10)
    bent = lambda y: torch.cat([torch.sin(80 * y[:, :2]), (80 * y[:, 2:3] + 1).square()], 1)  # noqa: E731
    given = task_of(Map(3, x, bent, seed=seed), x)
    found = Lsb().run(given)
    assert abs(found.summary["linearity_worst"].value - 1) > 0.1
    assert found.summary["worst"].value == pytest.approx(largest(given), rel=1e-3)


def test_a_worst_move_that_is_shorter_than_allowed_is_found():
    """f goes round a circle once on the way to a corner of the box: the point furthest from f(x) lies half-way."""
    x = torch.full(SHAPE, 100 / 255)
    module = Map(1, x)
    turn = 2 * torch.pi / (8 / 255 * float(module.P.detach().abs().sum()))
    module.g = lambda y: torch.cat([torch.cos(turn * y), torch.sin(turn * y)], 1)
    found = Lsb().run(task_of(module, x, LsbParams(levels=8)))
    assert found.summary["singular"].value < 1e-3
    assert found.summary["worst"].value == pytest.approx(2, rel=1e-3)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 4), levels=st.integers(1, 8))
def test_maxima_of_the_linear_model_are_fixed_points_and_one_is_the_largest(seed, n, levels):
    x = image(seed)
    given_task = task_of(Map(n, x, seed=seed), x, LsbParams(levels=levels), "fp64")
    evaluation, linear = parts_of(given_task)
    box = evaluation.lattice
    maxima, iterations = linear_maxima(linear, box, gaussian(40, x.numel(), seed=seed).double())
    assert iterations < ITERATIONS
    assert torch.equal(box.furthest(linear.pull(linear.push(maxima)), maxima), maxima)
    corners = torch.tensor(list(itertools.product(*zip(box.lowest.tolist(), box.highest.tolist(), strict=True))))
    assert float(linear.lengths(maxima).max()) == pytest.approx(float(linear.lengths(corners).max()), rel=1e-9)


# -- what can go wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((8,), id="a vector"),
        pytest.param((2, 4, 4), id="two channels"),
        pytest.param((1, 1, 4, 4), id="four dimensions"),
    ],
)
def test_inputs_that_are_no_images_are_refused(shape):
    with pytest.raises(eqv.UsageError, match="no images"):
        Lsb().run(task_of(Map(2, torch.zeros(shape)), torch.zeros(shape)))


def test_an_image_at_which_nothing_moves_is_refused():
    x = image(0)
    with pytest.raises(eqv.NumericsError, match="exactly zero"):
        Lsb().run(task_of(Map(2, x, lambda y: (y.square() - 1).relu()), x))


def test_a_black_image_is_measured_though_truncation_leaves_it_as_it_is():
    x = torch.zeros(SHAPE)
    found = Lsb().run(task_of(Map(2, x), x, LsbParams(draws=4)))
    assert found.summary["truncation"].value == 0
    assert found.summary["linearity_truncation"].value == 1
    assert found.summary["saturated"].value == 1
    assert not found.nan_scalars()
    assert found.arrays["worst_levels"].data.max() == 1
    assert len(Lsb().figures(found.arrays)) == 2


@pytest.mark.parametrize(
    "bad",
    [
        {"levels": 0},
        {"levels": 9},
        {"levels": 1.5},
        {"draws": 1},
        {"noise": 0},
        {"noise": 0.01},
        {"pixels": 0},
        {"method": "dense"},
        {"starts": 0},
        {"steps": 0},
        {"tolerance": 0},
        {"tolerance": float("nan")},
        {"unknown": 1},
    ],
)
def test_bad_parameters_are_refused(bad):
    with pytest.raises(ValidationError):
        LsbParams(**bad)


@pytest.mark.parametrize("channels", [1, 3])
def test_figures_are_drawn_from_arrays_and_leave_nothing_open(channels):
    from matplotlib import pyplot as plt

    x = image(0, (channels, 4, 5))
    found = Lsb().run(task_of(Map(3, x), x, LsbParams(draws=4, levels=2)))
    figures = Lsb().figures(found.arrays)
    assert len(figures) == 2
    for figure in figures.values():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        assert buffer.getbuffer()[:8] == b"\x89PNG\r\n\x1a\n"
        assert all(axes.get_xlabel() or axes.get_ylabel() for axes in figure.axes)
    histogram = next(iter(figures.values())).axes[0]
    assert len(histogram.lines) == 4
    assert sum(patch.get_height() for patch in histogram.patches) == 8
    assert len(Lsb().figures({k: v for k, v in found.arrays.items() if k != "sensitivity"})) == 1
    assert plt.get_fignums() == []
