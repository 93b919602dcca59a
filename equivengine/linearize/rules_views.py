"""Rules for operations that view or move elements."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from equivengine.linearize import moves, nodes
from equivengine.linearize.by_torch import LinearByTorch
from equivengine.linearize.pointwise import Add, Scale
from equivengine.linearize.registry import broadcast, emit_view, rule
from equivengine.linearize.tracer import Tracer


@rule("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "flatten", "unflatten", "_reshape_alias", "view_as")
def _reshape(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    if out.dtype != args[0].dtype:
        return NotImplemented
    return emit_view(tracer, nodes.Reshape(tuple(args[0].shape), tuple(out.shape)), args[0], out)


@rule("permute", "transpose", "t")
def _permute(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    x, *rest = args
    if kwargs or (rest and not isinstance(rest[-1], int | list | tuple)):
        return NotImplemented
    order = list(range(x.dim()))
    if len(rest) == 1:
        order = [d % x.dim() for d in rest[0]]
    elif len(rest) == 2:
        a, b = rest
        order[a], order[b] = order[b], order[a]
    else:
        order.reverse()
    return emit_view(tracer, nodes.Permute(tuple(order)), x, out)


@rule("expand", "expand_as", "broadcast_to")
def _expand(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    if tracer.variable(args[0]) is not None:
        emit_view(tracer, nodes.Expand(tuple(args[0].shape), tuple(out.shape)), args[0], out)
    return None


@rule("select")
def _select(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    x, dim, index = args
    dim %= x.dim()
    return emit_view(tracer, nodes.Pieces(dim, tuple(x.shape), [(index % x.shape[dim], 1)], True), x, out)


@rule("slice")
def _slice(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    if kwargs:
        return NotImplemented
    x = args[0]
    if out.shape == x.shape:
        return _same(tracer, func, out, args, kwargs)
    dim, start, step = _slice_of(x.shape, args[1:])
    node: nodes.Node = nodes.Pieces(dim, tuple(x.shape), [(start, out.shape[dim])])
    if step != 1:
        node = moves.Strided(dim, tuple(x.shape), start, step, out.shape[dim])
    return emit_view(tracer, node, x, out)


@rule("unbind", "split", "split_with_sizes", "chunk")
def _pieces(tracer: Tracer, func: Any, out: Any, args: Any, kwargs: Any) -> Any:
    if kwargs:
        return NotImplemented
    x = args[0]
    # unbind(x, dim), split(x, size, dim), split_with_sizes(x, sizes, dim), chunk(x, number, dim)
    squeeze = func._schema.name == "aten::unbind"
    positional = args[1:] if squeeze else args[2:]
    dim = (positional[0] if positional else 0) % x.dim()
    start, pieces = 0, []
    for piece in out:
        length = 1 if squeeze else piece.shape[dim]
        pieces.append((start, length))
        start += length
    return tracer.emit(nodes.Pieces(dim, tuple(x.shape), pieces, squeeze), [tracer.of(x)], *out)


@rule("cat", "concat", "concatenate")
def _cat(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % out.dim()
    start, pieces, inputs = 0, [], []
    for tensor in args[0]:
        if tensor.dim() != out.dim():  # PyTorch still ignores tensors of shape [0]
            return NotImplemented
        if (variable := tracer.variable(tensor)) is not None:
            pieces.append((start, tensor.shape[dim]))
            inputs.append(variable)
        start += tensor.shape[dim]
    return tracer.emit(nodes.Cat(dim, tuple(out.shape), pieces), inputs, out)


@rule("stack")
def _stack(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % out.dim()
    pieces, inputs = [], []
    for index, tensor in enumerate(args[0]):
        if (variable := tracer.variable(tensor)) is not None:
            flat = (*tensor.shape[:dim], 1, *tensor.shape[dim:])
            inputs += tracer.add(nodes.Reshape(tuple(tensor.shape), flat), [variable], flat)
            pieces.append((index, 1))
    return tracer.emit(nodes.Cat(dim, tuple(out.shape), pieces), inputs, out)


@rule("clone", "alias", "contiguous", "_to_copy", "to", "type_as", "lift_fresh", "as_strided_")
def _same(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    """Rounding to another precision counts as the identity, as for autograd; tangents keep theirs."""
    if out.device != args[0].device or not out.is_floating_point():
        return NotImplemented
    if out is not args[0] and tracer.variable(args[0]) is not None:
        tracer.bind(out, tracer.of(args[0]))
    return None


@rule(
    *(
        [
            "zeros_like",
            "ones_like",
            "full_like",
            "empty_like",
            "rand_like",
            "randn_like",
            "new_zeros",
            "new_ones",
            "new_full",
            "new_empty",
        ]
    )
)
@rule(*(["detach", "new_empty_strided", "sign", "floor", "ceil", "round", "trunc", "bernoulli", "zero"]))
def _constant(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> None:
    """The result does not depend on x, or is piecewise constant in it, or is said not to (detach)."""


@rule("copy")
def _copy(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> None:
    """What `copy_` becomes where it is not done in place: the source, in the shape of the target."""
    if (variable := broadcast(tracer, args[1], out)) is not None:
        tracer.bind(out, variable)


@rule("select_scatter", "slice_scatter")
def _scatter(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    """An assignment to a slice, where it is not done in place."""
    x, source, *rest = args
    if kwargs:
        return NotImplemented
    if func._schema.name == "aten::select_scatter":
        dim = rest[0] % x.dim()
        start, length, step = rest[1] % x.shape[dim], 1, 1
    else:
        dim, start, step = _slice_of(x.shape, rest)
        length = source.shape[dim]
    whole, terms = tuple(x.shape), []
    if (variable := tracer.variable(source)) is not None:
        narrow = nodes.resized(whole, dim, length)
        variables = tracer.add(nodes.Reshape(tuple(source.shape), narrow), [variable], narrow)
        terms += tracer.add(moves.Spread(dim, whole, start, step, length), variables, whole)
    if (variable := tracer.variable(x)) is not None:
        kept = torch.ones(whole[dim], dtype=out.dtype, device=out.device)
        kept[start : start + length * step : step] = 0
        terms += tracer.add(Scale(kept.reshape(-1, *(1,) * (len(whole) - dim - 1)), len(whole)), [variable], whole)
    if len(terms) == 2:
        return tracer.emit(Add(), terms, out)
    return tracer.bind(out, *terms)


@rule("roll", "flip")
def _roll(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    x, first, *dims = args
    if kwargs or (func._schema.name == "aten::roll" and not (dims and dims[0])):
        return NotImplemented
    shifts = tuple(first) if dims else None
    return tracer.emit(moves.Roll(tuple(d % x.dim() for d in (dims or [first])[0]), shifts), [tracer.of(x)], out)


@rule("constant_pad_nd")
def _pad(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> None:
    tracer.emit(moves.Pad(tuple(args[1])), [tracer.of(args[0])], out)


@rule("index", "index_select")
def _index(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    x, *rest = args
    indices = [None] * (rest[0] % max(1, x.dim())) + [rest[1]] if len(rest) == 2 else list(rest[0])
    places = [at for at, index in enumerate(indices) if index is not None]
    if kwargs or tracer.variable(x) is None or places != list(range(places[0], places[-1] + 1)):
        return NotImplemented
    return tracer.emit(moves.Index(tuple(x.shape), tuple(indices)), [tracer.of(x)], out)


@rule("gather")
def _gather(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    x, dim, index = args
    return tracer.emit(moves.Gather(tuple(x.shape), dim % x.dim(), index), [tracer.of(x)], out)


@rule("max_pool2d_with_indices")
def _max_pool(tracer: Tracer, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    (x, *_), (values, index) = args, out
    lead = tuple(x.shape[:-2])
    flat, short = (*lead, math.prod(x.shape[-2:])), (*lead, math.prod(values.shape[-2:]))
    (variable,) = tracer.add(nodes.Reshape(tuple(x.shape), flat), [tracer.of(x)], flat)
    (variable,) = tracer.add(moves.Gather(flat, len(lead), index.flatten(-2)), [variable], short)
    tracer.emit(nodes.Reshape(short, tuple(values.shape)), [variable], values)


@rule("avg_pool1d", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "im2col", "col2im")
@rule("upsample_nearest2d", "upsample_bilinear2d", "_upsample_bilinear2d_aa", "upsample_bicubic2d")
@rule("_upsample_bicubic2d_aa", "reflection_pad1d", "reflection_pad2d", "replication_pad2d", "pixel_shuffle")
@rule("pixel_unshuffle")
def _linear_on_batches(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    x, *rest = args
    dims = 3 if "1d" in func._schema.name or func._schema.name == "aten::col2im" else 4
    if x.dim() != dims:
        return NotImplemented

    def call(images: Tensor) -> Tensor:
        return func(images, *rest, **kwargs)

    return tracer.emit(LinearByTorch(call, tuple(x.shape)), [tracer.of(x)], out)


def _slice_of(shape: torch.Size, rest: Any) -> tuple[int, int, int]:
    """Dimension, start and step of the arguments (dim, start, end, step) of a slice."""
    dim, start, _, step = [*rest, None, None, None, None][:4]
    dim = (dim or 0) % len(shape)
    length = shape[dim]
    start = 0 if start is None else max(0, min(start + length if start < 0 else start, length))
    return dim, start, 1 if step is None else step
