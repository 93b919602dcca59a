"""``digits``: the handwritten digits that the bundled ``digits`` model was not trained on."""

from __future__ import annotations

import json
import operator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equivengine as eqv
from equivengine_plugins.datasets import images

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

EQUIVENGINE_API = (1, 0)

DATA = Path(__file__).parent / "data"
RECORD_NAME = "digits_heldout.json"


class HeldOutDigits(eqv.Dataset):
    """The held-out split: 8x8 gray images, bright strokes on black, labeled ``"0"`` to ``"9"``.

    ``digit-0007`` is the eighth of this set; ``details["index"]`` is its place in the source, whose title, author and
    license stand beside it. The arrays are read when the set is opened and must hash to the recorded sha256.
    """

    name = "digits"
    summary = "bundled handwritten digits, held out from training"
    examples = ("digits",)

    def __init__(self, uri: eqv.URI) -> None:
        """Read the arrays.

        Raises:
            UsageError: If the address has a path or an option.
            DataError: If an installed file is missing or damaged.
        """
        uri.refuse_path()
        uri.allow_options(())
        self._images, self._labels, self._indices, self._source = _read(DATA / RECORD_NAME)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> Any:
        """The `Sample` at ``index``.

        Raises:
            IndexError: If ``index`` is past either end.
        """
        index = range(len(self))[operator.index(index)]
        pixels = self._images[index]
        return eqv.Sample(
            f"digit-{index:04d}",
            images.pixel_digest(pixels.shape, [pixels.tobytes()]),
            partial(_image, pixels),
            label=str(self._labels[index]),
            details={"index": int(self._indices[index]), **self._source},
        )


def _read(record_path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, object]]:
    """Images uint8 [N, 8, 8], labels [N], places in the source [N], attribution."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = record_path
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        source = record["source"]
        attribution = {
            "title": source["title"],
            "author": source["authors"],
            "licence": source["licence"],
            "source": f"https://doi.org/{source['doi']}",
        }
        path = record_path.parent / record["file"]
        digest = images.file_digest(path)
        if digest != record["sha256"]:
            raise _damaged(path, f"sha256 {record['sha256']}", f"sha256 {digest}")
        arrays = load(path.read_bytes())
        pixels, labels, indices = arrays["images"], arrays["labels"], arrays["indices"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise _damaged(path, "the record and the arrays as released", f"{type(error).__name__}: {error}") from error
    if pixels.dtype != "uint8" or pixels.shape[1:] != (8, 8) or not len(pixels) == len(labels) == len(indices) > 0:
        raise _damaged(path, "images uint8 [N, 8, 8], labels [N], indices [N]", f"{pixels.dtype} {pixels.shape}")
    return pixels, labels, indices, attribution


def _damaged(path: Path, expected: str, got: object) -> eqv.DataError:
    return eqv.DataError(
        f"{str(path)!r}, a file of this package, is damaged", expected=expected, got=got, hint="reinstall equivengine"
    )


def _image(pixels: np.ndarray) -> Image.Image:
    from PIL import Image

    return Image.fromarray(pixels)


@eqv.hookimpl
def equivengine_register_datasets() -> list[type[eqv.Dataset]]:
    """Provide `HeldOutDigits`."""
    return [HeldOutDigits]
