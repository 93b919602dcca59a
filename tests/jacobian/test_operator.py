"""JacobianOperator against float64 references that it shares no code with: central differences and torch.autograd."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import equivengine as eqv
from equivengine.errors import ModelError, NumericsError, UsageError
from equivengine.testing import assert_operator_matches


class Small(nn.Module):
    """Convolution, LayerNorm, fused attention and GELU on [B, 1, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.patch = nn.Conv2d(1, 16, 4, 4)
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 5)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) * 0.5)
        self.eval().requires_grad_(False)

    def forward(self, x):
        t = self.patch(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(t)).view(len(x), 4, 3, 2, 8).permute(2, 0, 3, 1, 4)
        t = t + nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(len(x), 4, 16)
        return self.out(nn.functional.gelu(t).mean(1))


@pytest.fixture(scope="module")
def model():
    return Small()


@pytest.fixture(scope="module")
def x():
    return torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(1))


def differences(model, x, h=1e-5):
    """Dense J by float64 central differences: no derivative code at all. [n, m]."""
    double = Small().double()
    columns = []
    for index in range(x.numel()):
        step = torch.zeros(x.numel(), dtype=torch.float64)
        step[index] = h
        step = step.view_as(x)
        columns.append((double((x.double() + step)[None]) - double((x.double() - step)[None]))[0] / (2 * h))
    return torch.stack(columns, dim=1)


def test_products_match_central_differences(model, x):
    dense = differences(model, x)
    assert_operator_matches(eqv.JacobianOperator(model, x, precision="fp64"), dense, rtol=1e-9)
    assert_operator_matches(eqv.JacobianOperator(model, x), dense, rtol=1e-6)


def test_dense_is_the_same_by_rows_and_by_columns(model, x):
    dense = differences(model, x)
    assert torch.allclose(eqv.JacobianOperator(model, x, precision="fp64").dense(), dense, atol=1e-8)

    def tall(z):  # more outputs than inputs: columns are cheaper
        return torch.cat([z.flatten(1) ** 2, z.flatten(1).sin()], dim=1)

    J = eqv.JacobianOperator(tall, x.double(), precision="fp64", chunk_size=7).dense()
    flat = x.double().flatten()
    assert torch.allclose(J, torch.cat([torch.diag(2 * flat), torch.diag(flat.cos())]))


@settings(max_examples=15, deadline=None)
@given(chunk=st.integers(1, 20), directions=st.integers(0, 12))
def test_any_chunk_size_gives_the_same_numbers(chunk, directions):
    model, x = Small(), torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    V = torch.randn(directions, *x.shape, generator=generator)
    U = torch.randn(directions, 5, generator=generator)
    whole = eqv.JacobianOperator(model, x, chunk_size=1000)
    parts = eqv.JacobianOperator(model, x, chunk_size=chunk)
    for a, b in ((whole.jvp(V), parts.jvp(V)), (whole.vjp(U), parts.vjp(U))):
        assert a.shape == b.shape
        assert torch.linalg.vector_norm(a - b) <= 1e-5 * torch.linalg.vector_norm(a)


def test_a_batch_of_inputs_is_one_operator_for_each(model):
    generator = torch.Generator().manual_seed(3)
    X = torch.rand(3, 1, 8, 8, generator=generator)
    V = torch.randn(4, 3, 1, 8, 8, generator=generator)
    U = torch.randn(4, 3, 5, generator=generator)
    batch = eqv.JacobianOperator(model, X, batched=True, precision="fp64")
    assert batch.shape == (5, 64)
    assert batch.value.shape == (3, 5)
    dense = batch.dense()
    assert dense.shape == (3, 5, 64)
    for b in range(3):
        alone = eqv.JacobianOperator(model, X[b], precision="fp64")
        assert torch.allclose(batch.jvp(V)[:, b], alone.jvp(V[:, b]), atol=1e-12)
        assert torch.allclose(batch.vjp(U)[:, b], alone.vjp(U[:, b]), atol=1e-12)
        assert torch.allclose(dense[b], alone.dense(), atol=1e-12)
    with pytest.raises(UsageError, match="not one matrix"):
        batch @ torch.zeros(64)


def test_along_gives_value_and_derivative_at_other_points(model, x):
    generator = torch.Generator().manual_seed(4)
    Z, D = torch.rand(6, 1, 8, 8, generator=generator), torch.randn(6, 1, 8, 8, generator=generator)
    J = eqv.JacobianOperator(model, x, precision="fp64")
    values, derivatives = J.along(Z, D)
    few = eqv.JacobianOperator(model, x, precision="fp64", chunk_size=2).along(Z, D)
    for i in range(6):
        at = eqv.JacobianOperator(model, Z[i], precision="fp64")
        assert torch.allclose(values[i], at.value, atol=1e-12)
        assert torch.allclose(derivatives[i], at.jvp(D[i : i + 1])[0], atol=1e-12)
    assert torch.allclose(few[0], values, atol=1e-12)
    assert torch.allclose(few[1], derivatives, atol=1e-12)


