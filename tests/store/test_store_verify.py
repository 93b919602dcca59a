"""What `inspect_run` finds, what `set_aside` moves, and that neither takes anything whole for damaged."""

import json
import os
import random
import shutil

import h5py
import numpy as np
import pytest
from store_cases import make_plan, make_result, make_unit
from test_store_guard import edit

from equivengine.errors import StoreError
from equivengine.store import (
    RunDirectory,
    aside,
    atomic,
    content_digest,
    digests,
    inspect_run,
    open_run,
    schema,
    set_aside,
    unit_digests,
    verify_run,
)


@pytest.fixture
def whole(directory, shard_of):
    """Units 0 and 1 published (one of them with chunks and pictures), unit 2 failed, run.h5 made."""
    shard_of(0, size=600)
    shard_of(1, side=0)
    directory.record_failure(make_unit(2), "it broke, µ", provenance={"seconds": 0.5})
    directory.consolidate()
    return directory.path


def path_of(root, seed):
    return root / schema.shard_path(make_unit(seed).unit_id)


def kinds(root):
    return {(str(finding.path.relative_to(root)), finding.kind) for finding in inspect_run(root).findings}


def relative(seed):
    return schema.shard_path(make_unit(seed).unit_id)


def test_a_whole_run_has_nothing_wrong(whole):
    found = inspect_run(whole)
    assert (found.findings, found.missing, found.rerun, found.outdated) == ([], [], [], False)
    assert found.failed == [make_unit(2).unit_id]
    assert (found.shards, found.failures) == (2, 1)
    files = [whole / "plan.json", whole / "run.h5", *whole.glob("shards/*/*.h5"), *whole.glob("failures/*")]
    assert found.bytes == sum(path.stat().st_size for path in files)
    assert inspect_run(whole / "run.h5").findings == []


@pytest.mark.parametrize("name", ["shard", "plan.json", "failure", "run.h5"])
def test_any_flipped_bit_anywhere_is_found_and_named(whole, name):
    (failure,) = whole.glob("failures/*")
    path = {"shard": path_of(whole, 0), "failure": failure}.get(name, whole / name)
    original = path.read_bytes()
    rng = random.Random(name)
    places = [rng.randrange(len(original)) for _ in range(10)]
    if name in ("shard", "run.h5"):
        places += [rng.randrange(schema.USER_BLOCK) for _ in range(8)]  # also where the padding is
    for place in places:
        spoilt = bytearray(original)
        spoilt[place] ^= 1 << rng.randrange(8)
        path.write_bytes(spoilt)
        found = inspect_run(whole)
        assert path in {finding.path for finding in found.findings}, place
        assert {finding.path for finding in found.findings} <= {path, whole / "run.h5"}
        assert all(finding.error.hint for finding in found.findings)
        assert found.rerun == ([make_unit(0).unit_id] if name == "shard" else [])
    path.write_bytes(original)
    assert not inspect_run(whole).findings


@pytest.mark.parametrize("name", ["shard", "plan.json", "failure", "run.h5"])
def test_any_truncation_is_found(whole, name):
    (failure,) = whole.glob("failures/*")
    path = {"shard": path_of(whole, 0), "failure": failure}.get(name, whole / name)
    original = path.read_bytes()
    rng = random.Random(name)
    for length in (0, 1, 511, 512, 513, len(original) - 1, *(rng.randrange(len(original)) for _ in range(3))):
        path.write_bytes(original[: min(length, len(original) - 1)])
        assert path in verify_run(whole)


def test_bytes_after_the_end_are_found(whole):
    for path in (path_of(whole, 0), whole / "run.h5", whole / "plan.json"):
        with open(path, "ab") as file:
            file.write(b" ")
    assert len(verify_run(whole)) == 3


def test_a_lost_user_block_is_found_since_nothing_vouches_for_the_rest(whole):
    path = path_of(whole, 0)
    path.write_bytes(bytes(schema.USER_BLOCK) + path.read_bytes()[schema.USER_BLOCK :])
    with open_run(whole) as run:  # may be read, as a file that another tool rewrote
        assert len(run.units()) == 2
    assert "carries no digest" in verify_run(whole)[path].what


