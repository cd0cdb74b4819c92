"""Choice of the minimum: descents from many starts, in machine code, before the loop runs on all rows.

The objective has many minima, and no start always leads to the best one. On real tables any of those of starts.py leads
there in about nine tenths of the cases with 2 to 4 components, and in a third with 8 to 10. So starts are tried one
after the other, until the best minimum found has been reached several times. After the first few, every second start is
the best minimum so far with one component replaced (iterated local search), which takes fewer passes and finds minima
close by. Each start is followed nearly to convergence, since a few passes tell little. With few components all this
costs less than one descent of the loop, whose passes over a small table are mostly calls from Python; with many it
costs several. A large table is raced on few rows first and then on more, beginning with the minima found on few rows.
If these are not all rows either, the best few go on, and all rows decide between them. Descents on all but small tables
are in single precision, or in double where rounding would hide what a good fit leaves.

The Kullback-Leibler divergence has more minima, and poorer ones. Minima of least squares are good starts for it; those
of rows with column means imputed are good starts where cells are missing.

Reference: H. R. Lourenco, O. C. Martin and T. Stuetzle (2003), Iterated local search.
"""

from itertools import chain, islice
from typing import NamedTuple

import numpy as np
from scipy import sparse

from .compiling import compiled
from .kernels import descend_cells, descend_squares, strips_of
from .missing import column_means, leaves_out_unstored
from .penalties import Strengths
from .starts import starts
from .watch import STARTS

MOST_STARTS = 60  # most starts tried
FIRST = 4  # starts before every second one is the best minimum with one component replaced
SAME = 3e-4  # objectives that differ by a smaller share count as one minimum
PASSES, TOL = 500, 1e-5
ROUGH_TOL = 1e-4  # with a larger tolerance, no better fit is asked for than that of one start
FAIR_TOL = 3e-5  # and than the best of the first few starts
MISSING = 10  # both are so many times larger where cells are missing: minima differ more in what they say of these
# Cells of the few rows, how often the best minimum must be reached there, and the most starts that are tried for it.
FEW_CELLS, FEW_HITS, FEW_STARTS = 12_000, 3, 20
MORE_CELLS = 40_000  # cells of the second heat, if all rows are too many
ONCE_CELLS, ONCE_OBSERVED = 40_000, 24_000  # tables with no more cells need one heat; and those with missing cells
MOST_CELLS = 1 << 18  # most cells raced on; with so many columns that this is not enough, there is no race
NEAR, MOST_NEAR = 0.2, 6  # minima of few rows that start on more: at most this share above the best, and how many
SMALL_CELLS, SMALL_EFFORT = 1000, 3  # tables this small have so many times more starts, which cost next to nothing
MOST_STRENGTH = 1e12  # largest strength for single precision, in units of the mean cell
MARGIN = 0.05  # few rows may misjudge minima by this share: those closer to the best go on
MOST_LEFT = 4  # most minima that go on


