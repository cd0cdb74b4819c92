"""The penalties on both factors, and how the scale of a component is shared between them.

    penalty * l1_ratio * (p * sum(W) + n * sum(H))  +  penalty * (1 - l1_ratio) / 2 * (p * |W|_F^2 + n * |H|_F^2)

for W (scores) n x k and H (loadings) k x p. With row weights, n is their sum.
"""

from typing import NamedTuple

import numpy as np

from .products import product, weighted_sum


class Strengths(NamedTuple):
    """What one unit of |W|_1, |H|_1, |W|_F^2 / 2 and |H|_F^2 / 2 adds to the objective."""

    l1_W: float
    l1_H: float
    l2_W: float
    l2_H: float

    @classmethod
    def of(cls, penalty, l1_ratio, n, p):
        """Return the strengths for an n x p table; n is the sum of the weights where rows have weights."""
        l1, l2 = penalty * l1_ratio, penalty * (1 - l1_ratio)
        return cls(*(min(q, 1e300) for q in (l1 * p, l1 * n, l2 * p, l2 * n)))  # finite, so that zeros cost 0

    def cost(self, W, H, weights=None, columns=None):
        """Return the penalty terms of the objective, with weights for the rows of W and the columns of H."""
        total = 0.0
        for F, l1, l2, v in ((W, self.l1_W, self.l2_W, weights), (H.T, self.l1_H, self.l2_H, columns)):
            if l1:
                total += l1 * weighted_sum(F.sum(axis=-1, dtype=np.float64), v)
            if l2:
                total += l2 / 2 * weighted_sum(np.square(F, dtype=np.float64).sum(axis=-1), v)
        return total


def balance(W_sums, W_squares, H, unit, columns=None):
    """Return scales c > 0, W <- W * c, H <- H / c, that minimise each component's penalty; H's columns may be weighted.

    ``unit`` holds the strengths at penalty 1, since the penalty itself cancels. For each component,
    a1 c + b1 / c + (a2 c^2 + b2 / c^2) / 2 is minimal where its derivative with respect to log c is zero. That has a
    closed form for pure L1 or L2; else Newton steps find it (the sum is convex in log c). Dead components keep scale 1.
    """
    a1, a2 = unit.l1_W * W_sums, unit.l2_W * W_squares
    u = np.ones(H.shape[1]) if columns is None else columns
    b1, b2 = unit.l1_H * product(H, u), unit.l2_H * product(np.square(H), u)
    alive = (W_sums > 0) & (b1 + b2 > 0)
    a1, a2, b1, b2 = (np.where(alive, v, 1.0) for v in (a1, a2, b1, b2))
    if not unit.l2_W:
        return np.where(alive, np.sqrt(b1 / a1), 1.0)
    there = (a2 > 0) & (b2 > 0)  # squares of next to nothing are zero
    log_c = np.log(np.where(there, b2, 1.0) / np.where(there, a2, 1.0)) / 4  # exact for pure L2
    if unit.l1_W:
        log_c = np.where(there, log_c, np.log(b1 / a1) / 2)
        low, high = np.minimum(log_c, np.log(b1 / a1) / 2), np.maximum(log_c, np.log(b1 / a1) / 2)
        for _ in range(50):  # the root lies between the two closed forms, and Newton steps are kept there
            c = np.exp(log_c)
            slope = a1 * c - b1 / c + a2 * c**2 - b2 / c**2
            curvature = a1 * c + b1 / c + 2 * (a2 * c**2 + b2 / c**2)
            new = np.clip(log_c - slope / curvature, low, high)
            done = np.max(np.abs(new - log_c)) <= 1e-15
            log_c = new
            if done:
                break
    return np.where(alive, np.exp(log_c), 1.0)
