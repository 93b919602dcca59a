"""The derivative of f at x for many directions: as a traced program where that is possible, else by torch.func.

A program is trusted only after it gave the same J^T u as torch.autograd, for one random u, once for each model and
structure: what a trace cannot see (custom autograd functions, numpy) would show there.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from equivengine.linearize.arithmetic import Arithmetic
from equivengine.linearize.graphs import Replays
from equivengine.linearize.program import Program, linearize
from equivengine.linearize.tracer import NotLinearizable
from equivengine.ops import record
from equivengine.ops.forward_grad import stopped_by_no_grad
from equivengine.ops.memory import forward_mode_bytes
from equivengine.ops.narrowing import epsilon_of, named, narrowings
from equivengine.ops.substitute import batch_norm_written_out, substituted

#: How far a program may be from torch.autograd, relative to |J^T u|: far above roundoff, far below a missing term.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-8}

#: By model: what a structure was found to be, None for right.
_checked: weakref.WeakKeyDictionary[object, dict[tuple[object, ...], str | None]] = weakref.WeakKeyDictionary()


class Derivative:
    """J at x: `push` for J v, `pull` for J^T u, K directions at a time.

    Args:
        f: Maps x [*input_shape] to [*output_shape].
        x: The input.
        arithmetic: What tangents are stored and multiplied in.
        model: What f belongs to; a structure that was checked once is not checked again for it.

    Attributes:
        reason: None where a program runs; else one sentence that says why torch.func does.

    Raises:
        NotLinearizable: f cannot be traced, and this arithmetic is for programs only.
        RuntimeError: f cannot be differentiated at all.
    """

    def __init__(self, f: Callable[[Tensor], Tensor], x: Tensor, arithmetic: Arithmetic, model: object) -> None:
        self._f, self._x, self._arithmetic = f, x, arithmetic
        self._program: Program | None = None
        self._pullback: Callable[[Tensor], tuple[Tensor]] | None = None
        self._replays = Replays()
        self._ours = True
        self.reason: str | None = None
        try:
            with arithmetic.primal():
                program = linearize(f, x)
            _check(program, f, x, arithmetic, model)
            self._program = program
        except NotLinearizable as error:
            if arithmetic.name not in ("fp32", "fp64", "tf32"):
                raise
            self.reason = str(error)

    def push(self, tangents: Tensor) -> Tensor:
        """J v for each of K tangents [K, *x.shape]: [K, *output_shape]."""
        if self._program is not None:
            record.note("jacobian", "program")
            return self._replays(self._program.push, tangents, self._arithmetic)

        def pushed() -> Tensor:
            with stopped_by_no_grad():
                product = torch.func.vmap(lambda t: torch.func.jvp(self._f, (self._x.clone(),), (t,))[1])
                return product(tangents.clone()).detach()

        return self._by_func(pushed)

    def pull(self, cotangents: Tensor) -> Tensor:
        """J^T u for each of K cotangents [K, *output_shape]: [K, *x.shape]."""
        if self._program is not None:
            record.note("jacobian", "program")
            return self._replays(self._program.pull, cotangents, self._arithmetic)

        def pulled() -> Tensor:
            if self._pullback is None:
                self._pullback = torch.func.vjp(self._f, self._x.clone())[1]
            pullback = self._pullback
            return torch.func.vmap(lambda u: pullback(u)[0])(cotangents)

        return self._by_func(pulled)

    @functools.cached_property
    def bytes_per_direction(self) -> int:
        """Memory that a pass needs for each direction, above what the primal takes."""
        if self._program is not None:
            return max(1, self._program.bytes_per_direction(self._arithmetic))
        with torch.no_grad(), self._arithmetic.active(), substituted():
            return forward_mode_bytes(self._f, self._x.clone())

    def coverage(self) -> dict[str, dict[str, int]]:
        """For each operation how often its derivative is evaluated by which rule."""
        if self._program is not None:
            return self._program.coverage(self._arithmetic)
        return {"all": {f"torch.func ({self.reason})": 1}}

    def _by_func(self, product: Callable[[], Tensor]) -> Tensor:
        """Run under torch.func: with our operations, or PyTorch's own where a model differentiates inside itself."""
        with self._arithmetic.active():
            if self._ours:
                try:
                    with substituted():
                        out = product()
                    record.note("jacobian", "torch.func")
                    return out
                except NotImplementedError:  # a second derivative, which our operations do not have
                    self._ours, self._pullback = False, None
            record.note("jacobian", "torch.func without substitution")
            return product()


def _check(program: Program, f: Callable[[Tensor], Tensor], x: Tensor, arithmetic: Arithmetic, model: object) -> None:
    structure = (tuple(x.shape), x.dtype, tuple(type(node).__name__ for node in program.nodes))
    try:
        known = _checked.setdefault(model, {})
    except TypeError:  # neither hashable nor weakly referable
        known = {}
    if structure in known:
        reason = known[structure]
    else:
        reason, kept = _compare(program, f, x, arithmetic)
        if kept:
            known[structure] = reason
    if reason is not None:
        raise NotLinearizable(reason)


def _compare(
    program: Program, f: Callable[[Tensor], Tensor], x: Tensor, arithmetic: Arithmetic
) -> tuple[str | None, bool]:
    """Hold the program's J^T u for one random u against torch.autograd's.

    Returns:
        None where they are one, else one sentence; and whether that is to be kept for other inputs. It is not where
        there is nothing finite to compare with. Nor are they one everywhere where f has custom autograd functions,
        whose own derivative may differ from that of the operations in them at some inputs only.
    """
    plain = Arithmetic("fp64" if x.dtype == torch.float64 else "fp32", x.dtype)
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(program.value.shape, generator=generator, dtype=x.dtype).to(x.device)
    with torch.enable_grad(), arithmetic.primal(), batch_norm_written_out():
        primal = x.detach().clone().requires_grad_(True)
        value = f(primal.clone())  # f may change its input in place, which a leaf does not allow
        everywhere = not _has_custom_functions(value)
        if value.requires_grad:
            (expected,) = torch.autograd.grad(value, primal, u, materialize_grads=True)
        else:
            expected = torch.zeros_like(primal)
    found = program.pull(u.unsqueeze(0), plain)[0]
    off = torch.linalg.vector_norm(found - expected)
    scale = torch.linalg.vector_norm(expected)
    if not bool(torch.isfinite(off)):
        return "the derivative holds NaN or infinity at this input", False
    if bool(off <= _TOLERANCE[x.dtype] * scale):
        return None, everywhere
    inside = narrowings(f, x.detach().clone())
    # A part of f in float32 has float32's roundoff, in the trace as in autograd.
    if epsilon_of(x.dtype, inside) == torch.finfo(torch.float32).eps and bool(off <= _TOLERANCE[torch.float32] * scale):
        return None, everywhere
    cause = "with operations that a trace does not see"
    if inside:
        cause = f"in less than its precision in {named(inside)}"
    return (
        f"the traced derivative differs from torch.autograd's by {float(off / scale):.1e} of its length: the model "
        f"computes {cause}",
        True,
    )


def _has_custom_functions(value: Tensor) -> bool:
    """Whether Python's `torch.autograd.Function` occurs in the graph of a tensor."""
    seen: set[object] = set()
    waiting: list[Any] = [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            return True
        seen.add(node)
        waiting += [before for before, _ in node.next_functions]
    return False
