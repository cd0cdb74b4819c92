"""What R's recipes gives on Ames, and what the default parameters give there."""

import numpy as np
import pandas as pd
import pytest
from conftest import shared
from numpy.testing import assert_allclose
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import PredefinedSplit, cross_val_score
from sklearn.pipeline import make_pipeline

from nmf_features import NMFFeatures, factorize
from nmf_features.core.projection import linear_scores


def test_linear_projection_is_what_bake_does():
    X = shared("r_reference/a_X_normalized.csv.gz")
    loadings, baked = shared("r_reference/a_loadings.csv"), shared("r_reference/a_baked_first10.csv")
    names = [f"NNMF{t}" for t in range(1, 6)]
    for seed, rows in baked.groupby("seed"):
        H = loadings[loadings["seed"] == seed].set_index("term").loc[X.columns, names].to_numpy().T
        W = linear_scores(X.to_numpy()[rows["row"] - 1], H)
        assert_allclose(W, rows[names], atol=1e-9)


@pytest.mark.parametrize("k", [2, 5, 10])
def test_fit_is_at_least_rs_best_of_ten_seeds(ames_range, k):
    best = shared("r_reference/b_summary.csv").query("penalty == 0 and k == @k")["relerr"].min()
    assert_allclose(best, {2: 0.3993, 5: 0.3016, 10: 0.2073}[k], atol=5e-5)
    f = factorize(ames_range, k, penalty=0)
    error = np.linalg.norm(ames_range - f.W @ f.H) / np.linalg.norm(ames_range)
    print(f"relative error k={k}: {error:.4f}, R's best {best:.4f}")
    assert error <= best


@pytest.mark.parametrize(("k", "limit"), [(2, 0.083), (5, 0.083), (10, 0.083), (15, 0.082)])
def test_regression_on_the_scores(ames, k, limit):
    """10-fold RMSE of log10 price, on the folds that R used; the standard error over folds is .003."""
    folds = PredefinedSplit(shared("r_reference/d_folds.csv")["fold"].to_numpy())
    X = ames.drop(columns="Sale_Price").select_dtypes("number")
    assert X.shape == (2930, 33)
    y = np.log10(ames["Sale_Price"])
    model = make_pipeline(NMFFeatures(k), LinearRegression())
    rmse = -cross_val_score(model, X, y, cv=folds, scoring="neg_root_mean_squared_error")
    print(f"RMSE k={k}: {rmse.mean():.4f}")
    assert rmse.mean() <= limit


def test_tidy_is_sorted_as_recipes_does(ames):
    tidy = NMFFeatures(3).fit(ames).tidy()
    assert tidy.equals(tidy.sort_values(["component", "terms"]).reset_index(drop=True))
    assert isinstance(tidy, pd.DataFrame)
    assert tidy.groupby("component")["value"].sum().round(9).eq(1).all()


@pytest.mark.parametrize("P", [0.01, 0.1])
def test_a_penalty_of_recipes_is_taken_off_every_cell(ames_range, P):
    """Its objective is 1/2 |X - W H|^2 + P sum(W H): that of X - P without a penalty, and another constant."""
    X, k = ames_range, 5
    f = factorize(X, k, penalty=0)
    W, H = f.W.copy(), f.H.copy()
    for _ in range(300):
        for t in range(k):
            rest = X - P - np.delete(W, t, 1) @ np.delete(H, t, 0)
            W[:, t] = np.maximum(rest @ H[t], 0) / np.square(H[t]).sum()
            H[t] = np.maximum(W[:, t] @ rest, 0) / np.square(W[:, t]).sum()
    r = shared("r_reference/b_summary.csv").query("k == @k and penalty == @P")["relerr_tight"]
    # R's ten seeds end at several minima; the default start may find any of them.
    assert r.min() * 0.999 < np.linalg.norm(X - W @ H) / np.linalg.norm(X) < r.max() * 1.001


@pytest.mark.filterwarnings("ignore:Components .* are zero:UserWarning")
@pytest.mark.parametrize(("k", "P"), [(5, 0.001), (5, 0.01), (5, 0.1), (10, 0.01), (10, 0.1)])
def test_the_penalty_of_recipes_in_our_units(ames_range, k, P):
    """docs/recipes.md: what costs as much fits about as well, for components of about equal size."""
    f = factorize(ames_range, k, penalty=P / 2 * np.sqrt(ames_range.mean() / k))
    error = np.linalg.norm(ames_range - f.W @ f.H) / np.linalg.norm(ames_range)
    r = shared("r_reference/b_summary.csv").query("k == @k and penalty == @P")["relerr_tight"].median()
    print(f"k={k}, P={P}: zeros {(f.H == 0).mean():.2f}, error {error:.4f}, in R {r:.4f}")
    assert abs(error - r) < 0.1 * r
