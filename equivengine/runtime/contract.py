"""Holds a plugin to its contract while it is loaded, and words what is wrong with it."""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any

from equivengine.contracts.conformity import check_api as check_api
from equivengine.contracts.conformity import check_hooks as check_hooks
from equivengine.contracts.dataset import Dataset, Sample
from equivengine.contracts.executor import Executor
from equivengine.contracts.probe import ARITIES, Arity, Params, Probe
from equivengine.contracts.unit import canonical_json
from equivengine.errors import EngineError, PluginError
from equivengine.runtime.records import Shelf, State

#: What is typed on command lines, becomes part of file names, and is not to be taken for another name.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
#: Characters that are shown of what a foreign exception says.
LONGEST = 2000


def check_class(cls: object, shelf: Shelf[Any]) -> None:
    """Refuse a class that cannot be shelved.

    Raises:
        PluginError: If it is of a wrong type, or its name, version, arity or parameters are unusable.
    """
    if not (isinstance(cls, type) and issubclass(cls, shelf.base)):
        raise PluginError(
            f"a {shelf.kind} is of a wrong type",
            expected=f"a subclass of equivengine.{shelf.base.__name__}",
            got=repr(cls),
        )
    name = getattr(cls, "name", None)
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise PluginError(
            f"{cls.__name__} has no usable name",
            expected="a class attribute `name` of at most 64 ASCII letters, digits and _ - + . after a letter or digit",
            got=shortened(repr(name)),
        )
    if issubclass(cls, Probe | Executor) and not (isinstance(cls.Params, type) and issubclass(cls.Params, Params)):
        raise PluginError(
            f"{cls.__name__}.Params has a wrong type",
            expected="a subclass of equivengine.Params",
            got=repr(cls.Params),
        )
    if issubclass(cls, Probe):
        if not isinstance(getattr(cls, "version", None), str):
            raise PluginError(f"{cls.__name__} has no version", expected='a class attribute `version`, such as "1"')
        if cls.arity not in ARITIES:
            raise PluginError(f"{cls.__name__}.arity is unknown", expected=" or ".join(ARITIES), got=repr(cls.arity))
        if type(cls.labelled) is not bool:
            raise PluginError(f"{cls.__name__}.labelled is no bool", expected="True or False", got=repr(cls.labelled))


def check_sample(sample: object, images: str, index: int, owner: str) -> None:
    """Refuse what an image set must not give: it would be stored with every plan.

    Args:
        sample: What the set gave.
        images: The set, for messages.
        index: Of the sample, for messages.
        owner: Whose set it is, for messages.

    Raises:
        PluginError: If it is no `Sample`, or its id, digest or label is no text.
    """
    hint = f"report it to the authors of {owner}"
    if not isinstance(sample, Sample):
        raise PluginError(
            f"image {index} of {images!r} is of a wrong type",
            expected="equivengine.Sample(id, digest, load)",
            got=type(sample).__name__,
            hint=hint,
        )
    kinds = {"id": "a short name within the set", "digest": "the sha256 of its content, in hex"}
    for name, expected in kinds.items():
        value = getattr(sample, name)
        if not (isinstance(value, str) and value):
            raise PluginError(
                f"the {name} of image {index} of {images!r} is no text", expected=expected, got=repr(value), hint=hint
            )
    if sample.label is not None and not isinstance(sample.label, str):
        raise PluginError(
            f"the label of {sample.id!r} of {images!r} is no text",
            expected="a str or None",
            got=repr(sample.label),
            hint=hint,
        )


def remarks_of(dataset: Dataset, images: str, owner: str) -> tuple[str, ...]:
    """What an image set remarks of itself, held to the contract.

    Args:
        dataset: The set.
        images: Its URI, for messages.
        owner: Whose set it is, for messages.

    Raises:
        PluginError: If that is no list of texts.
    """
    remarks = dataset.remarks
    if not isinstance(remarks, list | tuple) or not all(isinstance(one, str) for one in remarks):
        raise PluginError(
            f"the remarks of {images!r} are no list of texts",
            expected="a list or tuple of str",
            got=shortened(repr(remarks)),
            hint=f"report it to the authors of {owner}",
        )
    return tuple(map(shortened, remarks))


def stored_params(cls: type[Probe[Any]], params: Params) -> str:
    """Parameters as they stand in a plan: canonical JSON.

    Raises:
        PluginError: If a default is no JSON value: a NaN, an object.
    """
    try:
        return canonical_json(params.model_dump(mode="json"))
    except (ValueError, TypeError) as error:
        raise PluginError(
            f"parameters of probe {cls.name!r} cannot be stored",
            expected="numbers other than NaN and infinity, texts, lists and tables of them, None",
            got=one_line(error),
            hint="give them other types or defaults",
        ) from error


