"""From a problem to its best loadings: where the loop starts, on which rows and in which precision.

Descents from many starts decide where the loop starts (race.py). A table of very many rows is first fitted on samples
of its rows (samples.py), so that most passes are cheap. Passes over such a table are in single precision until rounding
matters; convergence is judged in double precision. If few rows cannot tell minima apart, all rows decide. The problem
is symmetric in X and X', so a wide table is transposed: the factor with momentum is then the smaller one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np
from scipy import sparse
from sklearn.utils import check_array, check_random_state

from .blocks import row_blocks
from .checks import check_columns, numbers_wanted
from .compiling import compiled
from .descent import Descent
from .kernels import leads_to
from .loss import Loss
from .losses import check_range
from .missing import Missing, column_means, leaves_out_unstored, observed_in_rows
from .objective import divergence
from .penalties import Strengths
from .projection import exact_scores, scores_of_used
from .race import ROUGH_TOL, SAME, asks_less, is_raced, race
from .race import TOL as RACE_TOL
from .samples import Rows
from .solvers import is_default, solver_maker
from .starts import STARTS, nndsvda, starts
from .support import Limit, SupportSearch
from .tables import MemoryTable
from .threads import workers
from .units import in_units, largest, safe_scale
from .watch import Watch

SAMPLE_ROWS = 2000  # in the smallest sample that a table is fitted on first (race.py has its own)
# The best loadings for a sample are not the best for all rows: with m rows about k / m of the objective is fitted
# noise, and a smaller gain is not worth many passes. Slow convergence is still cheaper on a sample.
SAMPLE_TOL, SAMPLE_PASSES = 1e-4, 20
LONG_CELLS = 1 << 21  # larger tables are fitted on samples first; for smaller ones that saves nothing
SAMPLE_MARGIN = 0.005  # minima on a sample this close to the best go on to the next
NEXT_TO_NOTHING = 1e-100  # share of the largest loading: squares of smaller ones may vanish
JUDGING_PASSES, AFTER_SAMPLES = 8, 3  # passes over all rows that judge loadings found on few rows, and on many
SUPPORT_CELLS = 1 << 16  # of the sample on which the columns of components are chosen, where their number is limited
SINGLE = np.dtype(np.float32)


@dataclass(frozen=True)
class Problem:
    """The rows that loadings are fitted to, and the terms of the objective.

    ``used`` marks these rows among those that were given: they have positive weight and an observed cell. ``weights``
    are positive, or None. ``missing`` says which cells are missing, or is None. ``unit`` holds the strengths at penalty
    1, which decide how scale is shared between W and H. ``width`` columns side by side count as one where their number
    is limited.
    """

    X: np.ndarray
    top: float  # largest cell
    weights: np.ndarray | None
    missing: Missing | None
    loss: Loss
    strengths: Strengths
    unit: Strengths
    used: np.ndarray
    width: int = 1

    @classmethod
    def of(cls, X, top, weights, missing, n_counted, *, loss, penalty, l1_ratio, width=1):
        """Return the problem for checked data, of whose columns ``n_counted`` count in the penalty."""
        used = _rows_to_fit(X, missing, weights)
        if not used.all():
            X, weights = X[used], None if weights is None else weights[used]
            top = largest(X)
        n = X.shape[0] if weights is None else float(weights.sum())
        check_range(top, loss, penalty, l1_ratio)
        if missing is not None:
            check_columns(X)
        strengths, unit = (Strengths.of(q, l1_ratio, n, n_counted) for q in (penalty, 1.0))
        return cls(X, top, weights, missing, loss, strengths, unit, used, width)


def _rows_to_fit(X, missing, weights):
    """Return which rows are fitted: those of positive weight with an observed cell."""
    used = np.ones(X.shape[0], dtype=bool) if weights is None else weights > 0
    if missing is not None:
        used &= observed_in_rows(X, missing) > 1e-12
        if not used.any():
            raise ValueError("X has no observed cell in any row that counts: there is nothing to fit.")
    return used


@dataclass(frozen=True)
class Fit:
    """The result of the loop: loadings H, their sums, and the exact scores U for loadings divided by their sums.

    ``precise`` says whether the objective has all its digits: it comes from sums, which may cancel. ``stopped`` says
    whether its watch ended the fit.
    """

    U: np.ndarray
    sums: np.ndarray
    H: np.ndarray
    objective: float
    precise: bool
    n_iter: int
    converged: bool
    history: np.ndarray
    kkt_residual: float
    stopped: bool = False

    @classmethod
    def of(cls, run, U, sums, H, e, precise):
        """Return the Fit of a settled descent in units of 4^e, for scores U that are not."""
        history = np.maximum.accumulate(run.history[::-1])[::-1]  # only rounding makes it rise
        history, value = (in_units(q, 2 * e * run.loss.degree) for q in (history, run.objective))
        H, sums = np.ldexp(H, e), np.ldexp(sums, e)
        stopped = run.watch.stopped
        return cls(
            U, sums, H, float(value), precise, run.n_iter, run.converged, history, run.kkt_residual, stopped
        )  # fmt: skip


def fit_loadings(
    problem,
    n_components,
    *,
    solver,
    learning_rate,
    init,
    n_init,
    max_iter,
    tol,
    random_state,
    n_jobs,
    n_nonzero_loadings=None,
    watch=None,
):
    """Fit loadings from one or more starts; return the best by objective, as a Fit.

    ``watch``, a Watch, is told of each pass and may end the fit early; so does an exception from it.
    """
    watch = watch or Watch()
    weights, missing, loss, unit = problem.weights, problem.missing, problem.loss, problem.unit
    n, p = problem.X.shape
    k, rng, init = n_components, check_random_state(random_state), checked_init(init, n_components, p)
    X, e, strengths = in_safe_units(problem)
    if k == 0:
        nothing = np.zeros((n, 0), X.dtype), np.zeros((0, p))
        value = divergence(X, *nothing, loss, weights, leaves_out_unstored(missing))
        value = float(in_units(value, 2 * e * loss.degree))
        W, H, history = np.zeros((n, 0), X.dtype), np.zeros((0, p)), np.array([value])
        return Fit(W, np.zeros(0), H, value, True, 0, True, history, 0.0)
    limit = Limit.of(n_nonzero_loadings, problem.width, p)
    if limit is not None:
        limit.check(k, column_means(X, weights, missing) > 0, loss)
    # Row weights, and exact scores with missing cells, belong to rows: such tables are not transposed. Small tables
    # gain nothing by it, and for other losses rows and columns are treated alike. A limit belongs to columns.
    plain = weights is None and missing is None and limit is None
    wide, as_given = p > max(n, 200) and plain and loss.squares, X
    if wide:
        order = slice(None)  # of these rows as columns, which starts depend on: the same one in any order of the rows
        if isinstance(init, str):
            order = Rows(MemoryTable(X), loss.power).order
        X = X[order].T.tocsr() if sparse.issparse(X) else X[order].T
        strengths, unit = _swap(strengths), _swap(unit)
    if not isinstance(init, str):
        init = np.ldexp(init, -e)
        if wide:  # the loop starts from the other factor
            init = exact_scores(as_given, init, strengths.l1_H, strengths.l2_H, n_jobs)[order].T.astype(np.float64)

    search = Search.of(
        loss, strengths, unit, missing, e, solver=solver, learning_rate=learning_rate, init=init, n_init=n_init,
        rng=rng, max_iter=max_iter, tol=tol, limit=limit, watch=watch,
        single=_fits_single(X.dtype, np.ldexp(problem.top, -2 * e), strengths),
    )  # fmt: skip
    watch.begin(X.shape[0], 2 * e * loss.degree)
    with workers(n_jobs, len(row_blocks(X, k))) as each:
        best = search.run(MemoryTable(X, weights, missing, k, search.solver().per_row(k), each, n_jobs))
    U, sums, H = best.table.exact, best.table.sums, best.H
    if wide:
        H = (U / sums).T.astype(np.float64)
        U, sums, H = scores_of_used(as_given, H, _swap(strengths), n_jobs)
    precise = best.solver.sums_squares and not wide and best.rounding < 1e-10 * best.objective
    return Fit.of(best, np.ldexp(U, 2 * e) if e else U, sums, H, e, precise)


def fit_table(
    problem,
    table_of,
    n_components,
    *,
    solver,
    learning_rate,
    init,
    n_init,
    max_iter,
    tol,
    random_state,
    n_nonzero_loadings=None,
    watch=None,
):
    """Fit loadings to a table whose rows are not in memory; return the Fit, without scores, and the table with them.

    ``table_of(k, per_row)`` makes the table for a problem without rows of its own, in units of 4^``problem.e``.
    """
    k, loss, missing, e, watch = n_components, problem.loss, problem.missing, problem.e, watch or Watch()
    strengths = shrunk(problem.strengths, e, loss, problem.dtype)
    init = checked_init(init, k, problem.p)
    search = Search.of(
        loss, strengths, problem.unit, missing, e, solver=solver, learning_rate=learning_rate,
        init=init if isinstance(init, str) else np.ldexp(init, -e), n_init=n_init, rng=check_random_state(random_state),
        max_iter=max_iter, tol=tol, limit=Limit.of(n_nonzero_loadings, problem.width, problem.p), watch=watch,
        single=_fits_single(problem.dtype, np.ldexp(problem.top, -2 * e), strengths),
    )  # fmt: skip
    table = table_of(k, search.solver().per_row(k))
    watch.begin(table.shape[0], 2 * e * loss.degree)
    if search.limit is not None:
        search.limit.check(k, table.summary().column_sums > 0, loss)
    best = search.run(table)
    return Fit.of(best, None, best.table.sums, best.H, e, False), best.table


def checked_init(init, k, p):
    """Return a start: its name, or loadings as an array."""
    if isinstance(init, str):
        return init
    with numbers_wanted("init"):
        init = check_array(init, dtype=np.float64, input_name="init", ensure_min_samples=0)
    if init.shape != (k, p) or init.min(initial=0.0) < 0:
        raise ValueError(
            f"init has shape {init.shape} and minimum {init.min(initial=0.0):g}; wanted non-negative loadings of "
            f"shape (n_components, n_features) = {(k, p)}, or one of {sorted(STARTS)}."
        )
    return np.where(init < NEXT_TO_NOTHING * init.max(initial=0.0), 0.0, init)


def in_safe_units(problem):
    """Return X in units of 4^e, in which nothing overflows, e, and the strengths there; W and H are in units of 2^e."""
    X, e = safe_scale(problem.X, problem.top, problem.loss)
    return X, e, shrunk(problem.strengths, e, problem.loss, X.dtype)


def shrunk(strengths, e, loss, dtype):
    """Return the strengths in units of 4^e."""
    with np.errstate(over="ignore"):
        most = 1e150 if dtype == np.float64 else 1e15  # finite, so that 0 stays 0 and sums over p stay finite
        shrink = np.minimum(np.exp2(np.array([e, e, 2 * e, 2 * e]) - 2 * e * loss.degree), most)
        return Strengths(*np.minimum(np.multiply(strengths, shrink), 1e300).tolist())


@dataclass(frozen=True)
class Search:
    """The search for a table's best loadings: races, then descents on samples of its rows, then on all rows.

    ``races`` says whether races choose the starts, ``samples`` whether samples may be fitted before all rows,
    ``single`` whether single precision is good enough then. ``limit`` is that of the columns of a component.
    """

    loss: Loss
    strengths: Strengths
    unit: Strengths
    solver: Callable
    init: str | np.ndarray
    n_init: int
    rng: np.random.RandomState
    max_iter: int
    tol: float
    watch: Watch
    races: bool
    samples: bool = True
    single: bool = True
    limit: Limit | None = None

    @classmethod
    def of(cls, loss, strengths, unit, missing, e, *, solver, learning_rate, init, **others):
        """Return the search for a named solver, and a learning rate, if any, for data that are now in units of 4^e."""
        if learning_rate is not None:
            learning_rate = np.ldexp(learning_rate, 2 * e)
        return cls(
            loss, strengths, unit, solver_maker(solver, loss, missing, learning_rate), init,
            races=isinstance(init, str) and init == "auto" and is_default(solver, loss, missing),
            samples=learning_rate is None,  # a learning rate suits one number of rows
            **others,
        )  # fmt: skip

    def run(self, table):
        """Return the settled descent with the lowest objective; its table holds exact scores.

        With ``n_init`` above 1, other minima may be followed than with 1. So the result for 1 competes as well: more
        starts never end higher.
        """
        if self.races and self.n_init > 1:
            first = replace(self, n_init=1).run(table)
            return first if self.watch.stopped else min(first, self._run(table), key=lambda run: run.objective)
        return self._run(table)

    def _run(self, table):
        solver, pool, n = self.solver(), table.pool(), table.shape[0]
        sizes = sample_sizes(pool, not solver.sums_squares) if self.samples else [pool.shape[0]]
        if pool.shape[0] < n:
            sizes = [*sizes, n] if self.samples else [n]
        rough = len(sizes) > 1 and solver.rough and self.single
        races = self.races and is_raced(pool.shape, table.k, pool.missing)
        by_content = Rows(pool, self.loss.power) if races or len(sizes) > 1 else None
        left, doubtful = None, False
        if races:
            how = self.loss, self.strengths, self.watch, self.n_init, self.tol
            left, doubtful = race(pool, by_content, table.k, *how)
            doubtful |= pool.shape[0] < n and not asks_less(self.tol, ROUGH_TOL, pool.missing)
        drawn = {m: by_content.sample(m) for m in sizes[:-1] if m < pool.shape[0]}
        by_content = None  # frees its memory
        judged = left is not None and self.tol >= RACE_TOL  # the race made five passes of little gain
        given = pool.missing is not None and self.loss.squares and not isinstance(self.init, str)
        good = left is not None or given  # given loadings would be spoilt by passes from imputed column means
        for m in sizes:
            first, last = m == sizes[0], m == n
            rows = table if last else pool if m == pool.shape[0] else pool.sample(*drawn[m])
            tol = self.tol if last else max(self.tol * m / n, min(SAMPLE_TOL, table.k / (SAMPLE_PASSES * m)))
            window, dtype = 2 if last and (judged or not first) else 5, SINGLE if rough else table.dtype
            descent = partial(self._descent, rows, dtype, tol, window)
            passes = self.max_iter * (n // m)  # a pass over a sample costs its share of one over all rows
            if left is None:
                left = self._named_starts(rows)
            if first and doubtful:  # few rows may miss what more rows show
                left = [*left, self._start(nndsvda, rows)]
            if not last and not self.watch.stopped:
                left, good = _best_of(descent, left, passes, good), True
        if self.watch.stopped:
            left = left[:1]
        if good and len(left) > 1 and self.n_init == 1:
            best = _judged(descent(), left, passes, JUDGING_PASSES if len(sizes) == 1 else AFTER_SAMPLES)
            return self._limited(best.settle(self.max_iter))

        # A race ended at its own tolerance, and k / m of the objective is what a sample of m rows fits to noise: a
        # tolerance above both asks for no pass over all rows.
        known = max(RACE_TOL, table.k / sizes[-2] if len(sizes) > 1 else 0)
        ready = good and self.tol > known and pool.missing is None and (self.loss.squares or self.loss.counts)

        # Exact scores cost like many passes: unless more than one start was asked for, only the best gets them.
        one = self.n_init == 1 and self.limit is None

        def ends():
            for H in left:
                run = descent().begin_at(H) if ready else descent().run(H, passes, good)
                yield run if one else self._limited(run.settle(self.max_iter))
                if self.watch.stopped:
                    return

        if one:
            return min(ends(), key=lambda run: run.value).settle(self.max_iter)
        return min(ends(), key=lambda run: run.objective)

    def _limited(self, run):
        """Continue a settled descent with the best columns of each component, where their number is limited."""
        if self.limit is None or not self.limit.binds(run.H):
            return run
        table, passes = run.table.pool(), run.n_iter
        m = max(SUPPORT_CELLS * table.shape[0] // max(table.n_cells, 1), 10 * table.k, 100)
        if m < table.shape[0]:
            table = table.sample(*Rows(table, self.loss.power).sample(m))
        trial = self._descent(table, table.dtype, max(self.tol, RACE_TOL), window=5)
        known = []
        if isinstance(self.init, str) and self.init == "auto":
            rows, weights = table.in_memory()
            known = list(islice(starts(rows, table.k, weights), 2))
        found = SupportSearch(trial, self.limit).best(run.H, known)
        if table is not run.table and not self.watch.stopped:
            found = SupportSearch(run.restart(), self.limit).exchanged(found)
        run.restart().restrict(found.support)
        run.run(found.H, self.max_iter, True).settle(self.max_iter)
        run.n_iter += passes
        return run

    def _descent(self, table, dtype, tol, window):
        return Descent(
            table.fresh(), dtype, loss=self.loss, strengths=self.strengths, unit=self.unit, solver=self.solver(),
            tol=tol, window=window, watch=self.watch,
        )  # fmt: skip

    def _named_starts(self, table):
        """Return the starts that were asked for, made from the rows of a table."""
        if isinstance(self.init, str) and self.init == "auto":
            X, weights = table.in_memory()
            rough = asks_less(self.tol, ROUGH_TOL, table.missing)
            few = self.n_init if table.k < 2 or rough else max(2, self.n_init)
            return list(islice(starts(X, table.k, weights), few))
        first = self._start(STARTS[self.init], table) if isinstance(self.init, str) else self.init
        return [first, *(self._start(STARTS["random"], table) for _ in range(self.n_init - 1))]

    def _start(self, method, table):
        X, weights = table.in_memory()
        return method(X, table.k, self.rng, weights)


def _best_of(descent, left, passes, good):
    """Return the loadings that descents on a sample lead to, best first, without clearly worse ones."""
    met = []
    for H in left:
        run = descent().run(H, passes, good)
        met.append((run.value, run.H))
        if run.watch.stopped:
            break
    met.sort(key=lambda pair: pair[0])
    near = [H for value, H in met if value <= (1 + SAMPLE_MARGIN) * met[0][0]]
    return _distinct(near or [met[0][1]])


def _judged(run, left, passes, most):
    """Return the descent from the loadings that are best after at most ``most`` passes over all rows."""
    most = min(passes, most)
    best, least = None, np.inf
    for H in reversed(left):  # all use the same memory; the likely best one comes last, and continues
        if best is not None:
            run.restart()
        run.run(H, most, True)
        # Closer values are one minimum, and rounding must not decide; an exact fit may be slightly below zero.
        if run.value <= least + SAME * abs(least):
            best = run.H
        least = min(least, run.value)
        if run.watch.stopped:
            break
    best = left[0] if best is None else best  # nothing could be computed
    if run.H is not best:
        run.restart().run(best, passes, True)
    return run if run.converged else run.run(run.H, passes)


def _distinct(loadings):
    """Drop loadings whose components all point where those of earlier ones do: they lead to the same minimum."""
    kept = []
    for H in loadings:
        if not any(compiled(leads_to)(H, other) for other in kept):
            kept.append(H)
    return kept


def _fits_single(dtype, top, strengths):
    """Whether rows can be fitted in single precision: no sum of squares, nor any penalty, overflows or vanishes."""
    return dtype != SINGLE and 1e-10 < top < 1e10 and max(strengths) < 1e30


def _swap(strengths):
    """Return the strengths of the transposed problem."""
    return Strengths(strengths.l1_H, strengths.l1_W, strengths.l2_H, strengths.l2_W)


def sample_sizes(table, large=False):
    """Return the sizes of the samples that a long table is fitted on, each many times the last one; then all rows.

    The loadings from a small sample are a warm start for the larger one, which then needs few passes. If passes are
    expensive (``large``), smaller tables count as long too, and samples grow in smaller steps.
    """
    (n, p), cells, step = table.shape, table.n_cells, 4 if large else 16
    # enough rows: two for each column, or 20 stored cells in each
    least = max(SAMPLE_ROWS, 10 * table.k, 20 * n * p // max(cells, 1) if table.is_sparse else 2 * p)
    sizes, m = [n], n // step
    while cells > (LONG_CELLS // 16 if large else LONG_CELLS) and m >= least:
        sizes.insert(0, m)
        m //= step
    return sizes
