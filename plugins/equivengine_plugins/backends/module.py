"""The ``module`` backend: whatever an importable callable returns, so that a model of one's own needs no plugin."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import equivengine as eqv
from equivengine_plugins.backends import weights
from equivengine_plugins.backends.checkpoint_file import read_checkpoint

if TYPE_CHECKING:
    import torch
    from torch import nn

EQUIVENGINE_API = (1, 0)

_IMAGE = ("size", "mode", "resize", "resize_to", "interpolation", "mean", "std")
_OTHER = ("input_shape", "range")
_OPTIONS = (*weights.OPTIONS, *_IMAGE, *_OTHER)
_CHOICES = {
    "mode": ("RGB", "L"),
    "resize": ("shortest", "longest", "squash"),
    "interpolation": ("nearest", "bilinear", "bicubic", "lanczos"),
}
_EXAMPLE = "module:my_models.make_encoder?size=224&weights=/file.safetensors"


class ModuleBackend(eqv.Backend):
    """``module:package.attr?size=224&weights=FILE``: ``attr`` is called, and returns a ``torch.nn.Module``.

    The module takes normalized input [B, *input_shape] and returns one embedding [B, n] for each. It is looked up as
    ``python -m`` would, the current directory included (after everything that is installed).

    Weights, one of three, must be named, since nobody else can know: ``weights=FILE`` (every tensor of the module, and
    no others, is read from it), ``weights=own`` (the callable brings them; it is called twice, and refused if the two
    modules differ), ``weights=random&seed=N``.

    Images: ``size=N`` or ``size=HxW``, pixels; ``mode=RGB|L``, ``resize=shortest|longest|squash``, ``resize_to=N``,
    ``interpolation=bicubic``, ``mean=`` and ``std=`` (one number, or one for each channel, of pixels in [0, 1]).
    Anything else: ``input_shape=16x32`` and ``range=LOW,HIGH``, finite; a sample is then an array of that shape.

    Every other option is an argument of the callable, read as JSON where it is JSON and as text where it is not.
    """

    name = "module"
    summary = "any importable callable that returns a torch module"
    examples = (
        _EXAMPLE,
        "module:my_models.make_encoder?size=32&mode=L&weights=random&seed=0&depth=4",
        "module:my_models.make_encoder?input_shape=16x32&range=-1,1&weights=own",
    )

    def load(self, uri: eqv.URI) -> eqv.LoadedModel:
        """Call what ``uri`` names and declare the rest.

        Raises:
            UsageError: If the address makes no sense.
            ModelError: If nothing of that name can be imported and called, or no module comes back.
            WeightsError: If the weights do not fit, or are drawn although they were said not to be.
        """
        path = uri.require_path("a callable", _EXAMPLE)
        source = _source(uri)
        preprocessing, shape, limits = _inputs(uri)
        maker = _find(uri, path)
        arguments = _arguments(uri, maker)
        module, recorded = _build(uri, maker, arguments, source)
        activations = weights.activations(module)
        return eqv.LoadedModel(
            module=module,
            preprocessing=preprocessing,
            input_shape=shape,
            input_range=limits,
            random_weights=source.kind == "random",
            activation=next(iter(activations), "unknown"),
            details={
                **recorded,
                "callable": path,
                "arguments": arguments,
                **_code(maker),
                "parameters": sum(p.numel() for p in module.parameters()),
                "activations": activations,
            },
        )


@eqv.hookimpl
def equivengine_register_backends() -> list[type[eqv.Backend]]:
    """Provide the ``module`` backend."""
    return [ModuleBackend]


# -- the address ------------------------------------------------------------------------------------------------------


def _source(uri: eqv.URI) -> weights.Source:
    if "weights" not in uri.options:
        raise eqv.UsageError(
            f"where the weights of {uri.text!r} come from is not said",
            expected="weights=/file.safetensors, weights=own (the callable brings them) or weights=random&seed=0",
            got="no option weights",
            hint="add one of the three",
        )
    return weights.Source.of(uri)


def _inputs(uri: eqv.URI) -> tuple[Any, tuple[int, ...] | None, tuple[float, float]]:
    """Preprocessing, input shape (None for images) and input range."""
    image = [name for name in _IMAGE if name in uri.options]
    if "size" in image and "input_shape" not in uri.options:
        if "range" in uri.options:
            raise eqv.UsageError("pixels are in [0, 1]", got=repr(uri.text), hint="leave 'range' out")
        return _preprocessing(uri), None, (0.0, 1.0)
    if image or "input_shape" not in uri.options:
        raise eqv.UsageError(
            f"the input of {uri.text!r} is not declared",
            expected="either size=N (images, with mean, std and so on), or input_shape=AxB and range=LOW,HIGH",
            got=", ".join(name for name in (*_IMAGE, *_OTHER) if name in uri.options) or "neither",
        )
    shape = _lengths(uri, "input_shape")
    if "range" not in uri.options:
        raise eqv.UsageError(f"the range of the input of {uri.text!r} is not declared", expected="range=LOW,HIGH")
    limits = _numbers(uri, "range", 2)
    if not (all(map(math.isfinite, limits)) and limits[0] < limits[1]):
        raise _unusable(uri, "range", "LOW,HIGH: finite, LOW below HIGH")
    return _Array(shape), shape, (limits[0], limits[1])


def _preprocessing(uri: eqv.URI) -> eqv.Preprocessing:
    size = _lengths(uri, "size")
    size = size * 2 if len(size) == 1 else size
    if len(size) != 2:
        raise _unusable(uri, "size", "SIDE or HEIGHTxWIDTH, pixels")
    chosen = {name: uri.options[name] for name in _CHOICES if name in uri.options}
    for name, value in chosen.items():
        if value not in _CHOICES[name]:
            raise _unusable(uri, name, " or ".join(_CHOICES[name]))
    channels = 1 if chosen.get("mode") == "L" else 3
    return eqv.Preprocessing(
        size=(size[0], size[1]),
        resize_to=uri.integer("resize_to", 0, minimum=1, maximum=65536) or None,
        mean=_numbers(uri, "mean", channels) if "mean" in uri.options else (0.0,) * channels,
        std=_numbers(uri, "std", channels) if "std" in uri.options else (1.0,) * channels,
        **cast(Any, chosen),
    )


class _Array:
    """A sample that is an array (or nested lists) of numbers, as an input of the declared shape, float32."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape

    def __call__(self, raw: Any) -> torch.Tensor:
        import torch

        try:
            found = torch.as_tensor(raw, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise eqv.DataError(
                "a sample is no input of this model",
                expected=f"an array of shape {list(self._shape)}",
                got=type(raw).__name__,
                hint="declare images with size=N, or take another set of samples",
            ) from error
        if tuple(found.shape) != self._shape:
            raise eqv.DataError(
                "a sample is no input of this model",
                expected=f"an array of shape {list(self._shape)}",
                got=list(found.shape),
            )
        return found


def _lengths(uri: eqv.URI, name: str) -> tuple[int, ...]:
    parts = uri.options[name].split("x")
    if not all(part.isascii() and part.isdigit() and 0 < int(part) <= 1 << 24 for part in parts):
        raise _unusable(uri, name, "positive integers with 'x' between them, such as 16x32")
    return tuple(int(part) for part in parts)


def _numbers(uri: eqv.URI, name: str, count: int) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in uri.options[name].split(","))
    except ValueError:
        values = ()
    values = values * count if len(values) == 1 and name != "range" else values
    if len(values) != count:
        raise _unusable(uri, name, f"{count} numbers with commas between them")
    return values


