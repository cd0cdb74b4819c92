"""Columns: which columns of a table are factorised, their names, and the way to the matrix X and back.

    table -> checked -> read (chosen columns) -> scaled (shifted and scaled, X >= 0)          what is factorised
    scores -> result (the other columns, then the components)                                 what transform returns
    fitted X -> restored (in place of the components), filled (in place of missing cells)     back in original units

Parameters are those of the model (an NMFFeatures); only public attributes of it are read.
"""

from collections.abc import Hashable
from copy import copy
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn.utils.validation import _check_feature_names_in

from . import frames
from ._warn import warn_user
from .core.blocks import rows_of_stored
from .core.checks import check_weights, without_duplicates
from .core.losses import check_domain, checks_cells, loss_of
from .core.missing import Missing
from .factorize import check_solver
from .naming import labelled
from .nearest import offer, some
from .scaling import ScaledRows, Scaling


class Learned(NamedTuple):
    """What :meth:`Columns.learn` returns: the columns, the table, and its rows as they enter the fit.

    ``X`` holds the scaled columns of the rows of positive weight (None for no components), ``weights`` the weights of
    these rows (None where there are none); ``rows`` marks them among the rows of the table (None: they are all).
    """

    columns: "Columns"
    table: object
    X: np.ndarray | None
    weights: np.ndarray | None
    rows: np.ndarray | None


