"""The one loop: down from given loadings to stationary ones.

    for each block of rows X_b:                 # X is read once per pass
        W_b   <- improve W_b given H            # rows independent
        stats += (W_b' W_b, W_b' X_b)
    H <- improve H given stats                  # touches no data
    objective, KKT residual of H <- from stats  # free

The loadings are extrapolated (Nesterov) and the extrapolation restarts where the objective would rise. The scores that
are returned are exact (projection.py), not the loop's own.

References: A. Cichocki and A.-H. Phan (2009), HALS; A. M. S. Ang and N. Gillis (2019), Accelerating nonnegative
matrix factorization algorithms using extrapolation.
"""

import numpy as np
from scipy import sparse

from .blocks import Block, filled, loadings_times, positive_residual, row_blocks, scores_times, take
from .missing import column_means, observed_shares
from .penalties import balance
from .products import inner, product
from .projection import scores_of_used
from .solvers import total

SWEEPS, CAREFUL_SWEEPS = 10, 50  # most sweeps over the scores per product with X, and at the start and the end
MORE_ROUNDS = 5  # of passes after exact scores, where these may always differ from those of the passes
GOOD_PASSES = 2  # over the scores alone, from loadings that are near a minimum
NOTHING = 1e-14  # a component that explains less of the sum of X has sunk to zero
KEPT_CELLS = 1 << 21  # of tables that are rounded once, and not block by block in every pass


