"""Time to equal objective: how long we take to a fit as good as a peer's, on one data set and number of threads.

    python benchmarks/time_to_objective.py "digits" --threads 1

What makes it fair. The peer runs at its best settings to its own stop; its objective is the target. Ours gets
the loosest ``tol``, then the fewest passes with it, that end within 1e-4 of the target, found beforehand and not
timed. Then both are timed in turns in this one process, on the same number of threads, and medians are compared.
Every objective is ``nmf_features.objective`` at penalty 0 of the W and H returned, with the loss of the data set.
Where we end in a worse local minimum than the peer's, the target is our best objective, the peer gets the fewest
iterations that reach it, and the row says so. Both have run on the data before, so compiling and first calls do not
count.

Rows leave on standard output as lines of JSON; progress and what others print goes to standard error.
run.py calls this for every data set and number of threads and makes the table.
"""

import argparse
import math
import shutil
import subprocess
import sys
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from data import DATA, KL, Unavailable
from rows import Rows, say
from sklearn.decomposition import NMF, MiniBatchNMF

from nmf_features import factorize, objective

LADDER = [10 ** (-e / 4) for e in range(4, 33)]  # tol: 1e-1, 6e-2, 3e-2, 2e-2, 1e-2, ... 1e-8
MAX_PASSES = 5000
CLOSE = 1 + 1e-4  # an objective this close is equal


class Run(NamedTuple):
    """What a peer found, and how long the factorisation took."""

    seconds: float
    W: np.ndarray
    H: np.ndarray
    n_iter: int


class Peer:
    """Another library: what loss it is run with, and whether in a process of its own, which times a second call."""

    beta_loss, apart = "frobenius", False


class ScikitLearn(Peer):
    """NMF by coordinate descent, its fastest solver, from its best start."""

    def __init__(self, stop, tol, max_iter):
        self.stop, self.tol, self.max_iter = stop, tol, max_iter

    def why_not(self, X):
        """Nothing hinders it."""

    def run(self, X, k, threads, max_iter):
        return _sklearn(NMF(k, init="nndsvda", random_state=0, tol=self.tol, max_iter=max_iter), X)


class ScikitLearnMu(ScikitLearn):
    """NMF by multiplicative updates, its only solver for Kullback-Leibler."""

    beta_loss = KL

    def run(self, X, k, threads, max_iter):
        options = dict(init="nndsvda", random_state=0, tol=self.tol, max_iter=max_iter)
        return _sklearn(NMF(k, solver="mu", beta_loss=KL, **options), X)


class MiniBatch(Peer):
    """MiniBatchNMF at its defaults; its W is that of its closing pass over the data."""

    stop, max_iter = "default: tol 1e-4, 200 epochs", 200

    def why_not(self, X):
        """Nothing hinders it."""

    def run(self, X, k, threads, max_iter):
        return _sklearn(MiniBatchNMF(k, init="nndsvda", random_state=0, max_iter=max_iter), X)


def _sklearn(model, X):
    start = perf_counter()
    W = model.fit_transform(X)
    return Run(perf_counter() - start, W, model.components_, model.n_iter_)


class NmfRs(Peer):
    """nmf-rs, in Rust: HALS from NNDSVD, better here than its other methods; it has no relative stopping rule."""

    stop, max_iter = "200 iterations", 200

    def why_not(self, X):
        return _missing("nmf_rs", "nmf-rs") or ("takes no sparse input" if sp.issparse(X) else None)

    def run(self, X, k, threads, max_iter):
        import nmf_rs

        start = perf_counter()
        W, H = nmf_rs.nndsvd_init(X, k)
        result = nmf_rs.nmf(X, k, method="hals", W0=W, H0=H, max_iter=max_iter, num_threads=threads)
        return Run(perf_counter() - start, result.W, result.H, result.n_iter)


class Planc(Peer):
    """pyplanc, in C++: HALS from a seeded random start (it has no other). Its 0.0.2 declares numpy < 2.3 but runs."""

    stop, max_iter = "200 iterations", 200

    def why_not(self, X):
        return _missing("pyplanc", "pyplanc")

    def run(self, X, k, threads, max_iter):
        import pyplanc

        rng = np.random.default_rng(0)
        W, H = (np.asfortranarray(rng.uniform(size=(size, k))) for size in X.shape)
        X = sp.csc_matrix(X) if sp.issparse(X) else np.asfortranarray(X)  # as it wants it, outside its time
        start = perf_counter()
        result = pyplanc.nmf(X, k, max_iter, "hals", threads, Winit=W, Hinit=H)
        return Run(perf_counter() - start, result.W, result.H.T, max_iter)


