"""The configuration of a checkpoint, the class that it names, and how both are looked for."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Iterator, Mapping
from typing import Any, cast

import equivengine as eqv
from equivengine_plugins.backends import weights


def raw_config(uri: eqv.URI, name: str, local: bool, where: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of config.json.

    Args:
        uri: The address that was asked for.
        name: Directory or identifier.
        local: Whether it is a directory.
        where: Arguments of ``from_pretrained`` that say where to look.

    Raises:
        WeightsError: If there is none.
        ModelError: If it cannot be read.
    """
    from transformers import PreTrainedConfig

    if local and not os.path.isfile(os.path.join(name, "config.json")):
        raise eqv.WeightsError(
            f"{name!r} holds no checkpoint of transformers",
            expected="a directory with config.json and model.safetensors",
            got="no config.json",
            hint="name the directory that save_pretrained wrote",
        )
    try:
        with quiet():
            raw, _ = PreTrainedConfig.get_config_dict(name, **where)
    except Exception as error:
        if local:
            raise eqv.ModelError(
                f"the config.json in {name!r} cannot be read",
                got=weights.first_line(error),
                hint="copy or save it again",
            ) from error
        raise unavailable(uri, error) from error
    if not isinstance(raw, dict):
        raise eqv.ModelError(
            f"the config.json of {uri.text!r} cannot be read",
            expected="a JSON object",
            got=type(raw).__name__,
            hint="copy or save it again",
        )
    return cast("dict[str, Any]", raw)


def refuse_code(uri: eqv.URI, raw: Mapping[str, Any], file: str) -> None:
    """Refuse a configuration that names code of its own (``auto_map``).

    Raises:
        ModelError: If it does.
    """
    if raw.get("auto_map"):
        names = raw["auto_map"]
        shown = names.values() if isinstance(names, Mapping) else (names,)
        raise eqv.ModelError(
            f"{uri.text!r} is refused: its {file} wants code that it brings along to be run",
            expected="a model that transformers itself knows, without auto_map",
            got=f"auto_map with {weights.some([str(name) for name in shown], 3)}",
            hint="read that code; if you trust it, import it yourself and name it as module:package.attr",
        )


def refuse_changed_weights(uri: eqv.URI, raw: Mapping[str, Any], name: str, local: bool) -> None:
    """Refuse weights that are no floating-point numbers, and adapters, whose base is read from where they say.

    Raises:
        ModelError: If the configuration names a quantization, or an adapter lies beside it.
    """
    if raw.get("quantization_config"):
        quantization = raw["quantization_config"]
        method = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
        raise eqv.ModelError(
            f"the weights of {uri.text!r} are quantized: their model has no derivative",
            expected="a config.json without quantization_config",
            got=f"quantization by {method}" if method else "a quantization_config",
            hint="take the checkpoint that it was made from",
        )
    if local and os.path.exists(os.path.join(name, "adapter_config.json")):
        raise eqv.ModelError(
            f"{uri.text!r} holds an adapter, whose weights are changes to another model's",
            expected="a directory without adapter_config.json",
            got="adapter_config.json",
            hint="merge it into its base, and save the whole model",
        )


def made_config(uri: eqv.URI, raw: Mapping[str, Any]) -> Any:
    """The configuration of a kind that transformers itself knows.

    Raises:
        ModelError: If it knows no such kind, or the entries make no sense to it.
    """
    import transformers

    kind = raw.get("model_type")
    try:
        config_class = transformers.CONFIG_MAPPING[kind]
    except KeyError:
        raise eqv.ModelError(
            f"transformers {transformers.__version__} does not know the kind of model in {uri.text!r}",
            expected="a model_type in config.json that it knows",
            got=repr(kind),
            hint="install a newer transformers, or wrap the model as module:package.attr",
        ) from None
    try:
        with quiet():
            return config_class.from_dict(dict(raw))
    except Exception as error:
        raise eqv.ModelError(
            f"the configuration of {uri.text!r} cannot be used", got=weights.first_line(error), hint="check config.json"
        ) from error


def named_class(uri: eqv.URI, raw: Mapping[str, Any], config: Any) -> Any:
    """The class that was saved; loading exactly it is what makes every tensor fit.

    Raises:
        ModelError: If ``architectures`` names no model of transformers, or one of another kind.
    """
    import transformers

    names = raw.get("architectures") or ()
    names = (names,) if isinstance(names, str) else names
    found: object = None
    if names:
        found = getattr(transformers, str(names[0]), None)
    elif type(config) in transformers.MODEL_MAPPING:
        found = transformers.MODEL_MAPPING[type(config)]
        found = found[0] if isinstance(found, tuple | list) else found
    fits = inspect.isclass(found) and issubclass(found, transformers.PreTrainedModel)
    own = cast(Any, found).config_class if fits else None  # PreTrainedModel itself has none
    if not inspect.isclass(own) or not isinstance(config, own):
        raise eqv.ModelError(
            f"the configuration of {uri.text!r} names no model of transformers {transformers.__version__}",
            expected=f"architectures in config.json: a class for model_type {config.model_type!r}",
            got=", ".join(map(str, names)) or "none",
            hint="check config.json, or install a newer transformers",
        )
    return found


def unavailable(uri: eqv.URI, reason: object) -> eqv.WeightsError:
    """The error for what is neither a directory nor to be had from the hub."""
    scheme = uri.scheme
    return weights.cannot_be_had(
        uri,
        reason,
        cache=weights.hub_cache(),
        address=f"{scheme}:/folder",
        local=f"{scheme}:/folder with config.json and model.safetensors",
    )


@contextlib.contextmanager
def access(local: bool) -> Iterator[dict[str, bool]]:
    """What to pass to ``from_pretrained``: a directory never asks the hub, the hub is asked only if it answers."""
    if local:
        yield {"local_files_only": True}
        return
    from huggingface_hub import constants

    with weights.hub_access():
        yield {"local_files_only": bool(constants.HF_HUB_OFFLINE)}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the progress bars and reports of transformers off the terminal: they become errors or records."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
