"""The encoder: a frozen, eval-mode, checked wrapper around whatever module a backend returned."""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from equivengine.contracts.model import EncoderSpec, LoadedModel, Preprocessing
from equivengine.contracts.validation import into_eval_mode, narrowed_in_float64, validate
from equivengine.errors import DataError, ModelError, UsageError
from equivengine.ops.narrowing import Narrowing, epsilon_of
from equivengine.ops.precision import DTYPES
from equivengine.ops.versions import Versions, of_all

if TYPE_CHECKING:
    from PIL import Image


class Encoder(nn.Module):
    """f: inputs [B, *input_shape] -> embeddings [B, n], differentiable to its input, deterministic, one plain tensor.

    Pixels are in [0, 1]; normalization is inside the graph, resize and crop are outside it (`preprocess`). The module
    is put into eval mode, its parameters are frozen and cast to float32, gradient checkpointing is switched off; during
    a call autocast and the fused inference path of ``nn.MultiheadAttention`` (which forward-mode derivatives do not
    pass) are off, and the input is cloned, since some models change it in place.

    Args:
        loaded: What the backend returned.
        uri: The address, for the record.

    Raises:
        ModelError: If the module returns a tuple, a wrong shape or dtype, NaN, different output for the same input, or
            output that depends on the rest of the batch or not at all on the input.
    """

    def __init__(self, loaded: LoadedModel, uri: str) -> None:
        super().__init__()
        if not isinstance(loaded, LoadedModel):
            raise ModelError(
                f"the backend of {uri!r} returned something else than a model",
                expected="equivengine.LoadedModel",
                got=type(loaded).__name__,
                hint="return equivengine.LoadedModel(module=..., preprocessing=...) from load",
            )
        if not isinstance(loaded.module, nn.Module):
            raise ModelError(
                f"{uri!r}: LoadedModel.module has a wrong type",
                expected="a torch.nn.Module",
                got=type(loaded.module).__name__,
                hint="wrap what computes embeddings in a torch.nn.Module, in the backend",
            )
        self.module = loaded.module
        self.loaded = loaded
        self._freeze(uri)
        preprocessing = loaded.preprocessing
        shape = loaded.input_shape
        if isinstance(preprocessing, Preprocessing):
            channels = 1 if preprocessing.mode == "L" else 3
            shape = shape or (channels, *preprocessing.size)
            if tuple(shape) != (channels, *preprocessing.size):
                raise ModelError(
                    f"{uri!r}: input_shape and preprocessing disagree",
                    expected=(channels, *preprocessing.size),
                    got=tuple(shape),
                )
            stats = torch.tensor([preprocessing.mean, preprocessing.std], dtype=torch.float32)
            self.register_buffer("_mean", stats[0].view(channels, 1, 1), persistent=False)
            self.register_buffer("_std", stats[1].view(channels, 1, 1), persistent=False)
            described: Mapping[str, object] = asdict(preprocessing)
        elif shape is None:
            raise ModelError(
                f"{uri!r}: the input shape is not known",
                expected="LoadedModel.input_shape, or a Preprocessing",
                got="neither",
            )
        else:
            self._mean = self._std = None
            described = {"callable": getattr(preprocessing, "__qualname__", repr(type(preprocessing)))}
        self._input_shape = tuple(int(length) for length in shape)
        self._embedding_dim, narrowed = validate(self, uri)
        self._narrowed: dict[str, tuple[Narrowing, ...]] = {"fp32": narrowed}
        self.spec = EncoderSpec(
            uri=uri,
            input_shape=self._input_shape,
            embedding_dim=self._embedding_dim,
            input_range=loaded.input_range,
            weights_digest=weights_digest(self.module),
            random_weights=loaded.random_weights,
            normalized_output=loaded.normalized_output,
            activation=loaded.activation,
            preprocessing=described,
            license=loaded.license,
            parameters=sum(p.numel() for p in self.module.parameters()),
            details=dict(loaded.details),
            input_unit="pixel" if is_image(self._input_shape) else "coordinate",
        )
        self._double: Encoder | None = None
        self._double_of: Versions = ()

    # -- what callers use ---------------------------------------------------------------------------------------------

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings [B, n] of inputs x [B, *input_shape], in x's dtype.

        Raises:
            ModelError: If x has another shape or dtype than the encoder, or if the module misbehaves.
        """
        if tuple(x.shape[1:]) != self._input_shape or x.dim() != len(self._input_shape) + 1:
            raise ModelError(
                "the encoder got an input of a wrong shape",
                expected=f"[B, {', '.join(map(str, self._input_shape))}]",
                got=list(x.shape),
            )
        own = next(self.module.parameters(), x).dtype
        if x.dtype != own:
            raise ModelError(
                "the encoder got an input of another dtype than its own",
                expected=own,
                got=x.dtype,
                hint="convert the input, or use at_precision('fp64')",
            )
        x = x.clone()
        if self._mean is not None:
            x = (x - self._mean) / self._std
        with _plain_execution(x.device.type):
            y = self.module(x)
        if not isinstance(y, torch.Tensor):
            raise ModelError(
                "the model does not return one tensor",
                expected="a tensor [B, n]",
                got=_describe_output(y),
                hint="let the backend wrap the module so that it returns the embedding alone",
            )
        if y.dim() != 2 or y.shape[0] != x.shape[0] or y.shape[1] == 0:
            raise ModelError(
                "the model returns an output of a wrong shape",
                expected=f"[{x.shape[0]}, n]: one embedding per input",
                got=list(y.shape),
                hint="pool or flatten in the backend",
            )
        if y.dtype != x.dtype:
            raise ModelError(
                "the model returns another dtype than its input's",
                expected=x.dtype,
                got=y.dtype,
                hint="load the weights in float32 and remove casts from the module",
            )
        return y

    def preprocess(self, raw: Any) -> torch.Tensor:
        """Turn a raw sample (a Pillow image, or what the backend takes) into an input [*input_shape], float32.

        Raises:
            DataError: If the sample cannot be decoded or does not become a finite input of the right shape.
        """
        x = self.loaded.preprocessing(raw)
        if not isinstance(x, torch.Tensor) or tuple(x.shape) != self._input_shape:
            raise DataError(
                "preprocessing did not produce an input of the encoder",
                expected=f"a tensor of shape {list(self._input_shape)}",
                got=list(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__,
            )
        x = x.to(dtype=torch.float32, device=self.device)
        if not bool(torch.isfinite(x).all()):
            raise DataError(
                "an input holds NaN or infinity after preprocessing",
                expected="finite values",
                got=f"{int((~torch.isfinite(x)).sum())} of {x.numel()} values are not finite",
                hint="look at the sample, or leave it out",
            )
        return x

    def display(self, x: torch.Tensor) -> Image.Image:
        """The Pillow image that an input [1 or 3, H, W] in [0, 1] stands for; rounded and clamped, never truncated.

        Raises:
            UsageError: If inputs of this encoder are not images.
        """
        from PIL import Image

        if not is_image(x.shape):
            raise UsageError("inputs of this encoder are no images", expected="[1 or 3, H, W]", got=list(x.shape))
        levels = x.detach().double().clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()
        return Image.fromarray(levels[0] if levels.shape[0] == 1 else levels.transpose(1, 2, 0))

    @property
    def classify_ability(self) -> bool:
        """Whether embeddings can be classified (`classify`)."""
        return self.loaded.classify is not None

    def classify(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Logits [B, classes] of embeddings [B, n].

        Raises:
            UsageError: If the backend gave this encoder no classifier.
        """
        if self.loaded.classify is None:
            raise UsageError(
                f"{self.spec.uri!r} has no classifier", hint="take a model that brings one, such as digits or timm:..."
            )
        return self.loaded.classify(embeddings)

    def embed_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """Text embeddings [P, n] in the space of the image embeddings.

        Raises:
            UsageError: If the encoder has no text tower.
        """
        if self.loaded.embed_text is None:
            raise UsageError(
                f"{self.spec.uri!r} has no text tower",
                hint="take a model that has one, such as open_clip:ViT-B-32/laion2b_s34b_b79k",
            )
        return self.loaded.embed_text(prompts)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self._input_shape

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        first: torch.Tensor | None = next(self.module.parameters(), None)
        if first is None:
            first = next(self.module.buffers(), None)
        return torch.device("cpu") if first is None else first.device

    def at_precision(self, precision: str) -> Encoder:
        """This encoder with parameters in ``"fp32"`` (itself) or ``"fp64"`` (a copy, kept until its weights change).

        A conversion of the parameters does not reach casts that the module makes itself: see `narrowed`.

        Raises:
            UsageError: If the precision is unknown.
            ModelError: If the module cannot be evaluated in float64.
        """
        if precision not in DTYPES:
            raise UsageError("unknown precision", expected=" or ".join(DTYPES), got=repr(precision))
        own = next(self.module.parameters(), torch.empty(0, dtype=torch.float32)).dtype
        if own == DTYPES[precision]:
            return self
        if precision != "fp64":
            raise UsageError("this encoder was already converted to float64", hint="keep the float32 encoder")
        now = of_all(self.module)
        if self._double is None or self._double_of != now:
            double = copy.copy(self)
            double._modules = {}
            double._buffers = {}
            double.module = copy.deepcopy(self.module).to(torch.float64)
            for name, buffer in self._buffers.items():
                double.register_buffer(name, None if buffer is None else buffer.to(torch.float64), persistent=False)
            double._double = None
            self._narrowed["fp64"] = narrowed_in_float64(double)
            self._double_of = now
            object.__setattr__(self, "_double", double)  # not a submodule: it must not be saved or moved twice
        assert self._double is not None
        return self._double

    @property
    def narrowed(self) -> Mapping[str, tuple[Narrowing, ...]]:
        """Where it computes in less than its precision, by the precisions that it was used in: "fp32", "fp64".

        Modules that say ``x.float()`` stay in float32 when their parameters are converted. Found with one input of
        noise, when the encoder is made and when `at_precision` makes its copy.
        """
        return dict(self._narrowed)

    def epsilon(self, precision: str) -> float:
        """Machine epsilon of embeddings in a precision: of its dtype, or of the narrowest place that f passes.

        Raises:
            UsageError: If the precision is unknown.
            ModelError: If the module cannot be evaluated in it.
        """
        self.at_precision(precision)
        return epsilon_of(DTYPES[precision], self._narrowed["fp64" if precision == "fp64" else "fp32"])

    # -- what makes it trustworthy ------------------------------------------------------------------------------------

    def _freeze(self, uri: str) -> None:
        module = self.module
        for switch, argument in (("set_grad_checkpointing", (False,)), ("gradient_checkpointing_disable", ())):
            method = getattr(module, switch, None)
            if callable(method):
                with contextlib.suppress(AttributeError, AssertionError, NotImplementedError, ValueError):
                    method(*argument)
        into_eval_mode(module, uri)
        for parameter in module.parameters():  # scripted modules lack nn.Module.requires_grad_
            parameter.requires_grad_(False)
        module.to(torch.float32)
        super().train(False)

    def train(self, mode: bool = True) -> Encoder:
        """An encoder stays in eval mode: `train(True)` raises `UsageError`."""
        if mode:
            raise UsageError("an encoder is frozen and stays in eval mode", hint="train the model before loading it")
        return super().train(False)


def is_image(shape: Sequence[int]) -> bool:
    """Whether inputs of this shape are images: [1 or 3, H, W]."""
    return len(shape) == 3 and shape[0] in (1, 3)


def weights_digest(module: nn.Module) -> str:
    """sha256 (hex) over names, dtypes, shapes and bytes of all parameters and buffers, sorted by name."""
    digest = hashlib.sha256()
    # state_dict alone would leave out non-persistent buffers (masks, rotary tables, statistics of normalization).
    tensors = {**dict(module.named_buffers(remove_duplicate=False)), **module.state_dict()}
    for name, tensor in sorted(tensors.items()):
        if not isinstance(tensor, torch.Tensor):
            digest.update(f"{name}|{tensor!r}\n".encode())
            continue
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextlib.contextmanager
def _plain_execution(device_type: str) -> Iterator[None]:
    """Autocast off (it would make outputs bfloat16 in silence), fused inference attention off, for one call."""
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.autocast(device_type=device_type, enabled=False):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)


def _describe_output(value: object) -> str:
    if isinstance(value, Mapping):
        return f"{type(value).__name__} with keys {sorted(map(str, value))[:5]}"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__
