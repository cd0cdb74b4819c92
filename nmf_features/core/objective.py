"""The objective: the loss, the penalties and their sum, each written once.

    minimise over W, H >= 0:   D(X, W H)
                               +  penalty * l1_ratio         * ( p * sum(W)   + n * sum(H)   )
                               +  penalty * (1 - l1_ratio)/2 * ( p * |W|_F^2  + n * |H|_F^2 )

X is n x p, W (scores) is n x k, H (loadings) is k x p, and D is the loss (losses.py), summed over the cells.

This is the objective of scikit-learn's ``NMF`` with ``alpha_W = alpha_H = penalty``. The factors p and n make the
penalty independent of the size of the table.

With row weights v, the loss and the penalty on W of row i are multiplied by v_i, and n is the sum of v. The problem of
a single row is then the same whatever its weight.

Missing cells are left out of the loss, and the penalty on a row or column is scaled by its observed share (missing.py).
"""

from typing import Any

import numpy as np
from scipy import sparse

from .._warn import numpy_defaults
from .beta import LEAST_SQUARES
from .blocks import fitted_at_stored, squares
from .checks import check_weights, numbers_wanted, without_duplicates
from .loss import Loss
from .losses import loss_of
from .missing import leaves_out_unstored, missing_of, observed_in_rows, penalised_counts
from .penalties import Strengths
from .products import PRODUCT_CELLS, RESIDUAL_CELLS, gram, inner, product, slices, weighted_sum
from .units import in_units, safe_scale


@numpy_defaults
def objective(
    X: Any,
    W: Any,
    H: Any,
    penalty: float = 0.001,
    l1_ratio: float = 1.0,
    sample_weight: Any = None,
    loss: str | float | Loss = "frobenius",
    missing_values: str = "ignore",
    *,
    beta_loss: str | float | Loss | None = None,
) -> float:
    """Evaluate the penalised objective that every solver here minimises.

        D(X, W H) + penalty * l1_ratio         * (p * sum(W)  + n * sum(H))
                  + penalty * (1 - l1_ratio)/2 * (p * |W|_F^2 + n * |H|_F^2)

    Parameters
    ----------
    X : array or sparse matrix of shape (n, p)
        The data, non-negative. Missing cells are NaN.
    W : array of shape (n, k)
        Scores: how much of each component a row holds.
    H : array of shape (k, p)
        Loadings: what each component is made of.
    penalty : float, default 0.001
        Strength of the penalty on both factors.
    l1_ratio : float, default 1.0
        Share of the penalty that is L1 (sum of entries); the rest is L2 (sum of squares).
    sample_weight : array-like of shape (n,), optional
        Weights of the rows, 0 or more: how often each row counts in the loss and in the penalty on W. In the penalty
        on H, n is their sum.
    loss : {"frobenius", "kullback-leibler", "itakura-saito", "negative-binomial"}, float or Loss, default "frobenius"
        The loss D: 1/2 |X - W H|_F^2 for "frobenius", sum(x log(x / y) - x + y) for "kullback-leibler", sum(x / y -
        log(x / y) - 1) for "itakura-saito", with y = (W H)_ij. A number is the beta of a beta-divergence.
    missing_values : {"ignore", "unstored"}, default "ignore"
        With "unstored" the cells that sparse X does not store are left out too.
    beta_loss : same as loss, optional
        Another name of ``loss``.

    Returns
    -------
    float
        The objective, in the units of the loss (of a beta-divergence, those of ``X`` to the power beta).

    Raises
    ------
    ValueError
        If the shapes of ``X``, ``W`` and ``H`` do not match, if ``penalty`` or ``l1_ratio`` is out of range, or
        for weights that are negative, not finite, all zero or not one for each row.

    References
    ----------
    The scaling by n and p follows scikit-learn's ``NMF``. C. Fevotte and J. Idier (2011), Algorithms for nonnegative
    matrix factorization with the beta-divergence, Neural Computation 23.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_features import objective
    >>> X = np.array([[2.0, 0.0], [0.0, 1.0]])
    >>> objective(X, np.eye(2), X, penalty=0)
    0.0
    >>> objective(X, np.eye(2), X, penalty=0.1)   # 0.1 * (2 * 2 + 2 * 3)
    1.0
    >>> objective(X, np.eye(2), 2 * X, penalty=0, loss="kullback-leibler")   # 2 log(1/2) + 2 + log(1/2) + 1
    0.920558
    """
    W, H = _numbers("W", W), _numbers("H", H)
    X = without_duplicates(X.tocsr()) if sparse.issparse(X) else _numbers("X", X)
    if missing_values not in ("ignore", "unstored"):
        raise ValueError(f'missing_values is {missing_values!r}; wanted "ignore" or "unstored".')
    if not (X.ndim == W.ndim == H.ndim == 2 and X.shape == (W.shape[0], H.shape[1]) and W.shape[1] == H.shape[0]):
        raise ValueError(
            f"X, W and H have shapes {X.shape}, {W.shape} and {H.shape}; wanted (n, p), (n, k) and (k, p), "
            "so that W @ H is like X."
        )
    loss, cells = loss_of(loss, beta_loss), X.data if sparse.issparse(X) else X
    if not loss.squares and np.nanmin(cells, initial=0.0) < 0:
        raise ValueError(f"X has {np.count_nonzero(cells < 0)} negative values; loss={loss.name!r} needs X >= 0.")
    if not (penalty >= 0 and 0 <= l1_ratio <= 1):
        raise ValueError(f"penalty={penalty!r}, l1_ratio={l1_ratio!r}: wanted penalty >= 0 and l1_ratio in [0, 1].")
    weights = check_weights(sample_weight, X)
    n = X.shape[0] if weights is None else float(weights.sum())
    strengths = Strengths.of(penalty, l1_ratio, n, X.shape[1])
    missing = missing_of(X, X.shape[1], missing_values)
    if missing:
        empty = observed_in_rows(X, missing) <= 0
        W = np.where(empty[:, None], 0, W)  # a row with nothing observed has no scores
    counts = penalised_counts(X, missing, weights)
    unit_X, e = safe_scale(X, loss=loss)
    unit_W = np.ldexp(W, -2 * e) if e else W
    value = divergence(unit_X, unit_W, H, loss, weights, leaves_out_unstored(missing))
    return float(in_units(value, 2 * e * loss.degree)) + strengths.cost(W, H, *counts)


