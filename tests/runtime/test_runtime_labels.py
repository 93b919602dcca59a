"""Labels reach the probes that read them, and targets of another class are drawn strictly at random."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from equivengine import open_run
from equivengine.contracts.dataset import Sample
from equivengine.contracts.unit import SampleRef
from equivengine.errors import PluginError, UsageError
from equivengine.runtime import drawing
from equivengine.runtime.drawing import Draws
from equivengine.runtime.engine import execute
from equivengine.runtime.loading import Workbench, load_images
from equivengine.runtime.plan import Plan


@pytest.fixture
def digits(registry):
    """Labels of the bundled digits, by place."""
    return [sample.label for sample in load_images("digits", registry=registry)]


@pytest.fixture
def classes(tmp_path, save_image):
    """Write images into folders named by class; returns the address of the set."""

    def save(**counts):
        seed = 0
        for name, count in counts.items():
            (tmp_path / "classes" / name).mkdir(parents=True)
            for index in range(count):
                save_image(tmp_path / "classes" / name / f"{index:04d}.png", seed)
                seed += 1
        return f"folder:{tmp_path / 'classes'}?labels=dirs"

    return save


# -- labels in units --------------------------------------------------------------------------------------------------


def test_labels_are_part_of_the_units_of_probes_that_read_them_and_of_no_others(make_plan, digits):
    options = {"images": ["digits"], "limit": 5}
    plain = make_plan("together", {"references": 3}, **options)
    named = make_plan("named", {"references": 3}, **options)
    for unit in plain.units:
        assert {sample.label for sample in (*unit.samples, *unit.references)} == {None}
    for unit in named.units:
        for sample in (*unit.samples, *unit.references):
            assert sample.label == digits[sample.index]
        assert replace(unit, samples=(replace(unit.samples[0], label="other"),)).unit_id != unit.unit_id
        assert replace(unit, samples=drawing.unlabelled(unit.samples)).unit_id != unit.unit_id
        assert replace(unit, references=drawing.unlabelled(unit.references)).unit_id != unit.unit_id
        assert Plan.from_json(json.loads(json.dumps(named.to_json()))).units == named.units


def test_a_probe_that_reads_labels_sees_them(registry, make_config, digits):
    report = execute(make_config("named", {"references": 3}, images=["digits"], limit=2), registry=registry)
    with open_run(report.directory) as run:
        records = run.units()
        assert len(records) == 2
        for record in records:
            assert record.arrays["label"].data.tolist() == [digits[record.unit.samples[0].index]]
            words = [f"{reference.digest[:8]} {digits[reference.index]}" for reference in record.unit.references]
            assert record.arrays["reference"].data.tolist() == words
            assert record.provenance["samples"][0]["label"] == record.unit.samples[0].label


def test_a_set_without_labels_gives_none(registry, make_config, make_plan):
    report = execute(make_config("named"), registry=registry)
    with open_run(report.directory) as run:
        assert [record.arrays["label"].data.tolist() for record in run.units()] == [["None"]] * 3
    assert all(sample.label is None for unit in make_plan("named").units for sample in unit.samples)


def test_what_was_written_before_there_were_labels_still_reads():
    assert SampleRef(**{"images": "digits", "index": 3, "id": "x", "digest": "0" * 64}).label is None
    assert "label" not in SampleRef("digits", 3, "x", "0" * 64).to_json()
    named = SampleRef("digits", 3, "x", "0" * 64, "7")
    assert SampleRef(**named.to_json()) == named


def test_a_label_that_is_no_text_is_the_plugin_s_fault(make_plan, registry, monkeypatch):
    cls, _ = registry.dataset("noise")
    sample = Sample("n", "0" * 64, lambda: None, label=7)
    monkeypatch.setattr(cls, "__getitem__", lambda self, index: sample)
    with pytest.raises(PluginError, match=r"label of 'n' .* is no text"):
        make_plan(images=["noise:2?size=8"])


def test_labelled_is_held_to_be_a_bool(site):
    from equivengine.runtime.registry import Registry

    site.install(
        "odd",
        """
        import equivengine as eqv
        EQUIVENGINE_API = (1, 0)
        class Odd(eqv.Probe):
            name, version, labelled = "odd", "1", "yes"
        @eqv.hookimpl
        def equivengine_register_probes():
            return [Odd]
        """,
    )
    (record,) = [record for record in Registry.load().records if record.name == "odd"]
    assert record.state == "failed"
    assert "Odd.labelled is no bool" in record.reason


# -- targets of another class -----------------------------------------------------------------------------------------


def pairs(plan):
    return [unit.samples for unit in plan.units]


def test_targets_are_of_another_class(make_plan, digits):
    options = {"images": ["digits"], "limit": 60}
    found = pairs(make_plan("difference", pairing="other-class", **options))
    assert len(found) == 60
    for original, target in found:
        assert digits[original.index] != digits[target.index]
        assert original.label is target.label is None  # the probe does not read them
    assert found == pairs(make_plan("difference", pairing="other-class", **options))
    assert found != pairs(make_plan("difference", pairing="other-class", seed=1, **options))
    assert found[:7] == pairs(make_plan("difference", pairing="other-class", images=["digits"], limit=7))
    plain = pairs(make_plan("difference", **options))
    assert any(digits[a.index] == digits[b.index] for a, b in plain)
    # The same draw, passed over where it is of the same class.
    assert all(a == b for a, b in zip(found, plain, strict=True) if digits[b[0].index] != digits[b[1].index])


def test_any_pairing_is_what_it_was(make_plan):
    assert make_plan("difference").units == make_plan("difference", pairing="any").units
    # Drawn before there was any other pairing.
    found = make_plan("difference", images=["noise:6?size=8&mode=L"], seed=3)
    assert [unit.samples[1].index for unit in found.units] == [1, 5, 4, 0, 5, 4]


def test_targets_of_another_class_are_drawn_strictly_at_random(registry, make_config, classes):
    """Three classes of 2, 3 and 4: over 600 seeds each of the 7 others is drawn 85.7 times, deviation 8.6."""
    uri = classes(a=2, b=3, c=4)
    bench = Workbench(registry)
    counts = Counter()
    for seed in range(600):
        config = make_config("difference", images=[uri], limit=1, pairing="other-class", seed=seed)
        ((_, target),) = Draws(config, bench).samples("pair", uri, 1)
        counts[target.id] += 1
    assert len(counts) == 7
    assert all(abs(count - 600 / 7) < 4.5 * 8.6 for count in counts.values())


def test_an_order_that_is_drawn_as_far_as_it_is_asked_for_is_as_random_as_a_whole_one(monkeypatch):
    """Of 12 elements each stands at each of the first three places in 600 orders 50 times, deviation 6.8."""
    assert sorted(drawing._order("a", drawing.WHOLE_ORDER + 1)) == list(range(drawing.WHOLE_ORDER + 1))
    monkeypatch.setattr(drawing, "WHOLE_ORDER", 0)
    places = [Counter() for _ in range(3)]
    for seed in range(600):
        order = list(drawing._order(f"test/{seed}", 12))
        assert sorted(order) == list(range(12))
        for counts, one in zip(places, order, strict=False):
            counts[one] += 1
    assert all(abs(counts[one] - 50) < 4.5 * 6.8 for counts in places for one in range(12))


def test_pairs_on_a_large_set_draw_a_few_numbers_each(registry, make_config, monkeypatch):
    drawn = Counter()

    class Counting(np.random.Generator):
        def integers(self, low, high):
            drawn["integers"] += 1
            return super().integers(low, high)

        def permutation(self, size):
            raise AssertionError("a large set is put in order as a whole")

    monkeypatch.setattr(np.random, "Generator", Counting)
    uri = f"noise:{drawing.WHOLE_ORDER + 1}?size=8&mode=L"
    config = make_config("difference", images=[uri], limit=50)
    assert len(Draws(config, Workbench(registry)).samples("pair", uri, 50)) == 50
    assert drawn["integers"] <= 52


def test_a_rare_class_is_found_without_looking_at_images_twice(make_plan, classes, monkeypatch):
    looked = Counter()
    reference = drawing._reference

    def counted(uri, dataset, index):
        looked[index] += 1
        return reference(uri, dataset, index)

    monkeypatch.setattr(drawing, "_reference", counted)
    plan = make_plan("difference", images=[classes(a=150, b=1)], limit=20, pairing="other-class")
    assert {unit.samples[1].id for unit in plan.units} == {"b/0000.png"}
    assert set(looked.values()) == {1}


def test_the_search_looks_at_no_more_images_than_it_needs(make_plan, monkeypatch):
    looked = Counter()
    reference = drawing._reference

    def counted(uri, dataset, index):
        looked[uri, index] += 1
        return reference(uri, dataset, index)

    monkeypatch.setattr(drawing, "_reference", counted)
    make_plan("difference", images=["digits"], limit=2, pairing="other-class")
    assert len(looked) <= 12  # two originals, and targets of which nine in ten fit


def test_an_original_that_cannot_be_read_is_planned_and_fails_by_itself(make_plan, classes, tmp_path):
    uri = classes(a=2, b=2)
    (tmp_path / "classes" / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    plan = make_plan("difference", images=[uri], pairing="other-class")
    assert len(plan.units) == 5
    assert sum(unit.samples[0].digest.startswith("unreadable-") for unit in plan.units) == 1
    targets = {a.id: b for a, b in pairs(plan)}
    assert all(targets[f"{name}/0000.png"].digest[:10] != "unreadable" for name in "ab")


def test_originals_without_a_label(make_plan):
    with pytest.raises(UsageError, match=r"'a\.png' of .* has no label") as caught:
        make_plan("difference", targets="digits", pairing="other-class")
    assert "--pairing any" in caught.value.hint
    assert "labels on originals and targets" in caught.value.expected


def test_targets_without_labels(make_plan):
    with pytest.raises(UsageError, match="'noise:3' has no labels") as caught:
        make_plan("difference", images=["digits"], targets="noise:3", pairing="other-class")
    assert caught.value.got == "3 images without one"
    assert "labels=dirs" in caught.value.hint


def test_targets_of_one_class(make_plan, classes, monkeypatch):
    uri = classes(a=30)
    with pytest.raises(UsageError, match=r"no target of another class than 'a/0000\.png'") as caught:
        make_plan("difference", images=[uri], pairing="other-class")
    assert caught.value.got == "30 of its 30 images are labeled, all 'a'"
    assert "not 'a'" in caught.value.expected
    monkeypatch.setattr(drawing, "CLASS_DRAWS", 20)
    with pytest.raises(UsageError) as caught:
        make_plan("difference", images=[uri], pairing="other-class")
    assert caught.value.got == "20 of the first 20 images in random order are labeled, all 'a'"


def test_targets_of_another_class_but_the_same_content(make_plan, classes, tmp_path):
    uri = classes(a=1, b=1)
    (tmp_path / "classes/b/0000.png").write_bytes((tmp_path / "classes/a/0000.png").read_bytes())
    with pytest.raises(UsageError, match=r"holds no target that differs from 'a/0000\.png'"):
        make_plan("difference", images=[uri], pairing="other-class")


# -- one target for all -----------------------------------------------------------------------------------------------


def test_one_target_is_drawn_for_all_originals(make_plan):
    def ends(**options):
        return [(original.index, target.index) for original, target in pairs(make_plan("difference", **options))]

    found = ends(images=["digits"], limit=360, pairing="one-target")
    (own, count), (_, rest) = Counter(target for _, target in found).most_common()
    assert (count, rest) == (359, 1)
    assert [original for original, target in found if target != own] == [own]  # which cannot be its own target
    assert ends(images=["digits"], limit=5, pairing="one-target") == found[:5]
    assert {ends(images=["digits"], limit=1, pairing="one-target", seed=seed)[0][1] for seed in range(8)} > {own}
    elsewhere = ends(images=["digits"], limit=9, targets="noise:50", pairing="one-target")
    assert len({end for _, end in elsewhere}) == 1


def test_pairing_without_pairs_is_refused(make_plan):
    with pytest.raises(UsageError, match="no probe of this run takes pairs") as caught:
        make_plan("measure", images=["digits"], limit=2, pairing="other-class")
    assert caught.value.got == "measure"
    both = [{"name": "measure"}, {"name": "difference"}]
    assert len(make_plan(probes=both, images=["digits"], limit=2, pairing="other-class").units) == 4
