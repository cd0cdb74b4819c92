"""Single rows: why one has its scores, and which do not fit."""

from numbers import Integral
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from .. import frames
from ..explaining import worst_rows
from . import drawing
from .arguments import check_fitted, check_whole
from .inks import Inks


class RowDisplay:
    """Why a row has its scores: the contributions of its columns, added up step by step (a waterfall).

    Parameters
    ----------
    lines : pandas.DataFrame
        Those of :meth:`NMFFeatures.explain <nmf_features.NMFFeatures.explain>` about one row.
    name : object, default 0
        Which row it is, for the title.

    Attributes
    ----------
    lines, name
        As given.
    ax_ : matplotlib Axes
        The first of ``axes_``.
    axes_ : ndarray of matplotlib Axes
        One for each component that is drawn.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from nmf_features import NMFFeatures
    >>> from nmf_features.plots import RowDisplay
    >>> X = load_wine(as_frame=True).data
    >>> nmf = NMFFeatures(n_components=3).fit(X)
    >>> display = RowDisplay.from_estimator(nmf, X, row=5)
    >>> float(display.lines["contribution"].sum() - nmf.transform(X).iloc[5].sum())
    0.00
    """

    def __init__(self, lines: Any, name: Any = 0) -> None:
        self.lines = lines
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        nmf: Any,
        X: Any,
        *,
        row: Any = 0,
        kind: str = "share",
        n_top: int = 6,
        max_components: int = 6,
        ax: Any = None,
    ) -> Self:
        """Draw a row of X, as a fitted :class:`NMFFeatures` explains it.

        Parameters
        ----------
        nmf : NMFFeatures
            Fitted, with at least one component.
        X : frame, array-like or sparse matrix of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.
        row : int, default 0
            Position of the row in X.
        kind : {"share", "signed"}, default "share"
            How scores are divided; see :meth:`NMFFeatures.explain <nmf_features.NMFFeatures.explain>`.
        n_top : int, default 6
            Most columns that are named for each score.
        max_components : int, default 6
            Most components: those of the largest scores.
        ax : matplotlib Axes, optional
            Where to draw; it is divided. None makes a figure.

        Returns
        -------
        RowDisplay

        Raises
        ------
        ValueError
            For ``n_components=0``, a ``row`` that X does not have, or one without scores.
        """
        check_fitted(nmf)
        drawing.pyplot()
        X = frames.as_table(X)
        n = _num_samples(X)
        if not isinstance(row, Integral) or isinstance(row, bool) or not 0 <= row < n:
            raise ValueError(f"row is {row!r}; wanted a position from 0 to {n - 1}, as X has {n} rows.")
        check_whole("n_top", n_top)
        lines = nmf.explain(_safe_indexing(X, [row]), top=n_top, kind=kind)
        columns = frames.labels(lines)
        lines = pd.DataFrame({name: np.asarray(lines[name]) for name in columns}).assign(row=row)
        name = X.index[row] if isinstance(X, pd.DataFrame) else row
        return cls(lines, name).plot(max_components=max_components, ax=ax)

    def plot(self, *, max_components: int = 6, ax: Any = None) -> Self:
        """Draw; the parameters are those of :meth:`from_estimator`.

        Returns
        -------
        self
        """
        check_whole("max_components", max_components)
        scores = self.lines.groupby("component", sort=False)["contribution"].sum(min_count=1)
        if scores.isna().any():
            raise ValueError(f"Row {self.name} has no scores: no cell of it is observed.")
        drawn = scores[scores != 0].abs().nlargest(max_components).index
        drawn = [name for name in scores.index if name in drawn] or [*scores.index[:1]]
        steps = [self._steps(name, scores[name]) for name in drawn]
        wide = 2 if len(steps) == 4 else min(len(steps), 3)
        tall, m = -(-len(steps) // wide), max(map(len, steps))
        self.figure_, ax = drawing.canvas(ax, (max(4.6 * wide, 6), (0.25 * m + 0.55) * tall + 0.8))
        self.axes_ = drawing.used(drawing.panels(ax, tall, wide, space=(0.3, 1.0)), len(steps))
        self.ax_ = self.axes_[0]
        ends = pd.concat(steps)[["start", "end"]]
        low, high = ends.min(axis=None), ends.max(axis=None) or 1.0
        for panel, part, name in zip(self.axes_, steps, drawn, strict=True):
            _draw_waterfall(panel, part)
            drawing.small_title(panel, name)
            room = 0.2 * (high - low)
            panel.set(xlim=(low - room * (low < 0), high + room), ylim=(m - 0.4, -0.6))
        notes = ["what each column adds to the score, measured from its baseline"]
        zero = [name for name in scores.index if scores[name] == 0]
        if zero:
            notes.append(f"zero: {drawing.listed(zero)}")
        if left := len(scores) - len(zero) - len(drawn):
            notes.append(f"smaller scores left out: {left}")
        drawing.heading(ax, f"Why row {drawing.shown(self.name)} has its scores", "; ".join(notes))
        return self

    def _steps(self, component, score):
        """Return the bars of one component: where they start and end, their ink and their name."""
        lines = self.lines[self.lines["component"] == component]
        parts, values = lines["contribution"].to_numpy(), lines["value"].to_numpy()
        end = np.cumsum(parts)
        names = [
            f"{drawing.shown(term, 22)} = {drawing.number(value)}" if value == value else str(term)
            for term, value in zip(lines["term"], values, strict=True)
        ]
        inks = np.where(parts < 0, "vermillion", "blue").astype(object)
        inks[-2:] = "rest", "purple"
        steps = pd.DataFrame({"start": end - parts, "end": end, "part": parts, "ink": inks, "name": names})
        is_rest = np.arange(len(steps)) >= len(steps) - 2
        steps = steps[~is_rest | (steps["part"] != 0)]
        total = pd.DataFrame({"start": [0.0], "end": [score], "part": [score], "ink": ["quiet"], "name": ["score"]})
        return pd.concat([steps, total], ignore_index=True)


def _draw_waterfall(ax, steps):
    """Draw bars that start where the one above them ends, with their amounts; the last is the score."""
    inks = Inks(ax)
    drawing.tidy(ax)
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)
    at, width = np.arange(len(steps)), steps["end"] - steps["start"]
    ax.barh(at, width, left=steps["start"], height=0.7, color=[getattr(inks, name) for name in steps["ink"]])
    for i in at[:-1]:
        ax.plot([steps["end"][i]] * 2, [i, i + 1], color=inks.rest, linewidth=0.8, zorder=0)
    ax.axvline(0, color=inks.rest, linewidth=0.8, zorder=0)
    for i in at:
        right = steps["part"][i] >= 0
        x = max(steps["start"][i], steps["end"][i]) if right else min(steps["start"][i], steps["end"][i])
        weight = "bold" if i == at[-1] else "normal"
        text = drawing.number(steps["part"][i]) if abs(steps["part"][i]) >= 1e3 else f"{steps['part'][i]:.3g}"
        text = text.replace("-", "\u2212")
        side = {"ha": "left" if right else "right", "va": "center"}
        drawing.write(ax, text, (x, i), (3 if right else -3, 0), color=inks.quiet, weight=weight, **side)
    ax.set_yticks(at, steps["name"])
    ax.tick_params(axis="y", labelcolor=inks.text)


