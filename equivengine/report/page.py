"""One self-contained HTML page of a run: what was found, how sure it is, figures, pictures, and how to repeat it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import equivengine
from equivengine.contracts.wording import counted
from equivengine.errors import UsageError
from equivengine.report import templates
from equivengine.report.drawing import drawn, relabelled
from equivengine.report.gathering import Gathering, Group, gather
from equivengine.report.images import Allowance, Image, of_figure, of_picture
from equivengine.report.origin import Origin
from equivengine.report.presentation import Presenter
from equivengine.report.repeat import as_toml
from equivengine.report.spread import Spread, Telling, draw, spreads, telling
from equivengine.report.summary import Section, sections_of
from equivengine.runtime.registry import Registry
from equivengine.store import atomic
from equivengine.store.run import Run, UnitRecord

#: Units of each section whose figures, and whose pictures, are shown by default.
FIGURES, PICTURES = 3, 12
#: Pictures of one unit that are shown.
PICTURES_EACH = 12
#: Size of a page, about, at most; the share of it that numbers and words may take.
MEGABYTES, TEXTS = 5.0, 0.4
#: Bytes of one section without images, of the figures over units, of one figure and of one picture, about.
SECTION_BYTES, OVERVIEW_BYTES, FIGURE_BYTES, PICTURE_BYTES = 16_000, 200_000, 60_000, 30_000
#: Reasons for failure that are told apart.
REASONS = 20


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
    spreads: Sequence[Spread] = ()
    histograms: Sequence[Image] = ()
    telling: Sequence[Telling] = ()

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
    drawn_of: str = ""


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
    failures: Sequence[tuple[str, str, Sequence[str], int]]
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


def write_report(
    run: Run,
    registry: Registry,
    path: Path,
    *,
    figures: int = FIGURES,
    pictures: int = PICTURES,
    megabytes: float = MEGABYTES,
) -> Page:
    """Write the page of a run.

    Args:
        run: The run.
        registry: Plugins, which word findings and draw figures.
        path: The file; replaced if it is there.
        figures: Units of each section whose figures are drawn.
        pictures: Units of each section whose pictures are shown.
        megabytes: About the size of the page, at most: what does not fit is counted.

    Returns:
        What was written.

    Raises:
        StoreError: If the run cannot be read, or the file not be written.
        UsageError: If the run has nothing to report.
    """
    page = page_of(run, registry, figures=figures, pictures=pictures, megabytes=megabytes)
    atomic.make_directory(path.parent)
    atomic.publish_text(path, templates.render("report.html", page=page), overwrite=True)
    return page


def page_of(
    run: Run,
    registry: Registry,
    *,
    figures: int = FIGURES,
    pictures: int = PICTURES,
    megabytes: float = MEGABYTES,
) -> Page:
    """What a page shows; arguments and errors as `write_report`."""
    origin = Origin()
    found = gather(run, drawn=True, figures=figures, pictures=pictures, watch=origin.take)
    groups = sections_of(found)
    if not groups and not run.failures:
        raise UsageError(f"{run.path} has no results to report", hint=f"finish it: equivengine resume {run.path}")
    most = max(1, int(megabytes * 1e6 * TEXTS / SECTION_BYTES))
    shown = groups[:most]
    by_chapter: dict[tuple[str, str], list[tuple[Section, Group]]] = {}
    for group in shown:
        by_chapter.setdefault((group[0].probe, group[0].model), []).append(group)
    needs = [
        _needed(group) + (0 if place else OVERVIEW_BYTES)
        for part in by_chapter.values()
        for place, (_, group) in enumerate(part)
    ]
    images = max(0, int(megabytes * 1e6) - SECTION_BYTES * (1 + len(shown)))
    maker = _Maker(Presenter(registry), Allowance(images, needs))
    chapters = [maker.chapter(f"chapter-{number}", part) for number, part in enumerate(by_chapter.values(), 1)]
    config = run.plan.get("config", {})
    config = config if isinstance(config, dict) else {}
    probes, models = (list(dict.fromkeys(names)) for names in zip(*by_chapter, strict=True)) if by_chapter else ([], [])
    title = str(config.get("title") or f"{named(probes)} on {named(models)}")
    return Page(
        title=title,
        description=str(config.get("description") or ""),
        path=str(run.path),
        plan=run.plan_digest,
        units=sum(section.units for section, _ in groups),
        missing=len(run.missing),
        failures=_failures(found),
        warnings=maker.warnings,
        findings=maker.findings,
        remarks=[
            *(f"stop: {ending}" for ending in run.endings),
            *maker.presenter.remarks,
            *_left_out(len(groups) - len(shown), maker.allowance.left_out, megabytes),
        ],
        chapters=chapters,
        provenance=origin.facts(),
        config=as_toml(config),
        version=equivengine.__version__,
    )


def _needed(group: Group) -> int:
    """Bytes of the images of a section, about."""
    pictures = sum(min(PICTURES_EACH, len(record.pictures)) for record in group.pictured)
    return FIGURE_BYTES * (1 + 3 * len(group.first)) + PICTURE_BYTES * pictures


def named(names: Sequence[str]) -> str:
    """Names in a title; of many, the first."""
    more = f" and {len(names) - 3} more" if len(names) > 4 else ""
    return ", ".join(names[:3] if more else names) + more or "nothing"


def _left_out(sections: int, images: int, megabytes: float) -> list[str]:
    remarks = []
    if sections > 0:
        remarks.append(
            f"{counted(sections, 'more set', 'more sets')} of parameters, probes or models "
            f"{'is' if sections == 1 else 'are'} not on this page: `equivengine show` and `equivengine export` have "
            "them all"
        )
    if images:
        remarks.append(
            f"{images:,} or more figures and pictures are left out to keep the page below {megabytes:g} MB "
            "(--megabytes)"
        )
    return remarks


@dataclass
class _Maker:
    """Makes chapters, and collects what is to stand at the top of the page."""

    presenter: Presenter
    allowance: Allowance
    warnings: list[Remark] = field(default_factory=list)
    findings: list[Remark] = field(default_factory=list)

    def chapter(self, anchor: str, members: Sequence[tuple[Section, Group]]) -> Chapter:
        self.allowance.next_part()
        first, group = members[0]
        probe = self.presenter.probe_of(group.unit)
        drawn = self.presenter.overview(probe, [group for _, group in members])
        with self.allowance.half():
            overview = [image for each in drawn if self.allowance.admits([image := of_figure(each, first.probe)])]
        sections = []
        for place, (section, group) in enumerate(members):
            if place:
                self.allowance.next_part()
            where = f"{section.name} · {section.model}"
            self.findings.append(Remark(where, anchor, self.presenter.findings(probe, section)))
            cautions = [*section.warnings, *_failed_checks(section)]
            self.warnings += [Remark(where, anchor, cautions)] if cautions else []
            sections.append(self._section(probe, section, group))
        summary = type(probe).summary if probe is not None else ""
        every, kept = sum(s.units for s, _ in members), sum(len(g.drawn.kept) for _, g in members)
        of = f"Drawn of {kept:,} of {every:,} units, evenly spaced in the order of the plan." if kept < every else ""
        return Chapter(anchor, first.probe, first.model, summary, overview, sections, of)

    def _section(self, probe: Any, section: Section, group: Group) -> SectionView:
        found = spreads(group, self.presenter.headlines(probe, section.params, section.probe))
        histograms = []
        varied = [spread for spread in found if spread.quantiles[0] < spread.quantiles[-1]]
        if varied and not self.allowance.spent:
            title = (
                f"Distribution over {section.units:,} {section.noun}s; lines: median, the middle half (dashed), the "
                "middle nine tenths (dotted)"
            )
            unit = next(iter(group.input_units), "pixel")
            figure = relabelled(draw(varied, section.noun), unit)
            image = of_figure(drawn(title, figure, random=bool(group.random)), section.probe)
            histograms = [image] if self.allowance.admits([image]) else []
        with self.allowance.half():
            pictured = self._units(group.pictured, _pictures_of)
        return SectionView(
            section=section,
            drawn=self._units(group.first, lambda record: _figures_of(self.presenter, probe, record)),
            pictured=pictured,
            pictures_of=group.pictured_of,
            spreads=found,
            histograms=histograms,
            telling=telling(group, found),
        )

    def _units(self, records: Sequence[UnitRecord], show: Callable[[UnitRecord], UnitView]) -> list[UnitView]:
        """The first of them that fit."""
        views = []
        for record in records:
            if self.allowance.spent:
                self.allowance.left_out += 1
                break
            view = show(record)
            if not self.allowance.admits([*view.figures, *view.pictures]):
                break
            views.append(view)
        return views


def _figures_of(presenter: Presenter, probe: Any, record: UnitRecord) -> UnitView:
    return _view(record, figures=[of_figure(each, record.unit.probe) for each in presenter.figures(probe, record)])


def _pictures_of(record: UnitRecord) -> UnitView:
    names = list(record.pictures)[:PICTURES_EACH]
    return _view(record, pictures=[of_picture(name, record.pictures[name]) for name in names])


def _view(record: UnitRecord, *, figures: Sequence[Image] = (), pictures: Sequence[Image] = ()) -> UnitView:
    name = _samples([sample.id for sample in record.unit.samples])
    return UnitView(name, record.unit_id, record.status, record.message, figures, pictures)


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


def _failures(found: Gathering) -> list[tuple[str, str, Sequence[str], int]]:
    """Failures by reason: where, why, whose (the first), how many; of many reasons, the first."""
    reasons = [
        (f"{key.probe} · {key.model}", why, failed.names[why], count)
        for key, failed in found.failures.items()
        for why, count in failed.texts.counts.items()
    ]
    every = sum(failed.texts.total() for failed in found.failures.values())
    left = every - sum(count for *_, count in reasons[:REASONS])
    more = [("", "other reasons: `equivengine export` lists them", (), left)] if left else []
    return [*reasons[:REASONS], *more]
