"""Pictures of X ~ W H: what the components are made of, what they say of rows, how well they fit, how sure they are.

Samples are rows here: the scores W belong to the rows of X, the loadings H to its columns. Where the literature puts
samples in columns the two change places.

    what are the components?     LoadingsDisplay (H), ScoresDisplay (W)
    how good is the fit?         ReconstructionDisplay (column by column), ConvergenceDisplay (pass by pass)
    how many, how sparse, how sure?   ComponentSelectionDisplay, PenaltyPathDisplay, StabilityDisplay

As in scikit-learn, a display is made and drawn by ``from_...`` and drawn again by ``plot``. What does not fit into a
picture (columns, components, rows) is counted in the line below its title. matplotlib is imported when something is
drawn.
"""

from numbers import Integral

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.utils.validation import check_is_fitted

from . import drawing, frames
from .columns import component_names
from .core.losses import loss_of
from .core.missing import leaves_out_unstored
from .core.products import RESIDUAL_CELLS, product
from .core.units import safe_scale
from .drawing import BLUE, COLOURS, DASHES, GREEN, LINE, PAPER, QUIET, VERMILLION
from .estimator import NMFFeatures
from .fitting import scores_of


class LoadingsDisplay:
    """What each component is made of: the loadings H, as a heat map, as bars or as images.

    Parameters
    ----------
    components : pandas.DataFrame of shape (n_components, n_columns)
        Loadings, a row for each component; index and columns are their names.

    Attributes
    ----------
    components : pandas.DataFrame
        As given.
    ax_ : matplotlib Axes
        The axes of the heat map; the first one of bars and tiles.
    axes_ : ndarray of matplotlib Axes
        All of them, one for each component with ``kind="bars"`` and ``kind="tiles"``.
    figure_ : matplotlib Figure

    See Also
    --------
    NMFFeatures.top_features : The numbers behind the bars.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from nmf_features import NMFFeatures
    >>> from nmf_features.plots import LoadingsDisplay
    >>> nmf = NMFFeatures(n_components=3).fit(load_diabetes(as_frame=True, scaled=False).data)
    >>> display = LoadingsDisplay.from_estimator(nmf)
    >>> display = LoadingsDisplay.from_estimator(nmf, kind="bars", n_top=5)
    """

    def __init__(self, components):
        self.components = components

    @classmethod
    def from_estimator(cls, nmf, *, kind="heatmap", n_top=10, max_columns=40, image_shape=None, cmap=None, ax=None):
        """Draw the loadings of a fitted :class:`NMFFeatures`.

        Parameters
        ----------
        nmf : NMFFeatures
            Fitted, with at least one component.
        kind : {"heatmap", "bars", "tiles"}, default "heatmap"
            A heat map of all components, a row for each column of X, under the component in which it counts most; the
            largest loadings of each component as bars; or, where the columns are the pixels of an image, an image for
            each component.
        n_top : int, default 10
            Bars of each component.
        max_columns : int, default 40
            Most columns in the heat map: those with the largest loadings, relative to the largest of a component.
        image_shape : (int, int), optional
            Height and width of the images, for ``kind="tiles"``.
        cmap : str or matplotlib Colormap, optional
            Colours of heat map and tiles; default "Blues" and "Greys".
        ax : matplotlib Axes, optional
            Where to draw; divided, where several are needed. None makes a figure.

        Returns
        -------
        LoadingsDisplay

        Raises
        ------
        ValueError
            For ``n_components=0``, an unknown ``kind``, or an ``image_shape`` that does not hold all columns.
        """
        _check_fitted(nmf)
        components = pd.DataFrame(nmf.components_, index=nmf.columns_.component_names, columns=nmf.columns_.terms)
        return cls(components).plot(
            kind=kind, n_top=n_top, max_columns=max_columns, image_shape=image_shape, cmap=cmap, ax=ax
        )

    @classmethod
    def from_components(
        cls,
        components,
        names=None,
        columns=None,
        *,
        kind="heatmap",
        n_top=10,
        max_columns=40,
        image_shape=None,
        cmap=None,
        ax=None,
    ):
        """Draw loadings that come as a table, such as ``Factorization.H`` or ``Stability.consensus``.

        Parameters
        ----------
        components : array-like or pandas.DataFrame of shape (n_components, n_columns)
            Loadings, 0 or more. Sums of rows may differ.
        names : list, optional
            Names of the components. None: the index of a frame, else NNMF1, NNMF2, ....
        columns : list, optional
            Names of the columns. None: those of a frame, else positions.
        kind, n_top, max_columns, image_shape, cmap, ax
            As in :meth:`from_estimator`.

        Returns
        -------
        LoadingsDisplay

        Examples
        --------
        >>> from nmf_features.plots import LoadingsDisplay
        >>> H = [[3, 1, 0, 0], [0, 0, 2, 2]]
        >>> display = LoadingsDisplay.from_components(H, names=["size", "shape"], columns=list("abcd"))
        """
        return cls(_table_of_loadings(components, names, columns)).plot(
            kind=kind, n_top=n_top, max_columns=max_columns, image_shape=image_shape, cmap=cmap, ax=ax
        )

    def plot(self, *, kind="heatmap", n_top=10, max_columns=40, image_shape=None, cmap=None, ax=None):
        """Draw; the parameters are those of :meth:`from_estimator`.

        Returns
        -------
        self
        """
        draw = _choice("kind", kind, {"heatmap": self._heatmap, "bars": self._bars, "tiles": self._tiles})
        _check_whole("n_top", n_top)
        _check_whole("max_columns", max_columns)
        draw(ax, n_top=n_top, max_columns=max_columns, image_shape=image_shape, cmap=cmap)
        self.ax_ = self.axes_.flat[0]
        return self

    def _heatmap(self, ax, max_columns, cmap, **_):
        k, p = self.components.shape
        size = drawing.heatmap_size(k, min(p, max_columns))
        self.figure_, ax = drawing.canvas(ax, size)
        self.axes_ = np.array([ax])
        mesh, note = drawing.draw_loadings(ax, self.components, max_columns, cmap)
        drawing.loadings_bar(mesh, [ax])
        drawing.title(ax, "What each component is made of (loadings H)", note)

    def _bars(self, ax, n_top, **_):
        k, p = self.components.shape
        m, wide = min(n_top, p), min(k, 3)
        tall = -(-k // wide)
        self.figure_, ax = drawing.canvas(ax, (max(4.2 * wide, 5.4), (0.25 * m + 0.5) * tall + 0.7))
        self.axes_ = drawing.used(drawing.panels(ax, tall, wide, space=(0.3, 1.0)), k)
        for panel, (name, loadings) in zip(self.axes_, self.components.iterrows(), strict=True):
            drawing.draw_top(panel, loadings, m)
            drawing.small_title(panel, name)
        longest = max((bar.get_width() for panel in self.axes_ for bar in panel.patches), default=0) or 1
        for panel in self.axes_:
            panel.set(xlim=(0, 1.25 * longest), ylim=(m - 0.4, -0.6))
        note = f"the {m} largest of {p} loadings of each, and the share of the component that they are" if m < p else ""
        drawing.heading(ax, "What each component is made of (loadings H)", note)

    def _tiles(self, ax, image_shape, cmap, **_):
        k, p = self.components.shape
        height, width = _check_image(image_shape, p)
        wide = min(k, int(np.ceil(np.sqrt(1.6 * k * height / width))))
        tall = -(-k // wide)
        scale = 1.7 / max(height, width)
        size = max(wide * (width * scale + 0.15), 5.4), tall * (height * scale + 0.35) + 0.7
        self.figure_, ax = drawing.canvas(ax, size)
        self.axes_ = drawing.used(drawing.panels(ax, tall, wide, space=(0.3, 0.1)), k)
        for panel, (name, image) in zip(self.axes_, drawing.to_largest(self.components).iterrows(), strict=True):
            panel.imshow(image.to_numpy().reshape(height, width), cmap=cmap or "Greys", vmin=0, vmax=1)
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set(visible=True, color=LINE)
            panel.set_title(drawing.shown(name), fontsize="medium", pad=3)
        note = "dark: the largest loading of the component; white: none"
        drawing.heading(ax, "What each component is made of (loadings H)", note)


class ScoresDisplay:
    """The new columns, the scores W: pair by pair, or their correlations.

    Unlike the scores of PCA these are correlated: components are parts that may come together.

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

    def __init__(self, scores, y=None):
        self.scores = scores
        self.y = y

    @classmethod
    def from_estimator(cls, nmf, X, *, y=None, kind="pairs", max_components=5, max_points=2000, cmap=None, ax=None):
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
            Colours of amounts and of correlations; default "cividis" and "RdBu_r".
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
        _check_fitted(nmf)
        drawing.pyplot()
        names = nmf.columns_.component_names
        W = nmf.transform(X)
        scores = pd.DataFrame(_to_array(W, slice(len(frames.labels(W)) - len(names), None)), columns=names)
        return cls(scores, y).plot(kind=kind, max_components=max_components, max_points=max_points, cmap=cmap, ax=ax)

    @classmethod
    def from_scores(cls, W, names=None, y=None, *, kind="pairs", max_components=5, max_points=2000, cmap=None, ax=None):
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
        _check_length("names", names, k, "components")
        return cls(pd.DataFrame(_to_array(W, slice(None)), columns=list(names)), y).plot(
            kind=kind, max_components=max_components, max_points=max_points, cmap=cmap, ax=ax
        )

    def plot(self, *, kind="pairs", max_components=5, max_points=2000, cmap=None, ax=None):
        """Draw; the parameters are those of :meth:`from_estimator`.

        Returns
        -------
        self
        """
        draw = _choice("kind", kind, {"pairs": self._pairs, "correlation": self._correlation})
        _check_whole("max_components", max_components)
        _check_whole("max_points", max_points)
        if self.y is not None:
            _check_length("y", self.y, len(self.scores), "rows of X")
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
        colouring = drawing.colouring(self.y, scored, cmap)
        for i in range(k):
            drawing.draw_histogram(self.axes_[i, i], W[:, i], colouring)
            for j in range(i):
                colouring.draw(self.axes_[i, j], W[:, j], W[:, i], drawn)
        drawing.tidy_pairs(self.axes_, W, self.scores.columns[:k])
        self.figure_.align_ylabels(self.axes_[:, 0])
        colouring.explain(self.axes_)
        if n > max_points and k > 1:
            notes = [f"points: {drawing.number(max_points)} of {drawing.number(n)} rows, drawn at random", *notes]
        if k < self.scores.shape[1]:
            notes = [f"the first {k} of {self.scores.shape[1]} components", *notes]
        drawing.heading(ax, "The new columns (scores W)", "; ".join(notes), above=6)

    def _correlation(self, ax, scored, notes, cmap, **_):
        R, names = drawing.correlation(self.scores.to_numpy()[scored]), self.scores.columns
        self.correlation_ = pd.DataFrame(R, names, names)
        k = len(R)
        side = max(0.42 * k + 2, 4.4)
        self.figure_, ax = drawing.canvas(ax, (side + 0.7, side))
        self.axes_ = np.array([ax])
        mesh = ax.pcolormesh(
            np.ma.masked_invalid(R), cmap=cmap or "RdBu_r", vmin=-1, vmax=1, edgecolor="white", linewidth=1
        )
        ax.set_facecolor(LINE)
        drawing.name_cells(ax, names, names)
        ax.set_aspect("equal")
        if k <= 12:
            for i, j in np.ndindex(R.shape):
                text = "" if np.isnan(R[i, j]) else drawing.decimal(R[i, j])
                colour = "white" if abs(R[i, j]) > 0.6 else "black"
                ax.text(j + 0.5, i + 0.5, text, ha="center", va="center", color=colour, fontsize="small")
        bar = self.figure_.colorbar(mesh, ax=ax, shrink=0.7, aspect=25, pad=0.03, ticks=[-1, -0.5, 0, 0.5, 1])
        drawing.tidy_bar(bar, "correlation")
        if np.isnan(R).any():
            notes = ["grey: does not vary", *notes]
        drawing.title(ax, "How the components go together", "; ".join(["correlation of the scores W", *notes]))


class ReconstructionDisplay:
    """How much of each column the components explain, 1 - D(x_j, fit_j) / D(x_j, mean_j).

    D is the loss of the fit, fit_j the column of W H and mean_j the column's training mean, all in shifted and scaled
    units and over the observed cells. Weighted by D(x_j, mean_j) the shares add up to ``NMFFeatures.score``.

    Parameters
    ----------
    shares : pandas.Series of length n_columns
        Share explained, by column; 1 at most, negative where the training mean fits better.
    score : float
        The same of all columns together.
    left_out : list, default ()
        Columns without a share: constant ones, in training or in X.

    Attributes
    ----------
    shares, score, left_out
        As given.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    reconstruction_shares : The numbers alone.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from nmf_features import NMFFeatures
    >>> from nmf_features.plots import ReconstructionDisplay
    >>> X = load_diabetes(as_frame=True, scaled=False).data
    >>> display = ReconstructionDisplay.from_estimator(NMFFeatures(n_components=3).fit(X), X)
    >>> display.shares.idxmin()
    'sex'
    """

    def __init__(self, shares, score, left_out=()):
        self.shares = shares
        self.score = score
        self.left_out = left_out

    @classmethod
    def from_estimator(cls, nmf, X, *, max_columns=40, ax=None):
        """Draw what a fitted :class:`NMFFeatures` explains of X.

        Parameters
        ----------
        nmf : NMFFeatures
            Fitted, with at least one component.
        X : frame, array-like or sparse matrix of shape (n_samples, n_features)
            Data with the columns seen in ``fit``; new rows show whether the components hold for them too.
        max_columns : int, default 40
            Most columns that are drawn: half of them those explained best, half those explained worst.
        ax : matplotlib Axes, optional
            Where to draw. None makes a figure.

        Returns
        -------
        ReconstructionDisplay

        Raises
        ------
        ValueError
            For ``n_components=0``, or where no column varies.
        """
        _check_fitted(nmf)
        drawing.pyplot()
        table = reconstruction_shares(nmf, X)
        known = table["share"].notna()
        return cls(
            table["share"][known], _share(table["error"].sum(), table["spread"].sum()), [*table.index[~known]]
        ).plot(max_columns=max_columns, ax=ax)

    def plot(self, *, max_columns=40, ax=None):
        """Draw; the parameters are those of :meth:`from_estimator`.

        Returns
        -------
        self
        """
        _check_whole("max_columns", max_columns)
        if not len(self.shares):
            raise ValueError(f"X has no column with a share to draw: none of {drawing.listed(self.left_out)} varies.")
        shares = self.shares.sort_values(ascending=False, kind="stable")
        p = len(shares)
        best, worst = (p, 0) if p <= max_columns else (max_columns - max_columns // 2, max_columns // 2)
        shown = pd.concat([shares.iloc[:best], shares.iloc[p - worst :]])
        at = np.arange(len(shown)) + np.where(np.arange(len(shown)) < best, 0, 1.6)
        self.figure_, self.ax_ = drawing.canvas(ax, (7, 0.24 * (at[-1] + 1) + 1.5))
        ax = self.ax_
        low = min(0.0, max(-0.5, 1.1 * shown.min()))
        drawing.draw_shares(ax, at, shown.to_numpy(), low)
        drawing.name_rows(ax, at, shown.index)
        if best < p:
            ax.text(0.01, best + 0.3, f"{p - best - worst} columns between", color=QUIET, fontsize="small", va="center")
        self._mark_score(ax, low)
        ax.set(xlim=(low, 1), ylim=(at[-1] + 0.7, -0.7))
        ax.set_xlabel("share explained: 0 is the training mean, 1 is exact", color=QUIET)
        notes = [f"the best {best} and the worst {worst} of {p} columns"] if best < p else []
        if self.left_out:
            notes.append(f"constant, left out: {drawing.listed(self.left_out)}")
        drawing.title(ax, "How much of each column the components explain", "; ".join(notes), above=16)
        return self

    def _mark_score(self, ax, low):
        """Draw the share of all columns together as a line with its number."""
        if not np.isfinite(self.score):
            return
        if self.score >= low:
            ax.axvline(self.score, color="black", linewidth=1, zorder=3)
        x = max(self.score, low)
        where = (x - low) / (1 - low)
        side = "right" if where > 0.7 else "left" if where < 0.3 else "center"
        text = f"all columns: {drawing.decimal(self.score)}"
        drawing.write(ax, text, (x, 1), (0, 3), xycoords=("data", "axes fraction"), ha=side)


def reconstruction_shares(nmf, X):
    """Return how much of each column a fitted :class:`NMFFeatures` explains.

    Parameters
    ----------
    nmf : NMFFeatures
        Fitted, with at least one component.
    X : frame, array-like or sparse matrix of shape (n_samples, n_features)
        Data with the columns seen in ``fit``.

    Returns
    -------
    pandas.DataFrame
        A row for every column that is factorised: ``share``, 1 - error / spread (NaN for columns that are constant, in
        training or in X); ``error``, D(x_j, fit_j); ``spread``, D(x_j, training mean of j). Both in shifted and
        scaled units, over the observed cells, up to a common factor where squares would overflow.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from nmf_features import NMFFeatures
    >>> from nmf_features.plots import reconstruction_shares
    >>> X = load_diabetes(as_frame=True, scaled=False).data
    >>> nmf = NMFFeatures(n_components=3).fit(X)
    >>> table = reconstruction_shares(nmf, X)
    >>> float(1 - table["error"].sum() / table["spread"].sum() - nmf.score(X))
    0.00
    """
    _check_fitted(nmf)
    columns = nmf.columns_
    Z = columns.scaled(columns.checked(X))
    W = np.nan_to_num(scores_of(columns, Z), nan=0.0)  # rows with nothing observed do not count
    Z, e = safe_scale(Z)
    W, means = np.ldexp(W, -2 * e), np.ldexp(nmf.column_means_, -2 * e)
    loss, unstored = loss_of(nmf.beta_loss), leaves_out_unstored(columns.missing(Z))
    error, spread = np.zeros(len(means)), np.zeros(len(means))
    step = max(1, RESIDUAL_CELLS // len(means))
    for start in range(0, Z.shape[0], step):
        rows = slice(start, start + step)
        x = _dense(Z[rows], unstored)
        for total, y in ((error, product(W[rows], nmf.components_)), (spread, np.broadcast_to(means, x.shape))):
            total += np.where(np.isnan(x), 0, loss.of_cells(x, y)).sum(axis=0)
    share = np.where(spread > 0, _share(error, spread), np.nan)
    return pd.DataFrame({"share": share, "error": error, "spread": spread}, index=drawing.index(columns.terms))


def _share(error, spread):
    """1 - error / spread; 0 / 0 is NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1 - np.divide(error, spread)


def _dense(x, unstored):
    """Return rows as a float64 array; what is not stored is zero, or NaN where that means missing."""
    if not sparse.issparse(x):
        return x.astype(np.float64)
    if not unstored:
        return x.toarray().astype(np.float64)
    cells, out = x.tocoo(), np.full(x.shape, np.nan)
    out[cells.row, cells.col] = cells.data
    return out


class ConvergenceDisplay:
    """The objective after each pass over the data, of one fit or of several on the same data.

    Drawn is how far it lies above the best objective of all, as a share of that, on a logarithmic scale; a straight
    line falls by the same factor in every pass. The best pass itself, at zero, is off that scale. Fits of few passes
    are drawn as they are.

    Parameters
    ----------
    histories : dict of str to array
        Objective after each pass, by name of the fit.
    converged : dict of str to bool, optional
        Whether the fits met their stopping rule.

    Attributes
    ----------
    histories, converged
        As given.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_features import factorize
    >>> from nmf_features.plots import ConvergenceDisplay
    >>> X = np.random.default_rng(0).gamma(1, size=(60, 9))
    >>> fits = {solver: factorize(X, 3, solver=solver) for solver in ("hals", "mu")}
    >>> display = ConvergenceDisplay.from_factorization(fits["hals"])
    >>> display = ConvergenceDisplay.from_histories({name: fit.history for name, fit in fits.items()})
    """

    def __init__(self, histories, converged=None):
        self.histories = histories
        self.converged = converged

    @classmethod
    def from_estimator(cls, nmf, *, ax=None):
        """Draw the fit of an :class:`NMFFeatures`.

        Parameters
        ----------
        nmf : NMFFeatures
            Fitted, with at least one component.
        ax : matplotlib Axes, optional
            Where to draw. None makes a figure.

        Returns
        -------
        ConvergenceDisplay

        Raises
        ------
        ValueError
            For ``n_components=0``.
        """
        _check_fitted(nmf)
        return cls({"NMFFeatures": nmf.history_}, {"NMFFeatures": nmf.converged_}).plot(ax=ax)

    @classmethod
    def from_factorization(cls, result, *, ax=None):
        """Draw the fit of :func:`factorize`.

        Parameters
        ----------
        result : Factorization
            What ``factorize`` returned.
        ax : matplotlib Axes, optional
            Where to draw. None makes a figure.

        Returns
        -------
        ConvergenceDisplay
        """
        return cls({"factorize": result.history}, {"factorize": result.converged}).plot(ax=ax)

    @classmethod
    def from_histories(cls, histories, converged=None, *, ax=None):
        """Draw several fits of the same objective on the same data.

        Parameters
        ----------
        histories : dict of str to array-like
            Objective after each pass, by name of the fit.
        converged : dict of str to bool, optional
            Whether the fits met their stopping rule, by the same names; None says nothing of it.
        ax : matplotlib Axes, optional
            Where to draw. None makes a figure.

        Returns
        -------
        ConvergenceDisplay

        Raises
        ------
        ValueError
            If there is no history, or ``converged`` has other names.
        """
        if not histories:
            raise ValueError("histories is empty; wanted a dict of at least one name and its history.")
        if converged is not None and set(converged) != set(histories):
            raise ValueError(
                f"converged has the names {list(converged)}; wanted those of histories, {list(histories)}."
            )
        return cls({name: np.asarray(h, dtype=float) for name, h in histories.items()}, converged).plot(ax=ax)

    def plot(self, *, ax=None):
        """Draw; ``ax`` as in :meth:`from_estimator`.

        Returns
        -------
        self
        """
        self.figure_, self.ax_ = drawing.canvas(ax, (7, 4.2))
        ax = self.ax_
        finite = {name: np.where(np.isfinite(h), h, np.nan) for name, h in self.histories.items()}
        everything = np.concatenate([h[~np.isnan(h)] for h in finite.values()])
        best = everything.min(initial=np.inf)
        above = everything[everything > best] - best
        logarithmic = len(above) > 2 and above.max() > 30 * above.min()
        for i, (name, h) in enumerate(finite.items()):
            passes, values = np.arange(1, len(h) + 1), h
            if logarithmic:
                values = np.where(h > best, h - best, np.nan) / (best or above.max())
            style = {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i // len(COLOURS) % len(DASHES)]}
            ax.plot(passes, values, **style, linewidth=1.8, marker="o" if len(h) <= 40 else "", markersize=4)
            ax.lines[-1].set_label(f"{drawing.shown(name)}: {self._outcome(name)}")
        drawing.tidy(ax, grid="both")
        if logarithmic:
            ax.set_yscale("log")
            ax.minorticks_off()
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set_xlabel("passes over the data", color=QUIET)
        ax.set_ylabel("above the best objective (share of it)" if logarithmic else "objective", color=QUIET)
        several = len(finite) > 1
        if several:
            ax.legend(frameon=False, loc="best", fontsize="small")
        drawing.title(ax, "Objective after each pass", "" if several else self._outcome(next(iter(finite))))
        return self

    def _outcome(self, name):
        """Say in words where a fit came to."""
        h, known = self.histories[name], self.converged is not None
        if not len(h):
            return "no pass was made"
        ended = (", converged" if self.converged[name] else ", not converged") if known else ""
        return f"{drawing.number(h[-1])} after {len(h)} {'pass' if len(h) == 1 else 'passes'}{ended}"


class ComponentSelectionDisplay:
    """Error of hidden cells against the number of components, and the choice.

    Parameters
    ----------
    selection : ComponentSelection
        What ``select_components`` found.

    Attributes
    ----------
    selection : ComponentSelection
        As given.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import pandas as pd
    >>> from nmf_features.plots import ComponentSelectionDisplay
    >>> from nmf_features.selection import ComponentSelection
    >>> table = pd.DataFrame(
    ...     {"n_components": [1, 2, 3] * 2, "split": [0] * 3 + [1] * 3, "error": [0.7, 0.4, 0.39, 0.74, 0.42, 0.43]}
    ... )
    >>> summary = pd.DataFrame(
    ...     {
    ...         "n_components": [1, 2, 3],
    ...         "error": [0.72, 0.41, 0.41],
    ...         "difference": [0.31, 0, 0],
    ...         "standard_error": [0.01, 0, 0.01],
    ...     }
    ... )
    >>> display = ComponentSelectionDisplay.from_selection(ComponentSelection(2, table, summary))
    """

    def __init__(self, selection):
        self.selection = selection

    @classmethod
    def from_selection(cls, selection, *, ax=None):
        """Draw what ``select_components`` found.

        Parameters
        ----------
        selection : ComponentSelection
            The errors and the choice.
        ax : matplotlib Axes, optional
            Where to draw. None makes a figure.

        Returns
        -------
        ComponentSelectionDisplay
        """
        return cls(selection).plot(ax=ax)

    def plot(self, *, ax=None):
        """Draw; ``ax`` as in :meth:`from_selection`.

        Returns
        -------
        self
        """
        summary, choice = self.selection.summary.sort_values("n_components"), self.selection.n_components
        k, error = summary["n_components"].to_numpy(), summary["error"].to_numpy(dtype=float)
        bars = summary["standard_error"].to_numpy(dtype=float)  # NaN for one split: no bar
        self.figure_, self.ax_ = drawing.canvas(ax, (7, 4.4))
        ax = self.ax_
        splits = self.selection.table.groupby("split")
        for _, split in splits:
            split = split.sort_values("n_components")
            ax.plot(split["n_components"], split["error"], color=LINE, linewidth=1, zorder=1)
        ax.axhline(error.min(), color=QUIET, linewidth=0.8, linestyle="--", zorder=1)
        ax.fill_between(k, error - bars, error + bars, color=BLUE, alpha=0.15, linewidth=0, zorder=2)
        ax.errorbar(
            k, error, bars, color=BLUE, linewidth=2, elinewidth=1.4, capsize=0, marker="o", markersize=5, zorder=3
        )
        chosen = error[k == choice]
        ax.plot([choice], chosen, "D", markersize=11, color=VERMILLION, markeredgecolor="white", zorder=4)
        words = {"color": VERMILLION, "weight": "bold", "fontsize": "medium", "bbox": PAPER}
        drawing.write(ax, f"chosen: {choice}", (choice, chosen[0]), (0, -14), ha="center", va="top", **words)
        self._mark_means(ax, error, k)
        low, high = ax.get_ylim()
        ax.set_ylim(low - 0.08 * (high - low), high)  # room for what is chosen
        drawing.tidy(ax, grid="y")
        ax.set_xticks(k[:: -(-len(k) // 20)])
        ax.set_xlabel("number of components", color=QUIET)
        ax.set_ylabel("error of hidden cells", color=QUIET)
        note = (
            f"mean of {len(splits)} splits (grey), with the standard error of its difference to the least error;\n"
            "chosen: the fewest components that come within it of the least (dashed)"
        )
        drawing.title(ax, "How many components?", note)
        return self

    def _mark_means(self, ax, error, k):
        """Draw the error of the column means, 1, unless it is far away."""
        everything = [*error, *self.selection.table["error"]]
        low, high = min(everything), max(everything)
        if low - (high - low) / 2 <= 1 <= high + (high - low) / 2:
            ax.axhline(1, color=QUIET, linewidth=1, zorder=1)
            place = {"xycoords": ("axes fraction", "data"), "ha": "right"}
            drawing.write(ax, "column means", (1, 1), (0, 3), color=QUIET, **place)


class PenaltyPathDisplay:
    """What the penalty does: to zeros, to the error, to a model on the components, and to their number.

    Parameters
    ----------
    path : PenaltyPath
        What ``penalty_path`` found.

    Attributes
    ----------
    path : PenaltyPath
        As given.
    ax_ : matplotlib Axes
        The first of ``axes_``.
    axes_ : ndarray of matplotlib Axes
        From above: zeros, error, score (where there is one), components that are not zero.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import pandas as pd
    >>> from nmf_features.plots import PenaltyPathDisplay
    >>> from nmf_features.selection import PenaltyPath
    >>> table = pd.DataFrame(
    ...     {
    ...         "penalty": [0, 0.001, 0.01, 0.1],
    ...         "n_alive": [3, 3, 3, 2],
    ...         "zero_loadings": [0.1, 0.2, 0.4, 0.7],
    ...         "zero_scores": [0.05, 0.1, 0.2, 0.5],
    ...         "error": [0.3, 0.3, 0.32, 0.5],
    ...         "held_out_error": [0.4, 0.39, 0.4, 0.6],
    ...         "held_out_standard_error": [0.02, 0.02, 0.02, 0.03],
    ...     }
    ... )
    >>> display = PenaltyPathDisplay.from_path(PenaltyPath(table, scoring=None))
    """

    def __init__(self, path):
        self.path = path

    @classmethod
    def from_path(cls, path, *, ax=None):
        """Draw what ``penalty_path`` found.

        Parameters
        ----------
        path : PenaltyPath
            A row for every penalty.
        ax : matplotlib Axes, optional
            Where to draw; it is divided. None makes a figure.

        Returns
        -------
        PenaltyPathDisplay
        """
        return cls(path).plot(ax=ax)

    def plot(self, *, ax=None):
        """Draw; ``ax`` as in :meth:`from_path`.

        Returns
        -------
        self
        """
        table = self.path.table.sort_values("penalty")
        panels = [self._zeros, self._errors, self._alive]
        if "score" in table and self.path.scoring is not None:
            panels.insert(2, self._score)
        heights = [1 if draw == self._alive else 1.6 for draw in panels]
        self.figure_, ax = drawing.canvas(ax, (7, 1.15 * sum(heights) + 1))
        self.axes_ = drawing.panels(ax, len(panels), 1, sharex=True, heights=heights, space=(0.2, 0))[:, 0]
        self.ax_ = self.axes_[0]
        at, ticks, labels = drawing.penalty_axis(table["penalty"].to_numpy(dtype=float))
        for panel, draw in zip(self.axes_, panels, strict=True):
            draw(panel, at, table)
            drawing.tidy(panel, grid="both")
        self.axes_[-1].set_xticks(ticks, labels)
        self.axes_[-1].set_xlabel("penalty", color=QUIET)
        self.figure_.align_ylabels(self.axes_)
        drawing.heading(ax, "What the penalty does", above=6)
        return self

    def _zeros(self, ax, at, table):
        lines = {"loadings H": table["zero_loadings"], "scores W": table["zero_scores"]}
        drawing.draw_lines(ax, at, lines, (BLUE, VERMILLION))
        ax.set_ylim(-0.14, 1.06)
        ax.set_ylabel("share of zeros", color=QUIET)

    def _errors(self, ax, at, table):
        lines, errors = {"all cells fitted": table["error"]}, {}
        if "held_out_error" in table:  # not where no cells were hidden
            lines = {"hidden cells": table["held_out_error"]} | lines
            errors = {"hidden cells": table["held_out_standard_error"]}
        drawing.draw_lines(ax, at, lines, (VERMILLION, BLUE)[2 - len(lines) :], errors)
        alive = table[table["n_alive"] > 0] if table["n_alive"].any() else table
        top = max(alive[name].max() for name in ("error", "held_out_error") if name in alive)
        ax.set_ylim(0, 1.25 * top)  # an empty model may be far worse than the column means
        ax.set_ylabel("error (means: 1)", color=QUIET)

    def _score(self, ax, at, table):
        drawing.draw_lines(ax, at, {"": table["score"]}, (GREEN,), {"": table["score_standard_error"]})
        ax.set_ylabel({"r2": "R²"}.get(self.path.scoring, self.path.scoring), color=QUIET)

    def _alive(self, ax, at, table):
        drawing.draw_lines(ax, at, {"": table["n_alive"]}, (QUIET,))
        ax.set_ylim(0, 1.15 * table["n_alive"].max() or 1)
        ax.yaxis.get_major_locator().set_params(integer=True, nbins=4)
        ax.set_ylabel("components", color=QUIET)


class StabilityDisplay:
    """Which components come back: their similarity over many runs, above the loadings that the runs agree on.

    Parameters
    ----------
    stability : Stability
        What ``stability`` found.

    Attributes
    ----------
    stability : Stability
        As given.
    ax_ : matplotlib Axes
        The first of ``axes_``.
    axes_ : ndarray of matplotlib Axes
        The similarities, and below them the heat map.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import pandas as pd
    >>> from nmf_features.plots import StabilityDisplay
    >>> from nmf_features.selection import Stability
    >>> H = pd.DataFrame([[0.5, 0.5, 0], [0, 0.2, 0.8]], index=["NNMF1", "NNMF2"], columns=["a", "b", "c"])
    >>> table = pd.DataFrame(
    ...     {
    ...         "run": [0, 0, 1, 1],
    ...         "source": ["start", "start", "rows", "rows"],
    ...         "component": ["NNMF1", "NNMF2"] * 2,
    ...         "similarity": [1, 0.9, 0.98, 0.8],
    ...     }
    ... )
    >>> runs = pd.DataFrame({"run": [0, 1], "source": ["start", "rows"], "objective": [1, 1.02]})
    >>> mean = table.groupby("component")["similarity"].mean()
    >>> display = StabilityDisplay.from_stability(Stability(table, runs, H, H, mean))
    """

    def __init__(self, stability):
        self.stability = stability

    @classmethod
    def from_stability(cls, stability, *, max_columns=20, ax=None):
        """Draw what ``stability`` found.

        Parameters
        ----------
        stability : Stability
            Similarities and mean loadings.
        max_columns : int, default 20
            Most columns in the heat map: those with the largest loadings.
        ax : matplotlib Axes, optional
            Where to draw; it is divided. None makes a figure.

        Returns
        -------
        StabilityDisplay
        """
        return cls(stability).plot(max_columns=max_columns, ax=ax)

    def plot(self, *, max_columns=20, ax=None):
        """Draw; the parameters are those of :meth:`from_stability`.

        Returns
        -------
        self
        """
        _check_whole("max_columns", max_columns)
        k, p = self.stability.consensus.shape
        width, height = drawing.heatmap_size(k, min(p, max_columns))
        heights = [2.1, max(height - 1, 1)]
        self.figure_, ax = drawing.canvas(ax, (width, height + 2.6))
        self.axes_ = drawing.panels(ax, 2, 1, sharex=True, heights=heights, space=(0.3, 0))[:, 0]
        strip, heat = self.axes_
        self.ax_ = strip
        mesh, note = drawing.draw_loadings(heat, self.stability.consensus, max_columns, None)
        drawing.loadings_bar(mesh, [strip, heat], shrink=0.5)
        heat.set_title(
            f"mean loadings of the runs{'; ' if note else ''}{note}", loc="left", color=QUIET, fontsize="small"
        )
        self._strip(strip)
        strip.set_ylabel("similarity", color=QUIET)
        drawing.heading(ax, "Which components come back", "cosine of the loadings of each run with the reference")
        return self

    def _strip(self, ax):
        """Draw a point for every run and component, and a bar at the mean."""
        table, names = self.stability.table, self.stability.consensus.index
        lowest = table["similarity"].min()
        drawing.tidy(ax, grid="y")
        for source, label, side, colour, marker in (
            ("start", "other starts", -1, BLUE, "o"),
            ("rows", "other samples of the rows", 1, VERMILLION, "D"),
        ):
            part = table[table["source"] == source]
            rank = part.groupby("component")["run"].rank(method="first") - 1
            spread = 0.05 + 0.32 * rank / max(rank.max(), 1) if len(part) else rank
            x = names.get_indexer(part["component"]) + 0.5 + side * spread
            if len(part):
                ax.scatter(x, part["similarity"], 16, colour, marker=marker, linewidths=0, alpha=0.7, label=label)
        mean = self.stability.reproducibility.reindex(names)
        ax.hlines(
            mean, np.arange(len(names)) + 0.1, np.arange(len(names)) + 0.9, color="black", linewidth=1.6, label="mean"
        )
        low = 0.0 if lowest < 0.5 else 0.5
        ax.set_ylim(low - 0.03 * (1 - low), 1 + 0.04 * (1 - low))
        ax.tick_params(axis="x", labelbottom=False)
        ax.legend(
            loc="lower left",
            bbox_to_anchor=(-0.01, 0.98),
            ncols=3,
            frameon=False,
            fontsize="small",
            borderpad=0,
            handletextpad=0.3,
            columnspacing=1.2,
            handlelength=1.2,
        )


# What is asked of the arguments.


def _check_fitted(nmf):
    if not isinstance(nmf, NMFFeatures):
        raise TypeError(
            f"nmf is {type(nmf).__name__}; wanted a fitted NMFFeatures. Of a pipeline pass that step, for example "
            "pipeline[-1], and the X that reaches it."
        )
    check_is_fitted(nmf)
    if nmf.n_components_ == 0:
        raise ValueError("n_components=0: there are no components to draw. Fit with n_components=1 or more.")


def _choice(argument, value, choices):
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{argument} is {value!r}; wanted one of {list(choices)}.")
    return choices[value]


def _check_whole(argument, value):
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{argument} is {value!r}; wanted a whole number, 1 or more.")


def _check_length(argument, values, length, of_what):
    shape = getattr(values, "shape", (len(values),))  # a list may hold tuples
    if shape != (length,):
        raise ValueError(f"{argument} has shape {shape}; wanted ({length},), as there are {length} {of_what}.")


def _check_image(image_shape, p):
    """Return height and width of images with p pixels."""
    if image_shape is None:
        raise ValueError(f'image_shape is None; kind="tiles" needs the (height, width) of an image of {p} pixels.')
    if np.shape(image_shape) != (2,) or any(not isinstance(m, Integral) or m < 1 for m in image_shape):
        raise ValueError(f"image_shape is {image_shape!r}; wanted two whole numbers, (height, width).")
    height, width = image_shape
    if height * width != p:
        raise ValueError(
            f"image_shape is {tuple(image_shape)}, which makes {height * width} pixels; wanted {p}, one for each "
            'column of the loadings (shift="split" has two for each column of X).'
        )
    return height, width


def _table_of_loadings(components, names, columns):
    """Return loadings as a frame with names."""
    H = components.to_numpy() if isinstance(components, pd.DataFrame) else np.asarray(components)
    if H.ndim != 2 or not H.size:
        raise ValueError(f"components has shape {H.shape}; wanted (n_components, n_columns), at least one of each.")
    H = H.astype(np.float64)
    if not (np.isfinite(H).all() and (H >= 0).all()):
        raise ValueError(
            f"components has {int((~(H >= 0) | np.isinf(H)).sum())} values that are NaN, infinite or below 0."
        )
    if names is None:
        names = components.index if isinstance(components, pd.DataFrame) else component_names(len(H))
    if columns is None:
        columns = components.columns if isinstance(components, pd.DataFrame) else range(H.shape[1])
    _check_length("names", names, len(H), "components")
    _check_length("columns", columns, H.shape[1], "columns")
    return pd.DataFrame(H, index=drawing.index(names), columns=drawing.index(columns))


def _to_array(W, columns):
    """Return some columns of a frame, array or sparse matrix as a float array; NaN is let through."""
    if frames.is_frame(W):
        return frames.to_matrix(W, range(len(frames.labels(W)))[columns], "ignore")[0]
    W = W.tocsr()[:, columns].toarray() if sparse.issparse(W) else W[:, columns]
    return np.asarray(W, dtype=np.float64)
