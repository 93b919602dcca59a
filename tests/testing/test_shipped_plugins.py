"""The shipped plugins keep the contract that strangers are held to."""

from __future__ import annotations

import pytest

from equivengine.cli import plugin_worker
from equivengine.cli.plugin_worker import Request
from equivengine.testing.verdict import Verdict

QUICK = [("sentences", {}), ("digits_images", {}), ("samples", {}), ("projection", {})]
SLOW = [
    ("digits", {}),
    ("timm", {"model": "timm:vit_tiny_patch16_224?weights=random&seed=0"}),
    ("imagebind", {"model": "imagebind:tiny?weights=random"}),
    *((name, {}) for name in ("spectrum", "ldlc", "numerics", "lipschitz", "lsb", "match", "transfer")),
    *((name, {}) for name in ("nullwalk", "path", "noise")),
    ("ldlc", {"model": "digits", "images": "digits", "settings": ("directions=4",)}),
]


@pytest.mark.parametrize(("name", "options"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)])
def test_a_shipped_plugin_passes_the_check(name, options):
    events: list[dict] = []
    plugin_worker.check(Request(name, **options), events.append)
    verdicts = [Verdict(**event["verdict"]) for event in events if event["event"] == "verdict"]
    assert [(verdict.name, str(verdict)) for verdict in verdicts if not verdict.good] == []
    assert sum(verdict.state == "passed" for verdict in verdicts) > 15
