"""Choosing the number of components and the penalty, and seeing which components can be trusted.

How many components?  ``select_components``: some cells are hidden, the others factorised, the hidden ones predicted.
How much sparsity?    ``penalty_path``: one fit after another, from no penalty to the one that empties the model.
Which seed?           ``stability``: other starts and other samples of the rows, their components matched.

References: A. B. Owen and P. O. Perry (2009), Bi-cross-validation of the SVD and the nonnegative matrix factorization,
Annals of Applied Statistics 3; S. Wold (1978), Cross-validatory estimation of the number of components in factor and
principal components models, Technometrics 20 (hidden cells); J.-P. Brunet, P. Tamayo, T. R. Golub and J. P. Mesirov
(2004), Metagenes and molecular pattern discovery using matrix factorization, PNAS 101 (agreement of runs).
"""

import threading
import warnings
from collections.abc import Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from numbers import Integral, Real

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import check_cv
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import _safe_indexing, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.validation import _num_samples

from ._warn import numpy_defaults, warn_user
from .core.blocks import block_of, rows_of_stored
from .core.missing import column_means, leaves_out_unstored
from .core.objective import divergence, loss_and_spread
from .core.penalties import Strengths, balance
from .core.products import product
from .core.projection import unit_scores
from .core.schedule import fit_loadings
from .core.threads import n_threads
from .estimator import NMFFeatures
from .scaling import Scaling

LEAST_SHARE = 0.01  # of the mean of its column: what is predicted at least where the loss is infinite at zero
# Penalties of a path: how many to a factor of ten, and where they start and end at the latest (also where the loss is
# infinite at zero), relative to the one at which nothing costs as much as the column means do.
PER_DECADE, LOWEST, HIGHEST, NEVER_EMPTY = 4, 1e-3, 1e3, 10


@dataclass(frozen=True, eq=False)
class ComponentSelection:
    """What :func:`select_components` found.

    Attributes
    ----------
    n_components : int
        The choice: the smallest number whose error is within one standard error (of the differences, split by split)
        of the least.
    table : pandas.DataFrame
        A row for every number of components and split: ``n_components``, ``split``, ``error``. The error is the loss of
        the hidden cells over that of the column means: 1 is no better than these.
    summary : pandas.DataFrame
        A row for every number of components: ``n_components``, ``error`` (mean over the splits), ``difference`` to the
        least mean error and its ``standard_error``.
    """

    n_components: int
    table: pd.DataFrame
    summary: pd.DataFrame


@dataclass(frozen=True, eq=False)
class PenaltyPath:
    """What :func:`penalty_path` found.

    Attributes
    ----------
    table : pandas.DataFrame
        A row for every penalty, upwards: ``penalty``; ``n_alive``, components that are not zero; ``zero_loadings`` and
        ``zero_scores``, shares of zeros; ``error``, the loss over that of the column means; ``held_out_error`` and
        ``held_out_standard_error``, the same of hidden cells, over the splits; with ``y`` also ``score`` and
        ``score_standard_error``, of a linear model on the components, over the folds.
    scoring : str or None
        What ``score`` is: "r2" or "accuracy"; None without ``y``.
    """

    table: pd.DataFrame
    scoring: str | None


@dataclass(frozen=True, eq=False)
class Stability:
    """What :func:`stability` found.

    Attributes
    ----------
    table : pandas.DataFrame
        A row for every run and component: ``run``, ``source`` ("start" for another random start, "rows" for another
        sample of the rows), ``component`` and ``similarity``, the cosine of its loadings with those of the reference.
    runs : pandas.DataFrame
        A row for every run: ``run``, ``source``, ``objective`` over that of the reference (1 is as good; for "rows" on
        its own sample).
    components : pandas.DataFrame of shape (n_components, n_columns)
        Loadings of the reference, the fit to all rows from ``init``.
    consensus : pandas.DataFrame of shape (n_components, n_columns)
        Mean loadings over all runs, matched with the reference; each row sums to 1.
    reproducibility : pandas.Series of length n_components
        Mean similarity of each component over all runs.
    """

    table: pd.DataFrame
    runs: pd.DataFrame
    components: pd.DataFrame
    consensus: pd.DataFrame
    reproducibility: pd.Series


