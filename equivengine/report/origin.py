"""What the units of a run were made with: a name, and all values that occur."""

from __future__ import annotations

import json
from collections.abc import Sequence

from equivengine.report.tallies import Texts
from equivengine.store.run import UnitRecord

#: Values of one fact that a page writes out.
SHOWN = 12


class Origin:
    """Collects provenance, one record after the other."""

    def __init__(self) -> None:
        self._facts: dict[str, Texts] = {}
        self._started = ""
        self._seconds = 0.0
        self._units = 0

    def take(self, record: UnitRecord) -> None:
        """Take in the provenance of one unit."""
        found, unit = record.provenance, record.unit
        commit = found.get("git_commit")
        self._note("equivengine", f"{found.get('equivengine', '?')}" + (f", commit {commit[:12]}" if commit else ""))
        self._note("device", found.get("device", {}).get("name"))
        self._note("libraries", ", ".join(f"{name} {text}" for name, text in found.get("libraries", {}).items()))
        self._note("python", found.get("python"))
        self._note("platform", found.get("platform"))
        extension = found.get("extension", {})
        built = extension.get("facts", {})
        self._note(
            "compiled extension",
            f"in use, instruction set {built.get('isa_chosen', '?')}"
            if extension.get("loaded")
            else f"not in use: {next(iter(str(extension.get('reason', '')).splitlines()), '')}",
        )
        for operation, paths in found.get("operations", {}).items():
            self._note("kernels", f"{operation}: {', '.join(paths)}")
        self._note("precision", unit.precision)
        self._note("seed", unit.seed)
        self._note("model", f"{unit.model}, weights sha256 {unit.weights_digest}")
        self._note("probe", f"{unit.probe}, version {unit.probe_version}, {_settings(unit.params)}")
        for role, plugin in found.get("plugins", {}).items():
            words = " ".join(str(plugin.get(key, "")) for key in ("name", "distribution", "version"))
            self._note(f"plugin ({role})", words)
        started = str(found.get("started", ""))
        self._started = min(self._started, started) if self._units else started
        self._seconds += float(found.get("seconds", 0))
        self._units += 1

    def facts(self) -> list[tuple[str, Sequence[str]]]:
        """Each fact with its values; of many, the first and how many more."""
        told: list[tuple[str, Sequence[str]]] = []
        for name, texts in self._facts.items():
            values = list(texts)
            left = len(values) - SHOWN
            more = f"and {left} more" if not texts.others else f"and more than {left}"
            told.append((name, [*values[:SHOWN], *([more] if left > 0 else [])]))
        if self._units:
            told.append(("first unit started", [self._started]))
            told.append(("seconds of all units together", [f"{self._seconds:,.1f}"]))
        return told

    def _note(self, name: str, value: object) -> None:
        if value not in (None, "", {}, []):
            self._facts.setdefault(name, Texts()).add(str(value))


def _settings(params: str) -> str:
    return ", ".join(f"{name} = {json.dumps(value)}" for name, value in json.loads(params).items())
