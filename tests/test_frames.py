"""Frames of every kind: the same numbers, the same kind out, and nothing lost on the way."""

import cProfile
import pstats
import sys
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from conftest import to_pandas
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from sklearn import config_context

from nmf_features import NMFFeatures, NonNegativeScaler, nnmf, select_components

NUMERIC = [f"c{j}" for j in range(6)]
ROUNDING = dict(rtol=1e-12, atol=1e-12)  # the same numbers are computed in the same order


@pytest.fixture
def holed(table):
    """The table with a few missing cells, one of them in a word."""
    table = table.astype({"kind": object})
    for row, column in [(1, "c0"), (1, "c3"), (7, "c5"), (8, "kind")]:
        table.iloc[row, table.columns.get_loc(column)] = None
    return table


def assert_same(found, expected, like):
    """Check the kind of a frame, its index, and its cells."""
    assert type(found) is type(like)
    if isinstance(like, pd.DataFrame):
        assert found.index.equals(like.index)
        assert found.index.names == like.index.names
    assert_frame_equal(to_pandas(found), to_pandas(expected), check_exact=False, **ROUNDING)


ROWS = {
    "transform": lambda nmf, X: nmf.transform(X),
    "fit_transform": lambda nmf, X: nmf.fit_transform(X),
    "inverse_transform": lambda nmf, X: nmf.inverse_transform(nmf.transform(X)),
    "unexplained": lambda nmf, X: nmf.unexplained(X),
    "kept": lambda nmf, X: nmf.set_params(drop_original=False).transform(X),
    "nnmf": lambda nmf, X: nnmf(X, target=["c0", "kind"]),
}


@pytest.mark.parametrize("method", ROWS)
@pytest.mark.parametrize("settings", [{}, dict(shift="split"), dict(variables=["c4", "flag", "c1"])], ids=str)
def test_methods_that_return_rows_agree(table, to_frame, settings, method):
    X, of = to_frame(table), ROWS[method]
    found, expected = (of(NMFFeatures(2, **settings).fit(frame), frame) for frame in (X, table))
    assert_same(found, expected, X)


@pytest.mark.parametrize("method", ["transform", "fit_transform", "unexplained", "impute"])
def test_missing_cells_agree(holed, to_frame, method):
    X, settings = to_frame(holed), dict(missing_values="ignore")
    found, expected = (getattr(NMFFeatures(2, **settings).fit(frame), method)(frame) for frame in (X, holed))
    assert_same(found, expected, X)
    with pytest.raises(ValueError, match=r"NaN or missing values .*\{'c0': 1, 'c3': 1, 'c5': 1\}"):
        NMFFeatures(2).fit(X)
    nmf = NMFFeatures(2, **settings).fit(holed)
    assert_allclose(nmf.score(X), nmf.score(holed), **ROUNDING)
    assert_allclose(nmf.score_samples(X), nmf.score_samples(holed), **ROUNDING)
    assert_allclose(nmf.contributions(X), nmf.contributions(holed), **ROUNDING)
    lines, wanted = nmf.explain(X), nmf.explain(holed)
    assert type(lines) is type(X)
    assert_frame_equal(to_pandas(lines), to_pandas(wanted), check_exact=False, **ROUNDING)


def test_rows_without_a_cell_have_missing_scores(holed, to_frame):
    holed.loc[3, NUMERIC] = np.nan
    with pytest.warns(UserWarning, match="2 rows"):
        out = NMFFeatures(2, missing_values="ignore").fit_transform(to_frame(holed))
    scores = to_pandas(out)[["NNMF1", "NNMF2"]]
    assert scores.isna().all(axis=1).tolist() == [i in (6, 7) for i in range(40)]  # the index has each number twice


def test_what_passes_through_keeps_its_dtype(table, to_frame):
    X = to_frame(table)
    out = NMFFeatures(2).fit_transform(X)
    dtypes, before = (frame.schema if isinstance(frame, pa.Table) else frame.dtypes for frame in (out, X))
    if isinstance(X, pd.DataFrame):
        assert (dtypes[["kind", "flag"]] == before[["kind", "flag"]]).all()
    elif isinstance(X, pa.Table):
        assert [dtypes.field(name) for name in ("kind", "flag")] == [before.field(name) for name in ("kind", "flag")]
    else:
        assert [out.schema[name] for name in ("kind", "flag")] == [X.schema[name] for name in ("kind", "flag")]


def test_components_of_arrow_are_arrow(table):
    X = table.convert_dtypes(dtype_backend="pyarrow")
    nmf = NMFFeatures(2).fit(X)
    out = nmf.transform(X)
    assert out[["NNMF1", "NNMF2"]].dtypes.tolist() == [pd.ArrowDtype(pa.float64())] * 2
    assert nmf.inverse_transform(out)[NUMERIC].dtypes.tolist() == [pd.ArrowDtype(pa.float64())] * 6
    single = X.astype(dict.fromkeys(NUMERIC, "float[pyarrow]"))
    assert NMFFeatures(2).fit_transform(single)["NNMF1"].dtype == pd.ArrowDtype(pa.float32())
    assert nmf.transform(table)["NNMF1"].dtype == np.float64
    whole = table[NUMERIC].mul(100).round().astype("int64[pyarrow]")
    whole.iloc[2, 3] = None
    filled = NMFFeatures(2, missing_values="ignore").fit(whole).impute(whole)
    assert filled["c3"].dtype == pd.ArrowDtype(pa.float64())
    assert filled["c2"].dtype == pd.ArrowDtype(pa.int64())


