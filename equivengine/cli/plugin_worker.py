"""The process in which ``equivengine plugin check`` runs a plugin: it may exit, hang or crash, and costs only itself.

It is started as ``python -m equivengine.cli.plugin_worker DESCRIPTOR REQUEST`` and writes events, one JSON document
on a line, to that descriptor: ``begin`` before each requirement, ``verdict`` after it, and ``end``.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import entry_points
from typing import Any

from equivengine.contracts.uri import URI
from equivengine.errors import EngineError, UsageError
from equivengine.runtime.registry import GROUP, PluginRecord, Registry
from equivengine.testing.verdict import Verdict, examine, failure

Emit = Callable[[dict[str, Any]], None]

#: Words for kinds, one of each.
ONE = {"backends": "backend", "probes": "probe", "datasets": "image set", "executors": "executor"}

LOADS = ("plugin_loads", "the plugin loads")
NAMES = ("names_are_free", "no other plugin claims its names")


@dataclass(frozen=True)
class Request:
    """What is to be checked. Strings only, since it crosses processes.

    Attributes:
        plugin: Entry-point name.
        model: Model address: of the backend under test, or what a probe is tried on.
        images: Image address: where samples come from, or of the image set under test.
        settings: Parameters of the probe, KEY=VALUE.
        done: Requirements that need no test any more, as "section/name", or "section/*" for all of a section.
    """

    plugin: str
    model: str | None = None
    images: str | None = None
    settings: tuple[str, ...] = ()
    done: tuple[str, ...] = field(default=())

    def to_json(self) -> str:
        """One line; `from_json` reverses it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Rebuild a request."""
        data = json.loads(text)
        return cls(**data | {"settings": tuple(data["settings"]), "done": tuple(data["done"])})


def check(request: Request, emit: Emit) -> None:
    """Test everything about a plugin that is installed; verdicts go to ``emit``."""
    alone = _load(request, emit)
    (record,) = alone.records
    if record.state == "loaded":
        _names(request, record, emit)
        for kind, names in record.provides.items():
            for name in names:
                _check_class(request, alone, kind, name, emit)
    emit({"event": "end"})


def _load(request: Request, emit: Emit) -> Registry:
    """Load the plugin and no other: what happens then is its own fault."""
    section = {"title": f"plugin {request.plugin!r}", "section": "plugin"}
    emit({"event": "begin", **section, "name": LOADS[0], "sentence": LOADS[1]})
    entries = sorted((e for e in entry_points(group=GROUP) if e.name == request.plugin), key=lambda e: e.value)
    alone = Registry.load(entries=entries[:1])
    (record,) = alone.records
    if record.state == "loaded":
        provides = "; ".join(f"{kind} {', '.join(names)}" for kind, names in record.provides.items())
        verdict = Verdict(*LOADS, "passed", remark=provides or "it provides nothing but observing hooks")
    else:
        advice = {"needs": f"pip install: {record.reason}"}.get(record.state, "correct the module, and check again")
        verdict = Verdict(
            *LOADS, **failure("the plugin does not load", "a plugin that registers", record.reason, advice)
        )
    if f"plugin/{LOADS[0]}" not in request.done:
        emit({"event": "verdict", **section, "verdict": verdict.to_json()})
    return alone


def _names(request: Request, record: PluginRecord, emit: Emit) -> None:
    """Names that several plugins claim are of no use to anyone."""
    if f"plugin/{NAMES[0]}" in request.done:
        return
    section = {"title": f"plugin {request.plugin!r}", "section": "plugin"}
    emit({"event": "begin", **section, "name": NAMES[0], "sentence": NAMES[1]})
    everything = Registry.load()
    found = next(other for other in everything.records if (other.name, other.module) == (record.name, record.module))
    shelves: dict[str, Any] = {
        "backends": everything.backends,
        "probes": everything.probes,
        "datasets": everything.datasets,
        "executors": everything.executors,
    }
    claims = [
        f"{ONE[kind]} {name!r} is also claimed by "
        + "; ".join(owner.owner for owner in shelves[kind].collisions()[name] if owner.name != record.name)
        for kind, names in record.provides.items()
        for name in names
        if name in shelves[kind].collisions()
    ]
    if found.state == "failed":  # two distributions bring a plugin of this name
        claims.append(found.reason)
    verdict = Verdict(*NAMES, "passed")
    if claims:
        problem = failure(
            "a name is taken", "names of its own", "; ".join(claims), "choose another name, or uninstall one"
        )
        verdict = Verdict(*NAMES, **problem)
    emit({"event": "verdict", **section, "verdict": verdict.to_json()})


def _check_class(request: Request, alone: Registry, kind: str, name: str, emit: Emit) -> None:
    """Everything about one class that the plugin provides."""
    from equivengine.testing.contract import REQUIREMENTS, expected_failures_of

    section = f"{kind}/{name}"
    if kind not in REQUIREMENTS or f"{section}/*" in request.done:
        return
    requirements = [r for r in REQUIREMENTS[kind] if f"{section}/{r.name}" not in request.done]
    if not requirements:
        return
    title = f"{ONE[kind]} {name!r}"
    emit({"event": "begin", "title": title, "section": section, "name": "", "sentence": "it is made ready"})
    try:
        subject, where = _subject(request, alone, kind, name)
        expected = expected_failures_of(subject.module)
    except EngineError as error:
        problem = failure(error.what, error.expected, error.got, error.hint)
        verdict = Verdict("ready", "it can be made ready for the check", **problem)
        emit({"event": "verdict", "title": title, "section": section, "verdict": verdict.to_json()})
        return
    for requirement in requirements:
        head = {"title": f"{title}{where}", "section": section}
        emit({"event": "begin", **head, "name": requirement.name, "sentence": requirement.sentence})
        emit({"event": "verdict", **head, "verdict": examine(requirement, subject, expected).to_json()})


def _subject(request: Request, alone: Registry, kind: str, name: str) -> tuple[Any, str]:
    """What is tested, and on what, for the heading.

    Raises:
        EngineError: If what the user named to try it on cannot be had.
    """
    shelf: Any = {"backends": alone.backends, "probes": alone.probes, "datasets": alone.datasets}[kind]
    cls, owner = shelf.find(name)
    module = owner.module.partition(":")[0]
    if kind == "backends":
        from equivengine.testing.encoder_subject import EncoderSubject

        raw = _raw(request.images) if request.images else None
        model = EncoderSubject(cls, _of_scheme(name, request.model), module=module, raw=raw)
        return model, f", on {model.uri}"
    if kind == "datasets":
        from equivengine.testing.dataset_requirements import DatasetSubject

        opened = DatasetSubject(cls, _of_scheme(name, request.images), module=module)
        return opened, f", on {opened.uri}"
    return _probe_subject(request, cls, module), f", on {request.model or 'a small reference encoder'}"


def _of_scheme(name: str, uri: str | None) -> str | None:
    return uri if uri and URI.parse(uri).scheme == name else None


def _raw(images: str) -> Callable[[], Any]:
    from equivengine.runtime.loading import load_images

    sample = load_images(images)[0]
    return lambda: sample.load()


def _probe_subject(request: Request, cls: type[Any], module: str) -> Any:
    from equivengine.runtime.config import parse_settings, probe_params
    from equivengine.runtime.loading import load_encoder, load_images
    from equivengine.testing.probe_subject import COUNTS, ProbeSubject

    params = probe_params(cls, parse_settings(request.settings)) if request.settings else None
    encoder = load_encoder(request.model, device="cpu") if request.model else None
    samples = None
    if request.images:
        if encoder is None:
            raise UsageError("--images needs a model that takes them", hint="pass --model URI too")
        images = load_images(request.images)
        samples = [encoder.preprocess(images[n].load()) for n in range(min(COUNTS["set"], len(images)))]
    return ProbeSubject(cls, encoder=encoder, samples=samples, params=params, module=module)


def _main() -> None:
    descriptor, request = int(sys.argv[1]), Request.from_json(sys.argv[2])
    faulthandler.enable()
    events = os.fdopen(descriptor, "w", encoding="utf-8")

    def emit(event: dict[str, Any]) -> None:
        events.write(json.dumps({**event, "at": time.time()}) + "\n")
        events.flush()

    check(request, emit)


if __name__ == "__main__":
    _main()
