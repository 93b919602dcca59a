"""Units that several runs hold: one column where everything about them is the same, and a word where it is not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from equivengine.contracts.wording import counted
from equivengine.report.gathering import Group, Key
from equivengine.report.summary import Section
from equivengine.store.run import Run

#: A run, and what it holds of one probe under one set of parameters.
Part = tuple[Run, Section, Group]


def once(parts: Sequence[Part]) -> tuple[list[Part], list[str]]:
    """Leave out what repeats another part: the same units with the same numbers.

    A unit's id names all that determines its result, so that units of one id in two runs are one measurement made
    twice. What two parts share in part, or with other numbers, stays in both.

    Args:
        parts: Those of one probe.

    Returns:
        The parts without repetitions, and what is to be said of units that stand in two runs.
    """
    kept: list[Part] = []
    said: list[str] = []
    for part in parts:
        repeated = False
        for other in kept:
            shared, differing = _shared(other[2], part[2])
            if not shared:
                continue
            repeated = not differing and shared == part[2].count == other[2].count
            said.append(f"{other[0].path} and {part[0].path} {_words(part[1], shared, differing, repeated)}")
            if repeated:
                break
        if not repeated:
            kept.append(part)
    return kept, said


def _words(section: Section, shared: int, differing: int, repeated: bool) -> str:
    units = f"both hold {counted(shared, 'unit')} of {section.model}"
    if repeated:
        return f"{units}, with the same numbers: {'it counts' if shared == 1 else 'they count'} once"
    they = "it stands" if shared == 1 else "they stand"
    some = "" if differing in (0, shared) else f"{differing:,} of them "
    return f"{units}, {some}with {'other' if differing else 'the same'} numbers: {they} in two columns"


def _shared(one: Group, other: Group) -> tuple[int, int]:
    """How many units two groups have in common, and how many of those differ in a scalar, or in which they have."""
    if Key.of(one.unit) != Key.of(other.unit):
        return 0, 0
    places = {unit_id: place for place, unit_id in enumerate(one.unit_ids)}
    pairs = [(places[unit_id], place) for place, unit_id in enumerate(other.unit_ids) if unit_id in places]
    if not pairs:
        return 0, 0
    mine, theirs = np.array(pairs, dtype=np.intp).T
    differs = np.zeros(len(pairs), dtype=bool)
    for name in one.scalars.keys() | other.scalars.keys():
        a, b = (
            group.values(name)[at] if name in group.scalars else np.full(len(pairs), np.nan)
            for group, at in ((one, mine), (other, theirs))
        )
        differs |= ~((a == b) | (np.isnan(a) & np.isnan(b)))
    return len(pairs), int(differs.sum())
