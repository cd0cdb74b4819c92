"""The one loop: it descends from given loadings to stationary ones.

    for each block of rows X_b:                 # X is read once per pass
        W_b   <- improve W_b given H            # rows independent
        stats += (W_b' W_b, W_b' X_b)
    H <- improve H given stats                  # touches no data
    objective, KKT residual of H <- from stats  # free

The loadings are extrapolated (Nesterov momentum), and the momentum restarts where the objective would rise. The scores
that are returned are exact (projection.py), not those of the loop.

References: A. Cichocki and A.-H. Phan (2009), HALS; A. M. S. Ang and N. Gillis (2019), Accelerating nonnegative
matrix factorization algorithms using extrapolation.
"""

from functools import partial

import numpy as np

from .penalties import Strengths, balance
from .products import inner, product
from .watch import ALL_ROWS, COLUMNS, SAMPLE, Watch

SWEEPS, CAREFUL_SWEEPS = 10, 50  # most sweeps over the scores per product with X: usually, and at the start and the end
MORE_ROUNDS = 5  # most rounds of passes after exact scores, where these may always differ from the loop's
MOST_ROUNDING = 1e-3  # share of the objective that may be rounding at the start
GOOD_PASSES = 2  # passes that improve the scores alone, from loadings near a minimum
NO_PENALTY = Strengths(0.0, 0.0, 0.0, 0.0)
NOTHING = 1e-14  # a component that explains a smaller share of the sum of X counts as zero


