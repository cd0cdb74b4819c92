"""What the components are made of: loadings H as a heat map, as bars or as images."""

from numbers import Integral
from typing import Any, Self

import numpy as np
import pandas as pd

from ..columns import component_names
from . import drawing
from .arguments import check_fitted, check_length, check_whole, choice
from .inks import Inks, text_on

TALLEST = 15  # inches, of a heat map


class LoadingsDisplay:
    """What each component is made of: the loadings H, as a heat map, as bars or as images.

    Parameters
    ----------
    components : pandas.DataFrame of shape (n_components, n_columns)
        Loadings, a row for each component; index and columns are their names.
    target : pandas.DataFrame of shape (n_components, n_targets), optional
        What each component says of targets: a heat map of its own under that of the loadings.

    Attributes
    ----------
    components, target
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

    def __init__(self, components: Any, target: Any = None) -> None:
        self.components, self.target = components, target

    @classmethod
    def from_estimator(
        cls,
        nmf: Any,
        *,
        kind: str = "heatmap",
        target: bool = False,
        n_top: int = 10,
        max_columns: int = 40,
        image_shape: Any = None,
        cmap: Any = None,
        ax: Any = None,
    ) -> Self:
        """Draw the loadings of a fitted :class:`NMFFeatures`.

        Parameters
        ----------
        nmf : NMFFeatures
            Fitted, with at least one component.
        kind : {"heatmap", "bars", "tiles"}, default "heatmap"
            A heat map of all components, a row for each column of X, under the component in which it counts most; the
            largest loadings of each component as bars; or, where the columns are the pixels of an image, an image for
            each component.
        target : bool, default False
            Whether the heat map shows ``target_loadings_`` too.
        n_top : int, default 10
            Bars of each component.
        max_columns : int, default 40
            Most columns in the heat map: those with the largest loadings, relative to the largest of a component.
        image_shape : (int, int), optional
            Height and width of the images, for ``kind="tiles"``.
        cmap : str or matplotlib Colormap, optional
            Colours of heat map and tiles; default "Blues" and "Greys", reversed on dark paper.
        ax : matplotlib Axes, optional
            Where to draw; divided, where several are needed. None makes a figure.

        Returns
        -------
        LoadingsDisplay

        Raises
        ------
        ValueError
            For ``n_components=0``, an unknown ``kind``, an ``image_shape`` that does not hold all columns, or a
            ``target`` where there was none in the fit, or with another kind than the heat map.
        """
        check_fitted(nmf)
        components = pd.DataFrame(nmf.components_, index=nmf.columns_.component_names, columns=nmf.columns_.terms)
        if target and kind != "heatmap":
            raise ValueError(f'target=True is of use with kind="heatmap" alone; kind is {kind!r}.')
        return cls(components, nmf.target_table() if target else None).plot(
            kind=kind, n_top=n_top, max_columns=max_columns, image_shape=image_shape, cmap=cmap, ax=ax
        )

    @classmethod
    def from_components(
        cls,
        components: Any,
        names: Any = None,
        columns: Any = None,
        *,
        kind: str = "heatmap",
        n_top: int = 10,
        max_columns: int = 40,
        image_shape: Any = None,
        cmap: Any = None,
        ax: Any = None,
    ) -> Self:
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

    def plot(
        self,
        *,
        kind: str = "heatmap",
        n_top: int = 10,
        max_columns: int = 40,
        image_shape: Any = None,
        cmap: Any = None,
        ax: Any = None,
    ) -> Self:
        """Draw; the parameters are those of :meth:`from_estimator`.

        Returns
        -------
        self
        """
        draw = choice("kind", kind, {"heatmap": self._heatmap, "bars": self._bars, "tiles": self._tiles})
        check_whole("n_top", n_top)
        check_whole("max_columns", max_columns)
        draw(ax, n_top=n_top, max_columns=max_columns, image_shape=image_shape, cmap=cmap)
        self.ax_ = self.axes_.flat[0]
        return self

    def _heatmap(self, ax, max_columns, cmap, **_):
        k, p = self.components.shape
        (width, height), heights = heatmap_size(k, min(p, max_columns)), None
        if self.target is not None:
            heights = [min(p, max_columns), self.target.shape[1]]
            height += 0.25 * heights[1] + 0.5
        self.figure_, ax = drawing.canvas(ax, (width, height))
        text = "What each component is made of (loadings H)"
        if self.target is None:
            self.axes_ = np.array([ax])
            mesh, note = draw_loadings(ax, self.components, max_columns, cmap)
            loadings_bar(mesh, [ax])
            drawing.title(ax, text, note)
            return
        self.axes_ = drawing.panels(ax, 2, 1, heights=heights, space=(0.1, None)).ravel()
        mesh, note = draw_loadings(self.axes_[0], self.components, max_columns, cmap)
        loadings_bar(mesh, [self.axes_[0]])
        draw_targets(self.axes_[1], self.target)
        note += "\n" * bool(note) + "below: what one unit of its score adds to the target"
        drawing.heading(ax, text, note)

    def _bars(self, ax, n_top, **_):
        k, p = self.components.shape
        m, wide = min(n_top, p), min(k, 3)
        tall = -(-k // wide)
        self.figure_, ax = drawing.canvas(ax, (max(4.2 * wide, 5.4), (0.25 * m + 0.5) * tall + 0.7))
        self.axes_ = drawing.used(drawing.panels(ax, tall, wide, space=(0.3, 1.0)), k)
        for panel, (name, loadings) in zip(self.axes_, self.components.iterrows(), strict=True):
            draw_top(panel, loadings, m)
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
        inks = Inks(ax)
        self.axes_ = drawing.used(drawing.panels(ax, tall, wide, space=(0.3, 0.1)), k)
        for panel, (name, image) in zip(self.axes_, to_largest(self.components).iterrows(), strict=True):
            panel.imshow(image.to_numpy().reshape(height, width), cmap=cmap or inks.amounts("Greys"), vmin=0, vmax=1)
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set(visible=True, color=inks.line, linewidth=0.8)
            panel.set_title(drawing.shown(name), fontsize="medium", pad=3, color=inks.text)
        note = f"{'white' if inks.dark else 'dark'}: the largest loading of the component; "
        note += f"{'black' if inks.dark else 'white'}: none"
        drawing.heading(ax, "What each component is made of (loadings H)", note)


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
    check_length("names", names, len(H), "components")
    check_length("columns", columns, H.shape[1], "columns")
    return pd.DataFrame(H, index=drawing.index(names), columns=drawing.index(columns))


# Used by other displays too


def to_largest(components):
    """Divide the loadings of each component by the largest; components of zeros stay zero."""
    largest = components.max(axis=1)
    return components.div(largest.where(largest > 0, 1), axis=0)


def ordered_columns(H, most):
    """Return positions of the columns with the largest loadings, ordered by the component in which each counts most.

    Within a component the largest come first; columns without loadings come last.
    """
    top = H.max(axis=0)
    kept = np.sort(np.argsort(-top, kind="stable")[:most])
    group = np.where(top > 0, H.argmax(axis=0), len(H))
    return kept[np.lexsort((-top[kept], group[kept]))]


def heatmap_size(k, rows):
    """Return width and height of a heat map with k columns, in inches."""
    return max(3.4 + (0.75 * k if k <= 12 else 0.36 * k), 7.2), max(min(0.25 * rows, TALLEST) + 1.4, 3)


def draw_loadings(ax, components, max_columns, cmap):
    """Draw a heat map of H', a row for each column of X; return it, and a note on columns that were left out."""
    H, inks = to_largest(components), Inks(ax)
    order = ordered_columns(H.to_numpy(), max_columns)
    mesh = ax.pcolormesh(
        H.to_numpy()[:, order].T,
        cmap=cmap or inks.amounts("Blues"),
        vmin=0,
        vmax=1,
        edgecolor=inks.paper,
        linewidth=1.2 if len(order) <= 80 else 0,
    )
    drawing.name_cells(ax, H.columns[order], H.index)
    p = H.shape[1]
    return mesh, f"the {len(order)} of {p} columns with the largest loadings" if len(order) < p else ""


