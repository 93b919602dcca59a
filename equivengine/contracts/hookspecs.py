"""The hooks. Each docstring's first line says when the hook fires; `docs/hooks.md` shows every one in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from equivengine.contracts.dataset import Dataset
    from equivengine.contracts.executor import Executor
    from equivengine.contracts.model import Backend
    from equivengine.contracts.probe import Probe
    from equivengine.contracts.unit import Unit, UnitOutcome

PROJECT = "equivengine"
hookspec = pluggy.HookspecMarker(PROJECT)
#: Marks the functions of a plugin's module that are hooks.
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def equivengine_register_backends() -> list[type[Backend]]:  # type: ignore[empty-body]
    """Fires once, when the registry loads the plugin: return the `Backend` classes that it provides."""


@hookspec
def equivengine_register_probes() -> list[type[Probe[Any]]]:  # type: ignore[empty-body]
    """Fires once, when the registry loads the plugin: return the `Probe` classes that it provides."""


@hookspec
def equivengine_register_datasets() -> list[type[Dataset]]:  # type: ignore[empty-body]
    """Fires once, when the registry loads the plugin: return the `Dataset` classes that it provides."""


@hookspec
def equivengine_register_executors() -> list[type[Executor]]:  # type: ignore[empty-body]
    """Fires once, when the registry loads the plugin: return the `Executor` classes that it provides."""


@hookspec
def equivengine_run_started(run_directory: str, unit_count: int, published: int) -> None:
    """Fires in the parent process before the first unit runs: where the run is, how many units, how many done."""


@hookspec
def equivengine_unit_finished(unit: Unit, outcome: UnitOutcome) -> None:
    """Fires in the parent process after each unit: published, skipped or failed."""


@hookspec
def equivengine_run_finished(run_directory: str, outcomes: dict[str, int]) -> None:
    """Fires in the parent process after consolidation: counts of published, skipped and failed units."""
