"""Every operation under every transform: first derivatives are PyTorch's, second ones are refused."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from unary_cases import FIRST, SECOND, V, X, assert_close, tensor

from equivengine.ops import activation
from equivengine.ops.layer_norm import layer_norm
from equivengine.ops.record import recording
from equivengine.ops.rms_norm import normalize, rms_norm
from equivengine.ops.softmax import softmax

LAST = {d: tensor(d, seed=2) for d in (3, 4, 6)}
#: Ours, PyTorch's.
OPERATIONS = {
    "layer_norm": (
        lambda x: layer_norm(x, x.shape[-1:], LAST[x.shape[-1]]),
        lambda x: F.layer_norm(x, x.shape[-1:], LAST[x.shape[-1]]),
    ),
    "rms_norm": (
        lambda x: rms_norm(x, x.shape[-1:], LAST[x.shape[-1]]),
        lambda x: F.rms_norm(x, x.shape[-1:], LAST[x.shape[-1]]),
    ),
    "normalize": (lambda x: normalize(x, dim=-1), lambda x: F.normalize(x, dim=-1)),
    "softmax": (lambda x: softmax(x, -1), lambda x: F.softmax(x, -1)),
    "softmax over rows": (lambda x: softmax(x, -2), lambda x: F.softmax(x, -2)),
    "gelu": (activation.gelu, F.gelu),
    "gelu tanh": (lambda x: activation.gelu(x, "tanh"), lambda x: F.gelu(x, approximate="tanh")),
    "silu": (activation.silu, F.silu),
    "relu": (activation.relu, F.relu),
    "quick_gelu": (activation.quick_gelu, lambda x: x * torch.sigmoid(1.702 * x)),
    "sigmoid": (activation.sigmoid, torch.sigmoid),
    "tanh": (activation.tanh, torch.tanh),
}
operations = pytest.mark.parametrize(("ours", "stock"), OPERATIONS.values(), ids=OPERATIONS.keys())


@operations
@pytest.mark.parametrize("transform", FIRST.values(), ids=FIRST.keys())
def test_equals_pytorch_under(ours, stock, transform):
    assert_close(transform(ours), transform(stock))


@operations
@pytest.mark.parametrize("transform", SECOND.values(), ids=SECOND.keys())
def test_second_derivatives_raise(ours, stock, transform):
    with pytest.raises((NotImplementedError, RuntimeError), match=r"equivengine::\w+_(jvp|vjp|tangents)|second deriv"):
        transform(ours)


@operations
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_derivative_is_as_accurate_as_pytorchs(ours, stock, dtype, monkeypatch):
    x, v = tensor(3, 4, 6, seed=7, dtype=dtype), tensor(5, 3, 4, 6, seed=8, dtype=dtype)

    def derivative(f, x, v):
        return torch.func.vmap(lambda t: torch.func.jvp(f, (x,), (t,))[1])(v)

    for d, weight in LAST.items():
        monkeypatch.setitem(LAST, d, weight.to(dtype).double())
    exact = derivative(stock, x.double(), v.double())
    for d, weight in LAST.items():
        monkeypatch.setitem(LAST, d, weight.to(dtype))
    assert_close(ours(x), stock(x))
    got = derivative(ours, x, v)
    assert got.dtype == dtype
    assert (got.double() - exact).norm() <= 2 * (derivative(stock, x, v).double() - exact).norm()


@operations
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_in_the_input_propagate_as_in_pytorch(ours, stock, bad):
    x = X.clone()
    x[1, 2, 3] = bad
    for transform in (
        lambda f: f(x),
        lambda f: torch.func.vmap(lambda v: torch.func.jvp(f, (x,), (v,))[1])(V),
        lambda f: torch.func.vmap(torch.func.vjp(f, x)[1])(V)[0],
    ):
        got, expected = transform(ours), transform(stock)
        assert torch.equal(got.isnan(), expected.isnan())
        assert torch.equal(got.isinf(), expected.isinf())


@operations
@pytest.mark.parametrize("mode", ["jvp", "vjp"])
def test_the_primal_is_computed_once_and_all_tangents_reach_one_call(ours, stock, mode):
    seen: list[tuple[str, torch.Size]] = []

    class Spy(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.namespace == "equivengine":
                seen.append((func.name(), args[0].shape))
            elif len(func._schema.returns) and isinstance(args[0] if args else None, torch.Tensor):
                assert args[0].numel() <= X.numel() or func.is_view or args[0].numel() == V.numel()
            return func(*args, **(kwargs or {}))

    with recording() as log, Spy():
        if mode == "jvp":
            torch.func.vmap(lambda v: torch.func.jvp(ours, (X,), (v,))[1])(V)
        else:
            torch.func.vmap(torch.func.vjp(ours, X)[1])(V)
    ((_, shape),) = seen
    assert shape[0] == len(V)
    assert [sum(calls.values()) for calls in log.paths().values()] == [1]


@operations
def test_autocast_leaves_the_operation_to_pytorch(ours, stock):
    with torch.autocast("cpu", torch.bfloat16), recording() as log:
        got = ours(X)
        expected = stock(X)
    assert torch.equal(got, expected)
    assert list(log.paths().values()) == [{"torch": 1}]


@operations
def test_a_device_without_kernels_runs_the_reference(ours, stock):
    x = torch.empty(3, 7, device="meta")
    LAST[7] = torch.empty(7, device="meta")
    assert torch.func.jvp(ours, (x,), (x,))[1].shape == (3, 7)
    assert torch.func.vjp(ours, x)[1](x)[0].shape == (3, 7)
    del LAST[7]


def test_several_levels_meet_one_tangent_each():
    """A function of x inside the jvp of another variable is a constant there, and is differentiated outside."""
    f = activation.gelu
    ours = torch.func.jvp(lambda x: torch.func.jvp(lambda y: f(x) * y, (X,), (V[0],))[1], (X,), (V[1],))[1]
    assert_close(ours, V[0] * torch.func.jvp(F.gelu, (X,), (V[1],))[1])
