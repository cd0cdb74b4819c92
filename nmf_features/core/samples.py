"""Samples of the rows of a table that depend neither on the order of the rows nor on that of the columns.

Rows are sorted by a key that depends on their cells alone, and then drawn at even steps along the cumulative sum of
their sizes (systematic sampling). Equal rows are neighbours, so each kind of row is drawn in proportion to its
frequency. The size of a row is the mean of its share of the sum of squares (or of the power of cells that suits the
loss) and its share of the weights, so a few large rows that hold much of the sum of squares are drawn for certain. A
drawn row gets the weight of the rows it represents, so that sums over a sample are near those over all rows.

References: W. G. Madow (1949), On the theory of systematic sampling, II; A. Frieze, R. Kannan and S. Vempala (2004),
Fast Monte-Carlo algorithms for finding low-rank approximations, for drawing rows by their sizes.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .products import GRAM_COLUMNS, by_roots, gram_of_columns, slices
from .units import without_last_bits


class Rows:
    """The rows of a table, ordered by content, and how much each counts in a sample.

    ``order`` holds the positions of the rows, and ``columns`` those of the columns, both ordered by content.
    ``power``, from 0 to 2, is the power of the cells by which rows are measured. ``others`` are more numbers that rows
    hold, by which those with the same cells are ordered.
    """

    def __init__(self, table, power=2.0, others=()):
        self.weights = table.weights
        self.columns, factors = order_of_columns(table), np.empty(table.shape[1])
        factors[self.columns] = _factors(len(factors))
        keys, self.sizes = np.empty(table.shape[0]), np.empty(table.shape[0])
        first = 0
        for of_keys, of_sizes in table.map(_content, factors, float(power)):
            rows = slice(first, first := first + len(of_keys))
            keys[rows], self.sizes[rows] = of_keys, of_sizes
        then_by = [*([] if self.weights is None else [self.weights]), *others]
        self.order = np.lexsort([*then_by, keys]) if then_by else np.argsort(keys)  # much quicker; equal rows are equal
        del keys  # these arrays are long, so there is one or two of them at a time
        # Summed in order, so that sums do not depend on the order of the rows either.
        self.weight = float(len(self.order)) if self.weights is None else self.weights[self.order].sum()
        self.size = self._weighted(self.sizes[self.order], self.order).sum()

    def all(self):
        """Return the positions of all rows and their weights."""
        return self.order, self._weights(self.order)

    def sample(self, m):
        """Return the positions of at most m rows and their weights there, whose sum is near that of all weights."""
        ends = self._weighted(self._shares(self.order), self.order)
        np.cumsum(ends, out=ends)
        step = ends[-1] / m
        drawn, times = np.unique(np.searchsorted(ends, (np.arange(m) + 0.5) * step), return_counts=True)
        rows = self.order[np.minimum(drawn, len(ends) - 1)]
        return rows, times * step / self._shares(rows)

    def _weights(self, rows):
        return np.ones(len(rows)) if self.weights is None else self.weights[rows]

    def _weighted(self, values, rows):
        """Multiply values of rows by their weights, in place."""
        if self.weights is not None:
            values *= self.weights[rows]
        return values

    def _shares(self, rows):
        """Return the mean of each row's shares of the total size and of the total weight, per unit of its weight."""
        shares = self.sizes[rows]
        if self.size:
            shares /= self.size
        else:
            shares[:] = 1 / self.weight
        shares += 1 / self.weight
        shares /= 2
        return shares


@lru_cache(maxsize=4)
def _factors(p):
    """Return what columns are multiplied by: sums of multiples of regular factors would often be equal for two rows."""
    return np.random.default_rng(0).uniform(1, 2, p)


def order_of_columns(table, width=1):
    """Return the positions of the columns, ordered by content; ``width`` columns side by side stay so.

    They are ordered by their sums. Where sums are equal, as of levels that are equally frequent, products with all
    columns decide; if there are too many columns for that, products with the sums of the rows.
    """
    sums = table.summary(least=False).column_sums if table.weights is None else table.sum_over(_sums_of_columns)
    sums = without_last_bits(sums[::width])
    order = np.argsort(sums, kind="stable")
    if (sums[order[1:]] == sums[order[:-1]]).any():
        with np.errstate(over="ignore", invalid="ignore"):  # if they overflow, columns stay as they are
            if table.shape[1] <= GRAM_COLUMNS:
                # Sums of a power that is no whole number are hardly ever equal.
                others = (table.sum_over(_products_of_columns) ** 1.5).sum(axis=1)
            else:
                others = table.sum_over(_sums_of_columns, True)
            order = np.lexsort((without_last_bits(others[::width]), sums))
    return (order[:, None] * width + np.arange(width)).ravel() if width > 1 else order


