"""Units and results that the tests of the store publish, in this process and in others."""

import numpy as np

from equivengine.contracts.result import Array, Check, Picture, ProbeResult, Scalar
from equivengine.contracts.unit import SampleRef, Unit
from equivengine.store import shard
from equivengine.store.record import Record


def make_unit(seed=0, probe="ldlc"):
    return Unit(
        probe=probe,
        probe_version="1",
        params="{}",
        model="digits",
        weights_digest="w" * 64,
        samples=(SampleRef("digits", seed, f"digit-{seed}", f"d{seed}"),),
        seed=seed,
        precision="fp32",
    )


def make_pictures(seed=0, side=12):
    """A colored one, a gray one; both are noise, so that no compression hides a swapped axis."""
    rng = np.random.default_rng(seed)
    return {
        "found": Picture(rng.integers(0, 256, (side, side + 4, 3), np.uint8), "What was found, µ."),
        "gap": Picture(rng.integers(0, 256, (side, side + 4), np.uint8), "Where it differs."),
    }


def make_result(seed=0, size=8, side=12):
    """``side=0`` leaves the pictures out."""
    values = np.random.default_rng(seed).standard_normal((size, 4))
    return ProbeResult(
        arrays={
            "zeta": Array(values, ("direction", "k"), "1/px", "Local constants."),
            "alpha": Array(np.arange(4), ("k",), "1", "Ranks."),
        },
        summary={
            "slope": Scalar(0.25 + seed, "1/px", "Slope.", interval=(0.0, 0.5), n=7, group="local"),
            "area": Scalar(float("nan"), "1", "Area."),
        },
        checks={"monotone": Check.at_most(1.0, 2.0, "It never rises.")},
        message="a remark",
        provenance={"step": 1e-3},
        pictures=make_pictures(seed, side) if side else {},
    )


def make_plan(count=3):
    return {"name": "plan", "units": [make_unit(seed).to_json() for seed in range(count)]}


def write_unit(parent, unit, result, provenance):
    """Write a unit into the group of them, as shards that hold several would have it."""
    shard._fill_unit(parent, unit, result, Record.of(unit, result, provenance).to_text().encode())
