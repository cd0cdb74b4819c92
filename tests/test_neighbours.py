"""Together with real neighbours: feature-engine before it, a regression after it, a search around it."""

import joblib
import numpy as np
import pytest
from feature_engine.encoding import OneHotEncoder, RareLabelEncoder
from feature_engine.imputation import CategoricalImputer, MeanMedianImputer
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

from nmf_features import NMFFeatures

pytestmark = pytest.mark.filterwarnings(
    # feature-engine 1.9 still uses DataFrame.drop(inplace=True), which pandas 3 deprecates
    r"ignore:The inplace keyword in DataFrame.drop is deprecated:DeprecationWarning:feature_engine\.encoding\..*",
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