def test_fitted_on_one_kind_applied_to_another(table, to_frame):
    nmf = NMFFeatures(2).fit(table)
    X = to_frame(table)
    assert_same(nmf.transform(X), nmf.transform(table), X)
    other = NMFFeatures(2).fit(X)
    assert_same(other.transform(table), nmf.transform(table), table)


def motley(p=12, n=40):
    """Return a table of numbers in columns of many dtypes, and the same numbers as an array."""
    X = np.random.default_rng(0).gamma(2, 1, (n, p)).round(2)
    X[:, ::6] = X[:, ::6].round() % 2  # also booleans
    frame = pd.DataFrame(X, columns=[f"c{j}" for j in range(p)])
    dtypes = [bool, "Float64", object, "float32", "double[pyarrow]", np.float64]
    frame = frame.astype({name: dtypes[j % 6] for j, name in enumerate(frame)})
    frame["c2"] = [Decimal(str(x)) for x in X[:, 2]]
    X[:, 3::6] = X[:, 3::6].astype(np.float32)
    return frame, X


@pytest.mark.parametrize("kind", ["pandas", "polars"])
@pytest.mark.parametrize("order", [slice(None), slice(None, None, -2)], ids=["all", "some"])
def test_columns_of_many_dtypes_are_the_numbers_they_hold(kind, order):
    frame, X = motley()
    holed = X.copy()
    for row, j in [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]:
        frame.iloc[row, j], holed[row, j] = None, np.nan
    names = frame.columns[order].tolist()
    if kind == "polars":
        floats = frame.astype({f"c{j}": float for j in (2, 8)})
        frame = pl.from_pandas(floats).with_columns(pl.col("c8").cast(pl.Decimal(scale=2)))
    for missing_values in ("raise", "ignore"):
        nmf = NMFFeatures(3, variables=names, missing_values=missing_values)
        if missing_values == "raise":
            with pytest.raises(ValueError, match="NaN or missing values"):
                nmf.fit(frame)
            continue
        numbers = pd.DataFrame(holed, columns=[f"c{j}" for j in range(12)])
        expected = nmf.fit_transform(numbers)[["NNMF1", "NNMF2", "NNMF3"]].to_numpy()
        assert_array_equal(nmf.fit_transform(frame)[["NNMF1", "NNMF2", "NNMF3"]].to_numpy(), expected)
        for rows in (slice(2, 3), slice(0, 6)):  # one row, as a service sends it
            found = nmf.transform(frame[rows])[["NNMF1", "NNMF2", "NNMF3"]].to_numpy()
            assert_array_equal(found, expected[rows])


@pytest.mark.parametrize("kind", ["motley", "pandas", "float32", "polars", "pyarrow"])
def test_a_row_has_the_bits_it_has_in_a_long_frame(kind):
    frame, X = motley(n=20_000)  # which is read and scored a slice of rows at a time
    floats = pd.DataFrame(X, columns=frame.columns)
    made = {
        "motley": frame,
        "pandas": floats,
        "float32": floats.astype("float32"),
        "polars": pl.from_pandas(floats),
        "pyarrow": pa.Table.from_pandas(floats),
    }
    long = made[kind]
    nmf = NMFFeatures(3, variables=list(frame.columns), tol=1e-1).fit(long[:500])
    whole = to_pandas(nmf.transform(long)).to_numpy()
    for i in (0, 7, 16_500):
        assert_array_equal(to_pandas(nmf.transform(long[i : i + 1])).to_numpy()[0], whole[i])


@pytest.mark.parametrize(("kind", "most"), [("pandas", 0), ("polars", 1), ("objects", 20)])
def test_no_column_of_a_row_is_asked_apart(kind, most):
    """Wide rows come one at a time too, and 200 calls for each column would take longer than all else.

    What is left is a name for each dtype of polars, and what pandas does with each of its blocks.
    """
    calls = {}
    for p in (30, 330):
        X = pd.DataFrame(np.random.default_rng(0).gamma(2, 1, (20, p)).round(), columns=[f"c{j}" for j in range(p)])
        nmf = NMFFeatures(2, tol=1e-1).fit(X)
        odd = {f"c{j}": (object, int, "float32")[j % 3] for j in range(p)}
        row = pl.from_pandas(X[:1]) if kind == "polars" else X[:1].astype(odd) if kind == "objects" else X[:1]
        nmf.transform(row)
        profile = cProfile.Profile(builtins=False)
        profile.runcall(nmf.transform, row)
        calls[p] = pstats.Stats(profile).total_calls
    assert calls[330] <= calls[30] + 300 * most + 100


