"""Forward-mode derivatives that stop where a model switches autograd off, as those in reverse mode do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


@contextlib.contextmanager
def stopped_by_no_grad() -> Iterator[None]:
    """Within the block, ``torch.no_grad`` inside a model stops tangents too.

    `torch.func.jvp` differentiates through it, `torch.autograd` does not: J v and J^T u would be of two maps. Autograd
    is on in the block, so that a model's own blocks can be told from their ends: detach what comes out.
    """
    before = torch._C._is_fwd_grad_enabled()
    try:
        with torch.enable_grad(), _Follows():
            yield
    finally:
        torch._C._set_fwd_grad_enabled(before)


class _Follows(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch._C._set_grad_enabled:  # what torch.no_grad, enable_grad and set_grad_enabled call
            torch._C._set_fwd_grad_enabled(args[0])
        return func(*args, **(kwargs or {}))
