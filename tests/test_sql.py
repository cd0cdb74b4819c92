"""A SELECT computes in a database what transform computes: in DuckDB and SQLite, on real rows."""

import sqlite3

import numpy as np
import pandas as pd
import pytest
from conftest import shared
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

from nmf_features import NMFFeatures, load_tidy
from nmf_features.sql import DIALECTS


def ask_sqlite(select, rows, table):
    database = sqlite3.connect(":memory:")
    rows.to_sql(table, database, index=False)
    answer = pd.read_sql(select, database)
    database.close()
    return answer


def ask_duckdb(select, rows, table):
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed: pip install duckdb")
    with duckdb.connect() as database:
        database.register("rows_of_the_test", rows)
        name = '"' + table.replace('"', '""') + '"'
        database.execute(f"CREATE TABLE {name} AS SELECT * FROM rows_of_the_test")
        return database.execute(select).df()


ASK = {"sqlite": ask_sqlite, "duckdb": ask_duckdb}
assert set(ASK) == set(DIALECTS)
TABLES = {
    "wine": lambda: load_wine(as_frame=True).data,
    "diabetes": lambda: load_diabetes(as_frame=True, scaled=False).data,
    "breast cancer": lambda: load_breast_cancer(as_frame=True).data,
}
anywhere = pytest.mark.parametrize("dialect", DIALECTS)


def the_same(nmf, rows, dialect, table="t", **options):
    """Compare row by row: both databases return rows in their order here, though no SELECT has to."""
    found = ASK[dialect](nmf.sql(table, dialect, **options), rows, table)
    expected = nmf.transform(rows)
    names = expected.columns[-nmf.n_components_ :]
    assert_allclose(found[names], expected[names], rtol=1e-9, atol=1e-9)
    return found, expected


@anywhere
@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("clip", [None, 0.02])
@pytest.mark.parametrize("scale", ["std", "max", "robust", None])
@pytest.mark.parametrize("shift", ["min", "split", None])
def test_what_transform_returns(name, shift, scale, clip, dialect):
    X = TABLES[name]()
    nmf = NMFFeatures(2, projection="linear", shift=shift, scale=scale, clip=clip, tol=1e-2).fit(X.iloc[:100])
    beyond = pd.concat([X, X * 3, X - 2 * X.max(), X.mean().to_frame().T])  # far out of range on either side
    found, expected = the_same(nmf, beyond, dialect)
    assert found.columns.tolist() == expected.columns.tolist()


@anywhere
def test_a_common_value_as_offset(dialect):
    X = load_wine(as_frame=True).data.assign(nearly=np.r_[5.0, np.full(176, 7.0), 9.0])
    the_same(NMFFeatures(3, projection="linear", shift="mode").fit(X), X, dialect)


@anywhere
def test_ames_and_other_columns(ames, dialect):
    numeric = ames.drop(columns="Sale_Price").select_dtypes("number").columns.tolist()
    nmf = NMFFeatures(5, projection="linear", variables=numeric).fit(ames)
    found, expected = the_same(nmf, ames, dialect)
    assert found.columns.tolist() == expected.columns.tolist()
    assert found["Neighborhood"].tolist() == ames["Neighborhood"].tolist()
    assert_array_equal(found["Sale_Price"], ames["Sale_Price"])


@anywhere
def test_rs_baked_rows_in_a_database(ames, dialect):
    loadings, baked = shared("r_reference/a_loadings.csv"), shared("r_reference/a_baked_first10.csv")
    tidy = loadings[loadings["seed"] == 1].rename(columns={"term": "terms"}).melt(["seed", "terms"], None, "component")
    model = load_tidy(tidy, center=(raw := ames[loadings["term"].unique()]).mean(), scale=raw.std())
    found = ASK[dialect](model.sql("ames", dialect), ames, "ames")
    rows = baked[baked["seed"] == 1]
    assert_allclose(found.iloc[rows["row"] - 1], rows[found.columns], atol=1e-9)


@anywhere
def test_names_are_quoted(dialect):
    X = load_wine(as_frame=True).data.iloc[:, :9]
    X.columns = ['a"b', "a'b", "select", "a; DROP TABLE t; --", "ä ö", " space", "x", "z_1", "1"]
    table = 'my "wines"; --'
    nmf = NMFFeatures(2, projection="linear", prefix='N"M', variables=X.columns[:8].tolist()).fit(X)
    found, expected = the_same(nmf, X, dialect, table)
    assert found.columns.tolist() == expected.columns.tolist() == ["1", 'N"M1', 'N"M2']
    kept, _ = the_same(nmf, X, dialect, table, keep=["z_1", "x", 'a"b'])
    assert kept.columns.tolist() == ["z_1", "x", 'a"b', 'N"M1', 'N"M2']
    assert_array_equal(kept["x"], X["x"])
    the_same(NMFFeatures(2, projection="linear", feature_names_out="labels").fit(X), X, dialect, table)


