"""Components that also serve a target."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from feature_engine.imputation import MeanMedianImputer
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nmf_features import NMFFeatures, cli, nnmf, objective, penalty_path, select_components, stability
from nmf_features.core import target_models
from nmf_features.core.compiling import compiled
from nmf_features.core.guide import GuidedDescent
from nmf_features.core.kernels import solve_on_support
from nmf_features.core.losses import LOSSES, loss_of
from nmf_features.core.missing import Missing
from nmf_features.core.schedule import Problem
from nmf_features.core.tables import MemoryTable
from nmf_features.core.target_models import RIDGE, Classes, Numbers
from nmf_features.core.units import largest

DIABETES = load_diabetes(as_frame=True, scaled=False)
X, Y = DIABETES.data, DIABETES.target
LOGISTIC = LogisticRegression(solver="newton-cholesky")


def fitted(k=3, weight=1.0, y=Y, table=X, **params):
    return NMFFeatures(k, target_weight=weight, **params).fit(table, y)


# The slopes that guide a descent


def differences(function, at, step=1e-5):
    """Slopes of a function of an array, by central differences."""
    slopes = np.zeros(at.shape)
    for place in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[place] += step
        down[place] -= step
        slopes[place] = (function(up) - function(down)) / (2 * step)
    return slopes


def problem(loss, kind, weights, l1_ratio):
    rng = np.random.default_rng(0)
    table = rng.gamma(1, 1, (70, 3)) @ rng.gamma(1, 1, (3, 6)) + rng.uniform(0.1, 0.6, (70, 6))
    missing = None
    if kind == "missing":
        table[rng.uniform(size=table.shape) < 0.1] = np.nan
        missing = Missing(6)
    elif kind != "dense":
        table = sparse.csr_array(table * (rng.uniform(size=table.shape) < 0.7))
        missing = Missing(6, kind == "unstored") if kind != "sparse" else None
        if missing:
            table.data[rng.uniform(size=table.nnz) < 0.1] = np.nan
    v = rng.uniform(0.5, 2, 70) if weights else None
    return Problem.of(table, largest(table), v, missing, 6, loss=loss_of(loss, None), penalty=0.01, l1_ratio=l1_ratio)


@pytest.mark.parametrize("kind", ["dense", "missing", "sparse", "sparse missing", "unstored"])
@pytest.mark.parametrize(("weights", "l1_ratio"), [(False, 1.0), (True, 0.5)])
@pytest.mark.parametrize("loss", [*LOSSES, 1.5, 3])
def test_slopes_are_those_of_the_objective(loss, kind, weights, l1_ratio):
    if "sparse" in kind and not loss_of(loss, None).takes_zeros:
        pytest.skip("the loss is infinite at zero")
    of, rng = problem(loss, kind, weights, l1_ratio), np.random.default_rng(1)
    y, classes = rng.uniform(size=(70, 1)), np.eye(3)[rng.integers(0, 3, 70)]
    y[:5] = np.nan
    models = [Numbers(y, of.weights), Classes(classes, of.weights)]
    table = MemoryTable(of.X, of.weights, of.missing, 2)
    descent = GuidedDescent(table, of.loss, of.strengths, models, 2.0, None)
    H = rng.uniform(0.2, 1, (2, 6))
    slopes = descent.evaluate(H)[1]
    assert_allclose(slopes, differences(lambda h: descent.evaluate(h)[0], H), atol=1e-5 * np.abs(slopes).max())


def models(weights=None, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.uniform(size=(60, 2))
    y[::7] = np.nan
    classes = np.eye(3)[rng.integers(0, 3, 60)]
    classes[::5] = np.nan
    return {"numbers": Numbers(y, weights), "classes": Classes(classes, weights)}


@pytest.mark.parametrize("whole", [0, 1000])
@pytest.mark.parametrize("name", ["numbers", "classes"])
@pytest.mark.parametrize("weights", [None, np.random.default_rng(2).uniform(0.1, 3, 60)])
def test_slopes_in_the_scores(name, weights, whole, monkeypatch):
    """With the whole Hessian, and by conjugate gradients."""
    monkeypatch.setattr(target_models, "WHOLE", whole)
    model, Wt = models(weights)[name], np.random.default_rng(1).uniform(size=(4, 60))
    assert_allclose(model.read(Wt).slopes, differences(lambda W: model.read(W).share, Wt), atol=1e-7)


@pytest.mark.parametrize("name", ["numbers", "classes"])
def test_rows_without_target_say_nothing_of_it(name):
    model, rng = models()[name], np.random.default_rng(1)
    Wt = rng.uniform(size=(4, 60))
    read = model.read(Wt)
    assert not read.slopes[:, ~model.rows].any()
    Wt[:, ~model.rows] = 100.0
    assert models()[name].read(Wt).share == pytest.approx(read.share, rel=1e-12)


def test_solution_on_the_support():
    rng = np.random.default_rng(0)
    F = rng.normal(size=(40, 5, 9))
    grams, B, support = F @ F.transpose(0, 2, 1), rng.normal(size=(40, 5)), rng.uniform(size=(40, 5)) < 0.6
    for G in (grams, grams[:1]):
        found = compiled(solve_on_support)(G, B, support)
        assert_array_equal(found, solve_on_support(G, B, support))
        for i, s in enumerate(support):
            wanted = np.zeros(5)
            wanted[s] = np.linalg.solve(G[i % len(G)][np.ix_(s, s)], B[i, s])
            assert_allclose(found[i], wanted, rtol=1e-8, atol=1e-12)
    indefinite = -np.eye(2)[None]
    assert not solve_on_support(indefinite, np.ones((3, 2)), np.ones((3, 2), bool)).any()


# What a fit is


@pytest.mark.parametrize(
    ("table", "params"),
    [
        (X, {}),
        (X, {"loss": "kullback-leibler", "penalty": 0.01, "l1_ratio": 0.5}),
        (X.mask(np.random.default_rng(0).uniform(size=X.shape) < 0.1), {"missing_values": "ignore"}),
        (sparse.csr_array(np.maximum(X - X.mean(), 0)), {"shift": None}),
        (X.astype(np.float32), {"shift": "split", "clip": 0.01}),
    ],
)
def test_scores_see_no_target(table, params):
    nmf = NMFFeatures(3, target_weight=1, **params)
    scores = nmf.fit_transform(table, Y)
    assert_array_equal(scores, nmf.transform(table))
    assert nmf.converged_
    assert np.all(np.diff(nmf.history_) <= 1e-9 * nmf.history_[0])
    without = NMFFeatures(3, **params).fit(table)
    fits = [m.score(table) for m in (nmf, without)]
    assert fits[0] < fits[1]


def test_objective_is_that_of_the_fit_and_the_target():
    nmf = fitted(penalty=0.01, l1_ratio=0.5)
    columns = nmf.columns_
    Z = columns.scaled(columns.checked(X))
    W = nmf.transform(X).to_numpy() / nmf.component_scales_
    H = nmf.components_ * nmf.component_scales_[:, None]
    spread = objective(Z, np.ones((len(Z), 1)), nmf.column_means_[None], 0)
    wanted = objective(Z, W, H, 0.01, 0.5) + spread * (1 - nmf.target_explained_)
    assert nmf.objective_ == pytest.approx(wanted, rel=1e-9)
    assert nmf.history_[-1] == nmf.objective_


def test_weight_zero_ignores_the_target():
    plain = NMFFeatures(3).fit(X)
    for y in (None, Y, ["nonsense"]):
        other = fitted(weight=0, y=y)
        assert_array_equal(other.components_, plain.components_)
        assert not hasattr(other, "target_loadings_")


def test_more_weight_explains_more_of_the_target_and_less_of_the_table():
    found = [fitted(weight=weight) for weight in (0.01, 0.1, 1, 10)]
    assert np.all(np.diff([nmf.target_explained_ for nmf in found]) > 0)
    assert np.all(np.diff([nmf.score(X) for nmf in found]) < 0)


def test_size_and_units_do_not_matter():
    nmf = fitted()
    for y, factor in ((1e8 * Y + 5e9, 1e8), (-1e-300 * Y, -1e-300), (1e305 * Y, 1e305)):
        other = fitted(y=y)
        assert_allclose(other.components_, nmf.components_, atol=2e-3)
        assert_allclose(other.target_loadings_ / factor, nmf.target_loadings_, rtol=0.05, atol=0.2)
    for scaled in (X * 1e280, X * 1e-280):
        assert_allclose(fitted(table=scaled).components_, nmf.components_, atol=2e-3)
    twice = fitted(table=pd.concat([X, X]), y=pd.concat([Y, Y]))
    assert twice.objective_ == pytest.approx(2 * nmf.objective_, rel=1e-4)
    assert twice.target_explained_ == pytest.approx(nmf.target_explained_, abs=1e-3)


def test_order_of_rows_and_columns_does_not_matter():
    """Equal rows with other targets are among them."""
    rng = np.random.default_rng(0)
    table = pd.concat([X, X.iloc[:50]], ignore_index=True)
    y = pd.concat([Y, Y.iloc[50:100]], ignore_index=True)
    nmf = fitted(5, 10, y, table)
    rows, columns = rng.permutation(len(table)), rng.permutation(X.shape[1])
    other = fitted(5, 10, y.iloc[rows], table.iloc[rows, columns])
    assert_allclose(other.components_[:, np.argsort(columns)], nmf.components_, rtol=1e-14)  # sums of loadings
    assert_allclose(other.target_loadings_, nmf.target_loadings_, rtol=1e-9)


def test_number_of_threads_does_not_matter():
    one, three = (fitted(4, n_jobs=jobs) for jobs in (1, 3))
    assert_array_equal(one.components_, three.components_)
    assert_array_equal(one.target_loadings_, three.target_loadings_)


def test_weights_are_repetitions():
    times = np.random.default_rng(0).integers(0, 3, len(X))
    rows = np.repeat(np.arange(len(X)), times)
    nmf = NMFFeatures(3, target_weight=1).fit(X, Y, sample_weight=times)
    other = fitted(table=X.iloc[rows], y=Y.iloc[rows])
    assert_allclose(nmf.components_, other.components_, atol=1e-12)
    without = NMFFeatures(3, target_weight=1).fit(X[times > 0], Y[times > 0], sample_weight=times[times > 0])
    assert_allclose(nmf.components_, without.components_, atol=1e-6)


# Targets of all kinds


def test_numbers_are_modelled_by_ridge_regression():
    nmf = fitted()
    W = nmf.transform(X)
    Z = (W - W.mean()) / W.std(ddof=0)
    model = Ridge(alpha=RIDGE * len(X)).fit(Z, Y)
    assert_allclose(nmf.target_loadings_[:, 0], model.coef_ / W.std(ddof=0), rtol=1e-8)
    assert nmf.target_names_ == ["target"]
    assert nmf.target_explained_ == pytest.approx(model.score(Z, Y), abs=1e-3)


def test_two_classes_are_modelled_by_logistic_regression():
    high = np.where(Y > 150, "high", "low")
    nmf = fitted(y=high)
    W = nmf.transform(X)
    Z = (W - W.mean()) / W.std(ddof=0)
    model = LogisticRegression(C=2 / (RIDGE * len(X)), solver="newton-cholesky", tol=1e-10).fit(Z, high)
    assert_allclose(nmf.target_loadings_[:, 0], model.coef_[0] / W.std(ddof=0), rtol=1e-3, atol=1e-5)
    assert nmf.target_names_ == ["y=low"]


def test_one_target_in_many_forms():
    words = pd.Series(np.where(Y > 200, "high", np.where(Y > 100, "some", "low")), name="stage")
    forms = {
        "series": words,
        "category": words.astype("category"),
        "array": words.to_numpy(),
        "list": words.tolist(),
        "string": words.astype("string"),
        "polars": pl.Series("stage", words.tolist()),
        "frame": words.to_frame(),
        "polars frame": pl.DataFrame({"stage": words.tolist()}),
    }
    found = {name: fitted(y=y) for name, y in forms.items()}
    for nmf in found.values():
        assert_array_equal(nmf.components_, found["list"].components_)
    assert found["list"].target_names_ == ["y=high", "y=low", "y=some"]
    for name in ("series", "category", "string", "polars", "frame", "polars frame"):
        assert found[name].target_names_ == ["stage=high", "stage=low", "stage=some"]


def test_missing_targets_in_many_forms():
    holes = Y.mask(Y < 80).to_numpy()
    forms = [holes, pd.Series(holes), pd.Series(holes).astype("Float64"), [None if v != v else v for v in holes]]
    forms += [pl.Series(holes), pl.Series([None if v != v else v for v in holes])]
    found = [fitted(y=y) for y in forms]
    for nmf in found[1:]:
        assert_array_equal(nmf.components_, found[0].components_)
    truth = pd.Series(Y > 150).astype("boolean").mask(Y < 80)
    assert fitted(y=truth).target_names_ == ["target=True"]


def test_several_targets_count_the_same():
    both = pd.DataFrame({"progress": Y, "high": Y > 200, "noise": np.random.default_rng(0).uniform(size=len(Y))})
    nmf = fitted(y=both)
    assert nmf.target_names_ == ["progress", "high=True", "noise"]
    assert nmf.target_loadings_.shape == (3, 3)
    assert_array_equal(fitted(y=both.assign(progress=1e6 * Y)).components_, fitted(y=both).components_)


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        ([0, 1] * 20, True),
        ([0.0, 1.0] * 20, True),
        (list(range(4)) * 10, True),
        (list(range(10)) * 2, True),
        (list(range(11)) * 10, False),
        ([0.5, 1.5] * 20, False),
        ([100_000, 120_000, 99_000, 250_000] * 3 + list(range(28)), False),
        ([True, False] * 20, True),
        (["a", "b"] * 20, True),
    ],
)
def test_auto_tells_numbers_from_classes(y, classes):
    rng = np.random.default_rng(0)
    nmf = NMFFeatures(1, target_weight=1).fit(rng.uniform(size=(len(y), 4)), y)
    assert ("=" in nmf.target_names_[0]) == classes


def test_type_may_be_given():
    y = np.arange(len(X)) % 3
    assert fitted(y=y, target_type="continuous").target_names_ == ["y"]
    assert fitted(y=Y // 50, target_type="multiclass").target_names_[:2] == ["target=0", "target=1"]


@pytest.mark.parametrize(
    ("y", "params", "message"),
    [
        (None, {}, "requires y to be passed, but the target y is None"),
        (Y[:-1], {}, "inconsistent numbers of samples"),
        (Y * np.nan, {}, "'target', which is not known in any row"),
        (Y * 0, {}, "'target', which is the same in all rows"),
        (["a"] * len(Y), {}, "'y', which is the same in all rows"),
        (Y.where(Y > 60, np.inf), {}, "infinite values in the target 'target'"),
        (np.zeros((len(Y), 2, 2)), {}, "shape"),
        (pd.date_range("2020-01-01", periods=len(Y)), {}, "holds datetime"),
        (Y, {"target_type": "binary"}, "214 classes .* wants two"),
        (["a", "b"] * 221, {"target_type": "continuous"}, "wants numbers"),
        (Y, {"projection": "linear"}, 'projection="linear"'),
        (Y, {"target_weight": -1}, "target_weight"),
        (Y, {"target_type": "ordinal"}, "target_type"),
    ],
)
def test_bad_targets_are_refused(y, params, message):
    with pytest.raises(ValueError, match=message):
        NMFFeatures(2, **{"target_weight": 1, **params}).fit(X, y)


# Whether it helps, and does no harm


def scores(nmf, table, y, model=None):
    return cross_val_score(make_pipeline(nmf, StandardScaler(), model or LinearRegression()), table, y, cv=5)


def test_components_predict_their_target():
    guided, plain = (scores(NMFFeatures(2, target_weight=weight), X, Y).mean() for weight in (1, 0))
    assert guided > plain + 0.1
    data = load_breast_cancer()
    guided, plain = (
        scores(
            NMFFeatures(1, target_weight=weight), data.data, data.target, LogisticRegression(solver="newton-cholesky")
        ).mean()
        for weight in (1, 0)
    )
    assert guided > plain + 0.01


def test_shuffled_targets_are_not_predicted():
    """Neither when they guide the fit: no row's score has seen its own target."""
    shuffled = Y.sample(frac=1, random_state=0).to_numpy()
    found = scores(NMFFeatures(4, target_weight=10), X, shuffled)
    assert -0.25 < found.mean() < 0.03
    classes = (shuffled > 150).astype(str)
    found = scores(NMFFeatures(4, target_weight=10), X, classes, LOGISTIC)
    assert found.mean() < 0.56


