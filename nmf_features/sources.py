"""A fit to a table in files: its columns are read into memory, or to disk if they are larger than the budget."""

from numbers import Real

import numpy as np

from . import frames
from ._warn import warn_user
from .columns import Columns, Learned
from .disk import PiecesOnDisk
from .files import CSV_BLOCK, column_of
from .memory import budget_of
from .nearest import offer, some
from .scaling import Scaling

COPIES = 3  # of the columns, which a fit in memory needs room for


def learn(model, source, y=None, sample_weight=None):
    """Choose the columns of a source and learn their shift and scale.

    Returns
    -------
    Learned
        Its ``X`` holds the scaled columns, or Pieces with the raw ones, if all rows would not fit in the budget.
    y : ndarray or None
        The target, of the rows of positive weight.
    """
    budget, head = budget_of(model.memory_budget), source.head()
    targets = [] if y is None else y if isinstance(y, list | tuple) else [y]
    for argument, names in (("y", targets), ("sample_weight", [] if sample_weight is None else [sample_weight])):
        for name in names:
            if not isinstance(name, str) or name not in source.schema.names:
                what = repr(name) if isinstance(name, str | Real | None) else f"of type {type(name).__name__}"
                raise ValueError(
                    f"{argument} is {what}, and X is a table in files; wanted the name of one of its columns, "
                    f"{offer([name], source.schema.names)}."
                )
    aside = {*targets, *source.index} | ({sample_weight} if sample_weight is not None else set())
    if model.target_weight and (unknown := [name for name in targets if name in source.empty]):
        raise ValueError(
            f"y has the targets {some(unknown)}, and {source.where} has no value of them in its first "
            f"{CSV_BLOCK >> 20} MB, which say if they are numbers or words. Pass a dataset that knows their types: "
            'pyarrow.dataset.dataset(path, schema, format="csv").'
        )
    columns, _ = Columns.chosen(model, head.select([name for name in head.column_names if name not in aside]))
    if columns.n_components == 0:
        known = [batch for batch, _ in source.batches(targets)] if targets and model.target_weight else [None]
        return Learned(columns, None, None, None, None), _joined(known or [head.select(targets)])
    empty = [name for name in source.empty if name not in {*aside, *columns.variables}]
    if empty and (model.variables is None or callable(model.variables)):
        warn_user(
            f"{source.where} has the columns {some(empty)} without a value in its first {CSV_BLOCK >> 20} MB: they are "
            "read as words, and are not factorised. If they hold numbers, name them in variables."
        )
    source.with_floats([*columns.variables, sample_weight])
    p = len(columns.positions)
    dtype = frames.to_matrix(source.schema.empty_table().select(columns.variables), list(range(p)))[0].dtype
    rows = _Rows(p, dtype, sample_weight is not None, budget, model)
    for matrix, weights, target in _batches(columns, source, targets if model.target_weight else [], sample_weight):
        rows.append(matrix.astype(dtype, copy=False), weights, target)
    if rows.n == 0:
        _refuse_no_rows(sample_weight)
    if rows.pieces is not None:
        columns.scaling = Scaling.learn_from(rows.pieces, model.shift, model.scale, columns.variables, model.clip)
        columns.report_constant(rows.n)
        return Learned(columns, None, rows.pieces, None, None), None
    matrix, weights, targets = rows.joined()
    return Learned(columns, None, columns.learn_scaling(matrix, weights, True), weights, None), targets


class _Rows:
    """Rows that are read: in memory, until they do not fit in the budget; then on disk."""

    def __init__(self, width, dtype, weighted, budget, model):
        self.form, self.budget, self.model = (width, dtype, weighted), budget, model
        self.n, self.held, self.pieces = 0, [], None

    def append(self, matrix, weights, target):
        self.n += len(matrix)
        self.held.append((matrix, weights, target))
        if self.pieces is None:
            if COPIES * self.n * self.form[0] * self.form[1].itemsize <= self.budget:
                return
            if self.model.target_weight:
                raise ValueError(
                    "target_weight is above 0, and X is larger than memory_budget: a target needs all rows in memory. "
                    "Raise memory_budget, or fit a sample of the rows."
                )
            self.pieces = PiecesOnDisk(*self.form, self.model.n_jobs)
        for rows, v, _ in self.held:
            self.pieces.append(rows, v)
        self.held = []

    def joined(self):
        """Return all rows, their weights and their targets, None where there are none."""
        matrices, weights, targets = zip(*self.held, strict=True)
        self.held = []
        matrix = np.concatenate(matrices)
        return matrix, None if weights[0] is None else np.concatenate(weights), _joined(targets)


def _batches(columns, source, y, sample_weight):
    """Yield the chosen columns of the rows of positive weight, their weights, and their targets, a batch at a time."""
    model, p = columns.model, len(columns.positions)
    names = list(dict.fromkeys([*columns.variables, *y, *([] if sample_weight is None else [sample_weight])]))
    for batch, where in source.batches(names):
        try:
            matrix, _ = frames.to_matrix(batch, list(range(p)), model.missing_values)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        target = batch.select(y) if y else None
        weights = None
        if sample_weight is not None:
            weights = column_of(batch, sample_weight)
            if not (weights >= 0).all() or not np.isfinite(weights).all():
                raise ValueError(
                    f"{where}: sample_weight {sample_weight!r} has weights that are negative, missing or infinite; "
                    "wanted 0 or more."
                )
            if not weights.all():
                used = weights > 0
                matrix, weights, target = matrix[used], weights[used], target if target is None else target.filter(used)
        yield matrix, weights, target


def _joined(tables):
    import pyarrow

    return None if tables[0] is None else pyarrow.concat_tables(tables)


def _refuse_no_rows(sample_weight):
    if sample_weight is None:
        raise ValueError("X has no rows: found 0 sample(s) while a minimum of 1 is required.")
    raise ValueError(f"sample_weight {sample_weight!r} is zero in all rows: nothing is left to fit.")
