"""NonNegativeScaler: shift and scale as a scikit-learn transformer, for frames and arrays."""

from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils import check_array
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from . import frames
from ._warn import numpy_defaults
from .core.checks import check_weights
from .scaling import PARAMETERS, Scaling
from .state import restored, saved

DTYPES = [np.float64, np.float32]  # arrays of other dtypes become the first


class NonNegativeScaler(TransformerMixin, BaseEstimator):
    """Shift and scale columns so that they are non-negative and comparable, as NMF needs them.

    Parameters
    ----------
    shift : {"min", "mode", "split"} or None, default "min"
        "min" subtracts each column's training minimum. "mode" does so too, but from a column with one value in more
        than 90 % of the rows, and others above it, it subtracts this value; what is below becomes 0 like it. "split"
        makes two columns of each, ``name+`` with what is above the training mean and ``name-`` with what is below.
        None leaves columns as they are; negative values are then an error.
    scale : {"std", "max", "mean", "robust"} or None, default "std"
        What the shifted columns are divided by: their standard deviation (ddof=0), largest value (with
        ``shift="min"`` this is min-max scaling), mean, or 99 % quantile, above which values are cut off
        (for heavy tails; if that quantile is 0 the largest value is used). None does not divide.
    clip : float or None, default None
        Share q of the training rows, between 0 and 0.5: before shift and scale every column is cut off at its
        quantiles q and 1 - q, or with ``shift=None``, where zeros stay zeros, at the upper one only. A column whose two
        quantiles are equal (a rare dummy, say) is left as it is: nearly all it says would be lost. None cuts nothing
        off.
    out_of_range : {"clip", "warn", "raise"}, default "clip"
        What happens to new values below the training minimum (below 0 with ``shift=None``; with
        ``shift="split"`` there is no bound): they are raised to it silently, or with a warning that counts them, or
        they are refused. With ``clip`` they are raised to the lower quantile, as are, always silently, values between
        this and the minimum.

    Attributes
    ----------
    scaling_ : dict
        Arrays ``offset``, ``minimum``, ``maximum``, ``constant``, ``lower``, ``upper`` (per column), ``factor`` (per
        resulting column), and the booleans ``split``, ``bounded``, ``capped``. ``minimum`` and ``maximum`` are those
        before ``clip``, ``lower`` and ``upper`` where it cuts off: infinite where it does not.
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
    Constant columns carry no information: they become 0, and ``inverse_transform`` restores their constant.

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

    feature_names_in_: np.ndarray  # scikit-learn sets it, and says so to no type checker

    _parameter_constraints: ClassVar[dict] = PARAMETERS

    def __init__(
        self,
        *,
        shift: str | None = "min",
        scale: str | None = "std",
        clip: float | None = None,
        out_of_range: str = "clip",
    ) -> None:
        self.shift = shift
        self.scale = scale
        self.clip = clip
        self.out_of_range = out_of_range

    @numpy_defaults
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Learn offset and factor of every column.

        Parameters
        ----------
        X : frame, array-like or sparse matrix of shape (n_samples, n_features)
            Training data, all numeric; booleans are 0 and 1. Sparse data stay sparse, with ``shift=None``.
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the rows, 0 or more; rows of weight 0 are left out, from the minima too.

        Returns
        -------
        self
        """
        self._fit(X, sample_weight)
        return self

    @numpy_defaults
    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit to X and return it scaled, as ``fit(X).transform(X)`` does."""
        return self._apply(self._fit(X, sample_weight))

    @numpy_defaults
    def transform(self, X: Any) -> Any:
        """Return X shifted and scaled.

        Parameters
        ----------
        X : frame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        frame or array of shape (n_samples, n_features), twice as wide with ``shift="split"``
            The same kind as X, with its index; float32 if all columns were.
        """
        check_is_fitted(self)
        self._validate_params()
        seen = self._labels if self._fitted_on_frame else None
        return self._apply(frames.check_table(self, X, reset=False, dtype=DTYPES, seen=seen))

    @numpy_defaults
    def inverse_transform(self, X: Any) -> Any:
        """Return scaled data in original units, exact to rounding for values within the training range and the bounds.

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
        Z = X = frames.as_table(X)
        if not frames.is_frame(X):
            Z = check_array(X, accept_sparse="csr", dtype=DTYPES, ensure_min_samples=0)
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

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the resulting columns, as an object array of str."""
        check_is_fitted(self)
        names = _check_feature_names_in(self, input_features)
        return np.asarray(Scaling(**self.scaling_).names_out(names), dtype=object)

    @_fit_context(prefer_skip_nested_validation=True)
    def _fit(self, X, sample_weight):
        X = frames.check_table(self, X, reset=True, dtype=DTYPES)
        self._labels, self._fitted_on_frame = frames.labels(X), frames.is_frame(X)
        matrix, _ = frames.to_matrix(X, range(len(self._labels)))
        weights = check_weights(sample_weight, matrix)
        if weights is not None:
            matrix, weights = matrix[weights > 0], weights[weights > 0]
        self.scaling_ = vars(Scaling.learn(matrix, self.shift, self.scale, self._labels, weights, clip=self.clip))
        return X

    def _apply(self, X):
        scaling, columns = Scaling(**self.scaling_), frames.labels(X)
        matrix, fresh = frames.to_matrix(X, range(len(columns)))
        Z = scaling.apply(matrix, self.out_of_range, columns, overwrite=fresh)
        if not frames.is_frame(X):
            return Z
        return frames.as_configured(self, frames.make(Z, scaling.names_out(columns), like=X))

    def __getstate__(self):
        return saved(super().__getstate__())

    def __setstate__(self, state):
        super().__setstate__(restored(state, {"clip": None}))  # a scaler from before there was clip has none

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.positive_only = tags.input_tags.sparse = self.shift is None
        return tags
