"""Which batch this process is at, in a file that outlives it: the next process counts the deaths of those before it.

A process holds a lock on its file for as long as it lives, whatever ends it. So a file that names a batch and is not
locked tells of a death in the middle of that batch; it stays until something has become of the batch.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import fcntl
import json
import os
import re
import secrets
import stat
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import equivengine as eqv
from equivengine_plugins.executors.attempts import LIMIT
from equivengine_plugins.executors.unit_process import Death, killed_for_memory

Batch = tuple[eqv.Unit, ...]

#: The folder in a run directory; there while a process is at work, and after one has died.
FOLDER = "attempts"
#: Ends the name of a file of a batch that was given up: it is tried again when the run is resumed, after all others.
_GIVEN_UP = ".given-up"
#: Bytes that are read of a file.
_MOST = 1 << 16


@dataclass
class Past:
    """What became of a batch in processes that are gone.

    Attributes:
        words: The batch, for people.
        deaths: How they died in the middle of it, since it was last given up.
        files: Where that is told.
    """

    words: str
    deaths: list[Death] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


class AttemptFiles:
    """The file of this process, and those of dead ones.

    Args:
        directory: The run directory.

    Raises:
        StoreError: If the folder cannot be written, or its file system has no locks.
    """

    def __init__(self, directory: str) -> None:
        self._folder = Path(directory) / FOLDER
        self._past: dict[str, Past] = defaultdict(lambda: Past(""))
        self._facts: dict[str, Any] = {"host": os.uname().nodename, "boot": _boot(), "killed": killed_for_memory()}
        try:
            self._read()
            self._path, self._lock = self._own()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise eqv.StoreError(
                    f"there is no room to write in {str(self._folder)!r}",
                    got=error.strerror,
                    hint="free some space (or raise the quota), then resume the run; what was published stays",
                ) from error
            raise eqv.StoreError(
                f"what this process is at cannot be kept in {str(self._folder)!r}",
                expected="a directory that can be written, with file locks",
                got=error.strerror or str(error),
                hint="choose another --out, or run units in processes of their own: --executor dask",
            ) from error
        self._crash: int | None = None
        if not faulthandler.is_enabled():  # whoever has enabled it has it written elsewhere
            with contextlib.suppress(OSError):
                self._crash = os.open(_crash_file(self._path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
                faulthandler.enable(self._crash)

    def of(self, batch: Batch) -> Past | None:
        """What became of a batch in processes that are gone; None if nothing did."""
        return self._past.get(batch[0].unit_id)

    def cautions(self) -> list[str]:
        """What to say of processes that died."""
        return [_caution(past) for past in self._past.values() if past.deaths]

    @contextlib.contextmanager
    def begun(self, batch: Batch) -> Iterator[None]:
        """Say that a batch is under way, and then that it is not; not flushed to disk, which only a power cut needs."""
        entry = {**self._facts, "unit": batch[0].unit_id, "words": _words(batch)}
        # No file stays open for writing: a disk that is taken away meanwhile is not to be busy. One that is full, or
        # cannot be written, is told of by the store in better words, as soon as it publishes.
        with contextlib.suppress(OSError):
            file = os.open(self._path, os.O_WRONLY)
            try:
                os.write(file, json.dumps(entry).encode())
            finally:
                os.close(file)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.truncate(self._path, 0)

    def finished(self, batch: Batch) -> None:
        """Something has become of a batch: its past is over."""
        if past := self._past.pop(batch[0].unit_id, None):
            for path in past.files:
                _forget(path)

    def gave_up(self, batch: Batch) -> None:
        """A batch was recorded as failed for what it does to processes: its deaths count no more."""
        first, *others = self._past.pop(batch[0].unit_id).files
        if not first.name.endswith(_GIVEN_UP):
            with contextlib.suppress(FileNotFoundError):
                first.rename(first.with_name(first.name + _GIVEN_UP))
        for path in others:
            _forget(path)

    def close(self) -> None:
        """Take the file away, and the folder where nothing else is in it."""
        if self._crash is not None:
            faulthandler.disable()
            os.close(self._crash)
        with contextlib.suppress(OSError):  # also where the whole run directory is gone
            _forget(self._path)
        os.close(self._lock)
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _own(self) -> tuple[Path, int]:
        while True:
            with contextlib.suppress(FileExistsError):
                self._folder.mkdir()
            path = self._folder / secrets.token_hex(8)
            try:
                file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o666)
            except FileNotFoundError:  # another process has just taken the folder away, which was empty
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.path.samestat(os.fstat(file), os.stat(path)):
                    return path, file
            except FileNotFoundError:  # another process took it for that of a dead one, before it was locked
                os.close(file)
            except OSError:
                os.close(file)
                path.unlink(missing_ok=True)
                raise

    def _read(self) -> None:
        try:
            paths = sorted(self._folder.iterdir())
        except FileNotFoundError:
            return
        for path in paths:
            with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # that process lives
                self._note(path, file.read(_MOST), _crash_of(path))

    def _note(self, path: Path, text: bytes, crash: str) -> None:
        try:
            entry = json.loads(text)
            unit, words = str(entry["unit"]), str(entry["words"])
        except (ValueError, TypeError, KeyError):  # it was at nothing
            _forget(path)
            return
        if entry.get("host") == self._facts["host"] and entry.get("boot") != self._facts["boot"] and not crash:
            _forget(path)  # the whole machine went down
            return
        past = self._past[unit]
        past.words = words
        past.files.append(path)
        if not path.name.endswith(_GIVEN_UP):
            past.deaths.append(self._death(entry, crash))

    def _death(self, entry: dict[str, Any], crash: str) -> Death:
        if error := re.search(r"^Fatal Python error: (.*)$", crash, re.MULTILINE):
            place = re.search(r'^Current thread.*\n  File "(.*)", line (\d+) in (.*)$', crash, re.MULTILINE)
            where = f" in {place[3]} ({place[1]}, line {place[2]})" if place else ""
            return Death(f"was ended by a crash: {error[1]}{where}", "Signal")
        same = entry.get("boot") == self._facts["boot"]
        before = entry.get("killed")
        if same and isinstance(before, int) and self._facts["killed"] > before:
            return Death("was killed, or left by os._exit; the kernel has run out of memory since", "OutOfMemory")
        return Death("was killed, or left by os._exit", "WorkerLost")


def _crash_file(path: Path) -> Path:
    """Where Python writes what it knows of a crash: on this machine, and open for as long as the process lives."""
    return Path(tempfile.gettempdir()) / f"equivengine-crash-{path.name.removesuffix(_GIVEN_UP)}"


def _crash_of(path: Path) -> str:
    """What it wrote; empty if nothing, or if the file is not ours."""
    with contextlib.suppress(OSError):
        file = os.open(_crash_file(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            found = os.fstat(file)
            if stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid():
                return os.read(file, _MOST).decode(errors="replace")
        finally:
            os.close(file)
    return ""


def _forget(path: Path) -> None:
    with contextlib.suppress(OSError):
        _crash_file(path).unlink()
    path.unlink(missing_ok=True)


def _caution(past: Past) -> str:
    count = len(past.deaths)
    told = f"a process of this run died in the middle of {past.words}: it {past.deaths[-1].cause}"
    if count >= LIMIT:
        return f"{told}; after {count} deaths the unit is recorded as failed, and tried anew when the run is resumed"
    return (
        f"{told} ({count} of {LIMIT} before it counts as failed). It is tried again after all other units; "
        "with --executor dask units run in processes of their own"
    )


def _words(batch: Batch) -> str:
    first = batch[0]
    samples = " -> ".join(sample.id for sample in first.samples[:2])
    more = f" and {len(batch) - 1} more of its batch" if len(batch) > 1 else ""
    return f"{first.probe} {samples} ({first.model}){more}"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
