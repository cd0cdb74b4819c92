"""Row weights: a weight of 2 counts a row twice, 0 leaves it out, wherever rows are summed."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from numpy.testing import assert_allclose
from scipy import sparse
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline

from nmf_features import NMFFeatures, NonNegativeScaler, factorize, objective
from nmf_features.core.alternating import HALS
from nmf_features.core.blocks import block_of

TIGHT = dict(tol=1e-14, max_iter=20_000)  # inner loops stop by what a strip of rows does: only minima can be compared
WEIGHTS = np.random.default_rng(0).integers(0, 4, 80).astype(float)


def table():
    """Three components with zeros, so that the minimum is sharp."""
    rng = np.random.default_rng(1)
    W, H = rng.gamma(0.5, 1, (80, 3)) * rng.integers(0, 2, (80, 3)), np.kron(np.eye(3), [1.0, 0.5, 2])[:, :7]
    return pd.DataFrame(W @ (H + 0.1) + 0.2 * rng.uniform(size=(80, 7))).rename(columns=lambda j: f"c{j}")


def repeated(X, weights):
    at = np.repeat(np.arange(len(weights)), weights.astype(int))
    return X.iloc[at] if isinstance(X, pd.DataFrame) else X[at]


@pytest.mark.parametrize("scale", ["std", "max", "mean", "robust", None])
@pytest.mark.parametrize("shift", ["min", "split", None])
def test_scaler_sees_repeated_rows(shift, scale):
    X = table() if shift is None else table() - 0.5
    weighted = NonNegativeScaler(shift=shift, scale=scale).fit(X, sample_weight=WEIGHTS)
    twice = NonNegativeScaler(shift=shift, scale=scale).fit(repeated(X, WEIGHTS))
    for name, value in twice.scaling_.items():
        assert_allclose(weighted.scaling_[name], value, rtol=1e-12, err_msg=name)
    assert not np.allclose(weighted.scaling_["factor"], NonNegativeScaler(shift=shift).fit(X).scaling_["factor"])


@pytest.mark.parametrize("scale", ["std", "mean", "robust"])
def test_sparse_scaler_sees_repeated_rows(scale):
    X = sparse.csr_array(np.where(table() > 1, table(), 0))
    weighted = NonNegativeScaler(shift=None, scale=scale).fit(X, sample_weight=WEIGHTS)
    twice = NonNegativeScaler(shift=None, scale=scale).fit(repeated(X, WEIGHTS))
    assert_allclose(weighted.scaling_["factor"], twice.scaling_["factor"], rtol=1e-12)


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("init", ["nnsvd-lrc", "random"])
@pytest.mark.parametrize(("penalty", "l1_ratio"), [(0, 1), (0.01, 1), (0.01, 0), (0.01, 0.5)])
def test_factorize_sees_repeated_rows(penalty, l1_ratio, init, make):
    X = make(table().to_numpy())
    settings = dict(penalty=penalty, l1_ratio=l1_ratio, init=init, random_state=0, **TIGHT)
    weighted = factorize(X, 3, sample_weight=WEIGHTS, **settings)
    twice = factorize(repeated(X, WEIGHTS), 3, **settings)
    assert_allclose(weighted.objective, twice.objective, rtol=1e-8)
    if penalty:  # then the minimum is sharp: equal objectives to 1e-14 are equal factors to about 1e-7
        assert_allclose(weighted.H, twice.H, rtol=0, atol=1e-6 * twice.H.max())
        assert_allclose(repeated(weighted.W, WEIGHTS), twice.W, rtol=0, atol=1e-6 * twice.W.max())
    assert weighted.W.shape == (80, 3)
    assert weighted.W[WEIGHTS == 0].any()
    assert (np.diff(weighted.history) <= 0).all()


def test_sums_over_rows_see_repeated_rows():
    X, v = table().to_numpy(), WEIGHTS[WEIGHTS > 0]
    W, hals = np.random.default_rng(0).uniform(size=(len(v), 3)), HALS()
    weighted = hals.statistics(block_of(X[WEIGHTS > 0], v), np.ascontiguousarray(W.T), None)
    twice = hals.statistics(block_of(repeated(X, WEIGHTS)), np.ascontiguousarray(repeated(W, v).T), None)
    for a, b in zip(weighted, twice, strict=True):
        assert_allclose(a, b, rtol=1e-12)


def test_weights_in_the_objective():
    X, rng = table().to_numpy(), np.random.default_rng(0)
    W, H = rng.uniform(size=(80, 2)), rng.uniform(size=(2, 7))
    for l1_ratio in (0, 0.5, 1):
        expected = objective(repeated(X, WEIGHTS), repeated(W, WEIGHTS), H, 0.01, l1_ratio)
        assert_allclose(objective(X, W, H, 0.01, l1_ratio, sample_weight=WEIGHTS), expected)
        assert_allclose(objective(sparse.csr_array(X), W, H, 0.01, l1_ratio, sample_weight=WEIGHTS), expected)


def test_features_see_repeated_rows():
    X = table() - 0.5
    weighted = NMFFeatures(3, **TIGHT).fit(X, sample_weight=WEIGHTS)
    twice = NMFFeatures(3, **TIGHT).fit(repeated(X, WEIGHTS))
    for name in ("components_", "component_scales_", "explained_", "column_means_", "objective_"):
        assert_allclose(getattr(weighted, name), getattr(twice, name), rtol=1e-5, atol=1e-6, err_msg=name)
    assert_allclose(weighted.transform(X), twice.transform(X), rtol=1e-5, atol=1e-5)
    both = NMFFeatures(3, **TIGHT).fit_transform(X, sample_weight=WEIGHTS)
    pd.testing.assert_frame_equal(both, weighted.transform(X))
    positive = np.where(WEIGHTS, WEIGHTS, 1)  # no row left out: the scores are those of the fit
    nmf = NMFFeatures(3)
    pd.testing.assert_frame_equal(nmf.fit_transform(X, sample_weight=positive), nmf.transform(X))
    assert_allclose(weighted.score(X, sample_weight=WEIGHTS), twice.score(repeated(X, WEIGHTS)), rtol=1e-9)
    assert weighted.score(X, sample_weight=WEIGHTS) != weighted.score(X)


def test_all_weights_times_a_constant_change_nothing():
    X = table()
    one, seven = (NMFFeatures(3, init="nnsvd-lrc", **TIGHT).fit(X, sample_weight=c * (WEIGHTS + 1)) for c in (1, 7))
    assert_allclose(seven.components_, one.components_, rtol=0, atol=1e-6)


def test_equal_weights_are_no_weights():
    X = table()
    none, ones = NMFFeatures(3).fit(X), NMFFeatures(3).fit(X, sample_weight=np.ones(80))
    assert_allclose(ones.components_, none.components_, rtol=1e-9, atol=1e-12)


def test_sampled_and_wide_tables_take_weights():
    rng = np.random.default_rng(0)
    X = rng.gamma(0.5, 1, (4000, 3)) @ rng.gamma(0.5, 1, (3, 9)) + 0.1 * rng.uniform(size=(4000, 9))
    v = rng.uniform(0.5, 2, 4000)
    tall = factorize(X, 3, sample_weight=v, tol=1e-8)
    unsampled = factorize(X, 3, sample_weight=v, tol=1e-8, init=tall.H)
    assert_allclose(tall.objective, unsampled.objective, rtol=1e-5)
    wide, again = factorize(X[:9].T[:, :9], 2, **TIGHT), factorize(X[:9].T[:, :9], 2, sample_weight=np.ones(9), **TIGHT)
    assert_allclose(wide.objective, again.objective, rtol=1e-9)
    few = X[:5] @ rng.uniform(size=(9, 30))  # 5 x 30
    assert_allclose(
        factorize(few, 1, sample_weight=[2, 1, 1, 3, 1], **TIGHT).objective,  # k = 1: no other minimum
        factorize(np.repeat(few, [2, 1, 1, 3, 1], axis=0), 1, **TIGHT).objective,
        rtol=1e-9,
    )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.zeros(80), "(?i)sample.weight.*zero"),
        (-np.ones(80), "Negative values in data passed to `sample_weight`"),
        (np.ones(79), "sample_weight.shape"),
        (np.full(80, np.nan), "NaN"),
    ],
)
def test_bad_weights(weights, message):
    X = table()
    for call in (
        NMFFeatures(2).fit,
        NMFFeatures(2).fit_transform,
        NMFFeatures(2).fit(X).score,
        NonNegativeScaler().fit,
    ):
        with pytest.raises(ValueError, match=message):
            call(X, sample_weight=weights)
    with pytest.raises(ValueError, match=message):
        factorize(X.to_numpy(), 2, sample_weight=weights)


def test_metadata_routing_hands_weights_on():
    X, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
    v = np.random.default_rng(0).integers(1, 4, len(X))
    with sklearn.config_context(enable_metadata_routing=True):
        model = Pipeline(
            [
                ("nmf", NMFFeatures(3).set_fit_request(sample_weight=True)),
                ("line", LinearRegression().set_fit_request(sample_weight=True)),
            ]
        ).fit(X, y, sample_weight=v)
    assert_allclose(model["nmf"].components_, NMFFeatures(3).fit(X, sample_weight=v).components_, rtol=1e-12)
