"""factorize(): X ~ W H with W, H >= 0, on plain arrays. The one loop.

X is n_samples x n_features; W (n_samples x k) holds the scores, H (k x n_features) the loadings. Half the
literature, Lee & Seung included, puts samples in columns: their W is our H', their H our W'.

    for each block of rows X_b:                 # X is read once per pass
        W_b   <- improve W_b given H            # rows independent
        stats += (W_b' W_b, W_b' X_b)
    H <- improve H given stats                  # touches no data
    objective, KKT residual of H <- from stats  # free

The loadings are extrapolated (Nesterov) and the extrapolation restarts where the objective would rise. The
problem is symmetric in X and X', so a wide table is solved as its transpose: momentum then sits on the
smaller factor. The scores that are returned are exact (projection.py), not the loop's own.

References: A. Cichocki and A.-H. Phan (2009), HALS; A. M. S. Ang and N. Gillis (2019), Accelerating nonnegative
matrix factorization algorithms using extrapolation.
"""

from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from ._warn import warn_user
from .blocks import row_blocks, workers
from .init import STARTS
from .losses import Strengths, balance, objective, safe_scale
from .projection import exact_scores
from .solvers import SOLVERS, Statistics

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
    "n_jobs": [Integral, None],
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
        Passes over the data in the best start.
    converged : bool
        Whether the stopping rule was met within ``max_iter`` passes.
    history : ndarray
        Objective after each accepted pass of the best start; it never rises.
    """

    W: np.ndarray
    H: np.ndarray
    objective: float
    n_iter: int
    converged: bool
    history: np.ndarray


@dataclass(frozen=True)
class _Fit:
    """Loadings without scores: what the loop ends with."""

    H: np.ndarray
    totals: np.ndarray  # sums of the loop's own scores, per component
    objective: float
    n_iter: int
    converged: bool
    history: np.ndarray


@validate_params({"X": ["array-like"], **PARAMETERS}, prefer_skip_nested_validation=True)
def factorize(
    X,
    n_components,
    *,
    penalty=0.001,
    l1_ratio=1.0,
    solver="auto",
    init="nnsvd-lrc",
    n_init=1,
    max_iter=500,
    tol=1e-5,
    random_state=None,
    n_jobs=None,
):
    """Factorise a non-negative matrix, X ~ W H with W, H >= 0.

    Minimises :func:`~nmf_features.objective`. The scale between W and H, which the fit alone leaves open, is
    the one that costs least penalty (at penalty 0, the limit of small penalties).

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Data, finite and non-negative. float32 is kept; everything else becomes float64. Never changed.
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
    max_iter : int, default 500
        Most passes over the data for each start.
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
    X = check_array(X, dtype=[np.float64, np.float32], input_name="X")
    if X.min() < 0:
        raise ValueError(
            f"X has {np.count_nonzero(X < 0)} negative values; NMF needs X >= 0. Shift the columns first, "
            "for example with NonNegativeScaler(), or use NMFFeatures, which does."
        )
    strengths = Strengths.of(penalty, l1_ratio, *X.shape)
    fit = fit_loadings(
        X,
        n_components,
        strengths,
        Strengths.of(1.0, l1_ratio, *X.shape),
        solver=solver,
        init=init,
        n_init=n_init,
        max_iter=max_iter,
        tol=tol,
        random_state=random_state,
        n_jobs=n_jobs,
    )
    H = fit.H.astype(X.dtype)
    W = exact_scores(X, H, strengths.l1_W, strengths.l2_W, n_jobs)
    warn_of_outcome(fit, W, H, penalty, max_iter, tol, range(n_components))
    with np.errstate(over="ignore"):
        value = objective(X, W, H, penalty, l1_ratio)
    return Factorization(W, H, value, fit.n_iter, fit.converged, fit.history)


