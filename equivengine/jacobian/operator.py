"""JacobianOperator: products with the Jacobian of an encoder and with its transpose, many directions at a time."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator

import torch

from equivengine.errors import ModelError, NumericsError, UsageError
from equivengine.jacobian.function import applied, at_precision, explained, is_batched, narrowed, require_unchanged
from equivengine.linearize import ARITHMETICS, Derivative, NotLinearizable
from equivengine.ops import record
from equivengine.ops.forward_grad import stopped_by_no_grad
from equivengine.ops.memory import forward_mode_bytes, free_bytes
from equivengine.ops.narrowing import Narrowing, epsilon_of
from equivengine.ops.precision import DTYPES, ieee_float32
from equivengine.ops.substitute import batch_norm_written_out, substituted
from equivengine.ops.versions import of_parameters

#: On a CPU, passes whose tensors outgrow the last-level cache are slower: see `bench/chunk_size.py`.
_CACHE_BYTES = 64 << 20

#: What a pass takes above the tangents that its program counts: workspaces, and temporaries of PyTorch's own rules.
_MARGIN = 1.5


class JacobianOperator:
    """The linear map J = df/dx at x, of shape (n, m), never formed unless asked.

    The first product runs f once at x and keeps its derivative as a program (`equivengine.linearize`), which all
    directions go through together, in either mode: also on models whose fused attention PyTorch cannot differentiate
    forward. Units: embedding per input unit; for encoders, per pixel in [0, 1].

    Args:
        f: An `equivengine.Encoder`, or any callable [B, *input_shape] -> [B, n]. It must stay as it is for as long as
            the operator is used.
        x: One input [*input_shape], or a batch [B, *input_shape] of independent inputs.
        precision: ``"fp32"`` (IEEE, TF32 off), ``"fp64"`` (of a module a copy, kept until its weights change), or an
            fp32 primal with tangents in ``"bf16"``, or on CUDA devices with products in ``"tf32"`` or ``"tf32x3"``
            (split operands: TF32 tensor cores at fp32 accuracy).
        batched: Whether the first axis of x is a batch. Known for encoders; False otherwise.
        chunk_size: Directions per pass; chosen from ``memory_budget`` when None.
        memory_budget: Bytes that a pass may use above the model and its saved primal; when None a quarter of what is
            free, on a CPU no more than its cache likes.
        reverse: Evaluate f(x) so that a `vjp` of one cotangent need not do it again, at the price of keeping every
            layer's input. Pays in gradient descent.

    Raises:
        UsageError: If x, precision or a size makes no sense.
        ModelError: If f cannot be evaluated or differentiated.
        NumericsError: If f(x) holds NaN or infinity.
    """

    def __init__(
        self,
        f: Callable[[torch.Tensor], torch.Tensor],
        x: torch.Tensor,
        *,
        precision: str = "fp32",
        batched: bool | None = None,
        chunk_size: int | None = None,
        memory_budget: int | None = None,
        reverse: bool = False,
    ) -> None:
        if precision not in DTYPES:
            raise UsageError("unknown precision", expected=" or ".join(DTYPES), got=repr(precision))
        if not x.is_floating_point():
            raise UsageError("x must be a floating-point tensor", got=x.dtype)
        if chunk_size is not None and chunk_size < 1:
            raise UsageError("chunk_size must be at least 1", got=chunk_size)
        if memory_budget is not None and memory_budget < 1:
            raise UsageError("memory_budget must be positive", expected="bytes", got=memory_budget)
        if precision.startswith("tf32") and x.device.type != "cuda":
            raise UsageError(
                f"precision {precision} needs tensor cores",
                expected="x on a CUDA device",
                got=x.device,
                hint="use fp32",
            )
        self.precision = precision
        self.dtype = DTYPES[precision]
        self.batched = is_batched(f, x, batched)
        self.x = x.detach().to(self.dtype).contiguous()
        self._f = at_precision(f, precision)
        self._chunk_size = chunk_size
        self._memory_budget = memory_budget
        self._model, self._batched = f, batched
        self._versions = of_parameters(f)
        # Not a bound method: what keeps it would keep this operator, and be freed by the garbage collector only.
        self._apply = functools.partial(applied, self._f, self.batched)
        self._kept: Derivative | None = None  # for many directions
        self._graph: tuple[torch.Tensor, torch.Tensor] | None = None  # x and f(x) of torch.autograd, for one
        if reverse:
            value = self._traced()[1]
        else:
            with torch.no_grad(), self._execution():
                value = self._apply(self.x.clone())  # f may change its input in place
        if value.dtype != self.dtype:
            raise ModelError("f changes the dtype of its input", expected=self.dtype, got=value.dtype)
        if not bool(torch.isfinite(value).all()):
            raise NumericsError(
                "the embedding holds NaN or infinity",
                expected="finite values",
                got=f"{int((~torch.isfinite(value)).sum())} of {value.numel()} are not",
                hint="check the weights, and that x lies in the model's input range",
            )
        #: Embedding at x: [n], or [B, n] for a batch.
        self.value = value.detach()

    # -- shape --------------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """(n, m): embedding dimension and number of coordinates of one input."""
        inputs = self.x.shape[1:] if self.batched else self.x.shape
        return int(self.value.shape[-1]), math.prod(inputs)

    def chunk(self, directions: int) -> int:
        """How many of ``directions`` go through one pass within the memory budget."""
        if self._chunk_size is not None:
            return min(self._chunk_size, max(directions, 1))
        if directions <= 1:
            return 1
        fitting = self._fitting(self.bytes_per_direction())
        if fitting >= directions:
            return directions
        return math.ceil(directions / math.ceil(directions / fitting))  # equal chunks: no small last one

    def bytes_per_direction(self) -> int:
        """Memory that a pass needs for each direction, with a margin; the model and its saved primal not counted."""
        with explained("reverse"):
            return int(_MARGIN * self._derivative().bytes_per_direction)

    def in_precision(self, precision: str) -> JacobianOperator:
        """The Jacobian of the same model at the same x in another precision; it keeps a forward pass of its own.

        Raises:
            UsageError: The precision is unknown, or this device or model has none such.
        """
        return JacobianOperator(
            self._model,
            self.x,
            precision=precision,
            batched=self._batched,
            chunk_size=self._chunk_size,
            memory_budget=self._memory_budget,
        )

    @functools.cached_property
    def narrowed(self) -> tuple[Narrowing, ...]:
        """Where f computes in less than the primal's precision, which its output does not show."""
        return narrowed(self._f, self._apply, self.x.clone())

    @property
    def epsilon(self) -> float:
        """Machine epsilon of f and its primal: of their dtype, or of the narrowest place that f passes."""
        return epsilon_of(self.dtype, self.narrowed)

    # -- products -----------------------------------------------------------------------------------------------------

    def jvp(self, tangents: torch.Tensor) -> torch.Tensor:
        """J v for each tangent.

        Args:
            tangents: V, [K, *x.shape].

        Returns:
            [K, *value.shape].

        Raises:
            UsageError: If the shape is wrong.
            ModelError: If f cannot be differentiated.
        """
        tangents = self._directions(tangents, self.x.shape, "tangents")
        out = self.value.new_empty((len(tangents), *self.value.shape))
        with explained("forward"):
            derivative = self._derivative()
            for part, into in zip(*(t.split(self.chunk(len(tangents))) for t in (tangents, out)), strict=True):
                into[:] = derivative.push(part)
        return out

    def vjp(self, cotangents: torch.Tensor) -> torch.Tensor:
        """J^T u for each cotangent. The forward pass is made once and kept until `release`.

        Args:
            cotangents: U, [K, *value.shape].

        Returns:
            [K, *x.shape].

        Raises:
            UsageError: If the shape is wrong.
            ModelError: If f cannot be differentiated.
        """
        cotangents = self._directions(cotangents, self.value.shape, "cotangents")
        if len(cotangents) == 1 and self._kept is None and self.precision in ("fp32", "fp64"):
            return self._vjp_of_one(cotangents[0])[None]
        out = self.x.new_empty((len(cotangents), *self.x.shape))
        with explained("reverse"):
            derivative = self._derivative()
            for part, into in zip(*(t.split(self.chunk(len(cotangents))) for t in (cotangents, out)), strict=True):
                into[:] = derivative.pull(part)
        return out

    def coverage(self) -> dict[str, dict[str, int]]:
        """For each operation of the model how often its derivative is evaluated by which rule.

        Rules: a compiled kernel (``cpu-avx512``, ``cuda``, ...) or its ``reference`` formula; ``matrix product`` and
        ``convolution``, one for all directions; ``folded`` (a linear operation of PyTorch, all directions as one
        batch); ``shared`` (a factor of the primal, computed once); ``view`` and ``copy``; and ``torch``, PyTorch's own
        rule for one operation, vectorized. A model that cannot be traced has one entry that says why.
        """
        with explained("reverse"):
            return self._derivative().coverage()

    def along(
        self, points: torch.Tensor, tangents: torch.Tensor, *, together: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Evaluate f and its directional derivative at other points, one direction for each point.

        Args:
            points: z, [B, *input_shape].
            tangents: d, [B, *input_shape].
            together: How many consecutive points must share one pass. Roundoff depends on the size of a batch, so the
                points of a difference quotient belong into one.

        Returns:
            f(z) and J(z) d, both [B, n].

        Raises:
            UsageError: If shapes are wrong.
            ModelError: If f cannot be differentiated.
        """
        require_unchanged(self._model, self._versions)
        shape = self.x.shape[1:] if self.batched else self.x.shape
        points = self._directions(points, shape, "points")
        tangents = self._directions(tangents, shape, "tangents")
        if len(points) != len(tangents):
            raise UsageError("one tangent for each point", expected=len(points), got=len(tangents))
        if together < 1 or len(points) % together:
            raise UsageError(
                "together must divide the number of points", expected=f"a divisor of {len(points)}", got=together
            )
        values = self.value.new_empty((len(points), self.shape[0]))
        derivatives = torch.empty_like(values)
        # A point costs a primal and a tangent: as much as two directions.
        size = self._chunk_size or self._fitting(self._bytes_per_point)
        size = max(1, size // 2)
        size = max(together, size - size % together)
        everything = (points, tangents, values, derivatives)
        with stopped_by_no_grad(), self._execution(), explained("forward"):
            for z, d, y, dy in zip(*(t.split(size) for t in everything), strict=True):
                # Clones: f may change its input in place.
                value, derivative = torch.func.jvp(self._f, (z.clone(),), (d.clone(),))[:2]
                y[:], dy[:] = value.detach(), derivative.detach()
        return values, derivatives

    def release(self) -> None:
        """Free the forward pass that products keep. The next product makes it again."""
        self._kept = self._graph = None

    def dense(self) -> torch.Tensor:
        """J itself, [n, m] (or [B, n, m]): n VJPs, or m JVPs where m is smaller."""
        n, m = self.shape
        batch = self.x.shape[:1] if self.batched else ()
        matrix = self.x.new_empty((*batch, n, m))
        by_rows = n <= m
        count = n if by_rows else m
        for start in range(0, count, step := self.chunk(count)):
            stop = min(start + step, count)
            basis = torch.zeros(stop - start, count, dtype=self.dtype, device=self.x.device)
            basis[:, start:stop].fill_diagonal_(1)
            if by_rows:
                unit = basis[:, None].expand(-1, *batch, n) if batch else basis
                rows = self.vjp(unit).reshape(stop - start, *batch, m)
                matrix[..., start:stop, :] = rows.movedim(0, -2)
            else:
                shape = self.x.shape[1:] if batch else self.x.shape
                tangents = basis.reshape(stop - start, *(1 for _ in batch), *shape).expand(-1, *batch, *shape)
                matrix[..., :, start:stop] = self.jvp(tangents).movedim(0, -1)
        self.release()
        return matrix

    # -- as a matrix --------------------------------------------------------------------------------------------------

    def __matmul__(self, other: torch.Tensor) -> torch.Tensor:
        """J @ v with v [m] or [m, K]."""
        return self._flat(other, self.shape[1], self.jvp, self.x.shape)

    @property
    def T(self) -> AdjointOperator:
        """The transpose, for ``J.T @ u`` with u [n] or [n, K]."""
        return AdjointOperator(self)

    def _flat(
        self,
        other: torch.Tensor,
        length: int,
        product: Callable[[torch.Tensor], torch.Tensor],
        shape: torch.Size,
    ) -> torch.Tensor:
        if self.batched:
            raise UsageError("a batch of Jacobians is not one matrix", hint="use jvp and vjp, or one input at a time")
        if other.dim() not in (1, 2) or other.shape[0] != length:
            raise UsageError("shapes do not fit", expected=f"[{length}] or [{length}, K]", got=list(other.shape))
        columns = other if other.dim() == 2 else other[:, None]
        out = product(columns.T.reshape(-1, *shape)).flatten(1).T
        return out if other.dim() == 2 else out[:, 0]

    # -- inside -------------------------------------------------------------------------------------------------------

    def _vjp_of_one(self, cotangent: torch.Tensor) -> torch.Tensor:
        """J^T u by torch.autograd and PyTorch's own operations.

        With one cotangent there is nothing to share, and on a small model the way through `torch.func` and the
        substitution costs more than the arithmetic.
        """
        require_unchanged(self._model, self._versions)
        x, value = self._traced()
        record.note("vjp_of_one", "torch")
        with ieee_float32(), explained("reverse"):
            (gradient,) = torch.autograd.grad(value, x, cotangent, retain_graph=True, materialize_grads=True)
        return gradient

    def _traced(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Input and f(x), with the graph between them."""
        if self._graph is None:
            with torch.enable_grad(), ieee_float32(), batch_norm_written_out(), explained("reverse"):
                x = self.x.clone().requires_grad_(True)
                self._graph = x, self._apply(x.clone())  # f may change its input in place, which a leaf does not allow
        return self._graph

    def _derivative(self) -> Derivative:
        require_unchanged(self._model, self._versions)
        if self._kept is None:
            try:
                self._kept = Derivative(self._apply, self.x, ARITHMETICS[self.precision], self._model)
            except NotLinearizable as error:
                raise ModelError(
                    f"the model cannot be differentiated in {self.precision}", got=str(error), hint="use precision fp32"
                ) from error
        return self._kept

    def _fitting(self, bytes_each: int) -> int:
        """How many directions or points fit into one pass."""
        budget = self._memory_budget
        if budget is None:
            budget = free_bytes(self.x.device) // 4
            if self.x.device.type == "cpu":
                budget = min(budget, _CACHE_BYTES)
        return max(1, budget // bytes_each)

    @functools.cached_property
    def _bytes_per_point(self) -> int:
        """What one point and its tangent take in `along`; costs one forward pass."""
        point = self.x[:1] if self.batched else self.x.unsqueeze(0)
        with torch.no_grad(), self._execution():
            return forward_mode_bytes(self._f, point.clone())

    @contextlib.contextmanager
    def _execution(self) -> Iterator[None]:
        with ieee_float32(), substituted():
            yield

    def _directions(self, given: torch.Tensor, shape: torch.Size, name: str) -> torch.Tensor:
        if given.shape[1:] != shape or given.dim() != len(shape) + 1:
            raise UsageError(
                f"{name} have a wrong shape",
                expected=f"[K, {', '.join(map(str, shape))}]",
                got=list(given.shape),
            )
        # Contiguous: forward mode lays a tangent out like its primal, which fails where strides are zero (`expand`).
        return given.detach().to(dtype=self.dtype, device=self.x.device).contiguous()


class AdjointOperator:
    """J^T as a matrix of shape (m, n); made by ``J.T``."""

    def __init__(self, operator: JacobianOperator) -> None:
        self._operator = operator

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        n, m = self._operator.shape
        return m, n

    @property
    def T(self) -> JacobianOperator:
        """J."""
        return self._operator

    def __matmul__(self, other: torch.Tensor) -> torch.Tensor:
        """J^T @ u with u [n] or [n, K]."""
        op = self._operator
        return op._flat(other, op.shape[0], op.vjp, op.value.shape)
