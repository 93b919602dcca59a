"""Plugins that misbehave cost only themselves, and are named."""

from __future__ import annotations

import pytest

HEAD = "import sys\nimport equivengine as eqv\nEQUIVENGINE_API = (1, 0)\n"
PROBE = HEAD + (
    "class Bad(eqv.Probe):\n    name = 'bad'\n    version = '1'\n"
    "@eqv.hookimpl\ndef equivengine_register_probes():\n    return [Bad]\n"
)
HOOK = "@eqv.hookimpl\ndef equivengine_register_probes():\n"

BROKEN = {
    "raises_at_import": ("1 / 0", "ZeroDivisionError: division by zero"),
    "exits_at_import": ("import sys; sys.exit(3)", "it called sys.exit(3)"),
    "syntax": ("def", "SyntaxError"),
    "raises_at_registration": (f"{HEAD}{HOOK}    raise OSError('no licence server')", "OSError: no licence server"),
    "exits_at_registration": (f"{HEAD}{HOOK}    sys.exit()", "it called sys.exit(None)"),
    "no_list": (f"{HEAD}{HOOK}    return 'ldlc'", "returned no list"),
    "forgotten_return": (f"{HEAD}{HOOK}    pass", "returned no list; expected a list of classes; got None"),
    "wrong_class": (f"{HEAD}{HOOK}    return [int]", "a subclass of equivengine.Probe"),
    "no_version": (PROBE.replace("version", "edition"), "Bad has no version"),
    "long_name": (PROBE.replace("'bad'", "'b' * 5000"), "Bad has no usable name"),
    "name_of_dots": (PROBE.replace("'bad'", "'..'"), "Bad has no usable name"),
    "name_that_looks_like_another": (PROBE.replace("'bad'", "'ldl\\u0441'"), "Bad has no usable name"),
    "bad_name": (PROBE.replace("'bad'", "'b a d'"), "Bad has no usable name"),
    "same_name_twice": (PROBE.replace("[Bad]", "[Bad, Bad]"), "two classes of the name 'bad'"),
    "forgotten_marker": (PROBE.replace("@eqv.hookimpl\n", ""), "equivengine_register_probes lacks its marker"),
    "unknown_hook": (PROBE.replace("_register_probes", "_register_probe"), "perhaps 'equivengine_register_probes'"),
    "unknown_argument": (PROBE.replace("probes():", "probes(color):"), "color"),
    "no_hooks": (HEAD, "implements no hook"),
    "no_api": (PROBE.replace("EQUIVENGINE_API", "API"), "got no EQUIVENGINE_API"),
    "other_major": (PROBE.replace("(1, 0)", "(2, 0)"), "got EQUIVENGINE_API = (2, 0)"),
    "newer_minor": (PROBE.replace("(1, 0)", "(1, 7)"), "got EQUIVENGINE_API = (1, 7)"),
    "no_tuple": (PROBE.replace("(1, 0)", "'1.0'"), "got EQUIVENGINE_API = '1.0'"),
    "missing_module": (None, "No module named 'plugin_broken'"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_costs_only_itself(measure, cli, toys, fault):
    source, says = BROKEN[fault]
    toys.install("broken", source)
    rows = {row["name"]: row for row in cli("ls", "plugins", "--load", "--json").document["plugins"]}
    assert rows["broken"]["state"] == "failed"
    assert says in rows["broken"]["reason"]
    assert rows["toys"]["state"] == "loaded"
    assert says in cli("ls", "plugins", "--load").out.replace("\n", " ")
    unavailable = cli("probe", "--plugin", "broken", "--model", "toy", code=1).err
    assert "its plugin" in unavailable or "the plugin of that name is not loaded" in unavailable
    assert says in unavailable


def test_a_broken_plugin_is_a_problem_to_doctor_and_hinders_no_run(measure, cli, toys):
    toys.install("broken", "1 / 0")
    assert "PROBLEM: plugin 'broken'" in cli("doctor", code=1).out
    assert "1 failed" in cli("doctor", "--short", code=1).out
    assert cli("doctor", "--json", code=1).document["problems"]
    measure()


def test_ls_plugins_imports_none(cli, toys):
    toys.install("broken", "1 / 0")
    assert "plugin_broken" in cli("ls", "plugins").out


def test_a_missing_optional_package_is_what_the_plugin_needs_and_no_problem(measure, cli, toys):
    toys.install(
        "lean", "import some_package", requires=('Some-Package[all]>=2 ; python_version > "3" and extra == "full"',)
    )
    row = next(r for r in cli("ls", "plugins", "--load", "--json").document["plugins"] if r["name"] == "lean")
    assert (row["state"], row["reason"]) == ("needs", "needs lean[full] (the package 'some_package' is not installed)")
    said = cli("doctor")
    assert "needs lean[full]" in said.out
    assert "no problems found" in said.out
    assert "needs lean[full]" in cli("probe", "--plugin", "lean", "--model", "toy", code=1).err
    measure()


def test_two_distributions_with_one_plugin_name_are_both_named(cli, toys):
    toys.install("same", PROBE, module="first_module", distribution="first")
    toys.install("same", PROBE, module="second_module", distribution="second")
    rows = [r for r in cli("ls", "plugins", "--load", "--json").document["plugins"] if r["name"] == "same"]
    assert [row["state"] for row in rows] == ["failed", "failed"]
    assert "second_module, from second 1.0" in rows[0]["reason"]
    assert "first_module, from first 1.0" in rows[1]["reason"]
    assert "no probe is called 'bad'" in cli("probe", "--plugin", "bad", "--model", "toy", code=2).err


def test_two_plugins_that_claim_one_probe_are_both_named_and_one_can_be_left_out(measure, cli, toys):
    toys.install("other", PROBE.replace("'bad'", "'measure'"))
    said = measure(code=1)
    assert "probe 'measure' is claimed by 2 plugins" in said.err
    assert "plugin 'toys' (equivengine_toys" in said.err
    assert "plugin 'other' (plugin_other" in said.err
    assert "claimed by several plugins" in cli("ls", "probes").out
    assert "is claimed by" in cli("doctor", code=1).out
    measure(probe="difference")  # the rest of both stays usable
    options = ("--model", "toy", "--images", "noise:1?size=8&mode=L")
    cli("--no-plugin", "other", "probe", "--plugin", "measure", *options)


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        ("raises", "probe 'measure': ValueError: no luck at all"),
        ("exits", "probe 'measure': it called sys.exit('goodbye')"),
        ("nothing", "returned something else than a result"),
        ("fails", "pass --set behaviour=good"),
        ("objects", "provenance"),
    ],
)
def test_a_probe_that_misbehaves_fails_its_units(measure, cli, tmp_path, behaviour, says):
    said = measure("--set", f"behaviour={behaviour}", code=1)
    assert says in said.out
    assert "3 failed" in said.out
    assert "failed: measure · toy · 3 units: a.png, b.png, c.png" in cli("show", tmp_path / "run").out


