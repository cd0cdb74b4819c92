"""Few columns for each component: a limit, the penalty, and cutting afterwards; results-few-columns.md.

The share left unexplained is |X - W H|^2 / |X - m|^2, m the column means, W the best scores for the loadings (without
penalty). Reproducibility is the mean cosine between the components of all rows and those of samples of the rows with
replacement, matched.

    python benchmarks/few_columns.py [ames.csv.gz]
"""

import sys
import warnings

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_wine

from nmf_features import NonNegativeScaler, factorize
from nmf_features.core.projection import exact_scores
from nmf_features.selection.stability import matched_with

PENALTY, RUNS = 0.001, 10
PENALTIES = (0.001, 0.02, 0.05, 0.1, 0.2)


def tables(path):
    yield "wine", load_wine().data, 3, (3, 5)
    yield "breast cancer", load_breast_cancer().data, 5, (3, 6, 10)
    if path:
        numbers = pd.read_csv(path).select_dtypes("number").drop(columns="Sale_Price")
        yield "Ames", numbers.to_numpy(float), 5, (4, 8)


def fitted(X, k, penalty=PENALTY, weights=None, limit=None, cut=None):
    """Return loadings that sum to 1 in each component, perhaps cut to the largest."""
    H = factorize(X, k, penalty=penalty, sample_weight=weights, n_nonzero_loadings=limit).H
    if cut:
        H = np.where(np.argsort(np.argsort(-H, axis=1), axis=1) < cut, H, 0)
    return H / np.maximum(H.sum(axis=1, keepdims=True), 1e-300)


def row(X, k, **how):
    H, rng = fitted(X, k, **how), np.random.default_rng(0)
    W = exact_scores(X, H)
    left = np.square(X - W @ H).sum() / np.square(X - X.mean(axis=0)).sum()
    cosines = []
    for _ in range(RUNS):
        drawn = np.bincount(rng.integers(len(X), size=len(X)), minlength=len(X)) * 1.0
        cosines.append(matched_with(fitted(X, k, weights=drawn, **how), H)[1].mean())
    columns = (H > 0).sum(axis=1)
    return f"{' '.join(map(str, sorted(columns)))} | {left:.3f} | {np.mean(cosines):.2f} |"


def main(path=None):
    warnings.simplefilter("ignore")
    print("| table, k | method | columns of each component | unexplained | reproducibility |\n|---|---|---|---|---|")
    for name, X, k, limits in tables(path):
        X = NonNegativeScaler().fit_transform(X)
        for penalty in PENALTIES:
            print(f"| {name}, {k} | penalty {penalty:g} |", row(X, k, penalty=penalty), flush=True)
        for m in limits:
            print(f"| {name}, {k} | cut to {m} afterwards |", row(X, k, cut=m), flush=True)
            print(f"| {name}, {k} | n_nonzero_loadings={m} |", row(X, k, limit=m), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
