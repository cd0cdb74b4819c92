"""Plots: the numbers drawn are those of the estimator, and anything left out is reported."""

import subprocess
import sys

import matplotlib

matplotlib.use("Agg")  # no window

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.pipeline import make_pipeline

from nmf_features import NMFFeatures, factorize
from nmf_features.plots import (
    ComponentSelectionDisplay,
    ConvergenceDisplay,
    LoadingsDisplay,
    PenaltyPathDisplay,
    ReconstructionDisplay,
    RowDisplay,
    ScoresDisplay,
    StabilityDisplay,
    UnexplainedDisplay,
    reconstruction_shares,
)
from nmf_features.plots.inks import Inks, contrast, text_on
from nmf_features.selection import ComponentSelection, PenaltyPath, Stability


@pytest.fixture(autouse=True)
def _drawn_and_closed():
    """Draw every figure, as what does not fit or lacks a glyph warns only then, and close it."""
    yield
    for number in plt.get_fignums():
        plt.figure(number).draw_without_rendering()
    plt.close("all")


def low_rank(n=80, p=6, k=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.gamma(1, 1, (n, k)) @ rng.gamma(0.4, 1, (k, p)) + 0.2 * rng.uniform(size=(n, p))


def frame(n=80, p=6, k=3):
    return pd.DataFrame(low_rank(n, p, k), columns=[f"c{j}" for j in range(p)])


def said(display):
    """All words in a figure."""
    texts = display.figure_.findobj(matplotlib.text.Text)
    return " | ".join(t.get_text() for t in texts if t.get_visible() and t.get_text())


def names_at(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def selection(ks=(1, 2, 3, 4), offset=0.0):
    error = np.array([[0.8, 0.5, 0.45, 0.46], [0.9, 0.52, 0.49, 0.52]])[:, : len(ks)] + offset
    table = pd.DataFrame({"n_components": [*ks, *ks], "split": [0] * len(ks) + [1] * len(ks), "error": error.ravel()})
    summary = pd.DataFrame({"n_components": ks, "error": error.mean(axis=0)})
    summary["difference"] = summary["error"] - summary["error"].min()
    summary["standard_error"] = [0.05, 0.04, 0.0, 0.01][: len(ks)]
    return ComponentSelection(ks[1 % len(ks)], table, summary)


def path(scored):
    table = pd.DataFrame(
        {
            "penalty": [0, 0.001, 0.01, 0.1],
            "n_alive": [3, 3, 2, 0],
            "zero_loadings": [0.1, 0.2, 0.5, 1.0],
            "zero_scores": [0.0, 0.1, 0.3, 1.0],
            "error": [0.3, 0.31, 0.4, 1.0],
            "held_out_error": [0.45, 0.4, 0.45, 1.0],
            "held_out_standard_error": [0.02] * 4,
        }
    )
    if scored:
        table["score"], table["score_standard_error"] = [0.7, 0.72, 0.6, 0.0], 0.03
    return PenaltyPath(table, "r2" if scored else None)


def stability(k=3, p=6, n_runs=4):
    rng = np.random.default_rng(0)
    names = [f"NNMF{t + 1}" for t in range(k)]
    H = pd.DataFrame(rng.dirichlet(np.ones(p), k), names, [f"c{j}" for j in range(p)])
    runs = pd.DataFrame({"run": range(n_runs), "source": ["start", "rows"] * (n_runs // 2), "objective": 1.0})
    table = runs[["run", "source"]].merge(pd.DataFrame({"component": names}), how="cross")
    table["similarity"] = rng.uniform(0.6, 1, len(table))
    return Stability(table, runs, H, H, table.groupby("component")["similarity"].mean())


# What every display does.

MAKERS = {
    "heatmap": lambda nmf, X, ax=None: LoadingsDisplay.from_estimator(nmf, ax=ax),
    "bars": lambda nmf, X, ax=None: LoadingsDisplay.from_estimator(nmf, kind="bars", ax=ax),
    "tiles": lambda nmf, X, ax=None: LoadingsDisplay.from_estimator(nmf, kind="tiles", image_shape=(2, 3), ax=ax),
    "pairs": lambda nmf, X, ax=None: ScoresDisplay.from_estimator(nmf, X, y=np.arange(80) % 2, ax=ax),
    "correlation": lambda nmf, X, ax=None: ScoresDisplay.from_estimator(nmf, X, kind="correlation", ax=ax),
    "reconstruction": lambda nmf, X, ax=None: ReconstructionDisplay.from_estimator(nmf, X, ax=ax),
    "convergence": lambda nmf, X, ax=None: ConvergenceDisplay.from_estimator(nmf, ax=ax),
    "row": lambda nmf, X, ax=None: RowDisplay.from_estimator(nmf, X, ax=ax),
    "unexplained": lambda nmf, X, ax=None: UnexplainedDisplay.from_estimator(nmf, X, ax=ax),
    "selection": lambda nmf, X, ax=None: ComponentSelectionDisplay.from_selection(selection(), ax=ax),
    "path": lambda nmf, X, ax=None: PenaltyPathDisplay.from_path(path(True), ax=ax),
    "stability": lambda nmf, X, ax=None: StabilityDisplay.from_stability(stability(), ax=ax),
}


@pytest.mark.parametrize("layout", [None, "constrained", "by hand"])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_given_axes_are_used(make, layout):
    X = frame()
    nmf = NMFFeatures(3).fit(X)
    if layout == "by hand":
        figure = plt.figure(figsize=(12, 12))
        ax, other = figure.add_axes([0.1, 0.1, 0.4, 0.6]), figure.add_axes([0.8, 0.1, 0.1, 0.6])
    else:
        figure, (ax, other) = plt.subplots(1, 2, figsize=(24, 12), layout=layout)
    display = make(nmf, X, ax)
    assert display.figure_ is figure
    assert plt.get_fignums() == [figure.number]
    assert not other.has_data()
    drawn = [a for a in getattr(display, "axes_", np.array([display.ax_])).flat if a is not None]
    assert display.ax_ is drawn[0]
    figure.draw_without_rendering()
    assert all(a.get_position().x1 < other.get_position().x0 for a in drawn)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_plot_draws_again_and_leaves_the_style_alone(make):
    before = dict(matplotlib.rcParams)
    X = frame()
    display = make(NMFFeatures(1).fit(X), X)  # one component
    first = display.figure_
    assert display.plot(**({"kind": "bars"} if isinstance(display, LoadingsDisplay) else {})) is display
    assert display.figure_ is not first
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_title_and_note_stand_above_the_panels(make):
    X = frame()
    display = make(NMFFeatures(2).fit(X), X)
    display.figure_.draw_without_rendering()
    outer = display.figure_.axes[0]  # divided, or the only one
    title, note = outer._left_title.get_window_extent(), outer.title.get_window_extent()
    assert title.y1 <= display.figure_.bbox.y1
    if outer.title.get_text():
        lines = 1 + outer.title.get_text().count("\n")
        assert outer._left_title.get_text().endswith("\n" * lines)  # the note stands in these lines
        assert note.y0 >= title.y0 - 1
    panels = [a for a in getattr(display, "axes_", np.array([])).flat if a is not None and a is not outer]
    assert all(a.get_tightbbox().y1 <= title.y0 + 1 for a in panels)


@pytest.mark.parametrize("make", list(MAKERS.values())[:9], ids=list(MAKERS)[:9])
def test_estimators_that_cannot_be_drawn(make):
    X = frame()
    with pytest.raises(ValueError, match="not fitted"):
        make(NMFFeatures(), X)
    with pytest.raises(ValueError, match="n_components=0: there are no components to draw"):
        make(NMFFeatures(0).fit(X), X)
    with pytest.raises(TypeError, match=r"nmf is Pipeline; wanted a fitted NMFFeatures.*pipeline\[-1\]"):
        make(make_pipeline(NMFFeatures()).fit(X), X)


def test_importing_does_not_import_matplotlib():
    code = "import sys, nmf_features.plots; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_message_without_matplotlib(make, monkeypatch):
    X = frame()
    nmf = NMFFeatures(2).fit(X)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "nmf-features\[plot\]"'):
        make(nmf, X)


# Styles.

MORE_MAKERS = MAKERS | {
    "target": lambda nmf, X, ax=None: LoadingsDisplay(frame(k=2, n=3), frame(n=3, p=2) - 1).plot(ax=ax),
    "amounts": lambda nmf, X, ax=None: ScoresDisplay.from_estimator(
        nmf, X, y=X["c0"].where(np.arange(80) % 5 > 0), ax=ax
    ),
    "many categories": lambda nmf, X, ax=None: ScoresDisplay.from_estimator(
        nmf, X, y=[None, *"abcdefgh"] * 8 + [None] * 8, ax=ax
    ),
    "several": lambda nmf, X, ax=None: ConvergenceDisplay.from_histories(
        {c: [9, 5 + i] for i, c in enumerate("abcdefg")}, ax=ax
    ),
    "signed": lambda nmf, X, ax=None: RowDisplay.from_estimator(nmf, X, kind="signed", ax=ax),
    "far below": lambda nmf, X, ax=None: ReconstructionDisplay(pd.Series({"a": 0.5, "b": -0.2, "c": -3}), 0.4).plot(
        ax=ax
    ),
}


def ground(text):
    """Return the colour on which a text stands: that of a cell, of the axes, or of the figure around them."""
    ax, figure = text.axes, text.get_figure()
    box = text.get_window_extent()
    if ax is None or not ax.bbox.contains(*box.get_points().mean(axis=0)):
        return figure.get_facecolor()
    for mesh in [m for m in ax.collections if isinstance(m, matplotlib.collections.QuadMesh)]:
        column, row = (int(at) for at in text.get_position())
        return mesh.to_rgba(mesh.get_array())[row, column]
    return ax.get_facecolor()


def marks(ax):
    """Return the colours of lines, bars and points; spines, grids and histograms may be faint."""
    legend = ax.get_legend()
    lines = [*ax.lines, *(legend.get_lines() if legend else [])]
    yield from (line.get_color() for line in lines if line.get_marker() != "<")  # that one is a notch in a bar
    yield from (bar.get_facecolor() for bar in ax.patches if bar.get_facecolor()[3] == 1)
    for points in ax.collections:
        if isinstance(points, matplotlib.collections.PathCollection):
            filled = points.get_facecolor()
            yield from filled if len(filled) else points.get_edgecolor()


@pytest.mark.parametrize("style", ["dark_background", "axes made in a dark style"])
@pytest.mark.parametrize("make", MORE_MAKERS.values(), ids=MORE_MAKERS)
def test_everything_can_be_seen(make, style):
    X, ax = frame(), None
    nmf = NMFFeatures(3).fit(X)
    if style.startswith("axes"):
        with plt.style.context("dark_background"):
            ax = plt.figure(figsize=(12, 12), layout="constrained").add_subplot()
        style = "default"
    with plt.style.context(style):
        figure = make(nmf, X, ax).figure_
        figure.draw_without_rendering()
    for text in figure.findobj(matplotlib.text.Text):
        if text.get_visible() and text.get_text():
            assert contrast(text.get_color(), ground(text)) > 3, text
    for panel in figure.axes:
        for colour in marks(panel):
            assert contrast(colour, panel.get_facecolor()) > 2.4, colour
    plt.close(figure)


def test_largest_loading_stands_out_most():
    for style, paper in (("default", "white"), ("dark_background", "black")):
        with plt.style.context(style):
            for kind in ("heatmap", "tiles"):
                display = LoadingsDisplay.from_components(np.eye(2), kind=kind, image_shape=(1, 2))
                drawn = (display.ax_.collections or display.ax_.images)[0]
                none, half, all_of_it = (contrast(drawn.cmap(share), paper) for share in (0.0, 0.5, 1.0))
                assert none < 1.3 < 2 < half < 10 < all_of_it
            assert ("white: the largest" in said(display)) == (paper == "black")


def test_inks():
    assert contrast("black", "white") == pytest.approx(21)
    assert contrast("#777777", "white") == pytest.approx(4.48, abs=0.01)  # as by WCAG
    assert text_on("navy") == "white"
    assert text_on("yellow") == "black"
    _, ax = plt.subplots(facecolor="none")
    ax.set(facecolor="none", title="x")
    assert not Inks(ax).dark  # black text on nothing: a light page
    ax.title.set_color("white")
    assert Inks(ax).dark
    ax.set_facecolor("#808080")
    assert contrast(Inks(ax).blue, "#808080") > 1.9


# Loadings.


def drawn_cells(display):
    return display.ax_.collections[0].get_array().reshape(len(names_at(display.ax_.yaxis)), -1)


def test_heatmap_shows_the_loadings():
    X = frame()
    nmf = NMFFeatures(3).fit(X)
    display = LoadingsDisplay.from_estimator(nmf)
    columns = names_at(display.ax_.yaxis)
    assert sorted(columns) == sorted(X.columns)
    assert names_at(display.ax_.xaxis) == ["NNMF1", "NNMF2", "NNMF3"]
    H = nmf.components_ / nmf.components_.max(axis=1, keepdims=True)
    assert_allclose(drawn_cells(display), H[:, [X.columns.get_loc(c) for c in columns]].T)
    assert "columns with the largest loadings" not in said(display)


def test_heatmap_orders_columns_by_the_component_where_they_count_most():
    H = pd.DataFrame([[0, 5, 10, 0, 0], [1, 0, 0, 0, 4], [0, 0, 0, 0, 0]], ["s", "t", "dead"], list("abcde"))
    display = LoadingsDisplay.from_components(H)
    assert names_at(display.ax_.yaxis) == ["c", "b", "e", "a", "d"]  # d counts nowhere
    assert_allclose(drawn_cells(display), [[1, 0, 0], [0.5, 0, 0], [0, 1, 0], [0, 0.25, 0], [0, 0, 0]])


def test_heatmap_of_many_columns_says_how_many_are_left_out():
    H = np.vstack([np.arange(1.0, 201), np.r_[7.0, np.zeros(199)]])
    display = LoadingsDisplay.from_components(H, max_columns=30)
    assert set(names_at(display.ax_.yaxis)) == {"0", *map(str, range(171, 200))}
    assert "the 30 of 200 columns with the largest loadings" in said(display)
    assert "left" not in said(LoadingsDisplay.from_components(H, max_columns=200))


def test_names_without_room_are_counted():
    display = LoadingsDisplay.from_components(np.eye(3, 200), max_columns=200)
    step = 200 / len(names_at(display.ax_.yaxis))
    assert step > 1
    assert f"one name in {np.ceil(step):.0f} is written" in said(display)


def test_bars_are_the_top_features():
    X = frame()
    nmf = NMFFeatures(3).fit(X)
    display = LoadingsDisplay.from_estimator(nmf, kind="bars", n_top=4)
    top = nmf.top_features(4)
    for name, panel in zip(["NNMF1", "NNMF2", "NNMF3"], display.axes_, strict=True):
        part = top[top["component"] == name]
        assert panel.get_title() == name
        assert names_at(panel.yaxis) == part["terms"].tolist()
        assert_allclose([bar.get_width() for bar in panel.patches], part["value"])
        assert panel.yaxis_inverted()  # largest on top
    share = top.groupby("component")["value"].sum()["NNMF1"]
    assert display.axes_[0].get_title(loc="right") == f"{share:.0%}"
    assert "the 4 largest of 6 loadings of each" in said(display)


def test_bars_of_a_component_of_zeros():
    assert "all loadings are zero" in said(LoadingsDisplay.from_components([[1, 2], [0, 0]], kind="bars"))


def test_tiles_are_images_of_all_columns():
    X = low_rank(p=12)
    X[:, 5] = 3.0
    with pytest.warns(UserWarning, match="Constant"):
        nmf = NMFFeatures(4).fit(X)
    display = LoadingsDisplay.from_estimator(nmf, kind="tiles", image_shape=(3, 4))
    for h, panel in zip(nmf.components_, display.axes_, strict=True):
        assert_allclose(panel.images[0].get_array(), (h / h.max()).reshape(3, 4))


@pytest.mark.parametrize(
    ("image_shape", "message"),
    [
        (None, r"image_shape is None; .* of an image of 6 pixels"),
        ((2, 2), r"image_shape is \(2, 2\), which makes 4 pixels; wanted 6"),
        ((2.0, 3), "wanted two whole numbers"),
        (6, "wanted two whole numbers"),
    ],
)
def test_tiles_need_the_shape_of_an_image(image_shape, message):
    with pytest.raises(ValueError, match=message):
        LoadingsDisplay.from_components(np.ones((2, 6)), kind="tiles", image_shape=image_shape)


def test_names_are_short_and_plain():
    long = "the temperature of the water in the second basin, morning"
    display = LoadingsDisplay.from_components(
        [[1, 2, 3, 4]], names=["$k$"], columns=[long, "a $x_1$ in $", ("a", 1), "two\nlines"]
    )
    names = names_at(display.ax_.yaxis)
    assert names[:2] == ["two lines", "('a', 1)"]
    short = names[3]
    assert len(short) <= 28
    assert short.startswith("the temperature")
    assert short.endswith("in, morning")
    assert "…" in short
    assert r"\$x_1\$" in names[2]  # escaped, so that it is not read as a formula


@pytest.mark.parametrize("columns", [[0, 1, 2], [1.5, 2.5, 3.5], list(pd.date_range("2020", periods=3))])
def test_labels_need_not_be_strings(columns):
    X = pd.DataFrame(low_rank(p=3), columns=pd.Index(columns, dtype=object))
    nmf = NMFFeatures(2).fit(X)
    heatmap, bars = LoadingsDisplay.from_estimator(nmf), LoadingsDisplay.from_estimator(nmf, kind="bars")
    assert set(names_at(heatmap.ax_.yaxis)) == {str(c) for c in columns}
    assert set(names_at(bars.ax_.yaxis)) <= {str(c) for c in columns}
    assert set(ReconstructionDisplay.from_estimator(nmf, X).shares.index) == set(columns)
    assert list(ScoresDisplay.from_estimator(nmf, X).scores) == ["NNMF1", "NNMF2"]


def test_split_columns_are_named():
    X = frame()
    nmf = NMFFeatures(2, shift="split").fit(X)
    assert {"c0+", "c0-"} <= set(names_at(LoadingsDisplay.from_estimator(nmf).ax_.yaxis))
    table = reconstruction_shares(nmf, X)
    assert table.index[:2].tolist() == ["c0+", "c0-"]
    assert_allclose(1 - table["error"].sum() / table["spread"].sum(), nmf.score(X))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LoadingsDisplay.from_components(np.eye(2), kind="pie"), r"kind is 'pie'; wanted one of \['heatmap'"),
        (lambda: LoadingsDisplay.from_components(np.eye(2), n_top=0), "n_top is 0; wanted a whole number, 1 or more"),
        (lambda: LoadingsDisplay.from_components(np.eye(2), max_columns=2.5), "max_columns is 2.5"),
        (lambda: LoadingsDisplay.from_components(np.ones(3)), r"components has shape \(3,\)"),
        (lambda: LoadingsDisplay.from_components([[1, -1, np.nan]]), "components has 2 values that are NaN"),
        (lambda: LoadingsDisplay.from_components(np.eye(2), names=["a"]), r"names has shape \(1,\); wanted \(2,\)"),
        (lambda: LoadingsDisplay.from_components(np.eye(2), columns=["a"]), r"columns has shape \(1,\); wanted \(2,\)"),
        (lambda: ScoresDisplay.from_scores(np.ones((4, 2)), kind="x"), "kind is 'x'; wanted one of"),
        (lambda: ScoresDisplay.from_scores(np.ones((4, 2)), y=[1, 2]), r"y has shape \(2,\); wanted \(4,\)"),
        (lambda: ScoresDisplay.from_scores(np.ones(4)), r"W has shape \(4,\)"),
        (lambda: ScoresDisplay.from_scores(np.ones((4, 2)), names=["a"]), r"names has shape \(1,\)"),
        (lambda: ScoresDisplay.from_scores(np.full((4, 2), np.nan)), "no row with scores to draw, of 4"),
        (lambda: ConvergenceDisplay.from_histories({}), "histories is empty"),
        (lambda: ConvergenceDisplay.from_histories({"a": [1]}, {"b": True}), r"converged has the names \['b'\]"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Scores.


def points(panel):
    return np.concatenate([c.get_offsets() for c in panel.collections])


@pytest.mark.parametrize("kind", ["pandas", "polars", "array", "sparse", "rest"])
def test_pairs_show_the_scores(kind):
    X = frame()
    y = np.where(np.arange(80) % 3, "b", "a")
    nmf = NMFFeatures(3, shift=None)
    data = {
        "pandas": X,
        "polars": pl.from_pandas(X),
        "array": X.to_numpy(),
        "sparse": sparse.csr_array(X.to_numpy()),
        "rest": X.assign(word="w"),  # passes through, before the components
    }[kind]
    display = ScoresDisplay.from_estimator(nmf.fit(data), data, y=y)
    W = nmf.fit(X).transform(X).to_numpy()
    assert_allclose(display.scores, W, rtol=1e-6, atol=1e-9)
    for i, j in np.ndindex(3, 3):
        if i < j:
            assert display.axes_[i, j] is None
        elif i > j:
            groups = {c.get_label(): c for c in display.axes_[i, j].collections}
            for label in "ab":
                assert_allclose(groups[label].get_offsets(), W[y == label][:, [j, i]], rtol=1e-6, atol=1e-9)
            assert len({tuple(c.get_facecolor()[0][:3]) for c in groups.values()}) == 2
            assert len({len(c.get_paths()[0].vertices) for c in groups.values()}) == 2  # markers too
        else:
            bars = display.axes_[i, i].patches
            assert len(bars) >= 2
    assert names_at_legend(display) == ["a", "b"]


def names_at_legend(display):
    return [text.get_text() for text in display.axes_[0, 0].get_legend().get_texts()]


def test_histograms_count_all_rows():
    W = np.random.default_rng(0).gamma(1, size=(500, 2))
    display = ScoresDisplay.from_scores(W, max_points=100)
    for j in range(2):
        assert sum(bar.get_height() for bar in display.axes_[j, j].patches) == 500
    first = points(display.axes_[1, 0])
    assert len(first) == 100
    assert {tuple(w) for w in first} <= {tuple(w) for w in W}
    assert "points: 100 of 500 rows, drawn at random" in said(display)
    assert_array_equal(points(ScoresDisplay.from_scores(W, max_points=100).axes_[1, 0]), first)
    assert "of 500 rows" not in said(ScoresDisplay.from_scores(W))


def test_many_components_show_the_first_ones():
    display = ScoresDisplay.from_scores(np.random.default_rng(0).gamma(1, size=(50, 20)))
    assert display.axes_.shape == (5, 5)
    assert "the first 5 of 20 components" in said(display)
    assert "NNMF05" in said(display)
    assert "NNMF06" not in said(display)


def test_rows_without_scores_are_left_out():
    X = frame()
    X.iloc[[3, 7]] = np.nan
    nmf = NMFFeatures(2, missing_values="ignore").fit(X)
    y = np.array(["a"] * 40 + ["b"] * 40)
    with pytest.warns(UserWarning, match="their scores are NaN"):
        display = ScoresDisplay.from_estimator(nmf, X, y=y)
    assert [len(c.get_offsets()) for c in display.axes_[1, 0].collections] == [40, 38]  # b is below a
    assert "2 rows without scores left out" in said(display)
    with pytest.warns(UserWarning, match="their scores are NaN"):
        assert "2 rows without scores left out" in said(ScoresDisplay.from_estimator(nmf, X, kind="correlation"))


def test_amounts_have_a_colour_bar():
    W, y = np.random.default_rng(0).gamma(1, size=(60, 2)), np.linspace(0, 1, 60)
    y[:5] = np.nan
    display = ScoresDisplay.from_scores(W, y=pd.Series(y, name="price"))
    grey, coloured = display.axes_[1, 0].collections
    assert len(grey.get_offsets()) == 5
    assert_array_equal(coloured.get_array(), y[5:])
    assert coloured.colorbar.ax.get_ylabel() == "price"
    assert display.axes_[0, 0].get_legend() is None


@pytest.mark.parametrize(
    ("y", "labels"),
    [
        ([True, False] * 30, ["False", "True"]),
        ([3, 1] * 30, ["1", "3"]),
        ([1.0, 2.0] * 30, ["1.0", "2.0"]),
        (pl.Series("kind", ["u", "v", None] * 20), ["u", "v", "missing"]),
        (pd.Categorical(["low", "high"] * 30, ["low", "high", "never"]), ["low", "high"]),
        (pd.Series([1, 2, pd.NA] * 20, dtype="Int64"), ["1", "2", "missing"]),
        (
            [*"aaabbbccc" * 5, *"ddee", *"fghijkl", *[None] * 4],
            ["a", "b", "c", "d", "e", "7 others", "missing"],
        ),
        ([*"aaabbbccc" * 6, *"defghi"], ["a", "b", "c", "d", "e", "4 others"]),
    ],
)
def test_categories_are_named(y, labels):
    W = np.random.default_rng(0).gamma(1, size=(60, 2))
    display = ScoresDisplay.from_scores(W, y=y)
    assert names_at_legend(display) == labels
    assert len(points(display.axes_[1, 0])) == 60  # nobody is lost


def test_correlation_is_that_of_numpy():
    rng = np.random.default_rng(0)
    W = pd.DataFrame(rng.gamma(1, size=(50, 4)), columns=list("abcd"))
    W["d"] = 0.3
    display = ScoresDisplay.from_scores(W, kind="correlation")
    expected = np.corrcoef(W[["a", "b", "c"]].T)
    assert_allclose(display.correlation_.iloc[:3, :3], expected)
    mesh = display.ax_.collections[0]
    assert_allclose(mesh.get_array()[:3, :3], expected)
    assert mesh.get_clim() == (-1, 1)  # white is 0
    assert display.correlation_["d"].isna().all()
    assert "grey: does not vary" in said(display)
    assert f"{expected[0, 1]:.2f}".replace("-", "\u2212") in said(display)


def test_correlation_of_many_components_has_no_numbers():
    display = ScoresDisplay.from_scores(np.random.default_rng(0).gamma(1, size=(50, 20)), kind="correlation")
    assert not display.ax_.texts
    assert len(names_at(display.ax_.xaxis)) == 20


def test_one_row():
    ScoresDisplay.from_scores([[1.0, 2.0]], y=["a"])
    assert ScoresDisplay.from_scores([[1.0, 2.0]], kind="correlation").correlation_.isna().all(axis=None)


# Reconstruction.


def with_holes(X, share=0.2, seed=0):
    rng = np.random.default_rng(seed)
    return np.where(rng.uniform(size=X.shape) < share, np.nan, X)


def half_zero(X):
    return np.where(np.random.default_rng(1).uniform(size=X.shape) < 0.5, X, 0)


TABLES = {
    "whole": lambda X: (X, {}),
    "holes": lambda X: (with_holes(X), {"missing_values": "ignore"}),
    "sparse": lambda X: (sparse.csr_array(half_zero(X)), {}),
    "sparse with holes": lambda X: (
        sparse.csr_array(with_holes(half_zero(X))),
        {"missing_values": "ignore"},
    ),
    "ratings": lambda X: (sparse.csr_array(half_zero(X)), {"missing_values": "unstored"}),
    "huge": lambda X: (X * 1e160, {"penalty": 0}),
}


@pytest.mark.filterwarnings("ignore:NMF stopped", "ignore:Objective overflows", "ignore:X has")
@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler", 1.5])
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_shares_add_up_to_the_score(table, loss, monkeypatch):
    monkeypatch.setattr("nmf_features.plots.fit.RESIDUAL_CELLS", 70)  # several slices of rows
    X, params = table(low_rank(p=8))
    nmf = NMFFeatures(2, shift=None, scale=None, loss=loss, max_iter=50, **params).fit(X)
    found = reconstruction_shares(nmf, X)
    assert_allclose(1 - found["error"].sum() / found["spread"].sum(), nmf.score(X), rtol=1e-9)
    weights = found["spread"] / found["spread"].sum()
    assert_allclose(weights @ found["share"], nmf.score(X), rtol=1e-9)


def test_a_share_is_one_minus_the_error_of_its_column():
    X = frame()
    nmf = NMFFeatures(2).fit(X)
    Z = (X - X.min()) / X.std(ddof=0)
    rest = Z - nmf.transform(X).to_numpy() @ nmf.components_
    expected = 1 - (rest**2).sum() / ((Z - Z.mean()) ** 2).sum()
    assert_allclose(reconstruction_shares(nmf, X)["share"], expected, rtol=1e-9)


def test_reconstruction_shows_the_shares_from_the_best_to_the_worst():
    X = frame()
    nmf = NMFFeatures(2).fit(X)
    display = ReconstructionDisplay.from_estimator(nmf, pl.from_pandas(X))
    expected = reconstruction_shares(nmf, X)["share"].sort_values(ascending=False)
    assert_allclose([bar.get_width() for bar in display.ax_.patches], expected)
    assert names_at(display.ax_.yaxis) == expected.index.tolist()
    assert display.ax_.yaxis_inverted()
    assert_allclose(display.score, nmf.score(X))
    assert f"all columns: {nmf.score(X):.2f}" in said(display)
    assert any(np.allclose(line.get_xdata(), nmf.score(X)) for line in display.ax_.lines)


def test_constant_columns_have_no_share():
    X = frame().assign(still=1.0)
    with pytest.warns(UserWarning, match="Constant"):
        nmf = NMFFeatures(2).fit(X)
    display = ReconstructionDisplay.from_estimator(nmf, X)
    assert display.left_out == ["still"]
    assert "still" not in display.shares
    assert "constant, left out: still" in said(display)
    assert np.isnan(reconstruction_shares(nmf, X.assign(still=np.arange(80.0)))["share"]["still"])
    with pytest.raises(ValueError, match="no column with a share to draw: none of still varies"):
        ReconstructionDisplay(display.shares[:0], np.nan, ["still"]).plot()


def test_a_column_equal_to_its_training_mean_has_no_share():
    X = np.column_stack([[1.0, 3, 1, 3], [0, 1, 2, 5], [4, 1, 0, 1]])
    nmf = NMFFeatures(1, shift=None, scale=None).fit(X)
    found = reconstruction_shares(nmf, np.column_stack([np.full(4, 2.0), X[:, 1:]]))
    assert found["spread"][0] == 0 < found["error"][0]
    assert found["share"].isna().tolist() == [True, False, False]


def test_negative_shares_are_cut_off_and_numbered():
    shares = pd.Series({"good": 0.9, "bad": -0.2, "worse": -7.25, "worst": -np.inf})
    display = ReconstructionDisplay(shares, -3.5).plot()
    low, high = display.ax_.get_xlim()
    assert low == -0.5
    assert high == 1
    assert_allclose([bar.get_width() for bar in display.ax_.patches], [0.9, -0.2, -0.5, -0.5])
    assert "\u22127.25" in said(display)
    assert "\u2212inf" in said(display)
    assert "\u22120.20" not in said(display)
    assert "all columns: \u22123.50" in said(display)


def test_many_columns_show_the_best_and_the_worst():
    shares = pd.Series(np.linspace(0, 1, 200), [f"c{j}" for j in range(200)])
    display = ReconstructionDisplay(shares, 0.5).plot(max_columns=11)
    assert names_at(display.ax_.yaxis) == [f"c{j}" for j in [*range(199, 193, -1), *range(4, -1, -1)]]
    assert "the best 6 and the worst 5 of 200 columns" in said(display)
    assert "189 columns between" in said(display)


# Convergence.


def test_convergence_shows_the_history():
    X = frame()
    nmf = NMFFeatures(3, init="nnsvd-lrc").fit(X)  # from far away
    display = ConvergenceDisplay.from_estimator(nmf)
    (line,) = display.ax_.lines
    h = nmf.history_
    assert_array_equal(line.get_xdata(), np.arange(1, len(h) + 1))
    assert display.ax_.get_yscale() == "log"
    shown = h > h.min()
    assert_allclose(line.get_ydata()[shown], (h[shown] - h.min()) / h.min())
    assert np.isnan(line.get_ydata()[~shown]).all()
    assert f"after {len(h)} passes, converged" in said(display)


def test_histories_are_compared_with_the_best_of_all():
    X = low_rank()
    fits = {solver: factorize(X, 3, solver=solver, init="nndsvda", tol=1e-3) for solver in ("hals", "mu")}
    display = ConvergenceDisplay.from_histories(
        {name: fit.history for name, fit in fits.items()}, {"hals": True, "mu": False}
    )
    best = min(fit.history.min() for fit in fits.values())
    assert_allclose(np.exp(np.log(display.ax_.lines[1].get_ydata()[0])), fits["mu"].history[0] / best - 1)
    hals, mu = (text.get_text() for text in display.ax_.get_legend().get_texts())
    assert hals.startswith("hals: ")
    assert hals.endswith(f"after {len(fits['hals'].history)} passes, converged")
    assert mu.endswith("not converged")
    assert "converged" in said(ConvergenceDisplay.from_factorization(fits["hals"]))


@pytest.mark.parametrize(
    ("history", "words"),
    [
        ([], "no pass was made"),
        ([3.0], "3 after 1 pass"),
        ([3.0, 2.0], "2 after 2 passes"),
        ([5.0] * 6, "5 after 6 passes"),
        ([1e3, 10, 0.1, 0.0], "0 after 4 passes"),
        ([np.inf, np.inf], "inf after 2 passes"),
    ],
)
def test_short_and_strange_histories(history, words):
    assert words in said(ConvergenceDisplay.from_histories({"fit": history}))


# Selection, path, stability.


def test_selection_shows_the_errors_and_the_choice():
    found = selection()
    display = ComponentSelectionDisplay.from_selection(found)
    bars = display.ax_.containers[0]
    assert_allclose(bars.lines[0].get_ydata(), found.summary["error"])
    half = [np.ptp(segment[:, 1]) / 2 for segment in bars.lines[2][0].get_segments()]
    assert_allclose(half, found.summary["standard_error"], atol=1e-12)
    at = [tuple(np.concatenate(line.get_data())) for line in display.ax_.lines if line.get_marker() == "D"]
    assert at == [(2, found.summary["error"][1])]
    assert "chosen: 2" in said(display)
    assert "mean of 2 splits" in said(display)
    assert "column means" in said(display)
    assert any(
        np.allclose(line.get_ydata(), found.table["error"][4:])
        for line in display.ax_.lines
        if len(line.get_ydata()) == 4
    )


def test_column_means_far_away_are_not_drawn():
    display = ComponentSelectionDisplay.from_selection(selection(offset=-0.4))
    assert "column means" not in said(display)
    assert display.ax_.get_ylim()[1] < 0.9


def test_selection_of_one_number_without_standard_error():
    found = selection(ks=(3,))
    found.summary["standard_error"] = np.nan
    assert "chosen: 3" in said(ComponentSelectionDisplay.from_selection(found))


@pytest.mark.parametrize("scored", [False, True])
def test_path_shows_the_table(scored):
    found = path(scored)
    display = PenaltyPathDisplay.from_path(found)
    wanted = [["zero_loadings", "zero_scores"], ["held_out_error", "error"], ["score"], ["n_alive"]]
    if not scored:
        del wanted[2]
    for panel, columns in zip(display.axes_, wanted, strict=True):
        for line, column in zip(panel.lines, columns, strict=True):
            assert_allclose(line.get_ydata(), found.table[column])
            assert_allclose(line.get_xdata()[1:], [-3, -2, -1])
            assert line.get_xdata()[0] < -3  # penalty 0 stands left of the others
    assert names_at(display.axes_[-1].xaxis) == ["0", "0.001", "0.01", "0.1"]
    assert ("R²" in said(display)) == scored


@pytest.mark.parametrize("penalties", [[0.0], [0.01], [0.0, 0.003], [0.02, 0.05], list(np.logspace(-12, 2, 29))])
def test_path_of_any_penalties(penalties):
    table = pd.concat([path(True).table.iloc[[1]]] * len(penalties)).assign(penalty=penalties)
    display = PenaltyPathDisplay.from_path(PenaltyPath(table, "accuracy"))
    labels = names_at(display.axes_[-1].xaxis)
    assert ("0" in labels) == (0 in penalties)
    assert 1 <= len(labels) <= 16
    assert "accuracy" in said(display)


def test_stability_shows_every_run_over_its_component():
    found = stability()
    display = StabilityDisplay.from_stability(found)
    strip, heat = display.axes_
    starts, rows, means = strip.collections
    for points_of, source in ((starts, "start"), (rows, "rows")):
        x, similarity = points_of.get_offsets().T
        part = found.table[found.table["source"] == source]
        assert_allclose(similarity, part["similarity"])
        names = found.consensus.index[np.floor(x).astype(int)]  # a cell of the heat map is 1 wide
        assert names.tolist() == part["component"].tolist()
    assert_allclose([segment[0, 1] for segment in means.get_segments()], found.reproducibility)
    H = found.consensus.div(found.consensus.max(axis=1), axis=0)
    columns = names_at(heat.yaxis)
    assert_allclose(heat.collections[0].get_array().reshape(6, 3), H[columns].T)
    assert strip.get_xlim() == heat.get_xlim() == (0, 3)


def test_stability_of_many_columns_and_one_source():
    found = stability(k=12, p=200)
    found = Stability(
        found.table[found.table["source"] == "start"],
        found.runs,
        found.components,
        found.consensus,
        found.reproducibility,
    )
    display = StabilityDisplay.from_stability(found, max_columns=25)
    assert "the 25 of 200 columns with the largest loadings" in said(display)
    assert "other samples of the rows" not in said(display)


# Rows.


def bars(panel):
    """Start, width and name of the bars of a waterfall."""
    found = [(bar.get_x(), bar.get_width()) for bar in panel.patches]
    return [(x, width, name) for (x, width), name in zip(found, names_at(panel.yaxis), strict=True)]


@pytest.mark.parametrize("kind", ["share", "signed"])
@pytest.mark.parametrize("make", [lambda X: X, pl.from_pandas, lambda X: X.to_numpy(), lambda X: sparse.csr_array(X)])
def test_row_is_a_waterfall_of_its_contributions(kind, make):
    X = make(frame())
    nmf = NMFFeatures(3, shift=None, penalty=0.01).fit(X)
    display = RowDisplay.from_estimator(nmf, X, row=7, kind=kind, n_top=2)
    row = X[[7]] if not isinstance(X, pd.DataFrame) else X.iloc[[7]]
    scores = np.asarray(nmf.transform(row).toarray() if sparse.issparse(nmf.transform(row)) else nmf.transform(row))[0]
    assert len(display.axes_) == (scores > 0).sum()
    for panel, score in zip(display.axes_, scores[scores > 0], strict=True):
        *steps, total = bars(panel)
        assert_allclose([x for x, *_ in steps], np.cumsum([0, *(width for _, width, _ in steps)])[:-1], atol=1e-12)
        assert_allclose(total[:2], (0, score), rtol=1e-9)
        assert_allclose(sum(width for _, width, _ in steps), score, rtol=1e-9)
        assert total[2] == "score"
    assert ("penalty" in said(display)) == (kind == "signed")
    assert "Why row 7 has its scores" in said(display)


def test_row_says_which_it_is_and_what_is_left_out():
    X = frame(k=4).set_axis([f"house {i}" for i in range(80)])
    nmf = NMFFeatures(4).fit(X)
    scores = nmf.transform(X)
    i = int((scores == 0).sum(axis=1).argmax())
    zero = scores.columns[scores.iloc[i] == 0]
    display = RowDisplay.from_estimator(nmf, X, row=i, max_components=1)
    assert f"Why row house {i} has" in said(display)
    assert f"zero: {zero[0]}" in said(display)
    assert f"smaller scores left out: {3 - len(zero)}" in said(display)
    assert [panel.get_title() for panel in display.axes_] == [scores.iloc[i].idxmax()]
    for row in (80, -1, 1.5, True):
        with pytest.raises(ValueError, match=f"row is {row}; wanted a position from 0 to 79"):
            RowDisplay.from_estimator(nmf, X, row=row)
    with pytest.raises(ValueError, match="kind is 'shares'"):
        RowDisplay.from_estimator(nmf, X, kind="shares")


def test_row_without_scores():
    X = frame()
    X.iloc[3] = np.nan
    nmf = NMFFeatures(2, missing_values="ignore").fit(X)
    with pytest.warns(UserWarning, match="nothing observed"), pytest.raises(ValueError, match="Row 3 has no scores"):
        RowDisplay.from_estimator(nmf, X, row=3)
    zeros = NMFFeatures(2).fit(frame())
    assert said(RowDisplay.from_estimator(zeros, frame() * 0 - 1)).count("score") > 1  # all scores are zero


def test_unexplained_shows_the_rows_that_fit_least():
    X = frame(p=30, k=3)
    X.iloc[11, 4] = 9 * X.iloc[11].max()
    nmf = NMFFeatures(2).fit(X)
    display = UnexplainedDisplay.from_estimator(nmf, X, n_rows=5, max_columns=8)
    assert_allclose(display.losses, -nmf.score_samples(X))
    top, heat = display.axes_
    assert_allclose(top.lines[0].get_ydata(), np.sort(display.losses)[::-1])
    rows, columns = names_at(heat.yaxis), names_at(heat.xaxis)
    assert rows == [str(i) for i in np.argsort(-display.losses.to_numpy())[:5]]
    assert rows[0] == "11"
    assert len(columns) == 8
    assert "c4" in columns
    drawn = heat.collections[0].get_array().reshape(5, 8)
    assert_allclose(drawn, nmf.unexplained(X).loc[[int(i) for i in rows], columns])
    assert "the 5 rows that fit least, of 80; the 8 of 30 columns with most" in said(display)


def test_unexplained_of_rows_without_cells():
    X = frame()
    X.iloc[3], X.iloc[4, 2] = np.nan, np.nan
    nmf = NMFFeatures(2, missing_values="ignore").fit(X)
    with pytest.warns(UserWarning, match="nothing observed"):
        display = UnexplainedDisplay.from_estimator(nmf, X, n_rows=100)
    assert "rows without observed cells, left out: 1" in said(display)
    assert len(display.cells) == 79
    with (
        pytest.warns(UserWarning, match="nothing observed"),
        pytest.raises(ValueError, match="no row with an observed"),
    ):
        UnexplainedDisplay.from_estimator(nmf, X.iloc[[3]])
