"""The digest that stands in front of each of our HDF5 files, and holding files against theirs."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from equivengine.errors import StoreError
from equivengine.store import schema
from equivengine.store.refusal import Refused, damage, next_step

_HASH_STEP = 4 << 20


def sha256_of(path: Path, start: int = 0) -> str:
    """Sha256 (hex) of a file from byte ``start`` on."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(start)
        while block := file.read(_HASH_STEP):
            digest.update(block)
    return digest.hexdigest()


def checked_digest(path: Path) -> tuple[str, int]:
    """Sha256 (hex) and bytes of a whole file, which is held against its own digest meanwhile.

    Raises:
        StoreError: If it is not what was written, or cannot be read.
    """
    with damage(path):
        size = regular_size(path)
        block, lines = _read_block(path)
        whole, inner = hashlib.sha256(block), hashlib.sha256()
        with open(path, "rb") as file:
            file.seek(len(block))
            while part := file.read(_HASH_STEP):
                whole.update(part)
                inner.update(part)
        if block.startswith(schema.MAGIC):
            hold_against(path, lines, inner.hexdigest())
        return whole.hexdigest(), size


def require_file(path: Path) -> None:
    """Refuse a path at which there is nothing.

    Raises:
        StoreError: If there is nothing.
    """
    with damage(path):
        os.stat(path)


def regular_size(path: Path) -> int:
    """Size of a regular file, bytes.

    Raises:
        Refused: If it is something else (a pipe would block for ever).
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise Refused("something that is no regular file", "a regular file")
    return found.st_size


def user_block(file_format: str, digest: str) -> bytes:
    """What our writer puts in front of a file; ``digest``: sha256 (hex) of what follows."""
    block = schema.MAGIC + f"format {file_format} {schema.VERSION_TEXT}\nsha256 {digest}\n".encode()
    return block.ljust(schema.USER_BLOCK, b"\0")


def _read_block(path: Path) -> tuple[bytes, dict[str, str]]:
    """The user block, and the lines in it; none where another tool rewrote the file (h5repack drops the block)."""
    with open(path, "rb") as file:
        block = file.read(schema.USER_BLOCK)
    return block, lines_of(block) or {}


def lines_of(block: bytes) -> dict[str, str] | None:
    """The lines of a user block; None where it is none of ours."""
    if not block.startswith(schema.MAGIC):
        return None
    lines = block.rstrip(b"\0").decode("ascii").splitlines()
    return dict(line.split(" ", 1) for line in lines[1:] if " " in line)


def check_block(path: Path, format_line: str, *, known: bool) -> None:
    """Hold the user block against the one that its writer put there; ``known``: no newer minor version wrote it."""
    block, lines = _read_block(path)
    if not lines:
        raise StoreError(
            f"{path} carries no digest: nothing vouches for its content",
            expected="the block that its writer put in front",
            got="a file that another tool rewrote, or a block that was lost",
            hint=next_step(path),
        )
    rebuilt = schema.MAGIC + "".join(f"{key} {value}\n" for key, value in lines.items()).encode()
    if block != rebuilt.ljust(schema.USER_BLOCK, b"\0") or (known and not set(lines) <= {"format", "sha256"}):
        raise Refused("something that no writer puts in front", "format, sha256, and zero bytes")
    if lines.get("format", format_line) != format_line:
        raise Refused(f"{lines['format'][:80]!r} in front of another format", format_line)


def check_digest(path: Path) -> None:
    """Hold a file against its own digest, if it has one.

    Raises:
        StoreError: If it is not what was written.
    """
    block, lines = _read_block(path)
    if block.startswith(schema.MAGIC):
        hold_against(path, lines, sha256_of(path, schema.USER_BLOCK))


def hold_against(path: Path, lines: Mapping[str, str], actual: str) -> None:
    """Hold a digest against the one in front of the file.

    Args:
        path: The file.
        lines: Of its user block.
        actual: sha256 (hex) of what stands behind the block.

    Raises:
        StoreError: If they differ.
    """
    stored = lines.get("sha256", "")
    if stored != actual:
        raise StoreError(
            f"{path} is damaged: its content is not what was written",
            expected=f"sha256 {stored[:64]}",
            got=f"sha256 {actual}",
            hint=next_step(path),
        )
