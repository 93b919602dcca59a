"""The short addresses people type: ``timm:vit_base_patch16_224?weights=random&seed=0``, ``folder:photos``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from equivengine.errors import UsageError


@dataclass(frozen=True)
class URI:
    """A parsed model or image address ``scheme[:path][?key=value&...]``.

    Attributes:
        text: The address as typed.
        scheme: Name of the backend or image set that understands it.
        path: What follows the first colon; empty if nothing does.
        options: Decoded ``?key=value`` pairs.
    """

    text: str
    scheme: str
    path: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> URI:
        """Split an address.

        Args:
            text: For example ``"open_clip:ViT-B-32/laion2b_s34b_b79k"``.

        Raises:
            UsageError: If the address is empty, has an option without ``=`` or names an option twice.
        """
        address, _, query = text.partition("?")
        scheme, _, path = address.partition(":")
        if not scheme.strip():
            raise UsageError(
                "an address is empty", expected="an address such as digits or folder:photos", got=repr(text)
            )
        options: dict[str, str] = {}
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
        except ValueError:
            raise UsageError(
                f"the options of {text!r} cannot be read", expected="?key=value&key=value", got=f"?{query}"
            ) from None
        for key, value in pairs:
            if key in options:
                raise UsageError(f"option {key!r} stands twice in {text!r}", hint="keep one of the two")
            options[key] = value
        return cls(text, scheme.strip(), path, options)

    def require_path(self, meaning: str, example: str) -> str:
        """Return the path, or say what should have followed the colon.

        Raises:
            UsageError: If nothing follows the colon.
        """
        if not self.path:
            raise UsageError(f"{self.scheme!r} needs {meaning} after a colon", expected=example, got=repr(self.text))
        return self.path

    def refuse_path(self) -> None:
        """Raise `UsageError` if something follows the colon of an address that takes nothing there."""
        if self.path:
            raise UsageError(f"{self.scheme!r} takes nothing after a colon", expected=self.scheme, got=repr(self.text))

    def allow_options(self, allowed: Iterable[str]) -> None:
        """Raise `UsageError` if an option is not among ``allowed``."""
        allowed = sorted(allowed)
        unknown = sorted(set(self.options) - set(allowed))
        if unknown:
            raise UsageError(
                f"{self.scheme!r} does not know the option {unknown[0]!r}",
                expected=", ".join(allowed) if allowed else "no options",
                got=repr(self.text),
            )

    def integer(self, key: str, default: int, *, minimum: int = 0, maximum: int = 2**63 - 1) -> int:
        """Read an integer option.

        Raises:
            UsageError: If the value is no integer within ``[minimum, maximum]``.
        """
        text = self.options.get(key)
        if text is None:
            return default
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if not minimum <= value <= maximum:
            raise UsageError(
                f"option {key!r} of {self.text!r} is not usable",
                expected=f"an integer in [{minimum}, {maximum}]",
                got=repr(text),
            )
        return value

    def __str__(self) -> str:
        return self.text
