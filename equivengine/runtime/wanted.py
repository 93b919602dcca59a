"""What a configuration wants of its probes: each combination of parameters, held against the probe and the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from equivengine.contracts.probe import Arity, Probe
from equivengine.contracts.unit import SampleRef
from equivengine.errors import UsageError
from equivengine.runtime import contract
from equivengine.runtime.config import ProbeRequest, RunConfig, probe_params
from equivengine.runtime.drawing import unlabelled
from equivengine.runtime.registry import Registry
from equivengine.runtime.run_file import place_text
from equivengine.runtime.toml_lines import Place


@dataclass(frozen=True)
class Wanted:
    """A probe with its parameters, and what it says of its units.

    Attributes:
        cls: The probe.
        request: The entry of the configuration that it comes from.
        params: Its parameters as canonical JSON.
        arity: How many samples a unit takes.
        batch: How many units may share a call.
        references: How many references it asks for.
    """

    cls: type[Probe[Any]]
    request: ProbeRequest
    params: str
    arity: Arity
    batch: int
    references: int

    def reads(self, samples: tuple[SampleRef, ...]) -> tuple[SampleRef, ...]:
        """Labels are part of a unit only where the probe reads them."""
        return samples if self.cls.labelled else unlabelled(samples)


def wanted_of(config: RunConfig, registry: Registry) -> dict[str, list[Wanted]]:
    """Each probe with each combination of its parameters, in order, for each model.

    Raises:
        UsageError: If there is no such probe or parameter, if two are the same, or if an entry of the configuration has
            no meaning for any of them; with its line where it comes from a run file.
        PluginError: If a probe does not say how many samples, units or references it takes.
    """
    for number, request in enumerate(config.probes):
        with config.naming("probes", number, "name"):
            registry.probe(request.name)
    alike = _of_model(config, registry, "")
    found = {}
    for model in dict.fromkeys(config.models):
        _check_table(config, model)
        found[model] = _of_model(config, registry, model) if config.for_model(model).set else alike
    every = [one for of_model in found.values() for one in of_model]
    _check_pairs(config, every)
    _check_stops(config, every)
    return found


def _of_model(config: RunConfig, registry: Registry, model: str) -> list[Wanted]:
    """What is wanted of a model; of one without a table where it is empty."""
    found: list[Wanted] = []
    places: dict[tuple[str, str], int] = {}
    for number, request in enumerate(config.probes):
        cls, _ = registry.probe(request.name)
        for settings in request.settings():
            one = _wanted(cls, request, settings, config, number, model)
            first = places.setdefault((cls.name, one.params), number)
            if any((other.cls, other.params) == (cls, one.params) for other in found):
                if config.for_model(model).set.get(cls.name):
                    raise _twice_with_a_table(config, one, model)
                raise _twice(config, one, first, number)
            found.append(one)
    return found


def _wanted(
    cls: type[Probe[Any]], request: ProbeRequest, settings: dict[str, Any], config: RunConfig, number: int, model: str
) -> Wanted:
    own = config.for_model(model).set.get(request.name, {})

    def where(place: Place) -> str:
        if place and place[0] in own:
            named = config.at(*config.place_of(model), "set", request.name, *place)
        else:
            table = "grid" if place and place[0] in request.grid else "set"
            named = config.at("probes", number, table, *place)
        return f"{named}, probe {cls.name!r}" if named is not None else f"--set for probe {cls.name!r}"

    params = probe_params(cls, {**settings, **own}, where)
    return Wanted(
        cls,
        request,
        contract.stored_params(cls, params),
        contract.arity_of(cls, params),
        contract.batch_of(cls, params),
        contract.references_of(cls, params),
    )


def _check_table(config: RunConfig, model: str) -> None:
    """Refuse parameters in the table of a model that no probe of the run takes from there."""
    for probe, settings in config.for_model(model).set.items():
        requests = [request for request in config.probes if request.name == probe]
        place = (*config.place_of(model), "set", probe)
        if not requests:
            with config.naming(*place):
                raise UsageError(
                    f"the table of {model!r} sets parameters of {probe!r}, which does not run",
                    expected=f"a probe of this run: {', '.join(dict.fromkeys(one.name for one in config.probes))}",
                    got=probe,
                    hint="leave it out of the table, or add the probe",
                )
        for key in settings:
            if any(key in request.grid for request in requests):
                with config.naming(*place, key):
                    raise UsageError(
                        f"the table of {model!r} sets {key}, which has several values in the grid of probe {probe!r}",
                        expected="a parameter in the table of a model or in a grid, not in both",
                        got=settings[key],
                        hint="leave it out of one of the two",
                    )


def _twice_with_a_table(config: RunConfig, one: Wanted, model: str) -> UsageError:
    place = (*config.place_of(model), "set", one.cls.name)
    here = config.at(*place)
    what = f"with these parameters, two entries of probe {one.cls.name!r} are the same on {model!r}"
    return UsageError(
        f"{here}: {place_text(place)}: {what}" if here else what,
        expected="each combination of a probe and its parameters once on each model",
        got=one.params,
        hint="set what does not make them equal, or leave one of them out",
    )


def _twice(config: RunConfig, one: Wanted, first: int, second: int) -> UsageError:
    there = config.at("probes", first)
    place: Place = ("probes", second, "grid") if first == second else ("probes", second)
    here = config.at(*place)
    if first == second:
        what = f"grid gives probe {one.cls.name!r} equal parameters twice"
        hint = "values that the probe takes for the same belong there once"
    else:
        what = f"probe {one.cls.name!r} stands twice with equal parameters"
        hint = "leave one out, or set another parameter" + (f"; the first one: {there}" if there else "")
    return UsageError(
        f"{here}: {place_text(place)}: {what}" if here else what,
        expected="each combination of a probe and its parameters once",
        got=one.params,
        hint=hint,
    )


def _check_pairs(config: RunConfig, found: list[Wanted]) -> None:
    names = ", ".join(dict.fromkeys(one.cls.name for one in found))
    pairs = any(one.arity == "pair" for one in found)
    if config.pairing != "any" and not pairs:
        with config.naming("pairing"):
            raise UsageError(
                f"--pairing {config.pairing} has no meaning here: no probe of this run takes pairs",
                expected="a probe of an original and a target",
                got=names,
                hint="leave --pairing out",
            )
    if config.targets is not None and not pairs and not any(one.references for one in found):
        with config.naming("targets"):
            raise UsageError(
                f"--targets {config.targets} has no meaning here: no probe of this run takes targets or references",
                expected="a probe of an original and a target, or one with references",
                got=names,
                hint="leave --targets out",
            )


def _check_stops(config: RunConfig, found: list[Wanted]) -> None:
    for number, rule in enumerate(config.stop):
        if any(one.cls.name == rule.probe and one.arity == "set" for one in found):
            with config.naming("stop", number, "scalar"):
                raise UsageError(
                    f"stop: {rule.scalar!r} cannot end an image set: probe {rule.probe!r} takes a set as one unit",
                    expected="a scalar of a probe whose units are images or pairs",
                    got=rule.scalar,
                    hint="leave this rule out, or limit the images",
                )
