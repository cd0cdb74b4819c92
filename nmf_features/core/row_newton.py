"""The problem of every row, given the loadings, for losses other than least squares: Newton's method.

    minimise over w >= 0:   sum_j d(x_j, (w H)_j) + sum_t l1_t w_t + 1/2 sum_t l2_t w_t^2

A row goes on until it is done, whatever the others of its batch do.
"""

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

from .batches import batch_of
from .compiling import compiled_if_worth
from .kernels import own_grams_descent, packed_products, scores_of_counts, unpacked
from .newton import diagonal_of_packed, multiply
from .row_problems import RIDGE, RowProblems

# A row is done when no score is to change by more than CLOSE, relative to the largest; in single precision, NEAR.
NEAR, CLOSE = 1e-4, 1e-11
LEAST_GAIN, HALVINGS, ROUNDING = 0.25, 5, 1e-14  # of a step where the loss is not convex
NOTHING = 1e-14  # a row of which scores explain less has none


@dataclass
class Going:
    """Rows that are not done: their cells, which of these are missing (None: none), scores, and what belongs to them.

    ``lowest`` is the least fit of a cell; ``at`` says which rows of the batch these are.
    """

    batch: object
    holes: np.ndarray | None
    W: np.ndarray
    l1: np.ndarray
    l2: np.ndarray
    lowest: np.ndarray
    at: np.ndarray

    def chosen(self, rows):
        """Return some of the rows."""
        others = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name not in ("batch", "holes")}
        holes = None if self.holes is None else self.batch.of_chosen(self.holes, rows)
        return Going(self.batch.chosen(rows), holes, **others)

    def single(self):
        """Return them in single precision, where penalties and fits have to stay in its range."""
        l1, l2 = (np.minimum(q, 1e30).astype(np.float32) for q in (self.l1, self.l2))
        return replace(
            self,
            batch=self.batch.with_cells(self.batch.cells.astype(np.float32)),
            W=self.W.astype(np.float32),
            l1=l1,
            l2=l2,
            lowest=np.maximum(self.lowest, 1e-30).astype(np.float32),
        )


