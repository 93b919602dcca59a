"""Damaged, hostile and newer files: each is one clear StoreError, never a crash, never a read outside the file."""

import errno
import json
import os
import random
import shutil
import zlib

import h5py
import numpy as np
import pytest
from store_cases import make_unit

from equivengine.errors import StoreError
from equivengine.store import digests, open_run, schema, verify_run

UNIT = f"units/{make_unit().unit_id}"


def read_everything(path):
    with open_run(path) as run:
        for probe in run.probes:
            list(run.results(probe))
            run.summary(probe)


def edit(path, change):
    """Change a file of ours with h5py, and make its digest right again: the work of an attacker, not of a bad disk."""
    with h5py.File(path, "r+", libver=("v108", "latest")) as file:
        change(file)
    with open(path, "r+b") as file:
        file.write(schema.MAGIC + f"sha256 {digests.sha256_of(path, schema.USER_BLOCK)}\n".encode().ljust(500, b"\0"))


@pytest.fixture(params=["shard", "run.h5"])
def target(request, directory, shard_of):
    """A file to spoil, and the path by which a user opens it."""
    shard = shard_of(size=3000)
    return (shard, directory.path) if request.param == "shard" else (directory.consolidate(),) * 2


def test_an_edited_file_with_a_right_digest_is_read(target):
    path, run = target
    edit(path, lambda file: file[UNIT].attrs.create("extra", 1))
    read_everything(run)


def test_a_truncated_file_is_one_clear_error(target):
    path, run = target
    whole = path.read_bytes()
    for length in (0, 3, 100, 512, 600, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match=path.name) as caught:
            read_everything(run)
        assert caught.value.hint


def test_any_flipped_bit_is_found(target):
    path, run = target
    whole = bytearray(path.read_bytes())
    rng = random.Random(0)
    for position in rng.sample(range(schema.USER_BLOCK, len(whole)), 50):
        spoilt = bytearray(whole)
        spoilt[position] ^= 1 << rng.randrange(8)
        path.write_bytes(spoilt)
        with pytest.raises(StoreError, match=path.name):
            read_everything(run)


def test_a_flipped_bit_in_the_digest_itself_is_found(target):
    path, run = target
    spoilt = bytearray(path.read_bytes())
    spoilt[spoilt.index(b"sha256 ") + 20] ^= 1
    path.write_bytes(spoilt)
    with pytest.raises(StoreError, match="not what was written"):
        read_everything(run)


