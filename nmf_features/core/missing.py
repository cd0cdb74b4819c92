"""Missing cells: which they are, the observed shares of rows and columns, and means of observed cells.

Missing cells (NaN, or what a sparse matrix does not store) are left out of the loss. The penalty is scaled accordingly:
p becomes the number of cells observed in the row, n the weight of the rows observed in the column.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from .products import PRODUCT_CELLS, product, slices


class Missing(NamedTuple):
    """Which cells are left out: NaN, and with ``unstored`` the cells that a sparse matrix does not store.

    ``n_counted`` is the number of columns in which cells can be missing.
    """

    n_counted: int
    unstored: bool = False


def leaves_out_unstored(missing):
    """Whether unstored cells of a sparse matrix are missing (``missing`` is None if no cell is)."""
    return missing is not None and missing.unstored


def missing_of(X, n_counted, missing_values):
    """Return a Missing for non-negative X, or None if no cell is missing, as a single sum shows."""
    if missing_values == "unstored" and sparse.issparse(X):
        return Missing(n_counted, True)
    with np.errstate(over="ignore"):
        return Missing(n_counted) if np.isnan((X.data if sparse.issparse(X) else X).sum()) else None


def observed_shares(X, missing, weights=None):
    """Return the observed share of every row, and of every column (with row weights)."""
    v, by_row = np.ones(X.shape[0]) if weights is None else weights, observed_in_rows(X, missing)
    if not sparse.issparse(X):
        holes = np.isnan(X)
        return by_row, np.where(holes.all(axis=0), 0.0, 1 - product(v, holes) / v.sum())
    marked = _marked(X, missing)
    by_column = v @ marked / v.sum()
    if missing.unstored:
        return by_row, by_column
    nowhere = np.bincount(X.indices, marked.data, X.shape[1]) == X.shape[0]
    return by_row, np.where(nowhere, 0.0, 1 - by_column)


def observed_in_rows(X, missing):
    """Return the observed share of every row."""
    if not sparse.issparse(X):
        return 1 - np.isnan(X).sum(axis=1) / missing.n_counted
    by_row = _marked(X, missing) @ np.ones(X.shape[1]) / missing.n_counted
    return by_row if missing.unstored else 1 - by_row


def _marked(X, missing):
    """Return sparse X with 1 at missing stored cells, or at observed ones if ``unstored``; else 0."""
    holes = np.isnan(X.data)
    marked = X.copy()
    marked.data = (~holes if missing.unstored else holes).astype(np.float64)
    return marked


def penalised_counts(X, missing, weights):
    """Return how much every row and every column counts in the penalty (None: 1).

    A row counts its weight times its observed share, a column the share of the total weight that is observed there.
    """
    if missing is None:
        return weights, None
    by_row, by_column = observed_shares(X, missing, weights)
    return by_row if weights is None else by_row * weights, by_column


def column_means(X, weights=None, missing=None):
    """Return the column means over observed cells, with row weights, in float64."""
    if sparse.issparse(X) and missing is not None:
        v, shares = np.ones(X.shape[0]) if weights is None else weights, observed_shares(X, missing, weights)[1]
        X = X.copy()
        X.data = np.nan_to_num(X.data, nan=0.0)
        return np.divide(v @ X / v.sum(), shares, out=np.zeros(X.shape[1]), where=shares > 1e-12)
    means = X.mean(axis=0, dtype=np.float64) if weights is None else product(weights, X) / weights.sum()
    means = np.asarray(means).ravel()
    holed = np.isnan(means)
    if not holed.any():
        return means
    v = np.ones(X.shape[0]) if weights is None else weights
    sums, counts = np.zeros((2, len(means)))
    for rows in slices(X, PRODUCT_CELLS):
        holes = np.isnan(X[rows])
        sums += product(v[rows], np.where(holes, 0, X[rows]))
        counts += product(v[rows], ~holes)
    means[holed] = np.divide(sums, counts, out=np.zeros(len(means)), where=counts > 0)[holed]
    return means
