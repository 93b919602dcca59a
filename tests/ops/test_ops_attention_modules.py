"""Attention inside PyTorch's modules, by the substitution mode, against their own operations in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from equivengine.ops.record import recording
from equivengine.ops.substitute import substituted


@pytest.fixture
def no_inference_fast_path():
    """The oracle below must not take the fused inference kernel, which has no derivative."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(before)


@pytest.mark.usefixtures("no_inference_fast_path")
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("mask", ["none", "bool", "float", "per_head"])
@pytest.mark.parametrize("cross", [False, True])
def test_multihead_attention_modules_keep_their_values_and_gain_derivatives(batch_first, mask, cross):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(16, 4, batch_first=batch_first).eval().double().requires_grad_(False)
    x = torch.randn(3, 6, 16, dtype=torch.float64)
    x = x if batch_first else x.transpose(0, 1)
    other = torch.randn_like(x) if cross else None
    attn_mask = {
        "none": None,
        "bool": ~torch.ones(6, 6, dtype=torch.bool).tril(),
        "float": torch.randn(6, 6, dtype=torch.float64),
        "per_head": torch.randn(12, 6, 6, dtype=torch.float64),
    }[mask]

    def run(z, weights):
        memory = z if other is None else other
        return layer(z, memory, memory, attn_mask=attn_mask, need_weights=weights)[0]

    d = torch.randn_like(x)
    expected, derivative = torch.func.jvp(lambda z: run(z, True), (x,), (d,))  # PyTorch's path without fused attention
    with substituted(), recording() as log:
        value, ours = torch.func.jvp(lambda z: run(z, False), (x,), (d,))
    assert {name: sum(paths.values()) for name, paths in log.paths().items()} == {"attention_jvp": 1}
    assert torch.allclose(value, expected, atol=1e-12)
    assert torch.allclose(ours, derivative, atol=1e-12)


def test_unusual_multihead_attention_is_left_to_pytorch_and_recorded():
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(16, 4, add_bias_kv=True, batch_first=True).eval().double().requires_grad_(False)
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    d = torch.randn_like(x)
    with substituted(), recording() as log:
        value, tangent = torch.func.jvp(lambda z: layer(z, z, z, need_weights=False)[0], (x,), (d,))
    assert log.paths() == {"attention": {"torch": 1}}
    h = 1e-6
    difference = (layer(*(x + h * d,) * 3)[0] - layer(*(x - h * d,) * 3)[0]) / (2 * h)
    assert torch.allclose(value, layer(x, x, x)[0], atol=1e-12)
    assert torch.allclose(tangent, difference, atol=1e-7)


def test_stock_pytorch_still_raises_where_we_do_not():
    """Why the substitution exists; when this fails, PyTorch has learned it (pytorch#98164)."""
    q, k, v = torch.randn(3, 1, 2, 16, 16)
    with pytest.raises(NotImplementedError):
        torch.func.jvp(lambda q: F.scaled_dot_product_attention(q, k, v), (q,), (torch.ones_like(q),))
    with substituted():
        torch.func.jvp(lambda q: F.scaled_dot_product_attention(q, k, v), (q,), (torch.ones_like(q),))
