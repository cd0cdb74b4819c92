"""The negative binomial loss, for counts that vary more than Poisson counts.

    d(x, y) = x log(x / y) - (x + 1/a) log((1 + a x) / (1 + a y)),      variance y + a y^2

a is the dispersion; as a -> 0 this becomes Kullback-Leibler, the loss of Poisson counts. It is half the deviance, zero
at y = x, and not convex in y: scores are local minima.

For multiplicative steps, -x log y is bounded by Jensen's inequality, and log(1 + a y), which is concave, by its
tangent.

References: O. Gouvert, T. Oberlin and C. Fevotte (2020), Negative binomial matrix factorization, IEEE Signal Processing
Letters 27.
"""

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from scipy.special import gammaln, xlogy

from .loss import Loss

LEAST_CURVATURE = 0.1  # a share of the expected one
LEAST, MOST = 1e-8, 1e8  # dispersion


@dataclass(frozen=True)
class NegativeBinomial(Loss):
    """Loss for counts that vary more than Poisson counts: half the deviance of the negative binomial distribution.

        d(x, y) = x log(x / y) - (x + 1/a) log((1 + a x) / (1 + a y)),      variance y + a y^2

    Pass it as ``loss``, with unscaled counts (NMFFeatures: ``shift=None, scale=None``), since the dispersion depends on
    their unit. To choose the dispersion, compare the ``negative_log_likelihood`` of hidden cells in
    :func:`select_components`; losses of different dispersions cannot be compared.

    Parameters
    ----------
    dispersion : float, default 1.0
        a, from 1e-8 to 1e8: the variance of a cell is y + a y^2. Near 0 it is that of Poisson counts.

    References
    ----------
    O. Gouvert, T. Oberlin and C. Fevotte (2020), Negative binomial matrix factorization, IEEE Signal Processing
    Letters 27.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_features import NegativeBinomial, factorize
    >>> rng = np.random.default_rng(0)
    >>> fitted = rng.gamma(1, size=(50, 2)) @ rng.gamma(1, 5, size=(2, 8))
    >>> X = rng.poisson(fitted * rng.gamma(2, 1 / 2, size=fitted.shape))
    >>> factorize(X, 2, loss=NegativeBinomial(dispersion=0.5)).converged
    True
    """

    dispersion: float = 1.0

    convex, spares_zeros, steps = False, False, 500

    def __post_init__(self):
        a = self.dispersion
        if not isinstance(a, Real) or isinstance(a, bool) or not LEAST <= a <= MOST:
            raise ValueError(
                f"dispersion is {a!r}; wanted a number from {LEAST:g} to {MOST:g}. For less, which is Poisson, pass "
                'loss="kullback-leibler".'
            )
        object.__setattr__(self, "dispersion", float(a))

    def of_cells(self, x: Any, y: Any) -> Any:
        """Return the loss of every cell, NaN where x is NaN."""
        a = self.dispersion
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            # Two formulas for one value: the terms that cancel grow with x in the first, with 1 / a in the second.
            small = np.where(x == 0, 0, xlogy(x, x / y)) + (x + 1 / a) * np.log1p(a * (y - x) / (1 + a * x))
            large = (x + 1 / a) * np.log1p((x - y) / (y * (1 + a * x))) - np.log(x / y) / a
            return np.where((x > 0) & (y == 0), np.inf, np.where(a * x <= 1, small, large))

    def size_of_cells(self, x: Any) -> Any:
        """Return the magnitude of the terms in every cell's loss: rounding errors are proportional to it."""
        return np.minimum(x, 1 / self.dispersion)

    def slopes_of_cells(self, x: Any, y: Any) -> Any:
        """Return slope, its positive part, and a curvature that is at least a share of the expected one."""
        a = self.dispersion
        expected = 1 / (y * (1 + a * y))
        second = (x * (1 + 2 * a * y) - a * y**2) * expected  # second derivative / expected; negative for small x
        curvature = expected * np.maximum(second, LEAST_CURVATURE)
        return (y - x) * expected, (1 + a * x) / (1 + a * y), curvature

    def negative_log_likelihood(self, x: Any, y: Any) -> Any:
        """Return -log p(x | y) of every cell."""
        r = 1 / self.dispersion
        return gammaln(r) + gammaln(x + 1) - gammaln(x + r) + (x + r) * np.log1p(y / r) - xlogy(x, y / r)
