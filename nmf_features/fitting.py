"""From scaled rows to components in canonical form, and from these to the scores of other rows.

    problem_of -> solve -> canonical          the steps of a fit
    scores_of                                 scores of any rows; scores_of_table: of a table, as transform returns them

A solver ends with the balanced pair, which minimises the objective. Users see the canonical pair, so that the same data
give the same features: the loadings of a component sum to 1, its scores carry the scale, and the largest component
comes first. ``scales``, s, lead back: ``W / s`` and ``s[:, None] * H`` are the balanced pair.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import sparse

from ._warn import warn_user
from .core.blocks import fitted_at_stored, row_blocks, rows_of_stored, squares, with_data
from .core.explained import column_squares, explained_share
from .core.guide import fit_with_targets
from .core.missing import leaves_out_unstored, missing_of, penalised_counts
from .core.objective import divergence
from .core.penalties import balance
from .core.products import RESIDUAL_CELLS, gram, product, slices
from .core.projection import exact_scores, linear_scores
from .core.schedule import Problem, fit_loadings
from .core.units import in_units, largest, safe_scale
from .factorize import check_solver

OPTIONS = (
    "solver",
    "learning_rate",
    "init",
    "n_init",
    "max_iter",
    "tol",
    "random_state",
    "n_jobs",
    "n_nonzero_loadings",
)


@dataclass(frozen=True)
class Components:
    """The canonical form of a fit, and numbers that describe it; they become attributes of NMFFeatures."""

    W: np.ndarray
    H: np.ndarray
    scales: np.ndarray
    score_penalties: np.ndarray
    impute_penalties: np.ndarray
    explained: np.ndarray
    column_explained: np.ndarray
    objective: float
    alive: np.ndarray  # components with a positive score and a positive loading
    facts: "Facts"


def problem_of(columns, X, weights=None):
    """Return the Problem of scaled rows, with the parameters of the model that the columns belong to."""
    model, n_counted = columns.model, columns.n_counted
    missing = missing_of(X, n_counted, model.missing_values)
    check_solver(model.solver, model.learning_rate, columns.loss, missing)
    return Problem.of(
        X,
        largest(X),
        weights,
        missing,
        n_counted,
        loss=columns.loss,
        penalty=model.penalty,
        l1_ratio=model.l1_ratio,
        width=columns.width,
    )


def solve(model, problem, k, targets=None, **others):
    """Fit k components with the parameters of a model, or with ``others`` in their place.

    ``targets``, if any, are those of the rows that the problem was made of.
    """
    options = {name: getattr(model, name) for name in OPTIONS} | others
    plain = partial(fit_loadings, problem, k, **options)
    if targets is None:
        return plain()
    pairs = targets.chosen(problem.used).pairs
    return fit_with_targets(problem, k, pairs, model.target_weight, **options) if pairs else plain()


def canonical(fit, problem, n_counted, arrange=None):
    """Return the Components of a fit, whose scores are reordered in place.

    ``arrange`` returns another order of loadings that come in canonical order.
    """
    X, weights, missing, loss = problem.X, problem.weights, problem.missing, problem.loss
    H, by_column = fit.H / fit.sums[:, None], penalised_counts(X, missing, weights)[1]
    X, e = safe_scale(X, problem.top, loss)
    facts = facts_of(X, np.ldexp(fit.U, -2 * e) if e else fit.U, H, weights, missing, loss)
    order, found = in_canonical_form(facts, e, fit.H, fit.sums, problem, by_column, n_counted, arrange)
    for rows in row_blocks(fit.U, 0):  # in place: U may be large
        fit.U[rows] = fit.U[rows][:, order]
    return replace(found, W=fit.U)


class Facts(NamedTuple):
    """Sums over rows, with row weights, that describe a fit; u are the scores for loadings that sum to 1."""

    amounts: np.ndarray  # of u (k)
    sums: np.ndarray  # of u (k); here and in the next two rows count by their observed share, as in the penalty
    squares: np.ndarray  # of u^2 (k)
    counts: np.ndarray  # [sum of the rows, the same without the observed shares]
    explained: np.ndarray  # what each component explains (k), and what there is
    column_left: np.ndarray  # squares of the residual of each column (p)
    column_size: np.ndarray  # squares of each column (p)
    divergence: np.ndarray  # the loss, one number

    def chosen(self, order):
        """Return the same with the components in another order."""
        amounts, sums, squares = (values[order] for values in self[:3])
        explained = np.append(self.explained[:-1][order], self.explained[-1])
        return self._replace(amounts=amounts, sums=sums, squares=squares, explained=explained)

    def in_units(self, e, loss):
        """Return the facts of X, given those of X in units of 4^e; what leaves the range of floats is inf."""
        with np.errstate(over="ignore"):
            amounts, sums = (np.ldexp(values, 2 * e) for values in (self.amounts, self.sums))
            squares, left = (np.ldexp(values, 4 * e) for values in (self.squares, self.column_left))
            size = np.ldexp(self.column_size, 4 * e)
            explained = np.ldexp(self.explained, (4 if loss.squares else 2) * e)
        value = in_units(self.divergence, 2 * e * loss.degree)
        return Facts(amounts, sums, squares, self.counts, explained, left, size, value)


def facts_of(X, U, H, weights, missing, loss):
    """Return the Facts of some rows."""
    with np.errstate(over="ignore"):
        value = divergence(X, U, H.astype(X.dtype), loss, weights, leaves_out_unstored(missing))
    v = np.ones(len(U)) if weights is None else weights
    by_row = penalised_counts(X, missing, v)[0]
    return Facts(
        product(v, U),
        product(by_row, U),
        np.einsum("i,ij,ij->j", by_row, U, U),  # without a copy of U
        np.array([by_row.sum(), v.sum()]),
        _explained(X, U, H, weights, missing, loss),
        *column_squares(X, U, H, weights, missing),
        np.array(value),
    )


def in_canonical_form(facts, e, H, sums, problem, by_column, n_counted, arrange=None):
    """Return the canonical order of the components of a fit, and its Components, without scores, in this order.

    The facts are those of X in units of 4^e. H are the balanced loadings, divided by ``sums`` they sum to 1.
    """
    strengths, loss = problem.strengths, problem.loss
    scales = np.ones(len(H))
    if not any(strengths):  # the scale is free
        unit_sums = np.ldexp(sums, -e)
        W_sums, W_squares = np.ldexp(facts.sums / unit_sums, e), np.ldexp(facts.squares / unit_sums**2, 2 * e)
        scales = balance(W_sums, W_squares, H, problem.unit, by_column)
    unit_H = H / sums[:, None]
    # Largest total amount first, ties by the column of the largest loading.
    order = np.lexsort((unit_H.argmax(axis=1), -facts.amounts))
    if arrange is not None:
        order = order[arrange(unit_H[order])]
    unit_H, s = unit_H[order], (sums / scales)[order]
    with np.errstate(over="ignore"):
        value = in_units(float(facts.divergence), 2 * e * loss.degree)
        cost = strengths.l1_W * (np.ldexp(facts.sums, 2 * e)[order] / s).sum()
        if strengths.l2_W:
            norms = np.ldexp(np.sqrt(facts.squares[order]), 2 * e)
            cost += strengths.l2_W / 2 * np.square(norms / s).sum()
    amounts, (counted, weight) = np.ldexp(facts.amounts[order], 2 * e), facts.counts
    return order, Components(
        None,
        unit_H,
        s,
        np.array([strengths.l1_W, strengths.l2_W]),
        impute_penalties(2 * value, amounts / weight, counted * n_counted),
        facts.explained[:-1][order] / facts.explained[-1],
        explained_share(facts.column_left, facts.column_size, problem.width),
        float(value + cost) + strengths.cost(np.zeros(0), unit_H * s[:, None], columns=by_column),
        (facts.amounts[order] > 0) & unit_H.any(axis=1),
        facts.chosen(order).in_units(e, loss) if e else facts.chosen(order),
    )


def impute_penalties(residual, mean_scores, n_cells):
    """Return sigma^2 / mean(w)^2: the mean squared residual of a cell over the squared mean of the scores.

    For other losses than least squares, twice the divergence takes the place of the squared residual. Scores that fit
    few cells exactly also fit their noise. These are the L2 strengths for normal noise and a normal prior as wide as
    the exponential one with the same mean; without noise they are zero.
    """
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        found = residual / n_cells / np.square(mean_scores)
    return np.where(np.isfinite(found), found, 0.0)


def _explained(X, W, H, weights, missing, loss):
    """Return what each component explains of the sum of squares (for other losses, of the sum), and that sum.

    <WH, w_t h_t> of |X|^2, or sum(x w_t h_t / (WH)) of sum(x), over the observed cells, with row weights.
    """
    V = W if weights is None else W * weights[:, None]
    if loss.squares and (missing is None or (sparse.issparse(X) and not leaves_out_unstored(missing))):
        explained = (product(W.T, V).astype(np.float64) * gram(H)).sum(axis=1)
        if missing is not None:  # all cells, less the stored ones that are missing
            at = np.flatnonzero(np.isnan(X.data))
            rows, columns = rows_of_stored(X, at), X.indices[at]
            parts = W[rows] * H[:, columns].T
            explained -= product(parts.sum(axis=1) * (1.0 if weights is None else weights[rows]), parts)
        return np.append(explained, squares(X, weights))
    total, whole = np.zeros(len(H)), 0.0
    for rows in slices(X, RESIDUAL_CELLS):
        x = X[rows]
        if sparse.issparse(x):
            y, cells, counts = fitted_at_stored(x, W[rows].astype(np.float64), H), x.data, 1.0
            if weights is not None:
                counts = np.repeat(weights[rows], np.diff(x.indptr))
        else:
            y, cells, counts = product(W[rows], H), x, 1.0 if weights is None else weights[rows, None]
        part = y if loss.squares else np.divide(cells, y, out=np.zeros(y.shape), where=y > 0)
        part = np.where(np.isnan(cells), 0, part)
        whole += float(np.nansum(counts * (np.square(cells) if loss.squares else cells), dtype=np.float64))
        total += (V[rows] * (with_data(x, part) @ H.T if sparse.issparse(x) else product(part, H.T))).sum(axis=0)
    return np.append(total, whole)


def scores_of(columns, X, prior=0.0):
    """Return the exact scores of scaled rows: they minimise the objective of the balanced pair, in canonical form.

    ``prior`` holds L2 strengths that are added for rows with missing cells.
    """
    W = silent_scores_of(columns, X, prior)
    report_unobserved(int(np.isnan(W[:, 0]).sum()))
    return W


def silent_scores_of(columns, X, prior=0.0):
    """Return what :func:`scores_of` does, without its warning."""
    model = columns.model
    s, (l1, l2), loss = model.component_scales_, model.score_penalties_, columns.loss
    return exact_scores(X, model.components_, l1 / s, l2 / s / s, model.n_jobs, columns.missing(X), prior, loss)


def report_unobserved(n):
    """Warn of n rows without an observed cell."""
    if n:
        warn_user(f"X has {n} rows with nothing observed in the chosen columns: their scores are NaN.")


def scores_of_table(columns, table):
    """Return the scores of a checked table: exact ones, or those of the linear projection."""
    if columns.model.projection == "linear":
        return linear_scores(columns.scaled(table), columns.model.components_)
    return scores_of(columns, columns.scaled_by_rows(table))
