"""The losses: beta-divergences, cell by cell, their slopes and their domains.

    beta = 2    1/2 (x - y)^2                                            "frobenius"
    beta = 1    x log(x / y) - x + y                                     "kullback-leibler", for counts
    beta = 0    x / y - log(x / y) - 1                                   "itakura-saito", of ratios only
    others      (x^beta + (beta - 1) y^beta - beta x y^(beta - 1)) / (beta (beta - 1))

x is a cell, y = (W H)_ij its fit. The loss of a table is the sum over its cells (objective.py).

Reference: C. Fevotte and J. Idier (2011), Algorithms for nonnegative matrix factorization with the beta-divergence.
"""

from numbers import Real

import numpy as np
from scipy import sparse
from scipy.special import xlogy

from .missing import leaves_out_unstored

BETA_LOSSES = {"frobenius": 2.0, "kullback-leibler": 1.0, "itakura-saito": 0.0}
MOST_DECADES = 280  # what powers of cells, or of their ratios, may come to


def of_cells(x, y, beta):
    """Return the divergence of every cell, NaN where x is."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if beta == 2:
            return np.square(x - y) / 2
        if beta == 1:
            return np.where(x == 0, y, xlogy(x, x / y) - x + y)
        if beta == 0:
            return np.where((x > 0) & (y == 0), np.inf, x / y - np.log(x / y) - 1)
        D = x**beta + (beta - 1) * y**beta - beta * x * y ** (beta - 1)
        D = np.where((x == 0) & (y == 0), 0, D / (beta * (beta - 1)))
        return D if beta > 0 else np.where((x > 0) & (y == 0), np.inf, D)


def slopes_of_cells(x, y, beta):
    """Return the derivative by y of every cell's divergence, its positive part, and the curvature.

    The curvature is the second derivative where the loss is convex in y (1 <= beta <= 2), else that at x = y.
    """
    if beta == 1:
        ratio = x / y
        return 1 - ratio, np.ones_like(y), ratio / y
    if beta == 2:
        return y - x, y, np.ones_like(y)
    above = y ** (beta - 1)
    slope = above - x * y ** (beta - 2)
    if 1 < beta < 2:
        return slope, above, (beta - 1) * y ** (beta - 2) + (2 - beta) * x * y ** (beta - 3)
    return slope, above, y ** (beta - 2)


def check_beta(beta_loss):
    """Return beta of a loss by name, or the number itself."""
    number = isinstance(beta_loss, Real) and not isinstance(beta_loss, bool) and np.isfinite(beta_loss)
    if not number and not (isinstance(beta_loss, str) and beta_loss in BETA_LOSSES):
        raise ValueError(f"beta_loss is {beta_loss!r}; wanted a finite number or one of {sorted(BETA_LOSSES)}.")
    return float(BETA_LOSSES.get(beta_loss, beta_loss) if isinstance(beta_loss, str) else beta_loss)


def check_domain(X, beta_loss, missing=None):
    """Refuse data that the loss cannot take: zeros where it is infinite, or cells too far apart for its powers."""
    beta = check_beta(beta_loss)
    if beta >= 1:
        return
    sparse_zeros = sparse.issparse(X) and not leaves_out_unstored(missing)
    cells = X.data if sparse.issparse(X) else X
    least = np.min(cells, where=cells > 0, initial=np.inf)
    top = np.max(cells, where=cells > 0, initial=0.0)
    if top > 0 and (2 - beta) * (np.log10(top) - np.log10(least)) > MOST_DECADES:
        raise ValueError(
            f"X has cells from {least:.3g} to {top:.3g}: beta_loss={beta_loss!r} takes powers of their ratios, which "
            f"overflow beyond {MOST_DECADES / (2 - beta):.0f} decades. Set the smallest cells to zero or leave their "
            'columns out, or pass beta_loss="kullback-leibler".'
        )
    if beta > 0:
        return
    zeros = int(np.count_nonzero(cells == 0)) + (np.prod(X.shape) - len(cells) if sparse_zeros else 0)
    if zeros:
        raise ValueError(
            f"beta_loss={beta_loss!r} is infinite at zero, and X has zeros ({zeros} of its cells). Pass positive data "
            "as they are (NMFFeatures: shift=None, scale=None, as the default shift makes zeros), add a small number "
            'to them, or pass beta_loss="kullback-leibler", which takes zeros.'
        )


def check_range(top, beta, penalty, l1_ratio):
    """Refuse cells whose loss and penalty are too far apart for floats, where the loss has other units than squares."""
    powers = [power for power, used in ((1, l1_ratio > 0), (2, l1_ratio < 1)) if used]
    if beta != 2 and penalty and top > 0 and max(abs((q - beta) * np.log10(top)) for q in powers) > MOST_DECADES / 2:
        raise ValueError(
            f"X has cells up to {top:.3g}: with a penalty, and this loss, numbers as large or small leave the range of "
            "floats. Multiply X by a constant, scale the columns (NMFFeatures: scale), or pass penalty=0."
        )
