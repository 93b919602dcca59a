"""Requirements on a plugin, and what came of testing one: a verdict with advice.

A requirement is a function of a subject (a backend, a probe, an image set with what it is tried on). It returns a
remark, or raises `Breach`. The pytest classes and ``equivengine plugin check`` share all requirements.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Generic, Literal, TypeVar

from equivengine.contracts.wording import suggest
from equivengine.errors import EngineError, UsageError

S = TypeVar("S")

State = Literal["passed", "failed", "not tried", "expected failure", "unexpected pass"]


class Breach(AssertionError):
    """A requirement that does not hold.

    Args:
        what: One sentence: what is wrong.
        expected: What would have been right.
        got: What came instead.
        hint: The next step, as an imperative.
    """

    def __init__(self, what: str, *, expected: object = None, got: object = None, hint: str = "") -> None:
        self.what, self.hint = what, hint
        self.expected = "" if expected is None else str(expected)
        self.got = "" if got is None else str(got)
        super().__init__(str(EngineError(what, expected=expected, got=got, hint=hint or None)))


class NotTried(Exception):
    """A requirement that has no meaning here, or that cannot be tested after what went wrong before; says why."""


@dataclass(frozen=True)
class Requirement(Generic[S]):
    """One thing that a plugin must do.

    Attributes:
        name: Identifier, the name under which it can be declared as an expected failure.
        sentence: The same in words.
        test: Takes the subject; returns a remark ("" if there is none).
    """

    name: str
    sentence: str
    test: Callable[[S], str | None]


@dataclass(frozen=True)
class Verdict:
    """What came of one requirement. Strings and numbers only, since it crosses processes.

    Attributes:
        name: Name of the requirement.
        sentence: The requirement in words.
        state: ``"passed"``, ``"failed"``, ``"not tried"``, ``"expected failure"`` or ``"unexpected pass"``.
        what: What is wrong, one sentence; why, where it was not tried.
        expected: What would have been right.
        got: What came instead.
        hint: The next step.
        remark: What was measured, if it passed.
        reason: Why a failure was expected.
        seconds: How long it took.
    """

    name: str
    sentence: str
    state: State
    what: str = ""
    expected: str = ""
    got: str = ""
    hint: str = ""
    remark: str = ""
    reason: str = ""
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether nothing needs to be done."""
        return self.state not in ("failed", "unexpected pass")

    def to_json(self) -> dict[str, Any]:
        """JSON types only; ``Verdict(**data)`` reverses it."""
        return asdict(self)

    def __str__(self) -> str:
        rows = [self.what, *(f"  {word}: {text}" for word, text in self.details() if text)]
        return "\n".join(rows)

    def details(self) -> list[tuple[str, str]]:
        """Expected, got and the next step, where there are any."""
        return [
            (word, text) for word, text in (("expected", self.expected), ("got", self.got), ("next", self.hint)) if text
        ]


def examine(requirement: Requirement[S], subject: S, expected_failures: Mapping[str, str]) -> Verdict:
    """Test one requirement. Whatever a plugin raises becomes a verdict, except KeyboardInterrupt."""
    start = time.perf_counter()
    found = _tested(requirement, subject)
    found["seconds"] = round(time.perf_counter() - start, 4)
    return judged(Verdict(requirement.name, requirement.sentence, **found), expected_failures)


def judged(verdict: Verdict, expected_failures: Mapping[str, str]) -> Verdict:
    """The verdict in view of what was declared to fail."""
    reason = expected_failures.get(verdict.name)
    if reason is None or verdict.state == "not tried":
        return verdict
    data = verdict.to_json() | {"reason": reason}
    if verdict.state == "failed":
        return Verdict(**data | {"state": "expected failure"})
    return Verdict(
        **data
        | {
            "state": "unexpected pass",
            "what": "it is declared to fail, but holds",
            "expected": f"a failure ({reason})",
            "got": verdict.remark or "no failure",
            "hint": f"take {verdict.name!r} out of the expected failures",
        }
    )


def _tested(requirement: Requirement[S], subject: S) -> dict[str, Any]:
    try:
        remark = requirement.test(subject)
    except KeyboardInterrupt:
        raise
    except NotTried as error:
        return {"state": "not tried", "what": str(error)}
    except Breach as breach:
        return failure(breach.what, breach.expected, breach.got, breach.hint)
    except EngineError as error:
        return failure(error.what, error.expected, error.got, error.hint)
    except BaseException as error:  # a plugin may raise anything, SystemExit included
        return failure("it raised an exception", None, described(error), "")
    return {"state": "passed", "remark": remark or ""}


def failure(what: str, expected: str | None, got: str | None, hint: str | None) -> dict[str, Any]:
    """The fields of a failed `Verdict`."""
    return {"state": "failed", "what": what, "expected": expected or "", "got": got or "", "hint": hint or ""}


def described(error: BaseException) -> str:
    """An exception on one line, with the place where it was raised."""
    if isinstance(error, SystemExit):
        text = f"sys.exit({error.code!r})"
    else:
        text = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    frames = traceback.extract_tb(error.__traceback__)
    return f"{text} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else text


def declared_failures(declared: object, known: Iterable[str], where: str) -> dict[str, str]:
    """Expected failures, held to be names of requirements with reasons.

    Raises:
        UsageError: If it is no mapping of that kind, names no requirement or gives no reason.
    """
    names = list(known)
    if not isinstance(declared, Mapping):
        raise UsageError(
            f"{where} is no mapping", expected='{"name of a requirement": "reason"}', got=type(declared).__name__
        )
    for name, reason in declared.items():
        if name not in names:
            raise UsageError(f"{where}: no requirement is called {name!r}", expected=suggest(str(name), names))
        if not (isinstance(reason, str) and reason.strip()):
            raise UsageError(f"{where}: {name!r} has no reason", expected="a sentence", got=repr(reason))
    return dict(declared)
