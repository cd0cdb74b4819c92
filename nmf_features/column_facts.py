"""What shift and scale ask of the columns: extremes, means and quantiles over rows, with row weights.

:class:`Matrix` answers for an array or a CSR matrix in memory; pieces.py has another for rows that lie elsewhere.
Missing cells are left out: NaN, and with ``unstored`` what a sparse matrix does not store.
"""

import numpy as np
from scipy import sparse
from sklearn.utils.sparsefuncs import min_max_axis

from .core.blocks import with_data
from .core.products import product, slices

SLACK = 1e-12  # a share of the weight counts as reached so much earlier: sums of weights are rounded


class Matrix:
    """The columns of a matrix with at least one row; weights are positive, or None."""

    def __init__(self, X, weights=None, unstored=False):
        self.X, self.weights, self.unstored = X, weights, unstored
        self.is_sparse = sparse.issparse(X)

    def extremes(self):
        """Return the smallest and the largest value of every column, NaN if none is observed."""
        if self.is_sparse:
            return _sparse_extremes(self.X, self.unstored)
        return [np.asarray(extreme.reduce(self.X, axis=0)) for extreme in (np.fmin, np.fmax)]

    def negatives(self):
        """Return how many cells of every column are below zero."""
        return np.array([int((self.X[:, [j]] < 0).sum()) for j in range(self.X.shape[1])])

    def cut_off(self, upper):
        """Return the columns without what is above these bounds; dense ones are left to who reads them."""
        if not self.is_sparse:
            return self
        return Matrix(with_data(self.X, np.minimum(self.X.data, upper[self.X.indices])), self.weights, self.unstored)

    def means(self, function):
        """Return column means of a function of the rows, in float64."""
        return means(self.X, function, self.weights)

    def stored_means(self, function):
        """Return column means of a function of the stored cells and their columns; other cells are 0, or missing."""
        cells = function(self.X.data, self.X.indices)
        return sparse_means(self.X, cells, self.weights, self.unstored)

    def quantiles(self, shares, sign=1):
        """Return the quantiles of every column, times ``sign``: an array with a row for each share."""
        columns = _columns(self.X, self.weights, self.unstored)
        return np.array([_quantiles(sign * values, shares, v) for values, v in columns]).reshape(-1, len(shares)).T


def common_values(columns):
    """Return the median of every column and the share of its observed cells that have this value.

    So what most rows have is found; 0 and share 0 where nothing is observed.
    """
    [values] = columns.quantiles([0.5])
    if not columns.is_sparse:
        return values, columns.means(lambda x: np.where(np.isnan(x), np.nan, x == values))
    shares = columns.stored_means(lambda x, j: np.where(np.isnan(x), np.nan, x == values[j]))
    others = 1 - columns.stored_means(lambda x, j: np.where(np.isnan(x), np.nan, 1.0))  # zeros that are not stored
    return values, shares + np.where(values == 0, np.maximum(others, 0), 0)


def means(X, function, weights):
    """Return column means of a function of the rows, over observed cells, in float64."""
    total, count = sums(X, function, weights)
    return total / np.where(count == 0, 1, count)


def sums(X, function, weights):
    """Return the sums of a function of the rows, and the weights of the observed cells, for every column."""
    total, count = 0.0, 0.0
    for rows in slices(X):
        parts = _sums(X[rows], function, None if weights is None else weights[rows])
        total, count = total + parts[0], count + parts[1]
    return total, count


def _sums(X, function, weights):
    values = function(X.astype(np.float64, order="C"))
    v = np.ones(len(values)) if weights is None else weights
    count = np.full(values.shape[1], v.sum())
    if np.isnan(values.sum()):
        missing = np.isnan(values)
        values[missing] = 0
        count -= product(v, missing)
    return (values.sum(axis=0) if weights is None else product(v, values)), count


def _sparse_extremes(X, unstored):
    """Return the smallest and the largest observed value of every column."""
    if not unstored:
        return min_max_axis(X, axis=0, ignore_nan=True)
    by_column, observed = X.tocsc(), np.zeros((2, X.shape[1]))
    for j, (start, stop) in enumerate(zip(by_column.indptr, by_column.indptr[1:], strict=False)):
        stored = by_column.data[start:stop]
        observed[:, j] = (np.fmin.reduce(stored), np.fmax.reduce(stored)) if len(stored) else np.nan
    return observed


def sparse_means(X, cells, weights, unstored):
    """Return column means over observed cells; NaN is missing; unstored cells are 0, or missing if ``unstored``."""
    p, holes = X.shape[1], np.isnan(cells)
    v = np.ones(len(cells)) if weights is None else np.repeat(weights, np.diff(X.indptr))
    observed = np.bincount(X.indices[~holes], v[~holes], minlength=p)
    if not unstored:
        missing = np.bincount(X.indices[holes], v[holes], minlength=p)
        observed = (X.shape[0] if weights is None else weights.sum()) - missing
    total = np.bincount(X.indices[~holes], (v * cells)[~holes], minlength=p)
    return total / np.where(observed > 0, observed, 1)


def _columns(X, weights, unstored):
    """Yield values and weights of every column: of a sparse one the stored cells, and a zero for all others."""
    if not sparse.issparse(X):
        for j in range(X.shape[1]):
            yield X[:, j].astype(np.float64), weights
        return
    X, v = X.tocsc(), np.ones(X.shape[0]) if weights is None else weights
    total = np.sort(v).sum()  # sorted, as the last bits of a sum depend on the order
    for start, stop in zip(X.indptr, X.indptr[1:], strict=False):
        stored = v[X.indices[start:stop]]
        others = 0.0 if unstored else total - np.sort(stored).sum()
        yield np.append(X.data[start:stop], 0.0), np.append(stored, others)


def _quantiles(values, shares, weights):
    """Return the smallest values that have these shares of the weight at or below them ("inverted_cdf")."""
    observed = ~np.isnan(values)
    if not observed.all():
        values, weights = values[observed], None if weights is None else weights[observed]
    if not len(values):
        return np.zeros(len(shares))
    shares = np.multiply(shares, 1 - SLACK)
    if weights is None:
        at = np.maximum(np.ceil(shares * len(values)).astype(int) - 1, 0)
        return np.partition(values, at)[at]
    order = np.lexsort((weights, values))  # sorts ties too, for the same reason
    reached = np.cumsum(weights[order])
    return values[order[np.searchsorted(reached, shares * reached[-1])]]
