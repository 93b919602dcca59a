"""Maps whose Jacobian spectrum is known in closed form, to hold estimators against.

Linear maps have prescribed singular values. Orthogonal o nonlinearity o orthogonal maps, f(x) = U s g(V^T x), have the
Jacobian U diag(s_i g'(z_i)) V^T with z = V^T x. Along v_i only z_i moves, so the local directional Lipschitz constant
is known as well. Two-layer networks stand for what has no closed form; their reference is a dense float64 Jacobian by
reverse mode.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Nonlinearity:
    """A function of one variable whose derivative is known.

    Attributes:
        g: The function.
        slope: g'(z).
        steepest: The largest |g'(z + a)| over |a| <= eps, of z and eps.
    """

    g: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    steepest: Callable[[Tensor, float], Tensor]


def _tanh_slope(z: Tensor) -> Tensor:
    return 1 / z.cosh().square()


def _sine_steepest(z: Tensor, eps: float) -> Tensor:
    """|cos| is 1 at multiples of pi, and monotone between them and the odd multiples of pi / 2."""
    to_peak = (z - math.pi * (z / math.pi).round()).abs()
    return (to_peak - eps).clamp_min(0).cos()


NONLINEARITIES = {
    "identity": Nonlinearity(lambda z: z, torch.ones_like, lambda z, eps: torch.ones_like(z)),
    # Steepest at 0; falls on both sides.
    "tanh": Nonlinearity(torch.tanh, _tanh_slope, lambda z, eps: _tanh_slope((z.abs() - eps).clamp_min(0))),
    # Its slope, the logistic function, only rises.
    "softplus": Nonlinearity(nn.functional.softplus, torch.sigmoid, lambda z, eps: torch.sigmoid(z + eps)),
    "sine": Nonlinearity(torch.sin, torch.cos, _sine_steepest),
}


@dataclass(frozen=True, eq=False)
class Factors:
    """f(x) = U s g(V^T x) in float64, before parameters were rounded to float32.

    Attributes:
        U: [n, n], orthogonal.
        s: [n], at least 0.
        V: [m, n], orthonormal columns.
        nonlinearity: g.
    """

    U: Tensor
    s: Tensor
    V: Tensor
    nonlinearity: Nonlinearity


@dataclass(frozen=True, eq=False)
class KnownMap:
    """A map R^m -> R^n and an input.

    Attributes:
        name: What its spectrum looks like.
        f: Takes [B, m] to [B, n], float32 parameters.
        x: [m], float32.
        factors: Of maps in closed form; None for networks.
        solvable: Whether neighboring singular values differ by enough for a Krylov space to tell the leading ones from
            the rest. Searches on others may end as "not converged".
    """

    name: str
    f: nn.Module
    x: Tensor
    factors: Factors | None = None
    solvable: bool = True

    @functools.cached_property
    def jacobian(self) -> Tensor:
        """J at x in float64, [n, m], with parameters as float32 holds them."""
        return reference_jacobian(self.f, self.x)

    @property
    def singular_values(self) -> Tensor:
        """[min(n, m)], float64, descending: by LAPACK from the float64 Jacobian."""
        return self._reference[0]

    @property
    def right_vectors(self) -> Tensor:
        """Right singular vectors as rows, [min(n, m), m], float64, in the order of `singular_values`."""
        return self._reference[1]

    @functools.cached_property
    def _reference(self) -> tuple[Tensor, Tensor]:
        _, S, Vh = torch.linalg.svd(self.jacobian, full_matrices=False)
        return S, Vh

    @property
    def closed_form(self) -> Tensor:
        """The singular values s_i |g'(z_i)| by formula, [n], descending: without the rounding of parameters.

        Raises:
            ValueError: There is no formula for a network.
        """
        factors = self._in_closed_form()
        slopes = factors.nonlinearity.slope(factors.V.T @ self.x.to(torch.float64))
        return (factors.s * slopes.abs()).sort(descending=True).values

    def direction(self, index: int) -> Tensor:
        """v_i, [m], float64: the unit direction along which only z_i = v_i^T x moves; i counts s, not s_i |g'|.

        Raises:
            ValueError: There is no formula for a network.
        """
        return self._in_closed_form().V[:, index]

    def ldlc(self, index: int, eps: float) -> float:
        """The local directional Lipschitz constant along ``direction(index)`` within ``eps`` of x, by formula.

        f(x + a v_i) - f(x + b v_i) = s_i (g(z_i + a) - g(z_i + b)) u_i, so it is the largest s_i |g'(z_i + a)| over
        |a| <= eps.

        Raises:
            ValueError: There is no formula for a network.
        """
        factors = self._in_closed_form()
        z = factors.V[:, index] @ self.x.to(torch.float64)
        return float(factors.s[index] * factors.nonlinearity.steepest(z, eps))

    def _in_closed_form(self) -> Factors:
        if self.factors is None:
            raise ValueError(f"{self.name} has no closed form")
        return self.factors


def reference_jacobian(f: nn.Module, x: Tensor) -> Tensor:
    """Dense Jacobian [n, m] of a copy of f in float64, by `torch.func.jacrev`."""
    double = copy.deepcopy(f).to(torch.float64)
    return torch.func.jacrev(lambda z: double(z[None])[0])(x.to(torch.float64))


class Linear(nn.Module):
    """x -> A x with A = U diag(s) V^T."""

    def __init__(self, factors: Factors) -> None:
        super().__init__()
        weight = (factors.U * factors.s) @ factors.V.T
        self.weight = nn.Parameter(weight.to(torch.float32), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, m] -> [B, n]."""
        return x @ self.weight.T


