"""Requirements on the derivative of a model: against central differences, and of both modes against each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from equivengine.errors import EngineError
from equivengine.jacobian import JacobianOperator
from equivengine.ops.narrowing import named
from equivengine.testing.encoder_subject import EncoderSubject
from equivengine.testing.verdict import Breach, NotTried, Requirement

#: Random directions.
DIRECTIONS = 3

#: Relative error of J v against float64 central differences, at the best step. Differences that good are a matter of
#: course where f is smooth (h^2 against 1e-16 / h); a wrong rule is off by more than 1e-3.
DIFFERENCE = 1e-5

#: Steps, in units of the input range.
STEPS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)

#: Relative violation of <J v, u> = <v, J^T u> in float64, and difference of two ways to compute J^T u.
ADJOINT = 1e-8

#: What the two may be in units of roundoff where a module keeps float32 in its float64 copy: a difference balances
#: h^2 against eps / h, an adjoint does not.
DIFFERENCE_OF_EPSILON, ADJOINT_OF_EPSILON = 40.0, 1e3

#: Relative difference of float32 and float64 embeddings that is more than roundoff of a deep network.
FLOAT32 = 1e-2


def runs_in_float64(subject: EncoderSubject) -> str:
    """A copy in float64 gives nearly the same embedding."""
    encoder, x = subject.encoder, subject.inputs(1)
    with torch.no_grad():
        single = encoder(x)
        try:
            double = encoder.at_precision("fp64")(x.double())
        except Exception as error:
            raise Breach(
                "the module cannot be converted to float64",
                expected="module.to(torch.float64) evaluates float64 inputs; noise floors are measured so",
                got=f"{type(error).__name__}: {' '.join(str(error).split())}",
                hint="register constants as buffers, or convert them in forward: constant.to(x.dtype)",
            ) from error
    gap = float((single.double() - double).norm() / (double.norm() or 1.0))
    if not gap <= FLOAT32:
        raise Breach(
            "float32 and float64 give different embeddings",
            expected=f"a relative difference of at most {FLOAT32:.0e}",
            got=f"{gap:.1e}",
            hint="look for casts to lower precision and for ill-conditioned steps",
        )
    inside = encoder.narrowed["fp64"]
    return f"relative difference to float32 {gap:.1e}" + (
        f"; not float64 throughout: {named(inside)}" if inside else ""
    )


def agrees_with_differences(subject: EncoderSubject) -> str:
    """J v is what central differences say."""
    operator, x = _operator(subject)
    double = subject.encoder.at_precision("fp64")
    low, high = subject.loaded.input_range
    V = _directions(x, seed=1)
    products = operator.jvp(V)
    size = float(products.norm(dim=1).max()) or 1.0
    errors = []
    for step in STEPS:
        h = step * (high - low)
        with torch.no_grad():
            differences = (double(x + h * V) - double(x - h * V)) / (2 * h)
        errors.append(float((differences - products).norm(dim=1).max()) / size)
    best = min(errors)
    bound = max(DIFFERENCE, DIFFERENCE_OF_EPSILON * operator.epsilon ** (2 / 3))
    if not best <= bound:
        raise Breach(
            "J v differs from central differences of the model",
            expected=f"a relative error of at most {bound:.0e} at some step, in float64",
            got=", ".join(f"{error:.1e} at h = {step:g}" for step, error in zip(STEPS, errors, strict=True)),
            hint="look for custom autograd functions, straight-through estimators, rounding and detach() in forward",
        )
    return f"relative error {best:.1e}"


def agrees_with_its_adjoint(subject: EncoderSubject) -> str:
    """<J v, u> = <v, J^T u>, and J^T u is what torch.autograd says."""
    operator, x = _operator(subject)
    V = _directions(x, seed=2)
    U = torch.randn(DIRECTIONS, operator.shape[0], generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    forward, reverse = operator.jvp(V), operator.vjp(U)
    left = (forward * U).sum(1)
    right = (V.flatten(1) * reverse.flatten(1)).sum(1)
    size = forward.norm(dim=1) * U.norm(dim=1) + V.flatten(1).norm(dim=1) * reverse.flatten(1).norm(dim=1)
    gap = float(((left - right).abs() / size.clamp_min(1e-300)).max())
    bound = max(ADJOINT, ADJOINT_OF_EPSILON * operator.epsilon)
    if not gap <= bound:
        raise Breach(
            "J v and J^T u contradict each other",
            expected=f"<J v, u> = <v, J^T u> within {bound:.0e}",
            got=f"{gap:.1e} of |J v| |u| + |v| |J^T u|",
            hint="look at torch.autograd.Function in the module: its jvp and backward must be of one function",
        )
    double = subject.encoder.at_precision("fp64")
    leaf = x[None].clone().requires_grad_(True)
    with torch.enable_grad():
        (grad,) = torch.autograd.grad(double(leaf)[0] @ U[0], leaf)
    away = float((grad[0] - reverse[0]).norm() / (grad.norm() or 1.0))
    if not away <= bound:
        raise Breach(
            "J^T u differs from torch.autograd",
            expected=f"a relative difference of at most {bound:.0e}",
            got=f"{away:.1e}",
            hint="report it with the model: `equivengine doctor --json --model URI`",
        )
    return f"relative violation {gap:.1e}"


def _operator(subject: EncoderSubject) -> tuple[JacobianOperator, torch.Tensor]:
    """The Jacobian in float64 at noise, and that input [*shape]. Raises `NotTried` if float64 does not work."""
    x = subject.inputs(1)[0].double()
    encoder = subject.encoder
    try:
        with torch.no_grad():
            encoder.at_precision("fp64")(x[None])
    except Exception as error:
        raise NotTried("the module cannot be converted to float64") from error
    try:
        return JacobianOperator(encoder, x, precision="fp64"), x
    except EngineError as error:
        if error.expected == "finite values":
            raise NotTried("embeddings are not finite") from None
        raise


def _directions(x: torch.Tensor, seed: int) -> torch.Tensor:
    """Random unit directions [K, *shape]."""
    generator = torch.Generator().manual_seed(seed)
    V = torch.randn((DIRECTIONS, *x.shape), generator=generator, dtype=x.dtype)
    return V / V.flatten(1).norm(dim=1).view(-1, *([1] * x.dim()))


DERIVATIVE: Sequence[Requirement[EncoderSubject]] = (
    Requirement("runs_in_float64", "it runs in float64 too", runs_in_float64),
    Requirement(
        "agrees_with_differences", "its Jacobian agrees with float64 central differences", agrees_with_differences
    ),
    Requirement("agrees_with_its_adjoint", "forward and reverse mode agree", agrees_with_its_adjoint),
)
