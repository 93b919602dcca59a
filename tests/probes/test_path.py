"""The path probe: maps whose paths are known, each number made again by hand, bad input, claims on digits."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

import equivengine as eqv
from equivengine.contracts.probe import ProbeTask
from equivengine_plugins.probes.path import Path, PathParams
from equivengine_plugins.probes.path.curve import along, straight
from equivengine_plugins.probes.path.summary import connected, kept

SHAPE = (1, 4, 6)
SMALL = {"points": 9, "steps": 4, "rank": 3, "spaces": 3}


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def image(seed=0, shape=SHAPE):
    """An image [*shape] of which about a fifth lies on the bounds."""
    return (1.3 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) - 0.15).clamp(0, 1)


class Map(nn.Module):
    """f(x) = g(P x), with P [n, m] drawn once."""

    def __init__(self, n=4, shape=SHAPE, g=lambda y: y, seed=0):
        super().__init__()
        self.P = nn.Parameter(gaussian(n, int(np.prod(shape)), seed=seed) / 3)
        self.g = g

    def forward(self, x):
        return self.g(x.flatten(1) @ self.P.T)


def encoder_of(module, shape=SHAPE, **loaded):
    return eqv.Encoder(eqv.LoadedModel(module, preprocessing=lambda raw: raw, input_shape=shape, **loaded), "map")


LINEAR = encoder_of(Map())
CURVED = encoder_of(Map(g=torch.tanh))


def task_of(encoder=CURVED, original=0, target=1, precision="fp32", **params):
    shape = encoder.input_shape
    samples = [image(s, shape) if isinstance(s, int) else s for s in (original, target)]
    return ProbeTask(
        encoder,
        samples,
        PathParams(**(SMALL | params)),
        seed=0,
        precision=precision,
        sample_digests=[str(original), str(target)],
        references=torch.stack([image(100 + s, shape) for s in range(12)]),
    )


def run(*arguments, **options):
    return Path().run(task_of(*arguments, **options))


def values(result):
    return {name: scalar.value for name, scalar in result.summary.items()}


# -- the shipped model ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_digits(digits, images):
    chosen = [images[i] for i in np.random.default_rng(0).choice(len(images), 64, replace=False)]
    pair = [images[0], images[5]]
    task = ProbeTask(
        digits,
        [digits.preprocess(s.load()) for s in pair],
        PathParams(steps=4, spaces=2),
        seed=0,
        sample_digests=[s.digest for s in pair],
        references=torch.stack([digits.preprocess(s.load()) for s in chosen]),
        reference_labels=[s.label for s in chosen],
    )
    return Path().run(task)


def test_on_digits_both_classes_reach_well_towards_the_other_image(on_digits):
    assert on_digits.status == "ok", on_digits.message
    assert not {name: check for name, check in on_digits.checks.items() if not check.passed}
    value = values(on_digits)
    for name in ("first", "last"):
        assert value[f"{name}_drift"] <= 1e-3
        assert value[f"{name}_left_share"] < 0.7
        assert value[f"{name}_moved_relative"] > 0.4
        assert value[f"{name}_kept"] == 1
        assert value[f"{name}_cosine"] > 0.999
        assert value[f"{name}_class_kept"] == 1
    assert value["line_classes"] == 1


def test_on_digits_the_normal_space_turns_less_within_a_class_than_towards_a_match(on_digits):
    value = values(on_digits)
    assert value["first_angle"] < value["line_angle"] < value["random_angle"]
    assert value["line_overlap"] < value["first_overlap"] < 1
    assert value["line_overlap"] > 10 * value["random_overlap"]


# -- maps of known answers --------------------------------------------------------------------------------------------


def test_on_a_linear_map_lines_are_straight_and_normal_spaces_do_not_turn():
    found = run(LINEAR, box=False, rank=4)
    assert found.status == "ok", found.message
    value = values(found)
    for name in ("line", "images"):
        assert value[f"{name}_linearity"] == pytest.approx(1, abs=1e-12)
        assert value[f"{name}_detour"] == pytest.approx(1, abs=1e-12)
    for name in ("line", "first", "last"):
        assert value[f"{name}_angle"] == pytest.approx(0, abs=1e-6)
        assert value[f"{name}_overlap"] == pytest.approx(1, abs=1e-10)


def test_on_a_linear_map_a_path_within_a_class_ends_where_projection_does():
    """Without the box it goes by (I - P^+ P)(b - a): what is left to b is the component in the row space."""
    task = task_of(LINEAR, box=False, tolerance=1e-5, precision="fp64")
    found = Path().run(task)
    P = LINEAR.module.P.double()
    a, b = (x.double().flatten() for x in task.samples)
    null = (b - a) - torch.linalg.pinv(P) @ (P @ (b - a))
    assert values(found)["first_moved"] == pytest.approx(float(null.norm()), rel=1e-3)
    assert values(found)["first_left"] == pytest.approx(float((b - a - null).norm()), rel=1e-3)
    assert np.allclose(found.arrays["first_nodes"].data[-1].ravel(), a + null, atol=1e-3)
    assert values(found)["first_connected"] == 1


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_every_number_is_that_of_the_stored_points(precision):
    task = task_of(precision=precision, stored=100)
    found = Path().run(task)
    assert found.status == "ok", found.message
    assert not {name: check for name, check in found.checks.items() if not check.passed}
    value, arrays = values(found), {name: array.data for name, array in found.arrays.items()}
    f = CURVED.at_precision("fp64")
    ends = f(torch.stack(list(task.samples)).double()).detach()
    line = f(torch.from_numpy(arrays["line_nodes"]).double()).detach()
    cosine = torch.nn.functional.cosine_similarity
    assert np.allclose(arrays["line_cosine_original"][::2], cosine(line, ends[:1]), atol=1e-6)
    assert np.allclose(arrays["line_cosine_target"][::2], cosine(line, ends[1:]), atol=1e-6)
    assert float((line[-1] - ends[1]).norm()) / value["yardstick"] == pytest.approx(value["matched"], abs=1e-6)
    t = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]
    off = (line - torch.lerp(line[:1], line[-1:], t)).norm(dim=1) / (line[-1] - line[0]).norm()
    assert np.allclose(arrays["line_deviation"][::2], off, atol=1e-6)
    assert value["line_linearity"] == pytest.approx(1 - arrays["line_deviation"].max())
    assert value["line_linearity"] <= 1 - float(off.max()) + 1e-6
    for name, start, other in (("first", 0, 1), ("last", 1, 0)):
        nodes = torch.from_numpy(arrays[f"{name}_nodes"]).double()
        assert torch.equal(nodes[0].float(), task.samples[start])
        drift = torch.linalg.vector_norm(f(nodes).detach() - ends[start], dim=1)
        assert np.allclose(arrays[f"{name}_drift"][::4], drift, atol=1e-9)
        assert value[f"{name}_drift"] == pytest.approx(float(drift.max()) / value["yardstick"])
        middle = torch.linalg.vector_norm(f((nodes[1:] + nodes[:-1]) / 2).detach() - ends[start], dim=1)
        assert np.allclose(arrays[f"{name}_drift"][2::4], middle, atol=1e-9)
        left = float((nodes[-1] - task.samples[other]).norm())
        assert value[f"{name}_left"] == pytest.approx(left)
        assert nodes.min() >= 0
        assert nodes.max() <= 1


def test_angles_are_those_of_the_leading_right_singular_vectors():
    task = task_of(precision="fp64", stored=100)
    found = Path().run(task)
    f = CURVED.at_precision("fp64")
    nodes = torch.from_numpy(found.arrays["last_nodes"].data)

    def span(x):
        J = torch.func.jacrev(lambda z: f(z[None])[0])(x).flatten(1)
        return torch.linalg.svd(J.detach(), full_matrices=False).Vh[:3]

    for row, place in enumerate((0, 2, 4)):
        cosines = torch.linalg.svdvals(span(nodes[0]) @ span(nodes[place]).T).clamp(max=1)
        assert np.allclose(np.cos(found.arrays["last_angles"].data[row]), cosines, atol=1e-6)
    cosines = torch.linalg.svdvals(span(nodes[2]) @ span(nodes[4]).T).clamp(max=1)
    assert np.allclose(np.cos(found.arrays["last_angles_next"].data[1]), cosines, atol=1e-6)


def test_the_curve_holds_corners_and_what_lies_between():
    task = task_of()
    nodes = torch.stack([image(s) for s in range(4)]).double()
    curve = along(task, nodes, 3)
    assert len(curve.f) == 13
    f = CURVED.at_precision("fp64")
    assert torch.allclose(curve.at_nodes, f(nodes))
    assert torch.allclose(curve.f[5], f(torch.lerp(nodes[1], nodes[2], 0.25)[None])[0])
    assert float(curve.t[5]) == pytest.approx(5 / 12)
    line = straight(task, nodes[0], nodes[1], 5)
    assert len(line.f) == 9
    assert torch.allclose(line.f[1], f(torch.lerp(nodes[0], nodes[1], 1 / 8)[None])[0])
    assert torch.allclose(line.cosines(line.f[0])[:1], torch.ones(1, dtype=torch.float64))
    assert line.detour >= 1


def test_a_batch_gives_what_each_gives_alone():
    together = Path().run_batch([task_of(original=s, target=s + 1) for s in range(3)])
    for s, found in enumerate(together):
        alone = run(original=s, target=s + 1)
        for name in ("line_nodes", "first_nodes", "last_nodes"):
            assert np.allclose(found.arrays[name].data, alone.arrays[name].data, atol=1e-5, rtol=1e-5), name
        assert values(found)["equivalents"] == values(alone)["equivalents"]


def test_the_smallest_change_is_no_longer_than_that_of_the_default():
    lm, least = (values(run(solver=solver, tolerance=1e-2)) for solver in ("lm", "minimal-l2"))
    assert least["matched"] <= 1e-2
    assert least["matched_l2"] <= lm["matched_l2"] * (1 + 1e-3)


@pytest.mark.parametrize("box", [True, False])
def test_gradient_descent_is_that_of_the_match_probe(box):
    task = task_of(solver="gd", rate=0.3, box=box, steps=0)
    found = Path().run(task)
    assert found.status == "ok", found.message
    value = values(found)
    goal = found.provenance["match_goal"]
    assert value["match_tolerance"] == 3e-2
    x = task.samples[0][None]
    target = CURVED(task.samples[1][None]).double()
    region = eqv.matching.Region(0, 1) if box else None
    own = eqv.matching.gradient_descent(CURVED, x, target, distance=goal, rate=0.3, region=region)
    assert np.allclose(found.arrays["line_nodes"].data[-1], own.x[0].numpy(), atol=1e-5)
    assert value["jacobians"] == 0
    assert value["equivalents"] == int(own.cost.equivalents[0])


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"rate": 1e-6, "max_steps": 3}, "raise max_steps, raise match_tolerance or set box=false"),
        ({"rate": 1e6, "box": False}, "(diverged): lower rate, raise match_tolerance"),
    ],
)
def test_a_descent_that_does_not_arrive_says_what_to_change(params, says):
    found = run(LINEAR, solver="gd", steps=0, **params)
    assert found.status == "not_converged"
    assert found.message.endswith(says)


def test_without_steps_there_are_straight_lines_alone():
    tasks = [task_of(original=s, target=s + 1, steps=0) for s in (0, 5)]
    whole, *lines = [run(), *Path().run_batch(tasks)]
    for found in lines:
        assert found.status == "ok", found.message
        assert not found.message
        named = {*found.summary, *found.arrays, *found.checks, *found.pictures}
        assert not [name for name in named if name.startswith(("first_", "last_")) or name == "tolerance"]
        assert len(Path().findings(found.summary, tasks[0].params)) == 1
    cosines = [found.arrays["line_cosine_target"].data for found in (lines[0], whole)]
    assert np.allclose(*cosines, rtol=0, atol=1e-5)  # matched in a batch of two, and alone
    assert list(Path().figures(lines[0].arrays)) == [
        "Embeddings along the straight line",
        "Turning of the normal space",
        "Inputs along the paths",
    ]
    unit = eqv.Unit("path", "1", "{}", "map", "w", (), 0, "fp32")
    assert list(Path().overview([(unit, found.arrays) for found in lines])) == ["Straight lines of all pairs"]


def test_inputs_that_are_no_images_have_no_pictures():
    found = run(encoder_of(Map(shape=(7, 5), g=torch.tanh), shape=(7, 5)))
    assert found.status == "ok"
    assert not found.pictures
    assert "Inputs along the paths" not in Path().figures(found.arrays)


def test_figures_and_pictures_are_drawn():
    found = run(encoder_of(Map(g=torch.tanh), classify=lambda f: f))
    figures = Path().figures(found.arrays)
    assert len(figures) == 5
    for figure in figures.values():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=40)
        assert buffer.getbuffer().nbytes > 1000
    for title in list(figures)[:4]:
        assert all(axes.get_xlabel() and axes.get_ylabel() for axes in figures[title].axes)
    expected = {
        "original",
        "target",
        "matched",
        "difference",
        *(f"{n}_{k}" for n in ("first", "last") for k in range(1, 5)),
    }
    assert set(found.pictures) == expected
    assert found.arrays["first_predicted"].data.shape == found.arrays["first_t"].data.shape


# -- what cannot be ---------------------------------------------------------------------------------------------------


def test_a_match_that_is_not_had_is_no_success_and_says_by_how_much():

    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x):
            flat = x.flatten(1) * self.w
            return torch.cat([flat[:, :2].tanh(), flat[:, 2:4] ** 2], 1)

    task = task_of(encoder_of(Halves()), max_jacobians=1, tolerance=1e-7)
    found = Path().run(task)
    assert found.status == "not_converged"
    assert "was not matched" in found.message
    assert "raise max_jacobians" in found.message
    assert values(found)["matched"] > 1e-7
    assert values(found)["first_kept"] < 1


def test_a_path_that_leaps_over_a_wall_is_not_called_connected():
    """Half-way, f makes an excursion which no step that ends on the far side shows."""

    class Wall(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x):
            flat = x.flatten(1) * self.w
            bump = torch.exp(-(((flat[:, :1] - 0.45) / 0.02) ** 2))
            return torch.cat([bump, flat[:, 1:3]], 1)

    a, b = torch.full(SHAPE, 0.1), torch.full(SHAPE, 0.9)
    task = task_of(encoder_of(Wall()), a, b, steps=2, between=31, rank=2)
    found = Path().run(task)
    value = values(found)
    assert value["first_drift"] <= 1e-3
    assert value["first_between"] > 0.3
    assert value["first_connected"] < 1
    assert "leaps" in found.message
    assert "raise steps" in found.message


def test_kept_and_connected_count_steps_up_to_the_first_fault(monkeypatch):
    import equivengine_plugins.probes.path.result as result

    seen = []
    monkeypatch.setattr(result, "make_result", lambda measured: seen.append(measured))
    from equivengine_plugins.probes.path.measure import measure

    measure([task_of(steps=4)])
    measured = seen[0]
    assert kept(measured, "first") == 4
    assert connected(measured, "first")[0] == 4
    measured.claimed["first"][3] = 1e9
    assert kept(measured, "first") == 2
    measured.claimed["first"][1] = np.nan
    assert kept(measured, "first") == 0
    measured.curves["first"].f[6] += 1e3
    steps, largest = connected(measured, "first")
    assert steps == 1
    assert largest > 1e3


def test_of_a_batch_only_the_culprit_fails():
    good, bad = task_of(), task_of(target=0)
    found = Path().run_batch([good, bad])
    assert [each.status for each in found] == ["ok", "failed"]
    assert "one embedding already" in found[1].message
    with pytest.raises(eqv.UsageError, match="one embedding already"):
        Path().run(bad)


def test_originals_out_of_range_are_refused():
    with pytest.raises(eqv.UsageError, match="outside the box"):
        run(original=image(0) + 1)


def test_derivatives_that_are_not_finite_fail_with_advice():
    with pytest.raises(eqv.NumericsError, match="derivative"):
        run(encoder_of(Map(g=lambda y: y.square().sqrt())), original=torch.zeros(SHAPE))


@pytest.mark.parametrize(
    "params",
    [
        {"points": 1},
        {"steps": -1},
        {"between": 0},
        {"tolerance": 0},
        {"rank": 0},
        {"spaces": 1},
        {"solver": "newton"},
        {"rate": 0.1},
    ],
)
def test_parameters_out_of_range_are_refused(params):
    with pytest.raises(ValidationError):
        PathParams(**params)
