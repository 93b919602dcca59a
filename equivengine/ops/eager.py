"""Compiled modules, run as they were written while their operations are looked at."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import torch


def uncompiled() -> contextlib.AbstractContextManager[Any]:
    """Within the block, compiled modules run as they were written: Dynamo would compile the observer with them."""
    if "torch._dynamo" not in sys.modules:  # then nothing is compiled, and to ask would import it
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")
