"""`equivengine plugin new`: hostile names write nothing; what it writes installs, passes check and tests."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from equivengine.cli import plugin_worker
from equivengine.cli.plugin_new import MAX_NAME
from equivengine.testing.contract import REQUIREMENTS

KINDS = ("backend", "probe", "dataset")
ROOT = Path(__file__).resolve().parents[2]


def test_what_is_written_is_named_and_compiles(cli, tmp_path):
    said = cli("plugin", "new", "two_words", "--kind", "backend")
    folder = tmp_path / "equivengine-two-words"
    listed = [line.strip() for line in said.out.splitlines() if line.startswith("  ")]
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == listed[: len(files)]
    assert "  equivengine plugin check two_words" in said.out
    source = (folder / "src" / "equivengine_two_words" / "__init__.py").read_text()
    (cls,) = [node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    assert cls == "TwoWords"
    assert not re.search(r"\$\{|\$[a-z]", "".join((folder / file).read_text() for file in files))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


HOSTILE = {
    "path": "../escape",
    "absolute": "/tmp/escape",
    "separator": "a/b",
    "backslash": "a\\b",
    "dot": "a.b",
    "dots": "..",
    "option": "-x",
    "empty": "",
    "space": "a b",
    "capital": "Net",
    "digit": "4net",
    "dash": "my-net",
    "underscores": "_net",
    "doubled": "my__net",
    "quote": 'a"b',
    "newline": "net\n",
    "other_script": "nеt",  # noqa: RUF001  # the e is Cyrillic: that is the point
    "control": "net\x1b[2J",
    "dollar": "${name}",
    "long": "n" * (MAX_NAME + 1),
    "keyword": "lambda",
    "shipped_plugin": "ldlc",
    "shipped_scheme": "digits",
    "shipped_executor": "serial",
    "shipped_package": "plugins",
    "toy": "toy",
}


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_name_is_one_error_and_writes_nothing(cli, tmp_path, name):
    before = sorted(tmp_path.rglob("*"))
    said = cli("plugin", "new", "--kind", "probe", "--", name, code=2)
    assert said.err.count("error:") == 1
    assert "\x1b" not in said.err
    assert "  got: " in said.err or "  next: " in said.err
    assert sorted(tmp_path.rglob("*")) == before


def test_an_existing_place_is_left_alone(cli, tmp_path):
    (tmp_path / "equivengine-mine").mkdir()
    (tmp_path / "file").write_text("kept")
    os.symlink("nowhere", tmp_path / "link")
    before = sorted(tmp_path.rglob("*"))
    assert "exists already" in cli("plugin", "new", "mine", "--kind", "probe", code=2).err
    assert "exists already" in cli("plugin", "new", "mine", "--kind", "probe", "--out", "file", code=2).err
    assert "exists already" in cli("plugin", "new", "mine", "--kind", "probe", "--out", "link", code=2).err
    assert "is no directory" in cli("plugin", "new", "mine", "--kind", "probe", "--out", "no/such", code=2).err
    assert "is no directory" in cli("plugin", "new", "mine", "--kind", "probe", "--out", "file/there", code=2).err
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "kept"


def test_a_failure_in_the_middle_leaves_nothing_behind(cli, tmp_path, monkeypatch):
    def full(self, *arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    assert "No space left on device" in cli("plugin", "new", "mine", "--kind", "probe", code=2).err
    assert [path for path in tmp_path.iterdir() if "equivengine" in path.name] == []


def test_an_unknown_plugin_or_setting_is_one_error(cli):
    assert "perhaps 'toys'" in cli("plugin", "check", "toyz", code=2).err
    assert "--set" in cli("plugin", "check", "toys", "--set", "count", code=2).err
    assert "Commands:" in cli("plugin", "--help").out


def test_written_plugins_install_pass_the_check_and_bring_tests(cli, toys, tmp_path, monkeypatch):
    folders = []
    for kind in KINDS:
        cli("plugin", "new", f"my{kind}", "--kind", kind, "--out", f"work-{kind}")
        folders.append(tmp_path / f"work-{kind}")
    target = tmp_path / "site"
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), *map(str, folders)]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    monkeypatch.syspath_prepend(target)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(target), os.environ["PYTHONPATH"]]))
    document = cli("plugin", "check", "mybackend", "--json").document
    assert document["passed"]
    assert document["module"] == "equivengine_mybackend"
    assert document["package"] == "equivengine-mybackend 0.1.0"
    assert [section["section"] for section in document["sections"]] == ["plugin", "backends/mybackend"]
    found = {"mybackend": [verdict for section in document["sections"] for verdict in section["verdicts"]]}
    for name in ("myprobe", "mydataset"):  # without the process around it, which takes longest
        events: list[dict] = []
        plugin_worker.check(plugin_worker.Request(name), events.append)
        found[name] = [event["verdict"] for event in events if event["event"] == "verdict"]
        sys.modules.pop(f"equivengine_{name}")
    for verdicts in found.values():
        assert {verdict["state"] for verdict in verdicts} == {"passed"}
        assert len(verdicts) > 15
    # Their tests call what was just called, so that it is enough that pytest finds one for each requirement.
    options = ["--collect-only", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    command = [sys.executable, "-m", "pytest", *options, *(str(folder / "tests") for folder in folders)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout
    assert f"{sum(len(requirements) for requirements in REQUIREMENTS.values())} tests collected" in done.stdout


@pytest.mark.parametrize("kind", ["probe", *(pytest.param(k, marks=pytest.mark.slow) for k in ("backend", "dataset"))])
def test_what_the_written_readme_says_runs(cli, toys, tmp_path, monkeypatch, kind):
    name = f"of_{kind}"
    cli("plugin", "new", name, "--kind", kind, "--out", name)
    monkeypatch.syspath_prepend(tmp_path / name / "src")
    toys.install(name, module=f"equivengine_{name}", distribution=f"written-{name}")
    toys.modules.add(f"equivengine_{name}")
    (usage,) = re.findall(r"^    (equivengine probe .*)$", (tmp_path / name / "README.md").read_text(), re.MULTILINE)
    options = ["--limit", "2", "--set", "directions=4"]
    if kind != "probe":
        options += ["--set", "null_directions=0", "--set", "gradient_steps=0"]
    document = cli(*usage.split()[1:], *options, "--out", f"run-{kind}", "--json").document
    assert document["outcomes"]["published"] == 2
    assert not document["outcomes"].get("failed")


def test_the_wheel_takes_every_template():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["equivengine"]
    packed = {path for pattern in patterns for path in (ROOT / "equivengine").glob(pattern)}
    templates = {path for path in (ROOT / "equivengine" / "cli" / "templates").rglob("*") if path.is_file()}
    assert len(templates) == 8
    assert templates <= packed
