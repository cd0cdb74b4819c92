"""What do many starts cost? Time default fits beside fits from one start, ``init="nnsvd-lrc"``:

    python benchmarks/price.py [--output FILE]

On the tables of minima.py with 3, 6 and 9 components, penalty 0 and .001, least squares and Kullback-Leibler, and on
two large generated tables with least squares; one thread, one after the other in turns, the best of three. The two may
end in different minima: how good those are, minima.py says. Results go to results-price.md.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from data import low_rank
from minima import LOSSES, table, tables

from nmf_features import factorize

HERE = Path(__file__).parent
LARGE = {"200,000 x 50": (200_000, 50, 10), "1,000,000 x 100": (1_000_000, 100, 10)}


def price(X, k, turns=3, **fit):
    """Time of a default fit, as a multiple of that of one start."""
    times = {"auto": [], "nnsvd-lrc": []}
    for _ in range(turns):
        for init, taken in times.items():
            start = time.perf_counter()
            factorize(X, k, init=init, n_jobs=1, **fit)
            taken.append(time.perf_counter() - start)
    return min(times["auto"]) / min(times["nnsvd-lrc"])


def row(name, prices):
    """Cells of a row of the report."""
    least, lower, median, upper, most = np.quantile(prices, [0, 0.25, 0.5, 0.75, 1])
    return f"| {name} | {len(prices)} | {least:.1f} | {lower:.1f} | **{median:.1f}** | {upper:.1f} | {most:.1f} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", default=HERE / "results-price.md", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # components that stay zero
    for loss in LOSSES:  # compile
        factorize(np.random.default_rng(0).uniform(size=(60, 6)), 3, beta_loss=loss)
    found = {}
    for name in tables():
        X = table(name)
        for k in (3, 6, 9):
            for loss in LOSSES if k < X.shape[1] else ():
                found[name, k, loss] = [price(X, k, penalty=penalty, beta_loss=loss) for penalty in (0, 0.001)]
    lines = ["# What many starts cost", "", __doc__.split("\n\n", 2)[2].strip(), ""]
    lines += ["| times as long as one start | settings | least | quartile | median | quartile | most |"]
    lines += ["|---|---:|---:|---:|---:|---:|---:|"]
    for loss in [*LOSSES, None]:
        for k in (3, 6, 9, None):
            prices = [p for (_, a, b), both in found.items() if loss in (b, None) and k in (a, None) for p in both]
            lines.append(row(f"{loss or 'both'}, {f'{k} components' if k else 'all'}", prices))
    for name, shape in LARGE.items():
        X = low_rank(*shape)()
        lines.append(row(f"{name}, 5, 7 and 10 components", [price(X, k) for k in (5, 7, 10)]))
    arguments.output.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
