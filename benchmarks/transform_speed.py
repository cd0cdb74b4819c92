"""What else a user waits for: scores of new rows, fits that grow, memory, import, compiling, serving.

    python benchmarks/transform_speed.py transform --threads 1

One check per process, on pinned threads; medians of runs in turns where two things are compared. scikit-learn's
transform gets our loadings, so that both solve the same problem; ours is exact, and the KKT residuals are shown.
Times of new processes are taken inside them, so starting Python does not count.

Rows leave on standard output as lines of JSON (rows.py).
"""

import argparse
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
from data import DATA, Unavailable
from rows import Rows, say
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import NMF

import nmf_features
from nmf_features import NMFFeatures, factorize

PLAIN = {"shift": None, "scale": None, "penalty": 0}  # the data as they are, so that scikit-learn can do the same
BLOCK_BYTES = 1 << 20


def seconds(*functions, repeats=3):
    """Median seconds of each function, called in turns."""
    taken = np.empty((repeats, len(functions)))
    for row in taken:
        for i, function in enumerate(functions):
            start = perf_counter()
            function()
            row[i] = perf_counter() - start
    return np.median(taken, axis=0).tolist()


def row(what, value, unit, limit=None, note=""):
    """One row; ``limit`` is ("at most" or "at least", number)."""
    value, met = float(value), None
    if limit:
        met = value <= limit[1] if limit[0] == "at most" else value >= limit[1]
    return {"what": what, "value": value, "unit": unit, "limit": limit, "met": met, "note": note}


def size(X):
    return f"{X.shape[0]:,} x {X.shape[1]}, k = 10"


def kkt_residual(X, W, H):
    """Largest over the rows of max_t |min(w_t, gradient_t / curvature_t)|, 0 at the exact solution.

    Relative to the largest score that a component would get alone, max_t x'h_t / |h_t|^2, so free of units.
    """
    gram, worst = H @ H.T, 0.0
    curvature = gram.diagonal()
    for start in range(0, len(X), 50_000):
        w, product = W[start : start + 50_000], X[start : start + 50_000] @ H.T
        residual = np.abs(np.minimum(w, (w @ gram - product) / curvature)).max(axis=1)
        unit = (product / curvature).max(axis=1)
        worst = max(worst, float((residual[unit > 0] / unit[unit > 0]).max()))
    return worst


