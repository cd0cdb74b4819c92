"""NMFFeatures and nnmf: frames in, frames out, the scikit-learn contract, the canonical form, clear errors."""

import pickle
import re
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import skops.io
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from nmf_features import NMFFeatures, factorize, nnmf, objective
from nmf_features.scaling import Scaling

NUMERIC = [f"c{j}" for j in range(6)]


@pytest.mark.filterwarnings(
    "ignore:n_components=.* is more than:UserWarning",  # checks with one column keep the default of two components
    "ignore:Components .* are zero:UserWarning",  # and with data of rank one
    "ignore:Constant columns:UserWarning",
)
@parametrize_with_checks(
    [
        NMFFeatures(),
        NMFFeatures(projection="linear", shift="split", n_init=2, random_state=0),
        NMFFeatures(target_weight=1.0, clip=0.1),
    ]
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings(  # these checks cross frames and arrays
    "ignore:X does not have valid feature names:UserWarning",
    "ignore:X has feature names, but:UserWarning",
)
@pytest.mark.parametrize(
    "name",
    [
        "check_set_output_transform",
        "check_set_output_transform_pandas",
        "check_set_output_transform_polars",
        "check_global_output_transform_pandas",
        "check_global_set_output_transform_polars",
        "check_transformer_get_feature_names_out",
        "check_transformer_get_feature_names_out_pandas",
        "check_dataframe_column_names_consistency",
        "check_param_validation",
        "check_inplace_ensure_writeable",
    ],
)
def test_checks_that_scikit_learn_does_not_run_by_itself(name):
    missing = "ignore" if name == "check_inplace_ensure_writeable" else "raise"  # it removes a cell
    getattr(estimator_checks, name)("NMFFeatures", NMFFeatures(missing_values=missing))


# ---- what comes out


def test_columns_index_and_dtypes(table):
    before = table.copy(deep=True)
    out = NMFFeatures(3).fit_transform(table)
    assert out.columns.tolist() == ["kind", "flag", "NNMF1", "NNMF2", "NNMF3"]
    assert out.index.equals(table.index)
    assert out.index.name == "pairs"
    assert out["kind"].dtype == table["kind"].dtype
    assert out["flag"].dtype == bool
    assert_frame_equal(out[["kind", "flag"]], table[["kind", "flag"]])
    assert (out[["NNMF1", "NNMF2", "NNMF3"]] >= 0).all(axis=None)
    assert_frame_equal(table, before)


def test_drop_original_false_keeps_everything_in_order(table):
    out = NMFFeatures(2, drop_original=False).fit_transform(table)
    assert_frame_equal(out[table.columns], table)
    assert out.columns.tolist() == [*table.columns, "NNMF1", "NNMF2"]


def test_polars_gives_polars_and_the_same_numbers(table):
    polars = pl.from_pandas(table.reset_index(drop=True))
    out = NMFFeatures(3).fit_transform(polars)
    assert isinstance(out, pl.DataFrame)
    assert out.columns == ["kind", "flag", "NNMF1", "NNMF2", "NNMF3"]
    assert out.schema["kind"] == polars.schema["kind"]
    assert_array_equal(out[:, 2:].to_numpy(), NMFFeatures(3).fit_transform(table).iloc[:, 2:].to_numpy())
    assert polars.equals(pl.from_pandas(table.reset_index(drop=True)))  # the caller's frame is as it was
    only = NMFFeatures(3).fit_transform(polars.select(NUMERIC))
    assert only.columns == ["NNMF1", "NNMF2", "NNMF3"]


def test_nullable_pandas_and_arrow_are_the_same(table):
    plain = NMFFeatures(3).fit_transform(table)
    for backend in ("numpy_nullable", "pyarrow"):
        other = NMFFeatures(3).fit_transform(table.convert_dtypes(dtype_backend=backend))
        assert_array_equal(other.iloc[:, 2:].to_numpy(float), plain.iloc[:, 2:].to_numpy())


def test_array_gives_array_with_the_other_columns_first(table):
    X = table[NUMERIC].to_numpy()
    out = NMFFeatures(2, variables=[1, 3, 4]).fit_transform(X)
    assert isinstance(out, np.ndarray)
    assert_array_equal(out[:, :3], X[:, [0, 2, 5]])
    assert out.shape == (40, 5)
    mixed = table.to_numpy(dtype=object)
    out = NMFFeatures(2, variables=[0, 1, 3]).fit_transform(mixed)
    assert out.dtype == object
    assert_array_equal(out[:, 0], mixed[:, 2])
    assert NMFFeatures(2).fit_transform(X.tolist()).shape == (40, 2)


def test_set_output_and_config(table):
    X = table[NUMERIC]
    assert isinstance(NMFFeatures().set_output(transform="pandas").fit_transform(X.to_numpy()), pd.DataFrame)
    polars = pl.from_pandas(table.reset_index(drop=True))
    out = NMFFeatures().set_output(transform="pandas").fit_transform(polars)
    assert isinstance(out, pd.DataFrame)
    assert out.columns.tolist() == ["kind", "flag", "NNMF1", "NNMF2"]
    with config_context(transform_output="polars"):
        out = NMFFeatures().fit_transform(table)
    assert isinstance(out, pl.DataFrame)
    assert out.columns == ["kind", "flag", "NNMF1", "NNMF2"]
    assert out.height == 40


def test_labels_that_are_not_strings_are_kept(table):
    X = table[NUMERIC].set_axis([10, 20, 30, 40, 50, 60], axis=1)
    nmf = NMFFeatures(2, variables=[30, 40, 60]).fit(X)
    out = nmf.transform(X)
    assert out.columns.tolist() == [10, 20, 50, "NNMF1", "NNMF2"]
    back = nmf.inverse_transform(out)
    assert back.columns.tolist() == X.columns.tolist()
    assert_frame_equal(back[[10, 20, 50]], X[[10, 20, 50]])
    with pytest.raises(ValueError, match="same names"):
        nmf.transform(X[[20, 10, 30, 40, 50, 60]])
    pairs = X.set_axis(pd.MultiIndex.from_product([["a", "b"], [1, 2, 3]]), axis=1)
    out = NMFFeatures(2, variables=[("a", 1), ("b", 2)]).fit_transform(pairs)
    assert out.columns.tolist() == [("a", 2), ("a", 3), ("b", 1), ("b", 3), "NNMF1", "NNMF2"]


@pytest.mark.parametrize(
    "index",
    [
        pd.MultiIndex.from_product([range(10), list("abcd")], names=["i", "j"]),
        pd.date_range("2020", periods=40, freq="h"),
        pd.Index([0] * 40),
    ],
)
def test_index_is_kept_exactly(table, index):
    table.index = index
    nmf = NMFFeatures(2)
    assert nmf.fit_transform(table).index.identical(index)
    assert nmf.inverse_transform(nmf.transform(table)).index.identical(index)


def test_names_are_padded_so_that_they_sort():
    X = pd.DataFrame(np.random.default_rng(0).uniform(size=(30, 12)), columns=list("abcdefghijkl"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = NMFFeatures(10, max_iter=5).fit_transform(X).columns.tolist()
        assert names == [f"NNMF{t:02d}" for t in range(1, 11)]
        assert NMFFeatures(9, prefix="F", max_iter=5).fit_transform(X).columns[0] == "F1"


def test_clash_is_refused_before_anything_is_computed(table):
    bad = table.rename(columns={"kind": "NNMF2"})
    bad.loc[:, "c0"] = np.nan  # would be the next complaint
    with pytest.raises(ValueError, match=r"\['NNMF2'\].*prefix"):
        NMFFeatures(2).fit(bad)
    again = nnmf(nnmf(table, n=3), n=2)  # components of a first pass are ordinary columns
    assert again.columns.tolist() == ["kind", "flag", "NNMF1", "NNMF2"]


def test_no_components_leave_the_data_unchanged(table):
    nmf = NMFFeatures(0)
    assert_frame_equal(nmf.fit_transform(table), table)
    assert_frame_equal(nmf.inverse_transform(nmf.transform(table)), table)
    assert nmf.get_feature_names_out().tolist() == table.columns.tolist()
    X = table[NUMERIC].to_numpy()
    assert_array_equal(NMFFeatures(0).fit_transform(X), X)
    assert nmf.tidy().shape == (0, 3)
    with pytest.raises(ValueError, match="nothing to score"):
        nmf.score(table)
    holed = spoil(table, "c0", 3, np.nan)  # not a cell is looked at
    assert_frame_equal(NMFFeatures(0).fit_transform(holed), holed)
    words = table[["kind"]]
    assert_frame_equal(NMFFeatures(0).fit_transform(words), words)
    whole = np.arange(6).reshape(3, 2)
    assert NMFFeatures(0).fit_transform(whole).dtype == whole.dtype


def test_too_many_components_are_capped_with_one_warning(table):
    with pytest.warns(UserWarning, match="capped") as caught:
        nmf = NMFFeatures(9, variables=["c0", "c1"]).fit(table)
    assert [str(w.message) for w in caught] == [
        "n_components=9 is more than the 2 columns that are factorised: capped."
    ]
    assert nmf.n_components_ == 2
    assert caught[0].filename == __file__


def test_float32_is_kept(table):
    X = table[NUMERIC]
    out = NMFFeatures(2).fit_transform(X.astype(np.float32))
    assert (out.dtypes == np.float32).all()
    assert_allclose(out, NMFFeatures(2).fit_transform(X), rtol=2e-2, atol=2e-2 * float(out.max(axis=None)))
    mixed = X.astype({"c0": np.float32})
    assert (NMFFeatures(2).fit_transform(mixed).dtypes == np.float64).all()


# ---- the numbers


SETTINGS = [
    {},
    dict(penalty=0),
    dict(penalty=0.02, l1_ratio=0.5),
    dict(penalty=0.02, l1_ratio=0),
    dict(shift="split"),
    dict(scale="robust"),
    dict(clip=0.02),
    dict(shift=None, scale="max"),
    dict(projection="linear"),
]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_fit_transform_is_fit_then_transform_and_rows_stand_alone(settings, dtype):
    X = load_breast_cancer().data.astype(dtype)
    nmf = NMFFeatures(5, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # float32 with shift=None stays above tol
        W = nmf.fit_transform(X)
    tolerance = (1e-8 if dtype == np.float64 else 1e-4) * W.max(axis=1, keepdims=True)
    assert (np.abs(nmf.transform(X) - W) <= tolerance).all()
    rows = np.random.default_rng(0).permutation(len(X))[:50]
    assert (np.abs(nmf.transform(X[rows]) - W[rows]) <= tolerance[rows]).all()
    assert (np.abs(np.vstack([nmf.transform(X[i : i + 1]) for i in rows]) - W[rows]) <= tolerance[rows]).all()


def test_canonical_form_and_the_way_back(table):
    X = table[NUMERIC]
    nmf = NMFFeatures(3, penalty=0.01)
    W = nmf.fit_transform(X).to_numpy()
    assert_allclose(nmf.components_.sum(axis=1), 1, rtol=1e-12)
    assert (np.diff(W.sum(axis=0)) <= 0).all()
    Z = Scaling(**nmf.scaling_).apply(X.to_numpy(), "clip", NUMERIC)
    balanced = W / nmf.component_scales_, nmf.components_ * nmf.component_scales_[:, None]
    assert_allclose(objective(Z, *balanced, 0.01), nmf.objective_, rtol=1e-12)
    assert objective(Z, W, nmf.components_, 0.01) > nmf.objective_  # the canonical pair itself costs more
    assert nmf.converged_
    assert nmf.history_[-1] >= nmf.objective_ * (1 - 1e-12)
    assert len(nmf.history_) <= nmf.n_iter_


def test_explained_and_score_add_up(table):
    nmf = NMFFeatures(3, penalty=0, tol=1e-12, max_iter=5000).fit(table)
    Z = Scaling(**nmf.scaling_).apply(table[NUMERIC].to_numpy(), "clip", NUMERIC)
    fitted = nmf.transform(table).iloc[:, 2:].to_numpy() @ nmf.components_
    residual = ((Z - fitted) ** 2).sum()
    assert (nmf.explained_ > 0).all()
    assert_allclose(nmf.explained_.sum(), 1 - residual / (Z**2).sum(), rtol=1e-6)  # stationary, without penalty
    assert_allclose(nmf.score(table), 1 - residual / ((Z - Z.mean(axis=0)) ** 2).sum(), rtol=1e-9)


def test_score_of_nothing_is_nan_with_a_warning():
    X = np.array([[1.0, 2], [3, 6]])
    nmf = NMFFeatures(1).fit(X)
    with pytest.warns(UserWarning, match="score is nan"):
        assert np.isnan(nmf.score(np.empty((0, 2))))


@pytest.mark.parametrize("settings", [{}, dict(shift="split"), dict(projection="linear"), dict(scale="max")], ids=str)
def test_full_rank_round_trip_in_place_and_units(table, settings):
    """With as many components as columns, penalty 0 and positive data, scores lose little."""
    nmf = NMFFeatures(6, penalty=0, tol=1e-12, max_iter=3000, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        out = nmf.fit_transform(table)
    back = nmf.inverse_transform(out)
    assert back.columns.tolist() == table.columns.tolist()
    assert_frame_equal(back[["kind", "flag"]], table[["kind", "flag"]])
    spread = table[NUMERIC].std()
    limit = 1e-6 if settings.get("projection") == "linear" else 0.35 if settings.get("shift") == "split" else 0.05
    assert ((back[NUMERIC] - table[NUMERIC]).abs() / spread).mean().max() < limit
    shuffled = out[out.columns[::-1]]
    assert_frame_equal(nmf.inverse_transform(shuffled), back)  # found by name
    bare = nmf.inverse_transform(out[[c for c in out if c.startswith("NNMF")]])
    assert_frame_equal(bare, back[NUMERIC])


def test_inverse_on_arrays_and_with_originals(table):
    X = table[NUMERIC].to_numpy()
    for drop in (True, False):
        nmf = NMFFeatures(2, variables=[4, 1], drop_original=drop).fit(X)
        out = nmf.transform(X)
        back = nmf.inverse_transform(out)
        assert_array_equal(back[:, [0, 2, 3, 5]], X[:, [0, 2, 3, 5]])
        assert_allclose(back[:, [4, 1]], nmf.inverse_transform(out[:, -2:]))
        assert np.corrcoef(back[:, 4], X[:, 4])[0, 1] > 0.9
        with pytest.raises(ValueError, match="X has 3 columns"):
            nmf.inverse_transform(out[:, :3])
    nmf = NMFFeatures(2, drop_original=False).fit(table)
    back = nmf.inverse_transform(nmf.transform(table))
    assert back.columns.tolist() == table.columns.tolist()
    with pytest.raises(ValueError, match=r"lacks the components \['NNMF2'\]"):
        nmf.inverse_transform(nmf.transform(table).drop(columns="NNMF2"))
    with pytest.raises(ValueError, match=r"lacks the columns \['kind'\]"):
        nmf.inverse_transform(nmf.transform(table).drop(columns="kind"))


@pytest.mark.parametrize("shift", ["min", "split", None])
def test_constant_columns_are_named_and_return_their_constant(table, shift):
    table["c1"] = 7.0
    with pytest.warns(UserWarning, match=r"Constant columns .*\['c1'\]"):
        nmf = NMFFeatures(2, shift=shift, tol=1e-10).fit(table)
    terms = nmf.tidy()
    assert (terms.loc[terms["terms"].str.startswith("c1"), "value"] == 0).all()
    assert (nmf.inverse_transform(nmf.transform(table))["c1"] == 7).all()
    without = NMFFeatures(2, shift=shift, tol=1e-10).fit(table.drop(columns="c1"))  # carries nothing at all
    assert_allclose(nmf.objective_, without.objective_, rtol=1e-6)


def test_out_of_range_values(table):
    nmf = NMFFeatures(2, out_of_range="warn").fit(table)
    low = table.copy()
    low.iloc[3, 0] = -100
    with pytest.warns(UserWarning, match=r"\{'c0': 1\}") as caught:
        nmf.transform(low)
    assert caught[0].filename == __file__
    with pytest.raises(ValueError, match=r"\{'c0': 1\}"):
        nmf.set_params(out_of_range="raise").transform(low)


@pytest.mark.parametrize("n", [0, 1])
def test_few_rows_at_transform(table, n):
    nmf = NMFFeatures(2).fit(table)
    out = nmf.transform(table.iloc[:n])
    assert out.shape == (n, 4)
    assert nmf.inverse_transform(out).shape == (n, 8)
    assert NMFFeatures(2).fit(table[NUMERIC].to_numpy()).transform(np.empty((n, 6)) + 1).shape == (n, 2)


def test_one_column(table):
    out = NMFFeatures(1, variables="c0", penalty=0).fit_transform(table)
    assert_allclose(np.corrcoef(out["NNMF1"], table["c0"])[0, 1], 1)


def test_duplicated_columns_and_all_zero_rows():
    rng = np.random.default_rng(0)
    X = rng.gamma(1, 1, (50, 3))
    X[4] = 0
    out = NMFFeatures(2, shift=None, scale="max").fit_transform(np.hstack([X, X]))
    assert not out[4].any()
    assert np.isfinite(out).all()


def test_components_beyond_the_rank_are_named():
    X = pd.DataFrame(np.outer(np.arange(1.0, 9), [1, 2, 3]), columns=list("abc"))
    with pytest.warns(UserWarning, match=r"Components \['NNMF2', 'NNMF3'\] are zero"):
        nmf = NMFFeatures(3, penalty=0, shift=None).fit(X)
    assert not nmf.components_[1:].any()
    assert_allclose(nmf.explained_, [1, 0, 0], atol=1e-9)


@pytest.mark.parametrize("c", [1e-300, 1e-8, 1e8, 1e300])
def test_same_model_in_other_units(table, c):
    X = table[NUMERIC].to_numpy()
    plain, scaled = NMFFeatures(3).fit(X), NMFFeatures(3).fit(X * c)
    assert_allclose(scaled.components_, plain.components_, rtol=1e-6, atol=1e-9)
    assert_allclose(scaled.transform(X * c), plain.transform(X), rtol=1e-6, atol=1e-9)
    raw = NMFFeatures(3, penalty=0, shift=None, scale=None)
    raw_plain = clone(raw).fit(X)
    raw.fit(X * c)
    assert_allclose(raw.components_, raw_plain.components_, rtol=1e-3, atol=1e-5)
    assert_allclose(raw.explained_, raw_plain.explained_, rtol=1e-3)
    assert_allclose(raw.score(X * c), raw_plain.score(X), rtol=1e-3)


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame])
def test_a_start_that_is_a_frame_is_matched_by_name(table, kind):
    start = pd.DataFrame(np.random.default_rng(0).uniform(size=(2, 6)), columns=NUMERIC)
    expected = NMFFeatures(2, init=start.to_numpy(), max_iter=3, tol=0)
    given = kind(start[NUMERIC[::-1]].to_dict("list"))
    with pytest.warns(ConvergenceWarning):
        expected.fit(table)
    with pytest.warns(ConvergenceWarning):
        found = clone(expected).set_params(init=given).fit(table)
    assert_array_equal(found.components_, expected.components_)
    plain = dict(max_iter=3, tol=0)
    with pytest.warns(ConvergenceWarning):
        H = factorize(table[NUMERIC], 2, init=given, **plain).H
    with pytest.warns(ConvergenceWarning):
        assert_array_equal(H, factorize(table[NUMERIC].to_numpy(), 2, init=start.to_numpy(), **plain).H)
    for other in (start.rename(columns={"c1": "c9"}), start.iloc[:, :5], start.set_axis(range(6), axis=1)):
        with pytest.raises(ValueError, match="init is a frame that lacks the columns"):
            NMFFeatures(2, init=kind(other.rename(columns=str).to_dict("list"))).fit(table)
    split = pd.DataFrame(1.0, index=range(2), columns=[f"{name}{sign}" for sign in "-+" for name in NUMERIC])
    assert NMFFeatures(2, init=split, shift="split").fit(table).components_.shape == (2, 12)
    with pytest.raises(ValueError, match="init contains NaN"):
        NMFFeatures(2, init=start.mask(start > 0.5)).fit(table)


def test_columns_permuted(table):
    X = table[NUMERIC]
    plain, moved = (NMFFeatures(3, tol=1e-10).fit(x) for x in (X, X[X.columns[::-1]]))
    assert_allclose(moved.components_[:, ::-1], plain.components_, rtol=1e-5, atol=1e-7)


def test_any_n_jobs_gives_the_same_bits(table):
    one, two = (NMFFeatures(3, n_jobs=jobs).fit_transform(table) for jobs in (1, 2))
    assert_frame_equal(one, two, check_exact=True)


def test_same_seed_same_result(table):
    a, b = (NMFFeatures(3, init="random", random_state=5).fit(table).components_ for _ in range(2))
    assert_array_equal(a, b)


def test_tidy_and_top_features(table):
    nmf = NMFFeatures(3, variables=["c5", "c0", "c3"]).fit(table)
    tidy = nmf.tidy()
    assert tidy.columns.tolist() == ["terms", "value", "component"]
    assert tidy["terms"].tolist() == ["c0", "c3", "c5"] * 3
    assert tidy["component"].tolist() == ["NNMF1"] * 3 + ["NNMF2"] * 3 + ["NNMF3"] * 3
    assert tidy.loc[2, "value"] == nmf.components_[0, 0]
    top = nmf.top_features(2)
    assert (top.groupby("component").size() <= 2).all()
    assert (top["value"] > 0).all()
    first = top[top["component"] == "NNMF1"]
    assert first["value"].iloc[0] == nmf.components_[0].max()
    with pytest.raises(ValueError, match="m is 0"):
        nmf.top_features(0)


def test_array_columns_in_another_order_are_as_in_a_frame(table):
    X = table[NUMERIC]
    by_name = NMFFeatures(2, variables=NUMERIC[::-1]).fit(X)
    by_position = NMFFeatures(2, variables=[5, 4, 3, 2, 1, 0]).fit(X.to_numpy())
    assert_array_equal(by_position.components_, by_name.components_)
    back = by_position.inverse_transform(by_position.transform(X.to_numpy()))
    assert_array_equal(back, by_name.inverse_transform(by_name.transform(X)).to_numpy())


def test_inverse_of_whatever_transform_returned(table):
    X = table[NUMERIC].to_numpy(copy=True)
    X[3, 5] = np.nan  # in a column that passes through
    back = NMFFeatures(2, variables=[0, 1, 2]).fit(X)
    assert_array_equal(back.inverse_transform(back.transform(X))[:, 3:], X[:, 3:])
    nmf = NMFFeatures(2, variables=[0, 1, 2]).set_output(transform="pandas").fit(X)
    out = nmf.transform(X)
    assert out.columns.tolist() == ["x3", "x4", "x5", "NNMF1", "NNMF2"]
    assert_array_equal(nmf.inverse_transform(out).to_numpy()[:, 3:], X[:, 3:])
    numbered = table[NUMERIC].set_axis([5, 6, 7, 8, 9, 10], axis=1)
    nmf = NMFFeatures(2, variables=[5, 7]).set_output(transform="pandas").fit(numbered)
    assert nmf.inverse_transform(nmf.transform(numbered)).columns.tolist() == [5, 6, 7, 8, 9, 10]
    nmf = NMFFeatures(2).fit(table)
    more = nmf.transform(table).assign(more=1)
    back = nmf.inverse_transform(more)
    assert back.columns.tolist() == [*table.columns, "more"]


def test_settings_changed_after_fit(table):
    nmf = NMFFeatures(3).fit(table)
    before = nmf.transform(table)
    assert_frame_equal(nmf.set_params(penalty=0.5, l1_ratio=0.1).transform(table), before)  # the fit's own count
    with pytest.raises(ValueError, match="'projection' parameter"):
        nmf.set_params(projection="exact").transform(table)


def test_tuples_name_columns_of_two_levels(table):
    X = table[NUMERIC].set_axis(pd.MultiIndex.from_product([["a", "b"], [1, 2, 3]]), axis=1)
    assert NMFFeatures(1, variables=("a", 1)).fit(X).variables_ == [("a", 1)]
    out = nnmf(X, target=("b", 3))
    assert out.columns.tolist() == [("b", 3), "NNMF1", "NNMF2"]
    assert nnmf(X, target=[("b", 3)], variables=[("a", 1), ("a", 2)]).shape == (40, 6)


def test_values_far_above_training_are_named(table):
    nmf = NMFFeatures(2).fit(table.assign(c1=table["c1"] * 1e-300))
    with pytest.raises(ValueError, match=r"overflows, in columns \['c1'\]"):
        nmf.transform(table.assign(c1=table["c1"] * 1e10))


def test_fit_and_transform_must_agree(table):
    nmf = NMFFeatures(2).fit(table)
    with pytest.raises(ValueError, match="should match those that were passed during fit"):
        nmf.transform(table.drop(columns="kind"))
    with pytest.raises(ValueError, match="same order"):
        nmf.transform(table[table.columns[::-1]])
    with pytest.raises(ValueError, match=r"unseen.*\n- more"):
        nmf.transform(table.assign(more=1))
    X = table[NUMERIC]
    numbered = X.set_axis([5, 6, 7, 8, 9, 10], axis=1)
    by_position = NMFFeatures(2).fit(X.to_numpy())
    assert_array_equal(by_position.transform(numbered), by_position.transform(X.to_numpy()))
    nmf = NMFFeatures(2).fit(X)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        out = nmf.transform(X.to_numpy())
    assert_array_equal(out, nmf.transform(X).to_numpy())
    with pytest.warns(UserWarning, match="was fitted without feature names"):
        out = NMFFeatures(2).fit(X.to_numpy()).transform(X)
    assert_array_equal(out, nmf.transform(X))
    with pytest.raises(NotFittedError):
        NMFFeatures().transform(X)


def spoil(table, column, row, value):
    table = table.copy()
    table[column] = table[column].astype(object if isinstance(value, str) else float)
    table.iloc[row, table.columns.get_loc(column)] = value
    return table


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda t: spoil(t, "c1", 3, np.nan), {}, r"NaN or missing values .*\{'c1': 1\}.*[Ii]mpute"),
        (lambda t: t.convert_dtypes().mask(t == t["c2"].iloc[0]), {}, r"NaN or missing values .*\{'c2': 1\}"),
        (lambda t: spoil(t, "c1", 3, -np.inf), {}, r"infinite \(inf\) values .*\{'c1': 1\}"),
        (lambda t: spoil(t, "c1", 3, -1.0), dict(shift=None), r"Negative values .*\{'c1': 1\}.*shift=\"min\""),
        (lambda t: t, dict(variables=["c0", "kind"]), r"not numeric: \{'kind': 'category'\}"),
        (
            lambda t: t.assign(when=pd.Timestamp("2020")),
            dict(n_components=1, variables="when"),
            r"not numeric: \{'when': 'datetime64",
        ),
        (lambda t: t, dict(variables=["c0", "c9"]), r"variables has \['c9'\], not found"),
        (lambda t: t, dict(variables=["c0", "c0"]), "each once"),
        (lambda t: t, dict(variables=[]), "at least one column"),
        (lambda t: t[NUMERIC].to_numpy(), dict(variables=[True, False]), "wanted a name or a list of names"),
        (lambda t: t[NUMERIC].to_numpy(), dict(variables=[1.0]), "wanted a name or a list of names"),
        (lambda t: t, dict(n_jobs=0), "'n_jobs' parameter"),
        (lambda t: t.set_axis([*t.columns[:-1], "c0"], axis=1), {}, r"duplicated column names: \['c0'\]"),
        (lambda t: t[["kind", "flag"]], {}, "no numeric column"),
        (lambda t: t[[]], {}, "0 feature"),
        (lambda t: t.iloc[:0], {}, "0 sample"),
        (lambda t: t.iloc[:1], {}, "n_samples=1"),
        (lambda t: t.assign(**dict.fromkeys(NUMERIC, 3.0)), {}, "every chosen column is constant"),
        (lambda t: t["c0"], {}, "2-dimensional|2D"),
        (lambda t: pl.from_pandas(t).lazy(), {}, "collect"),
        (lambda t: t, dict(init=np.ones((3, 3))), r"init has shape \(3, 3\)"),
    ],
)
def test_bad_data(table, change, settings, message):
    bad = change(table)
    with pytest.raises((ValueError, TypeError), match=re.compile(message, re.DOTALL)):
        NMFFeatures(**settings).fit(bad)