def _numbers(name, values):
    with numbers_wanted(name):
        return np.asarray(values, dtype=np.float64)


def divergence(X, W, H, loss=LEAST_SQUARES, weights=None, unstored=False):
    """Return D(X, W H) over the observed cells, with row weights.

    It is summed cell by cell where sums of products would cancel. Cells that sparse X does not store are zeros, or
    missing if ``unstored``. The loss of a zero depends on y alone; for squares and counts its sum over all zeros is
    found without forming W H.
    """
    if loss.squares and not unstored and (of_products := _squares_of_products(X, W, H, weights)) is not None:
        return of_products
    if sparse.issparse(X) and (unstored or loss.squares or loss.counts):
        return _divergence_at_stored(X, W.astype(np.float64), H.astype(np.float64), loss, weights, unstored)
    total = 0.0
    for rows in slices(X, RESIDUAL_CELLS):
        x = X[rows].toarray() if sparse.issparse(X) else X[rows]
        total += weighted_sum(_row_losses(x, W[rows], H, loss), None if weights is None else weights[rows])
    return total


def _row_losses(x, w, H, loss):
    """Return the loss of every row, summed over its observed cells, with few arrays as large as x at a time."""
    y, sums = product(w, H), np.empty(len(x))
    for rows in slices(x, PRODUCT_CELLS):
        D = loss.of_cells(x[rows], y[rows])
        if np.isnan(D.sum()):
            D[np.isnan(x[rows])] = 0  # missing cells
        D.sum(axis=1, dtype=np.float64, out=sums[rows])
    return sums


def _squares_of_products(X, W, H, weights):
    """Return 1/2 |X - W H|^2 from W'X and W'W, or None if digits would cancel or cells are missing."""
    if X.dtype != np.float64:
        return None
    squared_norm, both, WtW = 0.0, 0.0, np.zeros((len(H), len(H)))
    with np.errstate(over="ignore", invalid="ignore"):
        for rows in [slice(None)] if sparse.issparse(X) else slices(X, PRODUCT_CELLS):
            x, w = X[rows], W[rows]
            v = w if weights is None else w * weights[rows, None]
            squared_norm += squares(x, None if weights is None else weights[rows])
            both += inner(x.data, fitted_at_stored(x, v, H)) if sparse.issparse(x) else inner(product(v.T, x), H)
            WtW += product(v.T, w)
        loss = squared_norm / 2 - both + inner(WtW, gram(H)) / 2
    return float(loss) if np.isfinite(loss) and loss > 1e-4 * squared_norm else None


def _divergence_at_stored(X, W, H, loss, weights, unstored):
    """Return the divergence of sparse X, from its stored cells and from the sum of y or y^2 over the others."""
    y = fitted_at_stored(X, W, H)
    cells = np.where(np.isnan(X.data), 0.0, loss.of_cells(X.data.astype(np.float64), y))
    v = np.ones(len(W)) if weights is None else weights
    stored = inner(np.repeat(v, np.diff(X.indptr)), cells)
    if unstored:
        return stored
    # The sum over unstored cells is that over all cells, less that over the stored ones.
    y_v = y * np.repeat(v, np.diff(X.indptr))
    if loss.squares:
        others = inner(product(W.T * v, W), gram(H)) - inner(y, y_v)
        return stored + max(float(others), 0.0) / 2
    return stored + max(inner(product(v, W), H.sum(axis=1)) - float(y_v.sum()), 0.0)


def loss_and_spread(X, W, H, means, loss, weights, missing):
    """Return D(X, W H) and D(X, m), where m are the best constants, in units in which neither overflows."""
    (X, e), unstored = safe_scale(X, loss=loss), leaves_out_unstored(missing)
    error = divergence(X, np.ldexp(W, -2 * e), H.astype(X.dtype), loss, weights, unstored)
    return error, spread_of(X, np.ldexp(means, -2 * e), loss, weights, unstored)


def spread_of(X, means, loss, weights, unstored):
    """Return D(X, m), the loss of one constant for each column."""
    return divergence(X, np.ones((X.shape[0], 1), X.dtype), means[None].astype(X.dtype), loss, weights, unstored)
