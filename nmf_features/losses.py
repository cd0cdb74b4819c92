"""What is minimised: the loss, the penalties and their sum, each written once.

    minimise over W, H >= 0:   D(X, W H)
                               +  penalty * l1_ratio         * ( p * sum(W)   + n * sum(H)   )
                               +  penalty * (1 - l1_ratio)/2 * ( p * |W|_F^2  + n * |H|_F^2 )

X is n x p, W (scores) n x k, H (loadings) k x p, and D a beta-divergence, a sum over the cells:

    beta = 2    1/2 (x - y)^2                                            "frobenius"
    beta = 1    x log(x / y) - x + y                                     "kullback-leibler", for counts
    beta = 0    x / y - log(x / y) - 1                                   "itakura-saito", of ratios only
    others      (x^beta + (beta - 1) y^beta - beta x y^(beta - 1)) / (beta (beta - 1))

This is the objective of scikit-learn's ``NMF`` with ``alpha_W = alpha_H = penalty``: the factors p and n make it
free of size.

With row weights v, row i's share of the loss and of the penalty on W counts v_i times, and n is the sum of v.
A row's own problem is then the same whatever its weight.

Missing cells (NaN, or what a sparse matrix does not store) are left out of the loss, and what is penalised counts in
proportion to what was observed: p becomes the number of cells observed in the row, n the weight of those observed in
the column.

Reference: C. Fevotte and J. Idier (2011), Algorithms for nonnegative matrix factorization with the beta-divergence.
"""

from functools import partial
from numbers import Real
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import xlogy
from sklearn.utils.validation import _check_sample_weight

from ._warn import numpy_defaults
from .kernels import compiled_if_worth, csr_fitted
from .products import gram, inner, product

BETA_LOSSES = {"frobenius": 2.0, "kullback-leibler": 1.0, "itakura-saito": 0.0}
MOST_DECADES = 280  # what powers of cells, or of their ratios, may come to
RESIDUAL_CELLS = 1 << 20  # rows of the residual are formed in slices of about this many cells
PRODUCT_CELLS = 1 << 16  # and multiplied, or looked at twice, in slices that stay in the cache


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
        return cls(*(min(q, 1e300) for q in (l1 * p, l1 * n, l2 * p, l2 * n)))  # finite: 0 of anything costs 0

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
    return float(of_rows.sum() if weights is None else inner(weights, of_rows))


