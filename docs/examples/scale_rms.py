"""A scaling: columns divided by their root mean square, as in R's scale(x, center = FALSE)."""

import numpy as np


def root_mean_square(columns, state):
    """Return the root mean square of every resulting column, over its observed cells, rows weighted.

    ``state.factor`` holds the largest shifted values, ``state.unit`` divides by them: no square overflows.
    (R divides the sum of squares by n - 1, this by n.)
    """
    if columns.is_sparse:
        squares = columns.stored_means(lambda x, j: np.square(x / state.factor[j]))
    else:
        squares = columns.means(lambda x: np.square(state.unit(x)))
    return state.factor * np.sqrt(squares)
