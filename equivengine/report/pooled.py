"""The units of one model that measured one thing, taken together from all runs that hold some."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from equivengine.contracts.result import Scalar
from equivengine.report.gathering import Failed, Group
from equivengine.report.paired import Subjects
from equivengine.report.summary import Middle, middle_of


class Pooled:
    """Units of several runs as one. Units of one id count once; what one run has published has failed in none.

    Attributes:
        noun: What a unit is: "image", "pair" or "set".
        groups: The units, by run.
        reasons: Why units failed.
    """

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self.groups: list[Group] = []
        self.reasons: list[str] = []
        self._failed: set[str] = set()
        self._kept: list[np.ndarray] = []
        self._seen: set[str] = set()
        self._subjects: Subjects | None = None
        self._chosen: np.ndarray | None = None

    def take(self, group: Group | None, failed: Failed | None) -> None:
        """Take in what one run has."""
        if group is not None:
            new = [unit_id not in self._seen for unit_id in group.unit_ids]
            self._seen.update(group.unit_ids)
            self.groups.append(group)
            self._kept.append(np.array(new, dtype=bool))
        if failed is not None:
            self.reasons += list(failed.texts)
            self._failed.update(failed.unit_ids)

    @property
    def units(self) -> int:
        """How many units were published."""
        return int(sum(kept.sum() for kept in self._kept))

    @property
    def failed(self) -> int:
        """How many units failed in all runs that tried."""
        return len(self._failed - self._seen)

    @property
    def not_converged(self) -> int:
        """How many of the published units did not converge."""
        pairs = zip(self.groups, self._kept, strict=True)
        return int(sum((kept & (np.frombuffer(group.converged, np.uint8) == 0)).sum() for group, kept in pairs))

    def has(self, name: str) -> bool:
        """Whether some unit has a scalar."""
        return any(name in group.scalars for group in self.groups)

    def unit_of(self, name: str) -> str:
        """The unit of a scalar; empty if no unit of work has it."""
        return next((group.scalars[name].unit for group in self.groups if name in group.scalars), "")

    def alone(self, name: str) -> Scalar | None:
        """The scalar of the only unit; None if there are several, or its image is not to be taken."""
        if self.units != 1 or (self._chosen is not None and not len(self._chosen)):
            return None
        return next(group.scalars[name] for group in self.groups if name in group.scalars)

    def number(self, numbering: dict[str, int]) -> set[int]:
        """The images that the units are about, by numbers that all models share."""
        subjects = [
            subject
            for group, kept in zip(self.groups, self._kept, strict=True)
            for subject, mine in zip(group.subjects, kept, strict=True)
            if mine
        ]
        self._subjects = Subjects(numbering, subjects)
        return {int(number) for number in self._subjects.images}

    def keep(self, chosen: Collection[int]) -> None:
        """Take only these images from now on."""
        self._chosen = np.array(sorted(chosen), dtype=np.int64)

    def middle(self, name: str, numbering: dict[str, int]) -> tuple[Middle, int, str]:
        """The median over images, or the share of yes, of how many, and what they are.

        Several units of one image or one set alone (seeds) are the observations themselves: nothing else is there.
        """
        if self._subjects is None:
            self.number(numbering)
        assert self._subjects is not None
        values, binary = self._values(name), self.binary(name)
        if len(self._subjects.images) == 1 and (self._chosen is None or len(self._chosen)):
            return middle_of(values, len(values), binary=binary), len(values), "unit"
        each = self._subjects.shares(values) if binary else self._subjects.medians(values)
        if self._chosen is not None:
            each = each[np.isin(self._subjects.images, self._chosen)]
        return middle_of(each, len(each), binary=binary), len(each), "set" if self.noun == "set" else "image"

    def binary(self, name: str) -> bool:
        """Whether a scalar is yes or no in all units that have it."""
        return all(group.binary(name) for group in self.groups if name in group.scalars)

    def _values(self, name: str) -> np.ndarray:
        parts = [
            (group.values(name) if name in group.scalars else np.full(group.count, np.nan))[kept]
            for group, kept in zip(self.groups, self._kept, strict=True)
        ]
        return np.concatenate(parts)
