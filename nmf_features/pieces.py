"""A fit to rows that are not in memory: they lie on disk, and every step is a sum over pieces of them.

Pieces                raw columns on disk, and what shift and scale ask of them
scaled                one read: shift, scale, and draw rows for samples and starts
fit_pieces            loadings, and their canonical form
"""

from dataclasses import dataclass

import numpy as np

from .column_facts import sums
from .core.checks import check_tops
from .core.loss import Loss
from .core.missing import Missing
from .core.penalties import Strengths
from .core.samples import as_sample, draw, merge_drawn
from .core.schedule import fit_table
from .core.spill import Spill
from .core.spilled import SpilledTable
from .core.tables import MemoryTable
from .core.threads import workers
from .core.units import exponent_of
from .fitting import OPTIONS, facts_of, in_canonical_form
from .streams import sums_of_table

CHUNK_CELLS = 1 << 19  # of a piece: a few copies of it are in memory for each thread
DIGITS, BITS = 6, 11  # a quantile is found in so many reads, so many bits of it in each
POOL_SHARE = 16  # the rows drawn for samples and starts take this part of the memory budget


class Pieces:
    """Raw columns on disk, with positive row weights or None, that answer as :class:`Matrix` does in memory."""

    is_sparse = False

    def __init__(self, width, dtype, weighted, n_jobs):
        self.rows, self.weights = Spill(width, dtype), Spill(1, np.float64) if weighted else None
        self.n, self.n_jobs, self.ends = 0, n_jobs, np.full((2, width), np.nan)

    def append(self, X, weights=None):
        """Add rows."""
        self.ends[0] = np.fmin(self.ends[0], np.fmin.reduce(X, axis=0, initial=np.nan))
        self.ends[1] = np.fmax(self.ends[1], np.fmax.reduce(X, axis=0, initial=np.nan))
        self.rows.put(self.n, X)
        if weights is not None:
            self.weights.put(self.n, weights[:, None])
        self.n += len(X)

    def map(self, function, *arguments):
        """Yield function(rows, weights, number of the first row, *arguments) for every piece, in order."""
        step = max(1, CHUNK_CELLS // self.rows.width)
        pieces = [slice(start, min(start + step, self.n)) for start in range(0, self.n, step)]

        def of_piece(rows):
            v = None if self.weights is None else self.weights.rows(rows)[:, 0]
            return function(self.rows.rows(rows), v, rows.start, *arguments)

        with workers(self.n_jobs, len(pieces)) as each:
            yield from each(of_piece, pieces)

    def extremes(self):
        """Return the smallest and the largest value of every column, NaN if none is observed."""
        return self.ends

    def negatives(self):
        """Return how many cells of every column are below zero."""
        return sum(self.map(_negatives))

    def cut_off(self, upper):
        """Return the columns; who reads them cuts them off."""
        return self

    def means(self, function):
        """Return column means of a function of the rows, in float64."""
        parts = list(self.map(_sums, function))
        total, count = (sum(part) for part in zip(*parts, strict=True))
        return total / np.where(count == 0, 1, count)

    def quantiles(self, shares, sign=1):
        """Return the quantiles of every column, times ``sign``: an array with a row for each share.

        They are exact. The bits of a number in order of size are found from the first to the last, a few in each read
        (radix selection).
        """
        found, wanted = np.zeros((len(shares), self.rows.width), np.uint64), None
        for digit in range(DIGITS):
            counts = sum(self.map(_counts, found, digit, sign))
            if wanted is None:  # the share of the weight that must be reached
                wanted = np.multiply.outer(shares, counts[0].sum(axis=1))
                empty = wanted[0] == 0
            reached = np.cumsum(counts, axis=2)
            last = reached.shape[2] - 1
            at = np.minimum((reached < wanted[:, :, None] * (1 - 1e-14)).sum(axis=2), last)
            wanted = wanted - np.where(
                at > 0, np.take_along_axis(reached, np.maximum(at - 1, 0)[:, :, None], 2)[:, :, 0], 0
            )
            found = (found << np.uint64(BITS)) | at.astype(np.uint64)
        return np.where(empty, 0.0, _from_bits(found))


def _negatives(X, v, first):
    return (X < 0).sum(axis=0)


def _sums(X, v, first, function):
    return sums(X, function, v)


def _counts(X, v, first, found, digit, sign):
    """Return the weight of the cells that have each next digit after those found, for every share and column."""
    out = np.zeros((*found.shape, 1 << BITS))
    v = np.ones(len(X)) if v is None else v
    for j in range(X.shape[1]):
        observed = ~np.isnan(X[:, j])
        bits, weights = _to_bits(sign * X[observed, j].astype(np.float64)), v[observed]
        shift = np.uint64(BITS * (DIGITS - 1 - digit))
        for i, prefix in enumerate(found[:, j]):
            same = (bits >> shift) >> np.uint64(BITS) == prefix
            part = ((bits[same] >> shift) & np.uint64((1 << BITS) - 1)).astype(np.intp)
            out[i, j] = np.bincount(part, weights[same], minlength=1 << BITS)
    return out


def _to_bits(values):
    """Return whole numbers in the order of the values."""
    bits = (values + 0.0).view(np.uint64)  # -0.0 is 0.0
    top = np.uint64(1) << np.uint64(63)
    return np.where(bits & top, ~bits, bits | top)


def _from_bits(bits):
    top = np.uint64(1) << np.uint64(63)
    return np.where(bits & top, bits ^ top, ~bits).view(np.float64)


@dataclass(frozen=True)
class Terms:
    """The problem of rows that are elsewhere: what is known of them (in units of 4^``e``), and the objective."""

    p: int
    dtype: np.dtype
    top: float
    e: int
    missing: Missing | None
    loss: Loss
    strengths: Strengths
    unit: Strengths
    width: int


@dataclass
class Scaled:
    """Shifted and scaled rows on disk, and what one read of them tells."""

    rows: Spill
    weights: Spill | None
    n: int
    weight: float
    top: float
    sums: np.ndarray  # of every column, weighted, over observed cells
    counts: np.ndarray  # the weight of these cells
    tops: np.ndarray
    holes: bool
    drawn: tuple  # rows and weights of a sample


def scaled(columns, pieces, budget):
    """Shift and scale all rows; leave out those with nothing observed."""
    width = columns.scaling.size
    same = width == pieces.rows.width
    rows, weights = pieces.rows if same else Spill(width, pieces.rows.dtype), pieces.weights
    m = max(1 << 12, budget // (POOL_SHARE * 8 * width))
    drawn, n, parts = None, 0, []
    power, least = columns.loss.power, [(np.inf, np.inf)]
    for Z, v, facts, part in pieces.map(_scaled_piece, columns, power, m, least):
        rows.put(n, Z)  # behind what has been read
        if v is not None:
            weights.put(n, v[:, None])
        drawn = part if drawn is None else merge_drawn([drawn, part], m)
        least[0], n = drawn.least, n + len(Z)
        parts.append(facts)
    weight, sums_, counts, tops, holes = zip(*parts, strict=True)
    if n == 0:
        raise ValueError("X has no observed cell in any row that counts: there is nothing to fit.")
    tops = np.max(tops, axis=0)
    return Scaled(
        rows, weights, n, sum(weight), float(tops.max()), sum(sums_), sum(counts), tops, any(holes), as_sample(drawn)
    )


def _scaled_piece(X, v, first, columns, power, m, least):
    Z = columns.scale(X, "clip", True)
    empty = np.isnan(Z)
    holes = bool(empty.any())
    if holes:
        used = empty.sum(axis=1) < columns.n_counted
        Z, v = Z[used], None if v is None else v[used]
    u = np.ones(len(Z)) if v is None else v
    total, counts = sums(Z, lambda z: z, v)
    tops = np.fmax.reduce(Z, axis=0, initial=0.0)
    return Z, v, (u.sum(), total, counts, tops, holes), draw(Z, v, first, m, power, least[0])


def fit_pieces(columns, pieces, budget, arrange=None, watch=None):
    """Fit the model of these columns; return the Fit, its Components, means of the scaled columns, and its Sums."""
    model, loss = columns.model, columns.loss
    Z = scaled(columns, pieces, budget)
    missing = Missing(columns.n_counted) if Z.holes else None
    if missing is not None:
        check_tops(Z.tops, Z.rows.dtype)
    e = exponent_of(Z.top, Z.rows.dtype, loss)
    strengths, unit = (Strengths.of(q, model.l1_ratio, Z.weight, columns.n_counted) for q in (model.penalty, 1.0))
    terms = Terms(columns.scaling.size, Z.rows.dtype, Z.top, e, missing, loss, strengths, unit, columns.width)
    means = Z.sums / np.where(Z.counts > 0, Z.counts, 1)
    observed = None if missing is None else Z.counts / Z.weight
    sample, weights = Z.drawn
    if e:
        _to_units(Z, e)
        sample = np.ldexp(sample, -2 * e)
    with workers(model.n_jobs, max(2, Z.n * terms.p // CHUNK_CELLS)) as each:

        def table_of(k, per_row):
            drawn = MemoryTable(sample, weights, missing, k, per_row, each, model.n_jobs)
            return SpilledTable(
                Z.rows, Z.n, drawn, Z.weights, missing, observed, np.ldexp(means, -2 * e), each, model.n_jobs
            )

        options = {name: getattr(model, name) for name in OPTIONS if name != "n_jobs"} | {"init": columns.init}
        fit, table = fit_table(terms, table_of, columns.n_components, **options, watch=watch)
        unit_H = fit.H / fit.sums[:, None]
        facts = table.sum_over(_facts_of_block, unit_H, np.ldexp(fit.sums, -e), missing, loss)
        order, found = in_canonical_form(facts, e, fit.H, fit.sums, terms, observed, columns.n_counted, arrange)
        factor = fit.sums[order] / found.scales
        sums_ = None if e else sums_of_table(columns, table, found, observed, order, factor)
    return fit, found, means, sums_


def _to_units(Z, e):
    step = max(1, CHUNK_CELLS // Z.rows.width)
    for start in range(0, Z.n, step):
        Z.rows.put(start, np.ldexp(Z.rows.rows(slice(start, min(start + step, Z.n))), -2 * e))


def _facts_of_block(block, Wt, unit_H, sums, missing, loss):
    U = np.ascontiguousarray(Wt.T) * sums.astype(Wt.dtype)
    return facts_of(block.without_guesses(), U, unit_H, block.weights, missing, loss)
