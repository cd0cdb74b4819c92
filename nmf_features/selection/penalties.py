"""How much penalty: one fit after another, from no penalty to the one that empties the model, and what each costs."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, check_cv
from sklearn.preprocessing import StandardScaler
from sklearn.utils import _safe_indexing, check_random_state, column_or_1d
from sklearn.utils.validation import _num_samples

from .. import frames
from .._warn import numpy_defaults
from ..columns import Columns
from ..core.missing import leaves_out_unstored
from ..core.objective import divergence, loss_and_spread
from ..core.penalties import Strengths, balance
from ..core.projection import unit_scores
from ..fitting import problem_of
from ..targets import Targets
from . import runs
from .hidden import draw_splits

# Penalties of a path: how many per factor of ten, the first one, and the last one (also where the loss is infinite at
# zero), relative to the one at which an empty model costs as much as the column means do.
PER_DECADE, LOWEST, HIGHEST, NEVER_EMPTY = 4, 1e-3, 1e3, 10


@dataclass(frozen=True, eq=False)
class PenaltyPath:
    """What :func:`penalty_path` found.

    Attributes
    ----------
    table : pandas.DataFrame
        A row for every penalty, in increasing order: ``penalty``; ``n_alive``, components that are not zero;
        ``zero_loadings`` and ``zero_scores``, shares of zeros; ``error``, the loss over that of the column means;
        ``held_out_error`` and ``held_out_standard_error``, the same for hidden cells, over the splits; with ``y`` also
        ``score`` and ``score_standard_error``, of a linear model on the components, over the folds.
    scoring : str or None
        What ``score`` is: "r2" or "accuracy"; None without ``y``.
    """

    table: pd.DataFrame
    scoring: str | None


@numpy_defaults
def penalty_path(
    X: Any,
    n_components: int,
    penalties: Any = None,
    *,
    y: Any = None,
    sample_weight: Any = None,
    groups: Any = None,
    cv: Any = None,
    n_splits: int = 5,
    test_size: float = 0.1,
    max_samples: int | None = 10_000,
    random_state: Any = None,
    n_jobs: int | None = None,
    progress: bool = True,
    **params: Any,
) -> PenaltyPath:
    """Fit with one penalty after another, and see how the error and the number of zeros change.

    The penalties increase from 0, and each fit starts from the one before (with decreasing ones a component that an L1
    penalty has emptied would not come back).

    Parameters
    ----------
    X : frame, array-like or sparse matrix of shape (n_samples, n_features)
        The table, as for :class:`NMFFeatures`.
    n_components : int
        Number of components.
    penalties : array-like of float, optional
        Penalties to try, 0 or more; they are sorted. None: 0, then four to each factor of ten, until the model is empty
        (losses that are infinite at zero never let it become empty: until the penalty outweighs them tenfold).
    y : array-like of shape (n_samples,), optional
        Target: each penalty gets the score of a linear model on the components, linear regression with R^2, or
        logistic regression with accuracy where y is of words or booleans (integers are numbers), in cross-validation
        over rows (columns that are not factorised are left out of it). With ``target_weight`` above 0 the fits are
        guided by it as well, those of a fold by its training rows.
    sample_weight : array-like of shape (n_samples,), optional
        Weights of the rows, 0 or more, in the fits, the errors and the linear model. Rows of weight 0 are left out.
    groups : array-like of shape (n_samples,), optional
        A label for each row: rows of one group are in one fold, and their cells hidden together.
    cv : int, cross-validation generator or None, default None
        Folds for ``y``; None is 5, as in :func:`~sklearn.model_selection.cross_val_score`. A number means
        :class:`~sklearn.model_selection.GroupKFold` with ``groups``, for classes
        :class:`~sklearn.model_selection.StratifiedGroupKFold`.
    n_splits, test_size, max_samples, random_state, n_jobs, progress
        As in :func:`select_components`. n_splits=0: no cells are hidden.
    **params
        Any other parameter of :class:`NMFFeatures`; ``tol`` is 1e-4 if not given.

    Returns
    -------
    PenaltyPath
        With ``table`` and ``scoring``.

    Raises
    ------
    ValueError
        As :class:`NMFFeatures` does, and for penalties that are negative, not finite or none; for groups that are
        missing in some rows, or fewer than splits or folds.

    Notes
    -----
    To choose k and penalty together for a target, search over a pipeline with
    :class:`~sklearn.model_selection.GridSearchCV`.

    References
    ----------
    P. O. Hoyer (2004), Non-negative matrix factorization with sparseness constraints, Journal of Machine Learning
    Research 5 (why sparse loadings); J. Friedman, T. Hastie and R. Tibshirani (2010), Regularization paths for
    generalized linear models via coordinate descent, Journal of Statistical Software 33 (warm starts along the path).

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from nmf_features import penalty_path
    >>> X = load_wine(as_frame=True).data
    >>> path = penalty_path(X, 3, [0, 0.01, 0.1], n_splits=2, random_state=0)
    >>> path.table[["penalty", "zero_loadings"]].round(2)
       penalty  zero_loadings
    0     0.00           0.13
    1     0.01           0.13
    2     0.10           0.31
    """
    if "penalty" in params:
        raise TypeError("penalty_path() takes its penalties as penalties, not penalty.")
    k, given = runs.check_count(n_components), None if penalties is None else _check_penalties(penalties)
    X = frames.as_table(X)
    rng, n = check_random_state(random_state), _num_samples(X)
    X, y, weights, groups = runs.sampled(X, y, max_samples, rng, sample_weight, groups)
    if y is not None and _num_samples(X) < n and isinstance(cv, Iterable) and not hasattr(cv, "split"):
        raise ValueError(
            f"cv holds positions among {n} rows, of which max_samples={max_samples}, or weights of 0, leave "
            f"{_num_samples(X)}. Pass a number of folds or a splitter; or max_samples=None, and positive weights."
        )
    columns, Z = runs.scaled(X, k, n_jobs, params, weights, tol=3e-5)
    model = columns.model
    splits = draw_splits(Z, columns, n_splits, test_size, rng, weights, groups) if n_splits != 0 else []
    targets = Targets.of(model, y, X)
    folds, scoring = ([], None) if y is None else _folds(X, y, weights, groups, cv, model)

    def path(make_judge, penalties, seed, n_jobs, step, until_empty=False):
        judge, seen, start = make_judge(), [], model.init
        for penalty in penalties:
            problem = _penalised(judge.problem, penalty)
            fit = runs.fit(model, problem, columns.n_components, start, seed, n_jobs, step, judge.targets)
            seen.append(judge.see(fit, penalty))
            start = fit.H
            step()
            if until_empty and not fit.U.any():
                break
        return seen

    # First the fits to all cells, which say where the path ends; then those that judge it.
    whole, [seed] = _Whole(Z, columns, weights, targets), runs.seeds(rng, 1)
    first = partial(path, lambda: whole, given or whole.penalties(), seed, until_empty=given is None)
    [seen] = runs.run([first], None if given is None else len(given), "penalties", n_jobs, progress)
    table = pd.DataFrame(seen)
    judges = [partial(make, targets) for make in splits] + [partial(_Fold, *fold) for fold in folds]
    tasks = [
        partial(path, make, table["penalty"], seed)
        for make, seed in zip(judges, runs.seeds(rng, len(judges)), strict=True)
    ]
    judged = np.array(runs.run(tasks, len(tasks) * len(table), "hidden cells and folds", n_jobs, progress))
    runs.warn_of_passes(table.pop("converged").tolist(), model)
    if splits:
        table["held_out_error"], table["held_out_standard_error"] = _mean_and_error(judged[: len(splits)])
    if folds:
        table["score"], table["score_standard_error"] = _mean_and_error(judged[len(splits) :])
    return PenaltyPath(table, scoring)


def _check_penalties(penalties):
    values = np.unique(np.asarray(penalties, dtype=np.float64).ravel())
    if not len(values) or not np.isfinite(values).all() or values[0] < 0:
        raise ValueError(f"penalties is {penalties!r}; wanted finite numbers, 0 or more, at least one.")
    return values.tolist()


def _penalised(problem, penalty):
    """Return the problem with another penalty."""
    return replace(problem, strengths=Strengths(*(penalty * q for q in problem.unit)))


def _mean_and_error(seen):
    """Return the mean over the first axis, and its standard error (NaN for one)."""
    spread = seen.std(axis=0, ddof=1) if len(seen) > 1 else np.nan
    return seen.mean(axis=0), spread / np.sqrt(len(seen))


class _Whole:
    """The problem of all cells, and what a fit to it looks like."""

    def __init__(self, Z, columns, weights, targets):
        self.problem, self.counted, self.targets = problem_of(columns, Z, weights), columns.counted, targets
        self.means = self.problem.loss.best_constants(Z, weights, self.problem.missing)

    def see(self, fit, penalty):
        """Return a row of the table."""
        X, v, H = self.problem.X, self.problem.weights, fit.H / fit.sums[:, None]
        error, spread = loss_and_spread(X, fit.U, H, self.means, self.problem.loss, v, self.problem.missing)
        return {
            "penalty": penalty,
            "n_alive": int((fit.U.any(axis=0) & H.any(axis=1)).sum()),
            "zero_loadings": np.mean(H[:, self.counted] == 0),
            "zero_scores": np.average((fit.U == 0).mean(axis=1), weights=v),
            "error": error / spread if spread else np.nan,
            "converged": fit.converged,
        }

    def penalties(self):
        """Return 0, and penalties around the one at which an empty model costs as much as the column means do."""
        X, unit, weights = self.problem.X, self.problem.unit, self.problem.weights
        ones, means = np.ones((X.shape[0], 1)), self.means[None]
        n = np.array([X.shape[0] if weights is None else weights.sum()])
        c = balance(n, n, means, unit)
        unstored = leaves_out_unstored(self.problem.missing)
        value = partial(divergence, X, loss=self.problem.loss, weights=weights, unstored=unstored)
        of_means, of_nothing = value(ones, means), value(0 * ones, 0 * means)
        finite = np.isfinite(of_nothing)
        even = (of_nothing - of_means if finite else of_means) / unit.cost(ones * c, means / c, weights)
        top = HIGHEST if finite else NEVER_EMPTY
        return [0.0, *even * np.geomspace(LOWEST, top, 1 + round(PER_DECADE * np.log10(top / LOWEST)))]


class _Fold:
    """The problem of some rows, and how well a linear model on the components predicts ``y`` in the others."""

    def __init__(self, problem, others, y, y_others, v_others, targets):
        self.problem, self.others, self.targets = problem, others, targets
        self.y, self.y_others, self.v_others = y, y_others, v_others

    def see(self, fit, penalty):
        """Return the score of the other rows."""
        q = _penalised(self.problem, penalty).strengths
        W = unit_scores(self.others, fit.H, q.l1_W, q.l2_W, 1, self.problem.missing, loss=self.problem.loss)[0]
        v = self.problem.weights
        W = np.where(np.isnan(W), np.average(fit.U, axis=0, weights=v), W)  # rows with nothing observed
        linear = LogisticRegression(solver="newton-cholesky") if _is_classes(self.y) else LinearRegression()
        scaler = StandardScaler().fit(fit.U, sample_weight=v)
        linear.fit(scaler.transform(fit.U), self.y[self.problem.used], sample_weight=v)
        return linear.score(scaler.transform(W), self.y_others, sample_weight=self.v_others)


def _is_classes(y):
    return y.dtype.kind not in "iuf"


def _folds(X, y, weights, groups, cv, model):
    """Return the arguments of a _Fold for each fold, and the name of the score."""
    y = column_or_1d(np.asarray(y), warn=False)
    if missing := int(pd.isna(y).sum()):
        raise ValueError(f"y is missing in {missing} rows, by which penalties are judged: leave these rows out.")
    if model.target_type in ("binary", "multiclass"):
        y = y.astype(str)
    classes = _is_classes(y)
    if not classes and not np.isfinite(y).all():
        raise ValueError("y has NaN or infinite values; wanted finite numbers, or classes as words or booleans.")
    folds = []
    cv = 5 if cv is None else cv
    if groups is not None and isinstance(cv, Integral):
        cv = StratifiedGroupKFold(cv) if classes else GroupKFold(cv)
    for train, test in check_cv(cv, y, classifier=classes).split(np.zeros((len(y), 1)), y, groups):
        v, v_test = (None, None) if weights is None else (weights[train], weights[test])
        own = clone(model).set_params(out_of_range="clip")
        with warnings.catch_warnings():  # these warnings were given for all rows
            warnings.simplefilter("ignore")
            learned = Columns.learn(own, _safe_indexing(X, train), v)
            others = learned.columns.scaled(learned.columns.checked(_safe_indexing(X, test)))
        targets = Targets.of(model, y[train], train)
        folds.append((problem_of(learned.columns, learned.X, v), others, y[train], y[test], v_test, targets))
    return folds, "accuracy" if classes else "r2"
