"""Image files that are no images: their units fail, the others finish, exit code 3, and resume tries them again."""

from __future__ import annotations

import struct
import zlib

import pytest


def bomb() -> bytes:
    """A few bytes that claim to be a PNG of 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


DAMAGE = {
    "truncated": lambda data: data[: len(data) // 2],
    "not_an_image": lambda data: b"These are not the pixels you are looking for.",
    "bomb": lambda data: bomb(),
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_bad_file_fails_alone(measure, cli, photos, tmp_path, damage):
    bad = photos / "b.png"
    whole = bad.read_bytes()
    bad.write_bytes(DAMAGE[damage](whole))
    said = measure(code=3)
    assert "2 computed, 1 failed" in said.out
    assert "failed: measure · toy · b.png" in said.out
    assert "b.png" in said.err
    shown = cli("show", tmp_path / "run").out
    assert "failed: measure · toy · b.png" in shown
    assert "expected:" in shown
    assert "A repaired image is new content: repeat the command with another --out." in shown
    assert "2 images" in shown
    (failure,) = cli("show", tmp_path / "run", "--json").document["failed"]
    assert failure["error"] == "DataError"

    assert "2 already there, 1 failed" in cli("resume", tmp_path / "run", code=3).out  # tried again
    # A unit is named by the content of its samples: the repaired file is other content, hence another run.
    bad.write_bytes(whole)
    again = cli("resume", tmp_path / "run", code=3)
    assert "'b.png' of" in again.out
    assert "has other content than when the run was planned" in again.out
    assert "another --out" in again.out
    assert "holds another plan" in measure(code=1).err
    assert "3 computed" in measure(out=tmp_path / "repaired").out


def test_a_file_that_is_put_back_is_measured_by_resume(measure, cli, photos, tmp_path):
    bad = photos / "b.png"
    whole = bad.read_bytes()
    measure()
    (shard,) = [p for p in (tmp_path / "run" / "shards").rglob("*.h5") if b"b.png" in p.read_bytes()]
    shard.unlink()
    bad.write_bytes(whole[:40])
    assert "has other content" in cli("resume", tmp_path / "run", code=3).out
    bad.write_bytes(whole)
    said = cli("resume", tmp_path / "run")
    assert "1 computed, 2 already there" in said.out
    assert "failed" not in cli("show", tmp_path / "run").out


def test_a_file_that_cannot_be_read_is_planned_and_fails(measure, cli, photos, tmp_path, save_image):
    (photos / "d.png").symlink_to(photos / "nowhere.png")
    said = measure(code=3)
    assert "3 computed, 1 failed" in said.out
    assert "nowhere" in said.out or "d.png" in said.out
    save_image(photos / "nowhere.png", 9)
    (photos / "nowhere.png").rename(photos / "d.png")
    assert "content that could not be read" in cli("resume", tmp_path / "run", code=3).out


def test_added_and_removed_files_do_not_confuse_resume(measure, cli, photos, tmp_path, save_image):
    measure()
    for shard in (tmp_path / "run" / "shards").rglob("*.h5"):
        shard.unlink()
    save_image(photos / "aa.png", 77)
    (photos / "c.png").unlink()
    said = cli("resume", tmp_path / "run", code=3)
    assert "2 computed, 1 failed" in said.out
    assert "'c.png' is no longer in" in said.out


def test_all_bad_is_a_failure(measure, photos):
    for path in photos.iterdir():
        path.write_bytes(path.name.encode())
    said = measure(code=1)
    assert "3 failed" in said.out


@pytest.mark.parametrize("make", ["empty", "absent", "texts", "file"])
def test_a_folder_without_images(measure, tmp_path, make):
    folder = tmp_path / "folder"
    if make == "file":
        folder.write_text("")
    elif make != "absent":
        folder.mkdir()
    if make == "texts":
        (folder / "readme.txt").write_text("")
    said = measure(images=f"folder:{folder}", code=1)
    assert str(folder) in said.err
    assert "expected:" in said.err
    assert not (tmp_path / "run").exists()


def test_names_of_files_cannot_drive_the_terminal(measure, photos, cli, tmp_path):
    (photos / "a.png").rename(photos / "\x1b[2Jevil[red].png")
    (photos / "b.png").write_bytes(b"")
    (photos / "b.png").rename(photos / "\x1b]0;title\x07.png")
    said = measure("--progress", "plain", code=3)
    assert "\x1b" not in said.out + said.err
    assert "\\x1b[2Jevil[red].png" in said.err
    assert "\x1b" not in cli("show", tmp_path / "run").out
