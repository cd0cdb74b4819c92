"""Tables: the loop needs nothing else from the data, as shown by one that keeps blocks and scores on disk."""

import weakref

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.datasets import load_digits

from nmf_features.core import schedule
from nmf_features.core.blocks import block_of
from nmf_features.core.losses import loss_of
from nmf_features.core.missing import Missing, observed_shares
from nmf_features.core.penalties import Strengths
from nmf_features.core.projection import scores_of_used
from nmf_features.core.schedule import Search
from nmf_features.core.solvers import is_default, solver_maker
from nmf_features.core.tables import MemoryTable, Table

ROWS = 256  # of a block, as of the strips of a kernel: which rows share their sweeps must not differ here


class DiskTable(Table):
    """Rows in .npy files, a block in each, and scores in others beside them: one block at a time is in memory."""

    is_sparse = False
    most_alive = 0

    def __init__(self, folder, X, weights=None, missing=None, k=1, rows=ROWS):
        self.folder, self.weights, self.missing, self.k = folder, weights, missing, k
        self.shape, self.dtype, self.precision, self.n_cells = X.shape, X.dtype, X.dtype, X.size
        self.rows = [slice(start, min(start + rows, len(X))) for start in range(0, len(X), rows)]
        self.n_blocks, self.by_row, self.observed, self.means = len(self.rows), None, None, None
        if missing is not None:
            self.by_row, self.observed = observed_shares(X, missing, weights)
            self.means = np.nanmean(X, axis=0)
        for i, r in enumerate(self.rows):
            np.save(folder / f"rows{i}.npy", X[r])
        self.alive, self.runs, self.kind, self.remembers = weakref.WeakSet(), 0, None, False

    def fresh(self):
        other = object.__new__(DiskTable)
        other.__dict__ = {**vars(self), "kind": None, "precision": self.dtype}
        self.runs += 1
        other.folder_of_scores = self.folder / f"scores{self.runs}"
        other.folder_of_scores.mkdir()
        return other

    def file(self, kind, i):
        return self.folder_of_scores / f"{kind}{i}.npy"

    def start(self, dtype, remembers):
        self.kind, self.remembers, self.precision = "now", remembers, dtype
        for i, r in enumerate(self.rows):
            for kind in ("now", "before"):
                np.save(self.file(kind, i), np.zeros((self.k, r.stop - r.start), dtype))

    def round_to(self, dtype):
        self.precision = dtype

    def map(self, function, *arguments):
        for i in range(self.n_blocks):
            yield self.of_block(i, function, *arguments)

    def of_block(self, i, function, *arguments):
        rows = self.rows[i]
        v, shares = (None if q is None else q[rows] for q in (self.weights, self.by_row))
        X = np.load(self.folder / f"rows{i}.npy")
        holes = None if self.missing is None else np.isnan(X)
        block = block_of(X, v, holes, shares)
        block.rows = rows
        self.alive.add(block)
        DiskTable.most_alive = max(DiskTable.most_alive, len(self.alive))
        Wt = None if self.kind is None else np.load(self.file(self.kind, i)).astype(self.precision)
        block.before = np.load(self.file("before", i)).astype(self.precision) if self.remembers else None
        block.fill_with(self.means)
        result = function(block.rounded(self.precision), Wt, *arguments)
        if Wt is not None:
            np.save(self.file(self.kind, i), Wt)
        if block.before is not None:
            np.save(self.file("before", i), block.before)
        return result

    def score_exactly(self, H, strengths, loss):
        self.sums = H.sum(axis=1)
        used = np.zeros(self.k, dtype=bool)
        for i in range(self.n_blocks):
            X = np.load(self.folder / f"rows{i}.npy")
            U, self.sums, _ = scores_of_used(X, H, strengths, 1, self.missing, loss)
            used |= U.any(axis=0)
            np.save(self.file("exact", i), np.ascontiguousarray((U / self.sums).T))
        assert (used | ~H.any(axis=1)).all(), "a component that no row has a score of"
        self.kind = "exact"
        return H

    def resume(self):
        for i in range(self.n_blocks):
            np.save(self.file("now", i), np.load(self.file("exact", i)))
        self.kind = "now"

    def keep(self):
        for i in range(self.n_blocks):
            np.save(self.file("kept", i), np.load(self.file("now", i)))

    def take_back(self):
        for i in range(self.n_blocks):
            np.save(self.file("now", i), np.load(self.file("kept", i)))

    def take(self, positions):
        return np.array([np.load(self.folder / f"rows{i // ROWS}.npy", mmap_mode="r")[i % ROWS] for i in positions])

    def sample(self, positions, weights):
        return MemoryTable(self.take(positions), weights, self.missing, self.k)

    def in_memory(self):
        X = self.take(range(self.shape[0]))
        return X if self.missing is None else np.where(np.isnan(X), self.means, X), self.weights

    def scores(self):
        return np.concatenate([np.load(self.file("exact", i)) for i in range(self.n_blocks)], axis=1).T


