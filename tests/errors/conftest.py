from __future__ import annotations

import os
from pathlib import Path

import pytest

MARKS = ("error:", "  expected: ", "  got: ", "  next: ")


@pytest.fixture
def refused(lasting_toys, tmp_path, monkeypatch, capsys):
    """Run a command that cannot be carried out: one error without a traceback, and nothing is left behind.

    ``keeps`` names what the command may leave, as a run whose units failed does.
    """
    from equivengine.cli import main

    monkeypatch.chdir(tmp_path)
    for name in ("COLUMNS", "EQUIVENGINE_DEVICE", "EQUIVENGINE_EXECUTOR", "EQUIVENGINE_PROGRESS"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: object, code: int = 2, keeps: tuple[str, ...] = ()) -> str:
        before = _tree(tmp_path, keeps)
        capsys.readouterr()
        found = main.run([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert found == code, err + out
        assert _tree(tmp_path, keeps) == before
        if not keeps:
            assert out == ""
            assert err.count("error:") == 1
            assert err.startswith("error: ")
            assert all(line.startswith(MARKS) for line in err.splitlines()), err
        return out + err

    return run


def _tree(folder: Path, keeps: tuple[str, ...]) -> dict[str, bytes]:
    paths = [Path(base) / name for base, _, names in os.walk(folder) for name in names]
    found = {path.relative_to(folder) for path in paths}
    return {str(path): (folder / path).read_bytes() for path in sorted(found) if path.parts[0] not in keeps}
