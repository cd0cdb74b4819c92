"""Contributions of the columns to the scores of rows: why a row has the scores it has.

The scores w of a row x minimise d(x, y) + sum_t l1_t w_t + 1/2 sum_t l2_t w_t^2, with y = w H. The slope of the loss of
a cell is a difference a - b of two terms that are not negative; b draws the fit up to the cell. At the minimum

    sum_j h_tj b_j  =  sum_j h_tj a_j + l1_t + l2_t w_t                    for every score w_t that is not zero

    "share"     c_tj = w_t h_tj b_j / sum_i h_ti b_i                       b = x y^(beta - 2): x for least squares
    "signed"    c_tj = A_tj x_j,   A = (H V H' + l2)^-1 H V                over the scores that are not zero

where V holds v_j = slope_j / (y_j - x_j) = y_j^(beta - 2), 1 for least squares. Shares add up to the score. To signed
contributions the term of the penalty, -(H V H' + l2)^-1 l1, has to be added.

References: D. D. Lee and H. S. Seung (2001), Algorithms for non-negative matrix factorization, whose steps leave scores
as they are where shares add up to them; M. Sundararajan, A. Taly and Q. Yan (2017), Axiomatic attribution for deep
networks: their integrated gradients along a path from x = 0 on which the same scores are zero are, for least squares
without penalty, the signed contributions.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .batches import batch_of
from .loss import Loss
from .products import gram

CLOSE = 1e-8  # of a cell and its fit, relative to the larger: what is left of their difference is rounding
NEGLIGIBLE = 1e-12  # eigenvalues, relative to the largest: the ridge that scores are found with is of this size


@dataclass
class ScoredRows:
    """Rows x (m x p, NaN is missing) with their scores (m x k), and their penalties (m x k)."""

    x: np.ndarray
    W: np.ndarray
    H: np.ndarray
    l1: np.ndarray
    l2: np.ndarray
    loss: Loss

    def __post_init__(self):
        """Take each row in units of its own, as when its scores were found, so that no power of a cell overflows."""
        self.holes = np.isnan(self.x)
        x = np.where(self.holes, 0.0, self.x)
        top = x.max(axis=1, initial=0.0)
        self.exponent = np.where((top > 0) & self.loss.homogeneous, np.frexp(top)[1], 0)[:, None]
        degree = self.loss.degree
        self.x, self.W = np.ldexp(x, -self.exponent), np.ldexp(self.W, -self.exponent)
        with np.errstate(over="ignore", under="ignore"):
            units = (np.minimum(np.exp2((power - degree) * self.exponent), 1e150) for power in (1, 2))
            self.l1, self.l2 = (unit * penalty for unit, penalty in zip(units, (self.l1, self.l2), strict=True))
        inverse = np.divide(1, self.x, out=np.zeros_like(x), where=self.x > 0).max(axis=1, initial=0.0)
        self.least = 1 / np.where(inverse > 0, inverse, 1.0)

    @cached_property
    def y(self):
        """The fit, kept off zero as when scores were found."""
        lowest = self.loss.least_fit(self.x.mean(axis=1), self.least)
        lowest = np.where(lowest > 0, lowest, 1.0)  # a row of zeros has no scores
        return np.maximum(batch_of(self.x).fitted(self.W, self.H), lowest[:, None])

    def in_units(self, parts):
        """Return contributions or scores in the units of X."""
        return np.ldexp(parts, self.exponent.reshape(-1, *[1] * (parts.ndim - 1)))


def shares(rows):
    """Return the scores divided among the columns (m x k x p) in proportion to how each draws them up, and zeros."""
    slope, above, _ = rows.loss.slopes_of_cells(rows.x, rows.y)
    draws = np.where(rows.holes, 0.0, np.maximum(above - slope, 0))
    parts = draws[:, None, :] * rows.H
    totals = parts.sum(axis=2)
    parts *= np.divide(rows.W, totals, out=np.zeros_like(totals), where=totals > 0)[:, :, None]
    return rows.in_units(parts), np.zeros(rows.W.shape)


def signed(rows):
    """Return A_tj x_j (m x k x p), and the term of the penalty (m x k)."""
    W, H, x = rows.W, rows.H, rows.x
    V = _weights(rows)
    active, which = W > 0, slice(None)
    if V is None:  # rows in which the same scores are zero share their matrix
        active, which = np.unique(active, axis=0, return_inverse=True)
        which = which.ravel()  # NumPy 2.0 returns a column
        M, l2 = gram(H)[None], rows.l2[:1]
    else:
        M, l2 = (V[:, None, :] * H) @ H.T, rows.l2
    M = np.where(active[:, :, None] & active[:, None, :], M + l2[:, :, None] * np.eye(len(H)), 0.0)
    inverse = _inverses(M, active, H, np.ones((1, x.shape[1]), bool) if V is None else ~rows.holes)[which]
    A = inverse @ (H if V is None else H * V[:, None, :])
    penalty = -(inverse @ rows.l1[:, :, None])[:, :, 0]
    parts = A * x[:, None, :]
    # What rounding leaves, where H is nearly rank-deficient, goes by the least change of A (in the norm of V).
    rest = W - parts.sum(axis=2) - penalty
    squares = np.square(x) if V is None else V * np.square(x)
    total = squares.sum(axis=1, keepdims=True)
    parts += rest[:, :, None] * np.divide(squares, total, out=np.zeros_like(squares), where=total > 0)[:, None, :]
    return rows.in_units(parts), rows.in_units(penalty)


def _weights(rows):
    """Return v = slope / (y - x) of every cell, 0 where it is missing; None where all are 1."""
    if rows.loss.squares:
        return None if not rows.holes.any() else (~rows.holes).astype(np.float64)
    slope, _, curvature = rows.loss.slopes_of_cells(rows.x, rows.y)
    apart = rows.y - rows.x
    far = np.abs(apart) > CLOSE * np.maximum(rows.x, rows.y)
    return np.where(rows.holes, 0.0, np.divide(slope, apart, out=curvature, where=far))


def _inverses(M, active, H, seen):
    """Return the inverses of matrices that are zero outside of the active rows and columns.

    Where loadings are linearly dependent in the columns that are seen, these are inverses on the space that they span:
    the scores of least norm lie there.
    """
    scale = np.sqrt(np.diagonal(M, axis1=1, axis2=2))
    scale = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
    values, Q = np.linalg.eigh(scale[:, :, None] * M * scale[:, None, :])
    kept = values > NEGLIGIBLE * values.max(axis=1, keepdims=True)
    Q *= scale[:, :, None]
    inverses = (Q * np.divide(1, values, out=np.zeros_like(values), where=kept)[:, None, :]) @ Q.transpose(0, 2, 1)
    for i in np.flatnonzero(kept.sum(axis=1) < active.sum(axis=1)):
        at = np.flatnonzero(active[i])
        values, Q = np.linalg.eigh(gram(H[at][:, seen[i % len(seen)]]))
        Q = Q[:, values > NEGLIGIBLE * values.max(initial=0.0)]
        inverses[i][np.ix_(at, at)] = Q @ np.linalg.inv(Q.T @ M[i][np.ix_(at, at)] @ Q) @ Q.T
    return inverses


KINDS = {"share": shares, "signed": signed}
