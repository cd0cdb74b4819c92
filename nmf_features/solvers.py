"""Solvers: improve W given H, then H given sums over the rows of W.

    minimise  1/2 |X - W H|_F^2 + penalty(W) + penalty(H),   W >= 0, H >= 0

Given H the rows of W are independent; given W, H depends on X only through W'X and W'W. That is why one pass
over row blocks serves memory, disk and several machines. Both halves are the same problem,

    minimise over F >= 0:   1/2 tr(F' A F) - tr(F' B),        A (k x k), B (k x m)

with F = W', A = HH' + l2, B = HX' - l1 for the scores, and F = H, A = W'W + l2, B = W'X - l1 for the loadings.

Reference: A. Cichocki and A.-H. Phan (2009), Fast local algorithms for large scale nonnegative matrix and
tensor factorizations; N. Gillis and F. Glineur (2012) for several sweeps per product with X.
"""

from typing import NamedTuple

import numpy as np

from .blocks import loadings_times, scores_times
from .kernels import compiled, coordinate_descent


class Statistics(NamedTuple):
    """Sums over rows (weighted, where rows have weights): all that the loadings need to know of X."""

    WtW: np.ndarray  # k x k
    WtX: np.ndarray  # k x p
    W_sums: np.ndarray  # k

    @classmethod
    def total(cls, parts):
        """Add the statistics of all blocks, in their order."""
        first, *rest = parts
        for part in rest:
            for total, term in zip(first, part, strict=True):
                total += term
        return first


class HALS:
    """Hierarchical alternating least squares: each component is minimised exactly, in turn, in several sweeps.

    The objective never rises. Sweeps cost little beside the product with X, so several are made per product,
    until one changes less than the share ``enough`` of what the first one did.
    """

    def __init__(self):
        self.coordinate_descent = compiled(coordinate_descent)

    def improve_scores(self, X_block, Wt_block, weights, H, HHt, strengths, sweeps, enough):
        """Improve the scores of a block of rows in place (k x rows) and return the block's statistics."""
        HXt = loadings_times(H, X_block)
        if strengths.l1_W:
            HXt -= X_block.dtype.type(strengths.l1_W)
        self.coordinate_descent(Wt_block, HHt.astype(X_block.dtype), HXt, sweeps, enough)
        return self.statistics(X_block, Wt_block, weights)

    def statistics(self, X_block, Wt_block, weights):
        """Return what the loadings need to know of a block whose rows have these weights (None: 1)."""
        weighted = Wt_block.copy() if weights is None else Wt_block * weights.astype(Wt_block.dtype)
        WtW = (Wt_block @ weighted.T).astype(np.float64)  # not with itself: the symmetric product is slow for few rows
        return Statistics(WtW, scores_times(weighted, X_block), weighted.sum(axis=1, dtype=np.float64))

    def improve_components(self, H, stats, strengths, sweeps=40, enough=0.01):
        """Return better loadings; touches no data."""
        H = H.copy()
        self.coordinate_descent(H, *self._problem(stats, strengths), sweeps, enough)
        return H

    def residual(self, H, stats, strengths):
        """Return how far the loadings are from stationary, given statistics of their scores."""
        return stationarity(H, *self._problem(stats, strengths))

    def _problem(self, stats, strengths):
        return stats.WtW + strengths.l2_H * np.eye(len(stats.WtW)), stats.WtX - strengths.l1_H


def stationarity(F, A, B):
    """Largest violation max |min(F, gradient / curvature)|, relative to max F: 0 where the KKT conditions hold."""
    top = F.max(initial=0.0)
    if top == 0:
        return 0.0 if B.max(initial=0.0) <= 0 else np.inf
    curvature = A.diagonal()
    alive = curvature > 0
    gradient = (A[alive] @ F - B[alive]) / curvature[alive, None]
    return float(np.abs(np.minimum(F[alive], gradient)).max(initial=0.0) / top)


SOLVERS = {"auto": HALS, "hals": HALS}
