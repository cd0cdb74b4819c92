"""Time to equal objective on real tables, and the distribution of the ratios: nothing is chosen, nothing tuned on them.

    python benchmarks/real.py [--quick] [--output FILE]

Tables that statsmodels and scikit-learn bundle, and Ames where the folder 'shared' is, shifted by their minimum and
divided by their deviation (minima.py), each with 3, 5 and 7 components where it has more columns. Against scikit-learn
as in time_to_objective.py: coordinate descent at its default stop and run to tol=1e-6, for Kullback-Leibler
multiplicative updates, and RcppML, if R has it. Beside the time, which has a floor of some milliseconds on small
tables, stand the passes over all rows that both made, and how many pairs of products with X (X H' and W' X, by BLAS)
would take as long as all that we do. The last figure is a whole ``NMFFeatures(k).fit`` with its defaults, which chooses
one of many minima, over scikit-learn's time to its default stop, at one of them. One thread. Results go to
results-real.md.
"""

import os

os.environ.update(dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], "1"))

import argparse
import platform
import warnings
from pathlib import Path
from time import perf_counter

import numpy as np
from minima import table, tables
from rows import say
from time_to_objective import KL, PEERS, Ours, Stop, affordable, compare

from nmf_features import NMFFeatures

KS = (3, 5, 7)
NAMES = {"frobenius": ["scikit-learn cd", "scikit-learn cd, converged", "RcppML"], KL: ["scikit-learn mu"]}
CAP = 20  # seconds that a run of the peer may take


def whole_fit(X, k):
    """Return the median seconds of a fit with default parameters, of columns that are already scaled."""
    model, seconds = NMFFeatures(k, shift=None, scale=None, n_jobs=1), []
    model.fit(X)
    for _ in range(3):
        start = perf_counter()
        model.fit(X)
        seconds.append(perf_counter() - start)
    return float(np.median(seconds))


def pair_of_products(X, k):
    """Return the least seconds of X H' and W' X."""
    W, H, seconds = np.ones((len(X), k)), np.ones((k, X.shape[1])), []
    for _ in range(50):
        start = perf_counter()
        X @ H.T, W.T @ X
        seconds.append(perf_counter() - start)
    return min(seconds)


def cases(quick):
    """Yield the name of a table, its cells, and numbers of components."""
    for name in tables()[: 3 if quick else None]:
        X = np.ascontiguousarray(table(name))
        if ks := [k for k in KS if k < X.shape[1]]:
            yield name, X, ks[:1] if quick else ks


def measured(name, X, k):
    """Yield what was compared on one table."""
    pair = pair_of_products(X, k)
    for loss, peers in NAMES.items():
        ours = Ours(X, k, 1, loss)
        ours.seconds(Stop(0.1, 10))
        for peer in peers:
            if reason := PEERS[peer].why_not(X):
                say(f"{name}, k = {k}, {peer}: {reason}")
                continue
            try:
                row = compare(X, k, peer, ours, 1, CAP, 5)
            except Exception as error:
                say(f"{name}, k = {k}, {peer}: {type(error).__name__}: {error}")
                continue
            row["pairs"] = row["our seconds"] / pair
            row["fit"] = whole_fit(X, k) / row["seconds"] if peer == "scikit-learn cd" else None
            yield {"table": f"{name} ({X.shape[0]:,} x {X.shape[1]})", "k": k, "peer": peer, **row}


def report(rows):
    """Return the text of the results."""
    lines = [
        "| peer | settings | least | a quarter below | median | a quarter above | most |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for peer in PEERS:
        ratios = [row["ratio"] for row in rows if row["peer"] == peer]
        if ratios:
            shown = " | ".join(f"{q:.3g}" for q in np.quantile(ratios, [0, 0.25, 0.5, 0.75, 1]))
            lines.append(f"| {peer} | {len(ratios)} | {shown} |")
    fits = [1 / row["fit"] for row in rows if row["fit"]]
    shown = " | ".join(f"{q:.3g}" for q in np.quantile(fits, [0, 0.25, 0.5, 0.75, 1]))
    lines += [f"| scikit-learn cd over a whole `NMFFeatures.fit` | {len(fits)} | {shown} |", ""]
    lines += [
        "| table | k | peer | its passes | ours | its ms | ours | in pairs of products | ratio | note |",
        "|---|--:|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    lines += [
        f"| {r['table']} | {r['k']} | {r['peer']} | {r['iterations']} | {r['passes']} | {1e3 * r['seconds']:.3g} | "
        f"{1e3 * r['our seconds']:.3g} | {r['pairs']:,.0f} | {r['ratio']:.3g} | {r['note']} |"
        for r in rows
    ]
    about = f"{platform.machine()}, one thread; `python benchmarks/real.py`. Ratio: its time over ours."
    return "\n".join(["# Real tables", "", about, "", *lines, ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="three tables, to try this script")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results-real.md"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of not having converged
    rows = []
    for name, X, ks in cases(arguments.quick):
        for k in ks:
            affordable(PEERS["scikit-learn cd"], X, k, 1, 1)  # warms it up
            rows += measured(name, X, k)
        if rows:
            arguments.output.write_text(report(rows))
    print(report(rows))


if __name__ == "__main__":
    main()
