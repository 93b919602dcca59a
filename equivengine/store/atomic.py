"""Publish a file: complete and on disk, or not there at all.

A file is written under a temporary name beside its target, flushed to disk, and only then given its name. SIGKILL at
any moment leaves either the whole file or a temporary one, which readers ignore and the next writer sweeps.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from equivengine.errors import StoreError

TMP_PREFIX = "tmp."
STALE_SECONDS = 24 * 3600.0

#: How often a file is written again that was removed before it had its name.
_ATTEMPTS = 3

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def _host() -> str:
    """This machine *and* process namespace: containers may share a host name but not process ids."""
    facts = [os.uname().nodename]
    for path in ("/proc/sys/kernel/random/boot_id", "/etc/machine-id"):
        with contextlib.suppress(OSError):
            facts.append(Path(path).read_text().strip())
    with contextlib.suppress(OSError):
        facts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return f"{facts[0].replace('.', '-')[:64]}-{hashlib.sha256('|'.join(facts).encode()).hexdigest()[:8]}"


HOST = _host()


def temporary_beside(target: Path) -> Path:
    """A fresh name ``tmp.<host>.<pid>.<random>`` in the directory of ``target``."""
    return target.with_name(f"{TMP_PREFIX}{HOST}.{os.getpid()}.{secrets.token_hex(8)}")


def is_temporary(path: Path) -> bool:
    """Whether a file is one that a writer has not finished, or never will."""
    return path.name.startswith(TMP_PREFIX)


@contextlib.contextmanager
def storage_errors(directory: Path) -> Iterator[None]:
    """Turn an OSError of writing under ``directory`` into a StoreError that names it and the way out.

    Raises:
        StoreError: In place of any OSError.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _NO_ROOM:
            raise StoreError(
                f"there is no room to write in {directory}",
                got=reason,
                hint="free some space (or raise the quota), then resume the run; everything published so far is kept",
            ) from error
        if error.errno == errno.ENOENT:
            raise _vanished(directory, error, reason) from error
        raise StoreError(
            f"cannot write in {directory}",
            expected="a directory that can be written",
            got=reason,
            hint="choose another --out, or change its permissions",
        ) from error


def _vanished(directory: Path, error: OSError, reason: str) -> StoreError:
    """What is said where something is missing that was there when writing began: a folder, or the file itself."""
    folder = Path(error.filename).parent if isinstance(error.filename, str) else directory
    if folder.is_dir():
        return StoreError(
            f"cannot write in {directory}: files vanish while they are written",
            expected="a directory in which nothing else removes files",
            got=reason,
            hint="stop what removes them, and repeat the command",
        )
    while not folder.parent.is_dir():
        folder = folder.parent
    return StoreError(
        f"cannot write in {folder}: it is gone",
        expected="the directory that was there before",
        got=reason,
        hint="put it back (is its disk still mounted?) and resume the run, or choose another --out",
    )


def make_directory(path: Path) -> None:
    """Create a directory and its parents so that they survive a power cut.

    Raises:
        StoreError: If it cannot be made.
    """
    missing = []
    probe = path
    with storage_errors(path):
        while not probe.exists() and probe != probe.parent:
            missing.append(probe)
            probe = probe.parent
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # as in /proc, or where the working directory was removed
            raise StoreError(
                f"cannot make the directory {path}",
                expected="a place where directories can be made",
                got=error.strerror or str(error),
                hint="choose another --out",
            ) from error
        for made in missing:
            sync_directory(made.parent)


def sync_directory(path: Path) -> None:
    """Flush a directory's entries to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network file systems cannot; the rename is then as durable as they make it
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)


def publish(target: Path, write: Callable[[Path], None], *, overwrite: bool) -> bool:
    """Publish what ``write`` puts into the path that it is given.

    Args:
        target: Where the file shall appear. Its directory exists.
        write: Creates the file, and raises if it is not as it should be.
        overwrite: Replace a file that is there; otherwise it stays and nothing is published.

    Returns:
        Whether the file was published.

    Raises:
        StoreError: If the disk is full or the directory cannot be written; nothing is left behind.
    """
    return not publish_all([target], lambda paths: write(paths[0]), overwrite=overwrite)


def publish_all(targets: Sequence[Path], write: Callable[[Sequence[Path]], None], *, overwrite: bool) -> list[Path]:
    """`publish` several files that are written together: none of them has its name before all are complete.

    Args:
        targets: Where the files shall appear: different names in one directory, which exists.
        write: Creates them in the paths that it is given, in this order, and raises if one is not as it should be.
        overwrite: Replace files that are there; otherwise those stay.

    Returns:
        Those that were there, and stay; the others are published.

    Raises:
        StoreError: As `publish`.
    """
    folder = targets[0].parent
    there: list[Path] = []
    named: set[Path] = set()
    with storage_errors(folder):
        for attempt in range(_ATTEMPTS):
            temporary = {target: temporary_beside(target) for target in targets}
            try:
                write(list(temporary.values()))
                for path in temporary.values():
                    _sync_file(path)
                for target in (target for target in targets if target not in named):
                    if overwrite:
                        os.replace(temporary[target], target)
                    elif not _link(temporary[target], target):
                        there.append(target)
                    named.add(target)
            except FileNotFoundError:  # a sweeper with another clock took one for a dead writer's
                if attempt == _ATTEMPTS - 1 or not folder.is_dir():
                    raise
            else:
                break
            finally:
                for path in temporary.values():
                    with contextlib.suppress(OSError):
                        os.unlink(path)
        if len(there) < len(targets):
            sync_directory(folder)
    return there


def _link(temporary: Path, target: Path) -> bool:
    """Give the file its name unless the name is taken: link, which unlike rename never replaces."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if target.exists():  # no hard links here: a loser of this race replaces a file by its equal
            return False
        os.replace(temporary, target)
    return True


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_text(target: Path, text: str, *, overwrite: bool) -> bool:
    """`publish` a text file (UTF-8).

    Raises:
        StoreError: As `publish`.
    """

    def write(path: Path) -> None:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)

    return publish(target, write, overwrite=overwrite)


def sweep(directory: Path) -> list[Path]:
    """Remove what dead writers left in ``directory``: files of a process of this host that is gone, or a day old.

    Ages are told by the clock of the file system that gave both times, not by that of this machine, which may have been
    set meanwhile; and a process of this host that lives keeps its files whatever their age.

    Returns:
        What was removed.
    """
    removed = []
    with contextlib.suppress(OSError):
        found = [path for path in sorted(directory.iterdir()) if is_temporary(path)]
        now = _file_system_time(directory) if found else 0.0
        for path in found:
            if _is_dead(path, now):
                with contextlib.suppress(OSError):
                    path.unlink()
                    removed.append(path)
    return removed


def _file_system_time(directory: Path) -> float:
    """The time that a file gets that is made now."""
    fresh = temporary_beside(directory / "clock")
    try:
        fresh.touch(exist_ok=False)
        return fresh.stat().st_mtime
    finally:
        fresh.unlink(missing_ok=True)


def _is_dead(path: Path, now: float) -> bool:
    parts = path.name.split(".")
    if len(parts) == 4 and parts[1] == HOST and parts[2].isdecimal():
        try:
            os.kill(int(parts[2]), 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            return False
        return False
    try:
        return now - path.stat().st_mtime > STALE_SECONDS
    except OSError:
        return False
