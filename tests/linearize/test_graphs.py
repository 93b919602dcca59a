"""When passes are captured and replayed. The capture itself is CUDA's; here a stand-in runs the pass again."""

from __future__ import annotations

import contextlib

import pytest
import torch

from equivengine.linearize import ARITHMETICS, graphs
from equivengine.ops.record import recording

FP32 = ARITHMETICS["fp32"]


class Stream:
    """Stands in for torch.cuda: what runs between begin and end of a capture runs again at each replay."""

    def __init__(self) -> None:
        self.captured = []
        self.error: str | None = None

    def CUDAGraph(self):
        stream = self

        class Graph:
            def replay(self):
                given, result, run = stream.captured[self.index]
                result.copy_(run(given))

        return Graph()

    @contextlib.contextmanager
    def graph(self, graph):
        if self.error:
            raise RuntimeError(self.error)
        graph.index = len(self.captured)
        yield


@pytest.fixture
def stream(monkeypatch):
    stream = Stream()
    monkeypatch.setattr(graphs, "_can_capture", lambda directions: True)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", stream.CUDAGraph)
    monkeypatch.setattr(torch.cuda, "graph", stream.graph)
    return stream


class Pass:
    """A pass that counts its calls, and tells the stream what a capture saw."""

    def __init__(self, stream: Stream) -> None:
        self.calls, self.stream = 0, stream

    def push(self, directions, arithmetic):
        self.calls += 1
        result = 3 * directions
        self.stream.captured.append((directions, result, lambda given: 3 * given))
        return result


def test_the_second_call_of_a_shape_captures_and_later_ones_replay(stream):
    one, replays = Pass(stream), graphs.Replays()
    with recording() as log:
        for factor in (1.0, 2.0, 3.0, 4.0):
            given = torch.full((2, 5), factor)
            assert torch.equal(replays(one.push, given, FP32), 3 * given)
            assert torch.equal(given, torch.full((2, 5), factor))
    assert one.calls == 2
    assert log.paths()["cuda_graph"] == {"replayed": 3}


def test_results_do_not_share_the_graph_s_memory(stream):
    one, replays = Pass(stream), graphs.Replays()
    replays(one.push, torch.ones(2, 5), FP32)
    first = replays(one.push, torch.ones(2, 5), FP32)
    replays(one.push, torch.zeros(2, 5), FP32)
    assert torch.equal(first, torch.full((2, 5), 3.0))


def test_shapes_and_precisions_have_graphs_of_their_own_and_old_ones_go(stream):
    one, replays = Pass(stream), graphs.Replays()
    for count in range(1, 8):
        for _ in range(2):
            replays(one.push, torch.ones(count, 5), FP32)
    replays(one.push, torch.ones(7, 5), ARITHMETICS["tf32"])
    assert len(replays._graphs) == graphs._KEPT
    calls = one.calls
    replays(one.push, torch.ones(1, 5), FP32)
    assert one.calls == calls + 1


def test_a_pass_that_cannot_be_captured_runs_each_time_and_says_why(stream):
    one, replays = Pass(stream), graphs.Replays()
    stream.error = "operation not permitted when stream is capturing\nand more"
    with recording() as log:
        for _ in range(3):
            assert torch.equal(replays(one.push, torch.ones(2, 5), FP32), torch.full((2, 5), 3.0))
    (reason,) = log.paths()["cuda_graph"]
    assert reason == "not captured: operation not permitted when stream is capturing"


def test_cpu_passes_are_called_as_they_are():
    replays = graphs.Replays()
    given = torch.ones(2, 5)
    assert replays(lambda directions, arithmetic: directions, given, FP32) is given
