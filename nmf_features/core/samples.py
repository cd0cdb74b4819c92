"""Samples of the rows of a table that do not depend on the order of the rows.

Rows are sorted by a key that depends on their cells alone, and then drawn at even steps along the cumulative sum of
their sizes (systematic sampling). Equal rows are neighbours, so each kind of row is drawn in proportion to its
frequency. The size of a row is the mean of its share of the sum of squares (or of the power of cells that suits the
loss) and its share of the weights, so a few large rows that hold much of the sum of squares are drawn for certain. A
drawn row gets the weight of the rows it represents, so that sums over a sample are near those over all rows.

References: W. G. Madow (1949), On the theory of systematic sampling, II; A. Frieze, R. Kannan and S. Vempala (2004),
Fast Monte-Carlo algorithms for finding low-rank approximations, for drawing rows by their sizes.
"""

import numpy as np


class Rows:
    """The rows of a table, ordered by content, and how much each counts in a sample.

    ``power``, from 0 to 2, is the power of the cells by which rows are measured. ``others`` are more numbers that rows
    hold, by which those with the same cells are ordered.
    """

    def __init__(self, table, power=2.0, others=()):
        self.weights = table.weights
        # Random: sums of whole multiples of regular factors would often be equal for different rows.
        factors = np.random.default_rng(0).uniform(1, 2, table.shape[1])
        parts = zip(*table.map(_content, factors, float(power)), strict=True)
        keys, self.sizes = (np.concatenate(part) for part in parts)
        self.order = np.lexsort([*([] if self.weights is None else [self.weights]), *others, keys])
        in_order = self._weights(self.order)  # so that sums do not depend on the order of the rows either
        self.weight, self.size = in_order.sum(), (in_order * self.sizes[self.order]).sum()

    def all(self):
        """Return the positions of all rows and their weights."""
        return self.order, self._weights(self.order)

    def sample(self, m):
        """Return the positions of at most m rows and their weights there, whose sum is near that of all weights."""
        ends = np.cumsum(self._weights(self.order) * self._shares(self.order))
        step = ends[-1] / m
        drawn, times = np.unique(np.searchsorted(ends, (np.arange(m) + 0.5) * step), return_counts=True)
        rows = self.order[np.minimum(drawn, len(ends) - 1)]
        return rows, times * step / self._shares(rows)

    def _weights(self, rows):
        return np.ones(len(rows)) if self.weights is None else self.weights[rows]

    def _shares(self, rows):
        """Return the mean of each row's shares of the total size and of the total weight, per unit of its weight."""
        return (1 / self.weight + (self.sizes[rows] / self.size if self.size else 1 / self.weight)) / 2


def _content(block, Wt, factors, power):
    """Return a key for every row that depends, bit for bit, on its cells alone, and the sum of their powers."""
    return block.content(factors, power)
