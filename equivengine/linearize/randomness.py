"""Whether a function that draws random numbers depends on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree  # PyTorch has no public one, and its own modules use it
from torch.utils._python_dispatch import TorchDispatchMode

#: Relative difference of two values of one f(x) that is more than another order of summation.
_SAME = 1e-5


def is_random(f: Callable[[Tensor], Tensor], x: Tensor, value: Tensor) -> bool:
    """Whether another call gives another value than f(x).

    Draws of a few values often coincide: a layer that is skipped once in ten times is there in four calls of five. So
    where a second call agrees, it is made again with the same draws, every one of them mirrored (0 becomes 1, u becomes
    1 - u). A model that seeds its draws itself, the same each time, is not random; those are left alone.

    Args:
        f: The function.
        x: Its input.
        value: f(x).
    """
    with torch.no_grad():
        before = _state(x.device)
        again = f(x.detach().clone())
        if _differ(again, value):
            return True
        after = _state(x.device)
        f(x.detach().clone())
        if torch.equal(after, _state(x.device)) or torch.equal(before, after):
            return False  # seeded by the model, or drawn from a generator of its own
        _set_state(before, x.device)
        try:
            with _Mirrored(x.device):
                return _differ(f(x.detach().clone()), value)
        finally:
            _set_state(after, x.device)


def _differ(a: Tensor, b: Tensor) -> bool:
    scale = float(b.abs().nan_to_num(0, 0, 0).max()) if b.numel() else 0.0
    return not torch.allclose(a, b, rtol=0, atol=_SAME * scale, equal_nan=True)


def _state(device: torch.device) -> Tensor:
    """State of the global generator."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.random.get_rng_state()


def _set_state(state: Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.random.set_rng_state(state)


class _Mirrored(TorchDispatchMode):
    """Turns what is drawn from the global generator around within its own range.

    Attention that could drop something out counts as a random operation, and draws nothing where it does not.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: this is no code to compile, and to keep Dynamo off it PyTorch would import all of it, for a second."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags or kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        before = _state(self._device)
        out = func(*args, **kwargs)
        if not torch.equal(before, _state(self._device)):
            for tensor in pytree.tree_leaves(out):
                if isinstance(tensor, Tensor) and tensor.numel() and not tensor.is_complex():
                    tensor.copy_(_mirrored(tensor))
        return out


def _mirrored(drawn: Tensor) -> Tensor:
    values = drawn.to(torch.float64) if drawn.is_floating_point() else drawn.to(torch.int64)
    low, high = values.min(), values.max()
    if low >= 0 and high <= 1:
        return 1 - values
    return low + high - values  # of permutations and integers too, so that they still index what they did
