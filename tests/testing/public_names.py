"""What plugins may rely on, one name a line with its signature: `python tests/testing/public_names.py --write`.

The lines are kept in `public_names.txt`. A test holds the package to them, so that no change goes unseen.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_origin

import equivengine
from equivengine.testing.contract import REQUIREMENTS

KEPT = Path(__file__).with_suffix(".txt")

#: Modules with public names of their own. `equivengine.ops` is reachable for what it says of itself, without a promise.
SUBMODULES = ("linalg", "matching", "pictures", "statistics", "stopping", "errors", "testing")


def lines() -> list[str]:
    """All public names, sorted within their module."""
    found = [line for name in sorted(equivengine.__all__) for line in described(f"equivengine.{name}", name)]
    for module in SUBMODULES:
        names = public_names(module)
        found += [line for name in names for line in of_module(module, name)]
    for kind, requirements in REQUIREMENTS.items():
        found += [f"requirement on {kind}: {requirement.name}" for requirement in requirements]
    return found


def described(full: str, name: str) -> Iterator[str]:
    value = getattr(equivengine, name)
    if inspect.ismodule(value):
        yield f"{full} (module)"
    elif not callable(value):
        yield f"{full}: {type(value).__name__}"
    else:
        yield from of_callable(full, value)


def public_names(module: str) -> list[str]:
    """`__all__` where there is one, else what the module itself defines without an underscore."""
    found = importlib.import_module(f"equivengine.{module}")
    if hasattr(found, "__all__"):
        return sorted(found.__all__)
    own = (name for name, value in vars(found).items() if getattr(value, "__module__", None) == found.__name__)
    constants = (name for name in vars(found) if name.isupper())
    return sorted({name for name in (*own, *constants) if not name.startswith("_")})


def of_module(module: str, name: str) -> Iterator[str]:
    value = getattr(importlib.import_module(f"equivengine.{module}"), name)
    full = f"equivengine.{module}.{name}"
    if get_origin(value) is Literal:
        yield f"{full}: {str(value).replace('typing.', '')}"
    elif callable(value):
        yield from of_callable(full, value)
    else:
        yield f"{full}: {type(value).__name__}"


def of_callable(full: str, value: object) -> Iterator[str]:
    if not inspect.isclass(value):
        yield f"{full}{signature(value)}"
        return
    bases = [base.__name__ for base in value.__mro__[1:-1] if base.__module__.startswith("equivengine")]
    bases = [name for name in bases if not name.startswith("_")]
    yield f"{full}{constructor(value)}" + (f" is a {', '.join(bases)}" if bases else "")
    declared = dict.fromkeys(inspect.get_annotations(value))
    for name, member in sorted((declared | dict(vars(value))).items()):
        if name.startswith("_") or name.startswith(("test_", "model_")):
            continue
        if isinstance(member, classmethod | staticmethod):
            yield f"{full}.{name}{signature(member.__func__)} ({type(member).__name__})"
        elif inspect.isfunction(member):
            yield f"{full}.{name}{signature(member)}"
        elif isinstance(member, property) or type(member).__name__ == "cached_property":
            yield f"{full}.{name} (property)"
        elif name not in fields_of(value):
            yield f"{full}.{name} (attribute)"


def constructor(cls: type) -> str:
    try:
        return signature(cls).removesuffix(" -> None").removesuffix(" -> 'None'")
    except ValueError:
        return "(...)"


def signature(value: Any) -> str:
    """As written; functions that stand as defaults by their name, not by where they lie in memory."""
    return re.sub(r"<function (\w+) at 0x[0-9a-f]+>", r"\1", str(inspect.signature(value)))


def fields_of(cls: type) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()


def main() -> None:
    """Show the lines, or keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="keep them in public_names.txt")
    text = "".join(f"{line}\n" for line in lines())
    if parser.parse_args().write:
        KEPT.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
