"""Blocks of rows, of an array or of a CSR matrix: products with their cells, and sums over them.

Given H, the rows of W are independent, and H depends only on sums over rows. So a pass over the data is a map over
blocks of rows and a sum (tables.py). A block and its scores are small enough to stay in the cache. Modules above need
not know whether it is dense or sparse: both kinds have the same methods.

Scores of a block are Wt (k x rows). ``cells`` are the cells that are treated one by one: all cells of a dense block,
the stored ones of a sparse block. Arrays in their place (slopes, say) have the same shape.
"""

from copy import copy

import numpy as np
from scipy import sparse

from .compiling import compiled, compiled_if_worth
from .kernels import (
    content_keys,
    csr_fitted,
    csr_grams_blas,
    csr_times,
    csr_transposed_times,
    fill_holes,
    row_products,
    stored_slopes,
)
from .products import PRODUCT_CELLS, inner, product

BLOCK_BYTES = 1 << 20  # a block and its scores should stay in the cache of one core
# Each block of a sparse matrix needs sums as large as the loadings, so there are few, of at least so many stored cells.
SPARSE_BLOCKS, SPARSE_CELLS = 16, 1 << 16


def row_blocks(X, k, per_row=0):
    """Return slices that cover the rows; blocks of at least max(128, 4k) rows keep the products efficient.

    ``per_row`` numbers are kept for each row besides its cells (at least two sets of scores).
    """
    n, p = X.shape
    if sparse.issparse(X):
        rows = max(n // SPARSE_BLOCKS, SPARSE_CELLS * n // max(X.nnz, 1))
    else:
        rows = BLOCK_BYTES // (8 * max(p + max(per_row, 2 * k), 1))
    rows = -(-max(128, 4 * k, rows) // 64) * 64
    return [slice(start, min(start + rows, n)) for start in range(0, n, rows)]


def block_of(X, weights=None, missing=None, observed=None):
    """Return a block of rows, dense or sparse as X is."""
    return (SparseBlock if sparse.issparse(X) else DenseBlock)(X, weights, missing, observed)


class Block:
    """Rows, with their weights (None: 1) and a mask of the ``cells`` that are missing (None: no cell is).

    ``observed`` is the observed share of each row, 1 where nothing is missing. Missing cells hold imputed values, which
    can be changed in place. ``rows`` says where the block is in its table. ``before`` holds the scores of the previous
    pass, if imputation uses them.
    """

    before, rows = None, slice(None)

    def __init__(self, X, weights=None, missing=None, observed=None):
        self._X, self.dtype, self.weights, self.missing = X, X.dtype, weights, missing
        self.observed = 1.0 if observed is None else observed.astype(X.dtype)
        self.counts = np.ones(X.shape[0], X.dtype) if weights is None else weights.astype(X.dtype)
        # Imputations in each pass: with only one, a fit to few observed cells would converge slowly.
        self.fills = int(min(4, 1 / np.mean(self.observed)))
        self._before_rounding = self._memory = self._squared_norm = None

    @property
    def X(self):
        """The rows. They are rounded when they are asked for."""
        return self.hold()._X

    def hold(self):
        """Round the rows now, if they are to be rounded, and return the block."""
        if self._X is None:
            self._X = self._before_rounding._astype(self.dtype, self._memory)
        return self

    @property
    def at_hand(self):
        """The rows, not rounded unless they are already: compiled code rounds a few at a time."""
        return self._before_rounding.at_hand if self._X is None else self._X

    def rounded(self, dtype, memory=None):
        """Return the block with its cells in another precision (in ``memory``, if given), or itself if they have it."""
        if self.dtype == dtype:
            return self
        other = copy(self)
        other._X, other.dtype, other._memory, other._before_rounding = None, dtype, memory, self
        other.counts = self.counts.astype(dtype)
        other.observed = self.observed.astype(dtype) if np.ndim(self.observed) else 1.0
        return other

    def squared_norm(self):
        """Return |X|^2, with row weights, of the cells before rounding; if some are missing, with imputed ones."""
        if self.missing is not None:
            return squares(self.X, self.weights)
        if self._before_rounding is not None:
            return self._before_rounding.squared_norm()
        if self._squared_norm is None:
            self._squared_norm = squares(self.X, self.weights)
        return self._squared_norm

    def without_guesses(self):
        """Return the rows with NaN where cells are missing."""
        if self.missing is None:
            return self.X
        return self.with_cells(np.where(self.missing, np.asarray(np.nan, self.X.dtype), self.cells))


class DenseBlock(Block):
    """Rows of an array."""

    is_sparse = False

    @property
    def cells(self):
        """All cells (rows x p)."""
        return self.X

    def with_cells(self, cells):
        """Return a matrix of these rows with other values in place of the cells."""
        return cells

    def dense(self):
        """Return the block with all cells, here itself."""
        return self

    def _astype(self, dtype, memory):
        if memory is None:
            return self.X.astype(dtype, "C")
        memory[: len(self.X)] = self.X
        return memory[: len(self.X)]

    def fill(self, Wt, H):
        """Impute missing cells with W H."""
        if self.missing is not None and Wt.any():  # all scores are zero at first: column means stay
            fill(self.X, product(Wt.T, H.astype(self.X.dtype)), self.missing)

    def fill_with(self, means):
        """Impute missing cells with column means."""
        if self.missing is not None:
            fill(self.X, means, self.missing)

    def fitted(self, Wt, H):
        """Return W H at the cells."""
        return product(Wt.T, H)

    def loadings_times(self, H, cells=None):
        """Return H X' (k x rows), in the dtype of X, or the same with ``cells`` in place of those of X."""
        X = self.X if cells is None else cells
        H = H.astype(X.dtype)
        if not X.flags.c_contiguous:
            return product(H, X.T)
        out = np.empty((len(H), len(X)), X.dtype)
        compiled(row_products)(np.ascontiguousarray(H), X, out)
        return out

    def scores_times(self, Wt, cells=None):
        """Return W' X (k x p) in float64, or the same with ``cells`` in place of those of X."""
        X = self.X if cells is None else cells
        return product(Wt.astype(X.dtype, copy=False), X).astype(np.float64)

    def hessians(self, H, products, curvature):
        """Return the sums over columns of ``products`` of loadings, weighted by the cells' curvature (... x rows)."""
        return product(products.astype(curvature.dtype, copy=False), curvature.T)

    def of_rows(self, values):
        """Return one value per row, shaped to broadcast over the cells of the row."""
        return values[:, None]

    def row_sums(self):
        """Return the sums of the rows over observed cells."""
        return (self.X if self.missing is None else np.where(self.missing, 0, self.X)).sum(axis=1)

    def row(self, i):
        """Return a row as an array."""
        return self.X[i]

    def residual(self, Wt, H):
        """Return the positive residual, max(X - W H, 0), as a block."""
        return DenseBlock(np.maximum(self.X - product(Wt.T, H), 0))

    def content(self, factors, power):
        """Return a key for every row that depends, bit for bit, on its cells alone, and the sum of their powers."""
        keys, sizes = np.zeros((2, len(self.X)))
        compiled(content_keys)(np.ascontiguousarray(self.without_guesses()), factors, power, keys, sizes)
        return keys, sizes


class SparseBlock(Block):
    """Rows of a CSR matrix; ``cells`` are the stored ones."""

    is_sparse = True

    @property
    def cells(self):
        """The stored cells (n_stored)."""
        return self.X.data

    def with_cells(self, cells):
        """Return a matrix of these rows with other values in place of the stored cells."""
        return with_data(self.X, cells)

    def dense(self):
        """Return the block with all cells, as a dense one."""
        other, missing = object.__new__(DenseBlock), self.missing
        missing = None if missing is None else with_data(self.X, missing).toarray()
        other.__dict__ = {**vars(self), "_X": self.X.toarray(), "missing": missing}
        return other

    def _astype(self, dtype, memory):
        return with_data(self.X, self.X.data.astype(dtype))

    def fill(self, Wt, H):
        """Impute missing stored cells with W H."""
        if self.missing is not None and Wt.any():
            at = np.flatnonzero(self.missing)
            H, rows = H.astype(self.X.dtype), rows_of_stored(self.X, at)
            self.X.data[at] = np.einsum("tc,tc->c", Wt[:, rows], H[:, self.X.indices[at]])

    def fill_with(self, means):
        """Impute missing stored cells with column means."""
        if self.missing is not None:
            self.X.data[self.missing] = means[self.X.indices[self.missing]]

    def fitted(self, Wt, H):
        """Return W H at the stored cells."""
        return fitted_at_stored(self.X, Wt.T, H)

    def loadings_times(self, H, cells=None):
        """Return H X' (k x rows), in the dtype of X, or the same with ``cells`` in place of those of X."""
        X, cells = self.X, self.X.data if cells is None else cells
        out = np.zeros((X.shape[0], len(H)), dtype=cells.dtype)
        compiled(csr_times)(cells, X.indices, X.indptr, np.ascontiguousarray(H.T.astype(cells.dtype)), out)
        return np.ascontiguousarray(out.T)

    def scores_times(self, Wt, cells=None):
        """Return W' X (k x p) in float64, or the same with ``cells`` in place of those of X."""
        X, cells = self.X, self.X.data if cells is None else cells
        out = np.zeros((X.shape[1], len(Wt)))
        compiled(csr_transposed_times)(cells, X.indices, X.indptr, np.ascontiguousarray(Wt.T), out)
        return np.ascontiguousarray(out.T)

    def hessians(self, H, whole, curvature):
        """Return the sum of curvature * h h' over the stored cells of each row: packed, or only its diagonal."""
        if not whole:
            return self.loadings_times(np.square(H), curvature)
        k = len(H)
        out = np.empty((k * (k + 1) // 2, self.X.shape[0]), H.dtype)
        compiled(csr_grams_blas)(curvature, self.X.indices, self.X.indptr, np.ascontiguousarray(H.T), out)
        return out

    def slopes(self, F, A, weights, least, whole):
        """Return the gradients of rows by F (k x rows), where the fit is F' A at the stored cells, and packed Hessians.

        See :func:`.kernels.stored_slopes`. Hessians are ``whole``, or their diagonals (False), or none (None).
        ``weights`` (None: 1) belong to the columns of A.
        """
        X, k, dtype = self.X, len(F), F.dtype
        cells = X.data if weights is None else X.data * self.of_columns(weights)
        gradient = np.empty(F.shape, dtype)
        grams = None if whole is None else np.empty((k * (k + 1) // 2 if whole else k, F.shape[1]), dtype)
        matrix, least = (cells.astype(dtype, copy=False), X.indices, X.indptr), dtype.type(least)
        F, At = np.ascontiguousarray(F), np.ascontiguousarray(A.T, dtype=dtype)
        compiled(stored_slopes)(*matrix, F, At, least, gradient, gradient[:0] if grams is None else grams)
        return gradient, grams

    def of_rows(self, values):
        """Return one value per row, repeated for each stored cell of the row."""
        return np.repeat(values, np.diff(self.X.indptr))

    def of_columns(self, values):
        """Return one value per column, repeated for each stored cell of the column."""
        return values[self.X.indices]

    def row_sums(self):
        """Return the sums of the rows over observed cells."""
        X = self.X if self.missing is None else with_data(self.X, np.where(self.missing, 0, self.X.data))
        return np.asarray(X.sum(axis=1)).ravel()

    def row(self, i):
        """Return a row as an array."""
        return self.X[[i]].toarray()[0]

    def residual(self, Wt, H):
        """Return the positive residual, max(X - W H, 0), as a block at the stored cells."""
        X, rows = self.X, np.repeat(np.arange(self.X.shape[0]), np.diff(self.X.indptr))
        fitted = sum((w[rows] * h[X.indices] for w, h in zip(Wt, H, strict=True)), start=np.zeros(len(X.data)))
        return SparseBlock(with_data(X, np.maximum(X.data - fitted, 0)))

    def content(self, factors, power):
        """Return a key for every row that depends, bit for bit, on its cells alone, and the sum of their powers."""
        X, ones = self.X, np.ones(self.X.shape[1])
        cells = np.nan_to_num(self.without_guesses().data, nan=0.0).astype(np.float64)
        return tuple(with_data(X, values) @ ones for values in (cells * factors[X.indices], cells**power))


def take(X, rows):
    """Return a slice of the rows, without copying their cells."""
    if not sparse.issparse(X):
        return X[rows]
    start, stop, _ = rows.indices(X.shape[0])
    first, last = X.indptr[start], X.indptr[stop]
    block = sparse.csr_array((stop - start, X.shape[1]), dtype=X.dtype)
    block.data, block.indices = X.data[first:last], X.indices[first:last]  # the constructor would copy them
    block.indptr = X.indptr[start : stop + 1] - first
    return block


def cells_of(X, rows):
    """Return the slice of X, or of the stored cells of sparse X, that holds the cells of a slice of rows."""
    return slice(X.indptr[rows.start], X.indptr[rows.stop]) if sparse.issparse(X) else rows


def fill(into, values, holes):
    """Copy values (an array or a number) into the holes, in place."""
    values = np.broadcast_to(np.asarray(values, dtype=into.dtype), into.shape)
    if into.flags.c_contiguous and values.flags.c_contiguous and holes.flags.c_contiguous:
        compiled(fill_holes)(into.reshape(-1), values.reshape(-1), holes.reshape(-1))
    else:
        np.copyto(into, values, where=holes)


def rows_of_stored(X, at):
    """Return the rows of some of the stored cells of a CSR matrix."""
    return np.searchsorted(X.indptr, at, side="right") - 1


def with_data(X, data):
    """Return a CSR matrix with the sparsity pattern of X and other data."""
    other = sparse.csr_array(X.shape, dtype=data.dtype)
    other.data, other.indices, other.indptr = data, X.indices, X.indptr
    return other


def fitted_at_stored(X, W, H):
    """Return W H at the stored cells of a CSR matrix."""
    out = np.empty(len(X.data), W.dtype)
    loop = compiled_if_worth(csr_fitted, len(out))
    loop(X.indices, X.indptr, np.ascontiguousarray(W), np.ascontiguousarray(H.T, dtype=W.dtype), out)
    return out


def squares(X, weights=None):
    """Return |X|_F^2 over the observed cells, with row weights, summed in float64 by slices: without a copy of X."""
    if weights is not None and sparse.issparse(X):
        weights = np.repeat(weights, np.diff(X.indptr))
    X = X.data if sparse.issparse(X) else X
    step, total = max(1, PRODUCT_CELLS // max(X[:1].size, 1)), 0.0
    for start in range(0, len(X), step):
        rows = slice(start, start + step)
        if weights is None:
            cells = X[rows].ravel("K").astype(np.float64, copy=False)
            part = inner(cells, cells)
        if weights is not None or np.isnan(part):
            cells = np.square(X[rows], dtype=np.float64)
            part = float(cells.sum() if weights is None else product(weights[rows], cells).sum())
        if np.isnan(part):  # missing cells
            cells[np.isnan(cells)] = 0
            part = float(cells.sum() if weights is None else product(weights[rows], cells).sum())
        total += part
    return total
