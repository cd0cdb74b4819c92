"""Components keep the numbers of an earlier fit: the known order comes back, and what changed is said."""

import io
import pickle

import numpy as np
import pandas as pd
import pytest
import skops.io
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from nmf_features import NMFFeatures
from nmf_features.aligning import Loadings, match


def parts(n=120, k=4, seed=0):
    """A table whose components are clear, each of two columns of its own."""
    rng = np.random.default_rng(seed)
    X = rng.gamma(1, 1, (n, k)) @ np.kron(np.eye(k), [[1.0, 0.5]]) * np.repeat([4, 3, 2, 1][:k], 2)
    return pd.DataFrame(X + 0.02 * rng.uniform(size=X.shape), columns=list("abcdefgh")[: 2 * k])


def shuffled(nmf, order):
    """The loadings of a fit, as if its components had come in another order."""
    names = nmf.columns_.component_names
    lines = nmf.tidy()
    numbers = dict(zip([names[t] for t in order], names, strict=True))
    lines = lines.assign(component=lines["component"].map(numbers))
    return lines.sort_values("component", kind="stable", ignore_index=True)


FITTED = ["component_scales_", "explained_", "impute_penalties_"]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2], [1, 2, 3, 0]])
def test_numbering_is_kept(order):
    X = parts()
    plain = NMFFeatures(4).fit(X)
    nmf = NMFFeatures(4, align_to=shuffled(plain, order))
    W = nmf.fit_transform(X)
    assert_array_equal(nmf.components_, plain.components_[order])
    for name in FITTED:
        assert_allclose(getattr(nmf, name), getattr(plain, name)[order], rtol=1e-12)
    assert_allclose(W, plain.transform(X).to_numpy()[:, order], rtol=1e-9, atol=1e-9)
    assert_allclose(nmf.transform(X), W, rtol=1e-9, atol=1e-9)
    assert_allclose(nmf.objective_, plain.objective_, rtol=1e-12)
    assert_allclose(nmf.score(X), plain.score(X), rtol=1e-12)
    assert_allclose(nmf.changes()["similarity"], 1)
    assert nmf.changes()["component"].tolist() == nmf.changes()["earlier"].tolist() == W.columns.tolist()


def test_the_next_fit_keeps_the_numbers():
    june, july = parts(seed=0), parts(seed=1)
    july[["a", "b"]] /= 8  # the largest component would be the last
    earlier = NMFFeatures(4, shift=None, scale=None).fit(june)
    later = NMFFeatures(4, shift=None, scale=None, align_to=earlier).fit(july)
    assert_array_equal(later.components_.argmax(axis=1), earlier.components_.argmax(axis=1))
    assert later.transform(july).sum().idxmax() != "NNMF1"
    assert (later.changes()["similarity"] > 0.99).all()
    text = io.StringIO(earlier.tidy().to_csv(index=False))
    from_file = NMFFeatures(4, shift=None, scale=None, align_to=pd.read_csv(text)).fit(july)
    assert_array_equal(from_file.components_, later.components_)


