"""Solvers for least squares: both halves of a pass are the same problem, solved in turn.

    minimise  1/2 |X - W H|^2 + penalty(W) + penalty(H),   W >= 0, H >= 0

Given H, the rows of W are independent. Given W, H depends on X only through W'X and W'W, sums over rows. Both halves
are the same problem,

    minimise over F >= 0:   1/2 tr(F' A F) - tr(F' B) + l1 sum(F),        A (k x k), B (k x m), l1 (m)

with F = W', A = HH' + l2, B = HX' for the scores, and F = H, A = W'W + l2, B = W'X for the loadings (l1 is one number
where nothing is missing). A solver is a way to improve F, given A, B and l1.

Missing cells are imputed from the current factors in each pass. The objective of the completed table is a majoriser of
the objective over the observed cells: never below it, and equal to it at these factors (expectation-maximisation, EM).

References: A. Cichocki and A.-H. Phan (2009), Fast local algorithms for large scale nonnegative matrix and
tensor factorizations; N. Gillis and F. Glineur (2012) for several sweeps per product with X.
"""

from typing import NamedTuple

import numpy as np

from .compiling import compiled
from .kernels import WHOLE, WIDE, aligned, coordinate_descent, improve_rows
from .products import gram, inner, product


class Statistics(NamedTuple):
    """Sums over rows, with row weights: the loadings depend on X through these alone."""

    WtW: np.ndarray  # k x k
    WtX: np.ndarray  # k x p
    W_sums: np.ndarray  # k; here and in the next rows count by their observed share, as in the penalty
    W_squares: np.ndarray  # k
    squared_norm: np.ndarray  # |X|^2, with missing cells imputed


def weighted_sums(block, Wt):
    """Return the weighted scores of a block, and their sums and sums of squares as in the penalty."""
    weighted = Wt.copy() if block.weights is None else Wt * block.counts
    v = np.broadcast_to(block.observed, Wt.shape[1:])
    return weighted, *(product(q, v).astype(np.float64) for q in (weighted, weighted * Wt))


class Solver:
    """What the loop (descent.py) needs from any solver, which sees blocks of rows and sums over them, never the loop.

    - ``descends``: a pass can only lower the objective.
    - ``extrapolates``: loadings may be extrapolated between passes, but not below the share ``floor`` of their values.
    - ``positive``: zeros would stay zeros, so the solver must start without any; scores that are all zero then start
      at ``blank``.
    - ``lifts``: the loadings, at least, must start without zeros.
    - ``convex``: the problem of the scores is convex; else exact scores may be worse than the current ones.
    - ``sums_squares``: the statistics give the loss, as for least squares.
    - ``rough``: single precision is good enough on the way.
    - ``takes_back``: a pass that raised the objective is undone.
    - ``per_stored``: only stored cells of a sparse table are read, and loadings are improved by blocks of columns.
    - ``support``: where loadings may be positive (k x p, boolean); None: everywhere. The loop sets it, and hands over
      loadings that are zero elsewhere, as they must stay.
    """

    descends, extrapolates, positive, lifts, convex, sums_squares, rough = True, True, False, False, True, True, False
    takes_back, per_stored, floor, blank, support = False, False, 0.0, 1.0, None

    def accepted(self):
        """Note that the last pass lowered the objective."""

    def rejected(self, times):
        """Note that the last ``times`` passes in a row did not lower the objective."""