class Descent:
    """The loop, on one set of rows: down from given loadings to stationary ones. See the top of this file.

    Passes start in precision ``dtype`` and go on in that of X where this one's rounding would tell; the end is always
    judged there. The fall of the objective is judged over ``window`` passes; ``each`` maps over the blocks of rows;
    ``watch``, if there is one, is called before each pass. It leaves ``H``, ``Wt`` (scores of each block, k x rows),
    ``objective``, ``history``, ``n_iter`` and ``converged``.
    """

    def __init__(self, X, dtype, weights, *, missing, loss, k, strengths, unit, make_solver, tol, window, each, watch):
        self.X, self.weights, self.missing, self.loss = X, weights, missing, loss
        self.k, self.strengths, self.unit = k, strengths, unit
        self.solver, self.tol, self.window, self.each, self.watch = make_solver(), tol, window, each, watch
        self.penalised = any(strengths)
        self.rows = row_blocks(X, k, self.solver.per_row(k))
        self.filled = X
        self.observed = None  # the share of each column's cells that is, None for all
        weights_of = [None if weights is None else weights[r] for r in self.rows]
        if missing is None:
            self.blocks = [Block(take(X, r), v) for r, v in zip(self.rows, weights_of, strict=True)]
        else:
            by_row, self.observed = observed_shares(X, missing, weights)
            self.filled, holes = filled(X, missing, weights)
            self.blocks = [
                Block(take(self.filled, r), v, holes[cells_of(X, r)] if holes.any() else None, by_row[r])
                for r, v in zip(self.rows, weights_of, strict=True)
            ]
        self.size = sum(self.solver.size(block) for block in self.blocks)
        amounts = np.asarray(self.filled.sum(axis=0, dtype=np.float64)).ravel()
        self.total, self.used = float(amounts.sum()), amounts > 0  # no columns of zeros, or nowhere observed
        self.rough = dtype
        self._begin()

    def restart(self):
        """Forget all scores, what was filled in, and what was met."""
        if self.missing is not None:
            means = column_means(self.X, self.weights, self.missing)
            for block in self.blocks:
                block.fill_with(means)
        return self._begin()

    def _begin(self):
        self.Wt = self.before = None  # memory is given back before there is new
        memory = np.zeros(self.X.shape[0] * self.k, self.rough)  # in one piece, so that it is given back in one
        self.Wt = [memory[r.start * self.k : r.stop * self.k].reshape(self.k, -1) for r in self.rows]
        fills = self.missing is not None and self.solver.sums_squares
        self.before = [Wt_block.copy() if fills else None for Wt_block in self.Wt]  # scores of the pass before
        self.objective, self.history, self.n_iter, self.converged = np.inf, [], 0, False
        self.first = 0  # entry of the history that was found in the precision of now
        self._set_precision(self.rough)
        self.solver.attach(self)
        self._lift()
        return self

    @property
    def value(self):
        """The objective after the last accepted pass."""
        return self.history[-1] if self.history else np.inf

    def run(self, H, max_iter, good=False):
        """Go on from loadings H, and the scores ``Wt``, until nothing is gained or ``max_iter`` passes are made.

        ``good`` loadings wait until their scores are found, too.
        """
        if self.solver.positive or (self.solver.lifts and not self.history):
            H = np.maximum(H, 1e-6 * H.max(initial=0.0))
        if self.solver.sums_squares:  # a component without scores would keep what its start gave to columns of zeros
            H = np.where(self.used, H, 0.0)
        self.H, self.converged = H, False
        momentum, share, sweeps, rejected = 1.0, 0.0, SWEEPS, 0
        self.solver.accepted()
        for _ in range(GOOD_PASSES if good else 0):
            self._pass(self.H, 4 * CAREFUL_SWEEPS, 1e-3)
        careful = True  # from poor scores the first loadings would be poor, and a good start spoilt
        while self.n_iter < max_iter and not self.converged:
            if self.watch:
                self.watch()
            self.n_iter += 1
            stats = self._pass(H, max(sweeps, CAREFUL_SWEEPS) if careful else sweeps, 0.01 if careful else 0.2, share)
            H_new = self.solver.improve_components(H, stats, self.strengths, self.observed)
            value = self._evaluate(H_new, stats)
            rose = not value <= self.objective + 4 * self.rounding  # or is not a number
            if rose and not self.solver.descends:
                H, rejected = H_new, rejected + 1  # go on, but keep the best
                if rejected > 5 or not np.isfinite(value):
                    break
                continue
            if rose:  # extrapolated too far, or too few sweeps
                H, momentum, share, rejected = self.H, 1.0, 0.0, rejected + 1
                self.solver.rejected(rejected)
                if rejected > 1 and self._sharpen():
                    self.objective, rejected = np.inf, 0
                elif rejected > 1:
                    sweeps, careful = min(2 * sweeps, 1000), True
                # as far as the precision goes
                self.converged = rejected > 5 and value <= self.objective + 100 * self.rounding
                continue
            rejected = 0
            judged, residual = len(self.history) - self.first >= self.window, np.inf
            if careful and judged:
                residual = self.solver.residual(H, stats, self.strengths, self.observed)
            if self.penalised or careful:
                H_new, value = self._balance(H_new, stats, value)
            self.solver.accepted()
            value = min(value, self.objective)
            self.history.append(value)
            settled = value <= self.rounding
            if judged:
                settled |= self.history[-1 - self.window] - value <= self.window * self.tol * value
            # The loop's scores are rough: what looks like the end is looked at again with better ones.
            self.converged = bool(settled and careful and (value <= self.rounding or residual <= np.sqrt(self.tol)))
            careful = settled
            if settled and self.window * self.tol * value < self.rounding and self._sharpen():
                value, self.converged = np.inf, False
            next_momentum = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
            H = H_new
            if self.solver.extrapolates:
                share = float((momentum - 1) / next_momentum)
                H = np.maximum(H_new + share * (H_new - self.H), self.solver.floor * H_new)
            self.H, self.objective, momentum = H_new, value, next_momentum
        self.stuck = rejected > 0
        return self

    def settle(self, max_iter, n_jobs):
        """Judge the end by exact scores, revive components that died, go on where there is more to gain.

        Return the exact scores for loadings divided by their sums, and these sums.
        """
        revivals, rounds = np.zeros(self.k, dtype=int), 0
        while True:
            if self.solver.positive or not self.solver.sums_squares:
                self._clear()
            self.Wt = None
            U, sums, self.H = scores_of_used(self.X, self.H, self.strengths, n_jobs, self.missing, self.loss)
            rounded = self._sharpen()
            if not self.solver.sums_squares:  # such solvers look at all scores; a copy of them all is large
                self.Wt = [self._transposed(U, sums, r) for r in self.rows]
            stats = self._statistics(U, sums)
            value = self._evaluate(self.H, stats)
            gain = self.objective - value
            # Exact scores of a row may be worse than those met on the way, where its problem is not convex.
            self.objective = min(self.objective, value) if self.solver.convex and not rounded else value
            self.history[-1:] = [self.objective]
            self.kkt_residual = self.solver.residual(self.H, stats, self.strengths, self.observed)
            if not self.solver.descends and self.stuck:  # it rose: was it at the bottom, or is the method no good here?
                self.converged = self.kkt_residual <= np.sqrt(self.tol)
            if not self.converged or self.objective <= self.rounding:
                return U, sums
            more = not self.stuck and (
                gain > self.window * self.tol * self.objective + self.rounding
                or (self.kkt_residual > np.sqrt(self.tol) and (self.solver.convex or rounds < MORE_ROUNDS))
            )
            rounds += 1
            dead = ~(self.H.any(axis=1) & (stats.W_sums > 0)) & (revivals < 2)
            if not (more or dead.any()):
                return U, sums
            if self.solver.sums_squares:
                self.Wt = [self._transposed(U, sums, r) for r in self.rows]
            self._lift()
            if not (more or self._revive(dead, revivals)):
                return U, sums
            self.converged = False
            if self.n_iter < max_iter:
                self.run(self.H, max_iter)

    def _clear(self):
        """Make zero what solvers that only come near it leave, of columns of zeros and of components that sank."""
        self.H = np.where(self.used, self.H, 0)
        if not self.loss.takes_zeros:  # there cells count by their ratios, however small they are
            return
        amounts = sum(Wt_block.sum(axis=1, dtype=np.float64) for Wt_block in self.Wt) * self.H.sum(axis=1)
        for t in np.argsort(amounts, kind="stable"):
            rest = self.H * (np.arange(self.k) != t)[:, None]
            sunk = amounts[t] <= NOTHING * max(amounts.max(), self.total)
            # Where the loss is infinite at zero, something has to be left of every column.
            if sunk and (self.loss.spares_zeros or (rest.any(axis=0) == self.H.any(axis=0)).all()):
                self.H = rest

    def _set_precision(self, dtype):
        self.dtype = dtype
        self.at_hand = self.blocks  # small tables are rounded once, others block by block, when they are read
        if (self.X.nnz if sparse.issparse(self.X) else self.X.size) <= KEPT_CELLS:
            self.at_hand = [block.rounded(dtype) for block in self.blocks]
        # The objective comes from sums whose rounding is a share of their terms: below that nothing can be told. In
        # single precision the errors of the blocks, which are summed in double, are seen, and average out.
        accuracy = 1e-14 if dtype == np.float64 else float(np.finfo(dtype).eps) / np.sqrt(len(self.blocks))
        self.rounding = accuracy * self.size

    def _sharpen(self):
        """Go on in the precision of X; return whether that is a change."""
        if self.dtype == self.X.dtype:
            return False
        self._set_precision(self.X.dtype)
        self.first = len(self.history)
        self.Wt = [Wt_block.astype(self.dtype) for Wt_block in self.Wt or []]
        return True

    def _lift(self):
        """Lift zeros among the scores, for a solver that could not."""
        if self.solver.positive:
            least = 1e-6 * max(Wt_block.max(initial=0.0) for Wt_block in self.Wt) or self.solver.blank
            for Wt_block in self.Wt:
                np.maximum(Wt_block, least, out=Wt_block)

    def _pass(self, H, sweeps, enough, share=0.0):
        """Improve the scores, and return what the loadings need to know: one read of X.

        Missing cells are filled with the loadings, and with scores extrapolated by ``share``, too.
        """
        context = self.solver.context(H, self.strengths)

        def improve(block, Wt_block, before):
            if before is not None:
                ahead = np.maximum(Wt_block + share * (Wt_block - before), 0) if share else Wt_block
                block.fill(ahead, H)
                before[:] = Wt_block
            return self.solver.improve_scores(block, Wt_block, H, context, self.strengths, sweeps, enough)

        return total(self.of_blocks(improve, self.before))

    def of_blocks(self, function, *more):
        """Map a function of a block, its scores and ``more`` over the blocks, in the precision of the passes."""
        return self.each(
            lambda block, *others: function(block.rounded(self.dtype), *others), self.at_hand, self.Wt, *more
        )

    def _statistics(self, U, sums):
        """Return what the loadings need to know, for exact scores."""

        def of_block(block, r):
            return self.solver.statistics(block.rounded(self.dtype), self._transposed(U, sums, r), self.H)

        return total(self.each(of_block, self.at_hand, self.rows))

    def _evaluate(self, H, stats):
        return self.solver.loss(H, stats) + self._penalty(H, stats.W_sums, stats.W_squares)

    def _penalty(self, H, W_sums, W_squares):
        if not self.penalised:
            return 0.0
        scores = self.strengths.l1_W * W_sums.sum() + self.strengths.l2_W / 2 * W_squares.sum()
        return float(scores) + self.strengths.cost(np.zeros(0), H, columns=self.observed)

    def _balance(self, H, stats, value):
        """Share the scale between scores and loadings; return the loadings and the objective there."""
        c = balance(stats.W_sums, stats.W_squares, H, self.unit, self.observed)
        for Wt_block in self.Wt + [before for before in self.before if before is not None]:
            Wt_block *= c[:, None].astype(self.dtype)
        before = self._penalty(H, stats.W_sums, stats.W_squares)
        H, self.H = H / c[:, None], self.H / c[:, None]
        return H, value - before + self._penalty(H, stats.W_sums * c, stats.W_squares * c**2)

    def _transposed(self, U, sums, r):
        return np.ascontiguousarray((U[r] / sums.astype(self.X.dtype)).T)

    def _revive(self, dead, revivals):
        """Put a rank-one piece of the residual in place of the first dead component that it pays for."""
        v = np.ones(self.X.shape[0]) if self.weights is None else self.weights
        blocks = [block.X for block in self.blocks]
        for t in np.flatnonzero(dead):
            revivals[t] += 1
            if not self.solver.sums_squares:
                if self._try(t):
                    return True
                continue
            pair = _rank_one(blocks, self.Wt, v, self.H, self.strengths, self.unit, self.objective)
            if pair is not None:
                for r, Wt_block in zip(self.rows, self.Wt, strict=True):
                    Wt_block[t] = pair[0][r]
                self.H[t] = pair[1]
                return True
        return False

    def _try(self, t):
        """Make a pass with the residual of the worst row as loadings of a component; keep it if it pays."""
        worst, best = -1.0, None
        for block, Wt in zip(self.blocks, self.Wt, strict=True):
            R = positive_residual(block.X, Wt, self.H)
            sums = np.asarray(R.sum(axis=1)).ravel()
            i = int(sums.argmax())
            if sums[i] > worst:
                worst, best = sums[i], R[[i]].toarray()[0] if sparse.issparse(R) else R[i]
        if not best.any():
            return False
        H, kept = self.H.copy(), [Wt.copy() for Wt in self.Wt]
        H[t] = best
        for _ in range(3):
            stats = self._pass(H, CAREFUL_SWEEPS, 0.01)
            H = self.solver.improve_components(H, stats, self.strengths, self.observed)
        if self._evaluate(H, stats) < self.objective - self.rounding:
            self.H = H
            return True
        self.Wt = kept
        return False


