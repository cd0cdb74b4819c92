"""What the three ways of choosing have in common: the rows they look at, and many fits on threads, with progress."""

import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from importlib.util import find_spec
from numbers import Integral

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import _safe_indexing, check_consistent_length
from sklearn.utils.validation import _num_samples

from .. import frames
from .._warn import warn_user
from ..columns import Columns
from ..core.threads import n_threads
from ..core.watch import Watch
from ..estimator import NMFFeatures, checked
from ..fitting import solve


def check_count(value, name="n_components"):
    """Return a whole number, 1 or more; anything else is refused."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}; wanted a whole number, 1 or more.")
    return int(value)


def sampled(X, y, max_samples, rng):
    """Return X and y, or some rows of them, drawn at random, in their order."""
    X = frames.as_table(X)
    if y is not None:
        check_consistent_length(X, y)
    n = _num_samples(X)
    if max_samples is None or n <= check_count(max_samples, "max_samples"):
        return X, y
    rows = np.sort(rng.choice(n, max_samples, replace=False))
    return _safe_indexing(X, rows), None if y is None else _safe_indexing(y, rows)


def scaled(X, n_components, n_jobs, params, **defaults):
    """Return the columns of X with their shift and scale, and the scaled matrix; ``columns.model`` is not fitted."""
    model = checked(NMFFeatures(n_components, n_jobs=n_jobs, **{**defaults, **params}))
    if not isinstance(model.init, str):
        raise ValueError('init is an array; wanted the name of a start, "auto", "nnsvd-lrc", "nndsvda" or "random".')
    learned = Columns.learn(model, X)
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