@numpy_defaults
def select_components(
    X,
    n_components=None,
    *,
    n_splits=5,
    test_size=0.1,
    max_samples=10_000,
    random_state=None,
    n_jobs=None,
    progress=True,
    **params,
):
    """Choose the number of components by hiding cells and predicting them.

    In each split a share of the cells is hidden at random, other cells each time. The others are factorised with 1, 2,
    3, ... components, each fit going on from the one before, and predict the hidden ones. Too few components miss what
    is there, too many follow the noise of what they see. The choice is the smallest number that is within one standard
    error of the best, split by split.

    Parameters
    ----------
    X : frame, array-like or sparse matrix of shape (n_samples, n_features)
        The table, as for :class:`NMFFeatures`, which shifts and scales it (once, before cells are hidden). Note that
        ``shift="min"`` can ask for one component more than the table was made of, to stand for what was subtracted.
    n_components : iterable of int, optional
        Numbers of components to try. None: 1 to 10, or to the number of columns where these are fewer.
    n_splits : int, default 5
        Number of splits.
    test_size : float, default 0.1
        Share of the cells hidden in each split; no cell is hidden twice, so at most 1 / n_splits. Of sparse data no
        more cells than are stored; with ``missing_values="unstored"`` only stored ones.
    max_samples : int or None, default 10,000
        Of longer tables only so many rows, drawn at random, are looked at. None: all rows.
    random_state : int, RandomState instance or None, default None
        Seed of the rows, the cells and random starts: pass an int for the same result each time.
    n_jobs : int or None, default None
        Threads; None: as many as the process may use. The result does not depend on it.
    progress : bool, default True
        Whether to show how far it is, in terminals and notebooks, where ``rich`` is installed.
    **params
        Any other parameter of :class:`NMFFeatures`; ``tol`` is 1e-4 if not given.

    Returns
    -------
    ComponentSelection
        With ``n_components``, ``table`` and ``summary``.

    Raises
    ------
    ValueError
        As :class:`NMFFeatures` does, and for numbers of components, splits or shares that make no sense.

    Warns
    -----
    UserWarning
        If the choice is the largest or the smallest number tried, if more components than columns were asked for (as
        many as columns are tried then), or if fits did not converge.

    References
    ----------
    S. Wold (1978), Cross-validatory estimation of the number of components in factor and principal components models,
    Technometrics 20; A. B. Owen and P. O. Perry (2009), Bi-cross-validation of the SVD and the nonnegative matrix
    factorization, Annals of Applied Statistics 3.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_features import select_components
    >>> rng = np.random.default_rng(0)
    >>> X = rng.gamma(1, size=(200, 3)) @ rng.gamma(1, size=(3, 20)) + rng.uniform(size=(200, 20)) / 2
    >>> select_components(X, range(1, 7), shift=None, random_state=0).n_components
    3
    """
    counts = None if n_components is None else _check_counts(n_components)
    rng = check_random_state(random_state)
    X, _ = _sampled(X, None, max_samples, rng)
    model, Z = _scaled(X, counts[-1] if counts else 1, n_jobs, params, tol=1e-4)
    most = int((~model.scaling_["constant"]).sum())
    counts = sorted({min(k, most) for k in counts or range(1, 11)})
    hidden = _draw_cells(Z, model, n_splits, test_size, rng)

    def path(cells, seed, n_jobs, step):
        split, seen, fit = _Split(Z, cells, model), [], None
        for k in counts:
            start = model.init if fit is None else np.vstack([fit.H, _new_loadings(split.problem, fit, k)])
            fit = _fit(model, split.problem, k, start, seed, n_jobs, step)
            seen.append((split.see(fit), fit.converged))
            step()
        return seen

    tasks = [partial(path, cells, seed) for cells, seed in zip(hidden, _seeds(rng, n_splits), strict=True)]
    found = _run(tasks, len(tasks) * len(counts), "components", n_jobs, progress)
    _warn_of_passes([converged for seen in found for _, converged in seen], model)
    table = pd.DataFrame(
        [(k, i, seen[j][0]) for j, k in enumerate(counts) for i, seen in enumerate(found)],
        columns=["n_components", "split", "error"],
    )
    summary = _summary(table)
    chosen = int(summary.loc[summary["difference"] <= summary["standard_error"], "n_components"].iloc[0])
    _warn_of_edge(chosen, counts, model, float(summary["error"].min()))
    return ComponentSelection(chosen, table, summary)


