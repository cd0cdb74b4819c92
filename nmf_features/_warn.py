"""Warnings that point at the user's own line, however many wrappers of ours and scikit-learn's lie between."""

import sys
import warnings


def warn_user(message, category=UserWarning):
    """Warn at the first caller that is neither this package nor scikit-learn."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("nmf_features", "sklearn"):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level + 1)
