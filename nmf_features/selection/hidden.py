"""Hidden cells: which ones each split hides, the fit to the others, and how well it predicts the hidden ones.

    Split       hides cells here and there: they are missing in the fit
    RowSplit    leaves rows out of the fit, then hides a part of their columns at a time: for very sparse data, where
                marks of hidden zeros would outnumber what is stored

The cells of a column in the rows of one group are hidden together, since one row may tell what the other hides.

References: S. Wold (1978), Cross-validatory estimation of the number of components in factor and principal components
models, Technometrics 20; A. B. Owen and P. O. Perry (2009), Bi-cross-validation of the SVD and the nonnegative matrix
factorization, Annals of Applied Statistics 3; H. M. Wallach, I. Murray, R. Salakhutdinov and D. Mimno (2009),
Evaluation methods for topic models, ICML (one part of a document predicts the other).
"""

from functools import partial
from numbers import Integral, Real

import numpy as np
from scipy import sparse

from ..column_facts import Matrix, common_values
from ..core.blocks import rows_of_stored
from ..core.missing import leaves_out_unstored
from ..core.objective import divergence, spread_of
from ..core.products import inner, weighted_sum
from ..core.projection import unit_scores
from ..fitting import problem_of
from ..scaling import Scaling
from .runs import seeds

LEAST_SHARE = 0.01  # of its column's mean: the least that is predicted, where the loss is infinite at zero
RARE = 0.01  # where no more of a column's cells differ from the others, these few, scaled up, would decide


def draw_splits(Z, columns, n_splits, test_size, rng, weights=None, groups=None):
    """Return a function for each split that makes it, from targets and the rows in which these are to be hidden."""
    if not isinstance(n_splits, Integral) or isinstance(n_splits, bool) or n_splits < 2:
        raise ValueError(f"n_splits is {n_splits!r}; wanted a whole number, 2 or more.")
    if not isinstance(test_size, Real) or not 0 < test_size * n_splits <= 1:
        raise ValueError(
            f"test_size is {test_size!r} with n_splits={n_splits}; wanted a share above 0 and at most 1 / n_splits, as "
            "no cell is hidden twice."
        )
    if groups is not None and groups.max() + 1 < n_splits:
        raise ValueError(
            f"groups has {groups.max() + 1} different labels; wanted at least n_splits={n_splits}. Lower n_splits, or "
            "pass smaller groups."
        )
    stored_only = columns.model.missing_values == "unstored"
    if sparse.issparse(Z) and not stored_only and Z.nnz < test_size * Z.shape[0] * columns.n_counted:
        generator = np.random.default_rng(seeds(rng, 1)[0])
        parts = np.array_split(generator.permutation(np.flatnonzero(columns.counted)), n_splits)
        left_out = draw_rows(Z.shape[0], groups, n_splits, None, generator)
        return [partial(RowSplit, Z, rows, parts, columns, weights) for rows in left_out]
    hidden = draw_cells(Z, columns, n_splits, test_size, rng, weights, groups)
    return [partial(Split, Z, cells, columns, weights) for cells in hidden]


def without_rare(Z, columns, weights=None):
    """Return dense Z with zeros in the rare columns, which are set aside, as constant ones are, unless all are rare."""
    rare = _rare(Z, columns, weights) & ~columns.scaling.constant
    if not rare.any() or (rare | columns.scaling.constant).all() or not columns.loss.takes_zeros:
        return Z
    columns.scaling.constant = columns.scaling.constant | rare
    return np.where(columns.counted, Z, np.asarray(0, Z.dtype))


def _rare(Z, columns, weights):
    """Return which chosen columns are nearly constant."""
    shares = common_values(Matrix(Z, weights, columns.model.missing_values == "unstored"))[1]
    return (shares >= 1 - RARE).reshape(-1, columns.width).all(axis=1)


def draw_rows(n, groups, n_splits, share, rng):
    """Draw a share of the rows for each split, none twice; or the rows of a share of the groups. None: all of them."""
    n = n if groups is None else groups.max() + 1
    parts = np.array_split(rng.permutation(n)[: share and max(1, int(share * n)) * n_splits], n_splits)
    return parts if groups is None else [np.flatnonzero(np.isin(groups, part)) for part in parts]