@numpy_defaults
def penalty_path(
    X,
    n_components,
    penalties=None,
    *,
    y=None,
    cv=None,
    n_splits=5,
    test_size=0.1,
    max_samples=10_000,
    random_state=None,
    n_jobs=None,
    progress=True,
    **params,
):
    """Fit with one penalty after another, and see what each costs and what it makes simpler.

    The penalties go upwards from 0, each fit going on from the one before (a component that an L1 penalty has emptied
    does not come back on the way down).

    Parameters
    ----------
    X : frame, array-like or sparse matrix of shape (n_samples, n_features)
        The table, as for :class:`NMFFeatures`.
    n_components : int
        Number of components.
    penalties : array-like of float, optional
        Penalties to try, 0 or more; they are sorted. None: 0, then four to each factor of ten, until the model is empty
        (losses that are infinite at zero never let it become empty: until the penalty outweighs them tenfold).
    y : array-like of shape (n_samples,), optional
        Target: each penalty gets the score of a linear model on the components, linear regression with R^2, or
        logistic regression with accuracy where y is of words or booleans (integers are numbers), in cross-validation
        over rows (columns that are not factorised are left out of it).
    cv : int, cross-validation generator or None, default None
        Folds for ``y``; None is 5, as in :func:`~sklearn.model_selection.cross_val_score`.
    n_splits, test_size, max_samples, random_state, n_jobs, progress
        As in :func:`select_components`. n_splits=0: no cells are hidden.
    **params
        Any other parameter of :class:`NMFFeatures`; ``tol`` is 1e-4 if not given.

    Returns
    -------
    PenaltyPath
        With ``table`` and ``scoring``.

    Raises
    ------
    ValueError
        As :class:`NMFFeatures` does, and for penalties that are negative, not finite or none.

    Notes
    -----
    To choose k and penalty together for a target, search over a pipeline with
    :class:`~sklearn.model_selection.GridSearchCV`.

    References
    ----------
    P. O. Hoyer (2004), Non-negative matrix factorization with sparseness constraints, Journal of Machine Learning
    Research 5 (why sparse loadings); J. Friedman, T. Hastie and R. Tibshirani (2010), Regularization paths for
    generalized linear models via coordinate descent, Journal of Statistical Software 33 (warm starts along the path).

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from nmf_features import penalty_path
    >>> X = load_wine(as_frame=True).data
    >>> path = penalty_path(X, 3, [0, 0.01, 0.1], n_splits=2, random_state=0)
    >>> path.table[["penalty", "zero_loadings"]].round(2)
       penalty  zero_loadings
    0     0.00           0.13
    1     0.01           0.13
    2     0.10           0.31
    """
    if "penalty" in params:
        raise TypeError("penalty_path() takes its penalties as penalties, not penalty.")
    k, given = _check_count(n_components), None if penalties is None else _check_penalties(penalties)
    rng, n = check_random_state(random_state), _num_samples(X)
    X, y = _sampled(X, y, max_samples, rng)
    if y is not None and _num_samples(X) < n and isinstance(cv, Iterable) and not hasattr(cv, "split"):
        raise ValueError(
            f"cv holds positions among {n} rows, of which max_samples={max_samples} are looked at. Pass a number of "
            "folds or a splitter, or max_samples=None."
        )
    model, Z = _scaled(X, k, n_jobs, params, tol=1e-4)
    hidden = _draw_cells(Z, model, n_splits, test_size, rng) if n_splits != 0 else []
    folds, scoring = ([], None) if y is None else _folds(X, y, cv, model)

    def path(make_judge, penalties, seed, n_jobs, step, until_empty=False):
        judge, seen, start = make_judge(), [], model.init
        for penalty in penalties:
            fit = _fit(model, _penalised(judge.problem, penalty), model.n_components_, start, seed, n_jobs, step)
            seen.append(judge.see(fit, penalty))
            start = fit.H
            step()
            if until_empty and not fit.U.any():
                break
        return seen

    # First the fits to all cells, which say where the path ends; then those that judge it.
    whole, [seed] = _Whole(Z, model), _seeds(rng, 1)
    first = partial(path, lambda: whole, given or whole.penalties(), seed, until_empty=given is None)
    [seen] = _run([first], None if given is None else len(given), "penalties", n_jobs, progress)
    table = pd.DataFrame(seen)
    judges = [partial(_Split, Z, cells, model) for cells in hidden] + [partial(_Fold, *fold) for fold in folds]
    tasks = [
        partial(path, make, table["penalty"], seed) for make, seed in zip(judges, _seeds(rng, len(judges)), strict=True)
    ]
    judged = np.array(_run(tasks, len(tasks) * len(table), "hidden cells and folds", n_jobs, progress))
    _warn_of_passes(table.pop("converged").tolist(), model)
    if hidden:
        table["held_out_error"], table["held_out_standard_error"] = _mean_and_error(judged[: len(hidden)])
    if folds:
        table["score"], table["score_standard_error"] = _mean_and_error(judged[len(hidden) :])
    return PenaltyPath(table, scoring)


