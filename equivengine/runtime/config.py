"""What a user asked for, validated. Command line > environment > TOML file > defaults.

The environment says where work is done (EQUIVENGINE_DEVICE, EQUIVENGINE_EXECUTOR), never what is measured: a plan
means the same on every machine.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from equivengine.contracts.executor import Executor
from equivengine.contracts.probe import Params, Probe
from equivengine.errors import UsageError
from equivengine.runtime.records import suggest

#: With no image set named, the bundled digits are used, and this many of them.
DEFAULT_LIMIT = 6


class ProbeRequest(BaseModel):
    """One probe and its parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="Name of the probe.")
    set: dict[str, Any] = Field(default_factory=dict, description="Parameters that differ from their defaults.")


class RunConfig(BaseModel):
    """Everything that determines a run, and what it is called.

    ``title`` and ``description`` are stored with the plan for those who read its results; no unit depends on them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field(default="", max_length=200, description="What the run is about; one line.")
    description: str = Field(default="", max_length=10_000, description="What to look at in its results.")
    probes: tuple[ProbeRequest, ...] = Field(min_length=1, description="Probes to run.")
    models: tuple[str, ...] = Field(default=("digits",), min_length=1, description="Model URIs.")
    images: tuple[str, ...] = Field(default=("digits",), min_length=1, description="Image URIs.")
    targets: str | None = Field(default=None, description="Image URI of targets and references; the images when unset.")
    pairing: Literal["any", "other-class", "one-target"] = Field(
        default="any",
        description="Which targets pairs take: any, those of another class than the original, or one for all.",
    )
    limit: int | None = Field(default=None, ge=1, description="Images taken from each set, in order; all when unset.")
    seed: int = Field(default=0, ge=0, lt=2**63, description="Seed of everything random.")
    device: str = Field(default="auto", description='"auto", "cpu", "cuda" or "cuda:N".')
    precision: Literal["fp32", "fp64"] = Field(default="fp32", description="Arithmetic of the derivatives.")
    executor: str = Field(default="serial", description="Where units run.")
    executor_set: dict[str, Any] = Field(
        default_factory=dict, description="Parameters of the executor that differ from their defaults."
    )
    out: str | None = Field(default=None, description="Run directory; derived from the plan when unset.")

    @field_validator("models", "images", mode="before")
    @classmethod
    def _one_is_a_list_too(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("title")
    @classmethod
    def _one_line(cls, value: str) -> str:
        if "\n" in value or "\r" in value:
            raise ValueError("one line")
        return value


def load_toml(path: Path, overrides: dict[str, Any] | None = None) -> RunConfig:
    """Read a run file.

    Args:
        path: The file.
        overrides: Entries that count more than the file's.

    Raises:
        UsageError: If it is missing, no TOML, or holds unknown or wrong entries, or if an override is wrong.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"the run file {str(path)!r} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the run file {str(path)!r} cannot be read", got=error) from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the run file {str(path)!r} is no TOML", got=error) from None
    config = validated(data, where=str(path))
    if overrides and overrides.get("executor", config.executor) != config.executor:
        data.pop("executor_set", None)  # of an executor that is not taken
    # A second time rather than by model_copy, which checks nothing; what is wrong then is not the file's.
    return validated({**data, **overrides}) if overrides else config


def validated(data: dict[str, Any], where: str = "the options") -> RunConfig:
    """A `RunConfig` from plain values; with no image set named, the first `DEFAULT_LIMIT` bundled digits.

    Raises:
        UsageError: Naming the first entry that is wrong.
    """
    if "images" not in data:
        data = {"limit": DEFAULT_LIMIT, **{key: value for key, value in data.items() if value is not None}}
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise _usage_error(error, where, RunConfig) from None


def parse_settings(pairs: tuple[str, ...], option: str = "--set") -> dict[str, Any]:
    """``("directions=32",)`` -> ``{"directions": 32}``; values are JSON where they parse, text otherwise.

    Args:
        pairs: As they were given.
        option: What they were given with, for messages.

    Raises:
        UsageError: If a pair has no ``=`` or a key stands twice.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UsageError(f"{option} takes KEY=VALUE", got=repr(pair))
        if key in settings:
            raise UsageError(f"{option} {key} is given twice", hint="keep one of the two")
        try:
            settings[key] = json.loads(text)
        except (ValueError, RecursionError):  # no JSON, or JSON that no parameter is (5,000 digits, 5,000 brackets)
            settings[key] = text
    return settings


def probe_params(probe: type[Probe[Any]], settings: dict[str, Any]) -> Params:
    """The probe's parameters.

    Raises:
        UsageError: Naming the key, what it takes and what came.
    """
    try:
        return probe.Params.model_validate(settings)
    except ValidationError as error:
        raise _usage_error(error, f"--set for probe {probe.name!r}", probe.Params) from None


def executor_params(executor: type[Executor], settings: dict[str, Any]) -> Params:
    """The executor's parameters.

    Raises:
        UsageError: Naming the key, what it takes and what came.
    """
    try:
        return executor.Params.model_validate(settings)
    except ValidationError as error:
        raise _usage_error(error, f"--set-executor for executor {executor.name!r}", executor.Params) from None


def _usage_error(error: ValidationError, where: str, model: type[BaseModel]) -> UsageError:
    """The first thing that pydantic found, in our words."""
    first = error.errors(include_url=False)[0]
    place = first["loc"]
    location = ".".join(str(part) for part in place)
    if first["type"] == "extra_forbidden":
        known = model if len(place) == 1 else ProbeRequest
        return UsageError(f"{where}: {location!r} is not known", expected=suggest(str(place[-1]), known.model_fields))
    if not place:
        return UsageError(f"{where}: the values do not fit together", expected=_reworded(first["msg"]))
    field = model.model_fields.get(str(place[0]))
    described = f" ({field.description.rstrip('.')})" if field is not None and field.description else ""
    if first["type"] == "missing":
        return UsageError(f"{where}: {location!r} is missing{described}", hint=f"give {location} a value")
    return UsageError(
        f"{where}: {location!r} is not usable{described}",
        expected=_reworded(first["msg"]),
        got=_shortened(repr(first.get("input"))),
    )


def _reworded(message: str) -> str:
    """Pydantic's "Input should be less than 5" -> "less than 5"."""
    for start in ("Input should be ", "Value error, "):
        if message.startswith(start):
            return message.removeprefix(start)
    return message[:1].lower() + message[1:]


def _shortened(text: str, length: int = 100) -> str:
    return text if len(text) <= length else text[:length] + "..."
