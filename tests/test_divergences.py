"""Other losses than least squares: Kullback-Leibler, Itakura-Saito, any beta."""

import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize, sparse
from sklearn.datasets import load_digits
from sklearn.decomposition import NMF
from sklearn.decomposition._nmf import _beta_divergence

from nmf_features import NMFFeatures, factorize, objective, select_components
from nmf_features.core.losses import loss_of
from nmf_features.core.missing import Missing
from nmf_features.core.newton import MultiplicativeDivergence, multiply
from nmf_features.core.objective import divergence
from nmf_features.core.penalties import Strengths
from nmf_features.core.projection import exact_scores
from nmf_features.core.solvers import DIVERGENCE_SOLVERS
from nmf_features.core.tables import MemoryTable
from nmf_features.core.units import extremes, largest

KL = "kullback-leibler"
BETAS = [-1, 0, 0.5, 1, 1.5, 2, 2.5, 3]
PENALTIES = [(0, 1), (0.001, 1), (0.01, 0.5), (0.01, 0)]


def counts(n=120, p=15, k=3, seed=0):
    """Poisson counts of low rank, with some zeros but no empty row."""
    rng = np.random.default_rng(seed)
    X = rng.poisson(3 * rng.gamma(0.7, 1, (n, k)) @ rng.gamma(0.7, 1, (k, p))).astype(float)
    X[:, 0] += 1
    return X


def data_for(beta, n=120, p=15, k=3, seed=0):
    """Data of low rank with the noise that the loss is for: Poisson counts, or multiplicative where zeros are bad."""
    if beta >= 1:
        return counts(n, p, k, seed)
    rng = np.random.default_rng(seed)
    return rng.gamma(1, 1, (n, k)) @ rng.gamma(1, 1, (k, p)) * rng.gamma(5, 0.2, (n, p))


# ---- the loss


@pytest.mark.parametrize("beta", BETAS)
def test_objective_is_scikit_learns(beta):
    X, rng = data_for(beta), np.random.default_rng(1)
    W, H = rng.uniform(size=(120, 3)), rng.uniform(size=(3, 15))
    theirs = _beta_divergence(X, W, H, beta)
    for table in (X, sparse.csr_array(X)):
        assert_allclose(objective(table, W, H, 0, loss=beta), theirs, rtol=1e-12)
    v = rng.integers(0, 3, 120)
    rows = np.repeat(np.arange(120), v)
    assert_allclose(
        objective(X, W, H, 0.01, 0.5, sample_weight=v, loss=beta),
        objective(X[rows], W[rows], H, 0.01, 0.5, loss=beta),
        rtol=1e-12,
    )


def test_objective_by_hand():
    X, Y = np.array([[2.0, 0.0]]), np.array([[1.0, 3.0]])
    one = np.ones((1, 1))
    assert_allclose(objective(X, one, Y, 0, loss=KL), 2 * np.log(2) - 2 + 1 + 3)
    assert objective(X, one, np.array([[0.0, 1.0]]), 0, loss=KL) == np.inf
    assert objective(np.zeros((1, 2)), one, np.zeros((1, 2)), 0, loss=KL) == 0
    assert_allclose(objective(X[:, :1], one, Y[:, :1], 0, loss="itakura-saito"), 2 - np.log(2) - 1)
    # what is not stored is not observed
    rng = np.random.default_rng(0)
    X, W, H = counts(), rng.uniform(size=(120, 3)), rng.uniform(size=(3, 15))
    for beta in (1, 2):
        seen = objective(np.where(X == 0, np.nan, X), W, H, 0.01, loss=beta)
        unstored = objective(sparse.csr_array(X), W, H, 0.01, loss=beta, missing_values="unstored")
        assert_allclose(unstored, seen, rtol=1e-12)


@pytest.mark.parametrize("beta", BETAS)
def test_slopes_are_derivatives(beta):
    x, y, h = np.array([0.5, 2.0, 3.0]), np.array([1.0, 1.5, 3.0]), 1e-4
    below, here, above = (loss_of(beta).of_cells(x, y + d) for d in (-h, 0, h))
    slope, positive, curvature = loss_of(beta).slopes_of_cells(x, y)
    assert_allclose(slope, (above - below) / (2 * h), rtol=1e-6, atol=1e-7)
    assert (positive >= slope).all()
    if 1 <= beta <= 2:
        assert_allclose(curvature, (above - 2 * here + below) / h**2, rtol=1e-5)
    else:
        assert_allclose(curvature[2], (above - 2 * here + below)[2] / h**2, rtol=1e-5)  # there x = y


# ---- the solvers


def violations(X, f, penalty, l1_ratio, beta):
    """How far W and H are from stationary, each divided by its curvature and by its largest entry."""
    s, Y = Strengths.of(penalty, l1_ratio, *X.shape), f.W @ f.H
    slope, _, curvature = loss_of(beta).slopes_of_cells(X, np.maximum(Y, 1e-30))
    by_W = (slope @ f.H.T + s.l1_W + s.l2_W * f.W) / (curvature @ (f.H**2).T + s.l2_W)
    by_H = (f.W.T @ slope + s.l1_H + s.l2_H * f.H) / ((f.W**2).T @ curvature + s.l2_H)
    return (np.abs(np.minimum(F, by)).max() / F.max() for F, by in ((f.W, by_W), (f.H, by_H)))


