"""Finds and loads plugins, one at a time, so that a broken one costs only itself.

Loading is our own loop over entry points: pluggy's `load_setuptools_entrypoints` stops at the first bad one, silently
skips a second distribution's plugin of the same name, and calls hooks of all plugins at once.
"""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import Any, Generic, Literal, TypeVar

import pluggy

from equivengine import API_VERSION
from equivengine.contracts import hookspecs
from equivengine.contracts.dataset import Dataset
from equivengine.contracts.executor import Executor
from equivengine.contracts.model import Backend
from equivengine.contracts.probe import Params, Probe
from equivengine.errors import PluginError, UsageError

GROUP = "equivengine"

State = Literal["loaded", "failed", "needs", "blocked"]


@dataclass
class PluginRecord:
    """What is known of one plugin.

    Attributes:
        name: Entry-point name.
        module: Import path.
        distribution: Name of the distribution that brings it.
        version: Version of that distribution.
        state: "loaded", "failed", "needs" (an optional package is missing) or "blocked" (by the user).
        reason: Why it is not loaded.
        seconds: Time to import and register.
        provides: Kind ("probes") -> names.
    """

    name: str
    module: str
    distribution: str
    version: str
    state: State = "blocked"
    reason: str = ""
    seconds: float = 0.0
    provides: dict[str, list[str]] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        """For messages: plugin, module and distribution."""
        return f"plugin {self.name!r} ({self.module}, from {self.distribution} {self.version})"


T = TypeVar("T")


class Shelf(Generic[T]):
    """The classes of one kind (probes, backends, ...) by name, with who brought them."""

    def __init__(self, kind: str, base: type[T]) -> None:
        self.kind = kind
        self.base = base
        self._classes: dict[str, list[tuple[type[T], PluginRecord]]] = {}

    def add(self, cls: type[T], owner: PluginRecord) -> None:
        """Shelve a class; a second one of the same name makes the name ambiguous, not the first one wrong."""
        self._classes.setdefault(cls.name, []).append((cls, owner))  # type: ignore[attr-defined]

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._classes)

    def collisions(self) -> dict[str, list[PluginRecord]]:
        """Names that more than one plugin claims."""
        return {name: [o for _, o in found] for name, found in self._classes.items() if len(found) > 1}

    def find(self, name: str) -> tuple[type[T], PluginRecord] | None:
        """The class of that name and its owner, or None.

        Raises:
            PluginError: If two plugins claim the name.
        """
        found = self._classes.get(name)
        if found is None:
            return None
        if len(found) > 1:
            raise PluginError(
                f"{self.kind} {name!r} is claimed by two plugins",
                expected="one owner",
                got="; ".join(owner.owner for _, owner in found),
                hint=f"leave one out: --no-plugin {found[-1][1].name}",
            )
        return found[0]


class Registry:
    """All plugins and what they provide.

    Attributes:
        records: One for each entry point, sorted by name, whatever became of it.
    """

    def __init__(self) -> None:
        self.records: list[PluginRecord] = []
        self.probes: Shelf[Probe[Any]] = Shelf("probe", Probe)
        self.backends: Shelf[Backend] = Shelf("backend", Backend)
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
        found = sorted(entry_points(group=GROUP) if entries is None else entries, key=lambda e: (e.name, e.value))
        names = {entry.name for entry in found}
        wanted = names if only is None else set(only)
        blocked = set(blocked)
        for name in sorted((wanted | blocked) - names):
            raise UsageError(f"no plugin is called {name!r}", expected=suggest(name, names))
        for entry in found:
            record = _record(entry)
            registry.records.append(record)
            twins = [e for e in found if e.name == entry.name and e is not entry]
            if entry.name in blocked or entry.name not in wanted:
                record.reason = "blocked by --no-plugin or EQUIVENGINE_PLUGINS"
            elif twins:
                record.state = "failed"
                record.reason = "; ".join(
                    f"the name {entry.name!r} is also claimed by {_record(twin).owner}" for twin in twins
                )
            else:
                registry._load_one(entry, record)
        return registry

    def hook(self, name: str, **arguments: object) -> list[str]:
        """Call an observing hook of every loaded plugin, each alone. Returns what went wrong, one line for each."""
        problems = []
        for record in self.records:
            if record.state != "loaded":
                continue
            try:
                self._alone(record.name, name)(**arguments)
            except Exception as error:
                problems.append(f"{record.owner} failed in {name}: {type(error).__name__}: {error}")
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
        broken = [r for r in self.records if r.state in ("failed", "needs") and r.name == name]
        if broken:
            raise PluginError(
                f"{shelf.kind} {name!r} is not available: its plugin did not load",
                got=broken[0].reason,
                hint="equivengine doctor",
            )
        raise UsageError(
            f"no {shelf.kind} is called {name!r}", expected=suggest(name, shelf.names()), hint=f"see `{listing}`"
        )

    # -- loading one --------------------------------------------------------------------------------------------------

    def _load_one(self, entry: EntryPoint, record: PluginRecord) -> None:
        start = time.perf_counter()
        registered = False
        shelved: list[Callable[[], None]] = []
        try:
            module = entry.load()
            _check_api(module)
            _check_hooks(module, self._manager)
            self._manager.register(module, name=entry.name)
            registered = True
            for kind, shelf in (
                ("backends", self.backends),
                ("probes", self.probes),
                ("datasets", self.datasets),
                ("executors", self.executors),
            ):
                for cls in self._classes(record, kind, shelf):
                    record.provides.setdefault(kind, []).append(cls.name)
                    shelved.append(lambda shelf=shelf, cls=cls: shelf.add(cls, record))  # type: ignore[misc]
            record.state = "loaded"
            for put in shelved:
                put()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may call sys.exit, or raise anything
            if registered:
                self._manager.unregister(name=entry.name)
            record.provides = {}
            record.state, record.reason = _why(error, entry.dist)
        finally:
            record.seconds = time.perf_counter() - start

    def _classes(self, record: PluginRecord, kind: str, shelf: Shelf[Any]) -> list[type[Any]]:
        classes: list[type[Any]] = []
        for returned in self._alone(record.name, f"equivengine_register_{kind}")():
            if not isinstance(returned, list | tuple):
                raise PluginError(
                    f"equivengine_register_{kind} returned no list", expected="a list of classes", got=repr(returned)
                )
            for cls in returned:
                _check_class(cls, shelf)
                classes.append(cls)
        return classes

    def _alone(self, plugin: str, hook: str) -> Any:
        others = [p for name, p in self._manager.list_name_plugin() if name != plugin and p is not None]
        return self._manager.subset_hook_caller(hook, remove_plugins=others)


