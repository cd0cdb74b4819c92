"""Tables in files: a fit is that of the same rows in memory, and a table is written whole or not at all."""

import datetime
import decimal
import os
import subprocess
import sys
import time
import tracemalloc
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal

from nmf_features import (
    NMFFeatures,
    NonNegativeScaler,
    cli,
    files,
    nnmf,
    penalty_path,
    select_components,
    sources,
    stability,
    streaming,
)

VARIABLES = list("abcdef")
BUDGET = 1 << 18  # bytes: a quarter of what the columns need
WRITERS = {
    ".parquet": lambda frame, path: frame.to_parquet(path, row_group_size=1500),
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    ".feather": lambda frame, path: frame.to_feather(path),
}


def made(n):
    rng = np.random.default_rng(0)
    X = rng.gamma(1, 1, (n, 3)) @ rng.gamma(0.5, 1, (3, 6)) + 0.05 * rng.random((n, 6))
    frame = pd.DataFrame(X, columns=VARIABLES)
    frame.insert(2, "kind", rng.choice(["u", "v"], n))
    frame["y"] = 2 * frame["a"] + rng.normal(size=n)
    return frame.assign(weight=rng.integers(0, 3, n).astype(float))


@pytest.fixture(scope="module")
def rows():
    """20,000 rows of rank 3 and noise, a column of words, a target and weights of which some are zero."""
    return made(20_000)


@pytest.fixture(scope="module")
def few():
    return made(3_000)


@pytest.fixture(scope="module")
def model(few):
    return NMFFeatures(3, variables=VARIABLES).fit(few)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listing():
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


def temporary_in(folder="."):
    return [name for name in os.listdir(folder) if name.endswith(".tmp")]


# A fit to files is the fit to their rows


@pytest.mark.parametrize("suffix", WRITERS)
def test_fit_in_memory(here, rows, suffix):
    WRITERS[suffix](rows, f"t{suffix}")
    expected = NMFFeatures(3).fit(rows[["kind", *VARIABLES]], sample_weight=rows["weight"])
    found = NMFFeatures(3).fit(f"t{suffix}", "y", sample_weight="weight")
    assert found.variables_ == VARIABLES
    assert found.objective_ == expected.objective_
    assert_array_equal(found.components_, expected.components_)


def test_fit_to_a_folder_and_a_dataset(here, rows):
    Path("t/more").mkdir(parents=True)
    for i, name in enumerate(["t/0.parquet", "t/1.parquet", "t/more/2.parquet"]):
        rows.iloc[i * 5000 : (i + 1) * 5000].to_parquet(name)
    Path("t/_SUCCESS.parquet").write_text("")  # what others leave there
    Path("t/README.txt").write_text("")
    expected = NMFFeatures(3, variables=VARIABLES).fit(rows.iloc[:15_000])
    dataset = pa.dataset.dataset(["t/0.parquet", "t/1.parquet", "t/more/2.parquet"])
    for X in ("t", Path("t/"), dataset, pa.dataset.dataset(pa.table(rows.iloc[:15_000]))):
        assert_array_equal(NMFFeatures(3, variables=VARIABLES).fit(X).components_, expected.components_)


def test_the_index_of_pandas_is_no_feature(here, rows):
    frame = rows[VARIABLES].set_axis(pd.Index(np.arange(len(rows)) * 7 % 1000, name="id"))
    frame.to_parquet("t.parquet")
    model = NMFFeatures(3).fit("t.parquet")
    assert_array_equal(model.components_, NMFFeatures(3).fit(frame).components_)
    model.transform_to("t.parquet", "s.parquet")
    assert_frame_equal(pd.read_parquet("s.parquet"), model.transform(frame), check_exact=True)


def test_a_target_in_a_file(here, rows):
    rows["y"] = rows["y"].where(rows["weight"] < 2)  # where it is missing, rows say nothing of it
    rows.to_csv("t.csv", index=False)
    expected = NMFFeatures(3, target_weight=1, variables=VARIABLES).fit(rows, rows[["y"]], rows["weight"])
    for y in ("y", ["y"]):
        found = NMFFeatures(3, target_weight=1).fit("t.csv", y, sample_weight="weight")
        assert_array_equal(found.components_, expected.components_)
        assert found.target_names_ == ["y"]
    with pytest.raises(ValueError, match="a target needs all rows in memory"):
        NMFFeatures(3, target_weight=1, memory_budget=BUDGET).fit("t.csv", "y")


ON_DISK = {
    "default": {},
    "weights": {"sample_weight": "weight"},
    "missing": {"missing_values": "ignore", "tol": 1e-4},
    "counts": {"loss": "kullback-leibler", "shift": None, "scale": None},
    "split": {"shift": "split"},
    "quantiles": {"scale": "robust", "clip": 0.01},
}


@pytest.mark.parametrize("case", ON_DISK)
def test_fit_on_disk(here, rows, case):
    options = dict(ON_DISK[case])
    weight = options.pop("sample_weight", None)
    if case == "missing":
        rows = rows.mask(np.random.default_rng(1).random(rows.shape) < 0.02)
    rows.to_parquet("t.parquet")
    options = {"variables": VARIABLES, "tol": 1e-7, **options}
    v = None if weight is None else rows[weight]
    expected = NMFFeatures(3, **options).fit(rows, sample_weight=v)
    found = NMFFeatures(3, memory_budget=BUDGET, **options).fit("t.parquet", sample_weight=weight)
    assert found.objective_ == pytest.approx(expected.objective_, rel=1e-3)
    cosines = (found.components_ * expected.components_).sum(axis=1)
    cosines /= np.linalg.norm(found.components_, axis=1) * np.linalg.norm(expected.components_, axis=1)
    assert cosines.min() > 0.999
    for name, value in expected.scaling_.items():
        if value is not None:  # sums over pieces are rounded in another order; quantiles are exact
            assert_allclose(np.asarray(found.scaling_[name], dtype=float), np.asarray(value, dtype=float), rtol=1e-12)


def test_fit_on_disk_from_one_start(here, rows):
    """To the end of the same descent: what is left is rounding, and where the two stop."""
    rows.to_parquet("t.parquet")
    start = np.random.default_rng(0).gamma(1, size=(3, 6))
    options = {"variables": VARIABLES, "init": start, "tol": 1e-12, "max_iter": 5000}
    expected = NMFFeatures(3, **options).fit(rows)
    found = NMFFeatures(3, memory_budget=BUDGET, **options).fit("t.parquet")
    assert found.objective_ == pytest.approx(expected.objective_, rel=1e-8)
    assert_allclose(found.components_, expected.components_, atol=1e-4)


