"""Open one untrusted image file, or say in one error why not. Shared by the image sets; not a plugin.

What comes out is always 8-bit, ``"L"`` if the file is gray and ``"RGB"`` otherwise, upright, without metadata:

- Only `FORMATS` are tried, whatever the file is called. Of several frames or pages the first is taken.
- The EXIF orientation is applied; EXIF that cannot be parsed counts as none. Color profiles are not applied.
- Transparent pixels are composited on black, the color that `Preprocessing` pads with.
- 16-bit samples keep their high byte (what Pillow does for 16-bit color, done here for 16-bit gray too), so that
  an 8-bit image stored in 16 bits comes back unchanged. Where white lies in 12-bit, 32-bit and floating-point samples
  is a convention of whoever wrote them: refused.

Pillow notices missing data, but not every changed bit inside a JPEG: integrity is what the digest is for.
"""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import TYPE_CHECKING

import equivengine as eqv

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""Pillow's names of the formats that are decoded; all others (EPS runs Ghostscript) are refused."""

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".pnm"}
)
"""Lower-case suffixes of the files that an image set takes for images."""

MAX_FILE_BYTES = 2**30
"""Largest file that is decoded: Pillow reads some formats into memory whole."""

MAX_DECODED_BYTES = 2**28
"""Largest decoded image: Pillow's default ``MAX_IMAGE_PIXELS`` in RGB, and a limit where that one has been lifted."""

