"""The errors a user may see.

Every one says what is wrong, what was expected, what came, and what to do next; the command line prints it without a
traceback and exits with `exit_code`.
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of every error that equivengine raises on purpose.

    Args:
        what: One sentence: what is wrong, naming the argument or file.
        expected: What would have been right.
        got: What came instead.
        hint: The next step, as an imperative ("pass --targets URI").
    """

    #: What the command line exits with.
    exit_code = 1

    def __init__(self, what: str, *, expected: object = None, got: object = None, hint: str | None = None) -> None:
        self.what = what
        self.expected = None if expected is None else str(expected)
        self.got = None if got is None else str(got)
        self.hint = hint
        super().__init__(self._render())

    def _render(self) -> str:
        lines = [self.what]
        if self.expected is not None:
            lines.append(f"  expected: {self.expected}")
        if self.got is not None:
            lines.append(f"  got: {self.got}")
        if self.hint is not None:
            lines.append(f"  next: {self.hint}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:  # keyword-only arguments must survive a process boundary
        return (_rebuild, (type(self), self.what, self.expected, self.got, self.hint))


def _rebuild(cls: type[EngineError], what: str, expected: str | None, got: str | None, hint: str | None) -> EngineError:
    return cls(what, expected=expected, got=got, hint=hint)


class UsageError(EngineError):
    """An option, URI, parameter or configuration file that cannot be understood."""

    #: As click exits where it does not understand a command.
    exit_code = 2


class PluginError(EngineError):
    """A plugin that cannot be loaded, or that broke its contract."""


class ModelError(EngineError):
    """A model that cannot be loaded, or whose behavior breaks the encoder contract."""


class WeightsError(ModelError):
    """Weights that cannot be had, or that do not fit the model."""


class DataError(EngineError):
    """An image or image set that cannot be read."""


class StoreError(EngineError):
    """A run directory or result file that cannot be read or written."""


class ExtensionError(EngineError):
    """A compiled extension that does not fit the running torch, or that is required and absent."""


class NumericsError(EngineError):
    """A computation that produced NaN or infinity, or that cannot be done in the precision asked for."""
