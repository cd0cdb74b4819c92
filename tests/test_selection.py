"""Choosing components and penalty, and stability: known answers, hidden cells that stay hidden, and messages."""

import io
import os
import signal
import subprocess
import sys
import time
import warnings
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut

from nmf_features import NegativeBinomial, NMFFeatures, factorize, penalty_path, select_components, stability
from nmf_features.core.losses import LOSSES
from nmf_features.selection import runs
from nmf_features.selection.components import _new_loadings
from nmf_features.selection.hidden import Split, draw_cells, draw_splits, hide
from nmf_features.selection.stability import matched_with

# Where a test is about something else, few components are tried, and the choice may be the edge.
pytestmark = [
    pytest.mark.filterwarnings("ignore:n_components=. is the:UserWarning"),
    pytest.mark.filterwarnings("ignore:No number of components:UserWarning"),
    pytest.mark.filterwarnings("ignore:Constant columns:UserWarning"),
]


def generated(seed, k, n=300, p=40):
    """A table of k gamma-distributed components, with normal noise of a tenth of its deviation, cut off at zero."""
    rng = np.random.default_rng(seed)
    X = rng.gamma(1, size=(n, k)) @ rng.gamma(1, size=(k, p))
    return np.maximum(X + 0.1 * X.std() * rng.normal(size=X.shape), 0)


@pytest.fixture(scope="module")
def wine():
    return load_wine(as_frame=True).data


@pytest.fixture(scope="module")
def cancer():
    return load_breast_cancer(as_frame=True).data


# The number of components


@pytest.mark.parametrize("k", [2, 3, 5, 10])
def test_the_true_number_is_found(k):
    # With shift="min" the minima that are subtracted are a component of their own.
    params = {"shift": None, "n_splits": 3}
    found = [select_components(generated(s, k), range(1, 13), random_state=s, **params).n_components for s in range(10)]
    assert found.count(k) >= 9


def test_the_choice_is_the_smallest_within_one_standard_error_of_the_best(wine):
    found = select_components(wine, range(1, 7), random_state=0)
    errors = found.table.pivot(index="split", columns="n_components", values="error").to_numpy()
    best = errors.mean(axis=0).argmin()
    difference = errors - errors[:, [best]]
    allowed = difference.std(axis=0, ddof=1) / np.sqrt(5)
    assert found.n_components == 1 + np.flatnonzero(difference.mean(axis=0) <= allowed)[0]
    assert_allclose(found.summary["error"], errors.mean(axis=0), rtol=1e-14)
    assert_allclose(found.summary["standard_error"], allowed, rtol=1e-12)
    assert found.table.columns.tolist() == ["n_components", "split", "error"]
    assert len(found.table) == 6 * 5


def test_one_standard_error_and_no_more(monkeypatch, wine):
    """Errors put in by hand: two components are 0.9 standard errors of the difference worse than four, one is 1.1."""
    errors = {1: 1.1, 2: 0.9, 3: 2.0, 4: 0.0}
    noise = iter(np.repeat([-1.0, 1, -1, 1], 4))  # split by split; its standard error over 4 splits is 2 / sqrt(12)

    def see(split, fit, penalty=None):
        k, sign = len(fit.H), next(noise)
        return 10 + (errors[k] * 2 / np.sqrt(12) + sign if k < 4 else 0)

    monkeypatch.setattr(Split, "see", see)
    found = select_components(wine, range(1, 5), n_splits=4, random_state=0, n_jobs=1, tol=1e-6)
    assert_allclose(found.summary["standard_error"][:3], 2 / np.sqrt(12))
    assert found.n_components == 2


def test_each_fit_goes_on_from_the_one_before(monkeypatch, wine):
    fit, seen = runs.fit, []

    def watched(model, problem, k, start, *others):
        seen.append((start, fit(model, problem, k, start, *others)))
        return seen[-1][1]

    monkeypatch.setattr(runs, "fit", watched)
    select_components(wine, [1, 2, 4], n_splits=2, random_state=0, n_jobs=1)
    for (_, before), (then, _) in pairwise(seen):
        if not isinstance(then, str):  # each split begins anew
            assert_array_equal(then[: len(before.H)], before.H)
            assert then.any(axis=1).all()
    assert [isinstance(start, str) for start, _ in seen] == [True, False, False] * 2
    seen.clear()
    penalty_path(wine, 2, [0, 0.01], n_splits=0, random_state=0)
    assert_array_equal(seen[1][0], seen[0][1].H)


@pytest.mark.parametrize("k", [3, 6])
def test_a_smaller_tolerance_chooses_the_same(k):
    X, more = generated(k, k, 150, 20), {"shift": None, "random_state": 0}
    usual, small = (select_components(X, range(1, 9), **params, **more) for params in ({}, {"tol": 1e-6}))
    assert usual.n_components == small.n_components == k
    errors = usual.summary["error"][:k], small.summary["error"][:k]
    # of the numbers that matter the error is the same but for the noise of the splits, a few hundredths
    assert_allclose(*errors, rtol=0.02)


