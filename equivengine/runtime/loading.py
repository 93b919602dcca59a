"""From URIs to encoders and image sets."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from equivengine.contracts.dataset import Dataset, Sample
from equivengine.contracts.encoder import Encoder
from equivengine.contracts.unit import SampleRef
from equivengine.contracts.uri import URI
from equivengine.errors import DataError, EngineError, ModelError, UsageError
from equivengine.runtime import contract, switches
from equivengine.runtime.registry import Registry, from_environment

if TYPE_CHECKING:
    from equivengine.runtime.registry import PluginRecord

#: Stands in a plan in place of the digest of a sample that could not even be hashed.
UNREADABLE = "unreadable-"

_log = logging.getLogger(__name__)
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
    with blamed(owner, ModelError, f"{uri!r} cannot be loaded"), without_deprecations(), switches.alone(owner.owner):
        return Encoder(cls().load(parsed), uri).to(target)


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
    with blamed(owner, DataError, f"{uri!r} cannot be opened"), switches.alone(owner.owner):
        dataset = cls(parsed)
        size = len(dataset)
    if size == 0:
        raise DataError(f"{uri!r} holds no images", expected="at least one", hint="check the address")
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
        self._unusable: dict[str, EngineError] = {}
        self._changes: dict[str, list[switches.Change]] = {}
        self._datasets: dict[str, Dataset] = {}
        self._places: dict[str, dict[str, int]] = {}

    def encoder(self, uri: str) -> Encoder:
        """The encoder of a URI, loaded at most once while it is kept; what could not be loaded is not tried again."""
        if uri in self._unusable:
            raise self._unusable[uri]
        if uri not in self._encoders:
            while len(self._encoders) >= self._keep:
                del self._encoders[next(iter(self._encoders))]
            try:
                with switches.noticing() as self._changes[uri]:
                    self._encoders[uri] = load_encoder(uri, device=self.device, registry=self.registry)
            except EngineError as error:
                self._unusable[uri] = error.with_traceback(None)
                raise
        return self._encoders[uri]

    def changes(self, uri: str) -> list[switches.Change]:
        """Switches of this process that the backend left changed when it loaded an encoder; they were put back."""
        return self._changes.get(uri, [])

    def images(self, uri: str) -> Dataset:
        """The image set of a URI, opened once."""
        if uri not in self._datasets:
            self._datasets[uri] = load_images(uri, registry=self.registry)
        return self._datasets[uri]

    def sample(self, ref: SampleRef) -> Sample:
        """The sample that a plan refers to, also where files were added to or taken from its set meanwhile.

        Raises:
            DataError: If it cannot be read, has other content now or is gone.
        """
        dataset = self.images(ref.images)
        found: Sample | None = None
        owner = self.dataset_owner(ref.images)
        with blamed(owner, DataError, f"{ref.id!r} of {ref.images!r} cannot be had"), contextlib.suppress(IndexError):
            found = dataset[ref.index]
        if found is not None and found.digest == ref.digest:
            return found
        unreadable = ref.digest.startswith(UNREADABLE)
        if found is None or (found.id != ref.id and not unreadable):
            place = self._digests(ref.images).get(ref.digest)
            if place is not None:
                return dataset[place]
        other = found is not None and (unreadable or found.id == ref.id)
        raise DataError(
            f"{ref.id!r} of {ref.images!r} has other content than when the run was planned"
            if other
            else f"{ref.id!r} is no longer in {ref.images!r}",
            expected="content that could not be read" if unreadable else f"sha256 {ref.digest[:16]}...",
            got=f"sha256 {found.digest[:16]}..." if other and found is not None else "no image of that content",
            hint="a plan fixes the content of its images: put the old content back and resume, or repeat the command "
            "with another --out to measure what is there now",
        )

    def _digests(self, uri: str) -> dict[str, int]:
        """Where each content lies in a set; hashes all of it, once."""
        if uri not in self._places:
            places: dict[str, int] = {}
            dataset = self.images(uri)
            for index in range(len(dataset)):
                with contextlib.suppress(DataError):
                    places.setdefault(dataset[index].digest, index)
            self._places[uri] = places
        return self._places[uri]

    def backend_owner(self, uri: str) -> PluginRecord:
        """The plugin behind a model URI."""
        return self.registry.backend(URI.parse(uri).scheme)[1]

    def dataset_owner(self, uri: str) -> PluginRecord:
        """The plugin behind an image URI."""
        return self.registry.dataset(URI.parse(uri).scheme)[1]


@contextlib.contextmanager
def blamed(owner: PluginRecord, kind: type[EngineError], what: str) -> Iterator[None]:
    """Turn whatever a plugin raises, SystemExit included, into one error that names it."""
    try:
        with staying_here():
            yield
    except (EngineError, KeyboardInterrupt):
        raise
    except BaseException as error:
        needed = contract.needs(error, owner.distribution)
        hint = "install it" if needed else f"`equivengine plugin check {owner.name}` tells more"
        raise kind(what, got=f"{owner.owner}: {needed or contract.one_line(error)}", hint=hint) from error


@contextlib.contextmanager
def staying_here() -> Iterator[None]:
    """Come back to the working directory: some libraries leave it, and run directories may be named relative to it."""
    here = os.open(".", os.O_RDONLY)  # by descriptor: it may have been deleted or renamed
    try:
        yield
    finally:
        os.fchdir(here)
        os.close(here)


@contextlib.contextmanager
def without_deprecations() -> Iterator[None]:
    """Keep what libraries say to their own developers off the terminal, unless -v asks for it."""
    with warnings.catch_warnings():
        if not _log.isEnabledFor(logging.INFO):
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
        yield
