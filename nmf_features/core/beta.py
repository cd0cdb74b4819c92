"""The beta-divergences: least squares, Kullback-Leibler, Itakura-Saito, and those between and beyond.

    beta = 2    1/2 (x - y)^2                                            "frobenius"
    beta = 1    x log(x / y) - x + y                                     "kullback-leibler", for counts
    beta = 0    x / y - log(x / y) - 1                                   "itakura-saito", depends on x / y only
    others      (x^beta + (beta - 1) y^beta - beta x y^(beta - 1)) / (beta (beta - 1))

Nothing else looks at beta: other modules ask the loss for what they need to know.

Reference: C. Fevotte and J. Idier (2011), Algorithms for nonnegative matrix factorization with the beta-divergence.
"""

from dataclasses import dataclass
from numbers import Real

import numpy as np
from scipy.special import gammaln, xlogy

from .loss import Loss

LEAST_CURVATURE = 0.5  # where it is not convex: a share of the second derivative at x = y
NAMES = {2.0: "frobenius", 1.0: "kullback-leibler", 0.0: "itakura-saito"}


@dataclass(frozen=True)
class BetaDivergence(Loss):
    """A beta-divergence."""

    beta: float

    homogeneous, steps = True, 200

    def __post_init__(self):
        if not isinstance(self.beta, Real) or isinstance(self.beta, bool) or not np.isfinite(self.beta):
            raise ValueError(f"beta is {self.beta!r}; wanted a finite number.")

    @property
    def name(self):
        """The name in messages."""
        return NAMES.get(self.beta, self.beta)

    @property
    def squares(self):
        """Whether it is 1/2 (x - y)^2: then the loadings depend on the data through W'W and W'X alone."""
        return self.beta == 2

    @property
    def counts(self):
        """Whether it is x log(x / y) - x + y: then a zero cell costs y."""
        return self.beta == 1

    @property
    def convex(self):
        """Whether it is convex in y."""
        return 1 <= self.beta <= 2

    @property
    def by_ratio(self):
        """Whether cells are compared with their fit by ratio, so that small ones count as much as large ones."""
        return self.beta < 1

    @property
    def takes_zeros(self):
        """Whether it is finite where x is zero."""
        return self.beta > 0

    @property
    def spares_zeros(self):
        """Whether it is also finite where the fit is zero."""
        return self.beta > 1

    @property
    def degree(self):
        """The power in d(c x, c y) = c^degree d(x, y)."""
        return self.beta

    @property
    def power(self):
        """The power of the cells by which a row is measured when rows are sampled."""
        return min(max(self.beta, 0.0), 2.0)

    def of_cells(self, x, y):
        """Return the loss of every cell, NaN where x is NaN."""
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
        """Return the slope of every cell's loss, its positive part, and a curvature."""
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
        expected = y ** (beta - 2)
        second = (beta - 1) + (2 - beta) * x / y  # second derivative / expected; negative where the loss is concave
        return slope, above, expected * np.maximum(second, LEAST_CURVATURE)

    def size_of_cells(self, x):
        """Return the magnitude of the terms in every cell's loss: rounding errors are proportional to it."""
        return np.power(x, self.beta, out=np.zeros(x.shape), where=x > 0)

    def least_fit(self, mean, least):
        """Return a lower bound that keeps the fit off zero, given the mean and the smallest positive cell."""
        return np.minimum(1e-12 * mean, 1e-4 * least) if self.by_ratio else 1e-12 * mean

    def exponent(self, squared):
        """Return the exponent with which a multiplicative step cannot raise the objective.

        It is 1 / (a - b), where a and b are the highest and the lowest power of F in the majoriser. With an L2 penalty
        (``squared``) a is at least 2.
        """
        return 1 / (max(self.beta, 1.0, 2.0 if squared else 1.0) - min(self.beta - 1, 1.0))

    def negative_log_likelihood(self, x, y):
        """Return -log p(x | y) for Poisson counts, None for any other beta."""
        return y - xlogy(x, y) + gammaln(x + 1) if self.counts else None


LEAST_SQUARES = BetaDivergence(2.0)
