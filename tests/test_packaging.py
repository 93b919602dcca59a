"""What a user gets who installs the package: entry points, data, sources, a quick command line."""

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distribution, entry_points
from pathlib import Path

import pytest

import equivengine

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HEAVY = ("torch", "numpy", "timm", "open_clip", "h5py", "pydantic", "matplotlib", "scipy", "sklearn")


def declared(group: str) -> dict[str, str]:
    return PROJECT["project"]["entry-points"][group]


def imported_by(source: str, *arguments: str) -> tuple[str, set[str]]:
    """Run Python source in a new process; returns what it prints and which heavy modules it imported."""
    tail = f"\nimport sys, json\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", source + tail, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    *printed, last = done.stdout.splitlines()
    return "\n".join(printed), set(json.loads(last))


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group in PROJECT["project"]["entry-points"] for name in declared(group)]
)
def test_entry_point_leads_to_code_and_is_installed(group, name):
    module, _, attribute = declared(group)[name].partition(":")
    found = importlib.import_module(module)
    assert not attribute or hasattr(found, attribute)
    installed = {entry.name: entry.value for entry in entry_points(group=group)}
    assert installed.get(name) == declared(group)[name], "stale metadata: install again (`make setup`)"


def test_every_module_that_declares_the_contract_is_an_entry_point():
    folder = ROOT / "plugins" / "equivengine_plugins"
    declaring = set()
    for path in folder.rglob("*.py"):
        assigned = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign)]
        names = {target.id for node in assigned for target in node.targets if isinstance(target, ast.Name)}
        if "EQUIVENGINE_API" in names:
            parts = path.relative_to(folder.parent).with_suffix("").parts
            declaring.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    assert declaring == set(declared("equivengine").values())


def test_version_is_the_same_everywhere():
    changelog = re.findall(r"^## \[([0-9.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE).group(1)
    versions = {equivengine.__version__, PROJECT["project"]["version"], changelog[0], citation}
    assert versions == {distribution("equivengine").version}


@pytest.mark.parametrize("arguments", [["-m", "equivengine", "--version"], ["-m", "equivengine", "--help"]])
def test_runs_as_a_module(arguments, tmp_path):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("equivengine" if "--version" in arguments else "Usage: equivengine")
    if "--version" in arguments:
        assert equivengine.__version__ in done.stdout


def test_the_program_is_installed():
    program = Path(sys.executable).parent / "equivengine"
    if not program.exists():
        pytest.skip("runs from the source tree, without being installed")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60)
    assert equivengine.__version__ in done.stdout


def test_importing_the_package_imports_nothing_heavy():
    assert imported_by("import equivengine") == ("", set())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["probe", "--help"], ["ls", "plugins"], ["nonsense"]])
def test_the_command_line_imports_no_torch(arguments):
    source = "import sys\nfrom equivengine.cli.main import run\nrun(sys.argv[1:])"
    printed, heavy = imported_by(source, *arguments)
    assert not heavy & {"torch", "timm", "open_clip", "matplotlib", "scipy", "sklearn", "h5py"}
    assert printed or arguments == ["nonsense"]


@pytest.mark.parametrize("module", sorted(declared("equivengine").values()))
def test_importing_a_plugin_imports_no_model_library(module):
    _, heavy = imported_by(f"import {module}")
    assert not heavy & {"torch", "timm", "open_clip", "matplotlib", "scipy", "sklearn"}


def test_package_data_stands_where_the_patterns_find_it():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["equivengine_plugins"]
    folder = ROOT / "plugins" / "equivengine_plugins"
    found = {path.name for pattern in patterns for path in folder.glob(pattern)}
    assert {"py.typed", "samples.json", "digits_heldout.safetensors", "digits_vit.safetensors"} <= found
    assert (ROOT / "equivengine" / "py.typed").is_file()
    assert sum(path.stat().st_size for path in folder.rglob("data/*")) < 6e6


def test_notice_names_every_bundled_photograph_and_its_author():
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    listed = json.loads((ROOT / "plugins/equivengine_plugins/datasets/data/samples.json").read_text(encoding="utf-8"))
    for image in listed["images"]:
        assert image["file"] in notice
        assert image["author"] in notice
    assert "10.24432/C50P49" in notice
    assert "CC BY 4.0" in notice


def test_the_source_archive_takes_every_kernel_source():
    (line,) = [
        row for row in (ROOT / "MANIFEST.in").read_text().splitlines() if row.startswith("recursive-include csrc")
    ]
    suffixes = {pattern.removeprefix("*") for pattern in line.split()[2:]}
    assert {path.suffix for path in (ROOT / "csrc").rglob("*") if path.is_file()} <= suffixes


def test_every_requirement_is_pinned_for_development():
    def name(requirement: str) -> str:
        return re.match(r"[A-Za-z0-9._-]+", requirement).group().replace("_", "-").lower()

    text = (ROOT / "constraints.txt").read_text()
    pinned = {name(row) for row in text.splitlines() if row and not row.startswith("#")}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
    for extra in ("test", "dev", "train"):
        wanted += extras[extra]
    assert {name(requirement) for requirement in wanted} - {"equivengine"} <= pinned
    assert all(re.fullmatch(r"[a-z0-9-]+==[A-Za-z0-9.]+", row) for row in text.splitlines() if row[:1] not in ("#", ""))


def copy_tree(copy: Path) -> Path:
    """Copy what belongs to the project, without what was built."""
    ignore = shutil.ignore_patterns(".*", "build", "dist", "runs", "*.egg-info", "*.so", "__pycache__", "results")
    return shutil.copytree(ROOT, copy, ignore=ignore)


@pytest.fixture
def tree(tmp_path) -> Path:
    """A copy of the source tree."""
    return copy_tree(tmp_path / "tree")


def build(tree: Path, call: str) -> Path:
    """Call setuptools' build backend in a tree; returns the archive."""
    out = tree.parent / "dist"
    out.mkdir()
    source = f"from setuptools import build_meta\nprint(build_meta.{call.format(out=str(out))})"
    environment = {**os.environ, "EQUIVENGINE_NO_EXTENSION": "1"}
    done = subprocess.run([sys.executable, "-c", source], cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_a_wheel_holds_code_data_and_licences_and_nothing_else(tree):
    with zipfile.ZipFile(build(tree, "build_wheel({out!r})")) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"equivengine", "equivengine_plugins", f"equivengine-{equivengine.__version__}.dist-info"}
    for needed in (
        "equivengine/py.typed",
        "equivengine_plugins/datasets/data/samples.json",
        "equivengine_plugins/datasets/data/chelsea.jpg",
        "equivengine_plugins/backends/digits/data/digits_vit.safetensors",
        f"equivengine-{equivengine.__version__}.dist-info/licenses/LICENSE",
        f"equivengine-{equivengine.__version__}.dist-info/licenses/NOTICE",
    ):
        assert needed in names
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "equivengine").rglob("*.py")}
    modules |= {str(path.relative_to(ROOT / "plugins")) for path in (ROOT / "plugins").rglob("*.py")}
    assert modules == {name for name in names if name.endswith(".py")}


@pytest.mark.slow
def test_a_source_archive_holds_what_a_build_needs(tree):
    import tarfile

    with tarfile.open(build(tree, "build_sdist({out!r})")) as archive:
        names = archive.getnames()
    inside = {name.partition("/")[2] for name in names}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*") if path.is_file()}
    sources |= {str(path.relative_to(ROOT)) for path in (ROOT / "recipes").iterdir()}
    assert sources | {"setup.py", "pyproject.toml", "LICENSE", "NOTICE", "README.md"} <= inside
