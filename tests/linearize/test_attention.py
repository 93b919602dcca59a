"""Attention in every form that models write it, against the plain formula in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from equivengine.linearize import ARITHMETICS


def constant(*shape: int, seed: int = 5) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


BOOL = constant(5, 5) > -0.5
BOOL[2] = False  # attends to nothing
sdpa = F.scaled_dot_product_attention


def heads(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """[B, 5, 6] -> q, k, v [B, 2, 5, 4]."""
    return F.linear(x, constant(24, 6)).view(len(x), 5, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)


def eager(x: torch.Tensor, scale: float = 0.5, bias: torch.Tensor | float = 0.0) -> torch.Tensor:
    q, k, v = heads(x)
    p = ((q @ k.transpose(-2, -1)) * scale + bias).softmax(-1)
    return (F.dropout(p, 0.1, training=False) @ v).transpose(1, 2).reshape(len(x), 5, 8)


#: On x [2, 5, 6].
FUSED = {
    "plain": lambda x: sdpa(*heads(x)),
    "scale": lambda x: sdpa(*heads(x), scale=0.3),
    "bool_mask": lambda x: sdpa(*heads(x), attn_mask=BOOL),
    "mask_per_head": lambda x: sdpa(*heads(x), attn_mask=constant(2, 2, 5, 5) > -1),
    "additive_mask": lambda x: sdpa(*heads(x), attn_mask=constant(1, 2, 5, 5)),
    "causal": lambda x: sdpa(*heads(x), is_causal=True),
    "three_dimensions": lambda x: sdpa(x, x.sin(), x[:, :, :3]),
    "two_dimensions": lambda x: sdpa(x[0], x[1], x[0].sin()),
    "five_dimensions": lambda x: sdpa(*(t.unsqueeze(0).expand(3, -1, -1, -1, -1) for t in heads(x))),
    "five_dimensions_mask": lambda x: sdpa(*(t.unsqueeze(1) for t in heads(x)), attn_mask=constant(2, 1, 2, 5, 5)),
    "broadcast_heads": lambda x: sdpa(heads(x)[0], heads(x)[1][:, :1], heads(x)[2][:1]),
    "grouped": lambda x: sdpa(heads(x)[0], heads(x)[1][:, :1], heads(x)[2][:, :1], enable_gqa=True),
    "only_queries": lambda x: sdpa(x, constant(2, 7, 6), constant(2, 7, 3)),
    "only_keys": lambda x: sdpa(constant(2, 7, 6), x, constant(2, 5, 3)),
    "only_values": lambda x: sdpa(constant(2, 7, 6), constant(2, 5, 6), x),
    "keys_and_values": lambda x: sdpa(constant(1, 7, 6).expand(2, -1, -1), x, x),
    "first_row": lambda x: sdpa(*heads(x))[:, :, 0],
    "eager": eager,
    "eager_scaled_queries": lambda x: (lambda q, k, v: (q * 0.5 @ k.mT).softmax(-1) @ v)(*heads(x)),
    "eager_bias": lambda x: eager(x, bias=constant(2, 5, 5)),
    "eager_bmm": lambda x: torch.bmm((torch.bmm(x, x.mT) / 3).softmax(-1), x.sin()),
    "eager_cross": lambda x: (x @ constant(2, 6, 4)).softmax(-1) @ constant(2, 4, 3),
}
DECOMPOSED = {
    "mask_of_x": lambda x: sdpa(*heads(x), attn_mask=(x @ x.mT)[:, None]),
    "scale_per_head": lambda x: (
        lambda q, k, v: ((F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT) * constant(2, 1, 1).exp()).softmax(-1) @ v
    )(*heads(x)),
    "probabilities_read_twice": lambda x: (lambda p: p @ x + p.sum() * x)((x @ x.mT).softmax(-1)),
    "probabilities_on_the_right": lambda x: x.mT @ (x @ x.mT).softmax(-1),
    "probabilities_returned": lambda x: (x @ x.mT).softmax(-1),
    "scores_read_twice": lambda x: (lambda s: s.softmax(-1) @ x + s.mean() * x)(x @ x.mT),
    "values_are_probabilities": lambda x: (lambda p: p @ p)((x @ x.mT).softmax(-1)),
}


@pytest.mark.parametrize("name", FUSED)
def test_attention_is_one_operation(name: str, check: Callable) -> None:
    program = check(FUSED[name], constant(2, 5, 6, seed=3))
    coverage = program.coverage(ARITHMETICS["fp64"])
    assert "scaled_dot_product_attention" in coverage
    assert not {"_softmax", "bmm", "torch"} & {*coverage, *(how for rules in coverage.values() for how in rules)}


@pytest.mark.parametrize("name", DECOMPOSED)
def test_attention_of_another_form_is_decomposed(name: str, check: Callable) -> None:
    program = check(DECOMPOSED[name], constant(2, 5, 6, seed=3))
    coverage = program.coverage(ARITHMETICS["fp64"])
    assert "scaled_dot_product_attention" not in coverage
    assert not any("torch" in rules for rules in coverage.values())


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_packed_attention_layers(batch_first: bool, need_weights: bool, check: Callable) -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(6, 2, batch_first=batch_first).double().eval()
    program = check(lambda x: layer(x, x, x, need_weights=need_weights)[0], constant(2, 5, 6))
    assert "scaled_dot_product_attention" in program.coverage(ARITHMETICS["fp64"])
    check(lambda x: layer(x, x.sin(), x.cos(), need_weights=False, attn_mask=torch.eye(x.shape[1]).bool())[0] * 2, X)


X = constant(5, 5, 6)


def test_encoder_layers_of_torch(check: Callable) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True).double().eval().requires_grad_(False)
    program = check(lambda x: layer(x), constant(2, 5, 6))
    assert "scaled_dot_product_attention" in program.coverage(ARITHMETICS["fp64"])


def test_joining_what_attention_split_copies_nothing() -> None:
    """Cotangents of q, k and v that lie side by side are read as one."""
    from equivengine.linearize.nodes import joined

    whole = torch.randn(2, 5, 3, 2, 4)
    parts = [t.unsqueeze(2) for t in whole.unbind(2)]
    again = joined(parts, 2)
    assert torch.equal(again, whole)
    assert again.data_ptr() == whole.data_ptr()
    assert joined(parts[::-1], 2).data_ptr() != whole.data_ptr()
    assert torch.equal(joined(parts[::-1], 2), whole.flip(2))
    assert torch.equal(joined([parts[0], parts[0]], 2), torch.cat([parts[0], parts[0]], 2))
    assert joined(list(whole.split(2, 1)), 1).data_ptr() == whole.data_ptr()


def test_scores_far_apart(check: Callable) -> None:
    check(lambda x: sdpa(30 * x, 30 * x, x, scale=1 / math.sqrt(6)), constant(1, 5, 6))
