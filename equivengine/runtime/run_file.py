"""A run file as it was read, which knows on which line each of its keys stands."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from equivengine.errors import UsageError
from equivengine.runtime.toml_lines import Place, TomlLines


@dataclass(frozen=True)
class RunFile:
    """A TOML file.

    Attributes:
        path: Where it was read.
        text: What it holds.
        data: That, as plain values.
    """

    path: Path
    text: str
    data: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> RunFile:
        """Read a file.

        Raises:
            UsageError: If it is missing, cannot be read or is no TOML; with the line where TOML ends.
        """
        named, expected = f"the run file {str(path)!r}", "a TOML file; `equivengine run --help` shows one"
        try:
            text = path.read_text(encoding="utf-8")
            return cls(path, text, tomllib.loads(text))
        except FileNotFoundError:
            raise UsageError(f"{named} does not exist", expected=expected) from None
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{named} cannot be read", expected=expected, got=error) from None
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise UsageError(f"{named} is no TOML", expected=expected, got=error) from None

    def at(self, place: Place) -> str:
        """The file and, where the place or something around it stands in it, the line: ``"sweep.toml, line 7"``."""
        line = self._lines.find(place)
        return str(self.path) if line is None else f"{self.path}, line {line}"

    @cached_property
    def _lines(self) -> TomlLines:
        return TomlLines(self.text)


def place_text(place: Place) -> str:
    """A place in words: ``probes.0.set.steps``."""
    return ".".join(map(str, place))