def _sums_of_columns(block, Wt, by_row_sums=False):
    """Return the sums of the columns, with row weights, or with these times the sums of the rows."""
    block = block.rounded(np.dtype(np.float64))
    v = np.ones(block.X.shape[0]) if block.weights is None else block.weights.astype(np.float64)
    if by_row_sums:
        v = v * np.asarray(block.X.sum(axis=1)).ravel()
    return block.scores_times(v[None])[0]


def _products_of_columns(block, Wt):
    """Return X'X, with row weights."""
    X = block.rounded(np.dtype(np.float64)).X
    return gram_of_columns(X if block.weights is None else by_roots(X, block.weights))


def _content(block, Wt, factors, power):
    """Return a key for every row that depends, bit for bit, on its cells alone, and the sum of their powers."""
    return block.content(factors, power)


class Drawn(NamedTuple):
    """Rows that may be in a sample of a table that is read once, in pieces; see :func:`draw`.

    ``rows`` are their positions in the piece, or the rows themselves (:func:`taken`). ``by_weight`` and ``by_size`` are
    a random number of each row, divided by its weight, and by that times its size.
    """

    rows: np.ndarray
    weights: np.ndarray
    by_weight: np.ndarray
    by_size: np.ndarray
    least: tuple = (np.inf, np.inf)  # rows left out have larger numbers than these

    def chosen(self, at):
        """Return some of the rows."""
        return Drawn(*(part[at] for part in self[:4]), self.least)


def draw(X, weights, first, m, power, least=(np.inf, np.inf)):
    """Return which of some rows may be among those drawn, by position; ``first`` is the number of the first one.

    Two samples with shared random numbers (bottom-k): of the m rows with the smallest numbers by weight, and by weight
    times size. The random number of a row depends on its place in the table alone, so the sample is the same however
    the table is cut into pieces. Rows whose numbers are not below the ``least`` of rows left out elsewhere are not
    drawn. Reference: E. Cohen (2015), Multi-objective weighted sampling.
    """
    v, sizes = np.ones(len(X)) if weights is None else weights, np.empty(len(X))
    for r in slices(X):
        np.nansum(X[r] ** power, axis=1, dtype=np.float64, out=sizes[r])
    with np.errstate(divide="ignore", over="ignore"):
        by_weight = _uniform(np.arange(first, first + len(X), dtype=np.uint64)) / v
        by_size = by_weight / sizes
    return merge_drawn([below_least(Drawn(np.arange(len(X)), v, by_weight, by_size), least)], m)


def merge_drawn(parts, m):
    """Return what may be drawn of the rows of several parts."""
    whole = Drawn(*(np.concatenate(arrays) for arrays in list(zip(*parts, strict=True))[:4]))
    least = [min(part.least[i] for part in parts) for i in (0, 1)]
    for i, numbers in enumerate((whole.by_weight, whole.by_size)):
        if len(numbers) > m:
            least[i] = min(least[i], np.partition(numbers, m)[m])
    return below_least(whole, tuple(least))


def below_least(drawn, least):
    """Return the rows whose numbers are below the least of rows that are left out."""
    kept = (drawn.by_weight < least[0]) | (drawn.by_size < least[1])
    return drawn.chosen(kept)._replace(least=least)


def taken(drawn, X):
    """Return the rows themselves in place of their positions in X."""
    return drawn._replace(rows=X[drawn.rows])


def as_sample(drawn):
    """Return the drawn rows and their weights in the sample, whose sums estimate those over all rows without bias."""
    v, (of_weight, of_size) = drawn.weights, drawn.least
    ratio = np.divide(drawn.by_weight, drawn.by_size, out=np.zeros(len(v)), where=drawn.by_size > 0)  # the size
    with np.errstate(invalid="ignore"):
        p = np.minimum(1.0, np.fmax(v * of_weight, np.nan_to_num(v * ratio * of_size, nan=0.0, posinf=np.inf)))
    return drawn.rows, v / p


def _uniform(numbers):
    """Return a random number in (0, 1] for every whole number, always the same one (the mixer of splitmix64)."""
    with np.errstate(over="ignore"):
        z = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(11)).astype(np.float64) + 1) / 2.0**53
