"""Solvers: improve W given H, then H given sums over the rows of W.

    minimise  1/2 |X - W H|_F^2 + penalty(W) + penalty(H),   W >= 0, H >= 0

Given H the rows of W are independent; given W, H depends on X only through W'X and W'W. That is why one pass
over row blocks serves memory, disk and several machines. Both halves are the same problem,

    minimise over F >= 0:   1/2 tr(F' A F) - tr(F' B),        A (k x k), B (k x m)

with F = W', A = HH' + l2, B = HX' - l1 for the scores, and F = H, A = W'W + l2, B = W'X - l1 for the loadings.

Missing cells are filled with what the current factors say of them, at each pass: what is minimised then is never below
the objective over the observed cells, and equal to it where it touches (expectation and maximisation, EM).

References: A. Cichocki and A.-H. Phan (2009), Fast local algorithms for large scale nonnegative matrix and
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
    W_sums: np.ndarray  # k; this and the next with the share of a row's cells that is observed, as in the penalty
    W_squares: np.ndarray  # k
    squared_norm: np.ndarray  # |X|^2, what is missing filled in

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

    def improve_scores(self, block, Wt, H, HHt, strengths, sweeps, enough):
        """Improve the scores of a block of rows in place (k x rows) and return the block's statistics."""
        v = np.ones(Wt.shape[1], Wt.dtype) if block.weights is None else block.weights.astype(Wt.dtype)
        for _ in range(block.fills):
            block.fill(Wt, H)
            HXt = loadings_times(H, block.X)
            if strengths.l1_W:
                HXt -= np.asarray(strengths.l1_W * block.observed, HXt.dtype)
            if strengths.l2_W and block.missing is not None:
                HXt += strengths.l2_W * (1 - block.observed) * Wt  # the penalty that is missing is filled in as well
            self.coordinate_descent(Wt, HHt.astype(HXt.dtype), HXt, v, sweeps, enough)
        return self.statistics(block, Wt)

    def statistics(self, block, Wt):
        """Return what the loadings need to know of a block."""
        weighted = Wt.copy() if block.weights is None else Wt * block.weights.astype(Wt.dtype)
        WtW = (Wt @ weighted.T).astype(np.float64)  # not with itself: the symmetric product is slow for few rows
        sums, squares = weighted.sum(axis=1, dtype=np.float64), WtW.diagonal().copy()
        if block.missing is not None:
            sums, squares = weighted @ block.observed, (weighted * Wt) @ block.observed
        return Statistics(WtW, scores_times(weighted, block.X), sums, squares, np.array(block.squared_norm()))

    def improve_components(self, H, stats, strengths, observed, sweeps=40, enough=0.01):
        """Return better loadings; touches no data. ``observed`` is the share of each column that is."""
        problem = self._problem(H, stats, strengths, observed)
        H = H.copy()
        self.coordinate_descent(H, *problem, np.ones(H.shape[1]), sweeps, enough)
        return H

    def residual(self, H, stats, strengths, observed):
        """Return how far the loadings are from stationary, given statistics of their scores."""
        return stationarity(H, *self._problem(H, stats, strengths, observed))

    def _problem(self, H, stats, strengths, observed):
        B = stats.WtX - strengths.l1_H * observed
        if strengths.l2_H:
            B += strengths.l2_H * (1 - observed) * H
        return stats.WtW + strengths.l2_H * np.eye(len(H)), B


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
