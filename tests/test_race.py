"""Starts, races of them, and samples: the same table leads to the same minimum, and a good one."""

import warnings

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import NMF
from sklearn.decomposition._nmf import _initialize_nmf

from nmf_features import NMFFeatures, NonNegativeScaler, factorize, objective
from nmf_features.core import race
from nmf_features.core.compiling import compiled
from nmf_features.core.kernels import content_keys, descend_squares, strips_of
from nmf_features.core.projection import exact_scores
from nmf_features.core.race import COUNTS, OBSERVED, SQUARES, mean_units
from nmf_features.core.samples import Rows
from nmf_features.core.schedule import _distinct
from nmf_features.core.starts import GRAM_COLUMNS, leading_directions, nndsvda
from nmf_features.core.tables import MemoryTable
from nmf_features.core.watch import Watch


def scaled(name):
    frame = {"breast_cancer": load_breast_cancer, "digits": load_digits}.get(name)
    X = frame().data if frame else getattr(sm.datasets, name).load_pandas().data.to_numpy(dtype=float)
    return NonNegativeScaler().fit_transform(X[:, X.std(axis=0) > 0])


def dummies(levels, rows=30_000):
    share = 1 / np.arange(1, levels + 1)
    drawn = np.random.default_rng(0).choice(levels, rows, p=share / share.sum())
    return np.eye(levels)[drawn]


def gamma(n, p, k=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.gamma(0.7, size=(n, k)) @ rng.gamma(0.7, size=(k, p)) + 0.3 * rng.uniform(size=(n, p))


@pytest.mark.parametrize(
    ("name", "ks"),
    [
        ("fair", (4, 8)),
        ("randhie", (7, 8)),
        ("star98", (8,)),
        ("anes96", (8,)),
        ("digits", (6,)),
        ("breast_cancer", (5,)),
    ],
)
def test_the_order_of_rows_changes_nothing(name, ks):
    """All tables, 30 orders each: benchmarks/order.py."""
    X = scaled(name)
    for k in ks:
        first = NMFFeatures(k).fit(X)
        for seed in range(2):
            other = NMFFeatures(k).fit(X[np.random.default_rng(seed).permutation(len(X))])
            assert_allclose(other.objective_, first.objective_, rtol=3e-4)
            cosines = (other.components_ * first.components_).sum(axis=1) / (
                np.linalg.norm(other.components_, axis=1) * np.linalg.norm(first.components_, axis=1)
            )
            assert cosines.min() > 0.995


@pytest.mark.parametrize("levels", [20, 300])
def test_common_levels_of_dummies_are_found(levels):
    X = dummies(levels)
    for order in (slice(None), np.random.default_rng(0).permutation(len(X)), np.argsort(X @ np.arange(levels))):
        nmf = NMFFeatures(2, penalty=0).fit(X[order])
        assert sorted(nmf.components_.argmax(axis=1)) == [0, 1]
        squares = np.sort(np.square(NonNegativeScaler().fit_transform(X)).sum(axis=0))
        # tol is a share of the objective of all 300 columns, and .1 % of what two of them explain
        assert nmf.explained_.sum() * squares.sum() > 0.99 * squares[-2:].sum()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("name", "k"), [("star98", 8), ("anes96", 8), ("breast_cancer", 7), ("fair", 4)])
def test_the_minimum_is_no_worse_than_scikit_learns(name, k):
    """Many tables and starts: benchmarks/minima.py."""
    X = scaled(name)
    peer = NMF(k, init="nndsvda", tol=1e-6, max_iter=2000, random_state=0)
    theirs = objective(X, peer.fit_transform(X), peer.components_, penalty=0)
    assert factorize(X, k, penalty=0).objective <= 1.001 * theirs


def test_default_starts_are_the_same_whatever_the_seed():
    X = scaled("star98")
    one, two = (factorize(X, 6, random_state=seed) for seed in (0, 1))
    assert_array_equal(one.H, two.H)
    named = factorize(X, 6, init="nnsvd-lrc")
    assert one.objective <= named.objective * (1 + 1e-4)


