"""docs/format.md: its code runs, and it names what files hold."""

import re
from pathlib import Path

import h5py
import pytest
from store_cases import make_result, make_unit

from equivengine.store import schema

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "format.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("package", ["h5py", "xarray", "equivengine"])
def test_the_code_of_the_page_runs(directory, monkeypatch, capsys, package):
    pytest.importorskip(package)
    if package == "xarray":
        pytest.importorskip("h5netcdf")
    for seed in range(2):
        directory.publish(make_unit(seed), make_result(seed), {})
    directory.consolidate()
    monkeypatch.chdir(directory.path)
    (block,) = (block for block in BLOCKS if re.search(rf"^(import|from) {package}\b", block, re.MULTILINE))
    exec(block, {"unit_id": make_unit().unit_id})
    printed = capsys.readouterr().out
    assert package == "xarray" or "slope" in printed


def test_the_page_names_every_encoding_and_the_version(directory, shard_of):
    seen = set()
    older = ROOT / "tests" / "archives" / "v1.2" / "run.h5"
    for path in (shard_of(), directory.consolidate(), older):
        with h5py.File(path) as file:
            seen.add(file.attrs["encoding-type"].decode())
            file.visititems(lambda _, node: seen.add(node.attrs["encoding-type"].decode()))
    assert len(seen) >= 20
    assert not [name for name in seen if f"`{name}`" not in TEXT]
    assert f"Format version {schema.VERSION_TEXT}" in TEXT
