"""equivengine: which inputs does an encoder treat as the same, and which near-identical inputs as different?

The public names below are what plugins may rely on. They load on first use (PEP 562), so that ``import equivengine``
costs milliseconds and never imports torch by itself.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

#: Version of the package.
__version__ = "0.1.0"

#: Version (major, minor) of the plugin contract. A plugin declares the one that it was written for.
API_VERSION = (1, 0)

_EXPORTS = {
    # what one does
    "load_encoder": "equivengine.runtime.loading",
    "load_images": "equivengine.runtime.loading",
    "open_run": "equivengine.store.run",
    "Run": "equivengine.store.run",
    "JacobianOperator": "equivengine.jacobian",
    "linalg": "equivengine.linalg",
    "matching": "equivengine.matching",
    "ops": "equivengine.ops",
    "pictures": "equivengine.pictures",
    # what a plugin author implements
    "hookimpl": "equivengine.contracts.hookspecs",
    "Backend": "equivengine.contracts.model",
    "LoadedModel": "equivengine.contracts.model",
    "Preprocessing": "equivengine.contracts.model",
    "Encoder": "equivengine.contracts.encoder",
    "EncoderSpec": "equivengine.contracts.model",
    "Probe": "equivengine.contracts.probe",
    "ProbeTask": "equivengine.contracts.probe",
    "Params": "equivengine.contracts.probe",
    "Array": "equivengine.contracts.result",
    "Scalar": "equivengine.contracts.result",
    "Check": "equivengine.contracts.result",
    "Picture": "equivengine.contracts.result",
    "ProbeResult": "equivengine.contracts.result",
    "Dataset": "equivengine.contracts.dataset",
    "Sample": "equivengine.contracts.dataset",
    "Executor": "equivengine.contracts.executor",
    "Work": "equivengine.contracts.executor",
    "Unit": "equivengine.contracts.unit",
    "UnitOutcome": "equivengine.contracts.unit",
    "settings": "equivengine.contracts.unit",
    "URI": "equivengine.contracts.uri",
    # what may be raised
    "EngineError": "equivengine.errors",
    "UsageError": "equivengine.errors",
    "PluginError": "equivengine.errors",
    "ModelError": "equivengine.errors",
    "WeightsError": "equivengine.errors",
    "DataError": "equivengine.errors",
    "StoreError": "equivengine.errors",
    "NumericsError": "equivengine.errors",
}

__all__ = ["API_VERSION", "__version__", *_EXPORTS]

if TYPE_CHECKING:
    from equivengine import linalg as linalg
    from equivengine import matching as matching
    from equivengine import ops as ops
    from equivengine import pictures as pictures
    from equivengine.contracts.dataset import Dataset as Dataset
    from equivengine.contracts.dataset import Sample as Sample
    from equivengine.contracts.encoder import Encoder as Encoder
    from equivengine.contracts.executor import Executor as Executor
    from equivengine.contracts.executor import Work as Work
    from equivengine.contracts.hookspecs import hookimpl as hookimpl
    from equivengine.contracts.model import Backend as Backend
    from equivengine.contracts.model import EncoderSpec as EncoderSpec
    from equivengine.contracts.model import LoadedModel as LoadedModel
    from equivengine.contracts.model import Preprocessing as Preprocessing
    from equivengine.contracts.probe import Params as Params
    from equivengine.contracts.probe import Probe as Probe
    from equivengine.contracts.probe import ProbeTask as ProbeTask
    from equivengine.contracts.result import Array as Array
    from equivengine.contracts.result import Check as Check
    from equivengine.contracts.result import Picture as Picture
    from equivengine.contracts.result import ProbeResult as ProbeResult
    from equivengine.contracts.result import Scalar as Scalar
    from equivengine.contracts.unit import Unit as Unit
    from equivengine.contracts.unit import UnitOutcome as UnitOutcome
    from equivengine.contracts.unit import settings as settings
    from equivengine.contracts.uri import URI as URI
    from equivengine.errors import DataError as DataError
    from equivengine.errors import EngineError as EngineError
    from equivengine.errors import ModelError as ModelError
    from equivengine.errors import NumericsError as NumericsError
    from equivengine.errors import PluginError as PluginError
    from equivengine.errors import StoreError as StoreError
    from equivengine.errors import UsageError as UsageError
    from equivengine.errors import WeightsError as WeightsError
    from equivengine.jacobian import JacobianOperator as JacobianOperator
    from equivengine.runtime.loading import load_encoder as load_encoder
    from equivengine.runtime.loading import load_images as load_images
    from equivengine.store.run import Run as Run
    from equivengine.store.run import open_run as open_run


def __getattr__(name: str) -> object:
    module = _EXPORTS.get(name)
    if module is None:
        raise AttributeError(f"module 'equivengine' has no attribute {name!r}")
    loaded = importlib.import_module(module)
    value = loaded if module == f"equivengine.{name}" else getattr(loaded, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
