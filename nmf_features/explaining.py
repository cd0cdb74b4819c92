"""Why the rows of a table have their scores, and what the components leave unexplained in them.

    contributions       an array, rows x components x columns        explain     its largest numbers, as a long frame
    unexplained         the loss of every cell

Tables are treated in blocks of rows, so that only what is asked for is ever held as a whole.
"""

from numbers import Integral

import numpy as np
from scipy import sparse

from . import frames
from .core.batches import batch_of
from .core.contributions import KINDS, ScoredRows
from .core.missing import leaves_out_unstored, observed_in_rows
from .core.products import RESIDUAL_CELLS, slices
from .fitting import scores_of

FIELDS = ("row", "component", "term", "contribution", "value", "baseline")  # of a line
OTHERS, PENALTY = "others", "penalty"
BLOCK_CELLS = 1 << 17  # contributions that are held at once


def contributions(columns, table, kind):
    """Return the contributions of the terms to the scores of a checked table: n_samples x n_components x n_terms."""
    split = _choice(columns, kind)
    if columns.n_components == 0:
        return np.zeros((table.shape[0], 0, len(columns.variables)))
    Z = columns.scaled(table)
    out = np.empty((Z.shape[0], columns.n_components, Z.shape[1]), Z.dtype)
    for rows, parts, _ in _blocks(columns, Z, split):
        out[rows] = parts
    return out


def explain(columns, table, top, kind):
    """Return the largest contributions to each score of a checked table as a long frame."""
    split = _choice(columns, kind)
    if not isinstance(top, Integral) or isinstance(top, bool) or top < 1:
        raise ValueError(f"top is {top!r}; wanted a whole number of columns to name for each score, 1 or more.")
    k = columns.n_components
    terms = columns.terms if k else columns.variables
    found = [(np.zeros(0, np.int64), *np.zeros((2, 0), np.int32), *np.zeros((3, 0)))]
    if k:
        found += _all_lines(columns, table, int(top), split)
    row, component, term, *numbers = map(np.concatenate, zip(*found, strict=True))
    names = frames.named([*columns.component_names, ""], component)
    terms = frames.named([*terms, *(_beside(terms, name) for name in (OTHERS, PENALTY))], term)
    return frames.long(dict(zip(FIELDS, (row, names, terms, *numbers), strict=True)), table, row)


def unexplained(columns, table):
    """Yield slices of the rows of a checked table, and the loss of their cells, NaN where one is missing."""
    Z = columns.scaled(table)
    W, H, unstored = scores_of(columns, Z), columns.model.components_, leaves_out_unstored(columns.missing(Z))
    for rows in slices(Z, RESIDUAL_CELLS):
        x = dense(Z[rows], unstored)
        y = batch_of(x).fitted(W[rows].astype(np.float64), H)
        yield rows, np.where(np.isnan(x), np.nan, columns.loss.of_cells(x, y))


def worst_rows(losses, n):
    """Return the positions of the n rows with the largest losses, the worst first; rows of NaN are left out."""
    worst = np.argsort(-np.nan_to_num(losses, nan=-1.0), kind="stable")[:n]
    return worst[~np.isnan(losses[worst])]


def dense(x, unstored):
    """Return rows as a float64 array; what is not stored is zero, or NaN where that means missing."""
    if not sparse.issparse(x):
        return x.astype(np.float64)
    if not unstored:
        return x.toarray().astype(np.float64)
    cells, out = x.tocoo(), np.full(x.shape, np.nan)
    out[cells.row, cells.col] = cells.data
    return out


def _choice(columns, kind):
    """Return the function that splits scores, None for linear ones: they have only one way."""
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; wanted one of {list(KINDS)}.")
    return None if columns.model.projection == "linear" else KINDS[kind]


def _blocks(columns, Z, split):
    """Yield slices of scaled rows, their contributions (rows x k x p) and the term of the penalty (rows x k)."""
    model, missing, H = columns.model, columns.missing(Z), columns.model.components_
    l1, l2 = model.score_penalties_
    l1, l2 = l1 / model.component_scales_, l2 / np.square(model.component_scales_)
    W = None if split is None else scores_of(columns, Z)
    step = max(1, BLOCK_CELLS // max(H.size, 1))
    for start in range(0, Z.shape[0], step):
        rows = slice(start, min(start + step, Z.shape[0]))
        z = Z[rows]
        x = dense(z, leaves_out_unstored(missing))
        if split is None:
            yield rows, x[:, None, :] * H, np.zeros((len(x), len(H)))
            continue
        observed = np.ones((len(x), 1)) if missing is None else observed_in_rows(z, missing)[:, None]
        w = W[rows].astype(np.float64)
        empty = np.isnan(w)
        parts, penalty = split(ScoredRows(x, np.where(empty, 0, w), H, observed * l1, observed * l2, columns.loss))
        parts[empty], penalty[empty] = np.nan, np.nan
        yield rows, parts, penalty


def _beside(terms, name):
    """Return a name that is none of the terms."""
    return _beside(terms, f"({name})") if name in terms else name


def _all_lines(columns, table, top, split):
    """Yield row, component, term, contribution, value and baseline of the lines of each block of rows."""
    matrix, _ = columns.read(table)
    Z, offset = columns.scale(matrix), columns.scaling.offset
    p, doubled = Z.shape[1], Z.shape[1] // len(offset)
    baselines = np.append(np.repeat(offset, doubled), [np.nan, np.nan])
    for rows, parts, penalty in _blocks(columns, Z, split):
        row, component, term, contribution = _lines(parts, penalty, min(top, p))
        raw = matrix[rows].toarray() if sparse.issparse(matrix) else matrix[rows]
        value = np.where(term < p, raw[row, np.minimum(term, p - 1) // doubled], np.nan)
        yield row + rows.start, component.astype(np.int32), term.astype(np.int32), contribution, value, baselines[term]


def _lines(parts, penalty, top):
    """Return row, component, term and contribution of the lines of a block; zeros of columns are left out.

    Terms p and p + 1 are the others and the penalty. ``parts`` is written to.
    """
    m, k, p = parts.shape
    sizes = -np.abs(parts)
    at = np.sort(np.argpartition(sizes, top - 1, axis=2)[:, :, :top], axis=2)  # of equal ones the first come first
    order = np.argsort(np.take_along_axis(sizes, at, axis=2), axis=2, kind="stable")
    at = np.take_along_axis(at, order, axis=2)
    listed = np.take_along_axis(parts, at, axis=2)
    np.put_along_axis(parts, at, 0.0, axis=2)
    others = parts.sum(axis=2) + 0.0 * penalty  # NaN where there is no score
    contribution = np.concatenate([listed, others[:, :, None], penalty[:, :, None]], axis=2)
    term = np.concatenate([at, np.broadcast_to([p, p + 1], (m, k, 2))], axis=2)
    shown = np.concatenate([np.abs(listed) > 0, np.ones((m, k, 2), bool)], axis=2)
    row, component, _ = np.nonzero(shown)
    return row, component, term[shown], contribution[shown]
