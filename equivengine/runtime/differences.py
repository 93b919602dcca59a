"""What sets two plans apart, in a few lines: a run directory that holds another plan than the one of this command."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equivengine.contracts.unit import canonical_json
from equivengine.contracts.wording import counted, printable
from equivengine.errors import StoreError
from equivengine.runtime.plan import Plan
from equivengine.runtime.tables import PLACES
from equivengine.store.layout import StoredPlan

#: Lines that are shown, and characters of a value.
MOST_LINES, LONGEST = 5, 60


def told_apart(here: Plan, path: Path, stored: StoredPlan) -> list[str]:
    """`differences` from a plan that a run directory holds; empty where that cannot be read."""
    try:
        return differences(Plan.from_store(stored, path), here)
    except StoreError:
        return []


def differences(there: Plan, here: Plan) -> list[str]:
    """At most `MOST_LINES` lines, each such as ``"probe ldlc: directions 1000 there, 2000 here"``.

    Args:
        there: The plan that was there before.
        here: The plan that was made now.

    Returns:
        What differs, what was asked for before what came of it; empty if nothing does that is known.
    """
    found = [*_of_probes(there, here), *_of_configurations(there, here)]
    found = found or [*_of_models(there, here), *_of_samples(there, here)]
    if not found and there.units.ids == here.units.ids and there.batch_sizes != here.batch_sizes:
        found = ["how many units are computed together: probes or limits of memory have changed"]
    if len(found) > MOST_LINES:
        found = [*found[: MOST_LINES - 1], f"and {len(found) - MOST_LINES + 1} more"]
    return found


def _of_probes(there: Plan, here: Plan) -> list[str]:
    """Probes by name, then versions, then the parameters of those that stand once in both."""
    found = []
    before, after = _probes(there), _probes(here)
    if list(before) != list(after):
        found.append(_line("probes", ", ".join(before), ", ".join(after)))
    for name in (name for name in before if name in after):
        (old_version, old), (version, new) = before[name], after[name]
        if old_version != version:
            found.append(_line(f"probe {name}", f"version {old_version}", f"version {version}"))
        elif len(old) == len(new) == 1:
            found += _of_mappings(f"probe {name}: ", old[0], new[0])
        elif old != new:
            names = dict.fromkeys(key for one in (*old, *new) for key in one)
            differ = [key for key in names if len({canonical_json(one.get(key)) for one in (*old, *new)}) > 1]
            sets = (counted(len(some), "set of parameters", "sets of parameters") for some in (old, new))
            found.append(f"{_line(f'probe {name}', *sets)}, which differ in {', '.join(differ)}")
    return found


def _probes(plan: Plan) -> dict[str, tuple[str, list[Mapping[str, Any]]]]:
    """Version and parameters of each probe, in order."""
    found: dict[str, tuple[str, list[Mapping[str, Any]]]] = {}
    for group in plan.units.groups:
        unit = group.common
        known = found.setdefault(unit.probe, (unit.probe_version, []))[1]
        params = json.loads(unit.params)
        if params not in known:
            known.append(params)
    return found


def _of_configurations(there: Plan, here: Plan) -> list[str]:
    """All that is asked for beside probes. No part of a plan are places, and what a run is called."""
    others = PLACES | {"probes", "title", "description"}
    old, new = (plan.config.model_dump(mode="json", exclude=set(others)) for plan in (there, here))
    return _of_mappings("", old, new)


def _of_mappings(start: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [
        _line(f"{start}{name}", _text(old.get(name)), _text(new.get(name)), "" if start else ":")
        for name in dict.fromkeys((*old, *new))
        if old.get(name) != new.get(name)
    ]


def _of_models(there: Plan, here: Plan) -> list[str]:
    before, after = (
        {group.common.model: group.common.weights_digest for group in plan.units.groups} for plan in (there, here)
    )
    return [
        _line(f"weights of {model}", f"sha256 {before[model][:12]}", f"sha256 {after[model][:12]}")
        for model in before
        if after.get(model, before[model]) != before[model]
    ]


def _of_samples(there: Plan, here: Plan) -> list[str]:
    """Image sets that hold something else, with one image of each that does."""
    found = []
    before, after = _contents(there), _contents(here)
    for images in dict.fromkeys((*before, *after)):
        old, new = before.get(images, {}), after.get(images, {})
        gone, come = [one for one in old if one not in new], [one for one in new if one not in old]
        changed = [one for one in old if one in new and old[one] != new[one]]
        said = [
            f"{counted(len(ids), 'image')} {what} ({_text(ids[0])}{', ...' if len(ids) > 1 else ''})"
            for ids, what in (
                (changed, "with other content"),
                (gone, "gone or not drawn"),
                (come, "that were not there"),
            )
            if ids
        ]
        found += [f"images of {_text(images)}: {', '.join(said)}"] if said else []
    return found


def _contents(plan: Plan) -> dict[str, dict[str, tuple[str, str | None]]]:
    """Digest and label of each image, by image set and id."""
    found: dict[str, dict[str, tuple[str, str | None]]] = {}
    for sample in plan.units.samples:
        found.setdefault(sample.images, {})[sample.id] = (sample.digest, sample.label)
    return found


def _line(what: str, there: str, here: str, colon: str = ":") -> str:
    return f"{what}{colon} {there or 'none'} there, {here or 'none'} here"


def _text(value: object) -> str:
    """As people write it, on one line and not too long."""
    if value is None:
        return "none"
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        text = ", ".join(value)
    else:
        text = value if isinstance(value, str) else canonical_json(value)
    text = printable(text).replace("\n", "\\n")
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
