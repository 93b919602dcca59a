"""From URIs to encoders and image sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from equivengine.contracts.dataset import Dataset
from equivengine.contracts.encoder import Encoder
from equivengine.contracts.uri import URI
from equivengine.errors import DataError, EngineError, ModelError, UsageError
from equivengine.runtime.registry import Registry, from_environment

if TYPE_CHECKING:
    from equivengine.runtime.registry import PluginRecord

_registry: Registry | None = None


def default_registry() -> Registry:
    """The plugins of this process, loaded once, as EQUIVENGINE_PLUGINS says."""
    global _registry
    if _registry is None:
        _registry = from_environment()
    return _registry


def use_registry(registry: Registry) -> None:
    """Make ``registry`` the default of this process."""
    global _registry
    _registry = registry


def resolve_device(device: str) -> torch.device:
    """``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

    Raises:
        UsageError: If there is no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise UsageError("unknown device", expected="auto, cpu, cuda or cuda:N", got=repr(device))
    if found.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (found.index or 0) >= count:
            raise UsageError(
                f"the device {device!r} is not there",
                expected=f"one of {count} CUDA devices" if count else "cpu: torch sees no CUDA device",
                hint="pass --device cpu, or see `equivengine doctor`",
            )
    return found


def load_encoder(uri: str, *, device: str = "auto", registry: Registry | None = None) -> Encoder:
    """Load, wrap and check the model that a URI names.

    Args:
        uri: For example ``"digits"`` or ``"timm:vit_base_patch16_224?weights=random&seed=0"``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        registry: Plugins to look in; the installed ones when None.

    Returns:
        The encoder, frozen, in float32, on the device.

    Raises:
        UsageError: If the URI makes no sense.
        WeightsError: If the weights cannot be had.
        ModelError: If the model breaks the encoder contract.
    """
    parsed = URI.parse(uri)
    cls, owner = (registry or default_registry()).backend(parsed.scheme)
    target = resolve_device(device)
    try:
        loaded = cls().load(parsed)
    except EngineError:
        raise
    except Exception as error:
        raise ModelError(
            f"{uri!r} cannot be loaded", got=f"{owner.owner} raised {type(error).__name__}: {_first_line(error)}"
        ) from error
    return Encoder(loaded, uri).to(target)


def load_images(uri: str, *, registry: Registry | None = None) -> Dataset:
    """Open the image set that a URI names. Nothing is decoded yet.

    Args:
        uri: For example ``"samples"`` or ``"folder:photos"``.
        registry: Plugins to look in; the installed ones when None.

    Raises:
        UsageError: If the URI makes no sense.
        DataError: If there is nothing to read.
    """
    parsed = URI.parse(uri)
    cls, owner = (registry or default_registry()).dataset(parsed.scheme)
    try:
        dataset = cls(parsed)
        size = len(dataset)
    except EngineError:
        raise
    except Exception as error:
        raise DataError(
            f"{uri!r} cannot be opened", got=f"{owner.owner} raised {type(error).__name__}: {_first_line(error)}"
        ) from error
    if size == 0:
        raise DataError(f"{uri!r} holds no images", expected="at least one")
    return dataset


class Workbench:
    """Encoders and image sets that this process has loaded, kept for the next unit.

    Args:
        registry: Plugins to look in.
        device: Where encoders go.
        keep: How many encoders stay loaded; the oldest is dropped first.
    """

    def __init__(self, registry: Registry, device: str = "auto", keep: int = 1) -> None:
        self.registry = registry
        self.device = device
        self._keep = keep
        self._encoders: dict[str, Encoder] = {}
        self._datasets: dict[str, Dataset] = {}

    def encoder(self, uri: str) -> Encoder:
        """The encoder of a URI, loaded at most once while it is kept."""
        if uri not in self._encoders:
            while len(self._encoders) >= self._keep:
                del self._encoders[next(iter(self._encoders))]
            self._encoders[uri] = load_encoder(uri, device=self.device, registry=self.registry)
        return self._encoders[uri]

    def images(self, uri: str) -> Dataset:
        """The image set of a URI, opened once."""
        if uri not in self._datasets:
            self._datasets[uri] = load_images(uri, registry=self.registry)
        return self._datasets[uri]

    def backend_owner(self, uri: str) -> PluginRecord:
        """The plugin behind a model URI."""
        return self.registry.backend(URI.parse(uri).scheme)[1]

    def dataset_owner(self, uri: str) -> PluginRecord:
        """The plugin behind an image URI."""
        return self.registry.dataset(URI.parse(uri).scheme)[1]


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else ""
