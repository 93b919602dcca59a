"""Command lines that cannot be carried out. What each of them says is in `records`, and held by the recorder."""

from __future__ import annotations

import errno
import os
import sys
import tempfile

import pytest

MISTAKES = {
    "no-probe-named": "probe",
    "no-such-command": "prob",
    "option-as-command": "version",
    "no-such-subcommand": "plugin chek",
    "no-value": "probe --plugin",
    "no-such-option": "probe --plugin measure --limt 3",
    "no-integer": "probe --plugin measure --limit x",
    "no-such-choice": "probe --plugin measure --precision fp16",
    "no-kind": "ls",
    "no-such-kind": "ls probs",
    "no-run": "show",
    "two-runs": "show one two",
    "empty-address": "probe --plugin measure --model toy --images=",
    "odd-options-of-an-address": "probe --plugin measure --model toy?seed",
    "option-of-an-address-twice": "probe --plugin measure --model toy?seed=1&seed=2",
    "path-without-need": "probe --plugin measure --model toy --images samples:photos",
    "plugin-check-of-nothing": "plugin check ldcl",
    "plugin-name": "plugin new 9lives --kind probe",
    "plugin-keyword": "plugin new lambda --kind probe",
    "plugin-taken": "plugin new ldlc --kind probe",
    "plugin-nowhere": "plugin new mine --kind probe --out there/mine",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_command_line_that_cannot_be_understood(refused, mistake):
    said = refused(*MISTAKES[mistake].split())
    assert "next: " in said or "expected: " in said


@pytest.mark.parametrize("name", ["sweep.toml", "."], ids=["absent", "directory"])
def test_a_run_file_that_cannot_be_read(refused, name):
    assert repr(name) in refused("run", name)


def test_a_run_file_of_brackets_within_brackets(refused, tmp_path):
    (tmp_path / "deep.toml").write_text("a = " + "[" * 100_000)
    assert "is no TOML" in refused("run", "deep.toml")


def test_a_place_where_nothing_can_be_written(refused, monkeypatch):
    def full(*arguments: object, **named: object) -> str:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    assert "Read-only file system" in refused("plugin", "new", "mine", "--kind", "probe")


def test_a_disk_that_fills_up_leaves_no_half_of_a_plugin(refused, monkeypatch):
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "rename", full)
    assert "No space left" in refused("plugin", "new", "mine", "--kind", "probe")


def test_parquet_is_not_for_a_terminal(refused, monkeypatch):
    pytest.importorskip("pyarrow")
    photos = ("--images", "noise:1?size=8&mode=L")
    from equivengine.cli import main

    assert main.run(["probe", "--plugin", "measure", "--model", "toy", *photos, "--out", "run"]) == 0
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert "--out FILE.parquet" in refused("export", "run", "--parquet", "--out", "-")


COMMANDS = "equivengine.commands"
COMMAND = "import click\n@click.command()\ndef command():\n    pass\n"


@pytest.mark.parametrize(
    ("sources", "says"),
    [([COMMAND, COMMAND], "claimed by 2 packages"), (["command = print\n"], "not a click command")],
    ids=["claimed-twice", "no-command"],
)
def test_a_command_that_a_package_brings_is_wrong(refused, site, sources, says):
    for place, source in enumerate(sources):
        site.install(
            "extra", source, module=f"plugin_extra_{place}:command", distribution=f"extra-{place}", group=COMMANDS
        )
    assert says in refused("extra", code=1)


HEAD = "import equivengine as eqv\nEQUIVENGINE_API = (1, 0)\n"
PROBE = HEAD + (
    "class Bad(eqv.Probe):\n    name = 'bad'\n    version = '1'\n    summary = 'bad'\n    BODY\n"
    "    def run(self, task):\n        pass\n"
    "@eqv.hookimpl\ndef equivengine_register_probes():\n    return [Bad]\n"
)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("Params = dict", "Bad.Params has a wrong type"),
        ("arity = 'three'", "Bad.arity is unknown"),
        ("labelled = 1", "Bad.labelled is no bool"),
    ],
    ids=["params", "arity", "labelled"],
)
def test_a_probe_class_that_is_wrong(refused, toys, body, says):
    toys.install("bad", PROBE.replace("BODY", body))
    assert says in refused("probe", "--plugin", "bad", "--model", "toy", code=1)


METHOD = "@classmethod\n    def {}:\n        {}"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (METHOD.format("arity_of(cls, params)", "raise OSError('no licence server')"), "Bad.arity_of failed"),
        (METHOD.format("arity_of(cls, params)", "return 'three'"), "Bad.arity_of returns no arity"),
        (METHOD.format("references_of(cls, params)", "return 1 / 0"), "Bad.references_of failed"),
        (METHOD.format("references_of(cls, params)", "return 'ten'"), "Bad.references_of returns no count"),
    ],
    ids=["arity-raises", "arity-unknown", "count-raises", "count-is-none"],
)
def test_a_probe_that_says_nothing_usable_of_what_it_takes(refused, toys, body, says):
    toys.install("bad", PROBE.replace("BODY", body))
    images = ("--images", "noise:1?size=8&mode=L")
    assert says in refused("probe", "--plugin", "bad", "--model", "toy", *images, code=1)
