"""Rows as blocks, of an array or a CSR matrix, worked through by several threads with the same bits for any number.

Given H the rows of W are independent, and H needs only sums over rows. So a pass over the data is a map over
row blocks and a sum. The partition depends on the shape alone, every block has a slot of its own, and slots
are added in their order: the number of threads cannot change a single bit. BLAS gets products so small that it takes
one thread for each (products.py).
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy

import joblib
import numpy as np
from scipy import sparse

from .kernels import compiled, compiled_if_worth, csr_fitted, csr_times, csr_transposed_times, fill_holes, row_products
from .missing import column_means
from .products import PRODUCT_CELLS, inner, product

BLOCK_BYTES = 1 << 20  # a block and its scores should stay in the cache of one core
SPARSE_BLOCKS = 16  # each block of a sparse matrix needs sums as large as the loadings, so there are few


def row_blocks(X, k, per_row=0):
    """Return slices that cover the rows; blocks of at least max(128, 4k) rows keep the products efficient.

    ``per_row`` numbers are kept for each row beside its cells (at least two sets of scores).
    """
    n, p = X.shape
    rows = n // SPARSE_BLOCKS if sparse.issparse(X) else BLOCK_BYTES // (8 * max(p + max(per_row, 2 * k), 1))
    rows = -(-max(128, 4 * k, rows) // 64) * 64
    return [slice(start, min(start + rows, n)) for start in range(0, n, rows)]


def take(X, rows):
    """Return the rows of a slice without a copy of their cells."""
    if not sparse.issparse(X):
        return X[rows]
    start, stop, _ = rows.indices(X.shape[0])
    first, last = X.indptr[start], X.indptr[stop]
    block = sparse.csr_array((stop - start, X.shape[1]), dtype=X.dtype)
    block.data, block.indices = X.data[first:last], X.indices[first:last]  # the constructor would copy them
    block.indptr = X.indptr[start : stop + 1] - first
    return block


class Block:
    """A block of rows, with their weights (None: 1) and which of their cells are missing (of sparse X: stored ones).

    ``observed`` is the share of each row's cells that is observed: 1 where nothing is missing. Missing cells hold a
    guess, which can be made anew, in place.
    """

    def __init__(self, X, weights=None, missing=None, observed=None):
        self.X, self.weights, self.missing = X, weights, missing
        self.observed = 1.0 if observed is None else observed.astype(X.dtype)
        self.counts = np.ones(X.shape[0], X.dtype) if weights is None else weights.astype(X.dtype)
        self.fills = int(min(4, 1 / np.mean(self.observed)))  # per pass: what is filled in drags the fit to what it was
        self._squared_norm = None if missing is not None else squares(X, weights)

    def rounded(self, dtype):
        """Return the block with its cells in another precision; itself where they have it."""
        if self.X.dtype == dtype:
            return self
        other = copy(self)
        other.X = with_data(self.X, self.X.data.astype(dtype)) if sparse.issparse(self.X) else self.X.astype(dtype, "C")
        other.counts = self.counts.astype(dtype)
        other.observed = self.observed.astype(dtype) if np.ndim(self.observed) else 1.0
        return other

    def fill(self, Wt, H):
        """Put W H where cells are missing."""
        if self.missing is None or not Wt.any():  # nothing is known yet: the means of the columns stay
            return
        H = H.astype(self.X.dtype)
        if not sparse.issparse(self.X):
            fill(self.X, product(Wt.T, H), self.missing)
            return
        at = np.flatnonzero(self.missing)
        rows = rows_of_stored(self.X, at)
        self.X.data[at] = np.einsum("tc,tc->c", Wt[:, rows], H[:, self.X.indices[at]])

    def fill_with(self, means):
        """Put the means of the columns where cells are missing."""
        if self.missing is None:
            return
        if sparse.issparse(self.X):
            self.X.data[self.missing] = means[self.X.indices[self.missing]]
        else:
            fill(self.X, means, self.missing)

    def squared_norm(self):
        """Return |X|^2, rows weighted."""
        return squares(self.X, self.weights) if self._squared_norm is None else self._squared_norm


def filled(X, missing, weights):
    """Return X with the means of the columns where cells are missing, and where they are (of sparse X: stored ones)."""
    means = column_means(X, weights, missing)
    if not sparse.issparse(X):
        holes = np.isnan(X)
        return np.where(holes, means.astype(X.dtype), X), holes
    full, holes = X.copy(), np.isnan(X.data)
    full.data[holes] = means[X.indices[holes]]
    return full, holes


def fill(into, values, holes):
    """Copy values (an array or a number) to where there are holes, in place."""
    values = np.broadcast_to(np.asarray(values, dtype=into.dtype), into.shape)
    if into.flags.c_contiguous and values.flags.c_contiguous and holes.flags.c_contiguous:
        compiled(fill_holes)(into.reshape(-1), values.reshape(-1), holes.reshape(-1))
    else:
        np.copyto(into, values, where=holes)


def rows_of_stored(X, at):
    """Return the rows of some of the stored cells of a CSR matrix."""
    return np.searchsorted(X.indptr, at, side="right") - 1


def with_data(X, data):
    """Return a CSR matrix with the pattern of another, and data of its own."""
    other = sparse.csr_array(X.shape, dtype=data.dtype)
    other.data, other.indices, other.indptr = data, X.indices, X.indptr
    return other


def loadings_times(H, X):
    """Return H X' (k x rows), in the dtype of X, for a block of rows X."""
    H = H.astype(X.dtype)
    if not sparse.issparse(X):
        if not X.flags.c_contiguous:
            return product(H, X.T)
        out = np.empty((len(H), len(X)), X.dtype)
        compiled(row_products)(np.ascontiguousarray(H), X, out)
        return out
    out = np.zeros((X.shape[0], len(H)), dtype=X.dtype)
    compiled(csr_times)(X.data, X.indices, X.indptr, np.ascontiguousarray(H.T), out)
    return np.ascontiguousarray(out.T)


