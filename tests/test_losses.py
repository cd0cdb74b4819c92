"""Every named loss, and the properties that all of them share: a new entry in LOSSES is tested at once."""

import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import skops.io
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse, stats
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from nmf_features import NegativeBinomial, NMFFeatures, factorize, objective, select_components
from nmf_features.core.beta import BetaDivergence
from nmf_features.core.descent import _worst_row
from nmf_features.core.losses import LOSSES, loss_of
from nmf_features.core.missing import Missing
from nmf_features.core.newton import multiply
from nmf_features.core.projection import exact_scores
from nmf_features.core.solvers import DIVERGENCE_SOLVERS
from nmf_features.core.tables import MemoryTable

sys.path.insert(0, str(Path(__file__).parents[1] / "docs" / "examples"))
from loss_huber import Huber

OTHERS = {"negative-binomial .1": NegativeBinomial(0.1), "negative-binomial 10": NegativeBinomial(10)}
OTHERS |= {"beta 3": BetaDivergence(3.0), "beta -1": BetaDivergence(-1.0), "of one's own": Huber(0.5)}
ALL = [pytest.param(loss, id=name) for name, loss in (LOSSES | OTHERS).items()]
AS_THEY_ARE = {"shift": None, "scale": None}


def cells(loss, shape=(60, 9), k=3, seed=0):
    rng = np.random.default_rng(seed)
    X = np.round(
        3 * rng.gamma(1, size=(shape[0], k)) @ rng.gamma(1, size=(k, shape[1])) * rng.gamma(2, 0.5, size=shape)
    )
    return X if loss.takes_zeros else X + 0.5


