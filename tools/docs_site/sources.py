"""The package as its sources say it is: public names, found without importing anything."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

import griffe

#: A member of this name is nobody's business, or a matter of pytest or pydantic.
HIDDEN = re.compile(r"_|test_|model_")


class Sources:
    """The sources of `equivengine`, by public name.

    Args:
        root: The repository.
    """

    def __init__(self, root: Path) -> None:
        self.package = griffe.load(
            "equivengine", search_paths=[root], docstring_parser="google", allow_inspection=False
        )

    def find(self, name: str) -> griffe.Object:
        """What a public name stands for, whichever private module it comes from.

        Args:
            name: Its path, such as ``"equivengine.linalg.svd"``.

        Raises:
            KeyError: If there is no such name.
        """
        module, _, last = name.rpartition(".")
        if not module:
            return self.package
        owner = self.find(module)
        imported = owner.imports.get(last, name)
        found = owner.members[last] if imported == name else self.package[imported.removeprefix("equivengine.")]
        if isinstance(found, griffe.Alias):  # imported under this name: the module of origin may import it in turn
            return self.find(found.target_path)
        return found

    def members(self, name: str) -> dict[str, griffe.Object]:
        """Public members of a class, by name, its own before those of private bases; empty for anything else."""
        return {
            member: value
            for part in self.parts(name)
            for member, value in part.members.items()
            if not HIDDEN.match(member) and not isinstance(value, griffe.Alias) and not self._is_private(value)
        }

    def parts(self, name: str) -> list[griffe.Object]:
        """What readers take for one class: the private bases that it is made from, and the class."""
        found = self.find(name)
        bases = [base.removeprefix("equivengine.") for base in self.bases(name) if base.startswith("equivengine.")]
        return [self.package[base] for base in bases if base.rpartition(".")[2].startswith("_")] + (
            [found] if found.is_class else []
        )

    def _is_private(self, value: griffe.Object) -> bool:
        """Whether `__init__` sets it without a word: an implementation detail, or described with the class."""
        return (
            value.is_attribute
            and "class-attribute" not in value.labels
            and not ("property" in value.labels or value.docstring or self.comment(value) or value.annotation)
        )

    def bases(self, name: str) -> list[str]:
        """Paths of a class's bases, as they are defined."""
        found = self.find(name)
        return [str(base.canonical_path) for base in getattr(found, "bases", []) if isinstance(base, griffe.Expr)]

    def origin(self, path: str) -> str:
        """Where a thing of ours is defined that is imported as `path`; other paths as they are."""
        try:
            found = self.package[path.removeprefix("equivengine.")]
        except KeyError:
            return path
        return found.final_target.path if isinstance(found, griffe.Alias) else found.path

    def comment(self, found: griffe.Object) -> str:
        """The ``#:`` lines above an assignment."""
        kept: list[str] = []
        for line in reversed(self._lines(found)[: (found.lineno or 1) - 1]):
            if not line.strip().startswith("#:"):
                break
            kept.append(line.strip()[2:].strip())
        return " ".join(reversed(kept))

    def _lines(self, found: griffe.Object) -> list[str]:
        path = found.filepath
        assert isinstance(path, Path)
        if path not in self._files:
            self._files[path] = path.read_text(encoding="utf-8").splitlines()
        return self._files[path]

    @cached_property
    def _files(self) -> dict[Path, list[str]]:
        return {}
