"""drift, and what out_of_range says: where new rows are unlike those of the fit."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from pandas.testing import assert_frame_equal
from scipy import sparse

from nmf_features import NMFFeatures

NUMERIC = [f"c{j}" for j in range(6)]
# Scores at the end of a fit and those of transform are the same minimisers, found to about the root of rounding.
SCORES = dict(rtol=0, atol=1e-7)


def test_shares_out_of_range_are_of_the_observed_cells(table, to_frame):
    nmf = NMFFeatures(2, missing_values="ignore", clip=0.1, out_of_range="raise").fit(table)
    new = table.iloc[:10].copy()
    new.iloc[:3, new.columns.get_loc("c0")] = -1.0
    new.iloc[:4, new.columns.get_loc("c4")] = 1e3
    new.iloc[4:6, new.columns.get_loc("c4")] = np.nan
    found = nmf.drift(to_frame(new)).set_index("column")
    assert found.index.tolist() == NUMERIC
    assert found["below"].tolist() == [0.3, 0, 0, 0, 0, 0]
    assert found["above"].tolist() == [0, 0, 0, 0, 0.5, 0]
    new["c4"] = np.nan
    assert nmf.drift(new).loc[4, ["below", "above", "explained"]].isna().all()
    empty = nmf.drift(new.iloc[:0])
    assert empty[["below", "above", "explained"]].isna().all(axis=None)
    assert_allclose(empty["explained_in_fit"], nmf.column_explained_)


SETTINGS = [
    {},
    dict(shift="split"),
    dict(shift=None, scale=None, loss="kullback-leibler"),
    dict(shift=None, scale=None, penalty=0),
    dict(missing_values="ignore"),
    dict(projection="linear"),
    dict(target_weight=1.0),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_in_the_training_rows_it_is_what_the_fit_found(table, settings):
    X = table[NUMERIC].copy()
    if "missing_values" in settings:
        X = X.mask(np.random.default_rng(0).uniform(size=X.shape) < 0.2)
    nmf = NMFFeatures(2, **settings).fit(X, table["kind"])
    found = nmf.drift(X)
    assert not found[["below", "above"]].any(axis=None)
    assert_allclose(found["explained"], found["explained_in_fit"], **SCORES)
    Z = nmf.columns_.scaled(X)
    W = nmf.set_params(projection="nnls").transform(X).to_numpy()
    width = 2 if settings.get("shift") == "split" else 1
    left, size = (
        np.nansum(np.square(cells), axis=0).reshape(-1, width).sum(axis=1) for cells in (Z - W @ nmf.components_, Z)
    )
    assert_allclose(found["explained"], 1 - left / size, rtol=1e-12)


def test_weights_count_like_rows(table):
    X, weights = table[NUMERIC], np.arange(40) % 3
    weighted = NMFFeatures(2, tol=1e-12, max_iter=3000).fit(X, sample_weight=weights)
    repeated = NMFFeatures(2, tol=1e-12, max_iter=3000).fit(X.iloc[np.repeat(np.arange(40), weights)])
    assert_allclose(weighted.column_explained_, repeated.column_explained_, rtol=1e-4)


@pytest.mark.parametrize("missing_values", ["raise", "ignore", "unstored"])
def test_sparse_is_dense(missing_values):
    rng = np.random.default_rng(0)
    X = rng.gamma(1, size=(60, 3)) @ rng.gamma(1, size=(3, 8))
    X[rng.uniform(size=X.shape) < 0.4] = 0
    X[:, 0] += 1  # zero is below its range
    if missing_values == "ignore":
        X[rng.uniform(size=X.shape) < 0.1] = np.nan
    dense = np.where(X == 0, np.nan, X) if missing_values == "unstored" else X
    settings = dict(shift=None, scale=None, missing_values=missing_values)
    nmf = NMFFeatures(3, **settings).fit(sparse.csr_array(X))
    other = NMFFeatures(3, **{**settings, "missing_values": "ignore"}, init=nmf.components_).fit(dense)
    other.components_, other.component_scales_ = nmf.components_, nmf.component_scales_  # the same model
    other.score_penalties_ = nmf.score_penalties_
    assert_allclose(nmf.drift(sparse.csr_array(X))["explained"], nmf.column_explained_, **SCORES)
    new, mask = 2 * X[:20], rng.uniform(size=(20, 8)) < 0.3
    new[mask] = 0
    of_dense = np.where(new == 0, np.nan, new) if missing_values == "unstored" else new
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a row may have no cell
        found, expected = nmf.drift(sparse.csr_array(new)), other.drift(of_dense)
    assert (found.loc[0, "below"] > 0) == (missing_values != "unstored")
    assert_frame_equal(found.drop(columns="explained_in_fit"), expected.drop(columns="explained_in_fit"), atol=1e-8)


def test_another_kind_of_row_is_seen(table):
    nmf = NMFFeatures(2).fit(table)
    shuffled = table.assign(c3=table["c3"].to_numpy()[np.random.default_rng(0).permutation(40)])
    found = nmf.drift(shuffled).set_index("column")
    assert not found[["below", "above"]].any(axis=None)  # each value was seen, but not beside these
    worse = found["explained_in_fit"] - found["explained"]
    assert worse.idxmax() == "c3"
    assert worse["c3"] > 0.2


def test_units_do_not_matter_and_constants_are_nan(table):
    X = table[NUMERIC].assign(c5=7.0)
    for c in (1.0, 1e200, 1e-200):
        with pytest.warns(UserWarning, match="Constant"):
            nmf = NMFFeatures(2, shift=None, scale=None, penalty=0, tol=1e-4).fit(X * c)
        found = nmf.drift(X * c)
        assert found["explained"].isna().tolist() == [False] * 5 + [True]
        assert_allclose(found["explained"], nmf.column_explained_, **SCORES)
        assert (found["explained"][:5] > 0.3).all()


def test_models_from_before_and_without_components(table):
    nmf = NMFFeatures(2).fit(table)
    before = pickle.loads(pickle.dumps(nmf))
    del before.column_explained_
    assert before.drift(table)["explained_in_fit"].isna().all()
    assert_allclose(before.drift(table)["explained"], nmf.column_explained_, **SCORES)
    with pytest.raises(ValueError, match="n_components=0"):
        NMFFeatures(0).fit(table).drift(table)


def test_out_of_range_names_the_columns_cells_and_ranges():
    X = pd.DataFrame({"a": [1.5, 2, 3], "b": [0.0, 1, 5], "c": [1.0, 4, 2]})
    low = pd.DataFrame({"a": [0.0, -5, 2], "b": [-1.0, 9, 1], "c": [1.0, 2, 3]})
    nmf = NMFFeatures(1, out_of_range="warn").fit(X)
    message = r"\{'a': 2, 'b': 1\}\. Training ranges: \{'a': '1\.5 to 3', 'b': '0 to 5'\}"
    with pytest.warns(UserWarning, match=message):
        nmf.transform(low)
    with pytest.raises(ValueError, match=message):
        nmf.set_params(out_of_range="raise").transform(low)
