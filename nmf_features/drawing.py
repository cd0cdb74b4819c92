"""What the plots have in common: colours, axes and titles, heat maps of loadings, points by category or amount, lines.

Nothing here knows an estimator, nor changes a setting of matplotlib, which is imported when something is drawn.
"""

import numpy as np
import pandas as pd

QUIET, LINE, FAINT = "#59636e", "#d9dee3", "#eef1f4"
# Okabe and Ito's colours, told apart with any colour vision, and markers that tell them apart without colours.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
COLOURS, MARKERS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY), ("o", "D", "s", "^", "v", "P")
DASHES = ("-", "--", ":", "-.")
REST = "#8c959f"  # what has no colour of its own: other categories, missing values
PAPER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}  # under words that may cross a line
LONGEST_NAME = 28
TALLEST = 15  # inches, of a heat map


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
    """Return some names in words."""
    text = ", ".join(shown(name) for name in names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most} more"


def number(value):
    """Return a number in a few digits."""
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:.4g}"


def decimal(value):
    """Return a number with two decimals, and a minus as long as a plus."""
    return f"{value:.2f}".replace("-", "\u2212")


# Axes.


def pyplot():
    """Import matplotlib where it is used, so that importing the package stays quick."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('Plots need matplotlib, which is not installed: pip install "nmf-features[plot]"') from error
    return plt


def canvas(ax, size):
    """Return the figure and the axes to draw in: those given, or new ones."""
    if ax is None:
        ax = pyplot().figure(figsize=size, layout="constrained").add_subplot()
    return ax.figure, ax


def panels(ax, rows, columns, *, sharex=False, heights=None, space=(None, None)):
    """Divide axes into an array of them; the divided ones keep nothing but their title."""
    spec, spacing = ax.get_subplotspec(), {"height_ratios": heights}
    if ax.figure.get_layout_engine() is None:  # nobody else makes room for names between the panels
        spacing |= {"hspace": space[0], "wspace": space[1]}
    elif spec is not None:  # a row of their own, else panels would be laid out under the title
        title, spec = spec.subgridspec(2, 1, height_ratios=[0.01, 1])
        ax.set_subplotspec(title)
    if spec is not None:
        grid = spec.subgridspec(rows, columns, **spacing)
    else:  # placed by hand
        box = ax.get_position()
        grid = ax.figure.add_gridspec(rows, columns, left=box.x0, right=box.x1, bottom=box.y0, top=box.y1, **spacing)
    ax.set_axis_off()
    return grid.subplots(squeeze=False, sharex=sharex)


def used(axes, k):
    """Return the first k axes, row by row; the others are removed."""
    for panel in axes.flat[k:]:
        panel.remove()
    return axes.flat[:k]


def tidy(ax, grid=None):
    """Leave the left and the lower line, quiet ticks, and grid lines behind the data where asked for."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(LINE)
    ax.tick_params(length=0, labelcolor=QUIET, labelsize="small")
    ax.set_axisbelow(True)
    if grid:
        ax.grid(axis=grid, color=FAINT, linewidth=1)


def title(ax, text, note="", above=6):
    """Write a title, and below it, smaller, a note."""
    lines = note.count("\n") + 1 if note else 0
    ax.set_title(text + "\n" * lines, loc="left", weight="bold", fontsize="large", pad=above)
    if note:  # the middle title, moved to the left: titles keep clear of tick labels together
        ax.set_title(note, loc="center", x=0, ha="left", color=QUIET, fontsize="small", pad=above)


def heading(ax, text, note="", above=22):
    """Write title and note over axes that are divided into panels, clear of what stands above these."""
    title(ax, text, note, above=above if ax.figure.get_layout_engine() is None else 6)


def write(ax, text, xy, offset, **how):
    """Write something small beside a point, ``offset`` in points."""
    ax.annotate(text, xy, offset, textcoords="offset points", **({"fontsize": "small"} | how))


def small_title(ax, name):
    """Write the name of a component over its panel."""
    ax.set_title(shown(name), loc="center", x=0, ha="left", fontsize="medium", pad=4)


