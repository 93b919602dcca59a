"""What was made from weights is not used after they have changed: neither float64 copies nor programs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import equivengine as eqv
from equivengine.errors import UsageError

X = torch.rand(4, generator=torch.Generator().manual_seed(0))


def in_place(model):
    with torch.no_grad():
        model.weight.mul_(2)


def replaced(model):
    model.weight = nn.Parameter(torch.randn(3, 4))


def new_data(model):
    model.weight.data = torch.randn(3, 4)


def loaded(model):
    model.load_state_dict({"weight": torch.randn(3, 4), "bias": torch.zeros(3)})


CHANGES = pytest.mark.parametrize("change", [in_place, replaced, new_data, loaded])


@CHANGES
@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_a_new_operator_has_the_new_weights(change, precision):
    model = nn.Linear(4, 3)
    for _ in range(2):
        J = eqv.JacobianOperator(model, X, precision=precision).dense()
        assert torch.equal(J.double(), model.weight.detach().double())
        change(model)


@CHANGES
@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize(
    "product",
    [
        pytest.param(lambda J: J.jvp(torch.ones(2, 4)), id="jvp"),
        pytest.param(lambda J: J.vjp(torch.ones(2, 3)), id="vjp"),
        pytest.param(lambda J: J.vjp(torch.ones(1, 3)), id="vjp of one"),
        pytest.param(lambda J: J.along(X[None], torch.ones(1, 4)), id="along"),
    ],
)
def test_an_old_operator_refuses_further_products(change, precision, product):
    model = nn.Linear(4, 3)
    J = eqv.JacobianOperator(model, X, precision=precision)
    product(J)
    change(model)
    with pytest.raises(UsageError, match="weights have changed"):
        product(J)


def test_statistics_of_a_norm_are_copied_anew():
    model = nn.BatchNorm1d(4).eval()
    before = eqv.JacobianOperator(model, X, precision="fp64").dense()
    model.running_var.fill_(4.0)
    after = eqv.JacobianOperator(model, X, precision="fp64").dense()
    assert torch.allclose(before.diag() / after.diag(), torch.full((4,), 4.0).double().sqrt(), rtol=1e-4)


def test_the_float64_copy_of_an_encoder_follows_its_weights():
    loaded_model = eqv.LoadedModel(nn.Linear(4, 3), lambda raw: raw, input_shape=(4,))
    encoder = eqv.Encoder(loaded_model, "test")
    double = encoder.at_precision("fp64")
    assert encoder.at_precision("fp64") is double
    in_place(encoder.module)
    assert encoder.at_precision("fp64") is not double
    assert torch.allclose(encoder.at_precision("fp64")(X[None].double()).float(), encoder(X[None]), atol=1e-6)


def test_unchanged_weights_are_copied_once():
    model = nn.Linear(4, 3)
    first, second = (eqv.JacobianOperator(model, X, precision="fp64")._f for _ in range(2))
    assert first is second
