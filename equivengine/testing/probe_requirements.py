"""Requirements on a probe: its parameters, its results, and what it says to readers of reports."""

from __future__ import annotations

import pickle
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from equivengine.contracts.encoder import weights_digest
from equivengine.contracts.probe import ARITIES
from equivengine.contracts.result import ProbeResult
from equivengine.contracts.unit import SampleRef, Unit, canonical_json
from equivengine.testing import switches
from equivengine.testing.probe_subject import ProbeSubject
from equivengine.testing.verdict import Breach, Requirement

#: Words that stand for a unit in the description of a number.
_UNITS = re.compile(
    r";|\b(count|number|ratio|relative|fraction|share|units?|pixels?|levels?|seconds?|steps?|points?|images?|degrees?"
    r"|iterations?|directions?|length|cosine|over|bytes|seed|Eq\.)\b",
    re.IGNORECASE,
)


def says_its_version_and_arity(subject: ProbeSubject) -> str:
    """Version, arity, and the functions of the parameters that plans are made with."""
    cls = subject.cls
    if not (isinstance(getattr(cls, "version", None), str) and cls.version):
        raise Breach(
            f"{cls.__name__} has no version",
            expected='a class attribute `version`, such as "1", to be raised when results change',
            got=repr(getattr(cls, "version", None)),
        )
    params = subject.params
    arity, batch, references = cls.arity_of(params), cls.batch_of(params), cls.references_of(params)
    if arity not in ARITIES:
        raise Breach("the arity is unknown", expected=" or ".join(ARITIES), got=repr(arity))
    for name, count, least in (("batch_of", batch, 1), ("references_of", references, 0)):
        if type(count) is not int or count < least:
            raise Breach(f"{name} returns no count", expected=f"an int of at least {least}", got=repr(count))
    return f"version {cls.version}, takes {arity}"


def has_defaults(subject: ProbeSubject) -> str:
    """Every parameter has a default, so that `--plugin NAME` alone works."""
    if isinstance(subject.default_params, Exception):
        raise Breach(
            "its parameters have no defaults",
            expected="a default for every field of Params",
            got=" ".join(str(subject.default_params).split()),
            hint="give every field a default, or name parameters to check with: `plugin check --set KEY=VALUE`",
        )
    try:
        canonical_json(subject.default_params.model_dump(mode="json"))
    except (TypeError, ValueError) as error:
        raise Breach("the parameters are no JSON", expected="numbers, words, lists of them", got=error) from None
    return ", ".join(type(subject.default_params).model_fields) or "no parameters"


def describes_its_parameters(subject: ProbeSubject) -> str:
    """Every parameter has a description, numbers with a unit."""
    for name, field in subject.cls.Params.model_fields.items():
        text = field.description or ""
        if not text.strip():
            raise Breach(
                f"the parameter {name!r} has no description",
                expected="one line, which `equivengine ls probes` shows",
                hint=f'write {name}: ... = Field(default, description="What it is; unit.")',
            )
        words = str(field.annotation)
        if ("int" in words or "float" in words) and not _UNITS.search(text):
            raise Breach(
                f"the description of {name!r} names no unit",
                expected='a unit behind a semicolon: "Brightening of the secant; [0, 1] pixel units.", "Steps; count."',
                got=repr(text),
            )
    return ""


def refuses_unknown_parameters(subject: ProbeSubject) -> str:
    """A typing error in --set is an error."""
    try:
        subject.cls.Params.model_validate({**subject.params.model_dump(), "no_such_parameter": 1})
    except ValueError:
        return ""
    raise Breach(
        "an unknown parameter passes unnoticed",
        expected="a validation error",
        got="parameters",
        hint="derive Params from equivengine.Params, and leave extra='forbid' as it is",
    )


def returns_a_result(subject: ProbeSubject) -> str:
    """`run` returns a `ProbeResult` of something."""
    outcome = subject.outcome
    if isinstance(outcome, BaseException):
        raise outcome
    if not isinstance(outcome, ProbeResult):
        raise Breach(
            "it returned something else than a result", expected="equivengine.ProbeResult", got=type(outcome).__name__
        )
    if outcome.status != "ok":
        raise Breach(
            f"it ended as {outcome.status!r} with default parameters, on a small smooth encoder",
            expected="ok",
            got=outcome.message,
        )
    if not outcome.summary:
        raise Breach(
            "the result has no scalars",
            expected="at least one equivengine.Scalar in summary: tables and findings are made of them",
            got="none",
        )
    return f"{len(outcome.summary)} scalars, {len(outcome.arrays)} arrays, {len(outcome.pictures)} pictures"


