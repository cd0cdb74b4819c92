"""What is minimised: the loss, the penalties and their sum, each written once.

    minimise over W, H >= 0:   1/2 |X - W H|_F^2
                               +  penalty * l1_ratio         * ( p * sum(W)   + n * sum(H)   )
                               +  penalty * (1 - l1_ratio)/2 * ( p * |W|_F^2  + n * |H|_F^2 )

X is n x p, W (scores) n x k, H (loadings) k x p. This is the objective of scikit-learn's
``NMF`` with ``alpha_W = alpha_H = penalty``: the factors p and n make it free of size.

With row weights v, row i's share of the loss and of the penalty on W counts v_i times, and n is the sum of v.
A row's own problem is then the same whatever its weight.

Missing cells (NaN) are left out of the loss, and what is penalised counts in proportion to what was observed: p becomes
the number of cells observed in the row, n the weight of those observed in the column.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn.utils.validation import _check_sample_weight

RESIDUAL_CELLS = 1 << 20  # rows of the residual are formed in slices of about this many cells


class Strengths(NamedTuple):
    """What one unit of |W|_1, |H|_1, |W|_F^2 / 2 and |H|_F^2 / 2 costs."""

    l1_W: float
    l1_H: float
    l2_W: float
    l2_H: float

    @classmethod
    def of(cls, penalty, l1_ratio, n, p):
        """Return the strengths for an n x p table; n is the sum of the weights where rows have weights."""
        l1, l2 = penalty * l1_ratio, penalty * (1 - l1_ratio)
        return cls(l1 * p, l1 * n, l2 * p, l2 * n)

    def cost(self, W, H, weights=None, columns=None):
        """Return the penalty terms of the objective, for weights of the rows of W and of the columns of H."""
        total = 0.0
        for F, l1, l2, v in ((W, self.l1_W, self.l2_W, weights), (H.T, self.l1_H, self.l2_H, columns)):
            if l1:
                total += l1 * weighted_sum(F.sum(axis=-1, dtype=np.float64), v)
            if l2:
                total += l2 / 2 * weighted_sum(np.square(F, dtype=np.float64).sum(axis=-1), v)
        return total


def weighted_sum(of_rows, weights):
    """Sum numbers that belong to rows."""
    return float(of_rows.sum() if weights is None else weights @ of_rows)


def squares(X, weights=None):
    """|X|_F^2 over the observed cells, rows weighted, summed in float64 slice by slice: without a copy of X."""
    if sparse.issparse(X):
        cells = np.square(X.data, dtype=np.float64)
        return float(cells.sum() if weights is None else np.repeat(weights, np.diff(X.indptr)) @ cells)
    step, total = max(1, RESIDUAL_CELLS // max(X.shape[1], 1)), 0.0
    for start in range(0, len(X), step):
        rows = slice(start, start + step)
        cells = np.square(X[rows], dtype=np.float64)
        part = float(cells.sum() if weights is None else (weights[rows] @ cells).sum())
        if np.isnan(part):  # missing cells
            part = float(np.nansum(cells) if weights is None else weights[rows] @ np.nansum(cells, axis=1))
        total += part
    return total


def squared_residual(X, W, H, weights=None):
    """|X - W H|_F^2 over the observed cells, rows weighted, from the residual itself, so that nothing cancels.

    For sparse X, whose residual would fill memory, from |X|^2 - 2 <X H', W> + <W'W, HH'>.
    """
    n, p = X.shape
    if sparse.issparse(X):
        W, H = W.astype(np.float64), H.astype(np.float64)
        V = W if weights is None else W * weights[:, None]
        return max(squares(X, weights) - 2 * float(np.vdot(X @ H.T, V)) + float(np.vdot(W.T @ V, H @ H.T)), 0.0)
    step = max(1, RESIDUAL_CELLS // max(p, 1))
    total = 0.0
    for start in range(0, n, step):
        rows = slice(start, start + step)
        R = X[rows] - W[rows] @ H
        if np.isnan(R.sum()):
            R[np.isnan(X[rows])] = 0  # missing cells
        if weights is not None:
            R = R * np.sqrt(weights[rows], dtype=R.dtype)[:, None]
        total += float(np.vdot(R, R))
    return total


def has_missing(X):
    """Whether non-negative X has missing cells (NaN), with one quick look."""
    with np.errstate(over="ignore"):
        return not sparse.issparse(X) and bool(np.isnan(X.sum()))


def observed_shares(missing, n_counted, weights=None):
    """Return which share of its cells is observed in every row, and in every column, rows weighted."""
    v = np.ones(len(missing)) if weights is None else weights
    return 1 - missing.sum(axis=1) / n_counted, 1 - v @ missing / v.sum()


def penalised_counts(X, n_counted, weights):
    """Return how much every row and every column counts in the penalty (None: 1).

    A row: its weight times the share of ``n_counted`` columns observed there (None: nothing is missing). A column: the
    share of the weight observed there.
    """
    if n_counted is None:
        return weights, None
    by_row, by_column = observed_shares(np.isnan(X), n_counted, weights)
    return by_row if weights is None else by_row * weights, by_column


def column_means(X, weights=None):
    """Return the means of the columns over observed cells, rows weighted, in float64."""
    means = X.mean(axis=0, dtype=np.float64) if weights is None else weights @ X / weights.sum()
    means = np.asarray(means).ravel()
    for j in np.flatnonzero(np.isnan(means)):
        observed = ~np.isnan(X[:, j])
        v = np.ones(observed.sum()) if weights is None else weights[observed]
        means[j] = v @ X[observed, j] / v.sum() if v.any() else 0.0
    return means


def check_weights(sample_weight, X):
    """Return row weights as a float64 array, None where there are none; negative or all-zero ones are refused."""
    if sample_weight is None:
        return None
    weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    if not weights.any():
        raise ValueError(
            f"sample_weight is zero for all {len(weights)} rows: nothing is left to fit. Give at least one row a "
            "positive weight, or pass None."
        )
    return weights


def objective(X, W, H, penalty=0.001, l1_ratio=1.0, sample_weight=None):
    """Evaluate the penalised objective that every solver here minimises.

        1/2 |X - W H|_F^2 + penalty * l1_ratio         * (p * sum(W)  + n * sum(H))
                          + penalty * (1 - l1_ratio)/2 * (p * |W|_F^2 + n * |H|_F^2)

    Parameters
    ----------
    X : array or sparse matrix of shape (n, p)
        The data, non-negative. Missing cells of an array are NaN.
    W : array of shape (n, k)
        Scores: what each row takes of each component.
    H : array of shape (k, p)
        Loadings: what each component is made of.
    penalty : float, default 0.001
        Strength of the penalty on both factors.
    l1_ratio : float, default 1.0
        Share of the penalty that is L1 (sum of entries); the rest is L2 (sum of squares).
    sample_weight : array-like of shape (n,), optional
        Weights of the rows, 0 or more: how often each counts, in the loss and in the terms of W. In those of H, n
        is their sum.

    Returns
    -------
    float
        The objective, in squared units of ``X``.

    Raises
    ------
    ValueError
        If the shapes of ``X``, ``W`` and ``H`` do not fit together, if ``penalty`` or ``l1_ratio`` is out of range, or
        for weights that are negative, not finite, all zero or not one for each row.

    References
    ----------
    The scaling by n and p follows scikit-learn's ``NMF``.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_features import objective
    >>> X = np.array([[2.0, 0.0], [0.0, 1.0]])
    >>> objective(X, np.eye(2), X, penalty=0)
    0.0
    >>> objective(X, np.eye(2), X, penalty=0.1)   # 0.1 * (2 * 2 + 2 * 3)
    1.0
    """
    W, H = np.asarray(W, dtype=np.float64), np.asarray(H, dtype=np.float64)
    X = X if sparse.issparse(X) else np.asarray(X, dtype=np.float64)
    if not (X.ndim == W.ndim == H.ndim == 2 and X.shape == (W.shape[0], H.shape[1]) and W.shape[1] == H.shape[0]):
        raise ValueError(
            f"X, W and H have shapes {X.shape}, {W.shape} and {H.shape}; wanted (n, p), (n, k) and (k, p), "
            "so that W @ H is like X."
        )
    if not (penalty >= 0 and 0 <= l1_ratio <= 1):
        raise ValueError(f"penalty={penalty!r}, l1_ratio={l1_ratio!r}: wanted penalty >= 0 and l1_ratio in [0, 1].")
    weights = check_weights(sample_weight, X)
    n = X.shape[0] if weights is None else float(weights.sum())
    strengths = Strengths.of(penalty, l1_ratio, n, X.shape[1])
    missing = has_missing(X)
    if missing:
        W = np.where(np.isnan(X).all(axis=1, keepdims=True), 0, W)  # a row with nothing observed has no scores
    counts = penalised_counts(X, X.shape[1] if missing else None, weights)
    return 0.5 * squared_residual(X, W, H, weights) + strengths.cost(W, H, *counts)


def safe_scale(X):
    """Return X / 4^e and e: 0 (and X itself) for ordinary data, else such that no square overflows or vanishes."""
    cells = X.data if sparse.issparse(X) else X
    top = float(cells.max(initial=0.0))
    if np.isnan(top):  # missing cells
        top = float(np.nanmax(cells, initial=0.0))
    exponent = int(np.frexp(top)[1]) if top > 0 else 0
    if abs(exponent) <= np.finfo(X.dtype).maxexp // 8:
        return X, 0
    half = exponent // 2
    if not sparse.issparse(X):
        return np.ldexp(X, -2 * half), half
    X = X.copy()
    X.data = np.ldexp(X.data, -2 * half)
    return X, half


def balance(W_sums, W_squares, H, unit, columns=None):
    """Scales c > 0 that make each component's penalty least: W <- W * c, H <- H / c; columns of H may have weights.

    ``unit`` holds the strengths at penalty 1, since the penalty itself cancels. For each component
    a1 c + b1 / c + (a2 c^2 + b2 / c^2) / 2 is least where its derivative in log c vanishes: in closed form
    for pure L1 or L2, else by Newton steps (it is convex in log c). Dead components keep the scale 1.
    """
    a1, a2 = unit.l1_W * W_sums, unit.l2_W * W_squares
    u = np.ones(H.shape[1]) if columns is None else columns
    b1, b2 = unit.l1_H * (H @ u), unit.l2_H * (np.square(H) @ u)
    alive = (W_sums > 0) & (b1 + b2 > 0)
    a1, a2, b1, b2 = (np.where(alive, v, 1.0) for v in (a1, a2, b1, b2))
    if not unit.l2_W:
        return np.where(alive, np.sqrt(b1 / a1), 1.0)
    log_c = np.log(b2 / a2) / 4  # exact for pure L2
    if unit.l1_W:
        low, high = np.minimum(log_c, np.log(b1 / a1) / 2), np.maximum(log_c, np.log(b1 / a1) / 2)
        for _ in range(50):  # the root lies between the two closed forms; Newton, kept between them
            c = np.exp(log_c)
            slope = a1 * c - b1 / c + a2 * c**2 - b2 / c**2
            curvature = a1 * c + b1 / c + 2 * (a2 * c**2 + b2 / c**2)
            new = np.clip(log_c - slope / curvature, low, high)
            done = np.max(np.abs(new - log_c)) <= 1e-15
            log_c = new
            if done:
                break
    return np.where(alive, np.exp(log_c), 1.0)