def test_points_of_one_difference_share_a_pass(x):
    sizes = []

    def spy(z):
        sizes.append(len(z))
        return z.flatten(1)

    J = eqv.JacobianOperator(spy, x, chunk_size=10)
    sizes.clear()
    J.along(torch.rand(12, 1, 8, 8), torch.rand(12, 1, 8, 8), together=3)
    assert sizes == [3, 3, 3, 3]
    with pytest.raises(UsageError, match="together"):
        J.along(torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8), together=3)


def test_points_may_be_expanded_views(model, x):
    J = eqv.JacobianOperator(model, x)
    D = torch.randn(3, 1, 8, 8)
    assert torch.allclose(J.along(x.expand(3, 1, 8, 8), D)[1], J.jvp(D), atol=1e-5)


def test_reverse_shares_the_forward_pass(x):
    calls = []

    def counted(z):
        calls.append(len(z))
        return z.flatten(1) ** 2

    J = eqv.JacobianOperator(counted, x, reverse=True)
    J.vjp(torch.ones(1, 64))
    assert len(calls) == 1
    J.release()
    J.vjp(torch.ones(1, 64))
    assert len(calls) == 2


def test_precision_leaves_the_callers_model_alone(model, x):
    eqv.JacobianOperator(model, x, precision="fp64")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    with pytest.raises(UsageError, match="not float32"):
        eqv.JacobianOperator(Small().double(), x)


def test_backend_precision_settings_are_restored(model, x):
    before = torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    J = eqv.JacobianOperator(model, x)
    J.jvp(torch.randn(2, 1, 8, 8))
    assert (torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision) == before


def test_ieee_float32_holds_inside_and_only_inside():
    from equivengine.ops.precision import ieee_float32

    seen = []

    def spy(z):
        seen.append(torch.backends.cudnn.conv.fp32_precision)
        return z.flatten(1)

    eqv.JacobianOperator(spy, torch.rand(3))
    assert seen == ["ieee"]
    with pytest.raises(ZeroDivisionError), ieee_float32():
        raise ZeroDivisionError
    assert torch.backends.cudnn.conv.fp32_precision != "ieee"


def test_chunks_fit_the_memory_budget(model, x):
    J = eqv.JacobianOperator(model, x, memory_budget=1)
    assert J.chunk(100) == 1
    roomy = eqv.JacobianOperator(model, x, memory_budget=1 << 40)
    assert roomy.chunk(100) == 100
    each = roomy.bytes_per_direction()
    some = eqv.JacobianOperator(model, x, memory_budget=each * 30)
    assert some.chunk(100) == 25  # 30 fit; four equal parts rather than 30 + 30 + 30 + 10


def test_parameters_do_not_count_as_memory_of_a_pass():
    weight = torch.rand(500, 64)
    J = eqv.JacobianOperator(lambda z: z.flatten(1) @ weight.T[:, :5], torch.rand(1, 8, 8))
    from equivengine.ops.memory import widest_bytes

    assert widest_bytes(J._apply, J.x) == 64 * 4


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"precision": "fp16"}, id="precision"),
        pytest.param({"chunk_size": 0}, id="chunk_size"),
        pytest.param({"memory_budget": 0}, id="memory_budget"),
    ],
)
def test_bad_arguments_are_named(model, x, arguments):
    with pytest.raises(UsageError):
        eqv.JacobianOperator(model, x, **arguments)


def test_bad_shapes_and_dtypes_are_named(model, x):
    J = eqv.JacobianOperator(model, x)
    for call in (lambda: J.jvp(torch.zeros(1, 8, 8)), lambda: J.vjp(torch.zeros(2, 6)), lambda: J @ torch.zeros(63)):
        with pytest.raises(UsageError, match="shape"):
            call()
    with pytest.raises(UsageError, match="one tangent for each point"):
        J.along(torch.zeros(2, 1, 8, 8), torch.zeros(3, 1, 8, 8))
    with pytest.raises(UsageError, match="floating"):
        eqv.JacobianOperator(model, torch.zeros(1, 8, 8, dtype=torch.int64))


def test_nan_embeddings_are_refused(x):
    with pytest.raises(NumericsError, match="NaN"):
        eqv.JacobianOperator(lambda z: z.flatten(1).log() * float("nan"), x)


def test_models_that_leave_the_graph_are_explained(x):
    def leaves(z):
        return torch.from_numpy(z.numpy()).flatten(1)

    with pytest.raises(ModelError, match="cannot be differentiated"):
        eqv.JacobianOperator(leaves, x).jvp(torch.zeros(2, 1, 8, 8))


def test_tuples_are_refused(x):
    with pytest.raises(ModelError, match="one tensor"):
        eqv.JacobianOperator(lambda z: (z, z), x)


def test_encoders_know_whether_x_is_a_batch():
    encoder = eqv.load_encoder("digits", device="cpu")
    X = torch.rand(2, 1, 32, 32)
    assert not eqv.JacobianOperator(encoder, X[0]).batched
    assert eqv.JacobianOperator(encoder, X).batched
    with pytest.raises(UsageError, match="does not fit"):
        eqv.JacobianOperator(encoder, torch.rand(1, 28, 28))
    with pytest.raises(UsageError, match="contradicts"):
        eqv.JacobianOperator(encoder, X, batched=False)
