"""Read the units of format 1.x, where each scalar, check and text of a unit was an HDF5 object of its own."""

from __future__ import annotations

import math
from typing import get_args

import h5py

from equivengine.contracts.result import Check, Scalar, Status
from equivengine.store import elements, guard, nodes, refusal, schema
from equivengine.store.record import Record


def read_record(group: h5py.Group) -> Record:
    """All that a unit's group holds but arrays and pictures.

    Raises:
        Refused, StoreError: If it is something else.
    """
    summary, checks = guard.group(group, "summary"), guard.group(group, "checks")
    status = elements.read_text(group, "status")
    if status not in get_args(Status):
        raise refusal.Refused(f"status {status[:40]!r}", ", ".join(get_args(Status)))
    return Record(
        unit=schema.parse_unit(elements.read_json(group, "unit"), f"{group.file.filename}:{group.name}/unit"),
        status=status,  # type: ignore[arg-type]  # one of them, as was seen
        message=elements.read_text(group, "message"),
        summary={name: _read_scalar(summary, name) for name in guard.names(summary)},
        checks={name: _read_check(checks, name) for name in guard.names(checks)},
        provenance=elements.read_json(group, "provenance"),
        probe_provenance=elements.read_json(group, "probe_provenance"),
    )


def _number(parent: h5py.Group, name: str, encoding: str) -> tuple[h5py.Dataset, float]:
    node = guard.dataset(parent, name)
    elements.expect(node, encoding)
    if node.dtype.kind != "f" or node.shape != ():
        raise refusal.Refused(f"{node.name} is {node.dtype} {node.shape}", "one float")
    return node, _one_nan(nodes.read_float(node))


def _one_nan(value: float) -> float:
    """JSON has one NaN only, so those of an older file are one too: converted, it has the same content."""
    return math.nan if math.isnan(value) else value


def _read_scalar(parent: h5py.Group, name: str) -> Scalar:
    node, value = _number(parent, name, "scalar")
    interval, n = guard.attribute(node, "interval"), guard.attribute(node, "n")
    if interval is not None and (interval.dtype.kind != "f" or interval.shape != (2,)):
        raise refusal.Refused(f"interval of {node.name} is {interval.dtype} {interval.shape}", "two floats")
    if n is not None and (n.dtype.kind not in "iu" or n.shape != ()):
        raise refusal.Refused(f"n of {node.name} is {n.dtype} {n.shape}", "one integer")
    return Scalar(
        value,
        guard.text(node, "unit"),
        guard.text(node, "description"),
        interval=None if interval is None else (_one_nan(float(interval[0])), _one_nan(float(interval[1]))),
        n=None if n is None else int(n),
        group=guard.text(node, "group"),
    )


def _read_check(parent: h5py.Group, name: str) -> Check:
    node, value = _number(parent, name, "check")
    bound, passed = guard.attribute(node, "bound"), guard.attribute(node, "passed")
    for what, found, kinds in (("bound", bound, "f"), ("passed", passed, "iu")):
        if found is None or found.dtype.kind not in kinds or found.shape != ():
            got = "absent" if found is None else f"{found.dtype} {found.shape}"
            raise refusal.Refused(f"{what} of {node.name} is {got}", "one number")
    return Check(bool(int(passed)), value, _one_nan(float(bound)), guard.text(node, "description"))
