"""What units have in common, as columns over them: scalars, and the parameters that set units apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    """

    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray
    unit: str
    description: str
    group: str


def scalar_columns(summaries: Sequence[Mapping[str, Scalar]]) -> dict[str, ScalarColumn]:
    """Scalars over the summaries of units, by name, in the order in which they first occur."""
    first: dict[str, Scalar] = {}
    for summary in summaries:
        first.update({name: scalar for name, scalar in summary.items() if name not in first})
    return {name: _column(scalar, [summary.get(name) for summary in summaries]) for name, scalar in first.items()}


def varying_params(units: Sequence[Unit]) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Parameters that differ between units, with the value in each (None where it is absent), and those that do not."""
    each = [json.loads(unit.params) for unit in units]
    names = dict.fromkeys(name for params in each for name in params)
    columns = {name: [params.get(name) for params in each] for name in names}
    varying = {name: values for name, values in columns.items() if any(value != values[0] for value in values)}
    return varying, {name: values[0] for name, values in columns.items() if name not in varying}


def _column(like: Scalar, cells: list[Scalar | None]) -> ScalarColumn:
    nothing = Scalar(float("nan"), "", "")
    filled = [cell or nothing for cell in cells]
    intervals = np.array([cell.interval or (np.nan, np.nan) for cell in filled], dtype=np.float64).reshape(-1, 2)
    return ScalarColumn(
        values=np.array([cell.value for cell in filled], dtype=np.float64),
        low=intervals[:, 0],
        high=intervals[:, 1],
        n=np.array([-1 if cell.n is None else cell.n for cell in filled], dtype=np.int64),
        unit=like.unit,
        description=like.description,
        group=like.group,
    )
