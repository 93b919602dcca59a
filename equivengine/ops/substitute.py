"""Swaps our differentiable operations in while somebody else's model runs.

`torch.func` transforms see PyTorch's own rules for every operation that is not listed here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from equivengine.ops import activation, record
from equivengine.ops.attention import attention
from equivengine.ops.layer_norm import layer_norm
from equivengine.ops.rms_norm import normalize, rms_norm
from equivengine.ops.softmax import softmax

#: Name stored with every result: how attention and the other operations listed here were evaluated.
ATTENTION = "substituted"


def substituted() -> TorchFunctionMode:
    """Context in which models use `equivengine.ops` for normalizations, activations, softmax and attention.

    Swapped are ``F.layer_norm``, ``F.rms_norm``, ``F.normalize``, ``F.softmax``, ``F.gelu``, ``F.silu``, ``F.relu``,
    sigmoid and tanh (also as functions of torch and methods of tensors, and in the modules of torch.nn that call them),
    ``F.scaled_dot_product_attention`` and ``F.multi_head_attention_forward`` (inside ``nn.MultiheadAttention``), where
    they are called in eval mode with arguments that our operations take; all else, in-place variants too, keeps
    PyTorch's rule. Values agree with PyTorch's to roundoff.
    """
    return _Substitution()


class _Substitution(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            return multi_head_attention(self, *args, **kwargs)
        ours = _OURS.get(func)
        if ours is None:
            return func(*args, **kwargs)
        if kwargs.get("inplace") or kwargs.get("out") is not None:
            record.note(func.__name__, "torch")
            return func(*args, **kwargs)
        if "input" in kwargs:
            args = (kwargs["input"], *args)
        return ours(*args, **{key: value for key, value in kwargs.items() if key not in ("input", "inplace", "out")})


def batch_norm_written_out() -> TorchFunctionMode:
    """Context in which models use the formula of BatchNorm in eval mode, for torch.autograd.

    PyTorch 2.14 on CPUs returns wrong gradients of one image where the cotangent lies in memory as [H, W, C], as it
    does when tokens follow: `native_batch_norm_backward` takes it for contiguous.
    """
    return _BatchNorm()


class _BatchNorm(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_batch_norm if func is F.batch_norm else func)(*args, **(kwargs or {}))


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if training or running_mean is None or running_var is None:
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    factor = (running_var + eps).rsqrt()
    factor = factor if weight is None else factor * weight
    mean, factor = (t.reshape(-1, *(1,) * (x.dim() - 2)) for t in (running_mean, factor))
    out = (x - mean) * factor
    return out if bias is None else out + bias.reshape(mean.shape)


def _scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    if dropout_p != 0.0:
        record.note("attention", "torch")
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    return attention(query, key, value, attn_mask, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa)


def multi_head_attention(
    mode: TorchFunctionMode,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """``F.multi_head_attention_forward`` in terms of linear and attention, for the arguments that encoders use."""
    usual = (
        query.dim() == 3
        and query.shape[-1] == embed_dim_to_check
        and in_proj_weight is not None
        and not use_separate_proj_weight
        and not (need_weights or add_zero_attn or (training and dropout_p > 0))
        and bias_k is bias_v is static_k is static_v is key_padding_mask is None
    )
    if not usual:
        # With need_weights PyTorch takes the path without fused attention, which has all derivatives.
        record.note("attention", "torch")
        out, weights = F.multi_head_attention_forward(
            query,
            key,
            value,
            embed_dim_to_check,
            num_heads,
            in_proj_weight,
            in_proj_bias,
            bias_k,
            bias_v,
            add_zero_attn,
            dropout_p,
            out_proj_weight,
            out_proj_bias,
            training=training,
            key_padding_mask=key_padding_mask,
            need_weights=True,
            attn_mask=attn_mask,
            use_separate_proj_weight=use_separate_proj_weight,
            q_proj_weight=q_proj_weight,
            k_proj_weight=k_proj_weight,
            v_proj_weight=v_proj_weight,
            static_k=static_k,
            static_v=static_v,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
        )
        return out, weights if need_weights else None
    assert in_proj_weight is not None
    with mode:  # in a handler the mode is off; the linear layers must come through it again
        return _packed_attention(
            query, key, value, num_heads, in_proj_weight, in_proj_bias, out_proj_weight, out_proj_bias, attn_mask
        )


def _packed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    num_heads: int,
    in_proj_weight: Tensor,
    in_proj_bias: Tensor | None,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    attn_mask: Tensor | None,
) -> tuple[Tensor, None]:
    # Modules that are batch-first hand over a transposed view; rows that lie together make one product.
    query, key, value = _batch_first(query, key, value)
    batch, length, width = query.shape
    if query is key and key is value:
        q, k, v = F.linear(query, in_proj_weight, in_proj_bias).chunk(3, dim=-1)
    else:
        weights_qkv = in_proj_weight.chunk(3)
        biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
        q, k, v = (F.linear(t, w, b) for t, w, b in zip((query, key, value), weights_qkv, biases, strict=True))
    q, k, v = (t.reshape(batch, -1, num_heads, width // num_heads).transpose(1, 2) for t in (q, k, v))
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:  # here True means "not allowed", the opposite of attention's masks
            attn_mask = ~attn_mask
        if attn_mask.dim() == 3:
            attn_mask = attn_mask.reshape(batch, num_heads, *attn_mask.shape[1:])
    out = F.scaled_dot_product_attention(q, k, v, attn_mask)
    out = F.linear(out.transpose(1, 2).reshape(batch, length, width), out_proj_weight, out_proj_bias)
    return out.transpose(0, 1), None


def _batch_first(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[L, N, E] -> [N, L, E] in memory; self-attention stays self-attention."""
    rows = query.transpose(0, 1).contiguous()
    if query is key and key is value:
        return rows, rows, rows
    return rows, key.transpose(0, 1).contiguous(), value.transpose(0, 1).contiguous()


def _softmax(x: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    if dim is None:
        record.note("softmax", "torch")
        return F.softmax(x, dim, _stacklevel, dtype)
    return softmax(x, dim, dtype)


_OURS: dict[Any, Callable[..., Any]] = {
    F.batch_norm: _batch_norm,
    F.layer_norm: layer_norm,
    F.rms_norm: rms_norm,
    F.normalize: normalize,
    F.softmax: _softmax,
    torch.softmax: softmax,
    Tensor.softmax: softmax,
    F.gelu: activation.gelu,
    F.silu: activation.silu,
    F.relu: activation.relu,
    torch.relu: activation.relu,
    Tensor.relu: activation.relu,
    torch.sigmoid: activation.sigmoid,
    Tensor.sigmoid: activation.sigmoid,
    torch.tanh: activation.tanh,
    Tensor.tanh: activation.tanh,
    F.scaled_dot_product_attention: _scaled_dot_product_attention,
}
