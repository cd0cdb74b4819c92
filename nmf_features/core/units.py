"""Units in which nothing overflows: the range of the cells, and the powers of two to divide them by."""

import numpy as np
from scipy import sparse

from .products import PRODUCT_CELLS

KEPT_BITS = 36  # of means and deviations: eleven digits


def without_last_bits(values):
    """Round means over rows: their last bits depend on the order of the rows, and fits depend on these bits."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(np.ldexp(mantissa, KEPT_BITS)), exponent - KEPT_BITS)


def extremes(X):
    """Return min(0, smallest cell) and max(0, largest cell), NaN if a cell is NaN, with one read of X."""
    X = X.data if sparse.issparse(X) else X
    step, least, most = max(1, PRODUCT_CELLS // max(X[:1].size, 1)), [0.0], [0.0]
    for start in range(0, len(X), step):
        part = X[start : start + step]
        least.append(part.min(initial=0.0))
        most.append(part.max(initial=0.0))
    return float(np.min(least)), float(np.max(most))


def largest(X):
    """Return the largest observed cell, 0 if there is none above."""
    top = extremes(X)[1]
    return float(np.nanmax(X.data if sparse.issparse(X) else X, initial=0.0)) if np.isnan(top) else top


def safe_scale(X, top=None, loss=None):
    """Return X / 4^e and e, chosen so that no square overflows or vanishes: for ordinary data 0, and X itself.

    ``top`` is the largest cell, if known. If the ``loss`` depends on the units of X, X stays as it is.
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
