"""Tables that differ in where rows and scores are: in memory, on disk, or with Dask. The loop needs nothing else."""

import itertools
import os
import resource
import weakref

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits

from nmf_features.core import schedule, spilled
from nmf_features.core.losses import loss_of
from nmf_features.core.missing import Missing, observed_shares
from nmf_features.core.penalties import Strengths
from nmf_features.core.samples import as_sample, draw, merge_drawn, taken
from nmf_features.core.schedule import Search
from nmf_features.core.solvers import is_default, solver_maker
from nmf_features.core.spill import Spill
from nmf_features.core.spilled import SpilledTable
from nmf_features.core.tables import MemoryTable
from nmf_features.core.watch import Watch

ROWS = 256  # of a block, as of the strips of a kernel: which rows share their sweeps must not differ here


def in_memory(X, weights, missing):
    return MemoryTable(X, weights, missing, k=5, per_row=64)


def known_of(X, weights, missing):
    """Return rows in memory for starts, and what is known of missing cells."""
    if missing is None:
        return in_memory(X[::3], None, None), None, None
    return in_memory(X[::3], None, missing), observed_shares(X, missing, weights)[1], np.nanmean(X, axis=0)


def on_disk(X, weights, missing):
    rows, of_rows = Spill(X.shape[1], X.dtype), None
    rows.put(0, X)
    if weights is not None:
        of_rows = Spill(1, np.float64)
        of_rows.put(0, weights[:, None])
    drawn, *known = known_of(X, weights, missing)
    table = SpilledTable(rows, len(X), drawn, of_rows, missing, *known)
    table.rows = [slice(start, min(start + ROWS, len(X))) for start in range(0, len(X), ROWS)]
    table.n_blocks = len(table.rows)
    return table


def with_dask(X, weights, missing):
    dask = pytest.importorskip("dask", reason="the extra dask is not installed")
    from nmf_features.dask_tables import DaskTable

    dask.config.set(scheduler="sync")
    ends = [0, ROWS, 4 * ROWS, len(X)]
    parts = [(X[a:b], None if weights is None else weights[a:b]) for a, b in itertools.pairwise(ends)]
    drawn, *known = known_of(X, weights, missing)
    return DaskTable([dask.delayed(part) for part in parts], len(X), X.dtype, drawn, missing, *known)


TABLES = {"on disk": on_disk, "with Dask": with_dask}


def search(loss, solver="auto", missing=None, penalty=1e-3, **settings):
    loss, unit = loss_of(loss), Strengths(64.0, 1797.0, 0.0, 0.0)
    settings = {"init": "auto", "races": is_default(solver, loss, missing), "tol": 1e-5, "watch": Watch(), **settings}
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


@pytest.mark.parametrize("where", TABLES)
@pytest.mark.parametrize(("loss", "solver", "options"), CASES)
def test_a_table_elsewhere_is_fitted_as_one_in_memory(loss, solver, options, where):
    """From one start, without samples, in one precision: the same scores and loadings."""
    rng, missing = np.random.default_rng(1), Missing(64) if "missing" in options else None
    X, weights = digits("missing" in options), rng.integers(1, 4, 1797) * 1.0 if "weighted" in options else None
    found = search(loss, solver, missing, init=rng.uniform(size=(5, 64)), races=False, samples=False, single=False)
    memory, other = (found.run(make(X, weights, missing)) for make in (in_memory, TABLES[where]))
    assert memory.n_iter == other.n_iter
    assert_allclose(other.objective, memory.objective, rtol=1e-10)
    assert_allclose(other.H, memory.H, rtol=0, atol=1e-8 * memory.H.max())
    W = memory.table.exact / memory.table.sums
    assert_allclose(scores(other.table), W, rtol=0, atol=1e-8 * W.max())


@pytest.mark.parametrize("where", ["in memory", *TABLES])
def test_exact_scores_leave_those_of_the_pass_before(where):
    """From both the next pass imputes missing cells."""
    missing = Missing(64)
    table = {"in memory": in_memory, **TABLES}[where](digits(missing=True), None, missing).fresh()
    table.start(np.dtype(np.float64), remembers=True)
    table.visit(_set_both, 3.0, 2.0)
    table.score_exactly(np.ones((5, 64)), Strengths(0.0, 0.0, 0.0, 0.0), loss_of("frobenius"))
    table.resume()
    assert set(table.map(_kinds)) == {(True, 2.0)}


