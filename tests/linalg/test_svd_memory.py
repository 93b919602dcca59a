"""Memory of the exact way: one copy of J, in memory or in a temporary file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple

import pytest
import torch
from svd_cases import Counting, assert_orthonormal, matrix

import equivengine as eqv
from equivengine.linalg import svd
from equivengine.testing import known_maps

J = matrix(20, 300, 10 ** (-torch.arange(20, dtype=torch.float64) / 4))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("rank", [None, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_temporary_file_gives_the_same_result_and_is_gone(folder, monkeypatch, dtype, rank):
    made = []
    original = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **where: made.append(where) or original(**where))
    in_memory = svd(Counting(J.to(dtype)), rank, method="exact")
    assert not made
    on_disk = svd(Counting(J.to(dtype)), rank, method="exact", memory_budget=J.numel())
    assert made == [{"dir": str(folder)}]
    for name in ("U", "S", "Vh", "lower", "residual", "error"):
        assert torch.equal(getattr(in_memory, name), getattr(on_disk, name)), name
    assert not list(folder.iterdir())


def test_a_batch_may_lie_in_a_file(folder):
    known = known_maps(24, 40)[-1]
    xs = torch.stack([known.x, 0.5 * known.x])
    operator = eqv.JacobianOperator(known.f, xs, batched=True)
    in_memory, on_disk = svd(operator), svd(operator, memory_budget=1)
    assert on_disk.Vh.shape == (2, 24, 40)
    for name in ("U", "S", "Vh"):
        assert torch.equal(getattr(in_memory, name), getattr(on_disk, name)), name
    assert not list(folder.iterdir())


def test_no_file_is_left_by_a_product_that_fails(folder):
    def spoil(call, product):
        if call == 1:
            raise RuntimeError("out of luck")
        return product

    with pytest.raises(RuntimeError, match="out of luck"):
        svd(Counting(J, spoil=spoil), memory_budget=1)
    assert not list(folder.iterdir())


def test_a_full_disk_gives_one_clear_error(folder, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda where: usage(1000, 900, 100))
    operator = Counting(J)
    with pytest.raises(eqv.NumericsError) as caught:
        svd(operator, memory_budget=1)
    message = str(caught.value)
    assert "neither into memory nor on the disk" in message
    assert f"{J.numel() * 8:,} bytes" in message
    assert "100 free" in message
    assert "rank=" in message
    assert operator.total == 0


def test_what_fits_into_the_budget_stays_in_memory(folder, monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **where: pytest.fail("not needed"))
    found = svd(Counting(J), memory_budget=J.numel() * 8)
    assert_orthonormal(found, 1e-12, 1e-12)


#: J = U diag(s) [1 ... 1] / sqrt(copies): its rows are made from a small matrix, so that no other copy of J exists.
PEAK = """
import re, sys
import torch
from equivengine.linalg import svd

torch.set_num_threads(1)
n, copies, zeros = 256, 1024, int(sys.argv[1])
Q = torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
s = torch.linspace(2, 1, n, dtype=torch.float64)
s[n - zeros :] = 0
W = ((Q * s) / copies**0.5).float()


class Operator:
    shape, dtype = (n, n * copies), torch.float32

    def jvp(self, v):
        return v.view(len(v), copies, n).sum(1) @ W.T

    def vjp(self, u):
        return (u @ W).repeat(1, copies)


def high_water():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])


svd(torch.randn(8, 5000))  # loads what is loaded once
before = high_water()
found = svd(Operator())
after = high_water()
assert found.Vh.shape == (n, n * copies) and found.rank == n - zeros
assert (found.S - s).abs().max() < 1e-6 * s[0] and (found.S - s)[: n - zeros].abs().max() < 2e-7
gram = sum(panel.double() @ panel.double().T for panel in found.Vh.split(8192, dim=1))
assert (gram - torch.eye(n)).abs().max() < 1e-6
print(after - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="peak memory is read from /proc")
@pytest.mark.parametrize("zeros", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_exact_way_takes_one_copy_of_the_matrix(zeros):
    done = subprocess.run([sys.executable, "-c", PEAK, str(zeros)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    size = 256 * 256 * 1024 * 4
    assert size <= int(done.stdout) <= size + (350 << 20)
