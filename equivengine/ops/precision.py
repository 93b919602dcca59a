"""Float32 that is float32: TF32 and bfloat16 shortcuts are switched off for a block, and restored after it.

cuDNN convolutions are TF32 by default even when matrix products are not, so a patch embedding loses 13 bits in silence.
Only the ``fp32_precision`` settings are touched: mixing them with the older ``allow_tf32`` flags raises in torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

#: Precisions by the names that users type.
DTYPES = {"fp32": torch.float32, "fp64": torch.float64}


@contextlib.contextmanager
def ieee_float32() -> Iterator[None]:
    """Within the block, float32 products and convolutions are IEEE float32 on every device."""
    backends: Any = torch.backends  # torch's stubs do not know these settings
    settings = (
        backends.cuda.matmul,
        backends.cudnn.conv,
        backends.cudnn.rnn,
        backends.mkldnn.matmul,
        backends.mkldnn.conv,
        backends.mkldnn.rnn,
    )
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value