def test_a_weight_far_too_large_is_no_disaster():
    whole = scores(NMFFeatures(0), X, Y).mean()  # all columns
    for weight in (1e6, 1e300):
        assert scores(NMFFeatures(3, target_weight=weight), X, Y).mean() > whole - 0.08


def test_separable_classes_have_finite_loadings():
    data = load_wine()
    nmf = NMFFeatures(5, target_weight=100).fit(data.data, data.target_names[data.target])
    assert np.isfinite(nmf.target_loadings_).all()
    assert nmf.target_explained_ > 0.95


# What stands around it


def test_weight_is_searched_like_any_parameter():
    table = X.mask(np.random.default_rng(0).uniform(size=X.shape) < 0.02)
    pipeline = make_pipeline(MeanMedianImputer(), NMFFeatures(2), StandardScaler(), LinearRegression())
    grid = {"nmffeatures__target_weight": [0, 0.1, 1, 10]}
    search = GridSearchCV(pipeline, grid, cv=3).fit(table, Y)
    assert search.best_params_["nmffeatures__target_weight"] > 0


def test_in_one_line():
    frame, nmf = X.assign(target=Y).pipe(nnmf, n=2, target="target", target_weight=1, return_transformer=True)
    assert frame.columns.tolist() == ["target", "NNMF1", "NNMF2"]
    assert_array_equal(nmf.components_, fitted(2).components_)
    assert nmf.target_names_ == ["target"]


