"""Rows that are not in memory: what shift and scale learn of them, what is refused, and what must not matter."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from nmf_features import NMFFeatures, memory
from nmf_features.column_facts import Matrix
from nmf_features.core.loss import Loss
from nmf_features.core.spill import Spill
from nmf_features.core.spilled import SpilledTable
from nmf_features.core.tables import MemoryTable
from nmf_features.disk import PiecesOnDisk

pytest.importorskip("pyarrow", reason="pyarrow is not installed")
SMALL = 1 << 16  # bytes: less than the tables here


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.gamma(0.5, size=(6000, 3)) @ rng.gamma(0.3, size=(3, 8)) + 0.1 * rng.uniform(size=(6000, 8))
    frame = pd.DataFrame(X, columns=list("abcdefgh"))
    frame.to_parquet(tmp_path / "table.parquet")
    return frame, tmp_path / "table.parquet"


@pytest.mark.parametrize("weights", [None, 0.1, 1 / 3, "random"])
def test_quantiles_are_those_of_a_matrix(weights):
    """Also where rounded sums of weights decide whether a share is reached, and with ties, signs and missing cells."""
    rng = np.random.default_rng(0)
    for n in [1, 2, 7, 100, 5100]:
        X = rng.normal(size=(n, 4)).round(1)
        X[rng.uniform(size=X.shape) < 0.1] = np.nan
        X[-n // 100 :, 1] = 1000
        X[:, 3] = np.nan
        v = rng.uniform(0.1, 2, n) if weights == "random" else None if weights is None else np.full(n, weights)
        pieces = PiecesOnDisk(4, np.float64, v is not None, 1)
        pieces.append(X, v)
        for sign in (1, -1):
            found = pieces.quantiles([0.01, 0.5, 0.99], sign)
            assert_array_equal(found, Matrix(X, v).quantiles([0.01, 0.5, 0.99], sign))
            assert np.isin(found[:, :3], sign * X[:, :3]).all() or n < 3


@pytest.mark.parametrize("share", [0.01, 0.07, 0.99])
def test_the_size_of_weights_does_not_matter(share):
    X = np.random.default_rng(0).normal(size=(5100, 1))
    assert_array_equal(Matrix(X, np.full(5100, 0.1)).quantiles([share]), Matrix(X).quantiles([share]))


def test_a_batch_without_rows_that_count(table, tmp_path):
    frame, _ = table
    weights = np.ones(len(frame))
    weights[:3000] = 0  # whole batches
    frame.assign(w=weights).to_parquet(tmp_path / "weighted.parquet", row_group_size=500)
    holes = frame.copy()
    holes.iloc[:3000] = np.nan
    holes.to_parquet(tmp_path / "holes.parquet", row_group_size=500)
    start = np.random.default_rng(1).uniform(size=(3, 8))
    wanted = NMFFeatures(3, init=start, tol=1e-8).fit(frame.iloc[3000:])
    found = NMFFeatures(3, init=start, tol=1e-8, memory_budget=SMALL)
    assert_allclose(
        found.fit(tmp_path / "weighted.parquet", sample_weight="w").objective_, wanted.objective_, rtol=1e-6
    )
    found.set_params(missing_values="ignore").fit(tmp_path / "holes.parquet")
    assert_allclose(found.objective_, wanted.objective_, rtol=1e-6)


@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler"])
def test_a_table_whose_rows_are_all_drawn_is_fitted_as_in_memory(table, loss):
    """The same minimum in as many passes: no precision is saved, and starts are judged as long."""
    frame, path = table[0].iloc[:4000], table[1]
    frame.to_parquet(path)
    wanted = NMFFeatures(3, loss=loss).fit(frame)
    found = NMFFeatures(3, loss=loss, memory_budget=SMALL).fit(path)
    assert found.n_iter_ == wanted.n_iter_
    assert_allclose(found.components_, wanted.components_, rtol=0, atol=1e-7)


@pytest.mark.parametrize("read", ["map", "keep", "round_to", "map_columns"])
@pytest.mark.parametrize("where", ["memory", "disk"])
def test_rescaled_scores_are_read_rescaled(table, where, read):
    """Whichever way they are read next."""
    X = table[0].to_numpy()
    if where == "disk":
        if read == "map_columns":
            pytest.skip("only of sparse tables, which are in memory")
        rows = Spill(8, np.float64)
        rows.put(0, X)
        scored = SpilledTable(rows, len(X), MemoryTable(X[:100], k=2)).fresh()
    else:
        scored = MemoryTable(sparse.csr_array(X) if read == "map_columns" else X, k=2)
    scored.start(np.dtype(np.float64), remembers=True)
    scored.visit(_set_to_ones)
    scored.rescale(np.array([2.0, 3.0]))
    scored.rescale(np.array([1.0, 2.0]))
    if read == "keep":
        scored.keep()
        scored.take_back()
    elif read == "round_to":
        scored.round_to(np.dtype(np.float32))
    elif read == "map_columns":
        of_columns = scored.map_columns(lambda block, part, W, *others: W.mean(axis=1).tolist(), np.ones((2, 8)))
        assert all(means == [2.0, 6.0] for means in of_columns)
    for _ in range(2):
        assert set(scored.map(_means_of_scores)) == {(2.0, 6.0, 2.0, 6.0)}


def test_scores_are_written_where_they_change(table, monkeypatch):
    X = table[0].to_numpy()
    rows = Spill(8, np.float64)
    rows.put(0, X)
    spilled = SpilledTable(rows, len(X), MemoryTable(X[:100], k=2)).fresh()
    spilled.start(np.dtype(np.float64), remembers=True)
    put, written = Spill.put, []
    monkeypatch.setattr(Spill, "put", lambda self, *args: (written.append(self), put(self, *args)))
    for function, n in ((_set_to_ones, 2), (_set_to_ones, 0), (_means_of_scores, 0), (_set_first, 1)):
        spilled.visit(function)
        assert len(written) == n * spilled.n_blocks
        written.clear()


def _set_first(block, Wt):
    Wt[0] = 2


def _set_to_ones(block, Wt):
    Wt[:], block.before[:] = 1, 1


def _means_of_scores(block, Wt):
    return (*Wt.mean(axis=1).tolist(), *block.before.mean(axis=1).tolist())


def test_free_memory_does_not_matter(table, monkeypatch):
    """It decides whether rows lie on disk, not what comes out there."""
    found = []
    for free in (300_000, 500_000):
        monkeypatch.setattr(memory, "free_memory", lambda free=free: free)
        found.append(NMFFeatures(3).fit(table[1]).components_)
    assert_array_equal(*found)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"solver": "als", "loss": "kullback-leibler"}, "solver='als' does not know"),
        ({"learning_rate": 0.1}, "learning_rate=0.1 is of use with"),
        ({"loss": "kullback-leibler", "penalty": 1e200}, "penalty is 1e"),
        ({"init": np.ones((3, 4))}, "init has shape"),
    ],
)
def test_parameters_are_checked(table, parameters, message):
    with pytest.raises(ValueError, match=message):
        NMFFeatures(3, memory_budget=SMALL, **parameters).fit(table[1])


def test_constants_of_a_loss_of_ones_own_are_refused(table):
    class Own(Loss):
        name = "own"

        def best_constants(self, X, weights=None, missing=None):
            return np.nanmedian(X, axis=0)

    with pytest.raises(ValueError, match="best_constants of its own, which take all rows at once"):
        NMFFeatures(3, memory_budget=SMALL, loss=Own()).fit(table[1])


def test_free_memory_of_a_container(monkeypatch, tmp_path):
    """Files that are cached do not count as used, in both versions of control groups."""
    for name, limit, used, cached in [
        ("one", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ("two", "memory.max", "memory.current", "inactive_file"),
    ]:
        group = tmp_path / name
        group.mkdir()
        for file, text in [(limit, "900000000"), (used, "700000000"), ("memory.stat", f"anon 5\n{cached} 300000000")]:
            (group / file).write_text(text)
        monkeypatch.setattr(memory, "GROUPS", group)
        assert memory.free_memory() == 500_000_000
    (tmp_path / "two" / "memory.max").write_text("max")
    assert memory.free_memory() > 500_000_000
