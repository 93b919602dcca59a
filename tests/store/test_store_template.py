"""Shards that are made from one another, and the copies that consolidation makes of them."""

import dataclasses
import itertools
import threading

import h5py
import numpy as np
import pytest
from store_cases import make_plan, make_result, make_unit
from test_store_round_trip import assert_equal_results

from equivengine.contracts.result import Array, ProbeResult
from equivengine.store import RunDirectory, content_digest, digests, inspect_run, open_run, shard, template
from equivengine.store.template import Templates, fits, structure_of


@pytest.fixture(autouse=True)
def templates(monkeypatch):
    fresh = Templates()
    monkeypatch.setattr(shard, "_templates", fresh)
    monkeypatch.setattr(shard, "_read_back", {})
    monkeypatch.setattr(shard, "_written", {})
    return fresh


def published(path, results):
    run = RunDirectory.create_or_open(path, make_plan(len(results)), "digest")
    for seed, result in enumerate(results):
        assert run.publish(make_unit(seed), result, {"seed": seed})
    return run


def digest(path):
    with open_run(path) as run:
        return content_digest(run)


def various(seed):
    """Arrays of each kind of number, empty, without axes, with axes of one name, with values along their own axis."""
    rng = np.random.default_rng(seed)
    return ProbeResult(
        {
            "k": Array(np.sort(rng.normal(size=4)), ("k",), "1", "Along itself."),
            "table": Array(rng.normal(size=(4, 3)).astype(np.float32), ("k", "j"), "m", "Two axes."),
            "square": Array(rng.normal(size=(4, 4)).astype(">f8"), ("k", "k"), "1", "One axis twice."),
            "j": Array(rng.normal(size=4), ("k",), "1", "Named like an axis that it does not have."),
            "flags": Array(rng.random(5) < 0.5, ("flag",), "1", "Booleans."),
            "count": Array(np.array(int(rng.integers(9))), (), "1", "No axis."),
            "none": Array(np.zeros((0, 4)), ("nothing", "k"), "1", "Empty."),
            "half": Array(rng.normal(size=(2, 3)).astype(np.float16).T, ("j", "pair"), "1", "Not contiguous."),
        },
        make_result(seed).summary,
        pictures=make_result(seed).pictures,
    )


@pytest.mark.parametrize("make", [make_result, various])
def test_shards_made_from_one_another_have_the_content_of_those_made_alone(tmp_path, monkeypatch, make):
    results = [make(seed) for seed in range(4)]
    assert len({structure_of(result) for result in results}) == 1
    assert all(map(fits, results))
    made = published(tmp_path / "made", results)
    assert not inspect_run(made.path).findings
    with open_run(made.path) as run:
        for seed, (unit, found) in enumerate(run.results("ldlc")):
            assert unit == make_unit(seed)
            assert_equal_results(found, results[seed])
    monkeypatch.setattr(shard, "fits", lambda result: False)
    alone = published(tmp_path / "alone", results)
    assert digest(made.path) == digest(alone.path)


def test_what_this_process_wrote_is_gathered_as_if_another_one_had_written_it(tmp_path, monkeypatch):
    run = published(tmp_path / "run", [various(0), various(1), make_result(2)])
    run.consolidate()
    own, path = digest(run.path / "run.h5"), run.path / "run.h5"
    listing = _listing(path)
    assert not inspect_run(run.path).findings
    path.unlink()
    monkeypatch.setattr(shard, "_written", {})
    run.consolidate()
    assert digest(path) == own == digest(run.path)
    assert _listing(path) == listing


def _listing(path):
    """Names, shapes, attributes and scales of all there is, in order; references are given by names."""
    found = []

    def visit(name, node):
        attributes = {
            key: str(value) for key, value in node.attrs.items() if key not in ("DIMENSION_LIST", "REFERENCE_LIST")
        }
        scales = (
            [[scale.name for scale in axis.values()] for axis in node.dims]
            if isinstance(node, h5py.Dataset) and not node.is_scale
            else list(node)
            if isinstance(node, h5py.Group)
            else len(node.attrs.get("REFERENCE_LIST", ()))
        )
        found.append((name, getattr(node, "shape", None), attributes, scales))

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def test_a_shard_that_was_changed_is_not_taken_for_one_of_this_process(tmp_path):
    run = published(tmp_path / "run", [make_result(0), make_result(1)])
    one, other = sorted(run.path.glob("shards/*/*.h5"))
    assert shard.structure_written(digests.checked_digest(one)[0]) is not None
    with h5py.File(one, "r+") as file:
        next(iter(file["units"].values())).attrs["more"] = 1
    assert shard.structure_written(digests.sha256_of(one)) is None
    assert shard.structure_written(digests.sha256_of(other)) is not None


def test_a_file_that_becomes_a_thousand_units_does_not_grow(tmp_path):
    sizes = set()
    for seed in range(1000):
        path = tmp_path / "shard.h5"
        shard.write_shard(path, make_unit(seed), various(seed % 7), {})
        sizes.add(path.stat().st_size)
        path.unlink()
    assert len(sizes) <= 3  # the first one, and the first one that was made from it


def test_the_last_structures_are_kept(tmp_path, templates, monkeypatch):
    monkeypatch.setattr(template, "KEPT", 3)
    made = []
    close = template.Template.close
    monkeypatch.setattr(template.Template, "close", lambda self: (made.append(self), close(self))[1])
    for size in (1, 2, 3, 4, 5, 4):
        shard.write_shard(tmp_path / f"{size}-{len(made)}", make_unit(size), make_result(size=size), {})
    assert len(made) == 2
    assert len(templates._kept) == 3


def test_threads_do_not_meet_in_one_file(tmp_path):
    numbers = itertools.count()
    failed = []

    def write():
        for seed in iter(lambda: next(numbers), 60):
            if seed > 60:
                return
            try:
                shard.write_shard(tmp_path / str(seed), make_unit(seed), various(seed), {})
                assert_equal_results(_read(tmp_path / str(seed), make_unit(seed)), various(seed))
            except BaseException as error:
                failed.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def _read(path, unit):
    run = RunDirectory.create_or_open(path.parent / f"run-{path.name}", make_plan(1), "digest")
    target = run.path / "shards" / unit.unit_id[:2]
    target.mkdir()
    path.rename(target / f"{unit.unit_id}.h5")
    with open_run(run.path) as opened:
        return next(iter(opened.units())).result()


def test_an_error_on_the_way_leaves_no_file_that_others_are_made_from(tmp_path, templates, monkeypatch):
    shard.write_shard(tmp_path / "0", make_unit(0), make_result(0), {})
    (kept,) = templates._kept.values()
    monkeypatch.setattr(kept, "content", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        shard.write_shard(tmp_path / "1", make_unit(1), make_result(1), {})
    assert not templates._kept
    shard.write_shard(tmp_path / "2", make_unit(2), make_result(2), {})


def test_texts_and_chunks_have_no_fixed_place():
    result = make_result()
    texts = Array(np.array(["a", "bc"]), ("t",), "1", "Texts.")
    large = Array(np.zeros(4096), ("n",), "1", "Chunks.")
    assert fits(result)
    for array in (texts, large):
        assert not fits(dataclasses.replace(result, arrays={"x": array}))
