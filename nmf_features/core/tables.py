"""Tables: all rows of the data, in blocks, and the scores of each block.

    for each block of rows X_b:                # read once
        change its scores W_b                  # rows are independent
        total += what the loadings need from them

Other modules need nothing else from the data: ``map`` and ``sum_over`` call a function with each block and its scores.
So only the table knows where rows and scores are kept (here: in memory). The partition into blocks depends on the shape
alone, and sums run in the order of the blocks, so the number of threads cannot change a single bit.
"""

from copy import copy
from typing import NamedTuple

import numpy as np
from scipy import sparse

from .blocks import block_of, cells_of, row_blocks, take, with_data
from .missing import column_means, observed_in_rows, observed_shares
from .projection import scores_of_used

KEPT_CELLS = 1 << 21  # up to this size tables are rounded once, not block by block in every pass
LITTLE_WORK = 1 << 22  # cells, times the numbers kept for each row: threads would cost a pass more than they save


class Summary(NamedTuple):
    """Facts about a table, from one read."""

    column_sums: np.ndarray  # p, with missing cells imputed
    n_cells: int
    least: float  # smallest positive cell; it takes longest to find, so only if it is asked for
    stored: bool  # whether ``cells`` are the stored cells only

    @classmethod
    def joined(cls, parts):
        """Return the summary of all parts."""
        sums, n_cells, least, stored = zip(*parts, strict=True)
        return cls(sum(sums), sum(n_cells), min(least), stored[0])

    @property
    def mean(self):
        """The mean of all cells, with missing ones imputed."""
        return float(self.column_sums.sum()) / max(self.n_cells, 1)


class Table:
    """Rows in blocks, with ``k`` scores for each row. A subclass knows where both are kept; nothing else does.

    Beside the attributes and methods here it has ``n_blocks``; ``dtype`` (of the cells), ``n_cells`` that are kept and
    whether they are sparse (``is_sparse``); ``precision``, that of the blocks and scores it hands out, set by
    ``round_to(dtype)``; ``fresh()``, the same rows with scores of their own; ``start(dtype, remembers)``, which sets
    all scores to zero; ``score_exactly(H, strengths, loss)``, which finds exact scores, and ``resume()``, which goes on
    from them; ``keep()`` and ``take_back()`` for scores that may be needed again; and ``in_memory()``, rows and weights
    for starts. A pool also has ``take(positions)`` and ``sample(positions, weights)`` of some rows. Tables of sparse
    blocks also have ``map_columns``.

    Attributes
    ----------
    shape : tuple
        Rows and columns.
    k : int
        Number of components.
    weights : ndarray or None
        Row weights.
    missing : Missing or None
        Which cells can be missing; None: no cell is.
    observed : ndarray or None
        Observed share of each column, where cells can be missing.
    factors : ndarray or None
        What the scores are still to be multiplied by, one number for each component.
    """

    factors = None

    def map(self, function, *arguments):
        """Return function(block, Wt, *arguments) for every block, in order; it may change the scores Wt in place.

        It may also change ``block.before``. Imputed cells need not outlive the call: a function that needs them makes
        them.
        """
        raise NotImplementedError

    def sum_over(self, function, *arguments):
        """Return the sum over all blocks of what a function returns: numbers, or tuples of arrays."""
        return total(self.map(function, *arguments))

    def summary(self, least=True):
        """Return the summary of one read; without ``least``, the smallest positive cell is not looked for."""
        return Summary.joined(list(self.map(summary_of_block, least)))

    def rescale(self, c):
        """Multiply the scores of each component, those of the previous pass too, by a number, when they are read next.

        That saves a read of all scores.
        """
        self.factors = c if self.factors is None else self.factors * c

    def pool(self):
        """Return a table in memory from whose rows samples and starts are made: the table itself, if it is one."""
        return self

    def visit(self, function, *arguments):
        """Call function(block, Wt, *arguments) for every block, to change the scores."""
        for _ in self.map(function, *arguments):
            pass


