"""A scaling: columns divided by their root mean square, as in R's scale(x, center = FALSE)."""

import numpy as np
from scipy import sparse

from nmf_features.scaling import means, sparse_means


def root_mean_square(X, state, weights, unstored):
    """Return the root mean square of every resulting column, over its observed cells, rows weighted.

    ``state.factor`` holds the largest shifted values, ``state.unit`` divides by them: no square overflows.
    (R divides the sum of squares by n - 1, this by n.)
    """
    if sparse.issparse(X):
        squares = sparse_means(X, np.square(X.data / state.factor[X.indices]), weights, unstored)
    else:
        squares = means(X, lambda x: np.square(state.unit(x)), weights)
    return state.factor * np.sqrt(squares)
