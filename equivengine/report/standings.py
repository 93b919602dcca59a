"""What a leaderboard holds: columns, rows, numbers, and why a number is not there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A column: one scalar of one probe under one set of parameters.

    Attributes:
        key: What tells it from other columns: ``"ldlc.random_over_null"``, with its setting where there are several.
        title: A short title.
        probe: The probe.
        version: Its version.
        setting: What sets its parameters apart from those of the probe's other columns.
        params: Its parameters, JSON.
        name: Name of the scalar.
        description: One line.
        unit: Unit, of the first model; an `Entry` has its own.
        share: Whether units say yes or no: then values are shares of yes in place of medians.
    """

    key: str
    title: str
    probe: str
    version: str
    setting: str
    params: str
    name: str
    description: str
    unit: str
    share: bool = False

    @property
    def shown_unit(self) -> str:
        """Its unit, or "share"; empty where it has none."""
        return "share" if self.share else "" if self.unit == "1" else self.unit

    @property
    def heading(self) -> str:
        """Title and setting."""
        return f"{self.title}, {self.setting}" if self.setting else self.title


@dataclass(frozen=True)
class Entry:
    """A number of a model, or why there is none.

    Attributes:
        value: The median over images, or the share of yes, or what the one unit measured; None where there is none.
        interval: Its interval, where it has one.
        kind: What the interval is: "95%" (bootstrap over images; Wilson's of a share), "min .. max" (of fewer than six
            images) or "measurement" (the probe's own, of one unit); empty without one.
        n: Images; with "measurement" the observations within the unit, where it says so.
        noun: What n counts.
        units: Units behind it.
        not_converged: Those of them that did not converge.
        failed: Further units that failed, and are not in the value.
        why: Why there is no value.
        unit: Of the value. Models with inputs of other kinds have other ones than the column's first.
    """

    value: float | None = None
    interval: tuple[float, float] | None = None
    kind: str = ""
    n: int | None = None
    noun: str = "image"
    units: int = 0
    not_converged: int = 0
    failed: int = 0
    why: str = ""
    unit: str = "1"

    def shown_unit(self, metric: Metric) -> str:
        """The unit where it is another one than the column's; empty where it is the same."""
        return "" if self.unit == metric.unit else self.unit


@dataclass(frozen=True)
class Standing:
    """A row: one model with one set of weights.

    Attributes:
        model: Its URI.
        weights_digest: sha256 of its weights.
        random: Whether its weights are random.
        reference_path: Whether some unit ran without compiled kernels.
        size: Dimensions of embedding and input, where known.
        runs: Paths of the runs that it comes from.
        entries: One for each column.
    """

    model: str
    weights_digest: str
    random: bool
    reference_path: bool
    size: tuple[int, int] | None
    runs: Sequence[str]
    entries: Sequence[Entry]


@dataclass(frozen=True)
class Leaderboard:
    """All rows and columns.

    Attributes:
        metrics: Columns.
        rows: Models.
        cautions: What a reader must know first.
        runs: Paths and plan digests of the runs.
        common: Whether only images were taken that all models of a column have seen.
        title: What the run files call it, if they agree.
    """

    metrics: Sequence[Metric]
    rows: Sequence[Standing]
    cautions: Sequence[str]
    runs: Sequence[tuple[str, str]]
    common: bool = False
    title: str = ""
