"""What an encoder has to show before it is believed: it is run on noise and held to its contract."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from equivengine.errors import EngineError, ModelError
from equivengine.ops.narrowing import Narrowing, named, watched

if TYPE_CHECKING:
    from equivengine.contracts.encoder import Encoder

_SEED = 20230801


def into_eval_mode(module: nn.Module, uri: str) -> None:
    """Put a module into eval mode.

    Args:
        module: The module, as a backend returned it.
        uri: Its address, for the record.

    Raises:
        ModelError: It cannot be put into eval mode, or `torch.compile` has compiled it or a part of it: what is
            compiled shows no operations, and its reverse mode may be called once only.
    """
    compiled = [
        name or "the module itself"
        for name, part in module.named_modules()
        if hasattr(part, "_orig_mod") or getattr(part, "_compiled_call_impl", None) is not None
    ]
    if compiled:
        raise ModelError(
            f"{uri!r}: the model is compiled by torch.compile",
            expected="the module itself, whose operations can be seen",
            got=", ".join(compiled[:3]),
            hint="leave torch.compile out of the backend",
        )
    try:
        module.eval()
    except NotImplementedError as error:
        raise ModelError(
            f"{uri!r}: the model cannot be put into eval mode",
            expected="a module whose eval() works",
            got=f"{type(error).__name__}: {error}",
            hint="for a program of torch.export, `del module.train, module.eval` in load(): it has no other mode",
        ) from error


def validate(encoder: Encoder, uri: str) -> tuple[int, tuple[Narrowing, ...]]:
    """Run an encoder on noise and hold it to the contract.

    Args:
        encoder: The encoder, float32.
        uri: Its address, for the record.

    Returns:
        n, the length of an embedding; and where the module computes in less than float32.

    Raises:
        ModelError: It breaks the contract.
    """
    low, high = encoder.loaded.input_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ModelError(
            f"{uri!r}: the input range is no interval",
            expected="two finite numbers, the smaller one first",
            got=(low, high),
            hint="where nothing bounds inputs, declare a box that holds the data",
        )
    x = _noise(encoder, 2)
    first = x[:1]
    try:
        with torch.no_grad():
            y = encoder(x)
            again = encoder(x)
            with watched(encoder.module, first) as narrowed:
                alone = encoder(first)
    except ModelError as error:
        raise ModelError(f"{uri!r}: {error.what}", expected=error.expected, got=error.got, hint=error.hint) from None
    except Exception as error:
        raise ModelError(
            f"{uri!r}: the model fails on noise of its declared input shape",
            expected=f"embeddings of a [2, {', '.join(map(str, encoder.input_shape))}] input",
            got=f"{type(error).__name__}: {error}",
            hint="compare size, mode and input_shape, as the backend declares them, with what the module takes; "
            "batches of any size must do",
        ) from error
    in_training = [name or "the module itself" for name, m in encoder.module.named_modules() if m.training]
    if in_training:
        raise ModelError(
            f"{uri!r}: a part of the model switches itself back to training mode",
            expected="eval mode throughout",
            got=", ".join(in_training[:3]),
        )
    if not bool(torch.isfinite(y).all()):
        raise ModelError(
            f"{uri!r}: the model returns NaN or infinity for noise in its input range",
            expected="finite embeddings",
            got=f"{int((~torch.isfinite(y)).sum())} of {y.numel()} values are not finite",
            hint="check the weights and the declared input_range",
        )
    scale = float(y.abs().max()) or 1.0
    if float((y - again).abs().max()) > 1e-5 * scale:
        raise ModelError(
            f"{uri!r}: the same input gave two different embeddings",
            expected="a deterministic model",
            got=f"a relative difference of {float((y - again).abs().max()) / scale:.1e}",
            hint="switch off dropout and random masking in the backend",
        )
    if float((y[:1] - alone).abs().max()) > 1e-3 * scale:
        raise ModelError(
            f"{uri!r}: an embedding depends on what else is in the batch",
            expected="every input embedded on its own",
            got=f"a relative difference of {float((y[:1] - alone).abs().max()) / scale:.1e}",
            hint="batch normalization must use its running statistics, and dynamic quantization scales by the batch",
        )
    _require_gradient(encoder, uri, x)
    return int(y.shape[1]), tuple(narrowed)


def narrowed_in_float64(double: Encoder) -> tuple[Narrowing, ...]:
    """Where the module of an encoder that was converted to float64 computes in less.

    Raises:
        ModelError: It cannot be evaluated.
    """
    x = _noise(double, 1).to(torch.float64)
    try:
        with torch.no_grad(), watched(double.module, x) as found:
            double(x)
    except EngineError:
        raise
    except Exception as error:
        raise ModelError(
            "the model cannot be evaluated in float64",
            expected="a module that computes in the dtype of its input once its parameters are converted",
            got=f"{type(error).__name__}: {' '.join(str(error).split())}" + (f" ({named(found)})" if found else ""),
            hint="look for .float(), .to(torch.float32) and constants that are no buffers in the module's forward",
        ) from error
    return tuple(found)


def _require_gradient(encoder: Encoder, uri: str, x: torch.Tensor) -> None:
    probe = x.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        out = encoder(probe)
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(_SEED + 1)).to(out.device)
        grad = None
        if out.requires_grad:
            (grad,) = torch.autograd.grad((out * weights).sum(), probe, allow_unused=True)
    if grad is not None and not bool(torch.isfinite(grad).all()):
        raise ModelError(
            f"{uri!r}: the gradient holds NaN or infinity for noise in the input range",
            expected="a finite gradient",
            got=f"{int((~torch.isfinite(grad)).sum())} of {grad.numel()} values are not finite",
            hint="look for a root, a logarithm or a norm of zero in the module's forward",
        )
    if grad is None or not bool(grad.abs().max() > 0):
        raise ModelError(
            f"{uri!r}: no gradient reaches the input",
            expected="an output that is differentiable with respect to the input",
            got="no path in the graph" if grad is None else "a gradient of exactly zero",
            hint="remove torch.no_grad(), detach() and numpy from the module's forward",
        )


def _noise(encoder: Encoder, count: int) -> torch.Tensor:
    """Uniform noise in the input range, [count, *input_shape] float32."""
    low, high = encoder.loaded.input_range
    shape = (count, *encoder.input_shape)
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(_SEED), dtype=torch.float32)
    return (noise * (high - low) + low).to(encoder.device)
