"""Numbers in columns of objects: money, mixed numbers, a row as a service sends it, and what is refused there."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_array_equal
from pandas.testing import assert_frame_equal

from nmf_features import NMFFeatures, NonNegativeScaler, cells, nnmf


@pytest.fixture
def numbers(table):
    """Columns of floats alone."""
    return table[[f"c{j}" for j in range(6)]].reset_index(drop=True)


def kept_as_objects(frame):
    """The same numbers as Decimals, as mixed scalars, as Fractions, and as Python's floats."""
    out = frame.astype(object)
    out["c0"] = [Decimal(x) for x in frame["c0"]]  # exact: a float is a binary fraction
    out["c1"] = pd.Series([x if i % 2 else np.float64(x) for i, x in enumerate(frame["c1"])], dtype=object)
    out["c2"] = [Fraction(x) for x in frame["c2"]]
    return out


def test_objects_that_are_numbers_are_the_same_numbers(numbers):
    objects = kept_as_objects(numbers)
    assert objects.select_dtypes("object").shape == numbers.shape
    assert_frame_equal(NMFFeatures(2).fit_transform(objects), NMFFeatures(2).fit_transform(numbers), check_exact=True)
    nmf = NMFFeatures(2).fit(numbers)
    assert_frame_equal(nmf.transform(objects), nmf.transform(numbers), check_exact=True)
    assert_frame_equal(nnmf(objects, target="c0").iloc[:, 1:], nnmf(numbers, target="c0").iloc[:, 1:])
    scaler = NonNegativeScaler()
    assert_frame_equal(scaler.fit_transform(objects), scaler.fit_transform(numbers), check_exact=True)


def test_missing_objects_are_missing_cells(numbers):
    objects, holed = kept_as_objects(numbers), numbers.copy()
    for column, row, mark in [("c0", 2, None), ("c1", 3, pd.NA), ("c2", 4, Decimal("NaN")), ("c3", 5, pd.NaT)]:
        objects.loc[row, column] = mark
        holed.loc[row, column] = np.nan
    with pytest.raises(ValueError, match=r"NaN or missing .*'c0': 1, 'c1': 1, 'c2': 1, 'c3': 1"):
        NMFFeatures(2).fit(objects)
    nmf = NMFFeatures(2, missing_values="ignore").fit(holed)
    expected = nmf.transform(holed)
    assert_frame_equal(nmf.transform(objects), expected, check_exact=True)
    assert_frame_equal(NMFFeatures(2, missing_values="ignore").fit_transform(objects), expected)
    assert_frame_equal(nmf.impute(objects).astype(float), nmf.impute(holed))


def test_what_is_no_number_passes_through(numbers):
    others = numbers.assign(
        words=pd.Series(["a", 1.0] * 20, dtype=object),
        flags=pd.Series([True, None] * 20, dtype=object),
        nothing=pd.Series([None] * 40, dtype=object),
        complex=pd.Series([1j, 2.0] * 20, dtype=object),
    )
    out = NMFFeatures(2).fit_transform(others)
    assert_frame_equal(out[["words", "flags", "nothing", "complex"]], others.iloc[:, 6:])
    assert_frame_equal(out[["NNMF1", "NNMF2"]], NMFFeatures(2).fit_transform(numbers))


RECORD = {"c0": None, "c1": 1.0, "c2": Decimal("2.5"), "c3": np.float32(0.5), "c4": 3, "c5": None}
ROWS = {
    "records": lambda: pd.DataFrame([RECORD]),
    "from_records": lambda: pd.DataFrame.from_records([RECORD]),
    "json_normalize": lambda: pd.json_normalize(RECORD),
    "row.to_frame().T": lambda: pd.Series(RECORD, name=7).to_frame().T,
    "text": lambda: pd.DataFrame([RECORD]).astype({"c0": "string", "c5": "string"}),
    "polars": lambda: pl.DataFrame([{k: None if v is None else float(v) for k, v in RECORD.items()}]),
    "polars objects": lambda: pl.DataFrame({k: pl.Series([v], dtype=pl.Object) for k, v in RECORD.items()}),
    "polars decimal": lambda: pl.DataFrame([RECORD | {"c3": 0.5}]),
    "pyarrow": lambda: pl.DataFrame([RECORD | {"c3": 0.5}]).to_arrow(),
    "arrow-backed": lambda: pd.DataFrame([RECORD | {"c3": 0.5}]).convert_dtypes(dtype_backend="pyarrow"),
}


