"""What the three ways of choosing have in common: the rows they look at, and many fits on threads, with progress."""

import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from importlib.util import find_spec
from numbers import Integral

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import _safe_indexing, check_consistent_length
from sklearn.utils.validation import _num_samples

from .. import frames
from .._warn import warn_user
from ..columns import Columns
from ..core.checks import check_weights
from ..core.threads import n_threads
from ..core.watch import Watch
from ..estimator import NMFFeatures, checked
from ..fitting import solve


def check_count(value, name="n_components"):
    """Return a whole number, 1 or more; anything else is refused."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}; wanted a whole number, 1 or more.")
    return int(value)


def sampled(X, y, max_samples, rng, sample_weight=None, groups=None):
    """Return X, y, weights and groups of the rows of positive weight, or of some of them, drawn at random.

    Rows stay in their order; groups become numbers from 0, in the order in which they appear, and are drawn as wholes.
    """
    X = frames.as_table(X)
    if y is not None:
        check_consistent_length(X, y)
    n = _num_samples(X)
    most = n if max_samples is None else check_count(max_samples, "max_samples")
    weights = check_weights(sample_weight, np.empty(n))
    numbers = None if groups is None else _numbers(groups, n)
    rows = np.arange(n) if weights is None else np.flatnonzero(weights)
    if len(rows) > most and groups is None:
        rows = np.sort(rng.choice(rows, most, replace=False))
    elif len(rows) > most:
        numbers = _renumbered(numbers[rows])
        sizes = np.bincount(numbers)
        order = rng.permutation(len(sizes))
        drawn = order[: max(1, np.searchsorted(np.cumsum(sizes[order]), most, side="right"))]
        chosen = np.isin(numbers, drawn)
        rows, numbers = rows[chosen], numbers[chosen]
    elif groups is not None:
        numbers = numbers[rows]
    if len(rows) < n:
        X, y = _safe_indexing(X, rows), None if y is None else _safe_indexing(y, rows)
        weights = None if weights is None else weights[rows]
    return X, y, weights, None if groups is None else _renumbered(numbers)


def _numbers(groups, n):
    """Return a number for every label."""
    labels = frames.objects(groups) if isinstance(groups, list | tuple) else np.asarray(groups)
    if labels.shape != (n,):
        raise ValueError(f"groups has shape {labels.shape}; wanted one label for each of the {n} rows of X.")
    if missing := int(pd.isna(labels).sum()):
        raise ValueError(f"groups is missing in {missing} rows: give each a label of its own, or leave them out.")
    return _renumbered(labels)


def _renumbered(labels):
    return pd.factorize(labels)[0]


def scaled(X, n_components, n_jobs, params, weights=None, **defaults):
    """Return the columns of X with their shift and scale, and the scaled matrix; ``columns.model`` is not fitted."""
    model = checked(NMFFeatures(n_components, n_jobs=n_jobs, **{**defaults, **params}))
    if not isinstance(model.init, str):
        raise ValueError('init is an array; wanted the name of a start, "auto", "nnsvd-lrc", "nndsvda" or "random".')
    learned = Columns.learn(model, X, weights)
    return learned.columns, learned.X


def seeds(rng, n):
    """Return n seeds."""
    return rng.randint(2**31 - 1, size=n)


def fit(model, problem, k, start, seed, n_jobs, step=None, targets=None):
    """Fit with the parameters of a model; nothing is warned about."""
    watch = Watch(lambda _: step(0)) if step else None
    return solve(model, problem, k, targets, init=start, random_state=seed, n_jobs=n_jobs, watch=watch)


def run(tasks, steps, what, n_jobs, progress):
    """Run tasks on threads so that Ctrl-C ends them soon; return what they return, in order.

    A task is called with the number of threads that it may use itself, and with a function to be called with the number
    of steps made: 0 only asks whether to go on.
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
            while (state := wait(futures, 0.1, FIRST_EXCEPTION)).not_done:  # without timeout, Ctrl-C may go unnoticed
                for future in state.done:
                    future.result()  # raises what the task raised
            return [future.result() for future in futures]
        except BaseException:
            stop.set()
            for future in futures:
                future.cancel()
            raise


@contextmanager
def _progress_bar(what, steps, shown):
    """Yield a function to call after each step."""
    bar = _bar() if shown else None
    if bar is None:
        yield lambda: None
        return
    with bar:
        task = bar.add_task(what, total=steps)
        yield lambda: bar.advance(task)


def _bar():
    """Return a progress bar of rich, or None if it is not installed or the output is not shown to anybody."""
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


def warn_of_passes(converged, model):
    """Warn if some of the fits did not converge."""
    failed = len(converged) - sum(converged)
    if failed:
        warn_user(
            f"{failed} of {len(converged)} fits stopped at max_iter={model.max_iter} passes, before they met "
            f"tol={model.tol:g}: raise max_iter, or tol.",
            ConvergenceWarning,
        )