def test_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    X.assign(target=Y).to_csv("train.csv", index=False)
    assert cli.main(["fit", "train.csv", "--target", "target", "--target-weight", "1", "--out", "out.csv"]) == 0
    scores = fitted(2).transform(X)
    assert_allclose(pd.read_csv("out.csv")[["NNMF1", "NNMF2"]], scores, rtol=1e-12)
    assert cli.main(["select", "train.csv", "--target", "target", "--target-weight", "1", "--most", "2"]) == 0
    assert cli.main(["fit", "train.csv", "--target-weight", "1", "--out", "out.csv"]) == 2


def test_tables_of_loadings():
    nmf = fitted()
    assert_array_equal(nmf.target_table().to_numpy(), nmf.target_loadings_)
    long = nmf.tidy(target=True)
    assert len(long) == len(nmf.tidy()) + 3
    assert_array_equal(long.loc[long["terms"] == "target", "value"], nmf.target_loadings_[:, 0])
    top = nmf.top_features(2, target=True)
    assert top.groupby("component")["terms"].last().tolist() == ["target"] * 3
    with pytest.raises(ValueError, match="no target loadings"):
        NMFFeatures(2).fit(X).tidy(target=True)


def test_few_columns_each_stay_few():
    for shift, width in (("min", 1), ("split", 2)):
        nmf = fitted(3, 10, n_nonzero_loadings=3, shift=shift)
        columns = nmf.components_.reshape(3, -1, width).any(axis=2).sum(axis=1)
        assert (columns <= 3).all()
        assert_array_equal(nmf.fit_transform(X, Y), nmf.transform(X))
        plain = NMFFeatures(3, n_nonzero_loadings=3, shift=shift).fit(X)
        assert nmf.target_explained_ > LinearRegression().fit(plain.transform(X), Y).score(plain.transform(X), Y) + 0.02


