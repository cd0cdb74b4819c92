"""factorize(): X ~ W H with non-negative factors, on plain arrays.

X is n_samples x n_features; W (n_samples x k) holds the scores, H (k x n_features) the loadings. Half the
literature, Lee & Seung included, puts samples in columns: their W is our H', their H our W'.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array
from sklearn.utils._param_validation import Interval, StrOptions, make_constraint, validate_params

from . import frames
from ._warn import numpy_defaults, warn_user
from .core.blocks import row_blocks
from .core.checks import check_weights, is_plain, numbers_wanted, without_duplicates
from .core.loss import Loss
from .core.losses import LOSSES, check_domain, loss_of
from .core.missing import missing_of, penalised_counts
from .core.objective import objective
from .core.penalties import balance
from .core.products import product
from .core.projection import unit_scores
from .core.schedule import Problem, fit_loadings
from .core.solvers import DIVERGENCE_SOLVERS, SOLVERS, solvers_of
from .core.starts import STARTS
from .core.units import extremes, largest
from .progress import followed


class Count(Interval):
    """An interval of whole numbers; True and False, which are numbers to Python, are not among them."""

    def is_satisfied_by(self, val):
        """Return whether a parameter is in the interval."""
        return not isinstance(val, bool) and super().is_satisfied_by(val)


# What factorize() and NMFFeatures accept. Names are looked up at each check, so that new entries of a registry are
# accepted.
PARAMETERS = {
    "n_components": [Count(Integral, 0, None, closed="left")],
    "penalty": [Interval(Real, 0, None, closed="left")],
    "l1_ratio": [Interval(Real, 0, 1, closed="both")],
    "loss": [StrOptions(LOSSES.keys()), Interval(Real, None, None, closed="neither"), Loss],
    "beta_loss": [StrOptions(LOSSES.keys()), Interval(Real, None, None, closed="neither"), Loss, None],
    "solver": [StrOptions(SOLVERS.keys()), StrOptions(DIVERGENCE_SOLVERS.keys())],
    "n_nonzero_loadings": [Interval(Integral, 1, None, closed="left"), None],
    "learning_rate": [Interval(Real, 0, None, closed="neither"), None],
    "init": [StrOptions({"auto"}), StrOptions(STARTS.keys()), "array-like"],
    "n_init": [Interval(Integral, 1, None, closed="left")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "tol": [Interval(Real, 0, None, closed="left")],
    "missing_values": [StrOptions({"raise", "ignore", "unstored"})],
    "random_state": ["random_state"],
    "n_jobs": [Interval(Integral, 1, None, closed="left"), Interval(Integral, None, -1, closed="right"), None],
    "verbose": ["verbose"],
}

Function = TypeVar("Function", bound=Callable)


@dataclass(frozen=True)
class Factorization:
    """The result of :func:`factorize`.

    Attributes
    ----------
    W : ndarray of shape (n_samples, n_components)
        Scores.
    H : ndarray of shape (n_components, n_features)
        Loadings.
    objective : float
        ``objective(X, W, H, penalty, l1_ratio)``. It overflows to ``inf`` where squares of X do.
    n_iter : int
        Passes over all rows (passes over samples are not counted).
    converged : bool
        Whether the stopping rule was met within ``max_iter`` passes.
    history : ndarray
        Objective after each accepted pass over all rows, for the best start; it never rises. With missing cells it may
        be an upper bound, which is reached at the end. For beta outside 1 to 2 exact scores may be worse than earlier
        ones; the history is never below the objective of the result.
    kkt_residual : float
        How far the fit is from stationary: the largest violation of the Karush-Kuhn-Tucker conditions by the loadings,
        max |min(H, gradient / curvature)|, relative to the largest loading. For a wide table, which is transposed, it
        is that of the scores, before the last step. With ``n_nonzero_loadings`` only loadings that may be positive
        count.
    """

    W: np.ndarray
    H: np.ndarray
    objective: float
    n_iter: int
    converged: bool
    history: np.ndarray
    kkt_residual: float


def _checked(function: Function) -> Function:
    """Check the parameters of a call; the hints of scikit-learn's decorator would hide those of the function.

    That decorator takes longer than the fit of a tiny table, so it is only asked where something is wrong.
    """
    checks = {"X": ["array-like", "sparse matrix"], **PARAMETERS}
    checked = validate_params(checks, prefer_skip_nested_validation=True)(function)
    names, known = ("X", "n_components"), {name: [make_constraint(c) for c in checks[name]] for name in checks}

    @wraps(function)
    def called(*args, **kwargs):
        given = *zip(names, args, strict=False), *kwargs.items()
        right = all(name in known and any(c.is_satisfied_by(v) for c in known[name]) for name, v in given)
        return (function if right else checked)(*args, **kwargs)

    return called


@_checked
@numpy_defaults
def factorize(
    X: Any,
    n_components: int,
    *,
    penalty: float = 0.001,
    l1_ratio: float = 1.0,
    loss: str | float | Loss = "frobenius",
    solver: str = "auto",
    learning_rate: float | None = None,
    init: Any = "auto",
    n_init: int = 1,
    max_iter: int = 1000,
    tol: float = 1e-5,
    random_state: Any = None,
    n_jobs: int | None = None,
    missing_values: str = "raise",
    sample_weight: Any = None,
    beta_loss: str | float | Loss | None = None,
    n_nonzero_loadings: int | None = None,
    verbose: int | bool = 0,
) -> Factorization:
    """Factorise a non-negative matrix, X ~ W H with W, H >= 0.

    Minimises :func:`~nmf_features.objective`. The loss alone leaves the scale between W and H open; the
    one with the least penalty is returned (at penalty 0, the limit of small penalties).

    Parameters
    ----------
    X : array-like or sparse matrix of shape (n_samples, n_features)
        Data, finite and non-negative. Sparse data stay sparse. float32 is kept, everything else becomes
        float64. X itself is never changed.
    n_components : int
        Number of components k, 0 or more.
    penalty : float, default 0.001
        Strength of the penalty on both factors; larger is sparser.
    l1_ratio : float, default 1.0
        Share of the penalty that is L1; the rest is L2.
    loss : {"frobenius", "kullback-leibler", "itakura-saito", "negative-binomial"}, float or Loss, default "frobenius"
        What is minimised: see :func:`~nmf_features.objective`. "kullback-leibler" is for counts and takes zeros,
        "itakura-saito" (and any number up to 0) takes positive data only. A number is the beta of
        a beta-divergence. A Loss is an object such as :class:`~nmf_features.NegativeBinomial`, or one of your own.
    solver : {"auto", "hals", "newton", "mu", "als", "gradient"}, default "auto"
        "auto" is the fast solver for the loss: for Frobenius "hals", hierarchical alternating least squares with
        extrapolation, else "newton", Newton steps on whole rows and columns. The others are textbook methods, and far
        slower: "mu", Lee and Seung's multiplicative updates, for every loss; and for Frobenius "als", least squares
        cut off at zero, whose objective may rise and which keeps the best loadings, and "gradient", projected gradient
        descent. "newton" stores p k^2 / 2 numbers besides the data, except for sparse data with "kullback-leibler".
    learning_rate : float, optional
        Fixed step of ``solver="gradient"``. None: chosen anew at each step, so that the objective never rises.
    init : {"auto", "nnsvd-lrc", "nndsvda", "random"} or array-like of shape (n_components, n_features)
        Where the loadings start. "auto", the default, tries starts one after the other, always the same ones, until the
        best minimum found has been reached several times: from singular vectors, from rotations of them, and from the
        best minimum so far with one component replaced. If there are many rows, a sample of them comes first. For
        textbook solvers, very wide or sparse data, and unstored cells it takes the better of "nnsvd-lrc" and "nndsvda".
        If X and the start are both frames, columns are matched by name.
        A named or given start is used alone: from singular vectors (deterministic), at random, or as given.
    n_init : int, default 1
        How many starts are run to the end; the best by objective is kept. With "auto" that many times more starts are
        tried, and the best of them run to the end. Else the first start is ``init``, and the others are random.
    max_iter : int, default 1000
        Most passes over the data for each start; over a sample of m of its n rows, n / m times as many.
    tol : float, default 1e-5
        Stop when the objective falls by less than this share of itself per pass (mean of five, or of two after
        samples) and the KKT residual of the loadings, relative to the largest, is below the square root of ``tol``.
        Above 3e-5 "auto" takes the best of four starts, above 1e-4 one (ten times as much where cells are missing),
        unless ``n_init`` is more than 1.
    random_state : int, RandomState instance or None, default None
        Seed of the random starts. "auto" uses none.
    n_jobs : int or None, default None
        Threads. None: as many as the process may use (its CPU affinity, and ``OMP_NUM_THREADS`` if set). The
        result is the same, bit for bit, for any number.
    missing_values : {"raise", "ignore", "unstored"}, default "raise"
        What NaN in X means: an error, or cells that were not observed and are left out. With "unstored" the cells
        that a sparse X does not store (ratings, say) are left out as well; otherwise they are zeros. A row without
        observed cells has NaN scores.
    sample_weight : array-like of shape (n_samples,), optional
        Weights of the rows, 0 or more. A row of weight 2 counts like two such rows. A row of weight 0 does not count,
        but still gets scores.
    beta_loss : same as loss, optional
        Another name of ``loss``, as in scikit-learn's ``NMF``.
    n_nonzero_loadings : int, optional
        Most columns that a component is made of: each row of H has at most so many positive loadings. They are chosen
        in the fit, starting from the one without limit, and fitted again. Nothing is random, but the choice among so
        many sets of columns is not certain to be the best. None, or as many as there are columns: no limit.
    verbose : int, default 0
        1: log what the fit is doing, about once a second; 2: every pass. The lines go to the logger "nmf_features", at
        level INFO, or to stderr if logging is not set up.

    Returns
    -------
    Factorization
        With ``W``, ``H``, ``objective``, ``n_iter``, ``converged`` and ``history``.

    Raises
    ------
    ValueError
        If X has NaN (and ``missing_values="raise"``), infinite or negative entries, no rows or no columns, or no
        observed cell in any row that counts; if X has zeros and the loss is infinite there; if cells are missing and
        columns are more than 100 decades apart (12 in single precision); if ``init`` does not fit, or the solver does
        not support the loss; if ``n_nonzero_loadings`` leaves columns without a component and the loss is infinite
        there; or for weights that are negative, not finite, all zero or not one for each row.
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
    Algorithms for nonnegative matrix factorization with the beta-divergence, Neural Computation 23. For
    ``n_nonzero_loadings``: R. Peharz and F. Pernkopf (2012), Sparse nonnegative matrix factorization with
    l0-constraints, Neurocomputing 80; J. Bolte, S. Sabach and M. Teboulle (2014), Proximal alternating linearized
    minimization for nonconvex and nonsmooth problems, Mathematical Programming 146.

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
    if not isinstance(init, str) and frames.is_frame(init) and frames.is_frame(X):
        init = frames.in_order(init, frames.labels(X), "init")
    if not is_plain(X):
        wanted = {"accept_sparse": "csr", "dtype": [np.float64, np.float32], "ensure_all_finite": False}
        with numbers_wanted("X"):
            X = without_duplicates(check_array(X, input_name="X", **wanted))
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
    loss = loss_of(loss, beta_loss)
    check_solver(solver, learning_rate, loss, missing)
    check_domain(X, loss, missing)
    weights = check_weights(sample_weight, X)
    problem = Problem.of(X, top, weights, missing, X.shape[1], loss=loss, penalty=penalty, l1_ratio=l1_ratio)
    with followed("factorize", verbose) as watch:
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
            n_nonzero_loadings=n_nonzero_loadings,
            watch=watch,
        )
        watch.fit = fit
    c = free_scale(fit, problem)
    U, q, whole = fit.U, problem.strengths, problem.used.all()
    if not whole:
        U = unit_scores(X, fit.H, q.l1_W, q.l2_W, n_jobs, missing, loss=problem.loss)[0]
    if empty := int(np.isnan(U[:, :1]).sum()):
        warn_user(f"X has {empty} rows with nothing observed: their scores are NaN.")
    W, H = U * (c / fit.sums).astype(X.dtype), (fit.H / c[:, None]).astype(X.dtype)
    value = fit.objective
    if not fit.precise:
        with np.errstate(over="ignore"):
            unstored = "unstored" if missing_values == "unstored" else "ignore"
            value = objective(X, W, H, penalty, l1_ratio, sample_weight, loss, unstored)
    W_fitted = W if whole else W[problem.used]
    alive = W_fitted.any(axis=0) & H.any(axis=1)
    warn_of_outcome(fit, value, alive, penalty, max_iter, tol, range(n_components))
    return Factorization(W, H, value, fit.n_iter, fit.converged, fit.history, fit.kkt_residual)


