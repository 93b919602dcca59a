"""Requirements on how a sample becomes an input, and that it is normalized once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from equivengine.contracts.model import Preprocessing
from equivengine.errors import EngineError
from equivengine.testing.encoder_subject import EncoderSubject, picture
from equivengine.testing.verdict import Breach, NotTried, Requirement

#: Gray levels that must come back.
LEVELS = (0, 64, 128, 255)

#: Largest error of a level, as a share of the range: half a level of 8 bits, and roundoff.
LEVEL = 0.51 / 255


def preprocesses_samples(subject: EncoderSubject) -> str:
    """A sample becomes a float32 input of the declared shape, within the declared range, the same one twice."""
    x, again = _preprocessed(subject, subject.sample()), _preprocessed(subject, subject.sample())
    if x.dtype != torch.float32:
        raise Breach(
            "preprocessing returns another dtype",
            expected="torch.float32",
            got=x.dtype,
            hint="convert at the end: x.to(torch.float32)",
        )
    low, high = subject.loaded.input_range
    if not (float(x.min()) >= low - 1e-6 and float(x.max()) <= high + 1e-6):
        raise Breach(
            "preprocessing returns values outside of the declared input range",
            expected=f"values in [{low:g}, {high:g}]: for images, pixels before normalization",
            got=f"values in [{float(x.min()):.4g}, {float(x.max()):.4g}]",
            hint="leave normalization to the graph: declare it in Preprocessing(mean=..., std=...), or do it in the "
            "module, but not here and there",
        )
    if not torch.equal(x, again):
        raise Breach(
            "preprocessing the same sample twice gives two inputs",
            expected="equal inputs",
            got=f"a difference of {float((x - again).abs().max()):.2g}",
            hint="leave augmentation (random crops, flips) out",
        )
    return f"{list(x.shape)}"


def takes_images_of_any_mode(subject: EncoderSubject) -> str:
    """Gray, palette and transparent images are samples too."""
    _need_pictures(subject)
    for mode in ("RGB", "L", "RGBA", "P", "LA", "1", "I;16"):
        image = picture(64, 48).convert("I").convert("I;16") if mode == "I;16" else picture(64, 48).convert(mode)
        try:
            _preprocessed(subject, image)
        except (Breach, EngineError) as error:
            raise Breach(
                f"an image of mode {mode!r} is not taken",
                expected=f"an input of shape {list(subject.shape)}",
                got=error.what,
                hint='begin with image.convert("RGB"), or declare an equivengine.Preprocessing',
            ) from error
    return ""


def gives_levels_back(subject: EncoderSubject) -> str:
    """Flat images come out as the level that went in, and colors in the order red, green, blue."""
    _need_pictures(subject)
    low, high = subject.loaded.input_range
    channels, height, width = subject.shape
    for level in LEVELS:
        x = _preprocessed(subject, _flat((level, level, level), width, height))
        middle = (x[:, height // 2, width // 2] - low) / (high - low)
        if not bool(((middle - level / 255).abs() <= LEVEL).all()):
            raise Breach(
                "a flat image does not keep its level",
                expected=f"{low + level / 255 * (high - low):.4g} in every channel, for level {level} of 255",
                got=", ".join(f"{low + float(v) * (high - low):.4g}" for v in middle),
                hint="leave normalization to the graph: declare it in Preprocessing(mean=..., std=...), not in the "
                "preprocessing callable",
            )
    if channels == 3:
        x = _preprocessed(subject, _flat((255, 0, 0), width, height))[:, height // 2, width // 2]
        if int(x.argmax()) != 0:
            raise Breach(
                "a red image is not red after preprocessing",
                expected="channels in the order red, green, blue",
                got=f"the largest value in channel {int(x.argmax())}",
                hint="keep the order RGB here, and let the module turn it around if it was trained on BGR",
            )
    return ""


def comes_back_from_a_picture(subject: EncoderSubject) -> str:
    """An input that is shown as a picture and read again is the same input: nothing is applied a second time."""
    _need_pictures(subject)
    encoder = subject.encoder
    preprocessing = subject.loaded.preprocessing
    x = _preprocessed(subject, subject.sample()).to(torch.float32)
    if subject.loaded.input_range != (0.0, 1.0):
        raise NotTried("inputs are not in [0, 1]")
    if isinstance(preprocessing, Preprocessing) and preprocessing.resize_to not in (None, min(preprocessing.size)):
        return "declared, with a crop of the resized image: levels alone come back"
    shown = encoder.display(x)
    back = _preprocessed(subject, shown)
    gap = float((back - x).abs().max())
    if not gap <= 1.01 / 255:
        raise Breach(
            "an input that is shown as a picture and read again is another input",
            expected="the same pixels, within one level of 8 bits",
            got=f"a difference of {gap:.3g}",
            hint="do not normalize, sharpen or crop an image that has the right size already",
        )
    return f"largest difference {gap * 255:.2f} of 255 levels"


def normalises_once(subject: EncoderSubject) -> str:
    """The module does not do again what Preprocessing declares: the engine applies mean and std before it."""
    _ = subject.embeddings
    preprocessing = subject.loaded.preprocessing
    if not isinstance(preprocessing, Preprocessing):
        raise NotTried("the normalization is not declared")
    mean, std = torch.tensor(preprocessing.mean).double(), torch.tensor(preprocessing.std).double()
    if not bool((mean != 0).any()) and not bool((std != 1).any()):
        return "nothing is declared"
    if bool((mean > 1).any()):
        raise Breach(
            "the declared mean is none of pixels in [0, 1]",
            expected="a mean and a std of pixels in [0, 1]",
            got=f"mean {preprocessing.mean} and std {preprocessing.std}",
            hint="divide both by 255 if they are those of levels of 0 to 255",
        )
    seen = _Constants()
    z = subject.normalised(subject.inputs(1))
    with torch.no_grad(), seen:
        subject.module_in_use(z)
    subtracted = bool((mean != 0).any()) and any(_equal(c, mean) or _equal(c, -mean) for c in seen.offsets)
    divided = bool((std != 1).any()) and any(_equal(c, std) or _equal(c, 1 / std) for c in seen.factors)
    if subtracted or divided:
        words = " and ".join(
            [*(["subtracts the declared mean"] if subtracted else []), *(["divides by the declared std"] * divided)]
        )
        raise Breach(
            f"the input is normalized twice: the module {words} again",
            expected="either Preprocessing(mean=..., std=...), which the engine applies, or the module's own",
            got=f"mean {preprocessing.mean} and std {preprocessing.std}, declared and in the module",
            hint="take one of the two away: declare mean 0 and std 1, or unwrap the module",
        )
    return ""


class _Constants(TorchDispatchMode):
    """Notes the small tensors and numbers that are added and multiplied while a module runs."""

    def __init__(self) -> None:
        super().__init__()
        self.offsets: list[torch.Tensor] = []
        self.factors: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0].rstrip("_")
        kept = {"add": self.offsets, "sub": self.offsets, "rsub": self.offsets}.get(name)
        kept = {"mul": self.factors, "div": self.factors}.get(name, kept)
        if kept is not None:
            for value in args[:2]:
                if isinstance(value, float) or (isinstance(value, torch.Tensor) and value.numel() <= 4):
                    kept.append(torch.as_tensor(value).detach().double().flatten())
        if name in ("native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit_no_training"):
            for place, target in ((3, self.offsets), (4, self.factors)):
                if len(args) > place and isinstance(args[place], torch.Tensor) and args[place].numel() <= 4:
                    value = args[place].detach().double()
                    target.append(value if place == 3 else value.sqrt())
        return func(*args, **(kwargs or {}))


def _equal(found: torch.Tensor, declared: torch.Tensor) -> bool:
    if found.numel() == 1 and bool((declared == declared[0]).all()):
        return bool(torch.isclose(found, declared[:1], rtol=1e-4).all())
    return found.shape == declared.shape and bool(torch.isclose(found, declared, rtol=1e-4).all())


def _preprocessed(subject: EncoderSubject, raw: Any) -> torch.Tensor:
    try:
        x = subject.loaded.preprocessing(raw)
    except EngineError:
        raise
    except Exception as error:
        raise Breach(
            f"preprocessing fails: {type(error).__name__}: {' '.join(str(error).split())}",
            expected=f"a tensor of shape {list(subject.shape)}",
            got=type(raw).__name__,
            hint="raise equivengine.DataError where a sample cannot be used",
        ) from error
    if not isinstance(x, torch.Tensor) or tuple(x.shape) != subject.shape:
        raise Breach(
            "preprocessing does not produce an input of the declared shape",
            expected=f"a tensor of shape {list(subject.shape)}",
            got=list(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__,
        )
    return x


def _need_pictures(subject: EncoderSubject) -> None:
    if not subject.takes_pictures:
        raise NotTried("inputs are no images")
    if isinstance(subject.loaded.preprocessing, Preprocessing):
        return
    sample = subject.sample()
    if type(sample).__module__.partition(".")[0] != "PIL":
        raise NotTried("samples are no Pillow images")


def _flat(colour: tuple[int, int, int], width: int, height: int) -> Any:
    from PIL import Image

    return Image.new("RGB", (width, height), colour)


PREPROCESSING: Sequence[Requirement[EncoderSubject]] = (
    Requirement(
        "preprocesses_samples", "a sample becomes an input of the declared shape and range", preprocesses_samples
    ),
    Requirement(
        "takes_images_of_any_mode", "gray, palette and transparent images are taken too", takes_images_of_any_mode
    ),
    Requirement("gives_levels_back", "pixels keep their level and colors their order", gives_levels_back),
    Requirement("comes_back_from_a_picture", "an input shown and read again is the same", comes_back_from_a_picture),
    Requirement("normalises_once", "inputs are normalized once", normalises_once),
)
