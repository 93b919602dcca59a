"""What holds for every image-set plugin: registration, names, and how little its import costs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import equivengine as eqv

MODULES = ["digits", "samples", "folder", "noise", "imagenet", "coco", "openimages", "lines", "sentences"]
#: Those whose examples name a place that is not there.
ELSEWHERE = {"folder", "imagenet", "coco", "openimages", "lines"}


def load(name: str):
    return importlib.import_module(f"equivengine_plugins.datasets.{name}")


@pytest.mark.parametrize("name", MODULES)
def test_each_registers_one_dataset_under_its_name(name):
    module = load(name)
    assert module.EQUIVENGINE_API == (1, 0)
    assert hasattr(module.equivengine_register_datasets, "equivengine_impl")
    (dataset,) = module.equivengine_register_datasets()
    assert issubclass(dataset, eqv.Dataset)
    assert dataset.name == name
    assert dataset.summary
    assert "\n" not in dataset.summary
    assert dataset.examples


@pytest.mark.parametrize("name", MODULES)
def test_each_example_is_an_address_of_its_own(name):
    (dataset,) = load(name).equivengine_register_datasets()
    for example in dataset.examples:
        uri = eqv.URI.parse(example)
        assert uri.scheme == name
        if name in ELSEWHERE:
            with pytest.raises(eqv.DataError, match=r"does not exist|cannot be opened"):
                dataset(uri)
        else:
            dataset(uri)


def test_importing_and_registering_them_imports_no_heavy_library():
    program = f"""
import importlib, sys
for name in {MODULES!r}:
    importlib.import_module("equivengine_plugins.datasets." + name).equivengine_register_datasets()
print(*sorted({{"torch", "torchvision", "PIL", "numpy", "safetensors"}} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == ""


def test_using_them_does_not_import_torch():
    program = """
import sys
import equivengine as eqv
from equivengine_plugins.datasets import digits, noise, samples
digits.HeldOutDigits(eqv.URI.parse("digits"))[0].load()
samples.Samples(eqv.URI.parse("samples"))[0].load()
noise.Noise(eqv.URI.parse("noise:1?size=2"))[0].load()
print("torch" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "False"


def test_they_import_nothing_of_equivengine_but_its_public_names():
    import ast

    for path in sorted(Path(load("folder").__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("equivengine."), path
            if isinstance(node, ast.Import):
                assert all(not alias.name.startswith("equivengine.") for alias in node.names), path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "eqv":
                assert node.attr in eqv.__all__, f"{path}: eqv.{node.attr}"
