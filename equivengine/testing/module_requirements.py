"""Requirements on the module of a plugin, whatever it provides."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Protocol

import pluggy

from equivengine.contracts import hookspecs
from equivengine.contracts.conformity import check_api, check_hooks
from equivengine.contracts.uri import URI
from equivengine.errors import UsageError
from equivengine.testing.importing import import_facts
from equivengine.testing.verdict import Breach, Requirement

#: Characters of a summary, at most: it stands on one line of a listing.
MAX_SUMMARY = 120

#: Attribute of a plugin's module: names of requirements that it does not fulfill, with reasons.
EXPECTED_FAILURES = "EQUIVENGINE_EXPECTED_FAILURES"


class FromModule(Protocol):
    """A subject that knows which class is tested, and in which module its hooks stand."""

    kind: str  # "backends", "probes", "datasets"
    cls: type[Any]
    module: str


def loaded_module(subject: FromModule) -> ModuleType:
    """The module of a plugin."""
    return importlib.import_module(subject.module)


def declares_api(subject: FromModule) -> str:
    """EQUIVENGINE_API fits this engine."""
    module = loaded_module(subject)
    check_api(module)
    return f"EQUIVENGINE_API = {module.EQUIVENGINE_API}"


def registers(subject: FromModule) -> str:
    """The hook returns the class under test."""
    module = loaded_module(subject)
    check_hooks(module)
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module, name="plugin")
    manager.check_pending()
    hook = f"equivengine_register_{subject.kind}"
    found = [cls for returned in getattr(manager.hook, hook)() for cls in returned]
    if subject.cls not in found:
        raise Breach(
            f"{hook} does not return {subject.cls.__name__}",
            expected=f"{subject.cls.__name__} in the list",
            got=[getattr(cls, "__name__", repr(cls)) for cls in found] or "no class",
            hint=f"return [{subject.cls.__name__}] from {hook} in {subject.module}",
        )
    return ""


def imports_lightly(subject: FromModule) -> str:
    """No model library comes with the import of the module."""
    facts = import_facts(subject.module)
    if facts["error"]:
        raise Breach(
            f"{subject.module} cannot be imported in a process of its own",
            expected="an import without side effects",
            got=facts["error"],
            hint="look at what the module does outside of functions",
        )
    if facts["heavy"]:
        raise Breach(
            f"importing {subject.module} imports {', '.join(facts['heavy'])}",
            expected="no model library: every `equivengine` command imports every plugin",
            got=f"{facts['seconds']:.1f} s",
            hint="move these imports into the functions that need them",
        )
    return f"{facts['seconds']:.2f} s"


def imports_offline(subject: FromModule) -> str:
    """The import of the module needs no network."""
    facts = import_facts(subject.module)
    if facts["asked"]:
        raise Breach(
            f"importing {subject.module} reaches for the network",
            expected="no connection to another machine",
            got=facts["asked"][0],
            hint="download nothing when a module is imported",
        )
    return ""


def describes_itself(subject: FromModule) -> str:
    """Name, summary, examples."""
    cls = subject.cls
    summary = getattr(cls, "summary", "")
    if not (isinstance(summary, str) and summary.strip()):
        raise Breach(
            f"{cls.__name__} has no summary",
            expected="a class attribute `summary`, one line, which `equivengine ls` shows",
            got=repr(summary),
            hint='write, for example: summary = "an encoder of 8 x 8 grey images"',
        )
    if len(summary.splitlines()) != 1 or len(summary) > MAX_SUMMARY:
        raise Breach(
            f"the summary of {cls.__name__} does not fit a line of a listing",
            expected=f"one line of at most {MAX_SUMMARY} characters",
            got=f"{len(summary.splitlines())} lines, {len(summary)} characters",
        )
    if subject.kind in ("backends", "datasets"):
        check_examples(cls)
    return str(cls.name)


def check_examples(cls: type[Any]) -> None:
    """Addresses that a user can type."""
    examples = getattr(cls, "examples", ())
    if isinstance(examples, str) or not examples:
        raise Breach(
            f"{cls.__name__} has no examples",
            expected="a class attribute `examples`, a tuple of addresses that a user can type",
            got=repr(examples),
            hint=f'write, for example: examples = ("{cls.name}",)',
        )
    for example in examples:
        try:
            scheme = URI.parse(example).scheme
        except UsageError as error:
            raise Breach(f"the example {example!r} is no address", got=error.what) from None
        if scheme != cls.name:
            raise Breach(
                f"the example {example!r} belongs to another scheme",
                expected=f"an address that begins with {cls.name!r}",
                got=repr(scheme),
            )


def with_unknown_option(uri: str) -> str:
    """The address with an option that nobody has."""
    return f"{uri}{'&' if '?' in uri else '?'}no_such_option=1"


MODULE: Sequence[Requirement[Any]] = (
    Requirement("declares_api", "it declares the plugin contract that it was written for", declares_api),
    Requirement("registers", "its hook returns the class", registers),
    Requirement("imports_lightly", "importing it imports no model library", imports_lightly),
    Requirement("imports_offline", "importing it needs no network", imports_offline),
    Requirement("describes_itself", "it says what it is, in one line and by examples", describes_itself),
)