@numpy_defaults
def stability(
    X, n_components, n_runs=20, *, max_samples=10_000, random_state=None, n_jobs=None, progress=True, **params
):
    """See which components come back from other starts, and from other samples of the rows.

    The reference is the fit to all rows from ``init``. ``n_runs`` fits start at random instead, and
    ``n_runs`` see rows drawn with replacement (as many as there are). The components of each are matched with those of
    the reference so that the sum of their similarities, cosines of loadings, is largest.

    Parameters
    ----------
    X : frame, array-like or sparse matrix of shape (n_samples, n_features)
        The table, as for :class:`NMFFeatures`.
    n_components : int
        Number of components.
    n_runs : int, default 20
        Number of runs of either kind.
    max_samples, random_state, n_jobs, progress
        As in :func:`select_components`.
    **params
        Any other parameter of :class:`NMFFeatures`.

    Returns
    -------
    Stability
        With ``table``, ``runs``, ``components``, ``consensus`` and ``reproducibility``.

    Raises
    ------
    ValueError
        As :class:`NMFFeatures` does, and for a number of runs or components that is not 1 or more.

    References
    ----------
    J.-P. Brunet, P. Tamayo, T. R. Golub and J. P. Mesirov (2004), Metagenes and molecular pattern discovery using
    matrix factorization, PNAS 101; S. Wu et al. (2016), Stability-driven nonnegative matrix factorization to interpret
    spatial gene expression, PNAS 113.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from nmf_features import stability
    >>> X = load_wine(as_frame=True).data
    >>> stability(X, 3, n_runs=5, random_state=0).reproducibility.round(2)
    NNMF1    0.93
    NNMF2    0.98
    NNMF3    0.97
    dtype: float64
    """
    k, n_runs = _check_count(n_components), _check_count(n_runs, "n_runs")
    rng = check_random_state(random_state)
    X, _ = _sampled(X, None, max_samples, rng)
    model, Z = _scaled(X, k, n_jobs, params)
    problem = model._problem(Z, None)
    k, n = model.n_components_, problem.X.shape[0]
    reference = _fit(model, problem, k, model.init, rng, n_jobs)
    model._keep(reference, problem)
    if not reference.U.any():
        warn_user(f"penalty={model.penalty:g} empties the model: every score is zero. Lower the penalty.")
    names, columns = model._component_names(), Scaling(**model.scaling_).names_out(model.variables_)

    def run(source, seed, n_jobs, step):
        rows = problem
        if source == "rows":
            drawn = np.bincount(np.random.RandomState(seed).randint(n, size=n), minlength=n).astype(np.float64)
            rows = model._problem(problem.X, drawn)
        fit = _fit(model, rows, k, "random" if source == "start" else model.init, seed, n_jobs, step)
        step()
        return fit.H / fit.sums[:, None], fit.objective, fit.converged

    sources = ["start"] * n_runs + ["rows"] * n_runs
    tasks = [partial(run, source, seed) for source, seed in zip(sources, _seeds(rng, len(sources)), strict=True)]
    found = _run(tasks, len(tasks), "runs", n_jobs, progress)
    _warn_of_passes([converged for *_, converged in found], model)
    H = model.components_
    matched = [_matched(loadings, H) for loadings, *_ in found]
    consensus = np.mean([loadings for loadings, _ in matched], axis=0)
    sums = consensus.sum(axis=1, keepdims=True)
    similarity = pd.DataFrame([similar for _, similar in matched], columns=names)
    table = similarity.assign(run=range(len(found)), source=sources).melt(
        ["run", "source"], var_name="component", value_name="similarity"
    )
    objectives = np.array([objective for _, objective, _ in found])
    with np.errstate(divide="ignore", invalid="ignore"):
        objectives = objectives / reference.objective
    return Stability(
        table.sort_values(["run", "component"], kind="stable", ignore_index=True),
        pd.DataFrame({"run": range(len(found)), "source": sources, "objective": objectives}),
        pd.DataFrame(H, names, columns),
        pd.DataFrame(consensus / np.where(sums > 0, sums, 1), names, columns),
        similarity.mean(),
    )


