"""Targets: from y, in whatever form it comes, to the numbers that a fit with a target needs, and back to its units.

A target is a number, or a class. Each class becomes a column of 0 and 1, a number a column of itself, from 0 to 1.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from sklearn.utils import check_consistent_length
from sklearn.utils._param_validation import Interval, Real, StrOptions

from . import frames
from .core.target_models import Classes, Numbers

MOST_CLASSES = 10  # "auto": whole numbers are classes if there are no more different ones

PARAMETERS = {
    "target_weight": [Interval(Real, 0, None, closed="left")],
    "target_type": [StrOptions({"auto", "continuous", "binary", "multiclass"})],
}


@dataclass(frozen=True)
class Target:
    """One target: its name, the ``kind`` of model, and ``Y`` (rows x outputs), NaN where it is not known.

    ``classes`` are None for a number, which is ``unit`` times its column of Y, and a constant.
    """

    name: object
    kind: type
    Y: np.ndarray
    classes: list | None
    unit: float

    @property
    def names(self):
        """Names of what has loadings: the number, the second of two classes, or every class."""
        if self.classes is None:
            return [str(self.name)]
        shown = self.classes[1:] if len(self.classes) == 2 else self.classes
        whole = [int(value) if isinstance(value, float) and value.is_integer() else value for value in shown]
        return [f"{self.name}={value}" for value in whole]

    @property
    def says_something(self):
        """Whether it is known, and not the same, in these rows."""
        known = self.Y[~np.isnan(self.Y[:, 0])]
        return len(known) > 0 and bool((known != known[0]).any())

    def loadings(self, coefficients):
        """Return coefficients (k x outputs) in the units of the target; of two classes, those of the second's odds."""
        if self.classes is not None and len(self.classes) == 2:
            return coefficients[:, 1:] - coefficients[:, :1]
        return coefficients * self.unit


class Targets:
    """All targets of a fit, for the same rows."""

    def __init__(self, targets):
        self.targets = targets

    @classmethod
    def of(cls, model, y, X, rows=None):
        """Return the targets of a model's fit to the ``rows`` of a table, None if its ``target_weight`` is zero."""
        if not model.target_weight:
            return None
        name = type(model).__name__
        if y is None:
            raise ValueError(
                f"{name} with target_weight={model.target_weight} requires y to be passed, but the target y is None: "
                "pass fit(X, y), or target_weight=0."
            )
        if model.projection == "linear":
            raise ValueError(
                'projection="linear" has scores that a fit with a target does not look at: pass projection="nnls" '
                f"with target_weight={model.target_weight}."
            )
        columns = frames.target_columns(y)
        check_consistent_length(X, columns[0][1])
        rows = slice(None) if rows is None else rows
        return cls([_target(label, values[rows], model.target_type) for label, values in columns]).checked()

    def checked(self):
        """Refuse targets that say nothing in these rows."""
        for target in self.targets:
            if not target.says_something:
                known = (~np.isnan(target.Y[:, 0])).any()
                raise ValueError(
                    f"y has the target {target.name!r}, which is "
                    + ("the same in all rows" if known else "not known in any row")
                    + " that count: it can guide nothing. Leave it out, or pass target_weight=0."
                )
        return self

    def chosen(self, rows):
        """Return the targets of some of the rows."""
        return Targets([replace(target, Y=target.Y[rows]) for target in self.targets])

    def without(self, rows):
        """Return the targets as if they were not known in some of the rows."""
        hidden = [target.Y.copy() for target in self.targets]
        for Y in hidden:
            Y[np.asarray(rows, dtype=int)] = np.nan
        return Targets([replace(target, Y=Y) for target, Y in zip(self.targets, hidden, strict=True)])

    @property
    def pairs(self):
        """The kind of model and the numbers of every target; in a sample some may say nothing, and are left out."""
        return [(target.kind, target.Y) for target in self.targets if target.says_something]

    @property
    def names(self):
        """Names of the columns of the loadings."""
        return [name for target in self.targets for name in target.names]

    def read(self, W, weights=None):
        """Return what scores W say of the targets: loadings (k x names) in their units, and the share explained."""
        reads = [kind(Y, weights).read(W.T) for kind, Y in self.pairs]
        loadings = [target.loadings(read.coefficients) for target, read in zip(self.targets, reads, strict=True)]
        return np.column_stack(loadings), 1 - sum(read.share for read in reads) / len(reads)

    def unexplained(self, W, whole, weights=None):
        """Return the mean share of ``whole`` targets that scores W leave unexplained in rows that are hidden here."""
        v = np.ones(len(W)) if weights is None else weights
        shares, scored = [], ~np.isnan(W).any(axis=1)
        v = v[scored]
        for target, known in zip(self.chosen(scored).targets, whole.chosen(scored).targets, strict=True):
            rows = np.isnan(target.Y[:, 0]) & ~np.isnan(known.Y[:, 0])
            if target.says_something and rows.any():
                model = target.kind(target.Y, v)
                shares.append(model.share(model.read(W[scored].T), W[scored][rows].T, known.Y[rows], v[rows]))
        shares = [share for share in shares if np.isfinite(share)]
        return float(np.mean(shares)) if shares else np.nan


def _target(name, values, target_type):
    """Return a Target for one column of y."""
    known, order = ~pd.isna(values), None
    if isinstance(values, pd.Categorical):
        order, values = [value for value in values.categories if (values == value).any()], np.asarray(values, object)
    holds = pd.api.types.infer_dtype(values, skipna=True)
    if holds == "complex":
        raise ValueError(f"Complex data not supported: y has the target {name!r}, which holds complex numbers.")
    if holds.startswith(("date", "time", "period", "mixed")) and holds != "mixed-integer-float":
        raise ValueError(f"y has the target {name!r}, which holds {holds} values; wanted numbers, or classes.")
    numeric = values.dtype.kind in "iuf"
    if numeric and np.isinf(values[known]).any():
        raise ValueError(f"y has infinite values in the target {name!r}: replace them first, or make them missing.")
    if target_type == "continuous" and not numeric:
        raise ValueError(f'y has the target {name!r} of dtype {values.dtype}; target_type="continuous" wants numbers.')
    if target_type == "continuous" or (target_type == "auto" and numeric and not _are_classes(values[known])):
        return _number(name, values.astype(np.float64), known)
    classes = order if order is not None else sorted(set(values[known].tolist()))
    if target_type == "binary" and len(classes) != 2:
        raise ValueError(
            f'y has {len(classes)} classes in the target {name!r}; target_type="binary" wants two. Pass '
            '"multiclass", or "continuous" for numbers.'
        )
    Y, at = np.full((len(values), max(len(classes), 1)), np.nan), {value: i for i, value in enumerate(classes)}
    Y[known] = np.eye(Y.shape[1])[[at[value] for value in values[known].tolist()]]
    return Target(name, Classes, Y, classes, 1.0)


def _number(name, values, known):
    top = np.abs(values[known]).max(initial=0.0) or 1.0
    units = values / top  # so that differences do not overflow
    least, most = units[known].min(initial=np.inf), units[known].max(initial=-np.inf)
    width = most - least if most > least else 1.0
    return Target(name, Numbers, ((units - least) / width)[:, None], None, float(width * top))


def _are_classes(values):
    """Whether numbers are taken as classes: a few different whole numbers, however many rows there are."""
    different = np.unique(values)
    return len(different) <= MOST_CLASSES and bool((different == np.floor(different)).all())
