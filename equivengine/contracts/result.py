"""What a probe returns: named arrays and scalars with units and uncertainty. NumPy only, since it crosses processes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from equivengine.contracts.wording import answer, between, in_unit, number
from equivengine.errors import PluginError
from equivengine.pictures.raster import Picture as Picture

Status = Literal["ok", "not_converged", "failed"]
STATUSES: tuple[Status, ...] = ("ok", "not_converged", "failed")

#: Characters of a picture's name, at most: it becomes the name of a file.
MAX_PICTURE_NAME = 100


@dataclass(frozen=True)
class Array:
    """A measured array.

    Attributes:
        data: The values; float, integer, bool or fixed-width string dtype.
        dims: One name per axis. Equal names within a result mean equal axes.
        unit: Unit of the values ("1" if none).
        description: One line.
    """

    data: np.ndarray
    dims: tuple[str, ...]
    unit: str
    description: str

    def __post_init__(self) -> None:
        _check_texts("an array", self.unit, self.description)
        data = np.asarray(self.data)
        object.__setattr__(self, "data", data)
        if data.dtype.kind not in "fiubU":
            raise PluginError(
                f"array {self.description!r} has a dtype that cannot be stored",
                expected="float, int, bool or str",
                got=data.dtype,
            )
        if len(self.dims) != data.ndim:
            raise PluginError(
                f"array {self.description!r} needs one dimension name per axis",
                expected=f"{data.ndim} names",
                got=self.dims,
            )


@dataclass(frozen=True)
class Scalar:
    """One number of a summary.

    Attributes:
        value: The number (NaN where it could not be measured).
        unit: Its unit ("1" if none).
        description: One line.
        interval: 95% interval, where the value is an estimate.
        n: Number of observations behind it, where that has a meaning.
        group: Heading under which ``show`` lists it.
        binary: Whether it answers a question with yes (1) or no (0). Over several units stands the share of yes, in
            place of the median.
    """

    value: float
    unit: str
    description: str
    interval: tuple[float, float] | None = None
    n: int | None = None
    group: str = ""
    binary: bool = False

    def __post_init__(self) -> None:
        _check_texts("a scalar", self.unit, self.description)
        try:
            object.__setattr__(self, "value", float(self.value))
        except (TypeError, ValueError):
            raise PluginError(
                f"scalar {self.description!r} is no number",
                expected="a float; NaN where it could not be measured",
                got=repr(self.value)[:100],
                hint="store several numbers as an Array",
            ) from None
        if self.interval is not None:
            low, high = (float(v) for v in self.interval)
            object.__setattr__(self, "interval", (low, high))
            if low > high:
                raise PluginError(
                    f"interval of {self.description!r} is reversed", expected="the lower end first", got=(low, high)
                )
        if self.binary:
            self._check_binary()

    def _check_binary(self) -> None:
        """A share with its interval is an estimate over many answers, and none of them."""
        if self.value not in (0.0, 1.0) and not math.isnan(self.value):
            raise PluginError(
                f"binary scalar {self.description!r} is neither yes nor no",
                expected="1 (yes), 0 (no), or NaN where it could not be told",
                got=self.value,
                hint="binary=True is for one answer of one unit; give a share of many without it, with interval and n",
            )
        if self.interval is not None or self.unit not in ("", "1"):
            raise PluginError(
                f"binary scalar {self.description!r} has what an answer has not",
                expected='unit "1", and no interval',
                got=f"unit {self.unit!r}, interval {self.interval}",
                hint="leave both out: over several units, the share of yes gets its interval",
            )

    def __str__(self) -> str:
        """``"0.1641 embedding / pixel (0.1505 .. 0.5868)"``; an interval whose ends look like the value is left out.

        ``"yes"`` and ``"no"`` of a binary one.
        """
        if self.binary:
            return answer(self.value)
        value = number(self.value)
        text = value if self.unit in ("", "1") else f"{value} {self.unit}"
        if self.interval is None or {number(end) for end in self.interval} == {value}:
            return text
        return f"{text} ({between(self.interval)})"


@dataclass(frozen=True)
class Check:
    """A free consistency check that ran beside the measurement: ``value`` held against ``bound``.

    Attributes:
        passed: Whether it held.
        value: What was measured.
        bound: What it was held against.
        description: One line that states the claim.
    """

    passed: bool
    value: float
    bound: float
    description: str

    @classmethod
    def at_most(cls, value: float, bound: float, description: str) -> Check:
        """A check that ``value <= bound`` (NaN fails)."""
        return cls(bool(value <= bound), float(value), float(bound), description)

    @classmethod
    def at_least(cls, value: float, bound: float, description: str) -> Check:
        """A check that ``value >= bound`` (NaN fails)."""
        return cls(bool(value >= bound), float(value), float(bound), description)


@dataclass(frozen=True)
class ProbeResult:
    """What one unit of work found.

    Attributes:
        arrays: Measured arrays by name.
        summary: Scalars by name, in the order in which they are to be shown.
        checks: Consistency checks by name.
        status: ``"ok"``, ``"not_converged"`` (numbers stand, with advice in ``message``) or ``"failed"``.
        message: What to do about a status other than ok; a remark otherwise.
        provenance: What the probe itself wants recorded (realized step sizes, precisions), JSON types only.
        pictures: Images to look at by name, such as what a search found; names of at most `MAX_PICTURE_NAME`
            characters, since they name files.
    """

    arrays: Mapping[str, Array]
    summary: Mapping[str, Scalar]
    checks: Mapping[str, Check] = field(default_factory=dict)
    status: Status = "ok"
    message: str = ""
    provenance: Mapping[str, object] = field(default_factory=dict)
    pictures: Mapping[str, Picture] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise PluginError("a probe returned an unknown status", expected=", ".join(STATUSES), got=self.status)
        if self.status != "ok" and not self.message:
            raise PluginError(
                f"status {self.status!r} needs a message that says what to do", hint="pass message= to ProbeResult"
            )
        sizes: dict[str, int] = {}
        for name, array in self.arrays.items():
            _check_name(name)
            _check_kind(f"array {name!r}", array, Array, "Array(data, dims, unit, description)")
            for dim, length in zip(array.dims, array.data.shape, strict=True):
                _check_name(dim)
                if sizes.setdefault(dim, length) != length:
                    raise PluginError(
                        f"dimension {dim!r} of array {name!r} has two lengths",
                        expected=sizes[dim],
                        got=length,
                    )
        for name, scalar in self.summary.items():
            _check_name(name)
            _check_kind(f"scalar {name!r}", scalar, Scalar, "Scalar(value, unit, description)")
        for name, check in self.checks.items():
            _check_name(name)
            _check_kind(f"check {name!r}", check, Check, "Check.at_most(value, bound, description)")
        for name, picture in self.pictures.items():
            if not is_picture_name(name):
                raise PluginError(
                    "a picture's name is not usable",
                    expected=f"an ASCII identifier of at most {MAX_PICTURE_NAME} characters",
                    got=repr(name),
                )
            _check_kind(f"picture {name!r}", picture, Picture, "Picture(levels, description)")

    def in_unit(self, unit: str) -> ProbeResult:
        """This result, of an encoder whose inputs are no images: ``unit`` in place of "pixel" in units and words.

        Probes are written in the words of images. Names, numbers and dimensions stay as they are.
        """
        if unit == "pixel":
            return self

        def worded(text: str) -> str:
            return in_unit(text, unit)

        return replace(
            self,
            arrays={
                name: replace(array, unit=worded(array.unit), description=worded(array.description))
                for name, array in self.arrays.items()
            },
            summary={
                name: replace(
                    scalar,
                    unit=worded(scalar.unit),
                    description=worded(scalar.description),
                    group=worded(scalar.group),
                )
                for name, scalar in self.summary.items()
            },
            checks={name: replace(check, description=worded(check.description)) for name, check in self.checks.items()},
            message=worded(self.message),
        )

    def nan_scalars(self) -> list[str]:
        """Names of the scalars that are not finite."""
        return [name for name, scalar in self.summary.items() if not math.isfinite(scalar.value)]


def is_picture_name(name: str) -> bool:
    """Whether a picture may be called so: an ASCII identifier, short enough for the name of a file."""
    return name.isidentifier() and name.isascii() and len(name) <= MAX_PICTURE_NAME


def _check_name(name: object) -> None:
    """Names become HDF5 paths and attribute access: identifiers only."""
    if not (isinstance(name, str) and name.isidentifier() and name.isascii()):
        raise PluginError("a result name is not usable", expected="an ASCII identifier", got=repr(name))


def _check_kind(what: str, value: object, kind: type, call: str) -> None:
    if not isinstance(value, kind):
        raise PluginError(
            f"{what} is of a wrong type",
            expected=f"equivengine.{kind.__name__}",
            got=type(value).__name__,
            hint=f"return equivengine.{call}",
        )


def _check_texts(what: str, unit: object, description: object) -> None:
    for name, text, expected in (
        ("unit", unit, 'a str, "1" if there is none'),
        ("description", description, "a str of one line"),
    ):
        if not isinstance(text, str):
            raise PluginError(f"the {name} of {what} is no text", expected=expected, got=repr(text))