# What the three have in common


def _check_count(value, name="n_components"):
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}; wanted a whole number, 1 or more.")
    return int(value)


def _check_counts(n_components):
    counts = [] if isinstance(n_components, str) or not isinstance(n_components, Iterable) else list(n_components)
    if not counts:
        raise ValueError(
            f"n_components is {n_components!r}; wanted the numbers of components to try, like range(1, 11)."
        )
    return sorted({_check_count(k) for k in counts})


def _check_penalties(penalties):
    values = np.unique(np.asarray(penalties, dtype=np.float64).ravel())
    if not len(values) or not np.isfinite(values).all() or values[0] < 0:
        raise ValueError(f"penalties is {penalties!r}; wanted finite numbers, 0 or more, at least one.")
    return values.tolist()


def _sampled(X, y, max_samples, rng):
    """Return X and y, or some rows of them, drawn at random, in their order."""
    X = X.tocsr() if sparse.issparse(X) else X
    if y is not None:
        check_consistent_length(X, y)
    n = _num_samples(X)
    if max_samples is None or n <= _check_count(max_samples, "max_samples"):
        return X, y
    rows = np.sort(rng.choice(n, max_samples, replace=False))
    return _safe_indexing(X, rows), None if y is None else _safe_indexing(y, rows)


def _scaled(X, n_components, n_jobs, params, **defaults):
    """Return a model that has learned shift and scale of X, and the scaled columns."""
    model = NMFFeatures(n_components, n_jobs=n_jobs, **{**defaults, **params})
    model._validate_params()
    if not isinstance(model.init, str):
        raise ValueError('init is an array; wanted the name of a start, "auto", "nnsvd-lrc", "nndsvda" or "random".')
    return model, model._learn_scaling(X, None)[1]


def _seeds(rng, n):
    return rng.randint(2**31 - 1, size=n)


def _penalised(problem, penalty):
    """Return the problem with another penalty."""
    return replace(problem, strengths=Strengths(*(penalty * q for q in problem.unit)))


def _fit(model, problem, k, start, seed, n_jobs, step=None):
    """Fit with the parameters of a model; nothing is warned of."""
    given = {**model._fit_parameters(), "init": start, "random_state": seed, "n_jobs": n_jobs}
    return fit_loadings(problem, k, **given, watch=step and partial(step, 0))


def _run(tasks, steps, what, n_jobs, progress):
    """Run tasks on threads, in a way that Ctrl-C ends soon; return what they return, in order.

    A task is called with how many threads it may use itself, and with a function to call with the number of steps that
    it has made, 0 to ask only whether to go on.
    """
    threads = min(n_threads(n_jobs), len(tasks))
    if not threads:
        return []
    within, stop = n_threads(n_jobs) // threads, threading.Event()
    with _progress_bar(what, steps, progress) as advance, ThreadPoolExecutor(threads, "nmf_features") as pool:

        def step(made=1):
            if stop.is_set():
                raise KeyboardInterrupt
            if made:
                advance()

        futures = [pool.submit(task, within, step) for task in tasks]
        try:
            while (state := wait(futures, 0.1, FIRST_EXCEPTION)).not_done:  # a wait without end may not hear Ctrl-C
                for future in state.done:
                    future.result()  # or what it raised
            return [future.result() for future in futures]
        except BaseException:
            stop.set()
            for future in futures:
                future.cancel()
            raise


