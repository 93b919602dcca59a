"""ImageNet: roots, lists and tables that cannot be used are one error each."""

from __future__ import annotations

import shutil

import miniatures as mini
import pytest
from imagenet_roots import CLSLOC, TRUTH, opened, refusal, write_meta
from miniatures import CRANE, GOLDFISH, TENCH, val_name

import equivengine as eqv
from equivengine_plugins.datasets.imagenet import ImageNet, synsets

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
