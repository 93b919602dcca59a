"""Who brings what: one record for each plugin, one shelf for each kind of thing that plugins provide."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from typing import Generic, Literal, TypeVar

from equivengine.contracts.wording import suggest as suggest
from equivengine.errors import PluginError

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
        reason: Why it is not loaded, on one line.
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

    @classmethod
    def of(cls, entry: EntryPoint) -> PluginRecord:
        """What the metadata says of an entry point, before anything is imported."""
        dist = entry.dist
        return cls(
            name=entry.name,
            module=entry.value,
            distribution=dist.name if dist is not None else "unknown distribution",
            version=dist.version if dist is not None else "",
        )

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

    def address_like(self, text: str) -> str:
        """The address that may be meant by a text without a scheme: a file or folder, or what is much like an example.

        Args:
            text: What was given, such as ``"photos"`` or ``"resnet50"``.

        Returns:
            For example ``"folder:photos"``; empty if nothing suggests itself.
        """
        schemes: dict[str, str] = {}  # by the path of an example; ROOT and the like are no paths
        for scheme in self.names():
            for example in getattr(self._classes[scheme][0][0], "examples", ()):
                path = example.partition("?")[0].partition(":")[2]
                if path and not path.isupper() and not path.isdigit():
                    schemes.setdefault(path, scheme)
        if os.path.exists(text):
            suffix = "" if os.path.isdir(text) else os.path.splitext(text)[1]
            close = [path for path in schemes if os.path.splitext(path)[1] == suffix][:1]
        else:
            close = difflib.get_close_matches(text, schemes, n=1)
        return "".join(f"{schemes[path]}:{text}" for path in close)

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
                f"{self.kind} {name!r} is claimed by {len(found)} plugins",
                expected="one owner",
                got="; ".join(owner.owner for _, owner in found),
                hint=f"leave one out, for example: equivengine --no-plugin {found[-1][1].name} ...",
            )
        return found[0]
