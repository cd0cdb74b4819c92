"""Batches of rows whose products are the same whatever rows stand beside them, bit for bit.

A product with one row may be rounded differently from a product with many. So rows of an array go through tiles of one
fixed height, the last one padded with zeros; rows of a CSR matrix are multiplied one by one. In single precision BLAS
on processors with AVX2 also rounds by the place of a row in its tile, so all tiles are multiplied in double precision.

``cells`` are all cells of an array, and the stored ones of a CSR matrix; other numbers in their place have their shape.
"""

import numpy as np
from scipy import sparse

from .blocks import fitted_at_stored, rows_of_stored, with_data
from .compiling import compiled_if_worth
from .kernels import csr_grams
from .products import product


def batch_of(X):
    """Return a batch of rows, dense or sparse as X is."""
    return SparseBatch(X) if sparse.issparse(X) else DenseBatch(X)


class DenseBatch:
    """Rows of an array."""

    is_sparse = False

    def __init__(self, X):
        self.cells, self.shape, self.height = X, X.shape, tile_rows(X.shape[1])

    def with_cells(self, cells):
        """Return a batch with other numbers in the place of the cells."""
        return DenseBatch(cells)

    def dense(self):
        """Return the batch with all its cells."""
        return self

    def chosen(self, rows):
        """Return a batch of some of the rows."""
        return DenseBatch(self.cells[rows])

    def of_chosen(self, cells, rows):
        """Return numbers in the place of the cells for some of the rows."""
        return cells[rows]

    def of_rows(self, values):
        """Return numbers that belong to rows, such that they meet the cells of their row."""
        return values[:, None]

    def sums(self, cells):
        """Return sums over the cells of each row."""
        return cells.sum(axis=1)

    def tops(self, cells):
        """Return the largest of the numbers of each row, 0 or more."""
        return cells.max(axis=1, initial=0.0)

    def places(self, at):
        """Return rows, columns and values of the cells that are marked."""
        rows, columns = np.nonzero(at)
        return rows, columns, self.cells[rows, columns]

    def times(self, cells, right):
        """Multiply numbers in the place of the cells (rows x p) by a matrix, in tiles."""
        return in_tiles(cells, right.astype(cells.dtype, copy=False), self.height)

    def fitted(self, W, H):
        """Return W H in the place of the cells."""
        return in_tiles(W, H, self.height)

    def grams(self, cells, Ht, packed):
        """Return the sum over the cells of each row of the cell times h h', packed; ``packed()`` gives all h h'."""
        return in_tiles(cells, packed().astype(cells.dtype, copy=False), self.height).T


class SparseBatch:
    """Rows of a CSR matrix."""

    is_sparse = True

    def __init__(self, X):
        self.X, self.cells, self.shape = X, X.data, X.shape

    def with_cells(self, cells):
        """Return a batch with other numbers in the place of the stored cells."""
        return SparseBatch(with_data(self.X, cells))

    def dense(self):
        """Return the batch with all its cells."""
        return DenseBatch(self.X.toarray())

    def chosen(self, rows):
        """Return a batch of some of the rows."""
        return SparseBatch(self.X[rows])

    def of_chosen(self, cells, rows):
        """Return numbers in the place of the stored cells for some of the rows."""
        return with_data(self.X, cells)[rows].data

    def of_rows(self, values):
        """Return numbers that belong to rows, one for each stored cell of theirs."""
        return np.repeat(values, np.diff(self.X.indptr))

    def sums(self, cells):
        """Return sums over the stored cells of each row."""
        return with_data(self.X, cells) @ np.ones(self.shape[1])

    def tops(self, cells):
        """Return the largest of the numbers of each row, 0 or more."""
        return with_data(self.X, cells).max(axis=1).toarray().ravel()

    def places(self, at):
        """Return rows, columns and values of the stored cells that are marked."""
        at = np.flatnonzero(at)
        return rows_of_stored(self.X, at), self.X.indices[at], self.cells[at]

    def times(self, cells, right):
        """Multiply numbers in the place of the stored cells by a matrix, row by row."""
        return with_data(self.X, cells) @ right.astype(cells.dtype, copy=False)

    def fitted(self, W, H):
        """Return W H in the place of the stored cells."""
        return fitted_at_stored(self.X, W, H)

    def grams(self, cells, Ht, packed):
        """Return the sum over the stored cells of each row of the cell times h h', packed."""
        k = Ht.shape[1]
        out = np.empty((k * (k + 1) // 2, self.shape[0]), cells.dtype)
        loop = compiled_if_worth(csr_grams, len(cells) * k**2)
        loop(cells, self.X.indices, self.X.indptr, Ht.astype(cells.dtype, copy=False), out)
        return out


def tile_rows(p):
    """Rows of a tile, a function of the number of columns alone."""
    return max(32, min(256, (1 << 20) // max(p, 1)))


def in_tiles(matrix, right, height):
    """Return a product, in tiles of one height; the last one is padded."""
    m, out = len(matrix), np.empty((len(matrix), right.shape[1]), right.dtype)
    matrix, right = np.ascontiguousarray(matrix, dtype=np.float64), right.astype(np.float64, copy=False)
    whole, rest = m // height, m % height
    if whole:
        tiles = matrix[: whole * height].reshape(whole, height, -1)
        out[: whole * height].reshape(whole, height, -1)[:] = product(tiles, right)
    if rest:
        last = np.zeros((1, height, matrix.shape[1]))
        last[0, :rest] = matrix[whole * height :]
        out[whole * height :] = product(last, right)[0, :rest]
    return out
