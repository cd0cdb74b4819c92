"""Starting loadings H (k x p). Scores need no start: the first pass computes them."""

import numpy as np
from scipy.linalg import eigh
from sklearn.utils.extmath import randomized_svd

GRAM_COLUMNS = 1000  # up to here the eigenvectors of X'X are cheap; beyond, a randomised SVD


def nndsvd(X, n_components, rng=None):
    """Return loadings from the leading singular vectors, deterministically.

    Each singular vector is split into its positive and negative part and the weightier one is kept; small
    entries are lifted off zero so that every cell can move at once. Components beyond the rank of X are zero.

    Reference: C. Boutsidis and E. Gallopoulos (2008), SVD based initialization.
    """
    n, p = X.shape
    k = min(n_components, n, p)
    H = np.zeros((n_components, p))
    if k == 0:
        return H
    if p <= GRAM_COLUMNS:
        gram = np.asarray(X.T @ X, dtype=np.float64)
        squares, V = eigh(gram, subset_by_index=[p - k, p - 1])
        squares, V = squares[::-1], V[:, ::-1]
    else:
        _, singular, Vt = randomized_svd(X, k, random_state=0)
        squares, V = np.square(singular, dtype=np.float64), Vt.T.astype(np.float64)
    U = np.asarray(X @ V.astype(X.dtype), dtype=np.float64)  # columns are singular value times left vector
    for t in range(k):
        if squares[t] <= squares[0] * p * np.finfo(X.dtype).eps:  # beyond the rank of X
            break
        u, v = U[:, t], V[:, t]
        positive = np.linalg.norm(np.maximum(u, 0)) * np.linalg.norm(np.maximum(v, 0))
        negative = np.linalg.norm(np.minimum(u, 0)) * np.linalg.norm(np.minimum(v, 0))
        h = np.maximum(v if positive >= negative else -v, 0)
        H[t] = h / np.linalg.norm(h) * squares[t] ** 0.25
        H[t] += 0.01 * H[t].mean()
    return H


def random_start(X, n_components, rng):
    """Return independent uniform loadings, in proportion to the column means."""
    return rng.uniform(size=(n_components, X.shape[1])) * np.asarray(X.mean(axis=0, dtype=np.float64)).ravel()


STARTS = {"nndsvd": nndsvd, "random": random_start}
