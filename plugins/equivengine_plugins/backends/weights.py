"""What the backends share: where weights come from, whether they fit a model, and why there are none.

A state dict fits a model exactly or not at all. Files are read by `checkpoint_file`.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import equivengine as eqv

if TYPE_CHECKING:
    import torch
    from torch import nn

#: Options that say where weights come from; every backend that uses `Source` allows them.
OPTIONS = ("weights", "seed")

_CONNECT_SECONDS = 5.0
_STALL_SECONDS = 20.0
_LONGEST_REASON = 400
_hub_lock = threading.RLock()

_ACTIVATIONS = {
    "GELU": "gelu",
    "GELUActivation": "gelu",
    "GELUTanh": "gelu_tanh",
    "NewGELUActivation": "gelu_tanh",
    "QuickGELU": "quickgelu",
    "QuickGELUActivation": "quickgelu",
    "ReLU": "relu",
    "ReLU6": "relu6",
    "SiLU": "silu",
    "SiLUActivation": "silu",
    "Swish": "silu",
    "Hardswish": "hardswish",
    "HardSwish": "hardswish",
    "LeakyReLU": "leaky_relu",
    "PReLU": "prelu",
    "ELU": "elu",
    "Mish": "mish",
}


@dataclass(frozen=True)
class Source:
    """Where an address asks for weights to come from.

    Attributes:
        kind: ``"hub"`` (the library's own download or cache), ``"random"`` or ``"file"``.
        path: The file, for ``"file"``.
        seed: Seed of the draw, for ``"random"``; also of what a file overwrites.
    """

    kind: Literal["hub", "random", "file"]
    path: Path | None = None
    seed: int = 0

    @classmethod
    def of(cls, uri: eqv.URI) -> Source:
        """Read ``?weights=`` and ``?seed=``.

        Raises:
            UsageError: If ``weights`` is empty, or a seed stands without ``weights=random``.
        """
        value = uri.options.get("weights")
        if value != "random" and "seed" in uri.options:
            raise eqv.UsageError(
                "a seed makes sense with random weights only", expected="?weights=random&seed=0", got=repr(uri.text)
            )
        if value is None:
            return cls("hub")
        if value == "random":
            return cls("random", seed=uri.integer("seed", 0))
        if not value:
            raise eqv.UsageError(
                "option 'weights' is empty",
                expected="?weights=random or ?weights=/file.safetensors",
                got=repr(uri.text),
            )
        return cls("file", path=Path(value).expanduser())

    def describe(self) -> dict[str, object]:
        """What to record of it, JSON types only."""
        if self.kind == "random":
            return {"weights": "random", "seed": self.seed}
        return {"weights": str(self.path) if self.kind == "file" else "pretrained"}


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw weights from ``seed`` on the CPU and leave torch's global random state as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def misfit(module: nn.Module, state: Mapping[str, torch.Tensor]) -> str | None:
    """How ``state`` fails to be a state dict of ``module``, first keys named; ``None`` if it fits exactly."""
    own = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    return differences(own, {key: tuple(value.shape) for key, value in state.items()})


def differences(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> str | None:
    """How the names and shapes ``found`` differ from those ``expected``, first names of each kind; ``None`` if not."""
    # Batch counters came with torch 0.4.1 and play no part in eval mode.
    missing = [key for key in expected if key not in found and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in found if key not in expected]
    shapes = [
        f"{key} is {list(found[key])} instead of {list(expected[key])}"
        for key in expected
        if key in found and found[key] != expected[key]
    ]
    reports = (("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes))
    parts = [f"{len(names)} {kind}: {some(names, 3)}" for kind, names in reports if names]
    return "; ".join(parts) or None


def fit(module: nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> list[str]:
    """Load ``state`` into ``module``, every key of it. Returns the dtypes that the file held, for the record.

    Raises:
        WeightsError: If a key is missing, unexpected or of a wrong shape, or holds no floating-point numbers where the
            model does.
    """
    problem = misfit(module, state)
    if problem is not None:
        raise eqv.WeightsError(
            f"the weights in {str(path)!r} do not fit the model",
            expected=f"the {len(module.state_dict())} parameters and buffers of {type(module).__name__}, and no others",
            got=problem,
            hint="name the architecture that the file was made with",
        )
    own = module.state_dict()
    kinds = [
        f"{key} holds {value.dtype}"
        for key, value in state.items()
        if own[key].is_floating_point() and not value.is_floating_point()
    ]
    if kinds:
        raise eqv.WeightsError(
            f"the weights in {str(path)!r} do not fit the model",
            expected="floating-point numbers",
            got=some(kinds, 3),
            hint="save the state dict of the model in float32",
        )
    module.load_state_dict({**own, **state}, strict=True)
    return sorted({str(value.dtype).removeprefix("torch.") for value in state.values()})


def cannot_be_had(
    uri: eqv.URI,
    reason: object,
    *,
    cache: object,
    expected: str | None = None,
    address: str | None = None,
    local: str | None = None,
) -> eqv.WeightsError:
    """The one error for pretrained weights that cannot be had, naming the three ways out.

    Args:
        uri: The address that was asked for.
        reason: What went wrong: an exception or a sentence.
        cache: The directory where the library looks before it downloads.
        expected: What would have been right; a hub or a filled cache by default.
        address: What to put before ``?weights=``; ``uri`` by default.
        local: How to name a local file, if not by ``?weights=/file.safetensors``.
    """
    address = address or uri.text.partition("?")[0]
    local = local or f"{address}?weights=/file.safetensors"
    return eqv.WeightsError(
        f"the pretrained weights of {uri.text!r} cannot be had",
        expected=expected or f"a reachable hub, or the files in the cache {cache}",
        got=first_line(reason),
        hint=f"one of three:\n    name a local file: {local}\n"
        f"    ask for random weights in so many words: {address}?weights=random&seed=0\n"
        f"    make the hub reachable (HF_HUB_OFFLINE unset), or fill the cache {cache} beforehand",
    )


def folder_unreadable(uri: eqv.URI, reason: object, *, expected: str, hint: str) -> eqv.WeightsError:
    """The error for a local folder that holds no readable model; no hub has anything to do with it.

    Args:
        uri: The address that was asked for.
        reason: What went wrong: an exception or a sentence.
        expected: Which files belong there.
        hint: The next step.
    """
    return eqv.WeightsError(
        f"the folder that {uri.text!r} names cannot be read as a model",
        expected=expected,
        got=without_advice(reason),
        hint=hint,
    )


def without_advice(reason: object) -> str:
    """`first_line` of what a library says, but for how to run code that came with a checkpoint all the same."""
    if "trust_remote_code" in str(reason):
        return "a configuration that wants code that it brings along to be run"
    if "weights_only" in str(reason):
        named = re.search(r"GLOBAL [\w.]+\w|Unsupported globals: [\w.]+\w", str(reason))
        return f"a pickle that wants code to be run{f' ({named.group()})' if named else ''}, or a broken one"
    return first_line(reason)


@contextlib.contextmanager
def foreign_code_refused(uri: eqv.URI) -> Iterator[None]:
    """Have transformers refuse code that a checkpoint brings along, whoever asks it to run some.

    Libraries on top of it pass on what a model's configuration says, ``trust_remote_code`` included; where nothing is
    said, transformers asks at the terminal. Within the block it neither runs code nor asks.

    Raises:
        ModelError: Where it was about to.
    """
    try:
        from transformers import dynamic_module_utils
    except ImportError:  # no transformers, nobody to run anything
        yield
        return

    def refuse(*arguments: object, **named: object) -> None:
        raise eqv.ModelError(
            f"{uri.text!r} is refused: it wants code that it brings along to be run",
            expected="a model that the libraries themselves know, without trust_remote_code",
            got=some([str(argument) for argument in arguments[:2]]),
            hint="read that code; if you trust it, import it yourself and name it as module:package.attr",
        )

    untyped = cast(Any, dynamic_module_utils)
    with _hub_lock:
        run, seconds = untyped.get_class_in_module, untyped.TIME_OUT_REMOTE_CODE
        untyped.get_class_in_module, untyped.TIME_OUT_REMOTE_CODE = refuse, 0
        try:
            yield
        finally:
            untyped.get_class_in_module, untyped.TIME_OUT_REMOTE_CODE = run, seconds


def hub_cache() -> str:
    """The directory where huggingface_hub keeps what it downloaded."""
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)


@contextlib.contextmanager
def hub_access() -> Iterator[None]:
    """Let a library download or use its cache, and give up within seconds if the hub cannot be reached.

    huggingface_hub repeats a failed look-up five times with growing pauses, 23 s for each file name that it tries. So
    the hub is asked for a sign of life first; without one, the block runs in the hub's offline mode: from the cache,
    or not at all. Both settings are put back afterwards.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    with _hub_lock:
        offline, timeout = constants.HF_HUB_OFFLINE, socket.getdefaulttimeout()
        if not offline:
            try:
                get_session().head(constants.ENDPOINT, timeout=_CONNECT_SECONDS)
            except Exception:  # the hub's HTTP library changed between its versions; any failure means the same
                constants.HF_HUB_OFFLINE = True
        if timeout is None:
            socket.setdefaulttimeout(
                _STALL_SECONDS
            )  # weights outside the hub come through urllib, which never gives up
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = offline
            socket.setdefaulttimeout(timeout)


def activations(module: nn.Module) -> dict[str, int]:
    """How many modules of each kind of nonlinearity there are, most frequent first; functional calls are not seen."""
    counts: Counter[str] = Counter()
    for part in module.modules():
        name = _ACTIVATIONS.get(type(part).__name__)
        if name == "gelu" and getattr(part, "approximate", "none") == "tanh":
            name = "gelu_tanh"
        if name is not None:
            counts[name] += 1
    return dict(counts.most_common())


def some(names: Sequence[str], most: int = 8) -> str:
    """The first few names, as a list in a sentence; names that a file gives may have any length, and are cut."""
    shown = [name if len(name) <= 160 else f"{name[:160]}..." for name in names[:most]]
    return ", ".join([*shown, *(["..."] if len(names) > most else [])]) or "none"


def first_line(reason: object) -> str:
    """One line that says what an exception (or a sentence) says, without colors, which torch puts into some.

    It is the first one, and the second where the first ends with a colon.
    """
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(reason))
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    text = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    text = text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."
    if not isinstance(reason, BaseException):
        return text
    return f"{type(reason).__name__}: {text}" if text else type(reason).__name__