@contextmanager
def _progress_bar(what, steps, shown):
    """Give a function to call after each step."""
    bar = _bar() if shown else None
    if bar is None:
        yield lambda: None
        return
    with bar:
        task = bar.add_task(what, total=steps)
        yield lambda: bar.advance(task)


def _bar():
    """Return a progress bar of rich, or None where it is not installed or nobody looks."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        return None
    console = Console(stderr=True)
    if not (console.is_terminal or (console.is_jupyter and find_spec("ipywidgets"))):
        return None
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, transient=True)


def _warn_of_passes(converged, model):
    failed = len(converged) - sum(converged)
    if failed:
        warn_user(
            f"{failed} of {len(converged)} fits stopped at max_iter={model.max_iter} passes, before they met "
            f"tol={model.tol:g}: raise max_iter, or tol.",
            ConvergenceWarning,
        )


# Cells that are hidden


def _draw_cells(Z, model, n_splits, test_size, rng):
    """Draw the cells that each split hides: places among the stored cells where only these count, else in the table."""
    if not isinstance(n_splits, Integral) or isinstance(n_splits, bool) or n_splits < 2:
        raise ValueError(f"n_splits is {n_splits!r}; wanted a whole number, 2 or more.")
    if not isinstance(test_size, Real) or not 0 < test_size * n_splits <= 1:
        raise ValueError(
            f"test_size is {test_size!r} with n_splits={n_splits}; wanted a share above 0 and at most 1 / n_splits, as "
            "no cell is hidden twice."
        )
    generator, counted = np.random.default_rng(_seeds(rng, 1)[0]), model._counted()
    stored_only, most = sparse.issparse(Z) and model.missing_values == "unstored", np.inf
    if stored_only:
        places = np.flatnonzero(~np.isnan(Z.data) & counted[Z.indices])
    elif sparse.issparse(Z):
        places, most = range(Z.shape[0] * int(counted.sum())), Z.nnz
    else:
        places = np.flatnonzero(~np.isnan(Z) & counted)
        if model.shift == "split":  # one half of a column tells of the other: they are hidden together
            places = places[places % 2 == 0]
    each = int(max(1, min(test_size * len(places), most)))
    if each * n_splits > len(places):
        raise ValueError(f"X has {len(places)} observed cells; wanted at least one for each of n_splits={n_splits}.")
    drawn = generator.choice(len(places), each * n_splits, replace=False)
    if isinstance(places, range):  # of the columns that count, to all columns
        row, column = np.divmod(drawn, counted.sum())
        drawn = row * Z.shape[1] + np.flatnonzero(counted)[column]
    else:
        drawn = places[drawn]
    parts = np.split(drawn, n_splits)
    return [np.concatenate([cells, cells + 1]) for cells in parts] if model.shift == "split" else parts


class _Split:
    """The fit to what is left when some cells are hidden, and how well it predicts these."""

    def __init__(self, Z, cells, model):
        unstored = model.missing_values == "unstored"
        train, self.rows, self.columns, self.values = _hide(Z, cells, unstored)
        learned = Scaling.learn(train, None, None, range(Z.shape[1]), unstored=unstored)
        self.problem = model._problem(train, None)
        self.loss, means = self.problem.loss, column_means(train, None, self.problem.missing)
        # Not asked for: cells that are missing anyway (of sparse data), and those of columns of which nothing is left.
        asked = ~np.isnan(self.values) & ~np.isnan(learned.minimum[self.columns])
        if not self.loss.spares_zeros:  # zeros alone are nothing
            asked &= means[self.columns] > 0
        self.rows, self.columns, self.values = self.rows[asked], self.columns[asked], self.values[asked]
        self.means, self.lowest, self.highest = (v[self.columns] for v in (means, learned.minimum, learned.maximum))
        if not self.loss.spares_zeros:  # the loss is infinite where nothing is predicted of something
            self.lowest = np.maximum(self.lowest, LEAST_SHARE * self.means)
        self.spread = self._loss(self.means)
        if not self.spread > 0:
            raise ValueError("X is too small, or too nearly constant: the hidden cells are all equal to column means.")

    def see(self, fit, penalty=None):
        """Return the loss of the hidden cells over that of the column means."""
        W = np.full((len(self.problem.used), len(fit.H)), np.nan)
        W[self.problem.used] = fit.U
        fitted = np.einsum("ct,tc->c", W[self.rows], (fit.H / fit.sums[:, None])[:, self.columns])
        fitted = np.where(np.isnan(fitted), self.means, fitted)  # rows of which nothing is left
        return self._loss(np.clip(fitted, self.lowest, self.highest)) / self.spread

    def _loss(self, fitted):
        top = max(self.values.max(initial=0.0), self.means.max(initial=0.0))  # so that no square overflows
        return float(self.loss.of_cells(self.values / top, fitted / top).sum()) if top > 0 else 0.0


def _hide(Z, cells, stored_only):
    """Return Z without some cells; their rows, columns and values."""
    if not sparse.issparse(Z):
        rows, columns = np.divmod(cells, Z.shape[1])
        train = Z.copy()
        train[rows, columns] = np.nan
        return train, rows, columns, Z[rows, columns].astype(np.float64)
    if stored_only:
        rows, columns, values = rows_of_stored(Z, cells), Z.indices[cells], Z.data[cells]
        left = np.ones(Z.nnz, dtype=bool)
        left[cells] = False
        counts = np.bincount(rows_of_stored(Z, np.flatnonzero(left)), minlength=Z.shape[0])
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(Z.indptr.dtype)
        train = sparse.csr_array((Z.data[left], Z.indices[left], starts), shape=Z.shape)
        return train, rows, columns, values.astype(np.float64)
    rows, columns = np.divmod(cells, Z.shape[1])
    values = np.asarray(Z[rows, columns]).ravel().astype(np.float64)
    holes = sparse.coo_array((np.full(len(rows), np.nan, Z.dtype), (rows, columns)), shape=Z.shape)
    return (Z + holes).tocsr(), rows, columns, values


def _new_loadings(problem, fit, k):
    """Return loadings of what a fit leaves over, up to k: leading singular vectors of its positive part, in turn."""
    R = block_of(problem.X).residual(fit.U.T, fit.H / fit.sums[:, None]).X
    cells, new = R.data if sparse.issparse(R) else R, np.zeros((k - len(fit.H), R.shape[1]))
    cells[np.isnan(cells)] = 0
    cells /= cells.max(initial=0.0) or 1.0  # so that no square overflows
    for t in range(len(new)):
        h = np.asarray(R.sum(axis=0), dtype=np.float64).ravel()
        for _ in range(10):
            w = product(R, h / (np.linalg.norm(h) or 1.0))
            h = product(w / (np.linalg.norm(w) or 1.0), R)
        h /= np.linalg.norm(h) or 1.0
        w = product(R, h)
        R = block_of(R).residual(w[None], h[None]).X
        new[t] = np.sqrt(np.linalg.norm(w)) * h
    return new


def _summary(table):
    """Return the mean error of each number of components, and how it differs from the least, split by split."""
    errors = table.pivot(index="split", columns="n_components", values="error")
    mean = errors.mean()
    difference = errors.sub(errors[mean.idxmin()], axis=0)
    error = difference.std(ddof=1) / np.sqrt(len(errors))
    return pd.DataFrame(
        {"n_components": mean.index, "error": mean, "difference": difference.mean(), "standard_error": error}
    ).reset_index(drop=True)


def _warn_of_edge(chosen, counts, model, least):
    """Say where the choice may be due to the numbers tried."""
    if least >= 1:
        warn_user("No number of components predicts hidden cells better than the means of the columns do.")
    if chosen == counts[-1]:
        whole = chosen == len(model.variables_)
        warn_user(
            f"n_components={chosen} is the largest number that was tried"
            + (", one for each column: X has no fewer components." if whole else ": more may do better. Try more.")
        )
    elif chosen == counts[0]:
        warn_user(
            f"n_components={chosen} is the smallest number that was tried"
            + (": more do no better." if chosen == 1 else ": fewer may do as well. Try fewer.")
        )


# Penalties


def _mean_and_error(seen):
    """Return the mean over the first axis, and its standard error (NaN for one)."""
    spread = seen.std(axis=0, ddof=1) if len(seen) > 1 else np.nan
    return seen.mean(axis=0), spread / np.sqrt(len(seen))


class _Whole:
    """The fit to all cells, and what it looks like."""

    def __init__(self, Z, model):
        self.problem, self.counted = model._problem(Z, None), model._counted()
        self.means = column_means(Z, None, self.problem.missing)

    def see(self, fit, penalty):
        """Return a row of the table."""
        X, H = self.problem.X, fit.H / fit.sums[:, None]
        error, spread = loss_and_spread(X, fit.U, H, self.means, self.problem.loss, None, self.problem.missing)
        return {
            "penalty": penalty,
            "n_alive": int((fit.U.any(axis=0) & H.any(axis=1)).sum()),
            "zero_loadings": np.mean(H[:, self.counted] == 0),
            "zero_scores": np.mean(fit.U == 0),
            "error": error / spread if spread else np.nan,
            "converged": fit.converged,
        }

    def penalties(self):
        """Return 0, and then penalties around the one at which nothing costs as much as the column means do."""
        X, unit = self.problem.X, self.problem.unit
        ones, means = np.ones((X.shape[0], 1)), self.means[None]
        c = balance(ones.sum(axis=0), ones.sum(axis=0), means, unit)
        value = partial(divergence, X, loss=self.problem.loss, unstored=leaves_out_unstored(self.problem.missing))
        of_means, of_nothing = value(ones, means), value(0 * ones, 0 * means)
        finite = np.isfinite(of_nothing)
        even = (of_nothing - of_means if finite else of_means) / unit.cost(ones * c, means / c)
        top = HIGHEST if finite else NEVER_EMPTY
        return [0.0, *even * np.geomspace(LOWEST, top, 1 + round(PER_DECADE * np.log10(top / LOWEST)))]


class _Fold:
    """The fit to some rows, and how well a linear model on its components predicts the others."""

    def __init__(self, problem, others, y, y_others):
        self.problem, self.others, self.y, self.y_others = problem, others, y, y_others

    def see(self, fit, penalty):
        """Return the score of the other rows."""
        q = _penalised(self.problem, penalty).strengths
        W = unit_scores(self.others, fit.H, q.l1_W, q.l2_W, 1, self.problem.missing, loss=self.problem.loss)[0]
        W = np.where(np.isnan(W), fit.U.mean(axis=0), W)  # rows with nothing observed
        linear = LogisticRegression(solver="newton-cholesky") if _is_classes(self.y) else LinearRegression()
        model = make_pipeline(StandardScaler(), linear)
        return model.fit(fit.U, self.y[self.problem.used]).score(W, self.y_others)


def _is_classes(y):
    return y.dtype.kind not in "iuf"


def _folds(X, y, cv, model):
    """Return what makes a _Fold of each fold, and the name of its score."""
    y = column_or_1d(np.asarray(y), warn=False)
    classes = _is_classes(y)
    if not classes and not np.isfinite(y).all():
        raise ValueError("y has NaN or infinite values; wanted finite numbers, or classes as words or booleans.")
    folds = []
    for train, test in check_cv(cv, y, classifier=classes).split(np.zeros((len(y), 1)), y):
        own = clone(model).set_params(out_of_range="clip")
        with warnings.catch_warnings():  # what there is to say was said of all rows
            warnings.simplefilter("ignore")
            Z = own._learn_scaling(_safe_indexing(X, train), None)[1]
            others = own._scaled(own._check(_safe_indexing(X, test), reset=False))
        folds.append((own._problem(Z, None), others, y[train], y[test]))
    return folds, "accuracy" if classes else "r2"


# Runs


def _matched(loadings, reference):
    """Return loadings in the order of the reference, and their cosines with it: the sum of the cosines is largest."""
    cosines = product(_unit(reference), _unit(loadings).T)
    _, order = linear_sum_assignment(-cosines)
    return loadings[order], cosines[np.arange(len(order)), order]


def _unit(H):
    lengths = np.linalg.norm(H, axis=1, keepdims=True)
    return H / np.where(lengths > 0, lengths, 1)
