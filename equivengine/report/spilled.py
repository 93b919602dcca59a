"""Columns over very many units: the last rows of each are in memory, the others in a temporary file."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import overload

import numpy as np

from equivengine.contracts.packed import PackedTexts
from equivengine.errors import StoreError
from equivengine.store.growing import Numbers, Overflow

#: Rows of a column that are in memory; there may be hundreds of groups of units, with dozens of columns each.
ROWS = 256


class Spill(Overflow):
    """The temporary file; there is none as long as no column has more than `ROWS` rows."""

    def keep(self, raw: bytes | bytearray) -> int:
        """Append bytes; returns where they are.

        Raises:
            StoreError: If there is no room for them.
        """
        try:
            return super().keep(raw)
        except OSError as error:
            raise StoreError(
                "a temporary file cannot be written",
                expected="room for some hundred bytes of each unit",
                got=error.strerror or str(error),
                hint="free some space, or set TMPDIR to a folder that has it",
            ) from error


class SpilledNumbers(Numbers):
    """A column of float64 that is read as a whole."""

    def __init__(self, spill: Spill, before: int = 0) -> None:
        super().__init__(spill, "d", before, float("nan"), ROWS)

    def values(self) -> np.ndarray:
        """All rows, float64 [rows]."""
        found = np.empty(len(self))
        start = 0
        for block in self.blocks():
            found[start : start + len(block)] = block
            start += len(block)
        return found


class SpilledTexts(Sequence[str]):
    """A column of texts, of which any may be asked for; those around it come with it.

    Args:
        spill: Where rows go that do not stay in memory.
    """

    def __init__(self, spill: Spill) -> None:
        self._spill, self._places, self._sizes = spill, array("q"), array("q")
        self._last = PackedTexts()
        self._read: tuple[int, PackedTexts] = -1, self._last

    def append(self, text: str) -> None:
        """Add a row."""
        self._last.append(text)
        if len(self._last) == ROWS:
            raw = self._last.to_bytes()
            self._places.append(self._spill.keep(raw))
            self._sizes.append(len(raw))
            self._last = PackedTexts()

    def __len__(self) -> int:
        return ROWS * len(self._places) + len(self._last)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        block, row = divmod(range(len(self))[index], ROWS)
        return self._block(block)[row]

    def _block(self, number: int) -> PackedTexts:
        if number == len(self._places):
            return self._last
        if number != self._read[0]:
            raw = self._spill.read(self._places[number], self._sizes[number])
            self._read = number, PackedTexts.from_bytes(raw, ROWS)
        return self._read[1]
