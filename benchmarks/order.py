"""Does the order of rows and columns change a default fit? Shuffle both, in real and generated tables, and compare:

    python benchmarks/order.py [--tables NAME ...] [--orders 30] [--output FILE]

For each table and number of components: the largest difference of the objectives, as a share of themselves beyond
1e-6 of |X|^2; the least cosine of matched loadings; and in how many orders components are named otherwise (but for
totals that tie to a thousandth). Results go to results-order.md, after each table.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from data import low_rank
from minima import table, tables
from scipy.optimize import linear_sum_assignment

from nmf_features import NMFFeatures

HERE = Path(__file__).parent


def dummies(levels, rows=30_000):
    """One-hot columns of a variable whose levels have Zipf frequencies."""
    share = 1 / np.arange(1, levels + 1)
    drawn = np.random.default_rng(0).choice(levels, rows, p=share / share.sum())
    return np.eye(levels)[drawn]


TABLES = {name: (lambda name=name: table(name)) for name in tables()} | {
    "dummies-20": lambda: dummies(20),
    "dummies-300": lambda: dummies(300),
    "generated-200000": low_rank(200_000, 50, 10),
}


def fitted(X, k, columns):
    """Objective, loadings and total amounts of a default fit to the columns in another order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nmf = NMFFeatures(k)
        W = nmf.fit_transform(X[:, columns])
    return nmf.objective_, nmf.components_[:, np.argsort(columns)], W.sum(axis=0)


def compare(one, other, squared_norm):
    """Difference of objectives, least cosine of matched loadings, and whether names are the same."""
    (value, H, totals), (other_value, other_H, _) = one, other
    lengths = [np.linalg.norm(loadings, axis=1, keepdims=True) for loadings in (H, other_H)]
    cosines = (H / np.where(lengths[0] > 0, lengths[0], 1)) @ (other_H / np.where(lengths[1] > 0, lengths[1], 1)).T
    rows, columns = linear_sum_assignment(-cosines)
    alive = (lengths[0][rows, 0] > 0) | (lengths[1][columns, 0] > 0)
    moved = rows != columns
    ties = np.abs(totals[rows] - totals[columns]) <= 1e-3 * totals.max()
    difference = max(abs(value - other_value) - 1e-6 * squared_norm, 0) / value if value else 0.0
    return difference, cosines[rows, columns][alive].min(initial=1.0), bool((moved & ~ties).any())


def of_table(X, orders, ks=range(2, 11)):
    """Worst differences over some orders, for each number of components."""
    Z = X - X.min(axis=0)
    deviations = Z.std(axis=0)
    squared_norm = float(np.square(Z / np.where(deviations > 0, deviations, 1)).sum())
    for k in (k for k in ks if k < X.shape[1]):
        rng, first = np.random.default_rng(k), fitted(X, k, np.arange(X.shape[1]))
        shuffled = [(rng.permutation(len(X)), rng.permutation(X.shape[1])) for _ in range(orders)]
        found = [compare(first, fitted(X[rows], k, columns), squared_norm) for rows, columns in shuffled]
        differences, cosines, renamed = map(np.array, zip(*found, strict=True))
        yield (
            k,
            differences.max(),
            cosines.min(),
            int(renamed.sum()),
            int(((differences > 3e-4) | (cosines < 0.995)).sum()),
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=TABLES, metavar="NAME")
    parser.add_argument("--orders", type=int, default=30)
    parser.add_argument("--output", default=HERE / "results-order.md", type=Path)
    arguments = parser.parse_args()
    lines = ["# Whether the order of rows and columns matters", "", __doc__.split("\n\n", 2)[2].strip(), ""]
    lines += [
        f"{arguments.orders} orders each. Other: orders that differ by 3e-4 in the objective, or in a loading.",
        "",
    ]
    lines += ["| table | k | objective | least cosine | renamed | other |", "|---|---:|---:|---:|---:|---:|"]
    for name in arguments.tables:
        X = TABLES[name]()
        for k, difference, cosine, renamed, other in of_table(X, arguments.orders):
            lines.append(
                f"| {name}, {X.shape[0]} x {X.shape[1]} | {k} | {difference:.1e} | {cosine:.5f} | {renamed} | {other} |"
            )
            print(lines[-1], flush=True)
        arguments.output.write_text("\n".join(lines) + "\n")
