"""What is known of a unit besides its arrays and pictures, as one JSON text.

Each scalar, check and text as an HDF5 object of its own costs more than small units take to compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from equivengine.contracts.result import Check, ProbeResult, Scalar, Status
from equivengine.contracts.unit import Unit
from equivengine.errors import PluginError
from equivengine.store import refusal, schema

_Entry = TypeVar("_Entry")

#: How JSON says what it has no numbers for.
_NON_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


@dataclass(frozen=True)
class Record:
    """A unit and its result, without arrays and pictures.

    Attributes:
        unit: What was asked for.
        status: The probe's own status.
        message: Its advice or remark.
        summary: Scalars by name, in the order of the probe.
        checks: Consistency checks by name, likewise.
        provenance: Where and with what it was run.
        probe_provenance: What the probe itself recorded.
    """

    unit: Unit
    status: Status
    message: str
    summary: dict[str, Scalar]
    checks: dict[str, Check]
    provenance: dict[str, Any]
    probe_provenance: dict[str, Any]

    @classmethod
    def of(cls, unit: Unit, result: ProbeResult, provenance: Mapping[str, Any]) -> Record:
        """From what a probe returned."""
        return cls(
            unit,
            result.status,
            result.message,
            dict(result.summary),
            dict(result.checks),
            dict(provenance),
            dict(result.provenance),
        )

    def to_text(self) -> str:
        """Canonical JSON; `parse` reverses it.

        Raises:
            PluginError: If it holds what cannot be stored, or too much.
        """
        _check_text(self.message, "message")
        whose = f"the provenance that probe {self.unit.probe!r} recorded"
        checks = [_of_check(name, one) for name, one in self.checks.items()]
        summary = [_of_scalar(name, one) for name, one in self.summary.items()]
        parts = {
            "checks": schema.to_json(checks, "the checks of a unit"),
            "message": schema.to_json(self.message, "a message") if self.message else "",
            "probe_provenance": schema.to_json(self.probe_provenance, whose),
            "provenance": schema.to_json(self.provenance, "the provenance of a unit"),
            "status": schema.to_json(self.status, "a status"),
            "summary": schema.to_json(summary, "the summary of a unit"),
            "unit": schema.to_json(self.unit.to_json(), "a unit"),
        }  # sorted, as canonical JSON is
        text = "{" + ",".join(f'"{name}":{part}' for name, part in parts.items() if part) + "}"
        if len(text) > schema.MAX_TEXT_BYTES:
            raise PluginError(
                f"what probe {self.unit.probe!r} returns besides arrays is too long",
                expected=f"{schema.MAX_TEXT_BYTES} bytes",
                got=len(text),
            )
        if schema.values_in(text) > schema.MAX_JSON_VALUES:
            raise PluginError(
                f"what probe {self.unit.probe!r} returns besides arrays has too many values",
                expected=f"at most {schema.MAX_JSON_VALUES}",
                got=schema.values_in(text),
                hint="put many numbers of one kind in an array",
            )
        return text


def parse(text: str | bytes, what: object) -> Record:
    """Read what `Record.to_text` wrote; fields that a newer minor version may have added are passed over.

    Args:
        text: The JSON text.
        what: Names it in errors, if it is printed.

    Raises:
        Refused, StoreError: If it is something else, or exceeds the limits of `schema`.
    """
    data = schema.parse_json(text, what)
    status = _text(data, "status", what)
    if status not in get_args(Status):
        raise refusal.Refused(f"status {status[:40]!r} in {what}", ", ".join(get_args(Status)))
    return Record(
        unit=schema.parse_unit(_object(data, "unit", what), what),
        status=status,  # type: ignore[arg-type]  # one of them, as was seen
        message=_text(data, "message", what),
        summary=_entries(data, "summary", _to_scalar, what),
        checks=_entries(data, "checks", _to_check, what),
        provenance=_object(data, "provenance", what),
        probe_provenance=_object(data, "probe_provenance", what),
    )


# ---------------------------------------------------------------------------------------------------------- writing


def _of_scalar(name: str, scalar: Scalar) -> dict[str, Any]:
    data: dict[str, Any] = {"name": name, "value": scalar.value}
    for key in ("unit", "description", "group"):
        text = getattr(scalar, key)
        if text:
            _check_text(text, key)
            data[key] = text
    if scalar.interval is not None:
        data["interval"] = scalar.interval
    if scalar.n is not None:
        if abs(scalar.n) >= 1 << 63:
            raise PluginError(f"n of scalar {name!r} is too large", expected="an integer of 64 bits", got=scalar.n)
        data["n"] = int(scalar.n)
    if scalar.binary:
        data["binary"] = True
    return data


def _of_check(name: str, check: Check) -> dict[str, Any]:
    data = {"name": name, "value": float(check.value), "bound": float(check.bound), "passed": bool(check.passed)}
    if check.description:
        _check_text(check.description, "description")
        data["description"] = check.description
    return data


def _check_text(text: str, what: str) -> None:
    """Refuse what is no text for other readers; descriptions and units become attributes of tables."""
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise PluginError(
            f"{what} is no valid Unicode", got=error, hint="pass text.encode('utf-8', 'backslashreplace').decode()"
        ) from error
    if what != "message" and size > schema.MAX_ATTRIBUTE_BYTES:
        raise PluginError(f"{what} is too long", expected=f"{schema.MAX_ATTRIBUTE_BYTES} bytes", got=size)


# ---------------------------------------------------------------------------------------------------------- reading


def _object(data: Mapping[str, Any], key: str, what: object) -> dict[str, Any]:
    found = data.get(key)
    if not isinstance(found, dict):
        raise refusal.Refused(f"{key} in {what} is {_kind(found)}", "an object")
    return found


def _text(data: Mapping[str, Any], key: str, what: object, limit: int | None = None) -> str:
    found = data.get(key, "")
    if not isinstance(found, str):
        raise refusal.Refused(f"{key} in {what} is {_kind(found)}", "a text")
    size = len(found) if found.isascii() else len(found.encode("utf-8"))  # half a character is no text
    if limit is not None and size > limit:
        raise refusal.Refused(f"{key} in {what} has {size} bytes", f"at most {limit}")
    return found


def _number(value: object, key: str, what: object) -> float:
    if isinstance(value, str) and value in _NON_FINITE:
        return _NON_FINITE[value]
    if type(value) not in (float, int):
        raise refusal.Refused(f"{key} in {what} is {_kind(value)}", "a number")
    return float(value)  # type: ignore[arg-type]  # a float or an int, as was seen


def _entries(
    data: Mapping[str, Any], key: str, convert: Callable[[Mapping[str, Any], object], _Entry], what: object
) -> dict[str, _Entry]:
    """A list of objects that carry their names, since JSON objects keep no order."""
    given = data.get(key)
    if not isinstance(given, list):
        raise refusal.Refused(f"{key} in {what} is {_kind(given)}", "a list")
    if len(given) > schema.MAX_ENTRIES:
        raise refusal.Refused(f"{len(given)} entries of {key} in {what}", f"at most {schema.MAX_ENTRIES}")
    found = {}
    for entry in given:
        if not isinstance(entry, dict):
            raise refusal.Refused(f"an entry of {key} in {what} is {_kind(entry)}", "an object")
        name = _text(entry, "name", what, schema.MAX_NAME_BYTES)
        if not name or name in found:
            raise refusal.Refused(
                f"a name {name[:80]!r} in {key} of {what} that is empty or comes twice", "one for each"
            )
        found[name] = convert(entry, what)
    return found


def _to_scalar(entry: Mapping[str, Any], what: object) -> Scalar:
    interval, n = entry.get("interval"), entry.get("n")
    ends = None
    if interval is not None:
        if not isinstance(interval, list) or len(interval) != 2:
            raise refusal.Refused(f"interval in {what} is {_kind(interval)}", "two numbers")
        ends = (_number(interval[0], "interval", what), _number(interval[1], "interval", what))
    if n is not None and (type(n) is not int or abs(n) >= 1 << 63):
        raise refusal.Refused(f"n in {what} is {_kind(n)}", "an integer of 64 bits")
    binary = entry.get("binary", False)
    if not isinstance(binary, bool):
        raise refusal.Refused(f"binary in {what} is {_kind(binary)}", "true or false")
    value = _number(entry.get("value"), "value", what)
    texts = [_text(entry, key, what, schema.MAX_ATTRIBUTE_BYTES) for key in ("unit", "description", "group")]
    try:
        return Scalar(value, texts[0], texts[1], interval=ends, n=n, group=texts[2], binary=binary)
    except PluginError as error:
        raise refusal.Refused(f"{error.what}, in {what}", error.expected or "what a probe may return") from error


def _to_check(entry: Mapping[str, Any], what: object) -> Check:
    passed = entry.get("passed")
    if not isinstance(passed, bool):
        raise refusal.Refused(f"passed in {what} is {_kind(passed)}", "true or false")
    return Check(
        passed,
        _number(entry.get("value"), "value", what),
        _number(entry.get("bound"), "bound", what),
        _text(entry, "description", what, schema.MAX_ATTRIBUTE_BYTES),
    )


def _kind(value: object) -> str:
    return "absent" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
