"""Solvers: improve W given H, then H given sums over the rows of W.

    minimise  D(X, W H) + penalty(W) + penalty(H),   W >= 0, H >= 0

Given H the rows of W are independent; given W, H needs only sums over rows. That is why one pass over row blocks
serves memory, disk and several machines.

Least squares. H depends on X through W'X and W'W. Both halves are the same problem,

    minimise over F >= 0:   1/2 tr(F' A F) - tr(F' B) + l1 sum(F),        A (k x k), B (k x m), l1 (m)

with F = W', A = HH' + l2, B = HX' for the scores, and F = H, A = W'W + l2, B = W'X for the loadings (l1 is one number
where nothing is missing). A solver is a way to improve F, given A, B and l1.

Missing cells are filled with what the current factors say of them, at each pass: what is minimised then is never below
the objective over the observed cells, and equal to it where it touches (expectation and maximisation, EM).

Other divergences. Every cell has a slope d'(y) and a curvature at y = (W H)_ij. Sums of slope times h_j are the
gradient of a row of scores, sums of curvature times h_j h_j' its Hessian, and the same with w_i, over rows, those of a
column of loadings. A cell that is missing adds nothing.

References: A. Cichocki and A.-H. Phan (2009), Fast local algorithms for large scale nonnegative matrix and
tensor factorizations; N. Gillis and F. Glineur (2012) for several sweeps per product with X; C. Fevotte and J. Idier
(2011), Algorithms for nonnegative matrix factorization with the beta-divergence.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from .blocks import Block, fill, fitted_at_stored, loadings_times, row_blocks, scores_times, squares, take, with_data
from .kernels import compiled, coordinate_descent, csr_grams_blas, own_grams_descent, packed_products
from .losses import LEAST_SQUARES
from .missing import leaves_out_unstored
from .products import gram, inner, product, weighted_sum


class Statistics(NamedTuple):
    """Sums over rows (weighted, where rows have weights): all that the loadings need to know of X."""

    WtW: np.ndarray  # k x k
    WtX: np.ndarray  # k x p
    W_sums: np.ndarray  # k; this and the next with the share of a row's cells that is observed, as in the penalty
    W_squares: np.ndarray  # k
    squared_norm: np.ndarray  # |X|^2, what is missing filled in


def total(parts):
    """Add the statistics of all blocks, in their order."""
    parts = iter(parts)  # one at a time: each may be as large as many loadings
    first = next(parts)
    for part in parts:
        for sum_, term in zip(first, part, strict=True):
            sum_ += term
    return first


def weighted_sums(block, Wt):
    """Return the weighted scores of a block and their sums and squares, as they count in the penalty."""
    weighted = Wt.copy() if block.weights is None else Wt * block.counts
    v = np.broadcast_to(block.observed, Wt.shape[1:])
    return weighted, *(product(q, v).astype(np.float64) for q in (weighted, weighted * Wt))


class _Solver:
    """What the loop may ask of, and tell, any solver.

    ``descends`` says whether a pass can only lower the objective, ``extrapolates`` whether loadings may be
    extrapolated between passes (and may then shrink to the share ``floor`` of what they were), ``positive`` whether
    zeros would stay zeros, so that it must start without any, ``lifts`` whether loadings must all the same, and
    ``blank`` what unknown scores are where zeros would stay. ``convex`` says whether the problem of the scores is
    (else exact ones may be worse than those at hand), ``sums_squares`` whether the loss is least squares, and ``rough``
    whether single precision will do on the way.
    """

    descends, extrapolates, positive, lifts, convex, sums_squares, rough = True, True, False, False, True, True, False
    floor, blank = 0.0, 1.0

    def accepted(self):
        """Hear that the scores at hand, with the loadings of now, are the best so far."""

    def rejected(self, times):
        """Hear that the last pass, and ``times`` in a row, did not lower the objective."""


class Alternating(_Solver):
    """What the solvers for least squares share: both halves of a pass as one problem, and what is known after it."""

    def size(self, block):
        """Return the size of the terms in a block's loss."""
        return block.squared_norm()

    def per_row(self, k):
        """Return how many numbers a pass keeps for each row beside its cells."""
        return 2 * k

    def attach(self, data):
        """See the rows that are to be fitted: nothing is to be prepared."""

    def context(self, H, strengths):
        """Return what all blocks need to know of the loadings."""
        return plus_diagonal(gram(H), strengths.l2_W)

    def improve_scores(self, block, Wt, H, HHt, strengths, sweeps, enough):
        """Improve the scores of a block of rows in place (k x rows) and return the block's statistics."""
        A, l1 = HHt.astype(Wt.dtype), strengths.l1_W * block.observed
        for step in range(block.fills):
            if step > 0:
                block.fill(Wt, H)
            HXt = loadings_times(H, block.X)
            if strengths.l2_W and block.missing is not None:
                HXt += strengths.l2_W * (1 - block.observed) * Wt  # the penalty that is missing is filled in as well
            self.improve(Wt, A, HXt, l1, block.counts, sweeps, enough)
        return self._sums(block, Wt)

    def statistics(self, block, Wt, H):
        """Return what the loadings need to know of a block whose scores are good."""
        block.fill(Wt, H)
        return self._sums(block, Wt)

    def _sums(self, block, Wt):
        weighted = Wt.copy() if block.weights is None else Wt * block.counts
        WtW = product(Wt, weighted.T).astype(np.float64)
        sums, squares = weighted.sum(axis=1, dtype=np.float64), WtW.diagonal().copy()
        if block.missing is not None:
            sums, squares = product(weighted, block.observed), product(weighted * Wt, block.observed)
        return Statistics(WtW, scores_times(weighted, block.X), sums, squares, np.array(block.squared_norm()))

    def improve_components(self, H, stats, strengths, observed, sweeps=40, enough=0.01):
        """Return better loadings; touches no data. ``observed`` is the share of each column that is (None: all)."""
        A, B, l1 = self._problem(H, stats, strengths, observed)
        H = H.copy()
        self.improve(H, A, B, l1, np.ones(H.shape[1]), sweeps, enough)
        return H

    def loss(self, H, stats):
        """Return the loss for loadings H and the scores behind the statistics."""
        return max(float(0.5 * stats.squared_norm - inner(H, stats.WtX) + 0.5 * inner(stats.WtW, gram(H))), 0.0)

    def residual(self, H, stats, strengths, observed):
        """Return how far the loadings are from stationary, given statistics of their scores."""
        A, B, l1 = self._problem(H, stats, strengths, observed)
        return stationarity(H, A, B - l1)

    def _problem(self, H, stats, strengths, observed):
        B, observed = stats.WtX, 1.0 if observed is None else observed
        if strengths.l2_H:
            B = B + strengths.l2_H * (1 - observed) * H
        return plus_diagonal(stats.WtW, strengths.l2_H), B, strengths.l1_H * observed


