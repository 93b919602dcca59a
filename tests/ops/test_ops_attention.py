"""Attention and the substitution mode against PyTorch's own operations in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from equivengine.ops.attention import attention, attention_jvp, attention_vjp
from equivengine.ops.record import recording
from equivengine.ops.substitute import substituted

SHAPES = [(1, 1, 1, 8), (2, 3, 7, 16), (1, 2, 50, 32), (2, 1, 197, 64)]


def masks(shape):
    b, h, length, _ = shape
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return {
        "none": None,
        "bool": causal,
        "bias": torch.randn(1, h, length, length, dtype=torch.float64),
        "full": torch.randn(b, h, length, length, dtype=torch.float64),
    }


def plain(q, k, v, mask=None, scale=None):
    scores = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1) @ v


def inputs(shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3))


def relative(a, b):
    return float(torch.linalg.vector_norm(a.double() - b) / torch.linalg.vector_norm(b).clamp_min(1e-300))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["none", "bool", "bias", "full"])
def test_value_and_derivatives_match_plain_operations(shape, kind):
    mask = masks(shape)[kind]
    primals, tangents = inputs(shape), inputs(shape, seed=1)
    value, derivative = torch.func.jvp(lambda *a: attention(*a, mask), primals, tangents)
    expected, expected_derivative = torch.func.jvp(lambda *a: plain(*a, mask), primals, tangents)
    assert relative(value, expected) < 1e-14
    if shape[2] > 1:
        assert relative(derivative, expected_derivative) < 1e-13
    cotangent = torch.randn_like(value)
    ours = torch.func.vjp(lambda *a: attention(*a, mask), *primals)[1](cotangent)
    theirs = torch.func.vjp(lambda *a: plain(*a, mask), *primals)[1](cotangent)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES[1:])
@pytest.mark.parametrize("k", [1, 3, 16])
def test_float32_error_is_at_most_twice_that_of_plain_operations(shape, k):
    exact, single = inputs(shape), inputs(shape, torch.float32)
    tangents = tuple(torch.randn(k, *shape, generator=torch.Generator().manual_seed(i + 5)) for i in range(3))

    def run(f, primals, dtype):
        push = lambda *t: torch.func.jvp(f, primals, t)[1]  # noqa: E731
        return torch.func.vmap(push)(*(t.to(dtype) for t in tangents))

    truth = run(plain, exact, torch.float64)
    ours = relative(run(attention, single, torch.float32), truth)
    theirs = relative(run(plain, single, torch.float32), truth)
    assert ours <= 2 * theirs
    cotangents = torch.randn(k, *shape, generator=torch.Generator().manual_seed(9))

    def pull(f, primals, dtype):
        return torch.func.vmap(torch.func.vjp(f, *primals)[1])(cotangents.to(dtype))

    for a, b, t in zip(
        pull(attention, single, torch.float32),
        pull(plain, single, torch.float32),
        pull(plain, exact, torch.float64),
        strict=True,
    ):
        assert relative(a, t) <= 2 * relative(b, t)


def test_k_tangents_are_one_call_with_the_primal_computed_once():
    shape = (2, 2, 9, 8)
    primals = inputs(shape)
    V = torch.randn(5, *shape, dtype=torch.float64)
    with recording() as log:
        torch.func.vmap(lambda t: torch.func.jvp(lambda q: attention(q, *primals[1:]), (primals[0],), (t,))[1])(V)
    assert log.paths() == {"attention_jvp": {"reference": 1}}


def test_batched_primals_match_a_loop():
    shape = (3, 2, 6, 8)
    q, k, v = inputs(shape)
    mask = torch.randn(3, 1, 6, 6, dtype=torch.float64)
    together = torch.func.vmap(lambda q, k, m: attention(q, k, v[0], m))(q, k, mask)
    alone = torch.stack([plain(q[i], k[i], v[0], mask[i]) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-12)


def test_rows_that_see_nothing_are_zero_as_in_pytorch():
    q, k, v = inputs((1, 1, 4, 8))
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[2] = False
    expected = F.scaled_dot_product_attention(q, k, v, mask)
    assert torch.allclose(attention(q, k, v, mask), expected, atol=1e-12)
    _, tangent = torch.func.jvp(lambda q: attention(q, k, v, mask), (q,), (torch.ones_like(q),))
    assert not bool(tangent[..., 2, :].any())


def test_grouped_queries_causal_and_scale_follow_pytorch():
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, 6, 8, generator=generator, dtype=torch.float64)
    k, v = torch.randn(2, 2, 2, 6, 8, generator=generator, dtype=torch.float64)
    for arguments in ({"is_causal": True}, {"scale": 0.3}, {}):
        expected = F.scaled_dot_product_attention(q, k, v, enable_gqa=True, **arguments)
        assert torch.allclose(attention(q, k, v, enable_gqa=True, **arguments), expected, atol=1e-12)


def test_nan_and_infinity_propagate_as_in_plain_operations():
    q, k, v = inputs((1, 1, 5, 8))
    q[0, 0, 1, 0] = float("nan")
    v[0, 0, 2, 3] = float("inf")
    assert torch.equal(attention(q, k, v).isfinite(), plain(q, k, v).isfinite())


def test_a_differentiated_mask_goes_through_plain_operations():
    q, k, v = inputs((1, 2, 5, 8))
    mask = torch.randn(5, 5, dtype=torch.float64)
    direction = torch.randn(5, 5, dtype=torch.float64)
    with recording() as log:
        _, ours = torch.func.jvp(lambda m: attention(q, k, v, m), (mask,), (direction,))
    assert log.paths() == {"attention": {"torch": 1}}
    _, theirs = torch.func.jvp(lambda m: plain(q, k, v, m), (mask,), (direction,))
    assert torch.allclose(ours, theirs, atol=1e-12)


def test_the_bare_operators_pass_opcheck():
    q, k, v = (t[:, 0] for t in inputs((2, 1, 5, 8), torch.float32))
    p = (q @ k.transpose(1, 2)).softmax(-1)
    K = tuple(torch.randn(3, 2, 5, 8) for _ in range(3))
    torch.library.opcheck(attention_jvp.kernel, (*K, q, k, v, p, 0.3))
    torch.library.opcheck(attention_vjp.kernel, (K[0], q, k, v, p, 0.3))


def test_second_derivatives_raise_instead_of_being_wrong():
    q, k, v = inputs((1, 1, 4, 8))

    def energy(q):
        return attention(q, k, v).square().sum()

    with pytest.raises(Exception, match=r"second derivative|no (forward|reverse)-mode"):
        torch.func.jvp(torch.func.grad(energy), (q,), (torch.ones_like(q),))


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
    assert log.paths() == {"attention_jvp": {"reference": 1}}
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
    q, k, v = inputs((1, 2, 16, 16), torch.float32)
    with pytest.raises(NotImplementedError):
        torch.func.jvp(lambda q: F.scaled_dot_product_attention(q, k, v), (q,), (torch.ones_like(q),))
    with substituted():
        torch.func.jvp(lambda q: F.scaled_dot_product_attention(q, k, v), (q,), (torch.ones_like(q),))
