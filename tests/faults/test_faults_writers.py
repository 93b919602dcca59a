"""Several processes on one run directory: none loses or spoils what another one wrote."""

from __future__ import annotations

import threading

from conftest import content
from fault_cases import carry_out, config, consolidate_for_ever, wait_for

from equivengine import open_run
from equivengine.store import RunDirectory, inspect_run


def join(*processes):
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def test_two_runs_of_one_configuration_at_once(start, out, undisturbed):
    processes = [start(carry_out, config(out)) for _ in range(2)]
    assert join(*processes) == [0, 0]
    found = inspect_run(out)
    assert (found.findings, found.missing, found.outdated) == ([], [], False)
    assert content(out) == undisturbed()
    assert not list(out.rglob("tmp.*"))


def test_two_resumes_at_once_repair_a_damaged_run(start, out, undisturbed):
    carry_out(config(out))
    shards = sorted((out / "shards").rglob("*.h5"))
    whole = {path: path.stat().st_ino for path in shards[3:]}
    for path in shards[:3]:
        path.write_bytes(path.read_bytes()[:-1])
    processes = [start(carry_out, config(out), None, True) for _ in range(2)]
    assert join(*processes) == [0, 0]
    found = inspect_run(out)
    assert (found.findings, found.missing, found.outdated) == ([], [], False)
    assert content(out) == undisturbed()
    assert {path: path.stat().st_ino for path in shards[3:]} == whole
    spoilt = [path for path in (out / "damaged").iterdir() if not path.name.startswith("run.h5")]
    assert sorted(path.name for path in spoilt) == [f"{path.name}.0" for path in shards[:3]]


def test_consolidation_at_once_with_a_run_and_a_resume(start, out, undisturbed):
    carry_out(config(out, count=2))
    first = start(consolidate_for_ever, str(out))
    wait_for(lambda: list(out.glob("tmp.*")), first)
    sorted((out / "shards").rglob("*.h5"))[0].unlink()
    second = start(carry_out, config(out, count=2), None, True)
    assert join(second) == [0]
    first.kill()
    join(first)
    RunDirectory.open(out).consolidate()
    assert not inspect_run(out).findings
    assert content(out) == undisturbed(count=2)


def test_an_older_view_does_not_replace_a_newer_run_file_for_good(out, monkeypatch):
    """One process gathers while another one publishes and gathers: the last file on disk holds everything."""
    from equivengine.store import consolidate

    carry_out(config(out, count=3))
    run = RunDirectory.open(out)
    shard = sorted((out / "shards").rglob("*.h5"))[0]
    hidden = shard.rename(out / "hidden")
    write, others = consolidate.write_run_file, []

    def overtaken(path, root):
        found = write(path, root)
        if not others:
            others.append(None)
            hidden.rename(shard)
            thread = threading.Thread(target=RunDirectory.open(out).consolidate)
            thread.start()
            thread.join()
        return found

    monkeypatch.setattr(consolidate, "write_run_file", overtaken)
    run.consolidate()
    found = inspect_run(out)
    assert (found.findings, found.outdated) == ([], False)


def test_a_shard_that_is_moved_while_it_is_gathered_is_no_error(out, monkeypatch):
    from equivengine.store import guard

    carry_out(config(out, count=2))
    shard = sorted((out / "shards").rglob("*.h5"))[0]
    opened = guard.open_once

    def moved(path, *arguments, **options):
        if path == shard:
            shard.rename(out / "moved")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(guard, "open_once", moved)
    RunDirectory.open(out).consolidate()
    with open_run(out / "run.h5") as run:
        assert len(run.published) == 1
    found = inspect_run(out)
    assert (found.findings, found.missing) == ([], [shard.stem])
