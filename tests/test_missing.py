"""Missing cells: left out of shift, scale, loss, penalty and scores, and filled in by impute."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from scipy import sparse
from scipy.optimize import nnls
from sklearn.datasets import load_breast_cancer, load_digits

from nmf_features import NMFFeatures, NonNegativeScaler, factorize, nnmf, objective
from nmf_features.core.descent import Descent
from nmf_features.core.losses import loss_of
from nmf_features.core.missing import Missing
from nmf_features.core.projection import exact_scores
from nmf_features.scaling import Scaling


def low_rank(n=60, p=9, k=3, noise=0.0, share=0.2, seed=0):
    """Return a matrix, the same with holes, and where they are; something is observed in every row."""
    rng = np.random.default_rng(seed)
    X = rng.gamma(1, 1, (n, k)) @ rng.gamma(0.5, 1, (k, p))
    X = np.maximum(X + noise * X.std() * rng.standard_normal(X.shape), 0)
    missing = rng.uniform(size=X.shape) < share
    missing[np.arange(n), rng.integers(p, size=n)] = False
    return X, np.where(missing, np.nan, X), missing


def observed_objective(X, W, H, penalty, l1_ratio, weights=None):
    """Write the objective of DESIGN out, cell by cell."""
    seen, v = ~np.isnan(X), np.ones(len(X)) if weights is None else np.asarray(weights, dtype=float)
    p_i, n_j = seen.sum(axis=1), v @ seen
    total = 0.5 * (v @ np.nansum((X - W @ H) ** 2, axis=1))
    total += penalty * l1_ratio * ((v * p_i) @ W.sum(axis=1) + H.sum(axis=0) @ n_j)
    return total + penalty * (1 - l1_ratio) / 2 * ((v * p_i) @ (W**2).sum(axis=1) + (H**2).sum(axis=0) @ n_j)


@pytest.mark.parametrize("weights", [None, np.arange(60) % 3])
@pytest.mark.parametrize("l1_ratio", [0, 0.5, 1])
def test_objective_counts_observed_cells(l1_ratio, weights):
    _, X, _ = low_rank()
    rng = np.random.default_rng(1)
    W, H = rng.uniform(size=(60, 3)), rng.uniform(size=(3, 9))
    expected = observed_objective(X, W, H, 0.01, l1_ratio, weights)
    assert_allclose(objective(X, W, H, 0.01, l1_ratio, sample_weight=weights), expected)


@pytest.mark.filterwarnings("ignore:NMF stopped")  # at penalty 0 and few cells the way is long
@pytest.mark.parametrize("share", [0.2, 0.5])
@pytest.mark.parametrize(("penalty", "l1_ratio"), [(0, 1), (0.01, 1), (0.01, 0.5), (0.01, 0)])
def test_stationary_over_observed_cells(penalty, l1_ratio, share):
    _, X, missing = low_rank(noise=0.1, share=share)
    f = factorize(X, 3, penalty=penalty, l1_ratio=l1_ratio, missing_values="ignore", tol=1e-13, max_iter=20_000)
    assert_allclose(f.objective, observed_objective(X, f.W, f.H, penalty, l1_ratio))
    assert (np.diff(f.history) <= 0).all()
    assert_allclose(f.history[-1], f.objective, rtol=1e-8)
    R = np.where(missing, 0, f.W @ f.H - np.where(missing, 0, X))
    p_i, n_j = (~missing).sum(axis=1)[:, None], (~missing).sum(axis=0)
    by_W = R @ f.H.T + penalty * (l1_ratio + (1 - l1_ratio) * f.W) * p_i
    by_H = f.W.T @ R + penalty * (l1_ratio + (1 - l1_ratio) * f.H) * n_j
    assert np.abs(np.minimum(f.W, by_W)).max() < 1e-8 * f.W.max()
    assert np.abs(np.minimum(f.H, by_H)).max() < (1e-4 if penalty else 1e-2) * f.H.max()  # 0 leaves flat valleys


def test_scores_are_those_of_nnls_on_observed_cells():
    _, X, missing = low_rank(noise=0.2, share=0.5)
    H = np.random.default_rng(2).gamma(0.5, 1, (3, 9))
    W = exact_scores(X, H)
    for x, w, m in zip(X, W, missing, strict=True):
        expected, error = nnls(H[:, ~m].T, x[~m])
        assert_allclose(np.linalg.norm(w @ H[:, ~m] - x[~m]), error, atol=1e-8 * np.linalg.norm(x[~m]))
        if np.sum(~m) >= 3:  # else many scores fit equally well
            assert_allclose(w, expected, atol=1e-8 * max(1, w.max()))


def test_a_row_has_the_same_scores_beside_any_others():
    _, X, _ = low_rank(n=500, noise=0.2)
    nmf = NMFFeatures(3, missing_values="ignore").fit(X)
    W = nmf.transform(X)
    assert_array_equal(NMFFeatures(3, missing_values="ignore").fit_transform(X), W)
    for i in (0, 7, 499):
        assert_array_equal(nmf.transform(X[i : i + 1]), W[i : i + 1])
    for n_jobs in (1, 2):
        assert_array_equal(NMFFeatures(3, missing_values="ignore", n_jobs=n_jobs).fit_transform(X), W)


def test_nothing_missing_is_no_mask():
    X, _, _ = low_rank(noise=0.1)
    assert_array_equal(NMFFeatures(3, missing_values="ignore").fit_transform(X), NMFFeatures(3).fit_transform(X))


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_low_rank_cells_come_back(share):
    X, holes, missing = low_rank(n=300, p=20, share=share)
    nmf = NMFFeatures(3, shift=None, penalty=0, missing_values="ignore", tol=1e-9, max_iter=20_000).fit(holes)
    enough = ((~missing).sum(axis=1) > 5)[:, None]  # three components cannot be told from fewer cells
    inside = missing & enough & (np.nanmin(holes, axis=0) <= X) & (np.nanmax(holes, axis=0) >= X)
    assert_allclose(nmf.impute(holes)[inside], X[inside], atol=0.01 * X.max())
    assert nmf.score(holes) > 0.9999


@pytest.mark.parametrize(("n", "p"), [(300, 40), (2000, 200)])
def test_held_out_error_is_near_the_noise(n, p):
    """No estimate of 5 (n + p) numbers can do better than sigma sqrt(1 + c (k/n + k/p)), with c about 1.25 at 20 %."""
    k, rng = 5, np.random.default_rng(0)
    clean = rng.gamma(0.5, 1, (n, k)) @ rng.gamma(0.5, 1, (k, p))
    noise = 0.1 * clean.std() * rng.standard_normal((n, p))
    X = np.maximum(clean + noise, 0)
    sigma = np.sqrt(np.mean((X - clean) ** 2))
    missing = rng.uniform(size=X.shape) < 0.2
    f = factorize(np.where(missing, np.nan, X), k, penalty=0, missing_values="ignore", tol=1e-7, max_iter=3000)
    error = np.sqrt(np.mean((X - f.W @ f.H)[missing] ** 2))
    assert error <= 1.05 * sigma * np.sqrt(1 + 1.25 * (k / n + k / p))


def test_ninety_per_cent_missing_converges():
    X, holes, missing = low_rank(n=400, p=60, k=2, noise=0.05, share=0.9)
    f = factorize(holes, 2, penalty=1e-4, missing_values="ignore")
    assert f.converged
    assert np.sqrt(np.mean((f.W @ f.H - X)[missing] ** 2)) < 0.5 * X[missing].std()


def test_scaling_uses_observed_cells():
    X, holes, missing = low_rank()
    for shift in ("min", "split", None):
        for scale in ("std", "max", "mean", "robust"):
            with_holes = Scaling.learn(holes, shift, scale, range(9))
            for j in range(9):
                alone = Scaling.learn(X[~missing[:, j]][:, [j]], shift, scale, [j])
                width = 2 if shift == "split" else 1
                factor = with_holes.factor[width * j : width * (j + 1)]
                assert_allclose(factor, alone.factor, rtol=1e-12, err_msg=f"{shift} {scale}")
                assert_allclose(with_holes.offset[j], alone.offset[0], rtol=1e-12)


@pytest.mark.parametrize("kind", ["numpy", "float32", "pandas", "nullable", "polars"])
def test_impute_fills_missing_cells_only(kind):
    X, holes, missing = low_rank(noise=0.1)
    names = [f"c{j}" for j in range(9)]
    table = {
        "numpy": lambda: holes,
        "float32": lambda: pd.DataFrame(holes.astype(np.float32), columns=names),
        "pandas": lambda: pd.DataFrame(holes, columns=names, index=pd.RangeIndex(100, 160, name="who")),
        "nullable": lambda: pd.DataFrame(holes, columns=names).convert_dtypes(),
        "polars": lambda: pl.DataFrame(holes, schema=names).fill_nan(None),
    }[kind]()
    if kind in ("pandas", "nullable"):
        table["word"] = pd.array(["a", None] * 30, dtype="string")
    nmf = NMFFeatures(3, variables=range(9) if kind == "numpy" else names, missing_values="ignore").fit(table)
    full = nmf.impute(table)
    assert type(full) is type(table)
    if isinstance(table, pd.DataFrame):
        assert_frame_equal(full.where(table.notna(), table), table, check_dtype=False)
        assert (full.dtypes == table.dtypes).all()
        assert full.index.equals(table.index)
        values = full[names].to_numpy(dtype=float)
        if kind != "float32":
            assert full["word"].isna().sum() == 30
    else:
        values = np.asarray(full, dtype=float)
    assert not np.isnan(values).any()
    assert_allclose(values[~missing], X[~missing], rtol=1e-6)
    low, high = np.nanmin(holes, axis=0), np.nanmax(holes, axis=0)
    assert (values >= low - 1e-6).all()
    assert (values <= high * (1 + 1e-6)).all()
    error = values[missing] - X[missing]
    means = np.broadcast_to(np.nanmean(holes, axis=0), X.shape)[missing] - X[missing]
    assert np.square(error).mean() < 0.5 * np.square(means).mean()


def test_integers_with_missing_cells_become_floats():
    table = pd.DataFrame({"a": [1, 2, None, 4], "b": [2, 4, 6, 8], "c": [1, 3, 5, 8]}).astype({"a": "Int64"})
    full = NMFFeatures(1, missing_values="ignore").fit(table).impute(table)
    assert full.dtypes.astype(str).tolist() == ["Float64", "int64", "int64"]
    assert not full.isna().any(axis=None)


def test_rows_and_columns_with_nothing_observed():
    _, X, _ = low_rank()
    X[3], X[:, 4] = np.nan, np.nan
    nmf = NMFFeatures(3, missing_values="ignore")
    with pytest.warns(UserWarning, match=r"Constant columns carry nothing.*\[4\]"):
        nmf.fit(X)
    assert not nmf.components_[:, 4].any()
    assert_allclose(nmf.components_.sum(axis=1), 1)
    with pytest.warns(UserWarning, match="1 rows with nothing observed"):
        W = nmf.transform(X)
    assert np.isnan(W[3]).all()
    assert np.isfinite(np.delete(W, 3, axis=0)).all()
    with pytest.warns(UserWarning, match="1 rows"):
        full = nmf.impute(X)
    assert np.isnan(full[:, 4]).all()
    rest = np.delete(np.arange(9), 4)
    assert_allclose(full[3, rest], np.nanmean(X[:, rest], axis=0))
    with pytest.warns(UserWarning, match="1 rows"):
        f = factorize(X, 2, missing_values="ignore")
    assert np.isnan(f.W[3]).all()
    assert np.isfinite(f.objective)


def test_explained_and_score_are_over_observed_cells():
    X, holes, missing = low_rank(noise=0.1)
    nmf = NMFFeatures(3, shift=None, scale=None, penalty=0, missing_values="ignore").fit(holes)
    W, H = nmf.transform(holes), nmf.components_
    seen = ~missing
    assert_allclose(nmf.explained_.sum(), np.sum((W @ H)[seen] ** 2) / np.sum(X[seen] ** 2), rtol=1e-9)
    spread = np.sum(((X - np.nanmean(holes, axis=0))[seen]) ** 2)
    assert_allclose(nmf.score(holes), 1 - np.sum((X - W @ H)[seen] ** 2) / spread, rtol=1e-9)
    assert_allclose(nmf.objective_, 0.5 * np.sum((X - W @ H)[seen] ** 2), rtol=1e-9)


def test_weights_and_missing_cells_together():
    _, X, _ = low_rank(noise=0.1)
    v = np.arange(60) % 3
    settings = dict(penalty=0.01, missing_values="ignore", tol=1e-13, max_iter=20_000)
    weighted = factorize(X, 3, sample_weight=v, **settings)
    twice = factorize(np.repeat(X, v, axis=0), 3, **settings)
    assert_allclose(weighted.objective, twice.objective, rtol=1e-8)
    assert_allclose(weighted.H, twice.H, atol=1e-5 * twice.H.max())


def test_tall_tables_with_missing_cells_are_sampled():
    _, X, _ = low_rank(n=4000, noise=0.1)
    sampled = factorize(X, 3, missing_values="ignore", tol=1e-7)
    again = factorize(X, 3, missing_values="ignore", tol=1e-7, init=sampled.H)
    assert_allclose(sampled.objective, again.objective, rtol=1e-4)


def test_scores_are_extrapolated_in_what_is_filled_in(monkeypatch):
    """Without it, nearly half as many passes again are needed, and the objective is no lower."""
    X = load_digits().data
    X[np.random.default_rng(0).uniform(size=X.shape) < 0.2] = np.nan
    ours = factorize(X, 16, missing_values="ignore", init="nnsvd-lrc")
    step = Descent._pass
    monkeypatch.setattr(Descent, "_pass", lambda self, *settings: step(self, *settings[:3]))
    plain = factorize(X, 16, missing_values="ignore", init="nnsvd-lrc")
    assert ours.n_iter < 0.8 * plain.n_iter
    assert ours.objective <= plain.objective * (1 + 1e-4)


def test_in_one_line():
    df = load_breast_cancer(as_frame=True).data
    df = df.mask(np.random.default_rng(0).uniform(size=df.shape) < 0.1)
    assert df.pipe(nnmf, n=3, missing_values="ignore").notna().all(axis=None)


@pytest.mark.parametrize("name", ["ames", "breast cancer"])
def test_impute_is_never_much_worse_than_the_mean(name, request):
    """Up to ten components: too many for the cells observed, in places. In standard deviations."""
    table = request.getfixturevalue("ames_range") if name == "ames" else load_breast_cancer().data
    X = (table - table.mean(axis=0)) / table.std(axis=0)
    missing = np.random.default_rng(0).uniform(size=X.shape) < 0.2
    holes = np.where(missing, np.nan, X)
    mean = np.broadcast_to(np.nanmean(holes, axis=0), X.shape)[missing]
    by_mean = np.sqrt(np.mean((mean - X[missing]) ** 2))
    for k in (1, 2, 5, 10):
        full = NMFFeatures(k, missing_values="ignore").fit(holes).impute(holes)
        error = np.sqrt(np.mean((full - X)[missing] ** 2))
        print(name, k, error, by_mean)
        assert error <= 1.1 * by_mean


@pytest.mark.parametrize("penalty", [0, 0.001])
def test_a_fit_says_what_it_refuses(penalty):
    _, X, _ = low_rank()
    with pytest.raises(ValueError, match='Pass missing_values="ignore"'):
        NMFFeatures(2, penalty=penalty).fit(X)
    with pytest.raises(ValueError, match=r'X has \d+ NaN or missing values\. Pass missing_values="ignore"'):
        factorize(X, 2)
    nmf = NMFFeatures(2, missing_values="ignore")
    with pytest.raises(ValueError, match="infinite"):
        nmf.fit(np.where(np.isnan(X), np.inf, X))
    holes = sparse.csr_array(np.nan_to_num(X))
    holes.data[0] = np.nan
    with pytest.raises(ValueError, match='Pass missing_values="ignore"'):
        NMFFeatures(2, shift=None).fit(holes)
    with pytest.raises(ValueError, match="no observed cell"):
        factorize(np.full((3, 3), np.nan), 1, missing_values="ignore")
    with pytest.raises(ValueError, match="missing_values"):
        NMFFeatures(2, missing_values="drop").fit(X)
    with pytest.raises(ValueError, match="nothing to impute from"):
        NMFFeatures(0, missing_values="ignore").fit(X).impute(X)


# ---- found in review


def test_impute_of_an_array_with_variables_in_another_order():
    _, X, _ = low_rank()
    inside, turned = (
        NMFFeatures(3, variables=order, missing_values="ignore").fit(X).impute(X)
        for order in (range(9), [1, 0, 2, 3, 4, 5, 6, 7, 8])
    )
    assert_allclose(turned, inside, atol=1e-2 * np.nanmax(X))


def test_a_row_seen_only_where_no_component_is():
    H = np.array([[1.0, 0, 0], [2.0, 1, 0]])
    rows = np.array([[np.nan, np.nan, 1.0], [1, np.nan, 2]])
    assert_allclose(exact_scores(rows, H)[0], 0)
    assert_allclose(exact_scores(rows[::-1], H)[1], 0)


@pytest.mark.filterwarnings("ignore:NMF stopped")
def test_given_loadings_are_not_spoilt_by_a_first_fill():
    _, X, _ = low_rank(noise=0.1, share=0.3)
    f = factorize(X, 3, missing_values="ignore")
    again = factorize(X, 3, missing_values="ignore", init=f.H, max_iter=1)
    assert again.objective < 1.3 * f.objective


@pytest.mark.filterwarnings("ignore:NMF stopped")
@pytest.mark.parametrize("share", [0.6, 0.75])
def test_the_objective_has_its_digits_where_rows_are_extrapolated_far(share):
    """The sums of imputed cells, from which passes know it, may be so large that they cancel."""
    rng = np.random.default_rng(0)
    X = rng.gamma(0.5, size=(500, 4)) @ rng.gamma(0.5, size=(4, 15)) + rng.random((500, 15)) / 10
    X[rng.random(X.shape) < share] = np.nan
    X = X[~np.isnan(X).all(axis=1)]
    f = factorize(X, 4, penalty=0, missing_values="ignore", max_iter=100)
    assert_allclose(f.objective, objective(X, f.W, f.H, 0, missing_values="ignore"), rtol=1e-7)


def test_linear_projection_refuses_missing_cells():
    with pytest.raises(ValueError, match='projection="linear" needs every cell'):
        NMFFeatures(2, projection="linear", missing_values="ignore").fit(low_rank()[1])


def test_the_objective_does_not_hide_nan_in_the_factors():
    W = np.ones((4, 1))
    W[2] = np.nan
    assert np.isnan(objective(np.ones((4, 3)), W, np.ones((1, 3)), penalty=0))


def test_the_scaler_does_not_advise_what_it_lacks():
    with pytest.raises(ValueError, match="NaN or missing") as error:
        NonNegativeScaler().fit(low_rank()[1])
    assert "missing_values" not in str(error.value)


@pytest.mark.parametrize("l1_ratio", [0, 1])
def test_penalty_zero_is_the_limit_of_small_penalties(l1_ratio):
    _, X, _ = low_rank(noise=0.1, share=0.3)
    settings = dict(l1_ratio=l1_ratio, missing_values="ignore", tol=1e-12, max_iter=20_000)
    zero, tiny = (factorize(X, 1, penalty=penalty, **settings) for penalty in (0, 1e-9))
    assert_allclose(zero.H, tiny.H, rtol=1e-4)


def test_impute_shrinks_rows_with_few_cells_most():
    """The prior does not fade with the number of cells observed, as the penalty does."""
    H, rows = np.ones((1, 10)), np.full((2, 10), np.nan)
    rows[0, :1], rows[1, :9] = 1, 1
    one, nine = exact_scores(rows, H, prior=5.0)[:, 0]
    assert_allclose([one, nine], [1 / 6, 9 / 14])


def test_the_objective_of_sparse_data_with_weights_and_missing_cells():
    X = sparse.random_array((50, 6), density=0.5, rng=np.random.default_rng(0), format="csr")
    X.data[::7] = np.nan
    W, H, v = np.ones((50, 1)), np.full((1, 6), 0.3), np.arange(50.0)
    dense = X.toarray()
    expected = 0.5 * v @ np.nansum((dense - W @ H) ** 2, axis=1)
    assert_allclose(objective(X, W, H, 0, sample_weight=v), expected)
    assert_allclose(objective(dense, W, H, 0, sample_weight=v), expected)
    f = factorize(X, 3, penalty=0, tol=1e-3, missing_values="ignore", sample_weight=v + 1)
    assert_allclose(f.objective, objective(dense, f.W, f.H, 0, sample_weight=v + 1))


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("seed", [1, 9, 11])
def test_a_column_that_is_nowhere_observed_has_no_penalty_with_weights(seed, make):
    """Sums of weights are rounded; a share of less than nothing would be paid for loadings."""
    rng = np.random.default_rng(seed)
    X = np.where(rng.uniform(size=(60, 11)) < 0.2, np.nan, rng.gamma(1, size=(60, 11))).astype(np.float32)
    X[:, 4] = np.nan
    fit = dict(penalty=0.01, l1_ratio=0, loss=1.5, missing_values="ignore", sample_weight=rng.uniform(0.1, 2, 60))
    f = factorize(make(X), 3, **fit)
    assert_array_equal(f.H[:, 4], 0)
    assert f.converged
    assert f.objective < 1.1 * factorize(make(np.delete(X, 4, axis=1)), 3, **fit).objective


@pytest.mark.filterwarnings("ignore:Components", "ignore:X has", "ignore:Constant")
def test_columns_of_zeros_and_those_nowhere_observed_have_no_loadings():
    X = np.array([[0.0, 2.0], [0.0, 0.0]])  # the second component has nothing to explain
    assert_array_equal(factorize(X, 2, penalty=0).H[:, 0], 0)
    X[:, 0] = np.nan
    assert_array_equal(factorize(X, 2, penalty=0, missing_values="ignore").H[:, 0], 0)
    frame = pd.DataFrame({"nowhere": np.full(4, np.nan), "x": [np.nan, np.nan, 0.02, 0.002]})
    assert_array_equal(NMFFeatures(2, penalty=0, missing_values="ignore").fit(frame).components_[:, 0], 0)


@pytest.mark.filterwarnings("ignore:Components")
@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix])
def test_columns_too_far_apart_for_floats_are_refused_where_cells_are_missing(make):
    X = np.random.default_rng(0).gamma(1, size=(30, 4)) * [1, 1e200, 1, 1]
    factorize(make(X), 2)
    X[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"X has columns whose largest cells lie between .* Scale the columns"):
        factorize(make(X), 2, missing_values="ignore")
    NMFFeatures(2, missing_values="ignore").fit(X)


@pytest.mark.parametrize("loss", ["kullback-leibler", "frobenius"])
def test_rows_seen_where_a_component_has_next_to_nothing_have_moderate_scores(loss):
    H = np.array([[1e-15, 1.0], [1.0, 0.1]])
    W = exact_scores(np.array([[3.0, np.nan], [1.0, 2.0]]), H, missing=Missing(2), loss=loss_of(loss))
    assert W.max() < 10
