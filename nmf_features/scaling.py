"""Shift and scale, so that data is non-negative and columns are comparable.

    z = max(x - offset, 0) / factor          shift = "min" or None
    z+ = max(x - offset, 0) / factor+,  z- = max(offset - x, 0) / factor-         shift = "split"

Constant columns carry nothing: they become 0 and come back as their constant.
"""

from typing import ClassVar

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils import check_array
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.sparsefuncs import min_max_axis
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from . import frames
from ._warn import numpy_defaults, warn_user
from .core.checks import check_weights
from .core.products import product

KEPT_BITS = 36  # of means and deviations: eleven digits
QUANTILE = 0.99  # scale="robust": the share of a column's values that is not clipped
CHUNK_CELLS = 1 << 17  # a slice and its copies stay in the cache


class Scaling:
    """What was learned of the columns: plain arrays, in the order of the columns.

    ``offset``, ``minimum``, ``maximum``, ``constant``: one entry per column; ``factor``: one per column of the
    result, which has two (+ and -) for each column if ``split``. ``capped``: results are cut at 1 (robust).
    """

    def __init__(self, offset, minimum, maximum, constant, factor, split, bounded, capped):
        self.offset, self.minimum, self.maximum, self.constant = offset, minimum, maximum, constant
        self.factor, self.split, self.bounded, self.capped = factor, split, bounded, capped

    @classmethod
    def learn(cls, X, shift, scale, names, weights=None, unstored=False):
        """Learn offset and factor of every column of a matrix with at least one row; weights are positive.

        Missing cells are left out: NaN, and with ``unstored`` what sparse X does not store. A column in which nothing
        is observed counts as constant.
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
            offset = minimum if shift == "min" else np.zeros_like(minimum)
        offset = np.where(constant, minimum, offset)
        top = np.stack([maximum - offset, offset - minimum], axis=1).ravel() if split else maximum - offset
        doubled = np.repeat(constant, 2) if split else constant
        top = np.where(doubled, 1.0, top)  # largest shifted value of each resulting column
        state = cls(offset, minimum, maximum, constant, top, split, shift != "split", False)
        with np.errstate(invalid="ignore"):  # of columns that are missing altogether
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
        """Return the scaled matrix; in place of X where ``overwrite`` allows and the width stays."""
        bound = np.where(self.constant, self.minimum, self.offset)
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
            if self.constant.any():  # they carry nothing, so nothing of them is stored
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
        """Return the matrix in original units; a sparse one is filled only if a column was constant."""
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
    """A table of which slices of rows are read and scaled when they are asked for: no copy of it all is made."""

    def __init__(self, rows, scaling, names):
        self.rows, self.scaling, self.names = rows, scaling, names
        self.shape, self.dtype = (rows.shape[0], scaling.size), rows.dtype

    def __getitem__(self, rows):
        return self.scaling.apply(self.rows[rows], "clip", self.names)


def _slices(X):
    step = max(1, CHUNK_CELLS // max(X.shape[1], 1))
    return [slice(start, start + step) for start in range(0, X.shape[0], step)]


def means(X, function, weights):
    """Means by column of a function of the rows, over observed cells, in float64."""
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
    """Least and largest observed value of every column."""
    if not unstored:
        return min_max_axis(X, axis=0, ignore_nan=True)
    by_column, observed = X.tocsc(), np.zeros((2, X.shape[1]))
    for j, (start, stop) in enumerate(zip(by_column.indptr, by_column.indptr[1:], strict=False)):
        stored = by_column.data[start:stop]
        observed[:, j] = (np.fmin.reduce(stored), np.fmax.reduce(stored)) if len(stored) else np.nan
    return observed


def sparse_means(X, cells, weights, unstored):
    """Means by column, over observed cells, of what is zero where nothing is stored; NaN is not observed."""
    p, holes = X.shape[1], np.isnan(cells)
    v = np.ones(len(cells)) if weights is None else np.repeat(weights, np.diff(X.indptr))
    observed = np.bincount(X.indices[~holes], v[~holes], minlength=p)
    if not unstored:
        missing = np.bincount(X.indices[holes], v[holes], minlength=p)
        observed = (X.shape[0] if weights is None else weights.sum()) - missing
    total = np.bincount(X.indices[~holes], (v * cells)[~holes], minlength=p)
    return total / np.where(observed > 0, observed, 1)


# Factors are found on values divided by the largest (``state.unit``, in [0, 1]): no square overflows or vanishes.


def _without_last_bits(values):
    """Round means of rows: their last bits depend on the order of the rows, and later fits on these bits."""
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


def _quantile(values, weights):
    """Return the least value that has the share QUANTILE of the weight at or below it ("inverted_cdf")."""
    observed = ~np.isnan(values)
    if not observed.all():
        values, weights = values[observed], None if weights is None else weights[observed]
    if not len(values):
        return 0.0
    if weights is None:
        at = int(np.ceil(QUANTILE * len(values))) - 1
        return np.partition(values, at)[at]
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return values[order[np.searchsorted(reached, QUANTILE * reached[-1])]]


def _robust(X, state, weights, unstored):
    quantiles = []
    if sparse.issparse(X):  # the stored cells of a column, and one zero that weighs as much as all others
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

# What NonNegativeScaler and NMFFeatures accept, said once.
PARAMETERS = {
    "shift": [StrOptions({"min", "split"}), None],
    "scale": [StrOptions(SCALES.keys()), None],
    "out_of_range": [StrOptions({"clip", "warn", "raise"})],
}


class NonNegativeScaler(TransformerMixin, BaseEstimator):
    """Shift and scale columns so that they are non-negative and comparable, as NMF needs them.

    Parameters
    ----------
    shift : {"min", "split"} or None, default "min"
        "min" subtracts each column's training minimum. "split" makes two columns of each, ``name+`` with what
        is above the training mean and ``name-`` with what is below. None leaves columns as they are; negative
        values are then an error.
    scale : {"std", "max", "mean", "robust"} or None, default "std"
        What the shifted columns are divided by: their standard deviation (ddof=0), largest value (with
        ``shift="min"`` this is min-max scaling), mean, or 99 % quantile, where values above it are cut off
        (for heavy tails; where that quantile is 0 the largest value serves). None divides by nothing.
    out_of_range : {"clip", "warn", "raise"}, default "clip"
        What happens to new values below the training minimum (below 0 with ``shift=None``; with
        ``shift="split"`` there is no bound): raise them to it silently, with a warning that counts them, or
        refuse them.

    Attributes
    ----------
    scaling_ : dict
        Arrays ``offset``, ``minimum``, ``maximum``, ``constant`` (per column), ``factor`` (per resulting
        column), and the booleans ``split``, ``bounded``, ``capped``.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Their names, where all are strings.

    Raises
    ------
    ValueError
        In ``fit`` and ``transform``: for columns that are not numeric, NaN, infinite values, negative values
        with ``shift=None``, duplicated names, or (in ``transform``) other columns than in ``fit``.

    Notes
    -----
    Constant columns carry nothing: they become 0, and ``inverse_transform`` gives their constant.

    Examples
    --------
    >>> import pandas as pd
    >>> from nmf_features import NonNegativeScaler
    >>> X = pd.DataFrame({"delta": [-1.0, 0, 3], "share": [0.0, 0.5, 1]}, index=["a", "b", "c"])
    >>> NonNegativeScaler(scale="max").fit_transform(X)
       delta  share
    a   0.00    0.0
    b   0.25    0.5
    c   1.00    1.0
    """

    _parameter_constraints: ClassVar[dict] = PARAMETERS

    def __init__(self, *, shift="min", scale="std", out_of_range="clip"):
        self.shift = shift
        self.scale = scale
        self.out_of_range = out_of_range

    @numpy_defaults
    def fit(self, X, y=None, sample_weight=None):
        """Learn offset and factor of every column.

        Parameters
        ----------
        X : frame, array-like or sparse matrix of shape (n_samples, n_features)
            Training data, all numeric. Sparse data stay sparse, with ``shift=None``.
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the rows, 0 or more; rows of weight 0 are left out, of the minima too.

        Returns
        -------
        self
        """
        self._fit(X, sample_weight)
        return self

    @numpy_defaults
    def fit_transform(self, X, y=None, sample_weight=None):
        """Fit to X and return it scaled, as ``fit(X).transform(X)`` does."""
        return self._apply(self._fit(X, sample_weight))

    @numpy_defaults
    def transform(self, X):
        """Return X shifted and scaled.

        Parameters
        ----------
        X : frame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        frame or array of shape (n_samples, n_features), twice as wide with ``shift="split"``
            The kind that came in, with its index; float32 where all columns were.
        """
        check_is_fitted(self)
        self._validate_params()
        return self._apply(frames.check_table(self, X, reset=False, dtype=[np.float64, np.float32]))

    @numpy_defaults
    def inverse_transform(self, X):
        """Return scaled data in original units, exact to rounding for values within the training range.

        Parameters
        ----------
        X : frame or array-like
            What ``transform`` returned.

        Returns
        -------
        frame or array of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        scaling = Scaling(**self.scaling_)
        Z = X
        if not frames.is_frame(X):
            Z = check_array(X, accept_sparse="csr", dtype=[np.float64, np.float32], ensure_min_samples=0)
        labels, names = frames.labels(Z), scaling.names_out(self._labels)
        if len(labels) != len(names):
            raise ValueError(f"X has {len(labels)} columns; wanted the {len(names)} that transform returns.")
        if frames.is_frame(X) and set(labels) not in (set(names), set(self.get_feature_names_out())):
            raise ValueError(f"X has the columns {labels}; wanted those that transform returns: {names}.")
        if frames.is_frame(X):  # matched by name
            order = names if set(labels) == set(names) else self.get_feature_names_out().tolist()
            positions = [labels.index(name) for name in order]
        else:
            positions = labels
        matrix = scaling.invert(frames.to_matrix(Z, positions)[0])
        return frames.make(matrix, self._labels, like=X) if frames.is_frame(X) else matrix

    def get_feature_names_out(self, input_features=None):
        """Return the names of the resulting columns, an object array of str."""
        check_is_fitted(self)
        names = _check_feature_names_in(self, input_features)
        return np.asarray(Scaling(**self.scaling_).names_out(names), dtype=object)

    @_fit_context(prefer_skip_nested_validation=True)
    def _fit(self, X, sample_weight):
        X = frames.check_table(self, X, reset=True, dtype=[np.float64, np.float32])
        self._labels, self._fitted_on_frame = frames.labels(X), frames.is_frame(X)
        matrix, _ = frames.to_matrix(X, range(len(self._labels)))
        weights = check_weights(sample_weight, matrix)
        if weights is not None:
            matrix, weights = matrix[weights > 0], weights[weights > 0]
        self.scaling_ = vars(Scaling.learn(matrix, self.shift, self.scale, self._labels, weights))
        return X

    def _apply(self, X):
        scaling, columns = Scaling(**self.scaling_), frames.labels(X)
        matrix, fresh = frames.to_matrix(X, range(len(columns)))
        Z = scaling.apply(matrix, self.out_of_range, columns, overwrite=fresh)
        if not frames.is_frame(X):
            return Z
        return frames.as_configured(self, frames.make(Z, scaling.names_out(columns), like=X))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.positive_only = tags.input_tags.sparse = self.shift is None
        return tags
