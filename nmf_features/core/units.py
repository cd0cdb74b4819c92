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
    if len(X) <= step:
        return float(X.min(initial=0.0)), float(X.max(initial=0.0))
    for start in range(0, len(X), step):
        part = X[start : start + step]
        least.append(part.min(initial=0.0))
        most.append(part.max(initial=0.0))
    return float(np.min(least)), float(np.max(most))


def largest(X):
    """Return the largest observed cell, 0 if there is none above."""
    top = extremes(X)[1]
    return float(np.nanmax(X.data if sparse.issparse(X) else X, initial=0.0)) if np.isnan(top) else top


def column_tops(X):
    """Return the largest observed cell of each column, 0 if there is none above."""
    if not sparse.issparse(X):
        return np.fmax.reduce(X, axis=0, initial=0.0)
    tops = np.zeros(X.shape[1], X.dtype)
    np.fmax.at(tops, X.indices, X.data)
    return tops


def exponent_of(top, dtype, loss=None):
    """Return e, for which no square of cells up to ``top`` overflows or vanishes in units of 4^e: usually 0."""
    exponent = int(np.frexp(top)[1]) if top > 0 else 0
    if abs(exponent) <= np.finfo(dtype).maxexp // 8 or (loss is not None and not loss.homogeneous):
        return 0
    return exponent // 2


def safe_scale(X, top=None, loss=None):
    """Return X / 4^e and e, chosen so that no square overflows or vanishes: for ordinary data 0, and X itself.

    ``top`` is the largest cell, if known. If the ``loss`` depends on the units of X, X stays as it is.
    """
    half = exponent_of(largest(X) if top is None else top, X.dtype, loss)
    if half == 0:
        return X, 0
    if not sparse.issparse(X):
        return np.ldexp(X, -2 * half), half
    X = X.copy()
    X.data = np.ldexp(X.data, -2 * half)
    return X, half


def in_units(values, exponent):
    """Return values times 2^exponent."""
    if exponent == 0:
        return values
    whole = int(np.floor(exponent))
    with np.errstate(over="ignore"):
        return np.ldexp(values * np.exp2(exponent - whole), whole)
