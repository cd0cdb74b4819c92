"""Together with real neighbours: feature-engine and skrub before it, a regression after it, a search around it."""

import pickle

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import skrub
from feature_engine.encoding import (
    CountFrequencyEncoder,
    MeanEncoder,
    OneHotEncoder,
    RareLabelEncoder,
)
from feature_engine.encoding import (
    OrdinalEncoder as OrdinalOfFeatureEngine,
)
from feature_engine.imputation import (
    AddMissingIndicator,
    CategoricalImputer,
    DropMissingData,
    EndTailImputer,
    MeanMedianImputer,
    RandomSampleImputer,
)
from feature_engine.pipeline import make_pipeline as pipeline_of_feature_engine
from feature_engine.preprocessing import MatchVariables
from feature_engine.selection import (
    DropConstantFeatures,
    DropCorrelatedFeatures,
    DropDuplicateFeatures,
    SelectBySingleFeaturePerformance,
    SmartCorrelatedSelection,
)
from pandas.testing import assert_frame_equal
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from nmf_features import NMFFeatures

pytestmark = pytest.mark.filterwarnings(
    # feature-engine 1.9 still uses drop(inplace=True) and dropna(inplace=True), which pandas 3 deprecates
    r"ignore:The inplace keyword in DataFrame.drop(na)? is deprecated:DeprecationWarning:feature_engine\..*",
    # says of Street, which has two categories, that none of them is rare
    r"ignore:The number of unique categories for variable:UserWarning:feature_engine\.encoding\..*",
    # ours, and right: so few houses have a pool that a training fold may have none
    r"ignore:Constant columns carry nothing and get loading 0. .'Pool_Area'.",
    # and probes text columns for dates
    r"ignore:Could not infer format, so each element:UserWarning:feature_engine\.variable_handling\..*",
)


@pytest.fixture
def holed(ames):
    """Ames with 3 % of the cells of some columns taken out on purpose."""
    rng = np.random.default_rng(0)
    X = ames.drop(columns="Sale_Price").iloc[::4].copy()
    for name in ("Lot_Frontage", "Gr_Liv_Area", "MS_Zoning", "Neighborhood"):
        X[name] = X[name].mask(rng.uniform(size=len(X)) < 0.03)
    return X, np.log10(ames["Sale_Price"].iloc[::4])


def pipeline(X):
    numeric = X.select_dtypes("number").columns.tolist()
    return Pipeline(
        [
            ("median", MeanMedianImputer()),
            ("missing", CategoricalImputer()),
            ("rare", RareLabelEncoder(tol=0.05, n_categories=2)),
            ("one_hot", OneHotEncoder(drop_last=True)),
            ("nmf", NMFFeatures(5, variables=numeric)),
            ("regression", LinearRegression()),
        ]
    )


def test_feature_engine_then_components_then_regression(holed):
    X, y = holed
    search = GridSearchCV(pipeline(X), {"nmf__n_components": [2, 8], "nmf__penalty": [0, 0.001]}, cv=3)
    search.fit(X, y)
    k = search.best_params_["nmf__n_components"]
    assert search.best_score_ > 0.75
    model = search.best_estimator_
    baked = model[:-1].transform(X)
    names = [f"NNMF{t}" for t in range(1, k + 1)]
    assert baked.columns[-k:].tolist() == names
    assert baked.index.equals(X.index)
    assert len(baked.columns) > 50  # one-hot columns passed through
    assert model[:-1].get_feature_names_out()[-k:].tolist() == names


def test_search_in_several_processes_and_joblib(holed, tmp_path):
    X, y = holed
    search = GridSearchCV(pipeline(X), {"nmf__n_components": [2, 4]}, cv=2, n_jobs=2)
    search.fit(X, y)
    path = tmp_path / "model.joblib"
    joblib.dump(search.best_estimator_, path)
    assert np.array_equal(joblib.load(path).predict(X), search.predict(X))


def test_column_transformer(holed):
    X, _ = holed
    areas = [name for name in X.columns if name.endswith("_SF")]
    by_kind = ColumnTransformer(
        [("areas", NMFFeatures(2), areas), ("kinds", OrdinalEncoder(), ["House_Style"])], remainder="drop"
    ).set_output(transform="pandas")
    out = by_kind.fit_transform(X)
    assert out.columns.tolist() == ["areas__NNMF1", "areas__NNMF2", "kinds__House_Style"]
    assert out.index.equals(X.index)


# feature-engine, a step of each kind.

NUMERIC = [f"c{j}" for j in range(6)]


@pytest.fixture
def shop(table):
    """A small table with words and holes, and a target."""
    X = table.drop(columns="flag").astype({"kind": object}).reset_index(drop=True)
    y = X["c0"] + 2 * X["c1"]
    X.loc[3, "c1"] = X.loc[9, "c4"] = np.nan
    return X.set_index(X.index + 100), y.set_axis(y.index + 100)


