"""What is solved: find z with f(z) = target, for a batch of pairs at once, with every evaluation counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from equivengine.errors import ModelError, NumericsError, UsageError
from equivengine.jacobian import JacobianOperator
from equivengine.jacobian.function import applied, at_precision, explained
from equivengine.ops.precision import DTYPES, ieee_float32

#: Inputs that are evaluated in one pass.
TOGETHER = 32


@dataclass(frozen=True)
class Cost:
    """What was spent on each of B pairs.

    Attributes:
        forwards: Forward passes, [B].
        products: Products with J or J^T of one direction, [B].
    """

    forwards: torch.Tensor
    products: torch.Tensor

    @property
    def equivalents(self) -> torch.Tensor:
        """Forward-pass equivalents, [B]: a product counts as one forward pass.

        That is what a product costs when many directions share a pass; one direction alone, as in gradient descent,
        takes 1.3 to 2 passes, so comparisons by this number favor gradient descent.
        """
        return self.forwards + self.products


class Problem:
    """f(z) - target for B pairs, in the run's precision; points and residuals are float64.

    Args:
        f: An encoder, or any callable [B, *input_shape] -> [B, n].
        origin: Originals [B, *input_shape].
        target: Target embeddings [B, n].
        precision: ``"fp32"`` or ``"fp64"``: arithmetic of f. Points are rounded to its dtype before f sees them.

    Raises:
        UsageError: If shapes, dtypes or the precision make no sense.
        NumericsError: If a target is not finite.
    """

    def __init__(
        self,
        f: Callable[[torch.Tensor], torch.Tensor],
        origin: torch.Tensor,
        target: torch.Tensor,
        precision: str = "fp32",
    ) -> None:
        if precision not in ("fp32", "fp64"):
            raise UsageError("unknown precision for matching", expected="fp32 or fp64", got=repr(precision))
        if origin.dim() < 2 or not origin.is_floating_point() or len(origin) == 0:
            raise UsageError(
                "originals must be a batch of inputs",
                expected="a floating-point tensor [B, *input_shape], B >= 1",
                got=f"{list(origin.shape)}, {origin.dtype}",
            )
        if target.dim() != 2 or len(target) != len(origin) or not target.is_floating_point():
            raise UsageError(
                "there must be one target embedding for each original",
                expected=f"a floating-point tensor [{len(origin)}, n]",
                got=f"{list(target.shape)}, {target.dtype}",
            )
        if not bool(torch.isfinite(target).all()):
            raise NumericsError("a target embedding holds NaN or infinity", hint="look at the target image")
        self.shape = origin.shape[1:]
        self.dtype = DTYPES[precision]
        self.precision = precision
        self.target = target.detach().to(device=origin.device, dtype=torch.float64)
        self.origin = origin.detach().to(self.dtype).flatten(1).to(torch.float64)
        self.forwards = torch.zeros(len(origin), dtype=torch.int64)
        self.products = torch.zeros(len(origin), dtype=torch.int64)
        self._f = f
        self._evaluate = at_precision(f, precision)

    def __len__(self) -> int:
        return len(self.origin)

    @property
    def n(self) -> int:
        """Length of an embedding."""
        return self.target.shape[1]

    @property
    def m(self) -> int:
        """Number of coordinates of one input."""
        return self.origin.shape[1]

    def cost(self) -> Cost:
        """What was spent so far."""
        return Cost(self.forwards.clone(), self.products.clone())

    def add(self, cost: Cost, which: torch.Tensor | slice = slice(None)) -> None:
        """Count what another solver has spent on the pairs ``which``, on all of them by default."""
        self.forwards[which] += cost.forwards
        self.products[which] += cost.products

    def part(self, which: torch.Tensor) -> Problem:
        """The problem of the pairs ``which`` [k] alone, which counts from zero."""
        part = object.__new__(Problem)
        part.__dict__.update(self.__dict__)
        part.origin, part.target = self.origin[which], self.target[which]
        part.forwards, part.products = (torch.zeros(len(which), dtype=torch.int64) for _ in range(2))
        return part

    def rounded(self, z: torch.Tensor) -> torch.Tensor:
        """Points as f sees them."""
        return z.to(self.dtype).to(torch.float64)

    def residual(self, z: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """f(z) - target, float64.

        Args:
            z: Points [k, m].
            which: Index of the pair that each belongs to, [k].

        Raises:
            UsageError: If embeddings and targets differ in length.
            ModelError: If f cannot be evaluated.
        """
        values = []
        for part in z.split(TOGETHER):
            try:
                with torch.no_grad(), ieee_float32():
                    values.append(applied(self._evaluate, True, self._inputs(part)))
            except RuntimeError as error:
                raise ModelError(
                    "f cannot be evaluated",
                    expected="an embedding [B, n] of inputs like the originals",
                    got=f"{type(error).__name__}: {error}",
                ) from error
        value = torch.cat(values).to(torch.float64)
        self.check_length(value)
        self.passed(which)
        return value - self.target[which]

    def differentiable(self, z: torch.Tensor, which: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and embeddings at points z [k, m] of the pairs ``which`` [k], for `pulled`. A forward pass each.

        Raises:
            ModelError: If f cannot be evaluated or differentiated.
        """
        with torch.enable_grad(), ieee_float32(), explained("reverse"):
            inputs = self._inputs(z).requires_grad_(True)
            value = applied(self._evaluate, True, inputs)
        self.check_length(value)
        self.passed(which)
        return inputs, value

    def pulled(self, here: tuple[torch.Tensor, torch.Tensor], v: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """J^T v of one cotangent v [k, n] for each point of `differentiable`, [k, m]; once for each evaluation.

        Args:
            here: What `differentiable` returned.
            v: Cotangents; zero where none is wanted.
            which: Pairs that pay for a product.

        Raises:
            ModelError: If f cannot be differentiated.
            NumericsError: If a derivative is not finite.
        """
        inputs, value = here
        with ieee_float32(), explained("reverse"):
            (pulled,) = torch.autograd.grad(value, inputs, v.to(value.dtype), materialize_grads=True)
        self.spent(which, 1)
        return finite(pulled).flatten(1).to(torch.float64)

    def jacobian(self, z: torch.Tensor, which: torch.Tensor) -> JacobianOperator:
        """The Jacobians at points z [k, m] of the pairs ``which`` [k]. It costs each a forward pass."""
        self.passed(which)
        return JacobianOperator(self._f, self._inputs(z), precision=self.precision, batched=True)

    def check_length(self, value: torch.Tensor) -> None:
        """Hold embeddings [k, n] to the length of the targets.

        Raises:
            UsageError: If they differ.
        """
        if value.shape[1] != self.n:
            raise UsageError("targets have another length than embeddings", expected=value.shape[1], got=self.n)

    def passed(self, which: torch.Tensor) -> None:
        """Note a forward pass of each pair of ``which`` [k]."""
        self.forwards += torch.bincount(which.cpu(), minlength=len(self))

    def spent(self, which: torch.Tensor, products: int) -> None:
        """Note ``products`` products with the Jacobian of each pair of ``which`` [k]."""
        self.products += products * torch.bincount(which.cpu(), minlength=len(self))

    def _inputs(self, z: torch.Tensor) -> torch.Tensor:
        return z.to(self.dtype).reshape(-1, *self.shape).clone()


def finite(values: torch.Tensor) -> torch.Tensor:
    """The same values.

    Raises:
        NumericsError: If one is not finite.
    """
    if not bool(torch.isfinite(values).all()):
        raise NumericsError(
            "a derivative holds NaN or infinity",
            expected="finite values",
            got=f"{int((~torch.isfinite(values)).sum())} of {values.numel()} are not",
            hint="look for a root, a logarithm or a norm of zero in the model; --precision fp64 may help",
        )
    return values
