"""A model from a table of loadings: R's numbers, our own, and what is refused."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import skops.io
from conftest import shared
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from nmf_features import NMFFeatures, load_tidy


@pytest.fixture
def X():
    return load_wine(as_frame=True).data


@pytest.fixture
def nmf(X):
    return NMFFeatures(3, projection="linear").fit(X)


def scaling_of(nmf):
    """Centre and scale by term, as Series."""
    return {
        "center": pd.Series(nmf.scaling_["offset"], nmf.variables_),
        "scale": pd.Series(nmf.scaling_["factor"], nmf.variables_),
    }


def test_rs_baked_rows_from_the_raw_table(ames):
    """Centre and scale are R's step_normalize(): means, and standard deviations with n - 1."""
    loadings, baked = shared("r_reference/a_loadings.csv"), shared("r_reference/a_baked_first10.csv")
    raw = ames[loadings["term"].unique()]
    for seed, rows in baked.groupby("seed"):
        wide = loadings[loadings["seed"] == seed].rename(columns={"term": "terms"})
        tidy = wide.melt(["seed", "terms"], var_name="component").sort_values(["component", "terms"])
        model = load_tidy(tidy, center=raw.mean(), scale=raw.std(ddof=1))
        found = model.transform(ames[model.variables_])
        names = [f"NNMF{t}" for t in range(1, 6)]
        assert found.columns.tolist() == names
        assert_allclose(found.iloc[rows["row"] - 1], rows[names], atol=1e-9)
        assert (rows[names] < 0).any(axis=None)  # a linear model does not clip


def test_our_own_loadings_come_back(X, nmf):
    loaded = load_tidy(nmf.tidy(), **scaling_of(nmf))
    assert loaded.variables_ == sorted(X.columns)  # as tidy() sorts them
    assert_allclose(loaded.transform(X[loaded.variables_]), nmf.transform(X), rtol=1e-12)
    below = X.iloc[:3] - 1e3
    assert (nmf.transform(below) == 0).all(axis=None)
    assert (loaded.transform(below[loaded.variables_]) < -1e3).all(axis=None)
    pd.testing.assert_frame_equal(loaded.tidy(), nmf.tidy())
    assert_array_equal(nmf.changes(loaded)["similarity"].round(12), 1)


def test_exact_scores_of_loaded_components(X):
    nmf = NMFFeatures(3, penalty=0).fit(X)
    loaded = load_tidy(nmf.tidy(), **scaling_of(nmf), projection="nnls")
    assert_allclose(loaded.transform(X[loaded.variables_]), nmf.transform(X), rtol=1e-6)
    low = X[loaded.variables_].assign(hue=-1.0)
    assert_array_equal(loaded.transform(low), loaded.transform(low.assign(hue=X["hue"].min())))
    with pytest.raises(ValueError, match="below what was seen in training"):
        loaded.set_params(out_of_range="raise").transform(low)


def test_explained_and_inverted(X, nmf):
    loaded = load_tidy(nmf.tidy(), **scaling_of(nmf))
    rows = X[loaded.variables_] - 5
    scores = loaded.transform(rows)
    assert_allclose(loaded.contributions(rows).sum(axis=2), scores, rtol=1e-9)
    lines = loaded.explain(rows.head(2), top=3)
    assert_allclose(lines.groupby(["row", "component"])["contribution"].sum(), scores.head(2).to_numpy().ravel())
    assert_allclose(loaded.transform(loaded.inverse_transform(scores)), scores, rtol=1e-9)
    assert loaded.labels() == nmf.labels()
    assert loaded.get_feature_names_out().tolist() == ["NNMF1", "NNMF2", "NNMF3"]


def test_what_needs_training_rows_is_not_there(X, nmf):
    loaded = load_tidy(nmf.tidy())
    for name in ("score", "score_samples", "unexplained", "impute", "report"):
        assert hasattr(nmf, name)
        assert hasattr(NMFFeatures(), name)
        assert not hasattr(loaded, name)
        with pytest.raises(AttributeError) as refused:
            getattr(loaded, name)
        assert "compares with training rows" in str(refused.value.__cause__)
        assert name in load_tidy.__doc__


def test_clone_fits_anew_and_frozen_keeps(X, nmf):
    tidy = nmf.tidy()
    loaded = load_tidy(tidy, **scaling_of(nmf))
    again = clone(loaded)
    assert not hasattr(again, "components_")
    assert again.get_params() == loaded.get_params()
    columns = X[loaded.variables_]
    expected = NMFFeatures(3, projection="linear", variables=loaded.variables_).fit(columns)
    assert_array_equal(again.fit(columns).components_, expected.components_)
    assert again.score(columns) == expected.score(columns)
    frozen = make_pipeline(FrozenEstimator(loaded), LinearRegression())
    assert np.isfinite(cross_val_score(frozen, columns, X["alcohol"], cv=3)).all()
    refitted = loaded.fit(columns)  # a loaded model that is fitted is a fitted one
    assert_array_equal(refitted.transform(columns), again.transform(columns))
    assert hasattr(refitted, "score")