class Field:
    """How a loss is raced: the descent, whether it always runs in single precision, and how many starts are tried.

    Starts are tried until the best minimum has been reached ``hits(k)`` times, for k components: the more, the more
    minima there are. At most ``most`` are tried; on more rows, at most ``near`` minima of few rows come first. Tables
    of at most ``once`` cells are raced on all rows at once, unless a rough fit will do.
    """

    def __init__(self, descend, single, hits, *options, most=MOST_STARTS, near=MOST_NEAR, once=ONCE_CELLS):
        self.descend, self.single, self.hits, self.options = descend, single, hits, options
        self.most, self.near, self.once = most, near, once

    def run(self, X, weights, strengths, candidates, first, hits, most, tol, watch, single=True):
        """Return the distinct minima found, best first, as pairs of objective and loadings.

        At most ``most`` candidates are tried, until the best minimum has been reached ``hits`` times, or the watch,
        which is told of each, asks to stop. After the ``first``, every second one only gives a component. With
        ``single``, descents run in single precision until a fit is too good for it, then in double. Objectives are in
        units of the mean cell and mean weight.
        """
        descend, met, best = compiled(self.descend), [], (np.inf, None)
        half, mean_weight, strengths = mean_units(X, weights, strengths)
        strengths = tuple(min(strength, MOST_STRENGTH) for strength in strengths)
        cells, v = np.ldexp(X, -2 * half), weights / mean_weight
        strips = strips_of(cells.astype(np.float32 if single or self.single else np.float64), v)
        for turn, H in enumerate(islice(candidates, most)):
            H = H / (H.mean() or 1.0)
            known = np.zeros(H.shape) if best[1] is None else best[1]
            start = _with_component_of(H, known, turn // 2) if turn >= first and turn % 2 else H
            how = strengths, PASSES, tol, known, best[0], *self.options
            H, value, coarse = descend(*strips, np.ascontiguousarray(start, strips[0].dtype), *how)
            if coarse:  # from here on in double precision
                strips = strips_of(cells, v)
                H, value, _ = descend(*strips, np.ascontiguousarray(start), *how)
            met.append((value, H.astype(np.float64, copy=False)))
            best = min(best, met[-1], key=lambda pair: pair[0])
            if watch(STARTS, len(X), start=turn + 1):
                break
            if sum(value <= best[0] * (1 + SAME) for value, _ in met) >= hits:
                break
        different, left = [], [(value, np.ldexp(H, half)) for value, H in met]
        while left:  # keep the first that reached each minimum: only rounding says which is lowest
            least = min(value for value, _ in left)
            different.append(next(pair for pair in left if not pair[0] > least * (1 + SAME)))
            left = [pair for pair in left if pair[0] > least * (1 + SAME)]
        return different


def asks_less(tol, than, missing):
    """Whether a tolerance asks for less than another one does of complete tables."""
    return (tol if missing is None else tol / MISSING) > than


def mean_units(X, weights, strengths):
    """Return ``half``, the mean weight, and the strengths in units in which the mean of X is near 1.

    X is divided by 4^half, W and H by 2^half, and weights by their mean. Nothing then overflows in single precision.
    """
    mean, mean_weight = X.mean(), weights.mean()
    half = int(np.frexp(np.nanmean(X) if np.isnan(mean) else mean)[1]) // 2
    l1_W, l1_H, l2_W, l2_H = strengths
    strengths = np.ldexp(l1_W, -half), np.ldexp(l1_H, -half) / mean_weight, float(l2_W), l2_H / mean_weight
    return half, mean_weight, strengths


def _with_component_of(other, H, turn):
    """Return H with one component, each in turn, replaced by that of ``other``, scaled to H."""
    t, mean = turn % len(H), H.mean()
    if not mean * other.mean() > 0:
        return other
    start = H + 1e-3 * mean
    start[t] = other[t] * (mean / other.mean())
    return start


SQUARES = Field(descend_squares, False, lambda k: min(k // 2 + 2, 6))
COUNTS = Field(descend_cells, True, lambda k: min(2 * k + 1, 14), False)
OBSERVED = Field(descend_cells, True, SQUARES.hits, True, most=6, near=4, once=ONCE_OBSERVED)


def few_rows(p, k):
    """Return the number of rows of p columns that are raced first, where not all are raced at once."""
    return max(FEW_CELLS // p, 10 * k, 100)


def is_raced(shape, k, missing):
    """Whether a table of this shape is raced: one component needs no choice, and very many columns take too long."""
    n, p = shape
    return k >= 2 and min(n, few_rows(p, k)) * p <= MOST_CELLS and not leaves_out_unstored(missing)


def race(table, rows, k, loss, strengths, watch, effort=1, tol=TOL):
    """Return the loadings to continue from (None: the rows say nothing), best first, and whether that is doubtful.

    The table is one that :func:`is_raced`; ``rows`` is its :class:`Rows`. Both rows and columns are ordered by content
    in a race, so that the order they are in changes nothing. If few rows or another loss make the choice doubtful,
    minima close to the best are returned as well. ``effort`` multiplies the number of starts, and that many minima are
    returned, if there are as many distinct ones. If that is 1, fewer starts are tried for a large ``tol``.
    """
    (n, p), missing = table.shape, table.missing
    rough = asks_less(tol, ROUGH_TOL, missing) and effort == 1
    fair = asks_less(tol, FAIR_TOL, missing) and effort == 1
    enough = 1 if rough else FIRST if fair else effort * SMALL_EFFORT * MOST_STARTS
    field = COUNTS if loss.counts else OBSERVED if loss.squares and missing is not None else SQUARES
    m = few_rows(p, k)
    large = n > m
    at_once = large and n * p <= field.once and not rough  # the one start of a rough fit comes near on few rows
    m = n if at_once else m
    few, places = Few.of(table, rows, m), np.argsort(rows.columns)
    if not few.full.any():
        return None, False
    times = effort * SMALL_EFFORT if few.full.size <= SMALL_CELLS else effort
    not_all, tol = n > m, tol if rough else TOL
    most = field.most + field.near * at_once  # as many as there would be in two heats

    def run(field, strengths, candidates, first, most):
        hits, most = (FEW_HITS, min(most, FEW_STARTS)) if not_all else (field.hits(k), most)
        X, most = few.full if field is SQUARES else few.X, min(times * most, enough)
        return field.run(X, few.weights, strengths, candidates, first, times * hits, most, tol, watch, large)

    candidates = few.starts(k)
    left = run(SQUARES, strengths, candidates, FIRST, MOST_LEFT if field is OBSERVED else most)
    if field is not SQUARES:
        if max(mean_units(few.full, few.weights, strengths)[2]) > MOST_STRENGTH:
            return [H[:, places] for _, H in left[:effort]], True
        of_squares = [H for _, H in left[: effort * MOST_LEFT] if H.any()]  # a penalty may have emptied them
        candidates, first = chain(of_squares, candidates), FIRST + len(of_squares)  # others than before
        strengths = few.observed(strengths, missing)
        left = run(field, strengths, candidates, first, most)
    larger = n if n * p <= MOST_CELLS else max(MORE_CELLS // p, m)
    if not_all and larger > m:
        m = larger
        more, near = Few.of(table, rows, m), _near(left, NEAR, effort * field.near)
        candidates, first = chain(near, more.starts(k)), len(near) + 2
        times_met = effort * field.hits(k) + len(near) - 1  # minima of few rows that lead there are weak evidence
        most = min(times * field.most, enough)
        left = field.run(more.X, more.weights, strengths, candidates, first, times_met, most, tol, watch)
    doubtful = not rough and (n > m or not (loss.squares or loss.counts))
    near = _near(left, MARGIN, MOST_LEFT) if doubtful else []
    left = near if len(near) > effort else [H for _, H in left[:effort]]
    return [H[:, places] for H in left], doubtful


def _near(minima, margin, most):
    """Return the loadings of minima that are at most the share ``margin`` above the best."""
    return [H for value, H in minima[:most] if value <= minima[0][0] * (1 + margin)]


class Few(NamedTuple):
    """Some rows of a table, NaN where cells are missing, and their weights; ``full`` has column means there."""

    X: np.ndarray
    full: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, table, rows, m):
        """Return m rows, or all."""
        drawn, weights = rows.all() if table.shape[0] <= m else rows.sample(m)
        X = table.take(drawn)
        X = np.ascontiguousarray((X.toarray() if sparse.issparse(X) else X)[:, rows.columns], dtype=np.float64)
        full = X if table.missing is None else np.where(np.isnan(X), column_means(X, weights), X)
        return cls(X, full, weights)

    def observed(self, strengths, missing):
        """Return the strengths for the mean share of cells that are observed."""
        share = 1.0 if missing is None else 1 - np.isnan(self.X).sum() / (len(self.X) * missing.n_counted)
        return Strengths(*(share * strength for strength in strengths))

    def starts(self, k):
        """Return the starts that these rows give, without end."""
        return starts(self.full, k, self.weights)
