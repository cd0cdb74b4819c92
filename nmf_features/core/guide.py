"""Loadings that also serve a target: a descent on all loadings at once, from those that were found without it.

    minimise over H >= 0:   D(X, W H) + penalties  +  weight * D(X, m) * (unexplained share of the target, given W)

W = W(H) are the exact scores of the rows, which see X alone, so a new row is treated like one of the fit. m are the
best constants of the columns. The share is that of a linear model on W (target_models.py), the mean over the targets.
So both terms are shares of what constants leave, times D(X, m), and a weight means the same for every table.

How the scores depend on the loadings follows from the conditions of their minimum. With slope s_j and curvature c_j of
the loss of cell j of a row, A = H diag(c) H' (+ L2 penalty) on the components with a positive score, and the slopes a
of the target's share in w,

    b = A^-1 a,     slopes in H:  -(b s' + w (b H * c)')       summed over the rows

L-BFGS-B follows the slopes. The two reads of a pass are maps over blocks, as in every other descent.

References: S. de Jong and H. A. L. Kiers (1992), Principal covariates regression, Chemometrics and Intelligent
Laboratory Systems 14, for the criterion; J. Mairal, F. Bach and J. Ponce (2012), Task-driven dictionary learning, IEEE
Transactions on Pattern Analysis and Machine Intelligence 34, for the slopes; R. H. Byrd, P. Lu, J. Nocedal and C. Zhu
(1995), A limited memory algorithm for bound constrained optimization, SIAM Journal on Scientific Computing 16.
"""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import minimize

from .alternating import weighted_sums
from .blocks import row_blocks
from .compiling import compiled_if_worth
from .kernels import packed_products, solve_on_support, unpacked
from .missing import leaves_out_unstored
from .objective import spread_of
from .penalties import Strengths
from .products import gram, inner, product
from .projection import scores_of_used
from .samples import Rows, order_of_columns
from .schedule import fit_loadings, in_safe_units
from .support import Limit
from .tables import MemoryTable
from .threads import workers
from .units import in_units
from .watch import TARGET, Watch

WINDOW = 10  # steps in which the objective has to fall by the share ``tol``: progress comes in jumps, at kinks
NARROWER, NARROW_STEPS = 0.7, 10  # under a limit: the share of columns kept from one width to the next, steps at each
MEMORY = 20  # steps from which L-BFGS-B learns the curvature
RIDGE = 1e-10  # of the mean diagonal of A: nearly equal components have no slopes of their own
STEP = 1e-5  # relative, for second derivatives of losses that do not have their own


class Slopes(NamedTuple):
    """Sums over rows: the loss, the sums of scores that the penalty needs, and slopes in the loadings (k x p)."""

    loss: np.ndarray
    W_sums: np.ndarray
    W_squares: np.ndarray
    of_loss: np.ndarray
    of_share: np.ndarray