@pytest.mark.parametrize("weighted", [False, True])
def test_new_loadings_lie_along_what_is_left(weighted):
    rng = np.random.default_rng(0)
    W, H = np.zeros((60, 3)), np.zeros((3, 12))
    for t, size in enumerate((9, 3, 1)):  # far apart, on rows and columns of their own: singular vectors
        W[20 * t : 20 * t + 20, t] = rng.uniform(size, 2 * size, 20)
        H[t, 4 * t : 4 * t + 4] = rng.uniform(1, 2, 4)
    X, v = W @ H, rng.integers(1, 4, 60).astype(float) if weighted else None
    X[::7, ::5] = np.nan
    known = SimpleNamespace(U=W[:, :1].copy(), H=H[:1], sums=np.ones(1))
    new = _new_loadings(SimpleNamespace(X=X, weights=v), known, 3)
    cosines = np.sum(new * H[1:], axis=1) / np.linalg.norm(new, axis=1) / np.linalg.norm(H[1:], axis=1)
    assert (cosines > 0.99).all()


def test_error_is_that_of_a_fit_to_the_other_cells(wine):
    """By hand, for one component: fit to what is left, predict, clip, divide by the error of the means."""
    found = select_components(wine, [1, 2], random_state=3, tol=1e-10, scale="max")
    chosen, Z = runs.scaled(wine, 2, None, {"scale": "max"})
    errors = []
    for cells in draw_cells(Z, chosen, 5, 0.1, np.random.RandomState(3)):
        rows, columns = np.divmod(cells, Z.shape[1])
        left = Z.copy()
        left[rows, columns] = np.nan
        result = factorize(left, 1, missing_values="ignore", tol=1e-10)
        fitted = np.clip(result.W @ result.H, np.nanmin(left, axis=0), np.nanmax(left, axis=0))
        of_fit, of_means = (np.square(guess - Z)[rows, columns].sum() for guess in (fitted, np.nanmean(left, axis=0)))
        errors.append(of_fit / of_means)
    assert_allclose(found.table.query("n_components == 1")["error"], errors, rtol=1e-6)


@pytest.mark.parametrize("kind", ["dense", "sparse", "unstored"])
def test_hidden_cells_are_hidden_once_and_nothing_else_changes(kind):
    X = np.random.default_rng(0).gamma(0.5, size=(60, 9)) * (np.random.default_rng(1).uniform(size=(60, 9)) < 0.4)
    X[:, 4] = 2.0  # constant: not asked for
    params = {"shift": None, "missing_values": "unstored" if kind == "unstored" else "ignore"}
    with pytest.warns(UserWarning, match="Constant columns"):
        chosen, Z = runs.scaled(X if kind == "dense" else sparse.csr_array(X), 2, None, params)
    hidden = draw_cells(Z, chosen, 4, 0.2, np.random.RandomState(0))
    full, seen = Z if kind == "dense" else Z.toarray(), np.zeros(X.shape, int)
    for cells in hidden:
        train, rows, columns, values = hide(Z, cells, kind == "unstored")
        assert_array_equal(values, full[rows, columns])
        assert 4 not in columns
        seen[rows, columns] += 1
        if kind == "unstored":
            assert_array_equal(train.toarray()[rows, columns], 0)
            assert train.nnz == Z.nnz - len(cells)
            left = train.toarray()
            left[rows, columns] = values
        else:
            left = train if kind == "dense" else train.toarray()
            assert np.isnan(left[rows, columns]).all()
            left = np.where(np.isnan(left), full, left)
        assert_array_equal(left, full)
    assert seen.max() == 1
    share = (full[:, np.arange(9) != 4] != 0).sum() if kind == "unstored" else 60 * 8
    assert seen.sum() == 4 * int(0.2 * share)


COUNTS = {"loss": "kullback-leibler", "shift": None, "scale": None}


def words(seed, k, n=2000, p=600):
    """Counts of words, six to a row, nearly all of one topic of the row: 1 % of the cells are stored."""
    rng = np.random.default_rng(seed)
    topics = rng.dirichlet(np.full(p, 0.02), k)
    return sparse.csr_array(rng.poisson(6 * rng.dirichlet(np.full(k, 0.03), n) @ topics).astype(float))


@pytest.mark.parametrize("params", [COUNTS, {"shift": None}])
def test_the_true_number_is_found_in_very_sparse_counts(params):
    assert select_components(words(0, 4), range(1, 7), n_splits=3, random_state=0, **params).n_components == 4


def row_splits(X, **params):
    chosen, Z = runs.scaled(X, 2, None, {**COUNTS, **params})
    return Z, draw_splits(Z, chosen, 4, 0.1, np.random.RandomState(0))


def test_very_sparse_data_stay_so():
    """No cell is marked: each split fits the other rows; all rows and columns are asked for once."""
    Z, makes = row_splits(words(0, 3, 400, 300))
    splits = [make() for make in makes]
    assert [split.problem.X.nnz + split.X.nnz for split in splits] == [Z.nnz] * 4
    assert_array_equal(sum(~split.left for split in splits), 1)
    asked = np.flatnonzero(Z.sum(axis=0))
    assert all((np.sort(np.concatenate(make.args[2])) == asked).all() for make in makes)


