"""What the components say about the rows: scores W, pair by pair, or their correlations."""

from typing import Any, Self

import numpy as np
import pandas as pd
from scipy import sparse

from .. import frames
from ..columns import component_names
from . import drawing, points
from .arguments import check_fitted, check_length, check_whole, choice
from .inks import Inks, text_on


class ScoresDisplay:
    """The new columns, the scores W: pair by pair, or their correlations.

    Unlike the scores of PCA these are correlated: components are parts that may occur together.

    Parameters
    ----------
    scores : pandas.DataFrame of shape (n_samples, n_components)
        Scores; NaN in rows that have none.
    y : array-like of shape (n_samples,), optional
        What colours the points.

    Attributes
    ----------
    scores : pandas.DataFrame
        As given.
    y : array-like or None
        As given.
    correlation_ : pandas.DataFrame
        With ``kind="correlation"``, what is drawn; NaN for a component that does not vary.
    ax_ : matplotlib Axes
        The first axes.
    axes_ : ndarray of matplotlib Axes
        All of them; None above the diagonal of the pairs.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from nmf_features import NMFFeatures
    >>> from nmf_features.plots import ScoresDisplay
    >>> X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    >>> nmf = NMFFeatures(n_components=3).fit(X)
    >>> display = ScoresDisplay.from_estimator(nmf, X, y=y)
    >>> display = ScoresDisplay.from_estimator(nmf, X, kind="correlation")
    """

    def __init__(self, scores: Any, y: Any = None) -> None:
        self.scores = scores
        self.y = y

    @classmethod
    def from_estimator(
        cls,
        nmf: Any,
        X: Any,
        *,
        y: Any = None,
        kind: str = "pairs",
        max_components: int = 5,
        max_points: int = 2000,
        cmap: Any = None,
        ax: Any = None,
    ) -> Self:
        """Draw the scores that a fitted :class:`NMFFeatures` gives to the rows of X.

        Parameters
        ----------
        nmf : NMFFeatures
            Fitted, with at least one component.
        X : frame, array-like or sparse matrix of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.
        y : array-like of shape (n_samples,), optional
            What colours the points: categories (words, booleans, up to ten whole numbers) by colour and marker,
            amounts by a colour map. Of more than six categories the five most frequent ones have a colour.
        kind : {"pairs", "correlation"}, default "pairs"
            Each component against each other, with histograms; or a heat map of the correlations.
        max_components : int, default 5
            Most components in the pairs: the first ones, which are the largest.
        max_points : int, default 2000
            Most points in each pair: rows drawn at random, always the same. The rest is of all rows.
        cmap : str or matplotlib Colormap, optional
            Colours of amounts and of correlations; default "cividis", on dark paper without its darkest part, and
            "RdBu_r".
        ax : matplotlib Axes, optional
            Where to draw; divided for the pairs. None makes a figure.

        Returns
        -------
        ScoresDisplay

        Raises
        ------
        ValueError
            For ``n_components=0``, an unknown ``kind``, a ``y`` of another length, or where no row has scores.
        """
        check_fitted(nmf)
        drawing.pyplot()
        names = nmf.columns_.component_names
        W = nmf.transform(frames.as_table(X))
        scores = pd.DataFrame(_to_array(W, slice(len(frames.labels(W)) - len(names), None)), columns=names)
        return cls(scores, y).plot(kind=kind, max_components=max_components, max_points=max_points, cmap=cmap, ax=ax)

    @classmethod
    def from_scores(
        cls,
        W: Any,
        names: Any = None,
        y: Any = None,
        *,
        kind: str = "pairs",
        max_components: int = 5,
        max_points: int = 2000,
        cmap: Any = None,
        ax: Any = None,
    ) -> Self:
        """Draw scores that come as a table, such as ``Factorization.W`` or what ``transform`` returned.

        Parameters
        ----------
        W : frame, array-like or sparse matrix of shape (n_samples, n_components)
            Scores, and nothing else.
        names : list, optional
            Names of the components. None: those of a frame, else NNMF1, NNMF2, ....
        y, kind, max_components, max_points, cmap, ax
            As in :meth:`from_estimator`.

        Returns
        -------
        ScoresDisplay
        """
        if not frames.is_frame(W) and not sparse.issparse(W):
            W = np.asarray(W)
            if W.ndim != 2:
                raise ValueError(f"W has shape {W.shape}; wanted (n_samples, n_components).")
        k = len(frames.labels(W))
        if names is None:
            names = frames.labels(W) if frames.is_frame(W) else component_names(k)
        check_length("names", names, k, "components")
        return cls(pd.DataFrame(_to_array(W, slice(None)), columns=list(names)), y).plot(
            kind=kind, max_components=max_components, max_points=max_points, cmap=cmap, ax=ax
        )

    def plot(
        self, *, kind: str = "pairs", max_components: int = 5, max_points: int = 2000, cmap: Any = None, ax: Any = None
    ) -> Self:
        """Draw; the parameters are those of :meth:`from_estimator`.

        Returns
        -------
        self
        """
        draw = choice("kind", kind, {"pairs": self._pairs, "correlation": self._correlation})
        check_whole("max_components", max_components)
        check_whole("max_points", max_points)
        if self.y is not None:
            check_length("y", self.y, len(self.scores), "rows of X")
        scored = np.isfinite(self.scores.to_numpy()).all(axis=1)
        if not scored.any():
            raise ValueError(f"X has no row with scores to draw, of {len(scored)}; wanted at least one.")
        left_out = [f"{drawing.number((~scored).sum())} rows without scores left out"] if not scored.all() else []
        draw(ax, scored, left_out, max_components=max_components, max_points=max_points, cmap=cmap)
        self.ax_ = self.axes_.flat[0]
        return self

    def _pairs(self, ax, scored, notes, max_components, max_points, cmap):
        W = self.scores.to_numpy()[scored, :max_components]
        k, n = W.shape[1], len(W)
        side = max(1.9 * k + 0.6, 4.6)
        self.figure_, ax = drawing.canvas(ax, (side, side))
        self.axes_ = drawing.panels(ax, k, k, sharex="col", space=(0.12, 0.12))
        for panel in self.axes_[np.triu_indices(k, 1)]:
            panel.remove()
        self.axes_[np.triu_indices(k, 1)] = None
        rng = np.random.default_rng(0)  # the same points every time
        drawn = np.sort(rng.choice(n, max_points, replace=False)) if n > max_points else np.arange(n)
        colouring = points.colouring(self.y, scored, cmap, Inks(ax))
        for i in range(k):
            points.draw_histogram(self.axes_[i, i], W[:, i], colouring)
            for j in range(i):
                colouring.draw(self.axes_[i, j], W[:, j], W[:, i], drawn)
        points.tidy_pairs(self.axes_, W, self.scores.columns[:k])
        self.figure_.align_ylabels(self.axes_[:, 0])
        colouring.explain(self.axes_)
        if n > max_points and k > 1:
            notes = [f"points: {drawing.number(max_points)} of {drawing.number(n)} rows, drawn at random", *notes]
        if k < self.scores.shape[1]:
            notes = [f"the first {k} of {self.scores.shape[1]} components", *notes]
        drawing.heading(ax, "The new columns (scores W)", "; ".join(notes), above=6)

    def _correlation(self, ax, scored, notes, cmap, **_):
        R, names = points.correlation(self.scores.to_numpy()[scored]), self.scores.columns
        self.correlation_ = pd.DataFrame(R, names, names)
        k = len(R)
        side = max(0.42 * k + 2, 4.4)
        self.figure_, ax = drawing.canvas(ax, (side + 0.7, side))
        self.axes_ = np.array([ax])
        inks = Inks(ax)
        mesh = ax.pcolormesh(
            np.ma.masked_invalid(R), cmap=cmap or "RdBu_r", vmin=-1, vmax=1, edgecolor=inks.paper, linewidth=1
        )
        drawing.name_cells(ax, names, names)
        ax.set_aspect("equal")
        if k <= 12:
            for i, j in np.ndindex(R.shape):
                text = "" if np.isnan(R[i, j]) else drawing.decimal(R[i, j])
                colour = text_on(mesh.to_rgba(R[i, j]))
                ax.text(j + 0.5, i + 0.5, text, ha="center", va="center", color=colour, fontsize="small")
        bar = self.figure_.colorbar(mesh, ax=ax, shrink=0.7, aspect=25, pad=0.03, ticks=[-1, -0.5, 0, 0.5, 1])
        drawing.tidy_bar(bar, "correlation")
        if np.isnan(R).any():
            notes = ["grey: does not vary", *notes]
        drawing.title(ax, "How the components go together", "; ".join(["correlation of the scores W", *notes]))
        ax.set_facecolor(inks.line)


def _to_array(W, columns):
    """Return some columns of a frame, array or sparse matrix as a float array, which may have NaN."""
    if frames.is_frame(W):
        return frames.to_matrix(W, range(len(frames.labels(W)))[columns], "ignore")[0]
    W = W.tocsr()[:, columns].toarray() if sparse.issparse(W) else W[:, columns]
    return np.asarray(W, dtype=np.float64)
