"""Filling in missing cells: how far off, and how long, beside scikit-learn's imputers.

    python benchmarks/imputation.py

20 % of the cells are removed at random; the error is the root mean square over them, in standard deviations of the
columns. Ours is `NMFFeatures(missing_values="ignore", l1_ratio=0).impute`, with the number of components, the penalty
and the shift that do best on a tenth of the cells that are left, hidden for that; the time includes the choice. The
others run at their defaults. KNN sees the columns as they are, and standardised.
"""

import warnings
from itertools import product
from time import perf_counter

import numpy as np
import pandas as pd
from data import SHARED, Unavailable
from sklearn.datasets import load_breast_cancer
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.preprocessing import StandardScaler

from nmf_features import NMFFeatures

COMPONENTS, PENALTIES, SHIFTS = (1, 2, 3, 5, 7, 10, 14, 20), (0.003, 0.01, 0.03, 0.1), ("min", "split")


def ames():
    """The 33 numeric predictors of 2,930 house sales, in their own units."""
    path = SHARED / "data/ames.csv.gz"
    if not path.exists():
        raise Unavailable("the folder 'shared' with Ames is not beside the repository")
    names = pd.read_csv(SHARED / "r_reference/b_X_range.csv.gz", nrows=0).columns
    return pd.read_csv(path)[names].to_numpy(dtype=float)


def ours(holes):
    """Choose on hidden cells, then fit to all that are left."""
    hidden = ~np.isnan(holes) & (np.random.default_rng(1).uniform(size=holes.shape) < 0.1)
    spread = np.nanstd(holes, axis=0)

    def error(*choice):
        filled = model(*choice).fit(part).impute(part)
        return np.square(((filled - holes) / spread)[hidden]).mean()

    def model(k, penalty, shift):
        return NMFFeatures(k, penalty=penalty, l1_ratio=0, shift=shift, missing_values="ignore", tol=1e-4)

    part = np.where(hidden, np.nan, holes)
    best = min(product(COMPONENTS, PENALTIES, SHIFTS), key=lambda choice: error(*choice))
    return model(*best).fit(holes).impute(holes), f"k={best[0]}, penalty={best[1]}, shift={best[2]!r}"


def standardised_knn(holes):
    """Fill in among the nearest rows of columns of equal spread."""
    scaler = StandardScaler().fit(holes)
    return scaler.inverse_transform(KNNImputer().fit_transform(scaler.transform(holes))), ""


METHODS = {
    "column means": lambda holes: (SimpleImputer().fit_transform(holes), ""),
    "KNNImputer": lambda holes: (KNNImputer().fit_transform(holes), ""),
    "KNNImputer, standardised": standardised_knn,
    "IterativeImputer": lambda holes: (IterativeImputer(random_state=0).fit_transform(holes), ""),
    "NMFFeatures.impute": ours,
}


def main():
    warnings.simplefilter("ignore")  # of not having converged
    print("| data | method | RMSE, standard deviations | seconds | chosen |\n| --- | --- | ---: | ---: | --- |")
    for name, make in (("Ames", ames), ("breast cancer", lambda: load_breast_cancer().data)):
        try:
            X = make()
        except Unavailable as reason:
            print(f"| {name} | | | | {reason} |")
            continue
        missing = np.random.default_rng(0).uniform(size=X.shape) < 0.2
        holes = np.where(missing, np.nan, X)
        for method, fill in METHODS.items():
            start = perf_counter()
            filled, chosen = fill(holes)
            seconds = perf_counter() - start
            error = np.sqrt(np.square(((filled - X) / X.std(axis=0))[missing]).mean())
            print(f"| {name} | {method} | {error:.3f} | {seconds:.3g} | {chosen} |", flush=True)


if __name__ == "__main__":
    main()
