"""Which shift and scale for which kind of column? Predict a target from k scores, with each of them.

    python benchmarks/scaling.py [--output FILE]

Linear or logistic regression on the scores, standardised; 10 folds with a fixed seed; the error is the root mean
square, or log loss for classes. Beside it, in standard errors (paired folds, Nadeau and Bengio as in modelling.py), the
difference to the default: below zero, the setting is better. "Largest" is the largest share that one column makes up
of the sum of squares of the table, which is what least squares has to explain. Results go to results-scaling.md.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from data import Unavailable
from modelling import TABLES, compared, error, folds, linear, star98, transformed
from run import machine, versions
from sklearn.datasets import load_breast_cancer

from nmf_features import NMFFeatures, NonNegativeScaler

HERE = Path(__file__).parent
KS = (2, 5)
SETTINGS = {
    "default": {},
    'scale="max"': {"scale": "max"},
    'scale="mean"': {"scale": "mean"},
    'scale="robust"': {"scale": "robust"},
    "clip=0.01": {"clip": 0.01},
    'shift="mode"': {"shift": "mode"},
    'shift="split"': {"shift": "split"},
    "shift=None, scale=None": {"shift": None, "scale": None},
}
PERCENTAGES = ["LOWINC", "PERASIAN", "PERBLACK", "PERHISP", "PERMINTE", "PCTAF", "PCTCHRT", "PCTYRRND"]


def percentages():
    X, y = star98()
    return X[PERCENTAGES], y


def codes():
    """Answers from 1 to 7 and the like; only the size of the town is none."""
    X, y = TABLES["anes96"][0]()
    return X.drop(columns=["popul", "logpopul"]), y


KINDS = {  # name: (how to make it, whether the target is a class)
    "heavy tails: breast cancer": (lambda: load_breast_cancer(return_X_y=True, as_frame=True), True),
    "heavy tails: houses, generated": TABLES["houses, generated"],
    "nearly constant among others: Ames": TABLES["Ames"],
    "integer codes: anes96": (codes, True),
    "integer codes: fair": TABLES["fair"],
    "percentages: star98": (percentages, False),
}


def measured(X, y, classes, k, setting):
    """Return a frame of errors, a row for each fold; None where the setting does not take these columns."""
    if "shift" in setting and setting["shift"] is None and X.min() < 0:
        return None
    rows = []
    for i, (train, test) in enumerate(folds(y, classes, 10, 0)):
        features = transformed(NMFFeatures(k, n_jobs=1, **setting), X, y, train, test)
        rows.append((0, i, error(linear(classes), *features, y[train], y[test], classes), len(test) / len(train)))
    return pd.DataFrame(rows, columns=["time", "fold", "error", "ratio"])


def largest(X, names, setting):
    """Return the column with the largest share of the sum of squares, and this share."""
    scaler = NonNegativeScaler(**setting).fit(X)
    squares = np.square(scaler.transform(X)).sum(axis=0)
    j = int(squares.argmax())
    name = names[j // 2] + "+-"[j % 2] if setting.get("shift") == "split" else names[j]
    return f"{name} {squares[j] / squares.sum():.2f}"


def report(name):
    make, classes = KINDS[name]
    X, y = make()
    names = [str(column) for column in getattr(X, "columns", range(np.shape(X)[1]))]
    X, y = np.asarray(X, dtype=float), np.asarray(y, dtype=int if classes else float)
    yield from ["", f"## {name[0].upper()}{name[1:]}", "", f"{X.shape[0]} rows, {X.shape[1]} columns.", ""]
    yield from [
        "| setting | " + " | ".join(f"k={k}" for k in KS) + " | largest |",
        "|---|" + "---:|" * len(KS) + "---|",
    ]
    own = {k: measured(X, y, classes, k, {}) for k in KS}
    for title, setting in SETTINGS.items():
        cells = []
        for k in KS:
            found = own[k] if not setting else measured(X, y, classes, k, setting)
            if found is None:
                break
            mean, se = compared(found, own[k])
            cells.append(f"{found['error'].mean():.3g}" + (f" ({mean / se:+.1f})" if se else ""))
        else:
            yield f"| `{title}` | {' | '.join(cells)} | {largest(X, names, setting)} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", default=HERE / "results-scaling.md", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # columns that are constant in a fold
    lines = ["# Shift and scale by kind of column", "", __doc__.split("\n\n", 2)[2].strip()]
    for name in KINDS:
        try:
            lines += report(name)
        except Unavailable as reason:
            lines += ["", f"{name} is left out: {reason}."]
        print(name, flush=True)
    arguments.output.write_text("\n".join([*lines, "", f"{machine()}. {versions()}"]) + "\n")