def plus_diagonal(A, value):
    """Return A with a value added to its diagonal."""
    return A + value * np.eye(len(A)) if value else A


class HALS(Alternating):
    """Hierarchical alternating least squares: each component is minimised exactly, in turn, in several sweeps.

    The objective never rises. Sweeps cost little beside the product with X, so several are made per product,
    until one changes less than the share ``enough`` of what the first one did.
    """

    rough = True

    def __init__(self):
        self.coordinate_descent = compiled(coordinate_descent)

    def improve(self, F, A, B, l1, weights, sweeps, enough):
        """Sweep over the components."""
        if not np.isscalar(l1) or l1:
            B = B - l1
        self.coordinate_descent(F, A, B, weights, sweeps, enough)


class Multiplicative(Alternating):
    """Multiplicative updates, F <- F * B / (A F + l1), one for the scores and one for the loadings in a pass.

    The objective never rises, and nothing becomes negative, or zero; what is zero would stay so, and is lifted at the
    start. Slow, and the most read.

    Reference: D. D. Lee and H. S. Seung (2001), Algorithms for non-negative matrix factorization.
    """

    extrapolates, positive = False, True

    def improve(self, F, A, B, l1, weights, sweeps, enough):
        """Multiply once by the ratio of the negative to the positive part of the gradient."""
        below = product(A, F) + l1
        F *= np.divide(B, below, out=np.ones_like(F), where=below > 0)  # 0 / 0: nothing depends on this entry


