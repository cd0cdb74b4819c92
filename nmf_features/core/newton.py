"""Solvers for every loss: steps on whole rows and columns, from slopes and curvatures of the cells.

Every cell has a slope d'(y) and a curvature at y = (W H)_ij. For a row of scores the sum of slope times h_j is the
gradient, and the sum of curvature times h_j h_j' the Hessian. For a column of loadings they are the same sums over
rows, with w_i. Missing cells add nothing.

Only the stored cells of a sparse table are read if the others are missing, or if the slope of a zero does not depend on
y (Kullback-Leibler). Its columns are then read as rows of the transposed table, so that nothing grows faster than the
number of stored cells. For other losses its blocks are made dense.

References: C. Fevotte and J. Idier (2011), Algorithms for nonnegative matrix factorization with the beta-divergence;
C.-J. Hsieh and I. S. Dhillon (2011), Fast coordinate descent methods with variable selection for non-negative matrix
factorization.
"""

from typing import NamedTuple

import numpy as np

from .alternating import Solver, weighted_sums
from .beta import LEAST_SQUARES
from .blocks import fill, squares
from .compiling import compiled
from .kernels import own_grams_descent, packed_products
from .products import inner, product, weighted_sum


class Slopes(NamedTuple):
    """Sums over rows (weighted) of the derivatives of the loss: what the loadings need from the data."""

    gradient: np.ndarray  # k x p
    positive: np.ndarray  # k x p, its positive part
    grams: np.ndarray  # Hessian of each column: its lower triangle, k (k + 1) / 2 x p, or its diagonal alone, k x p
    W_sums: np.ndarray  # k; here and in the next rows count by their observed share, as in the penalty
    W_squares: np.ndarray  # k


