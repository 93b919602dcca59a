"""Crashes, full disks and concurrent writers."""

import errno
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from store_cases import make_plan, make_result, make_unit

from equivengine.errors import PluginError, StoreError
from equivengine.store import RunDirectory, atomic, open_run


def temporaries(directory):
    return list(directory.path.rglob("tmp.*"))


def test_publishing_twice_keeps_the_first_result(directory):
    unit = make_unit()
    assert directory.publish(unit, make_result(1), {})
    assert not directory.publish(unit, make_result(2), {})
    with open_run(directory.path) as run:
        assert run.units()[0].summary["slope"].value == 1.25
    assert not temporaries(directory)


@settings(max_examples=8, deadline=None)
@given(seeds=st.lists(st.integers(0, 3), max_size=8))
def test_any_order_and_repetition_of_publishing_gives_the_same_run(tmp_path_factory, seeds):
    directory = RunDirectory.create_or_open(tmp_path_factory.mktemp("store") / "run", make_plan(), "digest")
    news = [directory.publish(make_unit(seed), make_result(seed), {}) for seed in seeds]
    assert sum(news) == len(set(seeds))
    assert directory.published() == {make_unit(seed).unit_id for seed in seeds}
    assert all(directory.is_published(make_unit(seed).unit_id) for seed in seeds)
    first = directory.consolidate().read_bytes()
    assert directory.consolidate().read_bytes() == first


def test_a_failure_is_replaced_and_goes_when_its_unit_is_published(directory):
    unit = make_unit()
    directory.record_failure(unit, "first")
    directory.record_failure(unit, "second", error_type="OSError")
    assert directory.failures()[unit.unit_id].message == "second"
    directory.publish(unit, make_result(), {})
    assert directory.failures() == {}
    directory.record_failure(unit, "a slower worker failed")
    assert directory.failures() == {}
    assert not list((directory.path / "failures").iterdir())


def test_a_failure_that_a_crash_left_beside_its_result_does_not_count(directory):
    unit = make_unit()
    directory.record_failure(unit, "first")
    (left,) = (directory.path / "failures").iterdir()
    text = left.read_text()
    directory.publish(unit, make_result(), {})
    left.write_text(text)
    assert directory.failures() == {}
    with open_run(directory.path) as run, open_run(directory.consolidate()) as whole:
        assert run.failures == whole.failures == {}


def test_the_same_plan_opens_again_and_another_is_refused(directory):
    directory.publish(make_unit(), make_result(), {})
    again = RunDirectory.create_or_open(directory.path, make_plan(), "digest")
    assert again.published() == directory.published()
    before = sorted((path, path.stat().st_mtime_ns) for path in directory.path.rglob("*"))
    with pytest.raises(StoreError, match="another plan") as caught:
        RunDirectory.create_or_open(directory.path, {"units": []}, "other")
    assert (caught.value.expected, caught.value.got) == ("plan other", "plan digest")
    assert "--out" in caught.value.hint
    assert sorted((path, path.stat().st_mtime_ns) for path in directory.path.rglob("*")) == before


def test_a_directory_of_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match=r"not empty and holds no run"):
        RunDirectory.create_or_open(tmp_path, make_plan(), "digest")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_crash_left_before_the_plan_does_not_make_a_directory_foreign(tmp_path):
    (tmp_path / "tmp.elsewhere.1.00").write_text("{")
    RunDirectory.create_or_open(tmp_path, make_plan(), "digest")
    assert (tmp_path / "plan.json").exists()


def test_a_path_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(StoreError, match="cannot write"):
            RunDirectory.create_or_open(path, make_plan(), "digest")
    with pytest.raises(StoreError):
        RunDirectory.create_or_open("/proc/equivengine-run", make_plan(), "digest")  # refuses root too


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_read_only_directory_is_refused(directory):
    directory.path.chmod(0o555)
    try:
        with pytest.raises(StoreError, match="cannot write"):
            RunDirectory.create_or_open(directory.path, make_plan(), "digest")
    finally:
        directory.path.chmod(0o755)


