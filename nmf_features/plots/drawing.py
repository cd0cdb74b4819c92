"""What the plots have in common: names and numbers, axes and titles.

Nothing here knows an estimator, nor changes a setting of matplotlib, which is imported when something is drawn.
"""

from typing import Any

import numpy as np
import pandas as pd

from .inks import Inks

LONGEST_NAME = 28


# Names and numbers.


def index(names):
    """Return names as an index, tuples as they are."""
    return pd.Index(list(names), tupleize_cols=False)


def shown(name, longest=LONGEST_NAME):
    """Return a name as one short line, in which $ does not start a formula."""
    text = " ".join(str(name).split())
    if len(text) > longest:
        tail = longest // 2 - 2  # names often differ at the end
        text = f"{text[: longest - 1 - tail].rstrip()}…{text[len(text) - tail :].lstrip()}"
    return text.replace("$", r"\$")


def listed(names, most=5):
    """Return names as text: the first ones, and how many more there are."""
    text = ", ".join(shown(name) for name in names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most} more"


def number(value):
    """Return a number in a few digits."""
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:.4g}"


def decimal(value):
    """Return a number with two decimals and a proper minus sign."""
    return f"{value:.2f}".replace("-", "\u2212")


# Axes.


def pyplot():
    """Import matplotlib where it is used, so that importing the package stays quick."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('Plots need matplotlib, which is not installed: pip install "nmf-features[plot]"') from error
    return plt


def canvas(ax, size) -> tuple[Any, Any]:
    """Return the figure and the axes to draw in: those given, or new ones.

    Hints of matplotlib would say SubFigure too, and a type checker then refuses ``display.figure_.savefig``.
    """
    if ax is None:
        ax = pyplot().figure(figsize=size, layout="constrained").add_subplot()
    return ax.figure, ax


def panels(ax, rows, columns, *, sharex=False, heights=None, space=(None, None)):
    """Divide axes into an array of them; the original axes keep only their title."""
    spec, spacing = ax.get_subplotspec(), {"height_ratios": heights}
    if ax.figure.get_layout_engine() is None:  # no layout engine makes room for names between the panels
        spacing |= {"hspace": space[0], "wspace": space[1]}
    elif spec is not None:  # panels get a row of their own, or they would overlap the title
        title, spec = spec.subgridspec(2, 1, height_ratios=[0.01, 1])
        ax.set_subplotspec(title)
    if spec is not None:
        grid = spec.subgridspec(rows, columns, **spacing)
    else:  # placed by hand
        box = ax.get_position()
        grid = ax.figure.add_gridspec(rows, columns, left=box.x0, right=box.x1, bottom=box.y0, top=box.y1, **spacing)
    ax.set_axis_off()
    axes = grid.subplots(squeeze=False, sharex=sharex)
    for panel in axes.flat:  # in the style in which the axes were made
        panel.set_facecolor(ax.get_facecolor())
        panel.title.set_color(ax.title.get_color())
    return axes


def used(axes, k):
    """Return the first k axes, row by row; the others are removed."""
    for panel in axes.flat[k:]:
        panel.remove()
    return axes.flat[:k]


def tidy(ax, grid=None):
    """Keep the left and bottom spines and quiet ticks, with grid lines behind the data if asked for."""
    inks = Inks(ax)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(inks.line)
    ax.tick_params(which="both", length=0, labelcolor=inks.quiet, labelsize="small")
    ax.set_axisbelow(True)
    ax.grid(False)  # that of the style
    if grid:
        ax.grid(axis=grid, color=inks.faint, linewidth=1, linestyle="-")


def title(ax, text, note="", above=6):
    """Write a title with a smaller note below it."""
    lines = note.count("\n") + 1 if note else 0
    inks = Inks(ax)
    ax.set_title(text + "\n" * lines, loc="left", weight="bold", fontsize="large", pad=above, color=inks.text)
    if note:  # the centre title, moved to the left: both titles keep clear of tick labels
        ax.set_title(note, loc="center", x=0, ha="left", color=inks.quiet, fontsize="small", pad=above)


def heading(ax, text, note="", above=22):
    """Write title and note above axes that are divided into panels."""
    title(ax, text, note, above=above if ax.figure.get_layout_engine() is None else 6)


def write(ax, text, xy, offset, **how):
    """Write small text beside a point, ``offset`` in points."""
    ax.annotate(text, xy, offset, textcoords="offset points", **({"fontsize": "small", "color": Inks(ax).text} | how))


def small_title(ax, name):
    """Write the name of a component over its panel."""
    ax.set_title(shown(name), loc="center", x=0, ha="left", fontsize="medium", pad=4, color=Inks(ax).text)


def tidy_bar(bar, label):
    """Remove the outline of a colour bar, make its ticks quiet and name it."""
    quiet = Inks(bar.mappable.axes).quiet
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelcolor=quiet, labelsize="small")
    bar.set_label(label, color=quiet, fontsize="small")


def every(ax, n, axis):
    """Return which of n labels have room on an axis: 1 for all, 2 for every second, ...."""
    from matplotlib.font_manager import FontProperties

    box = ax.get_window_extent()
    points = (box.height if axis == "y" else box.width) / ax.figure.dpi * 72
    return max(1, int(np.ceil(n * 1.1 * FontProperties(size="small").get_size_in_points() / max(points, 1))))


def name_rows(ax, at, names):
    """Name rows at the left; only every second or third, and say so, where there is no room for all."""
    step, inks = every(ax, len(names), "y"), Inks(ax)
    ax.set_yticks(np.asarray(at)[::step], [shown(name) for name in names[::step]])
    ax.tick_params(axis="y", labelcolor=inks.text)
    if step > 1:
        ax.set_ylabel(f"one name in {step} is written", color=inks.quiet, fontsize="small")
    elif not any(isinstance(name, str) for name in names):
        ax.set_ylabel("column", color=inks.quiet)


def name_cells(ax, rows, columns):
    """Name the rows of a heat map at the left and its columns above."""
    tidy(ax)
    name_rows(ax, np.arange(len(rows)) + 0.5, rows)
    texts = [shown(name, 16) for name in columns]
    room = 72 * ax.get_window_extent().width / ax.figure.dpi / len(columns)  # points
    upright = max(map(len, texts)) * 5.5 > room
    ax.set_xticks(np.arange(len(columns)) + 0.5, texts, rotation=90 if upright else 0)
    ax.xaxis.tick_top()
    ax.tick_params(length=0, labelsize="small", labelcolor=Inks(ax).text)
    ax.set_ylim(len(rows), 0)
    ax.spines[:].set_visible(False)