class DivergenceSolver(Solver):
    """What the solvers for every loss share: slopes and curvatures of cells, summed for rows and columns."""

    lifts, sums_squares, floor, blank = True, False, 0.1, 0.0
    multiplies = False  # whether steps are multiplicative, and need the positive part of the gradient
    whole_hessians = True  # or only their diagonals

    def __init__(self, loss=LEAST_SQUARES, unstored=False):
        self.loss, self.unstored, self.convex = loss, unstored, loss.convex

    def prepare(self, summary):
        """Learn from a table's summary whether only stored cells are read, and the lower bound of the fit."""
        self.per_stored = summary.stored and (self.unstored or self.loss.counts)
        self.least_fit = self.loss.least_fit(summary.mean, summary.least)

    def size(self, block):
        """Return the magnitude of the terms in a block's loss."""
        return float(self.loss.size_of_cells(block.cells).sum())

    def per_row(self, k):
        """Return how many numbers a pass keeps for each row besides its cells."""
        return k * (k + 1) // 2

    def constant(self, block, Wt):
        """Return the part of a block's loss that depends on the data alone; :meth:`error_of_block` leaves it out."""
        if not self._whole_counts(block):
            return 0.0
        x = block.cells.astype(np.float64, copy=False)
        with np.errstate(divide="ignore"):
            logs = np.where(x > 0, np.log(x), 0)
        return float((block.of_rows(block.counts) * (x * (logs - 1))).sum())

    def _seen(self, block):
        """Return a block whose ``cells`` are those to read."""
        return block if self.per_stored else block.dense()

    def _off_zero(self, fitted, dtype):
        """Keep the fit of cells off zero, where slopes are infinite, in place; the bound depends on the precision."""
        return np.maximum(fitted, self._least(dtype), out=fitted)

    def _least(self, dtype):
        """Return the least fit of a cell, in a precision."""
        return max(self.least_fit, float(np.finfo(dtype).tiny) ** 0.5)

    def context(self, H, strengths):
        """Return what the updates of all blocks need from the loadings."""
        return self.whole_hessians if self.per_stored else self.products(H)

    def products(self, F):
        """Return the products of the rows of F from which Hessians are summed."""
        return packed_products(F) if self.whole_hessians else np.square(F)

    def improve_scores(self, block, Wt, H, products, strengths, sweeps, enough):
        """Improve the scores of a block of rows in place (k x rows) and return the block's statistics."""
        l1, l2 = (np.broadcast_to(q * block.observed, Wt.shape[1:]) for q in (strengths.l1_W, strengths.l2_W))
        if not Wt.any():
            Wt[:] = self._first_scores(block, H)
            for _ in range(2):
                gradient, positive, _ = self.slopes(block, Wt, H, None)
                multiply(Wt, gradient, positive, l1, l2, self.loss)
        gradient, positive, grams = self.slopes(block, Wt, H, products)
        self.improve(Wt, gradient, positive, grams, l1, l2, block.counts, sweeps, enough)
        return self.statistics(block, Wt, H)

    def _first_scores(self, block, H):
        """Return scores that are equal for all components and give each row's fit the sum of the row."""
        sums = block.row_sums() / np.maximum(np.broadcast_to(block.observed, block.X.shape[:1]), 1e-3)
        return (sums / (H.sum() or 1.0))[None]

    def cells(self, block, Y, multiplies):
        """Return slope, its positive part and curvature of every cell at the fit Y, and whether slopes leave out a 1.

        For Kullback-Leibler the slope is 1 - x / y. If every cell counts, the ones are summed separately, without the
        cells. A missing cell is imputed with its fit, so its slope is zero, and it gets no curvature. The positive part
        is correct only if ``multiplies``.
        """
        X, holes = block.cells, block.missing
        self._off_zero(Y, Y.dtype)
        if holes is not None:
            fill(X, Y, holes)
        apart = self.loss.counts and not self.unstored and (self.per_stored or holes is None)
        if apart:
            slope = X / Y
            curvature, positive = np.divide(slope, Y, out=Y), np.zeros(()) if holes is None else np.zeros_like(Y)
            np.negative(slope, out=slope)
        else:
            slope, positive, curvature = self.loss.slopes_of_cells(X, Y)
        if holes is not None:
            curvature *= ~holes
            positive = np.where(holes, -1 if apart else 0, positive) if multiplies else positive
        return slope, positive, curvature, apart

    def slopes(self, block, F, A, products, weights=None):
        """Return gradient, its positive part and packed Hessians of the columns of F (k x rows), where the fit is F' A.

        ``products`` are those of A; None asks for a multiplicative step, with the positive part and without Hessians.
        With stored cells, ``products`` only says whether Hessians are whole, or just their diagonals. ``weights``
        belong to the columns of A.
        """
        block, multiplies = self._seen(block), self.multiplies or products is None
        A = A.astype(F.dtype, copy=False)
        ones = (A.sum(axis=1) if weights is None else product(A, weights))[:, None]
        if self.per_stored and self._whole_counts(block):
            gradient, grams = block.slopes(F, A, weights, self._least(F.dtype), products)
            return gradient + ones, ones, grams
        slope, positive, curvature, apart = self.cells(block, block.fitted(F, A), multiplies)
        if weights is not None:
            v = block.of_columns(weights).astype(F.dtype)
            slope, curvature, positive = slope * v, curvature * v, positive * v if positive.ndim else positive
        gradient = block.loadings_times(A, slope)
        above = block.loadings_times(A, positive) if multiplies and positive.ndim else None
        grams = None if products is None else block.hessians(A, products, curvature)
        if apart:
            gradient, above = gradient + ones, ones if above is None else above + ones
        return gradient, above, grams

    def _whole_counts(self, block):
        """Whether cells are counts, all of them: then the sums of all fits stand apart."""
        return self.loss.counts and not self.unstored and block.missing is None

    def statistics(self, block, Wt, H):
        """Return the statistics of a block: if only stored cells are read, just the sums of scores."""
        weighted, sums, squares = weighted_sums(block, Wt)
        if self.per_stored:
            return Slopes(*np.zeros((3, 0)), sums, squares)
        block = block.dense()
        gradient, above, curvature = self._sums(block, Wt, weighted, H, self.multiplies)
        products = self.products(Wt) if block.weights is None else self.products(Wt) * block.counts
        return Slopes(gradient, above, block.scores_times(products, curvature), sums, squares)

    def _sums(self, block, Wt, weighted, H, multiplies):
        """Return the gradient of the loadings of a block, its positive part, and the curvature of the cells."""
        slope, positive, curvature, apart = self.cells(block, block.fitted(Wt, H.astype(Wt.dtype)), multiplies)
        gradient, above = block.scores_times(weighted, slope), np.zeros(())
        if multiplies and positive.ndim:
            above = block.scores_times(weighted, positive)
        if apart:
            ones = weighted.sum(axis=1, keepdims=True, dtype=np.float64)
            gradient, above = gradient + ones, above + np.broadcast_to(ones, gradient.shape)
        return gradient, above, curvature

    def improve_components(self, H, stats, strengths, observed, sweeps=40, enough=0.01):
        """Return improved loadings. ``observed`` is the observed share of each column (None: 1)."""
        H = H.copy()
        l1, l2 = self._of_columns(H, strengths, observed)
        self.improve(H, *stats[:3], l1, l2, np.ones(H.shape[1]), sweeps, enough)
        return H

    def improve_columns(self, block, H, W, weights, columns, strengths, observed, sweeps=40, enough=0.01):
        """Return improved loadings of a block of columns of stored cells, given all scores W (k x n)."""
        l1, l2 = self._of_columns(H, strengths, observed, columns)
        slopes = self.slopes(block, H, W, self.whole_hessians, weights)
        self.improve(H, *slopes, l1, l2, np.ones(H.shape[1]), sweeps, enough)
        return H

    def error_of_block(self, block, Wt, H):
        """Return the loss of a block for loadings H, without its :meth:`constant`; this reads the data once more."""
        counts, block = block.counts, self._seen(block)
        X, holes = block.cells, block.missing
        if self.per_stored:
            y = self._off_zero(block.fitted(Wt.astype(np.float64), H), Wt.dtype)
            if self._whole_counts(block):
                X = X if block.weights is None else X * block.of_rows(counts)
                return inner(product(Wt, counts).astype(np.float64), H.sum(axis=1)) - inner(X, np.log(y, out=y))
            v, cells = block.of_rows(counts.astype(np.float64)), self.loss.of_cells(X, y)
            if holes is not None:
                cells[holes] = 0
            if self.unstored:
                return inner(v, cells)
            return inner(v, cells - y) + inner(product(Wt, counts).astype(np.float64), H.sum(axis=1))
        Y = self._off_zero(block.fitted(Wt, H.astype(Wt.dtype)), Wt.dtype)
        if self.loss.counts and holes is None:
            logs = np.log(Y, out=Y)
            if block.weights is not None:
                logs *= counts[:, None]
            everything = inner(product(Wt, counts).astype(np.float64), H.sum(axis=1))
            return everything - inner(X, logs)
        if holes is not None:
            fill(Y, X, holes)  # missing cells: no difference, no loss
        if self.loss.squares:
            return squares(np.subtract(X, Y, out=Y), block.weights) / 2
        return weighted_sum(self.loss.of_cells(X, Y).sum(axis=1, dtype=np.float64), block.weights)

    def residual(self, H, stats, strengths, observed):
        """Return how far the loadings are from stationary, given statistics of their scores."""
        top = H.max(initial=0.0)
        return self._violation(H, *self.derivatives(H, stats, strengths, observed)) / top if top else 0.0

    def residual_of_columns(self, block, H, W, weights, columns, strengths, observed):
        """Return how far the loadings of a block of columns of stored cells are from stationary."""
        slope, curvature = self.derivatives_of_columns(block, H, W, weights, columns, strengths, observed)
        return self._violation(H, slope, curvature, columns)

    def derivatives(self, H, stats, strengths, observed):
        """Return the slope and the curvature of the objective in every loading, given statistics of their scores."""
        grams = stats.grams[diagonal_of_packed(len(H))] if self.whole_hessians else stats.grams
        return _with_penalty(H, stats.gradient, grams, strengths, observed)

    def derivatives_of_columns(self, block, H, W, weights, columns, strengths, observed):
        """Return the same for a block of columns of stored cells, given all scores W (k x n)."""
        gradient, _, grams = self.slopes(block, H, W, False, weights)
        return _with_penalty(H, gradient, grams, strengths, observed, columns)

    def _of_columns(self, H, strengths, observed, columns=slice(None)):
        """Return the L1 and L2 strengths; off the support L1 is beyond any slope, so that no step raises a loading."""
        l1, l2 = _of_columns(H, strengths, observed, columns)
        if self.support is not None:
            l1 = np.where(self.support[:, columns], l1, np.finfo(H.dtype).max / 1e3)
        return l1, l2

    def _violation(self, H, slope, curvature, columns=slice(None)):
        if self.support is not None:
            slope = np.where(self.support[:, columns], slope, 0.0)
        with np.errstate(over="ignore"):
            step = np.divide(slope, curvature, out=np.zeros(slope.shape), where=curvature > 0)
        return float(np.abs(np.minimum(H, step)).max(initial=0.0))


