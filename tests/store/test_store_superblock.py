import h5py
import pytest

from equivengine.store import superblock


# The first and last as the author of the hash gives them, in lookup3.c.
@pytest.mark.parametrize(
    ("data", "wanted"), [(b"", 0xDEADBEEF), (b"a", 0x58D68708), (b"Four score and seven years ago", 0x17770551)]
)
def test_the_hash_is_lookup3(data, wanted):
    assert superblock.lookup3(data) == wanted


def test_the_checksum_is_the_one_that_hdf5_writes(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w", libver=("v108", "v108")) as file:
        file["x"] = [1.0, 2.0]
    written = (tmp_path / "f.h5").read_bytes()
    damaged = written[:44] + bytes(4) + written[48:]
    assert superblock.with_checksum(damaged) == written != damaged


@pytest.mark.parametrize("clears_mark_alone", [False, True])
def test_an_image_that_was_sealed_can_be_opened(monkeypatch, tmp_path, clears_mark_alone):
    monkeypatch.setattr(superblock, "_CLEARS_MARK_ALONE", clears_mark_alone or superblock._CLEARS_MARK_ALONE)
    with h5py.File("memory", "w", driver="core", backing_store=False, libver=("v108", "v108")) as file:
        file["x"] = [1.0, 2.0]
        file.flush()
        image = file.id.get_file_image()
    (tmp_path / "f.h5").write_bytes(superblock.sealed(image))
    with h5py.File(tmp_path / "f.h5") as file:
        assert file["x"][:].tolist() == [1.0, 2.0]


def test_another_superblock_is_refused():
    with pytest.raises(ValueError, match="expected a superblock of version 2, got 0"):
        superblock.with_checksum(bytes(100))