def test_new_rows_are_checked_too(table):
    nmf = NMFFeatures(2).fit(table)
    with pytest.raises(ValueError, match=r"\{'c1': 1\}"):
        nmf.transform(spoil(table, "c1", 3, np.nan))
    with pytest.raises(ValueError, match="not numeric"):
        nmf.transform(spoil(table, "c1", 3, "text"))


@pytest.mark.parametrize("name", sorted(NMFFeatures._parameter_constraints))
def test_every_parameter_is_checked(table, name):
    with pytest.raises(ValueError, match=f"'{name}' parameter of NMFFeatures"):
        NMFFeatures(**{name: object()}).fit(table)


@pytest.mark.parametrize("value", [-1, 2.0, "two", None, True])
def test_n_components_must_be_a_whole_number(table, value):
    with pytest.raises(ValueError, match="n_components"):
        NMFFeatures(value).fit(table)


def test_not_converged_warns(table):
    with pytest.warns(ConvergenceWarning, match="max_iter=1") as caught:
        nmf = NMFFeatures(3, max_iter=1).fit(table)
    assert not nmf.converged_
    assert caught[0].filename == __file__
    for call in (
        lambda: table.pipe(nnmf, n=3, max_iter=1),
        lambda: make_pipeline(NMFFeatures(3, variables=NUMERIC, max_iter=1), "passthrough").fit_transform(table),
    ):
        with pytest.warns(ConvergenceWarning, match="max_iter=1") as caught:
            call()
        assert caught[0].filename == __file__
    with pytest.warns(ConvergenceWarning, match="at objective") as caught:
        NMFFeatures(3, max_iter=1).fit_transform(table)
    assert caught[0].filename == __file__


