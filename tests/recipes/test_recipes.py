"""Every recipe reads, plans, runs and draws the figure that it is called after."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest

from equivengine import open_run
from equivengine.runtime.config import load_toml
from equivengine.runtime.engine import execute, plan_of
from equivengine.runtime.registry import Registry

ROOT = Path(__file__).parents[2]
RECIPES = {path.stem: path for path in sorted((ROOT / "recipes").glob("*.toml"))}
PAGE = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")

IMAGES = ("match", "Originals, targets and matched inputs")
#: What the report of each must show: probe, and how the title of a figure begins.
SHOWS = {
    "fig1": [
        IMAGES,
        ("transfer", "Classes before and after matching"),
        ("projection", "First two principal components"),
    ],
    "fig2": [IMAGES],
    "fig3": [("spectrum", "Spectra of all images"), ("ldlc", "Constants along right singular vectors")],
    "fig4": [("ldlc", "Constants along three kinds of direction"), ("ldlc", "The same distributions")],
    "fig5": [("match", "Course of the matching, all pairs"), IMAGES],
    "fig6": [("path", "Straight lines of all pairs"), ("path", "Inputs along the paths")],
    "fig7": [("path", "Paths within classes of all pairs"), ("path", "Inputs along the paths")],
    "fig8": [IMAGES, ("transfer", "Classes before and after matching")],
    "fig9_14_18": [IMAGES, ("match", "Distance to the target"), ("transfer", "Classes before and after matching")],
    "fig13": [IMAGES],
}
#: Settings that take no time. What a recipe says of anything else is kept.
SMALL = {
    "ldlc": {"directions": 9, "null_directions": 9, "gradient_steps": 3, "singular_directions": 4},
    "path": {"points": 5, "between": 1, "max_jacobians": 1, "rank": 4, "spaces": 2, "references": 8},
    "projection": {"pairs": 2, "references": 40, "max_jacobians": 3, "resamples": 50},
    "spectrum": {"references": 8, "tolerance": 0.99},
    "transfer": {"pairs": 2, "references": 40, "max_jacobians": 3},
}
SMALL_MATCH = {"gd": {"steps": 9, "references": 8}, "lm": {"max_jacobians": 2, "references": 8}}
SMALL_MATCH["minimal-l2"] = SMALL_MATCH["lm"]


@pytest.fixture(scope="module")
def registry():
    return Registry.load()


def small(name, out):
    """The recipe with small settings on few images: sets need three, distributions over units two."""
    whole = load_toml(RECIPES[name])
    names = {request.name for request in whole.probes}
    limit = 3 if names & {"transfer", "projection"} else 2 if names & {"path", "spectrum"} else 1
    config = load_toml(RECIPES[name], {"limit": limit, "out": str(out)})
    probes = []
    for request in config.probes:
        changes = SMALL.get(request.name) or SMALL_MATCH[request.set.get("solver", "lm")]
        if request.name == "path":
            changes = changes | ({"max_steps": 9} if request.set.get("solver") == "gd" else {"steps": 1})
        probes.append(request.model_copy(update={"set": request.set | changes}))
    return config.model_copy(update={"probes": tuple(probes)})


def figures(run, registry):
    """Titles of all figures of a run, as its report asks for them: over units, and of the first unit; by probe."""
    found = {}
    for name in run.probes:
        probe = registry.probe(name)[0]()
        units = [(record.unit, record.arrays) for record in run.units(name)]
        found[name] = {**probe.overview(units), **probe.figures(units[0][1])}
    return found


def test_there_is_one_for_each_figure_of_the_paper():
    assert set(RECIPES) == set(SHOWS)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_which_figure_it_is_and_what_to_look_at(name):
    config = load_toml(RECIPES[name])
    numbers = re.findall(r"\d+", name)
    assert re.match(rf"Figures? {numbers[0]}\b", config.title)
    assert all(number in config.title for number in numbers)
    assert "ook at" in config.description or "Nothing is selected" in config.description
    assert config.models == ("digits",)
    assert config.out is None
    assert config.limit is not None


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_plans_and_other_models_images_and_seeds_can_take_its_place(name, registry):
    config = load_toml(RECIPES[name])
    plan, _ = plan_of(config, registry)
    assert plan.units
    assert plan.duplicates == 0
    settings = {(unit.probe, unit.params) for unit in plan.units}
    assert len(settings) == len(config.probes)
    given = {"models": ["timm:test_vit?weights=random"], "images": ["samples"], "targets": "samples", "seed": 5}
    if config.pairing == "other-class":
        given["pairing"] = "any"  # photographs have no labels
    other, _ = plan_of(load_toml(RECIPES[name], given), registry)
    assert {(unit.probe, unit.params) for unit in other.units} == settings
    assert {(unit.model, unit.seed) for unit in other.units} == {("timm:test_vit?weights=random", 5)}
    assert {sample.images for unit in other.units for sample in unit.samples} == {"samples"}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_draws_the_figure_that_it_is_called_after(name, registry, tmp_path):
    report = execute(small(name, tmp_path / "run"), registry=registry)
    assert report.outcomes["failed"] == 0
    with open_run(report.directory) as run:
        assert run.plan["config"]["title"] == load_toml(RECIPES[name]).title
        drawn = figures(run, registry)
    for probe, title in SHOWS[name]:
        assert [found for found in drawn[probe] if found.startswith(title)], (probe, title, list(drawn[probe]))


@pytest.mark.parametrize("name", RECIPES)
def test_the_page_gives_the_command_and_what_it_shows(name):
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    (section,) = [section for section in sections if f"```sh\nequivengine run recipes/{name}.toml\n```" in section]
    assert "**The paper.**" in section
    assert "**Here.**" in section
    assert "**Why they differ.**" in section


# -- in full ----------------------------------------------------------------------------------------------------------


def numbers(run, probe, name, **settings):
    """One scalar of the units of a probe, of those with these parameters."""
    records = [record for record in run.units(probe) if settings.items() <= json.loads(record.unit.params).items()]
    assert records
    return np.array([record.summary[name].value for record in records])


def fig1(run):
    assert (numbers(run, "match", "relative_matched") <= 0.0301).mean() >= 0.9
    assert numbers(run, "match", "class_start").mean() == 0
    assert numbers(run, "match", "class_matched").mean() >= 0.9
    assert np.median(numbers(run, "match", "ssim_matched")) > 2 * np.median(
        numbers(run, "match", "ssim_target_matched")
    )
    assert numbers(run, "transfer", "agreement")[0] >= 0.9
    assert numbers(run, "projection", "relative_after")[0] <= 1e-3


def fig2(run):
    gd, least = (numbers(run, "match", "l2_matched", solver=solver) for solver in ("gd", "minimal-l2"))
    met = numbers(run, "match", "relative_matched", solver="minimal-l2") <= 0.0301
    assert met.sum() >= 2
    assert (least[met] < gd[met]).all()


def fig3(run):
    assert (numbers(run, "spectrum", "rank") == 94).all()  # of 96: the model ends in a LayerNorm
    assert np.median(numbers(run, "spectrum", "rank_90")) <= 15
    assert (numbers(run, "spectrum", "grassmann_distance") < numbers(run, "spectrum", "random_distance")).all()
    assert all(record.checks["singular_directions"].passed for record in run.units("ldlc"))


def fig4(run):
    (record,) = run.units("ldlc")
    assert len(record.arrays["random_tangent"].data) == len(record.arrays["null_tangent"].data) == 10_000
    assert numbers(run, "ldlc", "random_over_null")[0] > 1e5
    assert numbers(run, "ldlc", "gradient_first_over_random")[0] > 3


def fig5(run):
    rates = (0.001, 0.003, 0.01, 0.03, 0.1)
    reached = [numbers(run, "match", "relative_matched", rate=rate) for rate in rates]
    assert np.mean([(values <= 0.0301).mean() for values in reached]) >= 0.8
    steps = [np.median(numbers(run, "match", "steps", rate=rate)) for rate in rates]
    assert steps == sorted(steps, reverse=True)
    assert 8 <= steps[0] / steps[2] <= 12  # in proportion to 1 / rate


def fig6(run):
    assert (numbers(run, "path", "matched") <= 0.0301).mean() >= 0.8
    assert np.median(numbers(run, "path", "line_linearity")) < 0.8  # 1: as the paper says of its pair


def fig7(run):
    for name in ("first", "last"):
        assert np.median(numbers(run, "path", f"{name}_between")) <= 2e-3
        assert np.median(numbers(run, "path", f"{name}_cosine")) > 0.9999
        assert np.median(numbers(run, "path", f"{name}_moved_relative")) > 0.5


def fig8(run):
    targets = [record.unit.samples[1].digest for record in run.units("match")]
    assert max(map(targets.count, targets)) >= len(targets) - 1
    assert numbers(run, "match", "class_matched").mean() >= 0.9
    assert numbers(run, "transfer", "agreement")[0] >= 0.9


def fig9_14_18(run):
    assert (numbers(run, "match", "relative_matched", solver="gd") <= 0.0301).mean() >= 0.8
    assert np.median(numbers(run, "match", "relative_matched", solver="lm")) <= 1e-5
    assert numbers(run, "transfer", "success_own")[0] >= 0.9


def fig13(run):
    assert (numbers(run, "match", "relative_matched") <= 0.0301).mean() >= 0.6
    assert numbers(run, "match", "class_matched").mean() >= 0.8
    assert np.median(numbers(run, "match", "mean_matched")) < 0.2


CLAIMS = {claim.__name__: claim for claim in (fig1, fig2, fig3, fig4, fig5, fig6, fig7, fig8, fig9_14_18, fig13)}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_shows_what_the_page_says_within_two_minutes_of_two_cores(name, registry, tmp_path):
    started = time.process_time()
    report = execute(load_toml(RECIPES[name], {"out": str(tmp_path / "run")}), registry=registry)
    assert time.process_time() - started < 2 * 120
    assert report.outcomes["failed"] == 0
    with open_run(report.directory) as run:
        CLAIMS[name](run)
        drawn = figures(run, registry)
        for probe, title in SHOWS[name]:
            (figure,) = [found for key, found in drawn[probe].items() if key.startswith(title)][:1]
            figure.savefig(buffer := io.BytesIO(), format="png", dpi=100)
            assert buffer.getbuffer().nbytes > 5000