class Descent:
    """The loop on one table, from given loadings to stationary ones; see the top of this file.

    Passes start in precision ``dtype``. Once its rounding would matter they continue in the precision of the table, in
    which convergence is always judged. The fall of the objective is judged over ``window`` passes. ``watch``, a Watch
    or None, is told of each pass, and may end the passes. The results are ``H``, ``objective``, ``history``, ``n_iter``
    and ``converged``; the scores are in the table.
    """

    def __init__(self, table, dtype, *, loss, strengths, unit, solver, tol, window, watch):
        self.table, self.loss, self.strengths, self.unit = table, loss, strengths, unit
        self.solver, self.tol, self.window, self.watch = solver, tol, window, watch or Watch()
        self.penalised, self.k = any(strengths), table.k
        summary = table.summary(least=not solver.sums_squares)
        self.total = float(summary.column_sums.sum())
        self.used = summary.column_sums > 0  # not columns of zeros, nor those without observed cells
        if not solver.sums_squares:
            solver.prepare(summary)
        self.size = sum(table.map(_size, solver))
        self.constant = 0.0 if solver.sums_squares else sum(table.map(solver.constant))
        self.by_columns = solver.per_stored
        self.rough, self.support = dtype, None
        self.restart()

    def restart(self):
        """Reset all scores, imputed cells and results."""
        self.table.start(self.rough, remembers=self.table.missing is not None and self.solver.sums_squares)
        self.objective, self.history, self.n_iter, self.converged = np.inf, [], 0, False
        self.first = 0  # first entry of the history in the current precision
        self.untold = None  # loadings and statistics of the last pass, until the watch is told of it
        self._set_precision(self.rough)
        self._lift()
        return self

    @property
    def value(self):
        """The objective after the last accepted pass."""
        return self.history[-1] if self.history else np.inf

    def run(self, H, max_iter, good=False):
        """Make passes from loadings H and the table's scores until nothing is gained, or ``max_iter`` are made.

        None are made if the fit was asked to stop. If H is ``good`` (near a minimum), its scores are found first,
        before it is changed.
        """
        if self.solver.positive or (self.solver.lifts and not self.history):
            H = np.maximum(H, 1e-6 * H.max(initial=0.0))
        if self.solver.sums_squares:  # else components without scores would keep their start on columns of zeros
            H = np.where(self.used, H, 0.0)
        if self.support is not None:
            H = H * self.support
        self.H, self.converged = H, False
        momentum, share, sweeps, rejected = 1.0, 0.0, SWEEPS, 0
        self._accept()
        if good and not self._scored_exactly():
            for _ in range(GOOD_PASSES):
                self._pass(self.H, 4 * CAREFUL_SWEEPS, 1e-3)
        H = self.H
        careful = True  # poor scores would give poor first loadings, and spoil a good start
        while not self._told_to_stop() and self.n_iter < max_iter and not self.converged:
            self.n_iter += 1
            stats = self._pass(H, max(sweeps, CAREFUL_SWEEPS) if careful else sweeps, 0.01 if careful else 0.2, share)
            self.untold = H, stats
            self._learn_rounding(stats)
            H_new = self._improve_components(H, stats)
            value = self._evaluate(H_new, stats)
            rose = not value <= self.objective + 4 * self.rounding  # or is NaN
            if rose and not self.solver.descends:
                H, rejected = H_new, rejected + 1  # continue, but keep the best
                if rejected > 5 or not np.isfinite(value):
                    break
                continue
            if rose:  # extrapolated too far, or too few sweeps
                H, momentum, share, rejected = self.H, 1.0, 0.0, rejected + 1
                self.solver.rejected(rejected)
                if self.solver.takes_back:
                    self.table.take_back()
                if rejected > 1 and self._sharpen():
                    self.objective, rejected = np.inf, 0
                elif rejected > 1:
                    sweeps, careful = min(2 * sweeps, 1000), True
                # converged as far as the precision allows
                self.converged = rejected > 5 and value <= self.objective + 100 * self.rounding
                continue
            rejected = 0
            judged, residual = len(self.history) - self.first >= self.window, np.inf
            if careful and judged:
                residual = self._residual(H, stats)
            if self.penalised or careful:
                H_new, value = self._balance(H_new, stats, value)
            self._accept()
            value = min(value, self.objective)
            self.history.append(value)
            settled = value <= self.rounding
            if judged:
                settled |= self.history[-1 - self.window] - value <= self.window * self.tol * value
            # The loop's scores are rough: what looks like convergence is checked again with better ones.
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

    def restrict(self, support):
        """From now on keep loadings at zero off a support (k x p, boolean); the history begins anew."""
        self.support = self.solver.support = support
        self.objective, self.history, self.first = np.inf, [], 0

    def derivatives(self):
        """Return the slope and the curvature of the objective in every loading, for the scores as they are."""
        observed = self.table.observed
        if not self.by_columns:
            stats = self.table.sum_over(_statistics, self.solver, self.H)
            return self.solver.derivatives(self.H, stats, self.strengths, observed)
        parts = self.table.map_columns(self.solver.derivatives_of_columns, self.H, self.strengths, observed)
        return tuple(np.concatenate(part, axis=1, dtype=np.float64) for part in zip(*parts, strict=True))

    def worst_row(self):
        """Return the positive residual of the row where its sum is largest."""
        return max(self.table.map(_worst_row, self.H), key=lambda pair: pair[0])[1]

    def begin_at(self, H):
        """Take loadings that a race led to a minimum, so that :meth:`settle` need not make passes first."""
        H = np.where(self.used, H, 0.0)
        self.H = H if self.penalised else H / np.where(H.any(axis=1), H.sum(axis=1), 1.0)[:, None]
        self.converged, self.stuck, self.n_iter = True, False, 1
        return self

    def settle(self, max_iter):
        """Check convergence with exact scores, revive dead components, and continue if there is more to gain.

        The exact scores stay in the table.
        """
        revivals, rounds = np.zeros(self.k, dtype=int), 0
        while True:
            passed = bool(self.history)
            if passed and (self.solver.positive or not self.solver.sums_squares):
                self._clear()
            self.H = self.table.score_exactly(self.H, self.strengths, self.loss)
            rounded = self._sharpen()
            if not self.solver.sums_squares:  # these solvers need a copy of all scores, which is large
                self.table.resume()
                if not passed:  # these scores are the first to tell which components have vanished
                    before = self.H
                    self._clear()
                    if (before != self.H).any():
                        self.H = self.table.score_exactly(self.H, self.strengths, self.loss)
                        self.table.resume()
            stats = self.table.sum_over(_statistics, self.solver, self.H)
            self._learn_rounding(stats)
            value = self._evaluate(self.H, stats)
            gain = self.objective - value
            if not passed:  # would a pass change anything?
                gain = abs(value - self._evaluate(self._improve_components(self.H, stats), stats))
                self.untold = self.H, stats
                self._told_to_stop()
            # Where the problem of a row is not convex, its exact scores may be worse than earlier ones.
            self.objective = min(self.objective, value) if self.solver.convex and not rounded else value
            self.history[-1:] = [self.objective]
            self.kkt_residual = self._residual(self.H, stats)
            if not self.solver.descends and self.stuck:  # it rose: at a minimum, or because the method fails here?
                self.converged = self.kkt_residual <= np.sqrt(self.tol)
            if not self.converged or self.objective <= self.rounding:
                return self
            more = not self.stuck and (
                gain > self.window * self.tol * self.objective + self.rounding
                or (self.kkt_residual > np.sqrt(self.tol) and (self.solver.convex or rounds < MORE_ROUNDS))
            )
            rounds += 1
            dead = ~(self.H.any(axis=1) & (stats.W_sums > 0)) & (revivals < 2)
            if not (more or dead.any()):
                return self
            if self.solver.sums_squares:
                self.table.resume()
            self._lift()
            if not (more or self._revive(dead, revivals)):
                return self
            self.converged = False
            if self.n_iter < max_iter:
                self.run(self.H, max_iter)

    def _told_to_stop(self):
        """Tell the watch of the pass that was just made, if one was; return whether the fit has to stop."""
        if self.untold is None:
            return self.watch.stopped
        rows, residual, self.untold = self.table.shape[0], partial(self._residual, *self.untold), None
        whole = rows == (self.watch.n_rows or rows)
        stage = COLUMNS if self.support is not None else ALL_ROWS if whole else SAMPLE
        return self.watch(stage, rows, passes=self.n_iter, objective=self.value, residual=residual)

    def _accept(self):
        self.solver.accepted()
        if self.solver.takes_back:
            self.table.keep()

    def _clear(self):
        """Set loadings to zero that solvers only bring near it: on columns of zeros, and of vanished components."""
        self.H = np.where(self.used, self.H, 0)
        if not self.loss.takes_zeros:  # such losses depend on ratios, however small the cells are
            return
        amounts = sum(self.table.map(_sums_of_scores)) * self.H.sum(axis=1)
        for t in np.argsort(amounts, kind="stable"):
            rest = self.H * (np.arange(self.k) != t)[:, None]
            whole = self.total if self.loss.homogeneous or not self.loss.spares_zeros else 0  # one wild cell may be it
            sunk = amounts[t] <= NOTHING * max(amounts.max(), whole)
            # If the loss is infinite at a fit of zero, every column must keep a loading.
            if sunk and (self.loss.spares_zeros or (rest.any(axis=0) == self.H.any(axis=0)).all()):
                self.H = rest

    def _set_precision(self, dtype):
        self.table.round_to(dtype)
        # The objective comes from sums, whose rounding errors are proportional to their terms: smaller changes mean
        # nothing. In single precision the errors of the blocks show, but average out: blocks are summed in double.
        self.accuracy = 1e-14 if dtype == np.float64 else float(np.finfo(dtype).eps) / np.sqrt(self.table.n_blocks)
        self.rounding = self.accuracy * self.size

    def _learn_rounding(self, stats):
        """Note how large the terms are, where cells are missing: scores of few cells may extrapolate far to others."""
        if self.table.missing is not None and self.solver.sums_squares:
            self.rounding = self.accuracy * max(self.size, float(stats.squared_norm))

    def _scored_exactly(self):
        """Begin with exact scores, where cells are missing; return whether that was done.

        Passes would begin from column means there, and lead away from the loadings. But where exact scores extrapolate
        too far, rounding would hide what passes gain.
        """
        if self.table.missing is None or not (self.solver.sums_squares and self.solver.extrapolates):
            return False
        H = self.table.score_exactly(self.H, self.strengths, self.loss)
        self.table.resume()
        stats = self.table.sum_over(_statistics, self.solver, H)
        if not self.accuracy * stats.squared_norm <= MOST_ROUNDING * self._evaluate(H, stats):
            self.table.start(self.table.precision, remembers=True)
            return False
        self.H = H
        return True

    def _sharpen(self):
        """Switch to the precision of the table; return whether that is a change."""
        if self.table.precision == self.table.dtype:
            return False
        self._set_precision(self.table.dtype)
        self.first = len(self.history)
        return True

    def _lift(self):
        """Raise zero scores a little, for a solver that could not change them."""
        if self.solver.positive:
            least = 1e-6 * max(self.table.map(_largest_score)) or self.solver.blank
            self.table.visit(_lift_scores, least)

    def _pass(self, H, sweeps, enough, share=0.0):
        """Improve the scores and return the statistics for the loadings, with one read of X.

        Missing cells are imputed with these loadings and with scores that are extrapolated by ``share`` as well.
        """
        context = self.solver.context(H, self.strengths)
        return self.table.sum_over(_improve, self.solver, H, context, self.strengths, sweeps, enough, share)

    def _improve_components(self, H, stats):
        observed = self.table.observed
        if not self.by_columns:
            return self.solver.improve_components(H, stats, self.strengths, observed)
        parts = list(self.table.map_columns(self.solver.improve_columns, H, self.strengths, observed))
        return np.concatenate(parts, axis=1, dtype=np.float64)

    def _residual(self, H, stats):
        observed, top = self.table.observed, H.max(initial=0.0)
        if not self.by_columns:
            return self.solver.residual(H, stats, self.strengths, observed)
        if top == 0:
            return 0.0
        return max(self.table.map_columns(self.solver.residual_of_columns, H, self.strengths, observed)) / top

    def _evaluate(self, H, stats):
        penalty = self._penalty(H, stats.W_sums, stats.W_squares)
        if self.solver.sums_squares:
            return self.solver.error(H, stats) + penalty
        return float(sum(self.table.map(self.solver.error_of_block, H))) + self.constant + penalty

    def _penalty(self, H, W_sums, W_squares):
        if not self.penalised:
            return 0.0
        scores = self.strengths.l1_W * W_sums.sum() + self.strengths.l2_W / 2 * W_squares.sum()
        return float(scores) + self.strengths.cost(np.zeros(0), H, columns=self.table.observed)

    def _balance(self, H, stats, value):
        """Balance the scale between scores and loadings; return the loadings and the objective after that."""
        c = balance(stats.W_sums, stats.W_squares, H, self.unit, self.table.observed)
        self.table.rescale(c)
        before = self._penalty(H, stats.W_sums, stats.W_squares)
        H, self.H = H / c[:, None], self.H / c[:, None]
        return H, value - before + self._penalty(H, stats.W_sums * c, stats.W_squares * c**2)

    def _revive(self, dead, revivals):
        """Replace a dead component by a rank-one piece of the residual: the first for which the objective falls."""
        for t in np.flatnonzero(dead):
            revivals[t] += 1
            if not self.solver.sums_squares:
                if self._try(t):
                    return True
                continue
            allowed = 1.0 if self.support is None else self.support[t]
            pair = _rank_one(self.table, self.H, self.strengths, self.unit, self.objective, allowed)
            if pair is not None:
                self.table.visit(_set_component, t, *pair[0])
                self.H[t] = pair[1]
                return True
        return False

    def _try(self, t):
        """Make passes with the residual of the worst row as loadings of component t; keep it if the objective falls."""
        best = self.worst_row()
        if self.support is not None:
            best = best * self.support[t]
        if not best.any():
            return False
        H = self.H.copy()
        self.table.keep()
        H[t] = best
        for _ in range(3):
            stats = self._pass(H, CAREFUL_SWEEPS, 0.01)
            H = self._improve_components(H, stats)
        if self._evaluate(H, stats) < self.objective - self.rounding:
            self.H = H
            return True
        self.table.take_back()
        return False