def fit_with_targets(problem, n_components, targets, weight, **options):
    """Fit loadings without targets, then guide them; return the Fit. ``options`` are those of ``fit_loadings``.

    ``targets`` holds a pair for each: Numbers or Classes, and an array of the rows of the problem by outputs, in which
    rows are NaN where the target is not known.
    """
    loss, missing, weights = problem.loss, problem.missing, problem.weights
    watch = options["watch"] = options.get("watch") or Watch()
    # Rows and columns in an order that depends on what they hold: a descent with kinks enlarges any difference.
    columns = order_of_columns(MemoryTable(problem.X, weights, missing), problem.width)
    X = problem.X[:, columns]
    rows = Rows(MemoryTable(X, weights, missing), loss.power, [column for _, Y in targets for column in Y.T]).order
    rows, weights = _merged(X, weights, [Y for _, Y in targets], rows)
    ordered = replace(problem, X=X[rows], weights=weights)
    if not isinstance(options["init"], str) and np.shape(options["init"])[-1:] == columns.shape:
        options["init"] = np.asarray(options["init"])[..., columns]
    fit = fit_loadings(ordered, n_components, **options)
    limited = options["n_nonzero_loadings"] is not None
    starts = [(fit.H, fit.H > 0 if limited else None)]
    emptied = not fit.H.any(axis=1).all()  # by the penalty; such components may be worth it for the target
    if emptied and not watch.stopped:
        free = replace(ordered, strengths=Strengths(0.0, 0.0, 0.0, 0.0))
        starts.append((fit_loadings(free, n_components, **options).H, starts[0][1]))
    X, e, strengths = in_safe_units(ordered)
    with workers(options["n_jobs"], len(row_blocks(X, n_components))) as each:
        table = MemoryTable(X, ordered.weights, missing, n_components, 0, each, options["n_jobs"])
        models = [kind(Y[rows], ordered.weights) for kind, Y in targets]
        descent = GuidedDescent(table, loss, strengths, models, weight, watch, 2 * e * loss.degree)
        passes = options["max_iter"], options["tol"]
        ends = [descent.run(np.ldexp(H, -e), support, *passes) for H, support in starts if H.any()]
        if limited and ends and not watch.stopped:  # columns that only the target asks for
            unlimited = fit_loadings(ordered, n_components, **{**options, "n_nonzero_loadings": None}).H
            limit = Limit(options["n_nonzero_loadings"], problem.width)
            ends.append(descent.narrowed(np.ldexp(unlimited, -e), limit, *passes))
    if ends:
        end = min(ends, key=lambda end: end.history[-1])
        with np.errstate(over="ignore"):
            history = in_units(np.array(end.history) * descent.spread * (1 + weight), 2 * e * loss.degree)
        fit = replace(
            fit, H=np.ldexp(end.H, e), objective=float(history[-1]), precise=False, n_iter=end.n_iter,
            converged=end.converged, history=history, kkt_residual=end.kkt_residual, stopped=watch.stopped,
        )  # fmt: skip
    H, (X, e, strengths) = fit.H, in_safe_units(problem)
    U, sums, H = scores_of_used(X, np.ldexp(H[:, np.argsort(columns)], -e), strengths, options["n_jobs"], missing, loss)
    return replace(fit, U=np.ldexp(U, 2 * e) if e else U, sums=np.ldexp(sums, e), H=np.ldexp(H, e))


def _merged(X, weights, Ys, rows):
    """Return the rows without repetitions, which stand side by side, and their weights: so much counts each."""
    v = None if weights is None else weights[rows]
    if sparse.issparse(X) or len(rows) < 2:
        return rows, v
    same = np.ones(len(rows) - 1, dtype=bool)
    for values in (X, *Ys):
        for j in range(values.shape[1]):
            column = values[rows, j]
            same &= (column[1:] == column[:-1]) | (np.isnan(column[1:]) & np.isnan(column[:-1]))
    if not same.any():
        return rows, v
    first = np.flatnonzero(np.concatenate([[True], ~same]))
    return rows[first], np.add.reduceat(np.ones(len(rows)) if v is None else v, first)


class End(NamedTuple):
    """Where a descent ended."""

    H: np.ndarray
    history: list
    n_iter: int
    converged: bool
    kkt_residual: float


