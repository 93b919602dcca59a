"""Where a forward pass computes in less than its input's precision."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from equivengine.ops.narrowing import epsilon_of, named, narrowings


class Casting(nn.Module):
    """Two layers with a cast between them that the output does not show."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 5), Normed(dtype), nn.Linear(5, 3)

    def forward(self, x):
        return self.last(self.norm(self.first(x)))


class Normed(nn.Module):
    """A normalization of its own precision."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def forward(self, x):
        inner = x.to(self.dtype)
        return (inner / inner.square().mean(-1, keepdim=True).add(1e-6).sqrt()).to(x.dtype)


def found_in(f, dtype=torch.float64):
    x = torch.rand(2, 6, dtype=dtype, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    found = narrowings(f, x)
    assert torch.equal(x, before)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_cast_is_named_by_module_and_dtype(dtype):
    (found,) = found_in(Casting(dtype).double())
    assert (found.module, found.kind, found.operation, found.dtype) == ("norm", "Normed", "_to_copy", dtype)
    assert found.epsilon == torch.finfo(dtype).eps == epsilon_of(torch.float64, [found])
    assert str(found) == f"norm (Normed): {str(dtype)[6:]}"


def test_a_module_that_keeps_its_precision_has_none():
    assert found_in(Casting(torch.float64).double()) == ()
    assert found_in(Casting(), torch.float32) == ()  # float32 is no less than float32
    assert epsilon_of(torch.float64, ()) == torch.finfo(torch.float64).eps


@pytest.mark.parametrize(
    ("f", "operation"),
    [
        pytest.param(lambda x: torch.softmax(x, -1, dtype=torch.float32).double(), "_to_copy", id="softmax"),
        pytest.param(lambda x: torch.zeros(2, 6).copy_(x).double(), "copy_", id="in place"),
        pytest.param(lambda x: x.sum(-1, keepdim=True, dtype=torch.float32).double(), "sum", id="sum"),
        pytest.param(lambda x: torch.fft.fft(x).to(torch.complex64).abs().double(), "_to_copy", id="complex"),
        pytest.param(lambda x: torch.cat([x, x])[:2].half().double(), "_to_copy", id="through views"),
    ],
)
def test_every_way_down_is_found(f, operation):
    (found,) = found_in(f)
    assert (found.module, found.kind, found.operation) == ("", "function", operation)
    assert str(found).startswith("the model itself (function)")


def test_constants_masks_and_integers_are_no_loss():
    table = torch.rand(6, dtype=torch.float64)

    def f(x):
        ranks = x.argsort(-1).argsort(-1).float()  # depends on x, but holds none of its digits
        return x * table.float() + (x > 0.5).float() + ranks + torch.arange(6.0)

    assert found_in(f) == ()


def test_freed_constants_are_not_taken_for_what_depends_on_the_input():
    def f(x):
        for _ in range(50):
            x = x + torch.ones(6, dtype=torch.float64).float()
            del_me = x * 2
            del del_me
        return x

    assert found_in(f) == ()


def test_autocast_inside_a_float32_model_is_found():
    class Inside(Casting):
        def forward(self, x):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                inner = self.first(x)
            return self.last(inner.float())

    (found,) = found_in(Inside(), torch.float32)
    assert (found.module, found.dtype) == ("first", torch.bfloat16)


def test_hooks_are_gone_afterwards_also_after_an_error():
    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Casting()

        def forward(self, x):
            self.inner(x)
            raise ValueError("no")

    model = Failing().double()
    with pytest.raises(ValueError, match="no"):
        found_in(model)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_many_places_are_counted():
    model = nn.Sequential(*(Casting() for _ in range(5)), nn.Identity())
    for layer in list(model)[:-1]:
        layer.last = nn.Linear(5, 6)
    found = found_in(model.double())
    assert len(found) == 5
    assert named(found) == "0.norm (Normed): float32, 1.norm (Normed): float32, 2.norm (Normed): float32 and 2 more"


def test_scripted_modules_are_looked_into():
    class Cast(nn.Module):
        def forward(self, x):
            return x.float().to(x.dtype) * 2

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        scripted = torch.jit.script(Cast())
    (found,) = found_in(scripted)
    assert (found.kind, found.dtype) == ("function", torch.float32)