def _set_both(block, Wt, now, before):
    Wt[:], block.before[:] = now, before


def _kinds(block, Wt):
    return bool((Wt != 3).all()), float(block.before.mean())


def scores(table):
    return np.concatenate(list(table.map(_copied)), axis=1).T


def _copied(block, Wt):
    return Wt.copy()


def test_fresh_tables_have_imputed_cells_of_their_own():
    X = np.random.default_rng(0).uniform(size=(300, 6))
    X[::5, ::2] = np.nan
    table = in_memory(X, None, Missing(6))
    first, second = table.fresh(), table.fresh()
    first.start(X.dtype, False)
    for block in first.blocks:
        block.fill_with(np.full(6, 9.0))
    assert_array_equal(first.filled, np.where(np.isnan(X), 9, X))
    for other in (table, second):
        assert_array_equal(other.filled, np.where(np.isnan(X), np.nanmean(X, axis=0), X))


@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler"])
def test_a_table_on_disk_is_fitted_in_little_memory(loss, monkeypatch):
    """With samples, races and single precision: as low an objective, and never two blocks in memory at once."""
    monkeypatch.setattr(schedule, "LONG_CELLS", 1000)
    monkeypatch.setattr(schedule, "SAMPLE_ROWS", 100)
    alive, most, make = weakref.WeakSet(), [0], spilled.block_read

    def counted(*arguments):
        block = make(*arguments)
        alive.add(block)
        most[0] = max(most[0], len(alive))
        return block

    monkeypatch.setattr(spilled, "block_read", counted)
    memory, disk = (search(loss).run(make(digits(), None, None)) for make in (in_memory, on_disk))
    assert_allclose(disk.objective, memory.objective, rtol=1e-3)
    assert most == [1]


def test_a_spill_holds_what_was_written():
    rng, spill, rows = np.random.default_rng(0), Spill(3, np.float32), np.zeros((50, 3), np.float32)
    for start, stop in [(10, 30), (0, 5), (25, 26)]:
        rows[start:stop] = rng.uniform(size=(stop - start, 3))
        spill.put(start, rows[start:stop])
    assert_array_equal(spill.rows(slice(0, 50)), rows)
    assert_array_equal(spill.rows(slice(7, 27)), rows[7:27])


def test_a_full_disk_is_a_clear_error():
    """It says where there is no room and what to do; a limit on the size of files stands for the disk."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        try:
            Spill(1, np.float64).put(0, np.zeros((1 << 14, 1)))
        except OSError as error:
            os._exit(0 if "no room" in str(error) and "TMPDIR" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_rows_drawn_in_pieces():
    """The same rows however the table is cut, and sums over them estimate those over all rows without bias."""
    rng = np.random.default_rng(0)
    X, v = rng.gamma(0.2, size=(5000, 4)), rng.integers(1, 4, 5000) * 1.0
    X[7] *= 1000  # one row holds nearly all squares
    ratios = []
    for turn in range(40):
        first = 10_000 * turn
        cut = [(X[a : a + 777], v[a : a + 777], first + a) for a in range(0, 5000, 777)]
        pieces = [taken(draw(*piece, 200, 2.0), piece[0]) for piece in cut]
        rows, weights = as_sample(merge_drawn([merge_drawn(pieces[:3], 200), *pieces[3:]], 200))
        assert_array_equal(rows, X[draw(X, v, first, 200, 2.0).rows])
        assert len(rows) <= 400
        assert (rows == X[7]).all(axis=1).any()
        ratios.append([weights.sum() / v.sum(), weights @ rows.sum(axis=1) / (v @ X.sum(axis=1))])
        ratios[-1].append(weights @ np.square(rows).sum(axis=1) / (v @ np.square(X).sum(axis=1)))
    errors = np.std(ratios, axis=0) / np.sqrt(len(ratios))
    assert (np.abs(np.mean(ratios, axis=0) - 1) < 4 * errors + 1e-12).all()
    everything = draw(X, v, 0, 5000, 2.0)
    assert_array_equal(as_sample(everything)[1], v)
