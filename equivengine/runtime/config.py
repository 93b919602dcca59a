"""What a user asked for, validated. Command line > environment > TOML file > defaults.

The environment says where work is done (EQUIVENGINE_DEVICE, EQUIVENGINE_EXECUTOR), never what is measured: a plan
means the same on every machine.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from equivengine.contracts.executor import Executor
from equivengine.contracts.probe import Params, Probe
from equivengine.errors import UsageError
from equivengine.runtime.records import suggest
from equivengine.runtime.run_file import RunFile, place_text
from equivengine.runtime.tables import (
    ModelTable,
    ProbeRequest,
    StopRequest,
    check_image_set,
    model_tables,
    reworded,
    wrong,
)
from equivengine.runtime.toml_lines import Place

__all__ = [
    "DEFAULT_LIMIT",
    "ModelTable",
    "ProbeRequest",
    "RunConfig",
    "StopRequest",
    "executor_params",
    "load_toml",
    "parse_settings",
    "probe_params",
    "validated",
]

#: With no image set named, the bundled digits are used, and this many of them.
DEFAULT_LIMIT = 6
#: Where values come from that stand in no run file.
OPTIONS = "the options"
#: What the tables of an entry are.
TABLES: dict[str, type[BaseModel]] = {
    "probes": ProbeRequest,
    "stop": StopRequest,
    "models": ModelTable,
    "for_models": ModelTable,
}


class RunConfig(BaseModel):
    """Everything that determines a run, and what it is called.

    ``title`` and ``description`` are stored with the plan for those who read its results; no unit depends on them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field(default="", max_length=200, description="What the run is about; one line.")
    description: str = Field(default="", max_length=10_000, description="What to look at in its results.")
    probes: tuple[ProbeRequest, ...] = Field(min_length=1, description="Probes to run.")
    models: tuple[str, ...] = Field(
        default=("digits",),
        min_length=1,
        description="Model URIs, or tables `[[models]]` of a `uri` and what it alone has.",
    )
    for_models: dict[str, ModelTable] = Field(
        default_factory=dict, description="What single models alone have, by URI: what tables `[[models]]` say."
    )
    images: tuple[str, ...] = Field(default=("digits",), min_length=1, description="Image URIs.")
    targets: str | None = Field(default=None, description="Image URI of targets and references; the images when unset.")
    pairing: Literal["any", "other-class", "one-target"] = Field(
        default="any",
        description="Which targets pairs take: any, those of another class than the original, or one for all.",
    )
    limit: int | None = Field(default=None, ge=1, description="Images taken from each set, in order; all when unset.")
    limits: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="Images taken from single sets, by URI, in place of `limit`."
    )
    order: Literal["own", "random"] = Field(
        default="own", description="Order in which images of each set are taken: its own, or at random by the seed."
    )
    stop: tuple[StopRequest, ...] = Field(
        default=(), description="Scalars that end an image set early, once they are known well enough."
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Seed of everything random.")
    device: str = Field(default="auto", description='"auto", "cpu", "cuda" or "cuda:N".')
    precision: Literal["fp32", "fp64"] = Field(default="fp32", description="Arithmetic of the derivatives.")
    executor: str = Field(default="serial", description="Where units run.")
    executor_set: dict[str, Any] = Field(
        default_factory=dict, description="Parameters of the executor that differ from their defaults."
    )
    out: str | None = Field(default=None, description="Run directory; derived from the plan when unset.")

    _file: RunFile | None = PrivateAttr(default=None)
    _elsewhere: frozenset[str] = PrivateAttr(default=frozenset())

    @model_validator(mode="before")
    @classmethod
    def _image_sets_with_limits(cls, data: Any) -> Any:
        """``{ uri = "digits", limit = 4 }`` among the images becomes ``"digits"``, and an entry of ``limits``."""
        if not isinstance(data, dict) or not isinstance(data.get("images"), dict | list | tuple):
            return data
        images = [data["images"]] if isinstance(data["images"], dict) else data["images"]
        limits = dict(data["limits"]) if isinstance(data.get("limits"), dict) else {}
        for number, entry in enumerate(images):
            if isinstance(entry, dict):
                check_image_set(entry, number, limits)
                limits |= {entry["uri"]: entry["limit"]} if "limit" in entry else {}
        data = {**data, "images": [entry["uri"] if isinstance(entry, dict) else entry for entry in images]}
        return {**data, "limits": limits} if limits else data

    @model_validator(mode="before")
    @classmethod
    def _models_with_tables(cls, data: Any) -> Any:
        """``{ uri = "digits", limit = 4 }`` among the models becomes ``"digits"``, and an entry of ``for_models``."""
        if not isinstance(data, dict) or not isinstance(data.get("models"), dict | list | tuple):
            return data
        models = [data["models"]] if isinstance(data["models"], dict) else list(data["models"])
        given = data.get("for_models", {})
        if not isinstance(given, dict):
            return data
        uris, found = model_tables(models, given)
        return {**data, "models": uris, **({"for_models": found} if found else {})}

    @field_validator("for_models")
    @classmethod
    def _tables_of_models_of_this_run(cls, value: dict[str, ModelTable], info: ValidationInfo) -> dict[str, ModelTable]:
        for uri in value:
            if uri not in info.data.get("models", value):
                raise wrong(f"models of this run: {', '.join(info.data['models'])}", uri)
        return value

    @field_validator("limits")
    @classmethod
    def _limits_of_sets_of_this_run(cls, value: dict[str, int], info: ValidationInfo) -> dict[str, int]:
        for uri in value:
            if uri not in info.data.get("images", value):
                raise wrong(f"image sets of this run: {', '.join(info.data['images'])}", uri)
        return value

    @field_validator("models", "images", mode="before")
    @classmethod
    def _one_is_a_list_too(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("stop", mode="before")
    @classmethod
    def _one_rule_is_a_list_too(cls, value: Any) -> Any:
        return (value,) if isinstance(value, dict) else value

    @field_validator("stop")
    @classmethod
    def _rules_have_probes(cls, value: tuple[StopRequest, ...], info: ValidationInfo) -> tuple[StopRequest, ...]:
        """One rule for each probe, of this run."""
        names = [request.name for request in info.data.get("probes", ())]
        for number, rule in enumerate(value):
            if names and rule.probe not in names:
                raise ValueError(
                    f"a scalar of a probe of this run ({', '.join(dict.fromkeys(names))}), not {rule.scalar}"
                )
            if rule.probe in {other.probe for other in value[:number]}:
                raise ValueError(f"one scalar for each probe: {rule.probe} has two")
        return value

    def at(self, *place: str | int) -> str | None:
        """Where in its run file something stands; None if it has none, or if an option stands in its place."""
        return None if self._file is None or place[0] in self._elsewhere else self._file.at(place)

    @contextlib.contextmanager
    def naming(self, *place: str | int) -> Iterator[None]:
        """Put in front of a UsageError where in the run file it comes from."""
        try:
            yield
        except UsageError as error:
            named = self.at(*place)
            if named is None:
                raise
            what = f"{named}: {place_text(place)}: {error.what}"
            raise UsageError(what, expected=error.expected, got=error.got, hint=error.hint) from None

    def for_model(self, uri: str) -> ModelTable:
        """What a model of the run alone has."""
        return self.for_models.get(uri, ModelTable())

    def place_of(self, uri: str) -> Place:
        """Where that stands in a run file: in the table of a model, or by its URI."""
        written = self._file.data if self._file is not None else {}
        return ("for_models", uri) if uri in written.get("for_models", {}) else ("models", self.models.index(uri))

    def precision_of(self, model: str) -> str:
        """Arithmetic of the derivatives of a model."""
        return self.for_model(model).precision or self.precision

    def limit_of(self, images: str, request: ProbeRequest, model: str) -> int | None:
        """How many images of a set a probe takes on a model; None for all."""
        limits = (self.limits.get(images, self.limit), request.limit, self.for_model(model).limit)
        return min((limit for limit in limits if limit is not None), default=None)

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
    file = RunFile.read(path)
    data = dict(file.data)
    config = validated(data, where=file.at)
    if overrides:
        if overrides.get("executor", config.executor) != config.executor:
            data.pop("executor_set", None)  # of an executor that is not taken
        if "images" in overrides:
            data.pop("limits", None)  # of sets that are not taken
        if "models" in overrides:
            data.pop("for_models", None)
        # A second time rather than by model_copy, which checks nothing; what is wrong then is not the file's.
        config = validated({**data, **overrides})
    config._file, config._elsewhere = file, frozenset(overrides or ())
    return config


def validated(data: dict[str, Any], where: str | Callable[[Place], str] = OPTIONS) -> RunConfig:
    """A `RunConfig` from plain values; with no image set named, the first `DEFAULT_LIMIT` bundled digits.

    Args:
        data: The values.
        where: Where they come from, for messages, or a function that says it of a place among them.

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


def probe_params(
    probe: type[Probe[Any]], settings: dict[str, Any], where: str | Callable[[Place], str] | None = None
) -> Params:
    """The probe's parameters.

    Args:
        probe: The probe.
        settings: Those that are set.
        where: As for `validated`; what ``--set`` says when None.

    Raises:
        UsageError: Naming the key, what it takes and what came.
    """
    try:
        return probe.Params.model_validate(settings)
    except ValidationError as error:
        named = where or f"--set for probe {probe.name!r}"
        raise _usage_error(error, named, probe.Params, "see `equivengine ls probes`") from None


def executor_params(executor: type[Executor], settings: dict[str, Any]) -> Params:
    """The executor's parameters.

    Raises:
        UsageError: Naming the key, what it takes and what came.
    """
    try:
        return executor.Params.model_validate(settings)
    except ValidationError as error:
        where = f"--set-executor for executor {executor.name!r}"
        raise _usage_error(error, where, executor.Params, "see `equivengine ls executors`") from None


def _usage_error(
    error: ValidationError,
    where: str | Callable[[Place], str],
    model: type[BaseModel],
    hint: str | None = None,
) -> UsageError:
    """The first thing that pydantic found, in our words; ``hint`` says where one reads what there is."""
    first = error.errors(include_url=False)[0]
    place: Place = (*first["loc"], *first.get("ctx", {}).get("place", ()))
    named = where if isinstance(where, str) else where(place)
    location = place_text(place)
    if first["type"] == "extra_forbidden":
        known = model if len(place) == 1 else TABLES[str(place[0])]
        expected = suggest(str(place[-1]), known.model_fields)
        return UsageError(f"{named}: {location!r} is not known", expected=expected, hint=hint)
    if not place:
        return UsageError(f"{named}: the values do not fit together", expected=reworded(first["msg"]), hint=hint)
    inner = TABLES.get(str(place[0])) if len(place) > 2 else None
    field = inner.model_fields.get(str(place[2])) if inner is not None else model.model_fields.get(str(place[0]))
    described = f" ({field.description.rstrip('.')})" if field is not None and field.description else ""
    if first["type"] == "missing":
        return UsageError(f"{named}: {location!r} is missing{described}", hint=f"give {place[-1]} a value")
    # An option of the command line goes by the name that was typed.
    what = f"--{location}" if where is OPTIONS and len(place) == 1 else f"{named}: {location!r}"
    return UsageError(
        f"{what} is not usable{described}",
        expected=reworded(first["msg"]),
        got=_shortened(repr(_within(first.get("input"), first.get("ctx", {}).get("place", ())))),
        hint=hint,
    )


def _within(value: Any, place: Place) -> Any:
    for part in place:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return value
    return value


def _shortened(text: str, length: int = 100) -> str:
    return text if len(text) <= length else text[:length] + "..."