# Functions of one block of rows


def _improve(block, Wt, solver, H, context, strengths, sweeps, enough, share):
    """Improve the scores; if cells are missing, first impute them from scores extrapolated by ``share``."""
    if block.before is not None:
        ahead = np.maximum(Wt + share * (Wt - block.before), 0) if share else Wt
        block.fill(ahead, H)
        block.before[:] = Wt
    return solver.improve_scores(block, Wt, H, context, strengths, sweeps, enough)


def _statistics(block, Wt, solver, H):
    return solver.statistics(block, Wt, H)


def _size(block, Wt, solver):
    return solver.size(block)


def _sums_of_scores(block, Wt):
    return Wt.sum(axis=1, dtype=np.float64)


def _largest_score(block, Wt):
    return Wt.max(initial=0.0)


def _lift_scores(block, Wt, least):
    np.maximum(Wt, least, out=Wt)


def _set_component(block, Wt, t, H, h, strengths, c):
    Wt[t] = c * _rank_one_scores(block, Wt, H, h, strengths)


def _worst_row(block, Wt, H):
    """Return the largest row sum of the positive residual, and the residual of that row."""
    block.fill(Wt, H)
    R = block.residual(Wt, H)
    sums = R.row_sums()
    i = int(sums.argmax())
    return sums[i], R.row(i)


