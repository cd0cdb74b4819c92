"""How the rows of a table differ from those of the fit, column by column."""

import numpy as np
import pandas as pd
from scipy import sparse

from .core.explained import column_squares, explained_share
from .core.units import safe_scale
from .fitting import scores_of


def drift(columns, table, explained_in_fit):
    """Return, for each chosen column of a checked table, the shares of cells out of range and of squares explained."""
    matrix, _ = columns.read(table)
    below, above = _out_of_range(matrix, columns)
    Z = columns.scale(matrix, "clip")
    W, missing = scores_of(columns, Z), columns.missing(Z)
    Z, e = safe_scale(Z, loss=columns.loss)
    left, size = column_squares(Z, np.ldexp(W, -2 * e), columns.model.components_, None, missing)
    explained = explained_share(left, size, columns.width)
    shares = {"below": below, "above": above, "explained": explained, "explained_in_fit": explained_in_fit}
    return pd.DataFrame({"column": pd.Series(columns.variables, dtype=object), **shares})


def _out_of_range(cells, columns):
    """Return the shares of the observed cells of each column that are below and above the training range."""
    low, high, n = columns.scaling.minimum, columns.scaling.maximum, cells.shape[0]
    if not sparse.issparse(cells):
        observed, counts = n - np.isnan(cells).sum(axis=0), [(cells < low).sum(axis=0), (cells > high).sum(axis=0)]
    else:
        stored, at, missing = cells.data, cells.indices, np.isnan(cells.data)
        missing, observed, *counts = (
            np.bincount(at[those], minlength=len(low))
            for those in (missing, ~missing, stored < low[at], stored > high[at])
        )
        if columns.model.missing_values != "unstored":  # the other cells are zeros
            zeros = n - missing - observed
            observed = n - missing
            counts = [count + zeros * out for count, out in zip(counts, (low > 0, high < 0), strict=True)]
    return [np.divide(count, observed, out=np.full(len(low), np.nan), where=observed > 0) for count in counts]
