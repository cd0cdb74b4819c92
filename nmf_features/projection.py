"""Scores of rows, given the loadings H: the exact non-negative ones, and the linear projection.

Each row x is a small convex problem of its own,

    minimise over w >= 0:   1/2 |x - w H|^2 + sum_t l1_t w_t + 1/2 sum_t l2_t w_t^2

so a row's scores never depend on its neighbours. Not even in the last bit: a product with one row may be
rounded differently from a product with many, so rows go through tiles of one fixed size, padded with zeros.

Where H is rank-deficient many w fit equally well; the one of least norm is chosen, by a ridge of 1e-12 of
the mean squared loadings, in the units where the loadings of a component sum to 1.

Reference: J. Kim and H. Park (2011), Fast nonnegative matrix factorization: an active-set-like method
(block principal pivoting).
"""

import numpy as np
from scipy.optimize import nnls

from .blocks import workers

TILE = 256
RIDGE = 1e-12


def exact_scores(X, H, l1=0.0, l2=0.0, n_jobs=None):
    """Return the non-negative scores of the rows of X (n x k), each exactly the minimiser of its objective.

    ``l1`` and ``l2`` are numbers or arrays of shape (k,). Computed in float64, returned in the dtype of X.
    """
    n, k = len(X), len(H)
    W = np.zeros((n, k), dtype=X.dtype)
    sums = H.sum(axis=1, dtype=np.float64)
    alive = sums > 0
    if n == 0 or not alive.any():
        return W
    sums = sums[alive]
    unit_H = H[alive] / sums[:, None]  # rows sum to 1: no product of X and H can overflow
    l1, l2 = (np.broadcast_to(np.asarray(v, dtype=np.float64), k)[alive] for v in (l1, l2))
    gram = unit_H @ unit_H.T
    gram[np.diag_indices(len(sums))] += RIDGE * gram.diagonal().mean() + l2 / sums / sums
    unit_Ht = np.ascontiguousarray(unit_H.T)

    def solve_tile(start):
        stop = min(start + TILE, n)
        tile = np.zeros((TILE, X.shape[1]))
        tile[: stop - start] = X[start:stop]
        B = tile @ unit_Ht - l1 / sums
        W[start:stop, alive] = nnls_rows(gram, B)[: stop - start] / sums

    starts = range(0, n, TILE)
    with workers(n_jobs, len(starts)) as each:
        for _ in each(solve_tile, starts):
            pass
    return W


def linear_scores(X, H):
    """Return X H', what recipes' ``bake()`` computes from the loadings."""
    return X @ H.T.astype(X.dtype)


def nnls_rows(gram, B):
    """Minimise 1/2 w' gram w - w' b over w >= 0 for every row b of B, by block principal pivoting.

    A row is solved when no passive entry is negative and no active one has a negative gradient. Flipping all
    the violators usually halves their number; where that stops, Murty's rule (flip the last one only) ends.
    """
    m, k = B.shape
    W = np.zeros((m, k))
    passive = B > 0  # gram has no negative entry, so b_t <= 0 means w_t = 0
    fewest, patience = np.full(m, k + 1), np.full(m, 3)
    open_rows = np.flatnonzero((B > 0).any(axis=1))  # elsewhere w = 0
    eye = np.eye(k)
    for _ in range(20 * k + 20):
        if not len(open_rows):
            return W
        P, b = passive[open_rows], B[open_rows]
        systems = np.where(P[:, :, None] & P[:, None, :], gram, eye)
        w = np.linalg.solve(systems, np.where(P, b, 0.0)[:, :, None])[:, :, 0]
        gradient = (w[:, None, :] @ gram)[:, 0] - b
        rounding = 1e-13 * b.max(axis=1, keepdims=True)
        infeasible = np.where(P, w < -1e-13 * np.abs(w).max(axis=1, keepdims=True), gradient < -rounding)
        count = infeasible.sum(axis=1)
        W[open_rows] = np.where(P, np.maximum(w, 0), 0.0)
        better = count < fewest[open_rows]
        fewest[open_rows] = np.where(better, count, fewest[open_rows])
        patience[open_rows] = np.where(better, 3, patience[open_rows] - 1)
        last_only = patience[open_rows] < 0
        last = k - 1 - infeasible[:, ::-1].argmax(axis=1)
        infeasible[last_only] &= np.arange(k) == last[last_only, None]
        passive[open_rows] ^= infeasible
        open_rows = open_rows[count > 0]
    L = np.linalg.cholesky(gram)
    for i in open_rows:  # rounding kept it from closing: a slower method for the few
        W[i] = nnls(L.T, np.linalg.solve(L, B[i]))[0]
    return W