# The level of the residual of the loadings: Newton's is that of tol where the loss is convex in the scores; else, and
# for multiplicative updates, which creep towards zeros, it is less.
@pytest.mark.filterwarnings("ignore:NMF stopped")
@pytest.mark.parametrize("solver", sorted(set(DIVERGENCE_SOLVERS) - {"auto"}))
@pytest.mark.parametrize("beta", [0, 0.5, 1, 1.5, 2.5, 3])
@pytest.mark.parametrize(("penalty", "l1_ratio"), PENALTIES)
def test_stationary(solver, beta, penalty, l1_ratio):
    X, fast, convex = data_for(beta), solver != "mu", 1 <= beta <= 2
    f = factorize(
        X,
        3,
        penalty=penalty,
        l1_ratio=l1_ratio,
        loss=beta,
        solver=solver,
        tol=1e-10 if fast else 1e-7,
        max_iter=1500,
    )
    assert (np.diff(f.history) <= 0).all()
    assert_allclose(f.objective, objective(X, f.W, f.H, penalty, l1_ratio, loss=beta), rtol=1e-12)
    by_W, by_H = violations(X, f, penalty, l1_ratio, beta)
    assert by_W < (1e-9 if convex else 1e-2)
    assert by_H < ((1e-5 if convex else 2e-2) if fast else 2e-2)
    if penalty:  # without, the scale of a component is set afterwards
        assert_allclose(f.kkt_residual, by_H, rtol=1e-2, atol=1e-8)
    if fast and convex:
        assert f.converged


@pytest.mark.filterwarnings("ignore:NMF stopped", "ignore:Maximum number of iterations")
@pytest.mark.parametrize("solver", ["auto", "mu"])
@pytest.mark.parametrize("beta", [0, 0.5, 1, 1.5, 3])
def test_at_least_as_good_as_scikit_learn(beta, solver):
    X = data_for(beta)
    theirs = NMF(3, solver="mu", beta_loss=beta, init="nndsvda", max_iter=1000, tol=1e-5, random_state=0)
    goal = _beta_divergence(X, theirs.fit_transform(X), theirs.components_, beta)
    assert factorize(X, 3, penalty=0, loss=beta, solver=solver).objective < (1.01 if solver == "auto" else 1.05) * goal


def test_multiplicative_step_is_lee_and_seungs():
    """V ~ W H with samples in columns there: their W is our loadings transposed, their H our scores transposed."""
    rng = np.random.default_rng(0)
    V, W, H = rng.poisson(3, (8, 20)).astype(float), rng.uniform(0.1, 1, (8, 3)), rng.uniform(0.1, 1, (3, 20))
    W /= W.sum(axis=0)
    ours_F, ours_A = H.copy(), W.T.copy()  # scores k x rows, loadings k x columns of our table V'
    # W_ia <- W_ia sum_m V_im / (WH)_im H_am;  W_ia <- W_ia / sum_j W_ja
    theirs_W = W * ((V / (W @ H)) @ H.T)
    theirs_W /= theirs_W.sum(axis=0)
    # H_am <- H_am sum_i W_ia V_im / (WH)_im
    theirs_H = H * (theirs_W.T @ (V / (theirs_W @ H)))

    slope, positive, _ = loss_of(1).slopes_of_cells(V.T, (W @ H).T)
    multiply(ours_A, ours_F @ slope, ours_F @ positive, 0, 0, loss_of(1))
    ours_A /= ours_A.sum(axis=1, keepdims=True)
    assert_allclose(ours_A.T, theirs_W, rtol=1e-12)
    slope, positive, _ = loss_of(1).slopes_of_cells(V.T, ours_F.T @ ours_A)
    multiply(ours_F, ours_A @ slope.T, ours_A @ positive.T, 0, 0, loss_of(1))
    assert_allclose(ours_F, theirs_H, rtol=1e-12)


@pytest.mark.parametrize("table", [np.asarray, sparse.csr_array])
def test_a_pass_of_the_solver_makes_lee_and_seungs_steps(table):
    """The solver on a whole table: one step of the scores, then one of the loadings."""
    X, rng = counts(), np.random.default_rng(0)
    H, W = rng.uniform(0.1, 1, (3, 15)), rng.uniform(0.1, 1, (120, 3))
    rows, mu = MemoryTable(table(X), k=3), MultiplicativeDivergence(loss_of(1))
    rows.start(np.dtype(float), remembers=False)
    rows.visit(lambda block, Wt: np.copyto(Wt, W.T))
    mu.prepare(rows.summary())
    free = Strengths(0, 0, 0, 0)
    stats = rows.sum_over(mu.improve_scores, H, mu.context(H, free), free, 1, 0)
    new_W = W * ((X / (W @ H)) @ H.T) / H.sum(axis=1)
    [found] = rows.map(lambda block, Wt: Wt.T)
    assert_allclose(found, new_W, rtol=1e-12)
    new_H = H * (new_W.T @ (X / (new_W @ H))) / new_W.sum(axis=0)[:, None]
    if mu.per_stored:
        [found] = rows.map_columns(mu.improve_columns, H, free, None)
    else:
        found = mu.improve_components(H, stats, free, None)
    assert_allclose(found, new_H, rtol=1e-12)


@pytest.mark.parametrize("beta", [-1, 0.5, 1, 1.7, 3])
@pytest.mark.parametrize("penalties", [(0, 0), (0.3, 0), (0, 0.5), (0.3, 0.5)])
def test_a_multiplicative_step_lowers_the_objective(beta, penalties):
    l1, l2 = penalties
    for seed in range(5):
        rng = np.random.default_rng(seed)
        X, A, F = data_for(beta, n=20, p=8), rng.uniform(size=(3, 8)), rng.uniform(size=(3, 20))

        def value(F, X=X, A=A):
            return loss_of(beta).of_cells(X, F.T @ A).sum() + l1 * F.sum() + l2 / 2 * np.square(F).sum()

        before = value(F)
        slope, positive, _ = loss_of(beta).slopes_of_cells(X, F.T @ A)
        multiply(F, A @ slope.T, A @ positive.T, l1, l2, loss_of(beta))
        assert value(F) < before
        assert F.min() > 0


