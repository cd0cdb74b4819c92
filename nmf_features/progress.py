"""Who is told how far a fit is: scikit-learn's callbacks, the log, and the user who ends it with Ctrl-C.

A fit tells its Watch (core/watch.py) of each pass. Here the callbacks that were set, and the log that ``verbose`` asks
for, listen to it. Callbacks came with scikit-learn 1.9.
"""

import logging
import sys
import time
from contextlib import contextmanager
from functools import wraps
from typing import Any, Self

from ._warn import warn_user
from .core.watch import STARTS, Watch

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # before scikit-learn 1.9

    class CallbackSupportMixin:
        """Takes callbacks, and does not call them."""

        def set_callbacks(self, *callbacks: Any) -> Self:
            """Warn that the installed scikit-learn knows no callbacks; return the model."""
            if callbacks:
                warn_user("set_callbacks has no effect: callbacks need scikit-learn 1.9 or newer.")
            return self

        def _init_callback_context(self, **_):
            return None


EVERY = 1.0  # seconds between lines with verbose=1
LOG = logging.getLogger("nmf_features")


def log(text):
    """Log a line that ``verbose`` asked for; if nobody handles the log, it goes to stderr."""
    if LOG.level == logging.NOTSET:  # else the application has decided
        LOG.setLevel(logging.INFO)
    if LOG.hasHandlers():
        LOG.info(text)
    elif LOG.isEnabledFor(logging.INFO):
        print(text, file=sys.stderr)


class Logged:
    """Logs progress: with ``verbose=1`` the first pass of a stage and about one a second, with 2 each."""

    def __init__(self, name, verbose):
        self.name, self.verbose, self.started = name, verbose, time.monotonic()
        self.stage, self.at = None, self.started

    def __call__(self, progress):
        """Log a line, if it is time."""
        now = time.monotonic()
        if self.verbose == 1 and progress.stage == self.stage and now < self.at + EVERY:
            return
        self.stage, self.at = progress.stage, now
        residual = "" if progress.stage == STARTS else f", KKT residual {progress.kkt_residual:.2g}"
        log(f"{self.name}: {described(progress)}{residual}")

    def end(self, watch):
        """Log the end of a fit."""
        seconds, fit = time.monotonic() - self.started, watch.fit
        how = "stopped by a callback" if watch.stopped else "done"
        if fit is not None:
            how += f", passes {fit.n_iter}, objective {fit.objective:.6g}, KKT residual {fit.kkt_residual:.2g}"
        log(f"{self.name}: {how}, {seconds:.1f} s")


def described(progress):
    """Return progress in words."""
    if progress.stage == STARTS:
        return f"start {progress.start}"
    share = f" ({progress.share_of_rows:.2g} of them)" if progress.share_of_rows < 1 else ""
    return f"{progress.stage}{share}, pass {progress.passes}, objective {progress.objective:.6g}"


def as_metadata(progress):
    """Return progress as the metadata that callbacks see."""
    return {
        "stage": progress.stage,
        "start": progress.start,
        "pass": progress.passes,
        "objective": progress.objective,
        "kkt_residual": progress.kkt_residual,
        "share_of_rows": progress.share_of_rows,
    }


class Called:
    """Calls the callbacks of a model: the fit is a task, and each pass and each start a task in it."""

    def __init__(self, model, context, X, y, sample_weight):
        self.fit, self.data = context, {"estimator": model, "X": X, "y": y}
        self.whole = {**self.data, "metadata": None if sample_weight is None else {"sample_weight": sample_weight}}
        self.listening = context is not None and hasattr(model, "_skl_callbacks")
        if self.listening:
            self.fit.call_on_fit_task_begin(**self.whole)

    def __call__(self, progress):
        """Return whether a callback asks to stop."""
        # The task begins and ends here, after the pass: before it nobody knows whether there will be one.
        task = self.fit.subcontext(task_name="start" if progress.stage == STARTS else "pass")
        task.call_on_fit_task_begin(**self.data)
        return task.call_on_fit_task_end(**self.data, metadata=lambda: as_metadata(progress))

    def end(self, watch):
        """End the fit; only now is there a fitted model to look at."""
        self.fit.call_on_fit_task_end(**self.whole, reconstruction_attributes={})


@contextmanager
def followed(name, verbose, called=None):
    """Yield the Watch of a fit, for the log and the callbacks; if Ctrl-C ends it, say how far it was."""
    listeners = [Logged(name, int(verbose))] if verbose else []
    if called is not None and called.listening:
        listeners.append(called)

    def tell(progress):
        return any([listener(progress) for listener in listeners])  # all are told

    watch = Watch(tell if listeners else None)
    try:
        yield watch
    except KeyboardInterrupt as error:
        far = "before the first pass" if watch.last is None else f"after {described(watch.last)}"
        text = f"{name} was interrupted {far}. Nothing was changed."
        if error.args:
            error.add_note(text)
        else:
            error.args = (text,)
        raise
    for listener in listeners:
        listener.end(watch)


def unchanged_by_errors(fit):
    """Decorate a fit so that an error or Ctrl-C in it leaves the model as it was before, fitted or not."""

    @wraps(fit)
    def fit_or_restore(model, *args, **kwargs):
        before = vars(model).copy()
        try:
            return fit(model, *args, **kwargs)
        except BaseException:
            vars(model).clear()
            vars(model).update(before)
            raise

    return fit_or_restore
