"""Which columns are factorised: names of any kind, booleans, functions and selectors."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import polars.selectors as cs
import pytest
import skrub.selectors as s
from numpy.testing import assert_array_equal
from pandas.testing import assert_frame_equal
from sklearn.base import clone
from sklearn.compose import make_column_selector

from nmf_features import NMFFeatures, NonNegativeScaler, nnmf

NUMERIC = [f"c{j}" for j in range(6)]


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("dtype", [bool, "boolean", "bool[pyarrow]", object, "polars", "pyarrow"])
def test_booleans_that_are_chosen_are_zero_and_one(table, dtype, missing):
    settings = dict(variables=[*NUMERIC, "flag"], missing_values="ignore" if missing else "raise")
    numbers = table.reset_index(drop=True)[[*NUMERIC, "flag"]].astype({"flag": float})
    flags = numbers["flag"].astype(bool)
    if missing:
        numbers.loc[3, "flag"] = np.nan
        flags = flags.astype(object).mask(flags.index == 3, None)
        dtype = object if dtype is bool else dtype
    if dtype in ("polars", "pyarrow"):
        columns = {**numbers[NUMERIC].to_dict("list"), "flag": flags.tolist()}
        frame = pl.DataFrame(columns) if dtype == "polars" else pl.DataFrame(columns).to_arrow()
    else:
        frame = numbers.assign(flag=flags.astype(dtype))
    nmf, expected = NMFFeatures(2, **settings), NMFFeatures(2, **settings)
    found = nmf.fit_transform(frame)
    assert_array_equal(np.column_stack([found["NNMF1"], found["NNMF2"]]), expected.fit_transform(numbers))
    assert_array_equal(nmf.components_, expected.components_)
    again = nmf.transform(frame)
    assert_array_equal(np.column_stack([again["NNMF1"], again["NNMF2"]]), expected.transform(numbers))
    if missing:
        filled = nmf.impute(frame)
        assert_array_equal(np.asarray(filled["flag"]).astype(float), expected.impute(numbers)["flag"])
    unnamed = NMFFeatures(2, missing_values="ignore").fit(frame)
    assert unnamed.variables_ == NUMERIC


def test_a_table_of_booleans_alone(table):
    dummies = pd.get_dummies(table[["kind"]])
    with pytest.raises(ValueError, match="Booleans count, as 0 and 1, where variables names them"):
        NMFFeatures(1).fit(dummies)
    out = NMFFeatures(1, variables=list(dummies)).fit_transform(dummies)
    assert_frame_equal(out, NMFFeatures(1).fit_transform(dummies.astype(float)))
    scaler = NonNegativeScaler()
    assert_frame_equal(scaler.fit_transform(dummies), scaler.fit_transform(dummies.astype(float)))


def test_labels_that_are_floats(table):
    wavelengths = [1100.0, 1102.5, 1105.0, 1107.5, 1110.0, 1112.5]
    X = table[NUMERIC].set_axis(wavelengths, axis=1)
    expected = NMFFeatures(2, variables=["c1", "c3", "c4"]).fit(table[NUMERIC])
    nmf = NMFFeatures(2, variables=[1102.5, 1107.5, 1110]).fit(X)  # an int may name a float
    assert nmf.variables_ == [1102.5, 1107.5, 1110.0]
    assert_array_equal(nmf.components_, expected.components_)
    assert NMFFeatures(1, variables=1102.5).fit(X).variables_ == [1102.5]
    assert NMFFeatures(2, variables=np.array(wavelengths[:3])).fit(X).variables_ == wavelengths[:3]
    assert nnmf(X, target=1105.0).columns.tolist() == [1105.0, "NNMF1", "NNMF2"]
    with pytest.raises(ValueError, match=r"variables has \[1103\.0\], not found"):
        NMFFeatures(2, variables=[1103.0]).fit(X)
    with pytest.raises(ValueError, match="wanted a name or a list of names"):
        NMFFeatures(2, variables=1.0).fit(X.to_numpy())


def large(X):
    return [name for name in X.select_dtypes(float) if X[name].mean() > 0.5]


def test_functions_of_the_table(table):
    names = make_column_selector(dtype_include=float)
    nmf = NMFFeatures(2, variables=names).fit(table)
    assert nmf.variables_ == NUMERIC
    assert_frame_equal(pickle.loads(pickle.dumps(nmf)).transform(table), NMFFeatures(2).fit_transform(table))
    assert clone(nmf).fit(table).variables_ == NUMERIC
    assert NMFFeatures(2, variables=large).fit(table).variables_ == large(table)
    assert NMFFeatures(2, variables=lambda X: [0, 2]).fit(table[NUMERIC].to_numpy()).variables_ == [0, 2]
    assert nnmf(table, target="c0", variables=names).columns.tolist() == ["c0", "kind", "flag", "NNMF1", "NNMF2"]
    with pytest.raises(ValueError, match="chose no column of X"):
        NMFFeatures(2, variables=make_column_selector(pattern="z")).fit(table)
    with pytest.raises(ValueError, match=r"variables has \['c9'\]"):
        NMFFeatures(2, variables=lambda X: "c9").fit(table)


def test_selectors_of_polars(table):
    frame = pl.from_pandas(table.reset_index(drop=True))
    nmf = NMFFeatures(2, variables=cs.numeric() - cs.by_name("c0")).fit(frame)
    assert nmf.variables_ == NUMERIC[1:]
    assert clone(nmf).fit(frame).variables_ == NUMERIC[1:]
    assert "variables=" in repr(nmf)
    assert NMFFeatures(2, variables=pl.col("c1", "c2")).fit(frame).variables_ == ["c1", "c2"]
    assert nnmf(frame, target="c0", variables=cs.float()).columns == ["c0", "kind", "flag", "NNMF1", "NNMF2"]
    with pytest.raises(TypeError, match="selector of polars, and X is a DataFrame of pandas"):
        NMFFeatures(2, variables=cs.numeric()).fit(table)


def test_selectors_of_skrub(table):
    frame = pl.from_pandas(table.reset_index(drop=True))
    for X in (table, frame):
        assert NMFFeatures(2, variables=s.numeric() - "c0").fit(X).variables_ == NUMERIC[1:]
    assert clone(NMFFeatures(2, variables=s.glob("c*"))).fit(frame).variables_ == NUMERIC


def test_anything_that_expands_is_a_selector(table):
    class Odd:
        def expand(self, X):
            return [name for name in X.columns if name in NUMERIC[1::2]]

    assert NMFFeatures(2, variables=Odd()).fit(table).variables_ == NUMERIC[1::2]