class Sandwich(nn.Module):
    """x -> U s g(V^T x), element by element in the middle."""

    def __init__(self, factors: Factors) -> None:
        super().__init__()
        self.left = nn.Parameter((factors.U * factors.s).to(torch.float32), requires_grad=False)
        self.right = nn.Parameter(factors.V.to(torch.float32), requires_grad=False)
        self.g = factors.nonlinearity.g

    def forward(self, x: Tensor) -> Tensor:
        """[B, m] -> [B, n]."""
        return self.g(x @ self.right) @ self.left.T


def spectra(n: int) -> dict[str, tuple[Tensor, bool]]:
    """Singular values [n] by name, descending, and whether the leading ones differ enough to be told apart."""
    i = torch.arange(n, dtype=torch.float64)
    bulk = torch.linspace(1, 0.4, n, dtype=torch.float64)
    cluster = torch.cat([1 - 1e-3 * i[:10], 0.5 - 1e-4 * i[:10], 0.1 * 0.97 ** i[: n - 20]])
    return {
        "fast decay": (10 ** (-i / 16), True),
        "very fast decay": (10 ** (-i / 4).clamp_min(-14), True),
        "decay 1/i": (1 / (i + 1), True),
        "decay 1/sqrt(i)": ((i + 1) ** -0.5, True),
        "slow decay i^-0.2": ((i + 1) ** -0.2, True),
        "linear": (1 - i / n, True),
        "condition 1e12": (10 ** (-12 * i / (n - 1)), True),
        "rank 10": (torch.where(i < 10, 1 - 0.05 * i, torch.zeros_like(i)), True),
        "one dominant": (torch.cat([torch.tensor([100.0], dtype=torch.float64), bulk[1:]]), True),
        "six outliers": (torch.cat([torch.tensor([5, 4, 3.5, 3, 2.9, 2.8], dtype=torch.float64), bulk[6:]]), True),
        "clusters of 10": (cluster, True),
        "12 equal": (torch.cat([torch.ones(12, dtype=torch.float64), 0.5 * 0.97 ** i[: n - 12]]), True),
        "steps of 5": (0.6 ** (i // 5), True),
        "pairs": (0.9 ** (i // 2), True),
        "flat": (torch.ones(n, dtype=torch.float64), True),
        "flat within 1e-4": (1 - 1e-4 * i / n, False),
        "flat within 1e-2": (1 - 1e-2 * i / n, False),
    }


def orthonormal(rows: int, columns: int, seed: int) -> Tensor:
    """A random [rows, columns] matrix with orthonormal columns, float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(rows, columns, generator=generator, dtype=torch.float64)).Q


def known_maps(n: int = 192, m: int = 640, seed: int = 0) -> list[KnownMap]:
    """The bank: all spectra as linear maps, nonlinear sandwiches, and tanh and GELU networks.

    Args:
        n: Outputs, at least 24.
        m: Inputs, at least n.
        seed: Of rotations, inputs and weights.

    Raises:
        ValueError: n is below 24 or above m.
    """
    if not 24 <= n <= m:
        raise ValueError(f"24 <= n <= m expected, got n = {n}, m = {m}")
    U, V = orthonormal(n, n, 2 * seed), orthonormal(m, n, 2 * seed + 1)
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(m, generator=generator)
    shapes = spectra(n)
    bank = []
    for name, (s, solvable) in shapes.items():
        factors = Factors(U, s, V, NONLINEARITIES["identity"])
        bank.append(KnownMap(name, Linear(factors), x, factors, solvable))
    for name in ("tanh", "softplus", "sine"):
        for decay in ("decay 1/i", "decay 1/sqrt(i)"):
            factors = Factors(U, shapes[decay][0], V, NONLINEARITIES[name])
            bank.append(KnownMap(f"{name} sandwich, {decay}", Sandwich(factors), x, factors))
    for name, layer in (("tanh", nn.Tanh()), ("GELU", nn.GELU())):
        bank.append(KnownMap(f"{name} network", _network(m, n, layer, generator), x))
    return bank


def _network(m: int, n: int, activation: nn.Module, generator: torch.Generator) -> nn.Module:
    width = 2 * n
    network = nn.Sequential(nn.Linear(m, width), activation, nn.LayerNorm(width), nn.Linear(width, n))
    for parameter in network.parameters():
        parameter.requires_grad_(False)
        fan = parameter.shape[-1] if parameter.dim() == 2 else 1
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(fan))
    return network.eval()