def draw_cells(Z, columns, n_splits, test_size, rng, weights=None, groups=None):
    """Draw the cells that each split hides: positions among the stored cells if only these count, else in the table.

    What is drawn are keys, group * p + column, where every row is a group of its own unless there are groups.
    """
    generator, p = np.random.default_rng(seeds(rng, 1)[0]), Z.shape[1]
    stored_only = sparse.issparse(Z) and columns.model.missing_values == "unstored"
    asked = columns.counted & ~np.repeat(_rare(Z, columns, weights), columns.width)
    asked = np.flatnonzero(asked if asked.any() else columns.counted)
    groups = np.arange(Z.shape[0]) if groups is None else groups
    if stored_only:
        places = np.flatnonzero(~np.isnan(Z.data) & np.isin(Z.indices, asked))
        key_of_place = groups[rows_of_stored(Z, places)] * p + Z.indices[places]
        keys = np.unique(key_of_place)
    elif sparse.issparse(Z):
        keys = range((groups.max() + 1) * len(asked))  # not yet p columns
    else:
        observed = ~np.isnan(Z[:, asked])
        if columns.model.shift == "split":  # one half of a column reveals the other: both are hidden together
            observed[:, asked % 2 == 1] = False
        rows, at = np.nonzero(observed)
        keys = np.unique(groups[rows] * p + asked[at])
    each = int(max(1, test_size * len(keys)))
    if each * n_splits > len(keys):
        raise ValueError(f"X has {len(keys)} observed cells; wanted at least one for each of n_splits={n_splits}.")
    drawn = generator.choice(len(keys), each * n_splits, replace=False)
    if isinstance(keys, range):
        group, column = np.divmod(drawn, len(asked))
        drawn = group * p + asked[column]
    else:
        drawn = keys[drawn]
    parts = np.split(drawn, n_splits)
    if stored_only:
        return [places[np.isin(key_of_place, part)] for part in parts]
    parts = [_cells_of(part, groups, p) for part in parts]
    if not sparse.issparse(Z):
        parts = [cells[~np.isnan(Z.ravel()[cells])] for cells in parts]
    return [np.concatenate([cells, cells + 1]) for cells in parts] if columns.model.shift == "split" else parts


def _cells_of(keys, groups, p):
    """Return the positions of all cells with these keys."""
    group, column = np.divmod(keys, p)
    order, sizes = np.argsort(groups, kind="stable"), np.bincount(groups)
    first, size = (np.cumsum(sizes) - sizes)[group], sizes[group]
    within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
    return order[np.repeat(first, size) + within] * p + np.repeat(column, size)


class Split:
    """The problem that is left when some cells are hidden, and how well a fit predicts these.

    Of ``targets``, if there are any, those of some ``rows`` are hidden as well.
    """

    def __init__(self, Z, cells, columns, weights=None, targets=None, rows=()):
        self.weights, self.whole_targets = weights, targets
        self.targets = targets and targets.without(rows)
        unstored = columns.model.missing_values == "unstored"
        train, self.rows, self.columns, self.values = hide(Z, cells, unstored)
        learned = Scaling.learn(train, None, None, range(Z.shape[1]), unstored=unstored)
        self.problem = problem_of(columns, train, weights)
        self.loss = self.problem.loss
        means = self.loss.best_constants(train, weights, self.problem.missing)
        # Left out: cells that are missing anyway (in sparse data), and columns in which nothing else is observed.
        asked = ~np.isnan(self.values) & ~np.isnan(learned.minimum[self.columns])
        if not self.loss.spares_zeros:  # nor columns of zeros alone
            asked &= means[self.columns] > 0
        self.rows, self.columns, self.values = self.rows[asked], self.columns[asked], self.values[asked]
        self.v = None if weights is None else weights[self.rows]
        self.means, self.lowest, self.highest = (v[self.columns] for v in (means, learned.minimum, learned.maximum))
        if not self.loss.spares_zeros:  # the loss is infinite where zero is predicted for a positive cell
            self.lowest = np.maximum(self.lowest, LEAST_SHARE * self.means)
        self.spread, self.seen = self._loss(self.means), None
        if not self.spread > 0:
            raise ValueError("X is too small, or too nearly constant: the hidden cells are all equal to column means.")

    def see(self, fit, penalty=None):
        """Return the loss on the hidden cells, relative to that of the column means."""
        return self._loss(self.fitted(fit)) / self.spread

    def fitted(self, fit):
        """Return what a fit predicts for the hidden cells."""
        if self.seen is not fit:  # two questions are asked about each
            W = self._scores(fit)
            fitted = np.einsum("ct,ct->c", W[self.rows], (fit.H / fit.sums[:, None]).T[self.columns])
            fitted = np.where(np.isnan(fitted), self.means, fitted)  # rows in which nothing else is observed
            self.seen, self.fitted_of_seen = fit, np.clip(fitted, self.lowest, self.highest)
        return self.fitted_of_seen

    def negative_log_likelihood(self, fit):
        """Return the mean over the hidden cells; None where the loss belongs to no distribution."""
        # Where nothing is predicted, any count would be impossible.
        fitted = np.maximum(self.fitted(fit), LEAST_SHARE * self.means)
        found = self.loss.negative_log_likelihood(self.values, fitted)
        return None if found is None else float(np.average(found, weights=self.v))

    def see_targets(self, fit):
        """Return what scores leave unexplained of hidden targets, relative to constants; None without targets."""
        return self.targets and self.targets.unexplained(self._scores(fit), self.whole_targets, self.weights)

    def _scores(self, fit):
        W = np.full((len(self.problem.used), len(fit.H)), np.nan)
        W[self.problem.used] = fit.U
        return W

    def _loss(self, fitted):
        top = max(self.values.max(initial=0.0), self.means.max(initial=0.0))
        unit = top if self.loss.homogeneous else 1.0  # so that no square overflows
        return weighted_sum(self.loss.of_cells(self.values / unit, fitted / unit), self.v) if top > 0 else 0.0


