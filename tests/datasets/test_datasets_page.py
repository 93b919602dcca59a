"""docs/datasets.md: its miniature runs, and what it says of options and files is what the sets take."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from equivengine.cli import main
from equivengine_plugins.datasets import coco, listed, openimages
from equivengine_plugins.datasets.imagenet import synsets, validation

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")


def test_the_miniature_runs(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (command,) = re.findall(r"```console\n\$ equivengine (.*?)\n```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/datasets.md", "exec"), {"__name__": "block"})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    for line in lines:
        found = re.fullmatch(r"[0-9]{12}\.jpg (\w+) \{'(\w+)': ([0-9]+)\.0, '(\w+)': ([0-9]+)\.0\}", line)
        assert found
        assert {found[2], found[4]} == {"dark", "bright"}
        assert found[1] == found[2]
        assert int(found[3]) >= int(found[5])
        assert int(found[3]) + int(found[5]) == 64 * 64
    assert main.run([*shlex.split(command), "--out", "run"]) == 0
    assert re.search(r"^[12] computed", capsys.readouterr().out, re.MULTILINE)


def test_every_file_and_option_is_on_the_page():
    names = {*synsets.NAME_FILES, *synsets.ORDER_FILES, *validation.TRUTH_FILES}
    assert len(names) == 9
    places = {place for place in (*synsets.PLACES, *openimages.PLACES) if place}
    rules = {*openimages.RULES, *openimages.SPLITS, *coco.DEFAULT_SPLITS}
    for word in (*names, *places, *rules, *listed.COMMON):
        assert re.search(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", PAGE), word
    assert openimages.CLASS_FILES[2] in PAGE
    assert openimages.LABEL_FILES[2].format(split="validation") in PAGE