@pytest.mark.parametrize(
    "imputer",
    [MeanMedianImputer(), EndTailImputer(), RandomSampleImputer(random_state=0), AddMissingIndicator()],
    ids=lambda step: type(step).__name__,
)
def test_after_an_imputer(shop, imputer):
    X, y = shop
    missing = "ignore" if isinstance(imputer, AddMissingIndicator) else "raise"  # it leaves the holes
    out = make_pipeline(imputer, NMFFeatures(2, variables=NUMERIC, missing_values=missing)).fit(X, y).transform(X)
    assert out.columns[-2:].tolist() == ["NNMF1", "NNMF2"]
    assert out["kind"].tolist() == X["kind"].tolist()
    assert out[["NNMF1", "NNMF2"]].notna().all(axis=None)


@pytest.mark.parametrize(
    "encoder",
    [OneHotEncoder(), OrdinalOfFeatureEngine(), MeanEncoder(), CountFrequencyEncoder()],
    ids=lambda step: type(step).__name__,
)
def test_after_an_encoder(shop, encoder):
    X, y = shop
    model = make_pipeline(MeanMedianImputer(), encoder, NMFFeatures(2), LinearRegression()).fit(X, y)
    encoded = [name for name in model["nmffeatures"].variables_ if name not in NUMERIC]
    assert len(encoded) == (2 if isinstance(encoder, OneHotEncoder) else 1)  # the encoded words are numbers too
    assert model[:-1].transform(X).columns.tolist() == ["NNMF1", "NNMF2"]
    assert model.score(X, y) > 0.5


@pytest.mark.parametrize(
    "selector",
    [
        DropConstantFeatures(),
        DropDuplicateFeatures(),
        DropCorrelatedFeatures(threshold=0.99),
        SmartCorrelatedSelection(threshold=0.99),
    ],
    ids=lambda step: type(step).__name__,
)
def test_between_selectors(shop, selector):
    X, y = shop
    X = X[NUMERIC].fillna(1.0).assign(again=X["c2"])  # the same column twice
    before = clone(selector)
    model = make_pipeline(before, NMFFeatures(3), selector, LinearRegression()).fit(X, y)
    repeated = isinstance(selector, DropConstantFeatures)
    assert model["nmffeatures"].variables_ == [*NUMERIC, "again"] if repeated else NUMERIC
    assert model[:-1].transform(X).columns.tolist() == ["NNMF1", "NNMF2", "NNMF3"]  # no two of them are alike
    assert model.score(X, y) > 0.5


def test_components_are_selected_by_what_they_say_of_the_target(shop):
    X, y = shop
    selector = SelectBySingleFeaturePerformance(LinearRegression(), scoring="r2", threshold=0.1)
    model = make_pipeline(MeanMedianImputer(), NMFFeatures(3, variables=NUMERIC, drop_original=True), selector)
    kept = model.fit(X.drop(columns="kind"), y).transform(X.drop(columns="kind")).columns
    assert 0 < len(kept) < 3
    assert all(selector.feature_performance_[name] > 0.1 for name in kept)


def test_in_a_pipeline_of_feature_engine(shop):
    """Its pipeline drops rows of X and y together."""
    X, y = shop
    model = pipeline_of_feature_engine(DropMissingData(), NMFFeatures(2, variables=NUMERIC), MatchVariables())
    Xt, yt = model.fit(X, y).transform_x_y(X, y)
    kept = X.index.difference([103, 109])
    assert Xt.index.tolist() == yt.index.tolist() == kept.tolist()
    assert_frame_equal(Xt, NMFFeatures(2, variables=NUMERIC).fit_transform(X.loc[kept]))


# What feature-engine checks of its own estimators, where scikit-learn does not want the opposite: docs/scikit_learn.md
# has a list of those.


@pytest.mark.parametrize(
    ("variables", "expected"), [("c1", ["c1"]), (["c2"], ["c2"]), (["c4", "c1"], ["c4", "c1"]), (None, NUMERIC)]
)
def test_variables_are_those_asked_for_or_all_that_are_numbers(table, variables, expected):
    X = table.assign(day=pd.Timestamp("2020-02-24"), word="a")
    nmf = NMFFeatures(1, variables=variables)
    assert nmf.fit(X).variables_ == expected
    assert nmf.variables == variables  # as given
    assert nmf.n_features_in_ == len(X.columns)
    assert list(nmf.feature_names_in_) == list(X.columns)


@pytest.mark.parametrize("name", ["kind", "day", "word"])
def test_variables_that_are_no_numbers(table, name):
    X = table.assign(day=pd.Timestamp("2020-02-24"), word="a")
    with pytest.raises((TypeError, ValueError), match=f"chosen columns that are not numeric: .'{name}'"):
        NMFFeatures(1, variables=["c1", name]).fit(X)
    with pytest.raises((TypeError, ValueError), match="X has no numeric column"):
        NMFFeatures(1).fit(X[[name]])


