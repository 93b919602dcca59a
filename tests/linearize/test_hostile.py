"""Models that do unusual things: right numbers as torch.autograd has them, or one error that says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import equivengine as eqv
from equivengine.errors import ModelError

W = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
X = torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(1))
V = torch.randn(3, 1, 4, 6, generator=torch.Generator().manual_seed(2))


def mixed(x: torch.Tensor) -> torch.Tensor:
    return F.gelu(F.linear(x, W))


class Scaled(torch.autograd.Function):
    """Its backward is the derivative of its forward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 3

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return g * 3


class StraightThrough(torch.autograd.Function):
    """Its backward is not."""

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


def token_in_a_buffer(x: torch.Tensor) -> torch.Tensor:
    tokens = torch.empty(len(x), 5, 6)
    tokens[:, 0] = W[0]
    tokens[:, 1:] = x
    return mixed(tokens)


def assigned(x: torch.Tensor) -> torch.Tensor:
    y = mixed(x)
    y[:, 0] = y[:, 1] * 2
    y[:, 2:, ::2] = 0
    return y.sin()


def put(x: torch.Tensor) -> torch.Tensor:
    y = x * 1
    y[:, torch.tensor([0, 2])] = x[:, :2].exp()
    y.index_put_((torch.tensor([0]), torch.tensor([1])), x[:, 3], accumulate=True)
    return mixed(y)