@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler", NegativeBinomial(1e-6)])
def test_rows_that_were_left_out_by_hand(loss):
    """One component: a row is predicted from its other columns, mixed with a hundredth of the means for counts."""
    X = sparse.csr_array(np.random.default_rng(0).poisson(0.04, size=(300, 60)).astype(float))
    Z, makes = row_splits(X, loss=loss, penalty=0)
    split = makes[0]()
    fit = runs.fit(NMFFeatures(loss=loss, tol=1e-8), split.problem, 1, "auto", 0, 1)
    means, x, h = Z[split.left].mean(axis=0), split.X.toarray(), fit.H[0]
    error = spread = likelihood = 0.0
    for part in split.parts:
        rest = np.setdiff1d(np.arange(60), part)
        if loss == "frobenius":
            y = np.outer(x[:, rest] @ h[rest] / (h[rest] @ h[rest]), h[part])
        else:  # with a dispersion of next to nothing the negative binomial is Poisson's distribution
            y = 0.99 * np.outer(x[:, rest].sum(axis=1) / h[rest].sum(), h[part]) + 0.01 * means[part]
        error += split.loss.of_cells(x[:, part], y.copy()).sum()
        spread += split.loss.of_cells(x[:, part], np.ones((len(x), 1)) * means[part]).sum()
        likelihood += 0 if loss == "frobenius" else split.loss.negative_log_likelihood(x[:, part], y).sum()
    assert_allclose(split.see(fit), error / spread, rtol=1e-5)
    found = split.negative_log_likelihood(fit)
    assert found is None if loss == "frobenius" else abs(found / (likelihood / x.size) - 1) < 1e-5


def test_a_column_that_is_nearly_zero_does_not_decide():
    """Zero but in two rows of 2,000: divided by its deviation it has cells of 30; one that is hidden outweighs all."""
    for seed in (1, 3):
        rng = np.random.default_rng(seed)
        rare = np.zeros((2000, 5))
        for column in rare.T:
            column[rng.choice(2000, 2, replace=False)] = rng.gamma(2, size=2)
        X = np.hstack([generated(seed, 3, 2000, 20), rare])
        found = select_components(X, range(1, 8), random_state=0)
        plain = select_components(X[:, :20], range(1, 8), random_state=0)
        pd.testing.assert_frame_equal(found.table, plain.table, rtol=1e-6)
        assert found.n_components == 3
        chosen, Z = runs.scaled(X, 2, None, {})
        assert max((cells % 25).max() for cells in draw_cells(Z, chosen, 5, 0.1, np.random.RandomState(0))) == 19


def test_near_copies_reveal_nothing_if_they_are_a_group():
    """Six rows of noise, thirty times each: without groups six components predict every cell."""
    rng = np.random.default_rng(0)
    X = np.repeat(rng.uniform(size=(6, 20)), 30, axis=0) + rng.uniform(0, 0.01, size=(180, 20))
    groups, order = np.repeat(np.arange(6), 30), rng.permutation(180)
    free, grouped = (select_components(X[order], range(1, 8), groups=g, random_state=0) for g in (None, groups[order]))
    assert free.summary["error"].min() < 0.1
    assert free.n_components > 3
    assert grouped.summary["error"].min() > 0.9
    assert grouped.n_components == 1


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("unstored", [False, True])
def test_cells_of_a_group_are_hidden_together(kind, unstored):
    rng = np.random.default_rng(0)
    X = rng.gamma(1, size=(90, 7)) * (rng.uniform(size=(90, 7)) < 0.7)
    chosen, Z = runs.scaled(kind(X), 2, None, {"shift": None, "missing_values": "unstored" if unstored else "ignore"})
    groups, seen = rng.integers(0, 12, 90), np.zeros(X.shape, int)
    for cells in draw_cells(Z, chosen, 3, 0.2, np.random.RandomState(0), None, groups):
        rows, columns = hide(Z, cells, unstored and sparse.issparse(Z))[1:3]
        hidden = np.zeros(X.shape, bool)
        hidden[rows, columns] = True
        seen += hidden
        asked = X > 0 if unstored and sparse.issparse(Z) else np.ones(X.shape, bool)
        for g in range(12):
            of_group = hidden[groups == g]
            assert_array_equal(of_group, of_group.any(axis=0) & asked[groups == g])
    assert seen.max() == 1


def test_sparse_and_dense_agree():
    X = generated(0, 3, 120, 20) * (np.random.default_rng(0).uniform(size=(120, 20)) < 0.9)
    same = [
        select_components(kind(X), range(1, 6), shift=None, test_size=0.05, random_state=0).table["error"]
        for kind in (np.asarray, sparse.csr_array, sparse.coo_array)
    ]
    # The same cells of the same table; sums are taken in another order and followed for many passes.
    assert_allclose(same[1], same[0], rtol=0.02)
    assert_array_equal(same[2], same[1])


@pytest.mark.parametrize("loss", [*LOSSES, 1.5])
def test_every_loss(loss):
    rng = np.random.default_rng(0)
    X = rng.gamma(2, size=(150, 3)) @ rng.gamma(1, size=(3, 15)) * rng.gamma(100, 0.01, size=(150, 15)) + 0.01
    found = select_components(X, range(1, 6), loss=loss, shift=None, scale=None, random_state=0)
    assert found.n_components == 3


def test_counts_with_zeros_have_finite_errors():
    rng = np.random.default_rng(0)
    X = rng.poisson(rng.gamma(0.3, size=(200, 3)) @ rng.gamma(0.3, 10, size=(3, 25)))
    for kind in (np.asarray, sparse.csr_array):
        params = {"loss": "kullback-leibler", "shift": None, "scale": None}
        found = select_components(kind(X.astype(float)), range(1, 6), random_state=0, **params)
        assert np.isfinite(found.table["error"]).all()
        assert found.n_components == 3


def test_ratings_are_predicted_from_stored_ones():
    rng = np.random.default_rng(0)
    X = rng.uniform(1, 3, (200, 2)) @ rng.gamma(1, size=(2, 30)) * (rng.uniform(size=(200, 30)) < 0.5)
    params = {"shift": None, "scale": None, "missing_values": "unstored", "penalty": 1e-4}
    found = select_components(sparse.csr_array(X), range(1, 5), random_state=0, **params)
    assert found.n_components == 2
    assert found.summary["error"].min() < 0.05  # exact but for the penalty: zeros are not data