def names_units(subject: ProbeSubject) -> str:
    """Arrays and scalars have a unit and a description of one line; checks say what they claim, headlines are there."""
    result = subject.result
    for kind, found in (("array", result.arrays), ("scalar", result.summary)):
        for name, entry in found.items():
            if not entry.unit.strip():
                raise Breach(f"{kind} {name!r} has no unit", expected='a unit, "1" if there is none', got=repr(""))
            _one_line(f"{kind} {name!r}", entry.description)
    for name, check in result.checks.items():
        _one_line(f"check {name!r}", check.description)
    headlines = subject.cls.headlines(subject.params)
    if headlines and not any(name in result.summary for name in headlines):
        raise Breach(
            "no headline is a scalar of the result: leaderboards would have empty columns",
            expected=", ".join(result.summary),
            got=", ".join(map(repr, headlines)),
            hint="name scalars of the summary in `headlines`",
        )
    return ""


def _one_line(what: str, text: str) -> None:
    if not text.strip() or len(text.splitlines()) != 1:
        raise Breach(f"{what} has no description of one line", expected="one line in plain words", got=repr(text))


def measures_numbers(subject: ProbeSubject) -> str:
    """No NaN among the scalars, values within their intervals, checks that hold."""
    result = subject.result
    if result.nan_scalars():
        raise Breach(
            f"scalars are not finite: {', '.join(result.nan_scalars())}",
            expected="numbers, on a small smooth encoder",
            got="NaN or infinity",
        )
    for name, check in result.checks.items():
        if not check.passed:
            raise Breach(
                f"its own check {name!r} does not hold",
                expected=f"{check.description}: bound {check.bound:.4g}",
                got=f"{check.value:.4g}",
            )
    return f"{len(result.checks)} checks of its own hold"


def is_repeatable(subject: ProbeSubject) -> str:
    """The same unit gives the same numbers, whatever state global random generators are in."""
    first = subject.result
    again = subject.run(subject.task(), noise=1)
    if not isinstance(again, ProbeResult):
        raise Breach("the second run returned no result", got=type(again).__name__)
    for name, value in _numbers(first):
        other = dict(_numbers(again)).get(name)
        if other is None or not np.array_equal(value, other, equal_nan=value.dtype.kind == "f"):
            raise Breach(
                f"{name} differs between two runs of one unit",
                expected="equal numbers: a unit is a function of its samples, parameters and seed",
                got=_gap(value, other),
                hint="draw random numbers from torch.Generator().manual_seed(task.stream(NAME))",
            )
    return ""


def _numbers(result: ProbeResult) -> Iterator[tuple[str, np.ndarray]]:
    yield from ((f"array {name!r}", array.data) for name, array in result.arrays.items())
    yield from ((f"scalar {name!r}", np.asarray(scalar.value)) for name, scalar in result.summary.items())


def _gap(first: np.ndarray, second: np.ndarray | None) -> str:
    if second is None or first.shape != second.shape:
        return "another shape" if second is not None else "nothing the second time"
    if first.dtype.kind not in "fiu":
        return "other values"
    return f"a largest difference of {float(np.nanmax(np.abs(first - second))):.3g}"


def runs_in_both_precisions(subject: ProbeSubject) -> str:
    """--precision fp64 works too."""
    _ = subject.result
    result = subject.run(subject.task(precision="fp64"))
    if not isinstance(result, ProbeResult) or result.status == "failed":
        raise Breach(
            "it fails in float64",
            expected="a result for --precision fp64",
            got=result.message if isinstance(result, ProbeResult) else type(result).__name__,
            hint="use task.jacobian(x), which knows the precision, and convert with .to(operator.dtype)",
        )
    return ""


def leaves_things_alone(subject: ProbeSubject) -> str:
    """Samples, references, encoder, torch's global switches and the working directory are as they were."""
    _ = subject.result
    task = subject.task()
    before = [x.clone() for x in (*task.samples, task.references)]
    digest = weights_digest(subject.encoder.module)
    subject.run(task)
    for name, x, old in zip(
        [*(f"sample {n}" for n in range(len(task.samples))), "the references"],
        (*task.samples, task.references),
        before,
        strict=True,
    ):
        if not torch.equal(x, old):
            raise Breach(
                f"it changes {name} in place", expected="inputs that stay as they were", hint="work on x.clone()"
            )
    if weights_digest(subject.encoder.module) != digest or any(p.requires_grad for p in subject.encoder.parameters()):
        raise Breach("it changes the encoder", expected="frozen weights that stay as they were")
    if subject.left:
        raise Breach(
            "it leaves the process in another state",
            expected={name: value for name, value in switches.read().items() if name in subject.left},
            got=subject.left,
            hint="put back what a unit needs otherwise, best with a context manager",
        )
    return ""


def crosses_processes(subject: ProbeSubject) -> str:
    """The result can be pickled and its provenance stored."""
    result = subject.result
    try:
        size = len(pickle.dumps(result))
        canonical_json(dict(result.provenance))
    except Exception as error:
        raise Breach(
            "the result cannot cross processes",
            expected="NumPy arrays, and JSON types without NaN in provenance",
            got=f"{type(error).__name__}: {error}",
            hint="convert with .cpu().numpy() and float()",
        ) from error
    return f"{size:,} bytes"


