"""Scores of rows, given the loadings H: the exact non-negative ones, and the linear projection.

Each row x is a small problem of its own, convex for 1 <= beta <= 2,

    minimise over w >= 0:   d(x, w H) + sum_t l1_t w_t + 1/2 sum_t l2_t w_t^2

with d = 1/2 |x - w H|^2 or another beta-divergence, so a row's scores never depend on its neighbours. Not even in the
last bit: a product with one row may be rounded differently from a product with many, so rows go through tiles of one
fixed size, padded with zeros.

Where H is rank-deficient many w fit equally well; the one of least norm is chosen, by a ridge of 1e-12 of
the mean squared loadings, in the units where the loadings of a component sum to 1. Equal components share
equally.

Least squares are solved by pivoting; of other divergences the quadratic model at the scores of before is, again and
again (Newton).

Reference: J. Kim and H. Park (2011), Fast nonnegative matrix factorization: an active-set-like method
(block principal pivoting).
"""

from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.optimize import nnls

from .beta import LEAST_SQUARES
from .blocks import fitted_at_stored, rows_of_stored, take, with_data
from .kernels import compiled_if_worth, csr_grams, nnls_rows, own_grams_descent, packed_products, unpacked
from .missing import Missing, leaves_out_unstored, observed_shares
from .newton import diagonal_of_packed, multiply
from .products import gram, product
from .threads import workers

RIDGE = 1e-12
LITTLE = 1e-4  # of a difference, beside what it is one of: less has lost four digits
BATCH_TILES = 8  # tiles of rows that are solved at once
# A row is done when no score is to change by more than CLOSE, relative to the largest; in single precision, NEAR.
NEAR, CLOSE = 1e-4, 1e-11
STEPS = 200
LEAST_GAIN, HALVINGS, ROUNDING = 0.25, 5, 1e-14  # of a step where the loss is not convex
NOTHING = 1e-14  # a row of which scores explain less has none


def exact_scores(X, H, l1=0.0, l2=0.0, n_jobs=None, missing=None, prior=0.0, loss=LEAST_SQUARES):
    """Return the non-negative scores of the rows of X (n x k), each exactly the minimiser of its objective.

    ``l1`` and ``l2`` are numbers or arrays of shape (k,). Computed in float64, returned in the dtype of X. Missing
    cells are left out; see :func:`unit_scores`.
    """
    W, sums = unit_scores(X, H, l1, l2, n_jobs, missing, prior, loss)
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
    l1, l2, prior = (np.broadcast_to(np.asarray(v, dtype=np.float64), k)[alive] / sums for v in (l1, l2, prior))
    # Equal components share equally: they are solved for as one. Sorted, so that their order changes no bit.
    rows = np.column_stack([unit_H, l1, l2 / sums, prior / sums])
    kinds = {row.tobytes(): row for row in rows}
    keys = sorted(kinds)
    kind = np.array([keys.index(row.tobytes()) for row in rows])
    count = np.bincount(kind)
    distinct = np.array([kinds[key] for key in keys])
    of_rows = _LeastSquaresOfRows if loss.squares else _DivergenceOfRows
    problem = of_rows(
        distinct[:, :-3], distinct[:, -3], distinct[:, -2] / count, distinct[:, -1] / count, missing, loss, n
    )
    share = 1 / count[kind]

    def solve_batch(start):
        batch = take(X, slice(start, start + BATCH_TILES * problem.height))
        found = problem.solve(batch)[:, kind]
        if (count > 1).any():
            found *= share
        W[start : start + batch.shape[0], alive] = found

    starts = range(0, n, BATCH_TILES * problem.height)
    with workers(n_jobs, len(starts)) as each:
        for _ in each(solve_batch, starts):
            pass
    return W, all_sums


