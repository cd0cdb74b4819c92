"""Scores as points and histograms, coloured by category or by amount."""

import numpy as np
import pandas as pd

from .drawing import shown, tidy, tidy_bar
from .inks import Inks

MARKERS = ("o", "D", "s", "^", "v", "P")  # for prints without colours


def correlation(W):
    """Correlations of the columns; NaN for one that does not vary."""
    D = W - W.mean(axis=0)
    norms = np.linalg.norm(D, axis=0)
    vary = norms > 1e-12 * np.abs(W).max(axis=0, initial=0.0) * np.sqrt(len(W))  # by more than rounding error
    D = np.divide(D, norms, out=np.full(D.shape, np.nan), where=vary)
    return np.clip(D.T @ D, -1, 1)


def colouring(y, scored, cmap, inks):
    """Return how points are coloured: all alike, by category, or by amount."""
    if y is None:
        return Categories(["rows"], np.zeros(scored.sum(), dtype=int), [inks.blue], ["o"], None, inks)
    values = pd.Series(y.array if isinstance(y, pd.Series) else y if isinstance(y, pd.Categorical) else np.asarray(y))
    values, name = values[scored], getattr(y, "name", None) or "y"
    if are_amounts(values):
        return Amounts(
            values.to_numpy(dtype=np.float64, na_value=np.nan), shown(name), cmap or inks.scale("cividis"), inks
        )
    return Categories.of(pd.Categorical(values), shown(name), inks)


def are_amounts(values):
    """Whether values are amounts rather than categories: more than ten different numbers, or fractions."""
    test = pd.api.types
    if not test.is_numeric_dtype(values) or test.is_bool_dtype(values):
        return False
    known = values.dropna()
    return known.nunique() > 10 or bool((known % 1 != 0).any())


class Categories:
    """Points with a colour and a marker for each category."""

    def __init__(self, labels, codes, colours, markers, name, inks):
        self.labels, self.codes, self.colours, self.markers, self.name = labels, codes, colours, markers, name
        self.inks = inks

    @classmethod
    def of(cls, values, name, inks):
        """Give the most frequent categories colours of their own; the others, and missing ones, are grey."""
        values = values.remove_unused_categories()
        labels, codes = [shown(label, 18) for label in values.categories], np.array(values.codes, dtype=int)
        if len(labels) > len(MARKERS):
            counts = np.bincount(codes[codes >= 0], minlength=len(labels))
            kept = np.sort(np.argsort(-counts, kind="stable")[: len(MARKERS) - 1])
            place = np.full(len(labels) + 1, len(kept))
            place[kept], place[-1] = np.arange(len(kept)), -1  # code -1, missing, stays -1
            codes, labels = place[codes], [*(labels[i] for i in kept), f"{len(labels) - len(kept)} others"]
            colours, markers = [*inks.series[: len(kept)], inks.rest], [*MARKERS[: len(kept)], "X"]
        else:
            colours, markers = [*inks.series[: len(labels)]], [*MARKERS[: len(labels)]]
        if (codes < 0).any():
            codes = np.where(codes < 0, len(labels), codes)
            labels, colours, markers = [*labels, "missing"], [*colours, inks.rest], [*markers, "."]
        return cls(labels, codes, colours, markers, name, inks)

    def groups(self):
        """Label, colour and rows of each category."""
        return [(c, colour, self.codes == c) for c, colour in enumerate(self.colours)]

    def draw(self, ax, x, y, drawn):
        """Draw the points of one pair."""
        for c, colour, rows in reversed(self.groups()):
            at = drawn[rows[drawn]]
            ax.scatter(
                x[at],
                y[at],
                point_size(len(drawn)),
                colour,
                marker=self.markers[c],
                alpha=0.75,
                edgecolor=self.inks.paper,
                linewidths=0.3,
                label=self.labels[c],
            )

    def explain(self, axes):
        """Add a legend, in the empty corner where there is one."""
        if self.name is None:
            return
        from matplotlib.lines import Line2D

        handles = [
            Line2D(
                [],
                [],
                linestyle="",
                marker=marker,
                color=colour,
                markeredgecolor=self.inks.paper,
                markersize=8,
                label=label,
            )
            for label, colour, marker in zip(self.labels, self.colours, self.markers, strict=True)
        ]
        place = (
            {"loc": "upper right", "bbox_to_anchor": (1, 0.9)}
            if len(axes) == 1
            else {"loc": "upper left", "bbox_to_anchor": (1.03, 1.03)}
        )
        how = {"frameon": False, "alignment": "left", "labelcolor": self.inks.text} | place
        legend = axes[0, 0].legend(handles=handles, title=self.name, **how)
        legend.get_title().set_color(self.inks.text)
        legend.set_in_layout(False)


