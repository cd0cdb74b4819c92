"""Which minimum to go for: descents from many starts on few rows, in machine code, before the loop runs on all.

The objective has many minima, and no start leads to the best one always: on real tables each of those known leads there
in half to nine tenths of the cases. So starts are tried one after the other, until the best minimum met has been met
several times. Each is followed nearly to its end, since after a few passes little can be told. With few components that
costs less than one descent of the loop, whose passes over a small table are mostly calls from Python; with many it
costs several. Of large tables few rows do; there the best few go on, and all rows decide between them.

The Kullback-Leibler divergence has more minima, and poorer ones. Those of least squares are good starts for it.
"""

from itertools import chain, islice

import numpy as np
from scipy import sparse

from .init import starts
from .kernels import compiled, descend_counts, descend_squares
from .losses import column_means, leaves_out_unstored

HITS, MOST_STARTS = 4, 16  # how often the best minimum must be met, and the most starts that are tried for it
SAME = 3e-4  # objectives that differ by a smaller share are one minimum
PASSES, TOL = 500, 1e-5
MOST_CELLS = 1 << 18  # of rows that are raced on; where columns are so many that this is not enough, there is no race
SMALL_CELLS, SMALL_EFFORT = 1000, 3  # more starts where they cost next to nothing
MARGIN = 0.05  # what few rows may tell wrongly of all: minima that differ by less go on
MOST_LEFT = 4


class Field:
    """What a loss is raced with: descents, and how many cells they take."""

    def __init__(self, descend, cells):
        self.descend, self.cells = descend, cells

    def run(self, X, weights, strengths, candidates, effort):
        """Return the different minima that are met, best first, as pairs of objective and loadings."""
        descend, met, best = compiled(self.descend), [], (np.inf, None)
        for H in islice(candidates, effort * MOST_STARTS):
            known = np.zeros_like(H) if best[1] is None else best[1]
            H, value = descend(X, weights, np.ascontiguousarray(H), tuple(strengths), PASSES, TOL, known, best[0])
            met.append((value, H))
            best = min(best, met[-1], key=lambda pair: pair[0])
            if sum(value <= best[0] * (1 + SAME) for value, _ in met) >= effort * HITS:
                break
        different, left = [], met
        while left:  # of those that met one minimum the first: which of them is lowest, only rounding says
            least = min(value for value, _ in left)
            different.append(next(pair for pair in left if not pair[0] > least * (1 + SAME)))
            left = [pair for pair in left if pair[0] > least * (1 + SAME)]
        return different


SQUARES, COUNTS = Field(descend_squares, 40_000), Field(descend_counts, 12_000)


def race(X, rows, k, beta, strengths, missing=None, effort=1):
    """Return the loadings to go on from, best first, and whether a doubt is left; None where there is no race.

    ``rows`` are those of X by content. Missing cells hold the means of their columns here. Where that, or few rows, or
    another loss leave a doubt, those that come near the best are returned, too. ``effort`` multiplies the number of
    starts, and so many are returned, if there are as many different minima.
    """
    n, p = X.shape
    field = COUNTS if beta == 1 else SQUARES
    m = max(field.cells // p, 10 * k, 100)
    if k < 2 or min(n, m) * p > MOST_CELLS or leaves_out_unstored(missing):
        return None, False
    whole = n <= m
    drawn, v = rows.all() if whole else rows.sample(m)
    few = X[drawn].toarray() if sparse.issparse(X) else X[drawn]
    few = np.ascontiguousarray(few, dtype=np.float64)
    if missing is not None:
        few = np.where(np.isnan(few), column_means(X, rows.weights, missing), few)
    if not few.any():
        return None, False
    times = effort * SMALL_EFFORT if few.size <= SMALL_CELLS else effort
    left = SQUARES.run(few, v, strengths, starts(few, k, v), times)
    if beta == 1:
        of_squares = (H for _, H in left[: effort * MOST_LEFT])
        left = COUNTS.run(few, v, strengths, chain(of_squares, starts(few, k, v)), times)
    doubtful = not whole or missing is not None or beta not in (1, 2)
    near = [H for value, H in left if value <= left[0][0] * (1 + MARGIN)][:MOST_LEFT] if doubtful else []
    return near if len(near) > effort else [H for _, H in left[:effort]], doubtful
