"""The image processor of a checkpoint, declared, and held against the processor itself."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, cast

import equivengine as eqv
from equivengine_plugins.backends.hf.checkpoint import Checkpoint
from equivengine_plugins.backends.hf.configuration import refuse_code

# PIL.Image.Resampling
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
# Sizes (width, height) on which a declaration must agree with the processor: margins odd and even, both orientations,
# larger and smaller than most inputs.
_TRIALS = ((517, 388), (233, 301))
_LEVEL = 1 / 255
# Longest side of an input, pixels: of one color image of this side, float32 takes 0.8 GB.
_LARGEST = 8192


def read(checkpoint: Checkpoint) -> tuple[eqv.Preprocessing, Any, dict[str, object]]:
    """The declared preprocessing, the processor it stands for, and what to record.

    The processor's Pillow variant is used: the one that torch runs resizes with other rounding.

    Raises:
        ModelError: If the image processor is missing, or does what a declaration cannot say.
    """
    processor = checkpoint.part("image processor", _load)
    if not hasattr(processor, "to_dict"):
        raise _cannot_declare(checkpoint.uri, f"{processor.__name__}, which is none")
    raw = processor.to_dict()
    refuse_code(checkpoint.uri, raw, "preprocessor_config.json")
    declared = declare(checkpoint.uri, raw)
    differs = _largest_difference(declared, processor)
    if not differs <= _LEVEL:
        raise _cannot_declare(
            checkpoint.uri, f"{raw.get('image_processor_type')} computes something else: {differs:.3g}"
        )
    return (
        declared,
        processor,
        {
            "image_processor": str(raw.get("image_processor_type")),
            "image_processor_backend": "pil",
            "image_processor_difference": differs,
        },
    )


def _load(name: str, **where: Any) -> Any:
    from transformers import AutoImageProcessor

    newer = importlib.util.find_spec("transformers.image_processing_backends") is not None
    variant: dict[str, Any] = {"backend": "pil"} if newer else {"use_fast": False}
    return AutoImageProcessor.from_pretrained(name, **variant, **where)


def declare(uri: eqv.URI, raw: Mapping[str, Any]) -> eqv.Preprocessing:
    """What an image processor's settings say, as a `Preprocessing`.

    Raises:
        ModelError: If they ask for padding, an unknown filter, or leave the input's size to the image.
    """
    if not raw.get("do_resize", True):
        raise _cannot_declare(uri, "no resizing: the input's size is the image's")
    if raw.get("do_pad"):
        raise _cannot_declare(uri, "padding")
    size = _sides(raw.get("size"))
    crop = _sides(raw.get("crop_size")) if raw.get("do_center_crop") else {}
    window = (crop["height"], crop["width"]) if {"height", "width"} <= set(crop) else None
    resize: str
    resize_to: int | None
    if set(size) == {"height", "width"}:
        shape, resize = (size["height"], size["width"]), "squash"
        resize_to = None if window in (None, shape) else max(shape)
        if resize_to is not None and (shape[0] != shape[1] or cast(Any, window)[0] != cast(Any, window)[1]):
            raise _cannot_declare(uri, f"a crop of {window} from {shape}, not squares")
    elif set(size) == {"shortest_edge"} and window is not None:
        shape, resize, resize_to = window, "shortest", size["shortest_edge"]
        if resize_to < max(window):
            raise _cannot_declare(uri, f"a crop of {window} from a shorter side of {resize_to}")
    else:
        raise _cannot_declare(uri, f"size {size or None} with crop {crop or None}: the input's size is not fixed")
    sides = [*size.values(), *crop.values()]
    if not all(1 <= side <= _LARGEST for side in sides):
        raise _cannot_declare(uri, f"sides of {', '.join(map(str, sides))} pixels; at least 1 and at most {_LARGEST}")
    resample = raw.get("resample", 2)
    if resample not in _FILTERS:
        raise _cannot_declare(uri, f"resampling filter {resample}")
    # The processor computes (factor * level - mean) / std of levels 0 .. 255; we, of level / 255.
    white = 255.0 * (float(raw.get("rescale_factor", _LEVEL)) if raw.get("do_rescale", True) else 1.0)
    normalized = raw.get("do_normalize", True)
    mean, std = (raw.get("image_mean"), raw.get("image_std")) if normalized else (None, None)
    return eqv.Preprocessing(
        size=window or shape,
        resize=cast(Any, resize),
        resize_to=resize_to,
        crop_rounding="down",
        interpolation=cast(Any, _FILTERS[resample]),
        mean=tuple(value / white for value in _channels(mean, 0.0)),
        std=tuple(value / white for value in _channels(std, 1.0)),
    )


def _sides(value: Any) -> dict[str, int]:
    """A size as transformers writes it (a number, a pair or named sides), as named sides without empty ones."""
    if value is None:
        return {}
    if isinstance(value, int):
        return {"height": value, "width": value}
    if isinstance(value, list | tuple):
        return {"height": int(value[0]), "width": int(value[-1])}
    return {str(name): int(length) for name, length in dict(value).items() if length is not None}


def _channels(value: Any, default: float) -> tuple[float, ...]:
    if value is None:
        return (default,) * 3
    return (float(value),) * 3 if isinstance(value, int | float) else tuple(float(one) for one in value)


def normalized_pixels(declared: eqv.Preprocessing, image: Any) -> Any:
    """What the model itself sees of a Pillow image under a declaration: a tensor [3, H, W]."""
    import torch

    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (declared.mean, declared.std))
    return (declared(image) - mean) / std


def _largest_difference(declared: eqv.Preprocessing, processor: Any) -> float:
    """Largest difference on noise images, in [0, 1] pixels: roundoff where both are the same; NaN counts as inf."""
    import numpy as np
    import torch
    from PIL import Image

    generator = np.random.default_rng(0)
    worst = 0.0
    for width, height in _TRIALS:
        image = Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
        own = torch.as_tensor(np.asarray(processor(images=image, return_tensors="np")["pixel_values"][0]))
        ours = normalized_pixels(declared, image)
        if own.shape != ours.shape:
            return float("inf")
        std = torch.tensor(declared.std).view(-1, 1, 1)
        difference = float(((own - ours) * std).abs().max())
        worst = max(worst, difference if difference == difference else float("inf"))
    return worst


def _cannot_declare(uri: eqv.URI, got: str) -> eqv.ModelError:
    return eqv.ModelError(
        f"the image processor of {uri.text!r} cannot be declared",
        expected="resizing to a fixed shape, or by the shorter side with a center crop; then scaling and normalization",
        got=got,
        hint="wrap the model as module:package.attr and declare its preprocessing in the address",
    )
