"""Shift and scale, so that data is non-negative and columns are comparable.

    x is cut off at lower and upper          clip = q: the training quantiles q and 1 - q; None: not at all
    z = max(x - offset, 0) / factor          shift = "min", "mode" or None
    z+ = max(x - offset, 0) / factor+,  z- = max(offset - x, 0) / factor-         shift = "split"

Constant columns carry no information: they become 0, and are restored to their constant.
"""

from importlib import import_module
from numbers import Real

import numpy as np
from scipy import sparse
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.sparsefuncs import min_max_axis

from ._warn import warn_user
from .core.blocks import with_data
from .core.products import product
from .core.units import without_last_bits

COMMON = 0.9  # shift="mode": a value that a larger share of the rows has is subtracted
QUANTILE = 0.99  # scale="robust": the share of a column's values that is not clipped
CHUNK_CELLS = 1 << 17  # a slice and its copies stay in the cache


class Scaling:
    """What was learned about the columns: plain arrays, in the order of the columns.

    ``offset``, ``minimum``, ``maximum``, ``constant``, ``lower``, ``upper``: one entry per column; ``factor``: one per
    column of the result, which has two (+ and -) for each column if ``split``. ``capped``: results are cut at 1
    (robust). Values are cut off at ``lower`` and ``upper`` (infinite where they are not; None: nowhere, as in models
    from before there was ``clip``); ``minimum`` and ``maximum`` are those before that. What lies below the offset
    becomes 0, unless ``signed`` (the centre and scale of a linear model): then it is negative.
    """

    def __init__(
        self, offset, minimum, maximum, constant, factor, split, bounded, capped, lower=None, upper=None, signed=False
    ):
        self.offset, self.minimum, self.maximum, self.constant = offset, minimum, maximum, constant
        self.factor, self.split, self.bounded, self.capped, self.signed = factor, split, bounded, capped, signed
        self.lower = np.full(len(offset), -np.inf) if lower is None else lower
        self.upper = np.full(len(offset), np.inf) if upper is None else upper

    @classmethod
    def learn(cls, X, shift, scale, names, weights=None, unstored=False, clip=None):
        """Learn bounds, offset and factor of every column of a matrix with at least one row; weights are positive.

        Missing cells are left out: NaN, and with ``unstored`` what sparse X does not store. A column without
        observed cells counts as constant.
        """
        if sparse.issparse(X):
            if shift is not None:
                raise ValueError(f"shift={shift!r} would fill the zeros of sparse X: pass shift=None, or dense X.")
            minimum, maximum = _sparse_extremes(X, unstored)
        else:
            minimum, maximum = (np.asarray(extreme.reduce(X, axis=0)) for extreme in (np.fmin, np.fmax))
        minimum, maximum = minimum.astype(np.float64), maximum.astype(np.float64)
        if shift is None and (minimum < 0).any():
            bad = {names[j]: int((X[:, [j]] < 0).sum()) for j in np.flatnonzero(minimum < 0)}
            raise ValueError(
                f"Negative values in data X (column: how many) {bad}, and shift=None. "
                'Pass shift="min" to subtract each column\'s minimum, or shift="split" to part '
                "each column into what is above and below its mean."
            )
        lower, upper = _bounds(X, clip, shift, weights, unstored)
        if sparse.issparse(X) and clip is not None:
            X = with_data(X, np.minimum(X.data, upper[X.indices]))
        least, most = np.maximum(minimum, lower), np.minimum(maximum, upper)
        with np.errstate(over="ignore"):
            spread = most - least
        if np.isinf(spread).any():
            wide = [names[j] for j in np.flatnonzero(np.isinf(spread))]
            raise ValueError(f"X has columns whose range overflows a float64: {wide}. Divide them by a constant first.")
        constant = (minimum == maximum) | np.isnan(minimum)
        unit = np.where(constant, 1.0, spread)
        split = shift == "split"
        if split:
            share = means(X, lambda x: (np.clip(x, lower, upper) - least) / unit, weights)
            offset = least + unit * without_last_bits(share)
        else:
            offset = least if shift in ("min", "mode") else np.zeros_like(least)
            if shift == "mode":
                values, shares = common_values(X, weights)
                # If it is the maximum, nothing would be left above it: the minimum stays.
                offset = np.where((shares > COMMON) & (values < most), values, least)
        offset = np.where(constant, minimum, offset)
        top = np.stack([most - offset, offset - least], axis=1).ravel() if split else most - offset
        doubled = np.repeat(constant, 2) if split else constant
        top = np.where(doubled, 1.0, top)  # largest shifted value of each resulting column
        state = cls(offset, minimum, maximum, constant, top, split, shift != "split", False, lower, upper)
        with np.errstate(invalid="ignore"):  # from columns without observed cells
            factor = np.ones(state.size) if scale is None else SCALES[scale](X, state, weights, unstored)
        state.factor = np.where(doubled, 1.0, np.where(factor > 0, factor, top))
        state.capped = scale == "robust"
        return state

    @property
    def size(self):
        """Number of columns of the result."""
        return len(self.factor)

    def unit(self, x, out=None):
        """Cut off at the bounds, shift and divide a slice of rows, in float64."""
        if np.isfinite(self.upper).any():
            x = out = np.clip(x, self.lower, self.upper, out=out)
        if self.offset.any():
            x = out = np.subtract(x, self.offset, out=out)
        if self.split:
            x = out = np.stack([x, -x], axis=2).reshape(len(x), -1)
        z = np.maximum(x, -np.inf if self.signed else 0, out=out)  # a copy in either case
        if (self.factor != 1).any():
            z /= self.factor
        return z

    def apply(self, X, out_of_range, names, overwrite=False):
        """Return the scaled matrix, in the memory of X if ``overwrite`` allows it and the width is the same."""
        if sparse.issparse(X) and (self.split or self.offset[~self.constant].any()):
            raise ValueError(
                "Sparse X, but what is subtracted from the columns would fill its zeros: pass X.toarray()."
            )
        bound = np.minimum(self.offset, self.minimum)  # 0 with shift=None; the offset may be the lower quantile
        if self.bounded and out_of_range != "clip":
            below = np.zeros(X.shape[1], dtype=int)
            if sparse.issparse(X):
                below += np.bincount(X.indices[X.data < bound[X.indices]], minlength=len(below))
            else:
                for rows in _slices(X):
                    below += (X[rows] < bound).sum(axis=0)
            if below.any():
                found = {names[j]: int(below[j]) for j in np.flatnonzero(below)}
                ranges = {names[j]: f"{self.minimum[j]:.6g} to {self.maximum[j]:.6g}" for j in np.flatnonzero(below)}
                message = (
                    f"X has values below what was seen in training (column: how many cells): {found}. Training ranges: "
                    f"{ranges}."
                )
                if out_of_range == "raise":
                    raise ValueError(
                        f'{message} Pass out_of_range="clip" to raise them to the lower bound of their column.'
                    )
                warn_user(f"{message} They are raised to the lower bound of their column.")
        with np.errstate(over="ignore"):
            Z = self._scaled(X, overwrite)
        cells = Z.data if sparse.issparse(Z) else Z
        top = np.abs(cells).max(initial=0.0) if self.signed else cells.max(initial=0.0)
        if np.isinf(np.nanmax(cells, initial=0.0) if np.isnan(top) else top):
            at = Z.indices[np.isinf(Z.data)] if sparse.issparse(Z) else np.flatnonzero(np.isinf(Z).any(axis=0))
            bad = [self.names_out(names)[j] for j in np.unique(at)]
            raise ValueError(
                f"X has values so far above those seen in training that scaling overflows, in columns {bad}. "
                "Check their units, or cut them off first."
            )
        return Z

    def _scaled(self, X, overwrite):
        if sparse.issparse(X):
            if self.constant.any():  # constant columns carry no information, so none of their cells are stored
                kept = ~self.constant[X.indices]
                ends = np.concatenate([[0], np.cumsum(kept)])[X.indptr].astype(X.indptr.dtype)
                X = sparse.csr_array((X.data[kept], X.indices[kept], ends), shape=X.shape)
            Z = X.copy()
            x = np.clip(X.data, -np.inf if self.signed else 0, self.upper[X.indices])
            Z.data = (x / self.factor[X.indices]).astype(X.dtype, copy=False)
            if self.capped:
                np.minimum(Z.data, 1, out=Z.data)
            return Z
        Z = X if overwrite and not self.split else np.empty((len(X), self.size), dtype=X.dtype)
        constant = np.flatnonzero(np.repeat(self.constant, 2) if self.split else self.constant)
        for rows in _slices(X):
            in_place = Z.dtype == np.float64 and not self.split
            z = self.unit(X[rows].astype(np.float64, copy=False), out=Z[rows] if in_place else None)
            if self.capped:
                np.minimum(z, 1, out=z)
            z[:, constant] = 0
            if not in_place:
                Z[rows] = z
        return Z

    def invert(self, Z):
        """Return the matrix in original units, within the bounds; dense from sparse only if a column was constant."""
        if sparse.issparse(Z) and not self.offset.any():
            X = sparse.csr_array(Z, copy=True)
            X.data = np.minimum(X.data * self.factor[X.indices], self.upper[X.indices]).astype(Z.dtype)
            return X
        Z = Z.toarray() if sparse.issparse(Z) else Z
        X = np.empty((len(Z), len(self.offset)), dtype=Z.dtype)
        for rows in _slices(Z):
            z = Z[rows] * self.factor
            x = (z[:, 0::2] - z[:, 1::2] if self.split else z) + self.offset
            X[rows] = np.clip(x, self.lower, self.upper)
        return X

    def names_out(self, names):
        """Return the names of the resulting columns."""
        return [f"{name}{sign}" for name in names for sign in "+-"] if self.split else list(names)


