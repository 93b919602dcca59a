"""X X^T, Cholesky's factor and substitution, on every implementation there is."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from equivengine.ops import gram as operators
from equivengine.ops import record
from equivengine.ops.gram import deferring_cholesky, gram, solve_lower

FLOAT32, FLOAT64 = torch.float32, torch.float64
#: Around the sizes of tiles, panels and blocks of the kernels.
SHAPES = [(1, 1), (1, 1000), (3, 7), (5, 513), (12, 512), (13, 1025), (24, 64), (31, 5000), (64, 2048), (130, 700)]
dtypes = pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=["float32", "float64"])


def rows(k: int, m: int, dtype: torch.dtype, seed: int = 0, offset: float = 0.5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(k, m, generator=generator, dtype=FLOAT64) + offset).to(dtype)


def triangle(k: int, seed: int = 0) -> Tensor:
    """Lower, far from orthogonal, with numbers above the diagonal, which must not be read."""
    generator = torch.Generator().manual_seed(seed)
    lower = torch.randn(k, k, generator=generator, dtype=FLOAT64).tril() / k**0.5
    lower.diagonal().abs_().add_(0.5)
    return lower + torch.full((k, k), 7.0, dtype=FLOAT64).triu(1)


def apart(t: Tensor) -> Tensor:
    """The same values, rows dense but apart and unaligned."""
    holder = torch.full((*t.shape[:-1], t.shape[-1] + 3), torch.nan, dtype=t.dtype)
    view = holder[..., 1 : 1 + t.shape[-1]]
    view.copy_(t)
    return view


def transposed(t: Tensor) -> Tensor:
    return t.mT.contiguous().mT


def long(t: Tensor) -> np.ndarray:
    return t.double().numpy().astype(np.longdouble)


def assert_gram_is_accurate(X: Tensor, exact: bool, found: Tensor) -> None:
    wide = long(X)
    truth = wide @ wide.T
    lengths = np.sqrt(truth.diagonal())

    def error(G: Tensor) -> float:
        return float((np.abs(long(G) - truth) / lengths[:, None] / lengths).max())

    # The plain formula may be exact by luck: two units in the last place are always allowed.
    rounding = torch.finfo(FLOAT64 if exact else X.dtype).eps
    assert found.dtype == FLOAT64
    assert torch.equal(found, found.mT)
    assert error(found) <= max(2 * error(operators._gram(X, exact)), 2 * rounding)


def assert_solution_is_accurate(L: Tensor, X: Tensor, exact: bool, found: Tensor) -> None:
    def error(Y: Tensor) -> float:
        return float(np.linalg.norm(long(L.tril()) @ long(Y) - long(X)))

    plain = torch.empty_like(X)
    operators._solve_lower(L, X, exact, plain)
    rounding = torch.finfo(X.dtype).eps / 2 * float((L.tril().abs() @ found.double().abs()).norm())
    assert found.dtype == X.dtype
    assert error(found) <= max(2 * error(plain), rounding)


@dtypes
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_gram_has_at_most_twice_the_error_of_plain_pytorch(shape, dtype, exact):
    for layout in (Tensor.contiguous, apart, transposed):
        X = layout(rows(*shape, dtype))
        assert_gram_is_accurate(X, exact, gram(X, exact=exact))


@dtypes
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_substitution_has_at_most_twice_the_error_of_plain_pytorch(shape, dtype, exact):
    L = triangle(shape[0])
    for layout in (Tensor.contiguous, apart, transposed):
        X = layout(rows(*shape, dtype))
        assert_solution_is_accurate(L, X, exact, solve_lower(L, X, exact=exact))


@settings(max_examples=30, deadline=None)
@given(k=st.integers(1, 40), m=st.integers(1, 700), exact=st.booleans(), seed=st.integers(0, 1000))
def test_substitution_undoes_the_product(k, m, exact, seed):
    L, Y = triangle(k, seed), rows(k, m, FLOAT64, seed)
    found = solve_lower(L, L.tril() @ Y, exact=exact)
    bound = 1e-15 * k * torch.linalg.cond(L.tril()) * Y.norm()
    assert (found - Y).norm() <= bound


def test_exact_products_of_float32_lose_nothing():
    small = 2.0**-20
    X = torch.tensor([[1 + small, 1.0], [1 + small, -1.0]])
    one, other = (1 + small) ** 2 + 1, (1 + small) ** 2 - 1
    assert gram(X, exact=True).tolist() == [[one, other], [other, one]]
    assert gram(X).tolist() != [[one, other], [other, one]]


def test_substitution_may_overwrite_its_argument_and_writes_nothing_else():
    X, L = rows(9, 300, FLOAT32), triangle(9)
    expected = solve_lower(L, X)
    holder = torch.full((9, 310), 7.0)
    inside = holder[:, 5:305]
    inside.copy_(X)
    assert solve_lower(L, inside, out=inside) is inside
    assert torch.equal(inside, expected)
    assert (holder[:, :5] == 7).all()
    assert (holder[:, 305:] == 7).all()


@pytest.mark.parametrize("k", [1, 5, 64, 100])
def test_cholesky_is_lapacks(k):
    X = rows(k, 4 * k, FLOAT64, offset=0)
    A = gram(X / X.norm(dim=1, keepdim=True))
    for found in (deferring_cholesky, operators._deferring_cholesky):
        lower, deferred = found(A.tril(), torch.full((k,), 1e-12, dtype=FLOAT64))
        assert not deferred.any()
        assert (lower - torch.linalg.cholesky(A)).abs().max() <= 1e-13
        assert not lower.triu(1).any()


def test_deferred_rows_are_what_the_rows_before_leave_of_them():
    X = rows(6, 50, FLOAT64)
    X[2] = X[0] - X[1]
    X[4] = X[3] + 1e-3 * X[4]
    X /= X.norm(dim=1, keepdim=True)
    thresholds = torch.full((6,), 1e-5, dtype=FLOAT64)
    thresholds[4] = 1e-9
    for way in (deferring_cholesky, operators._deferring_cholesky):
        lower, deferred = way(gram(X), thresholds)
        assert deferred.tolist() == [False, False, True, False, False, False]
        assert lower[2, 2] == 1
        assert not lower[3:, 2].any()
        left = solve_lower(lower, X)
        assert left[2].norm() <= 1e-14
        others = left[~deferred]
        assert (others @ others.mT - torch.eye(5, dtype=FLOAT64)).abs().max() <= 1e-9
    assert deferring_cholesky(torch.full((1, 1), torch.nan, dtype=FLOAT64), thresholds[:1])[1].all()


def test_nothing_depends_on_the_number_of_threads(compiled):
    before = torch.get_num_threads()
    for k, m in ((8, 30_000), (70, 9000), (260, 5000)):
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            X, L = rows(k, m, FLOAT32), triangle(k)
            grams = [gram(X), gram(X, exact=True), gram(X.double())]
            C = grams[2] / grams[2].diagonal().sqrt()[:, None] / grams[2].diagonal().sqrt()
            lower, _ = deferring_cholesky(C, torch.full((k,), 1e-12, dtype=FLOAT64))
            found.append([*grams, lower, solve_lower(L, X), solve_lower(L, X, exact=True)])
        torch.set_num_threads(before)
        for others in found[1:]:
            assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


def test_batches_and_empty_blocks():
    X = torch.stack([rows(4, 90, FLOAT32, seed) for seed in range(6)]).unflatten(0, (2, 3))
    found = gram(X)
    for index in itertools.product(range(2), range(3)):
        assert torch.equal(found[index], gram(X[index]))
    assert gram(X[:0]).shape == (0, 3, 4, 4)
    assert gram(torch.empty(3, 0)).tolist() == [[0.0] * 3] * 3
    assert gram(torch.empty(0, 3)).shape == (0, 0)
    assert solve_lower(triangle(3), torch.empty(3, 0)).shape == (3, 0)


def test_what_does_not_fit_is_refused(compiled):
    with pytest.raises(TypeError, match="rows: expected"):
        gram(torch.ones(2, 3, dtype=torch.bfloat16))
    with pytest.raises(TypeError, match="rows: expected"):
        solve_lower(triangle(2), torch.ones(2, 3, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="lower: expected shape"):
        solve_lower(triangle(3), torch.ones(2, 3))
    with pytest.raises(ValueError, match="out: expected shape"):
        solve_lower(triangle(2), torch.ones(2, 3), out=torch.ones(2, 4))
    with pytest.raises(ValueError, match="out: expected dense rows"):
        solve_lower(triangle(2), torch.ones(2, 3), out=torch.ones(3, 2).mT)
    with pytest.raises(ValueError, match="thresholds: expected shape"):
        deferring_cholesky(torch.eye(3, dtype=FLOAT64), torch.ones(2, dtype=FLOAT64))


def test_a_derivative_of_the_kernel_is_an_error_and_not_zero(compiled):
    X = rows(3, 50, FLOAT64)
    with pytest.raises(RuntimeError, match="derivative for equivengine::gram is not implemented"):
        gram(X.clone().requires_grad_()).sum().backward()
    with pytest.raises(NotImplementedError, match="equivengine::gram that does not support it"):
        torch.func.jvp(gram, (X,), (X,))


def test_vmap_is_a_batch():
    X = torch.stack([rows(4, 90, FLOAT32, seed) for seed in range(3)])
    assert torch.equal(torch.func.vmap(gram)(X), gram(X))


def test_dispatches_are_noted(compiled):
    with record.recording() as log:
        X = rows(3, 50, FLOAT32)
        gram(X)
        solve_lower(triangle(3), X)
    chosen = f"cpu-{compiled.facts['isa_chosen']}"
    assert log.paths() == {"gram": {chosen: 1}, "solve_lower": {chosen: 1}}
    assert operators.path("gram", X) == chosen
    assert operators.path("gram", X.half()) == "reference"


_RUN_CASES = """
import torch
from equivengine.ops import extension, gram
cases = torch.load({path!r})
results = [
    (gram.gram(X, exact=exact), gram.solve_lower(L, X, exact=exact), gram.path("gram", X)) for X, L, exact in cases
]
torch.save([extension.load().facts["isa_chosen"], results], {path!r})
"""


@pytest.mark.parametrize("cap", ["base", "avx2", "avx512"])
def test_each_instruction_set_is_as_accurate(compiled, in_fresh_process, tmp_path, cap):
    cases = [
        (rows(*shape, dtype), triangle(shape[0]), exact)
        for shape, dtype, exact in itertools.product(SHAPES, (FLOAT32, FLOAT64), (False, True))
    ]
    path = str(tmp_path / "cases.pt")
    torch.save(cases, path)
    in_fresh_process(_RUN_CASES.format(path=path), EQUIVENGINE_CPU_ISA=cap)
    chosen, results = torch.load(path)
    if chosen != cap:
        pytest.skip(f"this processor or build has no {cap}; it chose {chosen}")
    for (X, L, exact), (product, solution, taken) in zip(cases, results, strict=True):
        assert taken == f"cpu-{cap}"
        assert_gram_is_accurate(X, exact, product)
        assert_solution_is_accurate(L, X, exact, solution)


def test_without_the_extension_the_plain_formulas_run(in_fresh_process):
    source = """
import torch
from equivengine.linalg.orthonormal import orthonormalise
from equivengine.ops import gram
X = torch.randn(20, 3000, generator=torch.Generator().manual_seed(0))
X[7] = X[3] + 1e-4 * X[7]
X[9] = X[1]
found = orthonormalise(X)
Q = found.Q.double()
assert gram.path("gram", X) == "reference"
assert found.replaced.nonzero().tolist() == [[9]]
print(float((Q @ Q.T - torch.eye(20, dtype=torch.float64)).abs().max()))
"""
    assert float(in_fresh_process(source, EQUIVENGINE_EXTENSION="off")) <= 1e-6
