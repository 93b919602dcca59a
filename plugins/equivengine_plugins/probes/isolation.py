"""Batches of units in which a bad one fails alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import equivengine as eqv

Measure = Callable[[Sequence[eqv.ProbeTask[Any]]], Sequence[eqv.ProbeResult]]


def isolated(measure: Measure, tasks: Sequence[eqv.ProbeTask[Any]]) -> Sequence[eqv.ProbeResult]:
    """Measure all tasks in one call; one by one where that fails, so that only the culprits fail.

    Raises:
        NumericsError, UsageError: If there is one task only.
    """
    try:
        return measure(tasks)
    except (eqv.NumericsError, eqv.UsageError):
        if len(tasks) == 1:
            raise
    return [_alone(measure, task) for task in tasks]


def _alone(measure: Measure, task: eqv.ProbeTask[Any]) -> eqv.ProbeResult:
    try:
        return measure([task])[0]
    except eqv.EngineError as error:
        return eqv.ProbeResult({}, {}, status="failed", message=str(error))
