"""Scalars for each class of images. Classes are what units store of their samples: those of probes that read labels.

A label belongs to the content of an image. So what a run of ``match`` or ``transfer`` knows of an image holds for the
``spectrum`` of the same image, in whichever run it stands. An image with two different labels belongs to no class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from equivengine.errors import UsageError
from equivengine.report.paired import Difference, difference
from equivengine.report.summary import Middle, middle_of

if TYPE_CHECKING:
    from equivengine.report.comparison import Column, Headlines, Line

#: Scalars for each class where no probe says which matter.
NAMED = 3


@dataclass(frozen=True)
class ClassCell:
    """The images of one class in one column.

    Attributes:
        middle: Their median, or share of yes.
        difference: Against the first column, on the images of both; None in the first column itself.
        unit: Unit, where columns have several; empty where the line has it.
    """

    middle: Middle
    difference: Difference | None
    unit: str = ""


@dataclass(frozen=True)
class ClassLine:
    """One scalar on the images of one class.

    Attributes:
        label: The class.
        name: Name of the scalar.
        title: What it is called.
        unit: Its unit.
        cells: One for each column; None where it has no such image, or lacks the scalar.
        share: Whether its values are shares of yes.
    """

    label: str
    name: str
    title: str
    unit: str
    cells: Sequence[ClassCell | None]
    share: bool = False

    @property
    def shown_unit(self) -> str:
        """What stands in the column of units."""
        return "share" if self.share else "" if self.unit == "1" or self._own_units else self.unit

    @property
    def _own_units(self) -> bool:
        return any(cell is not None and cell.unit for cell in self.cells)


def labelled(classes: Mapping[str, str | None], numbering: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The numbers of the images of each class, in the order of their names.

    Args:
        classes: Class by digest; None where units contradict each other.
        numbering: Numbers by digest.

    Raises:
        UsageError: If no image has a class.
    """
    members: dict[str, list[int]] = {}
    for digest, label in classes.items():
        if label is not None and digest in numbering:
            members.setdefault(label, []).append(numbering[digest])
    if not members:
        raise UsageError(
            "no class of any image is known",
            expected="a run of a probe that reads labels (match, transfer) on an image set that has them",
            got="units without labels",
            hint="pass such a run along: labels hold for all units on the same images; or leave out --per-class",
        )
    return {label: np.array(sorted(members[label])) for label in sorted(members)}


def class_lines(
    columns: Sequence[Column], lines: Sequence[Line], members: Mapping[str, np.ndarray], headlines: Headlines | None
) -> list[ClassLine]:
    """Scalars of a comparison for each class.

    Args:
        columns: Its columns.
        lines: Its lines.
        members: Numbers of the images of each class.
        headlines: Which scalars matter; the first `NAMED` where it names none.
    """
    titles: dict[str, str] = {}
    if headlines is not None:
        for column in columns:
            titles |= headlines(column.section, column.group)
    known = {line.name: line for line in lines}
    titles = {name: title for name, title in titles.items() if name in known}
    titles = titles or {line.name: line.description for line in lines[:NAMED]}
    found = []
    for name, title in titles.items():
        values = [c.of_images(name) if name in c.group.scalars else None for c in columns]
        for label, numbers in members.items():
            cells = [_cell(columns, known[name], values, place, numbers) for place in range(len(columns))]
            if any(cell is not None for cell in cells):
                found.append(ClassLine(label, name, title, known[name].unit, cells, known[name].share))
    return found


def _cell(
    columns: Sequence[Column], line: Line, values: Sequence[np.ndarray | None], place: int, numbers: np.ndarray
) -> ClassCell | None:
    mine, first = values[place], values[0]
    chosen = np.isin(columns[place].subjects.images, numbers)
    if mine is None or not chosen.any():
        return None
    against = None
    if place > 0 and first is not None and not line.mixed:
        against = difference(columns[place].subjects, mine, columns[0].subjects, first, numbers, binary=line.share)
    middle = middle_of(mine[chosen], int(chosen.sum()), binary=line.share)
    return ClassCell(middle, against, columns[place].group.scalars[line.name].unit if line.mixed else "")
