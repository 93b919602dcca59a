"""Pictures: lossless in shard and run.h5, as PNG files beside them, and never at the cost of a result."""

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from store_cases import make_pictures, make_plan, make_result, make_unit
from test_store_guard import UNIT, edit
from test_store_round_trip import assert_equal_results, store_and_read

from equivengine.contracts.result import Picture, ProbeResult
from equivengine.errors import StoreError
from equivengine.store import RunDirectory, open_run, png, schema, verify_run

ARCHIVE = Path(__file__).resolve().parents[1] / "archives" / "v1.0"


def png_files(root):
    return {str(path.relative_to(root / "pictures")): path for path in sorted((root / "pictures").rglob("*.png"))}


def folder(seed=0):
    return f"ldlc-{make_unit(seed).unit_id[:12]}"


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (5, 7), (7, 5, 3), (129, 128), (224, 200, 3)])
def test_every_shape_survives(tmp_path, shape):
    levels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    result = ProbeResult({}, {}, pictures={"one": Picture(levels, "Eins, µ."), "two": Picture(255 - levels, "")})
    for found, record in store_and_read(tmp_path / "run", result):
        assert_equal_results(found, result)
        assert list(record.pictures) == ["one", "two"]
        assert len(record.pictures) == 2
        assert "three" not in record.pictures


def test_a_picture_of_nothing_but_black_survives(tmp_path):
    result = ProbeResult({}, {}, pictures={"black": Picture(np.zeros((2000, 2000, 3), np.uint8), "A gap of nothing.")})
    for found, _ in store_and_read(tmp_path / "run", result):
        assert_equal_results(found, result)


def test_a_unit_without_pictures_has_none_and_no_group(directory, shard_of):
    with h5py.File(shard_of(side=0)) as file:
        assert "pictures" not in file[UNIT]
    directory.consolidate()
    with open_run(directory.path) as run:
        assert dict(run.units()[0].pictures) == {}
    assert not (directory.path / "pictures").exists()


def test_plain_hdf5_readers_see_images(directory, shard_of):
    for path in (shard_of(side=96), directory.consolidate()):
        with h5py.File(path) as file:
            grey, colour = (file[f"{UNIT}/pictures/{name}"] for name in ("gap", "found"))
            assert (colour.chunks is not None, colour.compression, colour.shuffle) == (True, "gzip", True)
            for node, kind in ((grey, b"IMAGE_GRAYSCALE"), (colour, b"IMAGE_TRUECOLOR")):
                found = {key: node.attrs.get(key) for key in ("CLASS", "IMAGE_VERSION", "IMAGE_SUBCLASS")}
                assert found == {"CLASS": b"IMAGE", "IMAGE_VERSION": b"1.2", "IMAGE_SUBCLASS": kind}
            assert colour.attrs["INTERLACE_MODE"] == b"INTERLACE_PIXEL"
            assert grey.attrs["IMAGE_WHITE_IS_ZERO"] == 0
            assert grey.attrs["description"].decode() == "Where it differs."


def test_png_files_hold_the_pictures_as_soon_as_a_unit_is_published(directory, shard_of):
    shard_of(1)
    files = png_files(directory.path)
    assert list(files) == [f"{folder(1)}/found.png", f"{folder(1)}/gap.png"]
    for name, picture in make_pictures(1).items():
        with Image.open(files[f"{folder(1)}/{name}.png"]) as image:
            np.testing.assert_array_equal(np.asarray(image), picture.levels)
            assert image.text["Description"] == picture.description


def test_png_files_come_again_from_the_shards_with_the_same_bytes(directory, shard_of):
    shard_of(0), shard_of(1)
    before = {name: path.read_bytes() for name, path in png_files(directory.path).items()}
    assert len(before) == 4
    shutil.rmtree(directory.path / "pictures")
    directory.consolidate()
    assert {name: path.read_bytes() for name, path in png_files(directory.path).items()} == before


def test_what_is_there_with_the_same_bytes_is_not_written_again(directory, shard_of):
    shard = shard_of()
    os.utime(shard, ns=(2 * 10**18,) * 2)  # the shard looks newer: files are compared
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in png_files(directory.path).values()}
    directory.consolidate()
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in before} == before
    assert png.write_all(directory.path) == []


def test_only_what_may_have_changed_is_read(directory, shard_of, monkeypatch):
    shard_of()
    directory.consolidate()
    monkeypatch.setattr(Picture, "png", lambda self: pytest.fail("a picture was encoded for nothing"))
    directory.consolidate()


def test_a_unit_that_is_computed_again_replaces_its_png_files(directory, shard_of):
    shard_of().unlink()
    result = ProbeResult({}, {}, pictures=make_pictures(7))
    assert directory.publish(make_unit(), result, {})
    with Image.open(png_files(directory.path)[f"{folder()}/gap.png"]) as image:
        np.testing.assert_array_equal(np.asarray(image), result.pictures["gap"].levels)