def test_missing_cells_are_not_asked_for(wine):
    holes = wine.mask(np.random.default_rng(0).uniform(size=wine.shape) < 0.2)
    holes.iloc[3] = np.nan  # a row of which nothing is known
    found = select_components(holes, range(1, 4), missing_values="ignore", random_state=0)
    assert np.isfinite(found.table["error"]).all()
    with pytest.raises(ValueError, match="missing_values"):
        select_components(holes, range(1, 4), random_state=0)


def test_rows_and_columns_of_which_nothing_is_left():
    X = generated(0, 2, 30, 6)
    X[1:, 2], X[5, 1:] = np.nan, np.nan  # one cell in a column, one in a row: hidden in some split
    X[0, 2], X[2, 2] = 1.0, 2.0
    found = select_components(
        X, [1, 2], n_splits=5, test_size=0.2, missing_values="ignore", shift=None, scale=None, random_state=0
    )
    assert np.isfinite(found.table["error"]).all()


def test_size_of_the_numbers_does_not_matter(wine):
    X = wine.to_numpy()
    tables = [select_components(X * c, [1, 2, 3], random_state=0).table for c in (1, 2.0**900, 2.0**-900)]
    assert_allclose(tables[1]["error"], tables[0]["error"], rtol=1e-9)
    assert_allclose(tables[2]["error"], tables[0]["error"], rtol=1e-9)
    raw = [select_components(X * c, [1, 2], random_state=0, scale=None, penalty=0).table for c in (1, 2.0**500)]
    assert_allclose(raw[1]["error"], raw[0]["error"], rtol=1e-6)


def test_single_precision(wine):
    found = select_components(wine.astype("float32"), [1, 2, 3], random_state=0)
    assert_allclose(found.table["error"], select_components(wine, [1, 2, 3], random_state=0).table["error"], rtol=0.01)


def test_read_only_memory_is_not_written_to(wine):
    X = wine.to_numpy(copy=True)
    X.flags.writeable = False
    before = X.copy()
    select_components(X, [1, 2], random_state=0, shift=None, scale=None, n_splits=2)
    assert_array_equal(X, before)


def test_polars_as_pandas(wine):
    found = [select_components(X, [1, 2, 3], random_state=0) for X in (wine, pl.from_pandas(wine), wine.to_numpy())]
    for other in found[1:]:
        pd.testing.assert_frame_equal(other.table, found[0].table)


def test_other_columns_are_left_alone(wine):
    table = wine.assign(kind=pd.Categorical(["a", "b"] * 89), flag=True)
    found = select_components(table, [1, 2, 3], random_state=0)
    pd.testing.assert_frame_equal(found.table, select_components(wine, [1, 2, 3], random_state=0).table)


def test_long_tables_are_sampled():
    X = generated(0, 3, 4000, 12)
    found = select_components(X, range(1, 6), max_samples=300, shift=None, random_state=0)
    assert found.n_components == 3
    as_coo = select_components(sparse.coo_array(X), [1, 2], max_samples=300, shift=None, random_state=0)
    assert len(as_coo.table) == 10
    rows = np.sort(np.random.RandomState(0).choice(4000, 300, replace=False))
    rng = np.random.RandomState(0)
    rng.choice(4000, 300, replace=False)
    again = select_components(X[rows], range(1, 6), shift=None, random_state=rng)
    pd.testing.assert_frame_equal(found.table, again.table)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (range(2, 4), "n_components=3 is the largest number that was tried: more may do better"),
        (range(3, 6), "n_components=3 is the smallest number that was tried: fewer may do as well"),
    ],
)
def test_an_edge_is_not_returned_in_silence(counts, message):
    X = generated(0, 4 if counts[0] == 2 else 2)
    with pytest.warns(UserWarning, match=message):
        select_components(X, counts, shift=None, random_state=0)


def test_a_table_without_structure_is_said_to_have_none():
    X = np.random.default_rng(0).uniform(size=(200, 10))
    with (
        pytest.warns(UserWarning, match="n_components=1 is the smallest number that was tried"),
        pytest.warns(UserWarning, match="predicts hidden cells better than the means"),
    ):
        assert select_components(X, range(1, 5), shift=None, random_state=0).n_components == 1


def test_more_components_than_columns_are_not_tried(wine):
    assert select_components(wine.iloc[:, :4], random_state=0).summary["n_components"].tolist() == [1, 2, 3, 4]
    assert select_components(wine, random_state=0).summary["n_components"].tolist() == list(range(1, 11))
    with pytest.warns(UserWarning, match="n_components=20 is more than the 4 columns"):
        found = select_components(wine.iloc[:, :4], [1, 2, 3, 20], random_state=0)
    assert found.summary["n_components"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_components": 5}, "n_components is 5; wanted the numbers"),
        ({"n_components": []}, r"n_components is \[\]; wanted the numbers"),
        ({"n_components": "12"}, "n_components is '12'"),
        ({"n_components": [0, 1]}, "n_components is 0; wanted a whole number, 1 or more"),
        ({"n_components": [1.5]}, "n_components is 1.5"),
        ({"n_splits": 1}, "n_splits is 1; wanted a whole number, 2 or more"),
        ({"test_size": 0.3}, "test_size is 0.3 with n_splits=5"),
        ({"test_size": 0}, "test_size is 0"),
        ({"max_samples": 0}, "max_samples is 0"),
        ({"n_jobs": 0}, "n_jobs"),
        ({"init": np.ones((2, 13))}, "init is an array"),
        ({"tol": -1}, "tol"),
        ({"n_init": 0}, "n_init"),
    ],
)
def test_errors_name_the_argument(wine, params, message):
    with pytest.raises(ValueError, match=message):
        select_components(wine, **{"n_components": range(1, 4), **params})