def test_an_observer_that_fails_does_not_hinder_a_run(measure, toys):
    toys.install(
        "watcher",
        f"""{HEAD}
@eqv.hookimpl
def equivengine_unit_finished(unit, outcome):
    sys.exit("seen enough")
""",
    )
    said = measure()
    assert "3 computed" in said.out
    assert said.err.count("warning:") == 1
    assert "plugin 'watcher'" in said.err
    assert "seen enough" in said.err


def test_executors_that_misbehave(measure, cli, tmp_path):
    assert "executor 'lazy' left 1 of 3 units undone" in measure("--executor", "lazy", code=1).err
    assert "1 computed, 2 already there" in cli("resume", tmp_path / "run").out
    said = measure("--executor", "broken", out=tmp_path / "other", code=1)
    assert "executor 'broken' stopped" in said.err
    assert "OSError: the cluster is on fire" in said.err
    assert "2 computed, 1 already there" in cli("resume", tmp_path / "other").out
    assert "3 computed in" in measure("--executor", "twice", out=tmp_path / "third").out


def test_a_command_of_a_broken_package(cli, toys):
    toys.install("explode", "1 / 0", group="equivengine.commands", module="plugin_explode:command")
    assert "from explode 1.0" in cli("--help").out
    said = cli("explode", code=1)
    assert "the command 'explode' cannot be loaded" in said.err
    assert "explode 1.0: ZeroDivisionError" in said.err


def test_what_nobody_foresaw_is_one_block_with_the_place(cli, toys, monkeypatch):
    source = "import click\n@click.command()\ndef command():\n    raise KeyError('x')\n"
    toys.install("odd", source, group="equivengine.commands", module="plugin_odd:command")
    said = cli("odd", code=1)
    assert "something unexpected went wrong" in said.err
    assert "KeyError: 'x' (in " in said.err
    assert "EQUIVENGINE_TRACEBACK=1" in said.err
    monkeypatch.setenv("EQUIVENGINE_TRACEBACK", "1")
    with pytest.raises(KeyError):
        cli("odd")