@pytest.mark.parametrize("line", [b"format equivengine-run 1.2\n", b"format equivengine-shard 1.0\n", b"frmt x\n"])
def test_a_user_block_that_says_something_else_is_found(whole, line):
    path = path_of(whole, 0)
    block = schema.MAGIC + line + f"sha256 {digests.sha256_of(path, schema.USER_BLOCK)}\n".encode()
    path.write_bytes(block.ljust(schema.USER_BLOCK, b"\0") + path.read_bytes()[schema.USER_BLOCK :])
    assert "in front" in verify_run(whole)[path].got


def test_a_shard_that_is_gone_is_lost_and_one_that_never_was_is_missing(whole, directory, shard_of):
    path_of(whole, 0).unlink()
    found = inspect_run(whole)
    assert [(finding.kind, finding.path) for finding in found.findings] == [("lost", path_of(whole, 0))]
    assert found.rerun == [make_unit(0).unit_id]
    next(whole.glob("failures/*")).unlink()
    assert inspect_run(whole).missing == [make_unit(2).unit_id]
    (whole / "run.h5").unlink()
    found = inspect_run(whole)
    assert (found.findings, found.outdated) == ([], True)
    assert found.missing == [make_unit(0).unit_id, make_unit(2).unit_id]


def test_a_shard_of_another_plan_is_foreign(whole, directory, tmp_path):
    directory.publish(make_unit(7), make_result(7), {})
    assert kinds(whole) == {(relative(7), "foreign")}
    assert verify_run(whole) == {}
    (moved,) = set_aside(inspect_run(whole))
    assert moved.moved_to == whole / "foreign" / f"{make_unit(7).unit_id}.h5.0"
    assert kinds(whole) == set()


def test_a_shard_under_another_name_or_in_another_folder_is_misplaced(whole):
    shutil.copy(path_of(whole, 0), whole / "shards" / "any name.h5")
    elsewhere = whole / "shards" / "zz" / path_of(whole, 1).name
    elsewhere.parent.mkdir()
    shutil.copy(path_of(whole, 1), elsewhere)
    assert kinds(whole) == {("shards/any name.h5", "misplaced"), (str(elsewhere.relative_to(whole)), "misplaced")}
    with open_run(whole) as run:
        assert len(run.published) == 2
    path_of(whole, 1).replace(path_of(whole, 0))
    assert (relative(0), "misplaced") in kinds(whole)
    assert inspect_run(whole).rerun == sorted(make_unit(seed).unit_id for seed in range(2))


def test_content_of_another_unit_under_a_right_name_with_a_right_digest_is_misplaced(whole):
    def change(file):
        node = file[f"units/{make_unit(0).unit_id}/record"]
        raw = node[()].replace(b'"seed":0', b'"seed":9')
        assert raw != node[()]
        node[()] = raw

    edit(path_of(whole, 0), change)
    found = verify_run(whole)[path_of(whole, 0)]
    assert "not that of its id" in found.what
    assert inspect_run(whole).rerun == [make_unit(0).unit_id]


def test_a_shard_of_two_units_under_the_name_of_one_is_misplaced(whole):
    def change(file):
        file.copy(f"units/{make_unit(0).unit_id}", f"units/{'a' * 64}")
        raw = file[f"units/{'a' * 64}/record"]
        raw[()] = raw[()]

    edit(path_of(whole, 0), change)
    assert path_of(whole, 0) in verify_run(whole)


def _column(file, name, values):
    old = file[f"manifest/{name}"]
    attributes = {key: old.attrs[key] for key in ("encoding-type", "encoding-version")}
    del file[f"manifest/{name}"]
    file[f"manifest/{name}"] = values
    for key, value in attributes.items():
        file[f"manifest/{name}"].attrs[key] = value


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("sha256", lambda column: np.roll(column, 1)),
        ("shard", lambda column: np.roll(column, 1)),
        ("size", lambda column: column + 1),
        ("unit_id", lambda column: np.roll(column, 1)),
        ("unit_id", lambda column: column[[0, 0]]),
        ("unit_id", lambda column: column[:1]),
        ("size", lambda column: column.astype("f8")),
    ],
)
def test_a_wrong_manifest_is_found(whole, name, change):
    edit(whole / "run.h5", lambda file: _column(file, name, change(file[f"manifest/{name}"][()])))
    assert inspect_run(whole).findings
    directory = RunDirectory.open(whole)
    directory.consolidate()
    assert not inspect_run(whole).findings


