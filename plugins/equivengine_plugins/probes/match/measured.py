"""Everything that is known of the pairs of one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    import equivengine as eqv
    from equivengine_plugins.probes.match.parameters import MatchParams
    from equivengine_plugins.probes.match.solving import Solved
    from equivengine_plugins.probes.match.targets import Pairs
    from equivengine_plugins.probes.match.variants import Again, Variant
    from equivengine_plugins.probes.yardstick import Yardstick


@dataclass(frozen=True)
class Measured:
    """What was found for B pairs.

    Attributes:
        pairs: Originals and targets.
        yardstick: What distances are held against.
        solved: What the solvers say.
        variants: What fresh evaluations say, by form of the input.
        again: What float64 says.
        target_classes: Predicted classes of the targets, [B]; None without a classifier or with a text.
        roundoff: Distances that roundoff of the run may explain, [B] float64.
        seconds: Wall time, the share of one pair.
    """

    pairs: Pairs
    yardstick: Yardstick
    solved: Solved
    variants: dict[str, Variant]
    again: Again
    target_classes: torch.Tensor | None
    roundoff: torch.Tensor
    seconds: float

    @property
    def task(self) -> eqv.ProbeTask[MatchParams]:
        """The first task: all of them agree in all but their samples."""
        return self.pairs.tasks[0]

    @property
    def params(self) -> MatchParams:
        """The probe's parameters."""
        return self.task.params

    @property
    def matches(self) -> dict[str, Variant]:
        """The forms of the matched input, without the original."""
        return {name: variant for name, variant in self.variants.items() if name != "start"}
