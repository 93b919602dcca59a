"""Every recipe reads, plans, runs and draws the figure that it is called after."""

from __future__ import annotations

import re
from pathlib import Path

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
    "path": {"points": 5, "steps": 1, "between": 1, "max_jacobians": 1, "rank": 4, "spaces": 2, "references": 8},
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
    (section,) = [section for section in sections if f"equivengine run recipes/{name}.toml" in section]
    assert "**The paper.**" in section
    assert "**Here.**" in section
    assert "**Why they differ.**" in section
