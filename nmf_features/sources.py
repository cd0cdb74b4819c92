"""A fit to a table in files: its columns are read into memory, or to disk if they are larger than the budget."""

from numbers import Real

import numpy as np

from . import frames
from .columns import Columns, Learned
from .disk import PiecesOnDisk
from .files import CSV_BLOCK, column_of
from .memory import budget_of
from .nearest import offer, some
from .scaling import Scaling

# What a fit in memory needs room for, measured: copies of the scaled columns, where cells are missing and those that a
# target adds; copies of the scores; samples of the rows; and what the smallest table needs.
IMPUTED, GUIDED, SCORES, SAMPLED_CELLS, LEAST = 4, 2, 3, 1 << 22, 1 << 23


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
    _check_names(source, y=targets, sample_weight=[] if sample_weight is None else [sample_weight])
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
        source.report_empty(empty, "not factorised", "If they hold numbers, name them in variables.")
    source.with_floats([*columns.variables, sample_weight])
    dtype = _dtype(source, columns.variables)
    rows = _Rows(columns, dtype, sample_weight is not None, budget)
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


def read(columns, source, sample_weight=None):
    """Return the columns of a fitted model of the rows of positive weight, raw, and their weights, None without."""
    model = columns.model
    source.check(columns)
    _check_names(source, sample_weight=[] if sample_weight is None else [sample_weight])
    source.with_floats([*columns.variables, sample_weight])
    dtype, budget = _dtype(source, columns.variables), budget_of(model.memory_budget)
    matrices, weights, n = [np.zeros((0, len(columns.variables)), dtype)], [np.zeros(0)], 0
    for matrix, v, _ in _batches(columns, source, [], sample_weight):
        matrices.append(matrix)
        weights.append(v)
        n += len(matrix)
        if bytes_of_fit(columns, n, dtype, model.missing_values != "raise") > budget:
            raise ValueError(
                f"{source.where} is larger than memory_budget, and a batch has to be in memory. Raise memory_budget, "
                "or pass a part of the rows at a time, such as one of several files."
            )
    return np.concatenate(matrices), None if sample_weight is None else np.concatenate(weights)


def bytes_of_fit(columns, n, dtype, holes):
    """Return about how much memory a fit of n rows takes at most; ``holes`` says whether cells are missing."""
    p, k, size = len(columns.variables), columns.n_components, np.dtype(dtype).itemsize
    scaled = 2 * p if columns.model.shift == "split" else p
    reading = size * (p + scaled)  # a copy is made when all rows have come, and again if columns are split
    copies = (IMPUTED if holes else 1) + (GUIDED if columns.model.target_weight else 0)
    fitting = size * (scaled * copies + SCORES * k) + 8 * (k + 4)
    return n * max(reading, fitting) + 8 * min(n * scaled, SAMPLED_CELLS) + LEAST


class _Rows:
    """Rows that are read: in memory, until a fit of them would not fit in the budget; then on disk."""

    def __init__(self, columns, dtype, weighted, budget):
        self.form, self.budget, self.columns = (len(columns.variables), dtype, weighted), budget, columns
        self.n, self.holes, self.held, self.pieces = 0, False, [], None

    def append(self, matrix, weights, target):
        self.n += len(matrix)
        self.held.append((matrix, weights, target))
        if self.pieces is None:
            self.holes |= bool(np.isnan(matrix.sum()))
            if bytes_of_fit(self.columns, self.n, self.form[1], self.holes) <= self.budget:
                return
            if self.columns.model.target_weight:
                raise ValueError(
                    "target_weight is above 0, and X is larger than memory_budget: a target needs all rows in memory. "
                    "Raise memory_budget, or fit a sample of the rows."
                )
            self.pieces = PiecesOnDisk(*self.form, self.columns.model.n_jobs)
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


def _check_names(source, **arguments):
    """Refuse what is no name of a column."""
    for argument, names in arguments.items():
        for name in names:
            if not isinstance(name, str) or name not in source.schema.names:
                what = repr(name) if isinstance(name, str | Real | None) else f"of type {type(name).__name__}"
                raise ValueError(
                    f"{argument} is {what}, and X is a table in files; wanted the name of one of its columns, "
                    f"{offer([name], source.schema.names)}."
                )


def _dtype(source, variables):
    """Return the dtype of the matrix of some columns."""
    return frames.to_matrix(source.schema.empty_table().select(variables), list(range(len(variables))))[0].dtype


def _joined(tables):
    import pyarrow

    return None if tables[0] is None else pyarrow.concat_tables(tables)


def _refuse_no_rows(sample_weight):
    if sample_weight is None:
        raise ValueError("X has no rows: found 0 sample(s) while a minimum of 1 is required.")
    raise ValueError(f"sample_weight {sample_weight!r} is zero in all rows: nothing is left to fit.")
