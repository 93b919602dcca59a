"""Open HDF5 files that one did not write: nothing is read before it has been looked at.

HDF5 files can name other files (external and soft links, external storage, virtual datasets) and declare sizes that
they do not have; an ordinary read follows the one and allocates the other. So each path is walked component by
component (`h5py`'s own checks see only the last one), and each dataset's storage, filters, type and declared size are
held against what our writer makes, before any value is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5, h5a, h5d, h5f, h5g, h5i, h5l, h5o, h5p, h5s, h5t, h5z

from equivengine.store import digests, schema
from equivengine.store.refusal import Refused, damage

_FILTERS = {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32}
_LINKS = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "an external link"}
_PLAIN = "integers, floats or fixed-width strings"
#: Bytes of an open file's structure that HDF5 keeps at most, as they are in the file: in memory they take some twenty
#: times as much. Without this, what was read of units that were passed stays there.
_STRUCTURE_BYTES = 256 << 10
#: Bytes of chunks that HDF5 keeps of each dataset that is open: one of ours. HDF5 2 keeps eight times as much by
#: itself, which is a whole column of a large run.
CHUNK_CACHE_BYTES = 1 << 20
_READING = h5p.create(h5p.FILE_ACCESS)
_READING.set_cache(0, 521, CHUNK_CACHE_BYTES, 0.75)  # but for the bytes, HDF5's defaults
_READING.set_file_locking(True, True)  # as far as the disk can, HDF5's default: others here may have it open
_IN_MEMORY = h5p.create(h5p.FILE_ACCESS)
_IN_MEMORY.set_fapl_core(64 << 10, False)
_IN_MEMORY.set_fclose_degree(h5f.CLOSE_STRONG)
#: A file that was read into memory is called by its path with this, since HDF5 wants no file to have that name.
_MEMORY_MARK = b" in memory"
#: Datasets that hold no more than this fit in any file that has passed so far.
_SMALL = 512
#: Groups of so few entries are listed.
_LISTED = 64

#: Files up to this size are made, and read to be copied, in memory.
IN_MEMORY_BYTES = 4 << 20
#: Files up to this size are held against their own digest when opened; larger ones by `verify_run` only.
CHECKED_ON_OPEN_BYTES = 256 << 20


def keeps_little(access: h5p.PropFAID | h5f.FileID) -> None:
    """Let HDF5 keep little of the structure of files that are opened so, or of an open one: some hold many units."""
    config = access.get_mdc_config()
    config.initial_size = config.min_size = config.max_size = _STRUCTURE_BYTES
    access.set_mdc_config(config)


keeps_little(_READING)


@contextlib.contextmanager
def open_untrusted(
    path: Path, file_format: str, *, check: bool | None = None, sealed: bool = False
) -> Iterator[h5py.File]:
    """Open a file of ours for reading.

    Args:
        path: The file.
        file_format: The format that it must have, one of `schema`'s.
        check: Hold the file against its own digest first; None: if it is at most `CHECKED_ON_OPEN_BYTES` large.
        sealed: It must have a digest, and nothing else may stand in front but what our writer puts there.

    Raises:
        StoreError: If it is absent, unreadable, damaged, of another format or a newer major version. Errors within
            the ``with`` block become StoreErrors too.
    """
    with damage(path):
        size = digests.regular_size(path)
        if sealed or check or (check is None and size <= CHECKED_ON_OPEN_BYTES):
            digests.check_digest(path)
        with h5py.File(h5f.open(os.fsencode(path), h5f.ACC_RDONLY, _READING)) as file:
            version = text(file, "format-version")
            found = schema.check_format(str(path), text(file, "format"), version, file_format)
            if sealed:
                digests.check_block(path, f"{file_format} {version}", known=schema.is_known(found))
            yield file


@contextlib.contextmanager
def open_once(path: Path, file_format: str) -> Iterator[tuple[h5py.Group, str, int]]:
    """Open a file of ours for reading, held against its own digest; what is read is what was digested.

    Files up to `IN_MEMORY_BYTES` are read once, and opened where they are in memory.

    Yields:
        Its root, the sha256 (hex) of the whole file, and its bytes.

    Raises:
        StoreError: As `open_untrusted`.
    """
    with damage(path), contextlib.ExitStack() as stack:
        size = digests.regular_size(path)
        if size > IN_MEMORY_BYTES:
            digest, size = digests.checked_digest(path)
            yield stack.enter_context(open_untrusted(path, file_format, check=False)), digest, size
            return
        with open(path, "rb") as stream:
            content = stream.read(IN_MEMORY_BYTES + 1)
        lines = digests.lines_of(content[: schema.USER_BLOCK])
        if lines is not None:
            digests.hold_against(path, lines, hashlib.sha256(memoryview(content)[schema.USER_BLOCK :]).hexdigest())
        access = _IN_MEMORY.copy()
        access.set_file_image(content)
        file = h5f.open(os.fsencode(path) + _MEMORY_MARK, h5f.ACC_RDONLY, access)
        stack.callback(file.close)
        root = h5py.Group(h5g.open(file, b"/"))
        schema.check_format(str(path), text(root, "format"), text(root, "format-version"), file_format)
        yield root, hashlib.sha256(content).hexdigest(), len(content)


def names(group: h5py.Group, limit: int = schema.MAX_ENTRIES) -> list[str]:
    """Names in a group, in the order in which they were written.

    Args:
        group: The group.
        limit: `schema.MAX_ENTRIES` for what one unit holds, `schema.MAX_UNITS` for what there is one of for each unit.

    Raises:
        Refused: If there are more than ``limit``, or one is longer than `schema.MAX_NAME_BYTES`.
    """
    if len(group) > limit:
        raise Refused(f"{len(group)} entries in {group.name}", f"at most {limit}")
    found = list(group)
    longest = max(map(len, found), default=0)
    if longest > schema.MAX_NAME_BYTES:
        raise Refused(f"a name of {longest} characters in {group.name}", f"at most {schema.MAX_NAME_BYTES} bytes")
    return found


def each_name(group: h5py.Group, take: Callable[[str], object], limit: int = schema.MAX_ENTRIES) -> None:
    """Hand over the names in a group one after the other, as `names` has them; no list of them is made.

    Args:
        group: The group.
        take: Called with each.
        limit: As for `names`.

    Raises:
        Refused: As `names`.
    """
    if len(group) <= _LISTED:
        for name in names(group, limit):
            take(name)
        return
    if len(group) > limit:
        raise Refused(f"{len(group)} entries in {group.name}", f"at most {limit}")
    # In order of creation, an index keeps them, and HDF5 goes along it as it is; otherwise it lists and sorts.
    tracked = group.id.get_create_plist().get_link_creation_order() & h5p.CRT_ORDER_INDEXED
    index, order = (h5.INDEX_CRT_ORDER, h5.ITER_NATIVE) if tracked else (h5.INDEX_NAME, h5.ITER_INC)

    failed: list[BaseException] = []

    def visit(raw: bytes) -> bool:
        try:
            if len(raw) > schema.MAX_NAME_BYTES:
                raise Refused(f"a name of {len(raw)} bytes in {group.name}", f"at most {schema.MAX_NAME_BYTES} bytes")
            take(raw.decode("utf-8", "surrogateescape"))
        except BaseException as error:  # KeyboardInterrupt too: HDF5 must not see it
            failed.append(error)
        return bool(failed)  # HDF5 ends there

    group.id.links.iterate(visit, idx_type=index, order=order)
    if failed:
        raise failed[0]


def has(group: h5py.Group, name: str) -> bool:
    """Whether a group has an entry of this name (nothing is opened)."""
    return bool(group.id.links.exists(name.encode()))


def group(parent: h5py.Group, name: str) -> h5py.Group:
    """The group ``name`` in ``parent``; a single component.

    Raises:
        Refused: If it is a link to elsewhere, or no group.
        KeyError: If it is absent.
    """
    child = _child(parent, name)
    if not isinstance(child, h5py.Group):
        raise Refused(f"{child.name} is no group", "a group")
    return child


def dataset(parent: h5py.Group, name: str) -> h5py.Dataset:
    """The dataset ``name`` in ``parent``, safe to read: `_check_storage` has passed.

    Raises:
        Refused: If it is a link to elsewhere, no dataset, or stored in a way that our writer never uses.
        KeyError: If it is absent.
    """
    child = _child(parent, name)
    if not isinstance(child, h5py.Dataset):
        raise Refused(f"{child.name} is no dataset", "a dataset")
    _check_storage(child)
    return child


def holds_datasets_only(group: h5py.Group) -> bool:
    """Whether a group has nothing in it but datasets of one name each.

    Such a group may be copied as a whole, if the copies pass `check_place`. Types and sizes are not looked at: who
    reads values asks `dataset`.
    """
    for name in names(group):
        raw = name.encode()
        if group.id.links.get_info(raw).type != h5l.TYPE_HARD:
            return False
        found = h5o.get_info(group.id, raw)
        if found.type != h5o.TYPE_DATASET or found.rc != 1:
            return False
    return True


def check_place(dataset: h5py.Dataset) -> None:
    """Refuse a dataset that keeps its values in another file; of a copy, before any of them is read.

    Raises:
        Refused: If it does.
    """
    _check_place(dataset, dataset.id.get_create_plist())


def _check_place(dataset: h5py.Dataset, plist: h5p.PropDCID) -> None:
    if plist.get_external_count():
        raise Refused(f"{dataset.name} keeps its values in another file (external storage)", "values in this file")
    if plist.get_layout() == h5d.VIRTUAL:
        raise Refused(f"{dataset.name} is a virtual dataset", "values in this file")


def encoding(parent: h5py.Group, name: str) -> str:
    """The ``encoding-type`` of an element, of which nothing else is read.

    Raises:
        Refused: If it is a link to elsewhere.
        KeyError: If it is absent.
    """
    return text(_child(parent, name), "encoding-type")


def _child(parent: h5py.Group, name: str) -> Any:
    if not name or "/" in name or name == ".":
        raise Refused(f"{name!r} is no single name", "one path component")
    raw = name.encode()
    try:
        kind = parent.id.links.get_info(raw).type
    except KeyError:
        raise KeyError(f"{parent.name} lacks {name!r}") from None
    if kind != h5l.TYPE_HARD:
        found = _LINKS.get(kind, "a user-defined link")
        raise Refused(f"{parent.name}/{name} is {found}", "no link that can lead out of the file")
    node = h5o.open(parent.id, raw)
    if h5o.get_info(node).rc != 1:  # a small file may show one object a million times
        raise Refused(f"{parent.name}/{name} has several names", "one name")
    if isinstance(node, h5d.DatasetID):
        return h5py.Dataset(node)
    return h5py.Group(node) if isinstance(node, h5g.GroupID) else h5py.Datatype(node)


def _check_storage(dataset: h5py.Dataset) -> None:
    """Refuse storage outside the file, unknown filters and types, and sizes that the file cannot hold."""
    where = Where(dataset)
    plist = dataset.id.get_create_plist()
    _check_place(dataset, plist)
    layout = plist.get_layout()
    filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    if not set(filters) <= _FILTERS or len(set(filters)) < len(filters):
        raise Refused(f"{where} uses the filters {filters}", "gzip, shuffle and fletcher32, each at most once")
    dtype = dataset.id.dtype
    if not _is_plain(dtype):
        raise Refused(f"{where} holds values of type {dtype}", _PLAIN)
    space = dataset.id.get_space()
    if space.get_simple_extent_type() == h5s.NULL:
        raise Refused(f"{where} has no shape", "an array or a scalar")
    declared = math.prod(space.get_simple_extent_dims()) * dtype.itemsize
    if declared > schema.MAX_DATASET_BYTES:
        raise Refused(f"{where} declares {declared} bytes", f"at most {schema.MAX_DATASET_BYTES}")
    stored = dataset.id.get_storage_size()
    room = h5i.get_file_id(dataset.id).get_filesize() if stored > _SMALL else _SMALL
    factor = schema.MAX_EXPANSION if h5z.FILTER_DEFLATE in filters else 1
    if declared and (stored > room or declared > stored * factor):
        raise Refused(f"{where} declares {declared} bytes but holds {stored}", "the bytes that it declares")
    if declared > max(schema.UNPACKED_FREELY_BYTES, schema.MAX_RATIO * stored):
        raise Refused(f"{where} unpacks {stored} bytes to {declared}", f"at most {schema.MAX_RATIO} times as many")
    if layout == h5d.CHUNKED:
        if dataset.id.get_num_chunks() > schema.MAX_CHUNKS:
            raise Refused(f"{where} has {dataset.id.get_num_chunks()} chunks", f"at most {schema.MAX_CHUNKS}")
        chunk = math.prod(plist.get_chunk()) * dtype.itemsize
        if chunk > schema.MAX_CHUNK_BYTES:
            raise Refused(f"{where} has chunks of {chunk} bytes", f"at most {schema.MAX_CHUNK_BYTES}")
        largest = [0]
        dataset.id.chunk_iter(lambda info: largest.append(max(largest.pop(), info.size)))
        if largest[0] > chunk + chunk // 100 + 1024:  # HDF5 unpacks a chunk whatever its size is to be
            raise Refused(f"{where} packs {largest[0]} bytes for chunks of {chunk}", "packed chunks no larger")


class Where:
    """The path of a node, looked up if it is printed; with that of its file if ``file``."""

    def __init__(self, node: h5py.HLObject, name: str = "", *, file: bool = False) -> None:
        self._node, self._name, self._file = node, name, file

    def __str__(self) -> str:
        path = f"{self._node.name}/{self._name}" if self._name else str(self._node.name)
        if not self._file:
            return path
        return f"{self._node.file.filename.removesuffix(_MEMORY_MARK.decode())}:{path}"


def _is_plain(dtype: np.dtype) -> bool:
    number = dtype.kind == "f" or (dtype.kind in "iu" and h5py.check_enum_dtype(dtype) is None)
    return dtype.kind == "S" or (number and dtype.itemsize <= 8)


def attribute(node: h5py.HLObject, name: str) -> Any:
    """An attribute as a NumPy scalar or small array of numbers or bytes; None where it is absent.

    Raises:
        Refused: If it is of another type, or large.
    """
    raw = name.encode()
    if not h5a.exists(node.id, raw):
        return None
    found = h5a.open(node.id, raw)
    kind, shape = found.get_type(), found.shape
    fixed = type(kind) is h5t.TypeStringID and not kind.is_variable_str()
    dtype = np.dtype(("S", kind.get_size())) if fixed else found.dtype
    if not _is_plain(dtype):
        raise Refused(f"attribute {name!r} of {node.name} is of type {dtype}", _PLAIN)
    size = math.prod(shape) * dtype.itemsize
    if size > schema.MAX_ATTRIBUTE_BYTES:
        raise Refused(f"attribute {name!r} of {node.name} has {size} bytes", f"at most {schema.MAX_ATTRIBUTE_BYTES}")
    values = np.empty(shape, dtype)
    found.read(values, kind if fixed else None)
    return values[()]


def text(node: h5py.HLObject, name: str) -> str:
    """A text attribute; empty where it is absent.

    Raises:
        Refused: If it is no text.
    """
    raw = name.encode()
    if not h5a.exists(node.id, raw):
        return ""
    found = h5a.open(node.id, raw)
    kind = found.get_type()
    fixed = type(kind) is h5t.TypeStringID and not kind.is_variable_str()
    if not fixed or found.get_space().get_simple_extent_type() != h5s.SCALAR:
        attribute(node, name)  # refused if it is nothing that is read at all
        raise Refused(f"attribute {name!r} of {node.name} is no text", "a fixed-width UTF-8 string")
    size = kind.get_size()
    if size > schema.MAX_ATTRIBUTE_BYTES:
        raise Refused(f"attribute {name!r} of {node.name} has {size} bytes", f"at most {schema.MAX_ATTRIBUTE_BYTES}")
    value = np.empty((), ("S", size))
    found.read(value, kind)
    return bytes(value[()]).decode("utf-8")
