"""Shift and scale."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from sklearn.utils.estimator_checks import parametrize_with_checks

from nmf_features import NMFFeatures, NonNegativeScaler, scaling
from nmf_features.scaling import PARAMETERS, SCALES


@parametrize_with_checks([NonNegativeScaler(), NonNegativeScaler(shift="split", scale="max")])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


SHIFTS = ["min", "mode", "split", None]


def data(n=200, seed=0):
    return np.random.default_rng(seed).gamma(1, 1, (n, 4)) * [1, 1e-5, 100, 1] + [0, 0, 7, 1e6]


@pytest.mark.parametrize("scale", [*SCALES, None])
@pytest.mark.parametrize("shift", SHIFTS)
def test_round_trip_and_non_negative(shift, scale):
    X = data()
    scaler = NonNegativeScaler(shift=shift, scale=scale)
    Z = scaler.fit_transform(X)
    assert Z.min() >= 0
    assert Z.shape[1] == (8 if shift == "split" else 4)
    back = scaler.inverse_transform(Z)
    if scale == "robust":  # values beyond the quantile are cut by design
        assert Z.max() <= 1
        assert (np.isclose(back, X, rtol=1e-12)).mean() > 0.97
    else:
        assert_allclose(back, X, rtol=1e-12)


def test_what_each_scale_divides_by():
    X = data()
    low = X - X.min(axis=0)
    for scale, factor in {
        "std": X.std(axis=0),
        "max": low.max(axis=0),
        "mean": low.mean(axis=0),
        "robust": np.quantile(low, 0.99, axis=0, method="inverted_cdf"),
        None: np.ones(4),
    }.items():
        scaler = NonNegativeScaler(scale=scale).fit(X)
        assert_allclose(scaler.scaling_["factor"], factor, rtol=1e-9, err_msg=str(scale))


def test_split_is_about_the_mean():
    X = data()
    Z = NonNegativeScaler(shift="split", scale=None).fit_transform(X)
    centred = X - X.mean(axis=0)
    assert_allclose(Z[:, 0::2], np.maximum(centred, 0), atol=1e-9)
    assert_allclose(Z[:, 1::2], np.maximum(-centred, 0), atol=1e-9)


def test_robust_falls_back_where_the_quantile_is_zero():
    X = np.zeros((1000, 1))
    X[:3, 0] = [1, 2, 4]
    assert_allclose(NonNegativeScaler(scale="robust").fit_transform(X).max(), 1)


@pytest.mark.parametrize("c", [1e-300, 5e-324, 1e300])
def test_extreme_values(c):
    X = np.array([[0.0], [1], [2], [4]]) * c
    scaler = NonNegativeScaler()
    Z = scaler.fit_transform(X)
    assert np.isfinite(Z).all()
    assert Z[-1, 0] > Z[1, 0] > 0
    assert_allclose(scaler.inverse_transform(Z), X, rtol=1e-12)


def test_range_that_overflows_is_named():
    with pytest.raises(ValueError, match=r"range overflows a float64: \['a'\]"):
        NonNegativeScaler().fit(pd.DataFrame({"a": [-1.7e308, 1.7e308]}))


def test_constant_columns_are_zero_and_come_back():
    for shift in SHIFTS:
        scaler = NonNegativeScaler(shift=shift)
        X = np.array([[5.0, 1], [5, 2]])
        Z = scaler.fit_transform(X)
        assert not Z[:, : Z.shape[1] // 2].any()
        assert_allclose(scaler.inverse_transform(Z), X)


def test_out_of_range():
    X = pd.DataFrame({"a": [1.0, 2, 3], "b": [0.0, 1, 5]})
    new = pd.DataFrame({"a": [0.0, -5, 2], "b": [0.0, 9, 1]})
    clipped = NonNegativeScaler().fit(X).transform(new)
    assert clipped["a"].tolist()[:2] == [0, 0]
    assert clipped["b"][1] > 0  # above the range is no trouble
    with pytest.warns(UserWarning, match=r"\{'a': 2\}"):
        warned = NonNegativeScaler(out_of_range="warn").fit(X).transform(new)
    assert_frame_equal(warned, clipped)
    with pytest.raises(ValueError, match=r"\{'a': 2\}"):
        NonNegativeScaler(out_of_range="raise").fit(X).transform(new)
    NonNegativeScaler(shift="split", out_of_range="raise").fit(X).transform(new)  # no bound
    with pytest.raises(ValueError, match=r"\{'a': 1\}"):
        NonNegativeScaler(shift=None, out_of_range="raise").fit(X).transform(new)  # the bound is 0


def test_negatives_without_shift_are_named():
    with pytest.raises(ValueError, match=r"\{'b': 2\}.*shift=\"min\"") as error:
        NonNegativeScaler(shift=None).fit(pd.DataFrame({"a": [1.0, 2, 3], "b": [-1.0, -2, 3]}))
    assert "split" in str(error.value)


def test_frames_keep_kind_index_names_and_precision():
    X = pd.DataFrame({"a": [1, 2, 4], "b": np.float32([1, 0, 1])}, index=pd.date_range("2020", periods=3))
    Z = NonNegativeScaler(shift="split").fit_transform(X)
    assert Z.columns.tolist() == ["a+", "a-", "b+", "b-"]
    assert Z.index.equals(X.index)
    scaler = NonNegativeScaler().fit(X[["b"]])
    assert scaler.transform(X[["b"]]).dtypes.tolist() == [np.float32]
    assert_frame_equal(scaler.inverse_transform(scaler.transform(X[["b"]])), X[["b"]])
    polars = pl.from_pandas(X)
    scaler = NonNegativeScaler()
    assert isinstance(scaler.fit_transform(polars), pl.DataFrame)
    assert_allclose(scaler.inverse_transform(scaler.transform(polars)).to_numpy(), X.to_numpy(), atol=1e-12)
    assert scaler.get_feature_names_out().tolist() == ["a", "b"]


def test_callers_data_is_unchanged_and_may_be_read_only():
    X = data()
    X.setflags(write=False)
    before = X.copy()
    NonNegativeScaler().fit_transform(X)
    assert_array_equal(X, before)
    frame = pd.DataFrame(before.copy())
    NonNegativeScaler().fit_transform(frame)
    assert_array_equal(frame.to_numpy(), before)


def test_inverse_goes_by_name():
    X = pd.DataFrame(data(), columns=list("abcd")).rename_axis(columns="what")
    scaler = NonNegativeScaler().fit(X)
    Z = scaler.transform(X)
    assert Z.columns.name == "what"
    assert_frame_equal(scaler.inverse_transform(Z[["d", "b", "a", "c"]]), X)
    with pytest.raises(ValueError, match="wanted those that transform returns"):
        scaler.inverse_transform(Z.set_axis(list("efgh"), axis=1))


def test_overflow_is_named():
    scaler = NonNegativeScaler().fit(pd.DataFrame({"a": [1e-300, 2e-300], "b": [1.0, 2]}))
    with pytest.raises(ValueError, match=r"overflows, in columns \['a'\]"):
        scaler.transform(pd.DataFrame({"a": [1e10], "b": [1.0]}))


def test_wrong_width_to_invert():
    with pytest.raises(ValueError, match="X has 3 columns; wanted the 4"):
        NonNegativeScaler().fit(data()).inverse_transform(np.ones((2, 3)))


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_checked(name):
    with pytest.raises(ValueError, match=f"'{name}' parameter of NonNegativeScaler"):
        NonNegativeScaler(**{name: "nonsense"}).fit(data())


@pytest.mark.parametrize(("shift", "scale"), [("min", "std"), ("min", "mean"), ("split", "std")])
def test_the_order_of_the_rows_decides_no_bit(shift, scale):
    """The last bits of a sum of rows hang on their order, and a fit of many minima on the last bits."""
    X = np.random.default_rng(0).gamma(1, size=(500, 20))
    first = NonNegativeScaler(shift=shift, scale=scale).fit(X).scaling_
    for seed in range(5):
        other = NonNegativeScaler(shift=shift, scale=scale).fit(np.random.default_rng(seed).permutation(X)).scaling_
        for name in ("offset", "factor"):
            assert_array_equal(other[name], first[name])


def test_scalers_that_were_saved_under_the_first_path_are_found():
    X = data()
    scaler = NonNegativeScaler().fit(X)
    saved = pickle.dumps(scaler, protocol=0).replace(b"nmf_features.scaler\n", b"nmf_features.scaling\n")
    assert b"nmf_features.scaling\n" in saved
    assert_array_equal(pickle.loads(saved).transform(X), scaler.transform(X))
    with pytest.raises(AttributeError, match="has no attribute 'NoSuchScaler'"):
        scaling.NoSuchScaler  # noqa: B018


def common(n=100):
    """Columns with one value in 95 rows, the middle one or the largest, in 89 rows, and in hardly any."""
    rows, rng = np.arange(n), np.random.default_rng(0)
    kitchens = np.where(rows < 3, 0.0, np.where(rows < 98, 1.0, 2.0))
    return np.column_stack(
        [kitchens, rows >= 5, np.where(rows < 6, 0, np.where(rows < 95, 3, 4)), rng.gamma(1, size=n)]
    )


def test_mode_subtracts_what_nearly_all_rows_have():
    X = common()
    scaler = NonNegativeScaler(shift="mode", scale=None, out_of_range="raise")
    Z = scaler.fit_transform(X)  # what is below the common value is no new value out of range
    assert_array_equal(Z[:, 0], X[:, 0] == 2)
    assert_array_equal(Z[:, 1:], X[:, 1:] - X[:, 1:].min(axis=0))
    back = scaler.inverse_transform(Z)
    assert_allclose(back, np.maximum(X, [1, *X[:, 1:].min(axis=0)]))
    with pytest.raises(ValueError, match="below what was seen in training"):
        scaler.transform(X - [1, 0, 0, 0])


def test_mode_is_min_where_no_value_is_common():
    X = data()
    assert_array_equal(*(NonNegativeScaler(shift=shift).fit_transform(X) for shift in ("min", "mode")))


def test_mode_counts_weights_and_leaves_out_missing_cells():
    X = common()
    weights = np.where(X[:, 0] == 1, 1, 2)  # 95 of 105 is still more than nine tenths
    learned = [scaling.Scaling.learn(*rows) for rows in (
        (X, "mode", None, "abcd", weights * 1.0), (X.repeat(weights, axis=0), "mode", None, "abcd")
    )]  # fmt: skip
    assert_array_equal(learned[0].offset, learned[1].offset)
    assert learned[0].offset[0] == 1
    assert scaling.Scaling.learn(X, "mode", None, "abcd", np.where(X[:, 0] == 1, 1.0, 3.0)).offset[0] == 0
    holes = np.where((np.arange(100) > 60)[:, None] & (X == 1), np.nan, X)[:, :1]  # 58 of 63 are more than nine tenths
    assert scaling.Scaling.learn(holes, "mode", None, "a").offset[0] == 1


def test_with_mode_a_nearly_constant_column_leads_no_component(ames):
    X = ames.select_dtypes("number").drop(columns="Sale_Price")
    for shift, leads in (("min", True), ("mode", False)):
        top = NMFFeatures(5, shift=shift).fit(X).top_features(2)
        assert ("Kitchen_AbvGr" in set(top["terms"])) == leads
