"""Where a model computes in less than the precision of its input: casts that nothing in its output's dtype betrays.

A module that says ``x.float()`` in its forward (normalizations and softmax of many transformers do) stays in float32
when the model is converted to float64, and gives its result back as float64. What is called a float64 reference is then
one in name only. So every operation of one forward pass is looked at: one that takes a tensor of full precision which
depends on the input, and gives a floating-point tensor of less, narrows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree  # PyTorch has no public one, and its own modules use it
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from equivengine.ops.eager import uncompiled

#: Modules that are named; the others are counted.
_NAMED = 3


@dataclass(frozen=True)
class Narrowing:
    """One place where a forward pass loses precision.

    Attributes:
        module: Name of the innermost module that was running; empty for the model itself.
        kind: Its class.
        operation: The operation, as `torch.ops.aten` has it.
        dtype: What it gave.
    """

    module: str
    kind: str
    operation: str
    dtype: torch.dtype

    @property
    def epsilon(self) -> float:
        """Machine epsilon of what it gave."""
        return torch.finfo(self.dtype).eps

    def __str__(self) -> str:
        return f"{self.module or 'the model itself'} ({self.kind}): {str(self.dtype).removeprefix('torch.')}"


def narrowings(f: Callable[[Tensor], object], x: Tensor) -> tuple[Narrowing, ...]:
    """Every place where f(x) computes in less than x's precision, in the order of the forward pass, each once.

    What does not depend on x (tables of positions, masks) may be made in any precision: it is rounded once and for all,
    the same in every pass. Integers and truth values are no loss either; a function may round. Kernels that compute in
    less than their result's dtype are not seen.

    Args:
        f: A function or module; it is called once, without autograd.
        x: Its input, of floating-point dtype.
    """
    with torch.no_grad(), watched(f, x) as found:
        f(x)
    return tuple(found)


@contextlib.contextmanager
def watched(f: object, x: Tensor) -> Iterator[Sequence[Narrowing]]:
    """Within the block, one call of f(x) is looked at; what narrows is in the list that the block is given.

    Args:
        f: What is called; modules within it are named.
        x: The very tensor that f is called with.
    """
    watch = _Watch(x)
    with contextlib.ExitStack() as stack:
        if isinstance(f, nn.Module):
            for name, module in f.named_modules():
                if isinstance(module, torch.jit.ScriptModule):  # takes no hooks; the module around it is named
                    continue
                stack.callback(module.register_forward_pre_hook(watch.entering(name)).remove)
                stack.callback(module.register_forward_hook(watch.left, always_call=True).remove)
        stack.enter_context(uncompiled())
        stack.enter_context(watch)
        yield watch.found


def epsilon_of(dtype: torch.dtype, found: Sequence[Narrowing]) -> float:
    """Machine epsilon of a computation: that of its dtype, or of the narrowest place in it."""
    return max([torch.finfo(dtype).eps, *(each.epsilon for each in found)])


def named(found: Sequence[Narrowing]) -> str:
    """The first places in words, and how many more there are."""
    texts = list(dict.fromkeys(map(str, found)))
    more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return ", ".join(texts[:_NAMED]) + more


class _Watch(TorchDispatchMode):
    """Follows what depends on x through the operations below autograd."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: this is no code to compile, and to keep Dynamo off it PyTorch would import all of it, for a second."""
        return False

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.found: list[Narrowing] = []
        self._full = torch.finfo(x.dtype).eps
        self._running: list[tuple[str, str]] = []
        # Weak: a pass over a large model shall free its tensors as it goes.
        self._dependent: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._dependent[x] = True

    def entering(self, name: str) -> Callable[[nn.Module, Any], None]:
        """A hook that says which module runs."""

        def hook(module: nn.Module, args: Any) -> None:
            self._running.append((name, type(module).__name__))

        return hook

    def left(self, module: nn.Module, args: Any, output: Any) -> None:
        """A hook that says that it has ended."""
        self._running.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [t for t in _floating((args, kwargs)) if t in self._dependent]
        full = [t for t in given if torch.finfo(t.dtype).eps <= self._full]
        out = func(*args, **kwargs)
        if not given:
            return out
        for tensor in _floating(out):
            self._dependent[tensor] = True
            if full and torch.finfo(tensor.dtype).eps > self._full:
                name, kind = self._running[-1] if self._running else ("", "function")
                narrowing = Narrowing(name, kind, func._schema.name.removeprefix("aten::"), tensor.dtype)
                if narrowing not in self.found:
                    self.found.append(narrowing)
        return out


def _floating(values: Any) -> list[Tensor]:
    """Real and complex tensors in nested arguments or results."""
    leaves = pytree.tree_leaves(values)
    return [t for t in leaves if isinstance(t, Tensor) and (t.is_floating_point() or t.is_complex())]