def masked(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y.masked_fill_(W[:4] > 0, 0.3)
    y[y > 1] = 0
    return mixed(y)


def through_views(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y.view(-1)[3:9].mul_(2)
    y.transpose(1, 2).add_(1)
    return mixed(y)


def without_grad(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        gate = x.mean().exp()
        with torch.enable_grad():
            seen = x * 2
    return mixed(x) * gate + seen


@torch.no_grad()
def scale_of(x: torch.Tensor) -> torch.Tensor:
    return x.norm()


def branching(x: torch.Tensor) -> torch.Tensor:
    y = mixed(x)
    return y * 2 if y.sum().item() > 0 else y.square()


def embedded(x: torch.Tensor) -> torch.Tensor:
    return x + F.embedding((x > 0).long().sum(-1).clamp(max=5), W)


def autocast(x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        y = mixed(x)
    return y.float()


def half(x: torch.Tensor) -> torch.Tensor:
    return mixed(x.to(torch.bfloat16).float())


def spectral(x: torch.Tensor) -> torch.Tensor:
    return mixed(torch.fft.irfft(torch.fft.rfft(x, dim=1) * (1 + 2j), n=4, dim=1))


def vmapped(x: torch.Tensor) -> torch.Tensor:
    q = x.unsqueeze(1)
    return torch.func.vmap(lambda t: F.scaled_dot_product_attention(t, t, t) + mixed(t))(q)


def scored(x: torch.Tensor) -> torch.Tensor:
    return torch.func.grad(lambda t: mixed(t).square().sum())(x)


def listed(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([row.sum() for row in x.unbind(1)]).unsqueeze(0).tanh()


def written_out(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty(1, 4, 6)
    torch.mul(x, 2, out=out)
    return mixed(out)


scripted = torch.jit.script(nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.LayerNorm(6)).eval())
traced = torch.jit.trace(nn.Sequential(nn.Linear(6, 6), nn.Tanh()).eval(), X)
trained = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.BatchNorm1d(4), nn.Linear(6, 6)).eval()
shared = nn.Linear(6, 6)
hooked = nn.Linear(6, 6)
hooked.register_forward_hook(lambda module, args, out: out * 2)

#: Functions whose derivative is a program.
TRACED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "custom_function": lambda x: mixed(Scaled.apply(x)),
    "relu_in_place": lambda x: F.relu_(mixed(x)),
    "add_in_place": lambda x: mixed(x).add_(x).mul_(x),
    "in_place_on_input": lambda x: mixed(x.mul_(2)) if not x.requires_grad else mixed(x * 2),
    "assigned": assigned,
    "put": put,
    "masked": masked,
    "through_views": through_views,
    "token_in_a_buffer": token_in_a_buffer,
    "detach": lambda x: mixed(x) * x.detach().sin(),
    "data": lambda x: mixed(x) + x.data.exp(),
    "no_grad": without_grad,
    "no_grad_decorator": lambda x: mixed(x) / scale_of(x),
    "set_grad_enabled": lambda x: mixed(x) + x * scale_of(x),
    "branching": branching,
    "embedded": embedded,
    "vmapped": vmapped,
    "listed": listed,
    "scripted": lambda x: scripted(x),
    "traced_module": lambda x: traced(x),
    "checkpointed": lambda x: checkpoint(mixed, x, use_reentrant=False),
    "parameters_that_require_gradients": lambda x: trained(x),
    "shared_parameters": lambda x: shared(shared(x)),
    "hooked": lambda x: hooked(x),
    "input_itself": lambda x: x,
    "view_of_input": lambda x: x.transpose(1, 2),
    "used_twice": lambda x: mixed(x) + mixed(x.flip(1)) * x,
    "constant_in_part": lambda x: torch.cat([mixed(x), W[:1].expand(1, 1, 6)], 1),
    "random_but_seeded": lambda x: mixed(x) * torch.rand(6, generator=torch.Generator().manual_seed(3)),
    "random_but_unused": lambda x: mixed(x) + 0 * torch.rand(6),
    "dropout_in_eval": lambda x: F.dropout(mixed(x), 0.5, training=False),
}
#: Functions that a program cannot stand for; torch.func differentiates them.
LEFT: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "straight_through": lambda x: mixed(StraightThrough.apply(3 * x)),
    "spectral": spectral,
}


def flat(f: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: f(x.unsqueeze(0) if x.dim() == 2 else x).flatten(1)


def reference(f: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """The Jacobian of torch.autograd, [n, m]."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        dense = torch.autograd.functional.jacobian(flat(f), X)
    return dense.reshape(-1, X.numel())


def compare(f: Callable[[torch.Tensor], torch.Tensor], modes: str = "forward reverse", rtol: float = 1e-4) -> Any:
    dense = reference(f)
    before = X.clone()
    operator = eqv.JacobianOperator(flat(f), X[0])
    U = torch.randn(3, *operator.value.shape)
    scale = float(dense.abs().max())
    if "forward" in modes:
        pushed = operator.jvp(V[:, 0])
        torch.testing.assert_close(pushed, V.reshape(3, -1) @ dense.T, rtol=rtol, atol=10 * rtol * scale)
    torch.testing.assert_close(operator.vjp(U).reshape(3, -1), U @ dense, rtol=rtol, atol=10 * rtol * scale)
    assert torch.equal(X, before)
    return operator


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # PyTorch on attention under vmap
@pytest.mark.parametrize("name", TRACED)
def test_programs_have_the_derivatives_of_autograd(name: str) -> None:
    operator = compare(TRACED[name])
    assert "all" not in operator.coverage()


@pytest.mark.parametrize("name", LEFT)
def test_what_a_trace_does_not_see_goes_by_torch_func(name: str) -> None:
    operator = compare(LEFT[name], modes="reverse" if name == "straight_through" else "forward reverse")
    (how,) = operator.coverage()["all"]
    assert how.startswith("torch.func (")


def test_a_forward_derivative_that_autograd_lacks_is_one_error() -> None:
    with pytest.raises(ModelError, match="forward"):
        eqv.JacobianOperator(flat(LEFT["straight_through"]), X[0]).jvp(V[:, 0])


@pytest.mark.parametrize("f", [autocast, half], ids=["autocast", "rounded"])
def test_lower_precision_inside_is_right_to_its_roundoff(f: Callable[[torch.Tensor], torch.Tensor]) -> None:
    compare(f, rtol=1e-2)


def test_a_model_that_drops_out_is_refused() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.Flatten()).train()
    operator = eqv.JacobianOperator(model, X[0])
    for product, directions in ((operator.jvp, V[:, 0]), (operator.vjp, torch.randn(3, 24))):
        with pytest.raises(ModelError, match="random"):
            product(directions)


def test_attention_that_drops_out_is_refused() -> None:
    with pytest.raises(ModelError, match="random"):
        eqv.JacobianOperator(flat(lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.3)), X[0]).jvp(V[:, 0])


def test_numpy_inside_is_one_error() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return mixed(torch.from_numpy(x.numpy() * 2))

    with pytest.raises(ModelError, match="numpy"):
        eqv.JacobianOperator(flat(f), X[0]).jvp(V[:, 0])


def test_inference_mode_inside_is_no_silent_zero() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            gate = x.exp()
        return mixed(x) + gate.clone()

    compare(f)


def test_modules_that_return_tuples_are_refused() -> None:
    with pytest.raises(ModelError, match="tuple"):
        eqv.JacobianOperator(lambda x: (x.flatten(1), x), X[0])


class Counting(nn.Module):
    """Changes a buffer that its output depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.linear = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x) * (1 + self.calls)
        self.calls += 1
        return y.flatten(1)


class Statistics(nn.Module):
    """Changes a buffer that its output does not depend on, in place and by assignment."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(6))
        self.count = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.seen += x.detach().mean((0, 1))
        self.count += 1
        return mixed(x)


def test_a_model_that_drifts_does_not_pass_for_a_program() -> None:
    operator = eqv.JacobianOperator(Counting(), X[0])
    assert "all" in operator.coverage()


def test_statistics_kept_on_the_side_do_not_matter() -> None:
    compare(Statistics())


def test_what_autograd_refuses_is_one_error() -> None:
    def changed_after_use(x: torch.Tensor) -> torch.Tensor:
        scale = torch.ones(6)
        y = x * scale
        scale.mul_(5)
        return mixed(y + scale)

    for f in (written_out, changed_after_use):
        with pytest.raises(ModelError, match="cannot be differentiated"):
            eqv.JacobianOperator(flat(f), X[0]).jvp(V[:, 0])


def test_a_constant_output_has_derivative_zero() -> None:
    operator = eqv.JacobianOperator(lambda x: torch.ones(len(x), 3), X[0])
    assert not operator.jvp(V[:, 0]).any()
    assert not operator.vjp(torch.randn(2, 3)).any()


def test_a_compiled_module_inside() -> None:
    compiled = torch.compile(nn.Sequential(nn.Linear(6, 6), nn.GELU()).eval(), backend="eager")
    compare(lambda x: compiled(x) + x)


def test_batch_norm_in_training_mode_is_differentiated_through_its_statistics() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Flatten())
    model.train()
    x = torch.randn(1, 4, 6)
    dense = torch.autograd.functional.jacobian(lambda t: model(t[None])[0], x).reshape(-1, 24)
    operator = eqv.JacobianOperator(model, x)
    torch.testing.assert_close(
        operator.vjp(torch.eye(45)).reshape(45, 24), dense, rtol=1e-3, atol=1e-3 * float(dense.abs().max())
    )


def test_gradients_taken_inside_are_differentiated_again() -> None:
    compare(scored)
