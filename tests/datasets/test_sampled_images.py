"""Samples of a set: strictly at random over seeds, functions of the seed and the names alone."""

from __future__ import annotations

import os
from collections import Counter

import miniatures as mini
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import equivengine as eqv
from equivengine_plugins.datasets.imagenet import ImageNet
from equivengine_plugins.datasets.sampling import Sampling

URI = eqv.URI.parse("imagenet:ROOT?sample=3")
NAMES = [f"n{synset:08d}/image_{number}.JPEG" for synset in range(4) for number in range(synset + 2)]


def class_of(name: str) -> str:
    return name.partition("/")[0]


def draw(names=NAMES, **options) -> list[str]:
    return Sampling(**options).draw(names, class_of, URI)


def test_nothing_asked_for_is_the_whole_listing_in_its_order():
    assert draw() == NAMES


def test_each_image_is_as_likely_as_any_other():
    """Of 14 images 3 are drawn, over 1400 seeds: each 300 times, deviation 15.4; each as the first one 100 times, 9.6.

    Each pair makes the first two 15.4 times, deviation 3.9. Files of one name in several folders are different images.
    """
    drawn = [draw(sample=3, seed=seed) for seed in range(1400)]
    single = Counter(name for names in drawn for name in names)
    assert set(single) == set(NAMES)
    assert all(abs(count - 300) < 4.5 * 15.4 for count in single.values())
    first = Counter(names[0] for names in drawn)
    assert all(abs(first[name] - 100) < 4.5 * 9.6 for name in NAMES)
    pairs = Counter(frozenset(names[:2]) for names in drawn)
    assert len(pairs) == 91
    assert all(abs(count - 1400 / 91) < 4.5 * 3.9 for count in pairs.values())


@given(st.permutations(NAMES), st.integers(0, 2**64 - 1), st.integers(1, len(NAMES)))
@settings(max_examples=25, deadline=None)
def test_a_sample_is_the_same_for_any_order_of_the_listing_and_begins_every_larger_one(names, seed, count):
    found = draw(names, sample=count, seed=seed)
    assert found == draw(sample=len(NAMES), seed=seed)[:count]
    assert len(set(found)) == count


def test_an_image_that_is_added_displaces_one_at_most():
    for seed in range(20):
        before, after = (set(draw(names, sample=5, seed=seed)) for names in (NAMES, [*NAMES, "n00000009/more.JPEG"]))
        assert len(before - after) <= 1


def test_so_many_of_each_class_in_turns():
    found = draw(per_class=2, seed=3)
    assert [class_of(name) for name in found] == [f"n{synset:08d}" for synset in range(4)] * 2
    assert len(set(found)) == 8
    assert found[:4] == draw(per_class=1, seed=3)
    assert found != draw(per_class=2, seed=4)
    assert draw(NAMES[::-1], per_class=2, seed=3) == found


def test_each_member_of_a_class_is_as_likely_as_any_other():
    """Of the 5 of the last class one is drawn, over 500 seeds: each 100 times, deviation 8.9."""
    counts = Counter(draw(per_class=1, seed=seed)[-1] for seed in range(500))
    assert len(counts) == 5
    assert all(abs(count - 100) < 4.5 * 8.9 for count in counts.values())


def test_classes_that_are_short_are_refused_kept_or_dropped():
    with pytest.raises(eqv.UsageError) as caught:
        draw(per_class=3)
    assert "at most 2" in caught.value.expected
    assert "1 of 4 classes have fewer" in caught.value.got
    assert Counter(map(class_of, draw(per_class=3, short="keep"))) == {
        f"n{synset:08d}": 2 + (synset > 0) for synset in range(4)
    }
    assert Counter(map(class_of, draw(per_class=3, short="drop"))) == {f"n{synset:08d}": 3 for synset in range(1, 4)}
    with pytest.raises(eqv.UsageError):
        draw(per_class=9, short="drop")


def test_images_without_a_class_are_none_of_any():
    found = Sampling(per_class=1).draw(NAMES, lambda name: class_of(name) if "n00000002" in name else None, URI)
    assert [class_of(name) for name in found] == ["n00000002"]
    with pytest.raises(eqv.UsageError, match="more images of a class") as caught:
        Sampling(per_class=1).draw(NAMES, lambda name: None, URI)
    assert caught.value.expected == "labeled images"


def test_more_than_there_are_is_refused():
    with pytest.raises(eqv.UsageError) as caught:
        draw(sample=15)
    assert caught.value.expected == "a sample of at most 14"


def test_validation_images_draw_alike_with_and_without_folders(tmp_path):
    truth = [mini.TENCH, mini.GOLDFISH, mini.CRANE] * 4
    mini.imagenet_folders(tmp_path / "folders", truth)
    mini.imagenet_flat(tmp_path / "flat", len(truth))
    (tmp_path / "flat" / "imagenet_2012_validation_synset_labels.txt").write_text("\n".join(truth))
    for options in ("?sample=5&seed=7", "?per_class=2&seed=7"):
        found = [
            [(os.path.basename(sample.id), sample.digest, sample.label) for sample in ImageNet(eqv.URI.parse(uri))]
            for uri in (f"imagenet:{tmp_path / layout}{options}" for layout in ("folders", "flat"))
        ]
        assert found[0] == found[1]


def test_the_order_of_the_file_system_does_not_matter(tmp_path, monkeypatch):
    root = mini.imagenet_train(tmp_path)
    uri = eqv.URI.parse(f"imagenet:{root}?sample=4&seed=2")
    expected = [sample.id for sample in ImageNet(uri)]
    scandir = os.scandir

    class Reversed:
        def __init__(self, path):
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *error):
            return None

    monkeypatch.setattr(os, "scandir", Reversed)
    assert [sample.id for sample in ImageNet(uri)] == expected


def test_a_sample_says_that_its_order_is_random_and_a_listing_does_not(tmp_path):
    root = mini.imagenet_train(tmp_path)
    opened = (ImageNet(eqv.URI.parse(f"imagenet:{root}{options}")) for options in ("", "?sample=4", "?per_class=2"))
    assert [images.random_order for images in opened] == [
        False,
        True,
        False,
    ]  # per_class goes through the classes in turn
    assert eqv.load_images("noise:3").random_order
    assert not eqv.load_images("samples").random_order
