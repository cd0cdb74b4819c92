"""Numbers in columns of objects: money, mixed numbers, a row as a service sends it, and what is refused there."""

import pkgutil
import re
import warnings
from decimal import Decimal
from fractions import Fraction
from importlib import import_module

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_array_equal
from pandas.testing import assert_frame_equal
from sklearn import datasets
from statsmodels import datasets as statsmodels_tables

from nmf_features import NMFFeatures, NonNegativeScaler, cells, frames, nnmf, select_components


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


# Numbers that a few words make words of

NEARLY = {  # 40 cells, and which of them is named
    "a mark for missing cells": (["?" if i in (7, 9) else str(100 + i) for i in range(40)], 7),
    "many marks": (["n/a" if i % 3 == 1 else str(i) for i in range(40)], 1),
    "thousands": (["1,200", *["950"] * 10, *["13,000.5"] * 29], 0),
    "decimals as text": (["12.5", *["3", "-1e3"] * 19, "7"], 0),
    "negative": ([str(20 - i) for i in range(40)], 0),
    "objects": ([1.5, None, *[2] * 37, "about 3"], 39),
    "objects, and text that reads as a number": ([Decimal(1), None, *[2] * 37, "3"], 39),
    "objects, and many words": ([i if i % 5 else f"see note {i}" for i in range(40)], 0),
}
NAMES = {
    "postal codes": [*[f"{1000 * i:05}" for i in range(39)], "K1A 0B1"],
    "numbers of customers": [*[str(100_000 + i) for i in range(39)], None],
    "tickets": [str(113_803 + i) if i % 4 else f"PC {17_599 + i}" for i in range(40)],
    "dates": [f"2024-01-{i % 28 + 1:02}" for i in range(40)],
    "words": ["a", "b"] * 20,
    "half of them numbers": ["a", 1.0] * 20,
    "booleans": [True, None] * 20,
    "lists": [[1], [2]] * 20,
    "blanks": [""] * 40,
}


@pytest.mark.parametrize("case", NEARLY)
def test_a_column_of_numbers_and_a_few_words_is_named(numbers, case):
    values, at = NEARLY[case]
    X = numbers.assign(hp=pd.Series(values, dtype=object if "objects" in case else "str"))
    says = re.escape(f"with {values[at]!r} in row {at}") + ".*pd.to_numeric"
    with pytest.warns(UserWarning, match=f"left out as words.*'hp'.*{says}") as caught:
        out = NMFFeatures(2).fit_transform(X)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert out["hp"].equals(X["hp"])
    with pytest.warns(UserWarning, match=f"row {at}, index '{'abcd'[at % 4]}'"):
        nnmf(X.set_axis([*"abcd"] * 10), 2, target="c0")
    with pytest.raises(ValueError, match=f"no numeric column to factorise. X has columns .*{says}"):
        NMFFeatures(2).fit(X[["hp"]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_frame_equal(NMFFeatures(2, variables=[*numbers]).fit_transform(X), out)
        nnmf(X, 2, target="hp")
        NMFFeatures(2).fit(X.assign(hp=X["hp"].astype("category")))
        NMFFeatures(0).fit(X)


def test_it_is_said_once_where_many_models_are_fitted(numbers):
    X = numbers.assign(hp=NEARLY["many marks"][0])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        select_components(X, range(1, 3), random_state=0, progress=False)
    assert sum("left out as words" in str(warning.message) for warning in caught) == 1


def test_a_rare_word_in_a_long_column_is_found():
    values = np.array([*map(str, range(100_000, 150_000))], dtype=object)
    assert frames.nearly_numeric(pd.DataFrame({"id": values}), [0]) == ""
    values[43_210] = "?"
    assert "'?' in row 43210" in frames.nearly_numeric(pd.DataFrame({"id": values}), [0])


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame])
def test_frames_of_every_kind_say_so(kind):
    X = kind({"a": [1.0, 2, 4, 3], "b": [2.0, 1, 0, 3], "hp": ["130", None, "?", "95"]})
    with pytest.warns(UserWarning, match=r"'hp'.*with '\?' in row 2.*(to_numeric|a cast)"):
        NMFFeatures(1).fit(X)


@pytest.mark.parametrize("case", NAMES)
def test_names_and_words_are_no_cause_for_alarm(numbers, case):
    NMFFeatures(2).fit(numbers.assign(name=pd.Series(NAMES[case], dtype=object)))  # warnings are errors


def bundled_tables():
    for name in ("iris", "wine", "diabetes", "breast_cancer", "linnerud"):
        yield getattr(datasets, f"load_{name}")(as_frame=True).frame
    for module in pkgutil.iter_modules(statsmodels_tables.__path__):
        if module.ispkg and module.name not in ("tests", "template_data"):
            yield import_module(f"statsmodels.datasets.{module.name}").load_pandas().data


def test_no_false_alarm_on_real_tables():
    tables = [pd.DataFrame(table) for table in bundled_tables()]
    assert len(tables) > 25
    for table in tables:
        for frame in (table, table.astype(object)):
            numeric = frames.numeric_positions(frame)
            assert frames.nearly_numeric(frame, [j for j in range(frame.shape[1]) if j not in numeric]) == ""


def test_no_false_alarm_on_ames(ames):
    words = [j for j in range(ames.shape[1]) if j not in frames.numeric_positions(ames)]
    assert len(words) > 30
    assert frames.nearly_numeric(ames, words) == ""
