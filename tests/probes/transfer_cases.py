"""Parameters and scalars of the probe transfer."""

from __future__ import annotations

from equivengine_plugins.probes.transfer import TransferParams


def params(**given):
    return TransferParams(**{"pairs": 6, "references": 24, **given})