def test_saved_and_loaded(X, nmf):
    loaded = load_tidy(nmf.tidy(), **scaling_of(nmf))
    expected = loaded.transform(X[loaded.variables_])
    data = skops.io.dumps(loaded)
    trusted = ["nmf_features.estimator.NMFFeatures"]
    for copy in (pickle.loads(pickle.dumps(loaded)), skops.io.loads(data, trusted=trusted)):
        pd.testing.assert_frame_equal(copy.transform(X[loaded.variables_]), expected)


def test_kinds_of_tables(X, nmf):
    tidy = nmf.tidy()
    expected = load_tidy(tidy).transform(X[sorted(X.columns)])
    for frame in (tidy.to_dict("list"), pl.from_pandas(tidy), tidy.assign(id="nnmf_sparse_Xk2")):
        assert_array_equal(load_tidy(frame).transform(X[sorted(X.columns)]), expected)
    rows = pl.from_pandas(X[sorted(X.columns)])
    assert load_tidy(tidy).transform(rows).columns == ["NNMF1", "NNMF2", "NNMF3"]


def test_positions_of_an_array():
    """tidy() sorts them as text, 0, 1, 10, 11, 2; the model takes them in the order of the array."""
    A = np.random.default_rng(0).uniform(size=(20, 12))
    nmf = NMFFeatures(2, projection="linear", shift=None, scale=None).fit(A)
    loaded = load_tidy(nmf.tidy())
    assert_allclose(loaded.transform(A), nmf.transform(A), rtol=1e-12)
    assert_allclose(loaded.transform(sparse.csr_array(A)), nmf.transform(A), rtol=1e-12)
    assert_allclose(loaded.transform(sparse.csr_array(-A)), -nmf.transform(A), rtol=1e-12)
    with pytest.raises(ValueError, match="would fill its zeros"):
        load_tidy(nmf.tidy(), center=dict.fromkeys(range(12), 1.0)).transform(sparse.csr_array(A))


def test_rows_are_not_written_to():
    A = np.random.default_rng(0).uniform(-1, 1, size=(20, 3))
    before = A.copy()
    tidy = pd.DataFrame({"terms": [0, 1, 2], "value": [0.2, 0.3, 0.5], "component": "NNMF1"})
    assert_allclose(load_tidy(tidy, scale={0: 2, 1: 2, 2: 2}).transform(A)[:, 0], A @ [0.1, 0.15, 0.25])
    assert_array_equal(A, before)


@pytest.mark.parametrize(("k", "names"), [(1, ["part1"]), (10, [f"part{t:02d}" for t in range(1, 11)])])
def test_prefix_and_padding(k, names):
    tidy = pd.DataFrame({"terms": ["a"] * k, "value": np.arange(k, 0.0, -1), "component": names[::-1]})
    model = load_tidy(tidy)
    assert model.prefix == "part"
    assert model.get_feature_names_out().tolist() == names
    assert model.transform(pd.DataFrame({"a": [1.0]})).iloc[0].to_dict() == dict(
        zip(names, range(1, k + 1), strict=True)
    )


GOOD = {
    "terms": ["a", "b", "a", "b"],
    "value": [0.5, 0.5, 0.0, 1.0],
    "component": ["NNMF1", "NNMF1", "NNMF2", "NNMF2"],
}


@pytest.mark.parametrize(
    ("frame", "options", "what"),
    [
        ({"terms": ["a"], "value": [1.0]}, {}, "frame is a DataFrame without the columns"),
        ({name: [] for name in GOOD}, {}, "frame has no lines"),
        (GOOD | {"component": ["a", "a", "b", "b"]}, {}, r"wanted a prefix and the numbers 1 to 2, as \['NNMF1', "),
        (GOOD | {"component": ["N1", "N1", "N3", "N3"]}, {}, "Rename them"),
        (GOOD | {"terms": ["a", "b", "a", "a"]}, {}, "one line, with a value of 0 or more, for each of 2 terms"),
        (GOOD | {"value": [0.5, 0.5, -0.1, 1.0]}, {}, "a value of 0 or more"),
        (GOOD | {"value": [0.5, 0.5, np.nan, 1.0]}, {}, "a value of 0 or more"),
        (GOOD | {"value": [0.5, 0.5, "many", 1.0]}, {}, "a value of 0 or more"),
        (GOOD, {"center": {"a": 1}}, r"center lacks \['b'\]"),
        (GOOD, {"center": [1, 2]}, "center is of type list; wanted a dict or a pandas Series"),
        (GOOD, {"center": {"a": 1, "b": np.nan}}, r"center is \{'b': nan\}; wanted finite numbers"),
        (GOOD, {"scale": {"a": 1, "b": "x"}}, r"scale is \{'b': nan\}; wanted finite numbers"),
        (GOOD, {"scale": {"a": 1, "b": 0}}, r"scale is \{'b': 0\.0\}; wanted numbers above 0"),
        (GOOD, {"projection": "none"}, "'projection' parameter"),
    ],
)
def test_refused(frame, options, what):
    with pytest.raises(ValueError, match=what):
        load_tidy(pd.DataFrame(frame), **options)
    load_tidy(GOOD)


def test_other_columns_are_refused():
    model = load_tidy(GOOD)
    with pytest.raises(ValueError, match="feature names should match"):
        model.transform(pd.DataFrame({"b": [1.0], "a": [2.0]}))
