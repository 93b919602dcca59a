"""Defines operators that apply one derivative rule to K tangents (or cotangents) at once.

`define` gives an operator everything but its compiled kernels, which register themselves when the extension is loaded:
the schema, a plain PyTorch reference, the shape rule for fake tensors, the batching rule for `torch.func.vmap`, and an
autograd guard. An operator `equivengine::NAME` has two overloads: `default`, which runs the compiled kernel of the
tensors' device where there is one, and `reference`, which always runs the plain PyTorch formula.

Layout: tangents are [K, R, ...] and belong to R primal rows [R, ...]. A batch of B tangents for one primal folds into
K; a batch of B primals folds into R. So one kernel serves one image with K directions and B images with K directions
each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch._C import _functorch
from torch._C._functorch import TransformType
from torch._functorch.autograd_function import VmapInfo
from torch._functorch.pyfunctorch import VmapInterpreter
from torch._functorch.utils import enable_single_level_autograd_function
from torch._ops import OpOverload

from equivengine.ops import extension, record

NAMESPACE = "equivengine"

_library = torch.library.Library(NAMESPACE, "FRAGMENT")


@dataclass(frozen=True)
class TangentOp:
    """An operator that applies one derivative rule to K tangents; call it as its schema says.

    Attributes:
        name: The operator's name without the namespace.
        reference: The plain PyTorch formula.
        takes: Whether the compiled kernels take these arguments (dtypes; shapes are checked by the kernels).
        kernel: The overload that runs the compiled kernel where there is one.
        plain: The overload that always runs the reference.
    """

    name: str
    reference: Callable[..., Any]
    takes: Callable[..., bool]
    kernel: OpOverload
    plain: OpOverload
    _batching: Callable[..., Any] = field(repr=False, compare=False)
    _devices: dict[str, bool] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, *args: Any) -> Any:
        """Run the compiled kernel or the reference, and note which in the open recordings."""
        path = self.path(*args)
        record.note(self.name, path)
        return self._run(self.plain if path == "reference" else self.kernel, *args)

    def _run(self, overload: OpOverload, *args: Any) -> Any:
        """Call the overload, but fold batches here: the dispatcher's way to the batching rule takes 100 us longer."""
        innermost = _functorch.peek_interpreter_stack()
        if innermost is None or innermost.key() != TransformType.Vmap:
            return overload(*args)
        run = partial(self._run, overload)
        return batched(VmapInterpreter(innermost), partial(self._batching, run), run, args)

    def path(self, *args: Any) -> str:
        """Return what a call with these arguments would run: "cpu-avx2", ..., "cuda" or "reference"."""
        device = next(arg.device.type for arg in args if isinstance(arg, Tensor))
        path = extension.kernel_path(device)
        return path if path is not None and self._compiled_for(device) and self.takes(*args) else "reference"

    def _compiled_for(self, device: str) -> bool:
        if device not in self._devices:
            self._devices[device] = torch._C._dispatch_has_kernel_for_dispatch_key(
                f"{NAMESPACE}::{self.name}", device.upper()
            )
        return self._devices[device]


