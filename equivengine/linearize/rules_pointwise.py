"""Rules for operations that treat every element by itself, and for sums."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from equivengine.linearize.pointwise import Add, Product, Sum, mean
from equivengine.linearize.registry import broadcast, instead, rule, scale
from equivengine.linearize.tracer import Tracer

#: Operations whose derivative is a factor for each element; PyTorch gives the factor.
POINTWISE = [
    "gelu",
    "relu",
    "relu6",
    "silu",
    "mish",
    "sigmoid",
    "tanh",
    "hardswish",
    "hardsigmoid",
    "hardtanh",
    "leaky_relu",
    "elu",
    "celu",
    "selu",
    "softplus",
    "softsign",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log1p",
    "log2",
    "log10",
    "sqrt",
    "rsqrt",
    "reciprocal",
    "pow",
    "square",
    "abs",
    "sin",
    "cos",
    "tan",
    "atan",
    "erf",
    "erfc",
    "neg",
    "logit",
    "log_sigmoid",
    "threshold",
    "clamp",
    "clamp_min",
    "clamp_max",
    "nan_to_num",
    "softshrink",
    "hardshrink",
    "xlogy",
]


@instead(*POINTWISE)
def _pointwise(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    x = args[0]
    others = [t for t in (*args[1:], *kwargs.values()) if isinstance(t, Tensor)]
    if tracer.variable(x) is None or any(tracer.variable(t) is not None or t.dim() > 0 for t in others):
        return NotImplemented
    with tracer.autograd():
        primal = x.detach().requires_grad_(True)
        value = func(primal, *args[1:], **kwargs)
        (factor,) = torch.autograd.grad(value, primal, torch.ones_like(value))
    out = value.detach()
    scale(tracer, tracer.of(x), factor, out)
    return out


@rule("add")
def _add(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    return _sum_of(tracer, out, args[0], args[1], _alpha(args, kwargs))


@rule("sub", "subtract")
def _sub(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    return _sum_of(tracer, out, args[0], args[1], -_alpha(args, kwargs))


@rule("rsub")
def _rsub(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    return _sum_of(tracer, out, args[1], args[0], -_alpha(args, kwargs))


def _alpha(args: Any, kwargs: Any) -> float:
    return args[2] if len(args) > 2 else kwargs.get("alpha", 1)


def _sum_of(tracer: Tracer, out: Tensor, a: Any, b: Any, alpha: float) -> None:
    va, vb = broadcast(tracer, a, out), broadcast(tracer, b, out)
    if va is not None and vb is not None:
        diagonal = _on_one_root(tracer, va, vb, out)
        if diagonal is not None:
            root, fa, fb = diagonal
            scale(tracer, root, fa + alpha * fb, out)
        else:
            tracer.emit(Add(alpha), [va, vb], out)
    elif va is not None:
        tracer.bind(out, va)
    elif vb is not None:
        tracer.bind(out, vb) if alpha == 1 else scale(tracer, vb, _factor(alpha, out), out)


@rule("mul", "multiply")
def _mul(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> None:
    a, b = args
    _two(tracer, a, b, _factor(b, out), _factor(a, out), out)


@rule("div", "divide", "true_divide")
def _div(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    a, b = args
    if kwargs.get("rounding_mode") is not None:
        return NotImplemented
    inverse = 1 / _factor(b, out)
    return _two(tracer, a, b, inverse, -out * inverse if tracer.variable(b) is not None else inverse, out)


@rule("where")
def _where(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    if len(args) != 3:
        return NotImplemented
    condition, a, b = args
    return _two(tracer, a, b, condition.to(out.dtype), (~condition).to(out.dtype), out)


@rule("maximum", "minimum")
def _maximum(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> None:
    a, b = args
    of_a = (a == out).to(out.dtype) - 0.5 * (a == b)  # equal arguments share the derivative
    _two(tracer, a, b, of_a, 1 - of_a, out)


@rule("masked_fill")
def _masked_fill(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> None:
    x, mask, value = args
    _two(tracer, x, value, (~mask).to(out.dtype), mask.to(out.dtype), out)


@rule("fill")
def _fill(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> None:
    if (variable := broadcast(tracer, args[1], out)) is not None:
        tracer.bind(out, variable)


@rule("addcmul")
def _addcmul(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    x, a, b = args
    if (tracer.variable(a) is not None and tracer.variable(b) is not None) or tracer.variable(x) is None:
        return NotImplemented
    value = kwargs.get("value", 1)
    inner = a * b
    _two(tracer, a, b, value * b, value * a, inner)
    return _sum_of(tracer, out, x, inner, 1)


@rule("sum", "mean")
def _sum(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> None:
    x = args[0]
    dims = args[1] if len(args) > 1 else None
    dims = tuple(range(x.dim())) if not dims and dims != 0 else (dims,) if isinstance(dims, int) else tuple(dims)
    dims = tuple(sorted(d % max(1, x.dim()) for d in dims)) if x.dim() else ()
    keepdim = bool(args[2]) if len(args) > 2 else False
    make = mean if func._schema.name == "aten::mean" else Sum
    tracer.emit(make(tuple(x.shape), dims, keepdim), [tracer.of(x)], out)


@rule("linalg_vector_norm")
def _euclidean_norm(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    """d|x| = <x, dx> / |x|, and 0 at 0, as for autograd."""
    given: list[Any] = [*args, *(2, None, False)[len(args) - 1 :]]
    x, order, dims, keepdim = given
    if kwargs or order != 2 or x.dim() == 0:
        return NotImplemented
    dims = tuple(range(x.dim())) if dims is None else tuple(sorted(d % x.dim() for d in dims))
    length = out if keepdim else out.reshape([1 if d in dims else n for d, n in enumerate(x.shape)])
    factor = torch.where(length == 0, 0, x / length)
    along = x.clone()
    scale(tracer, tracer.of(x), factor, along)
    return tracer.emit(Sum(tuple(x.shape), dims, keepdim), [tracer.of(along)], out)


def _two(tracer: Tracer, a: Any, b: Any, of_a: Tensor, of_b: Tensor, out: Tensor) -> None:
    """``out`` is a function of a and b, element by element, with these derivatives."""
    va, vb = broadcast(tracer, a, out), broadcast(tracer, b, out)
    if va is not None and vb is not None:
        diagonal = _on_one_root(tracer, va, vb, out)
        if diagonal is not None:
            root, fa, fb = diagonal
            scale(tracer, root, of_a * fa + of_b * fb, out)
        else:
            tracer.emit(Product(of_a, of_b, out.dim()), [va, vb], out)
    elif va is not None:
        scale(tracer, va, of_a, out)
    elif vb is not None:
        scale(tracer, vb, of_b, out)


def _on_one_root(tracer: Tracer, va: int, vb: int, out: Tensor) -> tuple[int, Tensor, Tensor] | None:
    """Root and factors where both variables are pointwise in the same one, as x and sigmoid(x) are."""
    ra, fa = tracer.diagonal.get(va, (va, None))
    rb, fb = tracer.diagonal.get(vb, (vb, None))
    if ra != rb:
        return None
    one = _factor(1.0, out)
    return ra, one if fa is None else fa, one if fb is None else fb


def _factor(value: Any, out: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=out.dtype, device=out.device)
