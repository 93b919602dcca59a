"""Ways to K products with a Jacobian: ours, and what stock PyTorch offers.

A way is prepared for a subject and then called with directions: tangents [K, 3, H, W] or cotangents [K, n]. What it
prepares stands for all later calls at the same input.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from models import Subject, differentiable
from torch import Tensor
from torch.func import jvp, vjp, vmap

import equivengine as eqv
from equivengine.ops.precision import ieee_float32, tensor_float32

Call = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Way:
    """One way to a product.

    Attributes:
        name: What users type.
        product: ``jvp`` or ``vjp``.
        prepare: Called with the subject and a precision; returns the call.
        precisions: What it can be run in.
        one_by_one: Whether directions are a Python loop, so that a few of them tell the time of each.
        prepares: Whether it does anything for an input that later calls at this input need not do again.
        by_default: Whether it is timed unless named.
    """

    name: str
    product: str
    prepare: Callable[[Subject, str], Call]
    precisions: tuple[str, ...]
    one_by_one: bool = False
    prepares: bool = True
    by_default: bool = True

    @property
    def is_ours(self) -> bool:
        """Whether it is this package's."""
        return self.name.startswith("ours")


@contextlib.contextmanager
def float32_mode(precision: str) -> Iterator[None]:
    """TF32 for ``tf32``, else IEEE float32."""
    with tensor_float32() if precision == "tf32" else ieee_float32():
        yield


def at(subject: Subject, precision: str) -> Subject:
    """The subject as a stock way runs it: with a model in bfloat16, or in float32."""
    return subject.in_bfloat16 if precision == "bf16" else subject


def _ours(product: str, *, one_pass: bool = False) -> Callable[[Subject, str], Call]:
    def prepare(subject: Subject, precision: str) -> Call:
        size = 1 << 30 if one_pass else None
        operator = eqv.JacobianOperator(subject.model, subject.x, precision=precision, chunk_size=size)
        return operator.jvp if product == "jvp" else operator.vjp

    return prepare


def _stock(body: Callable[[Subject], Call], *, math: bool) -> Callable[[Subject, str], Call]:
    """Directions are converted, and attention and float32 run as asked, while preparing and in every call."""

    def prepare(subject: Subject, precision: str) -> Call:
        subject = at(subject, precision)

        @contextlib.contextmanager
        def mode() -> Iterator[None]:
            with float32_mode(precision), differentiable(math=math):
                yield

        with mode():
            inner = body(subject)

        def call(directions: Tensor) -> Tensor:
            with mode():
                return inner(directions.to(subject.x.dtype))

        return call

    return prepare


def _loop_jvp(subject: Subject) -> Call:
    def one(v: Tensor) -> Tensor:
        return jvp(subject.f, (subject.x,), (v,))[1]

    return lambda V: torch.stack([one(v) for v in V])


def _vmap_jvp(subject: Subject) -> Call:
    return vmap(lambda v: jvp(subject.f, (subject.x,), (v,))[1])


def _linearize(subject: Subject) -> Call:
    return vmap(torch.func.linearize(subject.f, subject.x)[1])


def _graph(subject: Subject) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = subject.x.clone().requires_grad_(True)
        return x, subject.f(x)


def _loop_vjp(subject: Subject) -> Call:
    x, y = _graph(subject)
    return lambda U: torch.stack([torch.autograd.grad(y, x, u, retain_graph=True)[0] for u in U])


def _vmap_vjp(subject: Subject) -> Call:
    pullback = vjp(subject.f, subject.x)[1]
    return vmap(lambda u: pullback(u)[0])


def _grads_batched(subject: Subject) -> Call:
    x, y = _graph(subject)
    return lambda U: torch.autograd.grad(y, x, U, retain_graph=True, is_grads_batched=True)[0]


def _replicate(subject: Subject) -> Call:
    def call(U: Tensor) -> Tensor:
        with torch.enable_grad():
            xs = subject.x.expand(len(U), *subject.x.shape).clone().requires_grad_(True)
            return torch.autograd.grad(subject.model(xs), xs, U)[0]

    return call


def _compiled_jvp(subject: Subject) -> Call:
    model = subject.model

    def whole(x: Tensor, V: Tensor) -> Tensor:
        return vmap(lambda v: jvp(lambda z: model(z[None])[0], (x,), (v,))[1])(V)

    return _compiled(whole, subject.x)


def _compiled_vjp(subject: Subject) -> Call:
    model = subject.model

    def whole(x: Tensor, U: Tensor) -> Tensor:
        pullback = vjp(lambda z: model(z[None])[0], x)[1]
        return vmap(lambda u: pullback(u)[0])(U)

    return _compiled(whole, subject.x)


def _compiled(whole: Callable[[Tensor, Tensor], Tensor], x: Tensor) -> Call:
    # Whole: where Dynamo breaks the graph, what runs is not compiled.
    compiled = torch.compile(whole, fullgraph=True)
    return lambda directions: compiled(x, directions)


_OURS = ("fp32", "tf32x3", "tf32", "bf16", "fp64")
_ALL = ("fp32", "tf32", "bf16")
_FP32 = ("fp32",)

WAYS = (
    Way("ours", "jvp", _ours("jvp"), _OURS),
    Way("ours_one_pass", "jvp", _ours("jvp", one_pass=True), _OURS, by_default=False),
    Way("loop_jvp", "jvp", _stock(_loop_jvp, math=True), _FP32, one_by_one=True, prepares=False),
    Way("vmap_jvp", "jvp", _stock(_vmap_jvp, math=True), _ALL, prepares=False),
    Way("linearize", "jvp", _stock(_linearize, math=True), _FP32),
    Way("compile_jvp", "jvp", _stock(_compiled_jvp, math=True), _FP32, prepares=False, by_default=False),
    Way("ours", "vjp", _ours("vjp"), _OURS),
    Way("ours_one_pass", "vjp", _ours("vjp", one_pass=True), _OURS, by_default=False),
    Way("loop_vjp", "vjp", _stock(_loop_vjp, math=False), _FP32, one_by_one=True),
    Way("vmap_vjp", "vjp", _stock(_vmap_vjp, math=True), _ALL),
    Way("vmap_vjp_fused", "vjp", _stock(_vmap_vjp, math=False), _FP32),
    Way("grads_batched", "vjp", _stock(_grads_batched, math=True), _FP32),
    Way("replicate", "vjp", _stock(_replicate, math=False), _FP32, prepares=False),
    Way("compile_vjp", "vjp", _stock(_compiled_vjp, math=True), _FP32, prepares=False, by_default=False),
)


def chosen(
    only: list[str] | None, products: list[str], precisions: list[str], *, ours_alone: bool = False
) -> list[tuple[Way, str]]:
    """Ways by name, or those that are timed by default, in each of the precisions that they know."""
    return [
        (way, precision)
        for way in WAYS
        if way.product in products
        and (way.name in only if only else way.by_default and (way.is_ours or not ours_alone))
        for precision in way.precisions
        if precision in precisions
    ]
