"""Every key of a TOML file is found, on the line that it stands on."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivengine.runtime.toml_lines import TomlLines

TEXT = '''# a comment = 1
title = "a # in a text" # and a comment
"quoted key".inner = 'x = 1'
models = [
    "digits", # the first
    "toy]",

    """several
lines, with ] and = and \\""" quotes""" ,
]
[[probes]]
name = "match"
set = { steps = 3, "a b" = [1, { deep = 2 }], c.d = 1 }
[probes.grid]
rate = [
    0.1,
    0.2]
[[probes]]
name = \'\'\'it's\'\'\'
when = 1979-05-27T07:32:00Z
[ probes . grid ]
x = [[1, 2], [3]]
[[probes.parts]]
a = 1
[[probes.parts]]
a = 2
[other.table]
end = -1e-3'''


def places_in(value, place=()):
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, one in inner for found in ((*place, key), *places_in(one, (*place, key)))]


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_every_place_is_found(ends):
    text = TEXT.replace("\n", ends)
    assert sorted(TomlLines(text).places(), key=str) == sorted(places_in(tomllib.loads(text)), key=str)


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("title",), 2),
        (("quoted key", "inner"), 3),
        (("models",), 4),
        (("models", 0), 5),
        (("models", 1), 6),
        (("models", 2), 8),
        (("probes",), 11),
        (("probes", 0), 11),
        (("probes", 0, "name"), 12),
        (("probes", 0, "set", "a b", 1, "deep"), 13),
        (("probes", 0, "set", "c", "d"), 13),
        (("probes", 0, "grid"), 14),
        (("probes", 0, "grid", "rate", 1), 17),
        (("probes", 1), 18),
        (("probes", 1, "when"), 20),
        (("probes", 1, "grid"), 21),
        (("probes", 1, "grid", "x", 1, 0), 22),
        (("probes", 1, "parts", 1, "a"), 26),
        (("other", "table", "end"), 28),
        (("probes", 1, "absent"), 18),
        (("models", 0, "absent"), 5),
        (("absent",), None),
    ],
)
def test_the_line_of(place, line):
    assert TomlLines(TEXT).find(place) == line


KEYS = st.from_regex(r"[a-z]{1,3}", fullmatch=True)
TEXTS = st.text(st.sampled_from("a#=[]{},. '\n"), max_size=6)


def written(value, draw):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {written(one, draw)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        gap = draw(st.sampled_from(["", " ", "\n", " # not [a key] =\n"]))
        return "[" + f",{gap} ".join(written(one, draw) for one in value) + (f"{gap}]" if value else "]")
    if isinstance(value, str):
        quote = draw(st.sampled_from(['"""', "'''"])) if "'" not in value else '"""'
        return f"{quote}{value}{quote}" if not value.startswith("\n") else f"{quote}\n{value}{quote}"
    return str(value).lower()


VALUES = st.recursive(
    st.integers() | st.booleans() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@given(st.data(), st.lists(st.tuples(KEYS, st.dictionaries(KEYS, VALUES, max_size=3)), max_size=4))
def test_whatever_tomllib_reads_is_found_where_its_key_stands(data, tables):
    lines = []
    for name, entries in tables:
        lines.append(f"[[{name}]]  # [x] = 1")
        lines += [f"{key} = {written(value, data.draw)}" for key, value in entries.items()]
    text = "\n".join(lines)
    found = TomlLines(text)
    assert set(found.places()) == set(places_in(tomllib.loads(text)))
    for place in found.places():
        if isinstance(place[-1], str):
            assert place[-1] in text.split("\n")[found.find(place) - 1]