def test_unknown_parameters_are_refused(wine):
    with pytest.raises(TypeError, match="n_component"):
        select_components(wine, n_component=2)


def test_halves_of_a_column_are_hidden_together():
    """Of columns that have nothing to do with each other, one half tells the other, and nothing else tells anything."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        X = np.sign(rng.normal(size=(300, 8))) * rng.uniform(1, 1.2, size=(300, 8))
        found = select_components(X, range(1, 9), shift="split", random_state=seed)
        assert found.n_components == 1
        assert found.summary["error"].min() >= 1


def test_threads_of_blas_do_not_matter():
    code = """
import numpy as np, pandas as pd
from nmf_features import select_components
X = np.random.default_rng(0).gamma(1, size=(10000, 5)) @ np.random.default_rng(1).gamma(1, size=(5, 60))
tables = [select_components(X, range(1, 5), n_splits=2, random_state=0, n_jobs=n).table for n in (1, 2)]
pd.testing.assert_frame_equal(*tables, check_exact=True)
"""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=environment)


def test_too_few_cells():
    with pytest.raises(ValueError, match="4 observed cells; wanted at least one for each of n_splits=5"):
        select_components(np.array([[1.0, 2], [3, 5]]), [1])


# The penalty


@pytest.fixture(scope="module")
def path(cancer):
    return penalty_path(cancer, 4, y=load_breast_cancer().target == 1, random_state=0)


def test_path_goes_from_no_penalty_to_an_empty_model(path):
    table = path.table
    assert table["penalty"].iloc[0] == 0
    assert (table["n_alive"] == 0).tolist() == [False] * (len(table) - 1) + [True]
    assert table["zero_loadings"].iloc[-1] == table["zero_scores"].iloc[-1] == 1
    assert (np.diff(table["error"]) > -1e-3).all()  # tol is 1e-4
    steps = table["penalty"].to_numpy()[2:] / table["penalty"].to_numpy()[1:-1]
    assert_allclose(steps, 10**0.25, rtol=1e-12)  # four to each factor of ten


def test_constant_columns_are_no_zeros_of_the_penalty(wine):
    tables = [penalty_path(X, 3, [0, 0.1], n_splits=0).table for X in (wine, wine.assign(constant=1.0))]
    assert_allclose(tables[1], tables[0], rtol=1e-4)  # two fits that stopped at a tol of 1e-4


def test_path_is_what_a_fit_with_the_penalty_gives(cancer, path):
    for i in (0, 6):
        row = path.table.iloc[i]
        nmf = NMFFeatures(4, penalty=row["penalty"], tol=1e-4).fit(cancer)
        assert_allclose(row["error"], 1 - nmf.score(cancer), rtol=0.01)  # two fits that stopped at a tol of 1e-4
        assert_allclose(row["zero_loadings"], (nmf.components_ == 0).mean(), atol=0.05)


def test_scores_of_the_target(cancer, path):
    assert path.scoring == "accuracy"
    assert path.table["score"].max() > 0.95  # logistic regression on all columns: 0.98
    assert_allclose(path.table["score"].iloc[-1], 0.627, atol=1e-3)  # an empty model knows the larger class, 357 of 569


def test_target_of_numbers_or_words(wine):
    X, y = wine.drop(columns="alcohol"), wine["alcohol"]
    by_number = penalty_path(X, 3, [0, 0.01], y=y, cv=3, n_splits=0, random_state=0)
    assert by_number.scoring == "r2"
    assert by_number.table.columns.tolist() == [
        "penalty",
        "n_alive",
        "zero_loadings",
        "zero_scores",
        "error",
        "score",
        "score_standard_error",
    ]
    words = np.where(y > y.median(), "strong", "weak")
    by_word = penalty_path(X, 3, [0, 0.01], y=pd.Series(words, dtype="category"), cv=3, n_splits=0, random_state=0)
    assert by_word.scoring == "accuracy"
    assert (by_word.table["score"] > 0.6).all()


def test_without_target(wine):
    found = penalty_path(wine, 3, [0.1, 0, 0.1], n_splits=3, random_state=0)
    assert found.scoring is None
    assert found.table["penalty"].tolist() == [0, 0.1]
    assert "score" not in found.table
    assert np.isfinite(found.table).all(axis=None)


def test_scaling_of_a_fold_is_learned_from_its_own_rows(wine):
    """One fold by hand, through the public estimator."""
    X, y = wine.drop(columns="alcohol"), wine["alcohol"]
    train, test = np.arange(100), np.arange(100, 178)
    found = penalty_path(X, 3, [0.01], y=y, cv=[(train, test)], n_splits=0, tol=1e-8, random_state=0)
    nmf = NMFFeatures(3, penalty=0.01, tol=1e-8).fit(X.iloc[train])
    linear = LinearRegression().fit(nmf.transform(X.iloc[train]), y.iloc[train])
    assert_allclose(found.table["score"], linear.score(nmf.transform(X.iloc[test]), y.iloc[test]), rtol=1e-3)
    assert found.table["score_standard_error"].isna().all()  # of one fold


@pytest.mark.parametrize("l1_ratio", [0, 0.5])
def test_path_with_other_penalties(wine, l1_ratio):
    table = penalty_path(wine, 3, n_splits=0, l1_ratio=l1_ratio, random_state=0).table
    assert table["n_alive"].iloc[-1] == 0
    assert (table["n_alive"].iloc[:5] == 3).all()


def test_path_of_counts_does_not_end_empty():
    rng = np.random.default_rng(0)
    X = rng.poisson(rng.gamma(0.3, size=(100, 3)) @ rng.gamma(0.3, 3, size=(3, 20))).astype(float)
    for kind in (np.asarray, sparse.csr_array):
        params = {"loss": "kullback-leibler", "shift": None, "scale": None, "random_state": 0}
        table = penalty_path(kind(X), 3, n_splits=2, **params).table
        assert table["n_alive"].iloc[-1] > 0
        assert np.isfinite(table).all(axis=None)
        assert table["error"].iloc[-1] > table["error"].iloc[0]


@pytest.mark.parametrize("penalties", [[], [-1], [np.nan], [np.inf]])
def test_penalties_that_make_no_sense(wine, penalties):
    with pytest.raises(ValueError, match=r"penalties is \[.*wanted finite numbers, 0 or more"):
        penalty_path(wine, 3, penalties)


def test_rows_of_which_nothing_is_known_have_a_target_too(wine):
    X, y = wine.drop(columns="alcohol"), wine["alcohol"]
    holes = X.copy()
    holes.iloc[3::10] = np.nan
    train = np.arange(len(X)) % 3 > 0
    cv = [(np.flatnonzero(train), np.flatnonzero(~train))]
    params = {"missing_values": "ignore", "n_splits": 0, "random_state": 0}
    found = penalty_path(holes, 3, [0.01], y=y, cv=cv, **params).table["score"]
    known = train & holes.notna().all(axis=1)
    # The same with these rows left out of training, and predicted as the mean of the others: a linear model's centre.
    nmf = NMFFeatures(3, penalty=0.01, tol=1e-4).fit(X[known])
    linear = LinearRegression().fit(nmf.transform(X[known]), y[known])
    seen = ~train & holes.notna().all(axis=1)
    predicted = pd.Series(y[known].mean(), index=y.index)
    predicted[seen] = linear.predict(nmf.transform(X[seen]))
    assert_allclose(found, r2_score(y[~train], predicted[~train]), rtol=1e-3)


@pytest.mark.parametrize(
    "kind", [np.ndarray.tolist, sparse.csr_array, sparse.csc_array, sparse.coo_array, pd.DataFrame]
)
def test_every_kind_of_table_has_scores(wine, kind):
    X, y = wine.drop(columns="alcohol").to_numpy(), wine["alcohol"]
    params = {"y": y, "shift": None, "n_splits": 0, "random_state": 0, "tol": 1e-8}
    found, whole = (penalty_path(table, 3, [0.01], **params).table["score"] for table in (kind(X), X))
    assert_allclose(found, whole, rtol=1e-3)


def test_what_a_path_cannot_take(wine):
    with pytest.raises(TypeError, match="takes its penalties as penalties"):
        penalty_path(wine, 2, penalty=0.1)
    cv = [(np.arange(100), np.arange(100, 178))]
    with pytest.raises(ValueError, match="cv holds positions among 178 rows, of which max_samples=120"):
        penalty_path(wine, 2, [0], y=wine["alcohol"], cv=cv, max_samples=120)
    with pytest.warns(UserWarning, match="penalty=1e.06 empties the model"):
        stability(wine, 2, 2, penalty=1e6)


def test_targets_that_make_no_sense(wine):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        penalty_path(wine, 3, y=[1.0, 2])
    with pytest.raises(ValueError, match="y is missing in 178 rows"):
        penalty_path(wine, 3, y=np.full(178, np.nan))


# Stability


def test_what_is_there_comes_back_and_what_is_not_does_not():
    X = generated(1, 3, 400, 12)  # many zeros among scores and loadings: there is one way to put it together
    assert stability(X, 3, n_runs=8, shift=None, random_state=0).reproducibility.min() > 0.98
    rng = np.random.default_rng(1)  # no zeros: there are many
    X = rng.uniform(1, 2, (400, 3)) @ rng.uniform(1, 2, (3, 12))
    assert stability(X, 5, n_runs=8, shift=None, random_state=0).reproducibility.min() < 0.9


def test_stability_has_a_place_for_everything(wine):
    found = stability(wine, 3, n_runs=4, random_state=0)
    names = ["NNMF1", "NNMF2", "NNMF3"]
    nmf = NMFFeatures(3).fit(wine)
    assert found.components.index.tolist() == found.consensus.index.tolist() == names
    assert found.components.columns.tolist() == found.consensus.columns.tolist() == wine.columns.tolist()
    assert_allclose(found.components, nmf.components_, rtol=1e-12)
    assert_allclose(found.consensus.sum(axis=1), 1, rtol=1e-12)
    assert found.runs["source"].tolist() == ["start"] * 4 + ["rows"] * 4
    assert len(found.table) == 3 * 8
    assert found.table["similarity"].between(0, 1 + 1e-12).all()
    assert_allclose(found.reproducibility, found.table.groupby("component")["similarity"].mean(), rtol=1e-12)


def test_components_are_matched_whatever_their_order():
    H = np.random.default_rng(0).uniform(size=(4, 9))
    loadings, cosines = matched_with(H[[2, 0, 3, 1]] * 5, H)
    assert_allclose(loadings, H * 5)
    assert_allclose(cosines, 1)
    _, cosines = matched_with(np.zeros((4, 9)), H)
    assert_array_equal(cosines, 0)  # dead components are like nothing


def test_a_run_is_a_fit_from_a_random_start(wine):
    found = stability(wine, 4, n_runs=5, random_state=0)
    best = NMFFeatures(4, n_init=10, random_state=0).fit(wine).objective_ / NMFFeatures(4).fit(wine).objective_
    starts = found.runs.query("source == 'start'")["objective"]
    assert starts.nunique() > 1
    assert (starts > best - 1e-3).all()
    assert (starts < best + 0.05).all()
    rows = found.runs.query("source == 'rows'")["objective"]
    assert rows.nunique() == 5  # each on rows of its own
    assert_allclose(rows, 1, atol=0.2)


def test_split_columns_have_names_of_their_own(wine):
    found = stability(wine.iloc[:, :3], 2, n_runs=1, shift="split", random_state=0)
    assert found.consensus.columns.tolist()[:2] == ["alcohol+", "alcohol-"]


@pytest.mark.parametrize("params", [{"n_components": 0}, {"n_components": 2.5}, {"n_runs": 0}, {"n_runs": True}])
def test_numbers_that_make_no_sense(wine, params):
    with pytest.raises(ValueError, match=f"{next(iter(params))} is .*; wanted a whole number, 1 or more"):
        stability(wine, **{"n_components": 2, **params})


# All three


def select(X, **params):
    return select_components(X, range(1, 4), **params).table


def walk(X, **params):
    return penalty_path(X, 3, [0, 0.01, 0.1], y=X[:, 0], **{"cv": 2, **params}).table


def repeat(X, **params):
    return stability(X, 3, n_runs=3, **params).table


ALL = pytest.mark.parametrize("function", [select, walk, repeat])


@ALL
@pytest.mark.parametrize("params", [{}, {"init": "random"}, {"n_init": 2}])
def test_same_seed_same_result_for_any_number_of_threads(function, params):
    X = generated(0, 3, 90, 12)
    first, *others = (function(X, random_state=1, n_jobs=n_jobs, **params) for n_jobs in (1, 1, 3, -1))
    for other in others:
        pd.testing.assert_frame_equal(first, other, check_exact=True)
    assert not first.equals(function(X, random_state=2, **params))


@ALL
def test_weight_2_is_the_row_twice_and_0_is_no_row(function):
    X, rng = generated(0, 3, 120, 12), np.random.default_rng(0)
    weights, groups = rng.integers(0, 3, 120), rng.integers(0, 8, 120).astype(str)
    rows = np.repeat(np.arange(120), weights)
    params = {"shift": None, "random_state": 0, "tol": 1e-8}
    if function is walk:  # folds of scikit-learn are of like numbers of rows
        params["cv"] = LeaveOneGroupOut()
    weighted = function(X, sample_weight=weights, groups=groups, **params)
    X[weights == 0] = np.nan
    again = function(X, sample_weight=weights, groups=groups, **params)
    pd.testing.assert_frame_equal(again, weighted, check_exact=True)
    pd.testing.assert_frame_equal(weighted, function(X[rows], groups=groups[rows], **params), rtol=1e-5)


def test_weights_of_very_sparse_data():
    X, rng = words(0, 3, 600, 200), np.random.default_rng(0)
    weights, groups = rng.integers(0, 3, 600), rng.integers(0, 40, 600)
    rows = np.repeat(np.arange(600), weights)
    params = {**COUNTS, "random_state": 0, "n_splits": 3, "tol": 1e-8, "max_iter": 10_000}
    weighted = select_components(X, [1, 2], sample_weight=weights, groups=groups, **params).table
    pd.testing.assert_frame_equal(
        weighted, select_components(X[rows], [1, 2], groups=groups[rows], **params).table, rtol=1e-5
    )


def test_targets_of_rows_that_were_left_out():
    """A target that is the topic of a row is told by two components or more, one that is drawn at random by none."""
    X, rng = words(0, 3), np.random.default_rng(0)
    W = factorize(X, 3, loss="kullback-leibler", penalty=0).W
    params = {**COUNTS, "random_state": 0, "n_splits": 3, "target_weight": 0.1}
    topic, noise = (
        select_components(X, [1, 3], y=y, **params).summary["target_error"]
        for y in (W.argmax(axis=1).astype(str), rng.choice(["a", "b", "c"], 2000))
    )
    assert topic[0] > 0.9
    assert topic[1] < 0.5
    assert (noise > 0.99).all()


@ALL
def test_groups_of_any_kind_are_the_same(function):
    X, groups = generated(0, 3, 90, 12), np.arange(90) // 9
    params = {"random_state": 0, "shift": None}
    first = function(X, groups=groups, **params)
    labels = np.array([(g, "patient") for g in groups.tolist()] + [None], dtype=object)[:-1]
    names = [f"p{g}" for g in groups]
    for other in (labels.tolist(), names, pd.Series(names, dtype="category"), pl.Series(names)):
        pd.testing.assert_frame_equal(function(X, groups=other, **params), first, check_exact=True)


@ALL
def test_groups_that_make_no_sense(function):
    X = generated(0, 3, 90, 12)
    with pytest.raises(ValueError, match=r"groups has shape \(89,\); wanted one label for each of the 90 rows"):
        function(X, groups=np.zeros(89))
    with pytest.raises(ValueError, match="groups is missing in 1 rows"):
        function(X, groups=["a"] * 89 + [None])
    with pytest.raises(ValueError, match=r"groups has (1 different labels; wanted at least n_splits=5|the same label)"):
        function(X, groups=["a"] * 90)
    with pytest.raises(ValueError, match=r"inconsistent numbers|sample_weight"):
        function(X, sample_weight=np.ones(89))


def test_whole_groups_are_drawn():
    X, groups = generated(0, 3, 90, 12), np.arange(90) // 9
    X, y, weights, numbers = runs.sampled(X, np.arange(90), 40, np.random.RandomState(0), None, groups[::-1])
    assert len(X) == len(y) == 36
    assert weights is None
    assert_array_equal(np.bincount(numbers), 9)
    assert_array_equal(numbers, np.arange(36) // 9)


def test_folds_keep_groups_together(wine):
    X, y, groups = wine.drop(columns="alcohol"), wine["alcohol"], np.arange(178) % 20
    found, by_hand = (
        penalty_path(X, 3, [0.01], y=y, groups=g, cv=cv, n_splits=0, random_state=0).table
        for g, cv in ((groups, 4), (None, list(GroupKFold(4).split(X, y, groups))))
    )
    pd.testing.assert_frame_equal(found, by_hand)


def test_samples_for_stability_are_of_whole_groups(monkeypatch):
    X, groups, drawn = generated(0, 3, 90, 12), np.arange(90) // 9, []
    fit = runs.fit

    def watched(model, problem, *others, **more):
        drawn.append(problem)
        return fit(model, problem, *others, **more)

    monkeypatch.setattr(runs, "fit", watched)
    found = stability(X, 3, 2, groups=groups, random_state=0, n_jobs=1, shift=None)
    for problem in drawn[-2:]:
        counts = np.zeros(90)
        counts[problem.used] = problem.weights
        assert_array_equal(counts.reshape(10, 9), np.repeat(counts[::9, None], 9, axis=1))
        assert counts.sum() == 90
    assert np.isfinite(found.runs["objective"]).all()


@ALL
def test_fits_that_do_not_converge_are_counted(function, wine):
    with pytest.warns(ConvergenceWarning, match=r"\d+ of \d+ fits stopped at max_iter=1 passes"):
        function(wine.to_numpy(), max_iter=1, random_state=0)


@ALL
def test_rows_and_shapes_at_the_edge(function):
    X = np.array([[1.0, 2, 3, 5], [2, 3, 5, 9], [4, 1, 2, 2], [3, 3, 1, 8]])
    assert len(function(np.repeat(X, 2, axis=1), random_state=0, missing_values="ignore"))
    with pytest.raises(ValueError, match="minimum of 1 is required"):
        function(np.zeros((0, 4)), random_state=0)
    with pytest.raises(ValueError, match="every chosen column is constant"):
        function(np.ones((5, 4)), random_state=0)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@ALL
def test_progress_is_shown_where_somebody_looks(function, wine, monkeypatch):
    seen = {}
    for shown in (True, False):
        monkeypatch.setattr(sys, "stderr", Terminal())
        monkeypatch.setenv("TERM", "xterm")
        function(wine.to_numpy(), random_state=0, progress=shown)
        seen[shown] = sys.stderr.getvalue()
    assert "/" in seen[True]
    assert seen[False] == ""


@ALL
def test_no_progress_without_a_terminal_or_without_rich(function, wine, monkeypatch, capfd):
    function(wine.to_numpy(), random_state=0)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    function(wine.to_numpy(), random_state=0)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_ctrl_c_ends_it(n_jobs):
    code = f"""
