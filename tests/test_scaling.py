"""Shift and scale."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import skops.io
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from scipy import sparse
from sklearn.utils.estimator_checks import parametrize_with_checks

from nmf_features import NMFFeatures, NonNegativeScaler, scaling
from nmf_features.scaling import PARAMETERS, SCALES


@parametrize_with_checks(
    [NonNegativeScaler(), NonNegativeScaler(shift="split", scale="max"), NonNegativeScaler(clip=0.1)]
)
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


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize(("shift", "scale"), [("min", "std"), ("min", "mean"), ("split", "std")])
def test_the_order_of_the_rows_decides_no_bit(shift, scale, clip):
    """The last bits of a sum of rows hang on their order, and a fit of many minima on the last bits."""
    X = np.random.default_rng(0).gamma(1, size=(500, 20))
    first = NonNegativeScaler(shift=shift, scale=scale, clip=clip).fit(X).scaling_
    for seed in range(5):
        rows = np.random.default_rng(seed).permutation(X)
        other = NonNegativeScaler(shift=shift, scale=scale, clip=clip).fit(rows).scaling_
        for name in ("offset", "factor", "lower", "upper"):
            assert_array_equal(other[name], first[name])


def test_scalers_that_were_saved_under_the_first_path_are_found():
    X = data()
    scaler = NonNegativeScaler().fit(X)
    saved = pickle.dumps(scaler, protocol=0).replace(b"nmf_features.scaler\n", b"nmf_features.scaling\n")
    assert b"nmf_features.scaling\n" in saved
    assert_array_equal(pickle.loads(saved).transform(X), scaler.transform(X))
    with pytest.raises(AttributeError, match="has no attribute 'NoSuchScaler'"):
        scaling.NoSuchScaler  # noqa: B018


# Clipping


def bounds(X, clip):
    """Return the quantiles of the columns by NumPy's definition; missing cells do not count."""
    return np.nanquantile(X, [clip, 1 - clip], axis=0, method="inverted_cdf")


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scale", [*SCALES, None])
@pytest.mark.parametrize("shift", SHIFTS)
def test_clipped_columns_are_scaled_as_if_they_had_come_so(shift, scale, dtype):
    X, new = data().astype(dtype), (2 * data(seed=1) - 3 * (shift is not None)).astype(dtype)
    lower, upper = bounds(X, 0.03)
    if shift is None:  # zeros stay zeros
        lower[:] = -np.inf
    clipped = NonNegativeScaler(shift=shift, scale=scale, clip=0.03)
    plain = NonNegativeScaler(shift=shift, scale=scale).fit(np.clip(X, lower, upper))
    assert_array_equal(clipped.fit_transform(X), plain.transform(np.clip(X, lower, upper)))
    assert_array_equal(clipped.transform(X), clipped.fit_transform(X))
    assert_array_equal(clipped.transform(new), plain.transform(np.clip(new, lower, upper)))
    assert clipped.transform(new).dtype == dtype
    for name, value in {"lower": lower, "upper": upper, "minimum": X.min(axis=0), "maximum": X.max(axis=0)}.items():
        assert_array_equal(clipped.scaling_[name], value, err_msg=name)


@pytest.mark.parametrize("shift", SHIFTS)
def test_clipped_values_come_back_within_the_bounds(shift):
    X = data()
    scaler = NonNegativeScaler(shift=shift, clip=0.03)
    back, (lower, upper) = scaler.inverse_transform(scaler.fit_transform(X)), bounds(X, 0.03)
    if shift is None:
        lower[:] = 0
    assert_allclose(back, np.clip(X, lower, upper), rtol=1e-12)
    far = scaler.inverse_transform(1e3 * scaler.transform(X))  # as fitted values may be
    assert_array_equal(far, np.clip(far, lower, upper))


def test_columns_with_equal_quantiles_are_not_clipped():
    """Else a dummy would be all zeros, or all ones, and a count that is nearly always 5 be constant."""
    X = np.zeros((1000, 4))
    X[:3, 0], X[:, 1], X[:3, 1], X[:, 2], X[:3, 2], X[:, 3] = 1, 1, 0, 5, 7, np.arange(1000)
    for shift in SHIFTS:
        for make in [np.asarray, sparse.csr_array] if shift is None else [np.asarray]:
            learned = NonNegativeScaler(shift=shift, clip=0.01).fit(make(X)).scaling_
            assert_array_equal(learned["upper"], [np.inf, np.inf, np.inf, 989])
            assert_array_equal(learned["lower"], [-np.inf] * 3 + [9 if shift else -np.inf])
            assert not learned["constant"].any()