class Alternating(Solver):
    """What the solvers for least squares share: both halves of a pass as one problem, and their statistics."""

    def size(self, block):
        """Return the magnitude of the terms in a block's loss."""
        return block.squared_norm()

    def per_row(self, k):
        """Return how many numbers a pass keeps for each row besides its cells."""
        return 2 * k

    def context(self, H, strengths):
        """Return what the updates of all blocks need from the loadings."""
        return plus_diagonal(gram(H), strengths.l2_W)

    def improve_scores(self, block, Wt, H, HHt, strengths, sweeps, enough):
        """Improve the scores of a block of rows in place (k x rows) and return the block's statistics."""
        A, l1 = HHt.astype(Wt.dtype), strengths.l1_W * block.observed
        for step in range(block.fills):
            if step > 0:
                block.fill(Wt, H)
            HXt = block.loadings_times(H)
            if strengths.l2_W and block.missing is not None:
                HXt += strengths.l2_W * (1 - block.observed) * Wt  # the missing penalty is completed likewise
            self.improve(Wt, A, HXt, l1, block.counts, sweeps, enough)
        return self._sums(block, Wt)

    def statistics(self, block, Wt, H):
        """Return the statistics of a block for the scores as they are."""
        block.fill(Wt, H)
        return self._sums(block, Wt)

    def _sums(self, block, Wt):
        weighted = Wt.copy() if block.weights is None else Wt * block.counts
        WtW = product(Wt, weighted.T).astype(np.float64)
        sums, squares = weighted.sum(axis=1, dtype=np.float64), WtW.diagonal().copy()
        if block.missing is not None:
            sums, squares = product(weighted, block.observed), product(weighted * Wt, block.observed)
        return Statistics(WtW, block.scores_times(weighted), sums, squares, np.array(block.squared_norm()))

    def improve_components(self, H, stats, strengths, observed, sweeps=40, enough=0.01):
        """Return improved loadings; reads no data. ``observed`` is the observed share of each column (None: 1)."""
        A, B, l1 = self._problem(H, stats, strengths, observed)
        H = H.copy()
        if self.support is None:
            self.improve(H, A, B, l1, np.ones(H.shape[1]), sweeps, enough)
            return H
        for components, columns in alike(self.support):
            part, own = np.ix_(components, columns), H[np.ix_(components, columns)]
            shares = l1 if np.isscalar(l1) else l1[columns]
            among = A[np.ix_(components, components)]
            self.improve(own, among, B[part], shares, np.ones(len(columns)), sweeps, enough)
            H[part] = own
        return H

    def derivatives(self, H, stats, strengths, observed):
        """Return the slope and the curvature of the objective in every loading, given statistics of their scores."""
        A, B, l1 = self._problem(H, stats, strengths, observed)
        return product(A, H) - B + l1, np.broadcast_to(A.diagonal()[:, None], H.shape)

    def error(self, H, stats):
        """Return the loss for loadings H and the scores behind the statistics."""
        return max(float(0.5 * stats.squared_norm - inner(H, stats.WtX) + 0.5 * inner(stats.WtW, gram(H))), 0.0)

    def residual(self, H, stats, strengths, observed):
        """Return how far the loadings are from stationary, given statistics of their scores."""
        A, B, l1 = self._problem(H, stats, strengths, observed)
        return stationarity(H, A, B - l1 if self.support is None else np.where(self.support, B - l1, 0.0))

    def _problem(self, H, stats, strengths, observed):
        B, observed = stats.WtX, 1.0 if observed is None else observed
        if strengths.l2_H:
            B = B + strengths.l2_H * (1 - observed) * H
        return plus_diagonal(stats.WtW, strengths.l2_H), B, strengths.l1_H * observed


def alike(support):
    """Return the groups of columns with the same components in their support, each as (components, columns)."""
    patterns, group = np.unique(support, axis=1, return_inverse=True)
    group = group.ravel()  # NumPy 2.0 returns a row
    return [(np.flatnonzero(on), np.flatnonzero(group == i)) for i, on in enumerate(patterns.T) if on.any()]


def plus_diagonal(A, value):
    """Return A with a value added to its diagonal."""
    return A + value * np.eye(len(A)) if value else A


