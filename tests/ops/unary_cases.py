"""Transforms of a function of one tensor, for the tests of single operations."""

import torch
import torch.autograd.forward_ad as forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap


def tensor(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


X, V = tensor(3, 4, 6), tensor(5, 3, 4, 6, seed=1)


def assert_close(ours: torch.Tensor, stock: torch.Tensor) -> None:
    """Equal to roundoff: 50 units in the last place of the largest value."""
    assert ours.shape == stock.shape
    assert ours.dtype == stock.dtype
    if stock.numel():
        assert (ours - stock).abs().max() <= 50 * torch.finfo(stock.dtype).eps * stock.abs().max()


def dual(f, x, v):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(forward_ad.make_dual(x, v))).tangent


def plain_grad(f):
    x = X.clone().requires_grad_()
    return torch.autograd.grad(f(x), x, V[0])[0]


#: First derivatives: equal to those of PyTorch's own operation.
FIRST = {
    "primal": lambda f: f(X),
    "jvp": lambda f: jvp(f, (X,), (V[0],))[1],
    "vjp": lambda f: vjp(f, X)[1](V[0])[0],
    "vmap(jvp)": lambda f: vmap(lambda v: jvp(f, (X,), (v,))[1])(V),
    "vmap(vjp)": lambda f: vmap(vjp(f, X)[1])(V)[0],
    "vmap(grad)": lambda f: vmap(grad(lambda x: f(x).pow(3).sum()))(X),
    "vmap over inputs": lambda f: vmap(f, 1, 2)(X),
    "vmap over inputs and tangents": lambda f: vmap(lambda x, v: jvp(f, (x,), (v,))[1], (1, 1))(X, V[0]),
    "nested vmap(jvp)": lambda f: vmap(lambda x, vs: vmap(lambda v: jvp(f, (x,), (v,))[1])(vs), (0, 1))(X, V),
    "nested vmap(vjp)": lambda f: vmap(lambda x, us: vmap(vjp(f, x)[1])(us)[0], (1, 2))(X, V),
    "jvp(vmap)": lambda f: jvp(vmap(f, 1), (X,), (V[0],))[1],
    "jacfwd": lambda f: jacfwd(f)(X[0]),
    "jacrev": lambda f: jacrev(f)(X[0]),
    "value of jvp in grad": lambda f: grad(lambda x: jvp(f, (x,), (V[0],))[0].pow(3).sum())(X),
    "value of vjp in jvp": lambda f: jvp(lambda x: vjp(f, x)[0], (X,), (V[0],))[1],
    "outer variable in jvp": lambda f: grad(lambda x: jvp(lambda y: f(x) * y, (X,), (V[0],))[1].sum())(X),
    "plain reverse": plain_grad,
    "plain dual": lambda f: dual(f, X, V[0]),
    "plain reverse around jvp": lambda f: plain_grad(lambda x: jvp(lambda y: f(x) * y, (X,), (V[0],))[1]),
    "jvp without forward mode": lambda f: jvp(_no_forward_mode(f), (X,), (V[0],))[1],
    "vjp without reverse mode": lambda f: vjp(lambda x: x + torch.no_grad()(f)(x), X)[1](V[0])[0],
    "no tangents": lambda f: vmap(lambda v: jvp(f, (X,), (v,))[1])(V[:0]),
    "no cotangents": lambda f: vmap(vjp(f, X)[1])(V[:0])[0],
    "empty": lambda f: jvp(f, (X[:0],), (V[0, :0],))[1],
    "transposed": lambda f: vmap(lambda v: jvp(f, (X.mT,), (v,))[1])(V.mT),
    "strided": lambda f: vjp(f, X[..., ::2])[1](V[0, ..., ::2])[0],
}


def _no_forward_mode(f):
    def inner(x):
        with forward_ad._set_fwd_grad_enabled(False):
            constant = f(x)
        return constant + x

    return inner


def _dual_of_plain_gradient(f, create_graph):
    with forward_ad.dual_level():
        x = forward_ad.make_dual(X.clone().requires_grad_(), torch.ones_like(X))
        (g,) = torch.autograd.grad(f(x).sum(), x, create_graph=create_graph)
        return forward_ad.unpack_dual(g).tangent


def _plain_gradient_of_gradient(f):
    x = X.clone().requires_grad_()
    (g,) = torch.autograd.grad(f(x).square().sum(), x, create_graph=True)
    return torch.autograd.grad(g.sum(), x)


def _plain_gradient_of_dual(f):
    x = X.clone().requires_grad_()
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(f(forward_ad.make_dual(x, torch.ones_like(X)))).tangent
        return torch.autograd.grad(tangent.square().sum(), x)


#: Second derivatives: refused.
SECOND = {
    "jvp(jvp)": lambda f: jvp(lambda y: jvp(f, (y,), (V[0],))[1], (X,), (V[1],))[1],
    "grad(jvp)": lambda f: grad(lambda y: jvp(f, (y,), (V[0],))[1].sum())(X),
    "jvp(grad)": lambda f: jvp(grad(lambda y: f(y).square().sum()), (X,), (V[0],))[1],
    "jvp(vjp)": lambda f: jvp(lambda y: vjp(f, y)[1](V[0])[0], (X,), (V[1],))[1],
    "grad(grad)": lambda f: grad(lambda y: grad(lambda z: f(z).sum())(y).sum())(X),
    "vmap(jvp(jvp))": lambda f: vmap(lambda v: jvp(lambda y: jvp(f, (y,), (V[0],))[1], (X,), (v,))[1])(V),
    "jvp(vmap(jvp))": lambda f: jvp(lambda y: vmap(lambda v: jvp(f, (y,), (v,))[1])(V), (X,), (V[0],))[1],
    "grad(vmap(vjp))": lambda f: grad(lambda y: vmap(vjp(f, y)[1])(V)[0].sum())(X),
    "hessian": lambda f: hessian(lambda y: f(y).square().sum())(X[0]),
    "plain grad(grad)": _plain_gradient_of_gradient,
    "plain grad(dual)": _plain_gradient_of_dual,
    "plain dual(grad)": lambda f: _dual_of_plain_gradient(f, False),
    "plain dual(grad, create_graph)": lambda f: _dual_of_plain_gradient(f, True),
}