def test_a_limit_lets_a_column_in_that_only_the_target_asks_for():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.gamma(1, size=(200, 3)) @ rng.gamma(0.5, size=(3, 9)) + 0.1 * rng.uniform(size=(200, 9)))
    table.columns = [f"c{j}" for j in table]
    table["key"] = rng.gamma(1, size=200)
    y = 3 * table["key"] + rng.normal(0, 0.1, 200)
    assert NMFFeatures(3, n_nonzero_loadings=3, target_weight=10).fit(table, y).target_explained_ > 0.9


def test_components_that_a_penalty_emptied_come_back_for_a_target():
    rng = np.random.default_rng(1)
    table = rng.gamma(1, 1, (80, 7))
    y = 2 * table[:, 0] - table[:, 3] + 0.5 * rng.normal(size=80)
    nmf = NMFFeatures(3, penalty=0.3, target_weight=1000).fit(table, y)
    assert nmf.components_.any(axis=1).all()
    assert nmf.target_explained_ > 0.7


def test_a_refit_without_target_forgets_it():
    nmf = fitted(2)
    nmf.set_params(target_weight=0).fit(X)
    with pytest.raises(ValueError, match="no target loadings"):
        nmf.target_table()


def test_order_of_classes_is_theirs():
    grade = pd.Series(np.where(Y > 150, 10, 2))
    ordered = pd.Categorical(np.where(Y > 150, "high", "some"), ["some", "high", "none"], ordered=True)
    for y in (grade, grade.astype("category"), pd.Series(ordered)):
        assert fitted(y=y).target_names_ == [f"y={'10' if y is not None and y.dtype != ordered.dtype else 'high'}"]
    many = pd.Series(np.where(Y > 150, 1234567.0, 1234568.0)).astype("category")
    assert fitted(y=many).target_names_ == ["y=1234568"]


