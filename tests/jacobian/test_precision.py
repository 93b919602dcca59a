"""Tangents in other precisions than the primal's, and what an operator says about itself."""

from __future__ import annotations

import gc
import weakref

import pytest
import timm
import torch
from torch import nn

import equivengine as eqv
from equivengine.errors import ModelError, UsageError
from equivengine.ops.record import recording

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=0).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def x():
    return torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(1))


def relative(a, b):
    return float(torch.linalg.vector_norm(a.double() - b.double()) / torch.linalg.vector_norm(b.double()))


def directions(J, count):
    generator = torch.Generator().manual_seed(2)
    V = torch.randn(count, *J.x.shape, generator=generator).to(J.x.device)
    U = torch.randn(count, *J.value.shape, generator=generator).to(J.x.device)
    return V, U


def test_bf16_tangents_are_within_two_per_cent_of_fp64_around_a_float32_primal(vit, x):
    exact = eqv.JacobianOperator(vit, x, batched=True, precision="fp64")
    single = eqv.JacobianOperator(vit, x, batched=True)
    half = eqv.JacobianOperator(vit, x, batched=True, precision="bf16")
    V, U = directions(exact, 8)
    assert half.value.dtype == torch.float32
    assert torch.equal(half.value, single.value)
    for product, given in (("jvp", V), ("vjp", U)):
        truth = getattr(exact, product)(given)
        assert 1e-4 < relative(getattr(half, product)(given), truth) <= 2e-2
        assert relative(getattr(single, product)(given), truth) <= 1e-5


def test_one_cotangent_in_bf16_is_not_sent_to_another_precision(vit, x):
    half = eqv.JacobianOperator(vit, x, batched=True, precision="bf16")
    _, U = directions(half, 3)
    with recording() as log:
        one = half.vjp(U[:1])
    assert "vjp_of_one" not in log.paths()
    assert relative(one[0], half.vjp(U)[0]) < 1e-2


@pytest.mark.parametrize("precision", ["tf32", "tf32x3"])
def test_tensor_core_precisions_need_tensor_cores(vit, x, precision):
    with pytest.raises(UsageError, match="tensor cores"):
        eqv.JacobianOperator(vit, x, batched=True, precision=precision)


class Straight(torch.autograd.Function):
    """Rounds, and passes the gradient through."""

    @staticmethod
    def forward(x):
        return x.round()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return g

    @staticmethod
    def jvp(ctx, t):
        return t.clone()

    generate_vmap_rule = True


def test_what_a_trace_does_not_see_goes_by_torch_func_and_says_so():
    def f(z):
        return Straight.apply(3 * z).flatten(1)

    J = eqv.JacobianOperator(f, torch.rand(1, 4))
    with recording() as log:
        assert torch.equal(J.dense(), 3 * torch.eye(4))
    assert set(log.paths()["jacobian"]) == {"torch.func"}
    (rule,) = J.coverage()["all"]
    assert rule.startswith("torch.func (the traced derivative differs from torch.autograd's by 1.0e+00")


def test_on_the_way_by_torch_func_a_product_costs_no_forward_pass_of_its_own():
    passes = []

    def f(z):
        passes.append(len(z))
        return Straight.apply(3 * z).flatten(1)

    J = eqv.JacobianOperator(f, torch.rand(1, 4))
    U = torch.rand(3, 4)
    J.vjp(U)
    passes.clear()
    J.vjp(U)
    assert passes == []
    J.jvp(torch.rand(3, 1, 4))
    assert len(passes) == 1


def test_what_was_found_to_differ_is_not_compared_again(monkeypatch):
    from equivengine.linearize import derivative

    compared = []
    compare = derivative._compare
    monkeypatch.setattr(derivative, "_compare", lambda *a: compared.append(1) or compare(*a))
    model = nn.Module()
    model.forward = lambda z: Straight.apply(3 * z).flatten(1)
    for _ in range(3):
        J = eqv.JacobianOperator(model, torch.rand(1, 4))
        assert torch.equal(J.dense(), 3 * torch.eye(4))
    assert len(compared) == 1