def test_missing_cells_are_left_out_of_the_race():
    """With column means in their place it led to another minimum, .6 % higher."""
    X = scaled("modechoice")
    X[np.random.default_rng(1).random(X.shape) < 0.2] = np.nan
    f = factorize(X, 4, penalty=0, missing_values="ignore")
    assert f.objective < 787.5
    assert f.n_iter < 20  # it begins at the minimum, with exact scores


def test_a_rough_fit_is_that_of_one_start(monkeypatch):
    """Unless more are asked for."""
    starts = []
    monkeypatch.setattr(Watch, "__call__", lambda self, stage, *_, start=0, **__: starts.append(start) and False)
    X = scaled("anes96")
    for tol, n_init, least, most in ((1e-2, 1, 1, 1), (1e-4, 1, 2, 4), (1e-2, 2, 5, 99), (1e-5, 1, 3, 99)):
        starts.clear()
        factorize(X, 4, tol=tol, n_init=n_init)
        assert least <= sum(start > 0 for start in starts) <= most


@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler"])
def test_a_rough_fit_takes_what_the_race_found(loss):
    """Without a pass of its own, unless one would change much; all that a fit returns is there."""
    X = scaled("breast_cancer")[:300]
    fine = factorize(X, 3, loss=loss, penalty=0, tol=1e-7)
    for tol in (5e-5, 1e-3):
        rough = factorize(X, 3, loss=loss, penalty=0, tol=tol)
        assert rough.n_iter == len(rough.history) == 1
        assert rough.converged
        assert rough.kkt_residual <= np.sqrt(tol)
        assert_allclose(rough.objective, objective(X, rough.W, rough.H, 0, loss=loss), rtol=1e-9)
        assert_allclose(rough.history, rough.objective, rtol=1e-9)
        assert_allclose(rough.objective, fine.objective, rtol=10 * tol)
    assert factorize(X, 3, loss=loss, penalty=0).n_iter > 1
    twice = factorize(np.hstack([X, np.zeros((300, 1))]), 3, loss=loss, penalty=0, tol=5e-5)
    assert_array_equal(twice.H[:, -1], 0)


@pytest.mark.parametrize("tol", [1e-1, 1e-3, 1e-5])
def test_a_penalty_that_empties_least_squares_is_no_start_for_counts(tol):
    result = factorize(np.eye(8), 2, loss="kullback-leibler", penalty=0.3, tol=tol)
    assert result.objective < 27
    assert result.H.any(axis=0).all()


def test_more_starts_are_no_worse():
    X = scaled("anes96")
    one, three = (factorize(X, 7, n_init=n) for n in (1, 3))
    assert three.objective <= one.objective * (1 + 1e-4)


FIELDS = [(SQUARES, 2, np.float64), (SQUARES, 2, np.float32), (COUNTS, 1, np.float32), (OBSERVED, 2, np.float32)]


@pytest.mark.parametrize(
    ("field", "beta", "dtype", "missing", "penalty"),
    [
        *((*field, False, penalty) for field in FIELDS for penalty in (0, 0.01)),
        *((*field, True, 0) for field in FIELDS[2:]),  # a penalty would count by the share of each row
    ],
)
def test_descents_in_machine_code_are_those_of_the_loop(field, beta, dtype, missing, penalty):
    """The same start leads to the same objective; interpreted, the same loop is its own twin."""
    descend, single = field.descend, dtype == np.float32
    sums = single and field is SQUARES  # whose objective comes from sums, in which digits cancel
    X = (gamma(70, 9) + np.random.default_rng(4).random((70, 9))).astype(dtype)
    weights = np.random.default_rng(1).uniform(0.5, 2, 70).astype(dtype)
    start = (np.random.default_rng(2).uniform(size=(3, 9)) * X.mean(axis=0)).astype(dtype)
    n = weights.sum()
    strengths = (penalty * 9, penalty * n, 0.0, 0.0)
    if missing:
        X[np.random.default_rng(3).random(X.shape) < 0.2] = np.nan
    arguments = (*strips_of(X, weights), start, strengths, 500, 1e-9, np.zeros((3, 9)), np.inf, *field.options)
    _, value, coarse = compiled(descend)(*arguments)
    assert not coarse
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = dict(penalty=penalty, sample_weight=weights, loss=beta, tol=1e-9, max_iter=5000)
        options |= dict(missing_values="ignore") if missing else {}
        f = factorize(X.astype(float), 3, init=start, **options)
    assert_allclose(value, f.objective, rtol=race.SAME if sums else 1e-4)
    few = (*strips_of(X[:10], weights[:10]), start, strengths, 8, 0.0, np.zeros((3, 9)), np.inf, *field.options)
    slow_H, slow, _ = descend(*few)
    fast_H, fast, _ = compiled(descend)(*few)
    assert_allclose(
        slow, fast, rtol=1e-3 if sums else 1e-4 if single else 1e-9
    )  # small differences grow from pass to pass
    assert_allclose(slow_H, fast_H, rtol=0.01 if single else 1e-5, atol=1e-3 * fast_H.max() if single else 1e-9)


