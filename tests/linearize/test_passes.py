"""Rewrites of a program: each leaves the map as it is, and saves the work that it promises."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from equivengine.linearize import ARITHMETICS, Program, linearize, passes
from equivengine.linearize.layers import Attention, Linear, LinearAdd, Norm


def constant(*shape: int, seed: int = 5) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def attend(x: torch.Tensor) -> torch.Tensor:
    b, n, _ = x.shape
    q, k, v = F.linear(F.layer_norm(x, (6,)), constant(18, 6)).view(b, n, 3, 2, 3).permute(2, 0, 3, 1, 4)
    out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, 6)
    return x + F.linear(out, constant(6, 6))


def block(x: torch.Tensor) -> torch.Tensor:
    x = attend(x)
    return x + F.linear(F.gelu(F.linear(F.layer_norm(x, (6,), constant(6)), constant(8, 6))), constant(6, 8))


def transformer(x: torch.Tensor) -> torch.Tensor:
    return block(block(x))


READS = {
    "first_token": lambda x: F.layer_norm(transformer(x), (6,))[:, 0],
    "token_read_twice": lambda x: (lambda y: torch.cat([y[:, 0], y[:, 0].sin()], 1))(transformer(x)),
    "two_tokens": lambda x: (lambda y: torch.cat([y[:, 0], y[:, 1]], 1))(transformer(x)),
    "some_tokens": lambda x: transformer(x)[:, 1:3],
    "mean_of_others": lambda x: transformer(x)[:, 1:].mean(1),
    "slice_of_a_slice": lambda x: transformer(x)[:, 1:][:, 1],
    "slices_along_two_dimensions": lambda x: transformer(x)[:, 1][:, 2:4],
    "batch_member": lambda x: transformer(x)[1],
    "strided": lambda x: transformer(x)[:, ::2],
    "all_and_one": lambda x: (lambda y: y + y[:, :1])(transformer(x)),
    "output_also_read": lambda x: (lambda y: y * y[:, :1].sum())(block(x)),
    "feature": lambda x: block(x)[..., 2],
    "scores": lambda x: (x @ x.mT).softmax(-1)[:, 1],
    "summed": lambda x: (x.exp().sum(2) * 2)[:, 1],
    "joined": lambda x: torch.cat([x.sin(), constant(2, 5, 2)], 2)[:, 1],
}
PASSES = ["without_idle_views", "attention_found", "slices_first", "skips_fused"]
X = constant(2, 5, 6, seed=2)


def skipping(monkeypatch: pytest.MonkeyPatch, names: list[str]) -> None:
    for name in names:
        if name in ("without_idle_views", "slices_first"):
            monkeypatch.setattr(passes, name, lambda nodes, shapes, output: (nodes, output))
        else:
            monkeypatch.setattr(passes, name, lambda nodes, *_: nodes)


@pytest.mark.parametrize("name", READS)
def test_programs_are_exact(name: str, check: Callable) -> None:
    check(READS[name], X)


@pytest.mark.parametrize("off", [*([name] for name in PASSES), PASSES], ids=[*PASSES, "all"])
@pytest.mark.parametrize("name", READS)
def test_every_pass_leaves_the_map_as_it_is(name: str, off: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fp64 = ARITHMETICS["fp64"]
    whole = linearize(READS[name], X)
    skipping(monkeypatch, off)
    without = linearize(READS[name], X)
    v, u = constant(3, *X.shape), constant(3, *whole.value.shape)
    torch.testing.assert_close(whole.push(v, fp64), without.push(v, fp64), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(whole.pull(u, fp64), without.pull(u, fp64), rtol=1e-11, atol=1e-11)


def of_kind(found: Program, kind: type) -> list[tuple[int, ...]]:
    """Shapes of what the instructions of a kind make, in the order of the forward pass."""
    return [found._shapes[node.outputs[0]] for node in found.nodes if isinstance(node, kind)]


def rows(found: Program) -> list[int]:
    """Rows for each direction in the linear layers."""
    return [shape[0] * shape[1] for shape in of_kind(found, Linear)]


def test_tokens_that_are_not_read_are_not_computed() -> None:
    found = linearize(READS["first_token"], X)
    # Each block: qkv, out, two of the MLP. Keys and values of the last block need all tokens, nothing after them does.
    assert rows(found) == [10, 10, 10, 10, 10, 2, 2, 2]
    assert of_kind(found, Attention) == [(2, 2, 5, 3), (2, 2, 1, 3)]
    assert [shape[1] for shape in of_kind(found, Norm)] == [5, 5, 5, 1, 1]


def test_two_different_tokens_keep_the_rows() -> None:
    assert rows(linearize(READS["two_tokens"], X)) == [10] * 8


def test_readers_of_one_token_share_it() -> None:
    assert rows(linearize(READS["token_read_twice"], X))[5:] == [2, 2, 2]


def test_a_skip_connection_is_added_by_the_product() -> None:
    found = linearize(transformer, X)
    kinds = [type(node) for node in found.nodes]
    assert kinds.count(LinearAdd) == 4
    assert "Add" not in [kind.__name__ for kind in kinds]


def test_views_that_cancel_leave_nothing() -> None:
    assert not linearize(lambda x: x.view(10, 6).t().t().view(2, 5, 6), X).nodes
    assert len(linearize(lambda x: x.flatten().view(5, 12).view(3, 20), X).nodes) == 1


def test_what_the_output_does_not_depend_on_is_dropped() -> None:
    assert not linearize(lambda x: (transformer(x), x)[1], X).nodes
    assert len(linearize(lambda x: x * 2 + transformer(x.detach()), X).nodes) == 1
