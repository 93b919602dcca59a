"""What units have in common, as columns over them: scalars, and the parameters that set units apart."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from equivengine.contracts.result import Scalar
from equivengine.contracts.unit import Unit


@dataclass(frozen=True)
class ScalarColumn:
    """One scalar over the units of a probe, in the order of `Run.units`.

    Attributes:
        values: float64 [units]; NaN where a unit lacks it.
        low: float64 [units], lower end of the 95% interval; NaN where there is none.
        high: float64 [units], upper end.
        n: int64 [units], number of observations; -1 where there is none.
        unit: Unit of the values.
        description: One line.
        group: Heading under which ``show`` lists it.
        binary: Whether it is yes (1) or no (0).
    """

    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray
    unit: str
    description: str
    group: str
    binary: bool = False


def scalar_columns(summaries: Iterable[Mapping[str, Scalar]]) -> dict[str, ScalarColumn]:
    """Scalars over the summaries of units, by name, in the order in which they first occur; none is kept."""
    columns: dict[str, _Column] = {}
    for before, summary in enumerate(summaries):
        for name, scalar in summary.items():
            if name not in columns:
                columns[name] = _Column(scalar, before)
        for name, column in columns.items():
            column.append(summary.get(name, _NOTHING))
    return {name: column.made() for name, column in columns.items()}


def varying_params(units: Sequence[Unit]) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Parameters that differ between units, with the value in each (None where it is absent), and those that do not."""
    each = [json.loads(unit.params) for unit in units]
    names = dict.fromkeys(name for params in each for name in params)
    columns = {name: [params.get(name) for params in each] for name in names}
    varying = {name: values for name, values in columns.items() if any(value != values[0] for value in values)}
    return varying, {name: values[0] for name, values in columns.items() if name not in varying}


_NAN = float("nan")
_NOTHING = Scalar(_NAN, "", "")


class _Column:
    """A column that grows; ``like`` says what it is, and units before it have none."""

    def __init__(self, like: Scalar, before: int) -> None:
        self._like = like
        self._values, self._low, self._high = (array("d", [_NAN]) * before for _ in range(3))
        self._n = array("q", [-1]) * before

    def append(self, scalar: Scalar) -> None:
        low, high = scalar.interval or (_NAN, _NAN)
        self._values.append(scalar.value)
        self._low.append(low)
        self._high.append(high)
        self._n.append(-1 if scalar.n is None else scalar.n)

    def made(self) -> ScalarColumn:
        return ScalarColumn(
            values=np.frombuffer(self._values, dtype=np.float64),
            low=np.frombuffer(self._low, dtype=np.float64),
            high=np.frombuffer(self._high, dtype=np.float64),
            n=np.frombuffer(self._n, dtype=np.int64),
            unit=self._like.unit,
            description=self._like.description,
            group=self._like.group,
            binary=self._like.binary,
        )
