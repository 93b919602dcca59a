"""The search for leading singular values: grow a Krylov space, judge what it holds, stop, go on or start afresh."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from equivengine.linalg import bounds
from equivengine.linalg.goal import Goal
from equivengine.linalg.krylov import BlockKrylov, Ritz
from equivengine.linalg.products import Products

#: Triplets that mixed precision carries over beyond those that are wanted.
_SPARE = 4
#: Vectors of values within this of the last wanted one, relatively, are carried over as well; at most 2 rank + 16.
_MIXED, _MOST_SPARE = 2e-2, 16
#: Residuals within this many times the roundoff of coarse products say nothing.
_ROUNDOFF = 2.0
#: Steps between two looks at a space: its size over this.
_LOOKS = 80
#: Steps that fresh vectors get to show what the space has missed.
_STEPS_TO_SHOW = 3
#: Neighboring values whose relative distance is at most this belong to one group; a group is isolated where the gap
#: below it is this many times the widest within.
_NEAR, _ISOLATED = 1e-2, 5.0


@dataclass
class State:
    """Where a search stands after a step.

    Attributes:
        ritz: The leading triplets, one more than wanted where the space has it.
        rank: How many of them are wanted.
        error: Estimated errors without roundoff, [B, <= rank + 1].
        excess: The largest error over what is allowed; at most 1 when converged.
    """

    ritz: Ritz
    rank: int
    error: Tensor
    excess: float

    @property
    def converged(self) -> bool:
        """Whether all wanted values are within the tolerance."""
        return self.excess <= 1


def least_basis(rank: int, block: int) -> int:
    """Below that size a space cannot have found ``rank`` values: the last ones would be any."""
    return math.ceil(1.5 * rank) + block


class Search:
    """Grows one Krylov space towards a goal.

    Args:
        op: Products.
        goal: What for.
        capacity: Most basis vectors.
        block: Vectors of a step.
        seed: Stream of random vectors.
        coarse: Whether products are too coarse for the half step that `bounds.remaining` looks at.
    """

    def __init__(self, op: Products, goal: Goal, capacity: int, block: int, seed: int, *, coarse: bool = False) -> None:
        self.space = BlockKrylov(op, capacity, seed)
        self.goal = goal
        self.block = block
        self._coarse = coarse
        self._history: list[Tensor] = []
        self._before: Tensor | None = None  # estimated errors that the space was taken over with
        self._judged = 0
        self._separated = False
        self._carried: Tensor | None = None  # J_coarse^T u of the vectors that were taken over
        self._ends: list[int] = []  # numbers of the vectors that the next step continues
        self._waiting: list[int] = []  # and of those that wait while fresh vectors show what they find
        self._show_until = 0
        self.steps = 0
        self.state: State | None = None
        self.excesses: list[float] = []

    def take_over(self, other: Search, state: State) -> State:
        """Begin with the leading Ritz vectors of a search in cheaper products, whose last state is ``state``.

        Coarse products mix the vectors of values that lie as close together as the products are wrong, so all of a
        group are taken over.
        """
        ritz = other.space.ritz()
        values = ritz.values[:, : 2 * state.rank + _MOST_SPARE]
        near = int((values > (1 - _MIXED) * values[:, state.rank - 1 : state.rank]).sum(1).max())
        self._separated = near < values.shape[1]
        self._before = state.error
        self.space.starts = other.space.starts
        kept = ritz.leading(max(near, state.rank + _SPARE))
        self._carried = kept.values[:, :, None] * other.space.right_vectors(kept)
        return self._grow(kept.left)

    def step(self) -> State:
        """One step; needs ``room``."""
        space = self.space
        if self.steps == 0:
            return self._grow(space.first_block(min(self.block, space.room)))
        if self._waiting and not self.showing:
            self._ends, self._waiting = self._waiting + self._ends, []
        return self._grow(space.next_block(self._ends))

    def add_fresh(self) -> State:
        """Go on with new random vectors alone, as many as there have been: they show what the space has missed."""
        self._show_until = self.steps + _STEPS_TO_SHOW
        self._waiting = self._waiting + self._ends
        return self._grow(self.space.first_block(min(self.space.starts, self.room)))

    @property
    def showing(self) -> bool:
        """Whether fresh vectors have not had their steps yet."""
        return self.steps < self._show_until

    @property
    def room(self) -> int:
        """How many more vectors the space can take."""
        return self.space.room

    def _grow(self, block: Tensor) -> State:
        self._ends = list(range(self.space.size, self.space.size + block.shape[1]))
        self.space.grow(block)
        self.steps += 1
        # The small problem costs d^3: of a large space not every step is looked at.
        if self.state is None or self.space.room == 0 or self.steps >= self._judged + self.space.size // _LOOKS:
            return self.settle()
        return self.state

    @property
    def settled(self) -> bool:
        """Whether the state is that of the whole space: not of every step there is one."""
        return self._judged == self.steps

    def settle(self) -> State:
        """The state of the whole space."""
        if self.state is None or not self.settled:
            self._judged = self.steps
            self.state = self._judge()
            self.excesses.append(self.state.excess)
        return self.state

    def _judge(self) -> State:
        taken_over = self._before is not None and self.steps == 1
        ritz = self.space.raised_ritz() if taken_over else self.space.ritz()
        self._history = [*self._history[-2:], ritz.values]
        rank = self.goal.rank_of(ritz.values)
        keep = min(rank + 1, ritz.values.shape[1])
        group = ritz.leading(min(keep + bounds.GROUP, ritz.values.shape[1]))
        ritz = ritz.leading(keep)
        floor = 0.1 * self.goal.resolution * ritz.values[:, :1]
        if taken_over:
            assert self._before is not None
            # The vectors' own errors count to second order, and half a step has shown by how much.
            error = torch.maximum(self._before[:, :keep], bounds.SAFETY_OF_HALF * ritz.rise)
        else:
            error = bounds.remaining(self._history, None if self._coarse else ritz.rise, floor, keep)
        noise = 10 * floor
        if self._coarse:
            # The residual of what has converged: roundoff of the products.
            share = ritz.residual / ritz.values.clamp_min(torch.finfo(torch.float64).tiny)
            noise = 1.5 * share.amin(1, keepdim=True) * group.values
        elif taken_over and self._separated:
            noise = _ROUNDOFF * self._roundoff_of_carried()
        error = torch.maximum(error, bounds.mixing(self._history[-1], group.residual, noise)[:, :keep])
        everything = self.space.size == min(self.space.op.shape)
        if everything:  # Ritz values are singular values
            error = torch.zeros_like(error)
        complete = taken_over or everything or self.space.size >= least_basis(rank, self.block)
        # Without a given rank the first value that is left out must be known as well.
        judged = slice(0, keep if self.goal.rank is None else rank)
        excess = float((error[:, judged] / self.goal.allowed(ritz.values)[:, judged]).max()) if complete else torch.inf
        return State(ritz, rank, error, excess)

    def _roundoff_of_carried(self) -> Tensor:
        """|J^T u - J_coarse^T u| over the vectors that were taken over, the largest: [B, 1].

        What is left of their residuals beyond that is no roundoff: the coarse search has stopped too early, as it does
        within a cluster, where values hardly move.
        """
        assert self._carried is not None
        gap, self._carried = self.space.pulled_from(self._carried), None
        return gap.amax(1, keepdim=True)

    def missed_copies(self) -> bool:
        """Whether there may be more copies of a wanted value than the space can hold.

        A Krylov space started from b random vectors holds at most b copies of a multiple singular value, and is slow to
        hold more values than that of a narrow cluster. The sign of it: a group of at least b close values that begins
        among the wanted ones, with a much wider gap below than within.
        """
        if self.showing:
            return True
        assert self.state is not None
        if self.space.room == 0:
            return False
        for values in self._history[-1].tolist():
            close = _NEAR * values[0] if self.goal.rank is None else 0.0
            first = 0
            while first < min(self.state.rank, len(values) - 1):
                last, widest = first, 0.0
                while last + 1 < len(values) and values[last] - values[last + 1] <= max(_NEAR * values[last], close):
                    widest = max(widest, values[last] - values[last + 1])
                    last += 1
                isolated = last + 1 < len(values) and values[last] - values[last + 1] > _ISOLATED * widest
                if isolated and last - first + 1 >= self.space.starts:
                    return True
                first = last + 1
        return False

    def forecast(self) -> float:
        """Products that are still needed, from how the excess has fallen over the last steps; infinite if it has not.

        Needs three estimates.
        """
        known = [e for e in self.excesses if 0 < e < torch.inf][-4:]
        if len(known) < 3:
            return 0.0
        per_step = (torch.tensor(known[0]).log() - torch.tensor(known[-1]).log()) / (len(known) - 1)
        if per_step <= 0:
            return torch.inf
        return float(torch.tensor(known[-1]).log() / per_step) * 2 * len(self._ends)


def search(run: Search, *, may_give_up: bool) -> tuple[State, str]:
    """Step until the goal is reached, its limit is, or (``may_give_up``) writing J out would be cheaper.

    Returns:
        The last state, and why it is the last: "converged", "limit" or "exact is cheaper".
    """
    op, n = run.space.op, min(run.space.op.shape)
    may_give_up = may_give_up and run.space.capacity >= n
    state = run.state or run.step()
    while True:
        fresh = False
        if state.converged and run.settled:
            if not run.missed_copies():
                return state, "converged"
            fresh = not run.showing
        if run.room == 0 or op.counts.total() >= run.goal.limit:
            state = run.settle()
            return state, "converged" if state.converged and not run.missed_copies() else "limit"
        if may_give_up and op.counts.total() > n / 2 and run.forecast() > run.room:
            return state, "exact is cheaper"
        state = run.add_fresh() if fresh else run.step()