def scores_of_used(X, H, strengths, n_jobs, missing=None, loss=LEAST_SQUARES):
    """Return what :func:`unit_scores` does, and the loadings: zero in components that no row has a score of."""
    while True:
        U, sums = unit_scores(X, H, strengths.l1_W, strengths.l2_W, n_jobs, missing, loss=loss)
        idle = H.any(axis=1) & ~U.any(axis=0)
        if not idle.any():
            return U, sums, H
        H = np.where(idle[:, None], 0.0, H)


class _OfRows:
    """The problems of rows, given loadings H of distinct components, and their penalties."""

    def __init__(self, H, l1, l2, prior, missing, loss, n):
        self.H, self.l1, self.l2, self.prior, self.missing, self.loss = H, l1, l2, prior, missing, loss
        self.size, self.p = H.shape
        self.Ht = np.ascontiguousarray(H.T)
        self.height = tile_rows(self.p)
        self.diagonal = np.arange(0, self.size**2, self.size + 1)
        self.work = n * self.size**2
        self.nnls = compiled_if_worth(nnls_rows, self.work)
        self.unstored = leaves_out_unstored(missing)

    def by_tiles(self, matrix, right):
        """Multiply, in tiles of one height; the last one is padded."""
        m, height = len(matrix), self.height
        matrix = np.ascontiguousarray(matrix, dtype=right.dtype)
        whole, rest = m // height, m % height
        out = np.empty((m, right.shape[1]), right.dtype)
        if whole:
            tiles = matrix[: whole * height].reshape(whole, height, -1)
            out[: whole * height].reshape(whole, height, -1)[:] = product(tiles, right)
        if rest:
            last = np.zeros((1, height, matrix.shape[1]), right.dtype)
            last[0, :rest] = matrix[whole * height :]
            out[whole * height :] = product(last, right)[0, :rest]
        return out

    @cached_property
    def products(self):
        return (self.Ht[:, :, None] * self.Ht[:, None, :]).reshape(self.p, -1)

    def scores(self, grams, B, guess=None):
        """Solve least squares: one gram for all rows, or one for each."""
        guess = np.ones(B.shape, dtype=bool) if guess is None else guess
        own = len(grams) > 1
        found, unsolved = self.nnls(grams, B, guess)
        for i in np.flatnonzero(unsolved):  # rounding kept the row from closing: another method for the few
            L = np.linalg.cholesky(grams[i] if own else grams[0])
            found[i] = nnls(L.T, np.linalg.solve(L, B[i]))[0]
        return found

    def scores_of_own(self, grams, B, guess=None, ridge=None):
        """Solve least squares of rows that each have a gram of their own, rows of k^2 numbers, with a ridge."""
        diagonals = grams[:, self.diagonal]
        grams[:, self.diagonal] += RIDGE * diagonals.mean(axis=1, keepdims=True) if ridge is None else ridge
        grams[~diagonals.any(axis=1)] = np.eye(self.size).ravel()  # no component has a loading there: scores are zero
        grams = grams.reshape(-1, self.size, self.size)
        if len(B) > 1:
            return self.scores(grams, B, guess)
        twice = [None if q is None else np.repeat(q, 2, axis=0) for q in (grams, B, guess)]  # one gram would be shared
        return self.scores(*twice)[:1]

    def grams_of_stored(self, batch, weights):
        """Return the sum of weight * h h' over the stored cells of each row, packed, in the dtype of the weights."""
        out = np.empty((self.size * (self.size + 1) // 2, batch.shape[0]), weights.dtype)
        loop = compiled_if_worth(csr_grams, len(weights) * self.size**2)
        loop(weights, batch.indices, batch.indptr, self.Ht.astype(weights.dtype, copy=False), out)
        return out

    def shares(self, batch):
        """Return which share of its cells is observed in every row."""
        return observed_shares(batch, self.missing or Missing(self.p))[0]


class _LeastSquaresOfRows(_OfRows):
    """Least squares: rows without missing cells share a gram."""

    def __init__(self, *args):
        super().__init__(*args)
        self.gram = gram(self.H)
        self.gram.flat[self.diagonal] += RIDGE * self.gram.diagonal().mean() + self.l2

    def solve(self, batch):
        """Return the scores of a batch of rows."""
        if sparse.issparse(batch):  # row by row: no row can feel another
            B, complete = batch.astype(np.float64, copy=False) @ self.Ht, None
            if self.unstored:
                complete = np.zeros(len(B), dtype=bool)
            elif self.missing is not None:
                complete = np.isfinite(B).all(axis=1)
        else:
            B = self.by_tiles(batch, self.Ht)
            complete = None if np.isfinite(B.sum()) else ~np.isnan(batch).any(axis=1)
        if self.l1.any():
            B -= self.l1
        if complete is None or complete.all():
            return self.scores(self.gram[None], B)
        found = np.empty_like(B)
        if complete.any():
            found[complete] = self.scores(self.gram[None], B[complete])
        found[~complete] = self.solve_incomplete(batch[~complete])
        return found

    def solve_incomplete(self, batch):
        """Solve for rows that each have a gram of their own, summed over the columns observed there."""
        found, height = np.empty((batch.shape[0], self.size)), self.height
        for start in range(0, batch.shape[0], height):
            X = take(batch, slice(start, start + height))
            observed = self.shares(X)[:, None]
            if sparse.issparse(X):
                holes = np.isnan(X.data)
                B = with_data(X, np.where(holes, 0.0, X.data)) @ self.Ht
                grams = self.grams_of_stored(X, (~holes if self.unstored else holes).astype(np.float64))
                grams = unpacked(grams, self.size).reshape(-1, self.size**2)
                if not self.unstored:  # all columns, less those missing: where little is left it is summed anew
                    whole = self.gram.ravel().copy()
                    whole[self.diagonal] -= self.l2
                    grams = whole - grams
                    little = (grams[:, self.diagonal] < LITTLE * whole[self.diagonal]).any(axis=1)
                    for i in np.flatnonzero(little):
                        stored = slice(X.indptr[i], X.indptr[i + 1])
                        H = self.H.copy()
                        H[:, X.indices[stored][holes[stored]]] = 0
                        grams[i] = gram(H).ravel()
            else:
                holes = np.isnan(X)
                B, grams = self.by_tiles(np.where(holes, 0, X), self.Ht), self.by_tiles(~holes, self.products)
            grams[:, self.diagonal] += observed * self.l2 + self.prior
            found[start : start + height] = self.scores_of_own(grams, B - observed * self.l1)
            found[start : start + height][observed[:, 0] <= 1e-12] = np.nan
        return found


class _DivergenceOfRows(_OfRows):
    """Other divergences: Newton's method, after a few multiplicative steps.

    Every step minimises the quadratic model at the scores of before exactly; scores fall to a tenth at most, unless
    they are small already. Where the loss is not convex, and in a row that takes many steps, the objective is watched:
    where it would rise the step is a multiplicative one, which cannot raise it. Where it is convex all this is done in
    single precision first, which most rows come near their end in, and Newton's steps go on in double.
    """

    MULTIPLICATIVE_STEPS, SWEPT_STEPS, UNWATCHED_STEPS, SWEEPS = 5, 15, 25, 10

    def __init__(self, *args):
        super().__init__(*args)
        self.descent = compiled_if_worth(own_grams_descent, 100 * self.work)
        self.convex = self.loss.convex

    @cached_property
    def packed(self):
        """Products of loadings, p x k (k + 1) / 2: large, and of no use for stored cells."""
        return packed_products(self.H).T

    def solve(self, X):
        """Return the scores of a batch of rows."""
        complete = not self.unstored and not np.isnan((X.data if sparse.issparse(X) else X).sum())
        observed = np.ones(X.shape[0]) if complete else self.shares(X)
        if sparse.issparse(X) and not (self.unstored or self.loss.counts):
            X = X.toarray()  # what is zero counts, too
        stored = sparse.issparse(X)
        cells = X.data if stored else X
        holes = None if complete else np.isnan(cells)
        x = (cells if complete else np.where(holes, 0.0, cells)).astype(np.float64, copy=False)
        X = with_data(X, x) if stored else x
        tops = np.asarray(X.max(axis=1).toarray()).ravel() if stored else X.max(axis=1, initial=0.0)
        # Each row in units of its own, a power of 2 near its largest cell: no power of a cell overflows or vanishes.
        e = np.where((tops > 0) & self.loss.homogeneous, np.frexp(tops)[1], 0)
        X = with_data(X, np.ldexp(x, -np.repeat(e, np.diff(X.indptr)))) if stored else np.ldexp(x, -e[:, None])
        x = X.data if stored else X
        totals = np.asarray(X.sum(axis=1)).ravel() / np.maximum(observed, 1e-3)
        W = np.repeat(totals[:, None] / self.size, self.size, axis=1)
        # Rows without anything in them, or on which no component says anything, have no scores.
        active = (totals > 0) & (observed > 1e-12)
        inverse = np.divide(1, x, out=np.zeros(x.shape), where=x > 0)
        inverse = with_data(X, inverse).max(axis=1).toarray().ravel() if stored else inverse.max(axis=1, initial=0.0)
        least = 1 / np.where(inverse > 0, inverse, 1.0)
        lowest = self.loss.least_fit(totals / self.p, least)
        W[~active] = 0.0
        with np.errstate(over="ignore", under="ignore"):
            l1, l2 = (np.minimum(np.exp2((power - self.loss.degree) * e)[:, None], 1e150) for power in (1, 2))
        l1, l2 = (
            l1 * observed[:, None] * self.l1,
            l2 * (observed[:, None] * self.l2 + (observed < 1)[:, None] * self.prior),
        )
        if self.convex:
            near = self.descend(X, holes, W, active, l1, l2, lowest, single=True)
            W = np.where(np.isfinite(near).all(axis=1, keepdims=True), near, W)
        W = self.descend(X, holes, W, active, l1, l2, lowest)
        if self.loss.spares_zeros:  # the loss of nothing is finite: a row whose scores sank has none
            W[W.sum(axis=1) <= NOTHING * totals] = 0
        else:
            self.lift(X, W, l1)
        W = np.ldexp(W, e[:, None])
        W[observed <= 1e-12] = np.nan
        return W

    def lift(self, X, W, l1):
        """Lift a score, in place, where a positive cell is fitted by nothing: the loss is infinite there.

        Such cells are next to nothing, beside the others of their row. Of the components that load there the one with
        the largest loading explains the cell; its gradient there is that of its sum, 1.
        """
        if sparse.issparse(X):
            lost = np.flatnonzero((X.data > 0) & (fitted_at_stored(X, W, self.H) <= 0))
            rows, columns, x = rows_of_stored(X, lost), X.indices[lost], X.data[lost]
        else:
            rows, columns = np.nonzero((X > 0) & (self.by_tiles(W, self.H) <= 0))
            x = X[rows, columns]
        best = self.H[:, columns].argmax(axis=0)
        there = self.H[best, columns] > 0
        rows, best, x = rows[there], best[there], x[there]
        np.maximum.at(W, (rows, best), x / (1 + l1[rows, best]))

    def descend(self, rows, gaps, W, active, l1, l2, lowest, single=False):
        """Return the scores of active rows; in ``single`` precision, scores that are near.

        A row goes on until it is done, whatever the others do.
        """
        close, steps, unwatched = CLOSE, STEPS, self.UNWATCHED_STEPS if self.convex else 0
        multiplicative = 0 if self.convex and not single else self.MULTIPLICATIVE_STEPS  # they were made in single
        if single:
            close, steps = NEAR, self.SWEPT_STEPS
            rows = with_data(rows, rows.data.astype(np.float32)) if sparse.issparse(rows) else rows.astype(np.float32)
            l1, l2 = (np.minimum(q, 1e30).astype(np.float32) for q in (l1, l2))
            lowest = np.maximum(lowest, 1e-30).astype(np.float32)
        W = W.astype(rows.dtype)
        w, at = W, np.arange(len(W))

        def go_on_with(chosen):
            nonlocal rows, gaps, w, at, l1, l2, lowest
            W[at] = w
            gaps = None if gaps is None else cells_of_rows(rows, gaps, chosen)
            rows, w, at, l1, l2, lowest = (q[chosen] for q in (rows, w, at, l1, l2, lowest))

        if not active.all():
            go_on_with(active)
        for step in range(steps if len(w) else 0):
            exact = step >= multiplicative
            gradient, positive, curvature = self.derivatives(rows, gaps, w, lowest)
            multiplied = w.copy()
            if not exact or step >= unwatched:
                multiply(multiplied, gradient, positive, l1, l2, self.loss)
            if not exact:
                w = multiplied
                continue
            slopes, diagonal = gradient + l1 + l2 * w, self.times(rows, curvature, np.square(self.Ht)) + l2
            # Else rounding is divided by next to nothing. The curvature of cells that are hardly fitted is no measure.
            top = w.max(axis=1, keepdims=True)
            usual = np.divide(positive + l1 + l2 * w, top, out=diagonal.copy(), where=top > 0)
            ridge = RIDGE * np.minimum(diagonal, usual).mean(axis=1, keepdims=True)
            diagonal += ridge
            move = np.divide(slopes + ridge * w, diagonal, out=np.zeros_like(w), where=diagonal > 0)
            active = np.abs(np.minimum(w, move)).max(axis=1) > close * w.max(axis=1)
            if not single and not active.all():  # what is done stays as it was judged
                curvature = cells_of_rows(rows, curvature, active)
                slopes, multiplied, ridge = slopes[active], multiplied[active], ridge[active]
                go_on_with(active)
                if not len(w):
                    break
            grams, uphill = self.grams(rows, curvature), slopes
            grams[diagonal_of_packed(self.size)] += (l2 + ridge).T
            least = np.where(w > 1e-3 * w.max(axis=1, keepdims=True), 0.1 * w, 0)
            if step < self.SWEPT_STEPS:
                new, slopes, floor = (q.T.copy() for q in (w, slopes, least))
                self.descent(new, slopes, grams, floor, np.ones(len(w), w.dtype), self.SWEEPS, 0.0)
                new = np.ascontiguousarray(new.T)
            else:
                A = unpacked(grams, self.size)
                B = np.einsum("mts,ms->mt", A, w) - slopes
                new = np.maximum(self.scores_of_own(A.reshape(len(w), -1), B, w > 0, ridge), least)
            if step >= unwatched:
                new = self.watched(rows, gaps, w, new, uphill, multiplied, l1, l2)
            w = new
            if single and not active.all():
                go_on_with(active)
                if not len(w):
                    break
        W[at] = w
        return W.astype(np.float64)

    def watched(self, X, gaps, W, new, slopes, multiplied, l1, l2):
        """Return new scores where the objective falls as it should, else a shorter step, at last a multiplicative one.

        Where the loss is not convex its curvature is only expected, and far off here and there: a step has to gain a
        share of what the slope promises (Armijo's rule), and is halved until it does.
        """
        before, least = self.objective(X, gaps, W, l1, l2), 0.0 if self.convex else LEAST_GAIN
        promised = (slopes * (new - W)).sum(axis=1)
        if not self.convex:  # near the minimum rounding hides what a step gains
            sizes = self.loss.size_of_cells(X.data if sparse.issparse(X) else X)
            sizes = with_data(X, sizes) @ np.ones(self.p) if sparse.issparse(X) else sizes.sum(axis=1)
            before = before + ROUNDING * (sizes + np.abs(before))
        rose = np.flatnonzero(~(self.objective(X, gaps, new, l1, l2) <= before + least * promised))
        new = new.copy()
        for _ in range(0 if self.convex else HALVINGS):
            if not len(rose):
                break
            new[rose], promised = (W[rose] + new[rose]) / 2, promised / 2
            their_gaps = None if gaps is None else cells_of_rows(X, gaps, rose)
            values = self.objective(X[rose], their_gaps, new[rose], l1[rose], l2[rose])
            rose = rose[~(values <= before[rose] + least * promised[rose])]
        new[rose] = multiplied[rose]
        return new

    def derivatives(self, X, gaps, W, lowest):
        """Return gradient and its positive part (rows x k) of every row, and the curvature of every cell."""
        H, Ht, stored = self.H.astype(W.dtype, copy=False), self.Ht.astype(W.dtype, copy=False), sparse.issparse(X)
        if stored:
            x, y, lowest = X.data, fitted_at_stored(X, W, H), np.repeat(lowest, np.diff(X.indptr))
        else:
            x, y, lowest = X, self.by_tiles(W, H), lowest[:, None]
        np.maximum(y, lowest, out=y)
        if not self.loss.counts:
            slope, positive, curvature = self.loss.slopes_of_cells(x, y)
            for part in (slope, positive, curvature):
                if gaps is not None:
                    part[gaps] = 0
            return self.times(X, slope, Ht), self.times(X, positive, Ht), curvature
        # The slope is 1 - x / y: the ones are summed apart, also those of zeros that are not stored. Missing cells are
        # zeros here; rows that have some get sums of their own.
        sums = np.broadcast_to(H.sum(axis=1), W.shape)
        if self.unstored:
            sums = self.times(X, (~gaps).astype(x.dtype), Ht)
        elif gaps is not None and stored:
            sums = sums - self.times(X, gaps.astype(x.dtype), Ht)
        elif gaps is not None:
            sums, holed = sums.copy(), gaps.any(axis=1)
            sums[holed] = self.by_tiles(~gaps[holed], Ht)
        ratio = x / y
        return sums - self.times(X, ratio, Ht), sums, ratio / y

    def times(self, X, cells, right):
        """Multiply numbers in the place of the cells of X."""
        right = right.astype(cells.dtype, copy=False)
        return with_data(X, cells) @ right if sparse.issparse(X) else self.by_tiles(cells, right)

    def grams(self, X, curvature):
        """Return the Hessian of every row, packed, from the curvature of its cells."""
        if sparse.issparse(X):
            return self.grams_of_stored(X, curvature)
        return self.by_tiles(curvature, self.packed.astype(curvature.dtype, copy=False)).T

    def objective(self, X, gaps, W, l1, l2):
        """Return the objective of every row."""
        y = fitted_at_stored(X, W, self.H) if sparse.issparse(X) else self.by_tiles(W, self.H)
        cells = self.loss.of_cells(X.data if sparse.issparse(X) else X, y)
        if gaps is not None:
            cells[gaps] = 0
        cost = (l1 * W + l2 / 2 * W**2).sum(axis=1)
        if not sparse.issparse(X):
            return cells.sum(axis=1) + cost
        if not self.unstored:
            cost = cost + (W * self.H.sum(axis=1)).sum(axis=1) - with_data(X, y) @ np.ones(X.shape[1])
        return with_data(X, cells) @ np.ones(X.shape[1]) + cost


def cells_of_rows(X, cells, chosen):
    """Return numbers in the place of the cells of X for chosen rows of it."""
    return with_data(X, cells)[chosen].data if sparse.issparse(X) else cells[chosen]


def tile_rows(p):
    """Rows of a tile, a function of the number of columns alone."""
    return max(32, min(256, (1 << 20) // max(p, 1)))


def linear_scores(X, H):
    """Return X H', what recipes' ``bake()`` computes from the loadings."""
    return product(X, H.T.astype(X.dtype))