class Amounts:
    """Points coloured by a number; hollow where it is missing."""

    def __init__(self, values, name, cmap, inks):
        self.values, self.name, self.cmap, self.inks = np.where(np.isinf(values), np.nan, values), name, cmap, inks
        self.drawn = None

    def groups(self):
        """Return a single group, of all rows."""
        return [(0, self.inks.rest, np.ones(len(self.values), dtype=bool))]

    def draw(self, ax, x, y, drawn):
        """Draw the points of one pair."""
        known = ~np.isnan(self.values[drawn])
        size = point_size(len(drawn))
        hollow = {"facecolor": "none", "edgecolor": self.inks.rest, "linewidths": 0.8}
        ax.scatter(x[drawn[~known]], y[drawn[~known]], size, **hollow)
        at = drawn[known]
        low, high = np.nanquantile(self.values, (0.02, 0.98)) if known.any() else (None, None)  # despite a few outliers
        how = {"cmap": self.cmap, "vmin": low, "vmax": high, "alpha": 0.85, "linewidths": 0}
        self.drawn = ax.scatter(x[at], y[at], size, self.values[at], **how)

    def explain(self, axes):
        """Add a colour bar."""
        if self.drawn is None:  # one component, no pair
            return
        axes = [panel for panel in axes.flat if panel is not None]
        bar = axes[0].figure.colorbar(self.drawn, ax=axes, shrink=0.6, aspect=30, pad=0.02, extend="both")
        bar.solids.set_alpha(1)
        tidy_bar(bar, self.name)


def point_size(n):
    """Return the area of one of n points."""
    return float(np.clip(6000 / max(n, 1), 7, 26))


def draw_histogram(ax, w, colouring):
    """Draw histograms of a component's scores, one for each category, all with the same bins."""
    edges = np.histogram_bin_edges(w, bins=int(np.clip(1.5 * np.sqrt(len(w)), 8, 24)))
    groups = colouring.groups()
    for _, colour, rows in groups:
        if len(groups) == 1:
            ax.hist(w[rows], edges, color=colour, alpha=0.55)
        else:
            ax.hist(w[rows], edges, histtype="stepfilled", facecolor=colour, alpha=0.25)
            ax.hist(w[rows], edges, histtype="step", edgecolor=colour, linewidth=1.3)


def tidy_pairs(axes, W, names):
    """Share the axes of the pairs, and name the components along the outside and on the diagonal."""
    k = len(names)
    for i in range(k):
        margin = 0.05 * (np.ptp(W[:, i]) or 1)
        limits = W[:, i].min() - margin, W[:, i].max() + margin
        for j in range(i + 1):
            panel, text = axes[i, j], Inks(axes[i, j]).text
            tidy(panel, grid="x" if i == j else "both")
            if j == i:
                panel.set(xlim=limits, ylim=(0, 1.2 * panel.get_ylim()[1]), yticks=[])  # room for the name
                panel.spines["left"].set_visible(False)
                how = {"transform": panel.transAxes, "ha": "right", "va": "top", "weight": "bold", "color": text}
                panel.text(0.97, 0.95, shown(names[i], 16), **how)
            elif j:
                panel.sharey(axes[i, 0])
                panel.tick_params(labelleft=False)
            else:
                panel.set_ylim(limits)
                panel.set_ylabel(shown(names[i], 16), color=text)
            if i < k - 1:
                panel.tick_params(labelbottom=False)
            else:
                panel.set_xlabel(shown(names[j], 16), color=text)
