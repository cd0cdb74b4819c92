"""How much of each column W H explains: 1 - |x_j - (W H)_j|^2 / |x_j|^2, over the observed cells, with row weights."""

import numpy as np
from scipy import sparse

from .blocks import fitted_at_stored, row_blocks
from .missing import leaves_out_unstored
from .products import gram, product


def column_squares(X, W, H, weights=None, missing=None):
    """Return |x_j - (W H)_j|^2 and |x_j|^2 of every column; rows of NaN scores do not count."""
    left, size = np.zeros((2, X.shape[1]))
    of_block = _stored_squares if sparse.issparse(X) else _dense_squares
    for rows in row_blocks(X, len(H)):
        w = np.nan_to_num(W[rows].astype(np.float64), nan=0.0)
        v = np.ones(len(w)) if weights is None else weights[rows].astype(np.float64)
        parts = of_block(X[rows], w, H, v, leaves_out_unstored(missing))
        left, size = left + parts[0], size + parts[1]
    return left, size


def explained_share(left, size, width=1):
    """Return 1 - left / size, with ``width`` columns side by side taken together; NaN for columns of zeros."""
    left, size = (squares.reshape(-1, width).sum(axis=1) for squares in (left, size))
    return 1 - np.divide(left, size, out=np.full(len(size), np.nan), where=size > 0)


def _dense_squares(x, w, H, v, _):
    fitted = product(w, H)
    left = _squares_of(np.subtract(x, fitted, out=fitted), v)  # in place: blocks of a large table are not small
    np.copyto(fitted, x)
    return left, _squares_of(fitted, v)


def _squares_of(cells, v):
    np.nan_to_num(cells, copy=False, nan=0.0)
    return product(v, np.square(cells, out=cells))


def _stored_squares(x, w, H, v, unstored):
    """Return the sums over stored cells, and unless the others are missing, those of (W H)^2 over the others."""
    p, y = x.shape[1], fitted_at_stored(x, w, H)
    cells, v_of_cell = x.data.astype(np.float64), np.repeat(v, np.diff(x.indptr))

    def summed(values):
        return np.bincount(x.indices, v_of_cell * np.nan_to_num(values, nan=0.0), minlength=p)

    left, size = summed(np.square(cells - y)), summed(np.square(cells))
    if not unstored:
        whole = np.einsum("tj,ts,sj->j", H, gram((w * np.sqrt(v)[:, None]).T), H, optimize=True)
        left += np.maximum(whole - summed(np.square(y)), 0)
    return left, size