def test_out_of_range_speaks_of_what_was_seen_before_clipping():
    X = pd.DataFrame({"a": np.arange(100.0), "b": 1.0 + np.arange(100) % 7})
    for choice in ("warn", "raise"):  # values that were seen, if only to be cut off, and values above
        scaler = NonNegativeScaler(clip=0.1, out_of_range=choice).fit(X)
        assert scaler.transform(pd.DataFrame({"a": [0.0, 1, 2000], "b": [1.0, 1, 1]}))["a"].tolist()[:2] == [0, 0]
    new = pd.DataFrame({"a": [-1.0, 3], "b": [1.0, -5]})
    with pytest.raises(ValueError, match=r"seen in training .*\{'a': 1, 'b': 1\}"):
        scaler.transform(new)
    with pytest.warns(UserWarning, match=r"\{'a': 1, 'b': 1\}"):
        warned = scaler.set_params(out_of_range="warn").transform(new)
    assert_frame_equal(warned, scaler.set_params(out_of_range="clip").transform(new))
    zero = NonNegativeScaler(shift=None, clip=0.1, out_of_range="raise").fit(X)
    zero.transform(pd.DataFrame({"a": [0.0], "b": [0.5]}))  # the bound is 0
    with pytest.raises(ValueError, match=r"\{'b': 1\}"):
        zero.transform(pd.DataFrame({"a": [0.0], "b": [-0.5]}))


@pytest.mark.parametrize("scale", [*SCALES, None])
def test_clipped_sparse_data_as_dense(scale):
    X = np.random.default_rng(0).poisson(2, (300, 5)) * [1.0, 0.3, 7, 1, 1]
    X[:, 3] += 1  # no zeros
    X[4:, 4] = 0  # too few others
    S, scaler = sparse.csr_array(X), NonNegativeScaler(shift=None, scale=scale, clip=0.02)
    dense = scaler.fit_transform(X)
    learned, Z = scaler.scaling_, scaler.fit_transform(S)
    assert_allclose(Z.toarray(), dense, rtol=1e-12)
    for name in ("lower", "upper"):
        assert_array_equal(scaler.scaling_[name], learned[name])
    assert np.isfinite(learned["upper"]).tolist() == [True, True, True, True, False]
    assert_array_equal(Z.indices, S.indices)
    back = scaler.inverse_transform(2 * Z)
    assert sparse.issparse(back)
    assert (back.toarray() <= learned["upper"]).all()
    if scale != "robust":
        assert_allclose(scaler.inverse_transform(Z).toarray(), np.minimum(X, learned["upper"]), rtol=1e-12)


