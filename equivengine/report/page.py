"""One self-contained HTML page of a run: what was found, how sure it is, figures, pictures, and how to repeat it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import equivengine
from equivengine.errors import UsageError
from equivengine.report import templates
from equivengine.report.drawing import Drawn
from equivengine.report.images import Image, of_figure, of_picture
from equivengine.report.presentation import Presenter
from equivengine.report.repeat import as_toml
from equivengine.report.summary import Section, grouped
from equivengine.runtime.registry import Registry
from equivengine.store import atomic
from equivengine.store.run import Failure, Run, UnitRecord

#: Units of each section whose figures, and whose pictures, are shown by default.
FIGURES, PICTURES = 3, 12
#: Pictures of one unit that are shown.
PICTURES_EACH = 12


@dataclass(frozen=True)
class UnitView:
    """One unit: which samples, how it ended, what there is to see."""

    name: str
    unit_id: str
    status: str
    message: str
    figures: Sequence[Image] = ()
    pictures: Sequence[Image] = ()


@dataclass(frozen=True)
class SectionView:
    """One set of parameters of a probe on a model: numbers, then units."""

    section: Section
    drawn: Sequence[UnitView]
    pictured: Sequence[UnitView]
    pictures_of: int

    @property
    def flips(self) -> bool:
        """Whether a unit has pictures that can be laid over one another."""
        return any(len(unit.pictures) > 1 for unit in self.pictured)


@dataclass(frozen=True)
class Chapter:
    """One probe on one model."""

    anchor: str
    probe: str
    model: str
    summary: str
    overview: Sequence[Image]
    sections: Sequence[SectionView]


@dataclass(frozen=True)
class Remark:
    """Sentences about one section: findings, or what a reader must know first.

    Attributes:
        where: Probe and model.
        anchor: The chapter.
        sentences: Plain text.
    """

    where: str
    anchor: str
    sentences: Sequence[str]


@dataclass(frozen=True)
class Page:
    """Everything that the template shows."""

    title: str
    description: str
    path: str
    plan: str
    units: int
    missing: int
    failures: Sequence[tuple[str, str, Sequence[str]]]
    warnings: Sequence[Remark]
    findings: Sequence[Remark]
    remarks: Sequence[str]
    chapters: Sequence[Chapter]
    provenance: Sequence[tuple[str, Sequence[str]]]
    config: str
    version: str

    @property
    def sections(self) -> int:
        """How many sets of parameters, probes and models there are to tell apart."""
        return sum(len(chapter.sections) for chapter in self.chapters)


def write_report(run: Run, registry: Registry, path: Path, *, figures: int = FIGURES, pictures: int = PICTURES) -> Page:
    """Write the page of a run.

    Args:
        run: The run.
        registry: Plugins, which word findings and draw figures.
        path: The file; replaced if it is there.
        figures: Units of each section whose figures are drawn.
        pictures: Units of each section whose pictures are shown.

    Returns:
        What was written.

    Raises:
        StoreError: If the run cannot be read, or the file not be written.
        UsageError: If the run has nothing to report.
    """
    page = page_of(run, registry, figures=figures, pictures=pictures)
    atomic.make_directory(path.parent)
    atomic.publish_text(path, templates.render("report.html", page=page), overwrite=True)
    return page


def page_of(run: Run, registry: Registry, *, figures: int = FIGURES, pictures: int = PICTURES) -> Page:
    """What a page shows; arguments and errors as `write_report`."""
    groups = grouped(run)
    if not groups and not run.failures:
        raise UsageError(f"{run.path} has no results to report", hint=f"finish it: equivengine resume {run.path}")
    presenter = Presenter(registry)
    warnings: list[Remark] = []
    findings: list[Remark] = []
    chapters = []
    by_chapter: dict[tuple[str, str], list[tuple[Section, list[UnitRecord]]]] = {}
    for group in groups:
        by_chapter.setdefault((group[0].probe, group[0].model), []).append(group)
    for number, ((_, model), members) in enumerate(by_chapter.items(), 1):
        anchor = f"chapter-{number}"
        chapter, said = _chapter(anchor, members, presenter, figures, pictures)
        chapters.append(chapter)
        for (section, _), sentences in zip(members, said, strict=True):
            where = f"{section.name} · {model}"
            findings.append(Remark(where, anchor, sentences))
            cautions = [*section.warnings, *_failed_checks(section)]
            warnings += [Remark(where, anchor, cautions)] if cautions else []
    config = run.plan.get("config", {})
    config = config if isinstance(config, dict) else {}
    probes, models = (list(dict.fromkeys(names)) for names in zip(*by_chapter, strict=True)) if by_chapter else ([], [])
    title = str(config.get("title") or f"{', '.join(probes) or 'nothing'} on {', '.join(models) or 'nothing'}")
    return Page(
        title=title,
        description=str(config.get("description") or ""),
        path=str(run.path),
        plan=run.plan_digest,
        units=len(run.published),
        missing=len(run.missing),
        failures=_failures(run.failures.values()),
        warnings=warnings,
        findings=findings,
        remarks=list(presenter.remarks),
        chapters=chapters,
        provenance=_provenance([record for _, records in groups for record in records]),
        config=as_toml(config),
        version=equivengine.__version__,
    )


def _chapter(
    anchor: str,
    members: Sequence[tuple[Section, list[UnitRecord]]],
    presenter: Presenter,
    figures: int,
    pictures: int,
) -> tuple[Chapter, list[list[str]]]:
    """A chapter, and the findings of each of its sections."""
    first, records = members[0]
    probe = presenter.probe_of(first, records[0].unit.probe_version)
    every = [record for _, records in members for record in records]
    overview = [of_figure(drawn, first.probe) for drawn in presenter.overview(probe, every)]
    said, sections = [], []
    for section, records in members:
        said.append(presenter.findings(probe, section))
        pictured = [record for record in records if record.pictures]
        sections.append(
            SectionView(
                section=section,
                drawn=[_unit(r, figures=presenter.figures(probe, r)) for r in records[:figures]],
                pictured=[_unit(r, pictures=True) for r in pictured[:pictures]],
                pictures_of=len(pictured),
            )
        )
    summary = type(probe).summary if probe is not None else ""
    return Chapter(anchor, first.probe, first.model, summary, overview, sections), said


def _unit(record: UnitRecord, *, figures: Sequence[Drawn] = (), pictures: bool = False) -> UnitView:
    shown = list(record.pictures)[:PICTURES_EACH] if pictures else ()
    return UnitView(
        name=_samples([sample.id for sample in record.unit.samples]),
        unit_id=record.unit_id,
        status=record.status,
        message=record.message,
        figures=[of_figure(drawn, record.unit.probe) for drawn in figures],
        pictures=[of_picture(name, record.pictures[name]) for name in shown],
    )


def _samples(ids: Sequence[str]) -> str:
    """A pair with an arrow, a set by its first samples."""
    if len(ids) <= 2:
        return " → ".join(ids)
    return f"{', '.join(ids[:3])}" + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")


def _failed_checks(section: Section) -> list[str]:
    return [
        f"check failed in {check.total - check.passed} of {check.total}: {check.description}"
        for check in section.checks
        if check.passed < check.total
    ]


def _failures(failures: Iterable[Failure]) -> list[tuple[str, str, list[str]]]:
    """Failures by reason: where, why, whose."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for failure in failures:
        samples = " → ".join(sample.id for sample in failure.unit.samples[:2])
        reasons.setdefault((f"{failure.unit.probe} · {failure.unit.model}", failure.message), []).append(samples)
    return [(where, why, whose) for (where, why), whose in reasons.items()]


