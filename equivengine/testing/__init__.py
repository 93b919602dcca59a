"""What authors of plugins, operators and estimators test with.

Names load on first use (PEP 562): what importing a plugin costs is measured by a module of this room, without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

_EXPORTS = {
    "EncoderContract": "equivengine.testing.contract",
    "ProbeContract": "equivengine.testing.contract",
    "DatasetContract": "equivengine.testing.contract",
    "reference_encoder": "equivengine.testing.probe_subject",
    "KnownMap": "equivengine.testing.maps",
    "known_maps": "equivengine.testing.maps",
    "reference_jacobian": "equivengine.testing.maps",
    "assert_operator_matches": "equivengine.testing.operator",
}

__all__ = [*_EXPORTS]

if TYPE_CHECKING:
    from equivengine.testing.contract import DatasetContract as DatasetContract
    from equivengine.testing.contract import EncoderContract as EncoderContract
    from equivengine.testing.contract import ProbeContract as ProbeContract
    from equivengine.testing.maps import KnownMap as KnownMap
    from equivengine.testing.maps import known_maps as known_maps
    from equivengine.testing.maps import reference_jacobian as reference_jacobian
    from equivengine.testing.operator import assert_operator_matches as assert_operator_matches
    from equivengine.testing.probe_subject import reference_encoder as reference_encoder


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'equivengine.testing' has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
