"""partial_fit: the first batch is a fit; later ones move the loadings to the minimum that decayed sums stand for."""

import pickle

import numpy as np
import pandas as pd
import pytest
import skops.io
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.optimize import nnls
from sklearn.base import clone
from sklearn.datasets import load_digits, load_wine

from nmf_features import NegativeBinomial, NMFFeatures, load_tidy, objective

LOSSES = ["frobenius", "kullback-leibler", "itakura-saito", 1.5, 3.0, NegativeBinomial(2.0)]


def rows(n=150, seed=0, columns=8, k=3):
    """Positive rows of k components with zeros, the same for every seed, and noise."""
    H = np.kron(np.eye(k), [1.0, 0.5, 2.0])[:, :columns] + 0.05
    rng = np.random.default_rng(seed)
    return rng.gamma(0.7, 1, (n, k)) @ H + 0.2 * rng.uniform(size=(n, columns)) + 0.05


def model(k=3, **options):
    return NMFFeatures(k, **{"shift": None, "scale": None} | options)


def balanced(nmf):
    return nmf.components_ * nmf.component_scales_[:, None]


def value(nmf, X):
    """The objective of a model on rows, with the exact scores."""
    W = nmf.transform(X) / nmf.component_scales_
    return objective(X, W, balanced(nmf), nmf.penalty, nmf.l1_ratio, loss=nmf.loss)


def cosines(A, B):
    return (A * B).sum(axis=1) / np.linalg.norm(A, axis=1) / np.linalg.norm(B, axis=1)


def test_a_cell_out_of_all_range_is_refused_and_changes_nothing():
    nmf, wild = model().fit(rows()), rows(seed=1)
    before, wild[3, 2] = nmf.components_.copy(), 1e200
    with pytest.raises(ValueError, match=r"X has a cell that is 1e\+200 after shift and scale"):
        nmf.partial_fit(wild)
    assert_array_equal(nmf.components_, before)
    assert np.isfinite(nmf.partial_fit(rows(seed=2)).components_).all()


# What is minimised


def test_the_first_batch_is_a_fit(table):
    whole, first = NMFFeatures(2).fit(table), NMFFeatures(2).partial_fit(table)
    assert vars(whole).keys() == vars(first).keys()
    for name, found in vars(whole).items():
        if isinstance(found, np.ndarray):
            assert_array_equal(getattr(first, name), found, err_msg=name)