@pytest.mark.parametrize("drop_original", [True, False])
def test_originals_are_dropped_or_kept_and_the_others_stay(table, drop_original):
    X = table.assign(day=pd.Timestamp("2020-02-24"))
    nmf = NMFFeatures(2, variables=["c1", "c3", "c4"], drop_original=drop_original)
    out = nmf.fit_transform(X)
    rest = [name for name in X.columns if not (drop_original and name in nmf.variables_)]
    assert out.columns.tolist() == [*rest, "NNMF1", "NNMF2"]
    assert_frame_equal(out[rest], X[rest])
    assert list(nmf.get_feature_names_out()) == out.columns.tolist()
    piped = make_pipeline(nmf).fit(X)
    assert list(piped.get_feature_names_out()) == out.columns.tolist()
    assert list(piped.get_feature_names_out(list(X.columns))) == out.columns.tolist()


@pytest.mark.parametrize("method", ["transform", "inverse_transform", "get_feature_names_out"])
def test_nothing_goes_before_fit(table, method):
    arguments = () if method == "get_feature_names_out" else (table,)
    with pytest.raises(NotFittedError):
        getattr(NMFFeatures(), method)(*arguments)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning:sklearn")  # before the error
@pytest.mark.parametrize("not_a_table", ["words", [1, 2, "words"], pd.Series([-2.0, 1.5, 9.0], name="c1")])
def test_what_is_no_table(table, not_a_table):
    nmf = NMFFeatures(2)
    with pytest.raises((TypeError, ValueError)):
        nmf.fit(not_a_table)
    nmf.fit(table)
    with pytest.raises((TypeError, ValueError)):
        nmf.transform(not_a_table)


@pytest.mark.parametrize("value", [2, "drop", False])
def test_missing_values_has_few_words(table, value):
    with pytest.raises(ValueError, match="missing_values"):
        NMFFeatures(missing_values=value).fit(table)


def test_y_is_needed_where_it_is_used(table):
    with pytest.raises((TypeError, ValueError), match="y"):
        NMFFeatures(target_weight=1).fit(table)


# skrub, on frames of pandas and polars.


@pytest.fixture(params=["pandas", "polars"])
def frame(request, table):
    X = table.astype({"kind": object})
    return X if request.param == "pandas" else pl.from_pandas(X.reset_index(drop=True))


def target(frame):
    return np.asarray(frame["c0"]) + 2 * np.asarray(frame["c1"])


def test_columns_that_skrub_chooses(frame):
    out = skrub.ApplyToCols(NMFFeatures(2), cols=skrub.selectors.numeric()).fit_transform(frame)
    expected = NMFFeatures(2).fit_transform(frame)
    assert type(out) is type(frame)
    assert sorted(out.columns) == sorted(expected.columns)
    assert np.array_equal(out["NNMF1"], expected["NNMF1"])
    if isinstance(frame, pd.DataFrame):
        assert out.index.equals(frame.index)


def test_after_a_table_vectorizer(frame):
    model = make_pipeline(skrub.TableVectorizer(), NMFFeatures(3), LinearRegression()).fit(frame, target(frame))
    assert model["nmffeatures"].variables_ == [*NUMERIC[:2], "kind_y", *NUMERIC[2:], "flag"]
    assert list(model[:-1].transform(frame).columns) == ["NNMF1", "NNMF2", "NNMF3"]
    assert model.score(frame, target(frame)) > 0.5


def test_in_a_tabular_pipeline(frame):
    model = skrub.tabular_pipeline(LinearRegression())
    model.steps.insert(1, ("nmf", NMFFeatures(3)))
    search = GridSearchCV(model, {"nmf__n_components": [1, 3]}, cv=3).fit(frame, target(frame))
    assert search.best_params_ == {"nmf__n_components": 3}
    assert pickle.loads(pickle.dumps(search)).predict(frame) == pytest.approx(search.predict(frame))


def test_in_data_ops(frame):
    """A plan of skrub: components of the numbers, how many of them is a choice, and a regression."""
    X, y = skrub.X(frame), skrub.y(target(frame))
    k = skrub.choose_from([1, 3], name="k")
    components = X.skb.apply(NMFFeatures(k)).skb.select(skrub.selectors.glob("NNMF*"))
    search = components.skb.apply(LinearRegression(), y=y).skb.make_grid_search(fitted=True, cv=3)
    assert search.results_["k"].tolist() == [3, 1]  # the best first
    learner = pickle.loads(pickle.dumps(search.best_learner_))
    names = ["NNMF1", "NNMF2", "NNMF3"]
    W = NMFFeatures(3).fit_transform(frame)[names]
    expected = LinearRegression().fit(W, target(frame)).predict(W)
    assert learner.predict({"X": frame}) == pytest.approx(expected)
