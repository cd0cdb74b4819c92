"""The textbook solvers, and the worked examples that go with them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.datasets import load_digits
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

from nmf_features import NMFFeatures, factorize
from nmf_features.core import schedule
from nmf_features.core.alternating import Alternating
from nmf_features.core.samples import Rows
from nmf_features.core.solvers import SOLVERS
from nmf_features.core.tables import MemoryTable

pytestmark = pytest.mark.filterwarnings("ignore:NMF stopped")  # multiplicative updates are slow

# People x films; 0 is a film that was not seen.
RATINGS = np.array(
    [
        [1.0, 1, 1, 0, 0],  # Joe
        [3, 3, 3, 0, 0],  # Jim
        [4, 4, 4, 0, 0],  # John
        [5, 5, 5, 0, 0],  # Jack
        [0, 0, 0, 4, 4],  # Jill
        [0, 0, 0, 5, 5],  # Jenny
        [0, 0, 0, 2, 2],  # Jane
    ]
)


def halves(seed=0, k=3, m=20):
    rng = np.random.default_rng(seed)
    H, X, F = rng.uniform(size=(k, 8)), rng.uniform(size=(m, 8)), rng.uniform(size=(k, m))
    return F, H @ H.T, H @ X.T, np.full(m, 0.1), H, X


def value(F, A, B, l1):
    return 0.5 * np.vdot(F, A @ F) - np.vdot(F, B) + (F @ l1).sum()


DESCENDING = [name for name in sorted(set(SOLVERS) - {"auto"}) if issubclass(SOLVERS[name], Alternating)]
DESCENDING = [name for name in DESCENDING if SOLVERS[name].descends]


@pytest.mark.parametrize("solver", DESCENDING)
def test_a_step_lowers_the_objective(solver):
    for seed in range(5):
        F, A, B, l1, *_ = halves(seed)
        before = value(F, A, B, l1)
        SOLVERS[solver]().improve(F, A, B, l1, np.ones(20), 1, 0.0)
        assert value(F, A, B, l1) < before
        assert F.min() >= 0


def test_multiplicative_step_is_lee_and_seungs():
    """V ~ W H with samples in columns there: their H is our scores transposed, their W our loadings transposed."""
    F, A, B, _, H, X = halves()
    V, theirs_W, theirs_H = X.T, H.T, F.copy()
    expected = theirs_H * (theirs_W.T @ V) / (theirs_W.T @ theirs_W @ theirs_H)
    SOLVERS["mu"]().improve(F, A, B, np.zeros(20), np.ones(20), 1, 0.0)
    assert_allclose(F, expected, rtol=1e-12)


def test_least_squares_step():
    F, A, B, _, H, X = halves()
    SOLVERS["als"]().improve(F, A, B, np.zeros(20), np.ones(20), 1, 0.0)
    assert_allclose(F, np.maximum(np.linalg.lstsq(H.T, X.T, rcond=None)[0], 0), atol=1e-8)


def test_gradient_step_with_a_rate():
    F, A, B, l1, *_ = halves()
    expected = np.maximum(F - 0.01 * (A @ F - B + 0.1), 0)
    SOLVERS["gradient"](0.01).improve(F, A, B, l1, np.ones(20), 1, 0.0)
    assert_allclose(F, expected)


@pytest.mark.parametrize("penalty", [0, 0.01])
@pytest.mark.parametrize("solver", ["mu", "als", "gradient"])
def test_textbook_solvers_come_near_the_fast_one(solver, penalty):
    rng = np.random.default_rng(0)
    X = rng.gamma(0.5, 1, (300, 3)) @ rng.gamma(0.5, 1, (3, 20)) + 0.1 * rng.uniform(size=(300, 20))
    fast = factorize(X, 3, penalty=penalty, tol=1e-8)
    slow = factorize(X, 3, penalty=penalty, solver=solver, tol=1e-8, max_iter=5000)
    assert_allclose(slow.objective, fast.objective, rtol={"mu": 1e-3, "als": 2e-2, "gradient": 1e-5}[solver])
    # Levels of the residual: multiplicative updates creep towards zeros, cut-off least squares need not get there.
    assert slow.kkt_residual < {"mu": 5e-3, "als": 2e-2, "gradient": 1e-4}[solver]
    assert (np.diff(slow.history) <= 0).all()


def test_multiplicative_updates_reach_what_scikit_learns_do():
    X = load_digits().data[:300]
    theirs = NMF(8, solver="mu", init="nndsvda", max_iter=500, tol=0, random_state=0)
    W = theirs.fit_transform(X)
    ours = factorize(X, 8, penalty=0, solver="mu", max_iter=500, tol=0)
    assert ours.objective <= 1.01 * 0.5 * np.square(X - W @ theirs.components_).sum()


@pytest.mark.filterwarnings("ignore:Components .* are zero")
def test_a_rate_that_is_too_large_keeps_the_best_loadings():
    X = np.random.default_rng(0).uniform(size=(50, 8))
    wild, tame = (factorize(X, 3, solver="gradient", learning_rate=rate) for rate in (0.2, 0.01))
    assert wild.objective < 0.5 * np.square(X).sum()
    assert (np.diff(wild.history) <= 0).all()
    assert tame.kkt_residual < 0.05


def test_a_rate_is_for_gradient_descent():
    for fit in (lambda **s: factorize(RATINGS, 2, **s), lambda **s: NMFFeatures(2, **s).fit(RATINGS)):
        with pytest.raises(ValueError, match=r'learning_rate=0\.1 is of use with solver="gradient" only'):
            fit(learning_rate=0.1)
        with pytest.raises(ValueError, match="learning_rate"):
            fit(solver="gradient", learning_rate=0)


def test_features_take_every_solver():
    for solver in SOLVERS:
        nmf = NMFFeatures(2, solver=solver).fit(RATINGS)
        assert nmf.score(RATINGS) > 0.9
        assert nmf.kkt_residual_ < 0.05


# ---- worked examples


def test_three_by_three():
    X = np.array([[4.0, 0, 2], [0, 3, 1], [2, 1, 3]])
    by_hand = np.array([[2, 0], [0, 1.5], [1, 1]]) @ np.array([[2, 0, 1], [0, 2, 1]])
    assert factorize(X, 2, penalty=0).objective <= 0.5 * np.square(X - by_hand).sum()


def test_ratings_with_unseen_films_as_zeros():
    f = factorize(RATINGS, 2, penalty=0)
    assert_allclose(f.W @ f.H, RATINGS, atol=1e-8)
    adventure, romance = sorted(range(2), key=lambda t: f.H[t, 3])
    assert_allclose(f.H[adventure, 3:], 0, atol=1e-8)
    assert_allclose(f.H[romance, :3], 0, atol=1e-8)
    assert_allclose(f.W[:4, adventure] / f.W[0, adventure], [1, 3, 4, 5])
    assert_allclose(f.W[4:, romance] / f.W[6, romance], [2, 2.5, 1])


@pytest.mark.parametrize("learning_rate", [None, 0.01])
def test_ratings_with_unseen_films_as_unobserved(learning_rate):
    """What is observed falls into two blocks that share nothing, so the way down decides on the rest."""
    seen = RATINGS > 0
    sane = 0
    for seed in range(20):
        f = factorize(
            np.where(seen, RATINGS, np.nan),
            2,
            penalty=0.02,
            l1_ratio=0,
            solver="gradient",
            learning_rate=learning_rate,
            init="random",
            random_state=seed,
            missing_values="ignore",
        )
        predicted = f.W @ f.H
        assert_allclose(predicted[seen], RATINGS[seen], atol=0.05)
        sane += predicted.min() > 0.5 and predicted.max() < 5.5
    assert sane >= 18


# ---- found in review


def test_multiplicative_updates_leave_zeros_that_a_sample_left(monkeypatch):
    monkeypatch.setattr(schedule, "LONG_CELLS", 0)
    monkeypatch.setattr(schedule, "SAMPLE_ROWS", 100)
    rng = np.random.default_rng(0)
    X = rng.gamma(1, 1, (1700, 2)) @ rng.gamma(1, 1, (2, 6))
    X[Rows(MemoryTable(X)).sample(106)[0], 5] = 0
    fast, slow = (factorize(X, 2, penalty=0, solver=solver) for solver in ("hals", "mu"))
    assert slow.H[:, 5].any()
    assert slow.objective < 1.05 * fast.objective


@pytest.mark.filterwarnings("ignore:Components .* are zero")
def test_a_fit_that_rose_is_not_called_converged():
    X = np.random.default_rng(0).uniform(size=(50, 8))
    with pytest.warns(ConvergenceWarning, match="Lower learning_rate"):
        f = factorize(X, 4, solver="gradient", learning_rate=0.2)
    assert not f.converged
    with pytest.warns(UserWarning, match="empties the model"):  # the first step shoots over everything
        assert np.isfinite(factorize(X, 4, solver="gradient", learning_rate=1e30).objective)


def test_a_rate_means_the_same_in_every_unit():
    X = (1e5 * np.random.default_rng(0).uniform(size=(50, 8))).astype(np.float32)
    init = np.random.default_rng(1).uniform(size=(3, 8)) * 100
    double, single = (
        factorize(x, 3, penalty=0, solver="gradient", learning_rate=1e-6, init=init, max_iter=5)
        for x in (X.astype(float), X)
    )
    assert_allclose(single.objective, double.objective, rtol=1e-3)


def test_least_squares_with_equal_components_in_single_precision():
    X = np.random.default_rng(0).uniform(size=(50, 9)).astype(np.float32)
    assert np.isfinite(factorize(X, 2, solver="als", init=np.ones((2, 9)), penalty=0).objective)


def test_tiny_single_precision_data_empty_the_model():
    X = (1e-30 * np.random.default_rng(0).uniform(size=(50, 9))).astype(np.float32)
    with pytest.warns(UserWarning, match="empties the model"):
        f = factorize(X, 2)
    assert np.isfinite(f.objective)
    assert not f.W.any()
