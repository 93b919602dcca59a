"""What tangents are multiplied in: converted weights, split operands, the backends' float32 modes."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

from equivengine.linearize import ARITHMETICS, linearize
from equivengine.linearize import arithmetic as room


@pytest.fixture
def conversions(monkeypatch):
    """How often a weight was converted."""
    monkeypatch.setattr(room, "_converted", type(room._converted)())
    seen = []

    def convert(weight):
        seen.append(weight)
        return (weight.to(torch.bfloat16),)

    return seen, convert


def relative(a, b):
    return float(torch.linalg.vector_norm(a.double() - b) / torch.linalg.vector_norm(b))


def test_a_weight_is_converted_once_until_it_changes(conversions):
    seen, convert = conversions
    weight = torch.rand(3, 3)
    for _ in range(3):
        room.kept(weight, "bf16", convert)
        gc.collect()
    assert len(seen) == 1
    weight.mul_(2)
    (again,) = room.kept(weight, "bf16", convert)
    assert torch.equal(again, weight.to(torch.bfloat16))
    assert len(seen) == 2


def test_views_of_one_weight_are_told_apart(conversions):
    _, convert = conversions
    weight = torch.rand(6, 3)
    for view in (weight, weight[:3], weight[3:], weight.t()):
        assert torch.equal(room.kept(view, "bf16", convert)[0], view.to(torch.bfloat16))


@pytest.mark.parametrize("requires_grad", [False, True])
def test_converted_weights_go_with_their_weight(conversions, requires_grad):
    seen, convert = conversions
    weight = torch.rand(3, 3, requires_grad=requires_grad)
    room.kept(weight, "bf16", convert)
    seen.clear()
    del weight
    gc.collect()
    assert len(room._converted) == 0


def test_split_operands_give_float32_accuracy():
    """Without tensor cores the three products are exact float32 products: what is left is the splitting itself."""
    torch.manual_seed(0)
    layer = nn.Linear(96, 64).requires_grad_(False)
    program = linearize(lambda z: layer(z).tanh(), torch.rand(7, 96))
    V, U = torch.randn(5, 7, 96), torch.randn(5, 7, 64)
    for run, given in ((program.push, V), (program.pull, U)):
        plain, split = run(given, ARITHMETICS["fp32"]), run(given, ARITHMETICS["tf32x3"])
        assert 0 < relative(split, plain.double()) < 1e-6


def test_one_rounded_factor_would_be_seen_in_the_split_test():
    torch.manual_seed(0)
    left, right = torch.randn(64, 96), torch.randn(96, 48)
    high, _ = room.split_tf32(left)
    assert relative(high @ right, left.double() @ right.double()) > 1e-5


@pytest.mark.parametrize("name", sorted(ARITHMETICS))
def test_float32_modes_are_set_for_the_pass_and_restored(name):
    settings = torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul
    before = [setting.fp32_precision for setting in settings]

    def during() -> None:
        with ARITHMETICS[name].active():
            assert torch.backends.cuda.matmul.fp32_precision == ("tf32" if name == "tf32" else "ieee")
            assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        during()
    assert [setting.fp32_precision for setting in settings] == before


def test_onto_is_added_to_in_its_own_memory():
    torch.manual_seed(0)
    weight = torch.randn(4, 6)
    for name in ("fp32", "tf32x3"):
        matrix = ARITHMETICS[name].matrix(weight)
        t, skip = torch.randn(2, 3, 6), torch.randn(2, 3, 4)
        expected = skip + t @ weight.t()
        out = matrix.rows(t, skip)
        assert out.data_ptr() == skip.data_ptr()
        assert torch.allclose(out, expected, atol=1e-5)