def test_a_fit_too_good_for_single_precision_is_found_in_double_precision():
    """Cells far from zero leave little beside their squares."""
    X, weights, strengths = 1e3 + gamma(60, 8), np.ones(60), (0.0, 0.0, 0.0, 0.0)
    start = np.random.default_rng(0).uniform(size=(3, 8))
    [(value, H)] = SQUARES.run(X, weights, strengths, [start], 1, 1, 1, 1e-6, Watch())
    half = mean_units(X, weights, strengths)[0]
    assert_allclose(value * 16.0**half, objective(X, exact_scores(X, H), H, penalty=0), rtol=0.01)


@pytest.mark.parametrize(
    ("n", "missing", "loss", "of_all_rows"),
    [
        (2000, False, "frobenius", [True]),  # 40,000 cells
        (2100, False, "frobenius", [False, True]),
        (2000, False, "kullback-leibler", [True, True]),  # minima of least squares first
        (1200, True, "frobenius", [True, True]),  # 24,000 cells, with column means in place of missing ones first
        (1300, True, "frobenius", [False, False, True]),
    ],
)
def test_tables_of_medium_size_are_raced_on_all_rows_at_once(monkeypatch, n, missing, loss, of_all_rows):
    X, raced, run = gamma(n, 20), [], race.Field.run
    if missing:
        X[np.random.default_rng(0).uniform(size=X.shape) < 0.1] = np.nan

    def told(self, X, *others):
        raced.append(len(X) == n)
        return run(self, X, *others)

    monkeypatch.setattr(race.Field, "run", told)
    factorize(X, 3, loss=loss, missing_values="ignore")
    assert raced == of_all_rows


def test_strips_hold_all_rows_where_lines_of_the_cache_begin():
    for n in (1, 16, 255, 256, 257, 1030):
        for dtype in (np.float64, np.float32):
            X, weights = gamma(n, 7).astype(dtype), np.arange(1.0, n + 1)
            strips, v = strips_of(X, weights)
            rows = strips.transpose(0, 2, 1).reshape(-1, strips.shape[1])
            assert_array_equal(rows[:n, :7], X)
            assert_array_equal(v.ravel()[:n], weights.astype(dtype))
            assert not rows[n:].any()
            assert not rows[:, 7:].any()
            assert not v.ravel()[n:].any()
            assert strips.ctypes.data % 64 == 0
            assert strips.strides[1] % 64 == 0


def test_an_exact_fit_that_rounding_takes_below_zero_is_a_minimum_too():
    X = np.array([[0.679932, -0.653829], [1.019597, -0.129614], [0.019807, 0.783975]])
    nmf = NMFFeatures(2, penalty=0, loss=1.5).fit(X)
    assert abs(nmf.objective_) < 1e-6


def test_a_descent_that_leads_to_a_known_minimum_stops_on_the_way():
    X = gamma(80, 8)
    start = np.random.default_rng(0).uniform(size=(3, 8))
    arguments = (*strips_of(X, np.ones(80)), start, (0.0, 0.0, 0.0, 0.0), 1000, 1e-12)
    H, value, _ = compiled(descend_squares)(*arguments, np.zeros_like(start), np.inf)
    again, known, _ = compiled(descend_squares)(*arguments, H, value)
    assert known == value
    assert not np.array_equal(again, H)


