"""A model from a table of loadings, such as R's ``tidy()`` of a trained ``step_nnmf_sparse()``.

    scores = z H',   z = (x - center) / scale          projection="linear": what recipes' bake() computes, signs and all
    scores minimise |z - w H|^2 over w >= 0            projection="nnls", with z = max(x - center, 0) / scale

The result is an NMFFeatures with what a fit learns of columns and components, and without what it learns of rows.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from .aligning import Loadings
from .columns import component_names
from .estimator import NMFFeatures, checked
from .scaling import Scaling

FIELDS = ("terms", "value", "component")


def load_tidy(frame: Any, *, center: Any = None, scale: Any = None, projection: str = "linear") -> NMFFeatures:
    """Return a fitted :class:`NMFFeatures` from a table of loadings.

    For components that were found elsewhere, as by ``step_nnmf_sparse()`` in R: its ``tidy()``, with the means and
    standard deviations of ``step_normalize()``, gives a transformer whose scores are the rows that ``bake()`` returns.
    To learn components from data, fit :class:`NMFFeatures`; to keep a model that was fitted here, save the model.

    Parameters
    ----------
    frame : frame or dict
        One line for each column of the data in each component, in the columns ``terms`` (the name), ``value`` (its
        loading, 0 or more; used as it is) and ``component`` (a prefix and a number, as recipes names them, and
        :meth:`NMFFeatures.tidy` too). Others, such as ``id``, are ignored.
    center, scale : dict or pandas.Series, optional
        What is subtracted from each column, and what it is then divided by; a number for each of the terms, more are
        ignored. None: 0 and 1.
    projection : {"linear", "nnls"}, default "linear"
        Scores of a row. "linear" multiplies by the loadings: values below ``center`` count as negative, nothing is cut
        off or refused. "nnls" solves for the exact non-negative scores, without penalty, of rows whose values below
        ``center`` are raised to it.

    Returns
    -------
    NMFFeatures
        Its columns are the terms, in the order in which they first come in the frame; terms that are the numbers 0, 1,
        2, ... are the positions of the columns of an array. ``transform`` wants these columns, in that order:
        ``X[model.variables_]``.

        It has what follows from the loadings: ``transform``, ``inverse_transform``, ``get_feature_names_out``,
        ``tidy``, ``top_features``, ``labels``, ``changes``, ``contributions`` and ``explain``; it can be
        ``align_to`` of a new fit, and saved. It has no ``score``, ``score_samples``, ``unexplained``, ``impute`` and
        ``report``: these compare with training rows, which it never saw.

        ``clone`` gives what it always gives, the parameters without what was learned: an NMFFeatures that is not
        fitted, for the same columns, number of components, ``prefix`` and ``projection``. Loadings, ``center`` and
        ``scale`` are gone, and its ``fit`` learns new ones with its own ``shift`` and ``scale``. In cross-validation,
        which clones, wrap the model in ``sklearn.frozen.FrozenEstimator``.

    Raises
    ------
    ValueError
        If a line is missing or comes twice, a loading is negative or no number, components are not a prefix and the
        numbers 1 to k, or ``center`` or ``scale`` lack a term or hold what is no finite number (for ``scale``, above
        0).

    Examples
    --------
    >>> import pandas as pd
    >>> from nmf_features import load_tidy
    >>> loadings = pd.DataFrame(
    ...     {
    ...         "terms": ["disp", "hp", "disp", "hp"],
    ...         "value": [0.75, 0.25, 0.0, 1.0],
    ...         "component": ["NNMF1", "NNMF1", "NNMF2", "NNMF2"],
    ...     }
    ... )
    >>> cars = pd.DataFrame({"disp": [160.0, 108.0], "hp": [110.0, 93.0]}, index=["Mazda RX4", "Datsun 710"])
    >>> load_tidy(loadings, center={"disp": 120, "hp": 100}, scale={"disp": 40, "hp": 10}).transform(cars)
                NNMF1  NNMF2
    Mazda RX4     1.0    1.0
    Datsun 710   -0.4   -0.7
    """
    names, terms, H = _loadings(frame)
    if sorted(terms, key=str) == sorted(range(len(terms)), key=str):  # positions: in their order
        H, terms = H[:, np.argsort(terms)], list(range(len(terms)))
    k, p = H.shape
    prefix = names[0][: len(names[0]) - len(str(k))]
    wanted = component_names(k, prefix)
    if sorted(names) != wanted:
        raise ValueError(
            f"frame has the components {names}; wanted a prefix and the numbers 1 to {k}, as {component_names(k)}. "
            "Rename them."
        )
    model = checked(NMFFeatures(k, variables=terms, projection=projection, prefix=prefix))
    center, factor = _by_term(center, terms, "center", 0.0), _by_term(scale, terms, "scale", 1.0)
    if (factor <= 0).any():
        raise ValueError(f"scale is {_some(terms, factor, factor <= 0)}; wanted numbers above 0.")
    linear, unbounded, no = projection == "linear", np.full(p, np.inf), np.zeros(p, dtype=bool)
    scaling = Scaling(
        offset=center,
        minimum=-unbounded if linear else center,
        maximum=unbounded,
        constant=no,
        factor=factor,
        split=False,
        bounded=not linear,
        capped=False,
        signed=linear,
    )
    learned = {
        "components_": H[[names.index(name) for name in wanted]],
        "component_scales_": np.ones(k),
        "score_penalties_": np.zeros(2),
        "scaling_": vars(scaling),
        "variables_": terms,
        "n_components_": k,
        "n_features_in_": p,
        "_labels": list(terms),
        "_fitted_on_frame": terms != list(range(p)),
        "_positions": np.arange(p),
    }
    if all(isinstance(term, str) for term in terms):
        learned["feature_names_in_"] = np.asarray(terms, dtype=object)
    model.__setstate__({**vars(model), **learned})
    return model


def _loadings(frame):
    """Return names of components, terms and loadings (k x p) of a table of them, in the order in which they come."""
    try:
        lines = {field: list(frame[field]) for field in FIELDS}
    except Exception as error:  # whatever the library of the frame raises
        raise ValueError(
            f"frame is a {type(frame).__name__} without the columns {list(FIELDS)}; wanted loadings as tidy() returns "
            "them, in R or here."
        ) from error
    if not lines["terms"]:
        raise ValueError("frame has no lines; wanted one for each term in each component.")
    lines["component"] = [str(name) for name in lines["component"]]
    lines["value"] = pd.to_numeric(pd.Series(lines["value"]), errors="coerce").tolist()
    return Loadings.of(lines, "frame")


def _by_term(values, terms, argument, default):
    """Return a number for each term from a dict or Series; the default where there is none."""
    if values is None:
        return np.full(len(terms), default)
    if not isinstance(values, Mapping | pd.Series):
        raise ValueError(
            f"{argument} is of type {type(values).__name__}; wanted a dict or a pandas Series with a number for each "
            "term."
        )
    if lacking := [term for term in terms if term not in values]:
        raise ValueError(f"{argument} lacks {lacking}; wanted a number for each term.")
    found = pd.to_numeric(pd.Series([values[term] for term in terms]), errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(found).all():
        raise ValueError(f"{argument} is {_some(terms, found, ~np.isfinite(found))}; wanted finite numbers.")
    return found


def _some(terms, values, which):
    return {terms[j]: float(values[j]) for j in np.flatnonzero(which)[:5]}