def _of_columns(H, strengths, observed, columns=slice(None)):
    """Return the L1 and L2 strengths of columns of the loadings; ``observed`` is the observed share of each."""
    shares = 1.0 if observed is None else observed[columns]
    return tuple(np.broadcast_to(q * shares, H.shape[1:]) for q in (strengths.l1_H, strengths.l2_H))


def _with_penalty(H, gradient, curvature, strengths, observed, columns=slice(None)):
    l1, l2 = _of_columns(H, strengths, observed, columns)
    return gradient + l1 + l2 * H, curvature + l2


def multiply(F, gradient, positive, l1, l2, loss):
    """Multiply F in place by a power of the ratio of the gradient's negative part to its positive part.

    The loss gives the exponent with which no step can raise the objective.
    """
    below, above = np.maximum(positive - gradient, 0), positive + l1 + l2 * F
    ratio = np.divide(below, above, out=np.ones_like(F), where=above > 0)  # 0 / 0: nothing depends on this entry
    F *= ratio ** loss.exponent(bool(np.any(l2)))


class MultiplicativeDivergence(DivergenceSolver):
    """Multiplicative updates for every beta-divergence, one for the scores and one for the loadings in a pass.

        F <- F * (negative part of the gradient / its positive part)^power

    The objective never rises, and entries never become negative or zero. For Kullback-Leibler without penalty these are
    Lee and Seung's rules, up to division by the sums of loadings.

    References: D. D. Lee and H. S. Seung (1999), Learning the parts of objects by non-negative matrix factorization;
    C. Fevotte and J. Idier (2011), Algorithms for nonnegative matrix factorization with the beta-divergence.
    """

    extrapolates, positive, multiplies, whole_hessians = False, True, True, False

    def parts(self, block, Wt, H):
        """Return the negative and the positive part of the gradient of the loadings (k x p), given a block's scores."""
        weighted, *_ = weighted_sums(block, Wt)
        gradient, above, _ = self._sums(self._seen(block), Wt, weighted, H, True)
        return np.maximum(above - gradient, 0), above

    def improve(self, F, gradient, positive, grams, l1, l2, weights, sweeps, enough):
        """Take one multiplicative step."""
        multiply(F, gradient, positive, l1, l2, self.loss)


