"""Shift and scale, so that data is non-negative and columns are comparable.

    z = max(x - offset, 0) / factor          shift = "min", "mode" or None
    z+ = max(x - offset, 0) / factor+,  z- = max(offset - x, 0) / factor-         shift = "split"

Constant columns carry no information: they become 0, and are restored to their constant.
"""

from importlib import import_module

import numpy as np
from scipy import sparse
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.sparsefuncs import min_max_axis

from ._warn import warn_user
from .core.products import product

KEPT_BITS = 36  # of means and deviations: eleven digits
COMMON = 0.9  # shift="mode": a value that a larger share of the rows has is subtracted
QUANTILE = 0.99  # scale="robust": the share of a column's values that is not clipped
CHUNK_CELLS = 1 << 17  # a slice and its copies stay in the cache


class Scaling:
    """What was learned about the columns: plain arrays, in the order of the columns.

    ``offset``, ``minimum``, ``maximum``, ``constant``: one entry per column; ``factor``: one per column of the
    result, which has two (+ and -) for each column if ``split``. ``capped``: results are cut at 1 (robust).
    """

    def __init__(self, offset, minimum, maximum, constant, factor, split, bounded, capped):
        self.offset, self.minimum, self.maximum, self.constant = offset, minimum, maximum, constant
        self.factor, self.split, self.bounded, self.capped = factor, split, bounded, capped

    @classmethod
    def learn(cls, X, shift, scale, names, weights=None, unstored=False):
        """Learn offset and factor of every column of a matrix with at least one row; weights are positive.

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
        with np.errstate(over="ignore"):
            spread = maximum - minimum
        if np.isinf(spread).any():
            wide = [names[j] for j in np.flatnonzero(np.isinf(spread))]
            raise ValueError(f"X has columns whose range overflows a float64: {wide}. Divide them by a constant first.")
        constant = (minimum == maximum) | np.isnan(minimum)
        unit = np.where(constant, 1.0, spread)
        split = shift == "split"
        if split:
            offset = minimum + unit * _without_last_bits(means(X, lambda x: (x - minimum) / unit, weights))
        else:
            offset = minimum if shift in ("min", "mode") else np.zeros_like(minimum)
            if shift == "mode":
                offset = _common_values(X, minimum, maximum, weights)
        offset = np.where(constant, minimum, offset)
        top = np.stack([maximum - offset, offset - minimum], axis=1).ravel() if split else maximum - offset
        doubled = np.repeat(constant, 2) if split else constant
        top = np.where(doubled, 1.0, top)  # largest shifted value of each resulting column
        state = cls(offset, minimum, maximum, constant, top, split, shift != "split", False)
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
        """Shift and divide a slice of rows, in float64; nothing is cut off."""
        if self.offset.any():
            x = out = np.subtract(x, self.offset, out=out)
        if self.split:
            x = out = np.stack([x, -x], axis=2).reshape(len(x), -1)
        z = np.maximum(x, 0, out=out)
        if (self.factor != 1).any():
            z /= self.factor
        return z

    def apply(self, X, out_of_range, names, overwrite=False):
        """Return the scaled matrix, in the memory of X if ``overwrite`` allows it and the width is the same."""
        bound = np.minimum(self.offset, self.minimum)
        if self.bounded and out_of_range != "clip":
            below = np.zeros(X.shape[1], dtype=int)
            if sparse.issparse(X):
                below += np.bincount(X.indices[X.data < bound[X.indices]], minlength=len(below))
            else:
                for rows in _slices(X):
                    below += (X[rows] < bound).sum(axis=0)
            if below.any():
                found = {names[j]: int(below[j]) for j in np.flatnonzero(below)}
                message = f"X has values below what was seen in training (column: how many cells): {found}."
                if out_of_range == "raise":
                    raise ValueError(f'{message} Pass out_of_range="clip" to raise them to the training minimum.')
                warn_user(f"{message} They are raised to the training minimum.")
        with np.errstate(over="ignore"):
            Z = self._scaled(X, overwrite)
        cells = Z.data if sparse.issparse(Z) else Z
        top = cells.max(initial=0.0)
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
            Z.data = (np.maximum(X.data, 0) / self.factor[X.indices]).astype(X.dtype, copy=False)
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
        """Return the matrix in original units; a sparse one becomes dense only if a column was constant."""
        if sparse.issparse(Z) and not self.offset.any():
            return sparse.csr_array(Z.multiply(self.factor)).astype(Z.dtype)
        Z = Z.toarray() if sparse.issparse(Z) else Z
        X = np.empty((len(Z), len(self.offset)), dtype=Z.dtype)
        for rows in _slices(Z):
            z = Z[rows] * self.factor
            X[rows] = (z[:, 0::2] - z[:, 1::2] if self.split else z) + self.offset
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


def _without_last_bits(values):
    """Round means over rows: their last bits depend on the order of the rows, and fits depend on these bits."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(np.ldexp(mantissa, KEPT_BITS)), exponent - KEPT_BITS)


def _mean(X, state, weights, unstored):
    return state.factor * _without_last_bits(_unit_mean(X, state, weights, unstored))


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
    return state.factor * _without_last_bits(np.sqrt(variance))


def _common_values(X, minimum, maximum, weights):
    """Return the value that more than the share COMMON of each column has; where there is none, the minimum.

    What most rows have is the median. If it is the maximum, nothing would be left above it: the minimum stays.
    """
    offset = minimum.copy()
    for j in np.flatnonzero(minimum < maximum):
        values = X[:, j].astype(np.float64)
        value, v = _quantile(values, weights, 0.5), np.ones(len(values)) if weights is None else weights
        if value < maximum[j] and v[values == value].sum() > COMMON * v[~np.isnan(values)].sum():
            offset[j] = value
    return offset


def _quantile(values, weights, share=QUANTILE):
    """Return the smallest value that has a share of the weight at or below it ("inverted_cdf")."""
    observed = ~np.isnan(values)
    if not observed.all():
        values, weights = values[observed], None if weights is None else weights[observed]
    if not len(values):
        return 0.0
    if weights is None:
        at = int(np.ceil(share * len(values))) - 1
        return np.partition(values, at)[at]
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return values[order[np.searchsorted(reached, share * reached[-1])]]


def _robust(X, state, weights, unstored):
    quantiles = []
    if sparse.issparse(X):  # the stored cells of a column, and one zero with the weight of all others
        X, v = X.tocsc(), np.ones(X.shape[0]) if weights is None else weights
        for start, stop in zip(X.indptr, X.indptr[1:], strict=False):
            stored = v[X.indices[start:stop]]
            values = np.append(X.data[start:stop], 0.0)
            counts = np.append(stored, 0.0 if unstored else v.sum() - stored.sum())
            quantiles.append(max(_quantile(values, counts), 0.0))
        return np.array(quantiles)
    for j in range(X.shape[1]):
        shifted = X[:, j].astype(np.float64) - state.offset[j]
        quantiles.append(max(_quantile(shifted, weights), 0.0))
        if state.split:
            quantiles.append(max(_quantile(-shifted, weights), 0.0))
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
    "out_of_range": [StrOptions({"clip", "warn", "raise"})],
}


def __getattr__(name):
    """Find NonNegativeScaler for models that were saved while it was defined here."""
    if name == "NonNegativeScaler":
        return getattr(import_module(".scaler", __package__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
