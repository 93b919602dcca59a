"""Where rules for operations register themselves, and what they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from equivengine.linearize.nodes import Expand, Node, Reshape
from equivengine.linearize.pointwise import Scale
from equivengine.linearize.tracer import Rules, Tracer

RULES = Rules()

Rule = Callable[..., Any]


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register (tracer, func, out, args, kwargs) for the names of aten operations, of all overloads.

    It returns NotImplemented where it does not fit.
    """

    def register(function: Rule) -> Rule:
        RULES.after.update(dict.fromkeys(names, function))
        return function

    return register


def instead(*names: str) -> Callable[[Rule], Rule]:
    """Register (tracer, func, args, kwargs) -> out, which runs the operation itself, or returns NotImplemented."""

    def register(function: Rule) -> Rule:
        RULES.instead.update(dict.fromkeys(names, function))
        return function

    return register


def emit_view(tracer: Tracer, node: Node, x: Tensor, out: Tensor) -> None:
    """Append a view of x, unless it changes nothing."""
    if tuple(out.shape) == tuple(x.shape) and isinstance(node, Reshape | Expand):
        tracer.bind(out, tracer.of(x))
    else:
        tracer.emit(node, [tracer.of(x)], out)


def broadcast(tracer: Tracer, value: Any, out: Tensor) -> int | None:
    """The variable of an argument, expanded to the result's shape; None where it does not depend on x."""
    variable = tracer.variable(value)
    if variable is None or tracer.shapes[variable] == tuple(out.shape):
        return variable
    before, after = tracer.shapes[variable], tuple(out.shape)
    return tracer.add(Expand(before, after), [variable], after)[0]


def scale(tracer: Tracer, variable: int, factor: Tensor, out: Tensor) -> None:
    """``out`` = factor times a variable of its shape; chains of factors become one."""
    root, before = tracer.diagonal.get(variable, (variable, None))
    if before is not None:
        factor = factor * before
    node = Scale(factor, out.dim())
    tracer.emit(node, [root], out)
    tracer.diagonal[node.outputs[0]] = (root, factor)
