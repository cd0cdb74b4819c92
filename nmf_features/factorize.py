"""factorize(): X ~ W H with W, H >= 0, on plain arrays. The one loop.

X is n_samples x n_features; W (n_samples x k) holds the scores, H (k x n_features) the loadings. Half the
literature, Lee & Seung included, puts samples in columns: their W is our H', their H our W'.

    for each block of rows X_b:                 # X is read once per pass
        W_b   <- improve W_b given H            # rows independent
        stats += (W_b' W_b, W_b' X_b)
    H <- improve H given stats                  # touches no data
    objective, KKT residual of H <- from stats  # free

Where the loop begins is settled by descents from many starts on few rows (race.py). A table of very many rows is fitted
on samples of them first (samples.py), so that most passes are cheap ones; there they are made in single precision, as
far as its rounding does not tell. All rows decide between what few of them hold for equally good, and the end is judged
in double. The loadings are extrapolated (Nesterov) and the extrapolation restarts where the objective would rise. The
problem is symmetric in X and X', so a wide table is solved as its transpose: momentum then sits on the
smaller factor. The scores that are returned are exact (projection.py), not the loop's own.

References: A. Cichocki and A.-H. Phan (2009), HALS; A. M. S. Ang and N. Gillis (2019), Accelerating nonnegative
matrix factorization algorithms using extrapolation.
"""

from dataclasses import dataclass
from functools import partial
from itertools import islice
from numbers import Integral, Real

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from ._warn import numpy_defaults, warn_user
from .blocks import (
    Block,
    filled,
    loadings_times,
    positive_residual,
    row_blocks,
    scores_times,
    take,
    workers,
)
from .init import STARTS, nndsvda, starts
from .losses import (
    BETA_LOSSES,
    Missing,
    Strengths,
    balance,
    check_beta,
    check_columns,
    check_domain,
    check_range,
    check_weights,
    divergence,
    extremes,
    in_units,
    largest,
    leaves_out_unstored,
    missing_of,
    objective,
    observed_shares,
    penalised_counts,
    safe_scale,
    without_duplicates,
)
from .products import inner, product
from .projection import exact_scores, unit_scores
from .race import SAME, race
from .race import TOL as RACE_TOL
from .samples import Rows
from .solvers import DIVERGENCE_SOLVERS, SOLVERS, total

SWEEPS, CAREFUL_SWEEPS = 10, 50  # most sweeps over the scores per product with X, and at the start and the end
MORE_ROUNDS = 5  # of passes after exact scores, where these may always differ from those of the passes
SAMPLE_ROWS = 2000  # in the smallest sample that a table is fitted on first, but for that of race.py
# The best loadings for a sample are not the best for all rows: from m rows some k / m of the objective is fitted to
# their noise, and less than that is not worth many passes. Slow passes are better made on a sample all the same.
SAMPLE_TOL, SAMPLE_PASSES = 1e-4, 20
LONG_CELLS = 1 << 21  # of tables that are fitted on samples first; for others it saves nothing
SAMPLE_MARGIN = 0.005  # minima on a sample that differ by less go on to the next
JUDGING_PASSES, AFTER_SAMPLES = 8, 3  # over all rows, from loadings of few rows and of many
SAME_DIRECTION = 0.999  # cosine of components that lead to one minimum
GOOD_PASSES = 2  # over the scores alone, from loadings that are near a minimum
NOTHING = 1e-14  # a component that explains less of the sum of X has sunk to zero
SINGLE = np.dtype(np.float32)
KEPT_CELLS = 1 << 21  # of tables that are rounded once, and not block by block in every pass

