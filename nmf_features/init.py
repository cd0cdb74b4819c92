"""Starting loadings H (k x p). Scores need no start: the first pass makes them from zero, carefully."""

import numpy as np
from scipy import sparse
from scipy.linalg import eigh
from sklearn.utils.extmath import randomized_svd

from .losses import column_means

GRAM_COLUMNS = 1000  # up to here the eigenvectors of X'X are cheap; beyond, a randomised SVD


def nnsvd_lrc(X, n_components, rng=None, weights=None):
    """Return loadings from the leading singular vectors (of X with rows weighted), deterministically.

    The first singular vector is non-negative; each further one is split into its positive and its negative
    part, two components from one vector, so that half the vectors serve. Small entries are lifted off zero.
    Components beyond what the rank of X gives are zero.

    Reference: S. M. Atif, S. Qazi and N. Gillis (2019), Improved SVD-based initialization for nonnegative
    matrix factorization using low-rank correction.
    """
    n, p = X.shape
    rank = min(n_components // 2 + 1, n, p)
    H = np.zeros((n_components, p))
    if n_components == 0:
        return H
    if weights is not None:  # X'VX is the Gram matrix of V^1/2 X
        root = np.sqrt(weights).astype(X.dtype)[:, None]
        X = X.multiply(root).tocsr() if sparse.issparse(X) else X * root
    if p <= GRAM_COLUMNS:
        gram = X.T @ X
        gram = np.asarray(gram.toarray() if sparse.issparse(gram) else gram, dtype=np.float64)
        squares, V = eigh(gram, subset_by_index=[p - rank, p - 1])
        squares, V = squares[::-1], V[:, ::-1]
    else:
        _, singular, Vt = randomized_svd(X, rank, random_state=0)
        squares, V = np.square(singular, dtype=np.float64), Vt.T.astype(np.float64)
    squares = np.where(squares > squares[0] * p * np.finfo(X.dtype).eps, squares, 0)  # beyond the rank of X
    parts = [np.abs(V[:, 0])]
    for v in V.T[1:]:  # the sign of a singular vector means nothing: its weightier part goes first
        parts += sorted((np.maximum(v, 0), np.maximum(-v, 0)), key=np.linalg.norm, reverse=True)
    for t, part in enumerate(parts[:n_components]):
        H[t] = (part + 0.01 * part.mean()) * squares[(t + 1) // 2] ** 0.25
    return H


def random_start(X, n_components, rng, weights=None):
    """Return independent uniform loadings, in proportion to the column means."""
    return rng.uniform(size=(n_components, X.shape[1])) * column_means(X, weights)


STARTS = {"nnsvd-lrc": nnsvd_lrc, "random": random_start}
