"""What a probe plugin implements. Importing this costs pydantic, not torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from equivengine.contracts.result import ProbeResult, Scalar

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from equivengine.contracts.encoder import Encoder
    from equivengine.contracts.unit import Unit
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
        labels: Class of each sample, None where it is not known; all None unless the probe is `labelled`.
        references: Preprocessed inputs, float32 [R, *input_shape], on the encoder's device: the population that
            distances are held against, R as `Probe.references_of` asks for, or as many as the set holds; [0, ...] if it
            asks for none. They are drawn from the whole set, so the samples may be among them (see the digests). All
            units of a process share the tensor: do not write to it.
        reference_labels: As ``labels``, for the references.
        reference_digests: sha256 of each reference's content.
    """

    encoder: Encoder
    samples: Sequence[torch.Tensor]
    params: P
    seed: int
    precision: Literal["fp32", "fp64"] = "fp32"
    sample_ids: Sequence[str] = ()
    sample_digests: Sequence[str] = ()
    labels: Sequence[str | None] = ()
    references: torch.Tensor = None  # type: ignore[assignment]  # none given: made empty below
    reference_labels: Sequence[str | None] = ()
    reference_digests: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.references is None:
            object.__setattr__(self, "references", self.samples[0].new_empty((0, *self.samples[0].shape)))

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
        labelled: Whether it reads the labels of samples and references. They are then part of a unit's identity.
        Params: Its parameters, a subclass of `Params`.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    summary: ClassVar[str] = ""
    arity: ClassVar[Arity] = "one"
    labelled: ClassVar[bool] = False
    Params: ClassVar[type[Any]] = Params

    @classmethod
    def arity_of(cls, params: P) -> Arity:
        """How many samples one unit takes with these parameters: `arity`, unless a probe says otherwise.

        Plans are made with it, before any model is asked: it must be a function of ``params`` alone.
        """
        return cls.arity

    @classmethod
    def batch_of(cls, params: P) -> int:
        """How many units may share one call of `run_batch`, at least 1; 1 means that `run` is called for each unit.

        Plans are made with it: it must be a function of ``params`` alone. A plan cuts the units that differ in their
        samples alone into batches of nearly equal size, none larger than this. A batch is always computed in full,
        also where some of its units are published already, so that a resumed run gives what an undisturbed one gives.
        """
        return 1

    @classmethod
    def references_of(cls, params: P) -> int:
        """How many images each unit is to be held against (`ProbeTask.references`); 0 for none.

        They are drawn strictly at random, without replacement, from the whole target image set (from the image set
        where none is named), as a function of the run's seed alone. A smaller set gives fewer; to a single target the
        others are drawn from the image set. It must be a function of ``params`` alone.
        """
        return 0

    @classmethod
    def headlines(cls, params: P) -> Mapping[str, str]:
        """The few scalars that stand for a model where there are many: name in the summary, and a short title for it.

        Leaderboards have a column for each; reports and comparisons show how they are distributed over units. Name what
        compares between models: ratios, ranks and shares, not lengths in an embedding, whose scale is the model's own.
        It must be a function of ``params`` alone; a scalar that a unit lacks leaves its place empty. The default names
        none.
        """
        return {}

    def run(self, task: ProbeTask[P]) -> ProbeResult:
        """Measure. Raise `EngineError` with advice where that is impossible; other exceptions fail the unit too."""
        raise NotImplementedError

    def run_batch(self, tasks: Sequence[ProbeTask[P]]) -> Sequence[ProbeResult]:
        """Measure several units in one call; called instead of `run` where `batch_of` is more than 1.

        Args:
            tasks: One for each unit: 1 to ``batch_of(params)`` of them, with equal params, seed, precision and
                references. Units whose samples could not be read are left out.

        Returns:
            One result for each task, in order. Where one unit cannot be measured, give it
            ``ProbeResult(status="failed", message=...)``: an exception fails all units of the batch.
        """
        return [self.run(task) for task in tasks]

    def findings(self, summary: Mapping[str, Scalar], params: P) -> Sequence[str]:
        """What a reader should take away, in one to three plain sentences with numbers, for the top of a report.

        Called at report time for the published units of one model and one set of parameters. The default says
        nothing; the report then names the first scalars itself.

        Args:
            summary: The scalars of the one unit; over units their medians, ``interval`` being what the median lies in
                and ``n`` the number of units. ``str(scalar)`` writes value, unit and interval.
            params: The parameters of these units.
        """
        return []

    def figures(self, result: Mapping[str, Any]) -> Mapping[str, Figure]:
        """Figures of one unit for a report, by title.

        The default draws none; the report then plots stored arrays itself.

        Args:
            result: Arrays of a result or of a stored unit, by name.
        """
        return {}

    def overview(self, results: Sequence[tuple[Unit, Mapping[str, Any]]]) -> Mapping[str, Figure]:
        """Figures over many units for a report, by title: distributions, courses on common axes.

        Called at report time, before `figures` is called for single units, with the published units of this probe on
        one model: those of all parameters together, so that settings can be drawn side by side. In a comparison, it is
        called with those of several models. `equivengine.settings` words what sets units apart. There may be thousands,
        and arrays are read from disk on each access: read what is drawn, from at most some dozens of units for each
        setting, and say in the figure how many of how many they are. The default draws none.

        Args:
            results: Unit and its arrays by name, in the order of the plan.
        """
        return {}
