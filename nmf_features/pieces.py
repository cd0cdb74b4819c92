"""A fit to rows that are not in memory: every step is a sum over pieces of them.

    Pieces                what shift and scale ask of the columns
    scaled                shift, scale, and draw rows for samples and starts, in one read
    fit_pieces            loadings, and their canonical form

The pieces lie on disk (disk.py) or on the workers of a cluster (dask_tables.py).
"""

from dataclasses import dataclass

import numpy as np

from .column_facts import SLACK, sums
from .core.checks import check_tops
from .core.loss import Loss
from .core.losses import check_range
from .core.missing import Missing
from .core.penalties import Strengths
from .core.products import slices
from .core.samples import as_sample, draw
from .core.schedule import checked_init, fit_table
from .core.tables import MemoryTable
from .core.units import exponent_of
from .fitting import OPTIONS, facts_of, in_canonical_form
from .streams import sums_of_table

CHUNK_CELLS = 1 << 19  # of a piece: a few copies of it are in memory for each thread
DIGITS, BITS = 8, 8  # a quantile is found in so many reads, so many bits of it in each
# Of the rows that are drawn for samples and starts. It does not depend on the memory that happens to be free.
DRAWN_CELLS, LEAST_DRAWN = 1 << 21, 1 << 12
POOL_SHARE = 16  # they take at most this part of a memory budget that was given


class Pieces:
    """Raw rows in pieces, with positive weights or None, that answer for their columns as :class:`Matrix` does.

    A subclass knows where they are: ``sum`` adds what a function returns for each; ``scale`` replaces them by shifted
    and scaled ones, and returns facts and a draw of rows; ``table`` returns a Table of these; ``workers`` provides
    threads. ``n`` is the number of rows, ``dtype`` that of the cells, and ``ends`` the smallest and the largest value
    of every column, NaN if none is observed.
    """

    is_sparse = False

    def sum(self, function, *arguments):
        """Return the sums of the arrays that function(rows, weights, number of the first row, *arguments) returns."""
        raise NotImplementedError

    def extremes(self):
        """Return the smallest and the largest value of every column, NaN if none is observed."""
        return self.ends

    def negatives(self):
        """Return how many cells of every column are below zero."""
        return self.sum(_negatives)[0]

    def cut_off(self, upper):
        """Return the columns; who reads them cuts them off."""
        return self

    def means(self, function):
        """Return column means of a function of the rows, in float64."""
        total, count = self.sum(_sums, function)
        return total / np.where(count == 0, 1, count)

    def quantiles(self, shares, sign=1):
        """Return the quantiles of every column, times ``sign``: an array with a row for each share.

        They are exact. The bits of a number in order of size are found from the first to the last, a few in each read
        (radix selection).
        """
        found, wanted = np.zeros((len(shares), self.ends.shape[1]), np.uint64), None
        for digit in range(DIGITS):
            [counts] = self.sum(_counts, found, digit, sign)
            if wanted is None:  # the weight that must be reached
                whole = counts[0].sum(axis=1)
                wanted, slack = np.multiply.outer(shares, whole), SLACK * whole[:, None]
            reached, there = np.cumsum(counts, axis=2), counts > 0
            enough = there & (reached >= wanted[:, :, None] - slack)
            last = there.shape[2] - 1 - there[:, :, ::-1].argmax(axis=2)
            at = np.where(enough.any(axis=2), enough.argmax(axis=2), last)[:, :, None]
            wanted = wanted - np.take_along_axis(reached - counts, at, 2)[:, :, 0]
            at = at[:, :, 0]
            found = (found << np.uint64(BITS)) | at.astype(np.uint64)
        return np.where(whole == 0, 0.0, _from_bits(found))


def _negatives(X, v, first):
    return ((X < 0).sum(axis=0),)


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
    return (out,)


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