def finds_in_sentences(subject: ProbeSubject) -> str:
    """`findings` gives one to three plain sentences, or none."""
    found = subject.cls().findings(subject.result.summary, subject.params)
    if isinstance(found, str) or not all(isinstance(text, str) and text.strip() for text in found):
        raise Breach("findings() returns no sentences", expected="a list of up to three texts", got=repr(found)[:80])
    if len(found) > 3 or any("\n" in text for text in found):
        raise Breach(
            "findings() says too much for the top of a report",
            expected="at most three sentences of one line each",
            got=f"{len(found)} texts, {sum(text.count(chr(10)) for text in found)} line breaks",
        )
    if any(re.search(r"\b(nan|inf)\b", text) for text in found):
        raise Breach("findings() speaks of NaN or infinity", got=next(t for t in found if re.search("nan|inf", t)))
    return found[0] if found else "it says nothing; a report then names the first scalars"


def draws_figures(subject: ProbeSubject) -> str:
    """`figures` and `overview` draw from stored arrays alone, without pyplot."""
    from matplotlib.figure import Figure

    arrays = subject.result.arrays
    probe = subject.cls()
    units = [(_unit(subject, seed), arrays) for seed in range(2)]
    before = _open_figures()
    drawn = {"figures": probe.figures(arrays), "overview": probe.overview(units)}
    for method, figures in drawn.items():
        if not isinstance(figures, Mapping):
            raise Breach(f"{method}() returns no figures by title", got=type(figures).__name__)
        for title, figure in figures.items():
            if not isinstance(figure, Figure):
                raise Breach(
                    f"{method}(): {title!r} is no figure",
                    expected="matplotlib.figure.Figure",
                    got=type(figure).__name__,
                )
            figure.canvas.draw()
    if _open_figures() != before:
        raise Breach(
            "it leaves figures open in pyplot",
            expected="figures that belong to nobody: a report draws hundreds",
            got=f"{_open_figures() - before} open figures",
            hint="write matplotlib.figure.Figure(...) instead of plt.figure(...)",
        )
    return f"{len(drawn['figures'])} figures of a unit, {len(drawn['overview'])} over units"


def _open_figures() -> int:
    pyplot = sys.modules.get("matplotlib.pyplot")
    return len(pyplot.get_fignums()) if pyplot is not None else 0


def _unit(subject: ProbeSubject, seed: int) -> Unit:
    params = canonical_json(subject.params.model_dump(mode="json"))
    refs = tuple(SampleRef("noise:9", number, f"sample-{number}", "0" * 64) for number in range(len(subject.inputs())))
    return Unit(subject.cls.name, subject.cls.version, params, "reference", "0" * 64, refs, seed, "fp32")


def measures_soon(subject: ProbeSubject) -> str:
    """A unit takes no longer than declared."""
    _ = subject.result
    start = time.perf_counter()
    subject.run(subject.task())
    seconds = time.perf_counter() - start
    if seconds > subject.seconds_per_unit:
        raise Breach(
            "a unit takes too long",
            expected=f"at most {subject.seconds_per_unit:g} s",
            got=f"{seconds:.1f} s",
            hint="choose defaults that give a first answer soon, or raise seconds_per_unit",
        )
    return f"{seconds:.2f} s on {subject.encoder.spec.uri}"


PROBE: Sequence[Requirement[ProbeSubject]] = (
    Requirement("has_defaults", "it runs without parameters", has_defaults),
    Requirement("says_its_version_and_arity", "it says its version and what a unit takes", says_its_version_and_arity),
    Requirement("describes_its_parameters", "its parameters have descriptions and units", describes_its_parameters),
    Requirement("refuses_unknown_parameters", "an unknown parameter is refused", refuses_unknown_parameters),
    Requirement("returns_a_result", "it returns a result", returns_a_result),
    Requirement("names_units", "what it measures has units and descriptions", names_units),
    Requirement("measures_numbers", "what it measures is finite, and its own checks hold", measures_numbers),
    Requirement("is_repeatable", "the same unit gives the same numbers", is_repeatable),
    Requirement("runs_in_both_precisions", "it runs in float64 too", runs_in_both_precisions),
    Requirement("leaves_things_alone", "samples, encoder and torch stay as they were", leaves_things_alone),
    Requirement("crosses_processes", "its result crosses processes and can be stored", crosses_processes),
    Requirement("finds_in_sentences", "its findings are a few plain sentences", finds_in_sentences),
    Requirement("draws_figures", "its figures can be drawn from what is stored", draws_figures),
    Requirement("measures_soon", "a unit takes no longer than declared", measures_soon),
)
