"""Counted products with whatever can be multiplied: a Jacobian, a dense matrix, a LinearOperator of SciPy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equivengine.errors import NumericsError, UsageError
from equivengine.linalg.result import RESOLUTION

#: How far <J v, u> and <v, J^T u> may differ, over |J v| |u|, before the adjoint counts as wrong.
_ADJOINT_GAP = {"fp64": 1e-7, "fp32": 1e-3, "tf32x3": 1e-3, "tf32": 1e-2, "bf16": 0.2}
_DENSE = {"fp32": torch.float32, "fp64": torch.float64, "bf16": torch.bfloat16}
#: A float32 derivative is itself wrong by 1e-10 .. 1e-7 s_1, so singular values below 1e-6 s_1 are noise.
_RESOLUTION = {
    "fp64": RESOLUTION[torch.float64],
    "fp32": RESOLUTION[torch.float32],
    "tf32x3": RESOLUTION[torch.float32],
    "tf32": 1e-3,
    "bf16": 3e-2,
}

#: Machine epsilon of what precisions round to; half precision has as many digits as TF32.
_EPSILON = {
    "fp64": torch.finfo(torch.float64).eps,
    "fp32": torch.finfo(torch.float32).eps,
    "tf32": torch.finfo(torch.float16).eps,
    "bf16": torch.finfo(torch.bfloat16).eps,
}

#: Below this, products (float32: subnormal numbers, of few digits) or the squares in lengths (float64) underflow.
_UNDERFLOW = {
    torch.float64: torch.finfo(torch.float64).tiny ** 0.5,
    torch.float32: torch.finfo(torch.float32).tiny,
    torch.bfloat16: torch.finfo(torch.bfloat16).tiny,
}

Product = Callable[[Tensor], Tensor]


class NotFiniteError(NumericsError):
    """A product with NaN or infinity in it. `svd` turns it into a result with status "failed"."""


class Products:
    """Products with one matrix J of shape (n, m), or with a batch of B such matrices; directions are rows.

    Args:
        shape: (n, m).
        push: J v for each direction: [B, K, m] -> [B, K, n].
        pull: J^T u for each direction: [B, K, n] -> [B, K, m].
        batch: B.
        dtype: dtype of directions and products.
        device: Where they are.
        precision: Name under which products are counted.
        chunk: How many directions go together well.
        cheaper: Makes the same with products in a given precision, or None where that is impossible.
        release: Frees what products keep between calls.
        counts: Where to count; shared with what is derived from this object.
        given: The matrix itself, where the caller has it.
        epsilon: Machine epsilon of the map itself, where parts of it are computed in less than ``precision``.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        push: Product,
        pull: Product,
        *,
        batch: int = 1,
        dtype: torch.dtype,
        device: torch.device,
        precision: str,
        chunk: Callable[[int], int] = lambda count: min(count, 64),
        cheaper: Callable[[str], Products] | None = None,
        release: Callable[[], None] = lambda: None,
        counts: Counter[str] | None = None,
        given: Tensor | None = None,
        epsilon: float = 0.0,
    ) -> None:
        self.shape = shape
        self.batch = batch
        self.dtype = dtype
        self.device = device
        self.precision = precision
        self.counts: Counter[str] = Counter() if counts is None else counts
        self.chunk = chunk
        self.release = release
        self.given = given
        self.epsilon = epsilon
        self._push, self._pull, self._cheaper = push, pull, cheaper

    def push(self, tangents: Tensor) -> Tensor:
        """J v: [B, K, m] -> [B, K, n].

        Raises:
            NotFiniteError: The product holds NaN or infinity.
        """
        return self._checked(self._push(tangents.to(self.dtype)), "J v", tangents)

    def pull(self, cotangents: Tensor) -> Tensor:
        """J^T u: [B, K, n] -> [B, K, m].

        Raises:
            NotFiniteError: The product holds NaN or infinity.
        """
        return self._checked(self._pull(cotangents.to(self.dtype)), "J^T u", cotangents)

    @property
    def transposed(self) -> Products:
        """The same with J^T."""
        cheaper = self._cheaper
        n, m = self.shape
        return Products(
            (m, n),
            self._pull,
            self._push,
            batch=self.batch,
            dtype=self.dtype,
            device=self.device,
            precision=self.precision,
            chunk=self.chunk,
            cheaper=None if cheaper is None else lambda precision: cheaper(precision).transposed,
            release=self.release,
            counts=self.counts,
            given=None if self.given is None else self.given.T,
            epsilon=self.epsilon,
        )

    @property
    def has_float64(self) -> bool:
        """Whether its products can be held against float64: not where a matrix was given, which is its own truth."""
        return self._cheaper is not None and self.given is None

    @property
    def resolution(self) -> float:
        """Relative to s_1, below what singular values are roundoff of products."""
        return max(_RESOLUTION[name] for name in (self.precision, *self._coarser()))

    def floor(self, largest: Tensor) -> Tensor:
        """What of a singular value is roundoff, where the largest is s_1: the resolution, and where that underflows."""
        return (self.resolution * largest).clamp_min(self.underflow)

    @property
    def underflow(self) -> float:
        """Below this, products lose their digits, or the squares in their lengths are zero."""
        return _UNDERFLOW[self.dtype]

    @property
    def described(self) -> str:
        """The precision in words."""
        return f"{self.precision} with {' and '.join(self._coarser())} inside" if self._coarser() else self.precision

    def _coarser(self) -> list[str]:
        """The precision that parts of the map are computed in, where that is less than that of the products."""
        own = _EPSILON.get(self.precision, _EPSILON["fp32"])
        if self.epsilon <= own:
            return []
        return [next((name for name, eps in _EPSILON.items() if self.epsilon <= eps), "bf16")]

    @property
    def kept_dtype(self) -> torch.dtype:
        """In what products are kept: that of directions, but float32 for bfloat16."""
        return torch.float32 if self.dtype == torch.bfloat16 else self.dtype

    def in_precision(self, precision: str) -> Products:
        """The same matrix with products in another precision, counted together with these.

        Raises:
            UsageError: It has only one.
        """
        if self._cheaper is None:
            raise UsageError(
                f"this operator has no products in {precision}",
                expected="a JacobianOperator or a dense float32 matrix",
                hint="leave precision out",
            )
        other = self._cheaper(precision)
        other.counts = self.counts
        return other

    def rows(self, into: Tensor) -> None:
        """Write J itself, [B, n, m]: n products with J^T."""
        n = self.shape[0]
        for start in range(0, n, step := max(1, self.chunk(n))):
            stop = min(start + step, n)
            basis = torch.zeros(stop - start, n, dtype=self.dtype, device=self.device)
            basis[:, start:stop].fill_diagonal_(1)
            into[:, start:stop] = self.pull(basis.expand(self.batch, -1, -1)).to(into.device)

    def check_adjoint(self, left: Tensor, right: Tensor, scale: Tensor) -> None:
        """Refuse an operator whose transpose is not its transpose: <J v, u> against <v, J^T u>.

        Raises:
            UsageError: They differ by more than roundoff explains.
        """
        off = (left - right).abs()
        off = torch.where(off > self.underflow * max(self.shape), off, 0.0)
        gap = float((off / scale.clamp_min(torch.finfo(torch.float64).tiny)).max())
        if gap > max(_ADJOINT_GAP[name] for name in (self.precision, *self._coarser())):
            raise UsageError(
                "the operator's products with J and with J^T do not belong to one matrix",
                expected="<J v, u> = <v, J^T u> for random u and v",
                got=f"a difference of {gap:.1e} relative to |J^T u| |v|",
                hint="correct jvp / vjp, or matvec / rmatvec; equivengine.testing.assert_operator_matches tells more",
            )

    def _checked(self, product: Tensor, name: str, directions: Tensor) -> Tensor:
        self.counts[self.precision] += directions.shape[1]
        if not bool(torch.isfinite(product).all()):
            raise NotFiniteError(f"a product {name} holds NaN or infinity", hint="check the weights and the input")
        return product