def test_csv_is_read_as_pandas_reads_it(here, monkeypatch):
    """Except that whole numbers stay whole where some are missing."""
    monkeypatch.setattr(files, "CSV_BLOCK", 1 << 10)
    lines = [f'{i},{i},"a, b\nc",2020-01-01,None,{"" if i % 5 else i},{i / 7!r}' for i in range(200)]
    Path("t.csv").write_text("id,x,words,day,nothing,gaps,share\n" + "\n".join([*lines, "200,0.5,d,,,,1"]) + "\n")
    expected = pd.read_csv("t.csv", **cli.EXACT)
    source = files.opened("t.csv")
    source.with_floats(["x"])  # whole at first
    found = pa.concat_tables(batch for batch, _ in source.batches()).to_pandas()
    assert found.dtypes.astype(str).to_dict()["x"] == "float64"
    for name in expected:
        missing = expected[name].isna()
        assert_array_equal(found[name].isna(), missing)
        assert found[name][~missing].tolist() == expected[name][~missing].tolist()


# A table is written with its other columns as they were


def test_other_columns_stay_as_they_are(here, few, model):
    n = len(few)
    day = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    others = {
        "word": pa.array(["u", "v", None] * (n // 3)).dictionary_encode(),
        "price": pa.array([decimal.Decimal("1.23"), None] * (n // 2)),
        "day": pa.array([day] * n, pa.timestamp("us", "Europe/Berlin")),
        "list": pa.array([[1, 2], [], None] * (n // 3)),
        "both": pa.array([{"x": 1, "y": "s"}] * n),
        "a.b": pa.array(range(n), pa.int64()),
    }
    arrays = [*others.values(), *(pa.array(few[name]) for name in VARIABLES)]
    table = pa.table(arrays, names=[*others, *VARIABLES]).select(
        ["word", "a", "price", "b", "day", "c", "list", "d", "both", "e", "a.b", "f"]
    )
    small = pa.field("small", pa.int8(), nullable=False, metadata={"unit": "m"})
    table = table.add_column(3, small, pa.array([3] * n, pa.int8())).replace_schema_metadata({"who": "me"})
    pq.write_table(table, "t.parquet", row_group_size=700)
    for drop, kept in ((True, table.drop_columns(VARIABLES)), (False, table)):
        model.set_params(drop_original=drop).transform_to("t.parquet", "s.parquet")
        found = pq.read_table("s.parquet")
        assert found.column_names == [*kept.column_names, "NNMF1", "NNMF2", "NNMF3"]
        kept_schema = found.schema.remove_metadata()
        assert [kept_schema.field(j) for j in range(kept.num_columns)] == list(
            pq.read_table("t.parquet").select(kept.column_names).schema.remove_metadata()
        )
        assert found.select(kept.column_names).equals(pq.read_table("t.parquet", columns=kept.column_names))
        assert found.schema.field("small").metadata == {b"unit": b"m"}
        assert not found.schema.field("small").nullable
        assert found.schema.metadata[b"who"] == b"me"
    model.set_params(drop_original=True)
    scores = model.transform(few)[["NNMF1", "NNMF2", "NNMF3"]]
    assert_array_equal(found.select(scores.columns.tolist()).to_pandas(), scores)


@pytest.mark.parametrize("index", [pd.RangeIndex(5, 3005), pd.Index(np.arange(3000)[::-1] // 2, name="pairs")])
@pytest.mark.parametrize("kind", ["float32", "Float64", "double[pyarrow]"])
def test_as_transform(here, few, index, kind):
    frame = few.set_axis(index).astype(dict.fromkeys(VARIABLES, kind))
    frame = frame.assign(a=frame["a"].where(frame["weight"] < 2)).astype({"a": kind, "kind": "category"})
    frame.iloc[7, [frame.columns.get_loc(name) for name in VARIABLES]] = None
    frame.attrs = {"about": "a table"}
    model = NMFFeatures(3, variables=VARIABLES, missing_values="ignore", out_of_range="warn").fit(frame)
    frame.iloc[::2, frame.columns.get_loc("b")] = -1.0
    frame.to_parquet("t.parquet", row_group_size=900)
    with warnings.catch_warnings(record=True, action="always") as seen:
        expected = model.transform(frame)
    with warnings.catch_warnings(record=True, action="always") as told:
        model.transform_to("t.parquet", "s.parquet")
    assert {str(w.message) for w in told} == {str(w.message) for w in seen}
    assert len(told) == 2  # one of each, whatever the number of batches
    assert all(Path(w.filename) == Path(__file__) for w in told)
    found = pd.read_parquet("s.parquet")
    assert found.attrs.pop("nmf_features_fit")
    assert found.attrs == {"about": "a table"}
    numbers = [name for name in expected if name.startswith("NNMF")]
    dtype = np.float32 if kind == "float32" else np.float64  # a file says nothing of what backs a frame
    assert (found[numbers].dtypes == dtype).all()
    assert_frame_equal(found, expected.astype(dict.fromkeys(numbers, dtype)), check_exact=True)


def test_columns_that_fit_has_not_seen(here, few, model):
    model = NMFFeatures(3).fit(few[["kind", *VARIABLES]])
    new = few.drop(columns=["kind"])[[*reversed(VARIABLES), "y"]].assign(new="n")
    new.to_parquet("t.parquet")
    model.transform_to("t.parquet", "s.parquet")
    found = pd.read_parquet("s.parquet")
    assert found.columns.tolist() == ["y", "new", "NNMF1", "NNMF2", "NNMF3"]
    assert_array_equal(found.iloc[:, 2:], model.transform(few[["kind", *VARIABLES]]).iloc[:, 1:])


def test_no_components_and_no_rows(here, few, model):
    few.to_parquet("t.parquet")
    NMFFeatures(0).fit(few).transform_to("t.parquet", "s.parquet")
    assert_frame_equal(pd.read_parquet("s.parquet"), few)
    few.iloc[:0].to_parquet("t.parquet")
    model.transform_to("t.parquet", "s.parquet")
    assert_frame_equal(pd.read_parquet("s.parquet"), model.transform(few.iloc[:0]), check_index_type=False)


def test_linear_projection(here, few):
    few.to_parquet("t.parquet")
    model = NMFFeatures(3, variables=VARIABLES, projection="linear").fit("t.parquet")
    model.transform_to("t.parquet", "s.parquet")
    assert_allclose(pd.read_parquet("s.parquet")["NNMF2"], model.transform(few)["NNMF2"], rtol=1e-12)


def test_a_folder_is_one_table_in_parts(here, few, model, monkeypatch):
    few.to_parquet("t.parquet", row_group_size=500)
    model.transform_to("t.parquet", "one/")
    assert os.listdir("one") == ["part-00000.parquet"]
    monkeypatch.setattr(files, "BATCH_CELLS", 1000)
    monkeypatch.setattr(streaming, "GROUP_BYTES", 5000)
    monkeypatch.setattr(streaming, "PART_BYTES", 20_000)
    monkeypatch.setattr(files.Source.batches, "__defaults__", (None, 1000))
    Path("many").mkdir()  # an empty folder is replaced
    model.transform_to("t.parquet", "many")
    assert len(os.listdir("many")) > 3
    assert_frame_equal(pd.read_parquet("many"), model.transform(few), check_exact=True)
    assert pq.read_metadata("many/part-00000.parquet").num_row_groups > 1
    with pytest.raises(FileExistsError, match=r"'many', a folder that is not empty; wanted a new"):
        model.transform_to("t.parquet", "many")
    assert temporary_in() == []


def test_other_file_systems(here, few, model):
    fsspec = pytest.importorskip("fsspec")
    few.to_parquet("t.parquet")
    expected = model.transform(few)
    model.transform_to(f"file://{here}/t.parquet", f"file://{here}/s.parquet")
    assert_frame_equal(pd.read_parquet("s.parquet"), expected, check_exact=True)
    memory = fsspec.filesystem("memory")
    try:
        for _ in range(2):  # what is there is replaced
            model.transform_to("t.parquet", "memory://bucket/s.parquet")
        assert memory.find("/") == ["/bucket/s.parquet"]
        memory.put("t.parquet", "/bucket/t/0.parquet")
        assert_array_equal(NMFFeatures(3, variables=VARIABLES).fit("memory://bucket/t").components_, model.components_)
        model.transform_to("memory://bucket/t/0.parquet", "o.parquet")
        assert_frame_equal(pd.read_parquet("o.parquet"), expected, check_exact=True)
        with pytest.raises(ValueError, match=r"the folder .* on another system"):
            model.transform_to("t.parquet", "memory://bucket/s")
        with pytest.raises(ValueError, match="from which the rows are read"):
            model.transform_to("memory://bucket/t/0.parquet", "memory://bucket/t/0.parquet")
        with pytest.raises(FileNotFoundError, match="no file or folder"):
            NMFFeatures().fit("memory://bucket/nothing")
        few.assign(f="x").to_parquet("t.parquet")
        with pytest.raises(ValueError, match="not numeric"):
            model.transform_to("t.parquet", "memory://bucket/s.parquet")
        assert memory.find("/") == ["/bucket/s.parquet", "/bucket/t/0.parquet"]
    finally:
        memory.rm("/bucket", recursive=True)


# Faults: an error that names the file, and nothing is left


def cut(path, share):
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: int(share * len(data))])


def spoil(path):
    data = bytearray(Path(path).read_bytes())
    data[4:4000] = b"\xff" * 3996
    Path(path).write_bytes(data)


def folder_of(few, second):
    Path("t").mkdir()
    few.to_parquet("t/0.parquet")
    second(few)
    return "t"


def written(frame, name, **how):
    frame.to_csv(name, index=False) if name.endswith(".csv") else frame.to_parquet(name, **how)
    return name


def broken(few, how, name="t.parquet", **options):
    written(few, name, row_group_size=1000)
    how(name, **options)
    return name


def words_at_the_end(few):
    name = written(few[VARIABLES], "t.csv")
    with open(name, "a") as handle:
        handle.write("1,2,oops,4,5,6\n")
    return name


def text(name, content):
    Path(name).write_bytes(content)
    return name


FAULTS = {
    "not there": (lambda few: "nothing.parquet", "'nothing.parquet', where there is no file"),
    "empty": (lambda few: text("t.parquet", b""), r"t.parquet.*0 bytes"),
    "truncated": (lambda few: broken(few, cut, share=0.5), "t.parquet.*corrupted"),
    "corrupt": (lambda few: broken(few, spoil), "t.parquet, row group"),
    "no tables": (lambda few: os.mkdir("t") or "t", "t has no file of a known kind; wanted one of"),
    "two kinds": (lambda few: folder_of(few, lambda f: written(f, "t/1.csv")), "several kinds"),
    "lacks a column": (
        lambda few: folder_of(few, lambda f: f.rename(columns={"c": "q"}).to_parquet("t/1.parquet")),
        r"t/1.parquet has other columns than the first file: \{'c': 'is not there'\}",
    ),
    "another type": (
        lambda few: folder_of(few, lambda f: f.assign(c="x").to_parquet("t/1.parquet")),
        r"t/1.parquet has other columns than the first file: \{'c': '.*string'\}; wanted \{'c': 'double'\}",
    ),
    "second is broken": (lambda few: folder_of(few, lambda f: broken(f, cut, "t/1.parquet", share=0.3)), "t/1.parquet"),
    "words at the end": (words_at_the_end, "t.csv: .*'oops'. The types of a CSV file come from its first"),
    "empty csv": (lambda few: text("t.csv", b""), "t.csv.*Empty CSV"),
    "semicolons": (lambda few: text("t.csv", b"a;b\n1;2\n"), "one column, 'a;b'; wanted columns separated by commas"),
    "twice": (lambda few: text("t.csv", b"a,a\n1,2\n"), "t.csv.*multiple columns named a"),
    "short row": (lambda few: text("t.csv", b"a,b\n1,2\n3\n"), "t.csv.*Expected 2 columns, got 1"),
    "header not utf-8": (lambda few: text("t.csv", "a,größe\n1,2\n".encode("latin1")), "t.csv: 'utf-8' codec"),
    "not utf-8": (lambda few: text("t.csv", b"a,b,c\n1,2,3\n\xff,3,4\n"), r"not UTF-8: \['a'\]"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(here, few, model, monkeypatch, fault):
    monkeypatch.setattr(files, "CSV_BLOCK", 1 << 14)
    make, what = FAULTS[fault]
    source = make(few)
    Path("s.parquet").write_text("what was there")
    before = listing()
    for budget in (None, 1000):
        with pytest.raises((ValueError, OSError), match=f"(?s){what}"):
            NMFFeatures(3, variables=VARIABLES, memory_budget=budget).fit(source)
    with pytest.raises((ValueError, OSError), match=f"(?s){what}"):
        model.transform_to(source, "s.parquet")
    assert listing() == before
    assert Path("s.parquet").read_text() == "what was there"


@pytest.mark.parametrize("folder", [False, True])
def test_a_file_that_grows_while_it_is_read(here, few, model, folder):
    few.to_csv("t.csv", index=False)
    source = files.opened("t.csv")

    def grow(_):
        with open("t.csv", "a") as handle:
            handle.write("1,2,u,4,5,6,7,8,1\n")

    source.told = grow
    with pytest.raises(ValueError, match=r"t.csv changed while it was read"):
        model.transform_to(source, "s" if folder else "s.parquet")
    with pytest.raises(ValueError, match=r"t.csv changed while it was read"):
        NMFFeatures().fit(source)
    assert listing() == ["t.csv"]
    assert temporary_in() == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda t: t.iloc[:0], "X has no rows"),
        (lambda t: t.assign(weight=0.0), "'weight' is zero in all rows"),
        (
            lambda t: t.assign(weight=t["weight"].where(t.index != 2900)),
            r"t.parquet, row group 2: .*'weight' has weights",
        ),
        (lambda t: t.assign(b=t["b"].where(t.index != 2900)), r"t.parquet, row group 2: X has NaN .*\{'b': 1\}"),
        (lambda t: t.assign(b=t["b"].where(t.index != 2900, np.inf)), r"t.parquet, row group 2: X has infinite"),
        (lambda t: t[["kind"]].assign(y=1.0, weight=1.0), "no numeric column"),
    ],
)
def test_rows_that_cannot_be_fitted(here, few, monkeypatch, change, what):
    monkeypatch.setattr(files.Source.batches, "__defaults__", (None, 1000 * 7))  # columns and weights of a row group
    change(few).to_parquet("t.parquet", row_group_size=1000)
    for budget in (None, 1000):
        with pytest.raises(ValueError, match=what):
            NMFFeatures(3, memory_budget=budget).fit("t.parquet", "y", sample_weight="weight")


@pytest.mark.parametrize(
    ("y", "sample_weight", "what"),
    [
        ("price", None, "y is 'price', and X is a table in files; wanted the name of one of its columns"),
        (np.ones(3000), None, "y is of type ndarray"),
        (None, "v", "sample_weight is 'v'"),
        (None, np.ones(3000), "sample_weight is of type ndarray"),
    ],
)
def test_columns_that_are_not_there(here, few, y, sample_weight, what):
    few.to_parquet("t.parquet")
    with pytest.raises(ValueError, match=what):
        NMFFeatures().fit("t.parquet", y, sample_weight=sample_weight)


@pytest.mark.parametrize("method", ["transform", "fit_transform", "score", "impute", "unexplained", "drift"])
def test_what_needs_rows_in_memory(here, few, model, method):
    few.to_parquet("t.parquet")
    for X in ("t.parquet", Path("t.parquet"), pa.dataset.dataset("t.parquet")):
        with pytest.raises(ValueError, match=r"transform_to\(source, destination\)"):
            getattr(model, method)(X)


@pytest.mark.parametrize(
    ("change", "destination", "what"),
    [
        (lambda t: t, "t/0.parquet", "'t/0.parquet', from which the rows are read"),
        (lambda t: t, "t/new.parquet", "from which the rows are read"),
        (lambda t: t, "t", "not empty|from which the rows are read"),
        (lambda t: t, ".", "from which the rows are read"),
        (lambda t: t, "s.csv", "wanted a name that ends in .parquet, or the name of a folder"),
        (lambda t: t, "no/s.parquet", "cannot write no/s.parquet: there is no folder"),
        (lambda t: t.drop(columns=["b", "d"]), "s", r"lacks the columns \['b', 'd'\]"),
        (lambda t: t.assign(NNMF2=1), "s", r"columns \['NNMF2'\], named like the components"),
    ],
)
def test_what_is_not_written(here, few, model, change, destination, what):
    Path("t").mkdir()
    change(few).to_parquet("t/0.parquet")
    before = Path("t/0.parquet").read_bytes()
    with pytest.raises((ValueError, OSError), match=what):
        model.transform_to("t", destination)
    assert listing() == ["t/0.parquet"]
    assert Path("t/0.parquet").read_bytes() == before
    with pytest.raises(ValueError, match="fitted to an array"):
        NMFFeatures().fit(few[VARIABLES].to_numpy()).transform_to("t", "s")


# Whole or not at all


def test_what_is_there_stays_until_the_end(here, few, model):
    few.to_parquet("t.parquet")
    Path("place").mkdir()
    Path("place/s.parquet").write_text("what was there")
    os.chmod("place/s.parquet", 0o640)
    os.symlink("place/s.parquet", "s.parquet")
    source, seen = files.opened("t.parquet"), []
    source.told = lambda _: seen.append((Path("s.parquet").read_text(), temporary_in("place")))
    model.transform_to(source, "s.parquet")
    assert seen == [("what was there", [".s.parquet.nmf-features.tmp"])]
    assert Path("s.parquet").is_symlink()
    assert os.stat("place/s.parquet").st_mode & 0o777 == 0o640
    assert os.listdir("place") == ["s.parquet"]
    assert len(pd.read_parquet("s.parquet")) == len(few)


@pytest.mark.parametrize("destination", ["s.parquet", "s"])
def test_one_writer_at_a_time(here, few, model, destination):
    fcntl = pytest.importorskip("fcntl")
    few.to_parquet("t.parquet")
    leftover = Path(f".{destination}.nmf-features.tmp")
    if destination == "s":
        leftover.mkdir()
        (leftover / "part-00007.parquet").write_text("of a process that was killed")
    else:
        leftover.write_text("of a process that was killed" * 100_000)
    handle = os.open(leftover, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(ValueError, match=f"another process is writing {destination}"):
        model.transform_to("t.parquet", destination)
    assert leftover.exists()  # it belongs to the other
    os.close(handle)
    model.transform_to("t.parquet", destination)
    assert not leftover.exists()
    assert_frame_equal(pd.read_parquet(destination), model.transform(few), check_exact=True)


KILLS = """
import os, pickle, random, signal, sys, tempfile, time
import pyarrow
from nmf_features import NMFFeatures, streaming

streaming.GROUP_BYTES, streaming.PART_BYTES = 1 << 16, 1 << 17
pyarrow.set_cpu_count(1)
tempfile.gettempdir()  # Python tries the folder with a small file, once in a process
model = pickle.load(open("model", "rb"))
model.transform_to("t.parquet", "warm.parquet")
random.seed(int(sys.argv[1]))
works = [
    lambda: model.transform_to("t.parquet", "s.parquet"),
    lambda: model.transform_to("t.parquet", "s"),
    lambda: NMFFeatures(3, variables=[*"abcdef"], memory_budget=1 << 16, n_jobs=1, tol=1e-9).fit("t.parquet"),
]
for i in range(9):
    child = os.fork()
    if not child:
        code = 1
        try:
            works[i % 3]()
            code = 0
        except FileExistsError:
            code = 0  # an earlier child was done before it was killed
        finally:
            os._exit(code)
    time.sleep(random.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    print(os.waitpid(child, 0)[1], sorted(os.listdir()), os.listdir(os.environ["TMPDIR"]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked, then killed")
def test_kills(here, rows, few, model):
    rows.to_parquet("t.parquet", row_group_size=1000)
    few.to_parquet("few.parquet")
    pd.to_pickle(NMFFeatures(3, variables=VARIABLES, n_jobs=1).fit(few), "model")
    Path("script.py").write_text(KILLS)
    Path("tmp").mkdir()
    model.transform_to("few.parquet", "s.parquet")
    old = Path("s.parquet").read_bytes()
    inputs = set(os.listdir())
    done = subprocess.run(
        [sys.executable, "script.py", str(time.time_ns())],
        env={**os.environ, "TMPDIR": f"{here}/tmp"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 9, done.stderr
    assert {line.split()[0] for line in lines} in ({"9"}, {"0", "9"})  # killed, or done before that
    assert all(line.endswith(" []") for line in lines), lines  # no temporary file of a fit
    litter = {".s.parquet.nmf-features.tmp", ".s.nmf-features.tmp"}
    assert set(os.listdir()) - inputs <= {*litter, "s", "warm.parquet"}
    whole = pd.read_parquet("warm.parquet")
    if Path("s.parquet").read_bytes() != old:
        assert_frame_equal(pd.read_parquet("s.parquet"), whole)
    if Path("s").exists():
        assert_frame_equal(pd.read_parquet("s"), whole)
        Path("s").rename("s_of_a_child")
    for name in ("s.parquet", "s"):
        model.transform_to("t.parquet", name)  # starts again cleanly
        assert_frame_equal(pd.read_parquet(name), whole)
    assert temporary_in() == []


FULL = """
import os, pickle, resource
from nmf_features import NMFFeatures

model = pickle.load(open("model", "rb"))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for work in (
    lambda: model.transform_to("t.parquet", "s.parquet"),
    lambda: model.transform_to("t.parquet", "s"),
    lambda: NMFFeatures(3, memory_budget=1 << 16).fit("t.parquet"),
):
    try:
        work()
    except OSError as error:
        print(error)
"""


def test_no_room(here, few, model):
    pytest.importorskip("resource")
    few.to_parquet("t.parquet")
    pd.to_pickle(model.set_params(drop_original=False), "model")
    model.set_params(drop_original=True)
    before = listing()
    done = subprocess.run([sys.executable, "-c", FULL], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    assert "cannot write s.parquet: " in lines[0]
    assert "cannot write s: " in lines[1]
    assert "Set the environment variable TMPDIR to a folder with more room, or raise memory_budget" in lines[2]
    assert listing() == before
    assert temporary_in() == []


# The command line


def run(*arguments):
    assert cli.main([str(a) for a in arguments]) == 0


def refused(capsys, *arguments):
    capsys.readouterr()
    assert cli.main([str(a) for a in arguments]) == 2
    return capsys.readouterr().err


@pytest.fixture
def streams(monkeypatch):
    """How often the command line wrote in a stream."""
    calls = []
    plain = streaming.transform_to
    monkeypatch.setattr(streaming, "transform_to", lambda *a: calls.append(a[2]) or plain(*a))
    return calls


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_commands_on_a_folder(here, few, capsys, streams, suffix):
    Path("t").mkdir()
    for i in range(3):
        WRITERS[suffix](few.iloc[i * 1000 : (i + 1) * 1000].drop(columns=["weight"]), f"t/{i}{suffix}")
    run("fit", "t", "--target", "y", "--n-components", 3, "--model", "m.skops", "--out", "s")
    assert capsys.readouterr().out.startswith("3 components of 6 columns, from 3000 rows\n")
    run("check", "s", "--model", "m.skops")
    run("transform", "t", "--model", "m.skops", "--out", "s.parquet")
    run("check", "s.parquet", "--model", "m.skops")
    assert [str(path) for path in streams] == ["s", "s.parquet"]
    expected = NMFFeatures(3, variables=VARIABLES).fit_transform(few.drop(columns=["weight"]))
    for name in ("s", "s.parquet"):
        assert_frame_equal(pd.read_parquet(name), expected, check_exact=True)
    run("fit", "t", "--target", "y", "--n-components", 2, "--out", "other")
    assert "of different fits" in refused(capsys, "check", "other", "--model", "m.skops")
    assert "not empty" in refused(capsys, "transform", "t", "--model", "m.skops", "--out", "s")
    assert "wanted --out as .parquet" in refused(capsys, "transform", "t", "--model", "m.skops", "--out", "s.csv")
    assert "--target has ['z']" in refused(capsys, "fit", "t", "--target", "z", "--model", "m2")
    assert "not a file" in refused(capsys, "select", "t")
    assert temporary_in() == []


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz"])
def test_a_file_above_the_budget(here, few, streams, suffix):
    WRITERS[suffix](few, f"t{suffix}")
    common = ["--target", "y", "--target", "weight", "--model", "m.skops"]
    run("fit", f"t{suffix}", "--out", "small.parquet", *common)
    run("transform", f"t{suffix}", "--model", "m.skops", "--out", "s.csv", "--memory-budget", "100KB")
    assert streams == []  # pandas writes CSV, and what fits in the budget
    run("transform", f"t{suffix}", "--model", "m.skops", "--out", "large.parquet", "--memory-budget", "100KB")
    assert_frame_equal(pd.read_parquet("large.parquet"), pd.read_parquet("small.parquet"), check_exact=True)
    run("fit", f"t{suffix}", "--out", "s.parquet", *common, "--memory-budget", "100 kB")
    assert [str(path) for path in streams] == ["large.parquet", "s.parquet"]
    large, small = (pd.read_parquet(name)["NNMF1"] for name in ("s.parquet", "small.parquet"))
    assert_allclose(large, small, rtol=0.05, atol=0.05)  # the same but for where the fit stops


def test_row_numbers_in_a_stream(here, few, capsys):
    few[VARIABLES].to_csv("t.csv")
    assert "without a name" in refused(capsys, "fit", "t.csv", "--model", "m", "--memory-budget", "1000")
    run("fit", "t.csv", "--target", "", "--model", "m", "--out", "s.parquet", "--memory-budget", "1000")
    few.iloc[:0].to_parquet("t.parquet")
    assert "t.parquet has no rows" in refused(capsys, "transform", "t.parquet", "--model", "m", "--out", "s")


@pytest.mark.parametrize(
    ("given", "n"), [("500000", 500_000), ("2GB", 2 * 10**9), ("1.5 KiB", 1536), ("3m", 3 * 10**6), ("7B", 7)]
)
def test_sizes(given, n):
    assert cli._bytes(given) == n


@pytest.mark.parametrize("given", ["many", "-1", "0", "1e9", "5XB"])
def test_sizes_that_are_none(here, few, capsys, given):
    few.to_csv("t.csv")
    assert "wanted a number of bytes, like" in refused(capsys, "fit", "t.csv", f"--memory-budget={given}")


def test_progress(here, few, capsys, monkeypatch):
    few.to_parquet("t.parquet")
    now = iter(range(100))
    monkeypatch.setattr(cli.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run("fit", "t.parquet", "--target", "y", "--out", "s")
    shown = capsys.readouterr().err
    assert "\rfit: 3,000 rows read of 3,000, 0 s left" in shown
    assert "\rtransform: 3,000 rows read of 3,000, 0 s left" in shown


def test_names_of_folders_become_a_column(tmp_path):
    """As for pandas, folders named year=2024 are categories: no feature, and kept beside the components."""
    rng = np.random.default_rng(0)
    for year in (2023, 2024):
        (tmp_path / "in" / f"year={year}").mkdir(parents=True)
        frame = pd.DataFrame(rng.uniform(size=(30, 4)), columns=list("abcd"))
        frame.to_parquet(tmp_path / "in" / f"year={year}" / "rows.parquet")
    nmf = NMFFeatures(2).fit(tmp_path / "in")
    assert nmf.variables_ == list("abcd")
    nmf.transform_to(tmp_path / "in", tmp_path / "out")
    scored = pd.read_parquet(tmp_path / "out")
    assert scored.columns.tolist() == ["year", "NNMF1", "NNMF2"]
    assert scored["year"].astype(int).tolist() == [2023] * 30 + [2024] * 30


# Paths, types and folders that are told in other words


@pytest.mark.parametrize("path", ["run=3/t", "./run=3/t", "run=3/t//", "run=3/../run=3/t", Path("run=3/t")])
def test_a_folder_however_it_is_called(here, few, monkeypatch, path):
    """No file is taken for a hidden one, and no folder above makes a column."""
    for i, part in enumerate(["year=2023", "year=2024", ".hidden"]):
        Path("run=3/t", part).mkdir(parents=True)
        few.iloc[i * 1000 : (i + 1) * 1000].to_parquet(f"run=3/t/{part}/0.parquet")
    source = files.opened(path)
    assert source.count_rows() == 2000
    assert source.schema.names == [*few.columns, "year"]
    monkeypatch.chdir("run=3/t")
    for name in (".", "./", "../t", Path()):
        assert files.opened(name).count_rows() == 2000
        assert files.opened(name).schema.names == [*few.columns, "year"]
    monkeypatch.chdir("year=2023")
    assert files.opened("..").count_rows() == 2000


def test_a_folder_elsewhere_however_it_is_called(here, few):
    fsspec = pytest.importorskip("fsspec")
    few.to_parquet("0.parquet")
    memory = fsspec.filesystem("memory")
    try:
        for name in ("year=2023/0.parquet", "year=2024/0.parquet", "_old/0.parquet"):
            memory.put("0.parquet", f"/_bucket/t/{name}")
        for path in ("memory://_bucket/t", "memory://_bucket/t/", "memory://_bucket/t//"):
            assert files.opened(path).count_rows() == 6000
            assert files.opened(path).schema.names[-1] == "year"
    finally:
        memory.rm("/_bucket", recursive=True)


def test_lists_and_patterns(here, few, model):
    for year in (2023, 2024):
        Path(f"t/year={year}").mkdir(parents=True)
        for part in (0, 1):
            few.iloc[part * 700 : (part + 1) * 700].to_parquet(f"t/year={year}/{part}.parquet")
    Path("t/year=2023/notes.txt").write_text("")
    inner = [f"t/year={year}/0.parquet" for year in (2023, 2024)]
    expected = NMFFeatures(2, variables=VARIABLES).fit(pd.concat([few.iloc[:700]] * 2))
    for X in (inner, [*map(Path, inner)], tuple(inner), "t/*/0.parquet", Path("t/**/0.*"), f"{here}/t/year=202?/0.p*"):
        assert files.opened(X).files[-1].endswith(inner[-1])
        assert_array_equal(NMFFeatures(2, variables=VARIABLES).fit(X).components_, expected.components_)
        assert ("year" in files.opened(X).schema.names) == isinstance(X, str | Path)  # said by folders that are found
        model.transform_to(X, "s.parquet")
        assert pq.read_metadata("s.parquet").num_rows == 1400
    assert files.opened("t/year=2023/*").count_rows() == 1400  # other files are none of the table
    few.to_parquet("[x].parquet")
    assert files.opened("[x].parquet").count_rows() == 3000  # a name, though it looks like a pattern


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (["0.parquet", "1.parquet"], FileNotFoundError, r"list of paths with \['1.parquet'\], where there is no file"),
        (["0.parquet", "0.p*"], FileNotFoundError, r"\['0.p\*'\], .*A pattern stands alone, not in a list: glob.glob"),
        (["0.parquet", "."], FileNotFoundError, r"list of paths with \['.'\], where there is no file"),
        (["0.parquet", "0.parquet"], ValueError, r"'0.parquet'\] more than once"),
        (["0.parquet", "0.csv"], ValueError, "files of several kinds"),
        (["0.parquet", "0.txt"], ValueError, "files of several kinds"),
        (["0.parquet", "memory://0.parquet"], ValueError, "several systems"),
        (["0.parquet", "other.parquet"], ValueError, "other.parquet has other columns than the first file"),
        ("?.feather", FileNotFoundError, "'.*feather', which no file matches"),
        ("*.txt", ValueError, "no file of a known kind"),
    ],
)
def test_lists_and_patterns_that_are_refused(here, few, X, error, message):
    few.to_parquet("0.parquet")
    few.astype({"a": "float32"}).to_parquet("other.parquet")
    few.to_csv("0.csv")
    Path("0.txt").write_text("")
    with pytest.raises(error, match=message):
        NMFFeatures(2, variables=VARIABLES).fit(X)


def test_a_pattern_does_not_write_to_what_it_finds(here, few, model):
    few.to_parquet("0.parquet")
    for X in ("?.parquet", ["0.parquet"]):
        with pytest.raises(ValueError, match="from which the rows are read"):
            model.transform_to(X, "0.parquet")
    run("fit", "?.parquet", "--target", "y", "--model", "m.skops", "--out", "s")
    run("transform", "?.parquet", "--model", "m.skops", "--out", "u.parquet")
    assert pq.read_metadata("u.parquet").num_rows == 3000


def test_names_of_columns_that_pandas_does_not_read_as_words(here, few, model):
    """Nor would it read those of the components as numbers."""
    frame = few[VARIABLES].set_axis(range(6), axis=1)
    frame.to_parquet("t.parquet")
    NMFFeatures(2).fit("t.parquet").transform_to("t.parquet", "s.parquet")
    assert pd.read_parquet("s.parquet").columns.tolist() == ["NNMF1", "NNMF2"]


# Rows that are in memory, and rows that are not


def test_partial_fit_of_files(here, few):
    first, then = few.iloc[:2000], few.iloc[2000:]
    then.iloc[::-1, ::-1].to_parquet("t.parquet", row_group_size=300)
    then.drop(columns="kind").to_csv("t.csv", index=False)
    for weight in (None, "weight"):
        expected = NMFFeatures(3, variables=VARIABLES).fit(first)
        expected.partial_fit(then, sample_weight=None if weight is None else then[weight])
        for X in ("t.parquet", ["t.csv"], pa.dataset.dataset("t.parquet")):
            found = NMFFeatures(3, variables=VARIABLES).fit(first).partial_fit(X, sample_weight=weight)
            assert_allclose(found.components_, expected.components_, rtol=1e-12)
    with pytest.raises(ValueError, match=r"sample_weight is 'w', and X is a table in files"):
        found.partial_fit("t.csv", sample_weight="w")
    with pytest.raises(ValueError, match=r"t.csv is larger than memory_budget, and a batch has to be in memory"):
        found.set_params(memory_budget=BUDGET).partial_fit("t.csv")
    few[["a", "b"]].to_csv("t.csv", index=False)
    with pytest.raises(ValueError, match=r"t.csv lacks the columns \['c', 'd', 'e', 'f'\]"):
        found.partial_fit("t.csv")
    with pytest.raises(ValueError, match="fitted to an array"):
        NMFFeatures(3).fit(first[VARIABLES].to_numpy()).partial_fit("t.csv")


@pytest.mark.parametrize("X", ["t.parquet", ["t.parquet"], Path("t.parquet")])
def test_what_wants_rows_in_memory_says_so(here, few, model, X):
    few.to_parquet("t.parquet")
    calls = [model.transform, model.fit_transform, model.score, model.inverse_transform, model.report, nnmf]
    calls += [select_components, partial(penalty_path, n_components=2), partial(stability, n_components=2)]
    calls += [NonNegativeScaler().fit, NonNegativeScaler().fit(few[VARIABLES]).transform]
    calls += [partial(nnmf, target="y")]
    for call in calls:
        with pytest.raises(ValueError, match=r"X is .*t.parquet.*wanted rows in memory"):
            call(X)


def test_names_are_not_for_rows_in_memory(few):
    for names in ({"y": "y"}, {"sample_weight": "weight"}):
        with pytest.raises(ValueError, match=r"wanted one value for each row, such as X\["):
            NMFFeatures(3, variables=VARIABLES).fit(few, **names)


def test_rows_in_memory_are_not_for_transform_to(here, few, model):
    with pytest.raises(TypeError, match=r"source is of type pandas.DataFrame; wanted a table in files"):
        model.transform_to(few, "s.parquet")


@pytest.mark.parametrize("case", ["plain", "split", "missing", "scores", "single", "target"])
def test_a_budget_holds(here, case):
    """What is asked for while a table is fitted in memory stays below what is said to be needed, and near it."""
    rng, n, dtype = np.random.default_rng(0), 60_000, np.float32 if case == "single" else np.float64
    X = (rng.gamma(1, 1, (n, 3)) @ rng.gamma(0.5, 1, (3, 8)) + rng.random((n, 8))).astype(dtype)
    if case == "missing":
        X[rng.random(X.shape) < 0.1] = np.nan
    pd.DataFrame(X, columns=list("abcdefgh")).to_parquet("t.parquet")
    del X
    others = {"split": {"shift": "split"}, "missing": {"missing_values": "ignore"}, "target": {"target_weight": 1}}
    model = NMFFeatures(7 if case == "scores" else 2, memory_budget=1 << 40, tol=1e-3, n_jobs=1, **others.get(case, {}))
    y = "h" if case == "target" else None
    model.fit("t.parquet", y)  # kernels are loaded
    tracemalloc.start()
    model.fit("t.parquet", y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    needed = sources.bytes_of_fit(model.columns_, n, dtype, case == "missing")
    assert 0.3 * needed < peak < needed


@pytest.mark.parametrize("name", ["_x.parquet", ".x.csv", "_dir/_x.parquet", "./_x.csv"])
def test_a_file_is_read_whatever_its_name(here, few, model, name):
    Path("_dir").mkdir()
    WRITERS[Path(name).suffix](few, name)
    assert_array_equal(NMFFeatures(3, variables=VARIABLES).fit(name).components_, model.components_)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_column_named_like_a_part_of_a_folder(here, few, suffix):
    for year, frame in ((2021, few), (2022, few.drop(columns=["a"]))):
        Path(f"t/year={year}").mkdir(parents=True)
        WRITERS[suffix](frame, f"t/year={year}/0{suffix}")
    with pytest.raises(ValueError, match=rf"year=2022/0{suffix} has other columns.*'a': 'is not there'"):
        NMFFeatures(2, variables=["a", "b"]).fit("t")


def test_a_csv_column_that_begins_without_a_value(here, few, monkeypatch):
    monkeypatch.setattr(files, "CSV_BLOCK", 1 << 14)
    monkeypatch.setattr(files.Source.batches, "__defaults__", (None, 1000))
    gaps = few[VARIABLES].assign(c=few["c"].where(few.index > 1000), v=1.0)
    gaps["v"] = gaps["v"].where(gaps.index > 1000)
    gaps.to_csv("t.csv", index=False)
    options = {"missing_values": "ignore", "max_iter": 20, "tol": 0.1}
    with pytest.warns(UserWarning, match=r"t.csv has the columns \['c'\] without a value.*name them in variables"):
        assert NMFFeatures(2, **options).fit("t.csv", "v").variables_ == list("abdef")
    found = NMFFeatures(2, variables=VARIABLES, **options).fit("t.csv")
    expected = NMFFeatures(2, variables=VARIABLES, **options).fit(pd.read_csv("t.csv", **cli.EXACT))
    assert_array_equal(found.components_, expected.components_)
    with pytest.warns(UserWarning, match=r"t.csv has the columns \['v'\] without a value.*and written as such"):
        found.transform_to("t.csv", "s.parquet")
    assert_array_equal(pd.read_parquet("s.parquet")["NNMF1"], found.transform(gaps)["NNMF1"])
    gaps.assign(v=None).to_csv("u.csv", index=False)
    found.transform_to("u.csv", "s.parquet")  # a column that stays empty is no news
    with pytest.raises(ValueError, match=r"targets \['v'\], and t.csv has no value of them in .* knows their"):
        NMFFeatures(2, target_weight=1, variables=VARIABLES, **options).fit("t.csv", "v")
    with pytest.raises(ValueError, match="'v' has weights that are negative, missing"):  # as numbers, not as words
        NMFFeatures(2, variables=VARIABLES, **options).fit("t.csv", sample_weight="v")


def test_csv_columns_that_begin_with_whole_numbers(here, few, monkeypatch):
    monkeypatch.setattr(files, "CSV_BLOCK", 1 << 14)
    halves = few.assign(weight=1, n=1).astype({"weight": object, "n": object})
    halves.loc[[150, 2900], ["weight", "n"]] = 0.5
    halves.to_csv("t.csv", index=False)
    v = halves["weight"].astype(float)
    expected = NMFFeatures(3, variables=VARIABLES).fit(few, sample_weight=v)
    found = NMFFeatures(3, variables=VARIABLES).fit("t.csv", sample_weight="weight")
    assert_array_equal(found.components_, expected.components_)
    told = r"t.csv: .*'0.5'. The types .* first 0 MB, where .* no such cell.*pyarrow.dataset.dataset\(path, schema, "
    with pytest.raises(ValueError, match=told):
        found.transform_to("t.csv", "s.parquet")
    schema = pa.dataset.dataset("t.csv", format="csv").schema
    for name in ("n", "weight"):
        schema = schema.set(schema.get_field_index(name), pa.field(name, pa.float64()))
    found.transform_to(pa.dataset.dataset("t.csv", schema, format="csv"), "s.parquet")  # what the error says
    assert pd.read_parquet("s.parquet")["n"].min() == 0.5


@pytest.mark.parametrize("parts", [["2021", "2022"], ["u", "v"], ["2021", "__HIVE_DEFAULT_PARTITION__"]])
def test_folders_are_read_by_pages(here, few, monkeypatch, parts):
    """A column that the names of folders make does not have whole row groups decoded."""
    for i, part in enumerate(parts):
        Path(f"t/part={part}/x=1").mkdir(parents=True)
        few.iloc[i * 1500 : (i + 1) * 1500].to_parquet(f"t/part={part}/x=1/0.parquet")
    source = files.opened("t")
    expected = source.dataset.to_table(["part", "a", "x"])
    read, plain = [], pq.ParquetFile
    monkeypatch.setattr(pq, "ParquetFile", lambda name, **how: read.append(name) or plain(name, **how))
    batches = [batch for batch, _ in source.batches(["part", "a", "x"], 2100)]
    assert read == source.files
    assert [len(batch) for batch in batches] == [700, 700, 100] * 2
    found = pa.concat_tables(batches)
    assert found.schema.names == ["part", "a", "x"]
    assert found.schema.types == expected.schema.types
    assert found.to_pylist() == expected.to_pylist()
    NMFFeatures(2, variables=["a", "b"]).fit(few).transform_to("t", "s.parquet")
    assert pq.read_table("s.parquet")["part"].to_pylist() == expected["part"].to_pylist()


def test_no_components_with_a_target(here, few):
    few.to_parquet("t.parquet")
    few.iloc[:0].to_parquet("none.parquet")
    assert NMFFeatures(0, target_weight=1).fit("t.parquet", "y").n_components_ == 0
    with pytest.raises(ValueError, match="requires y to be passed"):
        NMFFeatures(0, target_weight=1).fit("t.parquet")
    with pytest.raises(ValueError, match="X has no rows"):
        NMFFeatures(0, target_weight=1).fit("none.parquet", "y")


def test_what_a_killed_process_left_of_the_other_kind(here, few, model):
    few.to_parquet("t.parquet")
    leftover = Path(".s.parquet.nmf-features.tmp")
    leftover.mkdir()
    (leftover / "part-00000.parquet").write_text("of a process that was killed")
    model.transform_to("t.parquet", "s.parquet")
    assert Path("s.parquet").is_file()
    Path("s.parquet").unlink()
    Path("s.parquet").mkdir()
    leftover.write_text("of a process that was killed")
    model.transform_to("t.parquet", "s.parquet")
    assert os.listdir("s.parquet") == ["part-00000.parquet"]
    assert not leftover.exists()
    assert_frame_equal(pd.read_parquet("s.parquet"), model.transform(few), check_exact=True)


def test_the_schema_of_a_dataset_is_the_users_choice(here, few, model):
    few = few.assign(a=few["a"].round())
    few.iloc[:1500].astype({"a": "int64"}).to_parquet("0.parquet")
    few.iloc[1500:].to_parquet("1.parquet")
    schema = pa.dataset.dataset("1.parquet").schema
    both = pa.dataset.dataset(["0.parquet", "1.parquet"], schema=schema)
    expected = NMFFeatures(3, variables=VARIABLES).fit(few)
    assert_array_equal(NMFFeatures(3, variables=VARIABLES).fit(both).components_, expected.components_)
    model.transform_to(both, "s.parquet")
    assert_frame_equal(pd.read_parquet("s.parquet"), model.transform(few), check_exact=True)
    few.drop(columns=["a"]).to_parquet("0.parquet")
    with pytest.raises(ValueError, match=r"0.parquet has other columns .*'a': 'is not there'"):
        NMFFeatures(3, variables=VARIABLES).fit(pa.dataset.dataset(["0.parquet", "1.parquet"], schema=schema))