@pytest.mark.parametrize("form", ROWS)
def test_a_row_as_it_comes_from_a_service(numbers, form):
    nmf = NMFFeatures(2, missing_values="ignore").fit(numbers)
    expected = nmf.transform(pd.DataFrame([[np.nan, 1.0, 2.5, 0.5, 3.0, np.nan]], columns=numbers.columns))
    row = ROWS[form]()
    out = nmf.transform(row)
    assert type(out) is type(row)
    if isinstance(row, pd.DataFrame):
        assert out.index.equals(row.index)
    assert_array_equal(np.column_stack([np.asarray(out[name]) for name in expected]).astype(float), expected)
    filled = nmf.impute(row)
    assert_array_equal(np.asarray(filled["c1"]).astype(float), [1.0])
    with pytest.raises(ValueError, match=r"NaN or missing .*'c0': 1, 'c5': 1"):
        nmf.set_params(missing_values="raise").transform(row)


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame])
def test_a_word_is_refused_with_its_row_and_value(numbers, kind):
    nmf = NMFFeatures(2).fit(kind(numbers.to_dict("list")))
    new = {name: list(values) for name, values in numbers.head(3).items()}
    new["c1"] = ["1.5", "about 2", "3"]
    with pytest.raises(ValueError, match=r"not numeric: \{'c1': .*with '1\.5' in row 0.*Wanted numbers, or None"):
        nmf.transform(kind(new))
    if kind is pd.DataFrame:
        new["c1"] = [None, 2.0, {"amount": 3}]
        with pytest.raises(ValueError, match=r"object, with \{'amount': 3\} in row 2, index 'z'"):
            nmf.transform(kind(new, index=list("xyz")))
        new["c1"] = pd.Series([1, 10**400, 2], dtype=object)  # larger than any float
        with pytest.raises(ValueError, match="in row 1"):
            nmf.transform(kind(new))


def test_arrays_with_na(numbers):
    X = numbers.astype(object).to_numpy(copy=True)
    X[3, 1] = pd.NA
    for settings in ({}, dict(variables=[0, 1, 2])):
        with pytest.raises(ValueError, match=r"NaN or missing .*\{1: 1\}"):
            NMFFeatures(2, **settings).fit(X)
        for table in (X, X.tolist()):
            nmf = NMFFeatures(2, missing_values="ignore", **settings)
            holed = np.where(pd.isna(X), np.nan, X).astype(float)
            assert_array_equal(nmf.fit_transform(table).astype(float), nmf.fit_transform(holed))
    with pytest.raises(ValueError, match="NaN or missing"):
        NonNegativeScaler().fit(X)
    assert X[3, 1] is pd.NA


def test_decimals_are_a_target_of_numbers(numbers):
    money = numbers["c0"].map(Decimal)
    X = numbers.drop(columns="c0")
    found, expected = (NMFFeatures(2, target_weight=1.0).fit(X, y) for y in (money, numbers["c0"]))
    assert_array_equal(found.components_, expected.components_)
    assert found.target_names_ == ["c0"]


def test_floats_are_the_nearest():
    values = np.array([2**53 + 1, Decimal("0.1"), Fraction(1, 3), np.float32(0.1), True, None], dtype=object)
    found, at = cells.to_floats(values)
    assert at is None
    assert_array_equal(found, [2.0**53, 0.1, 1 / 3, float(np.float32(0.1)), 1.0, np.nan])
