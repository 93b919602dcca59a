"""Maps whose Jacobian spectrum is known in closed form, to hold estimators against.

Linear maps have prescribed singular values. Orthogonal o nonlinearity o orthogonal maps, f(x) = U s g(V^T x), have the
Jacobian U diag(s_i g'(z_i)) V^T with z = V^T x. Two-layer networks stand for what has no closed form; their reference
is a dense float64 Jacobian by reverse mode.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class KnownMap:
    """A map R^m -> R^n and an input.

    Attributes:
        name: What its spectrum looks like.
        f: Takes [B, m] to [B, n], float32 parameters.
        x: [m], float32.
        solvable: Whether a block Krylov method can tell the leading values from the rest within half of the products
            that the whole Jacobian takes. Others may end as "not converged".
    """

    name: str
    f: nn.Module
    x: Tensor
    solvable: bool = True

    @functools.cached_property
    def jacobian(self) -> Tensor:
        """J at x in float64, [n, m], with parameters as float32 holds them."""
        return reference_jacobian(self.f, self.x)

    @functools.cached_property
    def singular_values(self) -> Tensor:
        """[min(n, m)], float64, descending: by LAPACK from the float64 Jacobian."""
        return torch.linalg.svdvals(self.jacobian)


def reference_jacobian(f: nn.Module, x: Tensor) -> Tensor:
    """Dense Jacobian [n, m] of a copy of f in float64, by `torch.func.jacrev`."""
    import copy

    double = copy.deepcopy(f).to(torch.float64)
    return torch.func.jacrev(lambda z: double(z[None])[0])(x.to(torch.float64))


class Linear(nn.Module):
    """x -> A x with A = U diag(s) V^T."""

    def __init__(self, U: Tensor, s: Tensor, V: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(((U * s) @ V.T).float(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, m] -> [B, n]."""
        return x @ self.weight.T


class Sandwich(nn.Module):
    """x -> U s g(V^T x), element by element in the middle."""

    def __init__(self, U: Tensor, s: Tensor, V: Tensor, g: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.left = nn.Parameter((U * s).float(), requires_grad=False)
        self.right = nn.Parameter(V.float(), requires_grad=False)
        self.g = g

    def forward(self, x: Tensor) -> Tensor:
        """[B, m] -> [B, n]."""
        return self.g(x @ self.right) @ self.left.T


def spectra(n: int) -> dict[str, tuple[Tensor, bool]]:
    """Singular values [n] by name, descending, and whether the leading ones can be found cheaply."""
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
        n: Outputs.
        m: Inputs, at least n.
        seed: Of rotations, inputs and weights.
    """
    U, V = orthonormal(n, n, 2 * seed), orthonormal(m, n, 2 * seed + 1)
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(m, generator=generator)
    bank = [KnownMap(name, Linear(U, s, V), x, solvable) for name, (s, solvable) in spectra(n).items()]
    for name, g in (("tanh", torch.tanh), ("softplus", nn.functional.softplus), ("sine", torch.sin)):
        for decay in ("decay 1/i", "decay 1/sqrt(i)"):
            s = spectra(n)[decay][0]
            bank.append(KnownMap(f"{name} sandwich, {decay}", Sandwich(U, s, V, g), x))
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