def test_a_read_only_file_system_is_refused_when_opened(directory, monkeypatch):
    def refuse(path, data):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr("pathlib.Path.write_bytes", refuse)
    with pytest.raises(StoreError, match="Read-only file system"):
        RunDirectory.create_or_open(directory.path, make_plan(), "digest")


@pytest.mark.parametrize(
    "plan",
    [
        pytest.param({"units": "all"}, id="no list"),
        pytest.param({"units": [3]}, id="a number"),
        pytest.param({"units": ["xyz"]}, id="a text"),
        pytest.param({"units": [{}]}, id="without an id"),
    ],
)
def test_a_plan_without_usable_units_is_refused_before_anything_is_made(tmp_path, plan):
    with pytest.raises(StoreError):
        RunDirectory.create_or_open(tmp_path / "run", plan, "digest")
    assert not (tmp_path / "run").exists()


def test_a_plan_that_is_no_json_is_refused(tmp_path):
    with pytest.raises(PluginError):
        RunDirectory.create_or_open(tmp_path / "run", {"x": object()}, "digest")


def test_a_kill_between_write_and_publish_leaves_only_a_temporary_that_is_swept(directory, start_python):
    code = (
        "import os, signal; os.link = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "RunDirectory.open(sys.argv[1]).publish(make_unit(1), make_result(1), {})"
    )
    directory.publish(make_unit(0), make_result(0), {})
    process = start_python(code, directory.path)
    assert process.wait() == -signal.SIGKILL
    assert len(temporaries(directory)) == 1
    assert directory.published() == {make_unit(0).unit_id}
    directory.consolidate()
    RunDirectory.create_or_open(directory.path, make_plan(), "digest")
    assert not temporaries(directory)
    assert directory.publish(make_unit(1), make_result(1), {})


def test_kills_at_random_times_lose_nothing_that_was_published(directory, start_python):
    code = """
import PIL.PngImagePlugin
run = RunDirectory.open(sys.argv[1])
print("ready", flush=True)
for seed in range(int(sys.argv[2]), 10**6):
    run.publish(make_unit(seed), make_result(seed, size=600), {})
    print(seed, flush=True)
"""
    rng = random.Random(0)
    promised = set()
    for attempt in range(10):
        process = start_python(code, directory.path, attempt * 1000)
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.0, 0.2))
        process.kill()
        lines = process.communicate()[0].split("\n")[:-1]
        promised |= {make_unit(int(line)).unit_id for line in lines}
        assert promised <= directory.published()
    assert promised
    with open_run(directory.path) as run:
        assert len(run.units()) == len(directory.published())
        for _, result in run.results("ldlc"):
            assert result.arrays["zeta"].data.shape == (600, 4)
    for path in directory.path.rglob("*.png"):
        with Image.open(path) as image:
            image.load()
    RunDirectory.create_or_open(directory.path, make_plan(), "digest")
    assert not temporaries(directory)


def test_two_processes_publish_a_unit_once(directory, start_python):
    code = """
run = RunDirectory.open(sys.argv[1])
print(sum(run.publish(make_unit(seed), make_result(seed), {"by": sys.argv[2]}) for seed in range(12)))
"""
    processes = [start_python(code, directory.path, name) for name in "ab"]
    outputs = [process.communicate() for process in processes]
    assert sum(int(out) for out, _ in outputs) == 12, outputs
    with open_run(directory.path) as run:
        assert len(run.units()) == 12
    assert not temporaries(directory)


def test_threads_publish_side_by_side(directory):
    with ThreadPoolExecutor(8) as pool:
        news = list(
            pool.map(lambda seed: directory.publish(make_unit(seed), make_result(seed, size=2000), {}), range(24))
        )
        olds = list(pool.map(lambda seed: directory.publish(make_unit(0), make_result(seed), {}), range(8)))
    assert all(news)
    assert not any(olds)
    with open_run(directory.path) as run:
        assert sorted(unit.seed for unit, _ in run.results("ldlc")) == list(range(24))


