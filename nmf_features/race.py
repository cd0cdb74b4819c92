"""Which minimum to go for: descents from many starts on few rows, in machine code, before the loop runs on all.

The objective has many minima, and no start leads to the best one always: on real tables any of those of init.py leads
there in some nine tenths of the cases with 2 to 4 components, and in a third with 8 to 10. So starts are tried one
after the other, until the best minimum met has been met several times. After the first few, every second start is the
best minimum so far with one component replaced (iterated local search): that takes fewer passes, and finds minima close
by. Each start is followed nearly to its end, since after a few passes little can be told. With few components all this
costs less than one descent of the loop, whose passes over a small table are mostly calls from Python; with many it
costs several. Of large tables few rows do; there the best few go on, and all rows decide between them.

The Kullback-Leibler divergence has more minima, and poorer ones. Those of least squares are good starts for it.

Reference: H. R. Lourenco, O. C. Martin and T. Stuetzle (2003), Iterated local search.
"""

from itertools import chain, islice

import numpy as np
from scipy import sparse

from .init import starts
from .kernels import compiled, descend_counts, descend_squares
from .losses import column_means, leaves_out_unstored

MOST_HITS, MOST_STARTS = 5, 20  # how often the best minimum must be met at most, and the most starts tried for it
FIRST = 4  # starts before every second one is the best minimum with one component replaced
SAME = 3e-4  # objectives that differ by a smaller share are one minimum
PASSES, TOL = 500, 1e-5
MOST_CELLS = 1 << 18  # of rows that are raced on; where columns are so many that this is not enough, there is no race
SMALL_CELLS, SMALL_EFFORT = 1000, 3  # more starts where they cost next to nothing
MARGIN = 0.05  # what few rows may tell wrongly of all: minima that differ by less go on
MOST_LEFT = 4


class Field:
    """What a loss is raced with: descents, how many cells they take, and how often they must meet the best minimum.

    That is for 2 to 4 components; with more of them there are more minima, and it must be met more often.
    """

    def __init__(self, descend, cells, hits):
        self.descend, self.cells, self.hits = descend, cells, hits

    def run(self, X, weights, k, strengths, candidates, effort, first=FIRST):
        """Return the different minima that are met, best first, as pairs of objective and loadings.

        After the ``first`` candidates every second one gives a component only.
        """
        descend, met, best = compiled(self.descend), [], (np.inf, np.zeros((k, X.shape[1])))
        hits = effort * min(self.hits + (k - 2) // 3, MOST_HITS)
        for turn, H in enumerate(islice(candidates, effort * MOST_STARTS)):
            start = _with_component_of(H, best[1], turn // 2) if turn >= first and turn % 2 else H
            start = np.ascontiguousarray(start)
            H, value = descend(X, weights, start, tuple(strengths), PASSES, TOL, best[1], best[0])
            met.append((value, H))
            best = min(best, met[-1], key=lambda pair: pair[0])
            if sum(value <= best[0] * (1 + SAME) for value, _ in met) >= hits:
                break
        different, left = [], met
        while left:  # of those that met one minimum the first: which of them is lowest, only rounding says
            least = min(value for value, _ in left)
            different.append(next(pair for pair in left if not pair[0] > least * (1 + SAME)))
            left = [pair for pair in left if pair[0] > least * (1 + SAME)]
        return different


def _with_component_of(other, H, turn):
    """Return loadings H with one component replaced by one of others, by turns, in the size of H."""
    t, mean = turn % len(H), H.mean()
    if not mean * other.mean() > 0:
        return other
    start = H + 1e-3 * mean
    start[t] = other[t] * (mean / other.mean())
    return start


SQUARES, COUNTS = Field(descend_squares, 40_000, 3), Field(descend_counts, 24_000, 4)


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
    left = SQUARES.run(few, v, k, strengths, starts(few, k, v), times)
    if beta == 1:
        of_squares = [H for _, H in left[: effort * MOST_LEFT]]
        candidates = chain(of_squares, starts(few, k, v))
        left = COUNTS.run(few, v, k, strengths, candidates, times, FIRST + len(of_squares))
    doubtful = not whole or missing is not None or beta not in (1, 2)
    near = [H for value, H in left if value <= left[0][0] * (1 + MARGIN)][:MOST_LEFT] if doubtful else []
    return near if len(near) > effort else [H for _, H in left[:effort]], doubtful
