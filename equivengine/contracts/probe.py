"""What a probe plugin implements. Importing this costs pydantic, not torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from equivengine.contracts.result import ProbeResult

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from equivengine.contracts.encoder import Encoder
    from equivengine.jacobian import JacobianOperator

Arity = Literal["one", "pair", "set"]
ARITIES: tuple[Arity, ...] = ("one", "pair", "set")


class Params(BaseModel):
    """Base of a probe's parameters. Every field carries a description; put the unit into it.

    Unknown keys and NaN are refused, so that ``--set`` catches typing errors.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


P = TypeVar("P", bound=Params)


@dataclass(frozen=True)
class ProbeTask(Generic[P]):
    """All that a probe gets to see of one unit.

    Attributes:
        encoder: The encoder, on its device, float32.
        samples: Preprocessed inputs, each float32 [*input_shape], on the encoder's device. One for arity "one",
            (original, target) for "pair", all for "set".
        params: The probe's validated parameters.
        seed: The unit's seed.
        precision: ``"fp32"`` or ``"fp64"``: what the user asked for.
        sample_ids: Short names of the samples.
        sample_digests: sha256 of each sample's content.
    """

    encoder: Encoder
    samples: Sequence[torch.Tensor]
    params: P
    seed: int
    precision: Literal["fp32", "fp64"] = "fp32"
    sample_ids: Sequence[str] = ()
    sample_digests: Sequence[str] = ()

    def jacobian(self, x: torch.Tensor, *, precision: str | None = None, reverse: bool = False) -> JacobianOperator:
        """The Jacobian operator of the encoder at x ([*input_shape], or a batch [B, *input_shape]).

        Pass ``reverse=True`` where one `vjp` at x follows: f(x) is then evaluated once for both.
        """
        from equivengine.jacobian import JacobianOperator

        return JacobianOperator(self.encoder, x, precision=precision or self.precision, reverse=reverse)

    def stream(self, name: str) -> int:
        """A 63-bit key for the random stream ``name``: a function of the seed, the first sample and the name alone.

        So it depends neither on call order nor on precision, and different images get independent directions.
        """
        first = self.sample_digests[0] if self.sample_digests else ""
        digest = hashlib.sha256(f"{self.seed}/{first}/{name}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1


class Probe(Generic[P]):
    """One measurement. Subclass it, set the attributes, implement `run`.

    Attributes:
        name: What ``--plugin`` takes.
        version: Part of every unit's identity; raise it when results would change.
        summary: One line for ``equivengine ls probes``.
        arity: How many samples one unit takes: "one", "pair" (original, target) or "set" (all of them). Where that
            depends on parameters, this is what the default ones mean, and `arity_of` says the rest.
        Params: Its parameters, a subclass of `Params`.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    summary: ClassVar[str] = ""
    arity: ClassVar[Arity] = "one"
    Params: ClassVar[type[Any]] = Params

    @classmethod
    def arity_of(cls, params: P) -> Arity:
        """How many samples one unit takes with these parameters: `arity`, unless a probe says otherwise.

        Plans are made with it, before any model is asked: it must be a function of ``params`` alone.
        """
        return cls.arity

    def run(self, task: ProbeTask[P]) -> ProbeResult:
        """Measure. Raise `EngineError` with advice where that is impossible; other exceptions fail the unit too."""
        raise NotImplementedError

    def figures(self, result: Mapping[str, Any]) -> Mapping[str, Figure]:
        """Figures for a report, by title. The default draws none; the report then plots stored arrays itself."""
        return {}