# ---- nnmf, and life among others


def test_nnmf(table):
    out = table.pipe(nnmf, n=3)
    assert_frame_equal(out, NMFFeatures(3).fit_transform(table))
    out, nmf = table.pipe(nnmf, n=2, target=["c0"], return_transformer=True, penalty=0)
    assert out.columns.tolist() == ["c0", "kind", "flag", "NNMF1", "NNMF2"]
    assert nmf.penalty == 0
    assert_frame_equal(nmf.transform(table), out)
    with pytest.raises(ValueError, match=r"target has \['c9'\]"):
        nnmf(table, target="c9")
    with pytest.raises(ValueError, match=r"share \['c1'\]"):
        nnmf(table, target="c1", variables=["c0", "c1"])
    with pytest.raises(TypeError, match="as n, not n_components"):
        nnmf(table, n_components=3)
    with pytest.raises(ValueError, match="beside the target"):
        nnmf(table[["c0", "kind"]], target="c0")


def test_pickle_clone_and_skops(table):
    nmf = NMFFeatures(3, variables=NUMERIC[:4]).fit(table)
    expected = nmf.transform(table)
    assert_frame_equal(pickle.loads(pickle.dumps(nmf)).transform(table), expected)
    data = skops.io.dumps(nmf)
    assert skops.io.get_untrusted_types(data=data) == ["nmf_features.estimator.NMFFeatures"]
    loaded = skops.io.loads(data, trusted=["nmf_features.estimator.NMFFeatures"])
    assert_frame_equal(loaded.transform(table), expected)
    assert clone(nmf).get_params() == nmf.get_params()


