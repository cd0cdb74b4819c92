"""Tables larger than memory: time per row, memory, and what moves, each side by side with what it is compared with.

    python benchmarks/large.py            all, about 20 minutes and 12 GB of disk; writes results-large.md
    python benchmarks/large.py --quick    small tables, a minute or two; prints

Every measurement runs in a process of its own. Those of files have a limit on memory (RLIMIT_DATA, which counts all
that is allocated, not what is mapped from files), and report the largest anonymous memory that was in use.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

P, K = 20, 5
LIMIT = 10**9
STEP = 500_000  # rows of a piece that is made at once
FEW = 20_000  # rows for Spark, whose table has a row for each cell; with ten times as many its loadings were all zero


def rows_of(piece, n):
    """Return rows of five components and noise, other ones for each piece."""
    H, rng = np.random.default_rng(99).gamma(0.3, size=(K, P)), np.random.default_rng(piece)
    X = rng.gamma(0.5, size=(n, K)) * np.arange(1, K + 1) @ H
    return X + 0.1 * X.mean() * rng.uniform(size=X.shape)


def make(path, n):
    """Write a Parquet table of n rows, in pieces."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [f"x{j:02d}" for j in range(P)]
    with pq.ParquetWriter(path, pa.schema([(name, pa.float64()) for name in names])) as writer:
        for piece, start in enumerate(range(0, n, STEP)):
            X = rows_of(piece, min(STEP, n - start))
            writer.write_table(pa.table(dict(zip(names, X.T, strict=True))), row_group_size=100_000)


