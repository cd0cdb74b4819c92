"""The named losses, and checks for data that a loss cannot take.

A loss is an object (loss.py). Users name it by a string or a number (beta), or pass the object itself.
"""

from numbers import Real

import numpy as np
from scipy import sparse

from .beta import LEAST_SQUARES, BetaDivergence
from .loss import Loss
from .missing import leaves_out_unstored
from .negative_binomial import NegativeBinomial

MOST_DECADES = 280  # range allowed for powers of cells, or of their ratios
MOST_PENALTY = 1e30  # with losses other than least squares
DEFAULT = "frobenius"


def loss_of(loss=DEFAULT, beta_loss=None):
    """Return the loss with that name or beta, or the Loss that was passed; ``beta_loss`` is another name for it."""
    if beta_loss is not None:
        if not (isinstance(loss, str) and loss == DEFAULT) and loss_of(loss) != loss_of(beta_loss):
            raise ValueError(
                f"loss is {loss!r} and beta_loss is {beta_loss!r}: these are two names of one thing. Pass loss alone, "
                "with beta_loss=None."
            )
        loss = beta_loss
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, str) and loss in LOSSES:
        return LOSSES[loss]
    if isinstance(loss, Real) and not isinstance(loss, bool) and np.isfinite(loss):
        return BetaDivergence(float(loss))
    raise ValueError(f"loss is {loss!r}; wanted one of {sorted(LOSSES)}, a finite number (beta), or a Loss.")


def checks_cells(loss):
    """Whether there are cells that the loss cannot take, which have to be looked for."""
    return loss.by_ratio or not loss.takes_zeros or not loss.homogeneous


def check_domain(X, loss, missing=None):
    """Refuse data that the loss cannot take: zeros where it is infinite, or cells too far apart or too large for it."""
    if not checks_cells(loss):
        return
    sparse_zeros = sparse.issparse(X) and not leaves_out_unstored(missing)
    cells = X.data if sparse.issparse(X) else X
    top = float(np.max(cells, where=cells > 0, initial=0.0))
    most = int(np.log10(float(np.finfo(X.dtype).max)) / 4)
    if not loss.homogeneous and top > 0 and abs(np.log10(top)) > most:
        raise ValueError(
            f"X has cells up to {top:.3g}: loss={loss.name!r} is computed in the units of X, and in {X.dtype} it takes "
            f"largest cells from 1e-{most} to 1e{most}. Scale the columns first (NMFFeatures: scale)"
            + (", or pass float64." if X.dtype == np.float32 else ".")
        )
    if loss.by_ratio:
        least, power = float(np.min(cells, where=cells > 0, initial=np.inf)), 2 - loss.degree
        if top > 0 and power * (np.log10(top) - np.log10(least)) > MOST_DECADES:
            raise ValueError(
                f"X has cells from {least:.3g} to {top:.3g}: loss={loss.name!r} takes powers of their ratios, which "
                f"overflow beyond {MOST_DECADES / power:.0f} decades. Set the smallest cells to zero or leave their "
                'columns out, or pass loss="kullback-leibler".'
            )
    if loss.takes_zeros:
        return
    zeros = int(np.count_nonzero(cells == 0)) + (np.prod(X.shape) - len(cells) if sparse_zeros else 0)
    if zeros:
        raise ValueError(
            f"loss={loss.name!r} is infinite at zero, and X has zeros ({zeros} of its cells). Pass positive data "
            "as they are (NMFFeatures: shift=None, scale=None, as the default shift makes zeros), add a small number "
            'to them, or pass loss="kullback-leibler", which takes zeros.'
        )


def check_range(top, loss, penalty, l1_ratio):
    """Refuse cells whose loss and penalty are too far apart for floats, or a penalty that is too large."""
    if not loss.squares and penalty > MOST_PENALTY:
        raise ValueError(
            f"penalty is {penalty:g}: with loss={loss.name!r} more than {MOST_PENALTY:g} leaves the range of floats. "
            "Lower the penalty."
        )
    powers = [power for power, used in ((1, l1_ratio > 0), (2, l1_ratio < 1)) if used]
    apart = max(abs((q - loss.degree) * np.log10(top)) for q in powers) if top > 0 and loss.homogeneous else 0
    if not loss.squares and penalty and apart > MOST_DECADES / 2:
        raise ValueError(
            f"X has cells up to {top:.3g}: with a penalty, and this loss, numbers as large or small leave the range of "
            "floats. Multiply X by a constant, scale the columns (NMFFeatures: scale), or pass penalty=0."
        )


LOSSES = {
    "frobenius": LEAST_SQUARES,
    "kullback-leibler": BetaDivergence(1.0),
    "itakura-saito": BetaDivergence(0.0),
    "negative-binomial": NegativeBinomial(),
}
