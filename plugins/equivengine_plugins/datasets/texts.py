"""What the sets of texts share; not a plugin."""

from __future__ import annotations

import hashlib

#: Longest text that is read, bytes of UTF-8.
MAX_BYTES = 1 << 20

_SHOWN = 200


def text_digest(text: str) -> str:
    """Return the sha256 (hex) of a text's UTF-8 bytes, told apart from an image's file."""
    return hashlib.sha256(b"utf-8 text\n" + text.encode()).hexdigest()


def details(text: str) -> dict[str, object]:
    """What to record of a text beside its digest: how it begins."""
    return {"text": text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."}
