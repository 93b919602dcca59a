"""The singular values of the Jacobian at an input: how many directions an encoder sees, and how unequally.

The whole spectrum by default, from the Jacobian itself; its leading part with error bars where ``rank`` or ``tol`` is
given. With ``compare`` the spectra and normal spaces of two inputs are held against each other: of an original and its
target, or of an original and what it becomes when it is matched to the target (``matched``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import equivengine as eqv
from equivengine_plugins.probes.spectrum.comparison import compare
from equivengine_plugins.probes.spectrum.measure import Measured, measure
from equivengine_plugins.probes.spectrum.parameters import SpectrumParams
from equivengine_plugins.probes.spectrum.result import arrays_of, summary_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EQUIVENGINE_API = (1, 0)


class Spectrum(eqv.Probe[SpectrumParams]):
    """Singular values by `equivengine.linalg.svd`, ranks, null space; of one input, or of two against each other.

    Effective rank: Roy and Vetterli, EUSIPCO 2007. Stable rank: Rudelson and Vershynin, J. ACM 2007.
    """

    name = "spectrum"
    version = "3"
    summary = "singular values of the Jacobian, its ranks and its null space; with compare=true of two images"
    arity = "one"
    Params = SpectrumParams

    @classmethod
    def arity_of(cls, params: SpectrumParams) -> Literal["one", "pair"]:
        """Pairs with ``compare``."""
        return "pair" if params.compare else "one"

    @classmethod
    def references_of(cls, params: SpectrumParams) -> int:
        """``references`` with ``matched``, whose tolerance is relative to their distances."""
        return 0 if params.matched is None else params.references

    @classmethod
    def headlines(cls, params: SpectrumParams) -> Mapping[str, str]:
        """How many directions count, and the share that does not."""
        return {"effective_rank": "effective rank", "stable_rank": "stable rank", "null_share": "null share"}

    def run(self, task: eqv.ProbeTask[SpectrumParams]) -> eqv.ProbeResult:
        """Measure one input, or an original against a target."""
        params = task.params
        first = measure(task, task.jacobian(task.samples[0]), vectors=params.vectors > 0 or params.compare)
        arrays, checks = arrays_of(first, params), dict(first.checks)
        if not params.compare:
            status, message = _status({"": first}, [])
            summary = summary_of(first, params)
            return eqv.ProbeResult(arrays, summary, checks, status, message, first.provenance())

        x, other, summary, faults = task.samples[1], "target", {}, []
        if params.matched is not None:
            from equivengine_plugins.probes.spectrum.matched import match

            matched = match(task)
            x, other, summary, faults = matched.x, "matched", matched.summary, matched.faults
        second = measure(task, task.jacobian(x), vectors=True, stream=f"{other}-")
        found = compare(task, first, second, other)
        arrays |= arrays_of(second, params, f"{other}_") | found.arrays
        for name, check in second.checks.items():
            checks[f"{other}_{name}"] = dataclasses.replace(check, description=f"{other}: {check.description}")
        checks |= found.checks
        summary = summary | found.summary | summary_of(first, params, whose="original: ")
        summary |= summary_of(second, params, f"{other}_", f"{other}: ")
        status, message = _status({"original: ": first, f"{other}: ": second}, [*faults, *found.faults])
        provenance = {"original": first.provenance(), other: second.provenance()}
        return eqv.ProbeResult(arrays, summary, checks, status, message, provenance)

    def findings(self, summary: Mapping[str, eqv.Scalar], params: SpectrumParams) -> list[str]:
        """Sentences for the top of a report."""
        from equivengine_plugins.probes.spectrum.findings import findings

        return findings(summary)

    def figures(self, result: Mapping[str, Any]) -> Mapping[str, Figure]:
        """Spectra with their error bands, and principal angles of pairs, from the arrays of a result by name."""
        from equivengine_plugins.probes.spectrum.drawing import draw

        return draw(result)

    def overview(self, results: Sequence[tuple[eqv.Unit, Mapping[str, Any]]]) -> Mapping[str, Figure]:
        """Spectra of all images on one axis, from stored arrays."""
        from equivengine_plugins.probes.spectrum.drawing import draw_overview

        return draw_overview(results)


def _status(measured: Mapping[str, Measured], faults: list[str]) -> tuple[Literal["ok", "not_converged"], str]:
    """Whether all that was asked for is known, and what to do where it is not; a remark otherwise.

    Args:
        measured: What was measured, by whose it is.
        faults: Of a comparison.
    """
    open_ends = [
        f"{whose}{each.found.message}" for whose, each in measured.items() if each.found.status == "not_converged"
    ]
    short = (
        each.effort.shortage(f"{whose}|J|_F", "trace_directions") for whose, each in measured.items() if each.effort
    )
    faults = [*faults, *(said for said in short if said)]
    if open_ends or faults:
        advice = ["raise tol, or --set method=exact; lower and residual stand"] if open_ends else []
        return "not_converged", "; ".join([*open_ends, *advice, *faults])
    methods = dict.fromkeys(each.found.method for each in measured.values() if not each.whole)
    if not methods:
        return "ok", ""
    return "ok", f"only the leading singular values were asked for ({' and '.join(methods)}; provenance says why)"


@eqv.hookimpl
def equivengine_register_probes() -> list[type[eqv.Probe[SpectrumParams]]]:
    """Register `Spectrum`."""
    return [Spectrum]
