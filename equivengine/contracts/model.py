"""What a model backend returns. Nothing here imports torch, so that a backend's module stays light to import."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from equivengine.errors import DataError, UsageError

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from equivengine.contracts.uri import URI

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]

#: Pixels of an image after scaling, at most: a line of 1 x 65,535 pixels would become one of 224 x 15 million.
MAX_RESIZED = 2**27


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the model's input, declared instead of coded, so that it can be stored with every result.

    Calling it does everything that stays outside the differentiated graph: color mode, resize (Pillow, antialiased)
    and crop. ``mean`` and ``std`` are applied by `Encoder` inside the graph, so that derivatives are with respect to
    pixels in [0, 1].

    Attributes:
        size: (height, width) of the model's input, pixels.
        mode: Pillow mode of the input: ``"RGB"`` or ``"L"``.
        resize: ``"shortest"`` (shorter side to ``resize_to``, then center crop), ``"longest"`` (longer side to
            ``resize_to``, then center crop or pad with black) or ``"squash"`` (to the shape of ``size``, aspect ratio
            lost, its longer side being ``resize_to``, then center crop).
        resize_to: Length in pixels that ``resize`` refers to; ``None`` means min(size) ("shortest") or max(size).
        interpolation: Pillow filter.
        crop_rounding: Where a margin of half a pixel goes in the center crop: ``"even"`` (to the even number of pixels,
            as torchvision and timm do) or ``"down"`` (as transformers does).
        mean: Per-channel mean subtracted inside the graph, in units of [0, 1] pixels.
        std: Per-channel divisor inside the graph, in units of [0, 1] pixels.
    """

    size: tuple[int, int]
    mode: Literal["RGB", "L"] = "RGB"
    resize: Literal["shortest", "longest", "squash"] = "shortest"
    resize_to: int | None = None
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    crop_rounding: Literal["even", "down"] = "even"

    def __post_init__(self) -> None:
        channels = 1 if self.mode == "L" else 3
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != channels:
                raise UsageError(
                    f"Preprocessing.{name} does not fit mode {self.mode!r}",
                    expected=f"{channels} values",
                    got=values,
                )
        if any(s <= 0 for s in self.std):
            raise UsageError("Preprocessing.std must be positive", got=self.std)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Turn a Pillow image into a float32 tensor [C, H, W] with pixels in [0, 1].

        Raises:
            DataError: If it is no image, cannot be decoded, has no pixels or no 8-bit levels, or is so long that it
                would have more than `MAX_RESIZED` pixels once its short side is scaled.
        """
        # Pillow itself, not torchvision's wrapper of it, whose import takes longer than a small model's whole run.
        import numpy as np
        import torch
        from PIL import Image

        if not isinstance(image, Image.Image):
            raise DataError(
                "a sample is no image",
                expected="a Pillow image",
                got=type(image).__name__,
                hint="take a set of images, or a model of what the samples are (texts: hf_text:...)",
            )
        if not image.width * image.height:
            raise DataError("an image has no pixels", got=f"{image.width} x {image.height}", hint="leave it out")
        try:
            _require_8_bit(image)
            image = image.convert(self.mode)
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError("an image cannot be decoded", got=error, hint="copy or export the image again") from error
        resized = self._resized(image.width, image.height)
        if resized[0] * resized[1] > MAX_RESIZED:
            raise DataError(
                f"an image of {image.width} x {image.height} pixels is too long to be scaled by its short side",
                expected=f"at most {MAX_RESIZED:,} pixels after scaling",
                got=f"{resized[0]:,} x {resized[1]:,}",
                hint="cut it, or leave it out",
            )
        if resized != image.size:
            image = image.resize(resized, Image.Resampling[self.interpolation.upper()])
        height, width = self.size
        if image.size != (width, height):
            left, top = (
                _centred(full, wanted, self.crop_rounding)
                for full, wanted in ((image.width, width), (image.height, height))
            )
            image = image.crop((left, top, left + width, top + height))  # what lies outside is black
        pixels = np.array(image, dtype=np.uint8)
        tensor = torch.from_numpy(pixels).to(torch.float32).div_(255.0)
        return tensor.unsqueeze(0) if self.mode == "L" else tensor.permute(2, 0, 1).contiguous()

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after ``resize``; rounded as torchvision and timm round them."""
        if self.resize == "squash":
            scale = (self.resize_to or max(self.size)) / max(self.size)
            return round(self.size[1] * scale), round(self.size[0] * scale)
        if self.resize == "longest":
            scale = (self.resize_to or max(self.size)) / max(width, height)
            return max(1, round(width * scale)), max(1, round(height * scale))
        short = self.resize_to or min(self.size)
        if width <= height:
            return short, int(short * height / width)
        return int(short * width / height), short


