"""Labels of components: readable, all different, and the same wherever a component is named."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from nmf_features import NMFFeatures, nnmf
from nmf_features.naming import labelled

NUMBERS = ["NNMF1", "NNMF2", "NNMF3", "NNMF4"]


@pytest.mark.parametrize(
    ("H", "m", "labels"),
    [
        ([[0.5, 0.3, 0.2, 0]], 3, ["a + b"]),  # half of the largest, at least
        ([[0.4, 0.2, 0.2, 0.2]], 3, ["a + b + c"]),
        ([[0.2, 0.2, 0.2, 0.4]], 2, ["d + a"]),
        ([[0, 0, 0, 0], [0.5, 0.5, 0, 0]], 3, ["NNMF1", "a + b"]),
        ([[0.6, 0.2, 0.2, 0], [0.6, 0.1, 0.2, 0.1]], 3, ["a + b", "a + c"]),  # one more column tells them apart
        ([[0.6, 0.4, 0, 0], [0.4, 0.6, 0, 0]], 3, ["a + b (NNMF1)", "b + a (NNMF2)"]),
        ([[0.6, 0.4, 0, 0], [0.4, 0.3, 0.1, 0.2]], 3, ["a + b", "a + b + d"]),
        ([[1, 0, 0, 0], [0, 0.9, 0.1, 0]], 3, ["a (NNMF1)", "b (NNMF2)"]),  # names of columns
    ],
)
def test_dominant_columns(H, m, labels):
    assert labelled(np.array(H, dtype=float), list("abcd"), NUMBERS[: len(H)], set("abcd"), m) == labels


def test_a_label_is_never_taken():
    H = np.eye(2)
    assert labelled(H, ["a", "b"], NUMBERS[:2], {"a", "a (NNMF1)"}) == ["NNMF1", "b"]


def test_labels_name_the_components_everywhere(table):
    nmf = NMFFeatures(3, feature_names_out="labels").fit(table)
    labels = nmf.labels()
    assert len(set(labels)) == 3
    assert all(name.split(" + ")[0] in table for name in labels)
    out = nmf.transform(table)
    assert out.columns.tolist() == ["kind", "flag", *labels]
    pd.testing.assert_frame_equal(NMFFeatures(3, feature_names_out="labels").fit_transform(table), out)
    assert nmf.get_feature_names_out().tolist() == out.columns.tolist()
    assert nmf.inverse_transform(out).columns.tolist() == table.columns.tolist()
    assert nmf.tidy()["component"].drop_duplicates().tolist() == labels  # by number, though not in their order
    assert nmf.top_features(2)["component"].drop_duplicates().tolist() == labels
    assert nmf.explain(table)["component"].unique().tolist() == labels
    assert nmf.columns_.component_names == labels  # what plots write
    numbered = NMFFeatures(3).fit(table)
    assert numbered.labels() == labels
    np.testing.assert_array_equal(numbered.transform(table).iloc[:, 2:], out.iloc[:, 2:])
    renamed = numbered.set_params(feature_names_out="labels").transform(table)  # without another fit
    assert renamed.columns.tolist() == out.columns.tolist()


def test_labels_and_columns_are_told_apart(table):
    nmf = NMFFeatures(1, variables="c0", drop_original=False, feature_names_out="labels")
    assert nmf.fit_transform(table).columns.tolist() == [*table.columns, "c0 (NNMF1)"]
    split = NMFFeatures(2, shift="split", feature_names_out="labels").fit(table)
    assert all(name.split(" + ")[0][-1] in "+-" for name in split.labels())


def test_labels_of_arrays_polars_and_nothing(table):
    X = table[[f"c{j}" for j in range(6)]]
    nmf = NMFFeatures(2, feature_names_out="labels").set_output(transform="pandas").fit(X.to_numpy())
    assert nmf.transform(X.to_numpy()).columns.tolist() == nmf.labels()
    assert all(name.split(" + ")[0].isdigit() for name in nmf.labels())
    frame = pl.from_pandas(X.reset_index(drop=True))
    assert nnmf(frame, feature_names_out="labels").columns == NMFFeatures().fit(X).labels()
    empty = NMFFeatures(0, feature_names_out="labels").fit(X)
    assert empty.labels() == []
    assert empty.transform(X).columns.tolist() == X.columns.tolist()


def test_labels_in_folds_and_files(table):
    X = table[[f"c{j}" for j in range(6)]]
    model = make_pipeline(NMFFeatures(3, feature_names_out="labels"), LinearRegression())
    assert np.isfinite(cross_val_score(model, X, X["c0"], cv=4)).all()
    nmf = NMFFeatures(3).fit(X)
    state = {name: value for name, value in vars(nmf).items() if name not in ("feature_names_out", "align_to")}
    old = NMFFeatures.__new__(NMFFeatures)  # a model from before these parameters were added
    old.__setstate__(state)
    assert old.get_params() == nmf.get_params()
    pd.testing.assert_frame_equal(old.transform(X), nmf.transform(X))
    named = pickle.loads(pickle.dumps(nmf.set_params(feature_names_out="labels")))
    assert named.transform(X).columns.tolist() == nmf.labels()


@pytest.mark.parametrize("m", [0, 1.5, None])
def test_bad_m(table, m):
    with pytest.raises(ValueError, match=f"m is {m}; wanted a whole number of columns to name"):
        NMFFeatures(2).fit(table).labels(m)
