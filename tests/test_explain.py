"""Contributions add up to the scores and equal their formulas; what is unexplained adds up to the loss."""

import re
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.datasets import load_breast_cancer

from nmf_features import NegativeBinomial, NMFFeatures, explaining
from nmf_features.core.losses import LOSSES
from nmf_features.core.objective import divergence
from nmf_features.plots import RowDisplay, UnexplainedDisplay, reconstruction_shares

RAW = {"shift": None, "scale": None}
PENALTIES = [dict(penalty=0), dict(penalty=0.01), dict(penalty=0.01, l1_ratio=0.4), dict(penalty=0.01, l1_ratio=0)]
BETAS = {"frobenius": 2, "kullback-leibler": 1, "itakura-saito": 0, 1.5: 1.5, 0.5: 0.5, 3.0: 3}


def amounts(n=40, p=7, k=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.gamma(1, 1, (n, k)) @ rng.gamma(0.5, 1, (k, p)) + 0.05 * rng.uniform(size=(n, p))


def holed(X, seed=1):
    return np.where(np.random.default_rng(seed).uniform(size=X.shape) < 0.25, np.nan, X)


def fitted(X, k=3, **params):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence, which does not matter here, and of constant columns
        return NMFFeatures(k, **params).fit(X)


def scores(nmf, X):
    return np.asarray(nmf.transform(X))[:, -nmf.n_components_ :].astype(float)


def of_lines(lines, shape):
    """The contributions of the lines of each score, and the penalty's alone."""
    total = lines.groupby(["row", "component"], sort=False)["contribution"].sum().to_numpy().reshape(shape)
    return total, lines.loc[lines["term"] == "penalty", "contribution"].to_numpy().reshape(shape)


def strengths(nmf, observed=1.0):
    l1, l2 = nmf.score_penalties_
    s = nmf.component_scales_
    return observed * l1 / s, observed * l2 / s**2


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
@pytest.mark.parametrize("loss", [*LOSSES, 1.5, 0.5, 3.0, NegativeBinomial(0.2)], ids=str)
def test_contributions_are_their_formulas(loss, penalty, missing):
    """Both kinds, row by row, from what defines them; nothing there makes them add up but that scores are minima."""
    X = holed(amounts()) if missing else amounts()
    nmf = fitted(X, loss=loss, missing_values="ignore", **RAW, **penalty)
    W, H, loss = scores(nmf, X), nmf.components_, LOSSES.get(loss, nmf.columns_.loss)
    share, signed = (nmf.contributions(X, kind=kind) for kind in ("share", "signed"))
    total, taken = of_lines(nmf.explain(X, kind="signed"), W.shape)
    assert_allclose(share.sum(axis=2), W, rtol=1e-12, atol=1e-14)
    assert_allclose(total, W, rtol=1e-12, atol=1e-12 * W.max())
    assert (share >= 0).all()
    for i, (x, w) in enumerate(zip(X, W, strict=True)):
        seen, S = ~np.isnan(x), w > 0
        x, h = x[seen], H[S][:, seen]
        l1, l2 = strengths(nmf, seen.mean())
        y = w[S] @ h
        slope, above, _ = loss.slopes_of_cells(x, y)
        # scores are minima to 1e-11 of the largest (the solver's stop), so a small one is known to fewer digits
        close = {"rtol": 1e-7, "atol": 1e-8 * w.max()}
        down = (h @ above + l1[S] + l2[S] * w[S])[:, None]
        assert_allclose(share[i][S][:, seen], w[S, None] * h * (above - slope) / down, **close)
        v = np.divide(slope, y - x, out=np.ones_like(y), where=y != x)  # 1: no test is made of such rows
        assert not share[i][:, ~seen].any()
        assert not signed[i][:, ~seen].any()
        assert not signed[i][~S].any()
        M = (h * v) @ h.T + np.diag(l2[S])
        if np.linalg.cond(M) > 1e6 or (np.abs(y - x) < 1e-9 * x).any():  # fewer cells than scores, or nearly so
            continue
        M = np.linalg.inv(M)
        assert_allclose(signed[i][S][:, seen], M @ (h * v) * x, rtol=1e-5, atol=1e-7 * w.max())
        assert_allclose(taken[i][S], -M @ l1[S], rtol=1e-5, atol=1e-7 * w.max())


@pytest.mark.parametrize("loss", BETAS, ids=str)
def test_shares_of_beta_divergences(loss):
    """Share: b = x y^(beta - 2), a = y^(beta - 1). For Kullback-Leibler a = 1, and loadings add up to 1."""
    X, beta = amounts(), BETAS[loss]
    nmf = fitted(X, loss=loss, penalty=0.01, **RAW)
    W, H = scores(nmf, X), nmf.components_
    Y, (l1, _) = W @ H, strengths(nmf)
    below = Y ** (beta - 1) @ H.T + l1
    wanted = W[:, :, None] * H * (X * Y ** (beta - 2))[:, None, :] / below[:, :, None]
    assert_allclose(nmf.contributions(X), wanted, rtol=1e-7, atol=1e-9)
    if beta == 1:
        assert_allclose(below, np.broadcast_to(1 + l1, below.shape), rtol=1e-12)


def test_signed_contributions_say_what_would_change():
    """Least squares are linear in x while the same scores are zero: c / x is the derivative of the score."""
    X = amounts()
    nmf = fitted(X, penalty=0.01, **RAW)
    W, C = scores(nmf, X), nmf.contributions(X, kind="signed")
    tried = 0
    for j in range(X.shape[1]):
        moved = X.copy()
        moved[:, j] *= 1 + 1e-3
        after = scores(nmf, moved)
        same = ((after > 0) == (W > 0)).all(axis=1)
        tried += same.sum()
        assert_allclose((after - W)[same], 1e-3 * C[same, :, j], rtol=1e-6, atol=1e-9)
    assert tried > 200
    assert (C < -1e-3).any()


SETTINGS = [
    {},
    dict(shift="split"),
    dict(scale="robust"),
    dict(shift=None, scale="max"),
    dict(projection="linear"),
    dict(loss="kullback-leibler"),
    dict(variables=["c4", "c0", "c1"]),
    dict(drop_original=False),
]


@pytest.mark.parametrize("kind", ["share", "signed"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_frames_polars_and_float32(table, settings, kind):
    nmf = fitted(table, penalty=0.01, **settings)
    W, C = scores(nmf, table), nmf.contributions(table, kind=kind)
    lines = nmf.explain(table, top=2, kind=kind)
    assert_allclose(of_lines(lines, W.shape)[0], W, rtol=1e-12, atol=1e-12 * W.max())
    assert C.shape == (40, 3, len(nmf.columns_.terms))
    assert lines.columns.tolist() == ["row", "component", "term", "contribution", "value", "baseline"]
    assert lines.index.equals(table.index[lines["row"]])
    if "projection" in settings:
        Z = nmf.columns_.scaled(table)
        assert_allclose(C, Z[:, None, :] * nmf.components_, rtol=1e-12)
    plain = table.reset_index(drop=True)
    other = fitted(pl.from_pandas(plain), penalty=0.01, **settings).explain(pl.from_pandas(plain), top=2, kind=kind)
    assert isinstance(other, pl.DataFrame)
    for name in lines.columns:
        assert_array_equal(other[name].to_numpy(), lines[name].to_numpy())
    numbers = [name for name in table if name.startswith("c")]
    single = table.astype(dict.fromkeys(numbers, np.float32))
    C = nmf.contributions(single, kind=kind)
    assert C.dtype == np.float32
    if kind == "share" or "projection" in settings:
        assert_allclose(C.sum(axis=2), scores(nmf, single), rtol=1e-5, atol=1e-5)  # float32 has seven digits


def test_explain_names_the_largest_beside_original_values(table):
    nmf = NMFFeatures(3, shift="split").fit(table)
    C, terms = nmf.contributions(table, kind="signed"), np.array(nmf.columns_.terms)
    lines = nmf.explain(table, top=3, kind="signed").reset_index(drop=True)
    means = dict(zip(nmf.variables_, nmf.scaling_["offset"], strict=True))
    for (i, name), part in lines.groupby(["row", "component"]):
        c = C[i, nmf.columns_.component_names.index(name)]
        order = np.argsort(-np.abs(c), kind="stable")[:3]
        order = order[c[order] != 0]
        assert part["term"].tolist() == [*terms[order], "others", "penalty"]
        assert_allclose(part["contribution"].iloc[: len(order)], c[order], rtol=1e-12)
        assert_allclose(part["contribution"].iloc[-2], c.sum() - c[order].sum(), atol=1e-12 * np.abs(C).max())
        originals = [term[:-1] for term in terms[order]]
        assert_allclose(part["value"].iloc[:-2], table.iloc[i][originals].astype(float))
        assert_allclose(part["baseline"].iloc[:-2], [means[name] for name in originals])
        assert part[["value", "baseline"]].iloc[-2:].isna().all(axis=None)
    assert lines["row"].is_monotonic_increasing


def test_baseline_contributes_nothing(table):
    for shift in ("min", "split", None):
        nmf = NMFFeatures(2, shift=shift).fit(table)
        lines = nmf.explain(table, top=99)
        at = table.copy()
        baseline = lines.dropna().assign(term=lambda t: t["term"].str.rstrip("+-")).groupby("term")["baseline"].first()
        at[baseline.index] = baseline.to_numpy()
        assert not nmf.contributions(at).any()


def test_sparse_equals_dense():
    X = amounts() * (np.random.default_rng(2).uniform(size=(40, 7)) < 0.5)
    for settings in ({}, dict(loss="kullback-leibler")):
        nmf = fitted(X, **RAW, **settings)
        for kind in ("share", "signed"):
            close = {"rtol": 1e-6, "atol": 1e-9}  # Kullback-Leibler's scores are found by other products
            dense, csr = nmf.contributions(X, kind=kind), nmf.contributions(sparse.csr_array(X), kind=kind)
            assert_allclose(csr, dense, **close)
        assert_allclose(nmf.score_samples(sparse.csr_array(X)), nmf.score_samples(X), rtol=1e-6)
        lines = nmf.explain(sparse.csr_array(X), top=99)
        named = lines[~lines["term"].isin(["others", "penalty"])]
        assert_array_equal(named["value"], X[named["row"], named["term"].astype(int)])


def test_unstored_cells_contribute_nothing():
    X = amounts()
    seen = np.random.default_rng(2).uniform(size=X.shape) < 0.6
    X[0], seen[0, :2] = np.where(seen[0], 1, X[0]), True
    ratings = sparse.csr_array(np.where(seen, X, 0))
    nmf = fitted(ratings, missing_values="unstored", penalty=0.01, **RAW)
    as_nan = np.where(seen, X, np.nan)
    for kind in ("share", "signed"):
        C = nmf.contributions(ratings, kind=kind)
        assert_allclose(C, nmf.contributions(as_nan, kind=kind), rtol=1e-7, atol=1e-10)
        assert not C.transpose(0, 2, 1)[~seen].any()
    assert_allclose(nmf.score_samples(ratings), nmf.score_samples(as_nan), rtol=1e-9)
    D = nmf.unexplained(ratings)
    assert_array_equal(np.isnan(D), ~seen)


def test_rows_and_columns_without_anything():
    X = holed(amounts())
    X[3], X[8], X[:, 5] = np.nan, np.fmin.reduce(X, axis=0), 2.0
    nmf = fitted(X, 2, missing_values="ignore")
    with pytest.warns(UserWarning, match="1 rows with nothing observed"):
        C = nmf.contributions(X)
    assert np.isnan(C[3]).all()
    assert not np.isnan(np.delete(C, 3, axis=0)).any()
    assert not np.delete(C, 3, axis=0)[:, :, 5].any()
    assert not C[8].any()  # each column at its minimum
    with pytest.warns(UserWarning, match="1 rows with nothing observed"):
        lines, s = nmf.explain(X), nmf.score_samples(X)
    assert lines.loc[lines["row"] == 3, "term"].tolist() == ["others", "penalty"] * 2
    assert lines.loc[lines["row"] == 3, "contribution"].isna().all()
    assert lines.loc[lines["row"] == 8, "contribution"].tolist() == [0.0] * 4
    assert np.flatnonzero(np.isnan(s)).tolist() == [3]


def test_no_components_and_no_rows(table):
    nmf = NMFFeatures(0).fit(table)
    assert nmf.contributions(table).shape == (40, 0, 6)
    assert nmf.explain(table).shape == (0, 6)
    for method in (nmf.score_samples, nmf.unexplained):
        with pytest.raises(ValueError, match="nothing to score"):
            method(table)
    nmf = NMFFeatures(2).fit(table)
    assert nmf.contributions(table[:0]).shape == (0, 2, 6)
    assert nmf.explain(table[:0]).columns.tolist() == nmf.explain(table).columns.tolist()
    assert nmf.score_samples(table[:0]).shape == (0,)
    assert nmf.unexplained(table[:0]).shape == (0, 6)


def with_loadings(nmf, H):
    nmf.components_, nmf.n_components_, nmf.component_scales_ = H, len(H), np.ones(len(H))
    return nmf


@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler"])
def test_equal_components_share_equally(loss):
    X = amounts(k=2)
    nmf = fitted(X, 2, penalty=0, loss=loss, **RAW)
    nmf = with_loadings(nmf, nmf.components_[[0, 1, 0]])
    W = scores(nmf, X)
    for kind in ("share", "signed"):
        C = nmf.contributions(X, kind=kind)
        assert_allclose(C.sum(axis=2), W, rtol=1e-12, atol=1e-13 * W.max())
        assert_allclose(C[:, 0], C[:, 2], rtol=1e-9, atol=1e-9 * W.max())


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("penalty", [0, 0.01])
def test_dependent_loadings(missing, penalty):
    """Scores of least norm: A is the transposed pseudo-inverse of the loadings that have a score, where observed."""
    X = holed(amounts(k=2)) if missing else amounts(k=2)
    X = X[np.isfinite(X).any(axis=1)]
    nmf = fitted(X, 2, penalty=penalty, missing_values="ignore", **RAW)
    nmf = with_loadings(nmf, np.vstack([nmf.components_, nmf.components_.mean(axis=0)]))
    W, C, tried = scores(nmf, X), nmf.contributions(X, kind="signed"), 0
    assert_allclose(of_lines(nmf.explain(X, kind="signed"), W.shape)[0], W, rtol=1e-12, atol=1e-12 * W.max())
    for x, w, c in zip(X, W, C, strict=True):
        S, seen = w > 0, ~np.isnan(x)
        tried += S.all()
        wanted = np.linalg.pinv(nmf.components_[S][:, seen], rcond=1e-9).T * x[seen]
        # the ridge, 1e-12, leaves scores four digits in directions in which the fit does not change
        assert_allclose(c[S][:, seen], wanted, rtol=1e-3, atol=1e-3 * W.max())
    assert tried > 10


@pytest.mark.parametrize("c", [1e-200, 1e200])
@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler", "itakura-saito"])
def test_other_units(loss, c):
    X = amounts()
    nmf, other = (fitted(x, loss=loss, penalty=0, **RAW) for x in (X, c * X))
    other.components_, other.component_scales_ = nmf.components_, nmf.component_scales_
    for kind in ("share", "signed"):
        assert_allclose(
            other.contributions(c * X, kind=kind) / c, nmf.contributions(X, kind=kind), rtol=1e-6, atol=1e-9
        )


@pytest.mark.parametrize("kind", ["share", "signed"])
def test_a_row_stands_alone_and_blocks_do_not_matter(monkeypatch, kind):
    X = load_breast_cancer().data
    for settings in ({}, dict(loss="kullback-leibler")):
        nmf = fitted(X, 4, max_iter=50, **settings)
        C = nmf.contributions(X, kind=kind)
        order = np.random.default_rng(0).permutation(len(X))[:60]
        close = {"rtol": 1e-9, "atol": 1e-9 * np.abs(C).max()}
        assert_allclose(nmf.contributions(X[order], kind=kind), C[order], **close)
        assert_allclose(nmf.contributions(X[7:8], kind=kind), C[7:8], **close)
        lines = nmf.explain(X, kind=kind)
        monkeypatch.setattr(explaining, "BLOCK_CELLS", 1)
        pd.testing.assert_frame_equal(nmf.explain(X[:70], kind=kind), lines[lines["row"] < 70], rtol=1e-9, atol=1e-9)
        monkeypatch.undo()


def test_lines_are_few_however_many_there_are():
    """What is held at once is a block, and the lines that are named."""
    import tracemalloc

    X = np.random.default_rng(0).gamma(1, 1, (4_000, 120))
    nmf = fitted(X, 8, max_iter=3, n_jobs=1)
    nmf.explain(X[:100], top=3)
    tracemalloc.start()
    lines = nmf.explain(X, top=3)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(lines) <= 4_000 * 8 * 5
    whole = 8 * X.size * 8  # the array of contributions
    assert most < whole
    assert most < 6 * X.nbytes + 3 * lines.memory_usage(deep=False).sum()


@pytest.mark.parametrize("loss", [*LOSSES, 1.5], ids=str)
def test_unexplained_adds_up_to_the_loss(loss):
    X = holed(amounts())
    nmf = fitted(X, loss=loss, missing_values="ignore", **RAW)
    s, D, W = nmf.score_samples(X), nmf.unexplained(X), scores(nmf, X)
    assert (s <= 0).all()
    assert_allclose(-s.sum(), divergence(X, W, nmf.components_, nmf.columns_.loss), rtol=1e-9)
    assert_allclose(np.nansum(D, axis=1), -s, rtol=1e-12)
    assert_array_equal(np.isnan(D), np.isnan(X))
    table = reconstruction_shares(nmf, X)
    assert_allclose(np.nansum(D, axis=0), table["error"], rtol=1e-9)
    assert_allclose(nmf.score(X), 1 + s.sum() / table["spread"].sum(), rtol=1e-9)


def test_unexplained_is_a_frame_like_x(table):
    for nmf in (NMFFeatures(2).fit(table), NMFFeatures(2, shift="split").fit(table)):
        D = nmf.unexplained(table)
        assert D.index.equals(table.index)
        assert D.columns.tolist() == nmf.columns_.terms
        assert_allclose(D.sum(axis=1), -nmf.score_samples(table), rtol=1e-12)
    polars = pl.from_pandas(table.reset_index(drop=True))
    assert isinstance(NMFFeatures(2).fit(polars).unexplained(polars), pl.DataFrame)
    linear = NMFFeatures(2, projection="linear").fit(table)
    assert_array_equal(linear.score_samples(table), NMFFeatures(2).fit(table).score_samples(table))


def test_a_strange_row_and_its_column_are_found():
    X = pd.DataFrame(amounts(n=200), columns=list("abcdefg"))
    nmf = NMFFeatures(3).fit(X)
    new = X.copy()
    new.loc[17, "d"] = X["d"].max() * 3
    assert nmf.score_samples(new).argmin() == 17
    assert nmf.unexplained(new).loc[17].idxmax() == "d"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (dict(top=0), "top is 0; wanted a whole number of columns to name for each score"),
        (dict(top=True), "top is True"),
        (dict(top=None), "top is None"),
        (dict(kind="shares"), "kind is 'shares'; wanted one of ['share', 'signed']"),
        (dict(kind=None), "kind is None"),
    ],
)
def test_bad_arguments(table, params, message):
    for nmf in (NMFFeatures(2).fit(table), NMFFeatures(0).fit(table)):
        with pytest.raises(ValueError, match=re.escape(message)):
            nmf.explain(table, **params)
        if "kind" in params:
            with pytest.raises(ValueError, match=re.escape(message)):
                nmf.contributions(table, **params)


def test_columns_may_have_any_names(table):
    X = table[["c0", "c1", "c2"]].set_axis([("a", 1), ("a", 2), ("b", 1)], axis=1)
    X.columns = pd.Index(X.columns, tupleize_cols=False)
    lines = NMFFeatures(1).fit(X).explain(X)
    assert set(lines["term"]) == {("a", 1), ("a", 2), ("b", 1), "others", "penalty"}
    named = table[["c0", "c1", "c2"]].set_axis(["others", "penalty", "(others)"], axis=1)
    lines = NMFFeatures(1).fit(named).explain(named)
    assert set(lines["term"]) == {*named, "((others))", "(penalty)"}
    assert lines["value"].isna().equals(lines["term"].isin(["((others))", "(penalty)"]))


def test_no_lines_have_the_dtypes_of_lines(table, to_frame):
    X = to_frame(table[["c0", "c1", "c2"]])

    def dtypes(nmf, X):
        lines = nmf.explain(X)
        return [str(getattr(lines[name], "dtype", None) or lines[name].type) for name in explaining.FIELDS]

    nmf = NMFFeatures(2).fit(X)
    assert dtypes(nmf, X) == dtypes(nmf, X[:0]) == dtypes(NMFFeatures(0).fit(X), X)


@pytest.mark.parametrize("form", ["coo", "csc", "dia", "bsr", "lil"])
def test_sparse_rows_of_every_form(form):
    X = sparse.csr_matrix(sparse.random_array((20, 6), density=0.5, rng=0))
    nmf, same = NMFFeatures(2, shift=None).fit(X), X.asformat(form)
    assert nmf.report(same).html == nmf.report(X).html
    assert_array_equal(nmf.explain(same)["contribution"], nmf.explain(X)["contribution"])
    for display in (RowDisplay, UnexplainedDisplay):
        display.from_estimator(nmf, same)
    plt.close("all")
