"""Tables of a run file: ``[[probes]]``, ``[[models]]``, ``[[images]]`` and ``[[stop]]``, each by itself."""

from __future__ import annotations

import itertools
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from equivengine.runtime.records import suggest
from equivengine.stopping import FEWEST

#: Entries of a run file that say where it is carried out.
PLACES = frozenset({"out", "device", "executor", "executor_set"})


class ProbeRequest(BaseModel):
    """One probe and its parameters, or, with ``grid``, every combination of several values of some of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="Name of the probe.")
    set: dict[str, Any] = Field(default_factory=dict, description="Parameters that differ from their defaults.")
    grid: dict[str, list[Any]] = Field(
        default_factory=dict, description="Parameters with several values each; every combination is run."
    )
    limit: int | None = Field(default=None, ge=1, description="No more images of each set than this, for this probe.")

    @field_validator("grid")
    @classmethod
    def _lists_of_different_values(cls, value: dict[str, list[Any]], info: ValidationInfo) -> dict[str, list[Any]]:
        for key, values in value.items():
            if key in info.data.get("set", {}):
                raise wrong(f"{key} in set or in grid, not in both", key)
            if not values:
                raise wrong("at least one value", key)
            for number, one in enumerate(values):
                if any(type(one) is type(other) and one == other for other in values[:number]):
                    raise wrong(f"each value once; {one!r} stands there twice", key, number)
        return value

    def settings(self) -> list[dict[str, Any]]:
        """Each combination of parameters; the last of the grid changes fastest."""
        combinations = itertools.product(*self.grid.values())
        return [{**self.set, **dict(zip(self.grid, values, strict=True))} for values in combinations]


class ModelTable(BaseModel):
    """What holds for one model alone: in a table ``[[models]]`` beside its ``uri``, or here by its URI."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    precision: Literal["fp32", "fp64"] | None = Field(
        default=None, description="Arithmetic of its derivatives; that of the run when unset."
    )
    limit: int | None = Field(
        default=None, ge=1, description="No more images of each set than this, for this model, whatever the probe."
    )
    set: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Parameters of probes, by name of the probe, in place of what its set says: "
        "{ ldlc = { together = 1 } }.",
    )


class StopRequest(BaseModel):
    """Leave images out once the median of a scalar over those before them is known well enough."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scalar: str = Field(description='The scalar, as in "ldlc/random_over_null"; one for each probe.')
    tolerance: float = Field(
        gt=0, lt=1, description="Half-width of the 95% interval of its median over images, relative to the median."
    )
    min_images: int = Field(
        default=FEWEST, ge=FEWEST, le=1_000_000, description="Images before the first look; then twice as many; count."
    )

    @field_validator("scalar")
    @classmethod
    def _of_a_probe(cls, value: str) -> str:
        probe, _, scalar = value.partition("/")
        if not (probe and scalar) or value.split() != [value]:
            raise ValueError('probe/scalar, as in "ldlc/random_over_null"')
        return value

    @property
    def probe(self) -> str:
        """Whose units it leaves out."""
        return self.scalar.partition("/")[0]


def model_tables(models: list[Any], given: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The URIs of an entry ``models``, and what its tables say besides.

    Args:
        models: URIs, and tables of a ``uri`` and the keys of `ModelTable`.
        given: What ``for_models`` says already.

    Raises:
        PydanticCustomError: If a table is wrong, or says something else than another one of its model.
    """
    uris, found = [], dict(given)
    for number, entry in enumerate(models):
        if not isinstance(entry, dict):
            uris.append(entry)
            continue
        uri, rest = entry.get("uri"), {key: value for key, value in entry.items() if key != "uri"}
        if not isinstance(uri, str):
            raise wrong('a model URI: uri = "digits"', "models", number, "uri")
        for key in rest:
            if key in PLACES:
                raise wrong(f"{key} for the whole run: where units run is not part of a plan", "models", number, key)
            if key not in ModelTable.model_fields:
                raise wrong(suggest(key, ["uri", *ModelTable.model_fields]), "models", number, key)
        try:
            ModelTable.model_validate(rest)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise wrong(reworded(first["msg"]), "models", number, *first["loc"]) from None
        if uri in found or uri in uris:
            raise wrong(f"one table for {uri}, and {uri} once; it stands there already", "models", number, "uri")
        uris.append(uri)
        if rest:
            found[uri] = rest
    for number, entry in enumerate(models):
        if isinstance(entry, str) and entry in found and entry not in given:
            raise wrong(f"{entry} once: it has a table of its own", "models", number)
    return uris, found


def check_image_set(entry: dict[str, Any], number: int, limits: dict[str, Any]) -> None:
    """Refuse a table of an image set that is none, or that contradicts the limits that are known.

    Raises:
        PydanticCustomError: If it is wrong.
    """
    for key in entry:
        if key not in ("uri", "limit"):
            raise wrong("uri and limit", "images", number, key)
    if not isinstance(entry.get("uri"), str):
        raise wrong('an image URI: uri = "samples"', "images", number, "uri")
    if "limit" in entry and (type(entry["limit"]) is not int or entry["limit"] < 1):
        raise wrong("a whole number of images, at least 1", "images", number, "limit")
    if "limit" in entry and entry["limit"] != limits.get(entry["uri"], entry["limit"]):
        raise wrong(f"one limit for {entry['uri']}; another one is {limits[entry['uri']]}", "images", number, "limit")


def wrong(expected: str, *place: str | int) -> PydanticCustomError:
    """An error at a place within what is validated."""
    return PydanticCustomError("wrong", "{expected}", {"expected": expected, "place": place})


def reworded(message: str) -> str:
    """Pydantic's "Input should be less than 5" -> "less than 5"."""
    message = message.partition(", unable to parse")[0]
    for start in ("Input should be ", "Value error, "):
        if message.startswith(start):
            return message.removeprefix(start)
    return message[:1].lower() + message[1:]
