"""Runs that no encoder was needed for: units with given scalars, published in a directory."""

from __future__ import annotations

import json
from pathlib import Path

from equivengine.contracts.result import ProbeResult, Scalar
from equivengine.contracts.unit import SampleRef, Unit
from equivengine.store import RunDirectory

PROVENANCE = {
    "random_weights": False,
    "extension": {"available": True, "loaded": True, "reason": "loaded"},
    "operations": {"layer_norm": {"cpu-avx2": 3}},
    "device": {"type": "cpu", "name": "a processor"},
    "model": {"embedding_dim": 5, "input_shape": [1, 8, 8], "input_unit": "pixel"},
}


def unit(image=0, target=None, *, label=None, model="first", probe="slopes", params=None, **options):
    samples = [SampleRef("folder:x", image, f"{image}.png", f"digest-{image}", label)]
    if target is not None:
        samples.append(SampleRef("folder:x", target, f"{target}.png", f"digest-{target}"))
    given = {"probe_version": "1", "precision": "fp32", "seed": 0, "weights_digest": model.ljust(64, "0"), **options}
    return Unit(probe=probe, params=json.dumps(params or {}), model=model, samples=tuple(samples), **given)


def scalar(value, description="a slope", **options):
    return Scalar(value, options.pop("unit", "1"), description, **options)


def published(value, name="slope", *, status="ok", message="", **options):
    return ProbeResult({}, {name: scalar(value, **options)}, status=status, message=message)


def write_run(path: Path, *entries, title="", missing=()):
    """Publish (unit, result or text of a failure[, provenance]) and leave out the missing units."""
    units = [entry[0] for entry in entries] + list(missing)
    plan = {"units": [each.to_json() for each in units], "config": {"title": title}}
    directory = RunDirectory.create_or_open(path, plan, "digest")
    for one, result, *provenance in entries:
        if isinstance(result, str):
            directory.record_failure(one, result, error_type="ValueError")
        else:
            directory.publish(one, result, {**PROVENANCE, **(provenance[0] if provenance else {})})
    return directory.path
