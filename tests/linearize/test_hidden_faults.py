"""Models whose faults hide: at other inputs, in one mode only, or behind luck."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

import equivengine as eqv
from equivengine.errors import ModelError
from equivengine.linearize.randomness import is_random

W = torch.randn(5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
X = torch.rand(6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
V = torch.randn(3, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def expected(f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    return torch.autograd.functional.jacobian(lambda z: f(z[None].clone())[0], x)


class StraightThrough(torch.autograd.Function):
    """Rounds, and passes gradients on as if it did not."""

    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x.round()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return g

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: torch.Tensor) -> Any:
        return StraightThrough.apply(x), in_dims[0]


class Gated(nn.Module):
    """Where the first pixel is dark, nothing of the rounding is seen in the derivative."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ W.T + torch.relu(x[:, :1] - 0.5) * StraightThrough.apply(3 * x)[:, :5]


def test_a_custom_function_that_is_silent_at_one_input_is_not_believed_at_the_next() -> None:
    model = Gated()
    dark, bright = X.clone(), X.clone()
    dark[0], bright[0] = 0.1, 0.9
    first = eqv.JacobianOperator(model, dark, precision="fp64")
    assert torch.allclose(first.vjp(torch.eye(5).double()), expected(model, dark))
    assert "all" not in first.coverage()
    second = eqv.JacobianOperator(model, bright, precision="fp64")
    assert torch.allclose(second.vjp(torch.eye(5).double()), expected(model, bright))
    assert "all" in second.coverage()


@torch.no_grad()
def decorated(x: torch.Tensor) -> torch.Tensor:
    return x.square()


def blocked(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        scale = x.square().sum(-1, keepdim=True)
        with torch.enable_grad():
            pass
        scale = scale * decorated(x).mean()
    return x.sin() @ W.T * scale


def inference(x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        scale = x.square().sum(-1, keepdim=True)
    return x.sin() @ W.T * scale.clone()


def untraceable(x: torch.Tensor) -> torch.Tensor:
    return blocked(torch.fft.irfft(torch.fft.rfft(x), n=6))


@pytest.mark.parametrize("f", [blocked, untraceable])
def test_forward_mode_stops_where_autograd_is_off(f: Callable[[torch.Tensor], torch.Tensor]) -> None:
    J = eqv.JacobianOperator(f, X, precision="fp64")
    truth = expected(f, X) @ V.T
    assert torch.allclose(J.jvp(V), truth.T)
    assert torch.allclose(J.along(X.expand(3, -1), V)[1], truth.T)
    assert ("all" in J.coverage()) == (f is untraceable)
    assert torch._C._is_fwd_grad_enabled()
    assert torch.is_grad_enabled()


def test_inference_mode_stops_forward_mode_too() -> None:
    J = eqv.JacobianOperator(inference, X, precision="fp64")
    with torch.no_grad():
        constant = X.square().sum()
    truth = (W * X.cos() * constant) @ V.T
    assert torch.allclose(J.jvp(V), truth.T)
    assert torch.allclose(J.along(X.expand(3, -1), V)[1], truth.T)


def test_forward_mode_leaves_no_graph_of_weights_that_are_trained() -> None:
    model = nn.Linear(6, 5).double()
    values, derivatives = eqv.JacobianOperator(lambda x: model(x).tanh(), X, precision="fp64").along(X.expand(3, -1), V)
    assert not values.requires_grad
    assert not derivatives.requires_grad


def test_a_module_that_changes_its_input_in_place_is_differentiated() -> None:
    class InPlace(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mul_(2.0).sin_() @ W.T

    model = InPlace()
    J = eqv.JacobianOperator(model, X, precision="fp64")
    truth = W * (2 * (2 * X).cos())
    assert torch.allclose(J.dense(), truth)
    assert torch.allclose(J.vjp(torch.ones(1, 5).double())[0], truth.sum(0))
    assert torch.allclose(J.jvp(V), V @ truth.T)


def test_one_input_without_a_derivative_does_not_condemn_the_others() -> None:
    class Root(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.where(x > 0.5, x.sqrt(), x.square()) @ W.T

    model, outside = Root(), X.clone()
    outside[0] = -1.0  # the branch that is not taken has the derivative NaN, and 0 times that is NaN
    nowhere = eqv.JacobianOperator(model, outside, precision="fp64")
    assert eqv.linalg.svd(nowhere).status == "failed"
    assert "NaN or infinity at this input" in next(iter(nowhere.coverage()["all"]))
    J = eqv.JacobianOperator(model, X, precision="fp64")
    assert torch.allclose(J.dense(), expected(model, X))
    assert "all" not in J.coverage()


def gate(x: torch.Tensor, open_: float) -> torch.Tensor:
    """Stochastic depth: the layer is there with this probability."""
    return x @ W.T * (1 + torch.bernoulli(torch.full((len(x), 1), open_, dtype=x.dtype)))


@pytest.mark.parametrize("open_", [0.5, 0.9, 0.999])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_stochastic_depth_is_refused_however_rarely_it_skips(open_: float, seed: int) -> None:
    torch.manual_seed(seed)
    with pytest.raises(ModelError, match="random"):
        eqv.JacobianOperator(lambda x: gate(x, open_), X, precision="fp64").jvp(V)


@pytest.mark.parametrize(
    "f",
    [
        pytest.param(lambda x: x * torch.rand(6).argsort().argsort().ge(0), id="of no consequence"),
        pytest.param(lambda x: x + torch.bernoulli(torch.ones(6)) * 0, id="times zero"),
        pytest.param(
            lambda x: x * torch.bernoulli(torch.full((6,), 0.5), generator=torch.Generator().manual_seed(1)),
            id="generator of its own",
        ),
        pytest.param(
            lambda x: (torch.manual_seed(3), x * torch.bernoulli(torch.full((6,), 0.5)))[1], id="seeds itself"
        ),
        pytest.param(lambda x: x[:, p := torch.randperm(6)][:, p.argsort()], id="shuffled and put back"),
        pytest.param(
            lambda x: scaled_dot_product_attention(y := x[None, None] + 0 * torch.rand(6), y, y)[0, 0],
            id="attention that could drop out",
        ),
    ],
)
def test_draws_that_change_nothing_are_no_fault(f: Callable[[torch.Tensor], torch.Tensor]) -> None:
    state = torch.random.get_rng_state()
    try:
        assert not is_random(f, X[None], f(X[None]))
    finally:
        torch.random.set_rng_state(state)
