"""``imagenet:ROOT``: its layouts, names of classes, ground truths, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
import tracemalloc

import miniatures as mini
import pytest
from miniatures import CRANE, CRANE_BIRD, GOLDFISH, KIT_FOX, LABELS, TENCH, val_name

import equivengine as eqv
from equivengine_plugins.datasets.imagenet import ImageNet, synsets

#: Classes of the validation images 1 to 5.
TRUTH = [KIT_FOX, TENCH, CRANE, CRANE_BIRD, TENCH]
#: The development kit's index of each, as its own files count.
DEVKIT = {KIT_FOX: 1, CRANE: 2, GOLDFISH: 3, TENCH: 4, CRANE_BIRD: 5}
CLSLOC = "".join(
    f"{synset} {index} {mini.WORDS[synset].partition(',')[0].replace(' ', '_')}\n" for synset, index in DEVKIT.items()
)


def opened(root, options: str = "") -> ImageNet:
    return ImageNet(eqv.URI.parse(f"imagenet:{root}{options}"))


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


def write_meta(path, **changed):
    """As MATLAB wrote it: a column of structures, those with children being no classes."""
    import numpy as np
    from scipy.io import savemat

    columns = (
        "ILSVRC2012_ID",
        "WNID",
        "words",
        "gloss",
        "num_children",
        "children",
        "wordnet_height",
        "num_train_images",
    )
    entries = [
        (index, synset, mini.WORDS[synset], "a gloss", 0, np.zeros(0), 0, 1300) for synset, index in DEVKIT.items()
    ]
    entries.append((1001, "n00001740", "entity", "a gloss", 2, np.array([1, 2]), 9, 0))
    table = np.empty((len(entries), 1), dtype=[(column, object) for column in columns])
    for row, entry in enumerate(entries):
        table[row, 0] = tuple(changed.get(column, value) for column, value in zip(columns, entry, strict=True))
    savemat(path, {"synsets": table})


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


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        "?split=test",
        "?splits=val",
        "?links=no",
        "?sample=0",
        "?per_class=x",
        "?seed=1",
        "?short=keep",
        "?short=x&per_class=1",
    ],
)
def test_an_address_without_sense_is_a_usage_error(tmp_path, options):
    with pytest.raises(eqv.UsageError):
        opened(mini.imagenet_train(tmp_path), options)
    with pytest.raises(eqv.UsageError, match="needs a directory"):
        ImageNet(eqv.URI.parse("imagenet"))


def refusal(root, options: str = "") -> eqv.DataError:
    with pytest.raises(eqv.DataError) as caught:
        opened(root, options)
    assert caught.value.expected
    assert caught.value.got
    assert caught.value.hint
    return caught.value


def test_a_root_without_images_says_where_it_looked(tmp_path):
    error = refusal(tmp_path)
    assert "holds no ImageNet images" in str(error)
    for place in ("val/n01440764", "train/n01440764", f"val/{val_name(1)}", f", {val_name(1)}", "CLS-LOC/train"):
        assert place in error.expected
    mini.imagenet_train(tmp_path)
    assert "holds no val images" in str(refusal(tmp_path, "?split=val"))
    assert "hold no images" in str(refusal_of_empty(tmp_path))


def refusal_of_empty(root):
    shutil.rmtree(root / "train" / GOLDFISH)
    for synset in (TENCH, CRANE):
        for path in (root / "train" / synset).iterdir():
            path.unlink()
    return refusal(root)


def test_flat_images_without_ground_truth_say_which_files_would_do(tmp_path):
    error = refusal(mini.imagenet_flat(tmp_path, 2))
    assert "the classes of the 2 validation images" in str(error)
    for name in ("LOC_val_solution.csv", "ILSVRC2012_validation_ground_truth.txt", "val.txt"):
        assert name in error.expected
    assert "map_clsloc.txt" in error.hint


@pytest.mark.parametrize("names", [False, True])
def test_a_ground_truth_without_its_order_says_which_file_to_add(tmp_path, names):
    mini.ground_truth(mini.imagenet_flat(tmp_path, 2), [1, 2])
    if names:
        mini.mapping(tmp_path)  # names of classes do not say how the development kit counts them
    error = refusal(tmp_path)
    assert "in an order of its own" in str(error)
    assert "map_clsloc.txt" in error.expected
    assert "n02119789 1 kit_fox" in error.hint


def test_val_txt_without_a_list_of_synsets_says_which_file_to_add(tmp_path):
    root = mini.imagenet_flat(tmp_path, 1)
    (root / "val.txt").write_text(f"{val_name(1)} 0\n")
    assert "LOC_synset_mapping.txt" in refusal(root).hint


def test_images_both_in_folders_and_beside_them_are_refused(tmp_path):
    mini.imagenet_flat(mini.imagenet_folders(tmp_path, TRUTH), 1)
    error = refusal(tmp_path)
    assert "4 folders and 1 files" in error.got
    assert "finish sorting" in error.hint


NAMES = {
    "no synset": ("tench, Tinca tinca\n", "line 1 "),
    "a short synset": (f"{TENCH} tench\nn0144353 goldfish\n", "line 2 "),
    "no name": (f"{TENCH} \n", "line 1 "),
    "twice": (f"{TENCH} tench\n{TENCH} tench\n", "class twice"),
    "a gap": (f"{TENCH} tench\n\n{GOLDFISH} goldfish\n", "line 2 "),
    "a NUL": (f"{TENCH} ten\0ch\n", "a NUL"),
    "nothing": ("", "names no classes"),
    "a long line": (f"{TENCH} {'x' * 2**20}\n", "line 1 "),
    "a long name": (f"{TENCH} {'x' * 1001}\n", "line 1 "),
}


@pytest.mark.parametrize("wrong", NAMES)
def test_a_list_of_names_that_is_not_usable_is_one_error_with_its_line(tmp_path, wrong):
    root = mini.imagenet_train(tmp_path)
    text, said = NAMES[wrong]
    (root / "synset_words.txt").write_text(text)
    error = refusal(root)
    assert said in str(error)
    assert "synset_words.txt" in str(error)
    assert len(str(error)) < 1000


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"0": ["n01440764", "tench"]',
        "[]",
        '{"0": "n01440764"}',
        '{"0": ["n01440764", 7]}',
        '{"0": ["n01440764", ""]}',
        '{"0": ["../../etc", "tench"]}',
        '{"x": ["n01440764", "tench"]}',
        '{"0": [["n01440764"], "tench"]}',
        '{"0": ["n01440764", "tench"], "1": ["n01440764", "tench"]}',
        '{"0": ["n01440764", "tench"], "0": ["n01443537", "goldfish"]}',
        '{"0": ["n01440764", "\\u0000"]}',
        '{"0": ["n01440764", "\\ud800"]}',
        '{"0": NaN}',
        "[" * 100_000,
        "{}",
    ],
)
def test_a_class_index_that_is_not_usable_is_one_error(tmp_path, text):
    root = mini.imagenet_train(tmp_path)
    (root / "imagenet_class_index.json").write_text(text)
    error = refusal(root)
    assert "imagenet_class_index.json" in str(error)
    assert len(str(error)) < 1000


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("imagenet_2012_validation_synset_labels.txt", f"{TENCH}\n", "does not say what"),
        ("imagenet_2012_validation_synset_labels.txt", f"{TENCH}\nn0\n", "line 2 "),
        ("ILSVRC2012_validation_ground_truth.txt", "1\n6\n", "line 2 "),
        ("ILSVRC2012_validation_ground_truth.txt", "1\n-1\n", "line 2 "),
        ("ILSVRC2012_validation_ground_truth.txt", "1\n٣\n", "line 2 "),
        ("ILSVRC2012_validation_ground_truth.txt", f"1\n{'9' * 5000}\n", "line 2 "),
        ("ILSVRC2012_validation_ground_truth.txt", "1\n", "does not say what"),
        ("ILSVRC2012_validation_ground_truth.txt", "", "does not say what"),
        ("val.txt", f"{val_name(1)} 0\n{val_name(2)} 5\n", "line 2 "),
        (
            "val.txt",
            "ILSVRC2012_val_00000001 1\nILSVRC2012_val_00000002 2\n",
            "line 1 ",
        ),  # Kaggle's list of another kind
        ("val.txt", f"{val_name(1)} 0\n{val_name(1)} 0\n", "line 2 "),
        ("val.txt", f"{val_name(1)} 0\n", "does not say what"),
        ("LOC_val_solution.csv", f"ImageId,PredictionString\nILSVRC2012_val_00000001,{TENCH[:5]}", "line 2 "),
        ("LOC_val_solution.csv", "ImageId,PredictionString\nILSVRC2012_val_00000001", "line 2 "),
        ("LOC_val_solution.csv", f"ImageId,PredictionString\n../../etc/passwd,{TENCH}\n", "line 2 "),
        ("LOC_val_solution.csv", "Image,Prediction\n", "line 1 "),
        ("LOC_val_solution.csv", "", "line 1 "),
        ("LOC_val_solution.csv", 'ImageId,PredictionString\n"ILSVRC2012_val_00000001,', "line 2 "),
    ],
)
def test_a_ground_truth_that_is_not_usable_is_one_error(tmp_path, name, text, said):
    root = mini.mapping(mini.imagenet_flat(tmp_path, 2))
    (root / "map_clsloc.txt").write_text(CLSLOC)
    (root / name).write_text(text)
    error = refusal(root)
    assert said in str(error)
    assert name in str(error)
    assert len(str(error)) < 1000


@pytest.mark.parametrize(
    "text", ["n02119789 kit_fox\n", "n02119789 1 kit_fox\nn02119789 2 kit_fox\n", "n02119789 1 a\nn01440764 1 b\n"]
)
def test_an_order_that_is_not_usable_is_one_error(tmp_path, text):
    mini.ground_truth(mini.imagenet_flat(tmp_path, 1), [1])
    (tmp_path / "map_clsloc.txt").write_text(text)
    assert "map_clsloc.txt" in str(refusal(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        b"",
        b"MATLAB 5.0 MAT-file",
        b"\0" * 2**10,
        b"x" * (synsets.MAX_MAT_BYTES + 1),
        {"num_children": "none"},
        {"WNID": "../../etc"},
        {"words": ""},
        {"ILSVRC2012_ID": 3},
        {"num_children": 1},
    ],
    ids=["empty", "cut off", "zeros", "large", "children", "synset", "words", "index twice", "no classes"],
)
def test_a_meta_mat_that_is_not_usable_is_one_error(tmp_path, change):
    pytest.importorskip("scipy")
    mini.ground_truth(mini.imagenet_flat(tmp_path, 1), [1])
    if isinstance(change, bytes):
        (tmp_path / "meta.mat").write_bytes(change)
    else:
        write_meta(tmp_path / "meta.mat", **change)
    assert "meta.mat" in str(refusal(tmp_path))


def test_a_meta_mat_without_scipy_says_what_to_do(tmp_path, monkeypatch):
    mini.ground_truth(mini.imagenet_flat(tmp_path, 1), [1])
    (tmp_path / "meta.mat").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "scipy.io", None)
    error = refusal(tmp_path)
    assert error.hint == "pip install scipy"
    assert "map_clsloc.txt" in error.expected


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
