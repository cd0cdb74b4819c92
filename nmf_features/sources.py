"""A fit to a table in files: its columns are read into memory, or to disk if they are larger than the budget."""

import numpy as np

from . import frames
from .columns import Columns, Learned
from .disk import PiecesOnDisk
from .files import column_of
from .memory import budget_of
from .nearest import offer
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
    for argument, name in (("y", y), ("sample_weight", sample_weight)):
        if name is not None and not (isinstance(name, str) and name in source.schema.names):
            raise ValueError(
                f"{argument} is {name!r}, and X is a table in files; wanted the name of one of its columns, "
                f"{offer([name], source.schema.names)}."
            )
    aside = [name for name in (y, sample_weight) if name is not None]
    columns, _ = Columns.chosen(model, head.drop_columns(aside))
    if columns.n_components == 0:
        return Learned(columns, None, None, None, None), None
    p, n = len(columns.positions), source.count_rows()
    dtype = frames.to_matrix(head, [head.column_names.index(v) for v in columns.variables], "ignore")[0].dtype
    if n is not None and COPIES * n * p * dtype.itemsize <= budget:
        return _in_memory(columns, source, n, dtype, y, sample_weight)
    if model.target_weight:
        raise ValueError(
            "target_weight is above 0, and X is larger than memory_budget: a target needs all rows in memory. Raise "
            "memory_budget, or fit a sample of the rows."
        )
    pieces = PiecesOnDisk(p, dtype, sample_weight is not None, model.n_jobs)
    for matrix, weights, _ in _batches(columns, source, None, sample_weight):
        pieces.append(matrix.astype(dtype, copy=False), weights)
    if pieces.n == 0:
        _refuse_no_rows(sample_weight)
    columns.scaling = Scaling.learn_from(pieces, model.shift, model.scale, columns.variables, model.clip)
    columns.report_constant(pieces.n)
    return Learned(columns, None, pieces, None, None), None


def _in_memory(columns, source, n, dtype, y, sample_weight):
    matrix = np.empty((n, len(columns.positions)), dtype)
    weights, targets, at = None if sample_weight is None else np.empty(n), [], 0
    for batch, v, target in _batches(columns, source, y if columns.model.target_weight else None, sample_weight):
        matrix[at : at + len(batch)] = batch
        if weights is not None:
            weights[at : at + len(batch)] = v
        targets.append(target)
        at += len(batch)
    if at == 0:
        _refuse_no_rows(sample_weight)
    matrix, weights = matrix[:at], None if weights is None else weights[:at]
    X = columns.learn_scaling(matrix, weights, True)
    return Learned(columns, None, X, weights, None), _joined(targets)


def _batches(columns, source, y, sample_weight):
    """Yield the chosen columns of the rows of positive weight, their weights, and their targets, a batch at a time."""
    model, p = columns.model, len(columns.positions)
    names = [*columns.variables, *(name for name in (y, sample_weight) if name is not None)]
    for batch, where in source.batches(names):
        try:
            matrix, _ = frames.to_matrix(batch, list(range(p)), model.missing_values)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        target = None if y is None else batch.select([y])
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
