"""HDF5 files of ours being made: in memory and then written at once, or on disk where they may be large."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
from h5py import h5f, h5g, h5p

from equivengine.errors import StoreError
from equivengine.store import digests, elements, guard, refusal, schema, superblock

_ORDERED = h5p.CRT_ORDER_TRACKED | h5p.CRT_ORDER_INDEXED
_CREATION = h5p.create(h5p.FILE_CREATE)
_CREATION.set_obj_track_times(False)  # of the root group: equal work gives equal bytes, whenever it is done
_CREATION.set_userblock(schema.USER_BLOCK)
_CREATION.set_link_creation_order(_ORDERED)
_CREATION.set_attr_creation_order(_ORDERED)

_IN_MEMORY = h5p.create(h5p.FILE_ACCESS)
_IN_MEMORY.set_fapl_core(64 << 10, False)  # memory is taken in such steps
_IN_MEMORY.set_libver_bounds(h5f.LIBVER_V18, h5f.LIBVER_V18)
_IN_MEMORY.set_fclose_degree(h5f.CLOSE_STRONG)

_numbers = itertools.count()


class _Sink:
    """The file under h5py, which never fails: HDF5 cannot close a file after a failed write, and keeps it for ever.

    The first error is kept, further writes are dropped, and `new_file` raises it when HDF5 has let go.
    """

    def __init__(self, path: Path) -> None:
        self.file = open(path, "x+b", buffering=0)  # noqa: SIM115  closed by `new_file`
        self.error: BaseException | None = None

    def _try(self, call: Any, *args: Any) -> Any:
        if self.error is None:
            try:
                return call(*args)
            except BaseException as error:  # KeyboardInterrupt too: HDF5 must not see it
                self.error = error
        return None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._try(_write_all, self.file, view)
        return len(view)

    def read(self, size: int = -1) -> bytes:  # h5py asks whether it is there, and uses `readinto`
        return self._try(self.file.read, size) or b""

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        read = self._try(self.file.readinto, view) or 0
        view[read:] = bytes(len(view) - read)
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._try(self.file.seek, offset, whence) or 0

    def tell(self) -> int:
        return self._try(self.file.tell) or 0

    def truncate(self, size: int | None = None) -> int:
        self._try(self.file.truncate, size)
        return size or 0

    def flush(self) -> None:
        pass


@contextlib.contextmanager
def new_file(path: Path, file_format: str) -> Iterator[h5py.File]:
    """Make a file of ours on disk: the body fills it, then its digest is put in front.

    Args:
        path: Must not exist; a temporary name (`atomic.publish` gives the file its own).
        file_format: One of `schema`'s.

    Raises:
        OSError: If it cannot be written (disk full). The caller removes the file.
    """
    sink = _Sink(path)
    try:
        try:
            with h5py.File(
                sink,
                "w",
                libver=schema.LIBVER,
                track_order=True,
                userblock_size=schema.USER_BLOCK,
                rdcc_nbytes=guard.CHUNK_CACHE_BYTES,
            ) as file:
                guard.keeps_little(file.id)
                _begin(file, file_format)
                yield file
        except Exception as error:
            if sink.error is not None:
                raise sink.error from error
            if isinstance(error, OSError) and error.errno is None:  # HDF5's own refusal, not the disk's
                raise _refusal(path.parent, error) from error
            raise
        if sink.error is not None:
            raise sink.error
        sink.file.seek(0)
        sink.file.write(digests.user_block(file_format, digests.sha256_of(path, schema.USER_BLOCK)))
    finally:
        sink.file.close()


class MemoryFile:
    """A small file of ours made in memory, where HDF5 writes its many small pieces without a call for each.

    Args:
        file_format: One of `schema`'s.

    Attributes:
        root: Its root group, to be filled.
    """

    def __init__(self, file_format: str) -> None:
        self._format = file_format
        # nothing is on disk: the name tells the files of this process apart
        self._file = h5f.create(b"equivengine-%d" % next(_numbers), h5f.ACC_TRUNC, _CREATION, _IN_MEMORY)
        self.root = h5py.Group(h5g.open(self._file, b"/"))
        _begin(self.root, file_format)

    def content(self) -> bytes:
        """The bytes of the file, as it is; it may be changed, and asked again."""
        h5f.flush(self._file)
        data = superblock.sealed(self._file.get_file_image())  # it begins behind the user block
        return digests.user_block(self._format, hashlib.sha256(data).hexdigest()) + data

    def close(self) -> None:
        """Let go of it, and of all that was opened in it."""
        self._file.close()


def make_image(file_format: str, fill: Callable[[h5py.Group], None]) -> bytes:
    """Make a small file of ours in memory.

    Args:
        file_format: One of `schema`'s.
        fill: Called with the root of the file.

    Returns:
        The bytes of the file.

    Raises:
        StoreError: If HDF5 refuses something.
    """
    with refusals("a file in memory"):
        file = MemoryFile(file_format)
        try:
            fill(file.root)
            return file.content()
        finally:
            file.close()


@contextlib.contextmanager
def refusals(place: object) -> Iterator[None]:
    """Turn what HDF5 says where no disk is in play into a StoreError.

    Args:
        place: What is being made.

    Raises:
        StoreError: In place of an OSError of HDF5's own.
    """
    try:
        yield
    except OSError as error:
        raise _refusal(place, error) from error


def write_image(path: Path, content: bytes) -> None:
    """Put a file that was made in memory on disk.

    Args:
        path: Must not exist; a temporary name (`atomic.publish` gives the file its own).
        content: Its bytes.

    Raises:
        OSError: If it cannot be written. The caller removes the file.
    """
    with open(path, "xb", buffering=0) as file:
        _write_all(file, memoryview(content))


def compare_image(path: Path, content: bytes) -> None:
    """Read a file back that was made in memory.

    Raises:
        StoreError: If it holds anything else, or cannot be read.
    """
    with refusal.damage(path):
        if path.read_bytes() != content:
            raise refusal.Refused("other bytes", "those that were written")


def _begin(root: h5py.Group, file_format: str) -> None:
    elements.label(root, file_format)
    elements.set_text(root, "format", file_format)
    elements.set_text(root, "format-version", schema.VERSION_TEXT)


def _write_all(file: Any, data: memoryview) -> None:
    while len(data):
        data = data[file.write(data) :]


def _refusal(place: object, error: OSError) -> StoreError:
    return StoreError(f"HDF5 would not write {place}", got=error, hint="report this error")