class UnexplainedDisplay:
    """Which rows do not fit, and in which of their columns.

    Above, what the components leave unexplained of every row, the largest first; below, how it is spread over the
    columns, in the rows that fit least.

    Parameters
    ----------
    losses : pandas.Series of length n_samples
        What is left unexplained of each row, ``-score_samples(X)``, by name of the row; NaN where nothing is observed.
    cells : pandas.DataFrame
        What is left of each cell, for the rows that fit least, the worst first.

    Attributes
    ----------
    losses, cells
        As given.
    ax_ : matplotlib Axes
        The first of ``axes_``.
    axes_ : ndarray of matplotlib Axes
        The rows, and below them the heat map.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from nmf_features import NMFFeatures
    >>> from nmf_features.plots import UnexplainedDisplay
    >>> X = load_wine(as_frame=True).data
    >>> display = UnexplainedDisplay.from_estimator(NMFFeatures(n_components=5).fit(X), X)
    >>> display.cells.index[:3].tolist()  # the wines that fit least
    [69, 158, 95]
    """

    def __init__(self, losses: Any, cells: Any) -> None:
        self.losses = losses
        self.cells = cells

    @classmethod
    def from_estimator(cls, nmf: Any, X: Any, *, n_rows: int = 10, max_columns: int = 20, ax: Any = None) -> Self:
        """Draw what a fitted :class:`NMFFeatures` leaves unexplained of X.

        Parameters
        ----------
        nmf : NMFFeatures
            Fitted, with at least one component.
        X : frame, array-like or sparse matrix of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.
        n_rows : int, default 10
            How many rows the heat map shows: those that fit least.
        max_columns : int, default 20
            Most columns in the heat map: those of which most is unexplained in these rows.
        ax : matplotlib Axes, optional
            Where to draw; it is divided. None makes a figure.

        Returns
        -------
        UnexplainedDisplay

        Raises
        ------
        ValueError
            For ``n_components=0``, or where no row has an observed cell.
        """
        check_fitted(nmf)
        drawing.pyplot()
        check_whole("n_rows", n_rows)
        X = frames.as_table(X)
        losses = -nmf.score_samples(X)
        worst = worst_rows(losses, n_rows)
        cells = np.asarray(nmf.unexplained(_safe_indexing(X, worst)))
        names = X.index if isinstance(X, pd.DataFrame) else pd.RangeIndex(len(losses))
        terms = drawing.index(nmf.columns_.terms)
        return cls(pd.Series(losses, names), pd.DataFrame(cells, names[worst], terms)).plot(
            max_columns=max_columns, ax=ax
        )

    def plot(self, *, max_columns: int = 20, ax: Any = None) -> Self:
        """Draw; the parameters are those of :meth:`from_estimator`.

        Returns
        -------
        self
        """
        check_whole("max_columns", max_columns)
        losses = np.sort(self.losses.dropna().to_numpy())[::-1]
        if not len(losses):
            raise ValueError(f"X has no row with an observed cell, of {len(self.losses)}; wanted at least one.")
        totals = self.cells.sum()
        kept = np.sort(np.argsort(-totals.to_numpy(), kind="stable")[:max_columns])
        m, p = len(self.cells), len(kept)
        height = 0.25 * m
        self.figure_, ax = drawing.canvas(ax, (max(3.4 + 0.42 * p, 7.2), height + 5))
        heights = [2, max(height, 1)]
        self.axes_ = drawing.panels(ax, 2, 1, heights=heights, space=(0.9, 0))[:, 0]
        self.ax_, heat = self.axes_
        inks = Inks(heat)
        self._ranked(self.ax_, losses)
        mesh = heat.pcolormesh(
            np.ma.masked_invalid(self.cells.to_numpy(dtype=float)[:, kept]),
            cmap=inks.amounts("Oranges"),
            vmin=0,
            vmax=float(np.nanmax(self.cells.to_numpy(dtype=float), initial=0.0)) or 1.0,
            edgecolor=inks.paper,
            linewidth=1,
        )
        drawing.name_cells(heat, self.cells.index, self.cells.columns[kept])
        heat.set_facecolor(inks.line)
        heat.set_ylabel("")
        bar = self.figure_.colorbar(
            mesh, ax=[*self.axes_], shrink=0.5, aspect=30, pad=0.02, anchor=(0, 0), panchor=False
        )
        drawing.tidy_bar(bar, "unexplained of a cell")
        notes = [f"the {m} rows that fit least, of {drawing.number(len(losses))}"]
        if p < len(totals):
            notes.append(f"the {p} of {len(totals)} columns with most")
        if missing := int(self.losses.isna().sum()):
            notes.append(f"rows without observed cells, left out: {missing}")
        drawing.heading(ax, "Which rows the components do not explain", "; ".join(notes), above=6)
        return self

    def _ranked(self, ax, losses):
        """Draw what is left of every row, the largest first, and mark those of the heat map."""
        m, inks = len(self.cells), Inks(ax)
        at = np.arange(1, len(losses) + 1)
        ax.plot(at, losses, color=inks.blue, linewidth=1.6)
        ax.scatter(at[:m], losses[:m], 22, inks.vermillion, zorder=3, linewidths=0)
        drawing.tidy(ax, grid="y")
        ax.set_ylim(0, 1.12 * (losses[0] or 1))
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set_xlabel("rows, those that fit least first", color=inks.quiet)
        ax.set_ylabel("unexplained of a row", color=inks.quiet)