def _require_8_bit(image: Image.Image) -> None:
    """Refuse what Pillow would clip to 0 .. 255: where white lies in wider samples only their author knows."""
    if not image.mode.startswith(("I", "F")):
        return
    import numpy as np

    levels = np.asarray(image)
    low, high = levels.min(), levels.max()
    if image.mode == "F" or low < 0 or high > 255:
        raise DataError(
            "an image has samples without an agreed 8-bit form",
            expected="levels of 0 to 255",
            got=f"a Pillow image of mode {image.mode!r} with levels of {low} to {high}",
            hint="convert it with the white level that you mean",
        )


def _centred(full: int, wanted: int, rounding: str) -> int:
    """Where a centered window of length ``wanted`` begins within ``full``; negative where it overhangs."""
    if full < wanted:
        return -((wanted - full) // 2)
    return round((full - wanted) / 2) if rounding == "even" else (full - wanted) // 2


@dataclass(frozen=True)
class LoadedModel:
    """What `Backend.load` returns: a module and what must be known of it. The engine wraps it as an `Encoder`.

    Attributes:
        module: Maps normalized input [B, *input_shape] to embeddings [B, n], one plain tensor. Parameters in float32.
        preprocessing: How an image becomes the input, or any callable ``raw -> float32 [*input_shape]``.
        input_shape: Shape of one input; taken from a `Preprocessing` when ``None``.
        input_range: Smallest and largest value that an input may take, before normalization; finite. Where nothing
            bounds them (token embeddings), a box that holds what the data hold.
        random_weights: True if the weights were drawn, not trained. It is stored with every result.
        normalized_output: True if the embedding has unit length by construction.
        activation: Name of the nonlinearity (``"gelu"``, ``"quickgelu"``, ...), for the record.
        license: License of the weights, if known.
        class_names: Names of the classes that ``classify`` tells apart.
        classify: Ability: embeddings [B, n] -> logits [B, classes].
        embed_text: Ability: prompts -> text embeddings [P, n] in the same space.
        details: Anything else worth storing (architecture, training data, metrics), JSON types only.
    """

    module: torch.nn.Module
    preprocessing: Preprocessing | Callable[..., torch.Tensor]
    input_shape: tuple[int, ...] | None = None
    input_range: tuple[float, float] = (0.0, 1.0)
    random_weights: bool = False
    normalized_output: bool = False
    activation: str = "unknown"
    license: str | None = None
    class_names: Sequence[str] | None = None
    classify: Callable[[torch.Tensor], torch.Tensor] | None = None
    embed_text: Callable[[Sequence[str]], torch.Tensor] | None = None
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class EncoderSpec:
    """What is known of a loaded encoder; stored with every result.

    Attributes:
        uri: The address that it was loaded from.
        input_shape: Shape of one input.
        embedding_dim: n, the length of an embedding.
        input_range: Smallest and largest value of an input.
        weights_digest: sha256 over names, dtypes, shapes and bytes of all parameters and buffers.
        random_weights: True if the weights were drawn, not trained.
        normalized_output: True if embeddings have unit length (then f^T J = 0 and rank(J) <= n - 1).
        activation: Name of the nonlinearity.
        preprocessing: The declared preprocessing, JSON types only.
        license: License of the weights, if known.
        parameters: Number of parameters.
        details: Whatever else the backend recorded.
        input_unit: What one number of an input is: ``"pixel"`` where inputs are images, ``"coordinate"`` elsewhere.
    """

    uri: str
    input_shape: tuple[int, ...]
    embedding_dim: int
    input_range: tuple[float, float]
    weights_digest: str
    random_weights: bool
    normalized_output: bool
    activation: str
    preprocessing: Mapping[str, object]
    license: str | None
    parameters: int
    details: Mapping[str, object] = field(default_factory=dict)
    input_unit: str = "pixel"

    @property
    def input_dim(self) -> int:
        """m, the number of input coordinates."""
        product = 1
        for length in self.input_shape:
            product *= length
        return product


class Backend:
    """A family of models behind one URI scheme. Subclass it, set `name`, implement `load`.

    Attributes:
        name: The URI scheme ("timm").
        summary: One line for ``equivengine ls models``.
        examples: Addresses that a user can type.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    examples: ClassVar[Sequence[str]] = ()

    def load(self, uri: URI) -> LoadedModel:
        """Build the model that ``uri`` names, on the CPU, in float32.

        Raises:
            UsageError: If the address makes no sense to this backend.
            WeightsError: If the weights cannot be had.
        """
        raise NotImplementedError