# A rank-one piece of the residual


def _rank_one(table, H, strengths, unit, value, allowed=1.0):
    """Return the best non-negative rank-one piece of the residual, or None if it would not lower the objective.

    It is given by its loadings, which are zero where ``allowed`` is, and by what its scores are made from
    (:func:`_rank_one_scores`). With a penalty, w = h = 0 is a strict local minimum, so only such a finite step can
    revive a component.
    """
    norms, rows, missing = zip(*table.map(_worst_square, H), strict=True)
    worst, missing = rows[int(np.argmax(norms))].astype(np.float64), sum(missing)
    best, best_change = None, -1e-12 * value
    # Two starts: the worst row, and the sum of the positive residual over all rows.
    for h in (worst * allowed, missing * allowed):
        for iteration in range(60):
            if not h.any():
                break
            used = strengths if iteration >= 30 else NO_PENALTY  # first find the direction, then the size
            step = H, h, used
            back, sums, squares = table.sum_over(_half_of_rank_one, *step)
            if not squares.any():
                break
            new = np.maximum(back - used.l1_H, 0) / (squares + used.l2_H) * allowed
            c = balance(sums, squares, new[None], unit)[0]
            h = new / c
        else:
            back, sums, squares = back * c, float(sums[0] * c), float(squares[0] * c**2)
            change = 0.5 * squares * inner(h, h) - inner(back, h) + strengths.cost(np.zeros(0), h[None])
            change += strengths.l1_W * sums + strengths.l2_W / 2 * squares
            if h.any() and change < best_change:
                best, best_change = ((*step, c), h), change
    return best


