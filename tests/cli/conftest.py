from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import pytest
from report_cases import SPEAKER

from equivengine.cli import main


@dataclass
class Said:
    """What a command printed."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


@pytest.fixture
def cli(toys, tmp_path, monkeypatch, capsys):
    """Run the command line in this process, in an empty directory; checks the exit code and that nothing is traced."""
    monkeypatch.chdir(tmp_path)
    for name in ("COLUMNS", "EQUIVENGINE_DEVICE", "EQUIVENGINE_EXECUTOR", "EQUIVENGINE_PROGRESS"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object, code: int = 0) -> Said:
        capsys.readouterr()
        found = main.run([str(argument) for argument in arguments])
        said = Said(found, *capsys.readouterr())
        assert "Traceback" not in said.out + said.err
        assert found == code, said.err + said.out
        return said

    return run


@pytest.fixture
def measure(cli, photos, tmp_path):
    """`cli` on the probe ``measure``, the toy model, three photos and the directory ``run``."""

    def run(*arguments: object, code: int = 0, images: str | None = None, out: object = None, probe="measure") -> Said:
        given = ["--images", images or f"folder:{photos}", "--out", out or tmp_path / "run"]
        if "--model" not in arguments:
            given += ["--model", "toy"]
        return cli("probe", "--plugin", probe, *given, *arguments, code=code)

    return run


@pytest.fixture
def speaker(toys):
    """Install the probe that speaks."""

    def install(text="", version="1"):
        for module in ("plugin_speaker",):
            sys.modules.pop(module, None)
        for old in toys.path.glob("speaker-*"):
            for file in old.iterdir():
                file.unlink()
            old.rmdir()
        toys.install("speaker", SPEAKER.format(text=text, version=version))

    return install


@pytest.fixture
def spoken(measure, speaker, tmp_path):
    """A run of it on three photos."""

    def run(*arguments, text="", version="1", out="run"):
        speaker(text, version)
        measure(*arguments, probe="speaker", out=tmp_path / out)
        return tmp_path / out

    return run
