"""Products in pieces so small that BLAS computes each on one thread: the same bits in any thread.

BLAS threads would multiply with ours, and BLAS results depend on their number. Thread limits are global to the process:
a library that sets them changes them for everybody else, and two that do so at once leave them wrong. So none is set
here. OpenBLAS uses one thread for a product of matrices with up to 2^18 multiplications, so larger products are cut
into such pieces. Products with vectors or sparse matrices do not use BLAS.
"""

import platform

import numpy as np
from scipy import sparse

# OpenBLAS: SMP_THRESHOLD_MIN * GEMM_MULTITHREAD_THRESHOLD, in interface/gemm.c; on some Arm processors half of it
MULTIPLICATIONS = 1 << 18 if platform.machine() in ("x86_64", "AMD64") else 120_000
LEAST = 16  # smallest number of rows, columns or terms in a piece
RESIDUAL_CELLS = 1 << 20  # rows of the residual are formed in slices of about this many cells
PRODUCT_CELLS = 1 << 16  # cells of slices that are multiplied, or read twice: they stay in the cache
# Copies of fewer bytes are of memory that malloc keeps. Pages of larger ones are new each time, in a worker of Dask.
SLICE_CELLS = 16_000
GRAM_COLUMNS = 128  # up to here X'X is cheap, and LAPACK uses one thread for its eigenvectors


def slices(X, cells=SLICE_CELLS):
    """Return slices of rows of about so many cells each; one empty slice if there are no rows."""
    n, step = X.shape[0], max(1, cells // max(X.shape[1], 1))
    return [slice(start, min(start + step, n)) for start in range(0, max(n, 1), step)]


def product(A, B):
    """Return A B for vectors, matrices, or a stack of matrices A. Pieces are summed in a fixed order."""
    if sparse.issparse(A) or sparse.issparse(B):  # SciPy has loops of its own
        return A @ B
    if A.ndim == 1 or B.ndim == 1:
        return np.einsum({(1, 1): "j,j->", (1, 2): "j,jk->k", (2, 1): "ij,j->i"}[A.ndim, B.ndim], A, B)
    m, inside, n = *A.shape[-2:], B.shape[1]
    if m * inside * n <= MULTIPLICATIONS and m != 1 and n != 1:
        return A @ B
    if m == 1 or n == 1:  # BLAS treats these as products of a matrix and a vector
        return np.einsum("...ij,jk->...ik", A, B)
    rows, terms, columns = _pieces([m, inside, n])
    out = np.empty((*A.shape[:-1], n), np.result_type(A, B))
    for i in rows:
        for j in columns:
            part = out[..., i, j]
            np.matmul(A[..., i, terms[0]], B[terms[0], j], out=part)
            for s in terms[1:]:
                part += A[..., i, s] @ B[s, j]
    return out


def _pieces(sizes):
    """Return slices of nearly equal length for every side; the longest side is cut first."""
    lengths = list(sizes)
    while lengths[0] * lengths[1] * lengths[2] > MULTIPLICATIONS:
        longest = int(np.argmax(lengths))
        others = lengths[0] * lengths[1] * lengths[2] // lengths[longest]
        lengths[longest] = max(MULTIPLICATIONS // others, min(LEAST, lengths[longest] // 2))
    cut = []
    for size, length in zip(sizes, lengths, strict=True):
        count = -(-size // length)
        cut.append([slice(size * i // count, size * (i + 1) // count) for i in range(count)])
    return cut


def gram(A):
    """Return A A'."""
    return product(A, A.T.copy())  # if both were one buffer, NumPy would call another routine of BLAS


def gram_of_columns(X):
    """Return X'X of an array or a sparse matrix, as an array."""
    return (X.T @ X).toarray() if sparse.issparse(X) else gram(X.T)


def by_roots(X, weights):
    """Return the rows of an array or a sparse matrix times the roots of their weights: X'VX is their Gram matrix."""
    root = np.sqrt(weights).astype(X.dtype)[:, None]
    return X.multiply(root).tocsr() if sparse.issparse(X) else X * root


def inner(A, B):
    """Return the sum of the entrywise products of two arrays of the same shape."""
    return float(np.einsum("i,i->", A.ravel(), B.ravel()))


def weighted_sum(of_rows, weights):
    """Return the sum of one number per row, with row weights."""
    return float(of_rows.sum() if weights is None else inner(weights, of_rows))
