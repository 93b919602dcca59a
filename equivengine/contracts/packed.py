"""Texts of very many units, as bytes one after the other: a list of them takes several times as much."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from typing import overload

_DIGEST = re.compile(r"[0-9a-f]{64}")


class PackedTexts(Sequence[str]):
    """Texts in order, which grow at the end: their bytes and nine more each. Of a sha256 in hex, 32 bytes are kept."""

    def __init__(self) -> None:
        self._raw, self._ends, self._is_digest = bytearray(), array("Q"), bytearray()

    def append(self, text: str) -> None:
        """Add one."""
        is_digest = _DIGEST.fullmatch(text) is not None
        self._raw += bytes.fromhex(text) if is_digest else text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._raw))
        self._is_digest.append(is_digest)

    def to_bytes(self) -> bytes:
        """All of them; `from_bytes` reverses it."""
        return self._ends.tobytes() + self._is_digest + self._raw

    @classmethod
    def from_bytes(cls, raw: bytes, count: int) -> PackedTexts:
        """What `to_bytes` made of ``count`` texts."""
        found = cls()
        found._ends.frombytes(raw[: 8 * count])
        found._is_digest += raw[8 * count : 9 * count]
        found._raw += raw[9 * count :]
        return found

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        place = range(len(self))[index]
        raw = self._raw[self._ends[place - 1] if place else 0 : self._ends[place]]
        return raw.hex() if self._is_digest[place] else raw.decode("utf-8", "surrogatepass")