def products_of(operator: Any) -> tuple[Products, bool]:
    """Take an operator as `Products`, and whether it is a batch.

    Args:
        operator: A dense tensor [n, m]; a `JacobianOperator`; or anything with ``shape`` and either ``jvp`` and ``vjp``
            of flat directions, or ``@`` and ``.T @``.

    Raises:
        UsageError: It is none of these, or complex.
    """
    if isinstance(operator, np.ndarray):
        operator = torch.from_numpy(operator)
    if isinstance(operator, Tensor):
        return _of_dense(operator), False
    shape = getattr(operator, "shape", None)
    if shape is None or len(shape) != 2:
        raise UsageError(
            "svd needs a matrix or an operator with a shape (n, m)", got=f"{type(operator).__name__} of shape {shape}"
        )
    if "complex" in str(getattr(operator, "dtype", "")):
        raise UsageError("svd needs a real operator", got=operator.dtype)
    if hasattr(operator, "jvp") and hasattr(operator, "vjp"):
        if hasattr(operator, "x") and hasattr(operator, "value"):
            return _of_jacobian(operator), bool(operator.batched)
        return _of_callables(operator), False
    if hasattr(operator, "__matmul__") and hasattr(operator, "T"):
        return _of_flat(operator), False
    raise UsageError(
        "svd cannot multiply with this operator",
        expected="jvp and vjp, or @ and .T @",
        got=type(operator).__name__,
    )