class RowSplit:
    """The problem that is left without some rows, and how well a fit predicts these, a part of the columns at a time.

    The scores of a row come from its other columns. The targets of the rows are hidden; which others are to be does
    not matter.
    """

    def __init__(self, Z, rows, parts, columns, weights=None, targets=None, _=()):
        self.left = np.ones(Z.shape[0], dtype=bool)
        self.left[rows] = False
        self.X, self.weights, self.counted = Z[~self.left], weights, columns.counted
        self.v, v = (None, None) if weights is None else (weights[~self.left], weights[self.left])
        self.whole_targets, self.hidden_targets = targets, targets and targets.without(np.flatnonzero(~self.left))
        self.targets = targets and targets.chosen(self.left)
        self.problem = problem_of(columns, Z[self.left], v)
        self.loss, self.missing = self.problem.loss, columns.missing(Z)
        self.means = self.loss.best_constants(self.problem.X, self.problem.weights, self.problem.missing)
        # Left out, unless the loss takes it: columns of zeros alone.
        self.parts = parts if self.loss.spares_zeros else [part[self.means[part] > 0] for part in parts]
        self.spread = sum(
            spread_of(self.X[:, part], self.means[part], self.loss, self.v, leaves_out_unstored(self.missing))
            for part in self.parts
        )
        self.seen = None
        if not self.spread > 0:
            raise ValueError("X is too small, or too nearly constant: the hidden cells are all equal to column means.")

    def see(self, fit, penalty=None):
        """Return the loss on the hidden cells, relative to that of the column means."""
        return self._loss(fit) / self.spread

    def negative_log_likelihood(self, fit):
        """Return the mean over the hidden cells; None where the loss belongs to no distribution."""
        X = self.X[:, np.concatenate(self.parts)]
        x = np.append(X.data, 0.0)
        found = self.loss.negative_log_likelihood(x, np.ones(len(x)))
        if found is None:
            return None
        # It is the loss, and what does not depend on the fit: so the fit may be 1 there.
        others = found - self.loss.of_cells(x, np.ones(len(x)))
        v = np.ones(X.shape[0]) if self.v is None else self.v
        v_of_cell, known = np.repeat(v, np.diff(X.indptr)), ~np.isnan(X.data)
        n_cells = v.sum() * X.shape[1] - v_of_cell[~known].sum()
        rest = inner(v_of_cell[known], others[:-1][known]) + others[-1] * (n_cells - v_of_cell[known].sum())
        return (self._loss(fit) + rest) / n_cells

    def see_targets(self, fit):
        """Return what scores leave unexplained of hidden targets, relative to constants; None without targets."""
        if self.targets is None:
            return None
        W = np.full((len(self.left), len(fit.H)), np.nan)
        W[np.flatnonzero(self.left)[self.problem.used]] = fit.U / fit.sums
        W[~self.left] = self._scores(fit, np.ones(len(self.counted), dtype=bool))
        return self.hidden_targets.unexplained(W, self.whole_targets, self.weights)

    def _scores(self, fit, seen):
        """Return the scores of the rows, from the columns that are seen."""
        q, n_seen = self.problem.strengths, int(self.counted[seen].sum())
        missing, share = self.missing and self.missing._replace(n_counted=n_seen), n_seen / self.counted.sum()
        U, sums = unit_scores(
            self.X[:, seen], fit.H[:, seen], q.l1_W * share, q.l2_W * share, 1, missing, loss=self.loss
        )
        return U / sums

    def _loss(self, fit):
        if self.seen is not fit:  # two questions are asked about each
            self.seen, self.loss_of_seen = fit, self._loss_of(fit)
        return self.loss_of_seen

    def _loss_of(self, fit):
        total = 0.0
        for part in self.parts:
            seen = np.ones(len(self.counted), dtype=bool)
            seen[part] = False
            W = self._scores(fit, seen)
            unknown = np.isnan(W[:, :1])  # nothing else is observed: the means are predicted
            mixed = 0.0 if self.loss.spares_zeros else LEAST_SHARE  # where the loss is infinite at zero
            W = np.hstack([np.where(unknown, 0, (1 - mixed) * W), np.where(unknown, 1, mixed)])
            H = np.vstack([fit.H[:, part], self.means[part]])
            total += divergence(self.X[:, part], W, H, self.loss, self.v, leaves_out_unstored(self.missing))
        return total


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
