"""Components matched with those of an earlier fit, by the cosines of their loadings in columns of the same name."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from ._warn import warn_user
from .core.products import product


class Loadings(NamedTuple):
    """Loadings H, a row for each of the named components, a column for each of the terms."""

    names: list
    terms: list
    H: np.ndarray

    @classmethod
    def of(cls, model, argument="align_to"):
        """Return the loadings of a fitted model, or of a frame like that of its ``tidy()``."""
        if isinstance(model, pd.DataFrame | dict):
            lines = pd.DataFrame(model)
            if "target" in lines:  # of tidy(target=True)
                lines = lines[~lines["target"].astype(bool)]
        else:
            try:
                check_is_fitted(model)
            except NotFittedError as error:
                raise NotFittedError(
                    f"{argument} is a model that is not fitted. If it was, it has been cloned since, as GridSearchCV "
                    f"does with models in parameters: pass {argument}=earlier.tidy(), a frame, which stays as it is."
                ) from error
            lines = model.tidy()
        if lacking := [field for field in ("component", "terms", "value") if field not in lines]:
            raise ValueError(
                f"{argument} is a frame without the columns {lacking}; wanted a fitted NMFFeatures, or the frame that "
                "its tidy() returned."
            )
        (rows, names), (columns, terms) = (_numbered(lines[field]) for field in ("component", "terms"))
        H, seen = np.zeros((2, len(names), len(terms)))
        H[rows, columns], seen[rows, columns] = lines["value"], 1
        if len(lines) != H.size or not seen.all() or not (np.isfinite(H).all() and (H >= 0).all()):
            raise ValueError(
                f"{argument} is a frame of {len(lines)} lines; wanted one line, with a value of 0 or more, for each of "
                f"{len(terms)} terms in each of {len(names)} components."
            )
        return cls(names, terms, H)

    def on(self, terms):
        """Return these terms and then the others that there are, and the loadings in all of them."""
        known = set(terms)
        every = [*terms, *(term for term in self.terms if term not in known)]
        if len(every) == len(terms) + len(self.terms):
            raise ValueError(
                f"The earlier fit has the columns {self.terms}, none of which is factorised here; wanted loadings of "
                f"some of {list(terms)}."
            )
        at = {term: j for j, term in enumerate(every)}
        H = np.zeros((len(self.H), len(every)))
        H[:, [at[term] for term in self.terms]] = self.H
        return every, H


def match(H, earlier):
    """Return which rows of H belong to which of ``earlier``, and their cosines: those of the largest sum.

    There are as many pairs as rows in the smaller one, in the order of ``earlier``. H may lack its last columns.
    """
    cosines = product(_unit(H), _unit(earlier)[:, : H.shape[1]].T)
    rows, partners = linear_sum_assignment(-cosines)
    order = np.argsort(partners)
    return rows[order], partners[order], cosines[rows[order], partners[order]]


def aligned(H, earlier):
    """Return the positions of components H in the order of their partners in ``earlier``; those without come last."""
    rows, partners, _ = match(H, earlier)
    if (partners != np.arange(len(partners))).any():
        gone = sorted(set(range(len(earlier))) - {*partners.tolist()})
        warn_user(
            f"Earlier components number {[t + 1 for t in gone]} have no partner among {len(H)} components: those that "
            "followed them have a lower number now. See changes()."
        )
    return np.append(rows, np.setdiff1d(np.arange(len(H)), rows))


def changes(H, names, terms, earlier):
    """Return a frame that says how much each component differs from its partner in an earlier fit."""
    lines = [dict.fromkeys(("component", "earlier", "similarity", "moved", "gained", "lost")) for _ in names]
    partners = []
    for line, name in zip(lines, names, strict=True):
        line["component"] = name
    if len(names):
        terms, E = earlier.on(terms)
        H = np.pad(H, ((0, 0), (0, len(terms) - H.shape[1])))
        rows, partners, cosines = match(H, E)
        for t, s, cosine in zip(rows, partners, cosines, strict=True):
            change = H[t] - E[s]
            lines[t] |= {"earlier": earlier.names[s], "similarity": cosine, "moved": np.abs(change).sum() / 2}
            if change.any():
                lines[t] |= {"gained": terms[change.argmax()], "lost": terms[change.argmin()]}
    lines += [{"earlier": name} for s, name in enumerate(earlier.names) if s not in partners]
    table = pd.DataFrame(lines, columns=["component", "earlier", "similarity", "moved", "gained", "lost"], dtype=object)
    return table.where(table.notna(), None).astype({"similarity": float, "moved": float})


def _numbered(values):
    """Return the position of each value among the different ones, and these, in the order in which they come."""
    different = [*dict.fromkeys(values)]
    at = {value: i for i, value in enumerate(different)}
    return [at[value] for value in values], different


def _unit(H):
    lengths = np.linalg.norm(H, axis=1, keepdims=True)
    return H / np.where(lengths > 0, lengths, 1)