# ---- scores of rows


@pytest.mark.parametrize("penalties", [(0.0, 0.0), (0.2, 0.3)])
@pytest.mark.parametrize("beta", [1.0, 1.5])
def test_scores_are_the_convex_minimisers(beta, penalties):
    X, rng, (l1, l2) = counts(30), np.random.default_rng(2), penalties
    H = rng.gamma(0.5, 1, (4, 15)) + 0.01
    W = exact_scores(X, H, l1, l2, loss=loss_of(beta))
    slope, _, curvature = loss_of(beta).slopes_of_cells(X, W @ H)
    step = (slope @ H.T + l1 + l2 * W) / (curvature @ (H**2).T + l2)
    assert np.abs(np.minimum(W, step)).max() < 1e-9 * W.max()
    for x, w in zip(X[:5], W, strict=False):

        def value(u, x=x):
            return loss_of(beta).of_cells(x, u @ H).sum() + l1 * u.sum() + l2 / 2 * u @ u

        best = optimize.minimize(value, np.full(4, 0.5), bounds=[(1e-12, None)] * 4, tol=1e-12)
        assert value(w) <= best.fun * (1 + 1e-9)


def test_least_squares_from_products_are_those_of_cells():
    """Also where products would leave no digits."""
    rng = np.random.default_rng(0)
    W, H, v = rng.gamma(1, size=(300, 4)), rng.gamma(1, size=(4, 900)), rng.uniform(size=300)
    for noise in (1.0, 1e-3, 1e-9, 0.0):
        X = W @ H + noise * rng.uniform(size=(300, 900))
        for weights in (None, v):
            expected = (np.ones(300) if weights is None else v) @ loss_of(2).of_cells(X, W @ H).sum(axis=1)
            for table in (X, np.asfortranarray(X), sparse.csr_array(X)):
                assert_allclose(divergence(table, W, H, loss_of(2), weights), expected, rtol=1e-7, atol=1e-20 * X.size)


def test_no_product_overflows_where_the_fit_does_not():
    X, W, H = np.full((4, 3), 1e10), np.full((4, 1), 1e160), np.full((1, 3), 0.5e-150)
    assert_allclose(objective(X, W, H, penalty=0), 12 * (0.5e10) ** 2 / 2)


@pytest.mark.filterwarnings("ignore:Components .* are zero")  # with this penalty one does
@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("missing_values", ["ignore", "unstored"])
def test_many_sparse_rows_with_holes(beta, missing_values):
    """In single precision on the way, as the penalties of what is observed."""
    rng = np.random.default_rng(0)
    X = sparse.csr_array(rng.poisson(1.0, (2000, 20)).astype(float))
    X.data[::9] = np.nan
    f = factorize(X, 2, penalty=0.05, loss=beta, missing_values=missing_values, tol=1e-6)
    assert f.converged
    again = factorize(X, 2, penalty=0.05, loss=beta, missing_values=missing_values, tol=1e-6, init=f.H)
    assert_allclose(again.objective, f.objective, rtol=1e-3)


def test_extremes_of_cells():
    X = np.arange(300_000.0).reshape(1000, 300) + 1
    assert extremes(X) == extremes(np.asfortranarray(X)) == extremes(sparse.csr_array(X)) == (0, 300_000)
    assert extremes(-X) == (-300_000, 0)
    X[500, 7] = np.nan
    assert np.isnan(extremes(X)).all()
    assert largest(X) == 300_000
    assert largest(np.full((2, 2), np.nan)) == 0
    assert extremes(np.zeros((0, 3))) == (0, 0)


@pytest.mark.parametrize("beta", [1.5, 1.9])
def test_hard_rows_are_solved(beta):
    """Cells over many decades, and loadings that are mostly zero: Newton's steps must not be too bold."""
    rng = np.random.default_rng(5)
    X, H = (
        np.exp(8 * rng.normal(size=(2000, 12))),
        rng.gamma(0.3, 1, (3, 12)) * (rng.uniform(size=(3, 12)) < 0.6) + 1e-9,
    )
    X /= X.max(axis=1, keepdims=True)
    W = exact_scores(X, H, loss=loss_of(beta))
    slope, _, curvature = loss_of(beta).slopes_of_cells(X, W @ H)
    violation = np.abs(np.minimum(W, (slope @ H.T) / (curvature @ (H**2).T))).max(axis=1)
    assert violation.max() < 1e-8


@pytest.mark.parametrize("beta", [1.0, 1.3])
def test_rows_of_every_size_and_range_are_solved(beta):
    """What single precision cannot hold is found in double."""
    rng = np.random.default_rng(0)
    X = rng.gamma(0.05, size=(400, 15))  # over 60 decades
    X[:100] *= np.exp2(rng.integers(-500, 500, (100, 1)))
    H = rng.gamma(0.1, 1, (4, 15))
    W = exact_scores(X, H, loss=loss_of(beta))
    assert np.isfinite(W).all()
    _, e = np.frexp(W.max(axis=1))
    X, W = np.ldexp(X, -e[:, None]), np.ldexp(W, -e[:, None])
    slope, _, curvature = loss_of(beta).slopes_of_cells(X, np.maximum(W @ H, 1e-300))
    with np.errstate(over="ignore", invalid="ignore"):
        step = np.nan_to_num((slope @ H.T) / (curvature @ (H**2).T))
    violation = np.abs(np.minimum(W, step)).max(axis=1)
    assert np.quantile(violation, 0.9) < 1e-9