class AlternatingLeastSquares(Alternating):
    """Alternating least squares: the unconstrained minimiser, cut off at zero.

    No descent method: the objective may rise, so the best loadings met are kept and the residual is reported.

    Reference: M. W. Berry et al. (2007), Algorithms and applications for approximate nonnegative matrix
    factorization.
    """

    descends = extrapolates = False

    def improve(self, F, A, B, l1, weights, sweeps, enough):
        """Solve A F = B - l1 and cut off."""
        limits = np.finfo(A.dtype)
        ridge = 10 * limits.eps * max(np.trace(A), limits.tiny) * np.eye(len(A), dtype=A.dtype)
        F[:] = np.maximum(product(np.linalg.inv(A + ridge), B - l1), 0)


class Gradient(Alternating):
    """Projected gradient descent: F <- max(F - rate * (A F - B + l1), 0), once in each half of a pass.

    Without a ``learning_rate`` each step starts from the inverse mean curvature and is halved until the objective
    falls as much as it must. A fixed rate may be too large: then the objective rises and the best loadings are kept.

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
            if inner(step, product(A, step)) <= curvature * inner(step, step):  # the quadratic lies under its bound
                F += step
                return
            curvature *= 2


class Slopes(NamedTuple):
    """Sums over rows (weighted) of the derivatives of the loss: what the loadings need to know of the data."""

    gradient: np.ndarray  # k x p
    positive: np.ndarray  # k x p, its positive part
    grams: np.ndarray  # Hessian of each column: its lower triangle, k (k + 1) / 2 x p, or its diagonal alone, k x p
    W_sums: np.ndarray  # k; this and the next with the share of a row's cells that is observed, as in the penalty
    W_squares: np.ndarray  # k


class _Divergence(_Solver):
    """What the solvers for every beta-divergence share: slopes and curvatures of cells, summed for rows and columns.

    Of a sparse matrix only the stored cells are looked at, where the others are not observed, or the slope of a
    zero does not depend on y (beta = 1); else its blocks are filled. Columns of a sparse matrix are taken from its
    transpose, so that nothing grows faster than the stored cells.
    """

    lifts, sums_squares, floor, blank = True, False, 0.1, 0.0
    multiplies = False  # whether steps are multiplicative, and need the positive part of the gradient
    whole_hessians = True  # or their diagonals alone

    def __init__(self, loss=LEAST_SQUARES, unstored=False):
        self.divergence, self.unstored, self.convex = loss, unstored, loss.convex

    def size(self, block):
        """Return the size of the terms in a block's loss."""
        return self.divergence.size(block.X.data if sparse.issparse(block.X) else block.X)

    def per_row(self, k):
        """Return how many numbers a pass keeps for each row beside its cells."""
        return k * (k + 1) // 2

    def attach(self, data):
        """See the rows that are to be fitted, and transpose sparse ones."""
        self.data, X, k = data, data.X, data.k
        self.per_stored = sparse.issparse(X) and (self.unstored or self.divergence.counts)
        self.columns, self.constant = None, 0.0
        cells = data.filled.data if sparse.issparse(X) else data.filled
        least = float(np.min(cells, where=cells > 0, initial=np.inf))
        self.least_fit = self.divergence.least_fit(float(data.filled.mean()), least)
        if not self.per_stored:
            if self.divergence.counts:
                self.constant = sum(data.each(constant_of_logarithms, data.blocks))
            return
        Xt = X.T.tocsr()
        holes = np.isnan(Xt.data)
        Xt = with_data(Xt, np.where(holes, 0, Xt.data))
        self.columns = row_blocks(Xt, k)
        self.transposed = [
            Block(take(Xt, c), missing=holes[Xt.indptr[c.start] : Xt.indptr[c.stop]] if holes.any() else None)
            for c in self.columns
        ]

    @property
    def tiny(self):
        """The least fit of a cell, in the precision of the passes."""
        return max(self.least_fit, float(np.finfo(self.data.dtype).tiny) ** 0.5)

    def context(self, H, strengths):
        """Return what all blocks need to know of the loadings."""
        return self.whole_hessians if self.per_stored else self.products(H)

    def products(self, F):
        """Return the products of the rows of F that Hessians are sums of."""
        return packed_products(F) if self.whole_hessians else np.square(F)

    def improve_scores(self, block, Wt, H, products, strengths, sweeps, enough):
        """Improve the scores of a block of rows in place (k x rows) and return the block's statistics."""
        l1, l2 = (np.broadcast_to(q * block.observed, Wt.shape[1:]) for q in (strengths.l1_W, strengths.l2_W))
        if not Wt.any():
            Wt[:] = self._first_scores(block, H)
            for _ in range(2):
                gradient, positive, _ = self.slopes(block, Wt, H, None)
                multiply(Wt, gradient, positive, l1, l2, self.divergence)
        gradient, positive, grams = self.slopes(block, Wt, H, products)
        self.improve(Wt, gradient, positive, grams, l1, l2, block.counts, sweeps, enough)
        return self.statistics(block, Wt, H)

    def _first_scores(self, block, H):
        """Return equal scores, such that a row and its fit have the same sum."""
        X, holes = block.X, block.missing
        if holes is not None:
            X = with_data(X, np.where(holes, 0, X.data)) if sparse.issparse(X) else np.where(holes, 0, X)
        sums = np.asarray(X.sum(axis=1)).ravel() / np.maximum(np.broadcast_to(block.observed, X.shape[:1]), 1e-3)
        return (sums / (H.sum() or 1.0))[None]

    def cells(self, block, Y, multiplies):
        """Return slope, its positive part and curvature of every cell where the fit is Y, and whether 1 is left out.

        For beta = 1 the slope is 1 - x / y: where every cell counts the ones are summed apart, without the cells. A
        missing cell is filled with its fit, so that its slope is zero, and has no curvature. The positive part is right
        where it is needed, for what ``multiplies``.
        """
        X, holes = block.X, block.missing
        if self.per_stored:
            X = X.data
        elif sparse.issparse(X):
            X, holes = X.toarray(), None if holes is None else with_data(X, holes).toarray()
        np.maximum(Y, self.tiny, out=Y)
        if holes is not None:
            fill(X, Y, holes)
        apart = self.divergence.counts and not self.unstored and (self.per_stored or holes is None)
        if apart:
            slope = X / Y
            curvature, positive = np.divide(slope, Y, out=Y), np.zeros(()) if holes is None else np.zeros_like(Y)
            np.negative(slope, out=slope)
        else:
            slope, positive, curvature = self.divergence.slopes_of_cells(X, Y)
        if holes is not None:
            curvature *= ~holes
            positive = np.where(holes, -1 if apart else 0, positive) if multiplies else positive
        return slope, positive, curvature, apart

    def slopes(self, block, F, A, products, weights=None):
        """Return gradient, its positive part and packed Hessians of the columns of F (k x rows), fit F' A.

        ``products`` are those of A (None: for a multiplicative step; Hessians are not wanted and the positive part is).
        For stored cells they say whether whole Hessians are wanted, or their diagonals alone; ``weights`` belong to the
        columns of A there.
        """
        X, k, multiplies = block.X, len(A), self.multiplies or products is None
        At, A = np.ascontiguousarray(A.T, dtype=F.dtype), A.astype(F.dtype, copy=False)
        ones = (A.sum(axis=1) if weights is None else product(A, weights))[:, None]
        above = grams = None
        if not self.per_stored:
            slope, positive, curvature, apart = self.cells(block, product(F.T, A), multiplies)
            gradient = loadings_times(A, slope)
            if multiplies and positive.ndim:
                above = loadings_times(A, positive)
            if products is not None:
                grams = product(products.astype(F.dtype, copy=False), curvature.T)
        else:
            slope, positive, curvature, apart = self.cells(block, fitted_at_stored(X, F.T, A), multiplies)
            v = 1 if weights is None else weights[X.indices].astype(F.dtype)
            gradient = loadings_times(A, with_data(X, slope * v))
            if multiplies and positive.ndim:
                above = loadings_times(A, with_data(X, positive * v))
            if products is False:
                grams = loadings_times(np.square(A), with_data(X, curvature * v))
            elif products:
                grams = np.empty((k * (k + 1) // 2, F.shape[1]), F.dtype)
                compiled(csr_grams_blas)(curvature * v, X.indices, X.indptr, At, grams)
        if apart:
            gradient, above = gradient + ones, ones if above is None else above + ones
        return gradient, above, grams

    def statistics(self, block, Wt, H):
        """Return what the loadings need to know of a block: of stored cells only the sums of scores."""
        weighted, sums, squares = weighted_sums(block, Wt)
        if self.per_stored:
            return Slopes(*np.zeros((3, 0)), sums, squares)
        slope, positive, curvature, apart = self.cells(block, product(Wt.T, H.astype(Wt.dtype)), self.multiplies)
        gradient, above = scores_times(weighted, slope), np.zeros(())
        if self.multiplies and positive.ndim:
            above = scores_times(weighted, positive)
        if apart:
            ones = weighted.sum(axis=1, keepdims=True, dtype=np.float64)
            gradient, above = gradient + ones, above + np.broadcast_to(ones, gradient.shape)
        products = self.products(Wt) if block.weights is None else self.products(Wt) * block.counts
        return Slopes(gradient, above, scores_times(products, curvature), sums, squares)

    def improve_components(self, H, stats, strengths, observed, sweeps=40, enough=0.01):
        """Return better loadings. ``observed`` is the share of each column that is (None: all)."""
        H = H.copy()
        l1, l2 = (np.broadcast_to(q * (1.0 if observed is None else observed), H.shape[1:]) for q in strengths[1::2])
        v = np.ones(H.shape[1])
        if not self.per_stored:
            self.improve(H, *stats[:3], l1, l2, v, sweeps, enough)
            return H

        for c, slopes in zip(self.columns, self._of_columns(H, self.whole_hessians), strict=True):
            part = np.ascontiguousarray(H[:, c], dtype=self.data.dtype)
            self.improve(part, *slopes, l1[c], l2[c], v[c], sweeps, enough)
            H[:, c] = part
        return H

    def _of_columns(self, H, whole_hessians):
        """Return gradient, positive part and Hessians (or diagonals) for each block of columns of stored cells."""
        W, dtype = np.concatenate(self.data.Wt, axis=1), self.data.dtype
        weights = self.data.weights

        def of_block(c, block):
            part = np.ascontiguousarray(H[:, c], dtype=dtype)
            return self.slopes(block.rounded(dtype), part, W, whole_hessians, weights)

        return self.data.each(of_block, self.columns, self.transposed)

    def loss(self, H, stats):
        """Return the loss for loadings H and the scores at hand: one more look at the data."""
        return float(sum(self.data.of_blocks(lambda block, Wt: self._loss(block, Wt, H)))) + self.constant

    def _loss(self, block, Wt, H):
        X = block.X
        if self.per_stored:
            y = np.maximum(fitted_at_stored(X, Wt.T.astype(np.float64), H), self.tiny)
            v = np.repeat(block.counts.astype(np.float64), np.diff(X.indptr))
            cells = self.divergence.of_cells(X.data, y)
            if block.missing is not None:
                cells[block.missing] = 0
            if self.unstored:
                return inner(v, cells)
            return inner(v, cells - y) + inner(product(Wt, block.counts).astype(np.float64), H.sum(axis=1))
        Y, holes = np.maximum(product(Wt.T, H.astype(Wt.dtype)), self.tiny), block.missing
        if sparse.issparse(X):
            X, holes = X.toarray(), None if holes is None else with_data(X, holes).toarray()
        if self.divergence.counts and holes is None:
            logs = np.log(Y, out=Y)
            if block.weights is not None:
                logs *= block.counts[:, None]
            everything = inner(product(Wt, block.counts).astype(np.float64), H.sum(axis=1))
            return everything - inner(X, logs)
        if holes is not None:
            fill(Y, X, holes)  # no difference, no loss
        if self.divergence.squares:
            return squares(np.subtract(X, Y, out=Y), block.weights) / 2
        return weighted_sum(self.divergence.of_cells(X, Y).sum(axis=1, dtype=np.float64), block.weights)

    def residual(self, H, stats, strengths, observed):
        """Return how far the loadings are from stationary, given statistics of their scores."""
        top, worst = H.max(initial=0.0), 0.0
        if top == 0:
            return 0.0
        parts, diagonal = [(slice(None), stats[:3])], slice(None)
        if self.per_stored:
            parts = zip(self.columns, self._of_columns(H, False), strict=True)
        elif self.whole_hessians:
            diagonal = diagonal_of_packed(len(H))
        shares = np.ones(H.shape[1]) if observed is None else observed
        for c, (gradient, _, grams) in parts:
            slope = gradient + strengths.l1_H * shares[c] + strengths.l2_H * shares[c] * H[:, c]
            curvature = grams[diagonal] + strengths.l2_H * shares[c]
            with np.errstate(over="ignore"):
                step = np.divide(slope, curvature, out=np.zeros(slope.shape), where=curvature > 0)
            worst = max(worst, float(np.abs(np.minimum(H[:, c], step)).max(initial=0.0)))
        return worst / top


def multiply(F, gradient, positive, l1, l2, loss):
    """Take a multiplicative step, in place: F times the negative over the positive part of the gradient, to a power.

    The loss says which power: with it no step can raise the objective.
    """
    below, above = np.maximum(positive - gradient, 0), positive + l1 + l2 * F
    ratio = np.divide(below, above, out=np.ones_like(F), where=above > 0)  # 0 / 0: nothing depends on this entry
    F *= ratio ** loss.exponent(bool(np.any(l2)))


def constant_of_logarithms(block):
    """Return what of a block's Kullback-Leibler divergence depends on the data alone; 0 if it has missing cells."""
    if sparse.issparse(block.X) or block.missing is not None:
        return 0.0
    with np.errstate(divide="ignore"):
        logs = np.where(block.X > 0, np.log(block.X), 0)
    return inner(block.counts, (block.X * (logs - 1)).sum(axis=1, dtype=np.float64))


class MultiplicativeDivergence(_Divergence):
    """Multiplicative updates for every beta-divergence, one for the scores and one for the loadings in a pass.

        F <- F * (negative part of the gradient / its positive part)^power

    The objective never rises, and nothing becomes negative, or zero. For Kullback-Leibler without penalty these are
    Lee and Seung's rules, up to the sums of loadings that they divide by.

    References: D. D. Lee and H. S. Seung (1999), Learning the parts of objects by non-negative matrix factorization;
    C. Fevotte and J. Idier (2011), Algorithms for nonnegative matrix factorization with the beta-divergence.
    """

    extrapolates, positive, multiplies, whole_hessians = False, True, True, False

    def improve(self, F, gradient, positive, grams, l1, l2, weights, sweeps, enough):
        """Take one multiplicative step."""
        multiply(F, gradient, positive, l1, l2, self.divergence)


class Newton(_Divergence):
    """Newton steps: rows of scores, then columns of loadings, minimise a quadratic model of their part of the loss.

    Each row and column has a Hessian of its own (least squares in which a cell weighs as much as its curvature); for
    beta = 2 without missing cells the model is exact. Entries fall to a tenth at most in a step, unless they are small
    already, since the model knows nothing of the pole of the loss at zero. Where the objective rises all the same, the
    pass is taken back, and some multiplicative ones are made, which cannot raise it.

    References: C.-J. Hsieh and I. S. Dhillon (2011), Fast coordinate descent methods with variable selection for
    non-negative matrix factorization; P. McCullagh and J. A. Nelder (1989), Generalized linear models, for the scoring
    step where the loss is not convex.
    """

    def __init__(self, loss=LEAST_SQUARES, unstored=False):
        super().__init__(loss, unstored)
        self.floor, self.rough = 0.0 if loss.squares else self.floor, self.convex
        self.cautious, self.patience, self.kept = 0, 1, None

    @property
    def multiplies(self):
        """Whether steps are multiplicative for a while."""
        return self.cautious > 0

    def attach(self, data):
        """See the rows, and compile."""
        super().attach(data)
        self.descent = compiled(own_grams_descent)

    def improve(self, F, gradient, positive, grams, l1, l2, weights, sweeps, enough):
        """Minimise the quadratic model by sweeps of coordinate descent; or multiply, for once."""
        if self.cautious:
            multiply(F, gradient, positive, l1, l2, self.divergence)
            return
        if np.any(l2):
            grams[diagonal_of_packed(len(F))] += l2
        slopes = gradient + l1 + l2 * F
        least = np.zeros_like(F)
        if self.floor:
            np.multiply(F, self.floor, out=least, where=1e-3 * F.max(axis=0) < F)
        slopes, grams = (q.astype(F.dtype, copy=False) for q in (slopes, grams))
        self.descent(F, slopes, grams, least, weights.astype(F.dtype, copy=False), sweeps, enough)

    def accepted(self):
        """Keep the scores, to come back to."""
        self.kept = [Wt.copy() for Wt in self.data.Wt]
        self.cautious = max(self.cautious - 1, 0)

    def rejected(self, times):
        """Take the scores back; if it was not the extrapolation, be cautious for a while."""
        for Wt, kept in zip(self.data.Wt, self.kept or [], strict=False):
            Wt[:] = kept
        if times > 1:
            self.cautious, self.patience = self.patience, min(2 * self.patience, 64)


def diagonal_of_packed(k):
    """Where a packed lower triangle has its diagonal."""
    return np.arange(k) * (np.arange(k) + 3) // 2


def stationarity(F, A, B):
    """Largest violation max |min(F, gradient / curvature)|, relative to max F: 0 where the KKT conditions hold."""
    top = F.max(initial=0.0)
    if top == 0:
        return 0.0 if B.max(initial=0.0) <= 0 else np.inf
    curvature = A.diagonal()
    alive = curvature > 0
    gradient = (product(A[alive], F) - B[alive]) / curvature[alive, None]
    return float(np.abs(np.minimum(F[alive], gradient)).max(initial=0.0) / top)


SOLVERS = {
    "auto": HALS,
    "hals": HALS,
    "newton": Newton,
    "mu": Multiplicative,
    "als": AlternatingLeastSquares,
    "gradient": Gradient,
}
# Of other losses, and where cells of a sparse matrix that are not stored are not observed.
DIVERGENCE_SOLVERS = {"auto": Newton, "newton": Newton, "mu": MultiplicativeDivergence}


def solvers_of(loss, missing):
    """Return the solvers that know the loss and what is missing."""
    return SOLVERS if loss.squares and not leaves_out_unstored(missing) else DIVERGENCE_SOLVERS