def squares(X, weights=None):
    """|X|_F^2 over the observed cells, rows weighted, summed in float64 slice by slice: without a copy of X."""
    if weights is not None and sparse.issparse(X):
        weights = np.repeat(weights, np.diff(X.indptr))
    X = X.data if sparse.issparse(X) else X
    step, total = max(1, PRODUCT_CELLS // max(X[:1].size, 1)), 0.0
    for start in range(0, len(X), step):
        rows = slice(start, start + step)
        if weights is None:
            cells = X[rows].ravel("K").astype(np.float64, copy=False)
            part = inner(cells, cells)
        if weights is not None or np.isnan(part):
            cells = np.square(X[rows], dtype=np.float64)
            part = float(cells.sum() if weights is None else product(weights[rows], cells).sum())
        if np.isnan(part):  # missing cells
            cells[np.isnan(cells)] = 0
            part = float(cells.sum() if weights is None else product(weights[rows], cells).sum())
        total += part
    return total


def extremes(X):
    """Return the least and the largest cell (0 if there is none above), NaN where one is, with one read of X."""
    X = X.data if sparse.issparse(X) else X
    step, least, most = max(1, PRODUCT_CELLS // max(X[:1].size, 1)), [0.0], [0.0]
    for start in range(0, len(X), step):
        part = X[start : start + step]
        least.append(part.min(initial=0.0))
        most.append(part.max(initial=0.0))
    return float(np.min(least)), float(np.max(most))


def largest(X):
    """Return the largest cell that is observed, 0 where all are."""
    top = extremes(X)[1]
    return float(np.nanmax(X.data if sparse.issparse(X) else X, initial=0.0)) if np.isnan(top) else top


def divergence(X, W, H, beta=2.0, weights=None, unstored=False):
    """D(X, W H) over the observed cells, rows weighted, from the cells themselves where sums of products would cancel.

    Of sparse X cells that are not stored are zeros, or not observed if ``unstored``. A zero adds what depends on y
    alone, and the sum over all zeros is found without forming W H where beta is 1 or 2.
    """
    n, p = X.shape
    if beta == 2 and not unstored and (of_products := _squares_of_products(X, W, H, weights)) is not None:
        return of_products
    if sparse.issparse(X) and (unstored or beta in (1.0, 2.0)):
        return _divergence_at_stored(X, W.astype(np.float64), H.astype(np.float64), beta, weights, unstored)
    step = max(1, RESIDUAL_CELLS // max(p, 1))
    total = 0.0
    for start in range(0, n, step):
        rows = slice(start, start + step)
        x = X[rows].toarray() if sparse.issparse(X) else X[rows]
        y = product(W[rows], H)
        D = of_cells(x, y, beta)
        if np.isnan(D.sum()):
            D[np.isnan(x)] = 0  # missing cells
        total += weighted_sum(D.sum(axis=1, dtype=np.float64), None if weights is None else weights[rows])
    return total


def _squares_of_products(X, W, H, weights):
    """Return 1/2 |X - W H|^2 from W'X and W'W, or None where digits would be lost, or cells are missing."""
    if X.dtype != np.float64:
        return None
    step = max(1, X.shape[0] if sparse.issparse(X) else PRODUCT_CELLS // max(X.shape[1], 1))
    squared_norm, both, WtW = 0.0, 0.0, np.zeros((len(H), len(H)))
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, X.shape[0], step):
            x, w = X[start : start + step], W[start : start + step]
            v = w if weights is None else w * weights[start : start + step, None]
            squared_norm += squares(x, None if weights is None else weights[start : start + step])
            both += inner(x.data, fitted_at_stored(x, v, H)) if sparse.issparse(x) else inner(product(v.T, x), H)
            WtW += product(v.T, w)
        loss = squared_norm / 2 - both + inner(WtW, gram(H)) / 2
    return float(loss) if np.isfinite(loss) and loss > 1e-4 * squared_norm else None


def loss_and_spread(X, W, H, means, beta, weights, missing):
    """Return D(X, W H) and D(X, m), m the means of the columns, in units in which neither overflows."""
    X, e = safe_scale(X)
    loss = partial(divergence, X, beta=beta, weights=weights, unstored=leaves_out_unstored(missing))
    means = np.ldexp(means, -2 * e)[None].astype(X.dtype)
    return loss(np.ldexp(W, -2 * e), H.astype(X.dtype)), loss(np.ones((X.shape[0], 1), X.dtype), means)


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


def _divergence_at_stored(X, W, H, beta, weights, unstored):
    """Return the divergence of sparse X from its stored cells and, of the others, the sum of y or of y^2."""
    y = fitted_at_stored(X, W, H)
    cells = np.where(np.isnan(X.data), 0.0, of_cells(X.data.astype(np.float64), y, beta))
    v = np.ones(len(W)) if weights is None else weights
    stored = inner(np.repeat(v, np.diff(X.indptr)), cells)
    if unstored:
        return stored
    # What is not stored: all cells, less the stored ones.
    y_v = y * np.repeat(v, np.diff(X.indptr))
    if beta == 2:
        others = inner(product(W.T * v, W), gram(H)) - inner(y, y_v)
        return stored + max(float(others), 0.0) / 2
    return stored + max(inner(product(v, W), H.sum(axis=1)) - float(y_v.sum()), 0.0)


def fitted_at_stored(X, W, H):
    """Return W H at the stored cells of a CSR matrix."""
    out = np.empty(len(X.data), W.dtype)
    loop = compiled_if_worth(csr_fitted, len(out))
    loop(X.indices, X.indptr, np.ascontiguousarray(W), np.ascontiguousarray(H.T, dtype=W.dtype), out)
    return out


class Missing(NamedTuple):
    """Which cells are left out: NaN, and with ``unstored`` what a sparse matrix does not store.

    ``n_counted`` is the number of columns in which cells can be missing.
    """

    n_counted: int
    unstored: bool = False


def leaves_out_unstored(missing):
    """Whether what a sparse matrix does not store is missing (``missing`` is None where nothing is)."""
    return missing is not None and missing.unstored


def missing_of(X, n_counted, missing_values):
    """Return what of non-negative X is missing, or None where nothing is, with one quick look."""
    if missing_values == "unstored" and sparse.issparse(X):
        return Missing(n_counted, True)
    with np.errstate(over="ignore"):
        return Missing(n_counted) if np.isnan((X.data if sparse.issparse(X) else X).sum()) else None


def observed_shares(X, missing, weights=None):
    """Return which share of its cells is observed in every row, and in every column, rows weighted."""
    v = np.ones(X.shape[0]) if weights is None else weights
    if not sparse.issparse(X):
        holes = np.isnan(X)
        by_column = np.where(holes.all(axis=0), 0.0, 1 - product(v, holes) / v.sum())
        return 1 - holes.sum(axis=1) / missing.n_counted, by_column
    marked = X.copy()  # what counts, at the stored cells: those observed, or else those that are not
    marked.data = np.isnan(X.data).astype(np.float64)
    if missing.unstored:
        marked.data = 1 - marked.data
    by_row, by_column = marked @ np.ones(X.shape[1]) / missing.n_counted, v @ marked / v.sum()
    if missing.unstored:
        return by_row, by_column
    nowhere = np.bincount(X.indices, marked.data, X.shape[1]) == X.shape[0]
    return 1 - by_row, np.where(nowhere, 0.0, 1 - by_column)


def penalised_counts(X, missing, weights):
    """Return how much every row and every column counts in the penalty (None: 1).

    A row: its weight times the share of its cells that is observed. A column: the share of the weight observed there.
    """
    if missing is None:
        return weights, None
    by_row, by_column = observed_shares(X, missing, weights)
    return by_row if weights is None else by_row * weights, by_column


def column_means(X, weights=None, missing=None):
    """Return the means of the columns over observed cells, rows weighted, in float64."""
    if sparse.issparse(X) and missing is not None:
        v, shares = np.ones(X.shape[0]) if weights is None else weights, observed_shares(X, missing, weights)[1]
        X = X.copy()
        X.data = np.nan_to_num(X.data, nan=0.0)
        return np.divide(v @ X / v.sum(), shares, out=np.zeros(X.shape[1]), where=shares > 1e-12)
    means = X.mean(axis=0, dtype=np.float64) if weights is None else product(weights, X) / weights.sum()
    means = np.asarray(means).ravel()
    holed = np.isnan(means)
    if not holed.any():
        return means
    v, step = np.ones(X.shape[0]) if weights is None else weights, max(1, PRODUCT_CELLS // len(means))
    sums, counts = np.zeros((2, len(means)))
    for start in range(0, len(X), step):
        rows = slice(start, start + step)
        holes = np.isnan(X[rows])
        sums += product(v[rows], np.where(holes, 0, X[rows]))
        counts += product(v[rows], ~holes)
    means[holed] = np.divide(sums, counts, out=np.zeros(len(means)), where=counts > 0)[holed]
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


def check_columns(X):
    """Refuse columns that are too far apart for floats, where cells are missing: some rows have only the small ones."""
    if sparse.issparse(X):
        tops = np.zeros(X.shape[1], X.dtype)
        np.fmax.at(tops, X.indices, X.data)
    else:
        tops = np.fmax.reduce(X, axis=0, initial=0.0)
    tops = tops[tops > 0].astype(np.float64)
    if len(tops) and np.log10(tops.max()) - np.log10(tops.min()) > np.log10(float(np.finfo(X.dtype).max)) / 3:
        raise ValueError(
            f"X has columns whose largest cells lie between {tops.min():.3g} and {tops.max():.3g}: with missing cells, "
            "numbers so far apart leave the range of floats. Scale the columns (NMFFeatures: scale), or leave out the "
            "small ones."
        )


@numpy_defaults
def objective(X, W, H, penalty=0.001, l1_ratio=1.0, sample_weight=None, beta_loss="frobenius", missing_values="ignore"):
    """Evaluate the penalised objective that every solver here minimises.

        D(X, W H) + penalty * l1_ratio         * (p * sum(W)  + n * sum(H))
                  + penalty * (1 - l1_ratio)/2 * (p * |W|_F^2 + n * |H|_F^2)

    Parameters
    ----------
    X : array or sparse matrix of shape (n, p)
        The data, non-negative. Missing cells are NaN.
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
    beta_loss : {"frobenius", "kullback-leibler", "itakura-saito"} or float, default "frobenius"
        The beta-divergence D: 1/2 |X - W H|_F^2 for beta = 2, sum(x log(x / y) - x + y) for 1, sum(x / y - log(x / y)
        - 1) for 0, with y = (W H)_ij.
    missing_values : {"ignore", "unstored"}, default "ignore"
        With "unstored" the cells that sparse X does not store are left out too.

    Returns
    -------
    float
        The objective, in units of ``X`` to the power beta.

    Raises
    ------
    ValueError
        If the shapes of ``X``, ``W`` and ``H`` do not fit together, if ``penalty`` or ``l1_ratio`` is out of range, or
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
    >>> objective(X, np.eye(2), 2 * X, penalty=0, beta_loss="kullback-leibler")   # 2 log(1/2) + 2 + log(1/2) + 1
    0.920558
    """
    W, H = np.asarray(W, dtype=np.float64), np.asarray(H, dtype=np.float64)
    X = without_duplicates(X.tocsr()) if sparse.issparse(X) else np.asarray(X, dtype=np.float64)
    if missing_values not in ("ignore", "unstored"):
        raise ValueError(f'missing_values is {missing_values!r}; wanted "ignore" or "unstored".')
    if not (X.ndim == W.ndim == H.ndim == 2 and X.shape == (W.shape[0], H.shape[1]) and W.shape[1] == H.shape[0]):
        raise ValueError(
            f"X, W and H have shapes {X.shape}, {W.shape} and {H.shape}; wanted (n, p), (n, k) and (k, p), "
            "so that W @ H is like X."
        )
    beta, cells = check_beta(beta_loss), X.data if sparse.issparse(X) else X
    if beta != 2 and np.nanmin(cells, initial=0.0) < 0:
        raise ValueError(f"X has {np.count_nonzero(cells < 0)} negative values; beta_loss={beta_loss!r} needs X >= 0.")
    if not (penalty >= 0 and 0 <= l1_ratio <= 1):
        raise ValueError(f"penalty={penalty!r}, l1_ratio={l1_ratio!r}: wanted penalty >= 0 and l1_ratio in [0, 1].")
    weights = check_weights(sample_weight, X)
    n = X.shape[0] if weights is None else float(weights.sum())
    strengths = Strengths.of(penalty, l1_ratio, n, X.shape[1])
    missing = missing_of(X, X.shape[1], missing_values)
    if missing:
        empty = observed_shares(X, missing)[0] <= 0
        W = np.where(empty[:, None], 0, W)  # a row with nothing observed has no scores
    counts = penalised_counts(X, missing, weights)
    unit_X, e = safe_scale(X)
    unit_W = np.ldexp(W, -2 * e) if e else W
    loss = divergence(unit_X, unit_W, H, beta, weights, leaves_out_unstored(missing))
    return float(in_units(loss, 2 * e * beta)) + strengths.cost(W, H, *counts)


def in_units(values, exponent):
    """Return values times 2^exponent."""
    whole = int(np.floor(exponent))
    with np.errstate(over="ignore"):
        return np.ldexp(values * np.exp2(exponent - whole), whole)


def without_duplicates(X):
    """Return X; sparse X with every cell stored once (a copy, where some are stored in parts)."""
    if sparse.issparse(X) and not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return X


def safe_scale(X, top=None):
    """Return X / 4^e and e: 0 (and X itself) for ordinary data, else such that no square overflows or vanishes.

    ``top`` is the largest cell, where it is known.
    """
    top = largest(X) if top is None else top
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
    b1, b2 = unit.l1_H * product(H, u), unit.l2_H * product(np.square(H), u)
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
