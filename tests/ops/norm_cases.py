"""Rules of the norms with arguments for them."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from equivengine.ops.layer_norm import layer_norm_jvp, layer_norm_vjp
from equivengine.ops.rms_norm import rms_norm_jvp, rms_norm_vjp

RULES = [layer_norm_jvp, layer_norm_vjp, rms_norm_jvp, rms_norm_vjp]


CENTRED = (layer_norm_jvp, layer_norm_vjp)


VJPS = (layer_norm_vjp, rms_norm_vjp)


#: Dtypes of the tangents and of the primal.
DTYPES = [
    (torch.float64, torch.float64),
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.bfloat16, torch.float32),
]


FLOAT32, FLOAT64 = (torch.float32, torch.float32), (torch.float64, torch.float64)


WIDTHS = [1, 7, 48, 96, 384, 768, 1000]


rules = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)


dtypes = pytest.mark.parametrize("dtypes", DTYPES, ids=["float64", "float32", "bfloat16", "bfloat16 around float32"])


def accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def names(rule) -> list[str]:
    mean = ["mean"] if rule in CENTRED else []
    return ["tangents", "x", *mean, "rstd", "weight", *(["residual"] if rule in VJPS else [])]


def statistics(rule, x: Tensor) -> tuple[Tensor, ...]:
    if rule not in CENTRED:
        return ((x.square().mean(-1) + 1e-5).rsqrt(),)
    mean = x.mean(-1)
    return mean, ((x - mean.unsqueeze(-1)).square().mean(-1) + 1e-5).rsqrt()


def rows(
    rule,
    k: int,
    r: int,
    d: int,
    dtypes: tuple[torch.dtype, torch.dtype],
    *,
    weighted: bool = True,
    residual: bool = False,
    seed: int = 0,
    device: str = "cpu",
) -> tuple[Any, ...]:
    """The rule's arguments: tangents [K, R, D], x [R, D], mean and rstd [R], weight [D], residual [K, R, D].

    Offsets make cancellation matter.
    """
    generator = torch.Generator().manual_seed(seed)
    dtype, primal = dtypes

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    tangents, x = (normal(k, r, d) + 0.5).to(dtype), (2 * normal(r, d) + 1).to(primal)
    weight = normal(d).to(primal) if weighted else None
    found = [tangents, x, *statistics(rule, x.to(accumulator(primal))), weight]
    if rule in VJPS:
        found.append(normal(k, r, d).to(dtype) if residual else None)
    return tuple(None if t is None else t.to(device) for t in found)


def exact(rule, *arguments) -> np.ndarray:
    """The rule on the given (rounded) arguments in long double, by the chain rule written out: J t or J^T t."""
    wide = [None if a is None else a.cpu().double().numpy().astype(np.longdouble) for a in arguments]
    given = dict(zip(names(rule), wide, strict=True))
    w = 1 if given["weight"] is None else given["weight"]
    rstd = given["rstd"][:, None]
    v = given["tangents"] if rule not in VJPS else given["tangents"] * w
    if rule in CENTRED:
        xhat = (given["x"] - given["mean"][:, None]) * rstd
        v = v - v.mean(-1, keepdims=True)
    else:
        xhat = given["x"] * rstd
    projected = rstd * (v - xhat * (v * xhat).mean(-1, keepdims=True))
    if rule not in VJPS:
        return projected * w
    return projected if given["residual"] is None else projected + given["residual"]


def assert_at_most_twice_the_reference_error(rule, arguments, result: Tensor) -> None:
    plain = rule.reference(*arguments)
    assert result.dtype == plain.dtype
    assert result.shape == plain.shape
    if not result.numel():
        return
    expected = exact(rule, *arguments)

    def error(value: Tensor) -> float:
        return float(np.linalg.norm((value.cpu().double().numpy() - expected).ravel()))

    # The plain formula may be exact by luck (D = 1: everything cancels). Half a unit in the last place of what is
    # subtracted is always allowed: rounding it is the least that any implementation does.
    given = dict(zip(names(rule), arguments, strict=True))
    tangents, rstd, weight = given["tangents"], given["rstd"], given["weight"]
    terms = tangents.double() * rstd.double().unsqueeze(-1) * (1 if weight is None else weight.double())
    rounding = torch.finfo(accumulator(result.dtype)).eps / 2 * terms.norm().item()
    assert error(result) <= max(2 * error(plain), rounding)