def test_a_model_that_changes_its_input_leaves_the_callers_tensors_alone():
    def f(z):
        return Straight.apply(z.mul_(2)).flatten(1)

    x, V = torch.rand(1, 4), torch.rand(3, 1, 4)
    before = x.clone(), V.clone()
    J = eqv.JacobianOperator(f, x)
    assert torch.equal(J.jvp(V), 2 * V.flatten(1))
    points = torch.rand(3, 1, 4)
    kept = points.clone()
    assert torch.equal(J.along(points, V)[1], 2 * V.flatten(1))
    assert torch.equal(points, kept)
    assert torch.equal(x, before[0])
    assert torch.equal(V, before[1])


def test_bf16_is_refused_where_there_is_no_program():
    J = eqv.JacobianOperator(lambda z: Straight.apply(3 * z).flatten(1), torch.rand(1, 4), precision="bf16")
    with pytest.raises(ModelError, match="bf16"):
        J.jvp(torch.rand(2, 1, 4))


def test_coverage_names_each_operation_and_its_rule():
    torch.manual_seed(0)
    f = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3), nn.Softmax(-1))
    J = eqv.JacobianOperator(lambda z: f(z).cumsum(-1), torch.rand(1, 4, 4))
    coverage = J.coverage()
    assert coverage["linear"] == {"matrix product": 2}
    assert coverage["gelu"] == {"shared": 1}
    assert coverage["cumsum"] == {"torch": 1}
    for name in ("native_layer_norm", "_softmax"):
        (rule,) = coverage[name]
        assert rule.startswith("cpu-") or rule == "reference"


def test_a_structure_is_checked_once_for_a_model(vit, x, monkeypatch):
    from equivengine.linearize import derivative

    torch.manual_seed(3)
    model = timm.create_model("test_vit", num_classes=0).eval().requires_grad_(False)
    backward = []
    grad = torch.autograd.grad
    monkeypatch.setattr(derivative.torch.autograd, "grad", lambda *a, **k: backward.append(1) or grad(*a, **k))
    counts = []
    for _ in range(2):
        J = eqv.JacobianOperator(model, x, batched=True)
        backward.clear()
        J.jvp(torch.rand(2, *x.shape))
        counts.append(len(backward))
    assert counts[0] > counts[1]


def test_an_operator_that_nobody_holds_is_freed_at_once(vit, x):
    J = eqv.JacobianOperator(vit, x, batched=True)
    J.jvp(torch.rand(2, *x.shape))
    kept = weakref.ref(J._kept)
    gc.disable()
    try:
        del J
        assert kept() is None
    finally:
        gc.enable()


def test_weights_that_changed_meanwhile_are_noticed():
    model = nn.Linear(4, 2).requires_grad_(False)
    J = eqv.JacobianOperator(model, torch.rand(4))
    J.jvp(torch.rand(2, 4))
    model.weight.mul_(2)
    for product in (lambda: J.jvp(torch.rand(2, 4)), lambda: J.vjp(torch.rand(2, 2)), J.dense):
        with pytest.raises(UsageError, match="weights have changed"):
            product()
    assert torch.equal(eqv.JacobianOperator(model, torch.rand(4)).dense(), model.weight)


@pytest.mark.cuda
@GPU
@pytest.mark.parametrize(("precision", "bar"), [("fp32", 1e-5), ("tf32x3", 1e-5), ("tf32", 5e-3), ("bf16", 2e-2)])
def test_every_precision_on_a_gpu(vit, x, precision, bar):
    exact = eqv.JacobianOperator(vit, x, batched=True, precision="fp64")
    J = eqv.JacobianOperator(vit.cuda(), x.cuda(), batched=True, precision=precision)
    V, U = directions(exact, 8)
    for product, given in (("jvp", V), ("vjp", U)):
        assert relative(getattr(J, product)(given.cuda()).cpu(), getattr(exact, product)(given)) <= bar
    vit.cpu()


@pytest.mark.cuda
@GPU
@pytest.mark.parametrize("precision", ["fp32", "tf32x3", "bf16"])
def test_a_replayed_graph_gives_the_same_bits_as_the_pass_it_was_captured_from(vit, x, precision):
    J = eqv.JacobianOperator(vit.cuda(), x.cuda(), batched=True, precision=precision)
    V, U = directions(J, 4)
    for product, given in ((J.jvp, V), (J.vjp, U)):
        with recording() as log:
            passes = [product(given), product(given), product(2 * given), product(given)]
        assert log.paths()["cuda_graph"] == {"replayed": 3}
        assert all(torch.equal(passes[0], passes[i]) for i in (1, 3))
        assert relative(passes[2], 2 * passes[0]) < 1e-6
    vit.cpu()
