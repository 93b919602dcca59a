"""A run directory that holds another plan is refused with what differs, not with two digests alone."""

from __future__ import annotations

import pytest

from equivengine.errors import StoreError
from equivengine.runtime.differences import MOST_LINES, differences
from equivengine.runtime.engine import execute

NOISE = "noise:3?size=8&mode=L"


@pytest.fixture
def told(make_plan):
    """What sets apart the plan of some options from that of others."""

    def between(there, here):
        return differences(make_plan(**{"images": [NOISE], **there}), make_plan(**{"images": [NOISE], **here}))

    return between


@pytest.mark.parametrize(
    ("there", "here", "lines"),
    [
        ({}, {}, []),
        ({"title": "one", "device": "cpu"}, {"title": "other"}, []),
        ({"settings": {"count": 1}}, {"settings": {"count": 2}}, ["probe measure: count 1 there, 2 here"]),
        ({}, {"settings": {"scale": 2}}, ["probe measure: scale 1.0 there, 2.0 here"]),
        (
            {},
            {"probe": "together"},
            ["probes: measure there, together here"],
        ),
        ({"seed": 0}, {"seed": 1}, ["seed: 0 there, 1 here"]),
        ({"limit": 2}, {}, ["limit: 2 there, none here"]),
        ({}, {"models": ["toy?seed=1", "toy"]}, ["models: toy there, toy?seed=1, toy here"]),
        ({}, {"images": ["noise:4?size=8&mode=L"]}, [f"images: {NOISE} there, noise:4?size=8&mode=L here"]),
        (
            {"settings": {"count": 1}, "precision": "fp32"},
            {"settings": {"count": 2}, "precision": "fp64", "order": "random"},
            [
                "probe measure: count 1 there, 2 here",
                "order: own there, random here",
                "precision: fp32 there, fp64 here",
            ],
        ),
        (
            {"probes": [{"name": "measure", "grid": {"count": [1, 2]}}]},
            {"probes": [{"name": "measure", "grid": {"count": [1, 2, 3]}}]},
            ["probe measure: 2 sets of parameters there, 3 sets of parameters here, which differ in count"],
        ),
    ],
)
def test_what_was_asked_for_is_told_apart(told, there, here, lines):
    assert told(there, here) == lines


def test_a_probe_of_another_version_is_told_apart(make_plan, toy_module, monkeypatch):
    before = make_plan(images=[NOISE])
    monkeypatch.setattr(toy_module.Measure, "version", "2")
    assert differences(before, make_plan(images=[NOISE])) == [
        f"probe measure: version {before.units[0].probe_version} there, version 2 here"
    ]


def test_weights_and_images_that_changed_are_told_apart(make_plan, photos, save_image, tmp_path):
    weights = tmp_path / "weights.txt"
    weights.write_text("1")
    model = f"toy?weights={weights}"
    before = make_plan(models=[model])
    weights.write_text("2")
    (line,) = differences(before, make_plan(models=[model]))
    assert line.startswith(f"weights of {model}: sha256 {before.units[0].weights_digest[:12]} there, sha256 ")
    before = make_plan()
    save_image(photos / "b.png", 17)
    (photos / "c.png").unlink()
    save_image(photos / "d.png", 18)
    save_image(photos / "e.png", 19)
    (line,) = differences(before, make_plan())
    assert line.endswith(
        "1 image with other content (b.png), 1 image gone or not drawn (c.png), "
        "2 images that were not there (d.png, ...)"
    )


def test_they_are_few_lines_and_short_ones(told, make_plan):
    here = {
        "seed": 1,
        "limit": 2,
        "order": "random",
        "precision": "fp64",
        "models": ["toy?seed=1"],
        "settings": {"count": 2, "scale": 2.0, "label": "x\n" * 200, "seconds": 0.5},
    }
    lines = told({}, here)
    assert len(lines) == MOST_LINES
    assert lines[-1] == "and 5 more"
    assert max(map(len, lines)) < 150
    assert not any("\n" in line for line in lines)


def test_the_refusal_says_it(make_config, registry):
    execute(make_config(images=[NOISE]), registry=registry)
    with pytest.raises(StoreError, match="holds another plan") as caught:
        execute(make_config(images=[NOISE], settings={"count": 2}, seed=1), registry=registry)
    plan, *lines = caught.value.got.splitlines()
    assert plan.startswith("plan ")
    assert lines == ["    probe measure: count 3 there, 2 here", "    seed: 0 there, 1 here"]
