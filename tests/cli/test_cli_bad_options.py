"""Options that make no sense: exit code 2, and a message that names what, what was expected, what came, what next."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(
            ("--plugin", "mesure"),
            ["no probe is called 'mesure'", "perhaps 'measure'", "equivengine ls probes"],
            id="misspelled probe",
        ),
        pytest.param(
            ("--plugin", "xyz"),
            ["no probe is called 'xyz'", "expected: ", "difference", "equivengine ls probes"],
            id="unknown probe",
        ),
        pytest.param(
            ("--model", "tow"),
            ["no model family is called 'tow'", "perhaps 'toy'", "equivengine ls models"],
            id="misspelled model",
        ),
        pytest.param(("--model", ""), ["an address is empty"], id="empty model"),
        pytest.param(
            ("--model", "toy?sed=1"),
            ["does not know the option 'sed'", "expected: seed, weights"],
            id="misspelled option",
        ),
        pytest.param(("--model", "toy?seed=x"), ["option 'seed'", "an integer"], id="option of a wrong type"),
        pytest.param(
            ("--images", "foldr:x"),
            ["no image set is called 'foldr'", "perhaps 'folder'", "equivengine ls datasets"],
            id="misspelled images",
        ),
        pytest.param(("--images", "folder"), ["needs a directory", "folder:PATH"], id="images without a folder"),
        pytest.param(
            ("--images", "photos"), ["no image set is called 'photos'", "perhaps 'folder:photos'"], id="a bare folder"
        ),
        pytest.param(
            ("--model", "resnet50"),
            ["no model family is called 'resnet50'", "perhaps 'timm:resnet50'"],
            id="a bare model of timm",
        ),
        pytest.param(
            ("--model", "facebook/dinov2-base"), ["perhaps 'hf:facebook/dinov2-base'"], id="a bare model of the hub"
        ),
        pytest.param(
            ("--executor", "seriel"),
            ["no executor is called 'seriel'", "perhaps 'serial'", "equivengine ls executors"],
            id="misspelled executor",
        ),
        pytest.param(
            ("--device", "gpu"), ["unknown device", "auto, cpu, cuda or cuda:N", "got: 'gpu'"], id="unknown device"
        ),
        pytest.param(("--device", "cuda:99"), ["'cuda:99' is not there", "--device cpu"], id="a GPU that is not there"),
        pytest.param(
            ("--limit", "0"), ["--limit is not usable", "greater than or equal to 1", "got: 0"], id="limit of 0"
        ),
        pytest.param(("--seed", "-1"), ["--seed is not usable", "greater than or equal to 0"], id="negative seed"),
        pytest.param(
            ("--seed", str(2**63)), ["--seed is not usable", "less than 9223372036854775808"], id="seed too large"
        ),
        pytest.param(("--pairing", "other"), ["'other'", "any", "other-class"], id="unknown pairing"),
        pytest.param(
            ("--pairing", "other-class"),
            ["no probe of this run takes pairs", "got: measure", "next: leave --pairing out"],
            id="pairing without pairs",
        ),
        pytest.param(("--precision", "fp16"), ["'fp16'", "fp32", "fp64"], id="unknown precision"),
        pytest.param(
            ("--set", "scal=1"),
            ["'scal' is not known", "perhaps 'scale'", "next: see `equivengine ls probes`"],
            id="misspelled parameter",
        ),
        pytest.param(("--set", "scale"), ["--set takes KEY=VALUE", "got: 'scale'"], id="parameter without a value"),
        pytest.param(
            ("--set", "scale=big"),
            ["'scale' is not usable", "a valid number\n", "got: 'big'", "equivengine ls probes"],
            id="words for a number",
        ),
        pytest.param(
            ("--set", "count=1.5"),
            ["'count' is not usable", "a valid integer", "got: 1.5"],
            id="fraction for an integer",
        ),
        pytest.param(
            ("--set", "scale=11"),
            ["'scale' is not usable", "less than or equal to 10", "got: 11"],
            id="parameter out of range",
        ),
        pytest.param(("--set", "scale=NaN"), ["'scale' is not usable", "a finite number", "got: nan"], id="NaN"),
        pytest.param(("--set", "scale=-Infinity"), ["'scale' is not usable", "a finite number"], id="infinity"),
        pytest.param(("--set", "count=" + "9" * 5000), ["'count' is not usable", "got: '9999"], id="5000 digits"),
        pytest.param(("--set", "count=" + "[" * 100000), ["'count' is not usable"], id="100000 brackets"),
        pytest.param(
            ("--set", "scale=1", "--set", "scale=2"),
            ["--set scale is given twice", "keep one of the two"],
            id="parameter given twice",
        ),
    ],
)
def test_an_option_that_makes_no_sense(cli, photos, tmp_path, arguments, says):
    given = {"--plugin": "measure", "--model": "toy", "--images": f"folder:{photos}", "--out": "run"}
    defaults = [word for key, value in given.items() if key not in arguments for word in (key, value)]
    said = cli("probe", *defaults, *arguments, code=2)
    for text in says:
        assert text in said.err
    assert said.err.count("error:") + said.err.count("Error:") == 1
    assert said.out == ""
    assert len(said.err) < 1000
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Usage"),
        (("probe",), "--plugin"),
        (("prob",), "perhaps 'probe'"),
        (("--no-plugin", "toyz", "ls", "plugins"), "--no-plugin: no plugin is called 'toyz'"),
        (("--no-plugin", "toyz", "ls", "probes"), "perhaps 'toys'"),
        (("--no-plugin", "toyz", "doctor", "--short"), "perhaps 'toys'"),
        (("ls", "everything"), "plugins"),
        (("show",), "RUN"),
        (("--nonsense",), "--nonsense"),
    ],
)
def test_a_command_that_makes_no_sense(cli, arguments, says):
    said = cli(*arguments, code=2)
    assert says in said.err + said.out


def test_plugins_can_be_left_out(measure, cli):
    assert "not loaded: toys (blocked)" in cli("--no-plugin", "toys", "probe", "--plugin", "measure", code=2).err
    said = cli("--no-plugin", "serial", "probe", "--plugin", "measure", "--model", "toy", code=2)
    assert "left out by --no-plugin" in said.err
    assert cli("--no-plugin", "jsonl_log", "ls", "plugins", "--load").out.count("left out by --no-plugin") == 1


def test_the_environment_names_the_plugins_to_load(cli, monkeypatch):
    def loaded():
        rows = cli("ls", "plugins", "--load", "--json").document["plugins"]
        return {row["name"] for row in rows if row["state"] == "loaded"}

    assert {"toys", "serial", "spectrum"} <= loaded()
    monkeypatch.setenv("EQUIVENGINE_PLUGINS", "")
    assert loaded() == set()
    assert "left out by EQUIVENGINE_PLUGINS" in cli("probe", "--plugin", "spectrum", code=2).err
    monkeypatch.setenv("EQUIVENGINE_PLUGINS", "toys, serial")
    assert loaded() == {"toys", "serial"}
    monkeypatch.setenv("EQUIVENGINE_PLUGINS", "toys,sreial")
    assert "EQUIVENGINE_PLUGINS: no plugin is called 'sreial'" in cli("ls", "probes", code=2).err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(None, ["'run.toml' does not exist"], id="no file"),
        pytest.param("models = [", ["'run.toml' is no TOML"], id="no TOML"),
        pytest.param(b"\xff\xfe", ["'run.toml' cannot be read"], id="no text"),
        pytest.param("", ["run.toml: 'probes' is missing"], id="empty"),
        pytest.param("probes = []", ["run.toml, line 1: 'probes' is not usable"], id="no probes"),
        pytest.param(
            'model = "toy"\n[[probes]]\nname = "measure"',
            ["'model' is not known", "perhaps 'models'"],
            id="misspelled key",
        ),
        pytest.param('[[probes]]\nnmae = "measure"', ["probes.0.name' is missing"], id="misspelled name of a probe"),
        pytest.param(
            '[[probes]]\nname = "measure"\nsets = {}',
            ["'probes.0.sets' is not known", "perhaps 'set'"],
            id="misspelled key of a probe",
        ),
        pytest.param(
            '[[probes]]\nname = "measure"\nset = { scale = 0 }',
            ["'scale' is not usable", "greater than 0"],
            id="parameter out of range",
        ),
        pytest.param(
            'pairing = "same"\n[[probes]]\nname = "measure"',
            ["'pairing' is not usable", "'any', 'other-class' or 'one-target'"],
            id="unknown pairing",
        ),
        pytest.param('limit = 0\n[[probes]]\nname = "measure"', ["'limit' is not usable"], id="limit of 0"),
        pytest.param(
            'models = []\n[[probes]]\nname = "measure"', ["'models' is not usable", "at least 1 item"], id="no models"
        ),
    ],
)
def test_a_run_file_that_makes_no_sense(cli, tmp_path, text, says):
    if text is not None:
        (tmp_path / "run.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    said = cli("run", "run.toml", "--out", "run", code=2)
    for part in says:
        assert part in said.err
    assert not (tmp_path / "run").exists()


def test_a_pair_needs_a_second_image(measure, tmp_path):
    said = measure("--limit", 1, images="noise:1?size=8&mode=L", probe="difference", code=2)
    assert "holds no target that differs" in said.err
    assert "--targets" in said.err
    assert not (tmp_path / "run").exists()
    measure(
        "--limit", 1, "--targets", "noise:2?size=8&mode=L&seed=9", images="noise:1?size=8&mode=L", probe="difference"
    )


def test_a_pair_of_two_classes_needs_labels_and_two_classes(measure, cli, tmp_path, save_image):
    said = measure("--pairing", "other-class", probe="difference", code=2)
    assert "'a.png' of" in said.err
    assert "has no label" in said.err
    assert "next: use a labeled set" in said.err
    (tmp_path / "classes" / "cats").mkdir(parents=True)
    for index in range(3):
        save_image(tmp_path / "classes" / "cats" / f"{index}.png", index)
    uri = f"folder:{tmp_path / 'classes'}?labels=dirs"
    said = measure("--pairing", "other-class", images=uri, probe="difference", code=2)
    assert "holds no target of another class than 'cats/0.png'" in said.err
    assert "got: 3 of its 3 images are labeled, all 'cats'" in said.err
    assert not (tmp_path / "run").exists()
    (tmp_path / "classes" / "dogs").mkdir()
    save_image(tmp_path / "classes" / "dogs" / "0.png", 7)
    measure("--pairing", "other-class", images=uri, probe="difference")
    document = cli("show", tmp_path / "run", "--json").document
    assert document["published"] == 4


def test_a_probe_without_its_option_is_told_how_to_name_it(cli):
    said = cli("probe", "measure", code=2).err
    assert "the option --plugin is missing" in said
    assert "next: equivengine probe --plugin NAME; see `equivengine probe --help`" in said