def _unusable(uri: eqv.URI, name: str, expected: str) -> eqv.UsageError:
    return eqv.UsageError(
        f"option {name!r} of {uri.text!r} is not usable", expected=expected, got=repr(uri.options[name])
    )


# -- the callable -----------------------------------------------------------------------------------------------------


def _find(uri: eqv.URI, path: str) -> Callable[..., object]:
    """Import what ``package.attr`` names."""
    module_name, _, attribute = path.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in path.split(".")):
        raise eqv.UsageError(
            f"{path!r} names no attribute of a module", expected="package.attr", got=repr(uri.text), hint=_EXAMPLE
        )
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # where one keeps one's models; stays, since they may import more when they are called
        importlib.invalidate_caches()
    try:
        with weights.seeded(0):  # tensors made while a file is imported are the same every time
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise _import_failed(module_name, error) from error
        raise eqv.ModelError(
            f"there is no module {module_name!r}",
            expected=f"a module with the attribute {attribute!r}, installed, on PYTHONPATH or in {here}",
            got=f"no {error.name!r} there",
            hint="start equivengine in the directory that holds it, or set PYTHONPATH",
        ) from error
    except (Exception, SystemExit) as error:  # importing runs code of the user's: anything may come
        raise _import_failed(module_name, error) from error
    try:
        found = getattr(module, attribute)
    except AttributeError as error:
        named = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise eqv.ModelError(
            f"module {module_name!r} has no attribute {attribute!r}",
            expected=f"one of {weights.some(sorted(named))}",
            got=getattr(module, "__file__", None) or module_name,
        ) from error
    from torch import nn

    if isinstance(found, nn.Module) or not callable(found):
        raise eqv.ModelError(
            f"{path!r} cannot be called",
            expected="a function or class that returns a torch.nn.Module",
            got=f"an object of type {type(found).__name__}",
            hint="write a function that returns it" if isinstance(found, nn.Module) else None,
        )
    return cast("Callable[..., object]", found)