# What factorize() and NMFFeatures accept, said once. Names are looked up when they are checked, so that what is added
# to a registry is accepted.
PARAMETERS = {
    "n_components": [Interval(Integral, 0, None, closed="left")],
    "penalty": [Interval(Real, 0, None, closed="left")],
    "l1_ratio": [Interval(Real, 0, 1, closed="both")],
    "beta_loss": [StrOptions(BETA_LOSSES.keys()), Interval(Real, None, None, closed="neither")],
    "solver": [StrOptions(SOLVERS.keys()), StrOptions(DIVERGENCE_SOLVERS.keys())],
    "learning_rate": [Interval(Real, 0, None, closed="neither"), None],
    "init": [StrOptions({"auto"}), StrOptions(STARTS.keys()), "array-like"],
    "n_init": [Interval(Integral, 1, None, closed="left")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "tol": [Interval(Real, 0, None, closed="left")],
    "missing_values": [StrOptions({"raise", "ignore", "unstored"})],
    "random_state": ["random_state"],
    "n_jobs": [Interval(Integral, 1, None, closed="left"), Interval(Integral, None, -1, closed="right"), None],
}


@dataclass(frozen=True)
class Factorization:
    """What :func:`factorize` found.

    Attributes
    ----------
    W : ndarray of shape (n_samples, n_components)
        Scores.
    H : ndarray of shape (n_components, n_features)
        Loadings.
    objective : float
        ``objective(X, W, H, penalty, l1_ratio)``. It overflows to ``inf`` where squares of X do.
    n_iter : int
        Passes over all rows (those over samples of them are not counted).
    converged : bool
        Whether the stopping rule was met within ``max_iter`` passes.
    history : ndarray
        Objective after each accepted pass over all rows, in the best start; it never rises. With missing cells it may
        be an upper bound, met at the end; for beta outside of 1 to 2, where exact scores may be worse than those met on
        the way, it is not below the objective of the result.
    kkt_residual : float
        How far the fit is from stationary: the largest violation of the conditions of Karush, Kuhn and Tucker by the
        loadings, max |min(H, gradient / curvature)|, relative to the largest (of a wide table, which is turned round,
        by the scores, before the last step).
    """

    W: np.ndarray
    H: np.ndarray
    objective: float
    n_iter: int
    converged: bool
    history: np.ndarray
    kkt_residual: float


@dataclass(frozen=True)
class _Fit:
    """What the loop ends with: loadings, their sums, and the exact scores for loadings divided by their sums.

    ``precise`` says whether the objective has all its digits: it comes from sums, of which little may be left.
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


@dataclass(frozen=True)
class Problem:
    """Rows to fit loadings to, and what is minimised there.

    ``used`` says which of the rows that were given these are: those of positive weight in which something is observed.
    ``weights`` of the rows are positive, or None. ``missing`` says which cells are, None where none is. ``unit`` holds
    the strengths at penalty 1: they say how scale is shared between W and H.
    """

    X: np.ndarray
    top: float  # largest cell
    weights: np.ndarray | None
    missing: Missing | None
    beta: float
    strengths: Strengths
    unit: Strengths
    used: np.ndarray

    @classmethod
    def of(cls, X, top, weights, missing, n_counted, *, beta_loss, penalty, l1_ratio):
        """Return the problem of checked data, of whose columns ``n_counted`` count in the penalty."""
        used = _rows_to_fit(X, missing, weights)
        if not used.all():
            X, weights = X[used], None if weights is None else weights[used]
            top = largest(X)
        n = X.shape[0] if weights is None else float(weights.sum())
        check_range(top, check_beta(beta_loss), penalty, l1_ratio)
        if missing is not None:
            check_columns(X)
        strengths, unit = (Strengths.of(q, l1_ratio, n, n_counted) for q in (penalty, 1.0))
        return cls(X, top, weights, missing, check_beta(beta_loss), strengths, unit, used)


@validate_params({"X": ["array-like", "sparse matrix"], **PARAMETERS}, prefer_skip_nested_validation=True)
@numpy_defaults
def factorize(
    X,
    n_components,
    *,
    penalty=0.001,
    l1_ratio=1.0,
    beta_loss="frobenius",
    solver="auto",
    learning_rate=None,
    init="auto",
    n_init=1,
    max_iter=1000,
    tol=1e-5,
    random_state=None,
    n_jobs=None,
    missing_values="raise",
    sample_weight=None,
):
    """Factorise a non-negative matrix, X ~ W H with W, H >= 0.

    Minimises :func:`~nmf_features.objective`. The scale between W and H, which the fit alone leaves open, is
    the one that costs least penalty (at penalty 0, the limit of small penalties).

    Parameters
    ----------
    X : array-like or sparse matrix of shape (n_samples, n_features)
        Data, finite and non-negative. Sparse data stay sparse. float32 is kept, everything else becomes
        float64. Never changed.
    n_components : int
        Number of components k, 0 or more.
    penalty : float, default 0.001
        Strength of the penalty on both factors; larger is sparser.
    l1_ratio : float, default 1.0
        Share of the penalty that is L1; the rest is L2.
    beta_loss : {"frobenius", "kullback-leibler", "itakura-saito"} or float, default "frobenius"
        What is minimised: see :func:`~nmf_features.objective`. "kullback-leibler" is for counts and takes zeros,
        "itakura-saito" (and any number up to 0) takes positive data only. A number is beta itself.
    solver : {"auto", "hals", "newton", "mu", "als", "gradient"}, default "auto"
        "auto" is the fast one for the loss: for Frobenius "hals", hierarchical alternating least squares with
        extrapolation, else "newton", Newton steps on whole rows and columns. The others are those of the textbooks,
        and far slower: "mu", Lee and Seung's multiplicative updates, for every loss; and for Frobenius "als", least
        squares cut off at zero, which may rise and keeps the best loadings it met, and "gradient", projected gradient
        descent. "newton" takes p k^2 / 2 numbers more than the data, but for sparse data with "kullback-leibler".
    learning_rate : float, optional
        Fixed step of ``solver="gradient"``. None: found anew at each step, so that the objective never rises.
    init : {"auto", "nnsvd-lrc", "nndsvda", "random"} or array-like of shape (n_components, n_features)
        Where the loadings start. "auto", the default, tries starts one after the other, always the same ones, until the
        best minimum that is met has been met several times: from singular vectors, from rotations of them, and from the
        best minimum so far with one component replaced. It follows them on few rows where there are many. For textbook
        solvers, very wide or sparse data, and unstored cells it takes "nnsvd-lrc" and "nndsvda", both to the end. A
        named or given start runs alone: from singular vectors (deterministic), at random, or as given.
    n_init : int, default 1
        How many starts are run to the end, of which the best by objective is kept. With "auto" they are the best of as
        many times more that are tried. Else the first is ``init``, and the others are random.
    max_iter : int, default 1000
        Most passes over the data for each start, and n / m times as many over each sample of m of its n rows.
    tol : float, default 1e-5
        Stop when the objective falls by less than this share of itself per pass (mean of five, of two where samples
        went before) and the KKT residual of the loadings, relative to the largest, is below its square root.
    random_state : int, RandomState instance or None, default None
        Seed of the random starts. "auto" uses none.
    n_jobs : int or None, default None
        Threads. None: as many as the process may use (its CPU affinity, and ``OMP_NUM_THREADS`` if set). The
        result is the same, bit for bit, for any number.
    missing_values : {"raise", "ignore", "unstored"}, default "raise"
        What NaN in X means: an error, or cells that were not observed and are left out. With "unstored" so are the
        cells that a sparse X does not store (ratings, say), which are zeros otherwise. A row in which nothing was
        observed has NaN scores.
    sample_weight : array-like of shape (n_samples,), optional
        Weights of the rows, 0 or more. A row of weight 2 counts as the row twice, a row of weight 0 as none (it gets
        scores all the same).

    Returns
    -------
    Factorization
        With ``W``, ``H``, ``objective``, ``n_iter``, ``converged`` and ``history``.

    Raises
    ------
    ValueError
        If X has NaN (and ``missing_values="raise"``), infinite or negative entries, no rows or no columns, or no
        observed cell in any row that counts; zeros where the loss is infinite there; columns more than 93 decades apart
        where cells are missing; if ``init`` does not fit, or the solver does not know the loss; or for weights that are
        negative, not finite, all zero or not one for each row.
        ``InvalidParameterError``, a ValueError, for parameters of a wrong type or out of range.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` was reached.
    UserWarning
        If the penalty empties the model, components stay zero because nothing is left to explain, or rows have no
        observed cell.

    References
    ----------
    A. Cichocki and A.-H. Phan (2009), Fast local algorithms for large scale nonnegative matrix and tensor
    factorizations, IEICE Transactions E92-A; A. M. S. Ang and N. Gillis (2019), Accelerating nonnegative
    matrix factorization algorithms using extrapolation, Neural Computation 31; C. Fevotte and J. Idier (2011),
    Algorithms for nonnegative matrix factorization with the beta-divergence, Neural Computation 23.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_features import factorize
    >>> X = np.array([[1.0, 1, 0, 0], [3, 3, 0, 0], [0, 0, 4, 4], [0, 0, 2, 2]])
    >>> result = factorize(X, 2, penalty=0)
    >>> np.round(result.W @ result.H, 6)
    array([[1., 1., 0., 0.],
           [3., 3., 0., 0.],
           [0., 0., 4., 4.],
           [0., 0., 2., 2.]])
    """
    X = check_array(
        X,
        accept_sparse="csr",
        dtype=[np.float64, np.float32],
        input_name="X",
        ensure_all_finite=False,
    )
    X = without_duplicates(X)
    cells, (least, top) = X.data if sparse.issparse(X) else X, extremes(X)
    if not np.isfinite([least, top]).all():
        check_array(X, accept_sparse="csr", dtype=None, input_name="X", ensure_all_finite="allow-nan")
        least, top = np.nanmin(cells, initial=0.0), largest(X)
    if least < 0:
        raise ValueError(
            f"X has {np.count_nonzero(cells < 0)} negative values; NMF needs X >= 0. Shift the columns first, "
            "for example with NonNegativeScaler(), or use NMFFeatures, which does."
        )
    missing = missing_of(X, X.shape[1], missing_values)
    if missing is not None and missing_values == "raise":
        raise ValueError(
            f"X has {np.count_nonzero(np.isnan(cells))} NaN or missing values. Pass "
            'missing_values="ignore" to leave them out, or impute them first.'
        )
    check_solver(solver, learning_rate, beta_loss, missing)
    check_domain(X, beta_loss, missing)
    weights = check_weights(sample_weight, X)
    problem = Problem.of(X, top, weights, missing, X.shape[1], beta_loss=beta_loss, penalty=penalty, l1_ratio=l1_ratio)
    fit = fit_loadings(
        problem,
        n_components,
        solver=solver,
        learning_rate=learning_rate,
        init=init,
        n_init=n_init,
        max_iter=max_iter,
        tol=tol,
        random_state=random_state,
        n_jobs=n_jobs,
    )
    c = free_scale(fit, problem)
    U, q, whole = fit.U, problem.strengths, problem.used.all()
    if not whole:
        U = unit_scores(X, fit.H, q.l1_W, q.l2_W, n_jobs, missing, beta=problem.beta)[0]
    if empty := int(np.isnan(U[:, :1]).sum()):
        warn_user(f"X has {empty} rows with nothing observed: their scores are NaN.")
    W, H = U * (c / fit.sums).astype(X.dtype), (fit.H / c[:, None]).astype(X.dtype)
    value = fit.objective
    if not fit.precise:
        with np.errstate(over="ignore"):
            unstored = "unstored" if missing_values == "unstored" else "ignore"
            value = objective(X, W, H, penalty, l1_ratio, sample_weight, beta_loss, unstored)
    W_fitted = W if whole else W[problem.used]
    warn_of_outcome(fit, value, W_fitted, H, penalty, max_iter, tol, range(n_components))
    return Factorization(W, H, value, fit.n_iter, fit.converged, fit.history, fit.kkt_residual)


def check_solver(solver, learning_rate, beta_loss, missing):
    """Refuse a solver that does not know the loss, and a rate that would do nothing."""
    if learning_rate is not None and solver != "gradient":
        raise ValueError(f'learning_rate={learning_rate} is of use with solver="gradient" only; solver is {solver!r}.')
    known = solvers_of(check_beta(beta_loss), missing)
    if solver not in known:
        what = f"beta_loss={beta_loss!r}" if check_beta(beta_loss) != 2 else 'missing_values="unstored"'
        raise ValueError(f"solver={solver!r} does not know {what}; wanted one of {sorted(known)}.")


def solvers_of(beta, missing):
    """Return the solvers that know the loss and what is missing."""
    return SOLVERS if beta == 2 and not leaves_out_unstored(missing) else DIVERGENCE_SOLVERS


def _rows_to_fit(X, missing, weights):
    """Return which rows say anything: those of positive weight with something observed."""
    used = np.ones(X.shape[0], dtype=bool) if weights is None else weights > 0
    if missing is not None:
        used &= observed_shares(X, missing)[0] > 1e-12
        if not used.any():
            raise ValueError("X has no observed cell in any row that counts: there is nothing to fit.")
    return used


def free_scale(fit, problem):
    """Return the scales that balance a fit without penalty, where they are free; ones for a fit with a penalty."""
    if any(problem.strengths):
        return np.ones(len(fit.H))
    by_row, by_column = penalised_counts(problem.X, problem.missing, problem.weights)
    v = np.ones(len(fit.U)) if by_row is None else by_row
    sums, squares = np.zeros((2, len(fit.H)))
    for rows in row_blocks(fit.U, 0):
        W = fit.U[rows] / fit.sums
        sums += product(v[rows], W)
        squares += product(v[rows], np.square(W))
    return balance(sums, squares, fit.H, problem.unit, by_column)


def warn_of_outcome(fit, objective, W, H, penalty, max_iter, tol, names):
    """Say what a user must know of a fit: not converged, an empty model, components that stayed zero."""
    if not fit.converged and fit.n_iter < max_iter:
        warn_user(
            f"NMF stopped after {fit.n_iter} passes, since the objective rose; the best loadings met are kept, at "
            f"objective {objective:.6g} and KKT residual {fit.kkt_residual:.2g}. Lower learning_rate, or pass another "
            "solver.",
            ConvergenceWarning,
        )
    elif not fit.converged:
        warn_user(
            f"NMF stopped at max_iter={max_iter} passes, at objective {objective:.6g}, before it met tol={tol:g}: "
            "raise max_iter (or tol, if a rougher fit will do).",
            ConvergenceWarning,
        )
    dead = ~(W.any(axis=0) & H.any(axis=1))
    if dead.all() and len(dead) and penalty:
        warn_user(f"penalty={penalty:g} empties the model: every score is zero. Lower the penalty.")
    elif dead.any():
        warn_user(
            f"Components {[name for name, d in zip(names, dead, strict=True) if d]} are zero: none could be found that "
            "lowers the objective further. Ask for fewer components or lower the penalty.",
        )


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
    watch=None,
):
    """Find loadings by one or more starts; return the best by objective, as a _Fit.

    ``watch`` is called before each pass; what it raises ends the fit.
    """
    X, weights, missing, beta = problem.X, problem.weights, problem.missing, problem.beta
    strengths, unit = problem.strengths, problem.unit
    n, p = X.shape
    k, rng = n_components, check_random_state(random_state)
    if not isinstance(init, str):
        init = check_array(init, dtype=np.float64, input_name="init", ensure_min_samples=0)
        if init.shape != (k, p) or init.min(initial=0.0) < 0:
            raise ValueError(
                f"init has shape {init.shape} and minimum {init.min(initial=0.0):g}; wanted non-negative loadings of "
                f"shape (n_components, n_features) = {(k, p)}, or one of {sorted(STARTS)}."
            )
    X, e = safe_scale(X, problem.top)
    if k == 0:
        nothing = np.zeros((n, 0), X.dtype), np.zeros((0, p))
        value = divergence(X, *nothing, beta, weights, leaves_out_unstored(missing))
        value = float(in_units(value, 2 * e * beta))
        W, H, history = np.zeros((n, 0), X.dtype), np.zeros((0, p)), np.array([value])
        return _Fit(W, np.zeros(0), H, value, True, 0, True, history, 0.0)
    # Weights and exact scores with missing cells belong to rows: such tables are not turned round. Small ones gain
    # nothing by it, and other losses treat rows and columns alike.
    wide, as_given = p > max(n, 200) and weights is None and missing is None and beta == 2, X
    with np.errstate(over="ignore"):  # W and H are found in units of 2^e each, X being in units of 4^e
        most = 1e150 if X.dtype == np.float64 else 1e15  # finite, so that 0 stays 0 and sums over p stay finite
        shrink = np.minimum(np.exp2(np.array([e, e, 2 * e, 2 * e]) - 2 * e * beta), most)
        strengths = Strengths(*np.minimum(np.multiply(strengths, shrink), 1e300).tolist())
    if wide:
        X = X.T.tocsr() if sparse.issparse(X) else X.T
        strengths, unit = _swap(strengths), _swap(unit)
    if not isinstance(init, str):
        init = np.ldexp(init, -e)
        if wide:  # the loop starts from the other factor
            init = exact_scores(as_given, init, strengths.l1_H, strengths.l2_H, n_jobs).T.astype(np.float64)

    options = {} if learning_rate is None else {"learning_rate": np.ldexp(learning_rate, 2 * e)}  # in units of X
    known = solvers_of(beta, missing)
    if known is DIVERGENCE_SOLVERS:
        options = {"beta": beta, "unstored": leaves_out_unstored(missing)}
    make = partial(known[solver], **options)
    with workers(n_jobs, len(row_blocks(X, k))) as each:
        descent = partial(
            _Descent, missing=missing, beta=beta, k=k, strengths=strengths, unit=unit, make_solver=make, each=each,
            watch=watch,
        )  # fmt: skip
        races = isinstance(init, str) and init == "auto" and known[solver] is known["auto"]
        long = learning_rate is None  # a rate fits one number of rows
        single = _fits_single(X, np.ldexp(problem.top, -2 * e), strengths)
        best = _coarse_to_fine(X, weights, descent, races, long, single, init, n_init, rng, max_iter, tol)
        U, sums = best.settle(max_iter, n_jobs)
    H = best.H
    if wide:
        H = (U / sums).T.astype(np.float64)
        U, sums, H = scores_of_used(as_given, H, _swap(strengths), n_jobs)
    history = np.maximum.accumulate(best.history[::-1])[::-1]  # as far as the precision of each pass goes
    history, value = in_units(history, 2 * e * beta), float(in_units(best.objective, 2 * e * beta))
    U = np.ldexp(U, 2 * e) if e else U
    precise = best.solver.sums_squares and not wide and best.rounding < 1e-10 * best.objective
    n_iter, converged, kkt_residual = best.n_iter, best.converged, best.kkt_residual
    return _Fit(U, np.ldexp(sums, e), np.ldexp(H, e), value, precise, n_iter, converged, history, kkt_residual)


def _coarse_to_fine(X, weights, make, races, long, single, init, n_init, rng, max_iter, tol):
    """Run descents on samples, if X is ``long``, and on all rows; return the one with the lowest objective.

    ``make`` makes a descent on given rows. Where ``races`` says so, few rows tell where to begin. What leads to nearly
    the best minimum on a sample goes on to the next, and all rows decide.
    """
    solver, k, missing, beta = make.keywords["make_solver"](), *(make.keywords[q] for q in ("k", "missing", "beta"))
    sizes = sample_sizes(X, k, not solver.sums_squares) if long else [X.shape[0]]
    rough = len(sizes) > 1 and solver.rough and single
    by_content = Rows(X, weights, beta) if races or len(sizes) > 1 else None
    left, doubtful = None, False
    if races:
        left, doubtful = race(X, by_content, k, beta, make.keywords["strengths"], missing, n_init)
    good = left is not None
    judged = good and tol >= RACE_TOL  # five passes that gain little were made before
    for m in sizes:
        first, last = m == sizes[0], m == sizes[-1]
        rows, v = (slice(None), weights) if last else by_content.sample(m)
        descent = partial(
            make,
            X if last else X[rows],
            SINGLE if rough else X.dtype,
            v,
            tol=tol if last else max(tol * m / sizes[-1], min(SAMPLE_TOL, k / (SAMPLE_PASSES * m))),
            window=2 if last and (judged or not first) else 5,
        )
        passes = max_iter * (sizes[-1] // m)  # one over a sample costs its share of one over all rows
        if last:
            by_content = None  # it takes memory
        if left is None:
            left = _named_starts(descent(), init, n_init, rng)
        if first and doubtful:  # few rows may miss what more rows show
            more = descent()
            left = [*left, nndsvda(more.filled, k, None, more.weights)]

        if not last:
            met = []
            for H in left:
                run = descent().run(H, passes, good)
                met.append((run.history[-1] if run.history else np.inf, run.H))
            met.sort(key=lambda pair: pair[0])
            near = [H for value, H in met if value <= (1 + SAMPLE_MARGIN) * met[0][0]]
            left = list(_distinct(near or [met[0][1]]))
            good = True
    judges = good and len(left) > 1 and n_init == 1  # several starts that are asked for go to the end
    most = min(passes, JUDGING_PASSES if len(sizes) == 1 else AFTER_SAMPLES) if judges else passes
    best, lowest = None, np.inf
    for H in left:
        run = descent().run(H, most, good)
        value = run.history[-1] if run.history else np.inf
        # What differs by less is one minimum, and rounding must not decide; an exact fit may be a little below zero.
        if best is None or value < lowest - judges * SAME * abs(lowest):
            best, lowest = run, value
        del run  # its scores take memory
    return best.run(best.H, passes) if judges else best


def _distinct(loadings):
    """Leave out loadings whose components all point where those of earlier ones do: they lead to the same minimum."""
    kept = []
    for H in loadings:
        units = H / np.maximum(np.linalg.norm(H, axis=1, keepdims=True), np.finfo(H.dtype).tiny)
        if not any((product(units, other.T).max(axis=1) > SAME_DIRECTION).all() for other in kept):
            kept.append(units)
            yield H


def scores_of_used(X, H, strengths, n_jobs, missing=None, beta=2.0):
    """Return what :func:`unit_scores` does, and the loadings: zero in components that no row has a score of."""
    while True:
        U, sums = unit_scores(X, H, strengths.l1_W, strengths.l2_W, n_jobs, missing, beta=beta)
        idle = H.any(axis=1) & ~U.any(axis=0)
        if not idle.any():
            return U, sums, H
        H = np.where(idle[:, None], 0.0, H)


def _fits_single(X, top, strengths):
    """Whether X can be fitted in single precision: no sum of squares, nor any penalty, overflows or vanishes there."""
    return X.dtype != SINGLE and 1e-10 < top < 1e10 and max(strengths) < 1e30


def _swap(strengths):
    """Return the strengths of the transposed problem."""
    return Strengths(strengths.l1_H, strengths.l1_W, strengths.l2_H, strengths.l2_W)


def sample_sizes(X, k, large=False):
    """Rows of the samples that a long table is fitted on, each many times the one before, and all rows at last.

    The loadings from a small sample are a start for the larger one that leaves it few passes. Where passes cost much
    (``large``) a table is long earlier, and samples grow in smaller steps.
    """
    n, p = X.shape
    cells, step = (X.nnz if sparse.issparse(X) else n * p), 4 if large else 16
    # enough rows for every column: two for each, or 20 stored cells in each
    least = max(SAMPLE_ROWS, 10 * k, 20 * n * p // max(X.nnz, 1) if sparse.issparse(X) else 2 * p)
    sizes, m = [n], n // step
    while cells > (LONG_CELLS // 16 if large else LONG_CELLS) and m >= least:
        sizes.insert(0, m)
        m //= step
    return sizes


def _named_starts(descent, init, n_init, rng):
    """Return the starts that were asked for, on the rows of a descent."""
    X, k, weights = descent.filled, descent.k, descent.weights
    if not isinstance(init, str):
        first = [init]
    elif init == "auto":
        return list(islice(starts(X, k, weights), 1 if k < 2 else max(2, n_init)))
    else:
        first = [STARTS[init](X, k, rng, weights)]
    return first + [STARTS["random"](X, k, rng, weights) for _ in range(n_init - 1)]


class _Descent:
    """The loop, on one set of rows: down from given loadings to stationary ones. See the top of this file.

    Passes start in precision ``dtype`` and go on in that of X where this one's rounding would tell; the end is always
    judged there.
    The fall of the objective is judged over ``window`` passes; ``each`` maps over the blocks of rows; ``watch``, if
    there is one, is called before each pass. It leaves
    ``H``, ``Wt`` (scores of each block, k x rows), ``objective``, ``history``, ``n_iter`` and ``converged``.
    """

    def __init__(self, X, dtype, weights, *, missing, beta, k, strengths, unit, make_solver, tol, window, each, watch):
        self.X, self.weights, self.missing, self.beta = X, weights, missing, beta
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
        memory = np.zeros(X.shape[0] * k, dtype)  # in one piece, so that it is given back in one
        self.Wt = [memory[r.start * k : r.stop * k].reshape(k, -1) for r in self.rows]
        fills = missing is not None and self.solver.sums_squares
        self.before = [Wt_block.copy() if fills else None for Wt_block in self.Wt]  # scores of the pass before
        self.objective, self.history, self.n_iter, self.converged = np.inf, [], 0, False
        self.first = 0  # entry of the history that was found in the precision of now
        self.size = sum(self.solver.size(block) for block in self.blocks)
        amounts = np.asarray(self.filled.sum(axis=0, dtype=np.float64)).ravel()
        self.total, self.used = float(amounts.sum()), amounts > 0  # no columns of zeros, or nowhere observed
        self._set_precision(dtype)
        self.solver.attach(self)
        self._lift()

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
            U, sums, self.H = scores_of_used(self.X, self.H, self.strengths, n_jobs, self.missing, self.beta)
            rounded = self._sharpen()
            if not self.solver.sums_squares:  # such solvers look at all scores; a copy of them all is large
                self.Wt = [self._transposed(U, sums, r) for r in self.rows]
            stats = self._statistics(U, sums)
            value = self._evaluate(self.H, stats)
            gain = self.objective - value
            # Exact scores of a row may be worse than those met on the way, where its problem is not convex.
            self.objective = min(self.objective, value) if self.solver.convex and not rounded else value
            self.history[-1] = self.objective
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
        if self.beta <= 0:  # there cells count by their ratios, however small they are
            return
        amounts = sum(Wt_block.sum(axis=1, dtype=np.float64) for Wt_block in self.Wt) * self.H.sum(axis=1)
        for t in np.argsort(amounts, kind="stable"):
            rest = self.H * (np.arange(self.k) != t)[:, None]
            sunk = amounts[t] <= NOTHING * max(amounts.max(), self.total)
            # Where the loss is infinite at zero, something has to be left of every column.
            if sunk and (self.beta > 1 or (rest.any(axis=0) == self.H.any(axis=0)).all()):
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
