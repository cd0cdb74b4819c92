"""The problem of every row, given the loadings: least squares, and what other losses share with it.

    minimise over w >= 0:   1/2 w' A w - w' b,        A = H H' + l2,  b = H x - l1

Rows without missing cells share A. The others have one of their own, summed over the columns that are observed there.

Reference: J. Kim and H. Park (2011), Fast nonnegative matrix factorization: an active-set-like method
(block principal pivoting).
"""

import numpy as np
from scipy import sparse
from scipy.optimize import nnls

from .batches import batch_of, tile_rows
from .blocks import take
from .compiling import compiled_if_worth
from .kernels import nnls_rows, row_systems, unpacked
from .missing import Missing, leaves_out_unstored, observed_in_rows
from .products import gram

RIDGE, SINGULAR = 1e-12, 1e-15
OWN_CELLS = 1 << 17  # of grams that are in memory at once, where rows have their own
LITTLE = 1e-4  # of a difference, beside what it is one of: less has lost four digits


class RowProblems:
    """The problems of rows, given loadings H of distinct components, and their penalties."""

    def __init__(self, H, l1, l2, prior, missing, loss, n):
        self.H, self.l1, self.l2, self.prior, self.missing, self.loss = H, l1, l2, prior, missing, loss
        self.size, self.p = H.shape
        self.Ht = np.ascontiguousarray(H.T)
        self.diagonal = np.arange(0, self.size**2, self.size + 1)
        self.work = n * self.size**2
        self.nnls = compiled_if_worth(nnls_rows, self.work)
        self.unstored = leaves_out_unstored(missing)

    def scores(self, grams, B, guess=None):
        """Solve least squares: one gram for all rows, or one for each."""
        guess = np.ones(B.shape, dtype=bool) if guess is None else guess
        own = len(grams) > 1
        found, unsolved = self.nnls(grams, B, guess)
        for i in np.flatnonzero(unsolved):  # rounding kept the row from closing: another method for the few
            squares, V = np.linalg.eigh(grams[i] if own else grams[0])  # rounding may have made it indefinite
            roots = np.sqrt(np.maximum(squares, squares[-1] * SINGULAR))
            found[i] = nnls(roots[:, None] * V.T, V.T @ B[i] / roots)[0]
        return found

    def scores_of_own(self, grams, B, guess=None, ridge=None):
        """Solve least squares of rows that each have a gram of their own, rows of k^2 numbers, with a ridge."""
        diagonals = grams[:, self.diagonal]
        grams[:, self.diagonal] += RIDGE * diagonals.mean(axis=1, keepdims=True) if ridge is None else ridge
        grams[~diagonals.any(axis=1)] = np.eye(self.size).ravel()  # no component has a loading there: scores are zero
        grams = grams.reshape(-1, self.size, self.size)
        if len(B) > 1:
            return self.scores(grams, B, guess)
        twice = [None if q is None else np.repeat(q, 2, axis=0) for q in (grams, B, guess)]  # one gram would be shared
        return self.scores(*twice)[:1]

    def shares(self, batch):
        """Return which share of its cells is observed in every row."""
        return observed_in_rows(batch, self.missing or Missing(self.p))


class LeastSquares(RowProblems):
    """Least squares: rows without missing cells share a gram."""

    def __init__(self, *args):
        super().__init__(*args)
        self.gram = gram(self.H)
        self.gram.flat[self.diagonal] += RIDGE * self.gram.diagonal().mean() + self.l2

    def solve(self, X):
        """Return the scores of a batch of rows."""
        batch = batch_of(X)
        B = batch.times(batch.cells.astype(np.float64, copy=False), self.Ht)
        missing = self.unstored or not np.isfinite(B).all()
        complete = np.isfinite(B).all(axis=1) & (not self.unstored) if missing else None
        if self.l1.any():
            B -= self.l1
        if not missing:
            return self.scores(self.gram[None], B)
        found = np.empty_like(B)
        if complete.any():
            found[complete] = self.scores(self.gram[None], B[complete])
        found[~complete] = self.solve_incomplete(X[~complete])
        return found

    def solve_incomplete(self, rows):
        """Solve for rows that each have a gram of their own, summed over the columns observed there."""
        found, height = np.empty((rows.shape[0], self.size)), max(tile_rows(self.p), OWN_CELLS // self.size**2)
        for start in range(0, rows.shape[0], height):
            X = take(rows, slice(start, start + height))
            B, grams, observed = self.of_stored(X) if sparse.issparse(X) else self.of_dense(X)
            observed = observed[:, None]
            grams[:, self.diagonal] += observed * self.l2 + self.prior
            found[start : start + height] = self.scores_of_own(grams, B - observed * self.l1)
            found[start : start + height][observed[:, 0] <= 1e-12] = np.nan
        return found

    def of_dense(self, X):
        """Return H x and the sum of h h' over the observed columns of every row, and its observed share."""
        B, grams = np.empty((len(X), self.size)), np.empty((len(X), self.size, self.size))
        counts = np.empty(len(X))
        loop = compiled_if_worth(row_systems, self.work * self.p / 2)
        loop(np.ascontiguousarray(X, dtype=np.float64), self.H, B, grams, counts)
        n_counted = self.p if self.missing is None else self.missing.n_counted
        return B, grams.reshape(len(X), -1), 1 - (self.p - counts) / n_counted

    def of_stored(self, X):
        """Return the same for rows of a sparse matrix."""
        batch = batch_of(X)
        holes = np.isnan(batch.cells)
        B = batch.times(np.where(holes, 0.0, batch.cells), self.Ht)
        stored = (~holes if self.unstored else holes).astype(np.float64)
        grams = unpacked(batch.grams(stored, self.Ht, None), self.size).reshape(-1, self.size**2)
        if self.unstored:
            return B, grams, self.shares(X)
        # All columns, less those missing: where little is left it is summed anew.
        whole = self.gram.ravel().copy()
        whole[self.diagonal] -= self.l2
        grams = whole - grams
        little = (grams[:, self.diagonal] < LITTLE * whole[self.diagonal]).any(axis=1)
        rows, columns, _ = batch.places(holes)
        for i in np.flatnonzero(little):
            H = self.H.copy()
            H[:, columns[rows == i]] = 0
            grams[i] = gram(H).ravel()
        return B, grams, self.shares(X)