def scores_times(Wt, X):
    """Return W' X (k x p) in float64, for a block of rows X and its scores Wt (k x rows)."""
    if not sparse.issparse(X):
        return product(Wt.astype(X.dtype, copy=False), X).astype(np.float64)
    out = np.zeros((X.shape[1], len(Wt)))
    compiled(csr_transposed_times)(X.data, X.indices, X.indptr, np.ascontiguousarray(Wt.T), out)
    return np.ascontiguousarray(out.T)


def positive_residual(X, Wt, H):
    """Return max(X - W H, 0) for a block of rows X; of a sparse block, at the stored cells."""
    if not sparse.issparse(X):
        return np.maximum(X - product(Wt.T, H), 0)
    R = X.copy()
    rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    fitted = sum((w[rows] * h[X.indices] for w, h in zip(Wt, H, strict=True)), start=np.zeros(len(X.data)))
    R.data = np.maximum(X.data - fitted, 0)
    return R


def n_threads(n_jobs):
    """Threads for ``n_jobs``: None is all that the process may use (CPU affinity, quota, OMP_NUM_THREADS)."""
    if n_jobs is not None:
        return max(1, joblib.cpu_count() + 1 + n_jobs if n_jobs < 0 else n_jobs)
    cores = joblib.cpu_count()
    limit = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return min(cores, int(limit)) if limit.isdigit() and int(limit) > 0 else cores


@contextmanager
def workers(n_jobs, n_tasks):
    """Give a ``map`` over ``n_tasks`` pieces of work, in order, on at most ``n_jobs`` threads."""
    threads = min(n_threads(n_jobs), n_tasks)
    if threads <= 1:
        yield map
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="nmf_features") as pool:
        yield pool.map


def fitted_at_stored(X, W, H):
    """Return W H at the stored cells of a CSR matrix."""
    out = np.empty(len(X.data), W.dtype)
    loop = compiled_if_worth(csr_fitted, len(out))
    loop(X.indices, X.indptr, np.ascontiguousarray(W), np.ascontiguousarray(H.T, dtype=W.dtype), out)
    return out


def squares(X, weights=None):
    """|X|_F^2 over the observed cells, rows weighted, summed in float64 slice by slice: without a copy of X."""
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
