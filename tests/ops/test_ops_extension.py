import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from equivengine.errors import ExtensionError, UsageError
from equivengine.ops import extension

FACTS = {"torch": torch.__version__, "torch_cuda": torch.version.cuda, "cuda": None, "isa": ["base"]}


def fake_extension(folder: Path, text: str) -> Path:
    path = folder / f"_C{extension.importlib.machinery.EXTENSION_SUFFIXES[0]}"
    path.write_bytes(b"\x7fELF" + bytes(1000) + text.encode() + b"\0 tail")
    return path


def with_facts(folder: Path, **changes: object) -> Path:
    return fake_extension(folder, "EQUIVENGINE_BUILD_FACTS=" + json.dumps({**FACTS, **changes}))


def test_reads_the_facts_without_loading(tmp_path):
    facts = extension.read_facts(with_facts(tmp_path))
    assert facts == FACTS
    extension.check_facts(facts, tmp_path)


def test_reads_the_facts_of_the_real_extension(compiled):
    facts = extension.read_facts(compiled.path)
    assert {key: compiled.facts[key] for key in facts} == facts
    assert set(compiled.facts) - set(facts) == {"isa_chosen"}
    assert compiled.facts["isa_chosen"] in facts["isa"]


def test_refuses_a_real_extension_whose_marker_names_another_torch(compiled, tmp_path):
    path = tmp_path / compiled.path.name
    ours, other = torch.__version__.encode(), b"0" + torch.__version__.encode()[1:]
    data = compiled.path.read_bytes()
    assert data.count(b'"torch": "' + ours) == 1
    path.write_bytes(data.replace(b'"torch": "' + ours, b'"torch": "' + other))
    with pytest.raises(ExtensionError, match=r"built for another torch(.|\n)*pip install --no-build-isolation"):
        extension.check_facts(extension.read_facts(path), path)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"torch": "1.0.0"}, id="another torch"),
        pytest.param({"torch": "1.0.0+cu130"}, id="another torch for the same CUDA"),
        pytest.param({"torch_cuda": "1.1"}, id="another CUDA"),
        pytest.param({"torch_cuda": "none at all"}, id="unknown CUDA"),
    ],
)
def test_refuses_another_torch_or_cuda(tmp_path, changes):
    path = with_facts(tmp_path, **changes)
    with pytest.raises(ExtensionError) as caught:
        extension.check_facts(extension.read_facts(path), path)
    assert "pip install --no-build-isolation ." in caught.value.hint
    assert "make setup" in caught.value.hint
    assert str(path) in caught.value.what


def test_accepts_another_build_of_the_same_release(tmp_path):
    path = with_facts(tmp_path, torch=torch.__version__.partition("+")[0] + "+local")
    extension.check_facts(extension.read_facts(path), path)


@pytest.mark.parametrize(
    "text", ["", "no marker", "EQUIVENGINE_BUILD_FACTS={", "EQUIVENGINE_BUILD_FACTS=[]", "EQUIVENGINE_BUILD_FACTS={}"]
)
def test_refuses_a_file_without_readable_facts(tmp_path, text):
    with pytest.raises(ExtensionError, match="carries no build facts"):
        extension.read_facts(fake_extension(tmp_path, text))


def test_refuses_an_empty_file(tmp_path):
    (tmp_path / "_C.so").touch()
    with pytest.raises(ExtensionError, match="carries no build facts"):
        extension.read_facts(tmp_path / "_C.so")


def test_finds_the_file_of_this_python_only(tmp_path):
    assert extension.find(tmp_path) is None
    (tmp_path / "_C.cpython-27-pdp11.so").touch()
    with pytest.raises(ExtensionError, match="another Python"):
        extension.find(tmp_path)
    path = with_facts(tmp_path)
    assert extension.find(tmp_path) == path


def test_refuses_a_mode_it_does_not_know(monkeypatch):
    monkeypatch.setenv("EQUIVENGINE_EXTENSION", "maybe")
    with pytest.raises(UsageError, match=r"auto \| off \| require"):
        extension.mode()


def test_load_is_idempotent(compiled):
    assert extension.load() == extension.load() == extension.status()


LOAD = """
from equivengine.ops import extension
from equivengine.errors import EngineError
before = extension.status()
try:
    import equivengine.ops.layer_norm
    outcome = "defined"
except EngineError as error:
    outcome = type(error).__name__ + ": " + error.what
after = extension.status()
print([before.available, before.loaded, after.loaded, outcome, after.reason])
"""


@pytest.fixture
def copied_package(tmp_path):
    """A copy of the part of the package that loads the extension, without a compiled file."""
    source = extension._PACKAGE
    target = tmp_path / "equivengine"
    shutil.copytree(source / "ops", target / "ops", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(source / "errors.py", target)
    (target / "__init__.py").touch()
    return target


def outcome(in_fresh_process, folder: Path, mode: str) -> list:
    source = f"import sys; sys.path.insert(0, {str(folder.parent)!r})\n" + LOAD
    return eval(in_fresh_process(source, EQUIVENGINE_EXTENSION=mode))


def test_a_missing_extension_under_auto_is_said_in_words(in_fresh_process, copied_package):
    available, before, after, result, reason = outcome(in_fresh_process, copied_package, "auto")
    assert (available, before, after, result) == (False, False, False, "defined")
    assert reason.startswith("no compiled extension:")


def test_a_missing_extension_is_an_error_where_it_is_required(in_fresh_process, copied_package):
    *_, result, _ = outcome(in_fresh_process, copied_package, "require")
    assert result == "ExtensionError: EQUIVENGINE_EXTENSION=require, but there is no compiled extension"


@pytest.mark.parametrize("mode", ["auto", "require"])
def test_an_extension_that_does_not_fit_is_an_error(in_fresh_process, copied_package, mode):
    with_facts(copied_package, torch="1.0.0")
    available, *_, result, reason = outcome(in_fresh_process, copied_package, mode)
    assert not available
    assert result.startswith("ExtensionError: the compiled extension")
    assert "built for another torch" in reason


@pytest.mark.parametrize("mode", ["auto", "require"])
def test_an_extension_that_cannot_be_loaded_is_an_error(in_fresh_process, copied_package, mode):
    with_facts(copied_package)
    *_, result, _ = outcome(in_fresh_process, copied_package, mode)
    assert "cannot be loaded" in result


def test_off_asks_for_nothing(in_fresh_process, copied_package):
    with_facts(copied_package, torch="1.0.0")
    available, _, loaded, result, reason = outcome(in_fresh_process, copied_package, "off")
    assert (available, loaded, result) == (False, False, "defined")
    assert reason.startswith("off: EQUIVENGINE_EXTENSION=off")


def test_an_unknown_instruction_set_is_refused(compiled, in_fresh_process):
    with pytest.raises(AssertionError, match=r"expected base \| avx2 \| avx512, got 'sse9'"):
        in_fresh_process("import equivengine.ops.layer_norm", EQUIVENGINE_CPU_ISA="sse9")


def test_the_variants_share_no_symbol_that_the_linker_could_merge():
    """A weak symbol in a per-ISA object could hand AVX-512 code to the base variant."""
    root = extension._PACKAGE.parent
    objects = list((root / "build").glob("temp*/*/csrc/cpu/*_kernel_*.o")) if (root / "build").is_dir() else []
    if not objects or shutil.which("nm") is None:
        pytest.skip("no object files of an in-place build, or no nm")
    for path in objects:
        symbols = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout.splitlines()
        assert [line for line in symbols if line.split()[-2] in "VvWwu"] == [], path