class OtherLosses(RowProblems):
    """Other divergences: Newton's method, after a few multiplicative steps.

    Every step minimises the quadratic model at the scores of before exactly; scores fall to a tenth at most, unless
    they are small already. Where the loss is not convex, and in a row that takes many steps, the objective is watched:
    where it would rise the step is a multiplicative one, which cannot raise it. Where it is convex all this is done in
    single precision first, which most rows come near their end in, and Newton's steps go on in double.
    """

    MULTIPLICATIVE_STEPS, SWEPT_STEPS, UNWATCHED_STEPS, SWEEPS = 5, 15, 25, 10
    COUNT_STEPS = (5, 7), (0, 5), (0, 20)

    def __init__(self, *args):
        super().__init__(*args)
        self.descent = compiled_if_worth(own_grams_descent, 100 * self.work)
        self.of_counts = compiled_if_worth(scores_of_counts, 10 * self.p * self.work)
        self.convex = self.loss.convex

    @cached_property
    def packed(self):
        """Products of loadings, p x k (k + 1) / 2: large, and of no use for stored cells."""
        return packed_products(self.H).T

    def solve(self, X):
        """Return the scores of a batch of rows."""
        batch = batch_of(X)
        complete = not self.unstored and not np.isnan(batch.cells.sum())
        observed = np.ones(X.shape[0]) if complete else self.shares(X)
        if not (self.unstored or self.loss.counts):
            batch = batch.dense()  # what is zero counts, too
        cells = batch.cells
        holes = None if complete else np.isnan(cells)
        x = (cells if complete else np.where(holes, 0.0, cells)).astype(np.float64, copy=False)
        tops = batch.tops(x)
        # Each row in units of its own, a power of 2 near its largest cell: no power of a cell overflows or vanishes.
        e = np.where((tops > 0) & self.loss.homogeneous, np.frexp(tops)[1], 0)
        x = np.ldexp(x, -batch.of_rows(e))
        batch = batch.with_cells(x)
        totals = batch.sums(x) / np.maximum(observed, 1e-3)
        W = np.repeat(totals[:, None] / self.size, self.size, axis=1)
        # Rows without anything in them, or on which no component says anything, have no scores.
        active = (totals > 0) & (observed > 1e-12)
        inverse = batch.tops(np.divide(1, x, out=np.zeros(x.shape), where=x > 0))
        least = 1 / np.where(inverse > 0, inverse, 1.0)
        lowest = self.loss.least_fit(totals / self.p, least)
        W[~active] = 0.0
        with np.errstate(over="ignore", under="ignore"):
            l1, l2 = (np.minimum(np.exp2((power - self.loss.degree) * e)[:, None], 1e150) for power in (1, 2))
        l1 = l1 * observed[:, None] * self.l1
        l2 = l2 * (observed[:, None] * self.l2 + (observed < 1)[:, None] * self.prior)
        if self.loss.counts and not (self.unstored or batch.is_sparse):
            whole = active if complete else active & ~holes.any(axis=1)
            active &= ~self.solve_counts(x, lowest, l1, l2, W, whole)
        if active.any():
            rows = Going(batch, holes, W, l1, l2, lowest, np.arange(len(W)))
            if self.convex:
                near = self.descend(rows.single(), active, single=True)
                usable = active & np.isfinite(near).all(axis=1)
                rows.W = np.where(usable[:, None], near, W)
            W = self.descend(rows, active)
        if self.loss.spares_zeros and self.loss.homogeneous:  # nothing has a finite loss: scores that sank are zero
            W[W.sum(axis=1) <= NOTHING * totals] = 0
        elif not self.loss.spares_zeros:
            self.lift(batch, W, l1)
        W = np.ldexp(W, e[:, None])
        W[observed <= 1e-12] = np.nan
        return W

    def solve_counts(self, x, lowest, l1, l2, W, active):
        """Find scores for Kullback-Leibler of active rows, without missing cells; return which are done."""
        done, at = np.zeros(len(W), dtype=bool), np.flatnonzero(active)
        for steps in self.COUNT_STEPS:
            if not len(at):
                break
            some, going = W[at], np.ones(len(at), dtype=bool)
            self.of_counts(x[at], self.H, self.packed.T, lowest[at], l1[at], l2[at], some, going, RIDGE, steps, CLOSE)
            usable = np.isfinite(some).all(axis=1)
            W[at[usable]], done[at], at = some[usable], ~going, at[going]  # few rows take long: the others are done
        return done

    def lift(self, batch, W, l1):
        """Lift a score, in place, where a positive cell is fitted by nothing: the loss is infinite there.

        Such cells are next to nothing, beside the others of their row. Of the components that load there the one with
        the largest loading explains the cell; its gradient there is that of its sum, 1.
        """
        rows, columns, x = batch.places((batch.cells > 0) & (batch.fitted(W, self.H) <= 0))
        best = self.H[:, columns].argmax(axis=0)
        there = self.H[best, columns] > 0
        rows, best, x = rows[there], best[there], x[there]
        np.maximum.at(W, (rows, best), x / (1 + l1[rows, best]))

    def descend(self, rows, active, single=False):
        """Return the scores of active rows; in ``single`` precision, scores that are near."""
        close, steps = (NEAR, self.SWEPT_STEPS) if single else (CLOSE, self.loss.steps)
        unwatched = self.UNWATCHED_STEPS if self.convex else 0
        multiplicative = 0 if self.convex and not single else self.MULTIPLICATIVE_STEPS  # they were made in single
        W, rows = rows.W.copy(), rows if active.all() else rows.chosen(active)
        for step in range(steps if len(rows.W) else 0):
            gradient, positive, curvature = self.derivatives(rows)
            w, l1, l2 = rows.W, rows.l1, rows.l2
            multiplied = w.copy()
            if step < multiplicative or step >= unwatched:
                multiply(multiplied, gradient, positive, l1, l2, self.loss)
            if step < multiplicative:
                rows.W = multiplied
                continue
            slopes, diagonal = gradient + l1 + l2 * w, rows.batch.times(curvature, np.square(self.Ht)) + l2
            # Else rounding is divided by next to nothing. The curvature of cells that are hardly fitted is no measure.
            top = w.max(axis=1, keepdims=True)
            usual = np.divide(positive + l1 + l2 * w, top, out=diagonal.copy(), where=top > 0)
            ridge = RIDGE * np.minimum(diagonal, usual).mean(axis=1, keepdims=True)
            diagonal += ridge
            move = np.divide(slopes + ridge * w, diagonal, out=np.zeros_like(w), where=diagonal > 0)
            active = np.abs(np.minimum(w, move)).max(axis=1) > close * w.max(axis=1)
            if not single and not active.all():  # what is done stays as it was judged
                W[rows.at] = w
                curvature = rows.batch.of_chosen(curvature, active)
                slopes, multiplied, ridge = slopes[active], multiplied[active], ridge[active]
                rows = rows.chosen(active)
                if not len(rows.W):
                    break
            new = self.step(rows, slopes, curvature, ridge, swept=step < self.SWEPT_STEPS)
            rows.W = self.watched(rows, new, slopes, multiplied) if step >= unwatched else new
            if single and not active.all():
                W[rows.at] = rows.W
                rows = rows.chosen(active)
                if not len(rows.W):
                    break
        W[rows.at] = rows.W
        return W.astype(np.float64)

    def step(self, rows, slopes, curvature, ridge, swept):
        """Return the scores that minimise the quadratic model: nearly, by sweeps, or exactly."""
        w, grams = rows.W, rows.batch.grams(curvature, self.Ht, lambda: self.packed)
        grams[diagonal_of_packed(self.size)] += (rows.l2 + ridge).T
        least, new = np.where(w > 1e-3 * w.max(axis=1, keepdims=True), 0.1 * w, 0), np.full_like(w, np.nan)
        if not swept:
            A = unpacked(grams, self.size)
            B = np.einsum("mts,ms->mt", A, w) - slopes
            with np.errstate(invalid="ignore"):
                new = np.maximum(self.scores_of_own(A.reshape(len(w), -1), B, w > 0, ridge), least)
        left = ~np.isfinite(new).all(axis=1)  # rounding made a matrix indefinite, or all are swept
        if left.any():
            F, slopes, floor = (q[left].T.copy() for q in (w, slopes, least))
            grams, ones = np.ascontiguousarray(grams[:, left]), np.ones(F.shape[1], F.dtype)
            self.descent(F, slopes, grams, floor, ones, self.SWEEPS, 0.0)
            new[left] = F.T
        return new

    def watched(self, rows, new, slopes, multiplied):
        """Return new scores where the objective falls as it should, else a shorter step, at last a multiplicative one.

        Where the loss is not convex its curvature is only expected, and far off here and there: a step has to gain a
        share of what the slope promises (Armijo's rule), and is halved until it does.
        """
        before, least, W = self.objective(rows, rows.W), 0.0 if self.convex else LEAST_GAIN, rows.W
        promised = (slopes * (new - W)).sum(axis=1)
        if not self.convex:  # near the minimum rounding hides what a step gains
            sizes = rows.batch.sums(self.loss.size_of_cells(rows.batch.cells))
            before = before + ROUNDING * (sizes + np.abs(before))
        rose = np.flatnonzero(~(self.objective(rows, new) <= before + least * promised))
        new = new.copy()
        for _ in range(0 if self.convex else HALVINGS):
            if not len(rose):
                break
            new[rose], promised = (W[rose] + new[rose]) / 2, promised / 2
            values = self.objective(rows.chosen(rose), new[rose])
            rose = rose[~(values <= before[rose] + least * promised[rose])]
        new[rose] = multiplied[rose]
        return new

    def derivatives(self, rows):
        """Return gradient and its positive part (rows x k) of every row, and the curvature of every cell."""
        batch, holes, W = rows.batch, rows.holes, rows.W
        H, Ht = self.H.astype(W.dtype, copy=False), self.Ht.astype(W.dtype, copy=False)
        x, y = batch.cells, batch.fitted(W, H)
        np.maximum(y, batch.of_rows(rows.lowest), out=y)
        if not self.loss.counts:
            slope, positive, curvature = self.loss.slopes_of_cells(x, y)
            for part in (slope, positive, curvature):
                if holes is not None:
                    part[holes] = 0
            return batch.times(slope, Ht), batch.times(positive, Ht), curvature
        # The slope is 1 - x / y: the ones are summed apart, also those of zeros that are not stored. Missing cells are
        # zeros here; rows that have some get sums of their own.
        sums = np.broadcast_to(H.sum(axis=1), W.shape)
        if self.unstored:
            sums = batch.times((~holes).astype(x.dtype), Ht)
        elif holes is not None and batch.is_sparse:
            sums = sums - batch.times(holes.astype(x.dtype), Ht)
        elif holes is not None:
            sums, holed = sums.copy(), holes.any(axis=1)
            sums[holed] = batch.times((~holes[holed]).astype(x.dtype), Ht)
        ratio = x / y
        return sums - batch.times(ratio, Ht), sums, ratio / y

    def objective(self, rows, W):
        """Return the objective of every row, for scores W."""
        batch, y = rows.batch, rows.batch.fitted(W, self.H)
        cells = self.loss.of_cells(batch.cells, y)
        if rows.holes is not None:
            cells[rows.holes] = 0
        cost = (rows.l1 * W + rows.l2 / 2 * W**2).sum(axis=1)
        if batch.is_sparse and not self.unstored:  # zeros that are not stored cost their fit
            cost = cost + (W * self.H.sum(axis=1)).sum(axis=1) - batch.sums(y)
        return batch.sums(cells) + cost
