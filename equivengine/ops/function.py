"""Differentiable operations: `torch.autograd.Function` without what PyTorch spends on it at every call.

Under `torch.func`, PyTorch makes two classes for every call of an autograd.Function at every level of differentiation,
inspects signatures and walks argument trees: about half a millisecond, which is more than a kernel on a GPU takes. Here

- forward mode unpacks the tangent, runs the operation one level below and hands out a dual tensor, without a Function;
- reverse mode records the operation by one class that serves all operations;
- a level that does not differentiate, or batch, any input is passed by.

What is left (batched inputs, plain autograd) is PyTorch's own `Function.apply`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch._C import _functorch
from torch._C._functorch import TransformType
from torch._functorch.pyfunctorch import FuncTorchInterpreter, VmapInterpreter, coerce_cinterpreter
from torch._functorch.utils import enable_single_level_autograd_function

from equivengine.ops import record
from equivengine.ops.registration import batched, outer_levels_visible, without_own_tangent

__all__ = ["Operation", "apply", "outputs_of"]


class Operation(torch.autograd.Function):
    """An operation whose derivative rules take K tangents at once; call it by `apply`.

    A subclass defines `forward`, `saved`, `push` and `pull`. Only `out` has derivatives, with respect to the first
    `differentiable` inputs. What else `forward` returns is kept for the rules: differentiating it is a second
    derivative, and refused.

    Attributes:
        name: What messages call it.
        differentiable: How many inputs, the first ones, have derivatives.
    """

    name: ClassVar[str]
    differentiable: ClassVar[int] = 1

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        """Return (out, *kept); runs below all levels of differentiation."""
        raise NotImplementedError

    @staticmethod
    def saved(inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
        """Choose what the rules need: inputs, outputs and constants. One tensor at least must depend on the inputs."""
        raise NotImplementedError

    @staticmethod
    def push(saved: tuple[Any, ...], *tangents: Tensor | None) -> Tensor:
        """Return the tangent of out; None stands for zero, and one tangent at least is not None."""
        raise NotImplementedError

    @staticmethod
    def pull(saved: tuple[Any, ...], cotangent: Tensor) -> tuple[Tensor, ...]:
        """Return the cotangents of the differentiable inputs."""
        raise NotImplementedError

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], x: Tensor, *rest: Any) -> tuple[Any, Any]:
        """Batch the first input alone, as one more leading dimension."""
        assert in_dims[0] is not None
        assert all(dim is None for dim in in_dims[1:])
        outputs = outputs_of(cls, x.movedim(in_dims[0], 0), *rest)
        return outputs, (0,) * len(outputs)

    @classmethod
    def setup_context(cls, ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Save what the rules need; of `torch.autograd.Function`, as the two below."""
        saved = cls.saved(inputs, output)
        tensors = [value if isinstance(value, Tensor) else None for value in saved]
        ctx.constants = [None if isinstance(value, Tensor) else value for value in saved]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors, *output[1:])
        ctx.recordings = record.active()

    @classmethod
    def jvp(cls, ctx: Any, *tangents: Any) -> Any:
        """Push tangents where PyTorch calls the Function: under plain forward mode."""
        cls._check_inputs(t is not None for t in tangents[cls.differentiable :])
        count = len(ctx.constants)
        with outer_levels_visible(), record.also_into(ctx.recordings):
            tensors = without_own_tangent(*ctx.saved_tensors)
            own = without_own_tangent(*tangents[: cls.differentiable])
            if all(t is None for t in own):
                return (None,) * (1 + len(tensors) - count)
            tangent = cls.push(_merged(tensors[:count], ctx.constants), *own)
            return tangent, *(torch.zeros_like(kept) for kept in tensors[count:])

    @classmethod
    def backward(cls, ctx: Any, cotangent: Tensor | None, *kept: Tensor | None) -> Any:
        """Pull a cotangent back."""
        cls._check_inputs(ctx.needs_input_grad[cls.differentiable :])
        if any(c is not None for c in kept):
            raise NotImplementedError(f"{cls.name}: second derivatives are not supported")
        rest = (None,) * (len(ctx.needs_input_grad) - cls.differentiable)
        if cotangent is None:
            return (None,) * cls.differentiable + rest
        with record.also_into(ctx.recordings):
            return (*cls.pull(_merged(ctx.saved_tensors, ctx.constants), cotangent), *rest)

    @classmethod
    def _check_inputs(cls, differentiated: Any) -> None:
        if any(differentiated):
            raise NotImplementedError(
                f"equivengine.ops.{cls.name} has derivatives with respect to its first input(s) only; another one was "
                "differentiated in a way that it did not notice beforehand: freeze the parameters, or use PyTorch's own"
            )