def test_a_row_depends_on_itself_alone():
    X = counts(700)
    H = np.random.default_rng(2).gamma(0.5, 1, (4, 15)) + 0.01
    holes = np.where(np.random.default_rng(3).uniform(size=X.shape) < 0.3, np.nan, X)
    for table in (X, holes, sparse.csr_array(X)):
        for missing in (None, Missing(15), Missing(15, sparse.issparse(table))):
            W = exact_scores(table, H, loss=loss_of(1.0), missing=missing)
            assert_array_equal(exact_scores(table[500:501], H, loss=loss_of(1.0), missing=missing), W[500:501])
            assert_array_equal(exact_scores(table[::-1], H, loss=loss_of(1.0), missing=missing), W[::-1])
            assert_array_equal(exact_scores(table, H, loss=loss_of(1.0), missing=missing, n_jobs=3), W)


ALONE = """
import numpy as np
from nmf_features.core.losses import loss_of
from nmf_features.core.projection import exact_scores
rng = np.random.default_rng(0)
X, H = rng.poisson(3, size=(700, 15)) + 0.5, rng.gamma(0.5, 1, (4, 15)) + 0.01
X[rng.random(X.shape) < 0.3] = np.nan
W = exact_scores(X, H, loss=loss_of(1.0))
assert np.array_equal(exact_scores(X[::-1], H, loss=loss_of(1.0)), W[::-1])
"""


def test_a_row_depends_on_itself_alone_on_processors_with_avx2():
    """There BLAS rounds single precision by the place of a row."""
    environment = os.environ | {"OPENBLAS_CORETYPE": "Haswell"}  # ignored by other libraries than OpenBLAS
    subprocess.run([sys.executable, "-c", ALONE], check=True, env=environment)


def test_scores_of_odd_rows():
    H = np.array([[1.0, 1, 0, 0], [0, 1, 1, 0]])
    X = np.array([[0.0, 0, 0, 0], [1, 2, 1, 0], [0, 0, 0, 5], [5, 0, 0, 0]])
    W = exact_scores(X, H, loss=loss_of(1.0))
    assert_allclose(W[0], 0)
    assert_allclose(W[1], [1, 1])
    assert_allclose(W[3], [2.5, 0], atol=1e-12)
    assert np.isfinite(W).all()  # of a row that no component explains, too
    assert_allclose(exact_scores(X, np.zeros((2, 4)), loss=loss_of(1.0)), 0)
    assert_allclose(exact_scores(X, np.vstack([H, H[:1]]), loss=loss_of(1.0))[1], [0.5, 1, 0.5])  # equal ones share


# ---- sparse, missing, weights: the same fit in other clothes


def same(first, second, rtol=1e-7):
    assert_allclose(second.objective, first.objective, rtol=rtol)
    assert_allclose(second.W @ second.H, first.W @ first.H, rtol=1e-3, atol=1e-3 * (first.W @ first.H).max())


@pytest.mark.parametrize("solver", ["auto", "mu"])
@pytest.mark.parametrize("beta", [1, 1.5, 2])
@pytest.mark.filterwarnings("ignore:NMF stopped")
def test_sparse_and_dense_agree(beta, solver):
    X, rng = counts(), np.random.default_rng(0)
    fit = dict(loss=beta, solver=solver, tol=1e-9, max_iter=300, init=rng.uniform(0.5, 1, (3, 15)))
    holes = rng.uniform(size=X.shape) < 0.2
    stored = sparse.csr_array(np.where(holes, 1.0, X))
    stored.data[holes[stored.nonzero()]] = np.nan
    same(factorize(X, 3, **fit), factorize(sparse.csr_array(X), 3, **fit))
    dense = factorize(np.where(holes, np.nan, X), 3, missing_values="ignore", **fit)
    same(dense, factorize(stored, 3, missing_values="ignore", **fit))
    if beta != 2 or solver != "mu":  # there "mu" is another class
        zeros_unseen = factorize(np.where(X == 0, np.nan, X), 3, missing_values="ignore", **fit)
        same(zeros_unseen, factorize(sparse.csr_array(X), 3, missing_values="unstored", **fit), rtol=1e-4)


def test_own_grams_and_filling_in_agree():
    X, rng = counts(), np.random.default_rng(0)
    X[rng.uniform(size=X.shape) < 0.2] = np.nan
    fit = dict(missing_values="ignore", tol=1e-10, init=rng.uniform(0.5, 1, (3, 15)), penalty=0.01)
    same(factorize(X, 3, solver="hals", **fit), factorize(X, 3, solver="newton", **fit))


@pytest.mark.filterwarnings("ignore:NMF stopped")
@pytest.mark.parametrize("beta", [0, 1, 1.5])
@pytest.mark.parametrize("masked", [False, True])
def test_weight_two_is_the_row_twice(beta, masked):
    X, rng = data_for(beta), np.random.default_rng(0)
    if masked:
        X[rng.uniform(size=X.shape) < 0.2] = np.nan
    v = rng.integers(0, 3, 120)
    rows = np.repeat(np.arange(120), v)
    fit = dict(loss=beta, tol=1e-10, init=rng.uniform(0.5, 1, (3, 15)), missing_values="ignore", max_iter=3000)
    weighted, repeated = factorize(X, 3, sample_weight=v, **fit), factorize(X[rows], 3, **fit)
    assert_allclose(weighted.objective, repeated.objective, rtol=1e-8 if beta else 1e-4)  # beta = 0 has many minima
    if beta and not masked:
        by_sparse = factorize(sparse.csr_array(X), 3, sample_weight=v, **fit)
        assert_allclose(by_sparse.objective, weighted.objective, rtol=1e-10)