def arity_of(cls: type[Probe[Any]], params: Params) -> Arity:
    """How many samples a unit of the probe takes with these parameters, held to the contract.

    Raises:
        PluginError: If the probe's `arity_of` raises, or returns something else than an arity.
    """
    try:
        arity = cls.arity_of(params)
    except EngineError:
        raise
    except Exception as error:
        raise PluginError(
            f"{cls.__name__}.arity_of failed",
            got=one_line(error),
            hint="report it to the authors of the plugin; EQUIVENGINE_TRACEBACK=1 shows where",
        ) from error
    if arity not in ARITIES:
        raise PluginError(f"{cls.__name__}.arity_of returns no arity", expected=" or ".join(ARITIES), got=repr(arity))
    return arity


def batch_of(cls: type[Probe[Any]], params: Params) -> int:
    """How many units may share one call of the probe with these parameters, held to the contract.

    Raises:
        PluginError: If the probe's `batch_of` raises, or returns something else than an int of at least 1.
    """
    return _count(cls, params, "batch_of", 1)


def references_of(cls: type[Probe[Any]], params: Params) -> int:
    """How many reference images the probe asks for with these parameters, held to the contract.

    Raises:
        PluginError: If the probe's `references_of` raises, or returns something else than an int of at least 0.
    """
    return _count(cls, params, "references_of", 0)


def _count(cls: type[Probe[Any]], params: Params, method: str, least: int) -> int:
    try:
        count = getattr(cls, method)(params)
    except EngineError:
        raise
    except Exception as error:
        raise PluginError(
            f"{cls.__name__}.{method} failed",
            got=one_line(error),
            hint="report it to the authors of the plugin; EQUIVENGINE_TRACEBACK=1 shows where",
        ) from error
    if type(count) is not int or count < least:
        raise PluginError(
            f"{cls.__name__}.{method} returns no count", expected=f"an int of at least {least}", got=repr(count)
        )
    return count


def results_of(cls: type[Probe[Any]], returned: object, count: int) -> list[object]:
    """What `run_batch` returned, held to be one result for each task.

    Raises:
        PluginError: If it is no list of that length.
    """
    if not isinstance(returned, list | tuple) or len(returned) != count:
        given = f"{type(returned).__name__} of {len(returned)}" if isinstance(returned, list | tuple) else None
        raise PluginError(
            f"{cls.__name__}.run_batch did not return one result for each task",
            expected=f"a list of {count} equivengine.ProbeResult",
            got=given or type(returned).__name__,
        )
    return list(returned)


def why(error: BaseException, dist: Distribution | None) -> tuple[State, str]:
    """State and one-line reason for a plugin that did not load."""
    needed = needs(error, dist)
    if needed is not None:
        return "needs", needed
    return "failed", one_line(error)


def one_line(error: BaseException) -> str:
    """An exception on one line; ours without their class name."""
    if isinstance(error, PluginError):
        parts = [error.what, *(f"{k} {v}" for k, v in (("expected", error.expected), ("got", error.got)) if v)]
        return "; ".join([*parts, *([error.hint] if error.hint else [])])
    if isinstance(error, SystemExit):
        return f"it called sys.exit({error.code!r})"
    try:
        text = shortened(" ".join(str(error).split()))
    except Exception as other:  # its own __str__, which is a plugin's too
        text = f"(and wording it raised {type(other).__name__})"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def shortened(text: str) -> str:
    """A foreign text, cut in the middle where it is longer than `LONGEST`."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]} ... {text[-half:]}"


def needs(error: BaseException, dist: Distribution | str | None) -> str | None:
    """What to install, if the error is a missing package that the distribution declares under an extra."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    if isinstance(dist, str):
        try:
            dist = distribution(dist)
        except (PackageNotFoundError, ValueError):
            return None
    package = error.name.partition(".")[0]
    for requirement in (dist.requires or []) if dist is not None else []:
        name = re.match(r"\s*([A-Za-z0-9._-]+)", requirement)
        extra = re.search(r"""extra\s*==\s*['"]([^'"]+)""", requirement)
        if name and extra and dist is not None and _normal(name[1]) == _normal(package):
            return f"needs {dist.name}[{extra[1]}] (the package {package!r} is not installed)"
    return None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
