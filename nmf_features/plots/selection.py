"""How many components, how much penalty, which components come back: what ``nmf_features.selection`` found."""

from typing import Any, Self

import numpy as np

from . import drawing, loadings
from .arguments import check_whole
from .inks import Inks


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

    def __init__(self, selection: Any) -> None:
        self.selection = selection

    @classmethod
    def from_selection(cls, selection: Any, *, ax: Any = None) -> Self:
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

    def plot(self, *, ax: Any = None) -> Self:
        """Draw; ``ax`` as in :meth:`from_selection`.

        Returns
        -------
        self
        """
        summary, choice = self.selection.summary.sort_values("n_components"), self.selection.n_components
        k, error = summary["n_components"].to_numpy(), summary["error"].to_numpy(dtype=float)
        bars = summary["standard_error"].to_numpy(dtype=float)  # NaN for one split: no bar
        self.figure_, self.ax_ = drawing.canvas(ax, (7, 4.4))
        ax, inks = self.ax_, Inks(self.ax_)
        splits = self.selection.table.groupby("split")
        for _, split in splits:
            split = split.sort_values("n_components")
            ax.plot(split["n_components"], split["error"], color=inks.rest, linewidth=0.6, zorder=1)
        ax.axhline(error.min(), color=inks.quiet, linewidth=0.8, linestyle="--", zorder=1)
        ax.fill_between(k, error - bars, error + bars, color=inks.blue, alpha=0.15, linewidth=0, zorder=2)
        how = {"linewidth": 2, "elinewidth": 1.4, "capsize": 0, "marker": "o", "markersize": 5, "zorder": 3}
        ax.errorbar(k, error, bars, color=inks.blue, **how)
        chosen = error[k == choice]
        ax.plot([choice], chosen, "D", markersize=11, color=inks.vermillion, markeredgecolor=inks.paper, zorder=4)
        behind = {"facecolor": inks.paper, "edgecolor": "none", "alpha": 0.8, "pad": 1}  # the text may cross a line
        words = {"color": inks.vermillion, "weight": "bold", "fontsize": "medium", "bbox": behind}
        drawing.write(ax, f"chosen: {choice}", (choice, chosen[0]), (0, -14), ha="center", va="top", **words)
        self._mark_means(ax, error, k)
        low, high = ax.get_ylim()
        ax.set_ylim(low - 0.08 * (high - low), high)  # room for the label of the choice
        drawing.tidy(ax, grid="y")
        ax.set_xticks(k[:: -(-len(k) // 20)])
        ax.set_xlabel("number of components", color=inks.quiet)
        ax.set_ylabel("error of hidden cells", color=inks.quiet)
        note = (
            f"mean of {len(splits)} splits (grey), with the standard error of its difference to the least error;\n"
            "chosen: the fewest components that come within it of the least (dashed)"
        )
        drawing.title(ax, "How many components?", note)
        return self

    def _mark_means(self, ax, error, k):
        """Draw the error of the column means, 1, unless it is far from the others."""
        everything = [*error, *self.selection.table["error"]]
        low, high = min(everything), max(everything)
        if low - (high - low) / 2 <= 1 <= high + (high - low) / 2:
            quiet = Inks(ax).quiet
            ax.axhline(1, color=quiet, linewidth=1, zorder=1)
            place = {"xycoords": ("axes fraction", "data"), "ha": "right"}
            drawing.write(ax, "column means", (1, 1), (0, 3), color=quiet, **place)


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

    def __init__(self, path: Any) -> None:
        self.path = path

    @classmethod
    def from_path(cls, path: Any, *, ax: Any = None) -> Self:
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

    def plot(self, *, ax: Any = None) -> Self:
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
        at, ticks, labels = _penalty_axis(table["penalty"].to_numpy(dtype=float))
        for panel, draw in zip(self.axes_, panels, strict=True):
            draw(panel, at, table)
            drawing.tidy(panel, grid="both")
        self.axes_[-1].set_xticks(ticks, labels)
        self.axes_[-1].set_xlabel("penalty", color=Inks(self.axes_[-1]).quiet)
        self.figure_.align_ylabels(self.axes_)
        drawing.heading(ax, "What the penalty does", above=6)
        return self

    def _zeros(self, ax, at, table):
        inks = Inks(ax)
        lines = {"loadings H": table["zero_loadings"], "scores W": table["zero_scores"]}
        _draw_lines(ax, at, lines, (inks.blue, inks.vermillion))
        ax.set_ylim(-0.14, 1.06)
        ax.set_ylabel("share of zeros", color=inks.quiet)

    def _errors(self, ax, at, table):
        inks = Inks(ax)
        lines, errors = {"all cells fitted": table["error"]}, {}
        if "held_out_error" in table:  # absent if no cells were hidden
            lines = {"hidden cells": table["held_out_error"]} | lines
            errors = {"hidden cells": table["held_out_standard_error"]}
        _draw_lines(ax, at, lines, (inks.vermillion, inks.blue)[2 - len(lines) :], errors)
        alive = table[table["n_alive"] > 0] if table["n_alive"].any() else table
        top = max(alive[name].max() for name in ("error", "held_out_error") if name in alive)
        ax.set_ylim(0, 1.25 * top)  # an empty model may be far worse than the column means
        ax.set_ylabel("error (means: 1)", color=inks.quiet)

    def _score(self, ax, at, table):
        inks = Inks(ax)
        _draw_lines(ax, at, {"": table["score"]}, (inks.green,), {"": table["score_standard_error"]})
        ax.set_ylabel({"r2": "R²"}.get(self.path.scoring, self.path.scoring), color=inks.quiet)

    def _alive(self, ax, at, table):
        inks = Inks(ax)
        _draw_lines(ax, at, {"": table["n_alive"]}, (inks.quiet,))
        ax.set_ylim(0, 1.15 * table["n_alive"].max() or 1)
        ax.yaxis.get_major_locator().set_params(integer=True, nbins=4)
        ax.set_ylabel("components", color=inks.quiet)


def _penalty_axis(penalties):
    """Return positions of penalties on a logarithmic axis, with 0 to the left of it, and the ticks."""
    positive = penalties[penalties > 0]
    logs = np.log10(positive)
    first, last = (logs.min(), logs.max()) if len(logs) else (0.0, 0.0)
    zero = first - max(0.08 * (last - first), 0.4)
    at = np.full(len(penalties), zero)
    at[penalties > 0] = logs
    decades = np.arange(np.ceil(first - 1e-9), np.floor(last + 1e-9) + 1)
    ticks = (
        list(decades[:: max(1, len(decades) // 7)]) if len(decades) > 1 else list(np.unique([first, last]))[: len(logs)]
    )
    labels = [f"{10**tick:.3g}" for tick in ticks]
    if (penalties == 0).any():
        ticks, labels = [zero, *ticks], ["0", *labels]
    return at, ticks, labels


def _draw_lines(ax, at, lines, colours, standard_errors=None):
    """Draw lines over the penalties, named where they are furthest apart."""
    for (name, values), colour in zip(lines.items(), colours, strict=True):
        values = values.to_numpy(dtype=float)
        ax.plot(at, values, color=colour, marker="o", markersize=4, linewidth=1.8)
        if standard_errors and name in standard_errors:
            error = standard_errors[name].to_numpy(dtype=float)
            ax.fill_between(at, values - error, values + error, color=colour, alpha=0.18, linewidth=0)
    ax.margins(y=0.18)
    if len(lines) == 2:
        _name_two(ax, at, lines, colours)


def _name_two(ax, at, lines, colours):
    """Name two lines where they are furthest apart, the upper one from above."""
    a, b = (values.to_numpy(dtype=float) for values in lines.values())
    gap = np.abs(a - b)
    i = int(np.nanargmax(gap[1:-1])) + 1 if len(gap) > 2 else 0
    where = (at[i] - at[0]) / (np.ptp(at) or 1)
    for name, values, colour, above in zip(lines, (a, b), colours, (a[i] >= b[i], a[i] < b[i]), strict=True):
        rising = values[-1] >= values[0]
        side = "left" if where < 1 / 3 else "right" if where > 2 / 3 or above == rising else "left"
        drawing.write(
            ax,
            name,
            (at[i], values[i]),
            (0, 6 if above else -6),
            ha=side,
            va="bottom" if above else "top",
            color=colour,
        )


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

    def __init__(self, stability: Any) -> None:
        self.stability = stability

    @classmethod
    def from_stability(cls, stability: Any, *, max_columns: int = 20, ax: Any = None) -> Self:
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

    def plot(self, *, max_columns: int = 20, ax: Any = None) -> Self:
        """Draw; the parameters are those of :meth:`from_stability`.

        Returns
        -------
        self
        """
        check_whole("max_columns", max_columns)
        k, p = self.stability.consensus.shape
        width, height = loadings.heatmap_size(k, min(p, max_columns))
        heights = [2.1, max(height - 1, 1)]
        self.figure_, ax = drawing.canvas(ax, (width, height + 2.6))
        self.axes_ = drawing.panels(ax, 2, 1, sharex=True, heights=heights, space=(0.3, 0))[:, 0]
        strip, heat = self.axes_
        self.ax_ = strip
        mesh, note = loadings.draw_loadings(heat, self.stability.consensus, max_columns, None)
        loadings.loadings_bar(mesh, [strip, heat], shrink=0.5)
        text = f"mean loadings of the runs{'; ' if note else ''}{note}"
        heat.set_title(text, loc="left", color=Inks(heat).quiet, fontsize="small")
        self._strip(strip)
        strip.set_ylabel("similarity", color=Inks(strip).quiet)
        drawing.heading(ax, "Which components come back", "cosine of the loadings of each run with the reference")
        return self

    def _strip(self, ax):
        """Draw a point for every run and component, and a bar at the mean."""
        table, names = self.stability.table, self.stability.consensus.index
        lowest, inks = table["similarity"].min(), Inks(ax)
        drawing.tidy(ax, grid="y")
        for source, label, side, colour, marker in (
            ("start", "other starts", -1, inks.blue, "o"),
            ("rows", "other samples of the rows", 1, inks.vermillion, "D"),
        ):
            part = table[table["source"] == source]
            rank = part.groupby("component")["run"].rank(method="first") - 1
            spread = 0.05 + 0.32 * rank / max(rank.max(), 1) if len(part) else rank
            x = names.get_indexer(part["component"]) + 0.5 + side * spread
            if len(part):
                ax.scatter(x, part["similarity"], 16, colour, marker=marker, linewidths=0, alpha=0.7, label=label)
        mean = self.stability.reproducibility.reindex(names)
        ax.hlines(
            mean, np.arange(len(names)) + 0.1, np.arange(len(names)) + 0.9, color=inks.text, linewidth=1.6, label="mean"
        )
        low = 0.0 if lowest < 0.5 else 0.5
        ax.set_ylim(low - 0.03 * (1 - low), 1 + 0.04 * (1 - low))
        ax.tick_params(axis="x", labelbottom=False)
        ax.legend(
            loc="lower left",
            bbox_to_anchor=(-0.01, 0.98),
            ncols=3,
            frameon=False,
            labelcolor=inks.text,
            fontsize="small",
            borderpad=0,
            handletextpad=0.3,
            columnspacing=1.2,
            handlelength=1.2,
        )
