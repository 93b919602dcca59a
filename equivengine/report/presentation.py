"""What the installed probes have to say of stored results: findings and figures. Their errors stay with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from equivengine.contracts.probe import Params, Probe
from equivengine.contracts.unit import Unit
from equivengine.contracts.wording import in_unit
from equivengine.errors import EngineError
from equivengine.report.drawing import Drawn, drawn, plain, relabelled
from equivengine.report.gathering import Group
from equivengine.report.summary import Row, Section
from equivengine.runtime.contract import one_line
from equivengine.runtime.registry import Registry
from equivengine.store.run import UnitRecord

T = TypeVar("T")

#: Scalars that are named where no probe words findings.
NAMED = 3


@dataclass
class Presenter:
    """Asks the probe that measured, if it is installed in that version; says what is stored otherwise.

    Attributes:
        registry: The loaded plugins.
        without: What becomes of results whose probe is not there in the version that measured.
        remarks: What a reader should know of this: probes that are absent, have changed, or failed to draw. Each once.
    """

    registry: Registry
    without: str = "its arrays are plotted plainly"
    remarks: dict[str, None] = field(default_factory=dict)

    def probe_of(self, unit: Unit) -> Probe[Any] | None:
        """The probe that measured a unit, or None if it is not there in that version."""
        name, version = unit.probe, unit.probe_version
        try:
            cls, _ = self.registry.probe(name)
        except EngineError:
            self._remark(f"the probe {name!r} is not installed: {self.without}")
            return None
        if cls.version != version:
            self._remark(
                f"version {version} of the probe {name!r} measured, version {cls.version} is installed: {self.without}"
            )
            return None
        return self._contained(cls, name, "could not be made")

    def headlines(self, probe: Probe[Any] | None, params: Mapping[str, Any], name: str) -> dict[str, str]:
        """Scalars that stand for a model, with their titles; none where the probe is absent or names none."""
        if probe is None:
            return {}

        def ask() -> dict[str, str]:
            found = type(probe).headlines(probe.Params.model_validate(params))
            return {str(scalar): str(title) for scalar, title in found.items()}

        return self._contained(ask, name, "could not name its headlines") or {}

    def findings(self, probe: Probe[Any] | None, section: Section) -> list[str]:
        """Sentences for the top of a page; the first scalars where the probe has none."""
        words: Sequence[str] | None = None
        if probe is not None:

            def ask() -> list[str]:
                params: Params = probe.Params.model_validate(section.params)
                said = probe.findings(section.scalars(), params)
                if isinstance(said, str):
                    raise TypeError("findings is to return a list of sentences, not one str")
                return [str(sentence) for sentence in said]

            words = self._contained(ask, section.probe, "could not word its findings")
        return list(words) if words else _named(section)

    def overview(self, probe: Probe[Any] | None, groups: Sequence[Group]) -> list[Drawn]:
        """Figures over the units of one probe; of many units, over those that were kept for it (`Group.drawn`)."""
        if probe is None:
            return []
        given = [each for group in groups for each in group.drawn.kept]
        units = {name for group in groups for name in group.input_units}
        unit = units.pop() if len(units) == 1 else "coordinate"
        random = any(group.random for group in groups)
        problem = "could not draw its overview"
        return self._drawn(lambda: _by_title(probe.overview(given)), probe.name, problem, unit, random=random)

    def figures(self, probe: Probe[Any] | None, record: UnitRecord) -> list[Drawn]:
        """Figures of one unit; plain plots of its arrays where the probe draws none."""
        found: list[Drawn] = []
        unit, random = _input_unit(record), bool(record.provenance.get("random_weights"))
        if probe is not None:
            name = f"could not draw {' -> '.join(sample.id for sample in record.unit.samples[:2])}"
            figures = probe.figures
            found = self._drawn(lambda: _by_title(figures(record.arrays)), probe.name, name, unit, random=random)
        problem = "could not be plotted plainly"
        return found or self._drawn(lambda: plain(record.arrays), record.unit.probe, problem, random=random)

    def _drawn(
        self,
        make: Callable[[], Iterable[tuple[str, Any]]],
        probe: str,
        problem: str,
        unit: str = "pixel",
        *,
        random: bool,
    ) -> list[Drawn]:
        def each() -> list[Drawn]:
            return [
                drawn(in_unit(str(title), unit), relabelled(figure, unit), random=random) for title, figure in make()
            ]

        return self._contained(each, probe, problem) or []

    def _contained(self, call: Callable[[], T], probe: str, problem: str) -> T | None:
        try:
            return call()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything, SystemExit included
            self._remark(f"the probe {probe!r} {problem}: {one_line(error)}")
            return None

    def _remark(self, text: str) -> None:
        self.remarks[text] = None


def _by_title(figures: object) -> Iterable[tuple[str, Any]]:
    """Figures as a probe is to return them. Raises TypeError of what else it returned."""
    from matplotlib.figure import Figure

    if not isinstance(figures, Mapping):
        raise TypeError(f"a dict of figures by title was to be returned, not {type(figures).__name__}")
    for title, figure in figures.items():
        if not isinstance(figure, Figure):
            raise TypeError(f"{title!r} is to be a matplotlib.figure.Figure, not {type(figure).__name__}")
    return figures.items()


def _input_unit(record: UnitRecord) -> str:
    """What one number of an input is; stored results that do not say are of images."""
    model = record.provenance.get("model")
    return str(model.get("input_unit", "pixel")) if isinstance(model, dict) else "pixel"


def _named(section: Section) -> list[str]:
    scalars = section.scalars()
    rows = [row for row in section.rows if row.value == row.value][:NAMED]

    def over(row: Row) -> str:
        what = "share of yes" if row.kind == "share" else "median"
        return f"; {what} over {section.units} {section.noun}s" if section.over_units else ""

    return [f"{row.description}: {scalars[row.name]}{over(row)}." for row in rows]
