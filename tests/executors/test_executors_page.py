"""docs/executors.md: its blocks that need no cluster run as they stand, one after the other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "executors.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"<!-- run ?(\S*) -->\n```(\w+)\n(.*?)```", PAGE, re.DOTALL)


def test_every_block_is_run_or_needs_a_cluster():
    others = re.sub(r"<!-- run ?\S* -->\n```\w+\n.*?```", "", PAGE, flags=re.DOTALL)
    needing = re.findall(r"```(\w*)\n(.*?)```", others, re.DOTALL)
    assert len(BLOCKS) == 7
    assert [language for language, _ in needing] == ["sh"] * 3
    for _, text in needing:
        assert "head:8786" in text or "partition=" in text


def test_every_parameter_that_is_named_exists():
    from equivengine_plugins.executors.dask import DaskParams
    from equivengine_plugins.executors.slurm import SlurmParams

    known = {*DaskParams.model_fields, *SlurmParams.model_fields}
    named = set(re.findall(r"--set-executor ([a-z_]+)=", PAGE))
    assert len(named) > 8
    assert named <= known


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_blocks_run(tmp_path):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("OMP_NUM_THREADS", None)
    for name, language, text in BLOCKS:
        if language == "toml":
            (tmp_path / name).write_text(text, encoding="utf-8")
            continue
        commands = [line.removeprefix("$ ") for line in text.splitlines()] if language == "console" else [None]
        for command in commands:
            words = ["bash", "-c", command] if command is not None else [sys.executable, "-c", text]
            done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250)
            assert done.returncode == 0, done.stdout + done.stderr
    assert "'name': 'dask'" in done.stdout
    assert "'threads': 1, 'workers': 2" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "sweep.toml"]