def apply(operation: type[Operation], *inputs: Any) -> Tensor:
    """Run an operation under whatever transforms of `torch.func`, or plain autograd, are active; return its `out`."""
    return _run(operation, inputs, with_kept=False)[0]


def outputs_of(operation: type[Operation], *inputs: Any) -> tuple[Tensor, ...]:
    """Run an operation as `apply` does; return (out, *kept)."""
    return _run(operation, inputs, with_kept=True)


def _run(operation: type[Operation], inputs: tuple[Any, ...], *, with_kept: bool) -> tuple[Tensor, ...]:
    innermost = _functorch.peek_interpreter_stack()
    if innermost is None:
        return _below_functorch(operation, inputs)
    interpreter = coerce_cinterpreter(innermost)
    if isinstance(interpreter, VmapInterpreter):
        run = partial(outputs_of, operation)
        return batched(interpreter, operation.vmap, run, inputs)
    inputs = tuple(_functorch.unwrap_if_dead(t) if isinstance(t, Tensor) else t for t in inputs)
    level, kind = interpreter.level(), interpreter.key()
    if not any(_functorch.maybe_get_level(t) == level for t in inputs if isinstance(t, Tensor)):
        with interpreter.lower():
            return _run(operation, inputs, with_kept=with_kept)
    if kind == TransformType.Jvp:
        return _forward_mode(operation, interpreter, inputs, with_kept=with_kept)
    if kind == TransformType.Grad:
        lifted = (interpreter._cptr.lift(t) if isinstance(t, Tensor) else t for t in inputs)
        with enable_single_level_autograd_function():
            return _ReverseMode.apply(*lifted, operation, interpreter)  # type: ignore[attr-defined]
    return operation.apply(*inputs)


def _below_functorch(operation: type[Operation], inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """Plain autograd is left to PyTorch; where nothing is differentiated there is nothing to set up."""
    tensors = [t for t in inputs if isinstance(t, Tensor)]
    recorded = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    dual = forward_ad._current_level >= 0 and any(torch._unpack_dual(t, level=0)[1] is not None for t in tensors)
    return operation.apply(*inputs) if recorded or dual else operation.forward(*inputs)


def _forward_mode(
    operation: type[Operation], interpreter: FuncTorchInterpreter, inputs: tuple[Any, ...], *, with_kept: bool
) -> tuple[Tensor, ...]:
    """One level of `torch.func.jvp`: the operation and its rule run below it, where outer levels see both."""
    level = interpreter.level()
    primals: list[Any] = []
    tangents: list[Tensor | None] = []
    for value in inputs:
        primal, tangent = torch._unpack_dual(value, level=0) if isinstance(value, Tensor) else (value, None)
        primals.append(_functorch._unwrap_for_grad(primal, level) if isinstance(value, Tensor) else value)
        tangents.append(None if tangent is None else _functorch._unwrap_for_grad(tangent, level))
    count = operation.differentiable if forward_ad._is_fwd_grad_enabled() else 0
    operation._check_inputs(t is not None for t in tangents[operation.differentiable :])
    with interpreter.lower():
        outputs = outputs_of(operation, *primals)
        if all(t is None for t in tangents[:count]):
            return outputs
        pushed = [operation.push(operation.saved(tuple(primals), outputs), *tangents[:count])]
        if with_kept:
            # What is kept depends on the inputs too: a tangent, of any value, lets this level refuse to ignore that.
            pushed += [torch.zeros_like(kept) for kept in outputs[1:]]
    return tuple(
        torch._make_dual(_functorch._wrap_for_grad(value, level), _functorch._wrap_for_grad(tangent, level), level=0)
        for value, tangent in zip(outputs[: len(pushed)], pushed, strict=True)
    )


class _ReverseMode(torch.autograd.function._SingleLevelFunction):
    """One level of `torch.func.vjp` around any operation; `torch._functorch.autograd_function` makes one per call."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        *inputs, operation, interpreter = arguments
        level = interpreter.level()
        below = (_functorch._unwrap_for_grad(t, level) if isinstance(t, Tensor) else t for t in inputs)
        # A Function disables both modes for every level; the levels below must still be differentiated.
        with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True), interpreter.lower():
            outputs = outputs_of(operation, *below)
        return tuple(_functorch._wrap_for_grad(out, level) for out in outputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *own, ctx.operation, _ = inputs
        ctx.operation.setup_context(ctx, tuple(own), output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        return ctx.operation.backward(ctx, *cotangents)


def _merged(tensors: tuple[Tensor | None, ...], constants: list[Any]) -> tuple[Any, ...]:
    return tuple(constant if tensor is None else tensor for tensor, constant in zip(tensors, constants, strict=True))
