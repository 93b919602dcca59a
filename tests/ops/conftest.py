import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from equivengine.ops import extension

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def in_fresh_process() -> Callable[..., str]:
    """Run Python source in a new process with environment variables set; returns what it prints.

    The extension is loaded once in a process, so its modes and instruction sets need one each.
    """

    def run(source: str, **environment: str) -> str:
        path = os.pathsep.join([str(ROOT), str(ROOT / "plugins"), os.environ.get("PYTHONPATH", "")])
        result = subprocess.run(
            [sys.executable, "-W", "ignore::FutureWarning", "-c", source],
            env={**os.environ, "PYTHONPATH": path, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


@pytest.fixture
def compiled() -> extension.ExtensionStatus:
    """The loaded extension; skips where there is none."""
    status = extension.load()
    if not status.loaded:
        pytest.skip(f"needs the compiled extension; {status.reason}")
    return status