def test_what_is_quick_refuses_as_much(table):
    X, frame = table[NUMERIC].to_numpy(), table[NUMERIC]
    of_array, of_frame = NMFFeatures(2).fit(X), NMFFeatures(2).fit(frame)
    with pytest.raises(ValueError, match="5 features, but NMFFeatures is expecting 6"):
        of_array.transform(X[:, :5])
    with pytest.raises(ValueError, match="Expected 2D array"):
        of_array.transform(X[0])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        of_frame.transform(X)
    with pytest.raises(ValueError, match="feature names should match"):
        of_frame.transform(frame[NUMERIC[::-1]])
    twice = frame.set_axis([*NUMERIC[:-1], NUMERIC[0]], axis=1)
    with pytest.raises(ValueError, match="duplicated column names"):
        of_frame.transform(twice)
    for name, value in [
        ("out_of_range", "cut"),
        ("max_iter", 0),
        ("drop_original", None),
        ("penalty", np.array([1.0])),
    ]:
        with pytest.raises(ValueError, match=rf"The '{name}' parameter of NMFFeatures must be"):
            NMFFeatures(2).fit(X).set_params(**{name: value}).transform(X)


class Stream:
    """A table that comes as an Arrow stream and can be read only once, as a relation of DuckDB or a reader."""

    def __init__(self, frame):
        self.reader = pa.Table.from_pandas(frame, preserve_index=False).to_reader()

    def __arrow_c_stream__(self, requested_schema=None):
        reader, self.reader = self.reader, None
        return reader.__arrow_c_stream__(requested_schema)


def test_streams_of_arrow_are_tables(table):
    expected, like = NMFFeatures(2).fit_transform(table), pa.table({})
    nmf = NMFFeatures(2)
    assert_same(nmf.fit_transform(Stream(table)), expected, like)
    out = nmf.transform(Stream(table))
    assert_same(out, expected, like)
    back = nmf.inverse_transform(Stream(to_pandas(out)))
    assert_same(back, NMFFeatures(2).fit(table).inverse_transform(expected), like)
    assert_same(nnmf(Stream(table), target=["c0", "kind"]), nnmf(table, target=["c0", "kind"]), like)
    scaler, numbers = NonNegativeScaler(), table[NUMERIC]
    Z = scaler.fit_transform(Stream(numbers))
    assert_same(Z, NonNegativeScaler().fit_transform(numbers), like)
    assert_same(scaler.inverse_transform(Stream(to_pandas(Z))), numbers, like)
    guided = NMFFeatures(2, target_weight=1.0)
    y = pd.DataFrame({"c0": table["c0"].to_numpy()})
    assert_allclose(guided.fit(Stream(table), Stream(y)).components_, guided.fit(table, y).components_, **ROUNDING)
    found, wanted = (select_components(X, [1, 2, 3, 4], random_state=0).summary for X in (Stream(numbers), numbers))
    assert_allclose(found["error"], wanted["error"], **ROUNDING)
    reader = pa.Table.from_pandas(table, preserve_index=False).to_reader()  # pyarrow's own is such a stream too
    assert_same(NMFFeatures(2).fit_transform(reader), expected, like)
    assert_allclose(nmf.drift(Stream(table))["explained"], nmf.column_explained_, atol=1e-7)


def test_streams_without_pyarrow_are_refused_with_a_way_out(table, monkeypatch):
    stream = Stream(table)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"Arrow stream \(Stream\), which only pyarrow can read"):
        NMFFeatures(2).fit(stream)


def test_no_rows_and_one_row(table, to_frame):
    nmf = NMFFeatures(2).fit(table)
    for n in (0, 1):
        X = to_frame(table.iloc[:n])
        assert nmf.transform(X).shape == (n, 4)


def test_scaler(table, to_frame):
    X = to_frame(table[NUMERIC])
    scaler = NonNegativeScaler().fit(X)
    Z = scaler.transform(X)
    assert_same(Z, NonNegativeScaler().fit_transform(table[NUMERIC]), X)
    assert_same(scaler.inverse_transform(Z), table[NUMERIC], X)


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_set_output(table, to_frame, kind):
    X = to_frame(table)
    with config_context(transform_output=kind):
        out = NMFFeatures(2).fit_transform(X)
    assert type(out).__module__.partition(".")[0] == kind
    assert_frame_equal(to_pandas(out), to_pandas(NMFFeatures(2).fit_transform(table)), check_exact=False, **ROUNDING)


def test_target(table, to_frame):
    y = pd.DataFrame({"size": table["c0"].to_numpy(), "kind": table["kind"].to_numpy().astype(str)})
    expected = NMFFeatures(2, target_weight=1.0).fit(table, y)
    found = NMFFeatures(2, target_weight=1.0).fit(to_frame(table), to_frame(y))
    assert_allclose(found.components_, expected.components_, **ROUNDING)
    assert found.target_names_ == expected.target_names_