class RcppML(Peer):
    """RcppML of R at its defaults, through Rscript; the time is that of the factorisation, its scaling included."""

    stop, max_iter = "default: tol 1e-4, 100 passes", 100
    apart, written = True, (None, None)

    def why_not(self, X):
        if shutil.which("Rscript") is None:
            return "Rscript is not installed"
        found = subprocess.run(["Rscript", "-e", "library(RcppML)"], capture_output=True)
        return "the R package RcppML is not installed" if found.returncode else None

    def run(self, X, k, threads, max_iter):
        if self.written[0] is not X:
            self.written = X, self._write(X)
        folder = self.written[1]
        script = Path(__file__).with_name("rcppml.R")
        command = ["Rscript", script, folder.name, k, threads, max_iter]
        printed = subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE, text=True).stdout
        seconds, n_iter = printed.split()
        w, d, h = (np.fromfile(Path(folder.name, name)) for name in "wdh")
        return Run(float(seconds), h.reshape(-1, k) * d, w.reshape(k, -1), int(n_iter))

    def _write(self, X):
        """Write a matrix to a folder."""
        folder = tempfile.TemporaryDirectory()
        parts = {"shape": [X.shape[1], X.shape[0], 0], "values": X}
        if sp.issparse(X):
            X = sp.csr_array(X)
            X.sort_indices()
            parts = {
                "shape": [X.shape[1], X.shape[0], X.nnz],
                "values": X.data,
                "indices": X.indices.astype(np.int32),
                "indptr": X.indptr.astype(np.int32),
            }
        np.savetxt(Path(folder.name, "shape"), parts.pop("shape"), fmt="%d")
        for name, part in parts.items():
            np.ascontiguousarray(part).tofile(Path(folder.name, name))
        return folder


def _missing(module, package):
    return None if find_spec(module) else f"not installed (pip install {package})"


PEERS = {
    "scikit-learn cd": ScikitLearn("default: tol 1e-4, 200 iterations", 1e-4, 200),
    "scikit-learn cd, converged": ScikitLearn("tol 1e-6, 5,000 iterations", 1e-6, 5000),
    "scikit-learn mu": ScikitLearnMu("tol 1e-5, 1,000 iterations", 1e-5, 1000),
    "MiniBatchNMF": MiniBatch(),
    "nmf-rs": NmfRs(),
    "pyplanc": Planc(),
    "RcppML": RcppML(),
}


def loss(X, W, H, beta_loss):
    """The objective at penalty 0; where X is sparse, summed over slices of rows, since the sum is over rows."""
    if not sp.issparse(X):
        return objective(X, W, H, penalty=0, beta_loss=beta_loss)
    slices = [slice(start, start + 2000) for start in range(0, X.shape[0], 2000)]
    return sum(objective(X[rows].toarray(), W[rows], H, penalty=0, beta_loss=beta_loss) for rows in slices)


class Stop(NamedTuple):
    """Where our fit ends: at the first of the two."""

    tol: float
    max_iter: int