def test_flipped_bits_without_a_digest_never_crash(target):
    path, run = target
    whole = bytearray(path.read_bytes())
    whole[: schema.USER_BLOCK] = bytes(schema.USER_BLOCK)
    rng = random.Random(1)
    hints = []
    for _ in range(60):
        spoilt = bytearray(whole)
        spoilt[rng.randrange(schema.USER_BLOCK, len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(spoilt)
        try:
            read_everything(run)
        except StoreError as error:
            hints.append(error.hint)
    assert hints
    assert all(hints)


def test_fletcher32_finds_a_flipped_bit_in_a_chunk_without_the_digest(shard_of, directory):
    path = shard_of(size=3000)
    with h5py.File(path) as file:
        chunk = file[f"{UNIT}/arrays/zeta"].id.get_chunk_info(0)
    spoilt = bytearray(path.read_bytes())
    spoilt[: schema.USER_BLOCK] = bytes(schema.USER_BLOCK)
    spoilt[schema.USER_BLOCK + chunk.byte_offset + chunk.size // 2] ^= 1
    path.write_bytes(spoilt)
    with pytest.raises(StoreError, match=path.name):
        read_everything(directory.path)


def _replace(name, make):
    def change(file):
        group = file[UNIT]
        del group[name]
        make(group, name)

    return change


def _labelled(node, encoding="string", version="2.0"):
    node.attrs["encoding-type"] = np.bytes_(encoding)
    node.attrs["encoding-version"] = np.bytes_(version)
    return node


def _huge(group, name):
    _labelled(group.create_dataset(name, shape=(10**10,), dtype="f4", chunks=(10**5,), compression="gzip"), "array")


def _unbacked(group, name):
    _labelled(group.create_dataset(name, shape=(10**8,), dtype="f4", chunks=(10**5,), compression="gzip"), "array")


def _external(group, name):
    _labelled(group.create_dataset(name, shape=(1,), dtype="S12", external=[("/etc/passwd", 0, 12)]))


def _external_array(group, name):
    _labelled(group.create_dataset(name, shape=(12,), dtype="u1", external=[("/etc/passwd", 0, 12)]), "array")


def _virtual(group, name):
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "x", (4,))
    _labelled(group.create_virtual_dataset(name, layout), "array")


def _soft(group, name):
    group[name] = h5py.SoftLink("/")


def _foreign(group, name):
    group[name] = h5py.ExternalLink("other.h5", "/")


def _twice(group, name):
    group[name] = group["arrays/alpha"]


def _vlen(group, name):
    _labelled(group.create_dataset(name, data="text", dtype=h5py.string_dtype()))


def _reference(group, name):
    _labelled(group.create_dataset(name, data=group.ref, dtype=h5py.ref_dtype), "array")


def _compound(group, name):
    _labelled(group.create_dataset(name, data=np.zeros(2, [("a", "f4"), ("b", "f8")])), "array")


def _filter(group, name):
    _labelled(group.create_dataset(name, data=np.zeros(1000), chunks=(100,), compression="lzf"), "array")


def _big_chunk(group, name):
    data = np.zeros(10**6)
    _labelled(group.create_dataset(name, data=data, chunks=(10**6,), compression="gzip"), "array")


def _bytes(shape, encoding="picture", dtype="u1"):
    def make(group, name):
        _labelled(group.create_dataset(name, data=np.zeros(shape, dtype)), encoding)

    return make


def _external_picture(group, name):
    node = group.create_dataset(name, shape=(3, 4), dtype="u1", external=[("/etc/passwd", 0, 12)])
    _labelled(node, "picture")


def _named(wanted):
    def make(group, name):
        _labelled(group.require_group("pictures").create_dataset(wanted, data=np.zeros((2, 2), "u1")), "picture")

    return make


ATTACKS = [
    ("arrays", _soft, "soft link"),
    ("arrays", _foreign, "external link"),
    ("record", _soft, "soft link"),
    ("record", _foreign, "external link"),
    ("record", _twice, "several names"),
    ("record", _vlen, "type object"),
    ("record", _external, "external storage"),
    ("arrays/zeta", _soft, "soft link"),
    ("arrays/zeta", _foreign, "external link"),
    ("arrays/zeta", _external_array, "external storage"),
    ("arrays/zeta", _virtual, "virtual dataset"),
    ("arrays/zeta", _huge, "declares 40000000000 bytes"),
    ("arrays/zeta", _unbacked, "declares 400000000 bytes but holds 0"),
    ("arrays/zeta", _reference, "values of type"),
    ("arrays/zeta", _compound, "values of type"),
    ("arrays/zeta", _filter, "filters"),
    ("arrays/zeta", _big_chunk, "chunks of 8000000 bytes"),
    ("pictures", _soft, "soft link"),
    ("pictures", _foreign, "external link"),
    ("pictures/found", _soft, "soft link"),
    ("pictures/found", _external_picture, "external storage"),
    ("pictures/found", _bytes((3, 4), dtype="f4"), "float32"),
    ("pictures/found", _bytes((3, 4), dtype="i1"), "int8"),
    ("pictures/found", _bytes((3, 4, 4)), r"\(3, 4, 4\)"),
    ("pictures/found", _bytes(12), r"\(12,\)"),
    ("pictures/found", _bytes((0, 4)), r"\(0, 4\)"),
    ("pictures/found", _bytes((1, (1 << 26) + 1)), "67,108,864 pixels"),
    ("pictures/found", _named(".."), "called '..'"),
    ("pictures/found", _named("a b"), "called 'a b'"),
    ("pictures/found", _named("x" * 101), "called 'xxx"),
]


@pytest.mark.parametrize(("name", "make", "words"), ATTACKS, ids=lambda value: getattr(value, "__name__", None))
def test_hostile_elements_are_refused_before_they_are_read(target, name, make, words):
    path, run = target
    edit(path, _replace(name, make))
    with pytest.raises(StoreError, match=words) as caught:
        read_everything(run)
    assert str(path) in str(caught.value)
    assert "root:" not in str(caught.value)
    if name.startswith(("arrays/", "pictures")):
        assert path in verify_run(run)


@pytest.mark.parametrize(
    "link",
    [
        pytest.param(h5py.SoftLink("/elsewhere"), id="soft"),
        pytest.param(h5py.ExternalLink("other.h5", "/units"), id="external"),
    ],
)
def test_links_at_the_first_component_are_refused(target, link):
    path, run = target

    def change(file):
        file.move("units", "elsewhere")
        file["units"] = link

    edit(path, change)
    with pytest.raises(StoreError, match="link"):
        read_everything(run)


def test_a_bomb_of_one_small_chunk_is_refused(target):
    path, run = target

    def change(file):
        arrays = file[f"{UNIT}/arrays"]
        del arrays["zeta"]
        node = arrays.create_dataset("zeta", shape=(10,), dtype="u1", chunks=(10,), compression="gzip")
        node.id.write_direct_chunk((0,), zlib.compress(bytes(10_000_000), 9))
        _labelled(node, "array")

    edit(path, change)
    with pytest.raises(StoreError, match="packs"):
        read_everything(run)


@pytest.mark.parametrize("where", ["/", UNIT, f"{UNIT}/record", f"{UNIT}/arrays/zeta", f"{UNIT}/pictures/gap"])
def test_a_newer_major_is_one_clear_error_and_a_newer_minor_is_read(target, where):
    path, run = target
    key = "format-version" if where == "/" else "encoding-version"

    def version(text):
        def change(file):
            file[where].attrs[key] = np.bytes_(text)
            file[UNIT].attrs["from-the-future"] = 1
            if "news" not in file[UNIT]:
                file[UNIT].create_group("news")
                _labelled(file[f"{UNIT}/arrays"].create_dataset("sparse", data=[1]), "sparse")
                _labelled(file[f"{UNIT}/pictures"].create_dataset("in depth", data=[1]), "volume")

        return change

    edit(path, version("2.9"))
    read_everything(run)
    edit(path, version("3.0"))
    with pytest.raises(StoreError, match=r"was written in format version 3\.0") as caught:
        read_everything(run)
    assert "install" in caught.value.hint


def test_newer_plans_and_failures_are_refused_likewise(directory):
    directory.record_failure(make_unit(), "broken")
    for path in (directory.path / "plan.json", directory.path / "failures" / f"{make_unit().unit_id}.json"):
        data = json.loads(path.read_text())
        path.write_text(json.dumps({**data, "format_version": "2.7", "news": 1}))
        read_everything(directory.path)
        path.write_text(json.dumps({**data, "format_version": "3.0"}))
        with pytest.raises(StoreError, match=r"format version 3\.0"):
            open_run(directory.path)
        path.write_text(json.dumps(data)[:-3])
        with pytest.raises(StoreError, match="damaged") as caught:
            open_run(directory.path)
        assert caught.value.hint
        path.write_text(json.dumps(data))


def test_other_hdf5_files_and_other_places_are_refused(tmp_path, directory, shard_of):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    for path in (tmp_path / "other.h5", shard_of()):
        with pytest.raises(StoreError, match="not in the format"):
            open_run(path)
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(StoreError, match="damaged"):
        open_run(tmp_path / "text.h5")


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(StoreError, match="regular file"):
        open_run(tmp_path / "pipe.h5")


def test_a_failing_disk_is_not_taken_for_a_damaged_file(directory, shard_of, monkeypatch):
    path = shard_of()

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(digests, "sha256_of", fail)
    with pytest.raises(StoreError, match="cannot be read") as caught:
        read_everything(directory.path)
    assert str(path) in caught.value.what
    assert "delete" not in caught.value.hint


def test_a_damaged_shard_stops_consolidation_and_the_former_file_stays(directory, shard_of):
    path = shard_of()
    former = directory.consolidate().read_bytes()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StoreError, match=path.name) as caught:
        directory.consolidate()
    assert "resume" in caught.value.hint
    assert (directory.path / "run.h5").read_bytes() == former
    path.unlink()
    assert directory.published() == set()


def test_a_shard_under_another_units_name_is_refused(directory, shard_of):
    path = shard_of()
    other = directory.path / schema.shard_path(make_unit(1).unit_id)
    other.parent.mkdir()
    shutil.copy(path, other)
    with pytest.raises(StoreError, match=other.name):
        read_everything(directory.path)


def test_the_manifest_names_every_shard_by_its_digest(directory, shard_of):
    paths = [shard_of(0), shard_of(1)]
    with h5py.File(directory.consolidate()) as file:
        manifest = file["manifest"]
        found = {
            raw.decode(): digest.decode() for raw, digest in zip(manifest["shard"], manifest["sha256"], strict=True)
        }
        assert sorted(manifest["size"]) == sorted(path.stat().st_size for path in paths)
    assert found == {str(path.relative_to(directory.path)): digests.sha256_of(path) for path in paths}


@pytest.mark.parametrize("name", ["../../etc/passwd", "A" * 64, "", "g" * 64])
def test_only_unit_ids_become_paths(directory, name):
    with pytest.raises(StoreError):
        directory.is_published(name)


def test_verify_names_what_is_damaged_replaced_or_gone(directory, shard_of):
    good, bad, gone, other = (shard_of(seed) for seed in range(4))
    run_file = directory.consolidate()
    assert verify_run(directory.path) == verify_run(run_file) == {}
    bad.write_bytes(bad.read_bytes()[:-1])
    gone.unlink()
    edit(other, lambda file: file.attrs.create("extra", 1))
    assert set(verify_run(directory.path)) == {bad, gone, other}
    run_file.write_bytes(run_file.read_bytes()[:-1])
    assert set(verify_run(directory.path)) == {bad, run_file}
    assert set(verify_run(run_file)) == {run_file}
    assert good.exists()
