"""What holds for a whole process and a plugin may leave changed: put back, so that no unit depends on its neighbors.

Switches are those that change numbers: torch's, NumPy's for errors, Pillow's for damaged and huge files. The states of
the global generators are put back too, without a word: to draw from them is no fault.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import operator
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFile

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Change:
    """A switch that was left in another position.

    Attributes:
        switch: What it is called where it is set or read.
        before: Its position before, which it was put back to.
        after: The position in which it was left.
        left_by: The plugin at work.
    """

    switch: str
    before: str
    after: str
    left_by: str

    def to_json(self) -> dict[str, str]:
        """As it stands in provenance."""
        return asdict(self)


#: In place of a position where torch does not say: what was set by older and by newer names disagrees.
_UNCLEAR = "unclear"

_noticed: ContextVar[list[Change] | None] = ContextVar("noticed", default=None)
_said: set[tuple[str, str]] = set()


@contextlib.contextmanager
def noticing() -> Iterator[list[Change]]:
    """A list that grows by each change that plugins leave within."""
    found: list[Change] = []
    token = _noticed.set(found)
    try:
        yield found
    finally:
        _noticed.reset(token)


@contextlib.contextmanager
def alone(who: str) -> Iterator[None]:
    """`put_back` and `generators_put_back`, for the plugin at work."""
    with generators_put_back(), put_back(who):
        yield


@contextlib.contextmanager
def seeded(who: str, seed: int) -> Iterator[None]:
    """`put_back`, with the global generators started from a seed; their states are for the caller to put back."""
    seed_generators(seed)
    with put_back(who):
        yield


@contextlib.contextmanager
def put_back(left_by: str) -> Iterator[None]:
    """Put switches back that are changed within, and notice each; a warning comes once in a process.

    Args:
        left_by: The plugin at work.
    """
    before = _positions()
    try:
        yield
    finally:
        after = _positions()
        if after != before:
            _restore(before)
            changed = [
                Change(switch.name, str(was), str(now), left_by)
                for switch, was, now in zip(_SWITCHES, before, after, strict=True)
                if was not in (now, _UNCLEAR)
            ]
            _notice(changed)


@contextlib.contextmanager
def generators_put_back(seed: int | None = None) -> Iterator[None]:
    """Put the states of the global generators back: of Python, NumPy and torch.

    Args:
        seed: What they start from within; they go on where they are when None.
    """
    on_gpus = torch.cuda.is_initialized()
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    gpus = torch.cuda.get_rng_state_all() if on_gpus else []
    if seed is not None:
        seed_generators(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if on_gpus:
            torch.cuda.set_rng_state_all(gpus)


def seed_generators(seed: int) -> None:
    """Start the global generators, on GPUs that are in use too, from a seed of at most 63 bits."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed formats a traceback where CUDA is not yet in use
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def _notice(changed: list[Change]) -> None:
    found = _noticed.get()
    if found is not None:
        found += [change for change in changed if change not in found]
    for change in changed:
        if (change.switch, change.left_by) not in _said:
            _said.add((change.switch, change.left_by))
            _log.warning(
                "%s left %s at %s; it was put back to %s", change.left_by, change.switch, change.after, change.before
            )


@dataclass(frozen=True)
class _Switch:
    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


def _positions() -> list[Any]:
    return [_position(switch) for switch in _SWITCHES]


def _position(switch: _Switch) -> Any:
    try:
        return switch.read()
    except RuntimeError:
        return _UNCLEAR


