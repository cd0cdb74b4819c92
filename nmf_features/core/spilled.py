"""A table larger than memory: rows and scores lie on disk, and a few blocks at a time are in memory."""

from copy import copy

import numpy as np

from .blocks import row_blocks
from .projection import unit_scores
from .spill import Spill
from .tables import DrawnTable, block_read

SCORES = 1 << 22  # so many exact scores are in memory at once


class SpilledTable(DrawnTable):
    """Rows in a :class:`Spill`, and their scores in others.

    Where cells can be missing, ``observed`` holds the observed share of each column, and ``means`` what is imputed at
    first.
    """

    def __init__(self, rows, n, drawn, weights=None, missing=None, observed=None, means=None, each=map, n_jobs=1):
        super().__init__(n, drawn, rows.dtype, missing, observed, means)
        self.spill, self.weights, self.each, self.n_jobs = rows, weights, each, n_jobs
        self.rows = row_blocks(_Shape(self.shape), self.k, self.per_row)
        self.n_blocks = len(self.rows)
        self.scores = {}

    def fresh(self):
        """Return a table of the same rows that will have its own scores."""
        other = copy(self)
        other.scores, other.precision, other.factors = {}, self.dtype, None
        return other

    def start(self, dtype, remembers):
        """Set all scores to zero; ``remembers`` says whether the scores of the previous pass are kept as well."""
        self.precision, self.factors = dtype, None
        self.scores = {kind: Spill(self.k, dtype) for kind in ("now", "before") if remembers or kind == "now"}

    def round_to(self, dtype):
        """Switch to another precision."""
        self._rescale_now()
        self.precision = dtype
        for kind, old in self.scores.items():
            if old.dtype != dtype:
                self.scores[kind] = self._copied(old, dtype)

    def map(self, function, *arguments):
        """Return function(block, Wt, *arguments) for every block, in order; it may change the scores Wt in place."""
        factors, self.factors = self.factors, None

        def of_block(rows):
            block, scores = self._block(rows).rounded(self.precision), self._scores(rows, factors)
            earlier = {kind: Wt.copy() for kind, Wt in scores.items()} if factors is None else {}
            block.before = scores.get("before")
            result = function(block, scores.get("now"), *arguments)
            for kind, Wt in scores.items():
                if kind not in earlier or not np.array_equal(Wt, earlier[kind]):  # many passes only read them
                    self._put(kind, rows, Wt)
            return result

        return self.each(of_block, self.rows)

    def replace_scores(self, H, strengths, loss):
        """Replace the scores by exact ones; return which components have a positive one, and the sums of loadings."""
        self._rescale_now()
        self.scores.pop("now", None)  # old memory is released before new is taken
        self.scores["now"], used = Spill(self.k, self.dtype), np.zeros(self.k, dtype=bool)
        step = -(-max(1, SCORES // self.k) // self.rows[0].stop)  # blocks at a time
        for i in range(0, self.n_blocks, step):
            blocks = self.rows[i : i + step]
            part = _Part(self.spill, blocks[0].start, blocks[-1].stop)
            U, sums = unit_scores(part, H, strengths.l1_W, strengths.l2_W, self.n_jobs, self.missing, loss=loss)
            used |= U.any(axis=0)
            for rows in blocks:
                Wt = (U[rows.start - part.start : rows.stop - part.start] / sums.astype(self.dtype)).T
                self._put("now", rows, Wt)
        return used, sums

    def keep(self):
        """Save the scores."""
        self._rescale_now()
        self.scores["kept"] = self._copied(self.scores["now"], self.precision)

    def take_back(self):
        """Restore the saved scores."""
        self._rescale_now()
        self.scores["now"] = self._copied(self.scores["kept"], self.precision)

    def _block(self, rows):
        weights = None if self.weights is None else self.weights.rows(rows)[:, 0]
        return block_read(self.spill.rows(rows), weights, rows, self.missing, self.means)

    def _scores(self, rows, factors):
        found = {}
        for kind in ("now", "before"):
            if kind in self.scores:
                found[kind] = self.scores[kind].rows(rows).reshape(self.k, -1)
                if factors is not None:
                    found[kind] *= factors[:, None].astype(self.precision)
        return found

    def _rescale_now(self):
        if self.factors is not None:
            factors, self.factors = self.factors, None
            for rows in self.rows:
                for kind, Wt in self._scores(rows, factors).items():
                    self._put(kind, rows, Wt)

    def _put(self, kind, rows, Wt):
        self.scores[kind].put(rows.start, Wt.reshape(-1, self.k))

    def _copied(self, old, dtype):
        new = Spill(self.k, dtype)
        for rows in self.rows:
            new.put(rows.start, old.rows(rows))
        return new


class _Part:
    """Some rows of a spill, which are read a slice at a time."""

    def __init__(self, spill, start, stop):
        self.spill, self.start, self.shape, self.dtype = spill, start, (stop - start, spill.width), spill.dtype

    def __getitem__(self, rows):
        first, last, _ = rows.indices(self.shape[0])
        return self.spill.rows(slice(self.start + first, self.start + last))


class _Shape:
    """What :func:`row_blocks` asks of a matrix."""

    def __init__(self, shape):
        self.shape = shape