def test_numbers_among_objects_are_numbers():
    from decimal import Decimal

    numbers = fitted(y=Y.mask(Y < 60).to_numpy())
    for values in ([pd.NA if v < 60 else v for v in Y], [None if v < 60 else Decimal(v) for v in Y]):
        assert_array_equal(fitted(y=pd.Series(values, dtype=object)).components_, numbers.components_)
    with pytest.raises(ValueError, match="mixed"):
        fitted(y=[1, "1"] * 221)


def test_rows_without_weight_do_not_count_in_y():
    y = (Y > 150).astype(object).tolist()
    y[0] = "other"
    weights = np.ones(len(X))
    weights[0] = 0
    with pytest.raises(ValueError, match="mixed"):
        fitted(y=y)
    assert NMFFeatures(2, target_weight=1).fit(X, y, sample_weight=weights).target_names_ == ["y=True"]


def test_a_class_that_only_hidden_rows_have_is_left_out():
    rng = np.random.default_rng(0)
    table, y = rng.uniform(size=(40, 4)), np.repeat(np.arange(20), 2).astype(str)
    with pytest.warns(UserWarning, match="No number of components|largest number|smallest"):
        found = select_components(
            table, [1], y=rng.permutation(y), target_weight=1, n_splits=2, test_size=0.2, random_state=0
        )
    assert found.table["target_error"].dropna().min() > 0.9


