"""What a run found, without when, where and how fast: two runs of the same work have the same content, bit for bit."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

from equivengine.contracts.result import ProbeResult, Scalar
from equivengine.store import schema
from equivengine.store.run import Run


def content_digest(run: Run) -> str:
    """sha256 (hex) of everything that a run holds except provenance and timing: units, results, failures, missing ones.

    Floats count with every bit, the sign of zero and the payload of NaN included, and orders count too. What probes
    record beside their results (`ProbeResult.provenance`) and reasons of failures may name machines and times, and do
    not count; that a unit failed does.

    Raises:
        StoreError: If an array or a picture cannot be read.
    """
    return _digest([run.plan_digest, unit_digests(run), sorted(run.failures), list(run.missing)])


def unit_digests(run: Run) -> dict[str, str]:
    """The digest of each published unit's content by its id, in the order of the plan: where two runs differ.

    Raises:
        StoreError: If an array or a picture cannot be read.
    """
    return {record.unit_id: _result_digest(record.unit.to_json(), record.result()) for record in run.units()}


def _result_digest(unit: dict[str, Any], result: ProbeResult) -> str:
    arrays = [
        [name, array.data.dtype.str, array.data.shape, array.dims, array.unit, array.description, _bytes(array.data)]
        for name, array in result.arrays.items()
    ]
    scalars = [
        [name, _bits(one.value, *(one.interval or ())), one.n, one.unit, one.description, one.group, *_kind(one)]
        for name, one in result.summary.items()
    ]
    checks = [
        [name, _bits(check.value, check.bound), check.passed, check.description]
        for name, check in result.checks.items()
    ]
    pictures = [
        [name, picture.levels.shape, picture.description, _bytes(picture.levels)]
        for name, picture in result.pictures.items()
    ]
    return _digest([unit, result.status, result.message, arrays, scalars, checks, pictures])


def _kind(scalar: Scalar) -> list[str]:
    """Nothing of plain numbers: what has no other kind keeps the digest that it had before there was one."""
    return ["binary"] if scalar.binary else []


def _digest(value: Any) -> str:
    return hashlib.sha256(schema.to_json(value, "the content of a run").encode()).hexdigest()


def _bytes(data: Any) -> str:
    return hashlib.sha256(data.tobytes()).hexdigest()


def _bits(*values: float) -> str:
    return struct.pack(f"<{len(values)}d", *values).hex()