def test_losing_the_race_at_the_last_moment_keeps_the_winner(directory, monkeypatch):
    unit = make_unit()
    link = os.link

    def lose(source, target):
        monkeypatch.setattr(os, "link", link)
        assert directory.publish(unit, make_result(1), {})
        link(source, target)

    monkeypatch.setattr(os, "link", lose)
    assert not directory.publish(unit, make_result(2), {})
    with open_run(directory.path) as run:
        assert run.units()[0].summary["slope"].value == 1.25


def test_a_file_system_without_hard_links_will_do(directory, monkeypatch):
    def refuse(source, target):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert directory.publish(make_unit(), make_result(), {})
    assert not directory.publish(make_unit(), make_result(), {})
    assert not temporaries(directory)


def test_a_real_write_limit_is_a_clear_error_and_leaves_nothing(directory, start_python):
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
from equivengine.errors import StoreError
run = RunDirectory.open(sys.argv[1])
for action in (lambda: run.publish(make_unit(0), make_result(0, size=100_000), {}), run.consolidate):
    try:
        action()
    except StoreError as error:
        print(error.what)
print(run.publish(make_unit(2), make_result(2), {}))
"""
    directory.publish(make_unit(1), make_result(1, size=100_000), {})
    out, err = start_python(code, directory.path).communicate()
    assert out.splitlines() == [
        f"there is no room to write in {directory.path / 'shards' / make_unit(0).unit_id[:2]}",
        f"there is no room to write in {directory.path}",
        "True",
    ], err
    assert err == ""
    assert directory.published() == {make_unit(1).unit_id, make_unit(2).unit_id}
    assert not temporaries(directory)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("action", ["publish", "record_failure", "consolidate"])
def test_a_full_disk_names_the_directory(directory, monkeypatch, code, action):
    directory.publish(make_unit(1), make_result(), {})
    former = directory.consolidate().read_bytes()

    def full(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    arguments = {"publish": (make_unit(), make_result(), {}), "record_failure": (make_unit(), "x"), "consolidate": ()}
    with pytest.raises(StoreError, match=f"no room to write in {directory.path}") as caught:
        getattr(directory, action)(*arguments[action])
    assert "resume" in caught.value.hint
    assert directory.published() == {make_unit(1).unit_id}
    assert directory.failures() == {}
    assert (directory.path / "run.h5").read_bytes() == former
    assert not temporaries(directory)


def test_only_the_temporaries_of_the_dead_are_swept(tmp_path, start_python):
    gone = start_python("")
    gone.wait()
    mine = atomic.temporary_beside(tmp_path / "x")
    names = {
        mine.name: False,
        f"tmp.{atomic.HOST}.{gone.pid}.00": True,
        f"tmp.elsewhere.{gone.pid}.00": False,
        "tmp.elsewhere.1.11": True,  # made old below
        "tmp.odd": False,
        "shard.h5": False,
    }
    for name in names:
        (tmp_path / name).write_bytes(b"")
    os.utime(tmp_path / "tmp.elsewhere.1.11", (1, 1))
    assert {path.name for path in atomic.sweep(tmp_path)} == {name for name, swept in names.items() if swept}
    assert {path.name for path in tmp_path.iterdir()} == {name for name, swept in names.items() if not swept}


def test_readers_do_not_see_temporaries(directory, shard_of):
    path = shard_of()
    atomic.temporary_beside(path).write_bytes(path.read_bytes())
    assert len(directory.published()) == 1


def test_there_is_no_run(tmp_path):
    for path in (tmp_path, tmp_path / "absent", tmp_path / "absent.h5"):
        with pytest.raises(StoreError, match="run"):
            open_run(path)