def define(
    name: str,
    schema: str,
    *,
    reference: Callable[..., Any],
    fake: Callable[..., Any],
    takes: Callable[..., bool],
    tangents: Sequence[str],
    rows: Sequence[str],
) -> TangentOp:
    """Define the operator `equivengine::NAME`.

    The first definition in a process loads the compiled extension, as `EQUIVENGINE_EXTENSION` says.

    Args:
        name: The operator's name without the namespace.
        schema: Its arguments and results, without default values: "(Tensor tangents, Tensor x) -> Tensor".
        reference: The plain PyTorch formula, with the schema's arguments. It must not modify or return them.
        fake: The shape rule: returns empty tensors of the results' shapes, dtypes and devices.
        takes: Whether the compiled kernels take these arguments; otherwise the reference runs, and is recorded.
        tangents: Names of the arguments [K, R, ...]. All results have this layout too.
        rows: Names of the primal arguments [R, ...]. Every other tensor argument is shared by all rows.

    Returns:
        The operator, to be called by the `jvp` and `backward` of a `torch.autograd.Function`.

    Raises:
        ExtensionError: The compiled extension does not fit the running torch, or is required and missing.
        ValueError: `tangents` or `rows` names an argument that the schema lacks.
    """
    extension.load()
    parsed = torch._C.parse_schema(f"{NAMESPACE}::{name}{schema}")
    arguments = [argument.name for argument in parsed.arguments]
    unknown = sorted({*tangents, *rows} - set(arguments))
    if unknown or not tangents:
        raise ValueError(f"{name}: tangents and rows must name arguments of {schema}; got {unknown or 'no tangents'}")

    overloads = []
    for overload_name in ("default", "reference"):
        qualified = name if overload_name == "default" else f"{name}.{overload_name}"
        _library.define(f"{qualified}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
        overload = getattr(getattr(getattr(torch.ops, NAMESPACE), name), overload_name)
        # By call: as a decorator, `impl` would replace the function by None.
        _library.impl(qualified, reference, "CompositeExplicitAutograd")
        torch.library.register_fake(f"{NAMESPACE}::{qualified}", fake, lib=_library)
        roles = tuple("tangent" if a in tangents else "row" if a in rows else "shared" for a in arguments)
        batching = partial(_batching_rule, roles, fake)
        torch.library.register_vmap(f"{NAMESPACE}::{qualified}", partial(batching, overload), lib=_library)
        # The extension brings its own guard for the operators that it has kernels for.
        if not torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::{qualified}", "Autograd"):
            _library.impl(qualified, _autograd_guard(overload), "Autograd", with_keyset=True)
        overloads.append(overload)
    kernel, plain = overloads
    return TangentOp(name, reference, takes, kernel, plain, batching)


def batched(interpreter: VmapInterpreter, rule: Callable[..., Any], unbatched: Callable[..., Any], args: Any) -> Any:
    """Apply a batching rule at the innermost level, which is a vmap, without the dispatcher's help.

    Args:
        interpreter: That level.
        rule: Takes (info, in_dims, *args) as those of `torch.library.register_vmap`; returns (results, out_dims).
        unbatched: What is called where no argument is batched at this level.
        args: The arguments.
    """
    level = interpreter.level()
    args = [_functorch.unwrap_if_dead(arg) if isinstance(arg, Tensor) else arg for arg in args]
    pairs = [_functorch._unwrap_batched(arg, level) if isinstance(arg, Tensor) else (arg, None) for arg in args]
    members, in_dims = [pair[0] for pair in pairs], tuple(pair[1] for pair in pairs)
    with interpreter.lower():
        if all(dim is None for dim in in_dims):
            return unbatched(*members)
        info = VmapInfo(interpreter.batch_size(), interpreter.randomness())
        results, out_dims = rule(info, in_dims, *members)

    def wrap(out: Tensor, dim: int | None) -> Tensor:
        return out if dim is None else _functorch._add_batch_dim(out, dim, level)

    if isinstance(results, Tensor):
        return wrap(results, out_dims)
    return tuple(wrap(out, dim) for out, dim in zip(results, out_dims, strict=True))


def without_own_tangent(*tensors: Any) -> tuple[Any, ...]:
    """Strip the tangents of the level that is being differentiated; call it under `outer_levels_visible`.

    See `outer_levels_visible` for why.
    """
    if not forward_ad._is_fwd_grad_enabled() or forward_ad._current_level < 0:
        return tensors
    return tuple(None if t is None else forward_ad.unpack_dual(t).primal for t in tensors)


def outer_levels_visible() -> forward_ad._set_fwd_grad_enabled:
    """Let outer levels of forward mode see what a `jvp` static method computes.

    PyTorch runs the `jvp` of an autograd.Function with forward mode disabled for all levels, so jvp(jvp(f)) is
    silently zero (it is zero in torch 2.14 for any autograd.Function). Inside this context the outer level sees the
    operators, and our autograd guard can refuse. The saved tensors still carry the tangent of the level at hand, which
    must not be differentiated again: `without_own_tangent` removes it.
    """
    return forward_ad._set_fwd_grad_enabled(True)


def is_differentiated(parameter: Tensor | None) -> bool:
    """Whether any autograd level, of torch.func or plain, differentiates with respect to the tensor."""
    while parameter is not None:
        if parameter.requires_grad and torch.is_grad_enabled():
            return True
        # What is batched has no tangent of its own, and no rule to ask for one: the tensor inside has.
        dual = forward_ad._current_level >= 0 and not _functorch.is_batchedtensor(parameter)
        if dual and torch._unpack_dual(parameter, level=0)[1] is not None:
            return True
        if not _functorch.is_functorch_wrapped_tensor(parameter):
            return False
        parameter = _functorch.get_unwrapped(parameter)
    return False


def _batching_rule(
    roles: tuple[str, ...],
    fake: Callable[..., Any],
    call: Callable[..., Any],
    info: Any,
    in_dims: tuple[int | None, ...],
    *args: Any,
) -> tuple[Any, Any]:
    """The batching rule of an operator with these roles of arguments; `call` runs it on the folded arguments."""
    batched = {role for role, dim in zip(roles, in_dims, strict=True) if dim is not None}
    if info.batch_size == 0:
        return _empty(fake, in_dims, args)
    if "shared" in batched:
        return _one_by_one(call, info.batch_size, in_dims, args)
    if "row" in batched:
        return _fold_into_rows(call, roles, info.batch_size, in_dims, args)
    return _fold_into_tangents(call, roles, info.batch_size, in_dims, args)


def _fold_into_tangents(
    call: Callable[..., Any], roles: tuple[str, ...], size: int, in_dims: tuple[int | None, ...], args: tuple[Any, ...]
) -> tuple[Any, Any]:
    """[B, K, R, ...] tangents of one primal become [B K, R, ...]: the primal stays unbatched."""

    def fold(arg: Any, role: str, dim: int | None) -> Any:
        if role != "tangent" or arg is None:
            return arg
        return _with_batch(arg, dim, size, at=0).flatten(0, 1)

    folded = [fold(*each) for each in zip(args, roles, in_dims, strict=True)]
    return _on_results(call(*folded), lambda out: out.reshape(size, out.shape[0] // size, *out.shape[1:]), 0)


def _fold_into_rows(
    call: Callable[..., Any], roles: tuple[str, ...], size: int, in_dims: tuple[int | None, ...], args: tuple[Any, ...]
) -> tuple[Any, Any]:
    """B primals [B, R, ...] with tangents [K, B, R, ...] become [B R, ...] and [K, B R, ...]."""

    def fold(arg: Any, role: str, dim: int | None) -> Any:
        if role == "shared" or arg is None:
            return arg
        at = 1 if role == "tangent" else 0
        return _with_batch(arg, dim, size, at=at).flatten(at, at + 1)

    folded = [fold(*each) for each in zip(args, roles, in_dims, strict=True)]
    return _on_results(
        call(*folded), lambda out: out.reshape(out.shape[0], size, out.shape[1] // size, *out.shape[2:]), 1
    )


def _one_by_one(
    call: Callable[..., Any], size: int, in_dims: tuple[int | None, ...], args: tuple[Any, ...]
) -> tuple[Any, Any]:
    """An argument that all rows share differs between the batch's members, so each is a call of its own."""

    def member(index: int) -> list[Any]:
        return [arg if dim is None else arg.select(dim, index) for arg, dim in zip(args, in_dims, strict=True)]

    results = [call(*member(index)) for index in range(size)]
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    stacked = tuple(torch.stack(each) for each in zip(*results, strict=True))
    return stacked, (0,) * len(stacked)


def _empty(fake: Callable[..., Any], in_dims: tuple[int | None, ...], args: tuple[Any, ...]) -> tuple[Any, Any]:
    """A batch of none: no member tells the results' shapes, the shape rule does."""
    member = [
        arg if dim is None else arg.new_empty(arg.shape[:dim] + arg.shape[dim + 1 :])
        for arg, dim in zip(args, in_dims, strict=True)
    ]
    return _on_results(fake(*member), lambda out: out.new_empty((0, *out.shape)), 0)


def _with_batch(tensor: Tensor, dim: int | None, size: int, *, at: int) -> Tensor:
    """Bring the batch to dimension `at`, repeating an unbatched tensor without copying it."""
    if dim is not None:
        return tensor.movedim(dim, at)
    return tensor.unsqueeze(at).expand(*tensor.shape[:at], size, *tensor.shape[at:])


def _on_results(results: Any, unfold: Callable[[Tensor], Tensor], dim: int) -> tuple[Any, Any]:
    if isinstance(results, Tensor):
        return unfold(results), dim
    return tuple(unfold(out) for out in results), (dim,) * len(results)


def _autograd_guard(overload: OpOverload) -> Callable[..., Any]:
    """Refuse to differentiate the bare operator: forward mode at once, reverse mode when its gradient is asked for.

    Without it forward mode silently takes the operator's derivative to be zero. Reverse mode must be lazy, because
    `torch.func.vjp` always records a graph of the first-order backward pass.
    """

    def guard(keyset: Any, *args: Any) -> Any:
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(t).tangent is not None for t in tensors):
            raise NotImplementedError(_refusal(overload, "forward"))
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            with enable_single_level_autograd_function():
                return _Undifferentiable.apply(overload, keyset, *args)  # type: ignore[attr-defined]
        return _below_autograd(overload, keyset, args)

    return guard


class _Undifferentiable(torch.autograd.function._SingleLevelFunction):
    @staticmethod
    def forward(overload: OpOverload, keyset: Any, *args: Any) -> Any:
        # autograd.Function disables both modes for every level; the levels below must still see the operator.
        with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
            return _below_autograd(overload, keyset, args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.overload = inputs[0]

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        raise NotImplementedError(_refusal(ctx.overload, "reverse"))


def _below_autograd(overload: OpOverload, keyset: Any, args: tuple[Any, ...]) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return overload.redispatch(keyset & torch._C._after_autograd_keyset, *args)


def _refusal(overload: OpOverload, mode: str) -> str:
    return (
        f"{overload.name()} is itself a derivative and has no {mode}-mode derivative: second derivatives through this "
        "package's operations are not supported; differentiate the model without them"
    )