def test_an_empty_mask_is_no_mask():
    X = counts()
    full, ignoring = (factorize(X, 3, loss=KL, missing_values=m) for m in ("raise", "ignore"))
    assert_array_equal(full.W, ignoring.W)


def test_threads_do_not_change_a_bit():
    X = counts(3000)
    for table in (X, sparse.csr_array(X)):
        one, three = (factorize(table, 3, loss=KL, n_jobs=jobs) for jobs in (1, 3))
        assert_array_equal(one.W, three.W)
        assert_array_equal(one.H, three.H)


def test_single_precision_and_units():
    X = counts()
    double = factorize(X, 3, loss=KL, penalty=0)
    single = factorize(X.astype(np.float32), 3, loss=KL, penalty=0)
    assert single.W.dtype == single.H.dtype == np.float32
    assert_allclose(single.objective, double.objective, rtol=1e-4)
    for c in (1e-300, 1e-8, 1e8, 1e300):
        scaled = factorize(X * c, 3, loss=KL, penalty=0)
        assert_allclose(scaled.objective / c, double.objective, rtol=1e-6)
        ratios = factorize((X + 1) * c, 3, loss="itakura-saito", penalty=0)
        assert_allclose(ratios.objective, factorize(X + 1, 3, loss=0, penalty=0).objective, rtol=1e-3)


def test_zero_is_no_trap():
    X = counts()
    X[5], X[:, 4] = 0, 0
    for solver in ("auto", "mu"):
        f = factorize(X, 3, loss=KL, solver=solver, init=np.eye(3, 15), tol=1e-4)
        reference = factorize(X, 3, loss=KL)
        assert f.objective < 1.1 * reference.objective
        assert np.isfinite(f.W).all()
        assert_allclose(f.W[5], 0)


def test_tall_data_are_fitted_on_samples_first():
    X = counts(6000)
    f = factorize(X, 3, loss=KL)
    start = factorize(X, 3, loss=KL, n_init=3, random_state=0)
    assert start.objective <= f.objective * (1 + 1e-6)
    assert f.converged
    assert f.n_iter < 40


@pytest.mark.filterwarnings("ignore:Components .* are zero")
@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (2, 30), (40, 3)])
def test_odd_shapes(shape):
    X = counts(*shape)[:, : shape[1]] + 1
    for beta in (0, 1, 3):
        f = factorize(X, 2, loss=beta, tol=1e-4)
        assert np.isfinite(f.objective)
        assert f.W.shape == (shape[0], 2)
    assert_allclose(factorize(X, 0, loss=1).objective, np.inf)


# ---- errors, and the transformer


def test_domain_and_solver_are_checked():
    X = counts()
    for beta in ("itakura-saito", -0.5, 0):
        with pytest.raises(
            ValueError, match=r"is infinite at zero, and X has zeros \(\d+ of its cells\).*shift=None, scale=None"
        ):
            factorize(X, 2, loss=beta)
        with pytest.raises(ValueError, match="shift=None, scale=None"):
            NMFFeatures(2, loss=beta).fit(X)
    for solver in ("hals", "als", "gradient"):
        with pytest.raises(ValueError, match=rf"solver='{solver}' does not know loss='kullback-leibler'"):
            factorize(X, 2, loss=KL, solver=solver)
        with pytest.raises(ValueError, match=rf"solver='{solver}' does not know missing_values=\"unstored\""):
            factorize(sparse.csr_array(X), 2, solver=solver, missing_values="unstored")
    with pytest.raises(ValueError, match="loss"):
        NMFFeatures(2, loss="poisson").fit(X)


@pytest.mark.filterwarnings("ignore:NMF stopped")
@pytest.mark.parametrize("beta", [0, 1, 1.5])
def test_features_of_counts(beta):
    X = data_for(beta)
    nmf = NMFFeatures(3, shift=None, scale=None, loss=beta, penalty=0)
    W = nmf.fit_transform(X)
    assert_array_equal(nmf.transform(X), W)
    assert_allclose(nmf.transform(X[7:8])[0], W[7])
    assert_allclose(nmf.components_.sum(axis=1), 1)
    assert_allclose(nmf.objective_, objective(X, W, nmf.components_, 0, loss=beta), rtol=1e-9)
    means = np.broadcast_to(X.mean(axis=0), X.shape)
    assert_allclose(nmf.score(X), 1 - nmf.objective_ / _beta_divergence(X, np.eye(len(X)), means, beta), rtol=1e-9)
    Y = np.where(X > 0, W @ nmf.components_, 1)
    share = [(X * np.outer(W[:, t], nmf.components_[t]) / Y).sum() for t in range(3)]
    assert_allclose(nmf.explained_, np.array(share) / X.sum(), rtol=1e-9)
    if beta == 1:  # at a stationary point without penalty they add up
        assert_allclose(nmf.explained_.sum(), 1, rtol=1e-6)
    with_sparse = NMFFeatures(3, shift=None, scale=None, loss=beta, penalty=0).fit(sparse.csr_array(X))
    assert_allclose(with_sparse.explained_, nmf.explained_, rtol=1e-6)
    assert_allclose(with_sparse.score(sparse.csr_array(X)), nmf.score(X), rtol=1e-9)


