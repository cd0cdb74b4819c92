"""A stream of batches: the loadings follow sums over rows, in which older batches count less and less.

    W_b <- exact scores of a batch, given H           its rows are independent
    S   <- forget_factor * S + S_b                    sums over rows
    H   <- minimum of the objective that S stands for, from H; reads no data

For least squares S holds W'W and W'X. If all W were as H now wants them, the minimum would be that over all rows. But
the scores of earlier batches stay as they were, so S stands for an upper bound, a surrogate, which is the tighter the
less H moves. For other losses S holds the parts of a majoriser in H, those of multiplicative updates:

    H^r <- A / B,    A = sum of H^r * (negative part of the gradient),    B = sum of its positive part

with the H that each batch came to; 1 / r is the exponent of the loss. The penalty on H is that of the rows in S.

References: J. Mairal, F. Bach, J. Ponce and G. Sapiro (2010), Online learning for matrix factorization and sparse
coding, JMLR 11; A. Lefevre, F. Bach and C. Fevotte (2011), Online algorithms for nonnegative matrix factorization with
the Itakura-Saito divergence, for the majoriser; MiniBatchNMF of scikit-learn.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
from sklearn.utils.metaestimators import available_if

from .core.alternating import HALS, Statistics
from .core.blocks import row_blocks
from .core.checks import check_weights
from .core.explained import explained_share
from .core.missing import penalised_counts
from .core.newton import MultiplicativeDivergence
from .core.penalties import Strengths, balance
from .core.tables import MemoryTable
from .core.threads import workers
from .core.units import exponent_of, in_units
from .fitting import facts_of, impute_penalties, in_canonical_form, problem_of, scores_of

SWEEPS, ENOUGH = 200, 1e-3  # over the components, given the sums: they cost little beside the scores
STEPS = 10  # multiplicative steps for each batch: one changes little
FLOOR = 1e-4  # zeros would stay zeros in them: they start from this share of the component's largest loading

Method = TypeVar("Method", bound=Callable)


@dataclass(frozen=True)
class Sums:
    """Sums over rows, with row weights; W and H are the balanced pair, and what was fitted is what W H was then."""

    counts: np.ndarray  # [sum of the rows by their observed shares, sum of the rows]
    columns: np.ndarray  # of the rows that are observed in each column (p)
    above: np.ndarray  # W'X, or A (k x p); zero where n_nonzero_loadings leaves no loading
    below: np.ndarray  # W'W (k x k), or B (k x p)
    W_sums: np.ndarray  # k; here and in the next rows count by their observed share, as in the penalty
    W_squares: np.ndarray  # k
    amounts: np.ndarray  # sum of W (k)
    explained: np.ndarray  # what each component explains (k), and what there is
    column_left: np.ndarray  # squares of the residual of each column
    column_size: np.ndarray  # squares of each column
    divergence: np.ndarray  # the loss, one number

    @classmethod
    def of(cls, facts, scales, shares, above, below):
        """Return the sums of rows, from their Facts, the observed shares of columns (None: 1), and the rest."""
        counted = facts.counts[1] * (np.ones(above.shape[1]) if shares is None else shares)
        sums, squares, amounts = facts.sums / scales, facts.squares / scales**2, facts.amounts / scales
        return cls(facts.counts, counted, above, below, sums, squares, amounts, *facts[4:])

    def after(self, earlier, forget_factor):
        """Return the sums of these rows and earlier ones, which count less."""
        return Sums(**{name: forget_factor * vars(earlier)[name] + new for name, new in vars(self).items()})

    def rescaled(self, c, solver):
        """Return the sums for W * c and H / c."""
        above, below = self.above * c[:, None], self.below * c[:, None]
        if solver.sums_squares:
            below = below * c
        else:
            above = above / c[:, None] ** _power(solver.loss)
        W_sums, W_squares, amounts = self.W_sums * c, self.W_squares * c**2, self.amounts * c
        return replace(self, above=above, below=below, W_sums=W_sums, W_squares=W_squares, amounts=amounts)

    @property
    def shares(self):
        """The observed share of each column, None if all is observed."""
        shares = self.columns / self.counts[1]
        return None if (shares == 1).all() else shares


class Followed(NamedTuple):
    """What becomes of a model after a batch: its attributes, in their order in NMFFeatures."""

    components: np.ndarray
    component_scales: np.ndarray
    explained: np.ndarray
    column_explained: np.ndarray
    objective: float
    column_means: np.ndarray
    impute_penalties: np.ndarray
    sums: Sums


def solver_of(columns):
    """Return the solver whose statistics are summed for a model."""
    unstored = columns.model.missing_values == "unstored"
    return HALS() if columns.loss.squares and not unstored else MultiplicativeDivergence(columns.loss, unstored)


def sums_of_fit(columns, problem, found):
    """Return the sums of the rows of a fit, None if their squares would leave the range of floats."""
    if exponent_of(problem.top, np.float64, columns.loss):
        return None
    _, shares = penalised_counts(problem.X, problem.missing, problem.weights)
    with workers(columns.model.n_jobs, len(row_blocks(problem.X, len(found.H)))) as each:
        return sums_of_table(columns, _table(problem, found.W, found.scales, each, columns.model), found, shares)


def sums_of_table(columns, table, found, shares, order=slice(None), factor=1.0, e=0):
    """Return the sums of a table with scores, which are balanced once they are reordered and multiplied by a factor.

    Rows and scores are in units of 4^``e``.
    """
    H, degree = found.H * found.scales[:, None], columns.loss.degree
    above, below = statistics(table, H, solver_of(columns), order, factor)
    above, below = (in_units(values, 2 * e * degree) for values in (above, below))
    return Sums.of(found.facts, found.scales, shares, _allowed(above, H > 0, columns.model), below)


def statistics(table, H, solver, order=slice(None), factor=1.0):
    """Return W'X and W'W, or A and B, of a table with scores."""
    if solver.sums_squares:
        found = table.sum_over(_of_block, solver, H, order, factor)
        return found.WtX, found.WtW
    solver.prepare(table.summary())
    down, up = table.sum_over(_parts_of_block, solver, H, order, factor)
    return H ** _power(solver.loss) * down, up * np.ones(H.shape)


def follow(columns, matrix, fresh, sums, sample_weight=None):
    """Return what a model becomes after rows that were read, None if there are none; ``fresh`` ones may be changed."""
    model, loss = columns.model, columns.loss
    if matrix.shape[0] == 0:
        return None
    weights = check_weights(sample_weight, matrix)
    problem = problem_of(columns, columns.scale(matrix, overwrite=fresh), weights)
    if exponent_of(problem.top, np.float64, loss):
        raise ValueError(
            f"X has a cell that is {problem.top:.3g} after shift and scale: sums of squares leave the range of floats. "
            "Check its units, or cut it off. The model is as it was."
        )
    X, missing, weights, s = problem.X, problem.missing, problem.weights, model.component_scales_
    U, H = scores_of(columns, X), model.components_ * s[:, None]
    _, shares = penalised_counts(X, missing, weights)
    facts = facts_of(X, U, model.components_, weights, missing, loss)
    _, before = in_canonical_form(facts, 0, H, s, problem, shares, columns.n_counted)

    solver, kept = solver_of(columns), sums.above > 0
    lifted = H if solver.sums_squares else np.maximum(H, FLOOR * H.max(axis=1, keepdims=True))
    new = lifted
    with workers(model.n_jobs, len(row_blocks(X, len(H)))) as each:
        rows = _table(problem, U, s, each, model)
        for _ in range(1 if solver.sums_squares else STEPS):
            above, below = statistics(rows, new, solver)
            total = Sums.of(facts, s, shares, _allowed(above, kept, model), below).after(sums, model.forget_factor)
            strengths, unit = (_strengths(q, columns, total) for q in (model.penalty, 1.0))
            new = _improved(new, total, strengths, solver)
    sunk = (lifted > H) & (new <= lifted)
    new[sunk] *= H[sunk] / lifted[sunk]
    asleep = ~(U.any(axis=0) & new.any(axis=1))  # what the batch does not have stays: it would not come back
    new[asleep] = H[asleep]
    c = np.where(asleep, 1.0, balance(total.W_sums, total.W_squares, new, unit, total.shares))
    total, new = total.rescaled(c, solver), new / c[:, None]
    scales = np.where(new.any(axis=1), new.sum(axis=1), 1.0)
    means = problem.loss.best_constants(X, weights, missing)
    old = np.divide(
        model.forget_factor * sums.columns, total.columns, out=np.zeros(len(means)), where=total.columns > 0
    )
    return Followed(
        new / scales[:, None],
        scales,
        total.explained[:-1] / total.explained[-1],
        explained_share(total.column_left, total.column_size, columns.width),
        before.objective,
        old * model.column_means_ + (1 - old) * means,
        impute_penalties(
            2 * float(total.divergence), total.amounts * scales / total.counts[1], total.counts[0] * columns.n_counted
        ),
        total,
    )


def without_target(method: Method) -> Method:
    """Mark a method that models with a target do not have."""
    return available_if(_has_no_target)(method)


def _has_no_target(model):
    if model.target_weight:
        raise AttributeError(
            f"target_weight is {model.target_weight}, and a target needs the rows of all batches at once: pass "
            "target_weight=0 for partial_fit, or fit all rows."
        )
    return True


def _table(problem, U, scales, each, model):
    """Return the rows of a problem with their balanced scores."""
    table = MemoryTable(problem.X, problem.weights, problem.missing, len(scales), 0, each, model.n_jobs)
    table.exact, table.sums = U, scales
    return table


def _allowed(above, kept, model):
    """Return W'X, with zeros where the limit has left no loading: there H has nothing to gain."""
    return above if model.n_nonzero_loadings is None else np.where(kept, above, 0.0)