def rough(*data, **parameters):
    """Factorise; multiplicative updates may be stopped on the way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return factorize(*data, **parameters)


@pytest.mark.parametrize("loss", ALL)
def test_slopes_are_those_of_the_loss(loss):
    x = np.repeat([0.0, 0.5, 2, 30] if loss.takes_zeros else [0.5, 2, 30], 40)
    y, h = np.tile(np.geomspace(0.01, 100, 40), len(x) // 40), 1e-5
    below, here, above = (loss.of_cells(x, y * (1 + d)) for d in (-h, 0, h))
    slope, positive, curvature = loss.slopes_of_cells(x, y)
    rounding = 1e-10 * (1 + x + y + np.abs(here)) / y
    assert (np.abs(slope - (above - below) / (2 * h * y)) < 1e-6 * np.abs(positive) + rounding).all()
    assert (positive - slope >= -1e-12 * positive).all()
    assert (positive >= 0).all()
    assert (curvature >= 0).all()
    assert (here >= -1e-12 * (1 + x + y)).all()
    assert_allclose(loss.of_cells(x, x), 0, atol=1e-12 * x.max())
    assert np.isnan(loss.of_cells(np.array([np.nan]), np.array([1.0]))).all()


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("penalties", [(0, 0), (0.3, 0), (0, 0.5), (0.3, 0.5)])
def test_a_multiplicative_step_lowers_the_objective(loss, penalties):
    l1, l2 = penalties
    for seed in range(5):
        rng = np.random.default_rng(seed)
        X, A, F = cells(loss, seed=seed), rng.uniform(size=(3, 9)), rng.uniform(size=(3, 60))

        def value(F, X=X, A=A):
            return loss.of_cells(X, F.T @ A).sum() + l1 * F.sum() + l2 / 2 * np.square(F).sum()

        before = value(F)
        slope, positive, _ = loss.slopes_of_cells(X, F.T @ A)
        multiply(F, A @ slope.T, A @ positive.T, l1, l2, loss)
        assert value(F) <= before * (1 + 1e-12)


@pytest.mark.parametrize("loss", ALL)
def test_exact_scores_are_stationary(loss):
    X, H = cells(loss), np.random.default_rng(1).uniform(0.1, 1, size=(3, 9))
    W = exact_scores(X, H, 0.2, 0.1, loss=loss)
    slope, _, curvature = loss.slopes_of_cells(X, W @ H)
    gradient, steepness = slope @ H.T + 0.2 + 0.1 * W, curvature @ (H.T**2) + 0.1
    assert np.abs(np.minimum(W, gradient / steepness)).max() < 1e-7 * W.max()
    assert_array_equal(W[:1], exact_scores(X[:1], H, 0.2, 0.1, loss=loss))


@pytest.mark.parametrize("loss", ALL)
def test_the_fast_solver_ends_as_low_as_the_textbook_one(loss):
    X, start = cells(loss), np.random.default_rng(2).uniform(0.1, 1, size=(3, 9))
    fast = factorize(X, 3, loss=loss, init=start, tol=1e-7, max_iter=5000)
    slow = rough(X, 3, loss=loss, init=start, tol=1e-4, max_iter=500, solver="mu")
    assert fast.converged
    assert fast.objective < slow.objective * (1 + 1e-3)
    assert_allclose(fast.objective, objective(X, fast.W, fast.H, loss=loss), rtol=1e-9)
    assert (np.diff(fast.history) <= 0).all()


@pytest.mark.parametrize("solver", sorted(set(DIVERGENCE_SOLVERS) - {"auto"}))
@pytest.mark.parametrize("loss", ALL)
def test_sparse_data_weights_and_missing_cells(loss, solver):
    X = cells(loss, k=2)
    rng = np.random.default_rng(3)
    start, weights = rng.uniform(0.1, 1, size=(2, 9)), rng.integers(0, 3, len(X))
    fit, factorize = dict(loss=loss, solver=solver, init=start, tol=1e-6, max_iter=300), rough
    if not X.all():
        dense, stored = (factorize(data, 2, **fit) for data in (X, sparse.csr_array(X)))
        assert_allclose(stored.objective, dense.objective, rtol=1e-5)
    weighted, twice = factorize(X, 2, sample_weight=weights, **fit), factorize(X.repeat(weights, 0), 2, **fit)
    assert_allclose(weighted.objective, twice.objective, rtol=1e-5)
    holes = np.where(rng.uniform(size=X.shape) < 0.1, np.nan, X)
    found = factorize(holes, 2, missing_values="ignore", **fit)
    assert np.isfinite(found.W).all()
    assert_allclose(found.objective, objective(holes, found.W, found.H, loss=loss), rtol=1e-8)


@pytest.mark.parametrize("loss", ALL)
def test_new_rows_score_as_in_the_fit(loss):
    X = cells(loss)
    nmf = NMFFeatures(3, loss=loss, **AS_THEY_ARE)
    W = nmf.fit_transform(X)
    assert_array_equal(nmf.transform(X), W)
    assert_array_equal(nmf.transform(X[7:9]), W[7:9])
    assert 0 < nmf.score(X) <= 1
    assert np.isfinite(nmf.explained_).all()


@pytest.mark.parametrize("init", ["random", "auto"])
@pytest.mark.parametrize("loss", ALL)
def test_more_starts_never_end_higher(loss, init):
    X = cells(loss, k=4)
    ends = [rough(X, 3, loss=loss, init=init, n_init=n, random_state=0).objective for n in (1, 2, 4)]
    assert ends[1] <= ends[0] * (1 + 1e-9)
    assert ends[2] <= ends[1] * (1 + 1e-9) or init == "auto"
    assert ends[2] <= ends[0] * (1 + 1e-9)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("loss", ALL)
def test_the_residual_at_a_missing_cell_is_zero(loss, kind):
    """Wherever guesses of it are kept: they are made when they are looked at."""
    if kind == "sparse" and not loss.takes_zeros:
        return
    X = np.ones((200, 4))
    X[:100] *= 100
    X[150, 2] = np.nan
    H, W = np.ones((1, 4)), np.nanmax(X, axis=1)[:, None]
    table = MemoryTable(X if kind == "dense" else sparse.csr_array(X), missing=Missing(4), k=1)
    table.start(np.dtype(float), remembers=False)
    table.visit(lambda block, Wt: np.copyto(Wt, W[block.rows].T))
    assert max(table.map(_worst_row, H), key=lambda pair: pair[0])[0] == 0


# A loss as a parameter


def test_two_names_of_one_parameter():
    X = cells(loss_of("kullback-leibler"))
    by_name = [NMFFeatures(2, **name, **AS_THEY_ARE).fit_transform(X) for name in (
        {"loss": "kullback-leibler"}, {"beta_loss": "kullback-leibler"}, {"loss": 1}, {"loss": BetaDivergence(1.0)},
    )]  # fmt: skip
    for W in by_name[1:]:
        assert_array_equal(W, by_name[0])
    assert factorize(X, 2, beta_loss=1).objective == factorize(X, 2, loss=1).objective
    with pytest.raises(ValueError, match="loss is 1 and beta_loss is 2: these are two names of one thing"):
        NMFFeatures(2, loss=1, beta_loss=2).fit(X)
    assert factorize(X, 2, beta_loss=1, loss="kullback-leibler").objective == factorize(X, 2, loss=1).objective
    with pytest.raises(ValueError, match="The 'loss' parameter"):
        factorize(X, 2, loss="poisson")
    with pytest.raises(ValueError, match=r"loss is 'poisson'; wanted one of \['frobenius', .*, a finite number"):
        objective(X, X[:, :2], X[:2], loss="poisson")


def test_a_loss_is_a_parameter_like_others():
    X = cells(NegativeBinomial())
    y = X.sum(axis=1)
    nmf = NMFFeatures(2, loss=NegativeBinomial(0.5), **AS_THEY_ARE)
    assert clone(nmf).loss == nmf.loss
    assert "NegativeBinomial(dispersion=0.5)" in repr(nmf)
    grid = {"nmffeatures__loss": ["frobenius", "negative-binomial", NegativeBinomial(0.1)]}
    search = GridSearchCV(make_pipeline(nmf, LinearRegression()), grid, cv=3).fit(X, y)
    assert len(search.cv_results_["params"]) == 3
    W = nmf.fit_transform(X)
    data = skops.io.dumps(nmf)
    trusted = ["nmf_features.core.negative_binomial.NegativeBinomial", "nmf_features.estimator.NMFFeatures"]
    assert sorted(skops.io.get_untrusted_types(data=data)) == trusted
    for copy in (pickle.loads(pickle.dumps(nmf)), skops.io.loads(data, trusted=trusted)):
        assert copy.loss == nmf.loss
        assert_array_equal(copy.transform(X), W)


def test_models_from_before_the_parameter_was_called_loss():
    X = cells(loss_of(1))
    nmf = NMFFeatures(2, loss="kullback-leibler", **AS_THEY_ARE).fit(X)
    state = dict(nmf.__getstate__())
    state["beta_loss"] = state.pop("loss")
    old = NMFFeatures.__new__(NMFFeatures)
    old.__setstate__(state)
    assert old.loss == "kullback-leibler"
    assert old.beta_loss is None
    assert_array_equal(old.transform(X), nmf.transform(X))


# Negative binomial counts


@pytest.mark.parametrize("dispersion", [0.01, 0.7, 30])
def test_negative_binomial_is_the_distribution_of_that_name(dispersion):
    loss, x = NegativeBinomial(dispersion), np.arange(40.0)
    for y in (0.3, 2, 25):
        r = 1 / dispersion
        likely = stats.nbinom.logpmf(x, r, r / (r + y))
        assert_allclose(loss.negative_log_likelihood(x, y), -likely, rtol=1e-9)
        saturated = np.array([stats.nbinom.logpmf(q, r, r / (r + q)) for q in x])
        assert_allclose(loss.of_cells(x, y), saturated - likely, atol=1e-10 * (1 + x.max()))


def test_negative_binomial_of_no_dispersion_is_kullback_leibler():
    x, y = cells(loss_of(1)), cells(loss_of(1), seed=1) + 0.5
    small, limit = NegativeBinomial(1e-8), loss_of("kullback-leibler")
    assert_allclose(small.of_cells(x, y), limit.of_cells(x, y), rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(small.slopes_of_cells(x, y)[:2], limit.slopes_of_cells(x, y)[:2], strict=True):
        assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert_allclose(small.negative_log_likelihood(x, y), limit.negative_log_likelihood(x, y), rtol=1e-4, atol=1e-3)
    for bad in (0, -1, np.inf, np.nan, "1", True, 1e-9):
        with pytest.raises(ValueError, match=r"dispersion is .*; wanted a number from 1e-08 to 1e\+08"):
            NegativeBinomial(bad)


@pytest.mark.filterwarnings("ignore:n_components=. is the:UserWarning")
@pytest.mark.filterwarnings("ignore:No number of components")
def test_hidden_cells_tell_the_dispersion():
    """The deviance falls with the dispersion without end; the likelihood of hidden cells does not."""
    rng = np.random.default_rng(0)
    mean = rng.gamma(1, size=(400, 2)) @ rng.gamma(1, 8, size=(2, 15)) + 1
    X = rng.poisson(mean * rng.gamma(1 / 0.4, 0.4, size=mean.shape)).astype(float)
    tried = [0.02, 0.1, 0.4, 1.6, 6.4]
    found = [
        select_components(X, [2, 3], loss=NegativeBinomial(a), random_state=0, progress=False, **AS_THEY_ARE)
        for a in tried
    ]
    likely = [selection.summary["negative_log_likelihood"].min() for selection in found]
    assert tried[int(np.argmin(likely))] == 0.4
    deviances = [factorize(X, 2, loss=NegativeBinomial(a), penalty=0).objective for a in tried]
    assert (np.diff(deviances) < 0).all()
    plain = select_components(X, [2, 3], random_state=0, progress=False)
    assert "negative_log_likelihood" not in plain.table


def test_units_of_a_loss_that_has_its_own():
    """Counts whose fourth power single precision cannot hold, and numbers that no count can be."""
    X = 1e7 * (cells(NegativeBinomial()) + 1)
    single, double = (factorize(data, 3, loss=NegativeBinomial(0.5), penalty=0) for data in (X.astype(np.float32), X))
    assert single.converged
    assert_allclose(single.objective, double.objective, rtol=1e-3)
    with pytest.raises(ValueError, match="is computed in the units of X"):
        factorize(X * 1e72, 3, loss=NegativeBinomial(0.5))
