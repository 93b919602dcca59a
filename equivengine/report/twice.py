"""Units that several runs hold: one column where everything about them is the same, and a word where it is not.

A unit's id names all that determines its result. So where two runs have other numbers of it, they may differ by
roundoff on other machines and by what that does to a search, but not by more than a scalar's own interval says: then
one of the two is wrong, and no number that holds either stands.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from equivengine.contracts.result import Scalar
from equivengine.contracts.wording import counted
from equivengine.errors import StoreError
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

    Raises:
        StoreError: If two runs contradict each other, or a shard cannot be read.
    """
    kept: list[Part] = []
    said: list[str] = []
    for part in parts:
        repeated = False
        for other in kept:
            units, others = _shared(other[2], part[2])
            shared, differing = len(units), len(others)
            if not shared:
                continue
            _refuse_contradictions(other[0], part[0], part[2], others)
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


def repeated(parts: Sequence[tuple[Run, Group]]) -> list[str]:
    """What is to be said of units that are taken once, from the first of the runs that hold them.

    Args:
        parts: Units of one model that measured one thing, by run, in the order in which they are taken.

    Raises:
        StoreError: If two runs contradict each other, or a shard cannot be read.
    """
    said = []
    for place, (run, group) in enumerate(parts):
        taken: set[str] = set()
        for first, earlier in parts[:place]:
            units, differing = _shared(earlier, group)
            units, differing = units - taken, differing - taken
            taken |= units
            if not units:
                continue
            _refuse_contradictions(first, run, group, differing)
            counts = "it counts once" if len(units) == 1 else "they count once"
            if differing:
                which = "" if len(differing) == len(units) else f"{len(differing):,} of them "
                counts = f"{counts}, {which}with other numbers: those of {first.path} stand"
            else:
                counts = f"{counts}, with the same numbers"
            model = group.unit.model
            said.append(f"{first.path} and {run.path} both hold {counted(len(units), 'unit')} of {model}: {counts}")
    return said


def _refuse_contradictions(one: Run, other: Run, group: Group, unit_ids: Collection[str]) -> None:
    """Refuse results of one unit that exclude each other by what they say of their own uncertainty."""
    if not unit_ids:
        return
    probe = group.unit.probe
    theirs = dict(_summaries(other, probe, unit_ids))
    found: dict[str, str] = {}
    for unit_id, summary in _summaries(one, probe, unit_ids):
        for name, scalar in summary.items():
            against = theirs[unit_id].get(name)
            if against is not None and _exclude(scalar, against):
                found.setdefault(unit_id, f"{name} = {scalar} and {against}")
    if found:
        unit_id, first = next(iter(found.items()))
        sample = " -> ".join(group.names[list(group.unit_ids).index(unit_id)].split(" -> ")[:2])
        raise StoreError(
            f"{one.path} and {other.path} contradict each other",
            expected=f"intervals that meet, in the {counted(len(unit_ids), 'unit')} of {probe} on {group.unit.model} "
            "of which both have results, with other numbers",
            got=f"intervals apart in {len(found):,}; {sample} (unit {unit_id[:12]}): {first}",
            hint="`equivengine verify` and the versions in provenance tell which one to trust; leave the other run out",
        )


def _summaries(run: Run, probe: str, unit_ids: Collection[str]) -> Iterator[tuple[str, dict[str, Scalar]]]:
    left = len(unit_ids)
    for record in run.each(probe):
        if record.unit_id in unit_ids:
            yield record.unit_id, record.summary
            left -= 1
            if not left:
                return


def _exclude(one: Scalar, other: Scalar) -> bool:
    """Whether the intervals of two have nothing in common."""
    if one.interval is None or other.interval is None:
        return False
    return one.interval[1] < other.interval[0] or other.interval[1] < one.interval[0]


def _shared(one: Group, other: Group) -> tuple[set[str], set[str]]:
    """The units that two groups have in common, and those of them that differ in a scalar, or in which they have."""
    if Key.of(one.unit) != Key.of(other.unit):
        return set(), set()
    places = {unit_id: place for place, unit_id in enumerate(one.unit_ids)}
    ids = [unit_id for unit_id in other.unit_ids if unit_id in places]
    pairs = [(places[unit_id], place) for place, unit_id in enumerate(other.unit_ids) if unit_id in places]
    if not pairs:
        return set(), set()
    mine, theirs = np.array(pairs, dtype=np.intp).T
    differs = np.zeros(len(pairs), dtype=bool)
    for name in one.scalars.keys() | other.scalars.keys():
        a, b = (
            group.values(name)[at] if name in group.scalars else np.full(len(pairs), np.nan)
            for group, at in ((one, mine), (other, theirs))
        )
        differs |= ~((a == b) | (np.isnan(a) & np.isnan(b)))
    return set(ids), {unit_id for unit_id, differing in zip(ids, differs, strict=True) if differing}