def search(loss, solver="auto", missing=None, penalty=1e-3, **settings):
    loss, unit = loss_of(loss), Strengths(64.0, 1797.0, 0.0, 0.0)
    settings = {"init": "auto", "races": is_default(solver, loss, missing), "tol": 1e-5, **settings}
    strengths = Strengths(*(penalty * q for q in unit))
    rng, make = np.random.RandomState(0), solver_maker(solver, loss, missing)
    return Search(loss, strengths, unit, make, n_init=1, rng=rng, max_iter=60 if solver == "mu" else 300, **settings)


def digits(missing=False, positive=False):
    X = load_digits().data + positive
    return np.where(np.random.default_rng(0).uniform(size=X.shape) < 0.1, np.nan, X) if missing else X


CASES = [
    ("frobenius", "hals", {}),
    ("frobenius", "hals", {"missing": True}),
    ("frobenius", "hals", {"weighted": True}),
    ("frobenius", "als", {}),
    ("frobenius", "mu", {}),
    ("kullback-leibler", "newton", {}),
    ("kullback-leibler", "newton", {"missing": True}),
    (1.5, "newton", {"weighted": True}),
    ("kullback-leibler", "mu", {}),
]


@pytest.mark.parametrize(("loss", "solver", "options"), CASES)
def test_a_table_on_disk_is_fitted_as_one_in_memory(tmp_path, loss, solver, options):
    """From one start, without samples, in one precision: the same scores and loadings."""
    rng, missing = np.random.default_rng(1), Missing(64) if "missing" in options else None
    X, weights = digits("missing" in options), rng.integers(1, 4, 1797) * 1.0 if "weighted" in options else None
    found = search(loss, solver, missing, init=rng.uniform(size=(5, 64)), races=False, samples=False, single=False)
    memory, disk = (found.run(table) for table in tables(tmp_path, X, weights, missing))
    assert memory.n_iter == disk.n_iter
    assert memory.table.n_blocks != disk.table.n_blocks
    assert_allclose(disk.objective, memory.objective, rtol=1e-10)
    assert_allclose(disk.H, memory.H, rtol=0, atol=1e-8 * memory.H.max())
    W = memory.table.exact / memory.table.sums
    assert_allclose(disk.table.scores(), W, rtol=0, atol=1e-8 * W.max())


@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler"])
def test_a_table_on_disk_is_fitted_in_little_memory(tmp_path, loss, monkeypatch):
    """With samples, races and single precision: as low an objective, and never two blocks in memory at once."""
    monkeypatch.setattr(schedule, "LONG_CELLS", 1000)
    monkeypatch.setattr(schedule, "SAMPLE_ROWS", 100)
    monkeypatch.setattr(DiskTable, "most_alive", 0)
    memory, disk = (search(loss).run(table) for table in tables(tmp_path, digits()))
    assert_allclose(disk.objective, memory.objective, rtol=1e-3)
    assert disk.table.most_alive == 1
    assert len(list(disk.table.folder_of_scores.glob("exact*.npy"))) == disk.table.n_blocks


def tables(folder, X, weights=None, missing=None):
    return MemoryTable(X, weights, missing, k=5, per_row=64), DiskTable(folder, X, weights, missing, k=5)
