"""``imagenet:ROOT``: its layouts, names of classes, ground truths, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import tracemalloc

import miniatures as mini
import pytest
from imagenet_roots import CLSLOC, DEVKIT, TRUTH, opened, refusal, write_meta
from miniatures import CRANE, GOLDFISH, LABELS, TENCH, val_name

import equivengine as eqv


def labels(found) -> dict[str, str]:
    return {sample.id.rpartition("/")[2]: sample.label for sample in found}


EXPECTED = {val_name(number): LABELS[synset] for number, synset in enumerate(TRUTH, 1)}


# -- layouts ----------------------------------------------------------------------------------------------------------


def test_the_training_layout(tmp_path):
    found = opened(mini.mapping(mini.imagenet_train(tmp_path)), "?split=train")
    assert len(found) == 9
    assert [sample.id for sample in found][:4] == [
        *(f"{TENCH}/{TENCH}_{number}.JPEG" for number in (10026, 10027, 10028)),
        f"{GOLDFISH}/{GOLDFISH}_10026.JPEG",
    ]
    sample = found[0]
    assert sample.digest == hashlib.sha256((tmp_path / "train" / sample.id).read_bytes()).hexdigest()
    assert sample.load().size == (8, 8)
    assert sample.label == "tench"
    assert sample.details == {
        "split": "train",
        "synset": TENCH,
        "names": "tench, Tinca tinca",
        "names_from": "LOC_synset_mapping.txt",
        "class_from": "folders of synsets",
    }
    json.dumps(sample.details)


@pytest.mark.parametrize("below", ["val", "ILSVRC/Data/CLS-LOC/val"])
def test_validation_images_in_folders_of_synsets(tmp_path, below):
    root = mini.mapping(mini.imagenet_folders(tmp_path, TRUTH, below))
    assert labels(opened(root)) == EXPECTED


def test_val_is_taken_where_both_are_there_and_train_where_it_is_alone(tmp_path):
    mini.imagenet_train(tmp_path)
    assert opened(tmp_path)[0].details["split"] == "train"
    mini.imagenet_folders(tmp_path, TRUTH)
    assert opened(tmp_path)[0].details["split"] == "val"
    assert opened(tmp_path, "?split=train")[0].details["split"] == "train"


@pytest.mark.parametrize("below", ["val", ".", "ILSVRC/Data/CLS-LOC/val"])
@pytest.mark.parametrize("order", ["map_clsloc.txt", "meta.mat"])
def test_flat_validation_images_by_the_ground_truth_of_the_development_kit(tmp_path, below, order):
    mini.imagenet_flat(tmp_path, 5, below)
    path = mini.ground_truth(tmp_path, [DEVKIT[synset] for synset in TRUTH])
    if order == "meta.mat":
        pytest.importorskip("scipy")
        write_meta(path.parent / order)
    else:
        (path.parent / order).write_text(CLSLOC)
    found = opened(tmp_path)
    assert labels(found) == EXPECTED
    assert found[0].id == val_name(1)
    kit = "ILSVRC2012_devkit_t12/data/"
    assert found[0].details["class_from"] == f"{kit}ILSVRC2012_validation_ground_truth.txt by {kit}{order}"
    mini.mapping(tmp_path)  # a file of names is asked for names, the development kit still for its order
    assert labels(opened(tmp_path)) == EXPECTED
    assert opened(tmp_path)[0].details["names_from"] == "LOC_synset_mapping.txt"


@pytest.mark.parametrize("name", ["LOC_val_solution.csv", "imagenet_2012_validation_synset_labels.txt", "val.txt"])
def test_flat_validation_images_by_other_files_in_use(tmp_path, name):
    root = mini.mapping(mini.imagenet_flat(tmp_path, 5))
    order = sorted(mini.WORDS)
    text = {
        "LOC_val_solution.csv": "ImageId,PredictionString\n"
        + "".join(
            f"ILSVRC2012_val_{number:08d},{synset} 85 1 499 272 {synset} 1 2 3 4 \n"
            for number, synset in reversed(list(enumerate(TRUTH, 1)))
        ),
        "imagenet_2012_validation_synset_labels.txt": "".join(f"{synset}\n" for synset in TRUTH),
        "val.txt": "".join(f"{val_name(number)} {order.index(synset)}\n" for number, synset in enumerate(TRUTH, 1)),
    }[name]
    (root / name).write_text(text)
    found = opened(root)
    assert labels(found) == EXPECTED
    assert str(found[0].details["class_from"]).startswith(name)


def test_part_of_the_validation_images_gets_the_labels_it_has_in_the_whole(tmp_path):
    root = mini.mapping(mini.imagenet_flat(tmp_path, 5))
    (root / "imagenet_2012_validation_synset_labels.txt").write_text("\n".join(TRUTH))
    for number in (1, 3, 4):
        (root / "val" / val_name(number)).unlink()
    assert labels(opened(root)) == {val_name(number): EXPECTED[val_name(number)] for number in (2, 5)}


def test_what_is_no_image_is_passed_over_and_listed(tmp_path):
    root = mini.imagenet_train(tmp_path, (TENCH,), 1)
    (root / "train" / TENCH / "notes.txt").write_text("")
    (root / "train" / TENCH / "images").mkdir()
    (root / "train" / "other").mkdir()
    (root / "train" / ".DS_Store").write_text("")
    found = opened(root)
    assert len(found) == 1
    assert found.skipped == ("other", f"{TENCH}/images", f"{TENCH}/notes.txt")
    assert found.remarks == (f"left out: 3 that are not named like images (other, {TENCH}/images, {TENCH}/notes.txt)",)


# -- names of classes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["LOC_synset_mapping.txt", "synset_words.txt", "devkit/data/LOC_synset_mapping.txt"])
def test_names_come_from_lists_of_words(tmp_path, name):
    root = mini.mapping(mini.imagenet_folders(tmp_path, TRUTH), name=name)
    assert labels(opened(root)) == EXPECTED
    assert opened(root)[0].details["names_from"] == name


def test_names_come_from_the_index_of_keras(tmp_path):
    root = mini.imagenet_folders(tmp_path, TRUTH)
    index = {str(n): [s, mini.WORDS[s].partition(",")[0].replace(" ", "_")] for n, s in enumerate(sorted(mini.WORDS))}
    (root / "imagenet_class_index.json").write_text(json.dumps(index))
    assert labels(opened(root)) == EXPECTED


def test_names_come_from_the_development_kit(tmp_path):
    root = mini.imagenet_folders(tmp_path, TRUTH)
    (root / "map_clsloc.txt").write_text(CLSLOC)
    assert labels(opened(root)) == EXPECTED


def test_without_names_labels_are_synsets(tmp_path):
    found = opened(mini.imagenet_folders(tmp_path, TRUTH))
    assert labels(found) == {val_name(number): synset for number, synset in enumerate(TRUTH, 1)}
    assert found[0].details["names"] is None
    words = {synset: text for synset, text in mini.WORDS.items() if synset != TENCH}
    assert labels(opened(mini.mapping(tmp_path, words)))[val_name(2)] == TENCH


def test_two_classes_of_one_name_keep_apart_whichever_of_them_is_there(tmp_path):
    root = mini.mapping(mini.imagenet_folders(tmp_path, [CRANE]))
    assert labels(opened(root)) == {val_name(1): "crane (n03126707)"}
    hostile = {TENCH: "x", GOLDFISH: "x", CRANE: f"x ({TENCH})"}
    with pytest.raises(eqv.DataError, match="cannot be told apart"):
        opened(mini.mapping(tmp_path, hostile))


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_byte_order_marks_and_line_ends_do_not_matter(tmp_path, start, end):
    root = mini.imagenet_flat(tmp_path, 5)
    (root / "imagenet_2012_validation_synset_labels.txt").write_bytes(start + (end.join(TRUTH) + end + end).encode())
    text = "".join(f"{synset} {words}{end}" for synset, words in mini.WORDS.items())
    (root / "LOC_synset_mapping.txt").write_bytes(start + text.encode())
    assert labels(opened(root)) == EXPECTED


# -- links ------------------------------------------------------------------------------------------------------------


def test_links_that_stay_below_the_root_are_taken_and_others_are_not(tmp_path):
    root = mini.imagenet_train(tmp_path / "set", (TENCH, GOLDFISH), 1)
    outside = mini.jpeg(tmp_path / "outside" / "x.JPEG", 7)
    files = root / "train" / TENCH
    (files / "a.JPEG").symlink_to(f"../{GOLDFISH}/{GOLDFISH}_10026.JPEG")
    (files / "b.JPEG").symlink_to(outside)
    (files / "c.JPEG").symlink_to("/etc/passwd")
    found = opened(root)
    assert len(found) == 5
    for index in (1, 2):
        with pytest.raises(eqv.DataError, match="leads out of its image set") as caught:
            found[index]
        assert "links=follow" in caught.value.hint
    assert found[0].digest == found[4].digest
    trusted = opened(root, "?links=follow")
    assert trusted[1].load().size == (8, 8)
    with pytest.raises(eqv.DataError, match="not an image"):
        trusted[2].load()


@pytest.mark.parametrize("linked", ["train", f"train/{TENCH}", "LOC_synset_mapping.txt"])
def test_a_linked_folder_or_file_of_names_outside_is_refused_at_once(tmp_path, linked):
    root = mini.mapping(mini.imagenet_train(tmp_path / "set", (TENCH,), 1))
    (root / linked).rename(tmp_path / "elsewhere")
    (root / linked).symlink_to(tmp_path / "elsewhere")
    assert "leads out of its image set" in str(refusal(root))
    assert labels(opened(root, "?links=follow")) == {f"{TENCH}_10026.JPEG": "tench"}
    (tmp_path / "alias").symlink_to(root)
    (root / linked).unlink()
    (tmp_path / "elsewhere").rename(root / linked)
    assert len(opened(tmp_path / "alias")) == 1  # the root itself may be a link


def test_a_listing_costs_some_hundred_bytes_for_each_image(tmp_path):
    for synset in (TENCH, GOLDFISH):
        (tmp_path / "train" / synset).mkdir(parents=True)
        for number in range(1500):
            (tmp_path / "train" / synset / f"{synset}_{10000 + number}.JPEG").touch()
    tracemalloc.start()
    found = opened(tmp_path)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept / len(found) < 110
    assert peak / len(found) < 300  # one folder at a time
