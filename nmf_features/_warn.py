"""Warnings that point at the user's own line, however many library wrappers lie between."""

import sys
import warnings

import numpy as np

WRAPPERS = {"nmf_features", "numpy", "sklearn", "joblib", "pandas", "contextlib"}


def warn_user(message, category=UserWarning):
    """Warn at the first caller that is neither this package nor a library that calls this package for the user."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in WRAPPERS:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level + 1)


# NumPy's default settings, whatever the caller has set: underflow is harmless here, and what matters is checked.
numpy_defaults = np.errstate(divide="warn", over="warn", under="ignore", invalid="warn")
