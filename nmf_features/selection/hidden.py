"""Hidden cells: which ones each split hides, the fit to the others, and how well it predicts the hidden ones.

Reference: S. Wold (1978), Cross-validatory estimation of the number of components in factor and principal components
models, Technometrics 20.
"""

from numbers import Integral, Real

import numpy as np
from scipy import sparse

from ..core.blocks import rows_of_stored
from ..fitting import problem_of
from ..scaling import Scaling
from .runs import seeds

LEAST_SHARE = 0.01  # of its column's mean: the least that is predicted, where the loss is infinite at zero


def draw_cells(Z, columns, n_splits, test_size, rng):
    """Draw the cells that each split hides: positions among the stored cells if only these count, else in the table."""
    if not isinstance(n_splits, Integral) or isinstance(n_splits, bool) or n_splits < 2:
        raise ValueError(f"n_splits is {n_splits!r}; wanted a whole number, 2 or more.")
    if not isinstance(test_size, Real) or not 0 < test_size * n_splits <= 1:
        raise ValueError(
            f"test_size is {test_size!r} with n_splits={n_splits}; wanted a share above 0 and at most 1 / n_splits, as "
            "no cell is hidden twice."
        )
    generator, counted = np.random.default_rng(seeds(rng, 1)[0]), columns.counted
    stored_only, most = sparse.issparse(Z) and columns.model.missing_values == "unstored", np.inf
    if stored_only:
        places = np.flatnonzero(~np.isnan(Z.data) & counted[Z.indices])
    elif sparse.issparse(Z):
        places, most = range(Z.shape[0] * int(counted.sum())), Z.nnz
    else:
        places = np.flatnonzero(~np.isnan(Z) & counted)
        if columns.model.shift == "split":  # one half of a column reveals the other: both are hidden together
            places = places[places % 2 == 0]
    each = int(max(1, min(test_size * len(places), most)))
    if each * n_splits > len(places):
        raise ValueError(f"X has {len(places)} observed cells; wanted at least one for each of n_splits={n_splits}.")
    drawn = generator.choice(len(places), each * n_splits, replace=False)
    if isinstance(places, range):  # from positions among the counted columns to all columns
        row, column = np.divmod(drawn, counted.sum())
        drawn = row * Z.shape[1] + np.flatnonzero(counted)[column]
    else:
        drawn = places[drawn]
    parts = np.split(drawn, n_splits)
    return [np.concatenate([cells, cells + 1]) for cells in parts] if columns.model.shift == "split" else parts


class Split:
    """The problem that is left when some cells are hidden, and how well a fit predicts these.

    Of ``targets``, if there are any, those of some ``rows`` are hidden as well.
    """

    def __init__(self, Z, cells, columns, targets=None, rows=()):
        self.whole_targets, self.targets = targets, targets and targets.without(rows)
        unstored = columns.model.missing_values == "unstored"
        train, self.rows, self.columns, self.values = hide(Z, cells, unstored)
        learned = Scaling.learn(train, None, None, range(Z.shape[1]), unstored=unstored)
        self.problem = problem_of(columns, train)
        self.loss = self.problem.loss
        means = self.loss.best_constants(train, None, self.problem.missing)
        # Left out: cells that are missing anyway (in sparse data), and columns in which nothing else is observed.
        asked = ~np.isnan(self.values) & ~np.isnan(learned.minimum[self.columns])
        if not self.loss.spares_zeros:  # nor columns of zeros alone
            asked &= means[self.columns] > 0
        self.rows, self.columns, self.values = self.rows[asked], self.columns[asked], self.values[asked]
        self.means, self.lowest, self.highest = (v[self.columns] for v in (means, learned.minimum, learned.maximum))
        if not self.loss.spares_zeros:  # the loss is infinite where zero is predicted for a positive cell
            self.lowest = np.maximum(self.lowest, LEAST_SHARE * self.means)
        self.spread = self._loss(self.means)
        if not self.spread > 0:
            raise ValueError("X is too small, or too nearly constant: the hidden cells are all equal to column means.")

    def see(self, fit, penalty=None):
        """Return the loss on the hidden cells, relative to that of the column means."""
        return self._loss(self.fitted(fit)) / self.spread

    def fitted(self, fit):
        """Return what a fit predicts for the hidden cells."""
        W = self._scores(fit)
        fitted = np.einsum("ct,tc->c", W[self.rows], (fit.H / fit.sums[:, None])[:, self.columns])
        fitted = np.where(np.isnan(fitted), self.means, fitted)  # rows in which nothing else is observed
        return np.clip(fitted, self.lowest, self.highest)

    def negative_log_likelihood(self, fit):
        """Return the mean over the hidden cells; None where the loss belongs to no distribution."""
        # Where nothing is predicted, any count would be impossible.
        fitted = np.maximum(self.fitted(fit), LEAST_SHARE * self.means)
        found = self.loss.negative_log_likelihood(self.values, fitted)
        return None if found is None else float(found.mean())

    def see_targets(self, fit):
        """Return what scores leave unexplained of hidden targets, relative to constants; None without targets."""
        return self.targets and self.targets.unexplained(self._scores(fit), self.whole_targets)

    def _scores(self, fit):
        W = np.full((len(self.problem.used), len(fit.H)), np.nan)
        W[self.problem.used] = fit.U
        return W

    def _loss(self, fitted):
        top = max(self.values.max(initial=0.0), self.means.max(initial=0.0))
        unit = top if self.loss.homogeneous else 1.0  # so that no square overflows
        return float(self.loss.of_cells(self.values / unit, fitted / unit).sum()) if top > 0 else 0.0


def hide(Z, cells, stored_only):
    """Return Z without some cells, and the rows, columns and values of these."""
    if not sparse.issparse(Z):
        rows, columns = np.divmod(cells, Z.shape[1])
        train = Z.copy()
        train[rows, columns] = np.nan
        return train, rows, columns, Z[rows, columns].astype(np.float64)
    if stored_only:
        rows, columns, values = rows_of_stored(Z, cells), Z.indices[cells], Z.data[cells]
        left = np.ones(Z.nnz, dtype=bool)
        left[cells] = False
        counts = np.bincount(rows_of_stored(Z, np.flatnonzero(left)), minlength=Z.shape[0])
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(Z.indptr.dtype)
        train = sparse.csr_array((Z.data[left], Z.indices[left], starts), shape=Z.shape)
        return train, rows, columns, values.astype(np.float64)
    rows, columns = np.divmod(cells, Z.shape[1])
    values = np.asarray(Z[rows, columns]).ravel().astype(np.float64)
    holes = sparse.coo_array((np.full(len(rows), np.nan, Z.dtype), (rows, columns)), shape=Z.shape)
    return (Z + holes).tocsr(), rows, columns, values