def test_a_class_that_a_sample_misses_does_not_stop_it():
    y = np.where(np.arange(len(X)) < 2, "rare", "usual")
    assert stability(X, 2, 4, y=y, target_weight=1, random_state=0).components.shape == (2, 10)


def test_targets_in_tidy_are_no_columns_for_alignment():
    nmf = fitted()
    again = fitted(align_to=nmf.tidy(target=True))
    assert again.changes()["similarity"].min() > 0.999


@pytest.mark.parametrize("target", [None, []])
def test_a_weight_needs_a_target_in_one_line(target):
    with pytest.raises(ValueError, match="requires y"):
        nnmf(X, 2, target=target, target_weight=1)


def test_labels_keep_the_order_of_components():
    nmf = fitted(4, feature_names_out="labels")
    top = nmf.top_features(2, target=True)
    assert top["component"].drop_duplicates().tolist() == nmf.labels()
    assert_array_equal(top.loc[top["terms"] == "target", "value"], nmf.target_loadings_[:, 0])


@pytest.mark.filterwarnings("ignore:n_components=:UserWarning")
def test_selection_takes_a_target():
    found = select_components(X, [1, 2, 3], y=Y, target_weight=1, n_splits=2, random_state=0)
    assert found.summary["target_error"].between(0, 1.1).all()
    assert "target_error" not in select_components(X, [1, 2, 3], y=Y, n_splits=2, random_state=0).summary
    guided, plain = (
        penalty_path(X, 2, [0.001], y=Y, n_splits=2, random_state=0, target_weight=weight).table for weight in (10, 0)
    )
    assert guided["score"][0] > plain["score"][0] + 0.1
    assert guided["error"][0] > plain["error"][0]
    similar = stability(X, 2, 3, y=Y, target_weight=1, random_state=0)
    assert similar.components.shape == (2, 10)
    for function in (select_components, penalty_path, stability):
        with pytest.raises(ValueError, match="requires y"):
            function(X, [2] if function is select_components else 2, target_weight=1)


def test_hidden_targets_are_not_seen():
    """With a target that only remembers its row, hidden ones are not predicted."""
    rng = np.random.default_rng(0)
    table, y = rng.uniform(size=(300, 6)), rng.normal(size=300)
    with pytest.warns(UserWarning, match="No number of components|largest number"):
        found = select_components(table, [3], y=y, target_weight=10, n_splits=3, test_size=0.2, random_state=0)
    assert found.summary["target_error"][0] > 0.95


def test_models_from_before():
    nmf = NMFFeatures(2).fit(X)
    state = dict(nmf.__getstate__())
    for name in ("target_weight", "target_type"):
        del state[name]
    old = NMFFeatures.__new__(NMFFeatures)
    old.__setstate__(state)
    assert_array_equal(old.transform(X), nmf.transform(X))
    assert old.get_params() == nmf.get_params()
    guided = fitted()
    assert_array_equal(pickle.loads(pickle.dumps(guided)).transform(X), guided.transform(X))
