"""``verify`` says what is wrong and what to do; ``resume`` does exactly that."""

from __future__ import annotations

import json

import pytest

from equivengine import open_run
from equivengine.store import content_digest


def state(run):
    """Every file of the store, by inode and time; the log of observers is none."""
    return {
        path: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in run.rglob("*")
        if path.is_file() and path.name != "log.jsonl"
    }


def content(run):
    with open_run(run) as opened:
        return content_digest(opened)


def flip(path, place=700):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.fixture
def run(measure, tmp_path):
    measure()
    return tmp_path / "run"


@pytest.fixture
def shards(run):
    return sorted((run / "shards").rglob("*.h5"))


def test_a_whole_run_is_whole(run, cli):
    said = cli("verify", run)
    assert "nothing is damaged: 3 shards, 0 failures" in said.out
    assert "next" not in said.out
    document = cli("verify", run, "--json").document
    assert document["ok"]
    assert (document["shards"], document["findings"], document["missing"], document["next"]) == (3, [], [], None)
    assert "nothing is damaged: 1 file" in cli("verify", run / "run.h5").out


def test_what_is_wrong_is_named_with_what_to_do_and_resume_does_that_and_nothing_else(run, shards, cli):
    undisturbed, before = content(run), state(run)
    damaged, lost, good = shards
    flip(damaged)
    lost.unlink()
    said = cli("verify", run, code=1)
    assert f"damaged: {damaged}" in said.out
    assert f"lost: {lost}" in said.out
    assert f"to compute again: {damaged.stem}" in said.out
    assert f"  equivengine resume {run}" in said.out
    document = cli("verify", run, "--json", code=1).document
    assert not document["ok"]
    assert document["rerun"] == sorted([damaged.stem, lost.stem])
    assert {(found["kind"], found["file"]) for found in document["findings"]} == {
        ("damaged", str(damaged)),
        ("lost", str(lost)),
    }
    assert all(found["next"] for found in document["findings"])

    document = cli("resume", run, "--json").document
    assert document["outcomes"] == {"published": 2, "skipped": 1}
    assert [one["file"] for one in document["set_aside"]] == [str(damaged)]
    assert state(run)[good] == before[good]
    assert content(run) == content(run / "run.h5") == undisturbed
    cli("verify", run)


def test_resume_of_a_clean_complete_run_does_nothing(run, cli):
    before = state(run)
    assert "3 already there" in cli("resume", run).out
    assert state(run) == before


def test_units_that_were_never_published_are_missing_and_not_damaged(run, shards, cli):
    (run / "run.h5").unlink()
    shards[0].unlink()
    said = cli("verify", run)
    assert f"1 unit not published yet: {shards[0].stem[:12]}" in said.out
    assert f"  equivengine resume {run}" in said.out
    document = cli("verify", run, "--json").document
    assert document["ok"]
    assert (document["missing"], document["outdated"]) == ([shards[0].stem], True)


def test_failed_units_are_no_damage_and_a_damaged_failure_is(measure, cli, tmp_path):
    measure("--set", "behaviour=raises", code=1)
    run = tmp_path / "run"
    assert "3 units failed" in cli("verify", run).out
    flip(next((run / "failures").iterdir()), 40)
    assert "damaged" in cli("verify", run, code=1).out
    cli("resume", run, code=1)  # they fail again
    assert "3 units failed" in cli("verify", run).out
    assert len(list((run / "damaged").iterdir())) == 1


@pytest.mark.parametrize("damage", ["flipped", "resealed"])
def test_a_damaged_plan_is_one_clear_error_and_nothing_is_touched(run, shards, cli, measure, damage):
    from equivengine.store import schema

    plan = run / "plan.json"
    flip(shards[0])
    if damage == "flipped":
        flip(plan, plan.read_bytes().index(b'"seed":0') + 7)
    else:  # whole, but its units are not those of its digest
        data = json.loads(plan.read_text())
        data["plan"]["groups"][0]["seed"] = 1
        plan.write_text(schema.sealed_json(data, "plan"))
    before = state(run)
    assert "plan.json" in cli("verify", run, code=1).out
    assert "plan" in cli("resume", run, code=1).err
    if damage == "flipped":
        assert "plan" in measure(code=1).err
    assert state(run) == before


def test_a_damaged_run_file_is_made_again_without_computing_anything(run, cli):
    undisturbed, before = content(run), state(run)
    flip(run / "run.h5")
    assert f"damaged: {run / 'run.h5'}" in cli("verify", run, code=1).out
    assert "3 already there" in cli("resume", run).out
    after = state(run)
    assert all(after[path] == before[path] for path in before if path.name != "run.h5")
    assert content(run / "run.h5") == undisturbed
    said = cli("verify", run / "run.h5")
    assert "equivengine resume" not in said.out


def test_a_shard_of_another_run_is_moved_aside_whole(run, cli, measure, tmp_path):
    measure("--seed", 1, out=tmp_path / "other")
    stranger = next((tmp_path / "other" / "shards").rglob("*.h5"))
    copy = run / "shards" / stranger.parent.name / stranger.name
    copy.parent.mkdir(exist_ok=True)
    copy.write_bytes(stranger.read_bytes())
    assert f"foreign: {copy}" in cli("verify", run, code=1).out
    undisturbed = content(run / "run.h5")
    assert "3 already there" in cli("resume", run).out
    assert (run / "foreign" / f"{copy.name}.0").read_bytes() == stranger.read_bytes()
    assert content(run) == content(run / "run.h5") == undisturbed


def test_what_is_no_run_is_refused(cli, tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        said = cli("verify", path, code=1)
        assert "error:" in said.err
        assert said.out == ""


def test_of_a_batch_only_the_damaged_unit_is_published_again(measure, cli, tmp_path):
    """The whole batch is computed: what a unit gives may depend on its companions."""
    run = tmp_path / "run"
    measure("--set", "largest=3", probe="together")
    undisturbed, before = content(run), state(run)
    spoilt = sorted((run / "shards").rglob("*.h5"))[1]
    flip(spoilt)
    assert cli("verify", run, "--json", code=1).document["rerun"] == [spoilt.stem]
    assert "1 computed, 2 already there" in cli("resume", run).out
    after = state(run)
    assert all(after[path] == before[path] for path in before if path.name not in (spoilt.name, "run.h5"))
    assert content(run) == content(run / "run.h5") == undisturbed