class Columns:
    """The columns of a table that a model factorises.

    ``labels`` belong to all columns in ``fit``: names if ``from_frame``, else positions. ``positions`` are those of the
    chosen columns. ``scaling`` is what was learned about these columns, None if there are no components. ``loadings``
    are those of a fitted model, which its components may be named after.
    """

    def __init__(self, model, labels, from_frame, positions, n_components, scaling=None, loadings=None):
        self.model, self.labels, self.from_frame, self.loadings = model, labels, from_frame, loadings
        self.positions, self.n_components, self.scaling = positions, n_components, scaling

    @classmethod
    def learn(cls, model, X, sample_weight=None):
        """Choose the columns of X and learn their shift and scale, with the parameters of a model; return a Learned."""
        columns, table = cls.chosen(model, X)
        if columns.n_components == 0:
            return Learned(columns, table, None, None, None)
        matrix, fresh = columns.read(table)
        weights = check_weights(sample_weight, matrix)
        rows = None if weights is None or weights.all() else weights > 0
        if rows is not None:
            matrix, weights, fresh = matrix[rows], weights[rows], True
        return Learned(columns, table, columns.learn_scaling(matrix, weights, fresh), weights, rows)

    @classmethod
    def chosen(cls, model, X):
        """Return the columns that a model factorises, not yet scaled, and X as a table."""
        if model.missing_values != "raise" and model.projection == "linear":
            raise ValueError(
                'projection="linear" needs every cell of a row, so missing_values='
                f'"{model.missing_values}" is of no use with it. Pass projection="nnls", or impute first.'
            )
        table = frames.check_table(model, X, reset=True, dtype=_dtype(model))
        labels = frames.labels(table)
        positions = np.asarray(_choose(model, table, labels), dtype=int)
        k, most = int(model.n_components), len(positions)
        columns = cls(model, labels, frames.is_frame(table), positions, min(k, most))
        columns._refuse_clash()
        check_solver(model.solver, model.learning_rate, columns.loss, None)
        if k > most:
            warn_user(f"n_components={k} is more than the {most} columns that are factorised: capped.")
        return columns, table

    def learn_scaling(self, matrix, weights=None, overwrite=False):
        """Learn shift and scale from the rows that count, and return these scaled."""
        unstored, model = self.model.missing_values == "unstored", self.model
        self.scaling = Scaling.learn(matrix, model.shift, model.scale, self.variables, weights, unstored, model.clip)
        self.report_constant(matrix.shape[0])
        return self.scale(matrix, "clip", overwrite)

    def apart(self):
        """Return the same columns of a new model, to be sent elsewhere: without what belongs to a running fit."""
        other = copy(self)
        other.model = type(self.model)(**self.model.get_params(deep=False))
        return other

    @property
    def loss(self):
        """The loss, as an object."""
        return loss_of(self.model.loss, self.model.beta_loss)

    @property
    def init(self):
        """The start, as the model has it; if it is a frame, an array with its columns in the order of the terms."""
        start = self.model.init
        return (
            start
            if isinstance(start, str) or not frames.is_frame(start)
            else frames.in_order(start, self.terms, "init")
        )

    # Names

    @property
    def variables(self):
        """Labels of the chosen columns."""
        return [self.labels[j] for j in self.positions]

    @property
    def terms(self):
        """Names of the columns of the scaled matrix: two for each chosen column with ``shift="split"``."""
        return self.scaling.names_out(self.variables)

    @property
    def component_names(self):
        """Names of the components, in results and everywhere else."""
        if self.model.feature_names_out == "labels" and self.loadings is not None:
            return self.component_labels()
        return component_names(self.n_components, self.model.prefix)

    def component_labels(self, m=3):
        """Return names of the components after up to m dominant columns."""
        if self.n_components == 0:
            return []
        numbered = component_names(self.n_components, self.model.prefix)
        return labelled(self.loadings, self.terms, numbered, {*map(str, self.labels)}, m)

    @property
    def kept(self):
        """Positions of the columns that come before the components in the result."""
        if not self.model.drop_original or self.n_components == 0:
            return np.arange(len(self.labels))
        kept = np.ones(len(self.labels), dtype=bool)
        kept[self.positions] = False
        return np.flatnonzero(kept)

    # From a table to the scaled matrix

    @property
    def counted(self):
        """Which columns of the scaled matrix are not set aside as constant."""
        return np.repeat(~self.scaling.constant, self.width)

    @property
    def width(self):
        """How many columns of the scaled matrix a chosen column becomes."""
        return 2 if self.scaling.split else 1

    @property
    def n_counted(self):
        """How many columns of the scaled matrix are not set aside as constant."""
        return int(self.counted.sum())

    def checked(self, X):
        """Return X as a table, with the columns that were seen in ``fit``."""
        seen = self.labels if self.from_frame else None
        return frames.check_table(self.model, X, reset=False, dtype=_dtype(self.model), seen=seen)

    def read(self, table):
        """Return the chosen columns as a matrix, and whether it is a copy that may be changed."""
        return frames.to_matrix(table, self.positions.tolist(), self.model.missing_values)

    def scale(self, matrix, out_of_range=None, overwrite=False):
        """Shift and scale what was read; refuse what the loss cannot take."""
        Z = self.scaling.apply(matrix, out_of_range or self.model.out_of_range, self.variables, overwrite=overwrite)
        constant = [name for name, c in zip(self.variables, self.scaling.constant, strict=True) if c]
        if constant and not self.loss.takes_zeros:
            raise ValueError(
                f"loss={self.loss.name!r} is infinite at zero, and constant columns become zero: leave "
                f"{constant} out of variables."
            )
        check_domain(Z, self.loss, self.missing(Z))
        return Z

    def scaled(self, table):
        """Return the chosen columns of a checked table, shifted and scaled."""
        matrix, fresh = self.read(table)
        return self.scale(matrix, overwrite=fresh)

    def scaled_by_rows(self, table):
        """As :meth:`scaled`, but rows are read and scaled on demand, unless a check needs all of them."""
        needs_all, positions = checks_cells(self.loss) or self.model.out_of_range != "clip", self.positions.tolist()
        if needs_all or not frames.readable_by_rows(table, positions):
            return self.scaled(table)
        return ScaledRows(frames.Rows(table, positions, self.model.missing_values), self.scaling, self.variables)

    def missing(self, Z):
        """Return which cells of scaled rows can be missing; None where none can."""
        if self.model.missing_values == "raise":
            return None
        return Missing(self.n_counted, self.model.missing_values == "unstored" and sparse.issparse(Z))

    # Back to a table

    def result(self, table, W):
        """Return the kept columns of a table, then the components, as the same kind of table."""
        if not frames.is_frame(table):
            if self.n_components == 0:
                return table.copy()
            stack = sparse.hstack if sparse.issparse(table) else np.hstack
            return stack([table[:, self.kept], W]) if len(self.kept) else W
        if self.n_components == 0:
            return frames.as_configured(self.model, frames.copy(table))
        components, kept = frames.make(W, self.component_names, like=table), self.kept.tolist()
        both = frames.beside(frames.select(table, kept), components) if kept else components
        return frames.as_configured(self.model, both)

    def locate(self, X):
        """Return where X, a result of ``transform``, has the components, and the others by position in ``fit``.

        Names may be those of the frame in ``fit``, or those of ``get_feature_names_out``.
        """
        labels, k, n_features = frames.labels(X), self.n_components, len(self.labels)
        others = [j for j in range(n_features) if j not in set(self.positions)]
        if not frames.is_frame(X):
            width = len(self.kept) + k
            if len(labels) == k:
                return labels, {}
            if len(labels) != width:
                raise ValueError(
                    f"X has {len(labels)} columns; wanted {width} as transform returns them, or the {k} components "
                    "alone."
                )
            return labels[-k:], {j: int(np.searchsorted(self.kept, j)) for j in others}
        missing = [name for name in self.component_names if name not in labels]
        if missing:
            raise ValueError(f"X lacks the components {missing}; wanted a frame as transform returns it.")
        at = [labels.index(name) for name in self.component_names]
        if len(labels) == k:
            return at, {}
        strings = _check_feature_names_in(self.model, None)
        known = {j: [name for name in (self.labels[j], strings[j]) if name in labels] for j in range(n_features)}
        missing = [self.labels[j] for j in others if not known[j]]
        if missing:
            raise ValueError(f"X lacks the columns {missing}; wanted a frame as transform returns it.")
        rest = {j: labels.index(known[j][0]) for j in others}
        used = {*at, *(labels.index(names[0]) for names in known.values() if names)}
        extra = [a for a in range(len(labels)) if a not in used]
        return at, rest | {n_features + i: a for i, a in enumerate(extra)}

    def restored(self, X, rest, fitted):
        """Return X with the chosen columns, rebuilt from their fit, in place of the components.

        ``rest`` are the other columns, as :meth:`locate` found them.
        """
        chosen, is_frame, labels = self.scaling.invert(fitted), frames.is_frame(X), frames.labels(X)
        if not rest and len(labels) == self.n_components:
            return frames.make(chosen, self.variables, like=X) if is_frame else chosen
        # Back to the order of the columns in fit; columns unknown there come last.
        names = [self.labels[j] if j < len(self.labels) else labels[a] for j, a in rest.items()]
        order = np.argsort([*rest, *self.positions], kind="stable").tolist()
        if is_frame:
            others = frames.rename(frames.select(X, list(rest.values())), names)
            both = frames.beside(others, frames.make(chosen, self.variables, like=X))
            return frames.select(both, order)
        others = X[:, list(rest.values())]
        both = sparse.hstack([others, chosen]).tocsr() if sparse.issparse(X) else np.hstack([others, chosen])
        return both[:, order]

    def filled(self, table, missing, fitted):
        """Return the table with its missing cells imputed; ``fitted`` holds the fitted rows that have some."""
        values = np.zeros(missing.shape)
        values[missing.any(axis=1)] = np.clip(self.scaling.invert(fitted), self.scaling.minimum, self.scaling.maximum)
        return frames.fill(table, self.positions.tolist(), values, missing)

    def filled_sparse(self, X, fitted_at):
        """Return sparse X with its stored NaN imputed by a function of rows and columns of the scaled matrix."""
        scaling, filled = self.scaling, without_duplicates(X).copy()
        column_of = np.full(len(self.labels), -1)
        column_of[self.positions] = np.arange(len(self.positions))
        at = np.flatnonzero(np.isnan(filled.data) & (column_of[filled.indices] >= 0))
        columns = column_of[filled.indices[at]]
        fitted = fitted_at(rows_of_stored(filled, at), columns) * scaling.factor[columns] + scaling.offset[columns]
        most = np.minimum(scaling.maximum, scaling.upper)
        filled.data[at] = np.clip(fitted, scaling.minimum[columns], most[columns])
        return filled

    # Checks

    def _refuse_clash(self):
        kept = {*_check_feature_names_in(self.model, None)[self.kept], *(self.labels[j] for j in self.kept)}
        clash = [name for name in self.component_names if name in kept]
        if clash:
            raise ValueError(f"X has columns {clash}, named like the components: pass another prefix, or rename them.")

    def report_constant(self, n):
        """Warn of constant columns; refuse a table of n rows that has no others."""
        names = [name for name, c in zip(self.variables, self.scaling.constant, strict=True) if c]
        if len(names) == len(self.positions):
            raise ValueError(
                f"X has nothing to factorise: every chosen column is constant (n_samples={n}, columns {names})."
            )
        if names:
            warn_user(f"Constant columns carry nothing and get loading 0: {names}.")


