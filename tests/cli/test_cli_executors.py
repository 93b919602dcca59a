"""--executor and --set-executor: listed, validated like --set, taken from the run file, and refused with one error."""

from __future__ import annotations

import sys

import pytest

from equivengine.store import open_run


def test_executors_list_their_parameters(cli):
    rows = {row["name"]: row for row in cli("ls", "executors", "--json").document["executors"]}
    assert {"serial", "dask", "slurm"} <= set(rows)
    parameters = {one["name"]: one for one in rows["dask"]["parameters"]}
    assert parameters["scheduler"]["default"] is None
    assert "tls://" in parameters["scheduler"]["description"]
    for row in ("serial", "dask", "slurm"):
        assert all(one["description"] for one in rows[row]["parameters"])
    shown = cli("ls", "executors").out
    assert "patience=5.0" in shown
    assert "--set-executor" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("thread=1",), ["executor 'serial': 'thread' is not known", "perhaps 'threads'"]),
        (("threads",), ["--set-executor takes KEY=VALUE", "got: 'threads'"]),
        (("threads=few",), ["'threads' is not usable", "a valid integer", "got: 'few'"]),
        (("threads=0",), ["'threads' is not usable", "greater than or equal to 1"]),
        (("threads=1", "threads=2"), ["--set-executor threads is given twice"]),
    ],
)
@pytest.mark.parametrize("command", ["probe", "run", "resume"])
def test_a_parameter_that_makes_no_sense(measure, cli, tmp_path, command, arguments, says):
    options = [word for one in arguments for word in ("--set-executor", one)]
    if command == "probe":
        said = measure(*options, code=2)
        assert not (tmp_path / "run").exists()
    elif command == "run":
        (tmp_path / "a.toml").write_text('models = ["toy"]\nimages = ["noise:1"]\n[[probes]]\nname = "measure"\n')
        said = cli("run", "a.toml", *options, code=2)
    else:
        measure()
        said = cli("resume", "run", *options, code=2)
    for text in says:
        assert text in said.err
    assert said.err.count("error:") == 1


def test_the_command_line_counts_more_than_the_run_file(cli, tmp_path):
    head = 'models = ["toy"]\nimages = ["noise:1"]\n'
    tail = '[[probes]]\nname = "measure"\n'

    def threads(extra, *arguments):
        (tmp_path / "a.toml").write_text(f"{head}{extra}{tail}")
        cli("run", "a.toml", "--out", tmp_path / f"run-{len(list(tmp_path.iterdir()))}", *arguments)
        newest = max(tmp_path.glob("run-*"), key=lambda path: path.stat().st_mtime_ns)
        with open_run(newest) as run:
            return run.units()[0].provenance["executor"]

    set_one = "executor_set = { threads = 1 }\n"
    assert threads(set_one)["set"] == {"threads": 1}
    assert threads(set_one, "--set-executor", "threads=2")["set"] == {"threads": 2}
    elsewhere = 'executor = "dask"\nexecutor_set = { workers = 3 }\n'
    found = threads(elsewhere, "--executor", "serial")
    assert (found["name"], found["set"]) == ("serial", {})


@pytest.mark.parametrize(("executor", "package"), [("dask", "dask"), ("dask", "distributed"), ("slurm", "submitit")])
def test_a_missing_package_names_the_extra(measure, monkeypatch, tmp_path, executor, package):
    monkeypatch.setitem(sys.modules, package, None)
    said = measure("--executor", executor, "--set-executor", "patience=1", code=2 if executor == "slurm" else 1)
    if executor == "slurm":  # patience is not for it
        said = measure("--executor", executor, code=1)
    assert f"executor '{executor}' cannot work here" in said.err
    assert f"needs equivengine[{executor}] (the package '{package}' is not installed)" in said.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        pytest.param(
            ("scheduler=tcp://127.0.0.1:1",), 1, "no Dask scheduler answers at tcp://127.0.0.1:1", id="nobody answers"
        ),
        pytest.param(("scheduler=tcp://192.0.2.1:8786",), 2, "in plain text", id="plain text"),
        pytest.param(
            ("scheduler=tls://127.0.0.1:1", "workers=2"),
            2,
            "a standing one has the workers that it has",
            id="workers of a standing cluster",
        ),
    ],
)
def test_a_cluster_that_cannot_be_had_is_one_error_before_anything_is_loaded(measure, tmp_path, arguments, code, says):
    options = [word for one in arguments for word in ("--set-executor", one)]
    said = measure("--executor", "dask", *options, "--model", "toy:raises", code=code)
    assert says in said.err
    assert said.err.count("error:") == 1
    assert not (tmp_path / "run").exists()