_BYTES_PER_PIXEL = {"I;16": 2, "I;16B": 2, "I": 4, "F": 4, "P": 4, "PA": 4}  # a palette is expanded to RGBA
_GREY = ("1", "L", "LA", "La")
_EXIF_ORIENTATION = 0x0112
_TIFF_BITS_PER_SAMPLE = 258
_TIFF_PHOTOMETRIC = 262
_TIFF_BLACK_IS_ZERO = 1


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the sha256 (hex) of a file's bytes, read in blocks.

    Raises:
        DataError: If the file cannot be read.
    """
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pixel_digest(shape: tuple[int, ...], blocks: Iterable[bytes]) -> str:
    """Return the sha256 (hex) of 8-bit pixels that are no file.

    Args:
        shape: (height, width) or (height, width, channels).
        blocks: The pixels in C order, cut anywhere.
    """
    digest = hashlib.sha256(f"uint8[{','.join(map(str, shape))}]\n".encode())
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def load_image(path: str | os.PathLike[str], sha256: str | None = None) -> Image.Image:
    """Decode an image file completely and close it.

    Args:
        path: The file; trusted in nothing.
        sha256: What its bytes must hash to, if that is known.

    Returns:
        An 8-bit image, mode ``"L"`` or ``"RGB"``, upright, without metadata.

    Raises:
        DataError: If the file cannot be read, has changed, is no image of an accepted format, is truncated or
            corrupt, is larger than ``PIL.Image.MAX_IMAGE_PIXELS`` or `MAX_DECODED_BYTES` allow, or has samples that
            have no agreed 8-bit form.
    """
    from PIL import Image, ImageFile

    name = os.fspath(path)
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise eqv.DataError(
            f"{name!r} is not decoded while Pillow fills truncated images with gray",
            expected="PIL.ImageFile.LOAD_TRUNCATED_IMAGES = False",
            got="True, set somewhere in this process",
            hint="set it to False: invented pixels would pass for data",
        )
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if not 0 < size <= MAX_FILE_BYTES:
            raise eqv.DataError(
                f"{name!r} cannot be an image" if size == 0 else f"{name!r} is too large for an image file",
                expected=f"1 to {MAX_FILE_BYTES:,} bytes",
                got=f"{size:,} bytes",
                hint="copy the file again" if size == 0 else "store the image smaller",
            )
        if sha256 is not None:
            _require_digest(name, file, sha256)
        try:
            # Process-wide until Python 3.14, so another thread may undo it: `_require_small` does not depend on it.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # broken metadata; missing pixels raise
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(file, formats=FORMATS) as image:
                    _require_small(name, image)
                    image.load()
                    return _to_8_bit(name, _upright(image))
        except eqv.DataError:
            raise
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise _too_large(name, str(error)) from error
        except Image.UnidentifiedImageError as error:
            raise _unidentified(name, file, size) from error
        except Exception as error:  # whatever a parser may trip over in bytes that an attacker chose
            raise eqv.DataError(
                f"{name!r} cannot be decoded",
                expected=f"a whole {', '.join(FORMATS)} file",
                got=f"{str(error) or 'no reason'} ({type(error).__name__})",
                hint="copy or export the image again, or take it out of the set",
            ) from error


@contextmanager
def opened(path: str | os.PathLike[str], purpose: str = "an image") -> Iterator[BufferedReader]:
    """Open a regular file for reading bytes.

    Raises:
        DataError: If it cannot be opened or read, or is no regular file (``purpose`` says what it was wanted for).
    """
    name = os.fspath(path)

    def without_waiting(target: str, flags: int) -> int:  # opening a pipe would wait for its writer
        return os.open(target, flags | getattr(os, "O_NONBLOCK", 0))

    try:
        with open(name, "rb", opener=without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise eqv.DataError(
                    f"{name!r} cannot be read as {purpose}", expected="a regular file", got="a pipe, socket or device"
                )
            yield file
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise eqv.DataError(
            f"{name!r} cannot be read",
            expected="a readable file",
            got=getattr(error, "strerror", None) or error,
            hint="check the path and its permissions",
        ) from error


def _require_digest(name: str, file: BufferedReader, sha256: str) -> None:
    found = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    if found != sha256:
        raise eqv.DataError(
            f"{name!r} has changed since it was listed",
            expected=f"sha256 {sha256}",
            got=f"sha256 {found}",
            hint="open the image set again, and leave it alone while it is in use",
        )


def _require_small(name: str, image: Image.Image) -> None:
    from PIL import Image

    pixels = image.width * image.height
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and pixels > limit:
        raise _too_large(name, f"{image.width} x {image.height} pixels, more than PIL.Image.MAX_IMAGE_PIXELS = {limit}")
    needed = pixels * _BYTES_PER_PIXEL.get(image.mode, len(image.getbands()))
    if needed > MAX_DECODED_BYTES:
        raise _too_large(name, f"{image.width} x {image.height} pixels of mode {image.mode!r}: {needed:,} bytes")


def _too_large(name: str, got: str) -> eqv.DataError:
    return eqv.DataError(
        f"{name!r} declares an image that is too large to decode",
        expected=f"at most PIL.Image.MAX_IMAGE_PIXELS pixels and {MAX_DECODED_BYTES:,} bytes",
        got=got,
        hint="store the image smaller, or take it out of the set if you do not know where it comes from",
    )


def _unidentified(name: str, file: BufferedReader, size: int) -> eqv.DataError:
    file.seek(0)
    return eqv.DataError(
        f"{name!r} is not an image of an accepted format",
        expected=", ".join(FORMATS),
        got=f"{size:,} bytes that begin with {file.read(12)!r}",
        hint="convert it to PNG or JPEG, or take it out of the set",
    )


def _upright(image: Image.Image) -> Image.Image:
    from PIL import ImageOps

    try:
        turned = image.getexif().get(_EXIF_ORIENTATION, 1) != 1
    except Exception:  # a broken metadata block says nothing about the pixels
        return image
    return ImageOps.exif_transpose(image) if turned else image


def _to_8_bit(name: str, image: Image.Image) -> Image.Image:
    """Return a plain copy in mode "L" or "RGB"."""
    from PIL import Image

    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _high_byte(name, image)
    target = "L" if image.mode in _GREY else "RGB"
    if image.has_transparency_data:
        with_alpha = image.convert("LA" if target == "L" else "RGBA")
        plain = Image.new(target, image.size)  # black
        plain.paste(with_alpha.convert(target), mask=with_alpha.getchannel("A"))
    else:
        plain = image.convert(target)
    plain.info.clear()  # a color key left here would be applied again by a later convert
    return plain


def _high_byte(name: str, image: Image.Image) -> Image.Image:
    import numpy as np
    from PIL import Image

    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        unambiguous = (
            image.mode.startswith("I;16")
            and tuple(tags.get(_TIFF_BITS_PER_SAMPLE, ())) == (16,)
            and tags.get(_TIFF_PHOTOMETRIC) == _TIFF_BLACK_IS_ZERO
        )
    else:  # 16-bit PNG and PGM have mode "I" in some releases of Pillow, scaled to 16 bits
        unambiguous = image.mode != "F"
    if not unambiguous:
        raise eqv.DataError(
            f"{name!r} has samples without an agreed 8-bit form",
            expected="samples of 8 bits, or of 16 bits with 0 for black",
            got=f"a {image.format} file of mode {image.mode!r}",
            hint="convert it to 8 or 16 bits with the white level that you mean",
        )
    values = np.asarray(image)
    key = image.info.get("transparency")
    if isinstance(key, int):
        values = np.where(values == key, 0, values)
    return Image.fromarray((values >> 8).astype(np.uint8))
