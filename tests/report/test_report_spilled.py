"""Columns that are partly in a temporary file hold what was put into them."""

import gc
import os
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivengine.errors import StoreError
from equivengine.report import spilled
from equivengine.report.spilled import Spill, SpilledNumbers, SpilledTexts


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(spilled, "ROWS", 4)
        yield


@given(st.lists(st.text() | st.just("ab" * 32), max_size=20), st.data())
def test_texts_are_those_that_were_added(texts, data):
    column, other, spill = None, None, Spill()
    column, other = SpilledTexts(spill), SpilledTexts(spill)
    for text in texts:  # two columns take turns in one file
        column.append(text)
        other.append(text.swapcase())
    assert len(column) == len(texts)
    assert list(column) == texts
    assert list(other) == [text.swapcase() for text in texts]
    assert column[3:9] == texts[3:9]
    if texts:
        place = data.draw(st.integers(-len(texts), len(texts) - 1))
        assert column[place] == texts[place]
    with pytest.raises(IndexError):
        column[len(texts)]


@given(st.integers(0, 9), st.lists(st.floats(), max_size=20))
def test_numbers_are_those_that_were_added_after_what_was_not_there(before, numbers):
    column = SpilledNumbers(Spill(), before)
    for value in numbers:
        column.append(value)
    np.testing.assert_array_equal(column.values(), [np.nan] * before + numbers)


def test_few_rows_need_no_file_and_the_file_of_many_is_closed_with_its_columns():
    def files():
        return len(os.listdir("/proc/self/fd"))

    before = files()
    column = SpilledNumbers(Spill())
    for value in range(3):
        column.append(value)
    assert files() == before
    column.append(3.0)
    assert files() == before + 1
    del column
    gc.collect()
    assert files() == before


def test_of_a_further_row_nothing_stays_in_memory():
    peaks = []
    for count in (400, 4000):
        tracemalloc.start()
        spill = Spill()
        numbers, texts = SpilledNumbers(spill), SpilledTexts(spill)
        for row in range(count):
            numbers.append(row)
            texts.append(f"{row:064x}")
        assert (texts[1], texts[count - 1]) == (f"{1:064x}", f"{count - 1:064x}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 3600 < 8  # where each block of four is


def test_no_room_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    column = SpilledTexts(Spill())
    for _ in range(3):
        column.append("a")
    with pytest.raises(StoreError, match="a temporary file cannot be written") as caught:
        column.append("a")
    assert "TMPDIR" in caught.value.hint
