"""Raw and scaled rows of a table larger than memory, in a temporary file (core/spill.py)."""

from contextlib import contextmanager

import numpy as np

from .core.samples import merge_drawn, taken
from .core.spill import Spill
from .core.spilled import SpilledTable
from .core.threads import workers
from .pieces import CHUNK_CELLS, Pieces, ScaledFacts, scaled

AT_ONCE = 8  # pieces


class PiecesOnDisk(Pieces):
    """Rows in a temporary file, read a piece at a time by ``n_jobs`` threads."""

    def __init__(self, width, dtype, weighted, n_jobs):
        self.rows, self.weights = Spill(width, dtype), Spill(1, np.float64) if weighted else None
        self.n, self.dtype, self.n_jobs, self.each = 0, np.dtype(dtype), n_jobs, map
        self.ends = np.full((2, width), np.nan)

    def append(self, X, weights=None):
        """Add rows."""
        for i, extreme in enumerate((np.fmin, np.fmax)):
            self.ends[i] = extreme(self.ends[i], extreme.reduce(X, axis=0, initial=np.nan))
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
            for start in range(0, len(pieces), AT_ONCE):  # so that results do not pile up
                yield from each(of_piece, pieces[start : start + AT_ONCE])

    def sum(self, function, *arguments):
        """Return the sums of the arrays that function(rows, weights, number of the first row, *arguments) returns."""
        parts = self.map(function, *arguments)
        totals = list(next(parts))
        for part in parts:  # one at a time: each may be large
            totals = [total + term for total, term in zip(totals, part, strict=True)]
        return totals

    def scale(self, columns, e, m):
        """Scale all rows, in units of 4^e, in place where the width stays; return their facts, and a draw of m."""
        rows = self.rows if columns.width == 1 else Spill(columns.scaling.size, self.dtype)
        n, parts, drawn, least = 0, [], [], [(np.inf, np.inf)]

        def of_piece(X, v, first):
            Z, v, facts, drawn = scaled(X, v, first, columns, e, m, least[0])
            return Z, v, facts, taken(drawn, Z)

        for Z, v, facts, part in self.map(of_piece):
            rows.put(n, Z)  # behind what has been read
            if v is not None:
                self.weights.put(n, v[:, None])
            n += len(Z)
            parts.append(facts)
            drawn.append(part)
            if sum(len(part.rows) for part in drawn) > 3 * m:
                drawn = [merge_drawn(drawn, m)]
                least[0] = drawn[0].least
        self.rows, self.n = rows, n
        return ScaledFacts.joined(parts), merge_drawn(drawn, m)

    @contextmanager
    def workers(self, n):
        """Provide threads for passes over n rows."""
        with workers(self.n_jobs, max(1, n * self.rows.width // CHUNK_CELLS)) as self.each:
            yield self.each

    def table(self, n, drawn, missing, observed, means):
        """Return the table of the scaled rows."""
        return SpilledTable(
            self.rows, n, drawn, self.weights, missing, observed, means, each=self.each, n_jobs=self.n_jobs
        )