class DrawnTable(Table):
    """Rows that are not in memory, but for some: ``drawn`` is a table of these (samples.py).

    A subclass has ``replace_scores(H, strengths, loss)``, which makes scores exact and returns which components have a
    positive one, and the sums of the loadings.
    """

    is_sparse = False

    def __init__(self, n, drawn, dtype, missing, observed, means):
        self.drawn, self.missing, self.observed, self.means = drawn, missing, observed, means
        self.shape, self.dtype, self.precision = (n, drawn.shape[1]), dtype, dtype
        self.k, self.per_row, self.n_cells = drawn.k, drawn.per_row, n * drawn.shape[1]

    def score_exactly(self, H, strengths, loss):
        """Replace the scores by exact ones; return the loadings, set to zero in components without a positive score."""
        while True:
            used, self.sums = self.replace_scores(H, strengths, loss)
            idle = H.any(axis=1) & ~used
            if not idle.any():
                return H
            H = np.where(idle[:, None], 0.0, H)

    def resume(self):
        """Continue from the exact scores, which are in place."""

    def pool(self):
        """Return the rows from which samples and starts are made."""
        return self.drawn

    def in_memory(self):
        """Return rows to make starts from, and their weights."""
        return self.drawn.in_memory()


def block_read(X, weights, rows, missing, means):
    """Return the block of rows that were read; missing cells are imputed, in X itself, with column means."""
    holes, shares = (None, None) if missing is None else (np.isnan(X), observed_in_rows(X, missing))
    block = block_of(X, weights, holes, shares)
    block.rows = rows
    if holes is not None:
        block.fill_with(means)
    return block


def total(parts):
    """Add the results of all blocks, in order."""
    parts = iter(parts)  # one at a time: each may be as large as many loadings
    first = next(parts)
    if not isinstance(first, tuple):
        return sum(parts, start=first)
    for part in parts:
        for sum_, term in zip(first, part, strict=True):
            sum_ += term
    return first


def rescale_scores(block, Wt, c):
    """Multiply the scores of a block, those of the previous pass too, by a number for each component."""
    for scores in (Wt, block.before):
        if scores is not None:
            scores *= c[:, None].astype(Wt.dtype)


def _as_they_are(block, Wt):
    """Change nothing."""


def summary_of_block(block, Wt, least):
    """Return the summary of a block."""
    cells, shape = block.cells, block.X.shape
    sums = np.asarray(block.X.sum(axis=0, dtype=np.float64)).ravel()
    least = float(np.where(cells > 0, cells, np.inf).min(initial=np.inf)) if least else np.nan
    return Summary(sums, shape[0] * shape[1], least, block.is_sparse)


