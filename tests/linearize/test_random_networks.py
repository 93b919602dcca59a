"""Networks put together at random from operations, against torch.autograd."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def constant(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def attend(x: torch.Tensor) -> torch.Tensor:
    b, n, d = x.shape
    q, k, v = F.linear(x, constant(3 * d, d)).view(b, n, 3, d).permute(2, 0, 1, 3).unsqueeze(2).unbind(0)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d)


def with_token(x: torch.Tensor) -> torch.Tensor:
    token = constant(1, 1, x.shape[-1]).expand(len(x), -1, -1)
    return torch.cat([token, x], 1) if x.shape[1] < 6 else x


#: Every operation maps [B, N, D] to [B', N', D'].
UNARY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "linear": lambda x: F.linear(x, constant(3, x.shape[-1])),
    "square_linear": lambda x: F.linear(x, constant(x.shape[-1], x.shape[-1])),
    "norm": lambda x: F.layer_norm(x, x.shape[-1:], eps=0.1),
    "rms_norm": lambda x: F.rms_norm(x, x.shape[-1:], eps=0.1),
    "attention": attend,
    "eager": lambda x: (x @ x.mT * 0.3).softmax(-1) @ x,
    "gelu": F.gelu,
    "gate": lambda x: x * torch.sigmoid(x),
    "sin": torch.sin,
    "halves": lambda x: x - 0.5 * x.flip(1),
    "transpose": lambda x: x.mT,
    "swap": lambda x: x.transpose(0, 1),
    "flatten": lambda x: x.reshape(1, -1, x.shape[-1]),
    "fold": lambda x: x.reshape(x.shape[0], 1, -1) if x.numel() < 60 else x,
    "first": lambda x: x[:, :1],
    "tail": lambda x: x[:, -1:],
    "token": lambda x: x[:, 0].unsqueeze(1),
    "features": lambda x: x[..., : max(1, x.shape[-1] // 2)],
    "stride": lambda x: x[:, ::2],
    "mean": lambda x: x.mean(1, keepdim=True),
    "class_token": with_token,
    "roll": lambda x: x.roll(1, 1),
    "mask": lambda x: torch.where(constant(*x.shape) > 0, x, 0.1),
    "cumsum": lambda x: x.cumsum(1),
    "splits": lambda x: (lambda a, b: torch.cat([b, a.tanh()], -1))(*x.split([1, x.shape[-1] - 1], -1)),
    "expand": lambda x: x[:, :1].expand(-1, min(4, x.shape[1] + 1), -1),
}
BINARY: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: torch.sub(a, b, alpha=2),
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / (b.square() + 1),
    "cat": lambda a, b: torch.cat([a, b], 1) if a.shape == b.shape and a.shape[1] < 6 else a,
    "stack": lambda a, b: torch.stack([a, b], 2).flatten(1, 2) if a.shape == b.shape and a.shape[1] < 6 else a,
}

STEP = st.tuples(st.sampled_from([*UNARY, *BINARY, "add", "add"]), st.integers(0, 9), st.integers(0, 9))


def network(steps: list[tuple[str, int, int]]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Every step reads any earlier values (where their shapes allow it) and makes one; the last is the output."""

    def f(x: torch.Tensor) -> torch.Tensor:
        values = [x]
        for name, i, j in steps:
            a, b = values[-1 - i % len(values)], values[-1 - j % len(values)]
            if name in UNARY:
                values.append(UNARY[name](a))
            elif all(m == n or 1 in (m, n) for m, n in zip(a.shape, b.shape, strict=True)):
                values.append(BINARY[name](a, b))
        return values[-1] / (1 + values[-1].detach().abs().max())

    return f


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, min_size=1, max_size=12))
def test_any_network_is_differentiated_as_by_autograd(steps: list[tuple[str, int, int]], check: Callable) -> None:
    check(network(steps), constant(2, 3, 4))