def test_more_and_fewer_components():
    X = parts()
    four, three = NMFFeatures(4).fit(X), NMFFeatures(3).fit(X)
    more = NMFFeatures(4, align_to=three).fit(X)
    rows, _, _ = match(four.components_, three.components_)
    assert_array_equal(more.components_[:3], four.components_[rows])
    changes = more.changes()
    assert changes["component"].tolist() == ["NNMF1", "NNMF2", "NNMF3", "NNMF4"]
    assert changes["earlier"].tolist() == ["NNMF1", "NNMF2", "NNMF3", None]
    assert np.isnan(changes["similarity"].iloc[3])
    only = X[["c", "d", "g", "h"]]  # what components 2 and 4 are made of
    last = shuffled(four, np.argsort([[*"aceg"].index(X.columns[j // 2 * 2]) for j in four.components_.argmax(axis=1)]))
    with pytest.warns(UserWarning, match=r"components number \[1, 3\] have no partner among 2") as caught:
        fewer = NMFFeatures(2, align_to=last).fit(only)
    assert caught[0].filename == __file__
    changes = fewer.changes()
    assert changes["component"].tolist() == ["NNMF1", "NNMF2", None, None]
    assert changes["earlier"].tolist() == ["NNMF2", "NNMF4", "NNMF1", "NNMF3"]


def test_changes_are_those_of_loadings_by_name():
    X = parts()
    earlier = NMFFeatures(2).fit(X[["a", "b", "c", "d"]])
    later = NMFFeatures(2, align_to=earlier).fit(X[["d", "c", "b", "e"]])
    changes = later.changes()
    E = pd.DataFrame(earlier.components_, columns=list("abcd")).reindex(columns=list("abcde"), fill_value=0.0)
    H = pd.DataFrame(later.components_, columns=list("dcbe")).reindex(columns=list("abcde"), fill_value=0.0)
    lengths = np.linalg.norm(E, axis=1) * np.linalg.norm(H, axis=1)
    assert_allclose(changes["similarity"], (E * H).sum(axis=1) / lengths)
    assert_allclose(changes["moved"], np.abs(H - E).sum(axis=1) / 2)
    assert changes["gained"].tolist() == (H - E).idxmax(axis=1).tolist()
    assert changes["lost"].tolist() == (H - E).idxmin(axis=1).tolist()
    same = earlier.changes(earlier)
    assert_allclose(same["similarity"], 1)
    assert_allclose(same["moved"], 0, atol=1e-12)
    assert same["gained"].tolist() == [None, None]
    pd.testing.assert_frame_equal(later.changes(earlier.tidy()), changes)


def test_clones_pipelines_and_files():
    X = parts()
    earlier = NMFFeatures(4).fit(X)
    with pytest.raises(NotFittedError, match=r"cloned since.*align_to=earlier.tidy\(\)"):
        clone(NMFFeatures(4, align_to=earlier)).fit(X)
    lines = shuffled(earlier, [2, 0, 1, 3])
    nmf = NMFFeatures(4, align_to=lines)
    wanted = nmf.fit(X).components_
    assert_array_equal(clone(nmf).fit(X).components_, wanted)
    assert_array_equal(pickle.loads(pickle.dumps(nmf)).fit(X).components_, wanted)
    plain = NMFFeatures(4, align_to=lines.to_dict("list")).fit(X)  # skops knows no frames
    assert_array_equal(plain.components_, wanted)
    loaded = skops.io.loads(skops.io.dumps(plain), trusted=["nmf_features.estimator.NMFFeatures"])
    assert_allclose(loaded.changes()["similarity"], 1)
    model = make_pipeline(NMFFeatures(align_to=lines), LinearRegression())
    search = GridSearchCV(model, {"nmffeatures__n_components": [4], "nmffeatures__penalty": [0, 0.001]}, cv=3).fit(
        X, X["a"]
    )
    assert search.best_estimator_[0].changes()["similarity"].min() > 0.9
    nmf.set_params(n_components=0).fit(X)
    assert nmf.changes()["earlier"].tolist() == ["NNMF1", "NNMF2", "NNMF3", "NNMF4"]


def test_arrays_are_matched_by_position():
    X = parts().to_numpy()
    plain = NMFFeatures(4).fit(X)
    nmf = NMFFeatures(4, align_to=shuffled(plain, [2, 3, 0, 1])).fit(X)
    assert_array_equal(nmf.components_, plain.components_[[2, 3, 0, 1]])


@pytest.mark.parametrize(
    ("align_to", "message"),
    [
        (lambda e: e.tidy().drop(columns="terms"), r"without the columns \['terms'\]"),
        (lambda e: e.tidy().iloc[1:], "frame of 31 lines; wanted one line"),
        (lambda e: e.tidy().iloc[[0, *range(31)]], "frame of 32 lines; wanted one line"),
        (lambda e: e.tidy().assign(value=-1.0), "with a value of 0 or more"),
        (lambda e: e.tidy().assign(value=np.nan), "with a value of 0 or more"),
        (lambda e: e.tidy().assign(terms=lambda t: t["terms"].str.upper()), "none of which is factorised here"),
        (lambda e: "june", "'align_to' parameter"),
        (lambda e: NMFFeatures(), "align_to is a model that is not fitted"),
    ],
)
def test_bad_earlier_fits(align_to, message):
    X = parts()
    with pytest.raises(ValueError, match=message):
        NMFFeatures(4, align_to=align_to(NMFFeatures(4).fit(X))).fit(X)


def test_nothing_to_compare_with():
    nmf = NMFFeatures(4).fit(parts())
    with pytest.raises(ValueError, match="no earlier fit"):
        nmf.changes()
    with pytest.raises(NotFittedError, match="earlier is a model"):
        nmf.changes(NMFFeatures())
    assert Loadings.of(nmf).names == ["NNMF1", "NNMF2", "NNMF3", "NNMF4"]
