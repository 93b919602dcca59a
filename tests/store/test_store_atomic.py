"""Files that appear whole or not at all, several of them together, and what is said where they cannot."""

import os

import pytest

from equivengine.errors import StoreError
from equivengine.store import atomic


def write(paths):
    for number, path in enumerate(paths):
        path.write_text(f"{number}")


def left(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_several_files_appear_together(tmp_path):
    targets = [tmp_path / "a", tmp_path / "b"]

    def none_is_there(paths):
        write(paths)
        assert not any(target.exists() for target in targets)

    assert atomic.publish_all(targets, none_is_there, overwrite=False) == []
    assert left(tmp_path) == {"a": "0", "b": "1"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_of_several_those_that_are_there_stay_unless_they_are_to_be_replaced(tmp_path, overwrite):
    targets = [tmp_path / name for name in "abc"]
    targets[1].write_text("mine")
    assert atomic.publish_all(targets, write, overwrite=overwrite) == ([] if overwrite else [targets[1]])
    assert left(tmp_path) == {"a": "0", "b": "1" if overwrite else "mine", "c": "2"}


def test_where_one_cannot_be_written_none_appears(tmp_path):
    def fails(paths):
        paths[0].write_text("0")
        raise ValueError("no second one")

    with pytest.raises(ValueError, match="no second one"):
        atomic.publish_all([tmp_path / "a", tmp_path / "b"], fails, overwrite=False)
    assert left(tmp_path) == {}


def test_files_that_were_swept_away_between_two_names_are_written_again(tmp_path, monkeypatch):
    link, calls = os.link, []

    def sweeps(source, target):
        calls.append(target.name)
        if len(calls) == 2:
            source.unlink()
        link(source, target)

    monkeypatch.setattr(os, "link", sweeps)
    assert atomic.publish_all([tmp_path / "a", tmp_path / "b"], write, overwrite=False) == []
    assert calls == ["a", "b", "b"]  # what has its name keeps it
    assert left(tmp_path) == {"a": "0", "b": "1"}


def test_a_directory_that_never_was_is_not_called_gone():
    with pytest.raises(StoreError, match="cannot make the directory /proc/equivengine") as caught:
        atomic.make_directory(atomic.Path("/proc/equivengine/run"))
    assert "gone" not in str(caught.value)


def test_the_folder_that_is_gone_is_named(tmp_path):
    folder = tmp_path / "run" / "shards"
    with pytest.raises(StoreError) as caught:
        atomic.publish_text(folder / "00" / "a.h5", "text", overwrite=False)
    assert caught.value.what == f"cannot write in {tmp_path / 'run'}: it is gone"
    (tmp_path / "run").mkdir()
    with pytest.raises(StoreError) as caught, atomic.storage_errors(tmp_path / "run"):
        (folder / "00").mkdir()
    assert caught.value.what == f"cannot write in {folder}: it is gone"


def test_a_directory_that_is_there_is_not_called_gone_where_its_files_vanish(tmp_path):
    with pytest.raises(StoreError, match="files vanish while they are written") as caught:
        atomic.publish(tmp_path / "a", lambda path: None, overwrite=False)
    assert "gone" not in str(caught.value)
    assert left(tmp_path) == {}
