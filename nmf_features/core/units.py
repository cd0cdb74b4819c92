"""Units in which nothing overflows: the range of the cells, and powers of two that they are divided by."""

import numpy as np
from scipy import sparse

from .products import PRODUCT_CELLS


def extremes(X):
    """Return the least and the largest cell (0 if there is none above), NaN where one is, with one read of X."""
    X = X.data if sparse.issparse(X) else X
    step, least, most = max(1, PRODUCT_CELLS // max(X[:1].size, 1)), [0.0], [0.0]
    for start in range(0, len(X), step):
        part = X[start : start + step]
        least.append(part.min(initial=0.0))
        most.append(part.max(initial=0.0))
    return float(np.min(least)), float(np.max(most))


def largest(X):
    """Return the largest cell that is observed, 0 where all are."""
    top = extremes(X)[1]
    return float(np.nanmax(X.data if sparse.issparse(X) else X, initial=0.0)) if np.isnan(top) else top


def safe_scale(X, top=None, loss=None):
    """Return X / 4^e and e: 0 (and X itself) for ordinary data, else such that no square overflows or vanishes.

    ``top`` is the largest cell, where it is known. A ``loss`` that is not the same in other units keeps X as it is.
    """
    if loss is not None and not loss.homogeneous:
        return X, 0
    top = largest(X) if top is None else top
    exponent = int(np.frexp(top)[1]) if top > 0 else 0
    if abs(exponent) <= np.finfo(X.dtype).maxexp // 8:
        return X, 0
    half = exponent // 2
    if not sparse.issparse(X):
        return np.ldexp(X, -2 * half), half
    X = X.copy()
    X.data = np.ldexp(X.data, -2 * half)
    return X, half


def in_units(values, exponent):
    """Return values times 2^exponent."""
    whole = int(np.floor(exponent))
    with np.errstate(over="ignore"):
        return np.ldexp(values * np.exp2(exponent - whole), whole)