def test_a_run_file_of_another_plan_or_with_other_units_is_found(whole):
    def forget(file):
        del file[f"units/{make_unit(0).unit_id}"]

    original = (whole / "run.h5").read_bytes()
    edit(whole / "run.h5", forget)
    assert "/manifest" in verify_run(whole)[whole / "run.h5"].got
    (whole / "run.h5").write_bytes(original)
    edit(whole / "run.h5", lambda file: file["plan"].attrs.create("digest", np.bytes_("other")))
    assert "another plan" in verify_run(whole)[whole / "run.h5"].what


def test_a_shard_that_was_replaced_counts_and_the_former_run_file_is_kept(whole, directory):
    former = (whole / "run.h5").read_bytes()
    path_of(whole, 0).unlink()
    directory.publish(make_unit(0), make_result(0, size=600), {"host": "another"})
    assert kinds(whole) == {(relative(0), "replaced")}
    assert inspect_run(whole).rerun == []
    assert set_aside(inspect_run(whole)) == []
    directory.consolidate()
    assert kinds(whole) == set()
    assert (whole / "damaged" / "run.h5.0").read_bytes() == former


def test_consolidation_keeps_a_former_file_that_holds_what_no_shard_holds(whole, directory):
    former = (whole / "run.h5").read_bytes()
    path_of(whole, 0).unlink()
    directory.consolidate()
    assert (whole / "damaged" / "run.h5.0").read_bytes() == former
    directory.consolidate()
    assert len(list((whole / "damaged").iterdir())) == 1


def test_what_is_damaged_is_moved_and_nothing_else(whole):
    before = path_of(whole, 1).stat()
    spoilt = path_of(whole, 0).read_bytes()[:-1]
    path_of(whole, 0).write_bytes(spoilt)
    (failure,) = whole.glob("failures/*")
    failure.write_text("{")
    (whole / "run.h5").write_bytes(b"")
    moved = {one.finding.path: one.moved_to for one in set_aside(inspect_run(whole))}
    assert set(moved) == {path_of(whole, 0), failure, whole / "run.h5"}
    assert moved[path_of(whole, 0)].read_bytes() == spoilt
    assert path_of(whole, 1).stat() == before
    assert not list((whole / "pictures").glob(f"*-{make_unit(0).unit_id[:12]}"))
    assert inspect_run(whole).findings == []
    assert inspect_run(whole).missing == [make_unit(0).unit_id, make_unit(2).unit_id]


def test_a_second_damaged_file_of_one_name_gets_the_next_number(whole, directory):
    for number in range(3):
        path_of(whole, 0).write_bytes(b"")
        (moved,) = (one.moved_to for one in set_aside(inspect_run(whole)) if one.finding.path == path_of(whole, 0))
        assert moved.name.endswith(f".h5.{number}")
        directory.publish(make_unit(0), make_result(0), {})


def test_a_folder_in_the_place_of_a_shard_is_moved_too(whole):
    path_of(whole, 0).unlink()
    path_of(whole, 0).mkdir()
    assert "regular file" in verify_run(whole)[path_of(whole, 0)].expected
    set_aside(inspect_run(whole))
    assert not path_of(whole, 0).exists()


def test_the_plan_is_never_moved(whole):
    (whole / "plan.json").write_text("{}")
    assert kinds(whole) == {("plan.json", "damaged")}
    assert set_aside(inspect_run(whole)) == []
    assert (whole / "plan.json").read_text() == "{}"


def test_a_shard_that_another_process_repaired_meanwhile_stays(whole, directory, monkeypatch):
    """Before the move, and in the last microseconds."""
    path_of(whole, 0).write_bytes(b"spoilt")
    inspection = inspect_run(whole)
    set_aside(inspection)
    directory.publish(make_unit(0), make_result(0), {})
    assert [one.finding.path for one in set_aside(inspection)] == []

    whole_bytes = path_of(whole, 0).read_bytes()
    stranger = (0, 0, 0, 0)
    identity_of = aside.identity_of
    monkeypatch.setattr(aside, "identity_of", lambda path: stranger if path == path_of(whole, 0) else identity_of(path))
    assert aside.move(whole, path_of(whole, 0), "damaged", stranger) is None
    assert path_of(whole, 0).read_bytes() == whole_bytes