def test_imputing_counts():
    rng = np.random.default_rng(0)
    truth = 20 * rng.gamma(0.7, 1, (300, 3)) @ rng.gamma(0.7, 1, (3, 15))
    X = rng.poisson(truth).astype(float)
    holes = rng.uniform(size=X.shape) < 0.2
    nmf = NMFFeatures(3, shift=None, scale=None, loss=KL, missing_values="ignore").fit(np.where(holes, np.nan, X))
    filled = nmf.impute(np.where(holes, np.nan, X))
    assert_array_equal(filled[~holes], X[~holes])
    mean = np.broadcast_to(X.mean(axis=0), X.shape)

    def error(guess):
        return np.sqrt(np.mean((guess[holes] - truth[holes]) ** 2))

    assert error(filled) < 0.35 * error(mean)


def test_ratings_that_are_not_stored():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.3, 1, (200, 2)) @ rng.uniform(0.5, 2, (2, 40))
    seen = rng.uniform(size=truth.shape) < 0.4
    ratings = sparse.csr_array(np.where(seen, truth, 0))
    for loss in ("frobenius", KL):
        nmf = NMFFeatures(2, shift=None, scale=None, missing_values="unstored", penalty=1e-4, loss=loss)
        nmf.fit(ratings)
        predicted = nmf.transform(ratings) @ nmf.components_
        assert np.sqrt(np.mean((predicted - truth)[~seen] ** 2)) < 0.05 * truth.std()


def test_unstored_columns_are_scaled_by_what_is_stored():
    X = counts() * np.linspace(1, 9, 15)
    table = sparse.csr_array(X)
    seen = np.where(X == 0, np.nan, X)
    for scale in ("std", "mean", "max", "robust"):
        a = NMFFeatures(2, shift=None, scale=scale, missing_values="unstored").fit(table)
        b = NMFFeatures(2, shift=None, scale=scale, missing_values="ignore").fit(seen)
        assert_allclose(a.scaling_["factor"], b.scaling_["factor"], rtol=1e-12)
        assert_allclose(a.column_means_, b.column_means_, rtol=1e-12)
        assert_allclose(a.objective_, b.objective_, rtol=1e-2)


def test_digits_beat_scikit_learn():
    X = load_digits().data
    theirs = NMF(8, solver="mu", beta_loss=KL, init="nndsvda", max_iter=200, random_state=0)
    goal = _beta_divergence(X, theirs.fit_transform(X), theirs.components_, 1)
    assert factorize(X, 8, loss=KL, penalty=0).objective < goal


# ---- found in review


def amounts():
    return data_for(0)


def test_constant_columns_become_zero():
    X = amounts()
    X[:, 3] = 2
    with (
        pytest.warns(UserWarning, match="Constant columns"),
        pytest.raises(ValueError, match=r"constant columns become zero: leave \[3\] out of variables"),
    ):
        NMFFeatures(3, loss=0, shift=None, scale=None).fit(X)


@pytest.mark.filterwarnings("ignore:Constant columns")
def test_constant_columns_of_sparse_data_do_not_count():
    X = counts() * (np.random.default_rng(0).uniform(size=(120, 15)) < 0.7)
    rest = np.delete(X, 3, axis=1)
    X[:, 3] = 2
    fit = dict(shift=None, scale=None, loss=KL, penalty=0.05, tol=1e-9, init="nnsvd-lrc")
    table = NMFFeatures(3, missing_values="unstored", **fit).fit(sparse.csr_array(X))
    seen = NMFFeatures(3, missing_values="ignore", **fit).fit(np.where(rest == 0, np.nan, rest))
    assert_allclose(table.objective_, seen.objective_, rtol=5e-3)  # from other starts
    X[:4] = np.nan
    X[:4, 0] = 5
    nmf = NMFFeatures(2, missing_values="ignore", **fit).fit(X)
    assert_allclose(nmf.transform(sparse.csr_array(X)), nmf.transform(X))


def test_a_pass_that_is_taken_back_leaves_a_pair():
    """The scores that are kept are scaled with their loadings: else the passes that follow start from a worse pair."""
    X = np.random.default_rng(0).poisson(2 * counts(p=12)).astype(float)
    for table, beta in ((X, 0.5), (amounts(), -1)):
        f = factorize(table, 3, loss=beta)
        assert f.converged
        assert f.kkt_residual < 3e-3


@pytest.mark.parametrize("beta", [1, 2])
def test_sparse_data_with_holes_as_dense(beta):
    X = counts()
    table = sparse.csr_array(X)
    table.data[np.random.default_rng(1).uniform(size=table.nnz) < 0.1] = np.nan
    fit = dict(shift=None, scale=None, loss=beta, missing_values="ignore", tol=1e-9)
    nmf, dense = NMFFeatures(3, **fit).fit(table), NMFFeatures(3, **fit).fit(table.toarray())
    assert_allclose(nmf.explained_, dense.explained_, rtol=1e-6)
    assert_allclose(nmf.impute(table).toarray(), nmf.impute(table.toarray()), rtol=1e-9)
    assert_array_equal(nmf.impute(table).indices, table.indices)


def test_a_loss_that_is_infinite_says_so():
    X, W, H = amounts(), np.ones((120, 3)), np.ones((3, 15))
    W[0] = 0
    for beta in (0, -1):
        for table in (X, sparse.csr_array(X)):
            for missing_values in ("ignore", "unstored"):
                assert objective(table, W, H, 0, loss=beta, missing_values=missing_values) == np.inf


def test_new_rows_are_in_the_domain_too():
    X = amounts()
    nmf = NMFFeatures(2, shift=None, scale=None, loss=0).fit(X)
    X[0, 0] = 0
    for use in (nmf.transform, nmf.score):
        with pytest.raises(ValueError, match=r"is infinite at zero, and X has zeros \(1 of its"):
            use(X)


