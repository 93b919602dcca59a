"""What becomes of a run when a Dask cluster misbehaves; with a client that only claims to have one."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import deeds
import distributed
import pytest

import equivengine as eqv
from equivengine_plugins.executors import dask_cluster, unit_worker
from equivengine_plugins.executors.attempts import ids_of
from equivengine_plugins.executors.dask import DaskParams
from equivengine_plugins.executors.dask_cluster import Cluster


class Claims:
    """A client whose tasks end at once, as `answers` says, and whose workers are `workers`."""

    def __init__(self, *answers, workers=1, greetings=None):
        self.answers, self.workers, self.greetings = list(answers), workers, greetings or {}
        self.submitted, self.ran, self.canceled = [], [], []

    def ncores(self):
        if self.workers is None:
            raise OSError("nobody there")
        return {f"tls://node-{place}:1": 1 for place in range(self.workers)}

    def run(self, function, *arguments, on_error="raise"):
        self.ran.append(function.__name__)
        return self.greetings if function.__name__ == "greet" else {}

    def wait_for_workers(self, count, timeout):
        if not self.workers:
            raise TimeoutError

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def cancel(self, futures):
        self.canceled += futures

    def submit(self, function, command, work, ids, environments, threads, pure):
        self.submitted.append(ids)
        answer = self.answers.pop(0) if self.answers else (eqv.UnitOutcome(ids[0], "published"),)

        def result():
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return SimpleNamespace(
            key=len(self.submitted),
            status="lost" if answer == "lost" else "finished",
            result=result,
            add_done_callback=lambda call: call(future(answer, len(self.submitted), result)),
        )


def future(answer, key, result):
    return SimpleNamespace(key=key, status="lost" if answer == "lost" else "finished", result=result)


@pytest.fixture
def run(work, monkeypatch):
    monkeypatch.setattr(dask_cluster, "LOOK", 0.01)

    def go(client, *names, patience=0.05):
        batches = deeds.batches(*names)
        cluster = Cluster(client, "tls://head:8786", patience=patience)
        found = []
        cluster.carry_out(work(batches), batches, lambda batch, outcomes: found.append((batch, outcomes)))
        return found, batches

    return go


def killed():
    return distributed.KilledWorker("task", None, 3)


def test_each_batch_is_submitted_once(run):
    client = Claims()
    found, batches = run(client, "fine", "fine", "fine")
    assert client.submitted == [ids_of(batch) for batch in batches]
    assert [batch for batch, _ in found] == batches
    assert client.ran == []


@pytest.mark.parametrize(
    ("client", "says"),
    [
        pytest.param(
            Claims(workers=0), ["the Dask cluster tls://head:8786 has no workers", "within 0.05 s"], id="no workers"
        ),
        pytest.param(
            Claims(workers=None),
            ["the Dask scheduler tls://head:8786 went away", "resume the run"],
            id="scheduler gone at first",
        ),
        pytest.param(Claims("lost"), ["the Dask scheduler tls://head:8786 went away"], id="scheduler gone later"),
        pytest.param(
            Claims(ModuleNotFoundError("No module named 'torch'")),
            ["a worker of the Dask cluster tls://head:8786 cannot carry out units", "No module named 'torch'"],
            id="worker without torch",
        ),
        pytest.param(Claims(eqv.StoreError("there is no room")), ["there is no room"], id="an error of its own"),
    ],
)
def test_a_cluster_that_fails_is_one_error(run, client, says):
    with pytest.raises(eqv.EngineError) as refused:
        run(client, "fine")
    for text in says:
        assert text in str(refused.value)


def test_a_batch_whose_dask_workers_are_lost_again_and_again_fails_alone(run):
    client = Claims(killed(), "published", killed(), killed())
    client.answers[1] = (eqv.UnitOutcome(ids_of(deeds.batches("fine", "fine")[1])[0], "published"),)
    found, (lost, fine) = run(client, "fine", "fine")
    assert [batch for batch, _ in found] == [fine, lost]
    assert client.submitted == [ids_of(one) for one in (lost, fine, lost, lost)]
    ((_, (outcome,)),) = found[1:]
    assert (outcome.outcome, outcome.error_type) == ("failed", "WorkerLost")
    assert "lost with its Dask worker, of tls://head:8786" in outcome.message


def test_a_worker_that_joins_meanwhile_gets_batches(run):
    class Grows(Claims):
        """A second worker comes after the first look; batches are done when two are under way."""

        looks, under_way, counts = 0, [], []

        def ncores(self):
            self.looks += 1
            assert self.looks < 500, "nobody has noticed the second worker"
            self.workers = min(self.looks, 2)
            return super().ncores()

        def submit(self, function, command, work, ids, environments, threads, pure):
            self.submitted.append(ids)
            made = future("done", len(self.submitted), lambda: (eqv.UnitOutcome(ids[0], "published"),))
            made.add_done_callback = lambda call: self.begin(lambda: call(made))
            return made

        def begin(self, finish):
            self.under_way.append(finish)
            self.counts.append(len(self.under_way))
            if len(self.under_way) == 2:
                for one in self.under_way:
                    one()
                self.under_way.clear()

    client = Grows()
    found, batches = run(client, *["fine"] * 4)
    assert [batch for batch, _ in found] == batches
    assert client.counts == [1, 2, 1, 2]


def test_a_unit_that_asks_for_an_interruption_gets_it(run):
    with pytest.raises(KeyboardInterrupt):
        run(Claims(None), "fine")


def test_what_is_under_way_is_canceled_when_something_fails(run):
    client = Claims(eqv.StoreError("there is no room"), workers=2)
    with pytest.raises(eqv.StoreError):
        run(client, "fine", "fine")
    assert len(client.submitted) == 2
    assert len(client.canceled) == 1


def test_a_scheduler_that_does_not_let_us_in(monkeypatch):
    def refuse(address, **options):
        assert options["timeout"] == 2
        raise OSError("certificate verify failed")

    monkeypatch.setattr(distributed, "Client", refuse)
    params = DaskParams(scheduler="tls://head:8786", patience=2)
    with pytest.raises(eqv.EngineError, match="does not let us in") as refused, dask_cluster.standing(params):
        pass
    assert "certificates that both sides trust" in refused.value.expected
    assert "certificate verify failed" in refused.value.got


@pytest.mark.parametrize(
    ("client", "says"),
    [
        (Claims(workers=0), ["the Dask cluster tls://head:8786 has no workers", "within 2 s"]),
        (
            Claims(greetings={"tls://node:1": "0.1", "tls://node:2": ModuleNotFoundError("equivengine_plugins")}),
            ["the worker tls://node:2 of the Dask cluster cannot", f"equivengine {eqv.__version__}, as here"],
        ),
    ],
)
def test_a_standing_cluster_that_cannot_work_is_refused(monkeypatch, client, says):
    monkeypatch.setattr(distributed, "Client", lambda address, **options: client)
    params = DaskParams(scheduler="tls://head:8786", patience=2)
    with pytest.raises(eqv.EngineError) as refused, dask_cluster.standing(params):
        pass
    for text in says:
        assert text in str(refused.value)


def test_a_standing_cluster_is_left_without_processes_and_logs_as_before(monkeypatch):
    client = Claims()
    monkeypatch.setattr(distributed, "Client", lambda address, **options: client)
    before = logging.getLogger("distributed").level
    with dask_cluster.standing(DaskParams(scheduler="tls://head:8786")):
        assert logging.getLogger("distributed").level == logging.CRITICAL
    assert client.ran == ["greet", "end"]
    assert logging.getLogger("distributed").level == before


def test_errors_that_cannot_travel_are_told_in_words():
    told = unit_worker._portable(ValueError("no such thing"))
    assert isinstance(told, eqv.PluginError)
    assert told.got == "ValueError: no such thing"
    same = eqv.StoreError("no room")
    assert unit_worker._portable(same) is same
