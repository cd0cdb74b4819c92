"""Frames and arrays of Dask: fitted where they are, transformed lazily, on every scheduler."""

import os
import signal
from functools import partial
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits, load_wine

from nmf_features import NMFFeatures, NonNegativeScaler, dask_tables, nnmf, penalty_path, select_components, stability
from nmf_features.plots import RowDisplay, ScoresDisplay

dask = pytest.importorskip("dask", reason="the extra dask is not installed")
dd = pytest.importorskip("dask.dataframe")
da = pytest.importorskip("dask.array")
Callback = pytest.importorskip("dask.callbacks").Callback

# distributed leaves sockets and loops to the garbage collector when a cluster closes
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Running on a single-machine scheduler:UserWarning"),  # on purpose
]


CALLBACKS = pytest.mark.skipif(find_spec("sklearn.callback") is None, reason="scikit-learn has no callbacks before 1.9")


@pytest.fixture(autouse=True)
def here():
    """Tests that ask for no cluster run in this thread."""
    with dask.config.set(scheduler="sync"):
        yield


@pytest.fixture(scope="module")
def table():
    """Wine many times over, with a weight and a column of words."""
    rng = np.random.default_rng(0)
    X = pd.concat([load_wine(as_frame=True).data] * 6, ignore_index=True)
    X *= rng.uniform(0.95, 1.05, X.shape)
    X.columns = [name.replace("/", "_") for name in X.columns]
    return X.assign(kind=rng.choice(["a", "b"], len(X)), w=rng.integers(0, 4, len(X)).astype(float))


def in_parts(table, *ends):
    """Return a frame of Dask with partitions that end at these rows, and unknown divisions."""
    starts = [0, *ends]
    parts = [table.iloc[a:b] for a, b in zip(starts, [*ends, len(table)], strict=True)]
    return dd.from_delayed([dask.delayed(part) for part in parts], meta=table.iloc[:0], verify_meta=False)


def settled(**parameters):
    """Return a model that runs from one start until little changes."""
    return NMFFeatures(3, max_iter=5000, **{"tol": 1e-9, **parameters})


def same(found, wanted, tolerance=5e-5):
    """Two settled fits agree; for losses that are not convex in the scores, the minimum may be another."""
    if found.loss == "kullback-leibler":
        assert_allclose(found.objective_, wanted.objective_, rtol=2e-3)
        return
    assert_allclose(found.objective_, wanted.objective_, rtol=1e-7)
    assert_allclose(found.components_, wanted.components_, rtol=0, atol=tolerance)
    for name in ("component_scales_", "explained_", "column_explained_", "column_means_", "score_penalties_"):
        assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-3, atol=1e-4)
    for name, values in wanted.scaling_.items():
        assert_allclose(np.asarray(found.scaling_[name], float), np.asarray(values, float), rtol=1e-9)