def tidy_bar(bar, label):
    """Leave a colour bar its colours, quiet ticks and its name."""
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelcolor=QUIET, labelsize="small")
    bar.set_label(label, color=QUIET, fontsize="small")


def every(ax, n, axis):
    """Return which of n labels have room on an axis: 1 for all, 2 for every second, ...."""
    from matplotlib.font_manager import FontProperties

    box = ax.get_window_extent()
    points = (box.height if axis == "y" else box.width) / ax.figure.dpi * 72
    return max(1, int(np.ceil(n * 1.1 * FontProperties(size="small").get_size_in_points() / max(points, 1))))


def name_rows(ax, at, names):
    """Name rows at the left, every second or third one where there is no room for all; say so."""
    step = every(ax, len(names), "y")
    ax.set_yticks(np.asarray(at)[::step], [shown(name) for name in names[::step]])
    ax.tick_params(axis="y", labelcolor="black")
    if step > 1:
        ax.set_ylabel(f"one name in {step} is written", color=QUIET, fontsize="small")
    elif not any(isinstance(name, str) for name in names):
        ax.set_ylabel("column", color=QUIET)


def name_cells(ax, rows, columns):
    """Name the rows of a heat map at the left and its columns above."""
    tidy(ax)
    name_rows(ax, np.arange(len(rows)) + 0.5, rows)
    texts = [shown(name, 16) for name in columns]
    room = 72 * ax.get_window_extent().width / ax.figure.dpi / len(columns)  # points
    upright = max(map(len, texts)) * 5.5 > room
    ax.set_xticks(np.arange(len(columns)) + 0.5, texts, rotation=90 if upright else 0)
    ax.xaxis.tick_top()
    ax.tick_params(length=0, labelsize="small", labelcolor="black")
    ax.set_ylim(len(rows), 0)
    ax.spines[:].set_visible(False)


# Loadings.


def to_largest(components):
    """Divide the loadings of each component by the largest; a component of zeros stays one."""
    largest = components.max(axis=1)
    return components.div(largest.where(largest > 0, 1), axis=0)


def ordered_columns(H, most):
    """Positions of the columns with the largest loadings, ordered by the component in which each counts most.

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
    """Draw a heat map of H', a row for each column of X; return it, and what to say of columns left out."""
    H = to_largest(components)
    order = ordered_columns(H.to_numpy(), max_columns)
    mesh = ax.pcolormesh(
        H.to_numpy()[:, order].T,
        cmap=cmap or "Blues",
        vmin=0,
        vmax=1,
        edgecolor="white",
        linewidth=1.2 if len(order) <= 80 else 0,
    )
    name_cells(ax, H.columns[order], H.index)
    p = H.shape[1]
    return mesh, f"the {len(order)} of {p} columns with the largest loadings" if len(order) < p else ""


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
    tidy_bar(bar, "loading, relative to the\nlargest of the component")


def draw_top(ax, loadings, m):
    """Draw the m largest loadings of a component, and what share of it they are."""
    top = loadings.sort_values(ascending=False, kind="stable").head(m)
    top = top[top > 0]
    tidy(ax)
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)
    if not len(top):
        ax.set_yticks([])
        ax.text(0.02, 0.5, "all loadings are zero", transform=ax.transAxes, color=QUIET, fontsize="small")
        return
    bars = ax.barh(np.arange(len(top)), top, height=0.7, color=BLUE)
    ax.bar_label(
        bars,
        [f"{value:#.2g}" if value < 10 else number(value) for value in top],
        padding=3,
        color=QUIET,
        fontsize="small",
    )
    name_rows(ax, np.arange(len(top)), top.index)
    share = top.sum() / loadings.sum()
    if share < 0.995:
        ax.set_title(f"{share:.0%}", loc="right", color=QUIET, fontsize="small", pad=4)


# Scores.


def correlation(W):
    """Correlations of the columns; NaN for one that does not vary."""
    D = W - W.mean(axis=0)
    norms = np.linalg.norm(D, axis=0)
    vary = norms > 1e-12 * np.abs(W).max(axis=0, initial=0.0) * np.sqrt(len(W))  # more than rounding
    D = np.divide(D, norms, out=np.full(D.shape, np.nan), where=vary)
    return np.clip(D.T @ D, -1, 1)