class GuidedDescent:
    """Descents on one table, for the same targets; ``watch`` is told of each step, in units of 2^``exponent``."""

    def __init__(self, table, loss, strengths, models, weight, watch=None, exponent=0):
        self.table, self.loss, self.strengths = table, loss, strengths
        self.models, self.watch, self.exponent = models, watch or Watch(), exponent
        summary = table.summary()
        self.least_fit = loss.least_fit(summary.mean, summary.least)
        means = loss.best_constants(table.X, table.weights, table.missing)
        self.spread = spread_of(table.X, means, loss, table.weights, leaves_out_unstored(table.missing))
        self.weight = weight

    def run(self, H, support, max_iter, tol):
        """Descend from loadings H until little is gained, or ``max_iter`` steps are made; return the End.

        ``support`` says where loadings may be positive (None: everywhere). No step is made if the fit was asked to
        stop.
        """
        if self.watch.stopped:
            value, slopes = self.evaluate(H)
            return End(H, [value], 0, False, self._residual(H, value, slopes, support))
        shape, scale, history, last = H.shape, H.mean(), [], [None]
        self.watch.begin(self.table.shape[0], self.exponent)

        def evaluate(h):
            value, slopes = self.evaluate(h.reshape(shape) * scale)
            if not history:
                history.append(value)
            last[0] = slopes
            return value, slopes.ravel() * scale

        def accepted(intermediate_result):
            value, H = intermediate_result.fun, intermediate_result.x.reshape(shape) * scale
            history.append(value)
            told = {
                "passes": len(history) - 1,
                "objective": value * self.spread * (1 + self.weight),
                "residual": partial(self._residual, H, value, last[0], support),  # of an accepted step the last slopes
            }
            if self.watch(TARGET, self.table.shape[0], **told):
                raise StopIteration
            if len(history) > WINDOW and history[-1 - WINDOW] - history[-1] <= tol * history[-1]:
                raise StopIteration

        most = [None] * H.size if support is None else np.where(support, None, 0.0).ravel()
        found = minimize(
            evaluate, (H / scale).ravel(), jac=True, method="L-BFGS-B", bounds=[(0, top) for top in most],
            callback=accepted,
            options={"maxiter": max_iter, "maxfun": 20 * max_iter, "maxcor": MEMORY, "ftol": 0.0, "gtol": 0.0},
        )  # fmt: skip
        H = found.x.reshape(shape) * scale
        history[-1], slopes = self.evaluate(H)
        # Status 1: the steps were used up. Otherwise rounding may have ended it.
        converged = found.status != 1 and not self.watch.stopped
        return End(H, history, found.nit, converged, self._residual(H, history[-1], slopes, support))

    def _residual(self, H, value, slopes, support):
        """Return how far loadings are from stationary, given the objective and its slopes."""
        slopes, top = slopes if support is None else np.where(support, slopes, 0.0), H.max()
        step = slopes * (top / value * top) if value > 0 else slopes
        return float(np.abs(np.minimum(H, step)).max() / top) if top > 0 else 0.0

    def narrowed(self, H, limit, max_iter, tol):
        """Descend without a limit, then with fewer and fewer columns for each component, down to the limit."""
        H = self.run(H, None, max_iter, tol).H
        width, least = limit.merged(H).shape[1], limit.most
        while width > least:
            width = max(int(NARROWER * width), least)
            support = limit.largest(H, width, np.zeros(H.shape[1], dtype=bool))
            end = self.run(np.where(support, H, 0.0), support, max_iter if width == least else NARROW_STEPS, tol)
            H = end.H
        return end

    def evaluate(self, H):
        """Return the objective and its slopes in the loadings, both over D(X, m) * (1 + weight): of any weight."""
        q, observed = self.strengths, self.table.observed
        self.table.score_exactly(H, q, self.loss)
        self.table.resume()
        Wt = np.concatenate(list(self.table.map(_scores)), axis=1)
        reads = [model.read(Wt) for model in self.models]
        in_W = sum(read.slopes for read in reads) / len(reads)
        unstored = leaves_out_unstored(self.table.missing)
        sums = self.table.sum_over(_slopes, H, in_W, self.loss, unstored, q.l2_W, self.least_fit)
        cost = q.l1_W * sums.W_sums.sum() + q.l2_W / 2 * sums.W_squares.sum()
        value = float(sums.loss + cost) + q.cost(np.zeros(0), H, columns=observed)
        slopes = sums.of_loss + (q.l1_H + q.l2_H * H) * (1.0 if observed is None else observed)
        of_X, of_target = 1 / (self.spread * (1 + self.weight)), self.weight / (1 + self.weight)
        share = sum(read.share for read in reads) / len(reads)
        return of_X * value + of_target * share, of_X * slopes + of_target * sums.of_share


# Functions of one block of rows