def _provenance(records: Sequence[UnitRecord]) -> list[tuple[str, list[str]]]:
    """What the units were made with: a name and all values that occur, where units differ."""
    facts: dict[str, dict[str, None]] = {}

    def note(name: str, value: object) -> None:
        if value not in (None, "", {}, []):
            facts.setdefault(name, {})[str(value)] = None

    for record in records:
        found, unit = record.provenance, record.unit
        commit = found.get("git_commit")
        note("equivengine", f"{found.get('equivengine', '?')}" + (f", commit {commit[:12]}" if commit else ""))
        note("device", found.get("device", {}).get("name"))
        note("libraries", ", ".join(f"{name} {version}" for name, version in found.get("libraries", {}).items()))
        note("python", found.get("python"))
        note("platform", found.get("platform"))
        extension = found.get("extension", {})
        built = extension.get("facts", {})
        note(
            "compiled extension",
            f"in use, instruction set {built.get('isa_chosen', '?')}"
            if extension.get("loaded")
            else f"not in use: {next(iter(str(extension.get('reason', '')).splitlines()), '')}",
        )
        for operation, paths in found.get("operations", {}).items():
            note("kernels", f"{operation}: {', '.join(paths)}")
        note("precision", unit.precision)
        note("seed", unit.seed)
        note("model", f"{unit.model}, weights sha256 {unit.weights_digest}")
        note("probe", f"{unit.probe}, version {unit.probe_version}, {_settings(unit.params)}")
        for role, plugin in found.get("plugins", {}).items():
            note(f"plugin ({role})", " ".join(str(plugin.get(key, "")) for key in ("name", "distribution", "version")))
    seconds = [float(record.provenance.get("seconds", 0)) for record in records]
    started = sorted(str(record.provenance.get("started", "")) for record in records)
    if seconds:
        note("first unit started", started[0])
        note("seconds of all units together", f"{sum(seconds):,.1f}")
    return [(name, list(values)) for name, values in facts.items()]


def _settings(params: str) -> str:
    return ", ".join(f"{name} = {json.dumps(value)}" for name, value in json.loads(params).items())