class MemoryTable(Table):
    """Rows of an array or a CSR matrix, and their scores, in memory.

    For each row ``k`` scores and ``per_row`` other numbers are kept; ``each`` maps over blocks (threads.py).
    """

    def __init__(self, X, weights=None, missing=None, k=1, per_row=0, each=map, n_jobs=1):
        self.X, self.weights, self.missing = X, weights, missing
        self.k, self.per_row, self.n_jobs = k, per_row, n_jobs
        self.shape, self.dtype, self.is_sparse = X.shape, X.dtype, sparse.issparse(X)
        self.n_cells = X.nnz if self.is_sparse else X.size  # cells in memory
        self.each = each if self.n_cells * max(per_row, 2 * k) > LITTLE_WORK else map
        self.rows = row_blocks(X, k, per_row)
        self.n_blocks = len(self.rows)
        self.Wt = self.before = self.kept = self.exact = self.read = None
        self.observed, self.filled, self.means, self.by_row, self.holes = None, X, None, None, None
        if missing is not None:
            self.by_row, self.observed = observed_shares(X, missing, weights)
            self.means = column_means(X, weights, missing)
            self.filled, holes = filled(X, self.means)
            self.holes = holes if holes.any() else None
        self._make_blocks()

    def summary(self, least=True):
        """Return the summary of one read, which is kept if no cell is missing: such a table stays as it is."""
        if self.read is None or (least and np.isnan(self.read.least)) or self.missing is not None:
            self.read = super().summary(least)
        return self.read

    def _make_blocks(self):
        """Make the blocks, of the copy in which missing cells are imputed, if there are any."""
        X = self.X
        self.blocks, self.columns, self.precision = [], None, X.dtype
        for rows in self.rows:
            v, shares = (None if of_rows is None else of_rows[rows] for of_rows in (self.weights, self.by_row))
            marks = None if self.holes is None else self.holes[cells_of(X, rows)]
            block = block_of(take(self.filled, rows), v, marks, shares)
            block.rows = rows
            self.blocks.append(block)
        self.at_hand = self.blocks

    def fresh(self):
        """Return a table of the same rows that will have its own scores and its own imputed cells."""
        other = copy(self)
        other.Wt = other.before = other.kept = other.exact = other.factors = None
        if self.missing is not None:
            other.filled = self.filled.copy()
            other._make_blocks()
        other.round_to(self.dtype)
        return other

    def start(self, dtype, remembers):
        """Set all scores to zero; ``remembers`` says whether the scores of the previous pass are kept as well."""
        if self.missing is not None:
            for block in self.blocks:
                block.fill_with(self.means)
        self.Wt = self.before = self.kept = self.exact = self.factors = None  # memory is released before new is taken
        memory = np.zeros(self.shape[0] * self.k, dtype)  # in one piece, so that it is released as one
        self.Wt = [memory[r.start * self.k : r.stop * self.k].reshape(self.k, -1) for r in self.rows]
        self.before = [Wt.copy() if remembers else None for Wt in self.Wt]
        self.round_to(dtype)

    def round_to(self, dtype):
        """Switch to another precision: small tables are rounded once, others block by block, when they are read."""
        self._rescale_now()
        self.precision, self.at_hand = dtype, self.blocks
        if self.n_cells <= KEPT_CELLS:
            self.at_hand = [block.rounded(dtype).hold() for block in self.blocks]
        self.Wt = self.Wt and [Wt.astype(dtype, copy=False) for Wt in self.Wt]

    def map(self, function, *arguments):
        """Return function(block, Wt, *arguments) for every block, in order; it may change the scores Wt in place."""
        factors, self.factors = self.factors, None

        def of_block(i):
            block, Wt = self.at_hand[i].rounded(self.precision), self._scores(i)
            block.before = self.before and self.before[i]
            if factors is not None:
                rescale_scores(block, Wt, factors)
            return function(block, Wt, *arguments)

        return self.each(of_block, range(self.n_blocks))

    def map_columns(self, function, H, *arguments):
        """Return function(block, part of H, W, weights, columns, *arguments) for blocks of columns of a sparse table.

        They are blocks of the transposed table, which stays sparse. W (k x n) holds all scores.
        """
        if self.columns is None:
            Xt = self.X.T.tocsr()
            holes = np.isnan(Xt.data)
            Xt = with_data(Xt, np.where(holes, 0, Xt.data))
            self.columns = row_blocks(Xt, self.k)
            self.transposed = [
                block_of(take(Xt, c), None, holes[cells_of(Xt, c)] if holes.any() else None) for c in self.columns
            ]
        self._rescale_now()
        W = np.concatenate(self.Wt, axis=1)

        def of_block(columns, block):
            part = np.ascontiguousarray(H[:, columns], dtype=self.precision)
            return function(block.rounded(self.precision), part, W, self.weights, columns, *arguments)

        return self.each(of_block, self.columns, self.transposed)

    def score_exactly(self, H, strengths, loss):
        """Replace the scores by exact ones; return the loadings, set to zero in components without a positive score.

        The scores are kept for loadings divided by their sums, together with these ``sums``.
        """
        self.Wt = self.factors = None
        U, self.sums, H = scores_of_used(self.X, H, strengths, self.n_jobs, self.missing, loss)
        self.exact = U
        return H

    def _rescale_now(self):
        if self.factors is not None:
            self.visit(_as_they_are)

    def _scores(self, i):
        if self.Wt is not None:
            return self.Wt[i]
        return None if self.exact is None else self._exact_scores(i)

    def _exact_scores(self, i):
        U = self.exact[self.rows[i]] / self.sums.astype(self.dtype)
        return np.ascontiguousarray(U.T)

    def resume(self):
        """Continue from the exact scores."""
        self.Wt = [self._exact_scores(i).astype(self.precision, copy=False) for i in range(self.n_blocks)]

    def keep(self):
        """Save the scores."""
        self._rescale_now()
        self.kept = [Wt.copy() for Wt in self.Wt]

    def take_back(self):
        """Restore the saved scores."""
        self._rescale_now()
        for Wt, kept in zip(self.Wt, self.kept, strict=True):
            Wt[:] = kept

    def take(self, positions):
        """Return some of the rows, NaN where cells are missing."""
        return self.X[positions]

    def sample(self, positions, weights):
        """Return a table of some of the rows, with other weights."""
        rows = self.take(positions)
        return MemoryTable(rows, weights, self.missing, self.k, self.per_row, self.each, self.n_jobs)

    def in_memory(self):
        """Return rows to make starts from, with missing cells imputed, and their weights: here all rows."""
        return self.filled, self.weights


def filled(X, means):
    """Return X with column means imputed, and a mask of the missing cells (for sparse X, of the stored ones)."""
    if not sparse.issparse(X):
        holes = np.isnan(X)
        return np.where(holes, means.astype(X.dtype), X), holes
    full, holes = X.copy(), np.isnan(X.data)
    full.data[holes] = means[X.indices[holes]]
    return full, holes