def suggest(name: str, known: Iterable[str]) -> str:
    """The known names closest to ``name``, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return ("perhaps " + " or ".join(map(repr, close))) if close else (", ".join(known) or "none is installed")


def from_environment(blocked: Iterable[str] = (), environ: Mapping[str, str] = os.environ) -> Registry:
    """Load plugins as EQUIVENGINE_PLUGINS says (unset: all; empty: none; ``a,b``: only those)."""
    value = environ.get("EQUIVENGINE_PLUGINS")
    only = None if value is None else [name.strip() for name in value.split(",") if name.strip()]
    return Registry.load(only=only, blocked=blocked)


def installed() -> list[PluginRecord]:
    """What the metadata of installed distributions says, without importing any plugin."""
    return [_record(entry) for entry in sorted(entry_points(group=GROUP), key=lambda e: (e.name, e.value))]


def _record(entry: EntryPoint) -> PluginRecord:
    dist = entry.dist
    return PluginRecord(
        name=entry.name,
        module=entry.value,
        distribution=dist.name if dist is not None else "unknown distribution",
        version=dist.version if dist is not None else "",
    )


def _check_api(module: object) -> None:
    declared = getattr(module, "EQUIVENGINE_API", None)
    major, minor = API_VERSION
    fits = (
        isinstance(declared, tuple)
        and len(declared) == 2
        and all(isinstance(part, int) for part in declared)
        and declared[0] == major
        and declared[1] <= minor
    )
    if not fits:
        raise PluginError(
            "the plugin was not written for this version of the plugin contract",
            expected=f"EQUIVENGINE_API = ({major}, n) with n <= {minor} in its module",
            got="nothing" if declared is None else repr(declared),
        )


def _check_hooks(module: object, manager: pluggy.PluginManager) -> None:
    marked = 0
    for name in dir(module):
        member = getattr(module, name)
        options = getattr(member, f"{hookspecs.PROJECT}_impl", None)
        if name.startswith("equivengine_") and callable(member) and options is None:
            raise PluginError(f"{name} lacks its marker", hint="put @equivengine.hookimpl above it")
        if isinstance(options, dict):
            marked += 1
            target = options.get("specname") or name
            if not hasattr(hookspecs, target):
                known = [hook for hook in dir(hookspecs) if hook.startswith("equivengine_")]
                raise PluginError(f"no hook is called {target!r}", expected=suggest(target, known))
    if not marked:
        raise PluginError(
            "the plugin implements no hook",
            expected="at least one function marked with @equivengine.hookimpl, such as equivengine_register_probes",
            got="none",
        )


def _check_class(cls: object, shelf: Shelf[Any]) -> None:
    if not (isinstance(cls, type) and issubclass(cls, shelf.base)):
        raise PluginError(
            f"a {shelf.kind} is of a wrong type", expected=f"a subclass of equivengine.{shelf.base.__name__}", got=cls
        )
    name = getattr(cls, "name", None)
    if not (isinstance(name, str) and name and not any(c in name for c in " :?/\\\n\t")):
        raise PluginError(
            f"{cls.__name__} has no usable name",
            expected="a class attribute `name` without spaces, colons and slashes",
            got=repr(name),
        )
    if issubclass(cls, Probe):
        if not (isinstance(cls.Params, type) and issubclass(cls.Params, Params)):
            raise PluginError(f"{cls.__name__}.Params is no subclass of equivengine.Params", got=cls.Params)
        if not isinstance(getattr(cls, "version", None), str):
            raise PluginError(f"{cls.__name__} has no version", expected='a class attribute `version`, such as "1"')
        if cls.arity not in ("one", "pair", "set"):
            raise PluginError(f"{cls.__name__}.arity is unknown", expected="one, pair or set", got=cls.arity)


def _why(error: BaseException, dist: Distribution | None) -> tuple[State, str]:
    """State and reason for a plugin that did not load."""
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("equivengine"):
        package = error.name.partition(".")[0]
        extra = _extra_for(package, dist)
        if extra:
            return "needs", f"needs {extra} (the package {package!r} is not installed)"
    text = str(error).replace("\n", "; ")
    return "failed", f"{type(error).__name__}: {text}" if not isinstance(error, PluginError) else text


def _extra_for(package: str, dist: Distribution | None) -> str | None:
    """``"equivengine[hf]"`` if the distribution declares the package under an extra."""
    wanted = package.replace("_", "-").lower()
    for requirement in (dist.requires or []) if dist is not None else []:
        name, _, marker = requirement.partition(";")
        bare = "".join(c if c.isalnum() or c in "-_." else " " for c in name).split()
        if bare and bare[0].replace("_", "-").lower() == wanted and "extra ==" in marker and dist is not None:
            extra = marker.split("extra ==")[1].strip(" '\")")
            return f"{dist.name}[{extra}]"
    return None
