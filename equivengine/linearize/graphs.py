"""CUDA graphs: a pass over a program is recorded once for each shape and replayed, so small K is not launch-bound."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equivengine.linearize.arithmetic import Arithmetic
from equivengine.ops import record

#: Graphs kept for one operator; each holds the memory of its pass.
_KEPT = 4


@dataclass
class _Graph:
    graph: Any
    given: Tensor
    result: Tensor


class Replays:
    """Runs passes, from the second one of a shape on as a replayed graph. On other devices it only calls them."""

    def __init__(self) -> None:
        self._graphs: OrderedDict[tuple[object, ...], _Graph | str] = OrderedDict()

    def __call__(
        self, run: Callable[[Tensor, Arithmetic], Tensor], directions: Tensor, arithmetic: Arithmetic
    ) -> Tensor:
        """``run(directions, arithmetic)``, bit for bit, whether replayed or not."""
        if not len(directions) or not _can_capture(directions):
            return run(directions, arithmetic)
        key = (run.__name__, tuple(directions.shape), arithmetic.name)
        if key not in self._graphs:
            # The first pass goes without: libraries set themselves up in it, which a capture does not allow.
            self._graphs[key] = _SEEN
            while len(self._graphs) > _KEPT:
                self._graphs.popitem(last=False)
            return run(directions, arithmetic)
        if self._graphs[key] is _SEEN:
            self._graphs[key] = _capture(run, directions, arithmetic)
        self._graphs.move_to_end(key)
        kept = self._graphs[key]
        if isinstance(kept, str):
            record.note("cuda_graph", kept)
            return run(directions, arithmetic)
        record.note("cuda_graph", "replayed")
        kept.given.copy_(directions)
        kept.graph.replay()
        return kept.result.clone()


_SEEN = "seen"


def _can_capture(directions: Tensor) -> bool:
    return directions.device.type == "cuda" and not torch.cuda.is_current_stream_capturing()


def _capture(run: Callable[[Tensor, Arithmetic], Tensor], directions: Tensor, arithmetic: Arithmetic) -> _Graph | str:
    """The recorded pass, or one line that says why it cannot be recorded (an operation waits for the device)."""
    given = directions.clone()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            result = run(given, arithmetic)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        return f"not captured: {str(error).splitlines()[0]}"
    return _Graph(graph, given, result)
