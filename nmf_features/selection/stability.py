"""Which components come back: fits from other starts and to other samples of the rows, their components matched.

Reference: J.-P. Brunet, P. Tamayo, T. R. Golub and J. P. Mesirov (2004), Metagenes and molecular pattern discovery
using matrix factorization, PNAS 101.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state

from .._warn import numpy_defaults, warn_user
from ..aligning import match
from ..fitting import canonical, problem_of
from ..targets import Targets
from . import runs


@dataclass(frozen=True, eq=False)
class Stability:
    """What :func:`stability` found.

    Attributes
    ----------
    table : pandas.DataFrame
        A row for every run and component: ``run``, ``source`` ("start" for another random start, "rows" for another
        sample of the rows), ``component`` and ``similarity``, the cosine of its loadings with those of the reference.
    runs : pandas.DataFrame
        A row for every run: ``run``, ``source``, ``objective`` over that of the reference (1 is as good; for "rows" on
        its own sample).
    components : pandas.DataFrame of shape (n_components, n_columns)
        Loadings of the reference, the fit to all rows from ``init``.
    consensus : pandas.DataFrame of shape (n_components, n_columns)
        Mean loadings over all runs, matched with the reference; each row sums to 1.
    reproducibility : pandas.Series of length n_components
        Mean similarity of each component over all runs.
    """

    table: pd.DataFrame
    runs: pd.DataFrame
    components: pd.DataFrame
    consensus: pd.DataFrame
    reproducibility: pd.Series


@numpy_defaults
def stability(
    X: Any,
    n_components: int,
    n_runs: int = 20,
    *,
    y: Any = None,
    sample_weight: Any = None,
    groups: Any = None,
    max_samples: int | None = 10_000,
    random_state: Any = None,
    n_jobs: int | None = None,
    progress: bool = True,
    **params: Any,
) -> Stability:
    """See which components come back from other starts, and from other samples of the rows.

    The reference is the fit to all rows from ``init``. ``n_runs`` fits start at random instead, and
    ``n_runs`` fits are to rows drawn with replacement (as many as there are). The components of each are matched with
    those of the reference so that the sum of their similarities, cosines of loadings, is largest.

    Parameters
    ----------
    X : frame, array-like or sparse matrix of shape (n_samples, n_features)
        The table, as for :class:`NMFFeatures`.
    n_components : int
        Number of components.
    n_runs : int, default 20
        Number of runs of either kind.
    sample_weight : array-like of shape (n_samples,), optional
        Weights of the rows, 0 or more, in every fit. Rows of weight 0 are left out.
    groups : array-like of shape (n_samples,), optional
        A label for each row: whole groups are drawn, as many as there are.
    y, max_samples, random_state, n_jobs, progress
        As in :func:`select_components`.
    **params
        Any other parameter of :class:`NMFFeatures`.

    Returns
    -------
    Stability
        With ``table``, ``runs``, ``components``, ``consensus`` and ``reproducibility``.

    Raises
    ------
    ValueError
        As :class:`NMFFeatures` does, and for a number of runs or components that is not 1 or more; for groups that are
        missing in some rows, or all the same.

    References
    ----------
    J.-P. Brunet, P. Tamayo, T. R. Golub and J. P. Mesirov (2004), Metagenes and molecular pattern discovery using
    matrix factorization, PNAS 101; S. Wu et al. (2016), Stability-driven nonnegative matrix factorization to interpret
    spatial gene expression, PNAS 113.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from nmf_features import stability
    >>> X = load_wine(as_frame=True).data
    >>> stability(X, 3, n_runs=5, random_state=0).reproducibility.round(2)
    NNMF1    0.93
    NNMF2    0.98
    NNMF3    0.97
    dtype: float64
    """
    k, n_runs = runs.check_count(n_components), runs.check_count(n_runs, "n_runs")
    rng = check_random_state(random_state)
    X, y, weights, groups = runs.sampled(X, y, max_samples, rng, sample_weight, groups)
    columns, Z = runs.scaled(X, k, n_jobs, params, weights)
    model, problem = columns.model, problem_of(columns, Z, weights)
    k, v = columns.n_components, np.ones(problem.X.shape[0]) if weights is None else problem.weights
    groups = np.arange(len(v)) if groups is None else np.unique(groups[problem.used], return_inverse=True)[1]
    n = groups.max() + 1
    if n < 2 <= len(v):
        raise ValueError("groups has the same label in all rows, so no other sample can be drawn: pass smaller groups.")
    targets = Targets.of(model, y, X)
    reference = runs.fit(model, problem, k, model.init, rng, n_jobs, targets=targets)
    H = canonical(reference, problem, columns.n_counted).H
    if not reference.U.any():
        warn_user(f"penalty={model.penalty:g} empties the model: every score is zero. Lower the penalty.")

    def run(source, seed, n_jobs, step):
        rows, guides, size = problem, targets, 1.0
        if source == "rows":
            drawn = np.bincount(np.random.RandomState(seed).randint(n, size=n), minlength=n)[groups] * v
            size = drawn.sum() / v.sum()  # 1 unless groups or weights differ
            rows, guides = problem_of(columns, problem.X, drawn), targets and targets.chosen(problem.used)
        fit = runs.fit(model, rows, k, "random" if source == "start" else model.init, seed, n_jobs, step, guides)
        step()
        return fit.H / fit.sums[:, None], fit.objective / size, fit.converged

    sources = ["start"] * n_runs + ["rows"] * n_runs
    tasks = [partial(run, source, seed) for source, seed in zip(sources, runs.seeds(rng, len(sources)), strict=True)]
    found = runs.run(tasks, len(tasks), "runs", n_jobs, progress)
    runs.warn_of_passes([converged for *_, converged in found], model)
    names, terms = columns.component_names, columns.terms
    matched = [matched_with(loadings, H) for loadings, *_ in found]
    consensus = np.mean([loadings for loadings, _ in matched], axis=0)
    sums = consensus.sum(axis=1, keepdims=True)
    similarity = pd.DataFrame([similar for _, similar in matched], columns=names)
    table = similarity.assign(run=range(len(found)), source=sources).melt(
        ["run", "source"], var_name="component", value_name="similarity"
    )
    objectives = np.array([objective for _, objective, _ in found])
    with np.errstate(divide="ignore", invalid="ignore"):
        objectives = objectives / reference.objective
    return Stability(
        table.sort_values(["run", "component"], kind="stable", ignore_index=True),
        pd.DataFrame({"run": range(len(found)), "source": sources, "objective": objectives}),
        pd.DataFrame(H, names, terms),
        pd.DataFrame(consensus / np.where(sums > 0, sums, 1), names, terms),
        similarity.mean(),
    )


def matched_with(loadings, reference):
    """Return loadings in the order in which their cosines with the reference have the largest sum; and the cosines."""
    rows, _, cosines = match(loadings, reference)
    return loadings[rows], cosines
