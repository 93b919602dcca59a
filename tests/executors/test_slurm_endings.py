"""What becomes of tasks of an array that ended: those that Slurm ends, those that die, those that come back."""

from __future__ import annotations

import deeds
import pytest

import equivengine as eqv
from equivengine_plugins.executors import slurm_array
from equivengine_plugins.executors.slurm import SlurmParams
from equivengine_plugins.executors.slurm_task import Journal


class Ended:
    """A job that has ended."""

    job_id = "7_0"

    def __init__(self, state, problem=None):
        self.state, self.problem = state, problem

    def exception(self):
        return self.problem

    def result(self):
        return None

    def stderr(self):
        return "Loading modules\nModuleNotFoundError: No module named 'equivengine'\n"


@pytest.mark.parametrize(
    ("job", "says"),
    [
        pytest.param(
            Ended("CANCELLED by 1000"),
            ["the task 7_0 was canceled", "results --executor slurm --set-executor cluster=local"],
            id="canceled",
        ),
        pytest.param(
            Ended("FAILED", RuntimeError("Job not requeued because: timed-out too many times.")),
            [
                "the task 7_0 ran into its time limit more than 20 times",
                "within 60 minutes each",
                "time=MINUTES",
                "resume",
            ],
            id="out of time",
        ),
        pytest.param(
            Ended("FAILED", RuntimeError("exit code 1")),
            ["the task 7_0 ended before it had begun anything", "state FAILED: ModuleNotFoundError", "slurm"],
            id="failed at once",
        ),
    ],
)
def test_a_task_that_ended_for_good_is_an_error_that_says_why(work, tmp_path, job, says):
    batches = deeds.batches("fine")
    array = slurm_array.Array(SlurmParams(cluster="local"), work(batches))
    with pytest.raises(eqv.EngineError) as refused:
        array._check(job, Journal(tmp_path / "none"), batches)
    for text in says:
        assert text in str(refused.value)


@pytest.fixture
def array(work, tmp_path, monkeypatch):
    """The array of two batches; instead of submitting, it keeps what it would submit."""
    batches = deeds.batches("fine", "fine")
    made = slurm_array.Array(SlurmParams(cluster="local"), work(batches))
    made.batches, made.submitted = batches, []
    made._waiting = {(batch[0].unit_id,): batch for batch in batches}
    monkeypatch.setattr(made, "_submit", lambda parts: made.submitted.extend(parts))
    return made


def died_between_batches(tmp_path, finished):
    """The journal of a task that carried out so many batches, and began no other."""
    journal = Journal(tmp_path / "between")
    journal.path.write_text('{"process": 7}\n' + '{"begun": "a"}\n{"outcomes": []}\n' * finished)
    assert len(list(journal.news())) == finished
    return journal


def test_a_task_that_died_between_two_batches_goes_on_and_none_is_blamed(array, tmp_path):
    for _ in range(5):
        journal = died_between_batches(tmp_path, 1)
        array._check(Ended("FAILED", RuntimeError("gone")), journal, array.batches)
        array._again(Ended("FAILED"), journal, array.batches, print)
    assert array.submitted == [array.batches] * 5
    assert array._deaths == {}


def test_tasks_that_die_again_and_again_without_carrying_out_anything_are_given_up(array, tmp_path):
    for _ in range(2):
        array._check(Ended("FAILED", RuntimeError("gone")), died_between_batches(tmp_path, 0), array.batches)
    with pytest.raises(eqv.PluginError, match="ended before it had begun anything"):
        array._check(Ended("FAILED", RuntimeError("gone")), died_between_batches(tmp_path, 0), array.batches)


class Preempted(Ended):
    """A task that lost its node; submitit holds that it will be back."""

    asked = 0

    def __init__(self, later="PREEMPTED"):
        super().__init__("PREEMPTED")
        self.later = later

    def done(self):
        return False

    def get_info(self, mode):
        self.asked += 1
        self.state = self.later


def test_a_task_that_was_preempted_and_does_not_come_back_is_submitted_again(array, tmp_path, monkeypatch):
    job = Preempted()
    array._jobs = [(job, Journal(tmp_path / "none"), array.batches)]
    array._look(print)
    assert (array.submitted, job.asked) == ([], 0), "it has time to come back"
    monkeypatch.setattr(slurm_array, "_REQUEUING", 0.0)
    array._look(print)
    assert (array.submitted, array._jobs, job.asked) == ([array.batches], [], 1)


def test_a_task_that_was_preempted_and_came_back_is_waited_for(array, tmp_path, monkeypatch):
    job = Preempted(later="RUNNING")
    array._jobs = [(job, Journal(tmp_path / "none"), array.batches)]
    array._look(print)
    monkeypatch.setattr(slurm_array, "_REQUEUING", 0.0)
    array._look(print)
    array._look(print)
    assert (array.submitted, len(array._jobs), job.asked) == ([], 1, 1)


def test_a_task_that_is_done_or_died_in_a_batch_is_no_error(work, tmp_path):
    batches = deeds.batches("fine")
    array = slurm_array.Array(SlurmParams(cluster="local"), work(batches))
    array._check(Ended("COMPLETED"), Journal(tmp_path / "none"), [])
    journal = Journal(tmp_path / "journal")
    journal.path.write_text('{"begun": "a"}\n')
    assert list(journal.news()) == []
    array._check(Ended("NODE_FAIL", RuntimeError("gone")), journal, batches)