def test_who_loses_the_race_for_a_unit_writes_no_png_files(directory, shard_of):
    shard_of()
    before = {name: path.read_bytes() for name, path in png_files(directory.path).items()}
    assert not directory.publish(make_unit(), ProbeResult({}, {}, pictures=make_pictures(7)), {})
    assert {name: path.read_bytes() for name, path in png_files(directory.path).items()} == before


def test_png_files_are_known_to_the_run_and_derived(directory, shard_of):
    shard_of()
    run_file = directory.consolidate()
    for path in png_files(directory.path).values():
        path.write_bytes(b"spoilt")
    assert verify_run(directory.path) == verify_run(run_file) == {}
    RunDirectory.create_or_open(directory.path, make_plan(), "digest")
    with open_run(directory.path) as run:
        assert_equal_results(run.units()[0].result(), make_result())


@pytest.mark.parametrize("what", ["a file in the way", "a full disk"])
def test_where_no_png_file_can_be_written_results_stay_and_the_error_says_so(directory, monkeypatch, what):
    blocked = directory.path / "pictures"
    if what == "a file in the way":
        blocked.write_text("no folder")
    else:
        monkeypatch.setattr(png, "_write", lambda path, data: (_ for _ in ()).throw(OSError(28, "No space left")))
    assert directory.publish(make_unit(), make_result(), {})
    with pytest.raises(StoreError, match="pictures") as caught:
        directory.consolidate()
    assert "results are whole" in caught.value.hint
    assert "resume" in caught.value.hint
    for source in (directory.path, directory.path / "run.h5"):
        with open_run(source) as run:
            assert_equal_results(run.units()[0].result(), make_result())
    assert verify_run(directory.path) == {}
    assert not list(directory.path.rglob("tmp.*"))
    monkeypatch.undo()
    if blocked.is_file():
        blocked.unlink()
    directory.consolidate()
    assert len(png_files(directory.path)) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_read_only_folder_of_pictures_loses_no_result(directory):
    (directory.path / "pictures").mkdir(mode=0o555)
    assert directory.publish(make_unit(), make_result(), {})
    with pytest.raises(StoreError, match="cannot write in"):
        directory.consolidate()


def test_what_a_dead_writer_left_among_the_pictures_is_swept(directory, shard_of, start_python):
    shard_of()
    gone = start_python("")
    gone.wait()
    left = png.folder_of(directory.path, "ldlc", make_unit().unit_id) / f"tmp.{png.atomic.HOST}.{gone.pid}.00"
    left.write_bytes(b"")
    RunDirectory.create_or_open(directory.path, make_plan(), "digest")
    assert not left.exists()


@pytest.mark.parametrize("probe", ["../../x", "a b/c", "ö", "..", "x" * 500])
def test_no_name_of_a_probe_leads_out_of_the_folder(tmp_path, probe):
    found = png.folder_of(tmp_path, probe, "a" * 64)
    assert found.parent == tmp_path / "pictures"
    assert len(found.name) < 100
    assert found.resolve().parent == tmp_path / "pictures"


def test_a_picture_with_the_name_of_a_path_writes_nothing(directory, shard_of):
    path = shard_of()

    def rename(file):
        file[f"{UNIT}/pictures"].move("gap", "..")

    edit(path, rename)
    shutil.rmtree(directory.path / "pictures")
    with pytest.raises(StoreError, match="called"):
        directory.consolidate()
    assert not (directory.path / "pictures").exists()


# ---------------------------------------------------------------------------------------------------- older versions


@pytest.fixture
def older(tmp_path):
    """A run that format 1.0 wrote: unit 0 published, unit 1 failed, unit 2 missing."""
    return RunDirectory(shutil.copytree(ARCHIVE, tmp_path / "older"))


def test_runs_of_version_1_0_are_read(older):
    assert b"format equivengine-shard 1.0" in next(older.path.glob("shards/*/*.h5")).read_bytes()[:512]
    assert verify_run(older.path) == {}
    for source in (older.path, older.path / "run.h5"):
        with open_run(source) as run:
            ((unit, result),) = run.results("ldlc")
            assert unit == make_unit(0)
            assert_equal_results(result, make_result(0, side=0))
            assert len(run.units()[0].pictures) == 0
            assert [failure.message for failure in run.failures.values()] == ["it broke"]
            assert run.missing == [make_unit(2).unit_id]


def test_runs_of_version_1_0_are_finished_with_pictures(older):
    directory = RunDirectory.create_or_open(older.path, make_plan(), "digest")
    for seed in (1, 2):
        assert directory.publish(make_unit(seed), make_result(seed), {})
    with open_run(directory.consolidate()) as run:
        for (_, found), seed in zip(run.results("ldlc"), range(3), strict=True):
            assert_equal_results(found, make_result(seed, side=12 if seed else 0))
    assert verify_run(older.path) == {}
    assert len(png_files(older.path)) == 4
    with h5py.File(older.path / "run.h5") as file:
        assert file.attrs["format-version"].decode() == schema.VERSION_TEXT