def test_other_programs_files_and_unfinished_ones_are_nothing(whole):
    shard = path_of(whole, 0)
    atomic.temporary_beside(shard).write_bytes(b"half")
    (shard.parent / "._copy.h5").write_bytes(b"")
    (shard.parent / "notes.txt").write_text("x")
    (whole / "report.html").write_text("x")
    assert kinds(whole) == set()


def test_a_file_that_goes_while_it_is_looked_at_is_nothing(whole, monkeypatch):
    scan_shard = inspect_run.__globals__["scan"].scan_shard

    def vanish(path):
        path.unlink()
        return scan_shard(path)

    monkeypatch.setattr(inspect_run.__globals__["scan"], "scan_shard", vanish)
    (whole / "run.h5").unlink()
    assert inspect_run(whole).findings == []


def test_a_plan_without_a_seal_is_read_if_it_is_old_and_damaged_if_it_is_not(whole):
    path = whole / "plan.json"
    data = json.loads(path.read_text())
    del data["sha256"]
    path.write_text(schema.to_json({**data, "format_version": "1.1"}, "plan"))
    assert not inspect_run(whole).findings
    path.write_text(schema.to_json(data, "plan"))
    assert set(verify_run(whole)) == {path}
    with pytest.raises(StoreError, match="not what was written"):
        RunDirectory.create_or_open(whole, make_plan(), "digest")


def test_an_old_plan_is_held_against_the_copy_in_the_run_file(whole):
    path = whole / "plan.json"
    data = json.loads(path.read_text())
    del data["sha256"]
    data["plan"]["name"] = "plam"
    path.write_text(schema.to_json({**data, "format_version": "1.1"}, "plan"))
    assert "another plan" in verify_run(whole)[whole / "run.h5"].what


def test_a_flip_that_changes_no_value_of_a_json_file_is_found(whole):
    """The case of a hexadecimal digit of an escape sequence."""
    (path,) = whole.glob("failures/*")
    raw = path.read_bytes()
    assert b"\\u00b5" in raw
    path.write_bytes(raw.replace(b"\\u00b5", b"\\u00B5"))
    assert set(verify_run(whole)) == {path}


def test_run_directories_and_files_that_are_none_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(StoreError):
            inspect_run(path)
    (tmp_path / "x.h5").write_text("no HDF5")
    assert [finding.kind for finding in inspect_run(tmp_path / "x.h5").findings] == ["damaged"]


def test_content_counts_every_bit_of_a_result_and_no_provenance(tmp_path):
    def digest(name, result, provenance=None):
        run = RunDirectory.create_or_open(tmp_path / name, {"units": [make_unit().to_json()]}, "d")
        run.publish(make_unit(), result, provenance or {})
        with open_run(run.path) as opened, open_run(run.consolidate()) as file:
            assert content_digest(opened) == content_digest(file)
            return content_digest(opened), unit_digests(opened)[make_unit().unit_id]

    same = digest("a", make_result(size=2000))
    assert digest("b", make_result(size=2000), {"seconds": 3.0}) == same
    changed = make_result(size=2000)
    changed.arrays["zeta"].data[7, 1] = np.nextafter(changed.arrays["zeta"].data[7, 1], 9)
    assert digest("c", changed)[1] != same[1]
    assert digest("d", make_result(1, size=2000))[0] != same[0]
    picture = make_result(size=2000)
    picture.pictures["gap"].levels[0, 0] ^= 1
    assert digest("e", picture)[1] != same[1]


def test_a_unit_in_a_pack_that_is_damaged_is_missing_and_the_pack_is_moved(whole):
    pack = whole / "shards" / "zz" / "pack.one.h5"
    pack.parent.mkdir()
    os.replace(path_of(whole, 0), pack)
    (whole / "run.h5").unlink()
    assert kinds(whole) == set()
    with open_run(whole) as run:
        assert make_unit(0).unit_id in run.published
    with h5py.File(pack) as file:
        assert list(file["units"]) == [make_unit(0).unit_id]
    pack.write_bytes(pack.read_bytes()[:-1])
    assert kinds(whole) == {("shards/zz/pack.one.h5", "damaged")}
    assert inspect_run(whole).missing == [make_unit(0).unit_id]
    set_aside(inspect_run(whole))
    assert (whole / "damaged" / "pack.one.h5.0").exists()