def warn_of_outcome(fit, W, H, penalty, max_iter, tol, names):
    """Say what a user must know of a fit: not converged, an empty model, components that stayed zero."""
    if not fit.converged:
        warn_user(
            f"NMF stopped at max_iter={max_iter} passes, at objective {fit.objective:.6g}, before it met tol={tol:g}: "
            "raise max_iter (or tol, if a rougher fit will do).",
            ConvergenceWarning,
        )
    dead = ~(W.any(axis=0) & H.any(axis=1))
    if dead.all() and len(dead) and penalty:
        warn_user(
            f"penalty={penalty:g} empties the model: every score is zero. Lower the penalty.",
        )
    elif dead.any():
        warn_user(
            f"Components {[name for name, d in zip(names, dead, strict=True) if d]} are zero: the others explain all "
            "that they could at this penalty. Ask for fewer components or lower the penalty.",
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
    wide = p > n
    with np.errstate(over="ignore"):  # W and H are found in units of 2^e each, X being in units of 4^e
        shrink = np.minimum(np.ldexp(1.0, [-3 * e, -3 * e, -2 * e, -2 * e]), 1e150)  # so that 0 stays 0
        strengths = Strengths(*np.multiply(strengths, shrink).tolist())
    if wide:
        X, strengths, unit = X.T, _swap(strengths), _swap(unit)
    squared_norm = _squared_norm(X)

    best = None
    for start in range(n_init if k else 1):
        if start or isinstance(init, str):
            H = STARTS["random" if start else init](X, k, rng)
        else:
            H = np.ldexp(init, -e)
            if wide:  # the loop starts from the other factor
                H = exact_scores(X.T, H, strengths.l1_H, strengths.l2_H, n_jobs).T.astype(np.float64)
        fit = _descend(X, H, squared_norm, strengths, unit, SOLVERS[solver](), max_iter, tol, n_jobs)
        if best is None or fit.objective < best.objective:
            best = fit
    H, totals = best.H, best.totals
    if wide:
        H, totals = exact_scores(X, H, strengths.l1_W, strengths.l2_W, n_jobs).T.astype(np.float64), H.sum(axis=1)
    with np.errstate(over="ignore"):
        history, value = np.ldexp(best.history, 4 * e), float(np.ldexp(best.objective, 4 * e))
    return _Fit(np.ldexp(H, e), np.ldexp(totals, e), value, best.n_iter, best.converged, history)


def _squared_norm(X):
    """|X|_F^2, summed in float64."""
    return float(sum(np.square(X[rows], dtype=np.float64).sum() for rows in row_blocks(*X.shape, 0)))


def _swap(strengths):
    """Return the strengths of the transposed problem."""
    return Strengths(strengths.l1_H, strengths.l1_W, strengths.l2_H, strengths.l2_W)


def _descend(X, H, squared_norm, strengths, unit_penalty, solver, max_iter, tol, n_jobs):
    """From loadings H go down to a stationary point. See the top of this file."""
    n, p = X.shape
    k = len(H)
    # Exact scores at the start, or the first loadings would be fitted to poor ones and a good start spoilt.
    Wt = np.ascontiguousarray(exact_scores(X, H, strengths.l1_W, strengths.l2_W, n_jobs).T)
    blocks = row_blocks(n, p, k)
    most_sweeps = int(np.clip(1 + p / max(k, 1), 2, 20))  # a sweep costs k/(2p) of the product with X
    # The objective comes from sums whose rounding is a share of |X|^2: below that nothing can be told.
    rounding = (1e-14 if X.dtype == np.float64 else float(np.finfo(X.dtype).eps)) * squared_norm

    def one_pass(H, sweeps):
        HHt = H @ H.T + strengths.l2_W * np.eye(k)

        def improve(rows):
            return solver.improve_scores(X[rows], Wt[:, rows], H, HHt, strengths, sweeps)

        return Statistics.total(each(improve, blocks))

    def evaluate(H, stats):
        fit = 0.5 * (squared_norm - 2 * np.vdot(H, stats.WtX) + np.vdot(stats.WtW, H @ H.T))
        scores = strengths.l1_W * stats.W_sums.sum() + strengths.l2_W / 2 * np.trace(stats.WtW)
        return max(float(fit), 0.0) + float(scores) + strengths.cost(np.zeros(0), H)

    history, accepted, H_accepted, totals = [], np.inf, H, np.zeros(k)
    momentum, rejected, sweeps, converged = 1.0, 0, most_sweeps, False
    revivals = np.zeros(k, dtype=int)
    n_iter = 0
    if k == 0:
        return _Fit(H, totals, 0.5 * squared_norm, 0, True, np.array([0.5 * squared_norm]))
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
                continue
            rejected = 0
            c = balance(stats.W_sums, stats.WtW.diagonal(), H_new, unit_penalty)[:, None]
            Wt *= c.astype(X.dtype)
            H_new, H_accepted = H_new / c, H_accepted / c
            totals = stats.W_sums * c[:, 0]
            value = min(value, evaluate(H_new, Statistics(stats.WtW * c * c.T, stats.WtX * c, totals)), accepted)
            history.append(value)

            fall = (history[-6] - value) / 5 if len(history) > 5 else np.inf
            converged = value <= rounding or bool(fall <= tol * value and residual <= np.sqrt(tol))
            next_momentum = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
            H = np.maximum(H_new + (momentum - 1) / next_momentum * (H_new - H_accepted), 0)
            H_accepted, accepted, momentum = H_new, value, next_momentum
            if converged and value > rounding:
                for t in np.flatnonzero(~(H_new.any(axis=1) & Wt.any(axis=1)) & (revivals < 2)):
                    revivals[t] += 1
                    if (pair := _rank_one(X, Wt, H_accepted, strengths, unit_penalty, value)) is not None:
                        Wt[t], H_accepted[t] = pair
                        H, momentum, converged = H_accepted, 1.0, False
                        break
    return _Fit(H_accepted, totals, accepted, n_iter, converged, np.array(history))


def _rank_one(X, Wt, H, strengths, unit_penalty, value):
    """Best non-negative rank-one piece of the residual, or None if it would not lower the penalised objective.

    With a penalty w = h = 0 is a strict local minimum, so only such a finite step can revive a component.
    """
    best, best_change = None, -1e-12 * value
    largest = None
    for rows in row_blocks(*X.shape, len(H)):
        R = np.maximum(X[rows] - Wt[:, rows].T @ H, 0)
        norms = np.square(R).sum(axis=1)
        i = int(norms.argmax())
        if largest is None or norms[i] > largest[0]:
            largest = norms[i], R[i].astype(np.float64), R.sum(axis=0, dtype=np.float64)
    for h in largest[1:]:  # two starts: the worst row, the direction of all that is missing
        if not h.any():
            continue
        for iteration in range(60):
            penalised = iteration >= 30  # first the direction, then its size
            w = (X @ h.astype(X.dtype)).astype(np.float64) - Wt.T @ (H @ h)
            w = np.maximum(w - penalised * strengths.l1_W, 0) / (h @ h + penalised * strengths.l2_W)
            if not w.any():
                break
            h = (w.astype(X.dtype) @ X).astype(np.float64) - (w @ Wt.T) @ H
            h = np.maximum(h - penalised * strengths.l1_H, 0) / (w @ w + penalised * strengths.l2_H)
            if not h.any():
                break
            c = balance(w.sum()[None], (w @ w)[None], h[None], unit_penalty)[0]
            w, h = w * c, h / c
        else:
            gain = w @ (X @ h) - (w @ Wt.T) @ (H @ h)
            change = 0.5 * (w @ w) * (h @ h) - gain + strengths.cost(w, h)
            if change < best_change:
                best, best_change = (w, h), change
    return best