@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler"])
@pytest.mark.parametrize("data", ["yes or no", "counts"])
def test_the_order_of_rows_of_whole_numbers_changes_nothing(data, loss):
    """Their sums with regular factors are often the same for different rows."""
    rng = np.random.default_rng(0)
    X = rng.poisson(1, size=(3000, 12)) if data == "counts" else rng.uniform(size=(3000, 12)) < 0.4
    X = X.astype(float)
    first = factorize(X, 6, loss=loss)
    for seed in range(2):
        other = factorize(np.random.default_rng(seed).permutation(X), 6, loss=loss)
        assert_allclose(other.objective, first.objective, rtol=1e-6)


def test_different_rows_have_different_places_in_the_order():
    X = np.unique(np.random.default_rng(0).integers(0, 2, size=(3000, 10)).astype(float), axis=0)
    order = Rows(MemoryTable(X)).all()[0]
    moved = np.random.default_rng(1).permutation(len(X))
    assert_array_equal(X[moved][Rows(MemoryTable(X[moved])).all()[0]], X[order])


@pytest.mark.parametrize(
    "change",
    [
        {"penalty": 3e3},
        {"penalty": 1e4, "l1_ratio": 0.5},
        {"penalty": 1e10, "l1_ratio": 0},
        {"row": 1e10},
        {"column": 1e8},
        {"cells": 1e-38},
        {"cells": 1e30},
        {"weights": 1e40},
        {"weights": 1e-50},
        {"weight": 1e100},
    ],
    ids=str,
)
def test_races_in_single_precision_take_every_size(change):
    """They are run in units in which nothing overflows: no worse than from one start, and as soon done."""
    rng = np.random.default_rng(0)
    X = rng.poisson(5 * rng.gamma(0.5, size=(80, 4)) @ rng.gamma(0.5, size=(4, 12))).astype(float)
    weights = np.full(80, change.get("weights", 1.0))
    weights[:5] *= change.get("weight", 1.0)
    X[:1] *= change.get("row", 1.0)
    X[:, :1] *= change.get("column", 1.0)
    X *= change.get("cells", 1.0)
    settings = {"penalty": change.get("penalty", 0), "l1_ratio": change.get("l1_ratio", 1), "sample_weight": weights}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Components|penalty=.* empties")
        ours = factorize(X, 3, loss="kullback-leibler", **settings)
        one = factorize(X, 3, loss="kullback-leibler", init="nndsvda", **settings)
    assert ours.objective <= one.objective * (1 + 1e-3)
    assert ours.n_iter <= 100


@pytest.mark.parametrize("init", ["auto", "nnsvd-lrc", "random"])
@pytest.mark.parametrize("make", [np.array, sparse.csr_array])
def test_the_order_of_the_rows_of_a_wide_table_changes_nothing(make, init, monkeypatch):
    """Its rows become columns, whose order is that of the keys of the transpose's rows."""
    X = np.random.default_rng(0).uniform(size=(150, 400)) * (np.random.default_rng(1).uniform(size=(150, 400)) < 0.4)
    if make is sparse.csr_array:
        monkeypatch.setattr(race, "MOST_CELLS", 1000)  # as if there were too many columns for a race
    first = factorize(make(X), 5, init=init, random_state=0)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(X))
        other = factorize(make(X[order]), 5, init=init, random_state=0)
        assert_allclose(other.objective, first.objective, rtol=1e-10)
        assert_allclose(other.W, first.W[order], atol=1e-8 * first.W.max())


LEVELS = np.hstack([np.random.default_rng(seed).permutation(np.repeat(np.eye(5), 60, axis=0)) for seed in range(4)])
ZEROS_AND_ONES = (np.random.default_rng(0).uniform(size=(900, 6)) < 0.5).astype(float)


@pytest.mark.parametrize(
    ("X", "k", "options"),
    [
        (scaled("anes96"), 7, {}),
        (scaled("breast_cancer"), 6, {}),  # raced on some of its rows, at first
        (scaled("star98"), 4, {"loss": "kullback-leibler", "penalty": 0}),
        (np.hstack([ZEROS_AND_ONES, 1 - ZEROS_AND_ONES, ZEROS_AND_ONES[::-1]]), 5, {}),  # sums of columns are equal
        (LEVELS, 5, {}),  # and so are sums of rows
        (gamma(100, 300, 12), 8, {}),
        (sparse.random_array((2000, 200), density=0.05, rng=0, format="csr"), 6, {}),
        (sparse.random_array((2000, 200), density=0.05, rng=0, format="csr"), 6, {"init": "nndsvda"}),
    ],
    ids=["small", "sampled", "counts", "equal sums", "levels", "wide", "sparse", "named start"],
)
def test_the_order_of_the_columns_changes_nothing(X, k, options):
    first = factorize(X, k, **options)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(X.shape[1])
        other = factorize(X[:, order], k, **options)
        assert_allclose(other.objective, first.objective, rtol=1e-7)
        assert_allclose(other.H, first.H[:, order], atol=1e-3 * first.H.max())


