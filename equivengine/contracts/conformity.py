"""What the module of a plugin must declare, told from it alone: the version of the contract, and hooks with markers."""

from __future__ import annotations

from equivengine import API_VERSION
from equivengine.contracts import hookspecs
from equivengine.contracts.wording import suggest
from equivengine.errors import PluginError


def check_api(module: object) -> None:
    """Refuse a plugin that was written for another contract.

    Raises:
        PluginError: If EQUIVENGINE_API is missing, of another major version or of a newer minor one.
    """
    declared = getattr(module, "EQUIVENGINE_API", None)
    major, minor = API_VERSION
    fits = (
        isinstance(declared, tuple)
        and len(declared) == 2
        and all(type(part) is int for part in declared)
        and declared[0] == major
        and declared[1] <= minor
    )
    if not fits:
        raise PluginError(
            "the plugin was not written for this version of the plugin contract",
            expected=f"EQUIVENGINE_API = {API_VERSION} in its module"
            if minor == 0
            else f"EQUIVENGINE_API = ({major}, n) with n <= {minor} in its module",
            got="no EQUIVENGINE_API" if declared is None else f"EQUIVENGINE_API = {declared!r}",
            hint="install a version of the plugin for this equivengine, or report it to its authors",
        )


def check_hooks(module: object) -> None:
    """Refuse what pluggy would pass over in silence.

    Raises:
        PluginError: If a hook lacks its marker, is unknown, or if there is none at all.
    """
    marked = 0
    for name in dir(module):
        member = getattr(module, name)
        options = getattr(member, f"{hookspecs.PROJECT}_impl", None)
        if name.startswith("equivengine_") and callable(member) and options is None:
            raise PluginError(f"{name} lacks its marker", hint="put @equivengine.hookimpl above it")
        if isinstance(options, dict):
            marked += 1
            target = options.get("specname") or name
            known = [hook for hook in dir(hookspecs) if hook.startswith("equivengine_")]
            if target not in known:
                raise PluginError(f"no hook is called {target!r}", expected=suggest(target, known))
    if not marked:
        raise PluginError(
            "the plugin implements no hook",
            expected="at least one function marked with @equivengine.hookimpl, such as equivengine_register_probes",
            got="none",
        )
