"""Finds and loads plugins, one at a time, so that a broken one costs only itself.

Loading is our own loop over entry points: pluggy's `load_setuptools_entrypoints` stops at the first bad one, silently
skips a second distribution's plugin of the same name, and calls hooks of all plugins at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

import pluggy

from equivengine.contracts import hookspecs
from equivengine.contracts.dataset import Dataset
from equivengine.contracts.executor import Executor
from equivengine.contracts.model import Backend
from equivengine.contracts.probe import Probe
from equivengine.errors import PluginError, UsageError
from equivengine.runtime import contract
from equivengine.runtime.records import PluginRecord, Shelf, suggest

__all__ = ["GROUP", "PluginRecord", "Registry", "Shelf", "from_environment", "installed", "suggest"]

GROUP = "equivengine"
VARIABLE = "EQUIVENGINE_PLUGINS"

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Registry:
    """All plugins and what they provide.

    Attributes:
        records: One for each entry point, sorted by name, whatever became of it.
    """

    def __init__(self) -> None:
        self.records: list[PluginRecord] = []
        self.probes: Shelf[Probe[Any]] = Shelf("probe", Probe)
        self.backends: Shelf[Backend] = Shelf("model family", Backend)
        self.datasets: Shelf[Dataset] = Shelf("image set", Dataset)
        self.executors: Shelf[Executor] = Shelf("executor", Executor)
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)

    @classmethod
    def load(
        cls,
        *,
        only: Iterable[str] | None = None,
        blocked: Iterable[str] = (),
        entries: Iterable[EntryPoint] | None = None,
    ) -> Registry:
        """Load every plugin that is installed and wanted.

        Args:
            only: Names to load; all when None.
            blocked: Names to leave out.
            entries: Entry points; those installed when None.

        Raises:
            UsageError: If ``only`` or ``blocked`` names a plugin that is not installed.
        """
        registry = cls()
        found = _sorted(entry_points(group=GROUP) if entries is None else entries)
        names = {entry.name for entry in found}
        wanted = names if only is None else set(only)
        blocked = set(blocked)
        check_names(blocked, names, "--no-plugin")
        check_names(wanted, names, VARIABLE)
        for entry in found:
            record = PluginRecord.of(entry)
            registry.records.append(record)
            twins = [e for e in found if e.name == entry.name and e is not entry]
            if entry.name in blocked:
                record.reason = "left out by --no-plugin"
            elif entry.name not in wanted:
                record.reason = f"left out by {VARIABLE}"
            elif twins:
                record.state = "failed"
                claims = "; ".join(PluginRecord.of(twin).owner for twin in twins)
                record.reason = f"the name {entry.name!r} is also claimed by {claims}; uninstall one of them"
            else:
                registry._load_one(entry, record)
            _log.info("%s: %s", record.owner, record.reason or record.state)
        return registry

    def hook(self, name: str, **arguments: object) -> list[str]:
        """Call an observing hook of every loaded plugin, each alone. Returns what went wrong, one line for each."""
        problems = []
        observers = {found.plugin_name for found in getattr(self._manager.hook, name).get_hookimpls()}
        for record in self.records:
            if record.state != "loaded" or record.name not in observers:
                continue
            try:
                with _put_back(record):
                    self._alone(record.name, name)(**arguments)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # an observer may call sys.exit; it must not end the run
                problems.append(f"{record.owner} failed in {name}: {contract.one_line(error)}")
        return problems

    # -- lookups that explain themselves ------------------------------------------------------------------------------

    def probe(self, name: str) -> tuple[type[Probe[Any]], PluginRecord]:
        """The probe of that name. Raises `UsageError` naming close matches."""
        return self._get(self.probes, name, "equivengine ls probes")

    def backend(self, scheme: str) -> tuple[type[Backend], PluginRecord]:
        """The backend of that URI scheme. Raises `UsageError` naming close matches."""
        return self._get(self.backends, scheme, "equivengine ls models")

    def dataset(self, scheme: str) -> tuple[type[Dataset], PluginRecord]:
        """The image set of that URI scheme. Raises `UsageError` naming close matches."""
        return self._get(self.datasets, scheme, "equivengine ls datasets")

    def executor(self, name: str) -> tuple[type[Executor], PluginRecord]:
        """The executor of that name. Raises `UsageError` naming close matches."""
        return self._get(self.executors, name, "equivengine ls executors")

    def _get(self, shelf: Shelf[T], name: str, listing: str) -> tuple[type[T], PluginRecord]:
        found = shelf.find(name)
        if found is not None:
            return found
        absent = [record for record in self.records if record.state != "loaded"]
        for record in absent:
            if record.name == name:
                raise (UsageError if record.state == "blocked" else PluginError)(
                    f"{shelf.kind} {name!r} is not available: the plugin of that name is not loaded",
                    got=record.reason,
                    hint="load it" if record.state == "blocked" else "see `equivengine doctor`",
                )
        hint = f"see `{listing}`"
        if absent:
            hint += "; not loaded: " + ", ".join(f"{record.name} ({record.state})" for record in absent[:5])
            hint += f" and {len(absent) - 5} more, see `equivengine doctor`" if len(absent) > 5 else ""
        meant = shelf.address_like(name)
        expected = f"perhaps {meant!r}" if meant else suggest(name, shelf.names())
        raise UsageError(f"no {shelf.kind} is called {name!r}", expected=expected, hint=hint)

    # -- loading one --------------------------------------------------------------------------------------------------

    def _load_one(self, entry: EntryPoint, record: PluginRecord) -> None:
        start = time.perf_counter()
        registered = False
        try:
            with _put_back(record):
                module = entry.load()
            contract.check_api(module)
            contract.check_hooks(module)
            self._manager.register(module, name=entry.name)
            registered = True
            shelves: dict[str, Shelf[Any]] = {
                "backends": self.backends,
                "probes": self.probes,
                "datasets": self.datasets,
                "executors": self.executors,
            }
            provided = {kind: self._classes(record, kind, shelf) for kind, shelf in shelves.items()}
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may call sys.exit, or raise anything
            if registered:
                self._manager.unregister(name=entry.name)
            record.state, record.reason = contract.why(error, entry.dist)
        else:
            record.state = "loaded"
            record.provides = {kind: [cls.name for cls in classes] for kind, classes in provided.items() if classes}
            for kind, classes in provided.items():
                for cls in classes:
                    shelves[kind].add(cls, record)
        finally:
            record.seconds = time.perf_counter() - start

    def _classes(self, record: PluginRecord, kind: str, shelf: Shelf[Any]) -> list[type[Any]]:
        hook = f"equivengine_register_{kind}"
        classes: dict[str, type[Any]] = {}
        results = self._alone(record.name, hook)()
        if not results and hasattr(self._manager.get_plugin(record.name), hook):
            results = [None]  # which pluggy leaves out
        for returned in results:
            if not isinstance(returned, list | tuple):
                raise PluginError(f"{hook} returned no list", expected="a list of classes", got=repr(returned))
            for cls in returned:
                contract.check_class(cls, shelf)
                if cls.name in classes:
                    raise PluginError(
                        f"{hook} returned two classes of the name {cls.name!r}", hint="rename one of them"
                    )
                classes[cls.name] = cls
        return list(classes.values())

    def _alone(self, plugin: str, hook: str) -> Any:
        others = [p for name, p in self._manager.list_name_plugin() if name != plugin and p is not None]
        return self._manager.subset_hook_caller(hook, remove_plugins=others)


def _put_back(record: PluginRecord) -> contextlib.AbstractContextManager[None]:
    """Leave nothing of a plugin behind that holds for the whole process; where torch is not there yet, nothing does."""
    if "torch" not in sys.modules:
        return contextlib.nullcontext()
    from equivengine.runtime import switches

    return switches.put_back(record.owner)


def from_environment(blocked: Iterable[str] = (), environ: Mapping[str, str] = os.environ) -> Registry:
    """Load plugins as EQUIVENGINE_PLUGINS says (unset: all; empty: none; ``a,b``: only those)."""
    value = environ.get(VARIABLE)
    only = None if value is None else [name.strip() for name in value.split(",") if name.strip()]
    return Registry.load(only=only, blocked=blocked)


def installed(blocked: Iterable[str] = ()) -> list[PluginRecord]:
    """What the metadata of installed distributions says, without importing any plugin.

    Raises:
        UsageError: If ``blocked`` names a plugin that is not installed.
    """
    records = [PluginRecord.of(entry) for entry in _sorted(entry_points(group=GROUP))]
    check_names(blocked, {record.name for record in records}, "--no-plugin")
    return records


def check_names(names: Iterable[str], known: Iterable[str], where: str) -> None:
    """Refuse names of plugins that are not installed.

    Raises:
        UsageError: Naming the first one and close matches.
    """
    for name in sorted(set(names) - set(known)):
        raise UsageError(
            f"{where}: no plugin is called {name!r}",
            expected=suggest(name, known),
            hint="see `equivengine ls plugins`",
        )


def _sorted(entries: Iterable[EntryPoint]) -> list[EntryPoint]:
    return sorted(entries, key=lambda entry: (entry.name, entry.value))