class ScaledRows:
    """A table whose rows are read and scaled on demand, a slice at a time; it is never copied as a whole."""

    def __init__(self, rows, scaling, names):
        self.rows, self.scaling, self.names = rows, scaling, names
        self.shape, self.dtype = (rows.shape[0], scaling.size), rows.dtype

    def __getitem__(self, rows):
        return self.scaling.apply(self.rows[rows], "clip", self.names)


def _slices(X):
    step = max(1, CHUNK_CELLS // max(X.shape[1], 1))
    return [slice(start, start + step) for start in range(0, X.shape[0], step)]


def means(X, function, weights):
    """Return column means of a function of the rows, over observed cells, in float64."""
    total, count = 0.0, 0.0
    for rows in _slices(X):
        values = function(X[rows].astype(np.float64, order="C"))
        v = np.ones(len(values)) if weights is None else weights[rows]
        count = count + v.sum()
        if np.isnan(values.sum()):
            missing = np.isnan(values)
            values[missing] = 0
            count = count - product(v, missing)
        total = total + (values.sum(axis=0) if weights is None else product(v, values))
    return total / np.where(count == 0, 1, count)


def _sparse_extremes(X, unstored):
    """Return the smallest and the largest observed value of every column."""
    if not unstored:
        return min_max_axis(X, axis=0, ignore_nan=True)
    by_column, observed = X.tocsc(), np.zeros((2, X.shape[1]))
    for j, (start, stop) in enumerate(zip(by_column.indptr, by_column.indptr[1:], strict=False)):
        stored = by_column.data[start:stop]
        observed[:, j] = (np.fmin.reduce(stored), np.fmax.reduce(stored)) if len(stored) else np.nan
    return observed


def sparse_means(X, cells, weights, unstored):
    """Return column means over observed cells; NaN is missing; unstored cells are 0, or missing if ``unstored``."""
    p, holes = X.shape[1], np.isnan(cells)
    v = np.ones(len(cells)) if weights is None else np.repeat(weights, np.diff(X.indptr))
    observed = np.bincount(X.indices[~holes], v[~holes], minlength=p)
    if not unstored:
        missing = np.bincount(X.indices[holes], v[holes], minlength=p)
        observed = (X.shape[0] if weights is None else weights.sum()) - missing
    total = np.bincount(X.indices[~holes], (v * cells)[~holes], minlength=p)
    return total / np.where(observed > 0, observed, 1)


# Factors are computed from values divided by the largest (``state.unit``, in [0, 1]), so no square over- or underflows.


def _mean(X, state, weights, unstored):
    return state.factor * without_last_bits(_unit_mean(X, state, weights, unstored))


def _unit_mean(X, state, weights, unstored):
    if sparse.issparse(X):
        return sparse_means(X, X.data / state.factor[X.indices], weights, unstored)
    return means(X, state.unit, weights)


def _std(X, state, weights, unstored):
    mean = _unit_mean(X, state, weights, unstored)
    if sparse.issparse(X):
        stored = np.square(X.data / state.factor[X.indices] - mean[X.indices])
        ones = np.where(np.isnan(X.data), np.nan, 1.0)
        others = 1 - sparse_means(X, ones, weights, unstored)  # the share of observed cells that are zero
        variance = sparse_means(X, stored, weights, unstored) + np.maximum(others, 0) * mean**2
    else:
        variance = means(X, lambda x: np.square(state.unit(x) - mean), weights)
    return state.factor * without_last_bits(np.sqrt(variance))


def _columns(X, weights, unstored):
    """Yield values and weights of every column: of a sparse one the stored cells, and a zero for all others."""
    if not sparse.issparse(X):
        for j in range(X.shape[1]):
            yield X[:, j].astype(np.float64), weights
        return
    X, v = X.tocsc(), np.ones(X.shape[0]) if weights is None else weights
    total = np.sort(v).sum()  # sorted, as the last bits of a sum depend on the order
    for start, stop in zip(X.indptr, X.indptr[1:], strict=False):
        stored = v[X.indices[start:stop]]
        others = 0.0 if unstored else total - np.sort(stored).sum()
        yield np.append(X.data[start:stop], 0.0), np.append(stored, others)


def _quantiles(values, shares, weights):
    """Return the smallest values that have these shares of the weight at or below them ("inverted_cdf")."""
    observed = ~np.isnan(values)
    if not observed.all():
        values, weights = values[observed], None if weights is None else weights[observed]
    if not len(values):
        return np.zeros(len(shares))
    if weights is None:
        at = np.ceil(np.multiply(shares, len(values))).astype(int) - 1
        return np.partition(values, at)[at]
    order = np.lexsort((weights, values))  # sorts ties too, for the same reason
    reached = np.cumsum(weights[order])
    return values[order[np.searchsorted(reached, np.multiply(shares, reached[-1]))]]


def _bounds(X, clip, shift, weights, unstored):
    """Return the quantiles at which columns are cut off: infinite where they are not.

    A column with equal quantiles would lose all that it says. With ``shift=None`` zero has a meaning, and stays zero.
    """
    p = X.shape[1]
    lower, upper = np.full(p, -np.inf), np.full(p, np.inf)
    if clip is None:
        return lower, upper
    shares = [float(clip), 1 - float(clip)]
    for j, (values, v) in enumerate(_columns(X, weights, unstored)):
        low, high = _quantiles(values, shares, v)
        if low < high:
            lower[j], upper[j] = low if shift is not None else -np.inf, high
    return lower, upper


def common_values(X, weights=None, unstored=False):
    """Return the median of every column and the share of its observed cells that have this value.

    So what most rows have is found; 0 and share 0 where nothing is observed.
    """
    found, shares = np.zeros((2, X.shape[1]))
    for j, (values, v) in enumerate(_columns(X, weights, unstored)):
        v = np.ones(len(values)) if v is None else v
        [found[j]] = _quantiles(values, [0.5], v)
        whole = v[~np.isnan(values)].sum()
        shares[j] = v[values == found[j]].sum() / whole if whole else 0.0
    return found, shares


def _robust(X, state, weights, unstored):
    quantiles = []
    for j, (values, v) in enumerate(_columns(X, weights, unstored)):
        shifted = np.clip(values, state.lower[j], state.upper[j]) - state.offset[j]
        for part in (shifted, -shifted) if state.split else (shifted,):
            quantiles.append(max(*_quantiles(part, [QUANTILE], v), 0.0))
    return np.array(quantiles)


SCALES = {
    "std": _std,
    "max": lambda X, state, weights, unstored: state.factor,
    "mean": _mean,
    "robust": _robust,
}

# What NonNegativeScaler and NMFFeatures accept.
PARAMETERS = {
    "shift": [StrOptions({"min", "mode", "split"}), None],
    "scale": [StrOptions(SCALES.keys()), None],
    "clip": [Interval(Real, 0, 0.5, closed="neither"), None],
    "out_of_range": [StrOptions({"clip", "warn", "raise"})],
}


def __getattr__(name):
    """Find NonNegativeScaler for models that were saved while it was defined here."""
    if name == "NonNegativeScaler":
        return getattr(import_module(".scaler", __package__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
