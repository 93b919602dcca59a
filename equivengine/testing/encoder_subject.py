"""A backend under test: one model of it, as it was loaded and as the engine wraps it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from equivengine.contracts.encoder import Encoder, is_image, weights_digest
from equivengine.contracts.model import Backend, LoadedModel, Preprocessing
from equivengine.contracts.uri import URI
from equivengine.contracts.validation import into_eval_mode
from equivengine.errors import ModelError
from equivengine.testing.offline import offline
from equivengine.testing.verdict import Breach, NotTried

if TYPE_CHECKING:
    from PIL import Image

#: Inputs of the batch that the module is tried on.
BATCH = 3


class EncoderSubject:
    """One backend class and one address.

    What the engine does for every model (eval mode, a copy of the input, casts) hides faults of the module, so that the
    module itself is looked at first, as `Backend.load` returned it.

    Args:
        backend: The class.
        uri: Address of the model to try; its first example when None.
        module: Import path of the plugin's module; that of the class when None.
        raw: Gives a raw sample for `LoadedModel.preprocessing`; a synthetic picture when None.
        seconds_to_load: Longest time that loading may take.
        seconds_per_unit: Longest time that an embedding with one product J^T u may take.
    """

    kind = "backends"

    def __init__(
        self,
        backend: type[Backend],
        uri: str | None = None,
        *,
        module: str | None = None,
        raw: Callable[[], Any] | None = None,
        seconds_to_load: float = 60.0,
        seconds_per_unit: float = 60.0,
    ) -> None:
        self.cls = backend
        self.module = module or backend.__module__
        self.uri = uri or next(iter(backend.examples), backend.name)
        self.raw = raw
        self.seconds_to_load = seconds_to_load
        self.seconds_per_unit = seconds_per_unit
        self.load_seconds = 0.0
        self.digest = ""  # of the weights as they were handed over
        self.asked: list[str] = []  # who reached for the network
        self.training: list[str] = []  # parts that were handed over in training mode
        self.dtypes: set[torch.dtype] = set()  # of parameters and buffers as they were handed over
        self.devices: set[torch.device] = set()
        self.as_loaded: nn.Module | None = None  # a copy of the module before the engine touched it

    def load(self) -> LoadedModel:
        """Load the model anew, with the network switched off."""
        with offline() as asked:
            try:
                return self.cls().load(URI.parse(self.uri))
            finally:
                self.asked = list(asked)

    @cached_property
    def outcome(self) -> LoadedModel | BaseException:
        """What loading returned, or raised; tried once."""
        start = time.perf_counter()
        try:
            loaded = self.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a backend may call sys.exit
            return error
        self.load_seconds = time.perf_counter() - start
        if isinstance(loaded, LoadedModel) and isinstance(loaded.module, nn.Module):
            tensors = [*loaded.module.parameters(), *loaded.module.buffers()]
            self.digest = weights_digest(loaded.module)
            self.dtypes, self.devices = {t.dtype for t in tensors}, {t.device for t in tensors}
            self.training = [name or "the module itself" for name, m in loaded.module.named_modules() if m.training]
            if self.training:
                try:
                    self.as_loaded = copy.deepcopy(loaded.module).to("cpu", torch.float32)
                except Exception:  # then only the types of its parts tell
                    self.as_loaded = None
        return loaded

    @property
    def loaded(self) -> LoadedModel:
        """What loading returned. Raises `NotTried` if that is no model."""
        if not isinstance(self.outcome, LoadedModel) or not isinstance(self.outcome.module, nn.Module):
            raise NotTried("the model did not load")
        return self.outcome

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input. Raises `NotTried` if it is not known."""
        loaded = self.loaded
        if loaded.input_shape is not None:
            return tuple(loaded.input_shape)
        if isinstance(loaded.preprocessing, Preprocessing):
            return (1 if loaded.preprocessing.mode == "L" else 3, *loaded.preprocessing.size)
        raise NotTried("the input shape is not known")

    @cached_property
    def module_in_use(self) -> nn.Module:
        """The module itself without the engine's wrapper, in eval mode, on the CPU, in float32."""
        module = self.loaded.module
        try:
            into_eval_mode(module, self.uri)
        except ModelError as error:  # `is_accepted` says it in full
            raise NotTried(error.what) from None
        for parameter in module.parameters():  # scripted modules lack nn.Module.requires_grad_
            parameter.requires_grad_(False)
        return module.to("cpu", torch.float32)

    def inputs(self, count: int = BATCH) -> torch.Tensor:
        """Noise in the input range, float32 [count, *shape]."""
        low, high = self.loaded.input_range
        generator = torch.Generator().manual_seed(20230801)
        return torch.rand((count, *self.shape), generator=generator) * (high - low) + low

    def normalised(self, x: torch.Tensor) -> torch.Tensor:
        """What the engine hands to the module for inputs x: a tensor of its own."""
        preprocessing = self.loaded.preprocessing
        if not isinstance(preprocessing, Preprocessing):
            return x.clone()
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
        return (x - mean) / std

    def evaluate(self, z: torch.Tensor, module: nn.Module | None = None) -> Any:
        """The module (`module_in_use` when None) on z [B, *shape], without gradients. Raises `Breach` if it raises."""
        module = module or self.module_in_use
        try:
            with torch.no_grad():
                return module(z)
        except Exception as error:
            raise Breach(
                "the module fails on noise of its declared input shape",
                expected=f"embeddings of a {list(z.shape)} input",
                got=f"{type(error).__name__}: {' '.join(str(error).split())}",
                hint="compare the shape that Preprocessing or input_shape declares with what the module takes; "
                "batches of any size must do",
            ) from error

    @cached_property
    def output(self) -> Any:
        """What the module returns for noise, whatever that is."""
        return self.evaluate(self.normalised(self.inputs()))

    @property
    def embeddings(self) -> torch.Tensor:
        """The same, a tensor of one row for each input. Raises `NotTried` otherwise."""
        try:
            output = self.output
        except Breach as error:
            raise NotTried(error.what) from None
        if not isinstance(output, torch.Tensor):
            raise NotTried("the module returns no plain tensor")
        if output.dim() != 2 or output.shape[0] != BATCH:
            raise NotTried("the output has a wrong shape")
        return output

    @cached_property
    def wrapped(self) -> Encoder | Exception:
        """The engine's encoder, or why there is none."""
        loaded = self.loaded
        try:
            return Encoder(loaded, self.uri).to("cpu")
        except Exception as error:
            return error

    @property
    def encoder(self) -> Encoder:
        """The engine's encoder. Raises `NotTried` if the engine refuses the model."""
        if isinstance(self.wrapped, Exception):
            raise NotTried("the engine does not accept the model")
        return self.wrapped

    @property
    def takes_pictures(self) -> bool:
        """Whether inputs are images with pixels."""
        return is_image(self.shape)

    def sample(self) -> Any:
        """A raw sample. Raises `NotTried` where none is given and inputs are no images."""
        if self.raw is not None:
            return self.raw()
        if not self.takes_pictures:
            raise NotTried("inputs are no images, and no sample was given")
        return picture()


def picture(width: int = 320, height: int = 240) -> Image.Image:
    """A colored picture with edges and gradients, mode RGB."""
    import numpy as np
    from PIL import Image

    row, column = np.mgrid[0:height, 0:width]
    channels = (
        255 * column / max(1, width - 1),
        255 * row / max(1, height - 1),
        255 * ((row // 16 + column // 16) % 2),
    )
    return Image.fromarray(np.stack(channels, -1).round().astype(np.uint8))