class Ours:
    """factorize() on one problem, at a ladder of stops; what each reaches is kept for the next peer."""

    def __init__(self, X, k, threads, beta_loss):
        self.X, self.k, self.threads, self.beta_loss, self.reached = X, k, threads, beta_loss, {}

    def seconds(self, stop):
        return self._run(stop)[0]

    def objective(self, stop):
        return self._reach(stop)[0]

    def earliest(self, target):
        """The loosest tol that reaches the target, then the fewest passes with which it still does; None if none does.

        Steps of tol are coarse where the objective rests on a plateau; passes are not.
        """
        tol = next((tol for tol in LADDER if self.objective(Stop(tol, MAX_PASSES)) <= CLOSE * target), None)
        if tol is None:
            return None
        low, high = 0, MAX_PASSES  # on every sample and on all rows
        while high - low > max(1, high // 20):
            middle = min((low + high) // 2, max(2 * low, 8))
            if self.objective(Stop(tol, middle)) <= CLOSE * target:
                high = middle
            else:
                low = middle
        return Stop(tol, high)

    def _reach(self, stop):
        """Objective and passes made over all rows."""
        if stop not in self.reached:
            seconds, result = self._run(stop)
            self.reached[stop] = loss(self.X, result.W, result.H, self.beta_loss), result.n_iter
            value, passes = self.reached[stop]
            say(f"  ours, tol {stop.tol:.0e}: {value:.8g} in {seconds:.3g} s, {passes} passes")
        return self.reached[stop]

    def _run(self, stop):
        start = perf_counter()
        options = dict(penalty=0, beta_loss=self.beta_loss, n_jobs=self.threads)
        result = factorize(self.X, self.k, tol=stop.tol, max_iter=stop.max_iter, **options)
        return perf_counter() - start, result


def affordable(peer, X, k, threads, cap):
    """Iterations the peer may take within ``cap`` seconds, judged by short runs, which also warm it up."""
    peer.run(X, k, threads, 1)
    start, n = peer.run(X, k, threads, 1).seconds, 4
    while (run := peer.run(X, k, threads, n)).seconds < cap / 50:  # long enough to judge by
        if run.n_iter < n or n >= peer.max_iter:  # it has finished
            return peer.max_iter
        n = min(4 * n, peer.max_iter)
    return int(np.clip((cap - start) / max((run.seconds - start) / max(run.n_iter - 1, 1), 1e-6), 4, peer.max_iter))


def fewest(peer, X, k, threads, target, enough):
    """About the fewest iterations (5 %) with which the peer reaches the target, given some that are enough."""

    def reaches(n):
        run = peer.run(X, k, threads, n)
        return loss(X, run.W, run.H, peer.beta_loss) <= CLOSE * target

    low, high = 0, 1
    while high < enough and not reaches(high):
        low, high = high, 2 * high
    high = min(high, enough)
    while high - low > max(1, high // 20):
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def compare(X, k, name, ours, threads, cap, repeats):
    """One row of the table."""
    peer, notes = PEERS[name], []
    limit = affordable(peer, X, k, threads, cap)
    first = peer.run(X, k, threads, limit)
    if first.n_iter >= limit < peer.max_iter:
        notes.append(f"peer cut at {limit} of {peer.max_iter:,} iterations (--cap {cap:g} s)")
        say(f"  {name}: {notes[-1]}")
    theirs, n_iter = loss(X, first.W, first.H, peer.beta_loss), first.n_iter
    say(f"  {name}: {theirs:.8g} in {first.seconds:.3g} s, {n_iter} iterations")
    target, stop = theirs, ours.earliest(theirs)
    if stop is None:
        target = min(ours.objective(Stop(tol, MAX_PASSES)) for tol in LADDER)
        stop = ours.earliest(target)
        n_iter = limit = fewest(peer, X, k, threads, target, n_iter)
        first = peer.run(X, k, threads, limit)
        notes.append(f"our minimum is worse by {target / theirs - 1:.1e}: both timed to ours, peer {n_iter} iterations")
    repeats = repeats or (7 if first.seconds < 0.5 else 5 if first.seconds < 3 else 3 if first.seconds < 30 else 1)
    peer_seconds, our_seconds = [first.seconds], [ours.seconds(stop)]
    for _ in range(repeats - 1):
        peer_seconds.append(peer.run(X, k, threads, limit).seconds)
        if peer.apart:
            ours.seconds(stop)  # the first call after another process takes longer
        our_seconds.append(ours.seconds(stop))
    seconds, our = float(np.median(peer_seconds)), float(np.median(our_seconds))
    return {
        "stop": peer.stop,
        "iterations": n_iter,
        "objective": theirs,
        "our objective": ours.objective(stop),
        "tol": stop.tol,
        "passes": stop.max_iter,
        "seconds": seconds,
        "our seconds": our,
        "ratio": seconds / our,
        "repeats": repeats,
        "note": "; ".join(notes),
    }


def unsupported(X, k):
    """Why we cannot take such data, None if we can."""
    try:
        factorize(X[: 4 * k], k, penalty=0, max_iter=1)
    except (TypeError, ValueError) as error:
        return f"not supported by us: {str(error).splitlines()[0]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", choices=[name for name, data in DATA.items() if data.ks])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=0, help="timed runs of each; 0: more where they are short")
    parser.add_argument("--cap", type=float, default=600, help="seconds that one run of a peer may take")
    parser.add_argument("--shrink", type=int, default=1, help="divide the rows of generated data, to try this script")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of not having converged
    emit = Rows().emit

    try:
        X = DATA[args.data].make(args.shrink)
    except Unavailable as reason:
        emit({"data": args.data, "threads": args.threads, "skipped": str(reason)})
        sys.exit()
    shape = f"{X.shape[0]:,} x {X.shape[1]:,}" + (
        f", {X.nnz / math.prod(X.shape):.1%} stored" if sp.issparse(X) else ""
    )
    beta_loss = DATA[args.data].beta_loss
    for k in DATA[args.data].ks:
        case = {"data": args.data, "shape": shape, "k": k, "threads": args.threads}
        say(f"{args.data}, {shape}, k = {k}, {args.threads} threads")
        if reason := unsupported(X, k):
            emit({**case, "skipped": reason})
            continue
        ours = Ours(X, k, args.threads, beta_loss)
        ours.seconds(Stop(LADDER[0], MAX_PASSES))  # compiles
        for name in (name for name in args.peers if PEERS[name].beta_loss == beta_loss):
            if reason := PEERS[name].why_not(X):
                emit({**case, "peer": name, "skipped": reason})
                continue
            try:
                row = compare(X, k, name, ours, args.threads, args.cap, args.repeats)
            except Exception as error:  # a peer's failure is a result too
                row = {"skipped": f"failed: {type(error).__name__}: {str(error).splitlines()[:1]}"}
            emit({**case, "peer": name, **row})


if __name__ == "__main__":
    main()
