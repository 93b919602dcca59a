"""A reader who types what stands on a page, in one directory, from top to bottom."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pages
import pytest
from stand_ins import Shelf

from equivengine.cli import main
from equivengine.runtime.config import RunConfig, load_toml

#: Settings that take no time, by probe, for what a page's own command does not set itself.
SMALL: dict[str, dict[str, str]] = {
    "ldlc": {"directions": "8", "null_directions": "8", "singular_directions": "4", "gradient_steps": "2"},
    "lipschitz": {"steps": "2", "starts": "1"},
    "lsb": {"draws": "8", "starts": "1", "steps": "2", "references": "8"},
    "match": {"references": "8", "max_jacobians": "2", "steps": "5"},
    "nullwalk": {"steps": "2", "references": "8"},
    "numerics": {"directions": "4", "steps": "12", "lengths": "6", "normal_directions": "2", "null_directions": "2"},
    "path": {"points": "5", "steps": "1", "max_jacobians": "2", "rank": "4", "spaces": "2", "references": "8"},
    "projection": {"references": "30", "max_jacobians": "2", "resamples": "50", "pairs": "1"},
    "spectrum": {},
    "transfer": {"references": "30", "max_jacobians": "2", "pairs": "2"},
}
LIMIT = {"transfer": 12, "projection": 12}  # sets; of the others one unit says what the command says


class Reader:
    """Enters commands and runs code in one directory, in this process where that can be.

    Args:
        directory: Empty directory to work in.
        shelf: What stands in for weights and image sets.
        capsys: pytest's.
        monkeypatch: pytest's.
        small: Few directions, steps and samples.
    """

    def __init__(
        self,
        directory: Path,
        shelf: Shelf,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        small: bool,
    ) -> None:
        self.directory, self.shelf, self.capsys, self.small = directory, shelf, capsys, small
        self.namespace: dict[str, Any] = {"__name__": "__page__"}
        monkeypatch.chdir(directory)
        monkeypatch.syspath_prepend(directory)
        for name, value in {"COLUMNS": "110", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
        for name in ("bench", "recipes"):
            (directory / name).symlink_to(pages.ROOT / name)

    def read(self, block: pages.Block) -> list[tuple[str, str, str]]:
        """Execute a block; returns its commands, what they printed, and what the page shows of that."""
        if block.language == "python":
            exec(compile("\n" * block.line + block.body, block.page, "exec"), self.namespace)
            return []
        if block.language == "toml":
            check_toml(block.body)
            return []
        return [(command, self.enter(command, shown.startswith("error:")), shown) for command, shown in block.commands]

    def enter(self, command: str, error: bool = False) -> str:
        """Enter a command; returns its standard output, or where the page shows an error, what it says of it."""
        for_a_shell = re.search(r"[|<>;&$]", re.sub(r"'[^']*'|\"[^\"]*\"", "", command))
        command = self.shelf.replaced(command)
        words = shlex.split(command, comments=True)
        self.capsys.readouterr()
        if for_a_shell or words[0] == "python":
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], capture_output=True, text=True)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            return done.stdout
        assert words[0] == "equivengine", f"a page enters {command!r}: neither equivengine nor python"
        code = main.run(self.smaller(words[1:]) if self.small else words[1:])
        said = self.capsys.readouterr()
        assert (code != 0) is error, f"{command} exits with {code}\n{said.out}{said.err}"
        return said.err if error else said.out

    def smaller(self, words: list[str]) -> list[str]:
        """`probe` and `run` with settings that take no time, where the page sets none."""
        if words[0] == "run":  # a dry run may measure a unit
            return [words[0], str(self.smaller_file(Path(words[1]))), *words[2:]]
        if words[0] != "probe" or not {"--plugin", "--probe"} & set(words):
            return words
        name = words[words.index("--plugin" if "--plugin" in words else "--probe") + 1]
        pairs = [words[place + 1].partition("=") for place, word in enumerate(words) if word == "--set"]
        given = {key: value for key, _, value in pairs}
        for key, value in small_settings(name, given).items():
            if key not in given:
                words = [*words, "--set", f"{key}={value}"]
        if "--limit" in words:
            words = [*words, "--limit", str(min(LIMIT.get(name, 1), int(words[words.index("--limit") + 1])))]
            return words
        return [*words, "--limit", str(LIMIT.get(name, 1))]

    def smaller_file(self, path: Path) -> Path:
        """A run file with small settings, of few samples."""
        config = load_toml(path)
        limit = max(LIMIT.get(request.name, 1) for request in config.probes)
        lines = [f"models = {list(config.models)!r}", f"images = {list(config.images)!r}", f"limit = {limit}"]
        lines += [f'pairing = "{config.pairing}"']
        for request in config.probes:
            given = {key: toml(value) for key, value in request.set.items()}
            settings = given | small_settings(request.name, request.set)
            table = ", ".join(f"{key} = {value}" for key, value in settings.items())
            lines += ["[[probes]]", f'name = "{request.name}"', f"set = {{ {table} }}"]
        small = self.directory / f"small-{path.name}"
        small.write_text("\n".join(lines), encoding="utf-8")
        return small


def small_settings(probe: str, given: Mapping[str, Any]) -> dict[str, str]:
    """Those of `SMALL` that a probe takes beside the settings given."""
    settings = dict(SMALL.get(probe, {}))
    if probe == "match":  # gradient descent counts steps, the other solvers Jacobians
        settings.pop("max_jacobians" if given.get("solver") == "gd" else "steps")
    return settings


def toml(value: Any) -> str:
    """A value of a run file."""
    return repr(value) if isinstance(value, str) else str(value).lower()


def check_toml(text: str) -> None:
    """A run file holds what a run file may hold, a piece of pyproject.toml an entry point of ours."""
    document = tomllib.loads(text)
    if "project" in document:
        groups = document["project"].get("entry-points", {})
        assert groups, "a piece of pyproject.toml without entry points says nothing that could be wrong"
        assert set(groups) <= {"equivengine", "equivengine.commands"}
        assert all(re.fullmatch(r"[\w.]+(:\w+)?", target) for group in groups.values() for target in group.values())
    else:
        RunConfig.model_validate(document)
