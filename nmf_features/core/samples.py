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


class Rows:
    """The rows of a table in the order of their content, and how much each counts in a sample.

    ``power`` says by what powers of its cells a row is measured: from 0 to 2.
    """

    def __init__(self, table, power=2.0):
        self.weights = table.weights
        # Without any relation: whole multiples of regular ones would often have the same sum for different rows.
        factors = np.random.default_rng(0).uniform(1, 2, table.shape[1])
        parts = zip(*table.map(_content, factors, float(power)), strict=True)
        keys, self.sizes = (np.concatenate(part) for part in parts)
        self.order = np.argsort(keys, kind="stable") if self.weights is None else np.lexsort((self.weights, keys))
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


def _content(block, Wt, factors, power):
    """Return for every row a number that its cells alone decide, bit for bit, and the sum of their powers."""
    return block.content(factors, power)
