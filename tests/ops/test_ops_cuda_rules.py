"""The CUDA kernels of softmax, elementwise operations and attention, on a GPU, against float64.

Without one they run emulated, at smaller sizes: tests/cuda_emulation.
"""

import pytest
import torch
from torch import Tensor

from equivengine.ops import extension
from equivengine.ops.activation import scale_tangents
from equivengine.ops.attention import attention_jvp, attention_vjp
from equivengine.ops.softmax import softmax_jvp

pytestmark = pytest.mark.cuda

#: What an arithmetic may lose beside the plain formula in exact float32 (or float64, the measure).
COARSER = {"ieee": 1e-14, "tf32x3": 2**-20, "tf32": 2**-9}


@pytest.fixture(autouse=True)
def _device() -> None:
    if not torch.cuda.is_available() or extension.kernel_path("cuda") is None:
        pytest.skip("no CUDA device, or no CUDA kernels in the extension")


def normal(*shape: int, dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to("cuda", dtype)


def assert_as_accurate(rule, arguments: list, precision: str = "ieee") -> None:
    """At most twice the plain formula's error, or as coarse as the arithmetic."""
    assert rule.path(*arguments) == "cuda"
    exact = rule.reference(*(t.double() if isinstance(t, Tensor) else t for t in arguments))
    results = rule.reference(*arguments), rule(*arguments)
    plain_error, error = (torch.linalg.vector_norm(t.double() - exact) for t in results)
    assert error <= max(2 * plain_error, COARSER[precision] * torch.linalg.vector_norm(exact))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("width", [1, 7, 197, 768, 20000])
def test_softmax_and_elementwise(dtype, width):
    for k, rows in ((1, 400), (16, 5)):
        tangents = normal(k, rows, width, dtype=dtype, seed=0)
        p = normal(rows, width, dtype=torch.float64, seed=1).softmax(-1).to(dtype)
        assert_as_accurate(softmax_jvp, [tangents, p])
        assert_as_accurate(scale_tangents, [tangents, p])
        if dtype == torch.bfloat16:
            assert_as_accurate(softmax_jvp, [tangents, p.float()])
            assert_as_accurate(scale_tangents, [tangents, p.float()])


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [
        (torch.float64, "ieee"),
        (torch.float32, "ieee"),
        (torch.float32, "tf32x3"),
        (torch.float32, "tf32"),
        (torch.bfloat16, "ieee"),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("lengths", "widths"),
    [((197, 197), (64, 64)), ((257, 257), (80, 80)), ((50, 1100), (32, 128)), ((65, 3), (7, 150))],
    ids=str,
)
def test_attention(dtype, precision, lengths, widths):
    k, b, h, (queries, keys), (inner, width) = 3, 2, 4, lengths, widths
    q, key = normal(b, h, queries, inner, dtype=dtype, seed=0), normal(b, h, keys, inner, dtype=dtype, seed=1)
    v = normal(b, h, keys, width, dtype=dtype, seed=2)
    scale = inner**-0.5
    p = torch.softmax(q.double() @ key.double().mT * scale, -1).to(dtype)
    primal = [q, key, v, p, scale, precision]
    dq, dk, dv = (normal(k, *t.shape, dtype=dtype, seed=3 + i) for i, t in enumerate((q, key, v)))
    assert_as_accurate(attention_jvp, [dq, dk, dv, *primal], precision)
    assert_as_accurate(attention_jvp, [dq, None, dv, *primal], precision)
    g = normal(k, b, h, queries, width, dtype=dtype, seed=6)
    assert_as_accurate(attention_vjp, [g, *primal], precision)
    assert torch.equal(attention_vjp(g, *primal), attention_vjp(g, *primal))
