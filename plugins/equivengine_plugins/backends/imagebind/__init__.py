"""The ``imagebind`` backend: the vision tower of ImageBind, with its text tower as an ability.

The module is this package's own, written from the published architecture (`architecture`); the published code and
weights are licensed CC BY-NC-SA 4.0 and come with neither this package nor this backend: a checkpoint is a local file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import equivengine as eqv
from equivengine_plugins.backends import weights
from equivengine_plugins.backends.checkpoint_file import read_checkpoint

if TYPE_CHECKING:
    import torch

    from equivengine_plugins.backends.imagebind.architecture import TextTower, VisionTower

EQUIVENGINE_API = (1, 0)

_OPTIONS = (*weights.OPTIONS, "heads", "text_heads", "text", "normalize")
_SIZES = ("huge", "tiny")
#: CLIP's, of which the vision tower is one.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


class ImageBindBackend(eqv.Backend):
    """``imagebind:FILE``, or ``imagebind:huge?weights=random&seed=N`` (or ``tiny``).

    The file is ``imagebind_huge.pth`` or one of the same names, also as safetensors; sizes follow from its shapes, but
    for the number of heads, which ``?heads=N`` and ``?text_heads=N`` give where it is not the published 16. Audio,
    depth, thermal and IMU towers are passed over. ``?text=false`` leaves the text tower out.

    Embeddings of images and texts have unit length, as published; ``?normalize=false`` takes them before that.
    """

    name = "imagebind"
    summary = "the vision tower of ImageBind, with text embeddings; a local checkpoint of the published layout"
    examples = (
        "imagebind:/path/to/imagebind_huge.pth",
        "imagebind:/path/to/imagebind_huge.pth?normalize=false&text=false",
        "imagebind:tiny?weights=random&seed=0",
    )

    def load(self, uri: eqv.URI) -> eqv.LoadedModel:
        """Build the towers that ``uri`` names, on the CPU, in float32.

        Raises:
            UsageError: If an option makes no sense, or the number of heads does not divide a width.
            WeightsError: If the file cannot be read, or its names and shapes are not those of ImageBind.
        """
        path = uri.require_path("a checkpoint", "imagebind:/path/to/imagebind_huge.pth")
        uri.allow_options(_OPTIONS)
        wants_text, normalize = _switch(uri, "text"), _switch(uri, "normalize")
        random = _is_random(uri, path)
        if random:
            vision, text, recorded = _drawn(uri, path, wants_text, normalize)
        else:
            vision, text, recorded = _loaded(uri, Path(path).expanduser(), wants_text, normalize)
        size = vision.config.image_size
        return eqv.LoadedModel(
            module=vision,
            preprocessing=eqv.Preprocessing(
                size=(size, size), resize="shortest", interpolation="bicubic", mean=_MEAN, std=_STD
            ),
            random_weights=random,
            normalized_output=normalize,
            activation="gelu",
            embed_text=None if text is None else _Prompts(text, vision),
            details={
                **recorded,
                "architecture": asdict(vision.config),
                "text_architecture": None if text is None else asdict(text.config),
                "parameters": sum(p.numel() for p in vision.parameters()),
                "text_parameters": None if text is None else sum(p.numel() for p in text.parameters()),
                "activations": weights.activations(vision),
                "text_normalized": None if text is None else normalize,
                "logit_scale": None if text is None else text.logit_scale,
                "license_of_published_weights": "CC BY-NC-SA 4.0",
            },
        )


@eqv.hookimpl
def equivengine_register_backends() -> list[type[eqv.Backend]]:
    """Provide the ``imagebind`` backend."""
    return [ImageBindBackend]


def _switch(uri: eqv.URI, name: str) -> bool:
    """A ``true`` or ``false`` option, true where it is not given."""
    value = uri.options.get(name, "true").lower()
    if value not in ("true", "false"):
        raise eqv.UsageError(f"option {name!r} of {uri.text!r} is not usable", expected="true or false", got=value)
    return value == "true"


def _is_random(uri: eqv.URI, path: str) -> bool:
    """Whether the address asks for random weights; they need a size, and a file needs no ``weights``."""
    source = weights.Source.of(uri)
    if source.kind == "random" and path not in _SIZES:
        raise eqv.UsageError(
            "random weights need a size, not a file",
            expected=" or ".join(f"imagebind:{size}?weights=random" for size in _SIZES),
            got=repr(uri.text),
        )
    if source.kind == "file":
        raise eqv.UsageError(
            "the checkpoint stands after the colon", expected=f"imagebind:{source.path}", got=repr(uri.text)
        )
    if source.kind == "hub" and path in _SIZES:
        raise eqv.WeightsError(
            f"{uri.text!r} names no weights, and none are downloaded",
            expected="a local checkpoint, or random weights in so many words",
            hint=f"imagebind:/path/to/imagebind_huge.pth, or imagebind:{path}?weights=random&seed=0",
        )
    return source.kind == "random"


def _heads(uri: eqv.URI, option: str, default: int) -> int:
    return uri.integer(option, default, minimum=1, maximum=65536)


def _drawn(
    uri: eqv.URI, size: str, wants_text: bool, normalize: bool
) -> tuple[VisionTower, TextTower | None, dict[str, object]]:
    """Towers of a named size with drawn weights; those of the vision tower do not depend on whether text is wanted."""
    from equivengine_plugins.backends.imagebind import architecture, layout

    source = weights.Source.of(uri)
    huge = size == "huge"
    sizes = architecture.VISION_HUGE if huge else architecture.VISION_TINY
    text_sizes = architecture.TEXT_HUGE if huge else architecture.TEXT_TINY
    sizes = replace(sizes, heads=layout.dividing(_heads(uri, "heads", sizes.heads), sizes.width, "heads"))
    heads = layout.dividing(_heads(uri, "text_heads", text_sizes.heads), text_sizes.width, "text_heads")
    text_sizes = replace(text_sizes, heads=heads)
    text = None
    with weights.seeded(source.seed):
        vision = architecture.drawn(lambda: architecture.VisionTower(sizes, normalize=normalize))
        if wants_text:
            text = architecture.drawn(lambda: architecture.TextTower(text_sizes, normalize=normalize))
    return vision, text, {**source.describe(), "size": size}


def _loaded(
    uri: eqv.URI, path: Path, wants_text: bool, normalize: bool
) -> tuple[VisionTower, TextTower | None, dict[str, object]]:
    """Towers of a checkpoint. One tower after the other is copied out of the file, which is mapped where it can be."""
    import torch

    from equivengine_plugins.backends.imagebind import layout
    from equivengine_plugins.backends.imagebind.architecture import TextTower, VisionTower

    contents = layout.sort(read_checkpoint(path), path)
    towers = [*contents.vision.values(), *(contents.text.values() if wants_text else ())]
    dtypes = sorted({str(value.dtype).removeprefix("torch.") for value in towers})
    del towers
    if not wants_text and contents.text:
        contents.passed_over["text"] = len(contents.text)
        contents.text.clear()
    heads, text_heads = (_heads(uri, option, layout.PUBLISHED_HEADS) for option in ("heads", "text_heads"))
    config = layout.vision_config(contents.vision, path, heads)
    with torch.device("meta"):
        vision = VisionTower(config, normalize=normalize)
    layout.fill(vision, contents.vision, path)
    text = None
    if contents.text:
        text_config = layout.text_config(contents.text, path, text_heads)
        with torch.device("meta"):
            text = TextTower(text_config, normalize=normalize)
        layout.fill(text, contents.text, path)
        layout.check_joint(vision, text, path)
    recorded: dict[str, object] = {"weights": str(path), "checkpoint_dtypes": dtypes}
    return vision, text, {**recorded, "passed_over": contents.passed_over}


class _Prompts:
    """Text embeddings [P, n] in float32, on the device of the image tower, without the factor ``logit_scale``.

    Prompts are split by CLIP's byte-pair encoding, which comes with open_clip. One that is too long is cut; its end
    token is kept.
    """

    def __init__(self, text: TextTower, vision: VisionTower) -> None:
        self._text = text.eval().requires_grad_(False)
        self._vision = vision
        self._tokenizer: Any = None

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        import torch

        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise eqv.UsageError("text prompts must be strings", expected="one or more", got=prompts[:3])
        if self._tokenizer is None:
            from open_clip.tokenizer import SimpleTokenizer

            self._tokenizer = SimpleTokenizer()
        device = next(self._vision.parameters()).device
        ids = self._tokenizer(prompts, context_length=self._text.config.context).to(device)
        with torch.no_grad():
            return cast("torch.Tensor", self._text.to(device)(ids))
