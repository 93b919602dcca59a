"""ImageNet, COCO and Open Images in whole runs: corrupt members, labels in probes, hostile names in the report."""

from __future__ import annotations

import json
import re

import miniatures as mini
import numpy as np
import pytest
from PIL import Image

import equivengine as eqv
from equivengine.cli import main

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>\"&amp;\x1b[2J\u202e$x_{$"
NUMBERS = ("zero", "one", "two")


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """The command line in this process; checks the exit code and that nothing is traced."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, code: int = 0):
        capsys.readouterr()
        found = main.run([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        assert found == code, said.err + said.out
        return said

    return run


@pytest.fixture
def digits(tmp_path):
    """A miniature ImageNet of held-out digits, in three classes whose names the caller gives."""

    def write(names=NUMBERS, per_class=4):
        found = eqv.load_images("digits")
        words = {}
        for digit, name in enumerate(names):
            synset = f"n{digit:08d}"
            words[synset] = f"{name}, digit {digit}"
            samples = [sample for sample in found if sample.label == str(digit)][:per_class]
            for number, sample in enumerate(samples):
                path = tmp_path / "set" / "train" / synset / f"{synset}_{number}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.asarray(sample.load())
                Image.fromarray(pixels).save(path, "JPEG", quality=100)
        mini.mapping(tmp_path / "set", words)
        return f"imagenet:{tmp_path / 'set'}"

    return write


def spectrum(images):
    return ("probe", "--plugin", "spectrum", "--model", "digits", "--images", images, "--out", "run", "--set", "rank=2")


def test_a_corrupt_member_fails_alone_and_the_others_are_published(cli, digits, tmp_path):
    images = digits(per_class=2)
    victim = tmp_path / "set" / "train" / "n00000001" / "n00000001_0.JPEG"
    victim.write_bytes(victim.read_bytes()[:100])
    (victim.parent / "n00000001_1.JPEG").unlink()
    (victim.parent / "n00000001_1.JPEG").symlink_to("/etc/hostname")
    said = cli(*spectrum(images), code=3)
    assert "4 computed, 2 failed" in said.out
    failed = json.loads(cli("show", "run", "--json").out)["failed"]
    assert [failure["error"] for failure in failed] == ["DataError", "DataError"]
    assert "n00000001_0.JPEG" in json.dumps(failed)
    assert "leads out of its image set" in json.dumps(failed)
    with eqv.open_run(tmp_path / "run") as run:
        found = {record.unit.samples[0].id: record.unit.samples[0].digest for record in run.units()}
    assert found == {sample.id: sample.digest for sample in (eqv.load_images(images)[i] for i in (0, 1, 4, 5))}


@pytest.mark.parametrize("scheme", ["coco", "openimages"])
def test_corrupt_members_of_the_other_sets_fail_alone_too(cli, tmp_path, scheme):
    root = getattr(mini, scheme)(tmp_path / "set")
    victim = sorted((root / ("val2017" if scheme == "coco" else "validation")).iterdir())[1]
    victim.write_bytes(b"not an image")
    said = cli(*spectrum(f"{scheme}:{root}"), "--limit", "3", code=3)
    assert "2 computed, 1 failed" in said.out
    assert victim.name in said.out


def test_annotations_that_cannot_be_used_stop_a_run_before_it_begins(cli, tmp_path):
    root = mini.coco(tmp_path / "set")
    path = root / "annotations" / "instances_val2017.json"
    path.write_text(path.read_text().replace(mini.coco_image(285), "../../../../etc/passwd"))
    said = cli(*spectrum(f"coco:{root}"), code=1)
    assert "images[1]" in said.err
    assert "expected:" in said.err
    assert "next:" in said.err
    assert not (tmp_path / "run").exists()


def test_targets_are_drawn_from_other_classes(cli, digits, tmp_path):
    images = digits()
    given = ("--model", "digits", "--images", images, "--pairing", "other-class", "--limit", "2")
    cli("probe", "--plugin", "match", *given, "--out", "run", "--set", "references=4")
    with eqv.open_run(tmp_path / "run") as run:
        pairs = [record.unit.samples for record in run.units()]
    assert len(pairs) == 2
    for original, target in pairs:
        assert original.id.partition("/")[0] != target.id.partition("/")[0]


def test_labels_reach_the_heads_of_transfer_and_markup_in_them_reaches_the_report_as_text(cli, digits, tmp_path):
    images = digits(names=(HOSTILE, "one", "two"))
    names = {HOSTILE, "one", "two"}
    given = ("--model", "digits", "--images", images, "--set", "pairs=3", "--set", "references=12")
    cli("probe", "--plugin", "transfer", *given, "--out", "run")
    with eqv.open_run(tmp_path / "run") as run:
        (record,) = run.units()
        arrays = {
            name: array.data.astype(str) for name, array in record.arrays.items() if array.data.dtype.kind not in "fiub"
        }
    assert {sample.label for sample in record.unit.samples} == names
    assert set(arrays["class_reference"]) == names
    assert set(arrays["original_label"]) <= names
    assert (arrays["original_label"] != arrays["target_label"]).all()
    assert record.summary["accuracy_mean"].value > 0.9  # classes by the labels of the set, embeddings by the model

    said = cli("report", "run")
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"<script|<img src=x|onerror=alert\(1\)>", page)
    assert "\x1b" not in page + said.out + said.err + cli("show", "run").out
    assert page.count("data:image/png;base64,") >= 2
