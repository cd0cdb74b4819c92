"""At most m columns for each component: the limit holds everywhere, and the columns that are found are good ones."""

import re
import warnings
from functools import partial
from itertools import combinations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.exceptions import ConvergenceWarning
from test_losses import ALL, cells

from nmf_features import NMFFeatures, NonNegativeScaler, factorize, objective, stability
from nmf_features.core import schedule
from nmf_features.core.alternating import HALS
from nmf_features.core.descent import Descent, _rank_one
from nmf_features.core.losses import loss_of
from nmf_features.core.newton import Newton
from nmf_features.core.penalties import Strengths
from nmf_features.core.solvers import DIVERGENCE_SOLVERS, SOLVERS
from nmf_features.core.support import Limit, SupportSearch
from nmf_features.core.tables import MemoryTable

NONE_NEEDED = np.zeros(6, dtype=bool)


def wine(scale="std"):
    return NonNegativeScaler(scale=scale).fit_transform(load_wine().data)


def rough(*data, **parameters):
    """Factorise; textbook solvers may be stopped on the way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return factorize(*data, **parameters)


def descent(X, k=3, loss="frobenius", solver=HALS, penalty=1e-3, l1_ratio=1.0):
    strengths, unit = (Strengths.of(q, l1_ratio, *X.shape) for q in (penalty, 1.0))
    table = MemoryTable(X, k=k, per_row=k * k)
    return Descent(
        table, X.dtype, loss=loss_of(loss), strengths=strengths, unit=unit, solver=solver(), tol=1e-9, window=5,
        watch=None,
    )  # fmt: skip


# The limit


@pytest.mark.parametrize("solver", sorted(set(SOLVERS) - {"auto"}))
def test_every_solver_keeps_the_limit(solver):
    X, l1_ratio = wine(), 0.5
    f = rough(X, 3, n_nonzero_loadings=4, solver=solver, max_iter=300, l1_ratio=l1_ratio)
    assert_array_equal((f.H > 0).sum(axis=1), [4, 4, 4])
    assert_allclose(f.objective, objective(X, f.W, f.H, l1_ratio=l1_ratio), rtol=1e-10)
    best = factorize(X, 3, n_nonzero_loadings=4, l1_ratio=l1_ratio).objective
    assert f.objective < 1.05 * best  # the same columns, or others that are nearly as good; "mu" is slow
    assert np.diff(f.history).max(initial=-1) <= 1e-12 * (X**2).sum()


@pytest.mark.parametrize("loss", ALL)
def test_every_loss_keeps_the_limit(loss):
    X, rng = cells(loss, shape=(30, 7), k=2), np.random.default_rng(0)
    fit = partial(rough, n_components=2, loss=loss, max_iter=50, tol=1e-3, n_nonzero_loadings=4)
    holes, weights = np.where(rng.uniform(size=X.shape) < 0.1, np.nan, X), rng.integers(0, 3, len(X))
    for f in (fit(X), fit(X, sample_weight=weights), fit(sparse.csr_array(X)), fit(holes, missing_values="ignore")):
        assert ((f.H > 0).sum(axis=1) <= 4).all()
        assert np.isfinite(f.objective)
        assert f.kkt_residual < 0.3  # of a rough fit
    X, unlimited = cells(loss, shape=(30, 7), k=2), fit(X, n_nonzero_loadings=None)
    slow = fit(X, solver="mu")
    assert ((slow.H > 0).sum(axis=1) <= 4).all()
    assert unlimited.objective < slow.objective


@pytest.mark.parametrize("solver", ["hals", "newton"])
def test_stationary_on_the_support(solver):
    X = wine()
    f = factorize(X, 3, n_nonzero_loadings=4, tol=1e-12, max_iter=5000, solver=solver)
    s = Strengths.of(1e-3, 1, *X.shape)
    by_W = (f.W @ (f.H @ f.H.T) - X @ f.H.T + s.l1_W) / (f.H**2).sum(axis=1)
    by_H = ((f.W.T @ f.W) @ f.H - f.W.T @ X + s.l1_H) / (f.W**2).sum(axis=0)[:, None]
    assert np.abs(np.minimum(f.W, by_W)).max() < 1e-9 * f.W.max()
    assert np.abs(by_H[f.H > 0]).max() < 1e-6 * f.H.max()
    assert by_H.min() < -1e-2 * f.H.max()  # elsewhere the limit holds the loadings down
    assert f.kkt_residual < 1e-6


@pytest.mark.parametrize(("shape", "more"), [((178, 13), 0), ((178, 13), 900), ((13, 220), 0)])
def test_a_limit_of_all_columns_is_none(shape, more):
    """A wide table is transposed as without limit."""
    X = np.resize(wine(), shape) + np.random.default_rng(0).uniform(size=shape)
    plain, limited = factorize(X, 3), factorize(X, 3, n_nonzero_loadings=shape[1] + more)
    for name in ("W", "H", "history"):
        assert_array_equal(getattr(plain, name), getattr(limited, name))


def test_a_limit_that_the_fit_meets_anyway_changes_nothing():
    X = np.kron(np.eye(3), np.ones((5, 4))) + np.kron(np.eye(3), np.arange(20.0).reshape(5, 4))
    plain, limited = factorize(X, 3), factorize(X, 3, n_nonzero_loadings=4)
    assert_array_equal((plain.H > 0).sum(axis=1), [4, 4, 4])
    assert_array_equal(plain.H, limited.H)


def test_wide_tables_samples_starts_and_few_passes(monkeypatch):
    """The limit is one of columns, whatever path a fit takes."""
    rng, X = np.random.default_rng(0), wine()
    wide = rng.gamma(1, size=(40, 3)) @ rng.gamma(0.3, size=(3, 250))
    assert ((factorize(wide, 3, n_nonzero_loadings=10).H > 0).sum(axis=1) == 10).all()
    start = rng.uniform(size=(3, 13))
    for parameters in ({"init": start}, {"init": "random", "n_init": 3, "random_state": 0}, {"n_init": 2}):
        assert ((factorize(X, 3, n_nonzero_loadings=2, **parameters).H > 0).sum(axis=1) == 2).all()
    assert ((rough(X, 3, n_nonzero_loadings=2, max_iter=1).H > 0).sum(axis=1) <= 2).all()
    assert ((factorize(X.astype(np.float32), 3, n_nonzero_loadings=2).H > 0).sum(axis=1) == 2).all()
    all_rows = factorize(X, 3, n_nonzero_loadings=5)
    monkeypatch.setattr(schedule, "SUPPORT_CELLS", 1300)
    sampled = factorize(X, 3, n_nonzero_loadings=5)
    assert not np.array_equal(all_rows.H, sampled.H)  # another path
    assert ((sampled.H > 0).sum(axis=1) == 5).all()
    assert sampled.objective < 1.1 * all_rows.objective


def test_n_init_never_ends_higher():
    X = wine()
    one, four = (factorize(X, 4, n_nonzero_loadings=2, n_init=m).objective for m in (1, 4))
    assert four <= one


# What is found


def test_mostly_the_best_of_all_supports_is_found():
    """All 105 choices of two columns for each of two components, on six tables; the worst of many is 23 % higher."""
    excess = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        X = rng.gamma(0.5, size=(30, 2)) @ rng.gamma(1, size=(2, 6)) + 0.3 * rng.gamma(1, size=(30, 6))
        free, run, found = factorize(X, 2).H, descent(X, 2), []
        for a, b in combinations(combinations(range(6), 2), 2):
            support = np.zeros((2, 6), dtype=bool)
            support[0, list(a)] = support[1, list(b)] = True
            run.restart().restrict(support)
            found.append(run.run(np.maximum(free, 1e-2 * free.max()), 100).value)
        excess.append(factorize(X, 2, n_nonzero_loadings=2).objective / min(found) - 1)
    assert sum(e < 1e-3 for e in excess) >= 4
    assert max(excess) < 0.25


def test_planted_columns_are_found():
    rng = np.random.default_rng(1)
    H = np.kron(np.eye(4), np.ones((1, 5))) * rng.uniform(0.5, 1.5, size=(4, 20))
    X = rng.gamma(1, size=(200, 4)) @ H
    X = np.maximum(X + 0.3 * X.std() * rng.normal(size=X.shape), 0)
    found = factorize(X, 4, n_nonzero_loadings=5).H > 0
    assert sorted(map(tuple, found)) == sorted(map(tuple, H > 0))


@pytest.mark.parametrize(("k", "m"), [(2, 3), (3, 4), (5, 2)])
def test_better_than_cutting_afterwards(k, m):
    """Cut the loadings of the free fit to the m largest, and fit on these: never better, and mostly worse."""
    for data in (load_wine().data, load_breast_cancer().data):
        X = NonNegativeScaler().fit_transform(data)
        free, run = factorize(X, k).H, descent(X, k)
        run.restrict(Limit(m).largest(free, m, np.zeros(X.shape[1], dtype=bool)))
        cut = run.run(free, 1000, True).value
        assert factorize(X, k, n_nonzero_loadings=m).objective < 0.98 * cut


def test_one_component_is_made_of_the_columns_that_belong_together():
    """For k = 1 any support can be tried: here all 78 pairs."""
    X, run, found = wine(), descent(wine(), 1), []
    for pair in combinations(range(13), 2):
        support = np.zeros((1, 13), dtype=bool)
        support[0, list(pair)] = True
        run.restart().restrict(support)
        found.append(run.run(np.ones((1, 13)), 300).value)
    assert factorize(X, 1, n_nonzero_loadings=2).objective < min(found) * (1 + 1e-6)


def test_neither_threads_nor_the_order_of_rows_matter():
    X = wine()
    fit = partial(factorize, n_components=3, n_nonzero_loadings=3)
    one, other = fit(X), fit(X[np.random.default_rng(0).permutation(len(X))])
    assert_array_equal(one.H, fit(X, n_jobs=3).H)
    assert_array_equal(one.H > 0, other.H > 0)
    assert_allclose(one.objective, other.objective, rtol=1e-5)
    dense, stored = fit(X), fit(sparse.csr_array(X))
    assert_array_equal(dense.H > 0, stored.H > 0)


def test_of_equal_columns_the_first_is_taken():
    rng = np.random.default_rng(2)
    X = rng.gamma(1, size=(50, 1)) * np.ones(6) + 0.1
    assert_array_equal(np.flatnonzero(factorize(X, 1, n_nonzero_loadings=2).H[0]), [0, 1])
    assert_array_equal(
        Limit(2).largest(np.array([[1.0, 3, 1 + 1e-9, 1 - 1e-9, 0, 0]]), 2, NONE_NEEDED)[0], [1, 1, *4 * [0]]
    )


def test_every_needed_column_is_kept():
    scores, needed = np.array([[6.0, 5, 4, 3, 2, 1], [3.0, 2.5, 2, 1.5, 0, 0]]), np.ones(6, dtype=bool)
    kept = Limit(3).largest(scores, 3, needed)
    assert_array_equal(kept.sum(axis=1), [3, 3])
    assert kept.any(axis=0).all()
    assert_array_equal(Limit(3).largest(scores, 3, NONE_NEEDED)[:, :3], np.ones((2, 3)))


def test_counts_keep_a_component_in_every_column():
    """The loss of a positive cell that is fitted by zero would be infinite."""
    X = cells(loss_of("kullback-leibler"), shape=(60, 12), k=4)
    f = factorize(X, 4, loss="kullback-leibler", n_nonzero_loadings=3)
    assert_array_equal((f.H > 0).sum(axis=0), np.ones(12))
    run = descent(X, 4, "kullback-leibler", partial(Newton, loss_of("kullback-leibler")))
    cut = SupportSearch(run, Limit(3)).narrowed(np.eye(4, 12) + np.arange(1, 13), 0.0)
    assert_array_equal(cut.support.sum(axis=0), np.ones(12))
    message = "n_nonzero_loadings=2 leaves columns without a component: 4 components have at most 8 of the 12 columns"
    with pytest.raises(ValueError, match=re.escape(message) + ".* Allow 3 or more"):
        factorize(X, 4, loss="kullback-leibler", n_nonzero_loadings=2)
    assert ((factorize(X, 4, n_nonzero_loadings=2).H > 0).sum(axis=1) == 2).all()


# The parts


@pytest.mark.parametrize("solver", [HALS, Newton])
@pytest.mark.parametrize("l1_ratio", [0.5, 1])
def test_derivatives_are_those_of_the_objective(solver, l1_ratio):
    X, h = wine(), 1e-5
    run = descent(X, solver=solver, penalty=0.01, l1_ratio=l1_ratio)
    H = run.run(np.random.default_rng(0).uniform(0.5, 1, size=(3, 13)), 5).H
    W = np.concatenate(list(run.table.map(lambda block, Wt: Wt.copy())), axis=1).T
    slope, curvature = run.derivatives()
    for t, j in [(0, 0), (1, 5), (2, 12)]:
        step = h * H.max() * (np.arange(39) == 13 * t + j).reshape(3, 13)
        below, here, above = (objective(X, W, H + d, 0.01, l1_ratio) for d in (-step, 0, step))
        size = step.max()
        assert_allclose(slope[t, j], (above - below) / (2 * size), rtol=1e-4, atol=1e-5 * here)
        assert_allclose(curvature[t, j], (above - 2 * here + below) / size**2, rtol=1e-3)


@pytest.mark.parametrize("solver", sorted({*SOLVERS.values(), *DIVERGENCE_SOLVERS.values()}, key=lambda s: s.__name__))
def test_loadings_stay_zero_off_the_support(solver):
    X, rng = wine(), np.random.default_rng(3)
    run, support = descent(X, solver=solver), rng.uniform(size=(3, 13)) < 0.4
    support[:, 0] = False  # a column that no component may load
    run.restrict(support)
    run.run(rng.uniform(size=(3, 13)), 100)
    assert not run.H[~support].any()
    assert run.H[support].any()
    values = run.history
    assert values[-1] < values[0]
    free = descent(X).run(rng.uniform(size=(3, 13)), 100).value
    assert values[-1] > free


@pytest.mark.filterwarnings("ignore:Components .* are zero")
def test_dead_components_are_revived_on_their_columns():
    X = wine()
    run, support = descent(X), np.zeros((3, 13), dtype=bool)
    support[0, :5] = support[1, 5:9] = support[2, 9:] = True
    run.restrict(support)
    start = np.random.default_rng(0).uniform(size=(3, 13)) * np.array([[1], [1], [0]])
    run.run(start, 300)
    assert not run.H[2].any()
    run.settle(1000)
    assert run.H[2, 9:].any()
    assert not run.H[2, :9].any()


def test_a_piece_of_the_residual_keeps_to_the_allowed_columns():
    run, allowed = descent(wine()), np.arange(13) > 8
    H = run.run(np.eye(3, 13), 50).H
    _, h = _rank_one(run.table, H * [[1], [1], [0]], run.strengths, run.unit, run.value, allowed)
    assert h[9:].any()
    assert not h[:9].any()


def test_exchanges_and_fresh_starts_lower_the_objective():
    X = NonNegativeScaler().fit_transform(load_breast_cancer().data)
    free = factorize(X, 5).H
    search = SupportSearch(descent(X, 5), Limit(6))
    narrowed = search.narrowed(free, 0.0)
    narrowed = search.on(narrowed.H, narrowed.support, 300)
    exchanged = search.exchanged(narrowed)
    replaced = search.replaced(exchanged)
    assert exchanged.value < 0.7 * narrowed.value  # .38 of it, and .91 of that
    assert replaced.value < 0.97 * exchanged.value
    assert search.best(free).value <= replaced.value * (1 + 1e-3)


# In NMFFeatures


def test_split_columns_count_once():
    X = load_wine(as_frame=True).data
    nmf = NMFFeatures(3, shift="split", n_nonzero_loadings=2).fit(X)
    columns = nmf.components_.reshape(3, 13, 2)
    assert ((columns > 0).any(axis=2).sum(axis=1) == 2).all()
    assert ((nmf.components_ > 0).sum(axis=1) > 2).any()


def test_features_of_few_columns():
    X = load_wine(as_frame=True).data
    nmf = NMFFeatures(3, n_nonzero_loadings=3)
    W = nmf.fit_transform(X)
    assert (nmf.components_ > 0).sum(axis=1).tolist() == [3, 3, 3]
    assert_allclose(nmf.components_.sum(axis=1), 1)
    assert nmf.transform(X).equals(W)
    assert nmf.score(X) < NMFFeatures(3).fit(X).score(X)
    again = stability(X, 3, n_runs=2, random_state=0, progress=False, n_nonzero_loadings=3)
    assert ((again.components > 0).sum(axis=1) == 3).all()


@pytest.mark.parametrize("m", [0, 2.5, "few"])
def test_what_is_no_number_of_columns_is_refused(m):
    with pytest.raises(ValueError, match="n_nonzero_loadings"):
        factorize(wine(), 3, n_nonzero_loadings=m)
    with pytest.raises(ValueError, match="n_nonzero_loadings"):
        NMFFeatures(3, n_nonzero_loadings=m).fit(wine())


def test_a_model_of_an_earlier_version_has_no_limit():
    nmf = NMFFeatures(2).fit(wine())
    state = dict(nmf.__getstate__())
    del state["n_nonzero_loadings"]
    earlier = NMFFeatures.__new__(NMFFeatures)
    earlier.__setstate__(state)
    assert_array_equal(earlier.transform(wine()), nmf.transform(wine()))
