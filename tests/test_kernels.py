"""Compiled loops compared with plain ones."""

import errno
import gc
import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from nmf_features.core import compiling
from nmf_features.core.blocks import fill
from nmf_features.core.compiling import compiled
from nmf_features.core.kernels import (
    NARROW,
    add_products,
    coordinate_descent,
    coordinate_descent_numpy,
    csr_fitted,
    csr_grams,
    csr_grams_blas,
    improve_rows,
    loss_of_cells,
    nnls_rows,
    own_grams_descent,
    own_grams_descent_numpy,
    packed_products,
    row_products,
    row_systems,
    scores_of_counts,
    stored_slopes,
    unpacked,
)


def problem(k=7, m=150, p=30, dtype=np.float64, deficient=False, seed=0):
    rng = np.random.default_rng(seed)
    H, X = rng.gamma(0.3, 1, (k, p)), rng.gamma(0.5, 1, (m, p))
    if deficient:
        H[1], H[3] = H[0], H[4] + H[5]
    return (H @ H.T).astype(dtype), (H @ X.T - 0.1).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("k", [1, 2, 3, 4, 6, 7, 8])
def test_coordinate_descent_is_its_twin(k, dtype):
    """Without early stop, since tiles stop one by one."""
    A, B = problem(k, dtype=dtype)
    A[k // 2] = A[:, k // 2] = 0  # a component that is zero on the other side
    twin, even, m = np.ones_like(B), k + k % 2, B.shape[1] - 3
    F, padded, C = np.zeros((even, m + 3), dtype), np.zeros((even, m + 3), dtype), np.zeros((even, even), dtype)
    F[:k], padded[:k], C[:k, :k] = 1, B, A
    compiled(coordinate_descent)(F, C, padded, np.ones(m, dtype), m, 6, 0.0)
    coordinate_descent_numpy(twin, A, B, np.ones(m + 3, dtype), 6, 0.0)
    assert_allclose(F[:k, :m], twin[:, :m], atol=1e-12 if dtype == np.float64 else 1e-4)
    assert (F[:k, m:] == 1).all()
    assert not F[k:].any()


def test_coordinate_descent_minimises():
    A, B = problem(k=8)
    F = np.zeros_like(B)
    compiled(coordinate_descent)(F, A, B, np.ones(B.shape[1], B.dtype), B.shape[1], 20_000, 0.0)
    assert np.abs(np.minimum(F, A @ F - B)).max() < 1e-10


def test_coordinate_descent_stops_when_little_changes():
    A, B = problem(k=8)
    rough, fine = np.zeros_like(B), np.zeros_like(B)
    for F, enough in ((rough, 0.5), (fine, 0.0)):
        compiled(coordinate_descent)(F, A, B, np.ones(B.shape[1], B.dtype), B.shape[1], 1000, enough)
    assert np.abs(rough - fine).max() > 1e-3


@pytest.mark.parametrize("deficient", [False, True])
@pytest.mark.parametrize("k", [1, 2, 7, 20])
def test_nnls_has_the_same_bits_compiled_and_plain(k, deficient):
    gram, Bt = problem(max(k, 6) if deficient else k, deficient=deficient)
    gram[np.diag_indices(len(gram))] += 1e-12 * gram.diagonal().mean()
    B = np.ascontiguousarray(Bt.T)
    W, unsolved = nnls_rows(gram[None], B, B > 0)
    fast, fast_unsolved = compiled(nnls_rows)(gram[None], B, B > 0)
    assert_array_equal(W, fast)
    assert_array_equal(unsolved, fast_unsolved)
    assert not unsolved.any()
    shuffled = np.random.default_rng(0).permutation(len(B))
    assert_array_equal(compiled(nnls_rows)(gram[None], B[shuffled], B > 0)[0], W[shuffled])
    own, own_unsolved = compiled(nnls_rows)(np.repeat(gram[None], len(B), axis=0), B, B > 0)  # as if each had its own
    assert_allclose(own, W, atol=1e-9 * W.max())
    assert not own_unsolved.any()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("k", [1, 4, 7])
@pytest.mark.parametrize("m", [1, 4, 6])
def test_row_products(m, k, dtype):
    rng = np.random.default_rng(0)
    H, X = rng.uniform(size=(k, 11)).astype(dtype), rng.uniform(size=(m, 11)).astype(dtype)
    for run in (compiled(row_products), row_products):
        out = np.full((k, m), np.nan, dtype)
        run(H, X, out)
        assert_allclose(out, H @ X.T, rtol=1e-12 if dtype == np.float64 else 1e-5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("k", [1, 4, 7])
@pytest.mark.parametrize("q", [1, 4, 6])
def test_add_products(q, k, dtype):
    rng = np.random.default_rng(0)
    A, B, before = (rng.uniform(size=shape).astype(dtype) for shape in ((k, q), (q, 11), (k, 11)))
    for run in (compiled(add_products), add_products):
        out = before.copy()
        run(A, B, out)
        assert_allclose(out, before + A @ B, rtol=1e-12 if dtype == np.float64 else 1e-5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("k", [3, 4, 5, 6])
@pytest.mark.parametrize("p", [9, NARROW + 3])
@pytest.mark.parametrize("n", [3, 300])
def test_improve_rows(n, p, k, dtype):
    rng = np.random.default_rng(0)
    X, H, F = (rng.uniform(size=shape).astype(dtype) for shape in ((n, p), (k, p), (k, n)))
    A, v, l1 = H @ H.T, rng.uniform(size=n).astype(dtype), dtype(0.1)
    expected = F.copy()
    coordinate_descent_numpy(expected, A, H @ X.T - l1, v, 5, 0.0)
    for run in (compiled(improve_rows), improve_rows):
        found, WtW, WtX = F.copy(), np.empty((k, k)), np.empty((k, p))
        run(X, X, False, found, H, A, l1, v, 5, 0.0, WtW, WtX)
        rtol = 1e-9 if dtype == np.float64 else 1e-3
        assert_allclose(found, expected, rtol=rtol, atol=rtol)
        assert_allclose(WtW, found * v @ found.T, rtol=rtol)
        assert_allclose(WtX, found * v @ X, rtol=rtol)
        kept, again = found.copy(), (np.empty((k, k)), np.empty((k, p)))
        run(X.astype(np.float64), np.empty((300, p), dtype), True, found, H, A, l1, v, 0, 0.0, *again)  # no sweeps
        assert_array_equal(found, kept)
        for sums, before in zip(again, (WtW, WtX), strict=True):
            assert_array_equal(sums, before)


@pytest.mark.parametrize("l2", [0.0, 0.2])
@pytest.mark.parametrize("k", [1, 4, 7])
def test_scores_of_counts(k, l2):
    """Stationary, with the same bits beside other rows, in several calls, and without the compiler."""
    rng = np.random.default_rng(k)
    H, X = rng.gamma(0.3, 1, (k, 11)), rng.poisson(2.0, (70, 11)).astype(float)
    X[3] = 0
    l1 = np.full((70, k), 0.1)

    def found(loop, rows=slice(None), steps=((5, 30),), W=None):
        W, active = np.ones((70, k))[rows] if W is None else W, np.ones(70, bool)[rows]
        own = X[rows], H, packed_products(H), np.full(70, 1e-12)[rows], l1[rows], np.full_like(l1, l2)[rows]
        for some in steps:
            loop(*own, W, active, 1e-12, some, 1e-11)
        return W, active

    W, active = found(compiled(scores_of_counts))
    assert not active.any()
    slope = H.sum(axis=1) + 0.1 + l2 * W - (X / np.maximum(W @ H, 1e-12)) @ H.T
    assert np.abs(np.minimum(W, slope)).max() < 1e-8
    assert_array_equal(W[slope > 1e-3], 0)
    assert_array_equal(W[3], 0)
    assert_array_equal(found(compiled(scores_of_counts), slice(5, 6))[0], W[5:6])
    assert_array_equal(found(compiled(scores_of_counts), steps=((5, 2), (0, 28)))[0], W)
    assert_array_equal(found(scores_of_counts, slice(2, 6))[0], W[2:6])
    assert found(compiled(scores_of_counts), steps=((0, 1),))[1].any()


@pytest.mark.parametrize("m", [1, 63, 130])
def test_row_systems(m):
    rng = np.random.default_rng(0)
    H, X = rng.uniform(size=(5, 9)), rng.uniform(size=(m, 9))
    X[rng.random(X.shape) < 0.3] = np.nan
    seen = ~np.isnan(X)
    expected = np.nan_to_num(X) @ H.T, np.einsum("ij,tj,sj->its", seen, H, H), seen.sum(axis=1)
    results = []
    for run in (compiled(row_systems), row_systems):
        results.append((np.empty((m, 5)), np.empty((m, 5, 5)), np.empty(m)))
        run(X, H, *results[-1])
        for found, wanted in zip(results[-1], expected, strict=True):
            assert_allclose(found, wanted, rtol=1e-12)
    for fast, slow in zip(*results, strict=True):
        assert_array_equal(fast, slow)
    alone = np.empty((1, 5)), np.empty((1, 5, 5)), np.empty(1)
    compiled(row_systems)(X[-1:], H, *alone)
    for one, many in zip(alone, results[0], strict=True):
        assert_array_equal(one, many[-1:])


@pytest.mark.parametrize("near", [1e-3, 0.1, 3.0])
def test_losses_of_cells_keep_their_digits_where_the_fit_is_close(near):
    """In single precision sum(x log(y)) would leave none of them at near=1e-3."""
    rng = np.random.default_rng(0)
    x, weights = rng.gamma(1, size=(30, 40)).astype(np.float32), rng.uniform(size=40).astype(np.float32)
    x[3, 5] = 0
    y = (x * np.exp(near * rng.normal(size=x.shape)) + 1e-6).astype(np.float32)
    wide, fit = x.astype(float), y.astype(float)
    expected = (weights * (np.where(wide > 0, wide * np.log(np.maximum(wide, 1e-300) / fit), 0) - wide + fit)).sum()
    for run in (compiled(loss_of_cells), loss_of_cells):
        assert_allclose(run(x, y, weights, np.empty_like(weights)), expected, rtol=1e-4)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("k", [1, 4, 7])
@pytest.mark.parametrize("m", [1, 64, 150])
def test_own_grams_descent(k, m, dtype):
    rng = np.random.default_rng(0)
    roots = rng.uniform(size=(m, k + 2, k))
    A = np.einsum("mct,mcs->mts", roots, roots)
    A[-1, -1] = A[-1, :, -1] = 0  # a component without curvature
    grams = np.ascontiguousarray(A[:, *np.tril_indices(k)].T, dtype=dtype)
    assert_allclose(unpacked(grams, k), A, rtol=1e-6)
    F, slopes = rng.uniform(size=(k, m)).astype(dtype), rng.normal(size=(k, m)).astype(dtype)
    least, weights = (0.1 * F * (rng.uniform(size=F.shape) < 0.5)).astype(dtype), rng.uniform(size=m).astype(dtype)
    for sweeps, enough in ((1, 0.0), (5, 0.0), (100, 1e-3)):
        fast, slow = F.copy(), F.astype(np.float64)
        compiled(own_grams_descent)(fast, slopes, grams, least, weights, sweeps, enough)
        own_grams_descent_numpy(slow, slopes, grams, least, weights, sweeps, enough)
        # strips stop on their own, so only what is converged is compared where they do
        tolerance = 5e-3 if enough else (1e-11 if dtype == np.float64 else 1e-3)
        assert_allclose(fast, slow, atol=tolerance * slow.max())
        assert (fast - least).min() >= -1e-6 * fast.max()  # up to rounding
    one = F[:, -1:].copy()  # without a rule to stop a column has the same bits alone
    compiled(own_grams_descent)(one, slopes[:, -1:], grams[:, -1:], least[:, -1:], weights[-1:], 5, 0.0)
    many = F.copy()
    compiled(own_grams_descent)(many, slopes, grams, least, weights, 5, 0.0)
    assert_array_equal(one[:, 0], many[:, -1])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("k", [1, 4, 6, 9])
def test_loops_over_stored_cells(k, dtype):
    """They give the same bits compiled and plain, in either precision."""
    rng, rtol = np.random.default_rng(0), 1e-12 if dtype == np.float64 else 1e-5
    X = sparse.random_array((20, 15), density=0.4, rng=rng, format="csr")
    X = sparse.vstack([X, sparse.csr_array((1, 15))]).tocsr().astype(dtype)  # a row with nothing in it
    W, Ht = rng.uniform(size=(21, k)).astype(dtype), rng.uniform(size=(15, k)).astype(dtype)
    found = []
    for run in (csr_fitted, compiled(csr_fitted)):
        y, grams = np.full(X.nnz, np.nan, dtype), np.full((k * (k + 1) // 2, 21), np.nan, dtype)
        run(X.indices, X.indptr, W, Ht, y)
        assert_allclose(y, (W @ Ht.T)[X.nonzero()], rtol=rtol)
        found.append(y)
    assert_array_equal(*found)
    found = []
    for run in (csr_grams, compiled(csr_grams)):
        run(X.data, X.indices, X.indptr, Ht, grams)
        assert_allclose(unpacked(grams, k), np.einsum("ij,jt,js->its", X.toarray(), Ht, Ht), rtol=rtol, atol=rtol / 1e3)
        found.append(grams.copy())
    assert_array_equal(*found)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("k", [1, 4, 6, 9])
def test_stored_slopes(k, dtype):
    """Of rows with nothing in them, with few cells, and with more than are taken at once; some fits are too small."""
    rng, rtol = np.random.default_rng(0), 1e-12 if dtype == np.float64 else 1e-4
    parts = [sparse.random_array((9, 600), density=d, rng=rng) for d in (0.01, 0.9)]
    X = sparse.vstack([sparse.csr_array((1, 600)), *parts]).tocsr().astype(dtype)
    F, Ht, least = rng.uniform(size=(k, 19)).astype(dtype), rng.uniform(size=(600, k)).astype(dtype), dtype(0.1)
    Ht[::7] *= dtype(1e-9)
    x, y = X.toarray().astype(float), np.maximum(F.T.astype(float) @ Ht.T, least)
    gradient, grams = -(x / y) @ Ht, np.einsum("ij,jt,js->its", x / y**2, Ht, Ht)
    for run in (stored_slopes, compiled(stored_slopes)):
        for kind in ("whole", "diagonal", "none"):
            rows = {"whole": k * (k + 1) // 2, "diagonal": k, "none": 0}[kind]
            slopes, out = np.full((k, 19), np.nan, dtype), np.full((rows, 19), np.nan, dtype)
            run(X.data, X.indices, X.indptr, F, Ht, least, slopes, out)
            assert_allclose(slopes.T, gradient, rtol=rtol)
            if kind == "whole":
                assert_allclose(unpacked(out, k), grams, rtol=rtol)
            if kind == "diagonal":
                assert_allclose(out.T, np.einsum("itt->it", grams), rtol=rtol)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("k", [1, 4, 9])
def test_sums_of_products_by_blas(k, dtype):
    """Of rows with nothing in them, with a few cells, and with more than are taken at once."""
    rng, rtol = np.random.default_rng(0), 1e-12 if dtype == np.float64 else 1e-5
    X = sparse.vstack(
        [sparse.csr_array((1, 600)), *(sparse.random_array((2, 600), density=d, rng=rng) for d in (0.01, 0.9))]
    )
    X, Ht, grams = (
        X.tocsr().astype(dtype),
        rng.uniform(size=(600, k)).astype(dtype),
        np.empty((2, k * (k + 1) // 2, 5), dtype),
    )
    csr_grams(X.data, X.indices, X.indptr, Ht, grams[0])
    for run in (csr_grams_blas, compiled(csr_grams_blas)):
        grams[1] = np.nan
        run(X.data, X.indices, X.indptr, Ht, grams[1])
        assert_allclose(grams[1], grams[0], rtol=rtol)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_own_grams_descent_has_the_same_bits_compiled_and_plain(dtype):
    rng = np.random.default_rng(0)
    grams = packed_products(rng.uniform(size=(4, 9)).astype(dtype)) + packed_products(np.eye(4, 9, dtype=dtype))
    slopes, found = rng.normal(size=(4, 9)).astype(dtype), []
    for run in (own_grams_descent, compiled(own_grams_descent)):
        F = np.ones((4, 9), dtype)
        run(F, slopes, grams, np.zeros_like(F), np.ones(9, dtype), 5, 0.0)
        found.append(F)
    assert_array_equal(*found)


def test_packed_products():
    F = np.random.default_rng(0).uniform(size=(5, 7))
    assert_array_equal(unpacked(packed_products(F), 5), np.einsum("tm,sm->mts", F, F))


def test_filling_holes():
    X, Y = np.zeros((4, 5)), np.arange(20.0).reshape(4, 5)
    holes = Y % 3 == 0
    for into in (X.copy(), np.asfortranarray(X)):
        fill(into, Y, holes)
        assert_array_equal(into, np.where(holes, Y, 0))


FRESH = """
import numpy as np
from nmf_features.core.compiling import compiled
from nmf_features.core.kernels import descend_cells, descend_squares, strips_of
rng = np.random.default_rng(0)
X, H, known = rng.random((178, 13)), rng.random((5, 13)), np.zeros((5, 13))
fields = [(descend_squares, np.float32), (descend_squares, np.float64)]
fields += [(descend_cells, np.float32, False), (descend_cells, np.float32, True)]
for descend, dtype, *options in fields:
    strips, v = strips_of(X.astype(dtype), np.ones(178))
    strengths = 1e-3, 1e-3, 0.0, 0.0
    found, value, _ = compiled(descend)(strips, v, H.astype(dtype), strengths, 50, 1e-9, known, np.inf, *options)
    print(found.tobytes().hex(), value)
"""


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Compile functions of one argument, with an empty cache, as in a process that has not warned yet."""
    import numba

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiling._Cache, "warned", False)
    monkeypatch.setattr(compiling, "_machine_code", {})

    def doubled(x):
        return 2 * x

    def halved(x):
        return x / 2

    return lambda: [compiling.compiled(function) for function in (doubled, halved)]


def total_of_doubled(x):
    total = 0.0
    for i in range(len(x)):
        total += double(x[i])
    return total


def double(x):
    return 2 * x


def total_of_halves(x):
    total = 0.0
    for i in range(len(x)):
        total += half(x[i])
    return total


def half(x):
    return x / 2


@pytest.mark.parametrize(("loop", "called"), [(total_of_doubled, double), (total_of_halves, half)])
def test_loops_call_others_by_address_or_inline_them(cached, monkeypatch, loop, called):
    by_address = called is double
    monkeypatch.setattr(compiling, "_callable", set())
    if not by_address:  # as if numba were another version
        monkeypatch.setattr(compiling, "_knows_addresses", lambda: False)
    x = np.arange(4.0)
    for _ in range(2):  # the second time from the cache
        code = compiling.compiled(loop)
        assert code(x) == loop(x)
        assert (called in compiling._machine_code) == by_address
        monkeypatch.setattr(compiling, "_machine_code", {})
        monkeypatch.setattr(compiling, "_by_address", {})
    assert sum(code.stats.cache_hits.values()) == 1
    assert compiling._knows_addresses() == by_address  # so it does in all versions that are tested


@pytest.mark.parametrize("collects", [True, False])
def test_no_garbage_is_collected_while_code_is_compiled(cached, monkeypatch, collects):
    code, collecting = cached()[0], []
    compile_for = code.compile.args[0]
    monkeypatch.setattr(code, "compile", code.compile.func)
    try:
        if not collects:
            gc.disable()
        code.compile(lambda types: collecting.append(gc.isenabled()), ())
        assert collecting == [False]
        assert gc.isenabled() == collects
        with pytest.raises(TypeError):
            code.compile(compile_for, (None,))
        assert gc.isenabled() == collects
    finally:
        gc.enable()


def test_little_work_is_done_without_a_compiler_until_it_adds_up(cached, monkeypatch):
    monkeypatch.setattr(compiling, "_worked", {})
    assert compiling.compiled_if_worth(double, 1) is double
    cached()  # the compiler is loaded
    assert compiling.compiled_if_worth(double, 1) is double
    some = compiling.MANY // 2
    monkeypatch.setattr(compiling, "FEW", some)
    assert compiling.compiled_if_worth(double, some) is double
    code = compiling.compiled_if_worth(double, some)
    assert code is not double
    assert code(3.0) == 6
    assert compiling.compiled_if_worth(double, 1) is code
    monkeypatch.setattr(compiling, "_machine_code", {})
    monkeypatch.setattr(compiling, "_worked", {})
    cached()
    assert compiling.compiled_if_worth(double, 1) is not double  # as it is in the cache
    assert compiling.compiled_if_worth(total_of_doubled, 1) is total_of_doubled


@pytest.mark.parametrize("method", ["save", "load"])
def test_without_a_cache_the_code_runs_with_one_warning(cached, monkeypatch, method, tmp_path):
    from numba.core import caching

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, method, fail)
    with pytest.warns(UserWarning, match=r"cannot keep compiled code in .*No space left.*NUMBA_CACHE_DIR") as caught:
        found = [code(x) for code in cached() for x in (3.0, 4)]
    assert found == [6.0, 8, 1.5, 2.0]
    assert len(caught) == 1
    assert str(tmp_path) in str(caught[0].message)


def test_a_broken_file_of_the_cache_is_replaced(cached, tmp_path, monkeypatch):
    assert [code(3.0) for code in cached()] == [6.0, 1.5]
    files = list(tmp_path.rglob("*.nbc"))
    assert len(files) == 2
    for file in files:
        file.write_bytes(b"")
    monkeypatch.setattr(compiling, "_machine_code", {})
    with pytest.warns(UserWarning, match="cannot keep"):
        assert [code(3.0) for code in cached()] == [6.0, 1.5]
    assert all(file.stat().st_size for file in files)
    monkeypatch.setattr(compiling, "_machine_code", {})
    codes = cached()
    assert [code(3.0) for code in codes] == [6.0, 1.5]  # and nothing is warned of
    assert sum(sum(code.stats.cache_hits.values()) for code in codes) == 2


def test_code_from_the_cache_gives_the_bits_of_code_just_compiled(tmp_path):
    run = [sys.executable, "-c", FRESH]
    new = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run(run, check=True, capture_output=True)  # whatever was compiled before, it is in the usual cache now
    first, second = (subprocess.run(run, env=env, capture_output=True, text=True, check=True) for env in (new, None))
    assert any(tmp_path.rglob("*.nbc"))
    assert first.stdout == second.stdout


def test_a_terminal_is_told_of_compiling_once(monkeypatch, capsys):
    class Nothing:
        def load_overload(self, *what):
            return None

    monkeypatch.setattr(compiling._Cache, "told", False)
    compiling._Cache(Nothing()).load_overload()
    assert capsys.readouterr().err == ""  # no terminal
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    for _ in range(2):
        compiling._Cache(Nothing()).load_overload()
    assert capsys.readouterr().err == "nmf_features is compiled for this machine: once, for some seconds.\n"
