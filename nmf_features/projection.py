"""Scores of rows, given the loadings H: the exact non-negative ones, and the linear projection.

Each row x is a small convex problem of its own,

    minimise over w >= 0:   1/2 |x - w H|^2 + sum_t l1_t w_t + 1/2 sum_t l2_t w_t^2

so a row's scores never depend on its neighbours. Not even in the last bit: a product with one row may be
rounded differently from a product with many, so rows go through tiles of one fixed size, padded with zeros.

Where H is rank-deficient many w fit equally well; the one of least norm is chosen, by a ridge of 1e-12 of
the mean squared loadings, in the units where the loadings of a component sum to 1. Equal components share
equally.

Reference: J. Kim and H. Park (2011), Fast nonnegative matrix factorization: an active-set-like method
(block principal pivoting).
"""

from functools import cache

import numpy as np
from scipy import sparse
from scipy.optimize import nnls

from .blocks import single_threaded_blas, take, workers
from .kernels import compiled_if_worth, nnls_rows

RIDGE = 1e-12
BATCH_TILES = 8  # tiles that share the factors of their supports


def exact_scores(X, H, l1=0.0, l2=0.0, n_jobs=None, n_counted=None, prior=0.0):
    """Return the non-negative scores of the rows of X (n x k), each exactly the minimiser of its objective.

    ``l1`` and ``l2`` are numbers or arrays of shape (k,). Computed in float64, returned in the dtype of X. Missing
    cells (NaN) are left out; see :func:`unit_scores`.
    """
    W, sums = unit_scores(X, H, l1, l2, n_jobs, n_counted, prior)
    W /= sums.astype(W.dtype)
    return W


@single_threaded_blas()
def unit_scores(X, H, l1=0.0, l2=0.0, n_jobs=None, n_counted=None, prior=0.0):
    """Return the same scores for loadings divided by their sums, with these sums (1 for zero loadings).

    Missing cells (NaN) are left out, and the penalty counts in proportion to the observed ones, of ``n_counted``
    columns (None: all). A row with nothing observed has NaN scores. ``prior`` (k,) is added to ``l2`` in rows with
    missing cells, however few are observed.
    """
    (n, p), k = X.shape, len(H)
    n_counted = n_counted or p
    W = np.zeros((n, k), dtype=X.dtype)
    all_sums = H.sum(axis=1, dtype=np.float64)
    alive = np.flatnonzero(all_sums > 0)
    all_sums[(all_sums == 0) | (np.abs(all_sums - 1) < 1e-12)] = 1.0  # already so: not to be rounded again
    if n == 0 or not len(alive):
        return W, all_sums
    sums = all_sums[alive]
    unit_H = H[alive] / sums[:, None]  # rows sum to 1: no product of X and H can overflow
    l1, l2, prior = (np.broadcast_to(np.asarray(v, dtype=np.float64), k)[alive] / sums for v in (l1, l2, prior))
    # Equal components share equally: they are solved for as one. Sorted, so that their order changes no bit.
    rows = np.column_stack([unit_H, l1, l2 / sums, prior / sums])
    kinds = {row.tobytes(): row for row in rows}
    keys = sorted(kinds)
    kind = np.array([keys.index(row.tobytes()) for row in rows])
    count = np.bincount(kind)
    distinct = np.array([kinds[key] for key in keys])
    unit_H, l1, l2, prior = distinct[:, :-3], distinct[:, -3], distinct[:, -2] / count, distinct[:, -1] / count
    size, kk = len(unit_H), len(unit_H) ** 2
    diagonal = np.arange(0, kk, size + 1)
    gram = unit_H @ unit_H.T
    ridge = RIDGE * gram.diagonal().mean()
    gram.flat[diagonal] += ridge + l2
    unit_Ht = np.ascontiguousarray(unit_H.T)
    share = 1 / count[kind]
    height = tile_rows(p)
    solve = compiled_if_worth(nnls_rows, n * kk)

    def by_tiles(matrix, right):
        """Multiply, in tiles of one height."""
        m = len(matrix)
        tiles = -(-m // height)
        matrix = np.ascontiguousarray(matrix, dtype=np.float64)
        if m < tiles * height:
            matrix = np.vstack([matrix, np.zeros((tiles * height - m, matrix.shape[1]))])
        return (matrix.reshape(tiles, height, -1) @ right).reshape(tiles * height, -1)[:m]

    def scores(grams, B):
        found, unsolved = solve(grams, B)
        for i in np.flatnonzero(unsolved):  # rounding kept the row from closing: another method for the few
            L = np.linalg.cholesky(grams[i] if len(grams) > 1 else grams[0])
            found[i] = nnls(L.T, np.linalg.solve(L, B[i]))[0]
        return found

    @cache
    def products():
        return (unit_Ht[:, :, None] * unit_Ht[:, None, :]).reshape(p, kk)

    def incomplete_scores(batch, missing):
        """Solve for rows that each have a gram of their own, summed over the columns observed there."""
        found = np.empty((len(batch), size))
        for start in range(0, len(batch), height):
            rows = slice(start, start + height)
            observed = 1 - missing[rows].sum(axis=1) / n_counted
            B = by_tiles(np.where(missing[rows], 0, batch[rows]), unit_Ht) - observed[:, None] * l1
            grams = by_tiles(~missing[rows], products())
            grams[:, diagonal] += RIDGE * grams[:, diagonal].mean(axis=1, keepdims=True)
            grams[:, diagonal] += observed[:, None] * l2 + prior
            grams[~grams.any(axis=1)] = np.eye(size).ravel()  # no component has a loading there: the scores are zero
            # one gram too many, so that a single row is not taken for one that shares it
            grams = np.vstack([grams, grams[-1:]]).reshape(-1, size, size)
            found[rows] = scores(grams, np.vstack([B, B[-1:]]))[:-1]
            found[rows][observed <= 0] = np.nan
        return found

    def solve_batch(start):
        batch = take(X, slice(start, start + BATCH_TILES * height))
        if sparse.issparse(batch):  # row by row: no row can feel another
            B, complete = batch.astype(np.float64, copy=False) @ unit_Ht, None
        else:
            B = by_tiles(batch, unit_Ht)
            complete = None if np.isfinite(B.sum()) else ~np.isnan(batch).any(axis=1)
        if l1.any():
            B -= l1
        if complete is None or complete.all():
            found = scores(gram[None], B)
        else:
            found = np.empty_like(B)
            found[complete] = scores(gram[None], B[complete])
            rest = batch[~complete]
            found[~complete] = incomplete_scores(rest, np.isnan(rest))
        W[start : start + len(B), alive] = found[:, kind] * share

    starts = range(0, n, BATCH_TILES * height)
    with workers(n_jobs, len(starts)) as each:
        for _ in each(solve_batch, starts):
            pass
    return W, all_sums


def tile_rows(p):
    """Rows of a tile, a function of the number of columns alone."""
    return max(32, min(256, (1 << 20) // max(p, 1)))


@single_threaded_blas()
def linear_scores(X, H):
    """Return X H', what recipes' ``bake()`` computes from the loadings."""
    return X @ H.T.astype(X.dtype)