class Peak:
    """The largest anonymous memory of this process while it is measured, in MB."""

    def __enter__(self):
        self.most, self.going = 0.0, True
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.going = False
        self.thread.join()

    def _watch(self):
        while self.going:
            lines = Path("/proc/self/status").read_text().splitlines()
            self.most = max(self.most, *(int(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon")))
            time.sleep(0.02)


def model(**parameters):
    from nmf_features import NMFFeatures

    found = NMFFeatures(K, **parameters)
    NMFFeatures(K).fit(rows_of(0, 120_000))  # so that nothing is compiled while it is measured
    return found


def timed(function):
    with Peak() as peak:
        start = time.perf_counter()
        result = function()
        seconds = time.perf_counter() - start
    return result, {"seconds": seconds, "peak": peak.most}


# What is measured, each in a process of its own


def fit_file(path, _):
    found = model(memory_budget=LIMIT // 5)
    fitted, told = timed(lambda: found.fit(path))
    return told | {"objective": fitted.objective_, "passes": fitted.n_iter_}


def fit_memory(path, _):
    import pandas as pd

    X = pd.read_parquet(path)
    found = model()
    fitted, told = timed(lambda: found.fit(X))
    return told | {"objective": fitted.objective_, "passes": fitted.n_iter_}


def transform_file(path, folder):
    found = model().fit(rows_in_frame(path))
    return timed(lambda: found.transform_to(path, Path(folder) / "scored"))[1]


def copy_file(path, folder):
    """Read and write the table with pyarrow alone."""
    import pyarrow.dataset as ds

    def copied():
        ds.write_dataset(ds.dataset(path), Path(folder) / "copied", format="parquet")

    return timed(copied)[1]


def minibatch(path, _):
    """Fit scikit-learn's MiniBatchNMF to the same scaled columns in one read; its objective is that of ours."""
    import pyarrow.parquet as pq
    from sklearn.decomposition import MiniBatchNMF

    from nmf_features import NonNegativeScaler

    scaler = NonNegativeScaler().fit(rows_in_frame(path))
    peer = MiniBatchNMF(K, alpha_W=0.001, alpha_H="same", l1_ratio=1.0, random_state=0)

    def fitted():
        for batch in pq.ParquetFile(path, pre_buffer=False).iter_batches(50_000):
            peer.partial_fit(scaler.transform(batch.to_pandas()).to_numpy())

    told = timed(fitted)[1]
    return told | {"loss": loss_of(path, scaler, peer.components_)}


def h2o(path, _):
    """Fit H2O's low-rank model, non-negative and with squares as the loss, to the same scaled columns."""
    import h2o
    from h2o.estimators import H2OGeneralizedLowRankEstimator

    from nmf_features import NonNegativeScaler

    scaler = NonNegativeScaler().fit(rows_in_frame(path))
    signs = {"regularization_x": "non_negative", "regularization_y": "non_negative", "gamma_x": 1, "gamma_y": 1}
    peer = H2OGeneralizedLowRankEstimator(k=K, loss="quadratic", transform="none", max_iterations=100, seed=0, **signs)
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        write_scaled(path, scaler, file.name)
        h2o.init(nthreads=-1, max_mem_size="6G", log_level="ERRR", verbose=False)
        try:
            h2o.no_progress()
            told = timed(lambda: peer.train(training_frame=h2o.import_file(file.name)))[1]
            H = peer._model_json["output"]["archetypes"].as_data_frame().to_numpy()[:, 1:].astype(float)
        finally:
            h2o.cluster().shutdown()
    return told | {"loss": loss_of(path, scaler, H)}


def spark(path, _):
    """Fit ALS of Spark, non-negative, whose table has a row for each cell."""
    from pyspark.ml.recommendation import ALS
    from pyspark.sql import SparkSession

    from nmf_features import NonNegativeScaler

    scaler = NonNegativeScaler().fit(rows_in_frame(path))
    session = SparkSession.builder.master("local[*]").config("spark.driver.memory", "8g").getOrCreate()
    peer = ALS(rank=K, nonnegative=True, regParam=0.001, seed=0, userCol="row", itemCol="column", ratingCol="x")
    with tempfile.TemporaryDirectory() as folder:
        write_cells(path, scaler, f"{folder}/cells.parquet")
        fitted, told = timed(lambda: peer.fit(session.read.parquet(f"{folder}/cells.parquet")))
        factors = sorted(fitted.itemFactors.collect())
    session.stop()
    return told | {"loss": loss_of(path, scaler, np.array([factor for _, factor in factors], float).T)}


def write_scaled(path, scaler, out):
    """Write the scaled columns of a table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetWriter(out, pq.read_schema(path)) as writer:
        for batch in pq.ParquetFile(path, pre_buffer=False).iter_batches(100_000):
            writer.write_table(pa.Table.from_pandas(scaler.transform(batch.to_pandas()), preserve_index=False))


def write_cells(path, scaler, out):
    """Write the scaled cells of a table, a row for each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    Z = scaler.transform(pq.read_table(path).to_pandas()).to_numpy()
    rows, columns = np.indices(Z.shape, dtype=np.int32)
    pq.write_table(pa.table({"row": rows.ravel(), "column": columns.ravel(), "x": Z.ravel()}), out)


def loss_of_ours(path, _):
    from nmf_features import NonNegativeScaler

    fitted = model(memory_budget=LIMIT // 5).fit(path)
    loadings = fitted.component_scales_[:, None] * fitted.components_
    return {"loss": loss_of(path, NonNegativeScaler().fit(rows_in_frame(path)), loadings)}


def loss_of(path, scaler, H):
    """Return the objective, per row, of the best scores of some rows."""
    from nmf_features import objective
    from nmf_features.core.projection import exact_scores

    X = scaler.transform(rows_in_frame(path)).to_numpy()
    for l1 in (0.0, 0.001 * P, 0.001 * P):  # peers without our penalty give H another scale than it asks for
        W = exact_scores(X, H, l1)
        c = np.sqrt(P * W.sum(axis=0) / (len(X) * np.maximum(H.sum(axis=1), 1e-300)))
        W, H = W / np.where(c > 0, c, 1), H * c[:, None]
    return objective(X, W, H, 0.001) / len(X)


def rows_in_frame(path, n=100_000):
    import pyarrow.parquet as pq

    return next(pq.ParquetFile(path, pre_buffer=False).iter_batches(n)).to_pandas()


def dask_fit(path, workers):
    """Fit with worker processes of one thread; return the time, and the bytes that move in a pass."""
    import dask
    import dask.dataframe as dd
    from distributed import Client, LocalCluster

    start = np.random.default_rng(0).uniform(size=(K, P))
    # Partitions do not move to a worker that waits: what is counted are the sums of a pass.
    dask.config.set({"distributed.scheduler.work-stealing": False})
    with (
        LocalCluster(n_workers=int(workers), threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
        dask.config.set(scheduler="dask.distributed"),
    ):
        X = client.persist(dd.read_parquet(path, split_row_groups=5))
        X.map_partitions(len).compute()
        found = model(init=start, tol=1e-12, max_iter=20, memory_budget=LIMIT // 5)
        found.fit(X)  # workers compile
        passes, began = Passes(), time.perf_counter()
        fitted = found.set_callbacks(passes).fit(X)
        seconds = time.perf_counter() - began
    bytes_ = float(np.median(np.diff(passes.moved)))
    told = {"passes": fitted.n_iter_, "partitions": X.npartitions, "objective": fitted.objective_}
    return {"seconds": seconds, "bytes": bytes_, **told}


class Passes:
    """A callback that notes how many bytes have moved after each pass over all rows."""

    def __init__(self):
        self.moved = []

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context, **_):
        pass

    def on_fit_task_end(self, estimator, context, *, metadata=None, **_):
        if metadata and metadata.get("stage") == "all rows":
            self.moved.append(moved())


def moved():
    """Return the bytes that processes of this machine have sent to each other through sockets."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split(":")[1].split()[0]) for line in lines if line.strip().startswith("lo:"))


TASKS = {
    f.__name__: f
    for f in (fit_file, fit_memory, transform_file, copy_file, minibatch, h2o, spark, loss_of_ours, dask_fit)
}


def run(task, path, argument="", limit=None):
    """Run a task in a new process and return what it tells."""
    variables = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system", "PYTHONWARNINGS": "ignore"}  # reserves nothing
    command = [sys.executable, __file__, "--task", task, str(path), str(argument), "--limit", str(limit or 0)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{task} {path}: {done.stderr[-2000:]}")
    told = json.loads(done.stdout.splitlines()[-1])
    print(f"  {task} {Path(path).name} {argument}: {told}", flush=True)
    return told


def medians(pairs, times=3):
    """Run tasks in turn; return the median time of each, with what the first run told."""
    runs = [[run(*pair) for pair in pairs] for _ in range(times)]
    return [{**told[0], "seconds": float(np.median([t["seconds"] for t in told]))} for told in zip(*runs, strict=True)]


def on_the_jvm(task, module, path, what):
    """Return a line on a peer that needs Java, if it is installed."""
    if find_spec(module) is None or shutil.which("java") is None:
        return f"{what}: not measured, since {module} or java is not installed."
    peer, ours, time_ = run(task, path), run("loss_of_ours", path), run("fit_file", path)
    return (
        f"{what}: {peer['seconds']:.1f} s, objective per row {peer['loss']:.5f}; "
        f"ours {time_['seconds']:.1f} s, {ours['loss']:.5f}."
    )


def main(quick, folder):
    million = 10_000 if quick else 1_000_000
    sizes = [1, 2, 5, 20]
    with tempfile.TemporaryDirectory(dir=folder) as work:
        paths = {m: Path(work) / f"rows{m}.parquet" for m in sizes}
        for m, path in paths.items():
            make(path, m * million)
        limit = None if quick else LIMIT
        lines = ["| million rows | seconds | a million rows | anonymous MB | passes |", "|---|---|---|---|---|"]
        memory, *others = medians([("fit_memory", paths[2]), *(("fit_file", paths[m], "", limit) for m in sizes)])
        per = memory["seconds"] / 2
        lines.append(
            f"| 2, in memory | {memory['seconds']:.2f} | {per:.2f} | {memory['peak']:.0f} | {memory['passes']} |"
        )
        for m, told in zip(sizes, others, strict=True):
            each = told["seconds"] / m
            lines.append(
                f"| {m}, file | {told['seconds']:.2f} | {each:.2f} ({each / per:.2f} times) | {told['peak']:.0f} | "
                f"{told['passes']} |"
            )
        each_of_20 = others[-1]["seconds"] / 20
        rounds = 1 if quick else 3
        copies, scored = [], []
        for turn in range(rounds):
            place = Path(work) / f"turn{turn}"
            place.mkdir()
            copies.append(run("copy_file", paths[5], place)["seconds"])
            scored.append(run("transform_file", paths[5], place, limit))
        ratio = np.median([s["seconds"] for s in scored]) / np.median(copies)
        lines += [
            "",
            f"`transform_to` of 5 million rows to a folder: {np.median([s['seconds'] for s in scored]):.1f} s, "
            f"{ratio:.2f} times pyarrow's own read and write ({np.median(copies):.1f} s); "
            f"{max(s['peak'] for s in scored):.0f} MB.",
            "",
        ]
        peer, ours = run("minibatch", paths[2]), run("loss_of_ours", paths[2])
        lines += [
            f"MiniBatchNMF (scikit-learn, one read of 2 million rows, batches of 50,000): {peer['seconds']:.1f} s, "
            f"objective per row {peer['loss']:.5f}; ours {others[1]['seconds']:.1f} s, {ours['loss']:.5f}.",
            "",
        ]
        few = Path(work) / "few.parquet"
        make(few, FEW)
        lines += [on_the_jvm("h2o", "h2o", paths[2], "H2O's GLRM, non-negative, 2 million rows"), ""]
        lines += [on_the_jvm("spark", "pyspark", few, f"Spark's ALS, non-negative, {FEW} rows"), ""]
        one, two = medians([("dask_fit", paths[2], 1), ("dask_fit", paths[2], 2)])
        small = run("dask_fit", paths[1], 2)
        lines += [
            f"Dask, 2 million rows in {one['partitions']} partitions, {one['passes']} passes: one worker "
            f"{one['seconds']:.1f} s, two {two['seconds']:.1f} s, {one['seconds'] / two['seconds']:.2f} times as fast.",
            "Bytes that move between all processes in a pass, without work stealing: "
            f"{two['bytes'] / 1e6:.2f} MB for 2 million rows, {small['bytes'] / 1e6:.2f} MB for 1 million.",
            "",
        ]
        hours = 1e10 / 1e6 * each_of_20 / 100 / 3600
        lines += [
            "Projected: 10 billion rows of 20 columns on 100 workers like this machine, 100 million rows each. "
            f"10,000 million rows x {each_of_20:.2f} s / 100 = {hours:.2f} hours. The sums of a pass are the same "
            f"whatever the number of rows: {two['bytes'] / 2 / 1e6:.2f} MB for each of two workers.",
        ]
    about = f"{platform.machine()}, {os.cpu_count()} cores; `python benchmarks/large.py`"
    text = "# Tables larger than memory\n\n" + about + "\n\n" + "\n".join(lines) + "\n"
    print(text)
    if not quick:
        (Path(__file__).parent / "results-large.md").write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small tables")
    parser.add_argument("--folder", help="where tables are made, default that of temporary files")
    parser.add_argument("--task", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        if arguments.limit:
            resource.setrlimit(resource.RLIMIT_DATA, (arguments.limit, arguments.limit))
        name, path_, argument_ = arguments.task
        print(json.dumps(TASKS[name](path_, argument_)))
    else:
        main(arguments.quick, arguments.folder)
