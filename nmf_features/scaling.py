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

from ._warn import warn_user
from .column_facts import Matrix, common_values
from .core.products import slices
from .core.units import without_last_bits

COMMON = 0.9  # shift="mode": a value that a larger share of the rows has is subtracted
QUANTILE = 0.99  # scale="robust": the share of a column's values that is not clipped


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
        return cls.learn_from(Matrix(X, weights, unstored), shift, scale, names, clip)

    @classmethod
    def learn_from(cls, columns, shift, scale, names, clip=None):
        """Learn the same from what answers for the columns, such as a :class:`Matrix`."""
        if columns.is_sparse and shift is not None:
            raise ValueError(f"shift={shift!r} would fill the zeros of sparse X: pass shift=None, or dense X.")
        minimum, maximum = (extreme.astype(np.float64) for extreme in columns.extremes())
        if shift is None and (minimum < 0).any():
            bad = {names[j]: int(count) for j, count in enumerate(columns.negatives()) if count}
            raise ValueError(
                f"Negative values in data X (column: how many) {bad}, and shift=None. "
                'Pass shift="min" to subtract each column\'s minimum, or shift="split" to part '
                "each column into what is above and below its mean."
            )
        lower, upper = _bounds(columns, clip, shift, len(names))
        if clip is not None:
            columns = columns.cut_off(upper)
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
            share = columns.means(lambda x: (np.clip(x, lower, upper) - least) / unit)
            offset = least + unit * without_last_bits(share)
        else:
            offset = least if shift in ("min", "mode") else np.zeros_like(least)
            if shift == "mode":
                values, shares = common_values(columns)
                # If it is the maximum, nothing would be left above it: the minimum stays.
                offset = np.where((shares > COMMON) & (values < most), values, least)
        offset = np.where(constant, minimum, offset)
        top = np.stack([most - offset, offset - least], axis=1).ravel() if split else most - offset
        doubled = np.repeat(constant, 2) if split else constant
        top = np.where(doubled, 1.0, top)  # largest shifted value of each resulting column
        state = cls(offset, minimum, maximum, constant, top, split, shift != "split", False, lower, upper)
        with np.errstate(invalid="ignore"):  # from columns without observed cells
            factor = np.ones(state.size) if scale is None else SCALES[scale](columns, state)
        state.factor = np.where(doubled, 1.0, np.where(factor > 0, factor, top))
        state.capped = scale == "robust"
        return state

    @property
    def size(self):
        """Number of columns of the result."""
        return len(self.factor)

    @property
    def top(self):
        """The largest value that a training row is scaled to."""
        most, least = np.minimum(self.maximum, self.upper), np.maximum(self.minimum, self.lower)
        above = most - self.offset
        tops = np.stack([above, self.offset - least], axis=1).ravel() if self.split else above
        top = float(np.nanmax(np.where(self.constant.repeat(len(tops) // len(above)), 0.0, tops / self.factor)))
        return min(top, 1.0) if self.capped else top

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
        if self.bounded and out_of_range != "clip":
            self.report_below(self.below(X), out_of_range, names)
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

    def below(self, X):
        """Return how many cells of each column are below the bound: the training minimum, 0 with ``shift=None``."""
        bound = np.minimum(self.offset, self.minimum)  # the offset may be the lower quantile
        if sparse.issparse(X):
            return np.bincount(X.indices[X.data < bound[X.indices]], minlength=X.shape[1])
        return sum(((X[rows] < bound).sum(axis=0) for rows in slices(X)), np.zeros(X.shape[1], dtype=int))

    def report_below(self, below, out_of_range, names):
        """Warn of cells below the bound, or raise."""
        if not below.any():
            return
        found = {names[j]: int(below[j]) for j in np.flatnonzero(below)}
        ranges = {names[j]: f"{self.minimum[j]:.6g} to {self.maximum[j]:.6g}" for j in np.flatnonzero(below)}
        message = (
            f"X has values below what was seen in training (column: how many cells): {found}. Training ranges: "
            f"{ranges}."
        )
        if out_of_range == "raise":
            raise ValueError(f'{message} Pass out_of_range="clip" to raise them to the lower bound of their column.')
        warn_user(f"{message} They are raised to the lower bound of their column.")

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
        for rows in slices(X):
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
        for rows in slices(Z):
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


# Factors are computed from values divided by the largest (``state.unit``, in [0, 1]), so no square over- or underflows.


def _mean(columns, state):
    return state.factor * without_last_bits(_unit_mean(columns, state))


def _unit_mean(columns, state):
    if columns.is_sparse:
        return columns.stored_means(lambda x, j: x / state.factor[j])
    return columns.means(state.unit)


def _std(columns, state):
    mean = _unit_mean(columns, state)
    if columns.is_sparse:
        # the share of observed cells that are zero
        others = 1 - columns.stored_means(lambda x, j: np.where(np.isnan(x), np.nan, 1.0))
        variance = columns.stored_means(lambda x, j: np.square(x / state.factor[j] - mean[j]))
        variance += np.maximum(others, 0) * mean**2
    else:
        variance = columns.means(lambda x: np.square(state.unit(x) - mean))
    return state.factor * without_last_bits(np.sqrt(variance))


def _bounds(columns, clip, shift, p):
    """Return the quantiles at which columns are cut off: infinite where they are not.

    A column with equal quantiles would lose all that it says. With ``shift=None`` zero has a meaning, and stays zero.
    """
    lower, upper = np.full(p, -np.inf), np.full(p, np.inf)
    if clip is None:
        return lower, upper
    low, high = columns.quantiles([float(clip), 1 - float(clip)])
    apart = low < high
    return np.where(apart & (shift is not None), low, lower), np.where(apart, high, upper)


def _robust(columns, state):
    def shifted(quantiles):
        return np.clip(quantiles, state.lower, state.upper) - state.offset

    [high] = columns.quantiles([QUANTILE])
    tops = [shifted(high)]
    if state.split:
        [low] = columns.quantiles([QUANTILE], sign=-1)
        tops.append(-shifted(-low))
    return np.maximum(np.stack(tops, axis=1).ravel(), 0)


SCALES = {
    "std": _std,
    "max": lambda columns, state: state.factor,
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
