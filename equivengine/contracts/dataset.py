"""What an image-set plugin implements: an ordered, indexable, lazy list of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from equivengine.contracts.uri import URI


@dataclass(frozen=True)
class Sample:
    """One input, not decoded until `load` is called.

    Attributes:
        id: Short name within its set (a relative path, an index).
        digest: sha256 (hex) of the content; equal content has an equal digest on every machine.
        load: Decodes it: a Pillow image, or whatever the backend's preprocessing takes. Raises `DataError`.
        label: Class label, where known.
        details: Whatever else is known (license, title), JSON types only, 64 KiB at most as such. Stored in the
            provenance of units of one or two samples; not part of a unit's identity.
    """

    id: str
    digest: str
    load: Callable[[], Any]
    label: str | None = None
    details: Mapping[str, object] = field(default_factory=dict)


class Dataset(Sequence[Sample]):
    """An image set behind one URI scheme. Subclass it, set `name`, implement `__init__`, `__len__`, `__getitem__`.

    Opening it may list files but must not decode images. ``dataset[i]`` may hash the i-th file.

    Attributes:
        name: The URI scheme ("folder").
        summary: One line for ``equivengine ls datasets``.
        examples: Addresses that a user can type.
        random_order: Whether its samples stand in an order drawn at random, so that the first ones are independent
            draws: what a rule takes them for that stops when it has seen enough. An instance may say it of itself.
        remarks: What a user should know of how an instance was put together, such as what it left out: a line each.
            Runs show them before the first unit, and keep them with their plan.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    examples: ClassVar[Sequence[str]] = ()
    random_order: bool = False
    remarks: Sequence[str] = ()

    def __init__(self, uri: URI) -> None:
        """Open the set.

        Raises:
            UsageError: If the address makes no sense to this image set.
            DataError: If there is nothing to read.
        """
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: Any) -> Any:
        """The sample at an integer ``index`` (raises IndexError past the end)."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Sample]:
        for index in range(len(self)):
            yield self[index]