def cells_of(X, rows):
    """Return where the rows of a slice have their cells: in X, or among the stored cells of sparse X."""
    return slice(X.indptr[rows.start], X.indptr[rows.stop]) if sparse.issparse(X) else rows


def _rank_one(blocks, Wt, v, H, strengths, unit, value):
    """Best non-negative rank-one piece of the residual, or None if it would not lower the penalised objective.

    With a penalty w = h = 0 is a strict local minimum, so only such a finite step can revive a component.
    """
    ends = np.cumsum([block.shape[0] for block in blocks])[:-1]

    def times(h):  # residual times h
        parts = zip(blocks, Wt, strict=True)
        return np.concatenate(
            [loadings_times(h[None], X)[0] - product(product(H, h), V) for X, V in parts], dtype=np.float64
        )

    def back_times(w):  # w times residual
        parts = zip(np.split(w, ends), blocks, Wt, strict=True)
        return sum(scores_times(u[None], X)[0] - product(product(V, u), H) for u, X, V in parts)

    worst, missing = (-1.0, None), 0.0
    for X, V, v_block in zip(blocks, Wt, np.split(v, ends), strict=True):
        R = positive_residual(X, V, H)
        norms = v_block * np.asarray((R * R).sum(axis=1)).ravel()
        i = int(norms.argmax())
        if norms[i] > worst[0]:
            row = R[[i]].toarray()[0] if sparse.issparse(R) else R[i]
            worst = norms[i], row.astype(np.float64)
        missing = missing + np.ravel(product(v_block, R)).astype(np.float64)
    best, best_change = None, -1e-12 * value
    for h in (worst[1], missing):  # two starts: the worst row, and the direction of all that is missing
        for iteration in range(60):
            penalised = iteration >= 30  # first the direction, then its size
            if not h.any():
                break
            w = np.maximum(times(h) - penalised * strengths.l1_W, 0) / (inner(h, h) + penalised * strengths.l2_W)
            if not w.any():
                break
            ww = product(v, w * w)
            h = np.maximum(back_times(v * w) - penalised * strengths.l1_H, 0) / (ww + penalised * strengths.l2_H)
            c = balance(product(v, w)[None], ww[None], h[None], unit)[0]
            w, h = w * c, h / c
        else:
            change = 0.5 * inner(v, w * w) * inner(h, h) - inner(v * w, times(h))
            change += strengths.cost(w[:, None], h[None], v)
            if h.any() and change < best_change:
                best, best_change = (w, h), change
    return best
