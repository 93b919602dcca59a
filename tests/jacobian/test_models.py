"""Products through third-party models with fused attention, against float64 references made without our operations."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

import equivengine as eqv
from equivengine.ops.record import recording


def timm_vit():
    import timm

    return timm.create_model("test_vit", num_classes=0), (3, 160, 160)


def timm_swin():
    import timm

    model = timm.create_model(
        "swin_tiny_patch4_window7_224", num_classes=0, img_size=56, embed_dim=24, depths=(1, 2), num_heads=(2, 4)
    )
    return model, (3, 56, 56)


def timm_beit():
    import timm

    model = timm.create_model("beit_base_patch16_224", num_classes=0, img_size=48, embed_dim=48, depth=2, num_heads=4)
    return model, (3, 48, 48)


def timm_convnext():
    import timm

    return timm.create_model("test_convnext", num_classes=0), (3, 64, 64)


def open_clip_vit():
    from open_clip.transformer import VisionTransformer

    model = VisionTransformer(image_size=64, patch_size=16, width=64, layers=2, heads=2, mlp_ratio=4.0, output_dim=32)
    return model, (3, 64, 64)


FUSED = {"timm_vit": timm_vit, "open_clip_vit": open_clip_vit, "timm_beit": timm_beit}
ALL = {**FUSED, "timm_swin": timm_swin, "timm_convnext": timm_convnext}


@pytest.fixture(scope="module", params=sorted(ALL))
def case(request):
    torch.manual_seed(0)
    model, shape = ALL[request.param]()
    with torch.no_grad():  # zero-initialized scales and biases would hide whole branches
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    model.eval().requires_grad_(False)
    return request.param, model, torch.rand(2, *shape)


def oracle_vjp(model: nn.Module, x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Reverse mode of torch.autograd in float64, stock operations only: one row at a time."""
    import copy

    double = copy.deepcopy(model).double()
    z = x.double().requires_grad_(True)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        (gradient,) = torch.autograd.grad((double(z) * u.double()).sum(), z)
    return gradient


def oracle_jvp(model: nn.Module, x: torch.Tensor, v: torch.Tensor, h: float = 1e-6) -> torch.Tensor:
    """Central differences in float64."""
    import copy

    double = copy.deepcopy(model).double()
    z, d = x.double(), v.double()
    with torch.no_grad():
        return (double(z + h * d) - double(z - h * d)) / (2 * h)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(a.double() - b) / torch.linalg.vector_norm(b))


def test_jvp_and_vjp_agree_with_float64_references(case):
    name, model, x = case
    single = eqv.JacobianOperator(model, x, batched=True)
    double = eqv.JacobianOperator(model, x, batched=True, precision="fp64")
    V, U = torch.randn(3, *x.shape), torch.randn(3, *single.value.shape)
    with recording() as log:
        forward, reverse = single.jvp(V), single.vjp(U)
    if name in FUSED:
        assert {"attention_jvp", "attention_vjp"} <= set(log.paths())
    exact_forward = torch.stack([oracle_jvp(model, x, v) for v in V])
    exact_reverse = torch.stack([oracle_vjp(model, x, u) for u in U])
    assert relative(double.jvp(V), exact_forward) < 1e-7  # the error of the differences
    assert relative(double.vjp(U), exact_reverse) < 1e-12
    assert relative(forward, exact_forward) < 1e-5
    assert relative(reverse, exact_reverse) < 1e-5
    assert relative(single.value, double.value) < 1e-5


def test_any_chunk_size_gives_the_same_numbers_to_1e_5(case):
    _, model, x = case
    V = torch.randn(5, *x.shape)
    whole = eqv.JacobianOperator(model, x, batched=True, chunk_size=5)
    U = torch.randn(5, *whole.value.shape)
    for chunk in (1, 2, 3):
        parts = eqv.JacobianOperator(model, x, batched=True, chunk_size=chunk)
        assert relative(parts.jvp(V), whole.jvp(V).double()) <= 1e-5
        assert relative(parts.vjp(U), whole.vjp(U).double()) <= 1e-5


@pytest.mark.parametrize("rows", [1, 3])
def test_batch_norm_before_tokens_is_right_for_one_image(rows):
    """PyTorch 2.14's own backward is wrong here on CPUs: see `batch_norm_written_out`."""
    norm = nn.BatchNorm2d(4).eval().requires_grad_(False)
    norm.running_var.uniform_(0.5, 2.0)
    x = torch.rand(4, 3, 3)
    U = torch.randn(rows, 36)
    expected = U.view(-1, 9, 4).mT.reshape(-1, 4, 3, 3) / (norm.running_var + norm.eps).sqrt()[:, None, None]
    operator = eqv.JacobianOperator(lambda z: norm(z).flatten(2).mT.flatten(1), x)
    assert relative(operator.vjp(U), expected.double()) < 1e-6
    assert "all" not in operator.coverage()
    assert relative(operator.vjp(U), expected.double()) < 1e-6


def test_stock_forward_mode_fails_on_the_fused_models():
    """What a user would meet without us; when this fails, PyTorch has learned it (pytorch#98164)."""
    model, shape = timm_vit()
    model.eval().requires_grad_(False)
    x = torch.rand(1, *shape)
    with pytest.raises(NotImplementedError):
        torch.func.jvp(model, (x,), (x,))


MEMORY = """
import resource, sys, torch, timm
import equivengine as eqv
model = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval().requires_grad_(False)
x = torch.rand(3, 224, 224)
f = lambda z: model(z)
budget = int(sys.argv[1]) << 20
J = eqv.JacobianOperator(f, x, memory_budget=budget)
V = torch.randn(192, 3, 224, 224)
J.jvp(V[:1]); J.vjp(torch.randn(1, 192))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
J.jvp(V)
middle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
J.vjp(torch.randn(192, 192))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(J.chunk(192), (middle - before) / 1024, (after - middle) / 1024)
"""


def test_peak_memory_stays_within_the_budget():
    """192 directions through ViT-Ti at once need about 900 MiB; 128 MiB hold, the results (110 MiB) aside."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEMORY, "128"], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    chunk, forward, reverse = (float(word) for word in done.stdout.split())
    assert 1 < chunk < 192
    gradients = 192 * 3 * 224 * 224 * 4 / 2**20
    assert forward <= 128
    assert reverse <= 128 + gradients
