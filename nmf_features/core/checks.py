"""Checks of data and weights before anything is computed: what cannot be fitted is refused with a reason."""

from contextlib import contextmanager

import numpy as np
from scipy import sparse
from sklearn.utils.validation import _check_sample_weight

from .units import column_tops


@contextmanager
def numbers_wanted(name):
    """Say what is wanted where an argument has words, such as the path of a table."""
    try:
        yield
    except ValueError as error:
        if "could not convert string" not in str(error):
            raise
        raise ValueError(
            f"{name} has words ({error}); wanted numbers. Read a table in a file first, and leave out columns of words."
        ) from error


def is_plain(X):
    """Whether X is an array of floats with rows and columns, which need not be checked, but for its cells."""
    return type(X) is np.ndarray and X.ndim == 2 and X.size > 0 and X.dtype in (np.float64, np.float32)


def check_weights(sample_weight, X):
    """Return row weights as a float64 array, or None if there are none; refuse negative or all-zero ones."""
    if sample_weight is None:
        return None
    with numbers_wanted("sample_weight"):
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    if not weights.any():
        raise ValueError(
            f"sample_weight is zero for all {len(weights)} rows: nothing is left to fit. Give at least one row a "
            "positive weight, or pass None."
        )
    return weights


def check_columns(X):
    """Refuse columns too different in size for floats if cells are missing: some rows may have only the small ones."""
    check_tops(column_tops(X), X.dtype)


def check_tops(tops, dtype):
    """Refuse the same, given the largest cell of every column."""
    tops = tops[tops > 0].astype(np.float64)
    if len(tops) and np.log10(tops.max()) - np.log10(tops.min()) > np.log10(float(np.finfo(dtype).max)) / 3:
        raise ValueError(
            f"X has columns whose largest cells lie between {tops.min():.3g} and {tops.max():.3g}: with missing cells, "
            "numbers so far apart leave the range of floats. Scale the columns (NMFFeatures: scale), or leave out the "
            "small ones."
        )


def without_duplicates(X):
    """Return X; if sparse, with every cell stored once (a copy, if duplicates had to be summed)."""
    if sparse.issparse(X) and not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return X