def _of_dense(matrix: Tensor) -> Products:
    if matrix.dim() != 2:
        raise UsageError("svd needs a matrix", expected="[n, m]", got=list(matrix.shape))
    if matrix.dtype not in (torch.float32, torch.float64):
        raise UsageError("svd needs float32 or float64", got=matrix.dtype)
    matrix = matrix.detach()

    def at(dtype: torch.dtype, name: str) -> Products:
        here = matrix.to(dtype)
        return Products(
            (int(matrix.shape[0]), int(matrix.shape[1])),
            lambda v: v @ here.T,
            lambda u: u @ here,
            dtype=dtype,
            device=matrix.device,
            precision=name,
            cheaper=at_precision,
            given=here if dtype != torch.bfloat16 else None,
        )

    def at_precision(precision: str) -> Products:
        if precision not in _DENSE:
            raise UsageError("unknown precision of a dense matrix", expected=" or ".join(_DENSE), got=precision)
        return at(_DENSE[precision], precision)

    return at(matrix.dtype, "fp32" if matrix.dtype == torch.float32 else "fp64")


def _of_jacobian(operator: Any) -> Products:
    """Directions of a `JacobianOperator` have the input's shape, and the batch after K."""
    batched = bool(operator.batched)
    batch = int(operator.x.shape[0]) if batched else 1
    n, m = operator.shape
    inputs = operator.x.shape[1:] if batched else operator.x.shape

    def push(tangents: Tensor) -> Tensor:
        rows = tangents.movedim(1, 0)
        out = operator.jvp(rows.reshape(-1, batch, *inputs) if batched else rows[:, 0].reshape(-1, *inputs))
        return out.reshape(-1, batch, n).movedim(0, 1)

    def pull(cotangents: Tensor) -> Tensor:
        rows = cotangents.movedim(1, 0)
        out = operator.vjp(rows if batched else rows[:, 0])
        return out.reshape(-1, batch, m).movedim(0, 1)

    return Products(
        (n, m),
        push,
        pull,
        batch=batch,
        # bf16 is the precision of tangents inside; what goes in and comes out has the primal's dtype.
        dtype=operator.dtype,
        device=operator.x.device,
        precision=operator.precision,
        chunk=operator.chunk,
        cheaper=lambda precision: _of_jacobian(operator.in_precision(precision)),
        release=operator.release,
        epsilon=getattr(operator, "epsilon", 0.0),
    )


def _of_callables(operator: Any) -> Products:
    n, m = (int(size) for size in operator.shape)
    dtype = getattr(operator, "dtype", torch.float32)
    return Products(
        (n, m),
        lambda v: operator.jvp(v[0])[None],
        lambda u: operator.vjp(u[0])[None],
        dtype=dtype,
        device=torch.device(getattr(operator, "device", "cpu")),
        precision="fp64" if dtype == torch.float64 else "fp32",
    )


def _of_flat(operator: Any) -> Products:
    """``A @ X`` and ``A.T @ X`` with columns; of torch tensors, or of NumPy arrays where ``dtype`` is NumPy's."""
    n, m = (int(size) for size in operator.shape)
    given = getattr(operator, "dtype", None)
    speaks_torch = isinstance(given, torch.dtype)
    dtype = torch.float32 if given in (torch.float32, np.float32) else torch.float64
    adjoint = operator.T

    def product(matrix: Any) -> Product:
        def times(rows: Tensor) -> Tensor:
            columns = rows[0].T
            if speaks_torch:
                return (matrix @ columns).T[None]
            return torch.from_numpy(np.ascontiguousarray(np.asarray(matrix @ columns.numpy(force=True)).T))[None]

        return times

    return Products(
        (n, m),
        product(operator),
        product(adjoint),
        dtype=dtype,
        device=torch.device(getattr(operator, "device", "cpu")) if speaks_torch else torch.device("cpu"),
        precision="fp64" if dtype == torch.float64 else "fp32",
    )
