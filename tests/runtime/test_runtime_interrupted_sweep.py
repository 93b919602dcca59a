"""A sweep that is interrupted twice and finished elsewhere holds what an undisturbed one holds."""

from __future__ import annotations

import pytest

from equivengine.runtime.config import load_toml
from equivengine.runtime.engine import execute, resume
from equivengine.store import RunDirectory, content_digest, open_run

SWEEP = """
models = ["toy", "toy?seed=1", "toy?seed=2"]
images = ["noise:30?size=8&mode=L"]
[[probes]]
name = "measure"
[[probes]]
name = "difference"
[[probes]]
name = "together"
set = { references = 4 }
"""


def digest(path):
    with open_run(path / "run.h5") as run:
        return content_digest(run)


@pytest.fixture(scope="module")
def undisturbed():
    """Digest of the undisturbed run, once it is known."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("last", [{"executor": "serial"}, {"executor": "twice"}, {"executor": "dask"}], ids=str)
def test_interrupted_twice_and_finished_elsewhere_it_is_the_same_run(registry, tmp_path, undisturbed, last):
    if last["executor"] == "dask":
        pytest.importorskip("distributed")
        last = {**last, "executor_set": {"workers": 2}}
    (tmp_path / "sweep.toml").write_text(SWEEP)
    whole = load_toml(tmp_path / "sweep.toml", {"out": str(tmp_path / "whole")})
    if not undisturbed:
        report = execute(whole, registry=registry)
        assert report.outcomes == {"published": 270, "skipped": 0}
        undisturbed["digest"] = digest(tmp_path / "whole")

    def interrupt_after(count):
        left = iter(range(count))

        def on_done(unit, outcome):
            if next(left, None) is None:
                raise KeyboardInterrupt

        return on_done

    out = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        execute(whole.model_copy(update={"out": str(out)}), registry=registry, on_done=interrupt_after(70))
    first = RunDirectory.open(out).published()
    with pytest.raises(KeyboardInterrupt):
        resume(out, registry=registry, on_done=interrupt_after(101))  # within a batch
    second = RunDirectory.open(out).published()
    assert 70 < len(first) < len(second) < 270
    assert first < second
    report = resume(out, registry=registry, **last)
    assert report.outcomes["published"] == 270 - len(second)
    assert digest(out) == undisturbed["digest"]
