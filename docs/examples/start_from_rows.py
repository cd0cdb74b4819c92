"""A start: k rows of the table that lie as far from each other as can be."""

import numpy as np
from scipy import sparse


def far_rows(X, n_components, rng=None, weights=None):
    """Return the rows that the successive projection algorithm picks, lifted off zero; deterministic.

    The row with the largest norm is taken, and what lies in its direction is removed from all
    rows; and so on. If X is a mixture of some of its own rows, those are the rows found. Weights
    play no part: every row stands for itself.

    Reference: M. C. U. Araújo et al. (2001), The successive projections algorithm for variable
    selection in spectroscopic multicomponent analysis, Chemometrics and Intelligent Laboratory
    Systems 57.
    """
    rest = (X.toarray() if sparse.issparse(X) else X).astype(np.float64)  # a copy
    H = np.zeros((n_components, X.shape[1]))
    for t in range(min(n_components, *X.shape)):
        i = np.square(rest).sum(axis=1).argmax()
        row = X[[i]].toarray()[0] if sparse.issparse(X) else X[i]
        H[t] = row + 0.01 * row.mean()  # zeros would stay zeros under multiplicative updates
        norm = np.linalg.norm(rest[i])
        if norm > 0:  # 0: all rows are mixtures of those taken
            direction = rest[i] / norm
            rest -= np.outer(rest @ direction, direction)
    return H