def _import_failed(name: str, error: BaseException) -> eqv.ModelError:
    return eqv.ModelError(
        f"module {name!r} cannot be imported",
        got=weights.first_line(error),
        hint=f'see the traceback with python -c "import {name}"',
    )


def _arguments(uri: eqv.URI, maker: Callable[..., object]) -> dict[str, Any]:
    """Options that are not ours, held against what the callable takes."""
    given = {name: text for name, text in uri.options.items() if name not in _OPTIONS}
    try:
        parameters: Mapping[str, inspect.Parameter] = inspect.signature(maker).parameters
    except (TypeError, ValueError):  # some classes written in C have none
        parameters = {}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    takes = {name for name, parameter in parameters.items() if parameter.kind in named}
    takes_any = any(parameter.kind == inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    strangers = sorted(set(given) - takes)
    if strangers and not takes_any:
        raise eqv.UsageError(
            f"{uri.path!r} takes no argument {strangers[0]!r}, and 'module' has no such option",
            expected=f"arguments {', '.join(sorted(takes)) or 'none'}; options {', '.join(_OPTIONS)}",
            got=repr(uri.text),
        )
    return {name: _value(text) for name, text in given.items()}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _build(
    uri: eqv.URI, maker: Callable[..., object], arguments: Mapping[str, Any], source: weights.Source
) -> tuple[nn.Module, dict[str, object]]:
    """The module with its weights, and what to record of them."""
    if source.path is not None and str(source.path) == "own":
        module, again = (_call(uri, maker, arguments, seed) for seed in (0, 1))
        drawn = _differing(module, again)
        if drawn:
            raise eqv.WeightsError(
                f"{uri.path!r} does not bring its own weights: it returned two different modules",
                expected="the same tensors whatever the random seed is",
                got=f"{len(drawn)} that differ: {weights.some(drawn, 3)}",
                hint="name a file (weights=/file.safetensors), or say that they are drawn (weights=random&seed=0)",
            )
        return module, {"weights": "own: the callable brings them"}
    module = _call(uri, maker, arguments, source.seed)
    recorded = source.describe()
    if source.path is not None:
        recorded["checkpoint_dtypes"] = weights.fit(module, read_checkpoint(source.path), source.path)
    return module, recorded


def _call(uri: eqv.URI, maker: Callable[..., object], arguments: Mapping[str, Any], seed: int) -> nn.Module:
    from torch import nn

    try:
        with weights.seeded(seed):
            module = maker(**arguments)
    except eqv.EngineError:
        raise
    except (Exception, SystemExit) as error:
        shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise eqv.ModelError(
            f"{uri.path}({shown}) failed",
            expected="a torch.nn.Module",
            got=weights.first_line(error),
            hint="call it in Python to see where",
        ) from error
    if not isinstance(module, nn.Module):
        raise eqv.ModelError(
            f"{uri.path!r} does not return a model", expected="a torch.nn.Module", got=type(module).__name__
        )
    return module


def _differing(one: nn.Module, other: nn.Module) -> list[str]:
    import torch

    tensors = [{**dict(module.named_buffers()), **dict(module.named_parameters())} for module in (one, other)]
    if tensors[0].keys() != tensors[1].keys():
        return sorted(tensors[0].keys() ^ tensors[1].keys())
    return [name for name, tensor in tensors[0].items() if not torch.equal(tensor, tensors[1][name])]


def _code(maker: Callable[..., object]) -> dict[str, object]:
    """Which file the callable stands in, and its sha256: a digest of weights says nothing of the code around them."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(maker))
    except TypeError:
        file = None
    if file is None or not Path(file).is_file():
        return {"file": None}
    return {"file": file, "file_sha256": hashlib.sha256(Path(file).read_bytes()).hexdigest()}
