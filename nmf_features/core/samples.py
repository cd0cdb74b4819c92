"""Samples of the rows of a table that no order of the rows changes.

Rows are sorted by a number that depends on their cells alone, and then drawn at even steps along the sum of their sizes
(systematic sampling): equal rows stand together, so that each kind of row comes as often as it is there. The size of
a row is half its share of the sum of squares (or of what else the loss measures cells by) and half that of the weights:
a few large rows that hold much of the sum of squares are drawn for certain. A drawn row weighs as much as the rows it
stands for, so that sums over a sample are near those over all rows.

References: W. G. Madow (1949), On the theory of systematic sampling, II; A. Frieze, R. Kannan and S. Vempala (2004),
Fast Monte-Carlo algorithms for finding low-rank approximations, for drawing rows by their sizes.
"""

import numpy as np
from scipy import sparse

from .blocks import with_data
from .kernels import compiled, content_keys

SLICE_CELLS = 1 << 17  # a slice of rows stays in the cache


class Rows:
    """The rows of a table in the order of their content, and how much each counts in a sample.

    ``power`` says by what powers of its cells a row is measured: from 0 to 2.
    """

    def __init__(self, X, weights=None, power=2.0):
        self.weights = weights
        # Without any relation: whole multiples of regular ones would often have the same sum for different rows.
        factors = np.random.default_rng(0).uniform(1, 2, X.shape[1])
        keys, self.sizes = _keys_and_sizes(X, factors, float(power))
        self.order = np.argsort(keys, kind="stable") if weights is None else np.lexsort((weights, keys))
        in_order = self._weights(self.order)  # sums, too, are the same in any order that the rows came in
        self.weight, self.size = in_order.sum(), (in_order * self.sizes[self.order]).sum()

    def all(self):
        """Return the positions of all rows and their weights."""
        return self.order, self._weights(self.order)

    def sample(self, m):
        """Return the positions of at most m rows and what they weigh there; their sum is near that of all weights."""
        ends = np.cumsum(self._weights(self.order) * self._shares(self.order))
        step = ends[-1] / m
        drawn, times = np.unique(np.searchsorted(ends, (np.arange(m) + 0.5) * step), return_counts=True)
        rows = self.order[np.minimum(drawn, len(ends) - 1)]
        return rows, times * step / self._shares(rows)

    def _weights(self, rows):
        return np.ones(len(rows)) if self.weights is None else self.weights[rows]

    def _shares(self, rows):
        """Return the mean of the rows' shares of the size and of the weight, for a weight of 1."""
        return (1 / self.weight + (self.sizes[rows] / self.size if self.size else 1 / self.weight)) / 2


def _keys_and_sizes(X, factors, power):
    """Return for every row a number that its cells alone decide, bit for bit, and the sum of their powers."""
    n, p = X.shape
    keys, sizes = np.zeros(n), np.zeros(n)
    if sparse.issparse(X):
        cells = np.nan_to_num(X.data, nan=0.0).astype(np.float64)
        return tuple(with_data(X, values) @ np.ones(p) for values in (cells * factors[X.indices], cells**power))
    step = max(1, SLICE_CELLS // max(p, 1))
    for start in range(0, n, step):
        rows = slice(start, start + step)
        compiled(content_keys)(np.ascontiguousarray(X[rows]), factors, power, keys[rows], sizes[rows])
    return keys, sizes
