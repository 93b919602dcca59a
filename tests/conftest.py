"""Fixtures for tests that need plugins of their own: a tiny encoder with probes, and a way to install more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOYS = ROOT / "tests" / "toys"
sys.path.insert(0, str(ROOT / "tests" / "errors"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of the recorder of errors."""
    parser.addoption("--record-errors", metavar="FILE", help="write down every error that is made")


def pytest_configure(config: pytest.Config) -> None:
    """Hold errors against tests/errors/records; let tests interrupt what they start."""
    import error_recorder

    error_recorder.start(config)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # `make test &`: what tests start would ignore it too
        signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass
class SitePackages:
    """A folder on the import path, in which plugins can be installed as pip would leave them."""

    path: Path
    modules: set[str] = field(default_factory=set)

    def install(
        self,
        name: str,
        source: str | None = None,
        *,
        module: str | None = None,
        distribution: str | None = None,
        requires: tuple[str, ...] = (),
        group: str = "equivengine",
    ) -> None:
        """Install a plugin.

        Args:
            name: Entry-point name.
            source: Code of its module; None if it exists already.
            module: Name of the module (or ``module:attribute``); ``plugin_NAME`` when None.
            distribution: Name of the distribution; ``NAME`` when None.
            requires: Requirements, with extras after a semicolon.
            group: Entry-point group.
        """
        module = module or f"plugin_{name}"
        distribution = distribution or name
        if source is not None:
            file = module.partition(":")[0]
            (self.path / f"{file}.py").write_text(textwrap.dedent(source))
            self.modules.add(file)
        info = self.path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        extras = {line.partition("extra ==")[2].strip(" '\"") for line in requires if "extra ==" in line}
        metadata = [f"Name: {distribution}", "Version: 1.0", *(f"Requires-Dist: {line}" for line in requires)]
        metadata += [f"Provides-Extra: {extra}" for extra in sorted(extras)]
        (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *metadata, ""]))
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}\n")


def _site(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SitePackages]:
    packages = SitePackages(folder)
    paths = [str(packages.path), str(TOYS)]
    for path in reversed(paths):
        monkeypatch.syspath_prepend(path)
    before = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*paths, str(ROOT), str(ROOT / "plugins"), *before]))
    monkeypatch.delenv("EQUIVENGINE_PLUGINS", raising=False)
    loading = sys.modules.get("equivengine.runtime.loading")
    if loading is not None:  # plugins that an earlier test has loaded for this process
        monkeypatch.setattr(loading, "_registry", None)
    yield packages
    for module in packages.modules:
        sys.modules.pop(module, None)


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[SitePackages]:
    """A folder for plugins, on ``sys.path`` here and on PYTHONPATH of child processes."""
    yield from _site(tmp_path_factory.mktemp("site"), monkeypatch)


@pytest.fixture(scope="module")
def lasting_toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SitePackages]:
    """The toy plugin for all tests of a module, which load all plugins once."""
    with pytest.MonkeyPatch.context() as patch:
        import equivengine.runtime.loading  # noqa: F401  # so that what it has loaded is put back at the end

        for packages in _site(tmp_path_factory.mktemp("site"), patch):
            packages.install("toys", module="equivengine_toys")
            yield packages


@pytest.fixture
def toys(site: SitePackages) -> SitePackages:
    """`site` with the toy plugin: the model ``toy``, probes such as ``measure`` and ``together``, odd executors."""
    site.install("toys", module="equivengine_toys")
    return site


@pytest.fixture
def save_image() -> Callable[[Path, int], Path]:
    """Write a gray 8 x 8 image that is a function of a seed."""

    def save(path: Path, seed: int) -> Path:
        import numpy as np
        from PIL import Image

        pixels = np.random.default_rng(seed).integers(1, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return save


@pytest.fixture
def photos(tmp_path: Path, save_image: Callable[[Path, int], Path]) -> Path:
    """A folder of three different gray images, a.png, b.png and c.png."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, name in enumerate("abc"):
        save_image(folder / f"{name}.png", seed)
    return folder


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``equivengine ARGUMENTS`` in a process of its own; ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: object, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "equivengine", *map(str, arguments)],
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()