@pytest.mark.filterwarnings("ignore:NMF stopped")
@pytest.mark.parametrize("beta", [-1, 0, 0.5, 1, 3])
def test_every_unit(beta):
    X = amounts()
    # of a minimum that is flat the same point: from one start
    fit = dict(shift=None, scale=None, loss=beta, penalty=0, max_iter=300, init="nnsvd-lrc")
    one = NMFFeatures(2, **fit).fit(X)
    for c in (1e-200, 1e-30, 1e30, 1e200):
        other = NMFFeatures(2, **fit).fit(X * c)
        assert_allclose(other.score(X * c), one.score(X), rtol=1e-6)
        assert_allclose(other.transform(X * c) / c, one.transform(X), rtol=1e-4, atol=1e-6)


def test_cells_of_many_sizes():
    X = 10 ** np.random.default_rng(1).uniform(-8, 8, (100, 15))
    assert factorize(X, 3, loss=0, penalty=0).objective < 16001.7  # scikit-learn's


@pytest.mark.parametrize("beta", [0.5, 1, 1.5, 2])
def test_nothing_to_factorise(beta):
    for table in (np.zeros((5, 4)), sparse.csr_array((5, 4))):
        with pytest.warns(UserWarning, match="empties the model"):
            assert factorize(table, 2, loss=beta, solver="newton" if beta == 2 else "auto").objective == 0
    X = counts()
    assert_allclose(
        factorize(X, 3, loss=KL, init=np.zeros((3, 15))).objective,
        factorize(X, 3, loss=KL).objective,
        rtol=0.05,
    )


def test_cells_stored_in_parts():
    X = sparse.csr_array(counts(20))
    twice = sparse.csr_array((np.repeat(X.data / 2, 2), np.repeat(X.indices, 2), 2 * X.indptr), X.shape)
    assert not twice.has_canonical_format
    for loss in (KL, "frobenius"):
        whole = factorize(X, 2, loss=loss)
        assert_allclose(factorize(twice, 2, loss=loss).objective, whole.objective, rtol=1e-9)
        nmf = NMFFeatures(2, shift=None, scale=None, loss=loss).fit(twice)
        assert_allclose(nmf.objective_, whole.objective, rtol=1e-9)
    assert twice.nnz == 2 * X.nnz


def test_objective_refuses_what_it_does_not_know():
    X, W, H = counts(), np.ones((120, 1)), np.ones((1, 15))
    with pytest.raises(ValueError, match="loss is 'kl'; wanted one of"):
        objective(X, W, H, loss="kl")
    with pytest.raises(ValueError, match="missing_values is 'raise'; wanted"):
        objective(X, W, H, missing_values="raise")


@pytest.mark.filterwarnings("ignore:NMF stopped")
def test_imputing_with_other_losses_is_never_far_worse_than_means():
    from sklearn.datasets import load_breast_cancer

    X = load_breast_cancer().data
    missing = np.random.default_rng(0).uniform(size=X.shape) < 0.2
    holes, spread = np.where(missing, np.nan, X), X.std(axis=0)
    means = np.where(missing, np.nanmean(holes, axis=0), X)
    for k in (5, 10):
        filled = NMFFeatures(k, loss=KL, missing_values="ignore", tol=1e-4).fit(holes).impute(holes)
        assert np.square((filled - X) / spread).sum() < 1.21 * np.square((means - X) / spread).sum()


def test_outliers_and_more_components_than_columns():
    """Their matrices are next to singular: rounding once made them indefinite, and the scores NaN."""
    rng = np.random.default_rng(0)
    X = np.where(rng.random((200, 8)) < 0.005, 1e6, 1.0) * rng.random((200, 8))
    result = factorize(X, 13, loss=KL, penalty=0)
    assert np.isfinite(result.W).all()
    assert result.objective < 1e-7 * X.sum()  # a ridge of 1e-12 leaves little beside such cells, but not nothing


def test_a_row_with_holes_leaves_its_neighbours_alone():
    X = counts(700)
    nmf = NMFFeatures(3, shift=None, scale=None, loss=KL, missing_values="ignore").fit(X)
    holed = X.copy()
    holed[::50, 0] = np.nan
    together = nmf.transform(holed)
    complete = ~np.isnan(holed).any(axis=1)
    assert_array_equal(together[complete], nmf.transform(X)[complete])
    assert_array_equal(together[50:51], nmf.transform(holed[50:51]))


@pytest.mark.filterwarnings("ignore:X has 1 rows with nothing observed")
@pytest.mark.parametrize("missing_values", ["ignore", "unstored"])
@pytest.mark.parametrize("loss", ["frobenius", KL])
def test_holes_of_sparse_frames_are_filled_as_those_of_matrices(missing_values, loss):
    import pandas as pd

    rng = np.random.default_rng(0)
    Y = rng.poisson(1.0, (80, 6)).astype(float)
    Y[rng.uniform(size=Y.shape) < 0.1] = np.nan
    frame = pd.DataFrame({f"c{j}": pd.arrays.SparseArray(Y[:, j], fill_value=0.0) for j in range(6)})
    fit = dict(shift=None, loss=loss, missing_values=missing_values)
    of_frame = NMFFeatures(2, **fit).fit(frame).impute(frame)
    of_matrix = NMFFeatures(2, **fit).fit(sparse.csr_array(Y)).impute(sparse.csr_array(Y))
    assert_allclose(np.asarray(of_frame, dtype=float), of_matrix.toarray(), atol=1e-9)


@pytest.mark.parametrize("loss", ["frobenius", KL])
def test_single_precision_of_sparse_data_is_kept(loss):
    X = sparse.csr_array(counts().astype(np.float32))
    for scale in (None, "std"):
        nmf = NMFFeatures(2, shift=None, scale=scale, loss=loss)
        assert nmf.fit_transform(X).dtype == np.float32
        assert nmf.inverse_transform(nmf.transform(X)).dtype == np.float32


