"""Starting loadings H (k x p). Scores need no start: the first pass finds them from zero, with more sweeps.

Most come from the leading singular vectors of X, which depend on the order of neither rows nor columns. Which start
leads to the best minimum is not known beforehand, so ``starts`` yields one after the other, for race.py to try.
"""

import numpy as np
from scipy import sparse
from scipy.linalg import eigh

from .missing import column_means
from .products import GRAM_COLUMNS, by_roots, gram, gram_of_columns, product
from .units import without_last_bits

AT_ONCE = 8  # rotations drawn together: calls cost more than numbers
TURNS = 4  # of the subspace iteration: 8 lead to the same minima, or to others as good
RANDOM = 10  # random directions it begins with, beside the columns of largest squares


def leading_directions(X, rank, weights=None):
    """Return the largest squared singular values of X, with row weights, and their right vectors (p x rank).

    Values beyond the rank of X are zero.
    """
    p = X.shape[1]
    if weights is not None:
        X = by_roots(X, weights)
    if p <= GRAM_COLUMNS:
        squares, V = eigh(gram_of_columns(X).astype(np.float64), subset_by_index=[p - rank, p - 1])
        squares, V = squares[::-1], V[:, ::-1]
    else:
        squares, V = _by_iteration(X, rank)
    return np.where(squares > squares[0] * p * np.finfo(X.dtype).eps, squares, 0), V


def _by_iteration(X, rank):
    """Return the same by subspace iteration with a few more directions, accurate enough for a start.

    It begins with the columns of largest squares and with random directions, whose numbers are dealt to the columns in
    the order of their squares, so that the order of the columns does not matter.
    """
    p, size = X.shape[1], min(rank + 10, *X.shape)
    if sparse.issparse(X):
        squares = np.bincount(X.indices, np.square(X.data, dtype=np.float64), minlength=p)
    else:
        squares = np.einsum("ij,ij->j", X, X, dtype=np.float64)
    order = np.argsort(-without_last_bits(squares), kind="stable")
    V, of_columns = np.zeros((p, size)), max(size - RANDOM, 0)
    V[order[:of_columns], np.arange(of_columns)] = 1
    V[order, of_columns:] = np.random.default_rng(0).standard_normal((p, size - of_columns))
    for turn in range(TURNS):
        V = _orthonormal(_times(X.T, _times(X, V)), 2 if turn == TURNS - 1 else 1)
    squares, rotation = eigh(gram(_times(X, V).T))
    return squares[::-1][:rank], product(V, rotation[:, ::-1])[:, :rank]


def _orthonormal(Y, times):
    """Return an orthonormal basis of the columns of Y; the first time leaves rounding errors of a poor basis."""
    Y = Y / (np.abs(Y).max() or 1.0)
    for _ in range(times):
        squares, V = eigh(gram(Y.T))
        least = squares[-1] * len(Y) * np.finfo(np.float64).eps
        Y = product(Y, V) / np.sqrt(np.where(squares > least, squares, np.inf))
    return Y


def _times(X, V):
    """Return X V in float64, for an array or a sparse matrix X."""
    V = V.astype(X.dtype, copy=False)
    return np.asarray(product(X, V), dtype=np.float64)


def nnsvd_lrc(X, n_components, rng=None, weights=None, directions=None):
    """Return loadings from the leading singular vectors of X (with row weights), deterministically.

    The first singular vector is non-negative; each further one is split into its positive and its negative
    part. This gives two components per vector, so half as many vectors are needed. Entries are raised off zero.
    Components beyond those that the rank of X allows are zero.

    Reference: S. M. Atif, S. Qazi and N. Gillis (2019), Improved SVD-based initialization for nonnegative
    matrix factorization using low-rank correction.
    """
    H = np.zeros((n_components, X.shape[1]))
    if n_components == 0:
        return H
    rank = min(n_components // 2 + 1, *X.shape)
    squares, V = directions or leading_directions(X, rank, weights)
    H[0], v = np.abs(V[:, 0]), V.T[1:rank]
    v = v * np.where(_norms(np.maximum(-v, 0)) > _norms(np.maximum(v, 0)), -1, 1)[:, None]  # the larger part goes first
    for into, part in ((H[1::2], v), (H[2::2], -v)):
        into[: len(v)] = np.maximum(part, 0)[: len(into)]
    of_vector = np.minimum((np.arange(n_components) + 1) // 2, rank - 1)
    return (H + 0.01 * H.mean(axis=1, keepdims=True)) * squares[of_vector, None] ** 0.25


def _norms(vectors):
    """Return the lengths of the rows."""
    return np.sqrt(np.einsum("ij,ij->i", vectors, vectors))


def nndsvda(X, n_components, rng=None, weights=None, directions=None):
    """Return loadings from as many singular vectors as there are components, deterministically.

    Of each singular pair the larger part is taken, the positive or the negative one, and zeros are replaced by the
    mean of X.

    Reference: C. Boutsidis and E. Gallopoulos (2008), SVD based initialization: a head start for nonnegative matrix
    factorization.
    """
    H = np.zeros((n_components, X.shape[1]))
    if n_components == 0:
        return H
    squares, V = directions or leading_directions(X, min(n_components, *X.shape), weights)
    found = min(n_components, np.count_nonzero(squares))
    scores = _times(X, V[:, :found])
    if weights is not None:
        scores *= np.sqrt(weights)[:, None]
    u, v = scores.T, V.T[:found]
    above, below = (_norms(np.maximum(s * u, 0)) * _norms(np.maximum(s * v, 0)) for s in (1, -1))  # of X: s |u+| |v+|
    sign = np.where(above >= below, 1, -1)
    sign[:1] = np.where(v[:1].sum(axis=1) < 0, -1, 1)  # all of the first vector has one sign, but for rounding
    parts = np.maximum(sign[:, None] * v, 0)
    norms = _norms(parts)
    H[:found] = parts * (np.sqrt(np.where(sign > 0, above, below)) / np.where(norms, norms, 1))[:, None]
    return np.where(H > 0, H, column_means(X, weights).mean())


def rotated(X, n_components, rng, directions):
    """Yield, without end, random rotations of the leading singular vectors, scaled by their values, cut off at zero."""
    k = n_components
    squares, V = directions
    V = V[:, :k] * np.where((V[:, :k] ** 3).sum(axis=0) < 0, -1, 1)  # the sign of a singular vector is arbitrary
    V[:, 0] = np.abs(V[:, 0])
    scaled = V * np.sqrt(squares[:k] / X.shape[0])
    while True:
        rotations = np.linalg.qr(rng.standard_normal((AT_ONCE, k, k)))[0][:, :, : V.shape[1]]
        rotations *= np.where(rotations[:, :, :1] < 0, -1, 1)
        for rotation in rotations:
            H = np.maximum(product(rotation, scaled.T), 0)
            yield H + 1e-3 * H.mean()


def random_start(X, n_components, rng, weights=None):
    """Return independent uniform loadings, scaled by the column means."""
    return rng.uniform(size=(n_components, X.shape[1])) * column_means(X, weights)


def starts(X, n_components, weights=None):
    """Yield starts without end, always the same: the two that are known to be good, then rotations.

    One component needs no second start.
    """
    directions = leading_directions(X, min(n_components, *X.shape), weights) if n_components else None
    for method in (nnsvd_lrc, nndsvda):
        yield method(X, n_components, None, weights, directions)
    if n_components:
        yield from rotated(X, n_components, np.random.default_rng(0), directions)


STARTS = {"nnsvd-lrc": nnsvd_lrc, "nndsvda": nndsvda, "random": random_start}
