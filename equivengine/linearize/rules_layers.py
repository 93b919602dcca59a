"""Rules for products with weights, convolutions, normalization, softmax and attention."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from equivengine.linearize import layers
from equivengine.linearize.nodes import Permute, Reshape
from equivengine.linearize.registry import instead, rule, scale
from equivengine.linearize.tracer import Tracer
from equivengine.ops.attention import additive_mask, attention_probabilities


@rule("linear")
def _linear(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    x, weight, *bias = args
    if any(tracer.variable(t) is not None for t in (weight, *bias)) or weight.dim() != 2:
        return NotImplemented
    return tracer.emit(layers.Linear(weight, out.dim()), [tracer.of(x)], out)


@rule("addmm")
def _addmm(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    if kwargs or tracer.variable(args[0]) is not None:
        return NotImplemented
    return _matmul(tracer, func, out, args[1:], kwargs)


@rule("mm", "bmm", "matmul")
def _matmul(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    a, b = args
    of_a, of_b = tracer.variable(a) is not None, tracer.variable(b) is not None
    if b.dim() == 2 and not of_b:
        return tracer.emit(layers.Linear(b.t(), out.dim()), [tracer.of(a)], out)
    if a.dim() != b.dim() or a.dim() < 2 or a.shape[:-2] != b.shape[:-2]:
        return NotImplemented
    inputs = [tracer.of(t) for t, each in ((a, of_a), (b, of_b)) if each]
    return tracer.emit(layers.MatMul(a, b, of_a, of_b), inputs, out)


@rule("convolution")
def _convolution(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    x, weight, bias, stride, padding, dilation, transposed, added, groups = args
    if any(tracer.variable(t) is not None for t in (weight, bias)):
        return NotImplemented
    patches = (
        tuple(stride) == tuple(weight.shape[2:])
        and not transposed
        and groups == 1
        and not any(padding)
        and all(n == 1 for n in dilation)
    )
    node: layers.Node = layers.PatchEmbedding(weight, tuple(x.shape))
    if not patches:
        options = (stride, padding, dilation, transposed, added, groups)
        node = layers.Convolution(weight, tuple(x.shape), options)
    return tracer.emit(node, [tracer.of(x)], out)


@rule("native_layer_norm")
def _layer_norm(tracer: Tracer, func: Any, out: Any, args: Any, kwargs: Any) -> Any:
    x, shape, weight, bias, _ = args
    y, mean, rstd = out
    if any(tracer.variable(t) is not None for t in (weight, bias)) or mean.dtype != x.dtype:
        return NotImplemented
    rows = tuple(x.shape[: x.dim() - len(shape)])
    return tracer.emit(layers.Norm(x, mean.reshape(rows), rstd.reshape(rows), weight), [tracer.of(x)], y)


@rule("rms_norm")
def _rms_norm(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    x, shape, weight, eps = [*args, None, None][:4]
    if kwargs or tracer.variable(weight) is not None:
        return NotImplemented
    dims = list(range(x.dim() - len(shape), x.dim()))
    rstd = (x.square().mean(dims) + (torch.finfo(x.dtype).eps if eps is None else eps)).rsqrt()
    return tracer.emit(layers.Norm(x, None, rstd, weight), [tracer.of(x)], out)


@rule("native_group_norm")
def _group_norm(tracer: Tracer, func: Any, out: Any, args: Any, kwargs: Any) -> Any:
    x, weight, bias = args[:3]
    y, mean, rstd = out
    if any(tracer.variable(t) is not None for t in (weight, bias)) or mean.dtype != x.dtype:
        return NotImplemented
    whole, rows = tuple(x.shape), (*rstd.shape, x.numel() // max(1, rstd.numel()))
    (variable,) = tracer.add(Reshape(whole, rows), [tracer.of(x)], rows)
    (variable,) = tracer.add(layers.Norm(x.reshape(rows), mean, rstd, None), [variable], rows)
    (variable,) = tracer.add(Reshape(rows, whole), [variable], whole)
    if weight is None:
        return tracer.bind(y, variable)
    return scale(tracer, variable, weight.reshape(-1, *(1,) * (x.dim() - 2)), y)


@rule("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "miopen_batch_norm")
def _batch_norm(tracer: Tracer, func: Any, out: Any, args: Any, kwargs: Any) -> Any:
    x, weight, bias, _, variance = args[:5]
    training = args[5] is True  # a momentum, which is a number, where the operation has no such argument
    if training or variance is None or any(tracer.variable(t) is not None for t in (weight, bias)):
        return NotImplemented
    factor = (variance + args[-1]).rsqrt()
    factor = (factor if weight is None else factor * weight).reshape(-1, *(1,) * (x.dim() - 2))
    return scale(tracer, tracer.of(x), factor, out[0])


@rule("_softmax", "_safe_softmax")
def _softmax(tracer: Tracer, func: Any, out: Tensor, args: Any, kwargs: Any) -> Any:
    x, dim = args[:2]
    dim, last = dim % max(1, x.dim()), x.dim() - 1
    if x.dim() == 0:
        return NotImplemented
    if dim == last:
        return tracer.emit(layers.Softmax(out), [tracer.of(x)], out)
    order = list(range(x.dim()))
    order[dim], order[last] = last, dim
    swapped = tuple(x.shape[d] for d in order)
    (variable,) = tracer.add(Permute(tuple(order)), [tracer.of(x)], swapped)
    (variable,) = tracer.add(layers.Softmax(out.transpose(dim, last)), [variable], swapped)
    return tracer.emit(Permute(tuple(order)), [variable], out)


@instead("scaled_dot_product_attention")
def _attention(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    """Evaluated with its probabilities, which the node keeps."""
    return _attend(tracer, *args, **kwargs)


def _attend(
    tracer: Tracer,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    if dropout_p != 0.0 or tracer.variable(attn_mask) is not None or min(query.dim(), key.dim(), value.dim()) < 2:
        return NotImplemented
    with tracer:
        if enable_gqa:
            key, value = (_repeated(t, query.shape[-3]) for t in (key, value))
        lead = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
        shape = (math.prod(lead[:-1]), lead[-1]) if lead else (1, 1)  # [B, H]
        q, k, v = (t.expand(*lead, *t.shape[-2:]).reshape(*shape, *t.shape[-2:]) for t in (query, key, value))
    mask = additive_mask(attn_mask, query, key, is_causal)
    if mask is not None and mask.dim() > 2:
        mask = mask.expand(*lead, *mask.shape[-2:]).reshape(*shape, *mask.shape[-2:])
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    p = attention_probabilities(q, k, mask, factor)
    out = p @ v
    of = [tracer.variable(t) is not None for t in (q, k, v)]
    inputs = [tracer.of(t) for t, each in zip((q, k, v), of, strict=True) if each]
    tracer.emit(layers.Attention(q, k, v, p, factor, of), inputs, out)
    with tracer:
        return out.reshape(*lead, *out.shape[-2:])


def _repeated(t: Tensor, heads: int) -> Tensor:
    """Keys or values of fewer heads, each repeated for its group of query heads."""
    groups = heads // t.shape[-3]
    return t.unsqueeze(-3).expand(*t.shape[:-2], groups, *t.shape[-2:]).flatten(-4, -3)
