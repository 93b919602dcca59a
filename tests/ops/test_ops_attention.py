"""attention() and its derivatives under torch.func against plain operations in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from equivengine.ops.attention import attention
from equivengine.ops.record import recording

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
    assert {name: sum(paths.values()) for name, paths in log.paths().items()} == {"attention_jvp": 1}


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 3)], ids=str)
def test_any_leading_dimensions_and_keys_unlike_queries(lead):
    generator = torch.Generator().manual_seed(0)
    shapes = [(*lead, 4, 8), (*lead, 7, 8), (*lead, 7, 5)]
    primals, tangents = (
        tuple(torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes) for _ in range(2)
    )
    value, derivative = torch.func.jvp(attention, primals, tangents)
    expected, expected_derivative = torch.func.jvp(plain, primals, tangents)
    assert torch.allclose(value, expected, atol=1e-13)
    assert torch.allclose(derivative, expected_derivative, atol=1e-13)
    for i, (primal, tangent) in enumerate(zip(primals, tangents, strict=True)):
        alone = lambda f, i=i: lambda t: f(*primals[:i], t, *primals[i + 1 :])  # noqa: E731
        ours, theirs = (torch.func.jvp(alone(f), (primal,), (tangent,))[1] for f in (attention, plain))
        assert torch.allclose(ours, theirs, atol=1e-13)
    cotangent = torch.randn_like(value)
    pulled = [torch.func.vjp(f, *primals)[1](cotangent) for f in (attention, plain)]
    assert all(torch.allclose(a, b, atol=1e-13) for a, b in zip(*pulled, strict=True))


def test_nothing_is_copied_around_the_tangents_of_heads(compiled):
    """From what a qkv layer makes to what the output layer reads, the K tangents meet one operator and views."""
    K, B, L, H, E = 50, 1, 5, 2, 8
    x, V = torch.randn(B, L, 3 * H * E), torch.randn(K, B, L, 3 * H * E)

    class Copies(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.seen = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            tensors = [t for t in args if isinstance(t, torch.Tensor)]
            if isinstance(out, torch.Tensor) and out.numel() >= K and not func.is_view:
                self.seen += [func.name()] * (out.data_ptr() not in {t.data_ptr() for t in tensors})
            return out

    def layer(x):
        q, k, v = x.reshape(B, L, 3, H, E).permute(2, 0, 3, 1, 4).unbind(0)
        return attention(q, k, v).transpose(1, 2).reshape(B, L, H * E)

    with Copies() as primal:
        layer(x)
    with Copies() as both:
        torch.func.vmap(lambda t: torch.func.jvp(layer, (x,), (t,))[1])(V)
    assert sorted(both.seen) == sorted([*primal.seen, "equivengine::attention_jvp"])


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


def test_second_derivatives_raise_instead_of_being_wrong():
    q, k, v = inputs((1, 1, 4, 8))

    def energy(q):
        return attention(q, k, v).square().sum()

    with pytest.raises(Exception, match=r"equivengine::attention_(jvp|vjp)"):
        torch.func.jvp(torch.func.grad(energy), (q,), (torch.ones_like(q),))
