"""Whether the numbers of a module have changed since something was made from them."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

#: Of each tensor: which object it is, where its numbers lie, and how often they were changed in place.
Versions = tuple[tuple[int, int, int], ...]


def of_parameters(f: object) -> Versions:
    """Versions of a module's parameters; nothing is known of other callables.

    Changes through ``.data`` that stay in place are not seen: PyTorch does not count them.
    """
    return tuple(_version(p) for p in f.parameters()) if isinstance(f, nn.Module) else ()


def of_all(f: nn.Module) -> Versions:
    """Versions of parameters and buffers: what a copy of the module holds."""
    return tuple(_version(tensor) for tensor in itertools.chain(f.parameters(), f.buffers()))


def _version(tensor: Tensor) -> tuple[int, int, int]:
    try:
        place = tensor.data_ptr()
    except RuntimeError:  # a tensor without storage of its own, such as one of packed weights
        place = 0
    return id(tensor), place, tensor._version
