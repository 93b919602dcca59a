"""The oracle accepts a right operator and notices every kind of wrong one."""

from __future__ import annotations

import pytest
import torch

from equivengine.testing import assert_operator_matches

J = torch.randn(4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Operator:
    def __init__(self, forward=J, reverse=J, shape=(4, 9), offset=0.0):
        self._forward, self._reverse, self.shape, self._offset = forward, reverse, shape, offset

    def __matmul__(self, v):
        return self._forward @ v + self._offset

    @property
    def T(self):
        return Operator(self._reverse.T, self._forward.T, self.shape[::-1])


class Bent(Operator):
    def __matmul__(self, v):
        return self._forward @ v + 1e-2 * (self._forward @ v) ** 2


def test_a_right_operator_passes():
    assert_operator_matches(Operator(), J, rtol=1e-13)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (Operator(shape=(9, 4)), "shape"),
        (Operator(offset=1e-9), "J 0"),
        (Operator(forward=J * (1 + 1e-3)), "J V"),
        (Operator(reverse=J * (1 + 1e-3)), r"J\^T U"),
        (Bent(), "J V"),
    ],
)
def test_a_wrong_operator_is_named(wrong, complaint):
    with pytest.raises(AssertionError, match=complaint):
        assert_operator_matches(wrong, J)
