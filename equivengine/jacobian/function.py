"""The function whose derivative is taken: its precision, its batches, and in words why it cannot be differentiated."""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn

from equivengine.errors import ModelError, NumericsError, UsageError
from equivengine.ops.narrowing import Narrowing, watched
from equivengine.ops.precision import DTYPES
from equivengine.ops.versions import Versions, of_all, of_parameters

#: By module: its float64 copy, and the versions of what was copied.
_doubles: weakref.WeakKeyDictionary[nn.Module, tuple[Versions, nn.Module]] = weakref.WeakKeyDictionary()


def at_precision(f: Callable[[torch.Tensor], torch.Tensor], precision: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The function with parameters in the primal's dtype; a module in float64 is a copy, kept until weights change.

    Raises:
        UsageError: The module's parameters are not float32 where they have to be.
    """
    convert = getattr(f, "at_precision", None)
    if callable(convert):
        return convert(precision)
    if not isinstance(f, nn.Module):
        return f
    first = next((p for p in f.parameters() if p.is_floating_point()), None)
    if first is None or first.dtype == DTYPES[precision]:
        return f
    if precision != "fp64":
        raise UsageError(
            "the module's parameters are not float32",
            expected=torch.float32,
            got=first.dtype,
            hint="convert it with .float(), or pass precision='fp64'",
        )
    now = of_all(f)
    if f not in _doubles or _doubles[f][0] != now:
        _doubles[f] = now, copy.deepcopy(f).to(torch.float64)
    return _doubles[f][1]


def applied(f: Callable[[torch.Tensor], torch.Tensor], batched: bool, x: torch.Tensor) -> torch.Tensor:
    """f(x) for one input [*input_shape] -> [n], or for a batch of them."""
    y = f(x if batched else x.unsqueeze(0))
    if not isinstance(y, torch.Tensor) or y.dim() != 2:
        raise ModelError(
            "f must map [B, *input_shape] to one tensor [B, n]",
            got=list(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__,
        )
    return y if batched else y.squeeze(0)


def require_unchanged(f: object, since: Versions) -> None:
    """Refuse to go on with what was made from a module's weights of other versions.

    Raises:
        UsageError: They have changed.
    """
    if of_parameters(f) != since:
        raise UsageError(
            "the model's weights have changed since this operator was made", hint="make a new operator for them"
        )


def narrowed(
    f: Callable[[torch.Tensor], torch.Tensor], apply: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor
) -> tuple[Narrowing, ...]:
    """Where f computes in less than x's precision: what an encoder knows of itself, else seen in one forward pass.

    Args:
        f: The function, in x's precision.
        apply: Calls it.
        x: Its input; it may be changed.
    """
    known = getattr(f, "narrowed", None)
    if isinstance(known, Mapping):
        return tuple(known["fp64" if x.dtype == torch.float64 else "fp32"])
    with torch.no_grad(), watched(f, x) as found:
        apply(x)
    return tuple(found)


def is_batched(f: object, x: torch.Tensor, batched: bool | None) -> bool:
    """Whether the first axis of x is a batch; encoders know their input shape, for others it is False unless said.

    Raises:
        UsageError: x does not fit the encoder, or ``batched`` contradicts it.
    """
    shape = getattr(f, "input_shape", None)
    if shape is None:
        return bool(batched)
    found = x.dim() == len(shape) + 1
    if tuple(x.shape[1:] if found else x.shape) != tuple(shape):
        raise UsageError(
            "x does not fit the encoder",
            expected=f"{list(shape)} or [B, {', '.join(map(str, shape))}]",
            got=list(x.shape),
        )
    if batched is not None and batched != found:
        raise UsageError("batched contradicts the shape of x", expected=found, got=batched)
    return found


@contextlib.contextmanager
def explained(mode: str) -> Iterator[None]:
    """Say in words why a third-party model cannot be differentiated."""
    try:
        yield
    except (RuntimeError, NotImplementedError, TypeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise NumericsError(
                "a pass over the model does not fit into memory",
                got=str(error).split("\n")[0],
                hint="pass a smaller chunk_size or memory_budget",
            ) from error
        raise ModelError(
            f"the model cannot be differentiated in {mode} mode",
            got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else error}",
            hint="look for in-place changes of buffers, .numpy(), .item() or data-dependent branches in its forward",
        ) from error
