"""Draw the pictures that README.md and the documentation show, into docs/pictures/: ``python docs/pictures.py``.

X (samples x columns) ~ W H: scores W belong to the rows, loadings H to the columns.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only, no window

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.decomposition import MiniBatchNMF
from statsmodels import datasets

from nmf_features import NMFFeatures, NonNegativeScaler, penalty_path, select_components, stability
from nmf_features.plots import (
    ComponentSelectionDisplay,
    LoadingsDisplay,
    PenaltyPathDisplay,
    RowDisplay,
    StabilityDisplay,
    UnexplainedDisplay,
)

GREEN, PURPLE, BLUE, VERMILLION = (
    "#009e73",
    "#cc79a7",
    "#0072b2",
    "#d55e00",
)  # Okabe and Ito: told apart with any colour vision
FOLDER = Path(__file__).parent / "pictures"
INK, QUIET, LINE = "#1f2328", "#59636e", "#d9dee3"
BENIGN, MALIGNANT = BLUE, VERMILLION
STYLE = {
    "font.size": 14.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "white",  # readable on a dark page too
}


def main():
    """Draw every picture."""
    FOLDER.mkdir(exist_ok=True)
    with plt.rc_context(STYLE):
        save(components(), FOLDER / "components.png")
    with plt.rc_context({"figure.facecolor": "white"}):
        save(choosing(), FOLDER / "choosing.png")
        save(reproducibility(), FOLDER / "stability.png")
        save(target(), FOLDER / "target.png")
        save(row(), FOLDER / "row.png")
        save(unexplained(), FOLDER / "unexplained.png")
        save(kinds_of_columns(), FOLDER / "scaling.png")
        save(nearly_constant(), FOLDER / "nearly_constant.png")
        save(drifting(), FOLDER / "streams.png")


def components():
    """30 columns of the breast cancer table as 5 components: the loadings, the new table, two of its columns."""
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    nmf = NMFFeatures(n_components=5)
    W = nmf.fit_transform(X)
    figure = plt.figure(figsize=(16, 10))
    figure.text(0.012, 0.965, "What each component is made of (loadings H)", fontsize=20, weight="bold", va="center")
    figure.text(0.55, 0.965, "The new columns (scores W)", fontsize=20, weight="bold", va="center")
    LoadingsDisplay.from_estimator(nmf, ax=figure.add_axes([0.16, 0.035, 0.36, 0.885])).ax_.set_title("", loc="left")
    draw_table(W.head(4), figure.add_axes([0.55, 0.745, 0.435, 0.185]))
    draw_scores(W, y == 1, figure.add_axes([0.595, 0.075, 0.39, 0.635]))
    return figure


def choosing():
    """How many components of the breast cancer table, and how much penalty."""
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    figure, axes = plt.subplots(1, 2, figsize=(13, 6), layout="constrained")
    ComponentSelectionDisplay.from_selection(select_components(X, range(1, 13), random_state=0), ax=axes[0])
    PenaltyPathDisplay.from_path(penalty_path(X, 5, y=y == 1, random_state=0), ax=axes[1])
    return figure


def reproducibility():
    """Which of five components of the breast cancer table come back."""
    X = load_breast_cancer(as_frame=True).data
    return StabilityDisplay.from_stability(stability(X, 5, random_state=0)).figure_


def target():
    """What three components of the wine table are made of, and what they say of the kind of wine."""
    data = load_wine(as_frame=True)
    kinds = data.target.map(dict(enumerate(data.target_names))).rename("wine")
    nmf = NMFFeatures(n_components=3, target_weight=1).fit(data.data, kinds)
    return LoadingsDisplay.from_estimator(nmf, target=True).figure_


def row():
    """Why a wine has its scores."""
    X = load_wine(as_frame=True).data
    return RowDisplay.from_estimator(NMFFeatures(n_components=4).fit(X), X, row=21, n_top=4).figure_


def unexplained():
    """Which wines four components do not explain."""
    X = load_wine(as_frame=True).data
    return UnexplainedDisplay.from_estimator(NMFFeatures(n_components=4).fit(X), X).figure_


SETTINGS = {
    "the default": {},
    'scale="max"': {"scale": "max"},
    'scale="robust"': {"scale": "robust"},
    "clip=0.01": {"clip": 0.01},
    'shift="mode"': {"shift": "mode"},
    'shift="split"': {"shift": "split"},
}


def kinds_of_columns():
    """What shift and scale make of a column with a heavy tail, a nearly constant one, codes, and percentages."""
    cancer, wine = load_breast_cancer(as_frame=True).data, with_kitchens()
    election, schools = datasets.anes96.load_pandas().data, datasets.star98.load_pandas().data
    rows = {
        ("heavy tail", "area error"): cancer,
        ("nearly constant", "kitchens"): wine,
        ("codes 1 to 7", "DoleLR"): election.drop(columns=["popul", "logpopul", "vote"]),
        ("percentages", "PERHISP"): schools.filter(regex="^(LOWINC|PER[ABHM]|PCT)"),
    }
    figure, axes = plt.subplots(len(rows), len(SETTINGS), figsize=(15, 8.4), layout="constrained")
    for ax, title in zip(axes[0], SETTINGS, strict=True):
        ax.set_title(title, weight="bold", fontsize="large", pad=10)
    for line, ((kind, name), X) in zip(axes, rows.items(), strict=True):
        for ax, setting in zip(line, SETTINGS.values(), strict=True):
            draw_scaled(ax, X, name, setting)
        line[0].set_ylabel(f"{kind}\n{name}", fontsize="medium")
    return figure


def draw_scaled(ax, X, name, setting):
    """Draw a histogram of a shifted and scaled column, and its share of the sum of squares of the table."""
    Z = NonNegativeScaler(**setting).fit_transform(X)
    halves = [name + sign for sign in "+-"] if setting.get("shift") == "split" else [name]
    share = np.square(Z[halves]).to_numpy().sum() / np.square(Z).to_numpy().sum()
    top = Z[halves].to_numpy().max()
    for half, colour in zip(halves, (BENIGN, MALIGNANT), strict=False):
        ax.hist(Z[half], np.linspace(0, top, 25), color=colour, alpha=0.8 if len(halves) == 1 else 0.6)
    ax.text(0.97, 0.95, f"{share:.0%}", transform=ax.transAxes, ha="right", va="top", fontsize="large", weight="bold")
    ax.set(yticks=[], xlim=(0, top), ylim=(0, 1.3 * ax.get_ylim()[1]))
    ax.tick_params(length=0, labelcolor=QUIET, labelsize="small")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(LINE)


def nearly_constant():
    """What components are made of, if a column is 1 in nearly all rows."""
    X = with_kitchens()
    settings = {"the default": {}, 'scale="max"': {"scale": "max"}, 'shift="mode"': {"shift": "mode"}}
    figure, axes = plt.subplots(1, 3, figsize=(15, 5.2), layout="constrained")
    for ax, (title, setting) in zip(axes, settings.items(), strict=True):
        nmf = NMFFeatures(n_components=4, **setting).fit(X)
        LoadingsDisplay.from_estimator(nmf, ax=ax).ax_.set_title(title, loc="left", weight="bold", fontsize="large")
    return figure


def with_kitchens():
    """The wine table, and a column that is 1 in 95 % of the rows, as the number of kitchens is in tables of houses."""
    X = load_wine(as_frame=True).data
    return X.assign(kitchens=np.random.default_rng(0).choice([0, 1, 2], len(X), p=[0.01, 0.95, 0.04]))


def drifting():
    """Three components of a stream, of which one turns into another: how well each way of learning follows."""
    rng, batches = np.random.default_rng(0), np.arange(60)
    blocks = np.kron(np.eye(4), np.linspace(1, 2, 4)) + 0.05
    turned = np.clip((batches - 10) / 30, 0, 1)
    truths = [np.array([*blocks[:2], (1 - a) * blocks[2] + a * blocks[3]]) for a in turned]
    tables = [rng.gamma(0.7, 1, (100, 3)) @ H + 0.3 * rng.uniform(size=(100, 16)) for H in truths]
    scikit_learn = MiniBatchNMF(3, alpha_W=1e-3, l1_ratio=1, random_state=0)
    models = {
        "forget_factor=1": (NMFFeatures(3, shift=None, scale=None, forget_factor=1), VERMILLION, "-"),
        "forget_factor=0.9": (NMFFeatures(3, shift=None, scale=None, forget_factor=0.9), BLUE, "-"),
        "forget_factor=0.7": (NMFFeatures(3, shift=None, scale=None), PURPLE, "-"),
        "forget_factor=0.5": (NMFFeatures(3, shift=None, scale=None, forget_factor=0.5), GREEN, "-"),
        "MiniBatchNMF (0.7)": (scikit_learn, INK, ":"),
    }
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.6), sharey=True, layout="constrained")
    for name, (model, colour, line) in models.items():
        found = []
        for X, truth in zip(tables, truths, strict=True):
            H = model.partial_fit(X).components_
            cosines = H @ truth.T / np.linalg.norm(H, axis=1)[:, None] / np.linalg.norm(truth, axis=1)
            if not found:  # numbers are frozen: which component is which is asked once
                order = linear_sum_assignment(-cosines)[1].argsort()
            found.append(cosines[order, range(3)])
        for ax, values in zip(axes, np.transpose(found), strict=True):
            ax.plot(batches, values, color=colour, linestyle=line, linewidth=2, label=name)
    titles = ["Component that stays", "Another that stays", "Component that turns, from batch 10 to 40"]
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, loc="left")
        ax.set(xlabel="batch of 100 rows", ylim=(0, 1.02))
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color="#eaeef2")
    axes[0].set_ylabel("cosine of its loadings with the truth")
    axes[2].axvspan(10, 40, color="#eaeef2", zorder=0)
    axes[0].legend(loc="lower right", frameon=False)
    return figure


def draw_table(W, ax):
    """Print the first rows of W as a frame."""
    rows, columns = W.shape
    ax.set(xlim=(0, columns + 0.35), ylim=(rows + 0.5, -0.5))
    ax.axis("off")
    for j, name in enumerate(W):
        ax.text(j + 1.3, -0.05, name, ha="right", va="center", fontsize=15.5)
        for i, value in enumerate(W[name]):
            ax.text(j + 1.3, i + 1, f"{value:.1f}", ha="right", va="center")
    for i, label in enumerate(W.index):
        ax.text(0, i + 1, label, va="center", color=QUIET)
    ax.axhline(0.42, color=LINE, linewidth=1.2)


def draw_scores(W, benign, ax):
    """Two columns of W, a point per row of X."""
    x, y = W.columns[:2]
    for rows, name, colour, marker in ((benign, "benign", BENIGN, "o"), (~benign, "malignant", MALIGNANT, "D")):
        ax.scatter(
            W.loc[rows, x], W.loc[rows, y], s=46, marker=marker, color=colour, edgecolor="white", lw=0.6, label=name
        )
    ax.set_xlabel(x, fontsize=15.5)
    ax.set_ylabel(y, fontsize=15.5)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(length=0, labelcolor=QUIET)
    ax.grid(color="#eaeef2")
    ax.set_axisbelow(True)
    ax.legend(loc="upper right", fontsize=16, markerscale=1.6, edgecolor="white", framealpha=1, handletextpad=0.2)


def save(figure, path):
    """Write a PNG with a palette of its own, a fraction of the bytes of a full-colour one."""
    figure.savefig(path, dpi=100)
    plt.close(figure)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(255, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