def _restore(before: list[Any]) -> None:
    """In order: what sets others along with itself stands before them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for switch, was in zip(_SWITCHES, before, strict=True):
            if was != _UNCLEAR and _position(switch) != was:
                switch.write(was)


def _attributes(owner: object, where: str, *names: str) -> Iterator[_Switch]:
    for name in names:
        if hasattr(owner, name):
            yield _Switch(
                f"{where}.{name}",
                functools.partial(operator.attrgetter(name), owner),
                functools.partial(setattr, owner, name),
            )


def _of_torch() -> Iterator[_Switch]:
    yield _Switch("torch.get_default_dtype", torch.get_default_dtype, torch.set_default_dtype)
    yield _Switch("torch.get_default_device", torch.get_default_device, _set_default_device)
    yield _Switch("torch.get_num_threads", torch.get_num_threads, torch.set_num_threads)
    yield _Switch("torch.is_grad_enabled", torch.is_grad_enabled, torch.set_grad_enabled)
    yield _Switch("torch.autograd.set_detect_anomaly", _anomaly, lambda two: torch.autograd.set_detect_anomaly(*two))
    yield _Switch("torch.set_flush_denormal", _flushes_denormal, torch.set_flush_denormal)
    yield _Switch("torch.use_deterministic_algorithms", _deterministic, _set_deterministic)
    yield from _attributes(torch.utils.deterministic, "torch.utils.deterministic", "fill_uninitialized_memory")
    for device in ("cpu", "cuda"):
        yield _Switch(
            f"torch.set_autocast_enabled({device!r})",
            functools.partial(torch.is_autocast_enabled, device),
            functools.partial(torch.set_autocast_enabled, device),
        )
        yield _Switch(
            f"torch.set_autocast_dtype({device!r})",
            functools.partial(torch.get_autocast_dtype, device),
            functools.partial(torch.set_autocast_dtype, device),
        )


def _of_backends() -> Iterator[_Switch]:
    backends = torch.backends
    # Older names set newer ones along with themselves, and general ones those of an operation.
    yield _Switch(
        "torch.get_float32_matmul_precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    )
    yield from _attributes(backends.cudnn, "torch.backends.cudnn", "allow_tf32")
    for backend in ("generic", "cuda", "mkldnn"):
        for operation in ("all",) if backend == "generic" else ("all", "matmul", "conv", "rnn"):
            yield _Switch(
                f"fp32_precision of {backend}.{operation}",
                functools.partial(torch._C._get_fp32_precision_getter, backend, operation),
                functools.partial(torch._C._set_fp32_precision_setter, backend, operation),
            )
    yield from _attributes(
        backends.cuda.matmul,
        "torch.backends.cuda.matmul",
        "allow_fp16_reduced_precision_reduction",
        "allow_bf16_reduced_precision_reduction",
        "allow_fp16_accumulation",
    )
    yield from _attributes(backends.cudnn, "torch.backends.cudnn", "enabled", "benchmark", "deterministic")
    yield from _attributes(backends.mkldnn, "torch.backends.mkldnn", "enabled", "deterministic")
    yield from _attributes(backends.opt_einsum, "torch.backends.opt_einsum", "enabled", "strategy")
    yield _Switch("torch.backends.nnpack.set_flags", torch._C._get_nnpack_enabled, torch._C._set_nnpack_enabled)
    yield _Switch(
        "torch.backends.mha.set_fastpath_enabled",
        backends.mha.get_fastpath_enabled,
        backends.mha.set_fastpath_enabled,
    )
    for name in ("flash", "mem_efficient", "math", "cudnn"):
        yield _Switch(
            f"torch.backends.cuda.enable_{name}_sdp",
            getattr(backends.cuda, f"{name}_sdp_enabled"),
            getattr(backends.cuda, f"enable_{name}_sdp"),
        )


def _set_default_device(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)  # None: a mode that slows every call is gone


def _anomaly() -> tuple[bool, bool]:
    return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()


def _flushes_denormal() -> bool:
    return sys.float_info.min / 2 == 0  # torch cannot be asked


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _set_deterministic(position: tuple[bool, bool]) -> None:
    if "torch._inductor.config" in sys.modules:
        torch.use_deterministic_algorithms(position[0], warn_only=position[1])
    else:  # that function would import the compiler, for seconds, to tell it
        torch._C._set_deterministic_algorithms(position[0], warn_only=position[1])


_SWITCHES = (
    *_of_torch(),
    *_of_backends(),
    _Switch("numpy.seterr", np.geterr, lambda errors: np.seterr(**errors)),
    *_attributes(Image, "PIL.Image", "MAX_IMAGE_PIXELS"),
    *_attributes(ImageFile, "PIL.ImageFile", "LOAD_TRUNCATED_IMAGES"),
)