@pytest.mark.filterwarnings("ignore:NMF stopped")
def test_missing_cells_do_not_count_in_the_quantiles():
    X = data()
    X[np.random.default_rng(1).uniform(size=X.shape) < 0.2] = np.nan
    learned = NMFFeatures(2, clip=0.05, missing_values="ignore").fit(X).scaling_
    assert_array_equal([learned["lower"], learned["upper"]], bounds(X, 0.05))
    low = np.nanquantile(X, 0.3, axis=0)
    holes = np.where(low > X, 0, X)  # these zeros count, unless they are missing too
    zeros = NMFFeatures(2, shift=None, clip=0.05, missing_values="ignore").fit(sparse.csr_array(holes)).scaling_
    assert_array_equal(zeros["upper"], bounds(holes, 0.05)[1])
    none = NMFFeatures(2, shift=None, clip=0.05, missing_values="unstored").fit(sparse.csr_array(holes)).scaling_
    assert_array_equal(none["upper"], bounds(np.where(holes == 0, np.nan, holes), 0.05)[1])
    assert (none["upper"] != zeros["upper"]).any()


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array])
def test_imputed_values_lie_within_the_bounds(make):
    rng = np.random.default_rng(0)
    X = rng.gamma(0.3, 1, (200, 2)) @ rng.gamma(1, 1, (2, 6))
    missing = rng.uniform(size=X.shape) < 0.2
    holes = np.where(missing, np.nan, X)
    nmf = NMFFeatures(2, shift=None, clip=0.1, missing_values="ignore").fit(make(holes))
    full, upper = nmf.impute(make(holes)), nmf.scaling_["upper"]
    full = full.toarray() if sparse.issparse(full) else full
    assert (full[missing] <= np.broadcast_to(upper, X.shape)[missing]).all()
    assert_array_equal(full[~missing], X[~missing])  # also those that lie outside
    assert (X[~missing] > np.broadcast_to(upper, X.shape)[~missing]).any()


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize(("seed", "clip"), [(113, 0.4), (573, 0.25), (1164, 0.2)])
def test_the_order_of_rows_with_weights_decides_no_bound(make, seed, clip):
    """Weights of tied values sum to this or that in the last bit, here at the very quantile."""
    rng = np.random.default_rng(seed)
    X, weights, found = rng.integers(0, 4, (60, 1)).astype(float), rng.integers(1, 10, 60) / 10, set()
    for k in range(20):
        rows = np.random.default_rng(k).permutation(60)
        learned = NonNegativeScaler(shift=None, clip=clip).fit(make(X[rows]), sample_weight=weights[rows]).scaling_
        found.add(learned["upper"][0])
    assert len(found) == 1


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array])
def test_quantiles_of_weighted_rows(make):
    X, weights = np.where(data() > np.median(data(), axis=0), data(), 0), np.arange(200) % 3
    found = NonNegativeScaler(shift=None, clip=0.04).fit(make(X), sample_weight=weights).scaling_
    twice = NonNegativeScaler(shift=None, clip=0.04).fit(make(np.repeat(X, weights, axis=0))).scaling_
    assert_array_equal(found["upper"], twice["upper"])
    assert_array_equal(twice["upper"], bounds(np.repeat(X, weights, axis=0), 0.04)[1])


@pytest.mark.parametrize("c", [1e-300, 5e-324, 1e300])
def test_extreme_values_are_clipped(c):
    X = np.concatenate([np.arange(10.0), [1e7]])[:, None] * c
    for shift in SHIFTS:
        scaler = NonNegativeScaler(shift=shift, clip=0.1)
        Z = scaler.fit_transform(X)
        assert np.isfinite(Z).all()
        assert_allclose(scaler.inverse_transform(Z), np.clip(X, c if shift else 0, 9 * c), rtol=1e-12)
    X[0], X[-1] = -1.7e308, 1.7e308  # a range that overflows, and is cut off
    assert NonNegativeScaler(clip=0.2).fit_transform(X).max() < 10


def test_one_row_and_rows_that_may_not_be_written_to():
    assert not NonNegativeScaler(clip=0.1).fit_transform(np.ones((1, 3))).any()
    X = data()
    X.setflags(write=False)
    assert_array_equal(
        NonNegativeScaler(clip=0.1).fit_transform(X), NonNegativeScaler(clip=0.1).fit_transform(X.copy())
    )


@pytest.mark.parametrize("clip", [0, 0.5, 1, -0.1, True, np.nan, "0.1"])
def test_clip_is_a_share_below_a_half(clip):
    for estimator in (NonNegativeScaler(clip=clip), NMFFeatures(clip=clip)):
        with pytest.raises(ValueError, match=r"'clip' parameter of .* in the range \(0\.0, 0\.5\) or None"):
            estimator.fit(data())


def test_models_from_before_there_was_clip():
    X, new = data(), data(seed=1)
    for estimator in (NonNegativeScaler(), NMFFeatures(2)):
        expected = estimator.fit(X).transform(new)
        state = dict(estimator.__getstate__())
        del state["clip"]
        state["scaling_"] = {name: value for name, value in state["scaling_"].items() if name not in ("lower", "upper")}
        old = type(estimator).__new__(type(estimator))
        old.__dict__.update(state)
        trusted = [f"{type(estimator).__module__}.{type(estimator).__name__}"]
        for copy in (pickle.loads(pickle.dumps(old)), skops.io.loads(skops.io.dumps(old), trusted=trusted)):
            assert copy.clip is None
            assert_array_equal(copy.transform(new), expected)
            assert_array_equal(copy.inverse_transform(expected), estimator.inverse_transform(expected))


# What nearly all rows have


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