@pytest.mark.parametrize("make", [np.array, sparse.csr_array, np.asfortranarray])
def test_samples_are_of_rows_not_of_places(make):
    X = gamma(5000, 7)
    X[:50] = X[50]  # equal rows
    moved = np.random.default_rng(0).permutation(5000)
    rows, weights = Rows(MemoryTable(make(X))).sample(300)
    others, other_weights = Rows(MemoryTable(make(X[moved]))).sample(300)
    assert_array_equal(X[moved][others], X[rows])
    assert_array_equal(other_weights, weights)
    assert_array_equal(X[moved][Rows(MemoryTable(make(X[moved]))).all()[0]], X[Rows(MemoryTable(make(X))).all()[0]])


def test_a_row_of_weight_two_is_two_rows_in_a_sample():
    X = gamma(3000, 5)
    weights = 1.0 + (np.arange(3000) % 3 == 0)
    twice = np.repeat(np.arange(3000), weights.astype(int))
    rows, of_rows = Rows(MemoryTable(X, weights)).sample(200)
    copies, of_copies = Rows(MemoryTable(X[twice])).sample(200)
    together = np.bincount(twice[copies], of_copies, minlength=3000)
    assert_allclose(np.bincount(rows, of_rows, minlength=3000), together, rtol=1e-9)


def test_sums_over_samples_are_near_those_over_all_rows():
    X = np.random.default_rng(0).lognormal(0, 2, size=(20_000, 6))  # a few rows hold most of the sum of squares
    rows, weights = Rows(MemoryTable(X)).sample(2000)
    assert_allclose(weights.sum(), len(X), rtol=0.05)
    assert_allclose(weights @ np.square(X[rows]).sum(axis=1), np.square(X).sum(), rtol=0.02)
    assert np.isin(np.square(X).sum(axis=1).argsort()[-20:], rows).all()


def test_keys_depend_on_nothing_but_the_cells_of_a_row():
    X = gamma(37, 5)
    X[3, 2] = np.nan
    factors, keys = np.arange(1.0, 6), []
    for function, at in (
        (compiled(content_keys), slice(None)),
        (compiled(content_keys), slice(3, 8)),
        (content_keys, slice(None)),
    ):
        key, size = np.zeros(len(X[at])), np.zeros(len(X[at]))
        function(np.ascontiguousarray(X[at]), factors, 2.0, key, size)
        keys.append(key)
        assert_allclose(size, np.nansum(np.square(X[at]), axis=1))
    assert_array_equal(keys[0], keys[2])
    assert_array_equal(keys[0][3:8], keys[1])


def test_directions_of_many_columns_are_singular_vectors():
    X = gamma(400, GRAM_COLUMNS + 50, k=6)
    squares, V = leading_directions(X, 4)
    _, singular, Vt = np.linalg.svd(X, full_matrices=False)
    assert_allclose(squares, singular[:4] ** 2, rtol=1e-3)
    assert (np.abs((V.T * Vt[:4]).sum(axis=1)) > 0.99).all()


def test_nndsvda_is_scikit_learns():
    X = gamma(60, 9, k=5)

    expected = _initialize_nmf(X, 4, init="nndsvda", random_state=0)[1]
    assert_allclose(nndsvda(X, 4), expected, rtol=1e-4, atol=1e-6)


def test_loadings_that_lead_to_one_minimum_are_followed_once():
    H = np.random.default_rng(0).gamma(0.5, size=(3, 9))
    H[2] = 0
    other = np.random.default_rng(1).gamma(0.5, size=(3, 9))
    assert [h is H or h is other for h in _distinct([H, H[[1, 0, 2]] * [[2.0], [3], [1]], other])] == [True, True]
