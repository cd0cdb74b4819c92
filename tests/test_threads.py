"""Threads: the same bits in any of them, and the settings of BLAS are left alone."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import sleep

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from threadpoolctl import threadpool_info, threadpool_limits

from nmf_features import NMFFeatures, estimator
from nmf_features.core.products import gram, inner, product
from nmf_features.core.threads import workers


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def table(n=700, p=40):
    rng = np.random.default_rng(0)
    return rng.gamma(1, size=(n, p)) * rng.gamma(1, size=n)[:, None]


def holed():
    X = table()
    X[np.random.default_rng(1).uniform(size=X.shape) < 0.1] = np.nan
    return X


CASES = {
    "dense": (table(), {}),
    "many columns": (table(400, 300), {}),
    "wide": (table(100, 600), {}),
    "single precision": (table().astype(np.float32), {}),
    "missing cells": (holed(), {"missing_values": "ignore"}),
    "sparse": (sparse.csr_array(np.round(table(p=200) / 2)), {"shift": None}),
    "counts": (table(1500, 60), {"loss": "kullback-leibler", "shift": None, "scale": None}),
    "beta 1.5": (table(400), {"loss": 1.5}),
    **{solver: (table(), {"solver": solver, "max_iter": 20}) for solver in ("mu", "als", "gradient", "newton")},
}


def fitted(case):
    X, settings = CASES[case]
    nmf = NMFFeatures(9, **settings)
    W = nmf.fit_transform(X)
    return np.vstack([W.toarray() if sparse.issparse(W) else W, np.zeros((1, 9))]), nmf.components_


@pytest.mark.filterwarnings("ignore:NMF stopped")
@pytest.mark.parametrize("case", CASES)
def test_bits_are_the_same_in_any_thread_and_for_any_number_of_blas_threads(case):
    with threadpool_limits(1, user_api="blas"):
        W, H = fitted(case)
    with threadpool_limits(4, user_api="blas"):
        found = [fitted(case)]
        with ThreadPoolExecutor(2) as pool:
            found += pool.map(fitted, [case] * 2)
    for other_W, other_H in found:
        assert_array_equal(other_W, W)
        assert_array_equal(other_H, H)


def test_pieces_are_shared_by_threads():
    here, seen, both = threading.get_ident(), [], threading.Barrier(2)

    def double(a, b):
        seen.append(threading.get_ident())
        if a < 2:
            both.wait(10)  # of two threads, each has one of the first two
        return a + b

    with workers(2, 9) as each:
        assert list(each(double, range(9), range(9))) == [2 * i for i in range(9)]
        assert here in seen
        assert len(set(seen)) == 2
        assert list(each(lambda _: sum(each(int, range(5))), range(4))) == [10] * 4  # also within a piece


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_an_error_in_a_thread_ends_all(where):
    here, begun, done = threading.get_ident(), threading.Barrier(2), []

    def fail(i):
        if i < 2:
            begun.wait(10)
        if i < 2 and (threading.get_ident() == here) == (where == "here"):
            raise KeyError(i)
        done.append(i)
        sleep(0.01)

    with workers(2, 1000) as each, pytest.raises(KeyError):
        list(each(fail, range(1000)))
    assert len(done) < 100


def test_who_wants_no_more_results_ends_the_work():
    done = []
    with workers(2, 1000) as each:
        for _ in each(lambda i: sleep(0.01) or done.append(i), range(1000)):
            break
    assert len(done) < 100


def test_blas_is_left_alone_also_after_errors(monkeypatch):
    before, seen, solve = blas_threads(), [], estimator.solve

    def watched(model, *rest, **options):
        seen.append(blas_threads())
        if model.prefix == "X":
            raise RuntimeError
        return solve(model, *rest, **options)

    monkeypatch.setattr(estimator, "solve", watched)

    def fit(prefix):
        with suppress(RuntimeError):
            NMFFeatures(2, prefix=prefix).fit(table(60, 5))
        seen.append(blas_threads())

    fit("NNMF"), fit("X")
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(fit, ["NNMF", "X"] * 3))
    assert seen == [before] * 16


def test_a_users_limit_in_another_thread_holds_beside_fits_and_after_them(monkeypatch):
    before, inside, solve = blas_threads(), [], estimator.solve
    started, done = threading.Event(), threading.Event()

    def slow(*rest, **options):
        started.set()
        done.wait(10)
        return solve(*rest, **options)

    monkeypatch.setattr(estimator, "solve", slow)

    def limited():
        started.wait(10)
        with threadpool_limits(1, user_api="blas"):
            inside.append(blas_threads())
            done.set()

    other = threading.Thread(target=limited)
    other.start()
    NMFFeatures(2).fit(table(60, 5))
    other.join()
    assert inside == [[1] * len(before)]
    assert blas_threads() == before


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(3, 4, 5), (40, 900, 80), (700, 20, 300), (1, 500, 900), (900, 600, 1), (0, 3, 2)])
def test_products_in_pieces_are_products(shape, dtype):
    m, inside, n = shape
    rng = np.random.default_rng(0)
    A, B = rng.uniform(size=(m, inside)).astype(dtype), rng.uniform(size=(inside, n)).astype(dtype)
    close = dict(rtol=1e-12 if dtype == np.float64 else 1e-4)
    assert product(A, B).dtype == dtype
    assert_allclose(product(A, B), A @ B, **close)
    assert_allclose(product(A[None], B)[0], A @ B, **close)
    assert_allclose(product(np.asfortranarray(A), B.T.copy().T), A @ B, **close)
    assert_allclose(product(A, B[:, 0]), A @ B[:, 0], **close)
    assert_allclose(product(B[:, 0], B), B[:, 0] @ B, **close)
    assert_allclose(gram(A), A @ A.T, **close)
    assert_allclose(inner(A, A), np.vdot(A, A), **close)
