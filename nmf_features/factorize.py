"""factorize(): X ~ W H with W, H >= 0, on plain arrays. The one loop.

X is n_samples x n_features; W (n_samples x k) holds the scores, H (k x n_features) the loadings. Half the
literature, Lee & Seung included, puts samples in columns: their W is our H', their H our W'.

    for each block of rows X_b:                 # X is read once per pass
        W_b   <- improve W_b given H            # rows independent
        stats += (W_b' W_b, W_b' X_b)
    H <- improve H given stats                  # touches no data
    objective, KKT residual of H <- from stats  # free

A tall table is fitted on a sample of its rows first, then on four times more, ..., then on all: most passes are
cheap ones. The loadings are extrapolated (Nesterov) and the extrapolation restarts where the objective would rise. The
problem is symmetric in X and X', so a wide table is solved as its transpose: momentum then sits on the
smaller factor. The scores that are returned are exact (projection.py), not the loop's own.

References: A. Cichocki and A.-H. Phan (2009), HALS; A. M. S. Ang and N. Gillis (2019), Accelerating nonnegative
matrix factorization algorithms using extrapolation.
"""

from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from ._warn import warn_user
from .blocks import loadings_times, positive_residual, row_blocks, scores_times, single_threaded_blas, take, workers
from .init import STARTS
from .losses import Strengths, balance, objective, safe_scale, squares
from .projection import exact_scores, unit_scores
from .solvers import SOLVERS, Statistics

SAMPLE_ROWS = 2000  # the smallest sample that a tall table is fitted on first

