"""Ways to the leading singular values of a Jacobian: ours, stock PyTorch's, and those of other packages.

A way takes a subject and a rank and returns singular values and how many products with J or J^T it made (None where
it does not count them). Other packages are optional: a way whose package is missing is reported as such.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from models import Subject, differentiable
from torch import Tensor
from ways import float32_mode

import equivengine as eqv

Found = tuple[Tensor, int | None, dict[str, Any]]


@dataclass(frozen=True)
class SVDWay:
    """A named way; ``needs_dense`` ones get the dense J of `torch.func.jacrev`, whose time is added to theirs."""

    name: str
    run: Callable[..., Found]
    needs_dense: bool = False
    package: str | None = None
    #: Largest number of input coordinates that it is run at, unless asked for by name.
    most_inputs: float = math.inf


def dense(subject: Subject, chunk: int = 16) -> Tensor:
    """J by `torch.func.jacrev` in float32, [n, m]: what stock PyTorch offers."""
    with float32_mode("fp32"), differentiable():
        return torch.func.jacrev(subject.f, chunk_size=chunk)(subject.x).flatten(1)


def _ours(method: str, *, whole: bool = False, **options: Any) -> Callable[..., Found]:
    def run(subject: Subject, rank: int, tol: float) -> Found:
        operator = eqv.JacobianOperator(subject.model, subject.x)
        wanted = {} if whole else {"rank": rank, "tol": tol}
        found = eqv.linalg.svd(operator, method=method, noise_directions=0, **wanted, **options).require()
        return (
            found.S[:rank],
            found.products,
            {
                "status": found.status,
                "products_by_precision": dict(found.products_by_precision),
                "estimated_relative_error": float((found.error / found.S)[:rank].max()),
                "values": len(found.S),
            },
        )

    return run


def _linalg_svd(subject: Subject, rank: int, tol: float, matrix: Tensor) -> Found:
    return torch.linalg.svd(matrix, full_matrices=False).S[:rank], None, {}


def _svd_lowrank(subject: Subject, rank: int, tol: float, matrix: Tensor) -> Found:
    # Its documentation asks for a q "slightly" above the rank; q = 2 rank and niter = 4 is generous.
    return torch.svd_lowrank(matrix, q=2 * rank, niter=4)[1][:rank], None, {"q": 2 * rank, "niter": 4}


def _sklearn(subject: Subject, rank: int, tol: float, matrix: Tensor) -> Found:
    from sklearn.utils.extmath import randomized_svd

    values = randomized_svd(matrix.cpu().numpy(), rank, random_state=0)[1]
    return torch.from_numpy(values.copy()), None, {"n_iter": "auto", "n_oversamples": 10}


def _svds(subject: Subject, rank: int, tol: float) -> Found:
    """ARPACK through our products, one direction at a time, as SciPy asks for them."""
    from scipy.sparse.linalg import LinearOperator, svds

    operator = eqv.JacobianOperator(subject.model, subject.x)
    made = 0

    def times(apply: Callable[[Tensor], Tensor]) -> Callable[[np.ndarray], np.ndarray]:
        def product(vector: np.ndarray) -> np.ndarray:
            nonlocal made
            made += 1
            given = torch.from_numpy(np.ascontiguousarray(vector.reshape(-1))).to(subject.x)
            return apply(given).cpu().numpy()

        return product

    linear = LinearOperator(
        operator.shape,
        matvec=times(lambda v: operator @ v),
        rmatvec=times(lambda u: operator.T @ u),
        dtype=np.float32,
    )
    # ARPACK works with J J^T, whose eigenvalues are squares: an error of tol in s is 2 tol there.
    values = svds(linear, k=rank, tol=2 * tol, return_singular_vectors=False, random_state=0)
    return torch.from_numpy(np.sort(values)[::-1].copy()), made, {}


def _skerch(subject: Subject, rank: int, tol: float) -> Found:
    """A one-round sketch (Halko, Martinsson and Tropp) of as many measurements as ours makes products at most."""
    from skerch.algorithms import ssvd

    operator = eqv.JacobianOperator(subject.model, subject.x)
    n, m = operator.shape
    made = 0

    class Measured:
        shape = (n, m)

        def __matmul__(self, columns: Tensor) -> Tensor:
            nonlocal made
            made += 1 if columns.dim() == 1 else columns.shape[1]
            return operator @ columns.to(subject.x)

        def __rmatmul__(self, rows: Tensor) -> Tensor:
            nonlocal made
            made += 1 if rows.dim() == 1 else rows.shape[0]
            return (operator.T @ rows.to(subject.x).T).T

    measurements = min(n, 8 * rank)
    values = ssvd(Measured(), subject.x.device, subject.x.dtype, measurements, seed=0, meas_blocksize=measurements)[1]
    return values[:rank], made, {"measurements": measurements}


def _plenoptic(subject: Subject, rank: int, tol: float) -> Found:
    """Halko's randomized SVD of J^T J, by products of two backward passes each."""
    from plenoptic import Eigendistortion

    power, spare = 2, 5
    with float32_mode("fp32"), differentiable():
        torch.manual_seed(0)
        found = Eigendistortion(subject.x[None], subject.model)
        found.synthesize(method="randomized_svd", k=rank, p=spare, q=power)
    count = 2 * ((power + 2) * (rank + spare) + 20)
    return found.eigenvalues.clamp_min(0).sqrt().flatten()[:rank], count, {"p": spare, "q": power}


WAYS = (
    SVDWay("ours, whole spectrum", _ours("exact", whole=True, vectors=False)),
    SVDWay("ours, exact", _ours("exact")),
    SVDWay("ours, randomized", _ours("randomized")),
    SVDWay("ours, randomized, mixed", _ours("randomized", precision="mixed")),
    SVDWay("ours, auto", _ours("auto")),
    SVDWay("jacrev + linalg.svd", _linalg_svd, needs_dense=True),
    SVDWay("jacrev + svd_lowrank", _svd_lowrank, needs_dense=True),
    SVDWay("jacrev + sklearn", _sklearn, needs_dense=True, package="sklearn"),
    SVDWay("scipy svds", _svds, package="scipy"),
    SVDWay("skerch", _skerch, package="skerch"),
    # 22 GB at m = 76,800 and n = 64.
    SVDWay("plenoptic", _plenoptic, package="plenoptic", most_inputs=20_000),
)
