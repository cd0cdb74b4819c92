"""Scores of rows, given the loadings H: the exact non-negative ones, and the linear projection.

Each row x is a small problem of its own, convex where the loss is,

    minimise over w >= 0:   d(x, w H) + sum_t l1_t w_t + 1/2 sum_t l2_t w_t^2

with d = 1/2 |x - w H|^2 or another loss, so a row's scores never depend on its neighbours, not even in the last bit
(batches.py).

Where H is rank-deficient many w fit equally well; the one of least norm is chosen, by a ridge of 1e-12 of the mean
squared loadings, in the units where the loadings of a component sum to 1. Equal components share equally.

Least squares are solved by pivoting (row_problems.py); other losses by Newton's method, which solves a quadratic model
of the loss again and again (row_newton.py).

Reference: J. Kim and H. Park (2011), Fast nonnegative matrix factorization: an active-set-like method
(block principal pivoting).
"""

import numpy as np
from scipy import sparse

from .batches import batch_of, tile_rows
from .beta import LEAST_SQUARES
from .blocks import take
from .row_newton import OtherLosses
from .row_problems import LeastSquares
from .threads import workers

BATCH_TILES, BATCH_CELLS = 32, 1 << 20  # tiles of rows that are solved at once, at most, and cells in them
STORED_CELLS = 1 << 16  # of a sparse matrix


def exact_scores(X, H, l1=0.0, l2=0.0, n_jobs=None, missing=None, prior=0.0, loss=LEAST_SQUARES):
    """Return the non-negative scores of the rows of X (n x k), each exactly the minimiser of its objective.

    ``l1`` and ``l2`` are numbers or arrays of shape (k,). Computed in float64, returned in the dtype of X. Missing
    cells are left out; see :func:`unit_scores`.
    """
    W, sums = unit_scores(X, H, l1, l2, n_jobs, missing, prior, loss)
    if (sums != 1).any():
        W /= sums.astype(W.dtype)
    return W


def unit_scores(X, H, l1=0.0, l2=0.0, n_jobs=None, missing=None, prior=0.0, loss=LEAST_SQUARES):
    """Return the same scores for loadings divided by their sums, with these sums (1 for zero loadings).

    Missing cells are left out, and the penalty counts in proportion to the observed ones, of ``missing.n_counted``
    columns (None: all, and NaN is missing). A row with nothing observed has NaN scores. ``prior`` (k,) is added to
    ``l2`` in rows with missing cells, however few are observed.
    """
    n, k = X.shape[0], len(H)
    W = np.zeros((n, k), dtype=X.dtype)
    all_sums = H.sum(axis=1, dtype=np.float64)
    alive = np.flatnonzero(all_sums > 0)
    all_sums[(all_sums == 0) | (np.abs(all_sums - 1) < 1e-12)] = 1.0  # already so: not to be rounded again
    if n == 0 or not len(alive):
        return W, all_sums
    sums = all_sums[alive]
    unit_H = H[alive] / sums[:, None]  # rows sum to 1: no product of X and H can overflow
    l1, l2, prior = (np.full(k, v, dtype=np.float64)[alive] / sums for v in (l1, l2, prior))
    # Equal components share equally: they are solved for as one. Sorted, so that their order changes no bit.
    rows = np.column_stack([unit_H, l1, l2 / sums, prior / sums])
    kinds = {row.tobytes(): row for row in rows}
    keys = sorted(kinds)
    kind = np.array([keys.index(row.tobytes()) for row in rows])
    count = np.bincount(kind)
    distinct = np.array([kinds[key] for key in keys])
    problems = LeastSquares if loss.squares else OtherLosses
    problem = problems(
        distinct[:, :-3], distinct[:, -3], distinct[:, -2] / count, distinct[:, -1] / count, missing, loss, n
    )
    share, rows = 1 / count[kind], _batch_rows(X)
    of_alive = slice(None) if len(alive) == k else alive  # much quicker

    def solve_batch(start):
        batch = take(X, slice(start, start + rows))
        found = problem.solve(batch)[:, kind]
        if (count > 1).any():
            found *= share
        W[start : start + batch.shape[0], of_alive] = found

    starts = range(0, n, rows)
    with workers(n_jobs, len(starts)) as each:
        for _ in each(solve_batch, starts):
            pass
    return W, all_sums


def _batch_rows(X):
    """Return how many rows are solved at once: of an array whole tiles, of a sparse matrix such with enough cells."""
    n, p = X.shape
    if sparse.issparse(X):
        return max(1, min(BATCH_TILES * tile_rows(1), STORED_CELLS * n // max(X.nnz, 1)))
    return tile_rows(p) * max(1, min(BATCH_TILES, BATCH_CELLS // (tile_rows(p) * p)))


def scores_of_used(X, H, strengths, n_jobs, missing=None, loss=LEAST_SQUARES):
    """Return what :func:`unit_scores` does, and the loadings: zero in components that no row has a score of."""
    while True:
        U, sums = unit_scores(X, H, strengths.l1_W, strengths.l2_W, n_jobs, missing, loss=loss)
        idle = H.any(axis=1) & ~U.any(axis=0)
        if not idle.any():
            return U, sums, H
        H = np.where(idle[:, None], 0.0, H)


def linear_scores(X, H):
    """Return X H', what recipes' ``bake()`` computes from the loadings."""
    W, height = np.empty((X.shape[0], len(H)), X.dtype), _batch_rows(X)
    for start in range(0, X.shape[0], height):
        rows = slice(start, start + height)
        batch = batch_of(take(X, rows))
        W[rows] = batch.times(batch.cells, H.T)
    return W
