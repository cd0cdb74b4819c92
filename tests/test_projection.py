"""Scores of rows: exact, and independent of other rows."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.optimize import nnls

from nmf_features.core import projection
from nmf_features.core.losses import loss_of
from nmf_features.core.missing import Missing
from nmf_features.core.projection import exact_scores, linear_scores, tile_rows


def problem(n=600, p=12, k=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(1, 1, (n, p)).clip(0), rng.gamma(0.3, 1, (k, p))


@pytest.mark.parametrize("k", [1, 2, 6, 12, 20])
def test_equals_scipy_nnls(k):
    X, H = problem(n=80, k=k)
    if k > 12:  # rank-deficient: compare the fit, which is unique, not the scores
        fits = [nnls(H.T, x)[0] @ H for x in X]
        assert_allclose(exact_scores(X, H) @ H, fits, atol=1e-6)
    else:
        assert_allclose(exact_scores(X, H), [nnls(H.T, x)[0] for x in X], atol=1e-8)


@pytest.mark.parametrize(("l1", "l2"), [(0, 0), (0.5, 0), (0, 2.0), (np.linspace(0.1, 1, 6), np.linspace(2, 0, 6))])
def test_kkt_in_every_row(l1, l2):
    X, H = problem()
    H[3] *= 1e6  # scales of components must not matter
    H[4] *= 1e-6
    W = exact_scores(X, H, l1, l2)
    curvature = (H**2).sum(axis=1) + l2
    gradient = (W @ (H @ H.T) - X @ H.T + l1 + l2 * W) / curvature
    unit = curvature**-0.5 * np.linalg.norm(X, axis=1, keepdims=True)  # the size a score of that component can have
    assert (np.abs(np.minimum(W, gradient)) / unit).max() < 1e-8
    assert W.min() >= 0


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("deficient", [False, True])
def test_a_row_does_not_know_its_neighbours(dtype, deficient):
    X, H = problem(n=tile_rows(12) + 7)
    if deficient:
        H[5] = H[0] + H[1]
        H[4] = H[3]
    X = X.astype(dtype)
    W = exact_scores(X, H)
    assert W.dtype == dtype
    rng = np.random.default_rng(1)
    rows = rng.permutation(len(X))[:100]
    assert_array_equal(exact_scores(X[rows], H), W[rows])
    assert_array_equal(exact_scores(np.asfortranarray(X)[5:6], H), W[5:6])


@pytest.mark.parametrize("beta_loss", ["frobenius", "kullback-leibler"])
def test_sparse_rows_have_the_same_bits_in_any_batch(beta_loss, monkeypatch):
    rng, loss, batches = np.random.default_rng(0), loss_of(beta_loss), []
    X, H = sparse.random_array((300, 90), density=0.2, rng=rng, format="csr"), rng.gamma(0.3, size=(3, 90))
    take = projection.take
    monkeypatch.setattr(projection, "take", lambda X, rows: batches.append(rows) or take(X, rows))
    whole = exact_scores(X, H, loss=loss)
    monkeypatch.setattr(projection, "STORED_CELLS", 1)
    assert_array_equal(exact_scores(X, H, loss=loss), whole)
    assert len(batches) > 2


def test_threads_do_not_matter():
    X, H = problem(n=3000)
    assert_array_equal(exact_scores(X, H, n_jobs=1), exact_scores(X, H, n_jobs=3))


def test_equal_components_share_equally():
    X, H = problem(k=3)
    twice = np.vstack([H, H[1]])
    single, shared = exact_scores(X, H), exact_scores(X, twice)
    assert_array_equal(shared[:, 1], shared[:, 3])
    assert_allclose(shared[:, 1] + shared[:, 3], single[:, 1], atol=1e-9)
    ridge = np.array([1.0, 2, 3, 2])  # an L2 term costs half as much when shared
    W = exact_scores(X, twice, 0.1, ridge)
    gradient = W @ (twice @ twice.T) - X @ twice.T + 0.1 + ridge * W
    assert np.abs(np.minimum(W, gradient)).max() < 1e-9


def test_zero_components_rows_and_nothing():
    X, H = problem(k=3)
    H[1] = 0
    X[7] = 0
    W = exact_scores(X, H)
    assert not W[:, 1].any()
    assert not W[7].any()
    assert exact_scores(X[:0], H).shape == (0, 3)
    assert not exact_scores(X, np.zeros((3, 12))).any()
    assert exact_scores(X, np.zeros((0, 12))).shape == (600, 0)


@pytest.mark.parametrize("c", [1e-290, 1e290])
def test_extreme_sizes(c):
    X, H = problem()
    assert_allclose(exact_scores(X * c, H) / c, exact_scores(X, H), rtol=1e-9, atol=1e-12)
    assert_allclose(exact_scores(X, H * c) * c, exact_scores(X, H), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [np.array, sparse.csr_array])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_linear_scores_of_a_row_depend_on_itself_alone(make, dtype):
    rng = np.random.default_rng(0)
    X, H = rng.random((700, 33)).astype(dtype), rng.random((9, 33))
    W = linear_scores(make(X), H)
    assert W.dtype == dtype
    assert_array_equal(linear_scores(make(X[500:501]), H), W[500:501])
    assert_array_equal(linear_scores(make(X[::-1]), H), W[::-1])


def test_linear():
    X, H = problem()
    assert_allclose(linear_scores(X, H), X @ H.T)


def test_sparse_rows_without_the_largest_column_score_as_dense_ones():
    X, H = problem(n=90, k=3)
    H[:, 1] *= 1e9  # of a difference of grams nothing would be left
    X[::3, 1] = np.nan
    dense, stored = (exact_scores(make(X), H, missing=Missing(12)) for make in (np.asarray, sparse.csr_matrix))
    assert_allclose(stored, dense, rtol=1e-9, atol=1e-20)