def test_imputing_looks_for_zeros_too():
    X = amounts()
    nmf = NMFFeatures(2, shift=None, scale=None, loss=0, missing_values="ignore").fit(X)
    X[0, :2] = 0, np.nan
    with pytest.raises(ValueError, match="is infinite at zero"):
        nmf.impute(X)


def test_objective_refuses_negative_counts_and_odd_losses():
    X, W, H = -counts(), np.ones((120, 1)), np.ones((1, 15))
    with pytest.raises(ValueError, match="negative values; loss='kullback-leibler' needs X >= 0"):
        objective(X, W, H, loss=KL)
    for odd in (None, True, np.inf):
        with pytest.raises(ValueError, match="wanted one of"):
            objective(X, W, H, loss=odd)


@pytest.mark.parametrize("beta", [0.0, 0.5, 3.0])
def test_a_row_that_is_watched_has_the_same_bits_alone(beta):
    rng = np.random.default_rng(0)
    H = rng.random((5, 30))
    X = rng.gamma(0.3, size=(60, 5)) @ H * rng.gamma(2, 0.5, size=(60, 30)) + 1e-3
    W = exact_scores(X, H, loss=loss_of(beta))
    for i in range(0, 60, 6):
        assert_array_equal(exact_scores(X[[i]], H, loss=loss_of(beta))[0], W[i])


# ---- what sinks to zero is zero; what cannot be computed is refused


@pytest.mark.parametrize("beta", [1.5, 1.2])
def test_components_that_sink_are_exactly_zero_and_named(beta):
    X = np.random.default_rng(0).gamma(1, 1, (50, 3))
    nmf = NMFFeatures(3, loss=beta, penalty=10)
    with pytest.warns(UserWarning, match="empties the model|are zero"):
        W = nmf.fit_transform(X)
    for F in (W, nmf.components_):
        assert F[F > 0].min(initial=1.0) > 1e-30
    assert_array_equal(nmf.transform(X), W)


@pytest.mark.filterwarnings("ignore:NMF stopped", "ignore:Components", "ignore:Constant")
@pytest.mark.parametrize("missing_values", ["raise", "ignore"])
@pytest.mark.parametrize("beta", [0.5, 1, 1.5, 2])
@pytest.mark.parametrize("solver", ["newton", "mu"])
def test_columns_of_zeros_have_loadings_of_exactly_zero(solver, beta, missing_values):
    X = np.random.default_rng(0).gamma(1, 1, (200, 4))
    X[:, 1] = 0
    settings = dict(loss=beta, solver=solver, missing_values=missing_values, max_iter=100)
    nmf = NMFFeatures(3, scale="mean", **settings)
    W = nmf.fit_transform(X)
    assert (nmf.components_[:, 1] == 0).all()
    assert_array_equal(nmf.transform(X), W)
    assert (factorize(X, 3, init="nnsvd-lrc", **settings).H[:, 1] == 0).all()


def test_cells_too_far_apart_are_refused():
    X = np.random.default_rng(0).gamma(1, 1, (50, 12))
    X[:, 3] *= 1e-300
    with pytest.raises(ValueError, match="takes powers of their ratios, which overflow beyond 140 decades"):
        factorize(X, 9, loss=0)
    X[:, 3] *= 1e300
    X[:, 0] *= 1e300
    with pytest.raises(ValueError, match="with a penalty, and this loss, numbers as large or small leave the range"):
        factorize(X, 2, loss=1, penalty=10, l1_ratio=0)


@pytest.mark.filterwarnings(
    "ignore:NMF stopped", "ignore:Components", "ignore:Constant", "ignore:No number", "ignore:n_components"
)
@pytest.mark.parametrize("beta", [1, 1.5, 2])
@pytest.mark.parametrize("solver", ["auto", "mu"])
def test_numpys_error_settings_of_the_caller_disturb_nothing(solver, beta):
    X, settings = load_digits().data[:300], dict(solver=solver, loss=beta)
    with np.errstate(all="raise"):
        nmf = NMFFeatures(8, max_iter=50, **settings).fit(X)
        nmf.inverse_transform(nmf.transform(X))
        nmf.score(X)
        factorize(X, 8, max_iter=50, **settings)
        select_components(X[:, 20:30], [1, 2], n_splits=2, random_state=0, max_iter=20)


@pytest.mark.parametrize(("seed", "k"), [(2, 5), (7, 5), (13, 3)])
def test_a_tiny_cell_is_not_taken_for_zero(seed, k):
    """Kullback-Leibler is infinite where a cell is positive and its fit is not."""
    rng = np.random.default_rng(seed)
    X = rng.gamma(0.5, 1, (300, 10)) * (rng.uniform(size=(300, 10)) < 0.6)
    assert np.isfinite(factorize(X, k, loss="kullback-leibler").objective)


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("size", [1e-10, 1e-15, 1e-30])
def test_cells_of_next_to_nothing_leave_the_objective_finite(size, make):
    """Of a shifted column rounding may leave as much."""
    rng = np.random.default_rng(0)
    X, H = rng.gamma(1, size=(500, 6)), rng.uniform(size=(3, 6)) * (rng.uniform(size=(3, 6)) < 0.6)
    H[0, ~H.any(axis=0)] = 1.0
    X[np.arange(500), np.arange(500) % 6] = size
    W = exact_scores(make(X), H, loss=loss_of(1))
    assert ((W @ H)[X > 0] > 0).all()
    assert_allclose(exact_scores(make(X[7:8]), H, loss=loss_of(1)), W[7:8], rtol=0, atol=0)