# What factorize() and NMFFeatures accept, said once.
PARAMETERS = {
    "n_components": [Interval(Integral, 0, None, closed="left")],
    "penalty": [Interval(Real, 0, None, closed="left")],
    "l1_ratio": [Interval(Real, 0, 1, closed="both")],
    "solver": [StrOptions(set(SOLVERS))],
    "init": [StrOptions(set(STARTS)), "array-like"],
    "n_init": [Interval(Integral, 1, None, closed="left")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "tol": [Interval(Real, 0, None, closed="left")],
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
        Passes over all rows (of a tall table; passes over samples of it are not counted).
    converged : bool
        Whether the stopping rule was met within ``max_iter`` passes.
    history : ndarray
        Objective after each accepted pass over all rows, in the best start; it never rises.
    """

    W: np.ndarray
    H: np.ndarray
    objective: float
    n_iter: int
    converged: bool
    history: np.ndarray


@dataclass(frozen=True)
class _Fit:
    """What the loop ends with: loadings, their sums, and the exact scores for loadings divided by their sums."""

    U: np.ndarray
    sums: np.ndarray
    H: np.ndarray
    objective: float
    n_iter: int
    converged: bool
    history: np.ndarray


@validate_params({"X": ["array-like", "sparse matrix"], **PARAMETERS}, prefer_skip_nested_validation=True)
@single_threaded_blas()
def factorize(
    X,
    n_components,
    *,
    penalty=0.001,
    l1_ratio=1.0,
    solver="auto",
    init="nnsvd-lrc",
    n_init=1,
    max_iter=1000,
    tol=1e-5,
    random_state=None,
    n_jobs=None,
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
    solver : {"auto", "hals"}, default "auto"
        Hierarchical alternating least squares with extrapolation.
    init : {"nnsvd-lrc", "random"} or array-like of shape (n_components, n_features), default "nnsvd-lrc"
        Where the loadings start: from singular vectors (deterministic), at random, or as given.
    n_init : int, default 1
        Number of starts, of which the best by objective is kept. The first is ``init``, the others are random.
    max_iter : int, default 1000
        Most passes over the data for each start, on each sample of a tall table.
    tol : float, default 1e-5
        Stop when the objective falls by less than this share of itself per pass (mean of five) and the KKT
        residual of the loadings, relative to the largest, is below its square root.
    random_state : int, RandomState instance or None, default None
        Seed of the random starts. The default start uses none.
    n_jobs : int or None, default None
        Threads. None: as many as the process may use (its CPU affinity, and ``OMP_NUM_THREADS`` if set). The
        result is the same, bit for bit, for any number.

    Returns
    -------
    Factorization
        With ``W``, ``H``, ``objective``, ``n_iter``, ``converged`` and ``history``.

    Raises
    ------
    ValueError
        If X has NaN, infinite or negative entries, no rows or no columns, or if ``init`` does not fit.
        ``InvalidParameterError``, a ValueError, for parameters of a wrong type or out of range.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` was reached.
    UserWarning
        If the penalty empties the model, or components stay zero because nothing is left to explain.

    References
    ----------
    A. Cichocki and A.-H. Phan (2009), Fast local algorithms for large scale nonnegative matrix and tensor
    factorizations, IEICE Transactions E92-A; A. M. S. Ang and N. Gillis (2019), Accelerating nonnegative
    matrix factorization algorithms using extrapolation, Neural Computation 31.

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
    X = check_array(X, accept_sparse="csr", dtype=[np.float64, np.float32], input_name="X")
    cells = X.data if sparse.issparse(X) else X
    if cells.min(initial=0.0) < 0:
        raise ValueError(
            f"X has {np.count_nonzero(cells < 0)} negative values; NMF needs X >= 0. Shift the columns first, "
            "for example with NonNegativeScaler(), or use NMFFeatures, which does."
        )
    strengths, unit = Strengths.of(penalty, l1_ratio, *X.shape), Strengths.of(1.0, l1_ratio, *X.shape)
    fit = fit_loadings(
        X,
        n_components,
        strengths,
        unit,
        solver=solver,
        init=init,
        n_init=n_init,
        max_iter=max_iter,
        tol=tol,
        random_state=random_state,
        n_jobs=n_jobs,
    )
    c = free_scale(fit, penalty, unit)
    W, H = fit.U * (c / fit.sums).astype(X.dtype), (fit.H / c[:, None]).astype(X.dtype)
    with np.errstate(over="ignore"):
        value = objective(X, W, H, penalty, l1_ratio)
    warn_of_outcome(fit, value, W, H, penalty, max_iter, tol, range(n_components))
    return Factorization(W, H, value, fit.n_iter, fit.converged, fit.history)


def free_scale(fit, penalty, unit):
    """Return the scales that balance a fit without penalty, where they are free; ones for a fit with a penalty."""
    if penalty:
        return np.ones(len(fit.H))
    W = fit.U / fit.sums
    return balance(W.sum(axis=0), np.square(W).sum(axis=0), fit.H, unit)


def warn_of_outcome(fit, objective, W, H, penalty, max_iter, tol, names):
    """Say what a user must know of a fit: not converged, an empty model, components that stayed zero."""
    if not fit.converged:
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


def fit_loadings(X, n_components, strengths, unit, *, solver, init, n_init, max_iter, tol, random_state, n_jobs):
    """Find loadings of checked data by one or more starts; return the best by objective, as a _Fit.

    ``unit`` holds the strengths at penalty 1: they say how scale is shared between W and H.
    """
    n, p = X.shape
    k, rng = n_components, check_random_state(random_state)
    if not isinstance(init, str):
        init = check_array(init, dtype=np.float64, input_name="init", ensure_min_samples=0)
        if init.shape != (k, p) or init.min(initial=0.0) < 0:
            raise ValueError(
                f"init has shape {init.shape} and minimum {init.min(initial=0.0):g}; wanted non-negative loadings of "
                f"shape (n_components, n_features) = {(k, p)}, or one of {sorted(STARTS)}."
            )
    X, e = safe_scale(X)
    wide, as_given = p > n, X
    with np.errstate(over="ignore"):  # W and H are found in units of 2^e each, X being in units of 4^e
        shrink = np.minimum(np.ldexp(1.0, [-3 * e, -3 * e, -2 * e, -2 * e]), 1e150)  # so that 0 stays 0
        strengths = Strengths(*np.multiply(strengths, shrink).tolist())
    if wide:
        X = X.T.tocsr() if sparse.issparse(X) else X.T
        strengths, unit = _swap(strengths), _swap(unit)
    descend = partial(_descend, solver=SOLVERS[solver](), max_iter=max_iter, tol=tol, n_jobs=n_jobs)
    if not isinstance(init, str):
        init = np.ldexp(init, -e)
        if wide:  # the loop starts from the other factor
            init = exact_scores(as_given, init, strengths.l1_H, strengths.l2_H, n_jobs).T.astype(np.float64)

    best = None
    for m in sample_sizes(X, k):  # the starts compete on the smallest sample
        share = m / X.shape[0]
        sample = X if share == 1 else X[sample_rows(X.shape[0], m)]
        there = [Strengths(q.l1_W, q.l1_H * share, q.l2_W, q.l2_H * share) for q in (strengths, unit)]
        if best is not None:
            best = descend(sample, best.H, *there, window=2)
            continue
        for start in range(n_init if k else 1):
            given = init if start == 0 else "random"
            H = STARTS[given](sample, k, rng) if isinstance(given, str) else given
            fit = descend(sample, H, *there, window=5)
            if best is None or fit.objective < best.objective:
                best = fit
    U, sums, H = best.U, best.sums, best.H
    if wide:
        H = (U / sums).T.astype(np.float64)
        U, sums = unit_scores(as_given, H, strengths.l1_H, strengths.l2_H, n_jobs)
    with np.errstate(over="ignore"):
        history, value = np.ldexp(best.history, 4 * e), float(np.ldexp(best.objective, 4 * e))
    U = np.ldexp(U, 2 * e) if e else U
    return _Fit(U, np.ldexp(sums, e), np.ldexp(H, e), value, best.n_iter, best.converged, history)


def _swap(strengths):
    """Return the strengths of the transposed problem."""
    return Strengths(strengths.l1_H, strengths.l1_W, strengths.l2_H, strengths.l2_W)


def sample_sizes(X, k):
    """Rows of the samples that a tall table is fitted on, each four times the one before, and all rows at last.

    The loadings from a small sample are a start for the larger one that leaves it few passes. Samples over an
    eighth of the rows would save little and cost memory.
    """
    n, p = X.shape
    # enough rows for every column: four times as many, or 50 stored cells in each
    m = max(SAMPLE_ROWS, 50 * k, 50 * n * p // max(X.nnz, 1) if sparse.issparse(X) else 4 * p)
    sizes = []
    while m <= n // 8:
        sizes.append(m)
        m *= 4
    return [*sizes, n]


def sample_rows(n, m):
    """Positions of about m of n rows, drawn by a hash of the row number (SplitMix64), so that samples are nested."""
    z = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    z ^= z >> np.uint64(31)
    return np.flatnonzero(z < np.uint64(2**64 * (m / n)))


def _descend(X, H, strengths, unit, *, window, solver, max_iter, tol, n_jobs):
    """From loadings H go down to a stationary point. See the top of this file.

    The fall of the objective is judged over ``window`` passes.
    """
    p, k = X.shape[1], len(H)
    rows = row_blocks(X, k)
    blocks = [take(X, r) for r in rows]
    squared_norm = sum(map(squares, blocks))
    if k == 0:
        return _Fit(
            np.zeros((X.shape[0], 0), X.dtype),
            np.zeros(0),
            H,
            0.5 * squared_norm,
            0,
            True,
            np.array([0.5 * squared_norm]),
        )
    # The objective comes from sums whose rounding is a share of |X|^2: below that nothing can be told.
    rounding = (1e-14 if X.dtype == np.float64 else float(np.finfo(X.dtype).eps)) * squared_norm

    def exact(H):
        return unit_scores(X, H, strengths.l1_W, strengths.l2_W, n_jobs)

    def transposed(U, sums, r):
        return np.ascontiguousarray((U[r] / sums.astype(X.dtype)).T)

    def statistics(U, sums):
        return Statistics.total(each(lambda X, r: solver.statistics(X, transposed(U, sums, r)), blocks, rows))

    def one_pass(H, sweeps):
        HHt = H @ H.T + strengths.l2_W * np.eye(k)

        def improve(block, Wt_block):
            return solver.improve_scores(block, Wt_block, H, HHt, strengths, sweeps)

        return Statistics.total(each(improve, blocks, Wt))

    def evaluate(H, stats):
        fit = 0.5 * (squared_norm - 2 * np.vdot(H, stats.WtX) + np.vdot(stats.WtW, H @ H.T))
        scores = strengths.l1_W * stats.W_sums.sum() + strengths.l2_W / 2 * np.trace(stats.WtW)
        return max(float(fit), 0.0) + float(scores) + strengths.cost(np.zeros(0), H)

    U, sums = exact(H)  # or the first loadings would be fitted to poor scores, and a good start spoilt
    Wt = [transposed(U, sums, r) for r in rows]
    del U
    history, accepted, H_accepted = [], np.inf, H
    momentum, rejected, converged = 1.0, 0, False
    sweeps = int(np.clip(1 + p / k, 2, 20))  # a sweep costs k/(2p) of the product with X
    revivals = np.zeros(k, dtype=int)
    n_iter = 0
    with workers(n_jobs, len(blocks)) as each:
        while n_iter < max_iter and not converged:
            n_iter += 1
            stats = one_pass(H, sweeps)
            H_new, residual = solver.improve_components(H, stats, strengths)
            value = evaluate(H_new, stats)
            if value > accepted + rounding:  # extrapolated too far, or too few sweeps
                H, momentum, rejected = H_accepted, 1.0, rejected + 1
                if rejected > 1:
                    sweeps = min(2 * sweeps, 1000)
                converged = rejected > 5 and value <= accepted + 100 * rounding  # as far as the precision goes
            else:
                rejected = 0
                c = balance(stats.W_sums, stats.WtW.diagonal(), H_new, unit)[:, None]
                for Wt_block in Wt:
                    Wt_block *= c.astype(X.dtype)
                H_new, H_accepted = H_new / c, H_accepted / c
                balanced = Statistics(stats.WtW * c * c.T, stats.WtX * c, stats.W_sums * c[:, 0])
                value = min(value, evaluate(H_new, balanced), accepted)
                history.append(value)
                fall = (history[-1 - window] - value) / window if len(history) > window else np.inf
                converged = value <= rounding or bool(fall <= tol * value and residual <= np.sqrt(tol))
                next_momentum = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
                H = np.maximum(H_new + (momentum - 1) / next_momentum * (H_new - H_accepted), 0)
                H_accepted, accepted, momentum = H_new, value, next_momentum
            if not (converged or n_iter == max_iter):
                continue

            # The loop's scores are not quite exact: judge by those that are.
            Wt = None
            U, sums = exact(H_accepted)
            stats = statistics(U, sums)
            value = evaluate(H_accepted, stats)
            gain, accepted = accepted - value, min(accepted, value)
            history[-1] = accepted
            if converged and not rejected and accepted > rounding:
                residual = solver.improve_components(H_accepted, stats, strengths)[1]
                if gain > window * tol * accepted + rounding or residual > np.sqrt(tol):
                    H, momentum, converged = H_accepted, 1.0, False
                    Wt = [transposed(U, sums, r) for r in rows]
            if converged and accepted > rounding:
                for t in np.flatnonzero(~(H_accepted.any(axis=1) & (stats.W_sums > 0)) & (revivals < 2)):
                    revivals[t] += 1
                    Wt = Wt or [transposed(U, sums, r) for r in rows]
                    if (pair := _rank_one(blocks, Wt, H_accepted, strengths, unit, accepted)) is not None:
                        for r, Wt_block in zip(rows, Wt, strict=True):
                            Wt_block[t] = pair[0][r]
                        H_accepted[t] = pair[1]
                        H, momentum, converged = H_accepted, 1.0, False
                        if n_iter == max_iter:
                            U, sums = exact(H_accepted)
                        break
    return _Fit(U, sums, H_accepted, accepted, n_iter, converged, np.array(history))


def _rank_one(blocks, Wt, H, strengths, unit, value):
    """Best non-negative rank-one piece of the residual, or None if it would not lower the penalised objective.

    With a penalty w = h = 0 is a strict local minimum, so only such a finite step can revive a component.
    """
    ends = np.cumsum([block.shape[0] for block in blocks])[:-1]

    def times(h):  # residual times h
        return np.concatenate(
            [loadings_times(h[None], X)[0] - (H @ h) @ V for X, V in zip(blocks, Wt, strict=True)], dtype=np.float64
        )

    def back_times(w):  # w times residual
        parts = zip(np.split(w, ends), blocks, Wt, strict=True)
        return sum(scores_times(v[None], X)[0] - (V @ v) @ H for v, X, V in parts)

    worst, missing = (-1.0, None), 0.0
    for X, V in zip(blocks, Wt, strict=True):
        R = positive_residual(X, V, H)
        norms = np.asarray((R * R).sum(axis=1)).ravel()
        i = int(norms.argmax())
        if norms[i] > worst[0]:
            row = R[[i]].toarray()[0] if sparse.issparse(R) else R[i]
            worst = norms[i], row.astype(np.float64)
        missing = missing + np.asarray(R.sum(axis=0), dtype=np.float64).ravel()
    best, best_change = None, -1e-12 * value
    for h in (worst[1], missing):  # two starts: the worst row, and the direction of all that is missing
        for iteration in range(60):
            penalised = iteration >= 30  # first the direction, then its size
            if not h.any():
                break
            w = np.maximum(times(h) - penalised * strengths.l1_W, 0) / (h @ h + penalised * strengths.l2_W)
            if not w.any():
                break
            h = np.maximum(back_times(w) - penalised * strengths.l1_H, 0) / (w @ w + penalised * strengths.l2_H)
            c = balance(w.sum()[None], (w @ w)[None], h[None], unit)[0]
            w, h = w * c, h / c
        else:
            change = 0.5 * (w @ w) * (h @ h) - w @ times(h) + strengths.cost(w, h)
            if h.any() and change < best_change:
                best, best_change = (w, h), change
    return best
