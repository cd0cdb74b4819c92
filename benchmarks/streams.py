"""partial_fit beside scikit-learn's MiniBatchNMF: the same batches, the same penalty, one thread, under a minute.

    OMP_NUM_THREADS=1 python benchmarks/streams.py

Tables are shifted and scaled as a whole, shuffled, and read in tenths, first once, then four times more. The objective
is that of the whole table, with exact scores, over that of NMFFeatures fitted to all of it: 1 is as good as that fit.
Times are those of a later batch.
"""

import time
import warnings

import numpy as np
from data import Unavailable, ames
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.decomposition import MiniBatchNMF

from nmf_features import NMFFeatures, NonNegativeScaler, objective
from nmf_features.core.losses import loss_of
from nmf_features.core.projection import exact_scores

PENALTY, BATCHES, EPOCHS = 0.001, 10, 5
TABLES = {
    "wine": (lambda: load_wine().data, 4),
    "breast cancer": (lambda: load_breast_cancer().data, 6),
    "digits": (lambda: load_digits().data, 10),
    "Ames": (ames, 8),
}
LOSSES = ("frobenius", "kullback-leibler")


def ours(k, loss, forget_factor):
    return NMFFeatures(k, shift=None, scale=None, penalty=PENALTY, loss=loss, forget_factor=forget_factor, n_jobs=1)


def theirs(k, loss, forget_factor):
    solver = {"beta_loss": loss, "alpha_W": PENALTY, "l1_ratio": 1.0, "random_state": 0}
    return MiniBatchNMF(k, forget_factor=forget_factor, **solver)


def value(X, H, loss):
    """Return the objective of loadings, with exact scores for them, where scale is shared at the least penalty."""
    H = np.maximum(H, 1e-12)
    for _ in range(5):
        W = exact_scores(X, H, PENALTY * X.shape[1], loss=loss_of(loss), n_jobs=1)
        found = objective(X, W, H, PENALTY, loss=loss)
        H = H * np.sqrt(X.shape[1] * np.maximum(W.sum(axis=0), 1e-12) / (X.shape[0] * H.sum(axis=1)))[:, None]
    return found


def measured(X, k, loss, make, forget_factor):
    """Return the objectives after one and after all epochs, and the time of a later batch in ms."""
    model, values, times = make(k, loss, forget_factor), [], []
    for _ in range(EPOCHS):
        for batch in np.array_split(X, BATCHES):
            start = time.perf_counter()
            model.partial_fit(batch)
            times.append(time.perf_counter() - start)
        H = model.components_ * (model.component_scales_[:, None] if make is ours else 1)
        values.append(value(X, H, loss))
    return values[0], values[-1], 1e3 * float(np.median(times[1:]))


def main():
    warnings.simplefilter("ignore")
    print("| table | loss | forget_factor | NMFFeatures: 1 epoch | 5 epochs | ms | MiniBatchNMF: 1 | 5 | ms |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, (make, k) in TABLES.items():
        try:
            X = NonNegativeScaler().fit_transform(np.random.default_rng(0).permutation(make()))
        except Unavailable:
            continue
        X = np.ascontiguousarray(X[:, np.array_split(X, BATCHES)[0].std(axis=0) > 0])
        for loss in LOSSES:
            best = ours(k, loss, 1).fit(X).objective_
            for forget_factor in (1.0, 0.7):
                cells = []
                for maker in (ours, theirs):
                    first, last, ms = measured(X, k, loss, maker, forget_factor)
                    cells += [f"{first / best:.3f}", f"{last / best:.3f}", f"{ms:.1f}"]
                print(f"| {name} | {loss} | {forget_factor:g} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
