"""Which of a model's calls meet our operations, and which stay PyTorch's."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from unary_cases import V, X, assert_close

from equivengine.ops.record import recording
from equivengine.ops.rms_norm import normalize
from equivengine.ops.substitute import substituted

WEIGHT = torch.linspace(0.5, 1.5, 6, dtype=torch.float64)

#: A call of a model, and the operator that its jvp must reach; None: PyTorch's own, and recorded as such.
CALLS = {
    "nn.RMSNorm": (nn.RMSNorm(6, dtype=torch.float64).requires_grad_(False), "rms_norm_jvp"),
    "F.rms_norm, by name": (lambda x: F.rms_norm(input=x, normalized_shape=(6,), weight=WEIGHT), "rms_norm_jvp"),
    "F.normalize": (lambda x: F.normalize(x, dim=-1), "rms_norm_jvp"),
    "F.normalize over rows": (lambda x: F.normalize(x, dim=1), None),
    "F.normalize, p=1": (lambda x: F.normalize(x, p=1.0, dim=-1), None),
    "nn.LayerNorm": (nn.LayerNorm(6, dtype=torch.float64).requires_grad_(False), "layer_norm_jvp"),
    "nn.LayerNorm, trained": (nn.LayerNorm(6, dtype=torch.float64), None),
    "nn.Softmax": (nn.Softmax(dim=1), "softmax_jvp"),
    "torch.softmax": (lambda x: torch.softmax(x, dim=-1), "softmax_jvp"),
    "torch.softmax, by name": (lambda x: torch.softmax(input=x, dim=-1), "softmax_jvp"),
    "Tensor.softmax": (lambda x: x.softmax(-1), "softmax_jvp"),
    "Tensor.softmax of another dtype": (lambda x: x.softmax(-1, torch.float32), "softmax_jvp"),
    "nn.GELU": (nn.GELU(), "scale_tangents"),
    "nn.GELU tanh": (nn.GELU("tanh"), "scale_tangents"),
    "nn.SiLU": (nn.SiLU(), "scale_tangents"),
    "nn.ReLU": (nn.ReLU(), "scale_tangents"),
    "nn.ReLU in place": (lambda x: nn.ReLU(inplace=True)(x + 0), None),
    "nn.SiLU in place": (lambda x: nn.SiLU(inplace=True)(x + 0), None),
    "Tensor.relu": (lambda x: x.relu(), "scale_tangents"),
    "nn.Sigmoid": (nn.Sigmoid(), "scale_tangents"),
    "nn.Tanh": (nn.Tanh(), "scale_tangents"),
}


@pytest.mark.parametrize(("call", "operator"), CALLS.values(), ids=CALLS.keys())
def test_a_call_reaches(call, operator):
    def derivative():
        return torch.func.vmap(lambda v: torch.func.jvp(call, (X,), (v,))[1])(V)

    expected = derivative()
    with substituted(), recording() as log:
        got = derivative()
    assert_close(got, expected)
    if operator is None:
        assert [set(calls) for calls in log.paths().values()] == [{"torch"}]
    else:
        assert list(log.paths()) == [operator]


def test_without_derivatives_nothing_is_dispatched():
    with substituted(), recording() as log, torch.no_grad():
        for call, _ in CALLS.values():
            call(X)
    assert {path for calls in log.paths().values() for path in calls} <= {"torch"}


@pytest.mark.parametrize("norm", [0.0, 1e-14, 0.5e-12, 2e-12, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_normalize_around_the_smallest_norm_it_divides_by(norm, dtype):
    x = torch.zeros(2, 6, dtype=dtype)
    x[0] = X[0, 0] / X[0, 0].norm() * norm
    x[1] = X[0, 1]
    for transform in (
        lambda f: f(x),
        lambda f: torch.func.jvp(f, (x,), (V[0, :2, 0].to(dtype),))[1],
        lambda f: torch.func.vjp(f, x)[1](V[0, :2, 0].to(dtype))[0],
    ):
        got = transform(lambda x: normalize(x, dim=-1))
        # PyTorch's derivative of the norm at 0 is NaN in forward mode: its reverse mode is the reference throughout.
        assert_close(got[1], transform(lambda x: F.normalize(x, dim=-1))[1])
        assert got.isfinite().all()
    v = V[0, :2, 0].to(dtype)
    expected = torch.func.vjp(lambda x: F.normalize(x, dim=-1), x)[1](v)[0]
    for got in (
        torch.func.vjp(lambda x: normalize(x, dim=-1), x)[1](v)[0],
        torch.func.jvp(lambda x: normalize(x, dim=-1), (x,), (v,))[1],
    ):
        assert_close(got[0], expected[0])
