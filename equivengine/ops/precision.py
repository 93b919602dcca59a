"""Float32 that is float32: TF32 and bfloat16 shortcuts are switched off for a block, and restored after it.

cuDNN convolutions are TF32 by default even when matrix products are not, so a patch embedding loses 13 bits in silence.
Only the ``fp32_precision`` settings are touched: mixing them with the older ``allow_tf32`` flags raises in torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

#: Dtype of the primal by the names of precisions that users type.
DTYPES = {
    "fp32": torch.float32,
    "fp64": torch.float64,
    "tf32": torch.float32,
    "tf32x3": torch.float32,
    "bf16": torch.float32,
}


@contextlib.contextmanager
def ieee_float32() -> Iterator[None]:
    """Within the block, float32 products and convolutions are IEEE float32 on every device."""
    with _float32_mode("ieee"):
        yield


@contextlib.contextmanager
def tensor_float32() -> Iterator[None]:
    """Within the block, float32 products on CUDA devices use TF32 tensor cores: 10 bits of mantissa in the factors."""
    with _float32_mode("tf32"):
        yield


@contextlib.contextmanager
def _float32_mode(mode: str) -> Iterator[None]:
    backends: Any = torch.backends  # torch's stubs do not know these settings
    cuda = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    cpu = (backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn)
    before = [(setting, setting.fp32_precision) for setting in (*cuda, *cpu)]
    try:
        for setting in cuda:
            setting.fp32_precision = mode
        for setting in cpu:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, value in before:
            setting.fp32_precision = value
