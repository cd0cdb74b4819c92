"""Sparse data stay sparse and give what dense data give."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.utils.estimator_checks import parametrize_with_checks

from nmf_features import NMFFeatures, NonNegativeScaler, factorize, objective
from nmf_features.core import blocks
from nmf_features.core.blocks import block_of, row_blocks, take
from nmf_features.core.compiling import compiled
from nmf_features.core.kernels import csr_times, csr_transposed_times
from nmf_features.scaling import SCALES

FORMATS = [sparse.csr_array, sparse.csc_matrix, sparse.coo_array]


@pytest.fixture
def X():
    rng = np.random.default_rng(0)
    dense = rng.gamma(0.5, 1, (300, 4)) @ rng.gamma(0.5, 1, (4, 40))
    return dense * (rng.uniform(size=dense.shape) < 0.1)


@pytest.mark.filterwarnings(
    "ignore:n_components=.* is more than:UserWarning",  # checks with one column keep the default of two components
    "ignore:Components .* are zero:UserWarning",
    "ignore:Constant columns:UserWarning",
)
@parametrize_with_checks([NMFFeatures(shift=None), NonNegativeScaler(shift=None)])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize("run", [compiled, lambda function: function])
def test_products(X, run):
    S = sparse.csr_array(X)
    H, W = np.random.default_rng(1).uniform(size=(3, 40)), np.random.default_rng(2).uniform(size=(300, 3))
    out = np.zeros((300, 3))
    run(csr_times)(S.data, S.indices, S.indptr, np.ascontiguousarray(H.T), out)
    assert_allclose(out, X @ H.T)
    back = np.zeros((40, 3))
    run(csr_transposed_times)(S.data, S.indices, S.indptr, W, back)
    assert_allclose(back, X.T @ W)
    rows = slice(50, 120)
    block, dense = block_of(take(S, rows)), block_of(X[rows])
    assert_allclose(block.X.toarray(), X[rows])
    assert np.shares_memory(block.X.data, S.data)
    Wt = np.ascontiguousarray(W[rows].T)
    for either in (block, dense):
        assert_allclose(either.loadings_times(H), H @ X[rows].T)
        assert_allclose(either.scores_times(Wt), Wt @ X[rows])
        assert_allclose(either.row_sums(), X[rows].sum(axis=1))
        assert_allclose(either.row(3), X[rows][3])
        assert_allclose(either.dense().X, X[rows])
    fitted = W[rows] @ H
    assert_allclose(dense.residual(Wt, H).X, np.maximum(X[rows] - fitted, 0))
    at_stored = np.where(X[rows] > 0, np.maximum(X[rows] - fitted, 0), 0)
    assert_allclose(block.residual(Wt, H).X.toarray(), at_stored)


@pytest.mark.parametrize("make", FORMATS)
@pytest.mark.parametrize("transpose", [False, True])
def test_factorize_as_dense(X, make, transpose):
    X = X.T if transpose else X
    dense = factorize(X, 4, tol=1e-9, max_iter=2000)
    found = factorize(make(X), 4, tol=1e-9, max_iter=2000)
    assert_allclose(found.W, dense.W, rtol=1e-4, atol=1e-6)
    assert_allclose(found.H, dense.H, rtol=1e-4, atol=1e-6)
    assert_allclose(found.objective, objective(X, found.W, found.H), rtol=1e-9)


def test_threads_give_the_same_bits(X, monkeypatch):
    monkeypatch.setattr(blocks, "SPARSE_CELLS", 1 << 10)
    S = sparse.vstack([sparse.csr_array(X)] * 10).tocsr()
    assert len(row_blocks(S, 4)) > 10
    assert_array_equal(factorize(S, 4, n_jobs=1).W, factorize(S, 4, n_jobs=2).W)


@pytest.mark.parametrize("scale", [*SCALES, None])
def test_transformer_as_dense(X, scale):
    S = sparse.csr_array(X)
    scaler = NonNegativeScaler(shift=None, scale=scale)
    Z = scaler.fit_transform(S)
    assert sparse.issparse(Z)
    assert_allclose(Z.toarray(), scaler.fit_transform(X), rtol=1e-12)
    if scale != "robust":
        assert_allclose(scaler.inverse_transform(Z).toarray(), X)
    nmf = NMFFeatures(3, shift=None, scale=scale, tol=1e-8, max_iter=2000)
    W = nmf.fit_transform(S)
    assert isinstance(W, np.ndarray)
    assert_allclose(nmf.transform(S[5:9]), W[5:9], rtol=1e-8)
    assert_allclose(W, nmf.fit_transform(X), rtol=1e-3, atol=1e-4 * W.max())
    assert_allclose(nmf.score(S), nmf.score(X), rtol=1e-8)


def test_other_columns_stay_sparse(X):
    nmf = NMFFeatures(2, variables=list(range(30)), shift=None).fit(sparse.csr_array(X))
    out = nmf.transform(sparse.csr_array(X))
    assert sparse.issparse(out)
    assert_allclose(out.toarray()[:, :10], X[:, 30:])


def test_frames_of_sparse_columns(X):
    names = [f"w{j}" for j in range(40)]
    frame = pd.DataFrame.sparse.from_spmatrix(sparse.csr_matrix(X), columns=names)
    nmf = NMFFeatures(3, shift=None)
    out = nmf.fit_transform(frame)
    assert_array_equal(out.to_numpy(), nmf.fit_transform(sparse.csr_array(X)))
    assert out.columns.tolist() == ["NNMF1", "NNMF2", "NNMF3"]
    with pytest.raises(ValueError, match=r"shift='min' would fill .*shift=None"):
        NMFFeatures(3).fit(frame)


def test_bad_sparse_data(X):
    for value, message in {-1.0: "Negative values", np.nan: "NaN", np.inf: "inf"}.items():
        bad = sparse.lil_array(X)
        bad[7, 3] = value
        with pytest.raises(ValueError, match=message + r".*\{3: 1\}"):
            NMFFeatures(2, shift=None).fit(bad.tocsr())
    with pytest.raises(ValueError, match="1 negative values"):
        factorize(sparse.csr_array([[1.0, -1.0]]), 1)


def test_callers_data_is_unchanged(X):
    S = sparse.csr_array(X)
    S.data.setflags(write=False)
    before = S.copy()
    NMFFeatures(2, shift=None).fit_transform(S)
    factorize(S, 2)
    assert abs(S - before).nnz == 0


def test_scaling_of_stored_cells_loses_nothing():
    """A column that is stored in full and hardly varies, beside one that is mostly zeros."""
    rng = np.random.default_rng(0)
    X = np.column_stack([1 + 1e-7 * rng.uniform(size=200), np.where(rng.uniform(size=200) < 0.05, 3.0, 0)])
    for scale in ("std", "mean", "robust", "max"):
        stored, dense = (NonNegativeScaler(shift=None, scale=scale).fit(x) for x in (sparse.csr_array(X), X))
        assert_allclose(stored.scaling_["factor"], dense.scaling_["factor"], rtol=1e-7)


@pytest.mark.parametrize("shift", ["min", "split"])
def test_sparse_rows_for_a_model_of_dense_ones(shift):
    """Their zeros are not what the model takes for zero: scores were wrong without a word."""
    X = np.random.default_rng(0).uniform(size=(30, 5)) + 1
    for fitted in (NMFFeatures(2, shift=shift).fit(X), NonNegativeScaler(shift=shift).fit(X)):
        with pytest.raises(ValueError, match=r"would fill its zeros: pass X\.toarray\(\)"):
            fitted.transform(sparse.csr_array(X))
    at_zero = NMFFeatures(2).fit(np.vstack([X, np.zeros(5)]))  # the minima are 0
    assert_allclose(at_zero.transform(sparse.csr_array(X)), at_zero.transform(X), rtol=1e-12)
