"""How many components: some cells are hidden, the others factorised, and the hidden ones predicted.

References: A. B. Owen and P. O. Perry (2009), Bi-cross-validation of the SVD and the nonnegative matrix factorization,
Annals of Applied Statistics 3; S. Wold (1978), Cross-validatory estimation of the number of components in factor and
principal components models, Technometrics 20.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.utils import check_random_state

from .._warn import numpy_defaults, warn_user
from ..core.blocks import block_of
from ..core.products import product
from ..targets import Targets
from . import runs
from .hidden import draw_rows, draw_splits, without_rare

# Errors that differ by a smaller share, or by ten times ``tol`` but at most 1 %, are equal: fits end no nearer.
LEAST_TIE, MOST_TIE = 1e-6, 0.01
TOL = 1e-3  # the splits differ by more than what smaller tolerances gain; larger ones would try one start alone
POWER_STEPS = 4  # towards a singular vector: it is only a start


@dataclass(frozen=True, eq=False)
class ComponentSelection:
    """What :func:`select_components` found.

    Attributes
    ----------
    n_components : int
        The choice: the smallest number whose error is within one standard error (of the differences, split by split)
        of the least, or within ten times ``tol``, at most 1 %, of it. With a target, ``target_weight`` times its error
        is added.
    table : pandas.DataFrame
        A row for every number of components and split: ``n_components``, ``split``, ``error``. The error is the loss on
        the hidden cells, relative to that of the column means: 1 is no better than these. With a target also
        ``target_error``, the same for targets that were hidden. For losses that belong to a distribution also
        ``negative_log_likelihood``, the mean over the hidden cells (never predicted below a hundredth of the column
        mean), by which such losses, and their parameters, can be compared.
    summary : pandas.DataFrame
        A row for every number of components: ``n_components``, ``error`` (mean over the splits), ``difference`` to the
        least mean error and its ``standard_error``; ``target_error`` and ``negative_log_likelihood``, where there are
        any. With a target, the difference is that of both errors, weighted.
    """

    n_components: int
    table: pd.DataFrame
    summary: pd.DataFrame


@numpy_defaults
def select_components(
    X: Any,
    n_components: Any = None,
    *,
    y: Any = None,
    sample_weight: Any = None,
    groups: Any = None,
    n_splits: int = 5,
    test_size: float = 0.1,
    max_samples: int | None = 10_000,
    random_state: Any = None,
    n_jobs: int | None = None,
    progress: bool = True,
    **params: Any,
) -> ComponentSelection:
    """Choose the number of components by hiding cells and predicting them.

    In each split a share of the cells is hidden at random, different cells each time. The rest is factorised with 1, 2,
    3, ... components, each fit starting from the one before, and predicts the hidden cells. Too few components miss
    structure, too many follow the noise of the cells they see. The choice is the smallest number that is within one
    standard error of the best, split by split.

    Columns whose cells are all equal but for 1 % are set aside, as constant ones are: these few, scaled up, would
    decide. (In sparse data they are fitted, but none of their cells is hidden.)

    Of sparse data that store less than the share ``test_size`` each split leaves out 1 / ``n_splits`` of the rows, and
    then hides as large a part of their columns at a time, predicted from the others. Nothing becomes dense, and all
    zeros count.

    Parameters
    ----------
    X : frame, array-like or sparse matrix of shape (n_samples, n_features)
        The table, as for :class:`NMFFeatures`, which shifts and scales it (once, before cells are hidden). Note that
        ``shift="min"`` can ask for one component more than the table was made of, to stand for what was subtracted.
    n_components : iterable of int, optional
        Numbers of components to try. None: 1 to 10, or to the number of columns where these are fewer.
    y : array-like of shape (n_samples,) or (n_samples, n_targets), optional
        Targets, with ``target_weight`` above 0; see :class:`NMFFeatures`. In each split the targets of a share
        ``test_size`` of the rows are hidden too. Without a weight y is not looked at.
    sample_weight : array-like of shape (n_samples,), optional
        Weights of the rows, 0 or more, in the fits and in the errors. Rows of weight 0 are left out. A weight of 2 is
        as two such rows in one group.
    groups : array-like of shape (n_samples,), optional
        A label for each row, such as the patient it was measured on. The cells of a column in the rows of one group are
        hidden together, as are their targets: rows that nearly repeat each other do not tell what is hidden.
    n_splits : int, default 5
        Number of splits; at most as many as there are groups.
    test_size : float, default 0.1
        Share of the cells hidden in each split; no cell is hidden twice, so at most 1 / n_splits. With
        ``groups`` a share of the columns of groups; with ``missing_values="unstored"`` of the stored cells.
    max_samples : int or None, default 10,000
        Of longer tables only this many rows are used, drawn at random; whole groups, if there are any. None: all.
    random_state : int, RandomState instance or None, default None
        Seed of the rows, the cells and random starts: pass an int for the same result each time.
    n_jobs : int or None, default None
        Threads; None: as many as the process may use. The result does not depend on it.
    progress : bool, default True
        Whether to show a progress bar, in terminals and notebooks, if ``rich`` is installed.
    **params
        Any other parameter of :class:`NMFFeatures`; ``tol`` is 1e-3 if not given, since the splits differ by more than
        what a smaller one gains.

    Returns
    -------
    ComponentSelection
        With ``n_components``, ``table`` and ``summary``.

    Raises
    ------
    ValueError
        As :class:`NMFFeatures` does, and for numbers of components, splits or shares that make no sense; for groups
        that are missing in some rows, or fewer than ``n_splits``.

    Warns
    -----
    UserWarning
        If the choice is the largest or the smallest number tried, if more components than columns were asked for
        (then at most as many as columns are tried), or if fits did not converge.

    References
    ----------
    S. Wold (1978), Cross-validatory estimation of the number of components in factor and principal components models,
    Technometrics 20; A. B. Owen and P. O. Perry (2009), Bi-cross-validation of the SVD and the nonnegative matrix
    factorization, Annals of Applied Statistics 3.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_features import select_components
    >>> rng = np.random.default_rng(0)
    >>> X = rng.gamma(1, size=(200, 3)) @ rng.gamma(1, size=(3, 20)) + rng.uniform(size=(200, 20)) / 2
    >>> select_components(X, range(1, 7), shift=None, random_state=0).n_components
    3
    """
    counts = None if n_components is None else _check_counts(n_components)
    rng = check_random_state(random_state)
    X, y, weights, groups = runs.sampled(X, y, max_samples, rng, sample_weight, groups)
    columns, Z = runs.scaled(X, counts[-1] if counts else 1, n_jobs, params, weights, tol=TOL)
    if not sparse.issparse(Z):
        Z = without_rare(Z, columns, weights)
    model, most = columns.model, int((~columns.scaling.constant).sum())
    counts = sorted({min(k, most) for k in counts or range(1, 11)})
    splits = draw_splits(Z, columns, n_splits, test_size, rng, weights, groups)
    targets, rows = Targets.of(model, y, X), [()] * n_splits
    if targets is not None:
        rows = draw_rows(Z.shape[0], groups, n_splits, test_size, rng)

    def path(make, rows, seed, n_jobs, step):
        split, seen, fit = make(targets, rows), [], None
        for k in counts:
            start = model.init if fit is None else np.vstack([fit.H, _new_loadings(split.problem, fit, k)])
            fit = runs.fit(model, split.problem, k, start, seed, n_jobs, step, split.targets)
            seen.append((split.see(fit), split.see_targets(fit), split.negative_log_likelihood(fit), fit.converged))
            step()
        return seen

    seeds = runs.seeds(rng, n_splits)
    tasks = [partial(path, *arguments) for arguments in zip(splits, rows, seeds, strict=True)]
    found = runs.run(tasks, len(tasks) * len(counts), "components", n_jobs, progress)
    runs.warn_of_passes([converged for seen in found for *_, converged in seen], model)
    table = pd.DataFrame(
        [(k, i, *seen[j][:3]) for j, k in enumerate(counts) for i, seen in enumerate(found)],
        columns=["n_components", "split", "error", "target_error", "negative_log_likelihood"],
    ).dropna(axis=1, how="all")  # without targets; or if the loss belongs to no distribution
    summary = _summary(table, model.target_weight)
    equal = min(max(LEAST_TIE, 10 * model.tol), MOST_TIE) * summary["error"]
    near = summary["difference"] <= summary["standard_error"] + equal
    chosen = int(summary.loc[near, "n_components"].iloc[0])
    _warn_of_edge(chosen, counts, len(columns.variables), float(summary["error"].min()))
    return ComponentSelection(chosen, table, summary)


def _check_counts(n_components):
    counts = [] if isinstance(n_components, str) or not isinstance(n_components, Iterable) else list(n_components)
    if not counts:
        raise ValueError(
            f"n_components is {n_components!r}; wanted the numbers of components to try, like range(1, 11)."
        )
    return sorted({runs.check_count(k) for k in counts})


def _new_loadings(problem, fit, k):
    """Return loadings for the residual of a fit, up to k: nearly leading singular vectors of its positive part.

    With row weights v they are those of V^1/2 R.
    """
    R = block_of(problem.X).residual(fit.U.T, fit.H / fit.sums[:, None]).X
    cells, new = R.data if sparse.issparse(R) else R, np.zeros((k - len(fit.H), R.shape[1]))
    np.fmax(cells, 0, out=cells)  # missing cells leave nothing
    cells /= cells.max(initial=0.0) or 1.0  # so that no square overflows
    root = np.ones(R.shape[0]) if problem.weights is None else np.sqrt(problem.weights)
    if problem.weights is not None:
        cells *= np.repeat(root, np.diff(R.indptr)) if sparse.issparse(R) else root[:, None]
    for t in range(len(new)):
        h = np.asarray(product(root, R) if problem.weights is not None else R.sum(axis=0), dtype=np.float64).ravel()
        for _ in range(POWER_STEPS):
            w = product(R, h / (np.linalg.norm(h) or 1.0))
            h = product(w / (np.linalg.norm(w) or 1.0), R)
        h /= np.linalg.norm(h) or 1.0
        w = product(R, h)
        new[t] = np.sqrt(np.linalg.norm(w)) * h
        if t + 1 < len(new):
            R = block_of(R).residual(w[None], h[None]).X
    return new


def _summary(table, weight):
    """Return the mean error for each number of components, and its difference from the least, split by split."""
    both = table["error"] + (weight * table["target_error"] if "target_error" in table else 0)
    errors = table.assign(both=both).pivot(index="split", columns="n_components", values="both")
    difference = errors.sub(errors[errors.mean().idxmin()], axis=0)
    error = difference.std(ddof=1) / np.sqrt(len(errors))
    means = table.groupby("n_components").mean()
    summary = {"n_components": means.index, "error": means["error"]}
    summary |= {"difference": difference.mean(), "standard_error": error}
    for name in ("target_error", "negative_log_likelihood"):
        if name in table:
            summary[name] = means[name]
    return pd.DataFrame(summary).reset_index(drop=True)


def _warn_of_edge(chosen, counts, n_columns, least):
    """Warn where the choice may be due to the numbers that were tried."""
    if least >= 1:
        warn_user("No number of components predicts hidden cells better than the means of the columns do.")
    if chosen == counts[-1]:
        whole = chosen == n_columns
        warn_user(
            f"n_components={chosen} is the largest number that was tried"
            + (", one for each column: X has no fewer components." if whole else ": more may do better. Try more.")
        )
    elif chosen == counts[0]:
        warn_user(
            f"n_components={chosen} is the smallest number that was tried"
            + (": more do no better." if chosen == 1 else ": fewer may do as well. Try fewer.")
        )
