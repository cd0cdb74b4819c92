"""The losses: what they are cell by cell, and whatever else anything asks of them.

    beta = 2    1/2 (x - y)^2                                            "frobenius"
    beta = 1    x log(x / y) - x + y                                     "kullback-leibler", for counts
    beta = 0    x / y - log(x / y) - 1                                   "itakura-saito", of ratios only
    others      (x^beta + (beta - 1) y^beta - beta x y^(beta - 1)) / (beta (beta - 1))

x is a cell, y = (W H)_ij its fit. The loss of a table is the sum over its cells (objective.py). Nothing else looks at
beta: who needs to know something of a loss asks the loss.

Reference: C. Fevotte and J. Idier (2011), Algorithms for nonnegative matrix factorization with the beta-divergence.
"""

from dataclasses import dataclass
from numbers import Real

import numpy as np
from scipy import sparse
from scipy.special import xlogy

from .missing import leaves_out_unstored

MOST_DECADES = 280  # what powers of cells, or of their ratios, may come to


@dataclass(frozen=True)
class BetaDivergence:
    """A beta-divergence."""

    beta: float

    @property
    def squares(self):
        """Whether it is 1/2 (x - y)^2: then W'W and W'X are all that the loadings need to know."""
        return self.beta == 2

    @property
    def counts(self):
        """Whether it is x log(x / y) - x + y: then a zero adds y alone."""
        return self.beta == 1

    @property
    def convex(self):
        """Whether it is convex in y."""
        return 1 <= self.beta <= 2

    @property
    def by_ratio(self):
        """Whether cells count by their ratio to the fit, small ones as much as large ones."""
        return self.beta < 1

    @property
    def takes_zeros(self):
        """Whether it is finite where x is zero."""
        return self.beta > 0

    @property
    def spares_zeros(self):
        """Whether it is finite where the fit is zero, too."""
        return self.beta > 1

    @property
    def degree(self):
        """The loss of c x and c y is c^degree times that of x and y."""
        return self.beta

    @property
    def power(self):
        """What power of its cells says how much a row counts."""
        return min(max(self.beta, 0.0), 2.0)

    def of_cells(self, x, y):
        """Return the loss of every cell, NaN where x is."""
        beta = self.beta
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

    def slopes_of_cells(self, x, y):
        """Return the derivative by y of every cell's loss, its positive part, and the curvature.

        The curvature is the second derivative where the loss is convex in y, else that at x = y.
        """
        beta = self.beta
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

    def size(self, x):
        """Return the size of the terms in the loss of cells x: its rounding is a share of that."""
        return float(np.power(x, self.beta, out=np.zeros(x.shape), where=x > 0).sum())

    def least_fit(self, mean, least):
        """Return what keeps the fit off zero, where slopes are infinite, for the mean and the least positive cell."""
        return np.minimum(1e-12 * mean, 1e-4 * least) if self.by_ratio else 1e-12 * mean

    def exponent(self, squared):
        """Return the power of a multiplicative step with which it cannot raise the objective.

        That is 1 / (a - b), a and b being the highest and the lowest power of F in what bounds the objective there.
        Where the penalty is ``squared`` the highest one is 2 at least.
        """
        return 1 / (max(self.beta, 1.0, 2.0 if squared else 1.0) - min(self.beta - 1, 1.0))


LEAST_SQUARES = BetaDivergence(2.0)


def loss_of(beta_loss):
    """Return the loss of that name, or of the number beta."""
    number = isinstance(beta_loss, Real) and not isinstance(beta_loss, bool) and np.isfinite(beta_loss)
    if not number and not (isinstance(beta_loss, str) and beta_loss in BETA_LOSSES):
        raise ValueError(f"beta_loss is {beta_loss!r}; wanted a finite number or one of {sorted(BETA_LOSSES)}.")
    return BetaDivergence(float(BETA_LOSSES[beta_loss] if isinstance(beta_loss, str) else beta_loss))


def check_domain(X, beta_loss, missing=None):
    """Refuse data that the loss cannot take: zeros where it is infinite, or cells too far apart for its powers."""
    loss = loss_of(beta_loss)
    if not loss.by_ratio:
        return
    sparse_zeros = sparse.issparse(X) and not leaves_out_unstored(missing)
    cells = X.data if sparse.issparse(X) else X
    least = np.min(cells, where=cells > 0, initial=np.inf)
    top = np.max(cells, where=cells > 0, initial=0.0)
    power = 2 - loss.degree
    if top > 0 and power * (np.log10(top) - np.log10(least)) > MOST_DECADES:
        raise ValueError(
            f"X has cells from {least:.3g} to {top:.3g}: beta_loss={beta_loss!r} takes powers of their ratios, which "
            f"overflow beyond {MOST_DECADES / power:.0f} decades. Set the smallest cells to zero or leave their "
            'columns out, or pass beta_loss="kullback-leibler".'
        )
    if loss.takes_zeros:
        return
    zeros = int(np.count_nonzero(cells == 0)) + (np.prod(X.shape) - len(cells) if sparse_zeros else 0)
    if zeros:
        raise ValueError(
            f"beta_loss={beta_loss!r} is infinite at zero, and X has zeros ({zeros} of its cells). Pass positive data "
            "as they are (NMFFeatures: shift=None, scale=None, as the default shift makes zeros), add a small number "
            'to them, or pass beta_loss="kullback-leibler", which takes zeros.'
        )


def check_range(top, loss, penalty, l1_ratio):
    """Refuse cells whose loss and penalty are too far apart for floats, where the loss has other units than squares."""
    powers = [power for power, used in ((1, l1_ratio > 0), (2, l1_ratio < 1)) if used]
    apart = max(abs((q - loss.degree) * np.log10(top)) for q in powers) if top > 0 else 0
    if not loss.squares and penalty and apart > MOST_DECADES / 2:
        raise ValueError(
            f"X has cells up to {top:.3g}: with a penalty, and this loss, numbers as large or small leave the range of "
            "floats. Multiply X by a constant, scale the columns (NMFFeatures: scale), or pass penalty=0."
        )


BETA_LOSSES = {"frobenius": 2.0, "kullback-leibler": 1.0, "itakura-saito": 0.0}
