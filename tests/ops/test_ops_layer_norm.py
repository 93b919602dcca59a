"""layer_norm as a differentiable function: against torch.nn.functional.layer_norm under every transform we support."""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch.func import grad, jacfwd, jacrev, jvp, vjp, vmap
from torch.nn import functional

from equivengine.ops.layer_norm import layer_norm, layer_norm_jvp, layer_norm_vjp
from equivengine.ops.record import recording

D = 6


def tensor(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


X, WEIGHT, BIAS, V = tensor(3, 4, D), tensor(D, seed=1), tensor(D, seed=2), tensor(5, 3, 4, D, seed=3)
WEIGHTS = tensor(4, D, seed=4)


def assert_close(ours, stock) -> None:
    """Equal to roundoff: 50 units in the last place of the largest value."""
    assert ours.shape == stock.shape
    assert ours.dtype == stock.dtype
    largest = stock.abs().max().item() if stock.numel() else 0.0
    assert (ours - stock).abs().max().item() <= 50 * torch.finfo(stock.dtype).eps * largest if stock.numel() else True


TRANSFORMS = {
    "primal": lambda f: f(X, WEIGHT, BIAS),
    "no parameters": lambda f: f(X, None, None),
    "jvp": lambda f: jvp(lambda x: f(x, WEIGHT, BIAS), (X,), (V[0],))[1],
    "vjp": lambda f: vjp(lambda x: f(x, WEIGHT, None), X)[1](V[0])[0],
    "vmap(jvp)": lambda f: vmap(lambda v: jvp(lambda x: f(x, WEIGHT, BIAS), (X,), (v,))[1])(V),
    "vmap(vjp)": lambda f: vmap(vjp(lambda x: f(x, WEIGHT, BIAS), X)[1])(V)[0],
    "vmap over inputs": lambda f: vmap(lambda x: f(x, WEIGHT, BIAS), 1, 2)(X),
    "vmap over inputs and tangents": lambda f: vmap(
        lambda x, v: jvp(lambda x: f(x, WEIGHT, BIAS), (x,), (v,))[1], (1, 1)
    )(X, V[0]),
    "nested vmap(jvp)": lambda f: vmap(
        lambda x, vs: vmap(lambda v: jvp(lambda x: f(x, WEIGHT, BIAS), (x,), (v,))[1])(vs), (0, 1)
    )(X, V),
    "nested vmap(vjp)": lambda f: vmap(lambda x, us: vmap(vjp(lambda x: f(x, WEIGHT, BIAS), x)[1])(us)[0], (1, 2))(
        X, V
    ),
    "jacfwd": lambda f: jacfwd(lambda x: f(x, WEIGHT, BIAS))(X[0]),
    "jacrev": lambda f: jacrev(lambda x: f(x, WEIGHT, BIAS))(X[0]),
    "jacfwd(vmap)": lambda f: jacfwd(vmap(lambda x: f(x, WEIGHT, BIAS), 1, 1))(X),
    "jacrev(vmap)": lambda f: jacrev(vmap(lambda x: f(x, WEIGHT, BIAS)))(X),
    "batched weight": lambda f: vmap(lambda w: f(X, w, BIAS))(WEIGHTS),
    "batched bias": lambda f: vmap(lambda b: f(X, WEIGHT, b))(WEIGHTS),
    "batched weight and bias": lambda f: vmap(lambda w, b: f(X, w, b), (1, 0))(WEIGHTS.T, WEIGHTS),
    "batched weight and input": lambda f: vmap(lambda w, x: f(x, w, BIAS), (0, 1))(WEIGHTS, X),
    "vmap(jvp), batched weight": lambda f: vmap(lambda w: jvp(lambda x: f(x, w, BIAS), (X,), (V[0],))[1])(WEIGHTS),
    "vmap(vjp), batched weight and input": lambda f: vmap(
        lambda w, x, u: vjp(lambda x: f(x, w, BIAS), x)[1](u)[0], (0, 1, 1)
    )(WEIGHTS, X, V[0]),
    "grad of weight": lambda f: grad(lambda w: f(X, w, BIAS).square().sum())(WEIGHT),
    "grad of bias": lambda f: grad(lambda b: f(X, WEIGHT, b).square().sum())(BIAS),
    "jvp of weight": lambda f: jvp(lambda w: f(X, w, BIAS), (WEIGHT,), (BIAS,))[1],
    "jvp of bias": lambda f: jvp(lambda b: f(X, WEIGHT, b), (BIAS,), (WEIGHT,))[1],
    "jvp of input and weight": lambda f: jvp(lambda x, w: f(x, w, BIAS), (X, WEIGHT), (V[0], BIAS))[1],
    "vmap(grad) of weight": lambda f: vmap(grad(lambda w: f(X, w, BIAS).square().sum()))(WEIGHTS),
    "grad of weight through vmap": lambda f: grad(lambda w: vmap(lambda x: f(x, w, BIAS))(X).square().sum())(WEIGHT),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS.keys())
def test_equals_pytorch_under(transform):
    ours = transform(lambda x, w, b: layer_norm(x, [D], w, b))
    stock = transform(lambda x, w, b: functional.layer_norm(x, [D], w, b))
    assert_close(ours, stock)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (4, 5)])