@anywhere
def test_a_column_that_is_not_there_is_an_error(dialect):
    """SQLite would take its quoted name for a text, and a text for 0."""
    X = load_wine(as_frame=True).data
    nmf = NMFFeatures(2, projection="linear").fit(X)
    with pytest.raises(Exception, match="hue"):
        ASK[dialect](nmf.sql("t", dialect), X.drop(columns="hue"), "t")


@anywhere
def test_a_table_in_a_schema(dialect):
    X = load_wine(as_frame=True).data
    nmf = NMFFeatures(2, projection="linear").fit(X)
    found = ASK[dialect](nmf.sql(["main", "t"], dialect), X, "t")
    assert_allclose(found, nmf.transform(X), rtol=1e-9)


@anywhere
@pytest.mark.parametrize("shift", ["min", "split", None])
def test_whole_numbers_and_single_precision(dialect, shift):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.integers(0, 50, size=(40, 4)), columns=list("abcd"))
    nmf = NMFFeatures(2, projection="linear", shift=shift, scale=None, clip=0.1).fit(X)
    the_same(nmf, X, dialect)
    the_same(nmf, X.astype({"a": "int8", "b": "float32"}), dialect)


@anywhere
@pytest.mark.parametrize("options", [{}, {"clip": 0.1}, {"shift": "split"}, {"shift": "split", "scale": "robust"}])
def test_missing_values(dialect, options):
    X = load_wine(as_frame=True).data
    nmf = NMFFeatures(2, projection="linear", **options).fit(X)
    holes = X.copy()
    holes.loc[3, "alcohol"] = np.nan
    found = ASK[dialect](nmf.sql("t", dialect), holes, "t")
    loads = nmf.components_[:, : 2 if "shift" in options else 1].any(axis=1)  # alcohol comes first
    assert loads.any()
    assert_array_equal(found.loc[3].isna(), loads)
    assert not found.drop(index=3).isna().any(axis=None)
    if dialect == "duckdb":  # NaN itself, which registering a frame made NULL
        select = nmf.sql("t", dialect).replace('x."alcohol"', "CAST('NaN' AS DOUBLE)")
        assert_array_equal(ASK[dialect](select, X, "t").isna().any(), loads)


@anywhere
def test_many_columns(dialect):
    """More than either database lets a sum nest."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.uniform(size=(30, 1500)), columns=[f"c{j}" for j in range(1500)])
    the_same(NMFFeatures(2, projection="linear", penalty=0, tol=1e-2).fit(X), X, dialect)


@anywhere
@pytest.mark.filterwarnings("ignore:Constant columns", "ignore:Components .* are zero")
def test_constant_columns_and_empty_components(dialect):
    X = load_wine(as_frame=True).data[["ash", "hue"]].assign(flat=3.0)
    nmf = NMFFeatures(2, projection="linear", penalty=0.3).fit(X)
    assert (nmf.components_ == 0).all(axis=1).any()
    assert "flat" not in nmf.sql("t", dialect)
    the_same(nmf, X.assign(flat=8.0), dialect)


@pytest.mark.parametrize(
    ("parameters", "options", "what"),
    [
        ({"projection": "nnls"}, {}, "solve a least-squares problem for each row, in steps that a SELECT cannot take"),
        ({}, {"dialect": "oracle"}, r"dialect is 'oracle'; wanted one of \['duckdb', 'sqlite'\]"),
        ({}, {"table": 3}, "table is 3; wanted a name or a list of names"),
        ({}, {"table": []}, "table is an empty list"),
        ({}, {"keep": [1]}, r"keep is \[1\]; wanted a name"),
        ({}, {"keep": ["nnmf1"]}, r"'nnmf1', 'NNMF1'.* cannot tell apart"),
        ({}, {"keep": ["ASH"]}, r"'ash', 'ASH'.* cannot tell apart"),
        ({"n_components": 0}, {}, "nothing to compute"),
        ({"out_of_range": "raise"}, {}, "cannot refuse rows"),
    ],
)
def test_refused(parameters, options, what):
    nmf = NMFFeatures(**({"projection": "linear"} | parameters)).fit(load_wine(as_frame=True).data)
    with pytest.raises(ValueError, match=what):
        nmf.sql(**({"table": "t", "dialect": "sqlite"} | options))


def test_without_names():
    X = load_wine(as_frame=True).data
    for unnamed in (X.to_numpy(), X.set_axis(range(13), axis=1)):
        with pytest.raises(ValueError, match="no text: a database has none such"):
            NMFFeatures(2, projection="linear").fit(unnamed).sql("t", "sqlite")
