"""``folder:PATH``: what it takes, in which order, and how little it opens."""

from __future__ import annotations

import hashlib
import os
import pickle

import numpy as np
import pytest
from PIL import Image

import equivengine as eqv
from equivengine_plugins.datasets import images
from equivengine_plugins.datasets.folder import Folder


def open_folder(path, options: str = "") -> Folder:
    return Folder(eqv.URI.parse(f"folder:{path}{options}"))


def names(folder: Folder) -> list[str]:
    return [sample.id for sample in folder]


@pytest.fixture
def fill(tmp_path):
    """Writes files below tmp_path/set; content is a tiny PNG unless given."""
    root = tmp_path / "set"
    root.mkdir()

    def write(*relative: str, content: bytes | None = None):
        for name in relative:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                Image.new("L", (2, 2), len(name)).save(path, "PNG")
            else:
                path.write_bytes(content)
        return root

    return write


def test_files_are_taken_recursively_in_order_of_their_posix_path(fill):
    root = fill("b.png", "a/z.jpg", "a/b/c.PNG", "a.gif", "a-b/x.webp", "c/1.tiff", "é/猫.bmp")
    expected = sorted(["b.png", "a/z.jpg", "a/b/c.PNG", "a.gif", "a-b/x.webp", "c/1.tiff", "é/猫.bmp"])
    assert names(open_folder(root)) == expected


def test_a_sample_is_the_file(fill):
    root = fill("a/one.png")
    sample = open_folder(root)[0]
    assert sample.id == "a/one.png"
    assert sample.digest == hashlib.sha256((root / "a/one.png").read_bytes()).hexdigest()
    assert sample.label is None
    assert sample.load().getpixel((0, 0)) == len("a/one.png")


def test_equal_content_has_an_equal_digest_wherever_it_lies(fill, tmp_path):
    root = fill("a.png", "deep/b.png", content=b"same")
    assert [sample.digest for sample in open_folder(root)] == [hashlib.sha256(b"same").hexdigest()] * 2


def test_other_files_are_listed_and_hidden_ones_are_not(fill):
    root = fill("a.png", "notes.txt", "b/table.csv", "b/README", ".DS_Store", ".git/x.png", "b/._a.png", ".hidden.jpg")
    folder = open_folder(root)
    assert names(folder) == ["a.png"]
    assert folder.skipped == ("b/README", "b/table.csv", "notes.txt")
    assert folder.remarks == (
        "left out: 3 that are not named like images (b/README, b/table.csv, notes.txt), and 4 hidden",
    )


@pytest.mark.parametrize(
    ("others", "remarks"),
    [
        ([], ()),
        (["a.txt"], ("left out: 1 that is not named like images (a.txt)",)),
        ([".x.png"], ("left out: 1 hidden",)),
        (["1", "2", "3", "4"], ("left out: 4 that are not named like images (1, 2, 3, ...)",)),
    ],
)
def test_it_says_in_few_words_what_it_left_out(fill, others, remarks):
    assert open_folder(fill("a.png", *others)).remarks == remarks


def test_a_hidden_root_is_taken(fill, tmp_path):
    os.rename(fill("a.png"), tmp_path / ".set")
    assert len(open_folder(tmp_path / ".set")) == 1


def test_labels_come_from_the_first_directory_when_asked_for(fill):
    root = fill("cat/a.png", "cat/old/b.png", "dog/c.png", "top.png")
    labels = {sample.id: sample.label for sample in open_folder(root, "?labels=dirs")}
    assert labels == {"cat/a.png": "cat", "cat/old/b.png": "cat", "dog/c.png": "dog", "top.png": None}
    assert {sample.label for sample in open_folder(root)} == {None}


@pytest.mark.parametrize("address", ["folder", "folder:", "folder:x?labels=files", "folder:x?label=dirs"])
def test_an_address_without_sense_is_a_usage_error(address):
    with pytest.raises(eqv.UsageError):
        Folder(eqv.URI.parse(address))


def test_a_folder_of_corrupt_files_opens_and_each_reports_for_itself(fill):
    fill("a.png", content=b"not an image")
    fill("b.jpg", content=b"")
    root = fill("c.png")
    folder = open_folder(root)
    assert len(folder) == 3
    samples = list(folder)
    for sample in samples[:2]:
        with pytest.raises(eqv.DataError, match=sample.id.replace(".", r"\.")):
            sample.load()
    assert samples[2].load().size == (2, 2)


def test_nothing_is_opened_until_a_sample_is_asked_for_and_nothing_decoded_until_loaded(fill, monkeypatch):
    root = fill("a.png", "b.png")
    hashed, opened = [], []
    digest, open_image = images.file_digest, Image.open
    monkeypatch.setattr(images, "file_digest", lambda path: hashed.append(path.name) or digest(path))
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(1) or open_image(*a, **k))
    folder = open_folder(root)
    assert (len(folder), hashed, opened) == (2, [], [])
    sample = folder[1]
    assert (hashed, opened) == (["b.png"], [])
    sample.load()
    assert opened == [1]


def test_a_file_that_vanished_is_a_data_error_of_its_own(fill):
    root = fill("a.png", "b.png")
    folder = open_folder(root)
    (root / "a.png").unlink()
    with pytest.raises(eqv.DataError, match=r"a\.png"):
        folder[0]
    assert folder[1].id == "b.png"