def _strengths(penalty, columns, sums):
    return Strengths.of(penalty, columns.model.l1_ratio, sums.counts[1], columns.n_counted)


def _improved(H, sums, strengths, solver):
    """Return better loadings, given the sums."""
    if solver.sums_squares:
        stats = Statistics(sums.below, sums.above, sums.W_sums, sums.W_squares, 0.0)
        return solver.improve_components(H, stats, strengths, sums.shares, SWEEPS, ENOUGH)
    shares, r = 1.0 if sums.shares is None else sums.shares, _power(solver.loss)
    l1, l2 = sums.below + strengths.l1_H * shares, strengths.l2_H * shares * np.ones(H.shape[1])
    h = np.divide(sums.above, l1, out=np.zeros(H.shape), where=l1 > 0) ** (1 / r)
    # With L2 the root of (B + l1) h^r + l2 h^(r+1) = A: convex in h for r >= 1, so Newton steps come down to it.
    for _ in range(50 if l2.any() else 0):
        value, slope = l1 * h**r + l2 * h ** (r + 1) - sums.above, r * l1 * h ** (r - 1) + (r + 1) * l2 * h**r
        step = np.divide(value, slope, out=np.zeros(h.shape), where=slope > 0)
        h = np.maximum(h - step, 0)
        if (np.abs(step) <= 1e-12 * h).all():
            break
    return h


def _power(loss):
    return 1 / loss.exponent(False)


def _of_block(block, Wt, solver, H, order, factor):
    return solver.statistics(block, _changed(Wt, order, factor), H)


def _parts_of_block(block, Wt, solver, H, order, factor):
    return solver.parts(block, _changed(Wt, order, factor), H)


def _changed(Wt, order, factor):
    return np.ascontiguousarray(Wt[order] * np.reshape(factor, (-1, 1)), Wt.dtype)