def component_names(k, prefix="NNMF"):
    """Return the names of k components: prefix and number, zero-padded so that they sort."""
    return [f"{prefix}{t:0{len(str(k))}d}" for t in range(1, k + 1)]


def listed(names, labels, argument):
    """Return one label, or a list of labels, as a list; refuse anything else. Floats are labels where some label is."""
    if isinstance(names, str | tuple | Integral) and not isinstance(names, bool) and names in labels:
        return [names]  # a tuple may be one label of a MultiIndex
    if isinstance(names, str | Real):
        names = [names]
    listed = list(names)
    refused = bool | np.bool_ if any(isinstance(label, float) for label in labels) else bool | np.bool_ | float
    if isinstance(names, set | frozenset | dict) or any(isinstance(v, refused) for v in listed):
        raise ValueError(f"{argument} is {names!r}; wanted a name or a list of names (on arrays: integer positions).")
    return listed


def numeric(table, labels, apart=(), required=True):
    """Return the positions of the numeric columns of a table, but those apart; warn of others that nearly are."""
    positions = [j for j in frames.numeric_positions(table) if labels[j] not in apart]
    others = {*range(len(labels))} - {*positions}
    nearly = frames.nearly_numeric(table, [j for j in sorted(others) if labels[j] not in apart])
    if not positions and required:
        why = nearly or (
            "Booleans count, as 0 and 1, where variables names them; words have to be encoded, and numbers that are "
            "text converted first."
        )
        raise ValueError(f"X has no numeric column to factorise{f' beside the target {apart}' if apart else ''}. {why}")
    if nearly and required:
        warn_user(nearly)
    return positions


def _dtype(model):
    """Return the dtypes for an array (None: any). If not all columns are factorised, the others may hold anything."""
    return None if model.variables is not None or model.n_components == 0 else [np.float64, np.float32]


def _choose(model, table, labels):
    """Return the positions of the columns to factorise."""
    if model.variables is None:
        return numeric(table, labels, required=model.n_components > 0)
    by_rule = frames.chosen_by_rule(table, model.variables)
    variables = listed(model.variables if by_rule is None else by_rule, labels, "variables")
    place = {label: j for j, label in enumerate(labels)}
    unknown = [v for v in variables if not isinstance(v, Hashable) or v not in place]
    if unknown:
        raise ValueError(f"variables has {some(unknown)}, not found in X; wanted {offer(unknown, labels)}.")
    if not variables and by_rule is not None:
        raise ValueError(f"variables is {model.variables!r}, which chose no column of X; wanted at least one.")
    if not variables or len(set(variables)) < len(variables):
        raise ValueError(f"variables is {variables}; wanted at least one column, each once.")
    return [place[v] for v in variables]