class Newton(DivergenceSolver):
    """Newton steps: rows of scores, then columns of loadings, minimise a quadratic model of their part of the loss.

    Each row and column has its own Hessian (least squares in which cells are weighted by their curvature); for beta = 2
    without missing cells the model is exact. In a step entries fall to a tenth at most, unless they are already small,
    since the model does not know the pole of the loss at zero. If the objective rises all the same, the pass is undone,
    and some multiplicative passes follow, which cannot raise it.

    References: C.-J. Hsieh and I. S. Dhillon (2011), Fast coordinate descent methods with variable selection for
    non-negative matrix factorization; P. McCullagh and J. A. Nelder (1989), Generalized linear models, for the scoring
    step where the loss is not convex.
    """

    takes_back = True

    def __init__(self, loss=LEAST_SQUARES, unstored=False):
        super().__init__(loss, unstored)
        self.floor, self.rough = 0.0 if loss.squares else self.floor, self.convex
        self.cautious, self.patience = 0, 1

    @property
    def multiplies(self):
        """Whether steps are multiplicative at present."""
        return self.cautious > 0

    def improve(self, F, gradient, positive, grams, l1, l2, weights, sweeps, enough):
        """Minimise the quadratic model by sweeps of coordinate descent, or take a multiplicative step."""
        if self.cautious:
            multiply(F, gradient, positive, l1, l2, self.loss)
            return
        if np.any(l2):
            grams[diagonal_of_packed(len(F))] += l2
        slopes = gradient + l1 + l2 * F
        least = np.zeros_like(F)
        if self.floor:
            np.multiply(F, self.floor, out=least, where=1e-3 * F.max(axis=0) < F)
        slopes, grams = (q.astype(F.dtype, copy=False) for q in (slopes, grams))
        v = weights.astype(F.dtype, copy=False)
        compiled(own_grams_descent)(F, slopes, grams, least, v, sweeps, enough)

    def accepted(self):
        """Count down the multiplicative passes."""
        self.cautious = max(self.cautious - 1, 0)

    def rejected(self, times):
        """Switch to multiplicative passes for a while, if the extrapolation was not the cause."""
        if times > 1:
            self.cautious, self.patience = self.patience, min(2 * self.patience, 64)


def diagonal_of_packed(k):
    """Return the positions of the diagonal in a packed lower triangle."""
    return np.arange(k) * (np.arange(k) + 3) // 2
