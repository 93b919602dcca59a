"""The nullwalk probe: numbers made again by hand, controls, what it says where nothing moves, claims on digits."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

import equivengine as eqv
from equivengine.contracts.probe import ProbeTask
from equivengine_plugins.probes.nullwalk import NullWalk, NullWalkParams
from equivengine_plugins.probes.nullwalk.controls import inside

SHAPE = (1, 4, 6)


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def image(seed=0, shape=SHAPE):
    """An image [*shape] of which about a fifth lies on the bounds."""
    return (1.3 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) - 0.15).clamp(0, 1)


class Map(nn.Module):
    """f(x) = g(P x), with P [n, m] drawn once."""

    def __init__(self, n=4, shape=SHAPE, g=torch.tanh, seed=0):
        super().__init__()
        self.P = nn.Parameter(gaussian(n, int(np.prod(shape)), seed=seed) / 3)
        self.g = g

    def forward(self, x):
        return self.g(x.flatten(1) @ self.P.T)


def encoder_of(module, shape=SHAPE, **loaded):
    return eqv.Encoder(eqv.LoadedModel(module, preprocessing=lambda raw: raw, input_shape=shape, **loaded), "map")


CURVED = encoder_of(Map())


def task_of(encoder=CURVED, start=0, goal=1, precision="fp32", transform=lambda x: x, seed=0, **params):
    params = NullWalkParams(**params)
    shape = encoder.input_shape
    chosen = (start, goal) if params.direction == "target" else (start,)
    return ProbeTask(
        encoder,
        [transform(image(s, shape)) for s in chosen],
        params,
        seed=seed,
        precision=precision,
        sample_digests=[str(s) for s in chosen],
        references=torch.stack([transform(image(100 + s, shape)) for s in range(12)]),
    )


def run(*arguments, **options):
    return NullWalk().run(task_of(*arguments, **options))


def values(result):
    return {name: scalar.value for name, scalar in result.summary.items()}


# -- the shipped model ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def walks(digits, images):
    chosen = [images[i] for i in np.random.default_rng(0).choice(len(images), 64, replace=False)]
    references = torch.stack([digits.preprocess(s.load()) for s in chosen])
    tasks = [
        ProbeTask(
            digits,
            [digits.preprocess(images[i].load())],
            NullWalkParams(steps=14),
            seed=0,
            sample_digests=[images[i].digest],
            references=references,
            reference_labels=[s.label for s in chosen],
        )
        for i in range(3)
    ]
    return NullWalk().run_batch(tasks)


def test_on_digits_inputs_of_one_embedding_lie_as_far_apart_as_images_of_different_classes(walks):
    for found in walks:
        assert found.status == "ok", found.message
        assert not {name: check for name, check in found.checks.items() if not check.passed}
    furthest = [values(found)["furthest_relative"] for found in walks]
    assert min(furthest) >= 0.3  # connected, every point and segment within 1e-3
    assert sum(far >= 0.9 for far in furthest) >= 2


def test_on_digits_the_embedding_moves_three_orders_less_than_for_the_same_moves_shuffled(walks):
    for found in walks:
        value = values(found)
        assert max(value["drift_largest"], value["between_largest"]) <= 1e-3
        assert value["drift_shuffled"] > 0.1
        assert value["drift_random"] > 0.1
        assert value["change_shuffled"] > 10 * value["change"]
        assert value["class_kept"] == 1
        assert value["null_dim"] == 930  # its 96 outputs end in a LayerNorm: rank 94
        assert value["ssim"] < 0.5


def test_on_digits_the_stored_points_have_the_embedding_that_is_claimed(walks, digits):
    double = digits.at_precision("fp64")
    found = walks[0]
    points = torch.from_numpy(found.arrays["points"].data).double()
    with torch.no_grad():
        f = double(points)
    steps = found.arrays["point_step"].data
    drift = torch.linalg.vector_norm(f - f[0], dim=1).numpy()
    assert np.allclose(drift, found.arrays["drift"].data[steps], atol=1e-9)
    assert points.min() >= 0
    assert points.max() <= 1


# -- maps of known answers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize("direction", ["random", "target"])
def test_every_number_is_that_of_the_stored_points(direction, precision):
    task = task_of(precision=precision, direction=direction, steps=6, stored=100, tolerance=1e-2)
    found = NullWalk().run(task)
    assert found.status == "ok", found.message
    assert not {name: check for name, check in found.checks.items() if not check.passed}
    value, arrays = values(found), {name: array.data for name, array in found.arrays.items()}
    points = torch.from_numpy(arrays["points"]).double()
    assert torch.equal(points[0].float(), task.samples[0])
    f = CURVED.at_precision("fp64")(points).detach()
    drift = torch.linalg.vector_norm(f - f[0], dim=1)
    assert np.allclose(arrays["drift"], drift, atol=1e-12)
    moved = points.flatten(1)
    straight = torch.linalg.vector_norm(moved - moved[0], dim=1)
    assert value["straight"] == pytest.approx(float(straight[-1]), rel=1e-9)
    assert value["path"] == pytest.approx(float(torch.linalg.vector_norm(moved.diff(dim=0), dim=1).sum()), rel=1e-9)
    assert value["straight_relative"] == pytest.approx(float(straight[-1]) / value["yardstick_pixels"])
    assert value["drift_largest"] == pytest.approx(float(drift.max()) / value["yardstick"], abs=1e-12)
    assert value["null_dim"] == 20
    middle = CURVED.at_precision("fp64")((points[:-1] + points[1:]) / 2).detach()
    assert (torch.linalg.vector_norm(middle - f[0], dim=1).numpy() <= arrays["between"] + 1e-12).all()  # 7 hold 1/2
    if direction == "target":
        goal = task.samples[1].double().flatten()
        left = torch.linalg.vector_norm(moved - goal, dim=1)
        assert value["way_made"] == pytest.approx(1 - float(left[-1] / left[0]), rel=1e-6)
        assert (left.diff() < 0).all()


def test_controls_are_as_long_and_shuffled_ones_hold_the_same_numbers():
    """On f(x) = P x nothing else tells controls apart: |P e| of moves of known length."""
    encoder = encoder_of(Map(g=lambda y: y))
    found = run(encoder, steps=4, box=False)
    value = values(found)
    assert value["control_length"] == pytest.approx(1, abs=1e-6)
    P = encoder.module.P.double()
    rms = float(P.square().sum().sqrt()) / P.shape[1] ** 0.5
    for kind in ("shuffled", "random"):
        drift, distance = found.arrays[f"drift_{kind}"].data[1:], found.arrays["distance"].data[1:]
        assert (drift <= float(torch.linalg.matrix_norm(P, 2)) * distance * (1 + 1e-6)).all()
        assert 0.2 * rms < np.median(drift / distance) < 3 * rms
    assert (found.arrays["drift"].data < 1e-5).all()


def test_moves_that_leave_the_box_are_mirrored():
    start = torch.tensor([[0.0, 0.9, 0.5, 0.5]], dtype=torch.float64)
    moves = torch.tensor([[-0.2, 0.3, 0.1, 0.8]], dtype=torch.float64)
    end, realised = inside(start, moves, (0.0, 1.0))
    assert torch.allclose(end, torch.tensor([[0.2, 0.6, 0.6, 0.0]], dtype=torch.float64))
    length = torch.tensor([0.2, 0.3, 0.1, 0.5]).norm() / moves.norm()
    assert float(realised[0]) == pytest.approx(float(length), rel=1e-6)
    assert torch.equal(inside(start, moves, None)[0], start + moves)


def test_seeds_and_images_give_directions_of_their_own_and_the_same_ones_again():
    a, b, c, d = (run(steps=3, seed=s, start=i) for s, i in ((0, 0), (0, 0), (1, 0), (0, 2)))
    for name in a.arrays:
        assert np.array_equal(a.arrays[name].data, b.arrays[name].data), name
    assert not np.allclose(a.arrays["points"].data, c.arrays["points"].data)
    assert not np.allclose(
        a.arrays["points"].data[-1] - a.arrays["points"].data[0],
        d.arrays["points"].data[-1] - d.arrays["points"].data[0],
    )


def test_a_batch_gives_what_each_gives_alone():
    together = NullWalk().run_batch([task_of(start=s, steps=4) for s in range(3)])
    for s, found in enumerate(together):
        alone = run(start=s, steps=4)
        assert np.allclose(found.arrays["points"].data, alone.arrays["points"].data, atol=1e-5, rtol=1e-5)
        assert values(found)["equivalents"] == pytest.approx(values(alone)["equivalents"], rel=0.2)


def test_an_input_range_of_its_own_is_kept_to():
    wide = encoder_of(Map(), input_range=(-1.0, 3.0))
    found = run(wide, transform=lambda x: 4 * x - 1, steps=8)
    assert found.status == "ok"
    assert found.checks["in_box"].passed
    assert found.arrays["points"].data.min() < -0.5
    assert found.pictures["start"].levels.max() > 200


def test_inputs_that_are_no_images_have_no_pictures():
    found = run(encoder_of(Map(shape=(7, 5)), shape=(7, 5)), steps=3)
    assert found.status == "ok"
    assert not found.pictures
    assert "psnr" not in found.summary
    assert list(NullWalk().figures(found.arrays)) == ["Distance and drift along the walk"]


def test_a_classifier_is_followed():
    found = run(encoder_of(Map(), classify=lambda f: f, class_names=["ant", "bee", "cat", "dog"]), steps=5)
    assert values(found)["class_kept"] == 1
    assert set(found.arrays["predicted_names"].data) <= {"ant", "bee", "cat", "dog"}


@pytest.mark.parametrize("direction", ["random", "target"])
def test_figures_and_pictures_are_drawn(direction):
    found = run(direction=direction, steps=5)
    figures = NullWalk().figures(found.arrays)
    assert set(figures) == {"Distance and drift along the walk", "Inputs of one embedding"}
    for figure in figures.values():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=40)
        assert buffer.getbuffer().nbytes > 1000
        assert all(axes.get_xlabel() for axes in figure.axes)
    assert {"start", "end", "difference"} <= set(found.pictures)
    assert ("target" in found.pictures) == (direction == "target")


# -- what cannot be ---------------------------------------------------------------------------------------------------


def test_without_a_null_space_it_says_so_and_is_no_success():
    square = encoder_of(Map(n=24, g=lambda y: y))
    found = run(square)
    assert found.status == "not_converged"
    assert "no null space" in found.message
    assert values(found)["straight"] == 0
    assert values(found)["null_dim"] == 0
    assert "change" not in found.summary
    assert list(NullWalk().figures(found.arrays)) == ["Inputs of one embedding"]


def test_a_wall_that_only_a_finer_look_finds_is_no_success():
    """f leaps away and back between the points at which the walk looks at a segment."""

    class Thin(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x):
            flat = x.flatten(1)
            t = flat.mean(1, keepdim=True)
            spike = torch.where((t > 0.4) & (t < 0.41), 1.0, 0.0).to(x.dtype) * self.w.to(x.dtype)
            return torch.cat([flat[:, :1] - flat[:, 1:2] + spike, spike], 1)

    task = task_of(encoder_of(Thin()), start=0, direction="target", steps=1, step=1.0, between=200)
    black, white = torch.full(SHAPE, 0.1), torch.full(SHAPE, 0.8)
    task = ProbeTask(
        task.encoder, [black, white], task.params, 0, sample_digests=["a", "b"], references=task.references
    )
    found = NullWalk().run(task)
    assert found.status == "not_converged"
    assert "leaves the tolerance" in found.message
    assert not found.checks["segments"].passed


def test_of_a_batch_only_the_culprit_fails():
    good, bad = task_of(direction="target", steps=3), task_of(direction="target", steps=3)
    bad = ProbeTask(bad.encoder, [bad.samples[0]] * 2, bad.params, 0, references=bad.references)
    found = NullWalk().run_batch([good, bad])
    assert [each.status for each in found] == ["ok", "failed"]
    assert "nowhere to go" in found[1].message
    with pytest.raises(eqv.UsageError, match="nowhere to go"):
        NullWalk().run(bad)


def test_derivatives_that_are_not_finite_fail_with_advice():
    task = task_of(encoder_of(Map(g=lambda y: y.square().sqrt())))
    task = ProbeTask(task.encoder, [torch.zeros(SHAPE)], task.params, 0, references=task.references)
    with pytest.raises(eqv.NumericsError, match="derivative"):
        NullWalk().run(task)


@pytest.mark.parametrize(
    "params",
    [{"steps": 0}, {"tolerance": 0}, {"tolerance": 2}, {"step": 0}, {"direction": "up"}, {"stored": 1}, {"speed": 1}],
)
def test_parameters_out_of_range_are_refused(params):
    with pytest.raises(ValidationError):
        NullWalkParams(**params)


def test_the_arity_follows_the_direction():
    assert NullWalk.arity_of(NullWalkParams()) == "one"
    assert NullWalk.arity_of(NullWalkParams(direction="target")) == "pair"
    assert NullWalk.batch_of(NullWalkParams(together=3)) == 3
    assert NullWalk.references_of(NullWalkParams(references=5)) == 5
