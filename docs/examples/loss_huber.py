"""A loss: Huber's, least squares for small residuals, which single wild cells cannot bend."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from nmf_features import Loss


@dataclass(frozen=True)
class Huber(Loss):
    """d(x, y) = r^2 / 2 for r = |x - y| <= width, else width * (r - width / 2).

    Beyond the width the second derivative is zero, and no step could be made with it. The
    quadratic with curvature min(1, width / r) that touches the loss at y lies above it everywhere,
    so a step to its minimum cannot raise the loss.

    Reference: P. J. Huber (1964), Robust estimation of a location parameter, Annals of
    Mathematical Statistics 35.
    """

    width: float = 1.0

    def of_cells(self, x, y):
        """Return the loss of every cell."""
        r = np.abs(x - y)
        return np.where(r <= self.width, r**2 / 2, self.width * (r - self.width / 2))

    def slopes_of_cells(self, x, y):
        """Return slope, its positive part and the curvature of the quadratic that bounds the loss."""
        curvature = self.width / np.maximum(np.abs(x - y), self.width)
        return curvature * (y - x), curvature * y, curvature

    def best_constants(self, X, weights=None, missing=None):
        """Return the constant that fits each column best: where its slopes add up to zero."""
        X = X.toarray() if sparse.issparse(X) else np.asarray(X, dtype=np.float64)
        v = np.ones(len(X)) if weights is None else weights
        low, high = np.nanmin(X, axis=0), np.nanmax(X, axis=0)
        for _ in range(100):  # bisection: the sum of slopes rises with the constant
            middle = (low + high) / 2
            rises = v @ np.nan_to_num(np.clip(middle - X, -self.width, self.width)) > 0
            low, high = np.where(rises, low, middle), np.where(rises, middle, high)
        return (low + high) / 2
