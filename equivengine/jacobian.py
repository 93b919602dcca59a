"""JacobianOperator: products with the Jacobian of an encoder and with its transpose, many directions at a time."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import weakref
from collections.abc import Callable, Iterator

import torch
from torch import nn

from equivengine.errors import ModelError, NumericsError, UsageError
from equivengine.ops import record
from equivengine.ops.memory import WidestTensor, free_bytes
from equivengine.ops.precision import DTYPES, ieee_float32
from equivengine.ops.substitute import substituted

#: Tensors of the widest layer's size that one direction needs at a time. Measured on a ViT: 9 to 11 (the activation
#: of the widest layer has five temporaries under PyTorch's own rule); with a margin, and held by a memory test.
_LIVE_TENSORS = 12

#: On a CPU, passes whose widest tensor outgrows the last-level cache are slower: see `bench/chunk_size.py`.
_CACHE_BYTES = 24 << 20


class JacobianOperator:
    """The linear map J = df/dx at x, of shape (n, m), never formed unless asked.

    Products run through ``torch.func`` while `equivengine.ops.substituted` swaps in our ops, so forward mode works on
    models whose fused attention PyTorch cannot differentiate forward. Units: embedding per input unit; for encoders,
    per pixel in [0, 1].

    Args:
        f: An `equivengine.Encoder`, or any callable [B, *input_shape] -> [B, n].
        x: One input [*input_shape], or a batch [B, *input_shape] of independent inputs.
        precision: ``"fp32"`` (IEEE, TF32 off) or ``"fp64"`` (parameters of a module are converted once and kept).
        batched: Whether the first axis of x is a batch. Known for encoders; False otherwise.
        chunk_size: Directions per pass; chosen from ``memory_budget`` when None.
        memory_budget: Bytes that a pass may use above the model; when None a quarter of what is free, on a CPU no more
            than its cache likes.
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
        self.precision = precision
        self.dtype = DTYPES[precision]
        self.batched = _is_batched(f, x, batched)
        self.x = x.detach().to(self.dtype).contiguous()
        self._f = _at_precision(f, precision)
        self._chunk_size = chunk_size
        self._memory_budget = memory_budget
        self._pullback: Callable[[torch.Tensor], tuple[torch.Tensor]] | None = (
            None  # of torch.func, for many cotangents
        )
        self._graph: tuple[torch.Tensor, torch.Tensor] | None = None  # x and f(x) of torch.autograd, for one
        if reverse:
            value = self._traced()[1]
        else:
            with torch.no_grad(), self._execution():
                value = self._apply(self.x)
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
        budget = self._memory_budget
        if budget is None:
            budget = free_bytes(self.x.device) // 4
            if self.x.device.type == "cpu":
                budget = min(budget, _LIVE_TENSORS * _CACHE_BYTES)
        fitting = max(1, budget // (_LIVE_TENSORS * self._widest_bytes))
        if fitting >= directions:
            return directions
        return math.ceil(directions / math.ceil(directions / fitting))  # equal chunks: no small last one

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

        def push(tangent: torch.Tensor) -> torch.Tensor:
            return torch.func.jvp(self._apply, (self.x,), (tangent,))[1]

        size = self.chunk(len(tangents))
        with torch.no_grad(), self._execution(), _explained("forward"):
            for part, into in zip(tangents.split(size), out.split(size), strict=True):
                _over_directions(push, part, into)
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
        if len(cotangents) == 1:
            return self._vjp_of_one(cotangents[0])[None]
        out = self.x.new_empty((len(cotangents), *self.x.shape))
        size = self.chunk(len(cotangents))
        with self._execution(), _explained("reverse"):
            if self._pullback is None:
                self._pullback = torch.func.vjp(self._apply, self.x)[1]
            pullback = self._pullback
            for part, into in zip(cotangents.split(size), out.split(size), strict=True):
                _over_directions(lambda u: pullback(u)[0], part, into)
        return out

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
        # A point costs a primal and a tangent; a chunk of directions counts one tensor for each input of the batch.
        size = max(1, (len(self.x) if self.batched else 1) * self.chunk(2 * len(points)) // 2)
        size = max(together, size - size % together)
        everything = (points, tangents, values, derivatives)
        with torch.no_grad(), self._execution(), _explained("forward"):
            for z, d, y, dy in zip(*(t.split(size) for t in everything), strict=True):
                y[:], dy[:] = torch.func.jvp(self._f, (z,), (d,))[:2]
        return values, derivatives

    def release(self) -> None:
        """Free the forward pass that `vjp` keeps. The next vjp makes it again."""
        self._pullback = self._graph = None

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

    def _apply(self, x: torch.Tensor) -> torch.Tensor:
        y = self._f(x if self.batched else x.unsqueeze(0))
        if not isinstance(y, torch.Tensor) or y.dim() != 2:
            raise ModelError(
                "f must map [B, *input_shape] to one tensor [B, n]",
                got=list(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__,
            )
        return y if self.batched else y.squeeze(0)

    def _vjp_of_one(self, cotangent: torch.Tensor) -> torch.Tensor:
        """J^T u by torch.autograd and PyTorch's own operations.

        With one cotangent there is nothing to share, and on a small model the way through `torch.func` and the
        substitution costs more than the arithmetic.
        """
        x, value = self._traced()
        record.note("vjp_of_one", "torch")
        with ieee_float32(), _explained("reverse"):
            (gradient,) = torch.autograd.grad(value, x, cotangent, retain_graph=True, materialize_grads=True)
        return gradient

    def _traced(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Input and f(x), with the graph between them."""
        if self._graph is None:
            with torch.enable_grad(), ieee_float32(), _explained("reverse"):
                x = self.x.clone().requires_grad_(True)
                self._graph = x, self._apply(x)
        return self._graph

    @functools.cached_property
    def _widest_bytes(self) -> int:
        """Size of the largest tensor that any operation of f returns at x; costs one forward pass."""
        with WidestTensor() as widest, torch.no_grad(), self._execution():
            self._apply(self.x)
        return max(widest.bytes, self.x.numel() * self.x.element_size())

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


def _over_directions(
    product: Callable[[torch.Tensor], torch.Tensor], directions: torch.Tensor, into: torch.Tensor
) -> None:
    """into[k] = product(directions[k]), vectorised; a single direction is spared the price of vectorising."""
    if len(directions) == 1:
        into[0] = product(directions[0])
    elif len(directions):
        into[:] = torch.func.vmap(product)(directions)


_doubles: weakref.WeakKeyDictionary[nn.Module, nn.Module] = weakref.WeakKeyDictionary()


def _at_precision(f: Callable[[torch.Tensor], torch.Tensor], precision: str) -> Callable[[torch.Tensor], torch.Tensor]:
    convert = getattr(f, "at_precision", None)
    if callable(convert):
        return convert(precision)
    if not isinstance(f, nn.Module):
        return f
    first = next((p for p in f.parameters() if p.is_floating_point()), None)
    if first is None or first.dtype == DTYPES[precision]:
        return f
    if precision == "fp32":
        raise UsageError(
            "the module's parameters are not float32",
            expected=torch.float32,
            got=first.dtype,
            hint="convert it with .float(), or pass precision='fp64'",
        )
    if f not in _doubles:
        _doubles[f] = copy.deepcopy(f).to(torch.float64)
    return _doubles[f]


def _is_batched(f: object, x: torch.Tensor, batched: bool | None) -> bool:
    shape = getattr(f, "input_shape", None)
    if shape is None:
        return bool(batched)
    found = x.dim() == len(shape) + 1
    if tuple(x.shape[1:] if found else x.shape) != tuple(shape):
        raise UsageError(
            "x does not fit the encoder",
            expected=f"{list(shape)} or [B, {', '.join(map(str, shape))}]",
            got=list(x.shape),
        )
    if batched is not None and batched != found:
        raise UsageError("batched contradicts the shape of x", expected=found, got=batched)
    return found


@contextlib.contextmanager
def _explained(mode: str) -> Iterator[None]:
    """Say in words why a third-party model cannot be differentiated."""
    try:
        yield
    except (RuntimeError, NotImplementedError, TypeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise NumericsError(
                "a pass over the model does not fit into memory",
                got=str(error).split("\n")[0],
                hint="pass a smaller chunk_size or memory_budget",
            ) from error
        raise ModelError(
            f"the model cannot be differentiated in {mode} mode",
            got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else error}",
            hint="look for in-place changes of buffers, .numpy(), .item() or data-dependent branches in its forward",
        ) from error