@dataclass(frozen=True)
class ScaledFacts:
    """What one read of the scaled rows tells."""

    n: int
    weight: float
    sums: np.ndarray  # of every column, weighted, over observed cells
    counts: np.ndarray  # the weight of these cells
    tops: np.ndarray
    holes: bool

    @classmethod
    def joined(cls, parts):
        """Return the facts of all pieces."""
        n, weight, sums_, counts, tops, holes = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(sum(n), sum(weight), sum(sums_), sum(counts), np.max(tops, axis=0), any(holes))


def scaled(X, v, first, columns, e, m, least):
    """Return the rows of a piece scaled, in units of 4^e and without empty ones, weights, facts, and a draw of m."""
    Z = columns.scale(X, "clip", True)
    if e:
        np.ldexp(Z, -2 * e, out=Z)
    missing = np.concatenate([np.isnan(Z[r]).sum(axis=1) for r in slices(Z)])
    if holes := bool(missing.any()):
        used = missing < columns.n_counted
        Z, v = Z[used], None if v is None else v[used]
    total, counts = sums(Z, lambda z: z, v)
    weight = float(len(Z) if v is None else v.sum())
    facts = ScaledFacts(len(Z), weight, total, counts, np.fmax.reduce(Z, axis=0, initial=0.0), holes)
    return Z, v, facts, draw(Z, v, first, m, columns.loss.power, least)


def fit_pieces(columns, pieces, arrange=None, watch=None):
    """Fit the model of these columns; return the Fit, its Components, means of the scaled columns, and its Sums."""
    model, loss, p, dtype = columns.model, columns.loss, columns.scaling.size, pieces.dtype
    top, init = columns.scaling.top, checked_init(columns.init, columns.n_components, p)
    check_range(top, loss, model.penalty, model.l1_ratio)
    if type(loss).best_constants is not Loss.best_constants:
        raise ValueError(
            f"loss={loss.name!r} has best_constants of its own, which take all rows at once, as medians do: they are "
            "not sums over pieces of X, which is larger than memory_budget or a table of Dask. Fit a sample of the "
            "rows, or another loss."
        )
    e = exponent_of(top, dtype, loss)
    cells = DRAWN_CELLS if model.memory_budget is None else min(DRAWN_CELLS, model.memory_budget // (8 * POOL_SHARE))
    facts, drawn = pieces.scale(columns, e, max(LEAST_DRAWN, cells // p))
    if facts.n == 0:
        raise ValueError("X has no observed cell in any row that counts: there is nothing to fit.")
    missing = Missing(columns.n_counted) if facts.holes else None
    if missing is not None:
        check_tops(facts.tops, dtype)
    strengths, unit = (Strengths.of(q, model.l1_ratio, facts.weight, columns.n_counted) for q in (model.penalty, 1.0))
    terms = Terms(p, dtype, top, e, missing, loss, strengths, unit, columns.width)
    means = facts.sums / np.where(facts.counts > 0, facts.counts, 1)
    observed = None if missing is None else facts.counts / facts.weight
    sample, weights = as_sample(drawn)
    with pieces.workers(facts.n) as each:

        def table_of(k, per_row):
            return pieces.table(
                facts.n, MemoryTable(sample, weights, missing, k, per_row, each), missing, observed, means
            )

        options = {name: getattr(model, name) for name in OPTIONS if name != "n_jobs"} | {"init": init}
        fit, table = fit_table(terms, table_of, columns.n_components, **options, watch=watch)
        unit_H = fit.H / fit.sums[:, None]
        found = table.sum_over(_facts_of_block, unit_H, np.ldexp(fit.sums, -e), missing, loss)
        order, found = in_canonical_form(found, e, fit.H, fit.sums, terms, observed, columns.n_counted, arrange)
        factor = np.ldexp(fit.sums[order], -e) / found.scales
        sums_ = None
        if not exponent_of(top, np.float64, loss):  # they are of float64, and leave its range late
            sums_ = sums_of_table(columns, table, found, observed, order, factor, e)
    return fit, found, np.ldexp(means, 2 * e), sums_


def _facts_of_block(block, Wt, unit_H, sums, missing, loss):
    U = np.ascontiguousarray(Wt.T) * sums.astype(Wt.dtype)
    return facts_of(block.without_guesses(), U, unit_H, block.weights, missing, loss)
