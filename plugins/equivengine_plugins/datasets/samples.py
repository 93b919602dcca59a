"""``samples``: a few photographs that come with the package, with their licenses."""

from __future__ import annotations

import json
import operator
from functools import partial
from pathlib import Path
from typing import Any

import equivengine as eqv
from equivengine_plugins.datasets import images

EQUIVENGINE_API = (1, 0)

DATA = Path(__file__).parent / "data"
FORMAT_VERSION = 1
_DETAILS = ("title", "author", "licence", "source")
_FIELDS = ("file", "name", "sha256", *_DETAILS)


class Samples(eqv.Dataset):
    """The photographs that ``data/samples.json`` describes, in its order.

    Their digest is the recorded sha256, checked when a sample is asked for and again when it is loaded.
    """

    name = "samples"
    summary = "bundled photographs"
    examples = ("samples",)

    def __init__(self, uri: eqv.URI) -> None:
        """Read the description; no photograph is opened.

        Raises:
            UsageError: If the address has a path or an option.
            DataError: If the installed description is missing or damaged.
        """
        uri.refuse_path()
        uri.allow_options(())
        self._entries = _entries(DATA / "samples.json")

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: Any) -> Any:
        """The `Sample` at ``index``; its file is hashed now.

        Raises:
            IndexError: If ``index`` is past either end.
            DataError: If the installed file is missing or is not the one that was recorded.
        """
        entry = self._entries[operator.index(index)]
        path = DATA / entry["file"]
        digest = images.file_digest(path)
        if digest != entry["sha256"]:
            raise _damaged(path, f"sha256 {entry['sha256']}", f"sha256 {digest}")
        details = {key: entry[key] for key in _DETAILS}
        return eqv.Sample(entry["name"], digest, partial(images.load_image, path, digest), details=details)


def _entries(path: Path) -> list[dict[str, Any]]:
    expected = f"format_version {FORMAT_VERSION} and images with the texts {', '.join(_FIELDS)}"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, expected, error) from error
    if not isinstance(record, dict) or record.get("format_version") != FORMAT_VERSION:
        raise _damaged(path, expected, f"no format_version {FORMAT_VERSION}")
    entries = record.get("images")
    if not isinstance(entries, list) or not entries:
        raise _damaged(path, expected, "no images")
    for entry in entries:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(field), str) for field in _FIELDS):
            raise _damaged(path, expected, repr(entry)[:200])
    return entries


def _damaged(path: Path, expected: str, got: object) -> eqv.DataError:
    return eqv.DataError(
        f"{str(path)!r}, a file of this package, is damaged", expected=expected, got=got, hint="reinstall equivengine"
    )


@eqv.hookimpl
def equivengine_register_datasets() -> list[type[eqv.Dataset]]:
    """Provide `Samples`."""
    return [Samples]
