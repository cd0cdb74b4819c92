"""The solvers that are available for a loss.

    minimise  D(X, W H) + penalty(W) + penalty(H),   W >= 0, H >= 0

Given H, the rows of W are independent; given W, H depends only on sums over rows. So a solver improves the scores of a
block of rows, returns the block's statistics, and improves the loadings given the sum of these over all blocks. It
never sees the table or the loop (descent.py).
"""

from functools import partial

from .alternating import HALS, AlternatingLeastSquares, Gradient, Multiplicative
from .missing import leaves_out_unstored
from .newton import MultiplicativeDivergence, Newton

SOLVERS = {
    "auto": HALS,
    "hals": HALS,
    "newton": Newton,
    "mu": Multiplicative,
    "als": AlternatingLeastSquares,
    "gradient": Gradient,
}
# For other losses, and for sparse matrices whose unstored cells are missing.
DIVERGENCE_SOLVERS = {"auto": Newton, "newton": Newton, "mu": MultiplicativeDivergence}


def solvers_of(loss, missing):
    """Return the solvers that support the loss and the kind of missing cells."""
    return SOLVERS if loss.squares and not leaves_out_unstored(missing) else DIVERGENCE_SOLVERS


def solver_maker(name, loss, missing, learning_rate=None):
    """Return a function that makes a solver with that name."""
    known = solvers_of(loss, missing)
    if known is DIVERGENCE_SOLVERS:
        return partial(known[name], loss=loss, unstored=leaves_out_unstored(missing))
    return known[name] if learning_rate is None else partial(known[name], learning_rate=learning_rate)


def is_default(name, loss, missing):
    """Whether a name (or "auto") means the fast solver for the loss."""
    known = solvers_of(loss, missing)
    return known[name] is known["auto"]