START = np.random.default_rng(1).uniform(size=(3, 13))
SETTINGS = {
    "default": {},
    "robust": {"scale": "robust", "clip": 0.02},
    "split": {"shift": "split", "scale": "mean", "init": np.tile(START, 2)},
    "mode": {"shift": "mode", "scale": "max", "penalty": 0.01, "l1_ratio": 0.5},
    "counts": {"loss": "kullback-leibler", "shift": None, "tol": 1e-6},
    "few": {"n_nonzero_loadings": 5},
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("weighted", [False, True])
def test_fitted_as_in_memory(table, setting, weighted):
    X, ends = table.drop(columns="w"), (1, 256, 300, 300, 1000)  # also an empty partition, and one of a single row
    parameters = {"init": START, **SETTINGS[setting]}
    wanted = settled(**parameters).fit(X, sample_weight=table.w if weighted else None)
    found = settled(**parameters)
    found.fit(in_parts(table if weighted else X, *ends), sample_weight="w" if weighted else None)
    same(found, wanted)
    assert found.variables_ == wanted.variables_
    assert_array_equal(found.feature_names_in_, wanted.feature_names_in_)


def test_missing_cells(table):
    X = table.drop(columns=["w", "kind"])
    X = X.mask(np.random.default_rng(0).uniform(size=X.shape) < 0.1)
    X.iloc[[5, 700]] = np.nan  # rows with nothing observed
    model, wanted = settled(missing_values="ignore", init=START), settled(missing_values="ignore", init=START).fit(X)
    same(model.fit(in_parts(X, 3, 500, 501)), wanted, 1e-4)


def test_default_parameters_find_as_good_a_minimum(table):
    X = table.drop(columns=["w", "kind"])
    wanted, found = NMFFeatures(4).fit(X), NMFFeatures(4).fit(in_parts(X, 100, 900))
    assert_allclose(found.objective_, wanted.objective_, rtol=1e-3)
    cosines = (found.components_ * wanted.components_).sum(axis=1)
    cosines /= np.linalg.norm(found.components_, axis=1) * np.linalg.norm(wanted.components_, axis=1)
    assert (cosines > 0.999).all()


@pytest.mark.parametrize("kind", ["numpy", "nullable", "arrow"])
def test_a_frame_is_transformed_lazily(table, kind):
    """Partitions, divisions, index, other columns and kinds of dtypes stay."""
    X = table.drop(columns="w").astype({"kind": "category"})
    X = X if kind == "numpy" else X.convert_dtypes(dtype_backend="pyarrow" if kind == "arrow" else "numpy_nullable")
    X.index = np.arange(len(X)) * 2
    lazy = dd.from_pandas(X, npartitions=4)
    model = NMFFeatures(3, init=START).fit(lazy)
    result = model.transform(lazy)
    assert isinstance(result, dd.DataFrame)
    assert result.divisions == lazy.divisions
    wanted = model.transform(X)
    pd.testing.assert_frame_equal(result.compute(), wanted)
    pd.testing.assert_series_equal(result.dtypes.astype(str), wanted.dtypes.astype(str))
    pd.testing.assert_frame_equal(NMFFeatures(3, init=START).fit_transform(lazy).compute(), wanted)


def test_an_array_is_fitted_and_transformed():
    X = load_digits().data
    X = X[:, np.ptp(X, axis=0) > 0]
    lazy = da.from_array(X, chunks=(400, 30))
    model = NMFFeatures(4, scale="max").fit(lazy)
    assert_allclose(model.objective_, NMFFeatures(4, scale="max").fit(X).objective_, rtol=1e-3)
    scores = model.transform(lazy)
    assert scores.chunks == ((400, 400, 400, 400, 197), (4,))
    assert_array_equal(scores.compute(), model.transform(X))
    assert NMFFeatures(2).fit(lazy.astype(np.float32)).transform(lazy.astype(np.float32)).dtype == np.float32


def test_n_0_n_1_and_huge_units(table):
    X = table[["alcohol", "hue", "proline"]]
    assert NMFFeatures(0).fit(in_parts(X, 100)).transform(in_parts(X, 100)).columns.tolist() == X.columns.tolist()
    same(settled().set_params(n_components=1).fit(in_parts(X, 100)), settled().set_params(n_components=1).fit(X))
    for unit in (1e-300, 1e300):
        huge = X * unit
        found = settled(shift=None, scale=None, penalty=0).set_params(n_components=2).fit(in_parts(huge, 100))
        wanted = settled(shift=None, scale=None, penalty=0).set_params(n_components=2).fit(huge)
        assert_allclose(found.components_, wanted.components_, atol=1e-4)


def test_mistakes(table):
    lazy = in_parts(table, 100)
    with pytest.raises(ValueError, match=r"sample_weight is 'weight', .* frame of Dask; wanted the name of one of its"):
        NMFFeatures().fit(lazy, sample_weight="weight")
    with pytest.raises(ValueError, match="target_weight is above 0, and X is a table of Dask"):
        NMFFeatures(target_weight=1).fit(lazy, "hue")
    with pytest.raises(ValueError, match="no rows that count"):
        NMFFeatures().fit(in_parts(table.assign(w=0.0), 100), sample_weight="w")
    with pytest.raises(ValueError, match="infinite"):
        NMFFeatures().fit(in_parts(table.assign(hue=np.inf), 100))
    with pytest.raises(ValueError, match=r"NaN or missing values .*'hue': 5"):
        NMFFeatures().fit(in_parts(table.assign(hue=table.hue.mask(table.index < 5)), 100))
    with pytest.raises(ValueError, match=r"Negative values in data X.*'hue': 1068"):
        NMFFeatures(shift=None).fit(in_parts(table.assign(hue=-1.0 - table.hue), 100))


def test_a_result_is_of_the_model_as_it_was(table):
    X = table.drop(columns=["w", "kind"])
    lazy, model = in_parts(X, 100), NMFFeatures(3, init=START).fit(X)
    wanted, of_frame, of_array = model.transform(X), model.transform(lazy), model.transform(in_parts(X, 100))
    model.fit(X.iloc[::-7])
    pd.testing.assert_frame_equal(of_frame.compute(), wanted)
    model = NMFFeatures(3, init=START).fit(X.to_numpy())
    wanted, of_array = model.transform(X.to_numpy()), model.transform(da.from_array(X.to_numpy(), chunks=(500, 13)))
    model.fit(X.to_numpy()[::-7])
    assert_array_equal(of_array.compute(), wanted)


@pytest.mark.parametrize("n", [0, 3])
def test_fit_transform_leaves_out_the_columns_that_y_and_sample_weight_name(table, n):
    X = table.drop(columns=["w", "kind"])
    model = NMFFeatures(n)
    result = model.fit_transform(in_parts(table, 100, 400), y="kind", sample_weight="w")
    assert "w" not in model.feature_names_in_
    pd.testing.assert_frame_equal(result.compute(), model.transform(X))
    same_column = model.fit_transform(in_parts(table, 100, 400), y=["w", "kind"], sample_weight="w")
    pd.testing.assert_frame_equal(same_column.compute(), result.compute())


def test_a_target_in_memory_is_ignored_as_in_memory(table):
    X = table.drop(columns=["w", "kind"])
    wanted = NMFFeatures(2).fit(in_parts(X, 100))
    for y in (table.w.to_numpy(), table.w, in_parts(table, 100).w, [1.0] * len(X)):
        assert_array_equal(NMFFeatures(2).fit(in_parts(X, 100), y).components_, wanted.components_)
    with pytest.raises(ValueError, match=r"y is 'words', and X is a frame of Dask; wanted the name of one of"):
        NMFFeatures(2).fit(in_parts(X, 100), ["hue", "words"])


def test_weights_that_do_not_lie_as_the_rows_do(table):
    X = table.drop(columns=["w", "kind"])
    lazy, array = in_parts(X, 100), da.from_array(X.to_numpy(), chunks=(500, 13))
    for weights, what in ((table.w.to_numpy(), r"numpy.ndarray with 1 dim"), ("w", "'w'"), (array, "Array with 2")):
        with pytest.raises(ValueError, match=rf"sample_weight is .*{what}.*wanted an array of Dask with 1 dimension"):
            NMFFeatures().fit(array, sample_weight=weights)
    for weights, what in ((table.w.to_numpy(), "numpy.ndarray with 1 dim"), (table.w, "Series"), (lazy, "DataFrame")):
        with pytest.raises(
            ValueError, match=rf"^sample_weight is [^\n]*{what}.*wanted the name .* or a series of Dask"
        ):
            NMFFeatures().fit(lazy, sample_weight=weights)
    found = NMFFeatures(2).fit(array, sample_weight=da.from_array(table.w.to_numpy(), chunks=500))
    assert_allclose(found.objective_, NMFFeatures(2).fit(X.to_numpy(), sample_weight=table.w).objective_, rtol=1e-3)


def test_only_frames_and_arrays_of_two_dimensions(table):
    bag = pytest.importorskip("dask.bag")
    lazy = in_parts(table, 100)
    others = {
        "Series": lazy.hue,
        "Bag": bag.from_sequence([1, 2]),
        "Array with 1": da.ones(9),
        "Delayed": dask.delayed(1),
    }
    fitted = NMFFeatures(2).fit(table)
    for what, X in others.items():
        for method in (NMFFeatures().fit, NMFFeatures().fit_transform, fitted.transform):
            with pytest.raises(
                ValueError, match=rf"X is of type dask.{what}.*; wanted a frame of Dask, or an array of Dask with 2"
            ):
                method(X)


def test_partitions_with_other_columns_than_the_frame_says(table):
    X = table[["alcohol", "hue", "proline", "w"]]
    others = {
        "has another order": X[["hue", "alcohol", "proline", "w"]],
        "lacks ['proline'], and X has not []": X[["alcohol", "hue", "w"]],
        "lacks [], and X has not ['more']": X.assign(more=1.0),
    }
    for how, other in others.items():
        parts = [dask.delayed(X), dask.delayed(other)]
        lazy = dd.from_delayed(parts, meta=X.iloc[:0], verify_meta=False)
        with pytest.raises(
            ValueError, match=rf"A partition of X has the columns \['{other.columns[0]}'.*; wanted"
        ) as it:
            NMFFeatures(2).fit(lazy)
        assert f"It {how}." in str(it.value)
    moved = dd.from_delayed(
        [dask.delayed(X), dask.delayed(X[["w", *X.columns[:3]]])], meta=X.iloc[:0], verify_meta=False
    )
    found = NMFFeatures(2).fit(moved, sample_weight="w")  # where the weights stand says nothing
    wanted = NMFFeatures(2).fit(dd.from_delayed([dask.delayed(X)] * 2, meta=X.iloc[:0]), sample_weight="w")
    assert_array_equal(found.components_, wanted.components_)
    lacking = dd.from_delayed([dask.delayed(X.drop(columns="w"))], meta=X.iloc[:0], verify_meta=False)
    with pytest.raises(ValueError, match=r"A partition of X has the columns .*, and lacks 'w'"):
        NMFFeatures(2).fit(lacking, sample_weight="w")


def test_rows_and_weights_are_read_once(table):
    reads = []

    def read(part):
        reads.append(len(part))
        return part

    X = table.drop(columns="kind")
    lazy = dd.from_map(read, [X.iloc[:500], X.iloc[500:]], meta=X.iloc[:0])
    reads.clear()  # Dask may look at what it is given
    NMFFeatures(2).fit(lazy, sample_weight="w")
    assert sorted(reads) == [500, len(X) - 500]


def test_who_holds_a_partition_changes_no_bit(table, monkeypatch):
    lazy = in_parts(table.drop(columns=["w", "kind"]), 100, 200, 500, 900)
    wanted = NMFFeatures(3, init=START).fit(lazy)
    monkeypatch.setattr(dask_tables, "_places", lambda parts: [*"bacab"])
    assert_array_equal(NMFFeatures(3, init=START).fit(lazy).components_, wanted.components_)
    monkeypatch.setattr(dask_tables, "INLINE", 0)
    assert_array_equal(NMFFeatures(3, init=START).fit(lazy).components_, wanted.components_)
    monkeypatch.setattr(dask_tables, "SUMMED", 2)  # sums of sums
    assert_allclose(NMFFeatures(3, init=START).fit(lazy).components_, wanted.components_, atol=1e-6)


def test_a_pass_is_a_task_for_each_partition_and_two_for_the_sum(table):
    lazy, tasks = in_parts(table.drop(columns=["w", "kind"]), 100, 200, 500), set()
    with Callback(pretask=lambda key, *_: tasks.add(str(key))):
        model = NMFFeatures(3, init=START, tol=1e-9).fit(lazy)
    names = [key.split("-")[1].split("'")[0] for key in tasks if key.startswith("('join-")]
    assert len(names) >= model.n_iter_
    for name in names:
        assert sum(name in key for key in tasks) == 4 + 2


@pytest.mark.parametrize(
    ("places", "sizes", "threads", "wanted"),
    [
        ("aabb", [5, 5, 5, 5], {"a": 1, "b": 1}, "aabb"),
        ("aaab", [5, 5, 5, 5], {"a": 1, "b": 1}, "aabb"),
        ("aaaa", [5, 5, 5, 5], {"a": 1, "b": 3}, "abbb"),
        ("aab", [5, 5, 5], {"a": 1, "b": 1}, "aab"),  # nothing would be gained
        ("baaa", [10**6, 10, 10, 10], {"a": 1, "b": 1, "c": 1}, "baaa"),
        ("abcx", [5, 5, 5, 5], {"a": 1, "b": 1, "c": 1, "d": 1}, "abcd"),  # x is lost
        (["a", None], [5, 5], {"a": 1, "b": 1}, [None, None]),
        ("ab", [5, 5], None, [None, None]),
    ],
)
def test_a_partition_stays_unless_its_worker_has_more_than_its_share(places, sizes, threads, wanted):
    found = dask_tables._spread(list(places), np.array(sizes), threads)
    assert sorted(map(str, found)) == sorted(map(str, wanted))
    if None not in found:
        kept = sum(place == before for place, before in zip(found, places, strict=True))
        assert kept == sum(place == before for place, before in zip(wanted, places, strict=True))


METHODS = "score", "impute", "inverse_transform", "drift", "unexplained", "explain", "contributions", "score_samples"


@pytest.mark.parametrize("method", [*METHODS, "partial_fit", "report"])
def test_methods_that_need_rows_in_memory_say_so(table, method):
    X = table.drop(columns=["w", "kind"])
    model = NMFFeatures(2, missing_values="ignore").fit(in_parts(X, 100))
    for lazy in (in_parts(X, 100), da.from_array(X.to_numpy(), chunks=(500, 13))):
        with pytest.raises(ValueError, match=r"X is Dask.s .*; wanted rows in memory. .*fit and transform.*X.compute"):
            getattr(model, method)(lazy)
    if method == "inverse_transform":
        with pytest.raises(ValueError, match=r"X is the path 'rows.parquet'; wanted rows in memory"):
            model.inverse_transform("rows.parquet")


def test_functions_that_need_rows_in_memory_say_so(table):
    X = in_parts(table.drop(columns=["w", "kind"]), 100)
    model = NMFFeatures(2).fit(X)
    calls = [select_components, partial(penalty_path, n_components=2), partial(stability, n_components=2)]
    calls += [NonNegativeScaler().fit]
    if find_spec("matplotlib"):
        calls += [partial(ScoresDisplay.from_estimator, model), partial(RowDisplay.from_estimator, model)]
    for call in calls:
        with pytest.raises(ValueError, match=r"X is Dask's DataFrame; wanted rows in memory"):
            call(X)
    with pytest.raises(TypeError, match=r"source is of type dask.DataFrame; wanted .*transform takes frames"):
        model.transform_to(X, "s.parquet")


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_frames_in_memory_as_output_are_refused(table, kind):
    X = table.drop(columns=["w", "kind"])
    for lazy in (in_parts(X, 100), da.from_array(X.to_numpy(), chunks=(500, 13))):
        model = NMFFeatures(2).set_output(transform=kind)
        with pytest.raises(ValueError, match=rf"asks for frames of {kind}.*set_output\(transform=\"default\"\)"):
            model.fit_transform(lazy)
        with pytest.raises(ValueError, match=rf"asks for frames of {kind}"):
            model.fit(lazy).transform(lazy)


def test_nnmf_with_a_target(table):
    """It passes through, as in memory."""
    lazy = in_parts(table, 300, 700)
    result, model = nnmf(lazy, 2, target="w", return_transformer=True)
    assert "w" not in model.variables_
    assert result.compute().columns.tolist() == ["kind", "w", "NNMF1", "NNMF2"]
    assert_array_equal(result.compute()["w"], table["w"])
    with pytest.raises(ValueError, match="target_weight is above 0, and X is a table of Dask"):
        nnmf(lazy, 2, target="w", target_weight=1)
    with pytest.raises(ValueError, match=r"target has \['q'\], not found"):
        nnmf(lazy, 2, target="q")


# A real cluster


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes."""
    distributed = pytest.importorskip("distributed")
    with (
        dask.config.set({"distributed.admin.large-graph-warning-threshold": "100MB"}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as running,
        distributed.Client(running) as client,
    ):
        yield client


class AfterPass:
    """A callback that does something once, after some passes over all rows."""

    def __init__(self, action):
        self.action, self.passes = action, 0

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context, **_):
        pass

    def on_fit_task_end(self, estimator, context, *, metadata=None, **_):
        self.passes += bool(metadata) and metadata.get("stage") == "all rows"
        if self.passes == 2 and self.action is not None:
            action, self.action = self.action, None
            action()


@pytest.fixture
def on_cluster(cluster):
    with dask.config.set(scheduler="dask.distributed"):
        yield cluster


def test_workers_give_the_same(table, on_cluster):
    X = table.drop(columns=["w", "kind"])
    lazy = dd.from_pandas(X, npartitions=5)
    with dask.config.set(scheduler="sync"):
        wanted = NMFFeatures(3).fit(lazy)
    found = NMFFeatures(3).fit(lazy)
    assert_array_equal(found.components_, wanted.components_)
    assert_array_equal(found.transform(lazy).compute(), wanted.transform(X))


def test_partitions_are_scaled_where_they_shall_lie(table, on_cluster, monkeypatch):
    X, found, workers = table.drop(columns=["w", "kind"]), [], sorted(on_cluster.nthreads())
    wanted, scale = [workers[0], workers[1], workers[1], workers[1]], dask_tables.PiecesOfDask.scale

    def watched(self, *arguments):
        result = scale(self, *arguments)
        held = on_cluster.who_has([part.dask[part.key] for part in self.parts])
        found.extend(held[part.key] for part in self.parts)  # perhaps a worker that needed one has a copy
        return result

    monkeypatch.setattr(dask_tables, "_spread", lambda *_: wanted)
    monkeypatch.setattr(dask_tables.PiecesOfDask, "scale", watched)
    NMFFeatures(3, init=START).fit(dd.from_pandas(X, npartitions=4))
    assert all(place in holders for place, holders in zip(wanted, found, strict=True))


@CALLBACKS
def test_a_worker_that_dies_in_the_fit_changes_nothing(table, on_cluster):
    lazy = dd.from_pandas(table.drop(columns=["w", "kind"]), npartitions=5)
    wanted, killed = NMFFeatures(3, init=START, tol=1e-9).fit(lazy), []

    def kill():
        killed.append(next(iter(on_cluster.run(os.getpid).values())))
        os.kill(killed[0], signal.SIGKILL)

    found = NMFFeatures(3, init=START, tol=1e-9).set_callbacks(AfterPass(kill)).fit(lazy)
    assert killed
    assert killed[0] not in on_cluster.run(os.getpid).values()
    assert_array_equal(found.components_, wanted.components_)
    assert_array_equal(found.history_, wanted.history_)


@CALLBACKS
def test_a_lost_scheduler_is_a_clear_error_and_leaves_the_model_as_it_was(table):
    distributed = pytest.importorskip("distributed")
    lazy = dd.from_pandas(table.drop(columns=["w", "kind"]), npartitions=3)
    model = NMFFeatures(3, init=START).fit(table.drop(columns=["w", "kind"]).iloc[:200])
    before = model.components_.copy()
    with (
        dask.config.set({"scheduler": "dask.distributed", "distributed.comm.timeouts.connect": "2s"}),
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as doomed,
        distributed.Client(doomed),
    ):
        model.set_callbacks(AfterPass(doomed.close))
        with pytest.raises(RuntimeError, match="Dask's scheduler or workers were lost in the fit"):
            model.fit(lazy)
    assert_array_equal(model.components_, before)