def test_equals_pytorch_over_several_normalised_dimensions(shape):
    x, v, w = tensor(*shape), tensor(3, *shape, seed=1), tensor(4, 5, seed=2)
    for transform in (
        lambda f: f(x),
        lambda f: vmap(lambda t: jvp(f, (x,), (t,))[1])(v),
        lambda f: vmap(vjp(f, x)[1])(v)[0],
    ):
        assert_close(
            transform(lambda x: layer_norm(x, (4, 5), w, None, 1e-3)),
            transform(lambda x: functional.layer_norm(x, (4, 5), w, None, 1e-3)),
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_primal_is_pytorchs_own_and_the_derivative_is_as_accurate(dtype):
    x, w, b, v = tensor(5, 96), tensor(96, seed=1), tensor(96, seed=2), tensor(4, 5, 96, seed=3)
    x, w, b, v = x.to(dtype), w.to(dtype), b.to(dtype), v.to(dtype)
    assert torch.equal(layer_norm(x, [96], w, b), functional.layer_norm(x, [96], w, b))
    wide = lambda x: functional.layer_norm(x, [96], w.double())  # noqa: E731
    exact = vmap(lambda t: jvp(wide, (x.double(),), (t,))[1])(v.double())
    ours = vmap(lambda t: jvp(lambda x: layer_norm(x, [96], w, b), (x,), (t,))[1])(v)
    stock = vmap(lambda t: jvp(lambda x: functional.layer_norm(x, [96], w, b), (x,), (t,))[1])(v)
    assert ours.dtype == dtype
    assert (ours.double() - exact).norm() <= 2 * (stock.double() - exact).norm()


def test_non_contiguous_and_empty_inputs():
    for x in (X.transpose(0, 1), X[:, ::2], X[:0], tensor(3, 2 * D)[:, ::2]):
        v = tensor(*x.shape, seed=9)
        f, stock = (lambda x: layer_norm(x, [D], WEIGHT)), (lambda x: functional.layer_norm(x, [D], WEIGHT))
        assert_close(f(x), stock(x))
        assert_close(jvp(f, (x,), (v,))[1], jvp(stock, (x,), (v,))[1])
        assert_close(vjp(f, x)[1](v)[0], vjp(stock, x)[1](v)[0])


def test_a_device_without_kernels_or_autocast_runs():
    x = torch.empty(3, D, device="meta")
    assert jvp(lambda x: layer_norm(x, [D]), (x,), (x,))[1].shape == (3, D)


def test_autocast_leaves_the_operation_to_pytorch():
    with torch.autocast("cpu", torch.bfloat16), recording() as log:
        got = layer_norm(X.float(), [D])
        expected = functional.layer_norm(X.float(), [D])
    assert torch.equal(got, expected)
    assert log.paths() == {"layer_norm": {"torch": 1}}


def test_no_tangents_give_no_results():
    for transform in (
        lambda f: vmap(lambda v: jvp(f, (X,), (v,))[1])(V[:0]),
        lambda f: vmap(vjp(f, X)[1])(V[:0])[0],
    ):
        assert transform(lambda x: layer_norm(x, [D], WEIGHT, BIAS)).shape == (0, *X.shape)


def test_plain_autograd_in_both_modes():
    x = X.clone().requires_grad_()
    (got,) = torch.autograd.grad(layer_norm(x, [D], WEIGHT, BIAS), x, V[0])
    (expected,) = torch.autograd.grad(functional.layer_norm(x, [D], WEIGHT, BIAS), x, V[0])
    assert_close(got, expected)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(X, V[0])
        got = forward_ad.unpack_dual(layer_norm(dual, [D], WEIGHT, BIAS)).tangent
        expected = forward_ad.unpack_dual(functional.layer_norm(dual, [D], WEIGHT, BIAS)).tangent
    assert_close(got, expected)


def test_parameters_that_require_grad_get_pytorchs_gradients():
    x, w, b = (t.clone().requires_grad_() for t in (X, WEIGHT, BIAS))
    with recording() as log:
        got = torch.autograd.grad(layer_norm(x, [D], w, b), (x, w, b), V[0])
    for ours, stock in zip(got, torch.autograd.grad(functional.layer_norm(x, [D], w, b), (x, w, b), V[0]), strict=True):
        assert torch.equal(ours, stock)
    assert log.paths() == {"layer_norm": {"torch": 1}}


@pytest.mark.parametrize(
    ("rule", "transform"),
    [
        (layer_norm_jvp, lambda f: vmap(lambda v: jvp(f, (X,), (v,))[1])(V)),
        (layer_norm_vjp, lambda f: vmap(vjp(f, X)[1])(V)[0]),
    ],
    ids=["vmap(jvp)", "vmap(vjp)"],
)
def test_the_primal_is_computed_once_and_all_tangents_reach_one_call(rule, transform):
    from torch.utils._python_dispatch import TorchDispatchMode

    seen: list[tuple[str, list[torch.Size]]] = []

    class Spy(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if "layer_norm" in func.name():
                seen.append((func.name(), [a.shape for a in args[:2] if isinstance(a, torch.Tensor)]))
            return func(*args, **(kwargs or {}))

    with recording() as log, Spy():
        transform(lambda x: layer_norm(x, [D], WEIGHT, BIAS))
    primal, derivative = seen
    assert primal == ("aten::native_layer_norm", [X.shape])
    assert derivative[0].startswith(f"equivengine::{rule.name}")
    assert derivative[1] == [(5, 12, D), (12, D)]
    statistics = X[0, 0, :1]
    path = rule.path(V.reshape(5, 12, D), X.reshape(12, D), statistics, statistics, WEIGHT)
    assert log.paths() == {rule.name: {path: 1}}


ONE = torch.ones_like(X)


def _dual_of_plain_gradient(f, create_graph):
    with forward_ad.dual_level():
        x = forward_ad.make_dual(X.clone().requires_grad_(), ONE)
        (g,) = torch.autograd.grad(f(x).sum(), x, create_graph=create_graph)
        return forward_ad.unpack_dual(g).tangent


def _plain_gradient_of_gradient(f):
    x = X.clone().requires_grad_()
    (g,) = torch.autograd.grad(f(x).square().sum(), x, create_graph=True)
    return torch.autograd.grad(g.sum(), x)


def _plain_gradient_of_dual(f):
    x = X.clone().requires_grad_()
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(f(forward_ad.make_dual(x, ONE))).tangent
        return torch.autograd.grad(tangent.square().sum(), x)


SECOND_DERIVATIVES = {
    "jvp(jvp)": lambda f: jvp(lambda y: jvp(f, (y,), (ONE,))[1], (X,), (ONE,))[1],
    "grad(jvp)": lambda f: grad(lambda y: jvp(f, (y,), (ONE,))[1].sum())(X),
    "jvp(grad)": lambda f: jvp(grad(lambda y: f(y).square().sum()), (X,), (ONE,))[1],
    "grad(grad)": lambda f: grad(lambda y: grad(lambda z: f(z).square().sum())(y).sum())(X),
    "vmap(jvp(jvp))": lambda f: vmap(lambda v: jvp(lambda y: jvp(f, (y,), (ONE,))[1], (X,), (v,))[1])(V),
    "jvp(vmap(jvp))": lambda f: jvp(lambda y: vmap(lambda v: jvp(f, (y,), (v,))[1])(V), (X,), (ONE,))[1],
    "grad(vmap(vjp))": lambda f: grad(lambda y: vmap(vjp(f, y)[1])(V)[0].sum())(X),
    "hessian": lambda f: torch.func.hessian(lambda y: f(y).square().sum())(X[0]),
    "plain grad(grad)": _plain_gradient_of_gradient,
    "plain grad(dual)": _plain_gradient_of_dual,
    "plain dual(grad)": lambda f: _dual_of_plain_gradient(f, False),
    "plain dual(grad, create_graph)": lambda f: _dual_of_plain_gradient(f, True),
}


@pytest.mark.parametrize("derivative", SECOND_DERIVATIVES.values(), ids=SECOND_DERIVATIVES.keys())
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=["kernel", "reference"])
def test_second_derivatives_raise(derivative, dtype, monkeypatch):
    for name in ("X", "ONE", "V"):
        monkeypatch.setitem(globals(), name, globals()[name].to(dtype))
    with pytest.raises((NotImplementedError, RuntimeError), match=r"equivengine::layer_norm_(jvp|vjp)"):
        derivative(lambda x: layer_norm(x, [D], WEIGHT.to(dtype)))


def test_second_derivatives_raise_without_the_extension(in_fresh_process):
    out = in_fresh_process(
        """
import torch
from torch.func import jvp, grad
from equivengine.ops.layer_norm import layer_norm
x = torch.randn(3, 6); one = torch.ones_like(x); f = lambda x: layer_norm(x, [6])
for second in (lambda: jvp(lambda y: jvp(f, (y,), (one,))[1], (x,), (one,)),
               lambda: grad(lambda y: jvp(f, (y,), (one,))[1].sum())(x),
               lambda: jvp(grad(lambda y: f(y).square().sum()), (x,), (one,)),
               lambda: grad(lambda y: grad(lambda z: f(z).square().sum())(y).sum())(x)):
    try:
        second()
    except NotImplementedError as error:
        print("refused" if "second derivatives" in str(error) else error)
""",
        EQUIVENGINE_EXTENSION="off",
    )
    assert out.split() == ["refused"] * 4


BARE_OPERATORS = """
import torch
import torch.autograd.forward_ad as forward_ad
from equivengine.ops.activation import scale_tangents
from equivengine.ops.layer_norm import layer_norm_jvp, layer_norm_vjp
from equivengine.ops.rms_norm import rms_norm_jvp, rms_norm_vjp
from equivengine.ops.softmax import softmax_jvp
t, x, m, w = torch.randn(2, 3, 4), torch.randn(3, 4), torch.randn(3), torch.randn(4)
calls = {layer_norm_jvp: [t, x, m, m, w], layer_norm_vjp: [t, x, m, m, w, t], rms_norm_jvp: [t, x, m, w],
         rms_norm_vjp: [t, x, m, w, t], softmax_jvp: [t, x], scale_tangents: [t, x]}
for rule, arguments in calls.items():
    for op in (rule.kernel, rule.plain):
        op(*arguments)
        for position, argument in enumerate(arguments):
            f = lambda a: op(*arguments[:position], a, *arguments[position + 1:])
            def dual():
                with forward_ad.dual_level():
                    f(forward_ad.make_dual(argument, torch.ones_like(argument)))
            for derivative in (lambda: torch.func.jvp(f, (argument,), (torch.ones_like(argument),)), dual,
                               lambda: torch.func.grad(lambda a: f(a).sum())(argument),
                               lambda: f(argument.clone().requires_grad_()).sum().backward()):
                try:
                    derivative()
                    print("silent")
                except (NotImplementedError, RuntimeError) as error:
                    print("raised" if "equivengine::" + rule.name in str(error) else error)
"""


@pytest.mark.parametrize("mode", ["auto", "off"])
def test_the_bare_operator_cannot_be_differentiated(in_fresh_process, mode):
    assert in_fresh_process(BARE_OPERATORS, EQUIVENGINE_EXTENSION=mode).split() == ["raised"] * (
        2 * 4 * (5 + 6 + 4 + 5 + 2 + 2)
    )