def test_a_file_that_changed_between_hashing_and_loading_is_refused(fill):
    root = fill("a.png")
    sample = open_folder(root)[0]
    Image.new("L", (3, 3)).save(root / "a.png")
    with pytest.raises(eqv.DataError, match="has changed"):
        sample.load()


def test_a_missing_path_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(eqv.DataError, match="does not exist") as caught:
        open_folder("nowhere")
    assert str(tmp_path) in str(caught.value)


def test_a_file_is_not_a_folder(fill):
    with pytest.raises(eqv.DataError, match="not a directory"):
        open_folder(fill("a.png") / "a.png")


def test_a_path_with_a_nul_is_a_data_error():
    with pytest.raises(eqv.DataError):
        open_folder("a\0b")


def test_a_folder_without_images_says_what_it_holds(fill):
    root = fill(*[f"{i}.txt" for i in range(10)], "x.csv", "y.csv", content=b"")
    with pytest.raises(eqv.DataError, match=r"12 files, none with an image suffix: \.txt, \.csv"):
        open_folder(root)


def test_an_empty_folder_says_so(fill):
    with pytest.raises(eqv.DataError, match="an empty directory"):
        open_folder(fill())


def test_a_folder_of_hidden_files_says_so(fill):
    with pytest.raises(eqv.DataError, match="2 hidden entries"):
        open_folder(fill(".a.png", ".b/c.png"))


def test_home_is_expanded(fill, monkeypatch):
    root = fill("photos/a.png")
    monkeypatch.setenv("HOME", str(root))
    assert names(open_folder("~/photos")) == ["a.png"]


def test_an_unknown_home_is_a_data_error():
    with pytest.raises(eqv.DataError):
        open_folder("~no-such-user-anywhere/x")


def test_a_relative_path_outlives_a_change_of_directory(fill, tmp_path, monkeypatch):
    root = fill("a.png")
    monkeypatch.chdir(root.parent)
    folder = open_folder("set")
    monkeypatch.chdir("/")
    assert folder[0].load().size == (2, 2)


def test_link_loops_end(fill):
    root = fill("a/x.png", "b/y.png")
    (root / "a" / "self").symlink_to(".")
    (root / "a" / "root").symlink_to(root)
    (root / "b" / "up").symlink_to("../..")
    (root / "a" / "to_b").symlink_to("../b")
    (root / "b" / "to_a").symlink_to("../a")
    (root / "everything").symlink_to("/")
    assert names(open_folder(root)) == ["a/x.png", "b/y.png"]


def test_linked_directories_outside_are_followed_once(fill, tmp_path):
    root = fill("a.png")
    outside = tmp_path / "outside"
    (outside / "inner").mkdir(parents=True)
    Image.new("L", (2, 2)).save(outside / "inner" / "x.png")
    (outside / "inner" / "back").symlink_to(outside)
    (root / "one").symlink_to(outside)
    (root / "two").symlink_to(outside)
    assert names(open_folder(root)) == ["a.png", "one/inner/x.png"]


def test_a_linked_root_is_followed(fill, tmp_path):
    (tmp_path / "link").symlink_to(fill("a.png"))
    assert open_folder(tmp_path / "link")[0].load().size == (2, 2)


def test_links_to_files_are_taken_and_broken_ones_report_at_their_turn(fill):
    root = fill("a.png")
    (root / "b.png").symlink_to("a.png")
    (root / "c.png").symlink_to("gone.png")
    (root / "d.png").symlink_to("d.png")
    folder = open_folder(root)
    assert len(folder) == 4
    assert folder[0].digest == folder[1].digest
    for broken in (2, 3):
        with pytest.raises(eqv.DataError, match="cannot be read"):
            folder[broken]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_directory_that_cannot_be_listed_is_named(fill):
    root = fill("a.png", "locked/b.png")
    (root / "locked").chmod(0)
    try:
        with pytest.raises(eqv.DataError, match="locked"):
            open_folder(root)
    finally:
        (root / "locked").chmod(0o755)


def test_a_directory_that_fails_to_list_is_named(fill, monkeypatch):
    root = fill("a.png", "locked/b.png")
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(eqv.DataError, match="locked"):
        open_folder(root)


def test_names_that_are_no_utf8_are_escaped_in_ids(fill):
    root = fill("a.png")
    try:
        os.rename(root / "a.png", os.fsencode(root) + b"/caf\xe9.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    sample = open_folder(root)[0]
    assert sample.id == r"caf\xe9.png"
    assert sample.load().size == (2, 2)


def test_it_is_a_sequence(fill):
    folder = open_folder(fill("a.png", "b.png", "c.png"))
    assert folder[-1].id == folder[2].id == folder[np.int64(2)].id == "c.png"
    for index in (3, -4):
        with pytest.raises(IndexError):
            folder[index]
    for index in (slice(0, 1), 1.0, "a.png", None):
        with pytest.raises(TypeError):
            folder[index]


def test_a_sample_survives_a_process_border(fill):
    sample = pickle.loads(pickle.dumps(open_folder(fill("a.png"))[0]))
    assert sample.load().size == (2, 2)
