"""Which units of a plan are not needed, because the median of a scalar over images is known well enough without them.

A plan may hold stop rules (``[[stop]]`` in a run file). The units of a rule's probe on one model, with one set of
parameters, on one image set are gone through in the order of the plan; after the first ``min_images`` of them, twice as
many, and so on, the interval of `equivengine.stopping` over their values is looked at, and where it is narrow enough,
the rest is not needed. A look needs the results of all units before it and of none after it. So what is needed follows
from the plan and from results alone: in whatever order and wherever units ran, and for whoever reads the run later.
Nothing has to be recorded, and nothing that is recorded could contradict the results.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np

from equivengine.contracts.unit import canonical_json
from equivengine.contracts.units import Batches, UnitList
from equivengine.contracts.wording import counted
from equivengine.errors import StoreError
from equivengine.statistics import LEVEL, Estimate
from equivengine.stopping import FEWEST, Effort, looks, ranks

#: What a unit gives for a rule: its value, NaN if it failed or has no such number, None if it has not run.
ValueOf = Callable[[str, str], float | None]


@dataclass(frozen=True)
class StopRule:
    """When the images of a set are enough.

    Attributes:
        probe: Which probe's units it ends.
        scalar: The scalar of their summaries whose median over images is to be known.
        tolerance: Half-width of its interval over the median.
        min_images: Units before the first look.
    """

    probe: str
    scalar: str
    tolerance: float
    min_images: int = FEWEST

    @classmethod
    def all_of(cls, plan: Mapping[str, Any]) -> tuple[StopRule, ...]:
        """The rules of a stored plan.

        Raises:
            StoreError: If they are damaged.
        """
        config = plan.get("config")
        entries = config.get("stop", ()) if isinstance(config, dict) else ()
        try:
            return tuple(cls.from_json(entry) for entry in entries)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreError(
                "the plan is damaged", expected="stop rules of a scalar, a tolerance and min_images", got=error
            ) from error

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> StopRule:
        """From an entry of a run file.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: If it is none.
        """
        probe, slash, scalar = entry["scalar"].partition("/")
        rule = cls(probe, scalar, float(entry["tolerance"]), entry.get("min_images", FEWEST))
        if not (slash and probe and scalar and 0 < rule.tolerance < 1):
            raise ValueError(f"no stop rule: {dict(entry)}"[:200])
        if type(rule.min_images) is not int or rule.min_images < FEWEST:
            raise ValueError(f"min_images of {rule.min_images!r}"[:200])
        return rule


def digest_with(digest: str, rules: Sequence[StopRule]) -> str:
    """The digest of a plan with stop rules, from that of the plan without them: its own where there are none."""
    if not rules:
        return digest
    content = {"plan": digest, "stop": [asdict(rule) for rule in rules]}
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def in_own_order_of(plan: Mapping[str, Any]) -> tuple[str, ...]:
    """The image sets of a stored plan whose order is not known to be random.

    Raises:
        ValueError: If that is no list of texts.
    """
    found = plan.get("in_own_order", [])
    if not isinstance(found, list) or not all(isinstance(uri, str) for uri in found):
        raise ValueError(f"in_own_order is no list of texts: {found!r}"[:200])
    return tuple(found)


@dataclass(frozen=True)
class Ending:
    """Where the units of one model, set of parameters and image set stand under a rule.

    Attributes:
        rule: The rule.
        model: Model URI.
        images: Image URI.
        places: Where the units stand in the plan.
        needed: How many of them are needed, from the front, as far as is known.
        decided: Whether that is final; otherwise some of them have not run.
        effort: The median at the last look, and how well it is known; None before the first.
        in_own_order: Whether the images are taken in an order that is not known to be random, so that the first ones
            may be no independent draws, and the interval may be wrong.
    """

    rule: StopRule
    model: str
    images: str
    places: range
    needed: int
    decided: bool
    effort: Effort | None
    in_own_order: bool = False

    @property
    def unneeded(self) -> range:
        """Places of the units that are not needed."""
        return self.places[self.needed :] if self.decided else self.places[len(self.places) :]

    def __str__(self) -> str:
        """``"ldlc/random on digits, images digits: known within 4.1% (5.0% asked) after 64 of 360 units"``."""
        name = f"{self.rule.probe}/{self.rule.scalar} on {self.model}, images {self.images}"
        asked = f"({self.rule.tolerance:.1%} asked)"
        total = counted(len(self.places), "unit")
        if not self.decided:
            return f"{name}: not decided {asked}; the next look is after {self.needed:,} of {total}"
        half_width = math.inf if self.effort is None else self.effort.half_width
        known = f"known within {half_width:.1%}" if math.isfinite(half_width) else "no interval"
        order = ", in an order not known to be random" if self.in_own_order else ""
        return f"{name}: {known} {asked} after {self.needed:,} of {total}{order}"


class Enough:
    """Decides which units of a plan are needed.

    Args:
        rules: At most one for each probe.
        units: The units of the plan.
        batches: How they are computed together; looks come after whole batches.
        in_own_order: Image sets whose order is not known to be random.
    """

    def __init__(
        self, rules: Sequence[StopRule], units: UnitList, batches: Batches, in_own_order: Iterable[str] = ()
    ) -> None:
        self.rules = tuple(rules)
        self._units = units
        self._batches = batches
        self._in_own_order = frozenset(in_own_order)
        self._sections = [
            (rule, common.model, images, places)
            for rule in self.rules
            for common, images, places in _sections(units, rule.probe)
        ]

    def endings(self, value_of: ValueOf) -> list[Ending]:
        """Where every set of units under a rule stands.

        Args:
            value_of: Called with the id of a unit and the name of a scalar; see `ValueOf`.
        """
        found = (self._ending(*section, value_of) for section in self._sections)
        return [replace(ending, in_own_order=ending.images in self._in_own_order) for ending in found]

    def unneeded(self, endings: Iterable[Ending]) -> list[str]:
        """Ids of the units that are not needed, in the order of the plan."""
        places = sorted(place for ending in endings for place in ending.unneeded)
        return [self._units.ids[place] for place in places]

    def _ending(self, rule: StopRule, model: str, images: str, places: range, value_of: ValueOf) -> Ending:
        stops = self._stops(places, rule.min_images)
        values: list[float] = []
        counts: tuple[int, ...] = ()
        effort = None
        before = 0
        for number, stop in enumerate(stops):
            block = [value_of(self._units.ids[place], rule.scalar) for place in places[before:stop]]
            known = [value for value in block if value is not None]
            if len(known) < len(block):
                return Ending(rule, model, images, places, stop, False, effort)
            values += [value for value in known if math.isfinite(value)]
            counts = (*counts, len(values))
            # Of looks to come only their number counts; failed units make them shorter.
            to_come = tuple(later - stop + len(values) for later in stops[number + 1 :])
            effort = _effort(values, ranks((*counts, *to_come), LEVEL)[number], rule.tolerance, len(places))
            if effort.reached:
                return Ending(rule, model, images, places, stop, True, effort)
            before = stop
        return Ending(rule, model, images, places, len(places), True, effort)

    def _stops(self, places: range, first: int) -> list[int]:
        """After how many units there is a look: `equivengine.stopping.looks`, put off to the end of a batch."""
        ends = []
        for count in looks(len(places), first):
            batch = self._batches.places(self._batches.holding(places[count - 1]))
            ends.append(min(batch.stop - places.start, len(places)))
        return list(dict.fromkeys(ends))


def _sections(units: UnitList, probe: str) -> Iterator[tuple[Any, str, range]]:
    """Units of a probe, by what they share and by the image set of their first sample: (shared, images, places)."""
    for group, places in units.places():
        if group.common.probe != probe:
            continue
        start = places.start
        firsts = (units.samples[row].images for row in group.rows[:, 0].tolist())
        for images, alike in groupby(firsts):
            count = sum(1 for _ in alike)
            yield group.common, images, range(start, start + count)
            start += count


def _effort(values: Sequence[float], rank: int, tolerance: float, cap: int) -> Effort:
    if not values:
        return Effort(Estimate(math.nan, math.nan, math.nan, 0), tolerance, cap)
    ordered = np.sort(values)
    low, high = (float(ordered[rank - 1]), float(ordered[-rank])) if rank else (-math.inf, math.inf)
    return Effort(Estimate(float(np.median(ordered)), low, high, len(ordered)), tolerance, cap)