def _rank_one_scores(block, Wt, H, h, strengths):
    """Return the scores that fit best, with loadings h, what W H leaves of a block."""
    block.fill(Wt, H)
    left = block.loadings_times(h[None])[0] - product(product(H, h), Wt)
    return np.maximum(left - strengths.l1_W, 0) / (inner(h, h) + strengths.l2_W)


def _half_of_rank_one(block, Wt, H, h, strengths):
    """Return w times the residual, for these scores w, and the sums of w and w^2; all with row weights."""
    w = _rank_one_scores(block, Wt, H, h, strengths)
    weighted = w if block.weights is None else w * block.weights
    back = block.scores_times(weighted[None])[0] - product(product(Wt, weighted), H)
    return back.astype(np.float64), np.array([weighted.sum()], float), np.array([product(weighted, w)], float)


def _worst_square(block, Wt, H):
    """Return the largest row norm of the positive residual, the residual of that row, and the sum over all rows."""
    block.fill(Wt, H)
    R, v = block.residual(Wt, H), np.ones(Wt.shape[1]) if block.weights is None else block.weights
    norms = v * np.asarray((R.X * R.X).sum(axis=1)).ravel()
    i = int(norms.argmax())
    return norms[i], R.row(i), np.ravel(product(v, R.X)).astype(np.float64)