def _scores(block, Wt):
    return Wt


def _slopes(block, Wt, H, in_W, loss, unstored, l2, least_fit):
    """Return the sums of a block; ``in_W`` (k x n) holds the slopes of the target's share in the scores."""
    if loss.squares and block.missing is None and not unstored:
        return _slopes_from_products(block, Wt, H, in_W[:, block.rows], l2)
    if block.is_sparse and not (unstored or loss.counts):
        block = block.dense()
    return _slopes_from_cells(block, Wt, H, in_W[:, block.rows], loss, unstored, l2, least_fit)


def _slopes_from_products(block, Wt, H, a, l2):
    """Return the sums for least squares without missing cells: W'X and b'X are all that X is needed for."""
    weighted, *sums = weighted_sums(block, Wt)
    grams = gram(H)
    b = _implied(grams[None] + l2 * np.eye(len(H)), a, Wt)
    WX, WW, bW = block.scores_times(weighted), product(weighted, Wt.T), product(b, Wt.T.astype(np.float64))
    value = block.squared_norm() / 2 - inner(WX, H) + inner(WW.astype(np.float64), grams) / 2
    return Slopes(np.array(value), *sums, product(WW, H) - WX, block.scores_times(b) - product(bW + bW.T, H))


def _slopes_from_cells(block, Wt, H, a, loss, unstored, l2, least_fit):
    """Return the sums for any loss, from slope and curvature of every cell, or of the stored ones if these will do."""
    _, *sums = weighted_sums(block, Wt)
    apart = block.is_sparse and not unstored  # the slope of a zero is 1: these are summed without the cells
    x, Wt, v = block.cells.astype(np.float64, copy=False), Wt.astype(np.float64), block.counts.astype(np.float64)
    y = np.maximum(block.fitted(Wt, H), least_fit)
    cells, slope, curvature = loss.of_cells(x, y) - (y if apart else 0), *_derivatives(loss, x, y)
    slope -= apart
    if block.missing is not None:
        cells[block.missing], curvature[block.missing] = -y[block.missing] if apart else 0, 0
        slope[block.missing] = -1 if apart else 0
    grams = unpacked(block.hessians(H, True if block.is_sparse else packed_products(H), curvature), len(H))
    grams[:, range(len(H)), range(len(H))] += l2 * np.broadcast_to(block.observed, len(v))[:, None]
    b = _implied(grams, a, Wt)
    of_cells = block.of_rows(v)
    value, of_loss = inner(np.broadcast_to(of_cells, cells.shape), cells), block.scores_times(Wt, slope * of_cells)
    in_H = -block.scores_times(b, slope) - block.scores_times(Wt, block.fitted(b, H) * curvature)
    if apart:
        ones = product(Wt, v)
        value, of_loss, in_H = (
            value + inner(ones, H.sum(axis=1)),
            of_loss + ones[:, None],
            in_H - b.sum(axis=1)[:, None],
        )
    return Slopes(np.array(value), *sums, of_loss, in_H)


def _derivatives(loss, x, y):
    """Return the first and the second derivative of the loss of cells."""
    if loss.squares:
        return y - x, np.ones(y.shape)
    if loss.counts:
        return 1 - x / y, x / y / y
    # The curvature of a loss may be another one, better for steps.
    above, below = (loss.slopes_of_cells(x, y * (1 + sign * STEP))[0] for sign in (1, -1))
    return loss.slopes_of_cells(x, y)[0], (above - below) / (2 * STEP * y)


def _implied(grams, a, Wt):
    """Return b (k x rows), the solutions of A b = a on the components with a positive score."""
    k = grams.shape[1]
    grams[:, range(k), range(k)] += RIDGE * np.trace(grams, axis1=1, axis2=2)[:, None] / k
    loop = compiled_if_worth(solve_on_support, Wt.size * k)
    return np.ascontiguousarray(loop(grams, np.ascontiguousarray(a.T), np.ascontiguousarray(Wt.T) > 0).T)