def transform(threads, shrink):
    """Scores of 1,000,000 rows against scikit-learn's, and how exact they are."""
    X = DATA["very tall"].make(shrink)
    X = X[: len(X) // 2]
    train = X[:20_000]
    ours = NMFFeatures(10, **PLAIN, n_jobs=threads).fit(train)
    peer = NMF(10, init="nndsvda", random_state=0).fit(train)
    H = peer.components_ = ours.components_
    ours.transform(train), peer.transform(train)
    our, their = seconds(lambda: ours.transform(X), lambda: peer.transform(X))
    residual, peer_residual = (kkt_residual(X, model.transform(X), H) for model in (ours, peer))
    times = f"scikit-learn {their:.3g} s, ours {our:.3g} s"
    yield row(f"transform of {size(X)}: scikit-learn's time / ours", their / our, "x", ("at least", 10), times)
    yield row(
        f"transform of {size(X)}: largest KKT residual", residual, "", ("at most", 1e-8), f"theirs {peer_residual:.1e}"
    )


def fit_and_transform(threads, shrink):
    """A fit of tall data in units of one exact transform of it."""
    for name in ("tall", "large"):
        X = DATA[name].make(shrink)
        for words, settings in (("as is", PLAIN), ("default settings", {})):
            model = NMFFeatures(10, **settings, n_jobs=threads).fit(X)
            fit, scores = seconds(lambda m=model, X=X: m.fit(X), lambda m=model, X=X: m.transform(X))
            times = f"fit {fit:.3g} s, transform {scores:.3g} s, {model.n_iter_} passes"
            yield row(f"fit / transform, {size(X)}, {words}", fit / scores, "x", ("at most", 8), times)


def linearity(threads, shrink):
    """Time per row at 2,000,000 rows against 200,000 of them."""
    X = DATA["very tall"].make(shrink)
    part = X[: len(X) // 10]
    fit = [lambda X=X: factorize(X, 10, penalty=0, n_jobs=threads) for X in (part, X)]
    fit[0]()
    few, many = (s / len(X) for s, X in zip(seconds(*fit), (part, X), strict=True))
    note = f"{many * 1e6:.3g} us and {few * 1e6:.3g} us a row"
    yield row(f"time per row of a fit, {len(X):,} / {len(part):,} rows", many / few, "x", ("at most", 1.3), note)


def holes(threads, shrink):
    """A default fit to a table with a fifth of its cells missing, against one to the whole table.

    Also on the real tables of real.py, with as many components as there.
    """
    from real import cases  # it sets the number of threads, of all that is loaded after it

    for name, k in (("breast cancer", 5), ("ames", 5), ("ames", 10), ("digits", 16), ("many columns", 5), ("tall", 10)):
        try:
            X = DATA[name].make(shrink)
        except Unavailable:
            continue
        whole, holed = _whole_and_holed(X, k, threads)
        note = f"{holed:.3g} s and {whole:.3g} s"
        yield row(f"20 % missing / complete, {name}, k = {k}", holed / whole, "x", ("at most", 2), note)
    ratios = []
    for _, X, ks in cases(quick=shrink > 1):
        ratios += [holed / whole for whole, holed in (_whole_and_holed(X, k, threads) for k in ks)]
    for share, name, goal in ((0.5, "median", 2), (0.9, "nine tenths below", 3), (1, "most", 3)):
        what = f"20 % missing / complete, {len(ratios)} settings of real tables, {name}"
        yield row(what, float(np.quantile(ratios, share)), "x", ("at most", goal))


def _whole_and_holed(X, k, threads):
    """Return the seconds of fits to a table, and to that table with a fifth of its cells missing."""
    part = np.where(np.random.default_rng(1).uniform(size=X.shape) < 0.2, np.nan, X)
    return seconds(
        lambda: factorize(X, k, n_jobs=threads),
        lambda: factorize(part, k, n_jobs=threads, missing_values="ignore"),
    )


def blas(threads, shrink):
    """The products with X alone, in blocks of 1 MiB, and reading X alone, against our times."""
    X = DATA["tall"].make(shrink)
    model = NMFFeatures(10, **PLAIN, n_jobs=threads).fit(X)
    Ht, W = np.ascontiguousarray(model.components_.T), model.transform(X)
    step = BLOCK_BYTES // (8 * X.shape[1])
    blocks = [slice(start, start + step) for start in range(0, len(X), step)]
    scores, products, read, fit = seconds(
        lambda: model.transform(X),
        lambda: [X[b] @ Ht for b in blocks],
        lambda: [X[b].sum() for b in blocks],
        lambda: model.fit(X),
        repeats=5,
    )
    (both,) = seconds(lambda: [(X[b] @ Ht, W[b].T @ X[b]) for b in blocks], repeats=5)
    note = "the product X H' alone, over the time of transform"
    yield row(f"share of BLAS in a transform, {size(X)}", products / scores, "", note=note)
    note = f"{X.nbytes / read / 1e9:.3g} GB/s where X is only summed (one thread)"
    yield row(f"bandwidth of a transform, {size(X)}", X.nbytes / scores / 1e9, "GB/s", note=note)
    note = f"fit {fit:.3g} s, one pass of the products X H' and W' X alone {both:.3g} s; {model.n_iter_} passes made"
    yield row(f"fit / products of one pass, {size(X)}", fit / both, "x", note=note)


def memory(threads, shrink):
    """Peak memory of a fit from a frame, against the table and one copy of it."""
    make = DATA["very tall"].make
    NMFFeatures(10, n_jobs=threads).fit(pd.DataFrame(make(100 * shrink)))  # imports and compiles
    X = make(2 * shrink)  # 1,000,000 rows, made without taking more memory than they do
    table = pd.DataFrame(X, columns=[f"c{j}" for j in range(X.shape[1])], copy=False)
    # ru_maxrss is the most so far, in KiB on Linux
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    NMFFeatures(10, n_jobs=threads).fit(table)
    KiB = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    note = f"table {X.nbytes / 2**20:.0f} MiB, fit {KiB / 2**10:.0f} MiB more"
    share = (X.nbytes + KiB * 2**10) / (2 * X.nbytes)
    yield row(f"peak memory of a fit, {size(X)} / (table + copy)", share, "x", ("at most", 1.15), note)


def in_new_process(code, *arguments, env=(), cwd=None):
    """Run code in a new Python; return what its last line prints, read as JSON."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **dict(env)}, cwd=cwd)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


IMPORT = """
from time import perf_counter
start = perf_counter()
import {}
print(perf_counter() - start)
"""


def importing(threads, shrink):
    """Import of the package against that of pandas and scikit-learn's decomposition, which it needs."""
    names = "nmf_features", "pandas, sklearn.decomposition"
    taken = [[in_new_process(IMPORT.format(name)) for name in names] for _ in range(8)][1:]  # the first reads the disk
    ours, theirs = np.median(taken, axis=0)
    note = f"{ours:.3g} s and {theirs:.3g} s"
    yield row("import nmf_features / pandas and sklearn.decomposition", ours / theirs, "x", ("at most", 1.25), note)


FIRST_FIT = """
from time import perf_counter
from sklearn.datasets import load_breast_cancer
from nmf_features import NMFFeatures
X = load_breast_cancer(as_frame=True).data
start = perf_counter()
NMFFeatures(5).fit(X)
print(perf_counter() - start)
"""

TWO_FITS = """
from time import perf_counter
import numpy as np
from nmf_features import NMFFeatures
X = np.random.default_rng(0).uniform(size=(20_000, 50))
times = [perf_counter()]
for _ in range(2):
    NMFFeatures(10).fit(X).transform(X)
    times.append(perf_counter())
print(np.diff(times).tolist())
"""


def compiling(threads, shrink):
    """The first fit of a process with kernels in their cache, and what compiling them takes."""
    with tempfile.TemporaryDirectory() as folder:
        env = {"NUMBA_CACHE_DIR": folder}
        cold, second = in_new_process(TWO_FITS, env=env)
        yield row("compiling, once per installation", cold - second, "s", note="first fit less the second, 20,000 x 50")
        first = [in_new_process(FIRST_FIT, env=env) for _ in range(6)][1:]
    yield row("first fit of a new process, kernels cached, breast cancer", float(np.median(first)), "s", ("at most", 1))


SERVE = """
import pickle, sys
from time import perf_counter
import numpy as np, pandas as pd
import nmf_features
assert nmf_features.__file__.startswith(sys.argv[1]), nmf_features.__file__
start = perf_counter()
model, one_row, expected = pickle.load(open(sys.argv[2], "rb"))
result = model.transform(one_row)
seconds = perf_counter() - start
np.testing.assert_allclose(result, expected, rtol=1e-8)
print(seconds)
"""


def serving(threads, shrink):
    """A saved model and one row, in a new process without a kernel cache, from a copy that cannot be written to.

    Permissions do not stop root, so every place for a cache is one that cannot become a folder.
    """
    X = load_breast_cancer(as_frame=True).data
    model = NMFFeatures(5).fit(X)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "nmf_features")
        shutil.copytree(Path(nmf_features.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
        (copy / "__pycache__").write_text("a file, so that no cache can be kept here\n")
        nowhere = str(copy / "__pycache__" / "none")
        saved = Path(folder, "model.pickle")
        saved.write_bytes(pickle.dumps((model, X[:1], model.transform(X[:1]))))
        env = {"PYTHONPATH": folder, "NUMBA_CACHE_DIR": nowhere, "HOME": nowhere, "XDG_CACHE_HOME": nowhere}
        taken = [in_new_process(SERVE, folder, saved, env=env, cwd=folder) for _ in range(5)]
    note = "after the imports; no kernel cache, read-only"
    yield row("load a saved model and transform one row", float(np.median(taken)), "s", ("at most", 0.5), note)


PER_THREADS = {
    "transform": transform,
    "fit and transform": fit_and_transform,
    "linearity": linearity,
    "holes": holes,
    "blas": blas,
    "memory": memory,
}
ONCE = {"importing": importing, "compiling": compiling, "serving": serving}
CHECKS = PER_THREADS | ONCE


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("check", choices=CHECKS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shrink", type=int, default=1, help="divide the rows of generated data, to try this script")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of not having converged
    say(f"{args.check}, {args.threads} threads")
    rows = Rows()
    for found in CHECKS[args.check](args.threads, args.shrink):
        rows.emit(found)


if __name__ == "__main__":
    main()