def colouring(y, scored, cmap):
    """Return how points are coloured: all alike, by category, or by amount."""
    if y is None:
        return Categories(["rows"], np.zeros(scored.sum(), dtype=int), [BLUE], ["o"], None)
    values = pd.Series(y.array if isinstance(y, pd.Series) else y if isinstance(y, pd.Categorical) else np.asarray(y))
    values, name = values[scored], getattr(y, "name", None) or "y"
    if are_amounts(values):
        return Amounts(values.to_numpy(dtype=np.float64, na_value=np.nan), shown(name), cmap or "cividis")
    return Categories.of(pd.Categorical(values), shown(name))


def are_amounts(values):
    """Whether numbers are amounts rather than names of categories: many of them, or fractions."""
    test = pd.api.types
    if not test.is_numeric_dtype(values) or test.is_bool_dtype(values):
        return False
    known = values.dropna()
    return known.nunique() > 10 or bool((known % 1 != 0).any())


class Categories:
    """Points with a colour and a marker for each category."""

    def __init__(self, labels, codes, colours, markers, name):
        self.labels, self.codes, self.colours, self.markers, self.name = labels, codes, colours, markers, name

    @classmethod
    def of(cls, values, name):
        """Give the most frequent categories colours of their own; the others, and missing ones, are grey."""
        values = values.remove_unused_categories()
        labels, codes = [shown(label, 18) for label in values.categories], np.array(values.codes, dtype=int)
        if len(labels) > len(COLOURS):
            counts = np.bincount(codes[codes >= 0], minlength=len(labels))
            kept = np.sort(np.argsort(-counts, kind="stable")[: len(COLOURS) - 1])
            place = np.full(len(labels) + 1, len(kept))
            place[kept], place[-1] = np.arange(len(kept)), -1  # code -1, missing, stays -1
            codes, labels = place[codes], [*(labels[i] for i in kept), f"{len(labels) - len(kept)} others"]
            colours, markers = [*COLOURS[: len(kept)], REST], [*MARKERS[: len(kept)], "X"]
        else:
            colours, markers = [*COLOURS[: len(labels)]], [*MARKERS[: len(labels)]]
        if (codes < 0).any():
            codes = np.where(codes < 0, len(labels), codes)
            labels, colours, markers = [*labels, "missing"], [*colours, LINE], [*markers, "."]
        return cls(labels, codes, colours, markers, name)

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
                edgecolor="white",
                linewidths=0.3,
                label=self.labels[c],
            )

    def explain(self, axes):
        """Name the categories, in the empty corner where there is one."""
        if self.name is None:
            return
        from matplotlib.lines import Line2D

        handles = [
            Line2D(
                [], [], linestyle="", marker=marker, color=colour, markeredgecolor="white", markersize=8, label=label
            )
            for label, colour, marker in zip(self.labels, self.colours, self.markers, strict=True)
        ]
        place = (
            {"loc": "upper right", "bbox_to_anchor": (1, 0.9)}
            if len(axes) == 1
            else {"loc": "upper left", "bbox_to_anchor": (1.03, 1.03)}
        )
        legend = axes[0, 0].legend(handles=handles, title=self.name, frameon=False, alignment="left", **place)
        legend.set_in_layout(False)