def test_fitted_state_is_plain(table):
    def plain(value):
        if isinstance(value, dict):
            return all(map(plain, value.values()))
        if isinstance(value, list):
            return all(map(plain, value))
        return isinstance(value, np.ndarray | str | int | float | bool)

    nmf = NMFFeatures(3).fit(table)
    assert {name: value for name, value in vars(nmf).items() if name.strip("_") != name and not plain(value)} == {}


def test_every_fitted_attribute_is_documented(table):
    nmf = NMFFeatures(3).fit(table)
    for name in vars(nmf):
        if name.endswith("_") and not name.startswith("_"):
            assert re.search(rf"\b{name}\b", NMFFeatures.__doc__), name


def test_in_a_pipeline(table):
    y = table["c0"] + table["c1"]
    model = make_pipeline(NMFFeatures(4, variables=NUMERIC), LinearRegression())
    scores = cross_val_score(model, table[NUMERIC], y, cv=4)
    assert scores.mean() > 0.5


@pytest.mark.parametrize(("dtype", "method", "limit"), [("float64", "fit_transform", 1.1), ("float32", "fit", 1.2)])
def test_a_fit_takes_a_copy_of_the_columns_the_scores_and_little_more(dtype, method, limit):
    """And a frame in single precision is never one in double precision, which would be two copies.

    The little more is mostly a residual of 2^20 cells, which in single precision is not computed from products: 4 MB
    beside 23 of the copy and 4.6 of the scores. Frames of scores are made when the copy is gone.
    """
    n, p, k = 60_000 * 8 // np.dtype(dtype).itemsize, 50, 10
    rng = np.random.default_rng(0)
    X = pd.DataFrame((rng.random((n, 4)) @ rng.random((4, p)) + rng.random((n, p))).astype(dtype))
    nmf = NMFFeatures(k, tol=1e-2, n_jobs=1)
    nmf.fit_transform(X[:50_000])  # compiled, which takes memory too
    tracemalloc.start()
    getattr(nmf, method)(X)
    most = tracemalloc.get_traced_memory()[1]  # beside the table itself
    tracemalloc.stop()
    table = X.to_numpy().nbytes
    copy, scores = table, table * k // p
    assert most < limit * (copy + scores)
    assert table + most < 1.15 * (table + copy + scores)