def draw_targets(ax, target):
    """Draw a row for each target, red where a component raises it and blue where it lowers it, with the numbers."""
    values = target.to_numpy().T
    top = np.abs(values).max(axis=1, keepdims=True, initial=0.0)
    share = np.divide(values, top, out=np.zeros(values.shape), where=top > 0)
    limits = {"vmin": -1.6, "vmax": 1.6}  # pale: numbers stay legible
    mesh = ax.pcolormesh(share, cmap="RdBu_r", **limits, edgecolor=Inks(ax).paper, linewidth=1.2)
    if values.shape[1] <= 12:
        for (j, t), value in np.ndenumerate(values):
            text = f"{value:+.2g}".replace("-", "\u2212")
            colour = text_on(mesh.to_rgba(share[j, t]))
            ax.text(t + 0.5, j + 0.5, text, ha="center", va="center", fontsize="small", color=colour)
    drawing.tidy(ax)
    drawing.name_rows(ax, np.arange(len(values)) + 0.5, target.columns)
    ax.set(xticks=[], ylim=(len(values), 0))
    ax.spines[:].set_visible(False)


def loadings_bar(mesh, axes, shrink=0.8):
    """Add the colour bar of a heat map of loadings."""
    bar = axes[0].figure.colorbar(
        mesh,
        ax=axes,
        shrink=shrink,
        aspect=30,
        pad=0.02,
        anchor=(0, 0),
        ticks=[0, 0.5, 1],
        format="{x:g}",
        panchor=False,
    )
    drawing.tidy_bar(bar, "loading, relative to the\nlargest of the component")


def draw_top(ax, loadings, m):
    """Draw the m largest loadings of a component, and the share of the component that they make up."""
    top = loadings.sort_values(ascending=False, kind="stable").head(m)
    top, inks = top[top > 0], Inks(ax)
    drawing.tidy(ax)
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)
    if not len(top):
        ax.set_yticks([])
        ax.text(0.02, 0.5, "all loadings are zero", transform=ax.transAxes, color=inks.quiet, fontsize="small")
        return
    bars = ax.barh(np.arange(len(top)), top, height=0.7, color=inks.blue)
    ax.bar_label(
        bars,
        [f"{value:#.2g}" if value < 10 else drawing.number(value) for value in top],
        padding=3,
        color=inks.quiet,
        fontsize="small",
    )
    drawing.name_rows(ax, np.arange(len(top)), top.index)
    share = top.sum() / loadings.sum()
    if share < 0.995:
        ax.set_title(f"{share:.0%}", loc="right", color=inks.quiet, fontsize="small", pad=4)