@pytest.mark.parametrize("forget_factor", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("l1_ratio", [1.0, 0.4, 0.0])
def test_loadings_minimise_what_the_sums_stand_for(l1_ratio, forget_factor):
    X, Z, v = rows(), rows(60, seed=1) + 0.3, np.random.default_rng(2).integers(0, 3, 60)
    nmf = model(l1_ratio=l1_ratio, penalty=0.01, forget_factor=forget_factor).fit(X)
    U, V, s, p = nmf.transform(X), nmf.transform(Z), nmf.component_scales_, X.shape[1]
    W, V = U / s, V / s
    n = forget_factor * len(X) + v.sum()
    A = forget_factor * W.T @ W + (V.T * v) @ V + 0.01 * (1 - l1_ratio) * n * np.eye(3)
    B = forget_factor * W.T @ X + (V.T * v) @ Z - 0.01 * l1_ratio * n
    L = np.linalg.cholesky(A)
    H = np.column_stack([nnls(L.T, np.linalg.solve(L, b))[0] for b in B.T])
    nmf.partial_fit(Z, sample_weight=v)
    assert_allclose(nmf.components_, H / H.sum(axis=1, keepdims=True), atol=1e-3)  # as far as sweeps go
    # The balanced pair: the scale of each component has the least penalty.
    sums, squares = forget_factor * W.sum(axis=0) + v @ V, forget_factor * (W**2).sum(axis=0) + v @ V**2

    def penalty(c):
        H = balanced(nmf) / c
        back = H.sum(axis=1) / nmf.component_scales_ * (nmf.component_scales_ / scales)
        l1 = p * sums / back + n * H.sum(axis=1)
        return l1_ratio * l1 + (1 - l1_ratio) / 2 * (p * squares / back**2 + n * (H**2).sum(axis=1))

    scales = H.sum(axis=1)
    assert (penalty(1.0) <= np.minimum(penalty(1.02), penalty(0.98))).all()


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("l1_ratio", [1.0, 0.3])
def test_a_batch_like_those_before_changes_nothing(loss, l1_ratio):
    X = rows()
    nmf = model(loss=loss, l1_ratio=l1_ratio, tol=1e-9, max_iter=5000).fit(X)
    H, s = nmf.components_, nmf.component_scales_
    found = nmf.objective_, nmf.explained_, nmf.column_explained_, nmf.impute_penalties_
    for _ in range(3):
        nmf.partial_fit(X)
    assert_allclose(nmf.components_, H, atol=2e-3)
    assert_allclose(nmf.component_scales_, s, rtol=2e-3)
    assert_allclose(nmf.objective_, found[0], rtol=1e-4)
    assert_allclose(nmf.explained_, found[1], atol=2e-3)
    assert_allclose(nmf.column_explained_, found[2], atol=2e-3)
    assert_allclose(nmf.impute_penalties_, found[3], rtol=5e-3)
    assert_allclose(nmf.column_means_, X.mean(axis=0))


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("l1_ratio", [1.0, 0.3])
def test_the_objective_of_a_batch_falls(loss, l1_ratio):
    """With forget_factor=0 only the batch counts: its surrogate is an upper bound, equal to it before."""
    X, Z = rows(), rows(100, seed=1)[:, ::-1].copy()
    nmf = model(loss=loss, l1_ratio=l1_ratio, forget_factor=0.0).fit(X)
    first = last = value(nmf, Z)
    for _ in range(10):
        nmf.partial_fit(Z)
        assert_allclose(nmf.objective_, last, rtol=1e-6)  # by the loadings from before
        now = value(nmf, Z)
        assert now <= last * (1 + 1e-5)
        last = now
    best = model(loss=loss, l1_ratio=l1_ratio).fit(Z).objective_
    assert last - best < 0.5 * (first - best)  # multiplicative steps are slow


@pytest.mark.filterwarnings("ignore:Constant columns:UserWarning")
@pytest.mark.parametrize(("data", "k", "most"), [(load_wine, 4, 1.04), (load_digits, 10, 1.03)])
def test_batches_of_a_table_come_near_its_fit(data, k, most):
    X = np.random.default_rng(0).permutation(data().data)
    Z = NMFFeatures(k).fit(X).columns_.scaled(X)
    size = len(Z) // 9
    Z = np.ascontiguousarray(Z[:, Z[:size].std(axis=0) > 0])
    nmf = model(k, forget_factor=1.0)
    for _ in range(3):
        for start in range(0, len(Z), size):
            nmf.partial_fit(Z[start : start + size])
    first = value(model(k).fit(Z[:size]), Z)
    best = model(k).fit(Z).objective_
    assert value(nmf, Z) < min(most * best, (first + best) / 2)


# Streams


def test_drift_is_followed_as_fast_as_is_forgotten():
    rng, lag = np.random.default_rng(0), {}
    blocks = np.kron(np.eye(4), np.ones(4)) + 0.02
    for forget_factor in (1.0, 0.5):
        nmf = model(forget_factor=forget_factor, penalty=1e-4)
        for b in range(41):
            H = np.array([*blocks[:2], blocks[2] + (blocks[3] - blocks[2]) * b / 40])  # one becomes another
            nmf.partial_fit(rng.gamma(0.5, 1, (100, 3)) @ H + 0.1 * rng.uniform(size=(100, 16)))
            if b == 0:
                order = [int(np.argmax(cosines(nmf.components_, np.tile(h, (3, 1))))) for h in H]
        lag[forget_factor] = 1 - cosines(nmf.components_[order], H).min()
    assert lag[0.5] < 0.01
    assert lag[1.0] > 5 * lag[0.5]


def test_loadings_of_zero_come_back():
    """Multiplicative steps leave zeros as they are: they have to be lifted."""
    rng, H = np.random.default_rng(0), np.kron(np.eye(2), [1.0, 2.0])
    for loss in ("frobenius", "kullback-leibler"):
        nmf = model(2, loss=loss, forget_factor=0.3).fit(rng.gamma(1, 1, (50, 2)) @ H)
        nmf.components_[nmf.components_ < 0.05] = 0
        if loss == "kullback-leibler":
            nmf._sums["above"][nmf.components_ == 0] = 0
        more = H.copy()
        more[0, 3] = 1
        for _ in range(40):
            nmf.partial_fit(rng.gamma(1, 1, (50, 2)) @ more)
        assert nmf.components_[nmf.components_[:, 0].argmax(), 3] > 0.05  # on its way to 1 / 4


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_sums_follow_the_scale_of_components(loss):
    nmf = model(loss=loss, penalty=0, forget_factor=1.0, missing_values="ignore").fit(rows())
    Z = 9 * rows(seed=1)
    Z[::3, 2] = np.nan
    before = nmf.component_scales_
    nmf.partial_fit(Z)
    assert (np.abs(nmf.component_scales_ / before - 1) > 0.1).all()
    found = nmf._sums
    assert_allclose(found["columns"], 150 + (~np.isnan(Z)).sum(axis=0))
    assert_allclose(found["W_sums"], found["amounts"], rtol=0.1)  # but for the missing cells
    if loss != "frobenius":
        r = 1 / nmf.columns_.loss.exponent(False)
        H, wanted = balanced(nmf), (found["above"] / found["below"]) ** (1 / r)
        large = 0.01 * H.max(axis=1, keepdims=True) < H  # smaller ones were lifted
        assert_allclose(wanted[large], H[large], rtol=1e-6)


def test_numbers_stay():
    rng, H = np.random.default_rng(0), np.kron(np.eye(2), [1.0, 2.0])
    nmf = model(2).fit(rng.gamma(1, 1, (50, 2)) * [3, 1] @ H)
    before = nmf.components_
    for _ in range(5):
        nmf.partial_fit(rng.gamma(1, 1, (50, 2)) * [1, 9] @ H)
    assert nmf.explained_[1] > nmf.explained_[0]
    assert (cosines(nmf.components_, before) > 0.999).all()


def test_a_component_that_rests_keeps_its_loadings():
    rng, H = np.random.default_rng(0), np.kron(np.eye(2), [1.0, 2.0])
    for loss in ("frobenius", "kullback-leibler"):
        nmf = model(2, forget_factor=0.3, loss=loss).fit(rng.gamma(1, 1, (50, 2)) * [3, 1] @ H + 0.01)
        before = nmf.components_
        for _ in range(60):
            nmf.partial_fit(rng.gamma(1, 1, (50, 1)) @ H[:1] + 0.0)
        assert_allclose(nmf.components_.sum(axis=1), 1)
        assert (cosines(nmf.components_, before) > 0.95).all()
        for _ in range(5):
            nmf.partial_fit(rng.gamma(1, 1, (50, 2)) * [1, 3] @ H)
        assert (cosines(nmf.components_, H) > 0.99).all()
        assert nmf.explained_[1] > 0.3


@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler"])
def test_shift_and_scale_are_those_of_the_first_batch(loss):
    X = pd.DataFrame(rows(), columns=list("abcdefgh"))
    nmf = NMFFeatures(3, loss=loss).fit(X[:80])
    scaling = nmf.scaling_
    nmf.partial_fit(X[80:] - 10)  # all below the range: cut off
    assert nmf.scaling_ is scaling
    with pytest.raises(ValueError, match="below what was seen in training"):
        nmf.set_params(out_of_range="raise").partial_fit(X - 10)
    assert nmf.set_params(out_of_range="clip").transform(X).shape == (150, 3)


# Rows


@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler", 1.5])
@pytest.mark.parametrize("missing", [False, True])
def test_weights_count_rows(loss, missing):
    X, Z, v = rows(), rows(60, seed=1), np.random.default_rng(2).integers(0, 3, 60)
    if missing:
        Z[np.random.default_rng(3).uniform(size=Z.shape) < 0.2] = np.nan
        Z[5] = np.nan  # nothing observed: does not count
    first = model(loss=loss, missing_values="ignore").fit(X)
    weighted, repeated = (pickle.loads(pickle.dumps(first)) for _ in range(2))
    weighted.partial_fit(Z, sample_weight=v)
    repeated.partial_fit(np.repeat(Z, v, axis=0))
    for name in ("components_", "component_scales_", "explained_", "column_explained_", "column_means_", "objective_"):
        assert_allclose(getattr(weighted, name), getattr(repeated, name), rtol=1e-6, atol=1e-9, err_msg=name)
    for name, found in weighted._sums.items():
        assert_allclose(found, repeated._sums[name], rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize(("loss", "missing_values"), [*((loss, "ignore") for loss in LOSSES), (2.0, "unstored")])
def test_sparse_batches_are_like_dense_ones(loss, missing_values):
    X = np.where(np.random.default_rng(0).uniform(size=(150, 8)) < 0.5, 0, rows())
    if loss == "itakura-saito":
        X = rows()
    first = model(loss=loss, missing_values=missing_values).fit(sparse.csr_array(X[:90]))
    batches = sparse.csr_array(X[90:]), np.where((X == 0) & (missing_values == "unstored"), np.nan, X)[90:]
    found = [pickle.loads(pickle.dumps(first)).partial_fit(batch) for batch in batches]
    for name in ("components_", "explained_", "column_explained_", "column_means_"):
        assert_allclose(getattr(found[0], name), getattr(found[1], name), rtol=1e-6, atol=1e-9, err_msg=name)
    assert np.abs(found[0].components_ - first.components_).max() > 1e-3


def test_missing_cells_are_left_out():
    """In batches with holes, as without them, the loadings stay where complete rows put them."""
    rng, H = np.random.default_rng(0), np.kron(np.eye(3), [1.0, 0.5, 2.0])
    for loss in ("frobenius", "kullback-leibler"):
        nmf = model(missing_values="ignore", loss=loss, penalty=1e-5).fit(rng.gamma(0.7, 1, (200, 3)) @ H + 0.01)
        before = nmf.components_
        for _ in range(5):
            X = rng.gamma(0.7, 1, (200, 3)) @ H + 0.01
            X[rng.uniform(size=X.shape) < 0.3] = np.nan
            nmf.partial_fit(X)
        assert_allclose(nmf.components_, before, atol=0.01)


@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler"])
def test_single_precision_and_threads(loss):
    X = rows(3000)
    found = [
        model(loss=loss, n_jobs=n_jobs).fit(A[:1000]).partial_fit(A[1000:])
        for n_jobs, A in ((1, X), (3, X), (1, X.astype(np.float32)))
    ]
    assert_array_equal(found[0].components_, found[1].components_)
    assert_allclose(found[2].components_, found[0].components_, atol=1e-3)
    assert found[2].transform(X.astype(np.float32)).dtype == np.float32


def test_limited_loadings_keep_their_columns():
    for loss in ("frobenius", "kullback-leibler"):
        nmf = model(n_nonzero_loadings=3, loss=loss).fit(rows())
        kept = nmf.components_ > 0
        for seed in range(1, 4):
            nmf.partial_fit(rows(seed=seed)[:, ::-1].copy())
        assert (nmf.components_ > 0)[kept].any()
        assert not (nmf.components_ > 0)[~kept].any()


@pytest.mark.parametrize("penalty", [0, 0.001])
def test_a_table_in_files_is_a_first_batch(tmp_path, penalty):
    X = pd.DataFrame(rows(), columns=list("abcdefgh"))
    X.to_parquet(tmp_path / "x.parquet")
    later = pd.DataFrame(rows(60, seed=1), columns=X.columns)
    for budget in (None, 1):
        on_disk = model(memory_budget=budget, penalty=penalty, tol=1e-9).fit(tmp_path / "x.parquet")
        in_memory = model(penalty=penalty, tol=1e-9).fit(X)
        for name, found in on_disk._sums.items():
            assert_allclose(found, in_memory._sums[name], rtol=1e-2, atol=1e-2, err_msg=name)
        assert_allclose(on_disk.partial_fit(later).components_, in_memory.partial_fit(later).components_, atol=1e-3)


# The object


def by_skops(nmf):
    return skops.io.loads(skops.io.dumps(nmf), trusted=["nmf_features.estimator.NMFFeatures"])


@pytest.mark.parametrize("way", [by_skops, lambda nmf: pickle.loads(pickle.dumps(nmf))])
def test_a_saved_model_goes_on(way):
    nmf = model().fit(rows()).partial_fit(rows(seed=1))
    again = way(nmf).partial_fit(rows(seed=2))
    assert_array_equal(again.components_, nmf.partial_fit(rows(seed=2)).components_)
    assert max(np.size(found) for found in nmf._sums.values()) <= 3 * 8  # never a number for each row


def test_a_new_fit_starts_anew():
    nmf = model().fit(rows()).partial_fit(rows(seed=1))
    assert not hasattr(clone(nmf), "_sums")
    nmf.fit(rows(seed=2))
    fresh = model().fit(rows(seed=2))
    for each in (nmf, fresh):
        each.partial_fit(rows(seed=3))
    assert_array_equal(nmf.components_, fresh.components_)


def test_what_describes_is_of_all_batches():
    X, Z = rows(), rows(50, seed=1)
    nmf = model(forget_factor=0.5).fit(X)
    left, size = np.zeros((2, 8))
    for batch, counts in ((X, 0.5), (Z, 1)):
        left += counts * np.square(batch - nmf.inverse_transform(nmf.transform(batch))).sum(axis=0)
        size += counts * np.square(batch).sum(axis=0)
    nmf.partial_fit(Z)
    assert_allclose(nmf.column_explained_, 1 - left / size)
    assert_allclose(nmf.column_means_, (75 * X.mean(axis=0) + 50 * Z.mean(axis=0)) / 125)
    assert 0 < nmf.score(Z) < 1


def test_nothing_comes_of_no_rows_and_no_components():
    X = pd.DataFrame(rows(), columns=list("abcdefgh"))
    nmf = model().fit(X)
    before = nmf.components_
    assert nmf.partial_fit(X[:0]).components_ is before
    none = NMFFeatures(0).partial_fit(X).partial_fit(X)
    assert none.transform(X).equals(X)


def test_refusals():
    X = pd.DataFrame(rows(), columns=list("abcdefgh"))
    guided = NMFFeatures(3, target_weight=1.0)
    assert not hasattr(guided, "partial_fit")
    with pytest.raises(AttributeError) as error:
        guided.partial_fit(X)
    assert "target_weight=0 for partial_fit" in str(error.value.__cause__)
    nmf = model().fit(X)
    with pytest.raises(ValueError, match=r"[fF]eature names"):
        nmf.partial_fit(X.rename(columns={"a": "z"}))
    with pytest.raises(ValueError, match="forget_factor"):
        model(forget_factor=1.1).partial_fit(X)
    with pytest.raises(ValueError, match="zero"):
        nmf.partial_fit(X, sample_weight=np.zeros(len(X)))
    with pytest.raises(ValueError, match="NaN"):
        nmf.partial_fit(X.mask(X > 2))
    for without in (load_tidy(nmf.tidy()), model().fit(X * 1e200)):
        with pytest.raises(ValueError, match="no sums over rows"):
            without.partial_fit(X)


@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler", 1.5])
@pytest.mark.parametrize("size", [1e6, 1e-7])
def test_sums_of_single_precision(loss, size, tmp_path):
    """Cells whose squares leave its range are fitted in other units; sums are in those of X, on disk too."""
    pytest.importorskip("pyarrow")
    X = (rows(3000) + 0.1) * size
    nmf = NMFFeatures(3, shift=None, scale=None, loss=loss, penalty=0, init=rows(3, seed=2), tol=1e-7, max_iter=3000)
    wanted = nmf.fit(pd.DataFrame(X, columns=list("abcdefgh")))._sums
    single = pd.DataFrame(X.astype(np.float32), columns=list("abcdefgh"))
    single.to_parquet(tmp_path / "t.parquet")
    for found in (clone(nmf).fit(single), clone(nmf).set_params(memory_budget=1).fit(tmp_path / "t.parquet")):
        for name, value in found._sums.items():
            assert_allclose(value, wanted[name], rtol=0.02, atol=0.02 * np.max(wanted[name]), err_msg=name)
        assert found.partial_fit(single[:100]).score(single) > 0.9
