"""How a run is repeated: its configuration as a file for ``equivengine run``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def as_toml(config: Mapping[str, Any]) -> str:
    """The configuration of a plan as TOML.

    Args:
        config: ``plan["config"]``. What is unset is left out.
    """
    lines = [f"{key} = {_value(value)}" for key, value in config.items() if key != "probes" and value is not None]
    for request in config.get("probes", []):
        lines += ["", "[[probes]]", f"name = {_value(request['name'])}"]
        lines += [f"{key} = {_value(request[key])}" for key in ("set", "grid", "limit") if request.get(key)]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        entries = ", ".join(f"{_key(key)} = {_value(entry)}" for key, entry in value.items() if entry is not None)
        return f"{{ {entries} }}" if entries else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(entry) for entry in value)}]"
    # JSON's strings, numbers and booleans are TOML's, but for DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _value(key)