class Amounts:
    """Points coloured by a number; grey where it is missing."""

    def __init__(self, values, name, cmap):
        self.values, self.name, self.cmap, self.drawn = np.where(np.isinf(values), np.nan, values), name, cmap, None

    def groups(self):
        """One: all rows."""
        return [(0, REST, np.ones(len(self.values), dtype=bool))]

    def draw(self, ax, x, y, drawn):
        """Draw the points of one pair."""
        known = ~np.isnan(self.values[drawn])
        size = point_size(len(drawn))
        ax.scatter(x[drawn[~known]], y[drawn[~known]], size, LINE, linewidths=0)
        at = drawn[known]
        low, high = np.nanquantile(self.values, (0.02, 0.98)) if known.any() else (None, None)  # a few may lie far out
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
    """Draw how the scores of a component lie, category by category, all with the same bins."""
    edges = np.histogram_bin_edges(w, bins=int(np.clip(1.5 * np.sqrt(len(w)), 8, 24)))
    groups = colouring.groups()
    for _, colour, rows in groups:
        if len(groups) == 1:
            ax.hist(w[rows], edges, color=colour, alpha=0.55)
        else:
            ax.hist(w[rows], edges, histtype="stepfilled", facecolor=colour, alpha=0.25)
            ax.hist(w[rows], edges, histtype="step", edgecolor=colour, linewidth=1.3)


def tidy_pairs(axes, W, names):
    """Share the axes of pairs, and name them on the outside and on the diagonal."""
    k = len(names)
    for i in range(k):
        margin = 0.05 * (np.ptp(W[:, i]) or 1)
        limits = W[:, i].min() - margin, W[:, i].max() + margin
        for j in range(i + 1):
            panel = axes[i, j]
            tidy(panel, grid="x" if i == j else "both")
            if j == i:
                panel.set(xlim=limits, ylim=(0, 1.2 * panel.get_ylim()[1]), yticks=[])  # room for the name
                panel.spines["left"].set_visible(False)
                panel.text(
                    0.97, 0.95, shown(names[i], 16), transform=panel.transAxes, ha="right", va="top", weight="bold"
                )
            elif j:
                panel.sharey(axes[i, 0])
                panel.tick_params(labelleft=False)
            else:
                panel.set_ylim(limits)
                panel.set_ylabel(shown(names[i], 16))
            if i < k - 1:
                panel.tick_params(labelbottom=False)
            else:
                panel.set_xlabel(shown(names[j], 16))


# Shares and lines.


def draw_shares(ax, at, shares, low):
    """Draw a bar for each share; one that is cut off at ``low`` has its number beside it."""
    tidy(ax, grid="x")
    colours = np.where(shares >= 0, BLUE, VERMILLION)
    ax.barh(at, np.maximum(shares, low), height=0.7, color=colours)
    for y in np.flatnonzero(shares < low):
        ax.plot(low, at[y], "<", color="white", markersize=4, clip_on=False, zorder=4)
        write(ax, decimal(shares[y]), (0, at[y]), (4, 0), va="center", color=VERMILLION)
    if low < 0:
        ax.axvline(0, color=QUIET, linewidth=0.8)


def penalty_axis(penalties):
    """Return where penalties lie on an axis of decades, with 0 at the left of it, and the ticks."""
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


def draw_lines(ax, at, lines, colours, standard_errors=None):
    """Draw lines over the penalties, with their names where they are furthest apart."""
    for (name, values), colour in zip(lines.items(), colours, strict=True):
        values = values.to_numpy(dtype=float)
        ax.plot(at, values, color=colour, marker="o", markersize=4, linewidth=1.8)
        if standard_errors and name in standard_errors:
            error = standard_errors[name].to_numpy(dtype=float)
            ax.fill_between(at, values - error, values + error, color=colour, alpha=0.18, linewidth=0)
    ax.margins(y=0.18)
    if len(lines) == 2:
        name_two(ax, at, lines, colours)


def name_two(ax, at, lines, colours):
    """Name two lines where they are furthest apart, the upper one from above."""
    a, b = (values.to_numpy(dtype=float) for values in lines.values())
    gap = np.abs(a - b)
    i = int(np.nanargmax(gap[1:-1])) + 1 if len(gap) > 2 else 0
    where = (at[i] - at[0]) / (np.ptp(at) or 1)
    for name, values, colour, above in zip(lines, (a, b), colours, (a[i] >= b[i], a[i] < b[i]), strict=True):
        rising = values[-1] >= values[0]
        side = "left" if where < 1 / 3 else "right" if where > 2 / 3 or above == rising else "left"
        write(
            ax,
            name,
            (at[i], values[i]),
            (0, 6 if above else -6),
            ha=side,
            va="bottom" if above else "top",
            color=colour,
        )
