"""Models that cannot be had, or that break the contract of an encoder."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        pytest.param("nan", ["returns NaN or infinity"], id="nan"),
        pytest.param("tuple", ["does not return one tensor", "tuple of 2"], id="tuple"),
        pytest.param("shape", ["output of a wrong shape", "got: [2, 5, 1]"], id="shape"),
        pytest.param("fickle", ["two different embeddings", "dropout"], id="fickle"),
        pytest.param(
            "raises",
            ["cannot be loaded", "plugin 'toys'", "RuntimeError: this backend cannot load anything"],
            id="raises",
        ),
        pytest.param("exits", ["cannot be loaded", "plugin 'toys'", "it called sys.exit(0)"], id="exits"),
        pytest.param("needs", ["cannot be loaded", "No module named 'a_package_that_nobody_has'"], id="needs"),
    ],
)
def test_a_model_that_breaks_the_contract(measure, tmp_path, behaviour, says):
    said = measure("--model", f"toy:{behaviour}", code=1)
    for text in (f"'toy:{behaviour}'", *says):
        assert text in said.err
    assert said.out == ""
    assert not (tmp_path / "run").exists()


def test_a_model_that_lacks_an_optional_package_says_what_to_install(measure, toys):
    toys.install(
        "lean",
        """
        import equivengine as eqv
        EQUIVENGINE_API = (1, 0)
        class Lean(eqv.Backend):
            name = "lean"
            def load(self, uri):
                import Some_Package.part
        @eqv.hookimpl
        def equivengine_register_backends():
            return [Lean]
        """,
        requires=('some-package>=2; extra == "vision"',),
    )
    assert "needs lean[vision]" in measure("--model", "lean", code=1).err


def test_nan_for_one_image_fails_that_image(measure, photos):
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(photos / "b.png")
    said = measure("--model", "toy:nan_when_dark", code=3)
    assert "returns NaN or infinity for 'b.png'" in said.out
    assert "2 computed, 1 failed" in said.out


def test_weights_that_changed_since_the_plan(measure, cli, tmp_path):
    weights = tmp_path / "weights.txt"
    weights.write_text("1")
    measure("--model", f"toy?weights={weights}")
    for shard in list((tmp_path / "run" / "shards").rglob("*.h5"))[:2]:
        shard.unlink()
    weights.write_text("2")
    said = cli("resume", tmp_path / "run", code=3)
    assert "1 already there, 2 failed" in said.out
    assert "have changed since the run was planned" in said.out
    assert said.out.count("have changed") == 1  # two units, one reason
    assert "holds another plan" in measure("--model", f"toy?weights={weights}", code=1).err
    weights.write_text("1")
    assert "2 computed, 1 already there" in cli("resume", tmp_path / "run").out
    weights.unlink()
    assert "3 already there" in cli("resume", tmp_path / "run").out  # nothing to do, nothing to load


def test_weights_that_cannot_be_had_name_the_ways_out(cli, start, tmp_path):
    arguments = ("probe", "--plugin", "measure", "--model", "timm:vit_tiny_patch16_224", "--images", "samples")
    process = start(*arguments, "--json", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hub"))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == ""
    assert "vit_tiny_patch16_224" in err
    assert "weights=random" in err
    assert "Traceback" not in err
    assert err.startswith("error:")


def test_a_weights_file_that_is_not_there(measure):
    assert "'/nowhere.safetensors'" in measure("--model", "timm:test_vit?weights=/nowhere.safetensors", code=1).err


def test_libraries_deprecations_stay_off_the_terminal(measure, toys):
    toys.install(
        "noisy",
        """
        import warnings
        import equivengine as eqv
        from equivengine_toys import Toy
        EQUIVENGINE_API = (1, 0)
        class Noisy(Toy):
            name = "noisy"
            def load(self, uri):
                warnings.warn("use something newer", FutureWarning)
                return super().load(uri)
        @eqv.hookimpl
        def equivengine_register_backends():
            return [Noisy]
        """,
    )
    assert "something newer" not in measure("--model", "noisy").err


@pytest.mark.parametrize("address", ["timm:vit_tinny_patch16_224", "open_clip:ViT-B-33?weights=random"])
def test_an_unknown_architecture_names_close_matches(measure, address):
    said = measure("--model", address, code=2)
    assert "perhaps" in said.err or "expected" in said.err


def test_a_resumed_run_tries_a_missing_model_once(measure, cli, tmp_path):
    weights = tmp_path / "weights.txt"
    weights.write_text("1")
    measure("--model", f"toy?weights={weights}")
    for shard in (tmp_path / "run" / "shards").rglob("*.h5"):
        shard.unlink()
    weights.unlink()
    said = cli("resume", tmp_path / "run", code=1)
    assert "3 units: a.png, b.png, c.png" in said.out
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [entry["outcome"] for entry in log if entry["event"] == "unit_finished"][-3:] == ["failed"] * 3
