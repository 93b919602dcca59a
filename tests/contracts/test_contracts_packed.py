"""Packed texts are a list of texts, and take little more than their bytes."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivengine.contracts.packed import PackedTexts

_digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
_texts = st.lists(st.text(max_size=5) | _digests | _digests.map(str.upper) | st.just("\udc80"))


def packed(texts):
    found = PackedTexts()
    for text in texts:
        found.append(text)
    return found


@given(texts=_texts)
def test_they_are_what_was_added(texts):
    found = packed(texts)
    assert list(found) == texts
    assert len(found) == len(texts)
    assert found[1:-1] == texts[1:-1]
    assert [found[place] for place in range(-len(texts), 0)] == texts
    assert any(found) == any(texts)
    with pytest.raises(IndexError):
        found[len(texts)]


def test_a_digest_takes_its_bytes_and_nine():
    found = packed(f"{number:064x}" for number in range(10_000))
    assert sum(map(sys.getsizeof, vars(found).values())) / len(found) < 1.13 * (32 + 8 + 1)
