"""Do the components help a model? Predict a target from k components, of NMFFeatures with a target and of others.

    python benchmarks/modelling.py [--tables NAME ...] [--output FILE]

Each method makes k features from the columns of the training rows; on these, standardised, stands a linear or logistic
regression, and gradient boosting with one setting. 10 folds, three times, with fixed seeds; errors are root mean
squares, or log loss for classes. All others get columns that are cut off at the .5 % and 99.5 % quantiles of the
training rows. For NMFFeatures, three folds of the training rows choose first the weight of the target among 0, .1, 1
and 10, then whether to cut off, then the penalty, .001 or .01, by the error of the linear model (with tol=1e-4); the
same components then go to gradient boosting. Differences are paired, fold by fold, with the standard error of Nadeau
and Bengio, which allows for training rows that folds share. Gradient boosting and sparse PCA, which are slow, see the
first of the three times alone. Results go to results-modelling.md. About an hour on two cores.

Reference: C. Nadeau and Y. Bengio (2003), Inference for the generalization error, Machine Learning 52.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from data import Unavailable
from joblib import Parallel, delayed
from run import machine, versions
from sklearn.cross_decomposition import PLSRegression
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.decomposition import NMF, PCA, SparsePCA
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import log_loss, root_mean_squared_error
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from nmf_features import NMFFeatures

HERE = Path(__file__).parent
AMES = HERE.parents[1] / "shared/data/ames.csv.gz"
KS, FOLDS, TIMES, INNER = (2, 5, 10), 10, 3, 3
CLIP, WEIGHTS, PENALTIES, TOL = 0.005, (0, 0.1, 1, 10), (0.001, 0.01), 1e-4
MOST_ROWS = 4000  # of longer tables, drawn once


def bundled(load):
    def make():
        data = load()
        return data.data, data.target

    return make


def ames():
    if not AMES.exists():
        raise Unavailable("the folder 'shared' with Ames is not beside the repository")
    table = pd.read_csv(AMES).select_dtypes("number")
    return table.drop(columns="Sale_Price"), np.log10(table["Sale_Price"])


def statsmodels(name, target, change=lambda y: y):
    def make():
        from statsmodels import datasets

        table = getattr(datasets, name).load_pandas().data
        return table.drop(columns=target), change(table[target])

    return make


def star98():
    """Share of pupils above the national median, in 303 Californian districts."""
    from statsmodels import datasets

    table = datasets.star98.load_pandas().data
    above, below = table["NABOVE"], table["NBELOW"]
    return table.drop(columns=["NABOVE", "NBELOW"]), above / (above + below)


def houses():
    """Like the Californian houses: eight columns with heavy tails, of which the target is no linear function."""
    rng = np.random.default_rng(0)
    n = 4000
    income, age = rng.gamma(3, 1.3, n), rng.integers(1, 53, n)
    rooms = 2 + income**0.5 * rng.lognormal(0.5, 0.3, n)
    bedrooms, people = rooms * rng.lognormal(-1.6, 0.15, n), rng.lognormal(7, 0.7, n)
    occupants = rng.lognormal(1, 0.25, n) * np.where(rng.uniform(size=n) < 0.005, 30, 1)
    north, east = rng.uniform(0, 9, n), rng.uniform(0, 10, n)
    coast = np.exp(-np.square(north + east - 8) / 8)
    price = 0.4 * income + 0.9 * coast - 0.15 * np.log(occupants) + 0.004 * age + rng.normal(0, 0.45, n)
    return np.column_stack([income, age, rooms, bedrooms, people, occupants, north, east]), price


def many_columns():
    """500 columns of eight components and noise; the target follows three of the components, two of them small."""
    rng = np.random.default_rng(1)
    scores = rng.gamma(1.5, size=(600, 8)) * np.array([3, 3, 2, 2, 1, 1, 0.7, 0.5])
    X = scores @ rng.gamma(0.3, size=(8, 500)) + rng.gamma(1, 0.7, size=(600, 500))
    return X, scores[:, 1] - 3 * scores[:, 5] + 4 * scores[:, 7] + rng.normal(0, 1.5, 600)


TABLES = {  # name: (how to make it, whether the target is a class)
    "Ames": (ames, False),
    "diabetes": (bundled(lambda: load_diabetes(scaled=False)), False),
    "randhie": (statsmodels("randhie", "mdvis", np.log1p), False),
    "star98": (star98, False),
    "houses, generated": (houses, False),
    "500 columns, generated": (many_columns, False),
    "fair": (statsmodels("fair", "affairs", lambda y: y > 0), True),
    "anes96": (statsmodels("anes96", "vote"), True),
    "breast cancer": (bundled(load_breast_cancer), True),
    "wine": (bundled(load_wine), True),
    "digits": (bundled(load_digits), True),
}


def table(name):
    """Return the columns, the target and whether it is a class."""
    make, classes = TABLES[name]
    X, y = (np.asarray(part, dtype=np.float64) for part in make())
    if len(X) > MOST_ROWS:
        rows = np.sort(np.random.default_rng(0).choice(len(X), MOST_ROWS, replace=False))
        X, y = X[rows], y[rows]
    return X, y.astype(int) if classes else y, classes


def cut(train, test):
    """Cut columns off at quantiles of the training rows, but for those that would become constant."""
    low, high = np.quantile(train, [CLIP, 1 - CLIP], axis=0, method="inverted_cdf")
    low, high = np.where(low == high, -np.inf, low), np.where(low == high, np.inf, high)
    return np.clip(train, low, high), np.clip(test, low, high)


def linear(classes):
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000) if classes else LinearRegression())


def boosting(classes):
    kind = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    return kind(max_iter=50, max_leaf_nodes=15, random_state=0)


def error(model, train, test, y_train, y_test, classes):
    """Error of a model on test rows."""
    model = model.fit(train, y_train)
    if classes:
        return log_loss(y_test, model.predict_proba(test), labels=model.classes_)
    return root_mean_squared_error(y_test, model.predict(test))


def folds(y, classes, n, seed):
    kind = StratifiedKFold if classes else KFold
    return list(kind(n, shuffle=True, random_state=seed).split(y, y))


def transformed(method, X, y, train, test):
    """Features of training and test rows."""
    return method.fit(X[train], y[train]).transform(X[train]), method.transform(X[test])


def guided(X, y, classes, k):
    """Return NMFFeatures with parameters that folds of the training rows choose."""
    inner = folds(y, classes, INNER, 0)
    best = {"target_weight": 0.0, "clip": CLIP, "penalty": PENALTIES[0]}
    known = {}
    for name, values in {"target_weight": WEIGHTS, "clip": (CLIP, None), "penalty": PENALTIES}.items():
        for value in values:
            setting = {**best, name: value}
            key = tuple(setting.values())
            if key not in known:
                errors = []
                for train, test in inner:
                    features = transformed(NMFFeatures(k, n_jobs=1, tol=TOL, **setting), X, y, train, test)
                    errors.append(error(linear(classes), *features, y[train], y[test], classes))
                known[key] = np.mean(errors)
        best[name] = min(values, key=lambda value: known[tuple({**best, name: value}.values())])
    return NMFFeatures(k, n_jobs=1, tol=TOL, **best)


def others(k, y, classes):
    """Return rivals as transformers of columns that are cut off."""
    outputs = np.eye(y.max() + 1)[y] if classes else y
    pls = PLSRegression(k)
    return {
        "PCA": (make_pipeline(StandardScaler(), PCA(k, svd_solver="full")), y),
        "PLS": (pls, outputs),
        "sparse PCA": (make_pipeline(StandardScaler(), SparsePCA(k, max_iter=200, random_state=0)), y),
        "NMF": (make_pipeline(MinMaxScaler(clip=True), NMF(k, init="nndsvda", max_iter=1000)), y),
        "NMFFeatures": (NMFFeatures(k, n_jobs=1), y),
    }


def one_fold(X, y, classes, train, test, first):
    """Return rows of results: k, method, model, error, chosen parameters."""
    warnings.simplefilter("ignore")  # components that stay zero, passes used up
    found, (A, B) = [], cut(X[train], X[test])

    def judge(k, name, features, chosen=""):
        for model in ("linear", "boosting") if first else ("linear",):
            kind = {"linear": linear, "boosting": boosting}[model](classes)
            found.append((k, name, model, error(kind, *features, y[train], y[test], classes), chosen))

    judge(0, "all columns", (A, B))
    for k in KS:
        if k > X.shape[1]:
            continue
        for name, (method, target) in others(k, y, classes).items():
            if name == "sparse PCA" and not first:
                continue
            method = method.fit(A, target[train])
            judge(k, name, (method.transform(A), method.transform(B)))
        method = guided(X[train], y[train], classes, k)
        chosen = f"{method.target_weight:g} {method.clip or 0:g} {method.penalty:g}"
        judge(k, "NMFFeatures, target", transformed(method, X, y, train, test), chosen)
    return found


def results(name, n_jobs):
    """Return a frame of errors: a row for every k, method, model, time and fold."""
    X, y, classes = table(name)
    with Parallel(n_jobs) as parallel:
        splits = [(seed, i, *s) for seed in range(TIMES) for i, s in enumerate(folds(y, classes, FOLDS, seed))]
        found = parallel(delayed(one_fold)(X, y, classes, tr, te, seed == 0) for seed, _, tr, te in splits)
    columns = ["k", "method", "model", "error", "chosen"]
    frames = [
        pd.DataFrame(rows, columns=columns).assign(table=name, time=seed, fold=i, ratio=len(te) / len(tr))
        for rows, (seed, i, tr, te) in zip(found, splits, strict=True)
    ]
    return pd.concat(frames, ignore_index=True)


def compared(own, other):
    """Return the mean difference of errors and its standard error, from paired folds."""
    both = own.merge(other, on=["time", "fold"], suffixes=("", "_other"))
    difference = both["error"] - both["error_other"]
    return difference.mean(), np.sqrt((1 / len(both) + both["ratio"].mean()) * difference.var(ddof=1))


def report(errors, seconds):
    """Return the lines of the report."""
    lines = ["# Do the components help a model?", "", __doc__.split("\n\n", 1)[1].strip(), ""]
    for model in ("linear", "boosting"):
        lines += table_of(errors[errors["model"] == model], model)
    lines += ["", "## What was chosen", "", "How often of 30 folds; weight of the target, then cut off, then penalty."]
    lines += ["", "| table | k | weight 0 / .1 / 1 / 10 | cut off | penalty .01 |", "|---|---|---|---|---|"]
    chosen = errors[(errors["model"] == "linear") & (errors["chosen"] != "")]
    for (name, k), rows in chosen.groupby(["table", "k"], sort=False):
        parts = rows["chosen"].str.split(expand=True).astype(float)
        counts = " / ".join(str(int((parts[0] == w).sum())) for w in WEIGHTS)
        lines.append(f"| {name} | {k} | {counts} | {int((parts[1] > 0).sum())} | {int((parts[2] > 0.001).sum())} |")
    return [*lines, "", f"{seconds / 60:.0f} minutes. {machine()}. {versions()}"]


def table_of(errors, model):
    methods = ["PCA", "PLS", "sparse PCA", "NMF", "NMFFeatures", "NMFFeatures, target"]
    lines = ["", f"## {'Linear and logistic regression' if model == 'linear' else 'Gradient boosting'}", ""]
    lines += [f"| table | k | {' | '.join(methods)} | all columns | against PCA | against PLS |"]
    lines += ["|---|---:|" + "---:|" * (len(methods) + 1) + "---|---|"]
    ratios, verdicts = {"PCA": [], "PLS": []}, {"PCA": [], "PLS": []}
    for name, of_table in errors.groupby("table", sort=False):
        by = {key: rows for key, rows in of_table.groupby(["k", "method"])}
        whole = by[0, "all columns"]["error"].mean()
        for k in sorted({k for k, _ in by if k}):
            own, texts = by[k, "NMFFeatures, target"], []
            for other in ratios:
                mean, se = compared(own, by[k, other])
                ratios[other].append(own["error"].mean() / by[k, other]["error"].mean())
                verdicts[other].append("better" if mean < -2 * se else "worse" if mean > 2 * se else "level")
                texts.append(f"{verdicts[other][-1]}, {mean / se:+.1f}")
            values = [f"{by[k, method]['error'].mean():.3g}" for method in methods]
            lines.append(f"| {name} | {k} | {' | '.join(values)} | {whole:.3g} | {' | '.join(texts)} |")
    lines += [
        "",
        "Differences are in standard errors; below zero, NMFFeatures with a target has the smaller error.",
        "",
    ]
    for other, of_all in ratios.items():
        counts = ", ".join(f"{verdicts[other].count(what)} {what}" for what in ("better", "level", "worse"))
        lines.append(
            f"- Against {other}: {counts}; geometric mean of the ratios {np.exp(np.mean(np.log(of_all))):.3f}."
        )
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--n-jobs", type=int, default=2)
    parser.add_argument("--output", default=HERE / "results-modelling.md", type=Path)
    arguments = parser.parse_args()
    start, found, lines = time.perf_counter(), [], ["No table was there."]
    for name in arguments.tables:
        began = time.perf_counter()
        try:
            found.append(results(name, arguments.n_jobs))
        except Unavailable as reason:
            print(f"{name} is left out: {reason}.")
            continue
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
        lines = report(pd.concat(found), time.perf_counter() - start)
        arguments.output.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