def check_solver(solver, learning_rate, loss, missing):
    """Refuse a solver that cannot minimise the loss, and a learning rate that would have no effect."""
    if learning_rate is not None and solver != "gradient":
        raise ValueError(f'learning_rate={learning_rate} is of use with solver="gradient" only; solver is {solver!r}.')
    known = solvers_of(loss, missing)
    if solver not in known:
        what = f"loss={loss.name!r}" if not loss.squares else 'missing_values="unstored"'
        raise ValueError(f"solver={solver!r} does not know {what}; wanted one of {sorted(known)}.")


def free_scale(fit, problem):
    """Return the scales that balance a fit without penalty, which leaves them free; ones for a fit with penalty."""
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


def warn_of_outcome(fit, objective, alive, penalty, max_iter, tol, names):
    """Warn if a fit did not converge, if the model is empty, or if components stayed zero.

    A callback that stopped the fit did so on purpose: then it says nothing of convergence.
    """
    unfinished = not (fit.converged or fit.stopped)
    if unfinished and fit.n_iter < max_iter:
        warn_user(
            f"NMF stopped after {fit.n_iter} passes, since the objective rose; the best loadings met are kept, at "
            f"objective {objective:.6g} and KKT residual {fit.kkt_residual:.2g}. Lower learning_rate, or pass another "
            "solver.",
            ConvergenceWarning,
        )
    elif unfinished:
        warn_user(
            f"NMF stopped at max_iter={max_iter} passes, at objective {objective:.6g}, before it met tol={tol:g}: "
            "raise max_iter (or tol, if a rougher fit will do).",
            ConvergenceWarning,
        )
    dead = ~alive
    if dead.all() and len(dead) and penalty:
        warn_user(f"penalty={penalty:g} empties the model: every score is zero. Lower the penalty.")
    elif dead.any():
        warn_user(
            f"Components {[name for name, d in zip(names, dead, strict=True) if d]} are zero: none could be found that "
            "lowers the objective further. Ask for fewer components or lower the penalty.",
        )
