"""Requirements on loading a model: from where, how long, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from equivengine.contracts.encoder import weights_digest
from equivengine.contracts.model import LoadedModel
from equivengine.contracts.uri import URI
from equivengine.errors import UsageError
from equivengine.testing.encoder_subject import EncoderSubject
from equivengine.testing.module_requirements import with_unknown_option
from equivengine.testing.offline import offline
from equivengine.testing.verdict import Breach, NotTried, Requirement


def loads(subject: EncoderSubject) -> str:
    """`Backend.load` returns a model."""
    outcome = subject.outcome
    if isinstance(outcome, BaseException):
        raise outcome
    if not isinstance(outcome, LoadedModel):
        raise Breach(
            "load() returned something else than a model",
            expected="equivengine.LoadedModel",
            got=type(outcome).__name__,
        )
    if not isinstance(outcome.module, nn.Module):
        raise Breach("LoadedModel.module is no torch.nn.Module", got=type(outcome.module).__name__)
    return subject.uri


def loads_offline(subject: EncoderSubject) -> str:
    """Loading works with the network switched off."""
    failed = isinstance(subject.outcome, BaseException)
    downloads = [note for note in subject.asked if note.startswith("torch.hub.")]
    if downloads or (failed and subject.asked):
        raise Breach(
            "loading the model reaches for the network",
            expected="weights and code that come with the plugin, or a file that the user names",
            got=(downloads or subject.asked)[0],
            hint="take a path in the address (NAME:/path/to/weights), and raise equivengine.WeightsError that says how "
            "to get the file",
        )
    if failed:
        raise NotTried("the model did not load")
    return f"it asked for {subject.asked[0]}, and did without" if subject.asked else ""


def loads_soon(subject: EncoderSubject) -> str:
    """Loading takes no longer than declared."""
    _ = subject.loaded
    if subject.load_seconds > subject.seconds_to_load:
        raise Breach(
            "loading takes too long",
            expected=f"at most {subject.seconds_to_load:g} s",
            got=f"{subject.load_seconds:.1f} s",
            hint="read weights with safetensors, or raise seconds_to_load where that is their size",
        )
    return f"{subject.load_seconds:.2f} s"


def loads_the_same(subject: EncoderSubject) -> str:
    """Two loads give equal weights."""
    _ = subject.loaded
    first, second = subject.digest, weights_digest(subject.load().module)
    if first != second:
        raise Breach(
            "loading the same address twice gives different weights",
            expected="weights that are a function of the address alone: runs are resumed by their digest",
            got=f"sha256 {first[:12]}... and {second[:12]}...",
            hint="draw random weights from a generator seeded by the address (uri.integer('seed', 0))",
        )
    return f"sha256 {first[:12]}..."


def refuses_unknown_options(subject: EncoderSubject) -> str:
    """A typing error in an address is an error."""
    _ = subject.loaded
    address = with_unknown_option(subject.uri)
    try:
        with offline():
            subject.cls().load(URI.parse(address))
    except UsageError as error:
        return error.what
    except Exception as error:
        raise Breach(
            "an unknown option is answered by an error that explains nothing",
            expected="equivengine.UsageError",
            got=f"{type(error).__name__}: {error}",
            hint="call uri.allow_options((...)) at the beginning of load()",
        ) from error
    raise Breach(
        "an unknown option passes unnoticed",
        expected=f"equivengine.UsageError for {address!r}",
        got="a model",
        hint="call uri.allow_options((...)) at the beginning of load(), so that typing errors do not change results",
    )


def weights_are_float32(subject: EncoderSubject) -> str:
    """Parameters are float32, the dtype that results are recorded for."""
    _ = subject.loaded
    odd = sorted(str(dtype) for dtype in subject.dtypes if dtype.is_floating_point and dtype != torch.float32)
    if odd:
        raise Breach(
            f"weights are handed over as {', '.join(odd)}",
            expected="torch.float32; the engine converts, but what was rounded away does not come back",
            got=odd[0],
            hint="load them in float32 (in transformers: torch_dtype=torch.float32)",
        )
    return ""


def weights_are_on_the_cpu(subject: EncoderSubject) -> str:
    """The engine moves models, not backends."""
    _ = subject.loaded
    odd = sorted(str(device) for device in subject.devices if device.type != "cpu")
    if odd:
        raise Breach(
            f"weights are handed over on {odd[0]}",
            expected="cpu: --device says where a model goes, and the engine moves it",
            got=odd[0],
            hint="take .cuda() and device_map out of load()",
        )
    return ""


LOADING: Sequence[Requirement[EncoderSubject]] = (
    Requirement("loads", "it loads", loads),
    Requirement("loads_offline", "loading needs no network", loads_offline),
    Requirement("loads_soon", "loading takes no longer than declared", loads_soon),
    Requirement("loads_the_same", "the same address gives the same weights", loads_the_same),
    Requirement("refuses_unknown_options", "an unknown option in the address is refused", refuses_unknown_options),
    Requirement("weights_are_float32", "its weights are float32", weights_are_float32),
    Requirement("weights_are_on_the_cpu", "its weights are on the CPU", weights_are_on_the_cpu),
)
