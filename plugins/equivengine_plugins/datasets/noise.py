"""``noise:COUNT``: uniform random images, the same on every machine."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.datasets import images

if TYPE_CHECKING:
    from PIL import Image

EQUIVENGINE_API = (1, 0)

MAX_COUNT = 1_000_000
MAX_SIDE = 4096
_BLOCK = 1 << 16  # 64-bit words drawn at a time: 512 KiB


class Noise(eqv.Dataset):
    """COUNT images of independent pixels, uniform over 0 to 255.

    Image i is the first bytes (each 64-bit word in little-endian order) of the counter-based generator Philox-4x64-10
    (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) with key (seed, i) and counter 0, in the
    order height, width, channel. It depends on neither COUNT nor the images before it.
    """

    name = "noise"
    summary = "uniform random images, seeded"
    examples = ("noise:16", "noise:1000?seed=7&size=32&mode=L", "noise:8?size=224x336")
    random_order = True

    def __init__(self, uri: eqv.URI) -> None:
        """Check the address; nothing is drawn.

        Raises:
            UsageError: If COUNT or an option is not usable.
        """
        count = uri.require_path("the number of images", "noise:COUNT")
        uri.allow_options(("seed", "size", "mode"))
        self._count = int(count) if re.fullmatch(r"[0-9]{1,9}", count) else 0
        if not 1 <= self._count <= MAX_COUNT:
            raise eqv.UsageError(
                f"the number of images in {uri.text!r} is not usable",
                expected=f"an integer in [1, {MAX_COUNT}]",
                got=repr(count),
            )
        self._seed = uri.integer("seed", 0, maximum=2**64 - 1)
        mode = uri.options.get("mode", "RGB")
        if mode not in ("RGB", "L"):
            raise eqv.UsageError(f"option 'mode' of {uri.text!r} is not usable", expected="RGB or L", got=repr(mode))
        height, width = _sides(uri)
        self._shape = (height, width) if mode == "L" else (height, width, 3)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        """The `Sample` at ``index``; its digest is computed block by block, nothing is kept.

        Raises:
            IndexError: If ``index`` is past either end.
        """
        index = range(self._count)[operator.index(index)]
        return eqv.Sample(
            f"noise-{index:06d}",
            images.pixel_digest(self._shape, _blocks(self._seed, index, self._shape)),
            partial(_image, self._seed, index, self._shape),
            details={"seed": self._seed, "index": index},
        )


def _sides(uri: eqv.URI) -> tuple[int, int]:
    text = uri.options.get("size", "224")
    match = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", text)
    height, width = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise eqv.UsageError(
            f"option 'size' of {uri.text!r} is not usable",
            expected=f"SIDE or HEIGHTxWIDTH, pixels, each in [1, {MAX_SIDE}]",
            got=repr(text),
        )
    return height, width


def _blocks(seed: int, index: int, shape: tuple[int, ...]) -> Iterator[bytes]:
    import numpy as np

    # Raw words, not a Generator's integers: NumPy keeps the stream of a bit generator across releases, not the latter.
    generator = np.random.Philox(key=np.array([seed, index], dtype=np.uint64))
    remaining = int(np.prod(shape))
    while remaining:
        words = generator.random_raw(min(_BLOCK, -(-remaining // 8)))
        block = words.astype("<u8").tobytes()[:remaining]
        remaining -= len(block)
        yield block


def _image(seed: int, index: int, shape: tuple[int, ...]) -> Image.Image:
    import numpy as np
    from PIL import Image

    pixels = np.frombuffer(b"".join(_blocks(seed, index, shape)), dtype=np.uint8)
    return Image.fromarray(pixels.reshape(shape))


@eqv.hookimpl
def equivengine_register_datasets() -> list[type[eqv.Dataset]]:
    """Provide `Noise`."""
    return [Noise]