import numpy as np
import polars  # whose handling of signals must not get in the way
from nmf_features import select_components
X = np.random.default_rng(0).gamma(1, size=(3000, 60))
print("started", flush=True)
select_components(X, range(1, 60), tol=0, max_iter=100_000, random_state=0, n_jobs={n_jobs})
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "started\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=3)
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]
        assert process.returncode != 0
    finally:
        process.kill()  # where the signal is ignored, as in some background jobs, it would go on for hours


def test_an_error_in_one_task_stops_the_others():
    steps = []

    def fails(n_jobs, step):
        raise ValueError("no")

    def goes_on(n_jobs, step):
        for i in range(1000):
            steps.append(i)
            step()

    def begins(n_jobs, step):
        steps.append("began")
        time.sleep(0.001)

    with pytest.raises(ValueError, match="no"):
        runs.run([fails] + [goes_on] * 50, None, "steps", 2, False)
    assert len(steps) < 50 * 1000
    steps.clear()
    with pytest.raises(ValueError, match="no"):
        runs.run([fails, lambda n_jobs, step: time.sleep(0.2)] + [begins] * 10_000, None, "steps", 2, False)
    assert len(steps) < 10_000


def test_nothing_is_warned_of_when_all_is_well(cancer):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        select_components(cancer, range(1, 12), random_state=0, n_splits=3)
        stability(cancer, 3, n_runs=2, random_state=0)


def test_splits_do_not_keep_copies_of_the_table(wine):
    """Cells are drawn for all splits at once, but the table with holes is made when a split is fitted."""
    chosen, Z = runs.scaled(wine, 2, None, {})
    hidden = draw_cells(Z, chosen, 5, 0.1, np.random.RandomState(0))
    assert all(cells.ndim == 1 and len(cells) == int(0.1 * Z.size) for cells in hidden)
    assert not np.isnan(Z).any()
    assert np.isnan(Split(Z, hidden[0], chosen).problem.X).sum() == len(hidden[0])