class HALS(Alternating):
    """Hierarchical alternating least squares: each component in turn is minimised exactly, in several sweeps.

    The objective never rises. Sweeps cost little compared with the product with X, so several are made per product,
    until the change of one is less than the share ``enough`` of the first one's change.
    """

    rough = True

    def improve_scores(self, block, Wt, H, HHt, strengths, sweeps, enough):
        """Improve the scores of a block of rows in place (k x rows) and return the block's statistics."""
        if not _takes_one_call(block):
            return super().improve_scores(block, Wt, H, HHt, strengths, sweeps, enough)
        return _in_one_call(block, Wt, H, HHt, strengths.l1_W, sweeps, enough)

    def _sums(self, block, Wt):
        if not _takes_one_call(block):
            return super()._sums(block, Wt)
        k, p = len(Wt), block.at_hand.shape[1]
        return _in_one_call(block, np.ascontiguousarray(Wt), np.zeros((k, p)), np.zeros((k, k)))

    def improve(self, F, A, B, l1, weights, sweeps, enough):
        """Sweep over the components."""
        (k, m), even = F.shape, len(F) + len(F) % 2
        apart = (m // WHOLE + 1 | 1) * WHOLE  # an odd multiple, or all rows might share few places in the cache
        both, C = aligned(2 * even, apart, F), np.zeros((even, even), F.dtype)
        f, b = both[:even], both[even:]
        f[:k, :m], C[:k, :k] = F, A
        np.subtract(B, l1, out=b[:k, :m])
        compiled(coordinate_descent)(f, C, b, weights, m, sweeps, enough)
        F[:] = f[:k, :m]


def _takes_one_call(block):
    return not block.is_sparse and block.missing is None and block.at_hand.flags.c_contiguous


def _in_one_call(block, Wt, H, HHt, l1=0.0, sweeps=0, enough=0.0):
    """Improve the scores of a block by so many sweeps and return its statistics, in one call of compiled code."""
    H, A = (np.ascontiguousarray(q, dtype=Wt.dtype) for q in (H, HHt))
    WtW, WtX, l1 = np.empty(A.shape), np.empty(H.shape), Wt.dtype.type(l1)
    X = block.at_hand
    rounds = X.dtype != Wt.dtype or not X.flags.writeable  # compiled code that writes takes no read-only memory
    rounded = np.empty((WIDE, X.shape[1]), Wt.dtype) if rounds else X
    compiled(improve_rows)(X, rounded, rounds, Wt, H, A, l1, block.counts, sweeps, enough, WtW, WtX)
    sums = Wt.sum(axis=1, dtype=np.float64) if block.weights is None else product(Wt, block.counts).astype(np.float64)
    return Statistics(WtW, WtX, sums, WtW.diagonal().copy(), np.array(block.squared_norm()))


class Multiplicative(Alternating):
    """Multiplicative updates, F <- F * B / (A F + l1), one for the scores and one for the loadings in a pass.

    The objective never rises, and entries never become negative or zero. Zeros would stay zero, so they are raised at
    the start. The method is slow, but the best known.

    Reference: D. D. Lee and H. S. Seung (2001), Algorithms for non-negative matrix factorization.
    """

    extrapolates, positive = False, True

    def improve(self, F, A, B, l1, weights, sweeps, enough):
        """Multiply once by the ratio of the negative to the positive part of the gradient."""
        below = product(A, F) + l1
        F *= np.divide(B, below, out=np.ones_like(F), where=below > 0)  # 0 / 0: nothing depends on this entry


class AlternatingLeastSquares(Alternating):
    """Alternating least squares: the unconstrained minimiser, with negative entries set to zero.

    This is not a descent method: the objective may rise, so the best loadings are kept and the residual is reported.

    Reference: M. W. Berry et al. (2007), Algorithms and applications for approximate nonnegative matrix
    factorization.
    """

    descends = extrapolates = False

    def improve(self, F, A, B, l1, weights, sweeps, enough):
        """Solve A F = B - l1 and set negative entries to zero."""
        limits = np.finfo(A.dtype)
        ridge = 10 * limits.eps * max(np.trace(A), limits.tiny) * np.eye(len(A), dtype=A.dtype)
        F[:] = np.maximum(product(np.linalg.inv(A + ridge), B - l1), 0)


class Gradient(Alternating):
    """Projected gradient descent: F <- max(F - rate * (A F - B + l1), 0), once in each half of a pass.

    Without a ``learning_rate`` each step starts from the inverse mean curvature and is halved until the objective
    falls enough. A fixed rate may be too large: then the objective rises, and the best loadings are kept.

    Reference: C.-J. Lin (2007), Projected gradient methods for nonnegative matrix factorization.
    """

    extrapolates = False

    def __init__(self, learning_rate=None):
        self.learning_rate, self.descends = learning_rate, learning_rate is None

    def improve(self, F, A, B, l1, weights, sweeps, enough):
        """Take one step."""
        gradient = product(A, F) - B + l1
        if self.learning_rate is not None:
            F[:] = np.maximum(F - self.learning_rate * gradient, 0)
            return
        curvature = np.trace(A) / len(A)
        while curvature > 0:
            step = np.maximum(F - gradient / curvature, 0) - F
            if inner(step, product(A, step)) <= curvature * inner(step, step):  # the quadratic lies below its bound
                F += step
                return
            curvature *= 2


def stationarity(F, A, B):
    """Return max |min(F, gradient / curvature)| / max F: the KKT residual, 0 at a stationary point."""
    top = F.max(initial=0.0)
    if top == 0:
        return 0.0 if B.max(initial=0.0) <= 0 else np.inf
    curvature = A.diagonal()
    alive = curvature > 0
    gradient = (product(A[alive], F) - B[alive]) / curvature[alive, None]
    return float(np.abs(np.minimum(F[alive], gradient)).max(initial=0.0) / top)
