"""The report holds the numbers of the model, under names that cannot break the page."""

from html.parser import HTMLParser

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from nmf_features import NMFFeatures, stability


class Page(HTMLParser):
    """The texts of a page, and its tags, which have to be closed in order."""

    def __init__(self, html):
        super().__init__()
        self.texts, self.open, self.tags = [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_numbers_are_those_of_the_model(table):
    nmf = NMFFeatures(3).fit(table)
    page = nmf.report(table, m=2)
    W = nmf.transform(table).iloc[:, 2:]
    assert page.components.index.tolist() == W.columns.tolist()
    assert page.components["label"].tolist() == nmf.labels()
    assert_allclose(page.components["explained"], nmf.explained_)
    assert_allclose(page.components["mean_score"], W.mean())
    assert_allclose(page.components["zero_scores"], (W == 0).mean())
    pd.testing.assert_frame_equal(page.top, nmf.top_features(2))
    losses = pd.Series(-nmf.score_samples(table), table.index)
    assert_allclose(page.rows["unexplained"], losses.nlargest(5))
    worst = np.argsort(-losses.to_numpy())[:5]
    assert page.rows["row"].tolist() == table.index[worst].tolist()
    assert page.rows["column"].tolist() == nmf.unexplained(table).iloc[worst].idxmax(axis=1).tolist()
    assert page._repr_html_() == page.html
    read = Page(page.html)
    for text in ("3 components", "NNMF2", nmf.labels()[0], f"{nmf.explained_[1]:.1%}", "Rows that fit least"):
        assert text in read.texts
    assert any(f"explains {nmf.score(table):.1%} of" in text for text in read.texts)
    widths = [float(a["style"].split()[1].rstrip("%")) for _, a in read.tags if a.get("class") == "bar"]
    assert_allclose(widths, 100 * page.top["value"] / page.top["value"].max(), atol=0.06)


def test_without_rows(table):
    page = NMFFeatures(1).fit(table).report()
    assert page.components.columns.tolist() == ["label", "explained"]
    assert len(page.rows) == 0
    texts = Page(page.html).texts
    assert "1 component" in texts
    assert "Rows that fit least" not in texts


def test_stability_is_matched_by_loadings(table):
    found = stability(table, 3, n_runs=2, random_state=0, progress=False)
    nmf = NMFFeatures(3).fit(table)
    page = nmf.report(stability=found)
    assert_allclose(page.components["reproducibility"], found.reproducibility)
    order = [2, 0, 1]
    names = nmf.columns_.component_names
    tidy = nmf.tidy()
    lines = pd.concat([tidy[tidy["component"] == names[t]].assign(component=names[i]) for i, t in enumerate(order)])
    moved = NMFFeatures(3, align_to=lines, feature_names_out="labels").fit(table)
    page = moved.report(stability=found)
    assert_allclose(page.components["reproducibility"], found.reproducibility.to_numpy()[order])
    assert "comes back" in Page(page.html).texts
    with pytest.raises(ValueError, match="stability is of 3 components"):
        NMFFeatures(2).fit(table).report(stability=found)
    with pytest.raises(ValueError, match="of the columns"):
        NMFFeatures(3, variables=["c0", "c1", "c2"]).fit(table).report(stability=found)


def test_names_cannot_break_the_page(table):
    X = table[["c0", "c1", "c2"]].set_axis(["<b>", "a & 'b'", "</table>"], axis=1)
    X.index = [f"<i>{i}" for i in range(len(X))]
    for settings in ({}, dict(feature_names_out="labels"), dict(prefix="<p>")):
        read = Page(NMFFeatures(2, **settings).fit(X).report(X).html)
        assert {"b", "i"}.isdisjoint(tag for tag, _ in read.tags)
        assert "a & 'b'" in read.texts


@pytest.mark.filterwarnings("ignore:X has 1 rows with nothing observed:UserWarning")
@pytest.mark.parametrize(
    "settings", [{}, dict(projection="linear"), dict(loss="kullback-leibler"), dict(missing_values="ignore")], ids=str
)
def test_any_table(table, settings):
    X = table[[f"c{j}" for j in range(6)]].reset_index(drop=True)
    if "missing_values" in settings:
        X.iloc[3], X.iloc[5, 1] = np.nan, np.nan
    params = {"shift": None, "scale": "max", **settings}
    wanted = NMFFeatures(2, **params).fit(X).report(X)
    assert 3 not in wanted.rows["row"].tolist() or "missing_values" not in settings
    for other in (pl.from_pandas(X), X.to_numpy(), *([] if X.isna().any(axis=None) else [sparse.csr_array(X)])):
        page = NMFFeatures(2, **params).fit(other).report(other)
        for field in ("explained", "mean_score", "zero_scores"):
            assert_allclose(page.components[field], wanted.components[field], rtol=1e-6)
        assert_array_equal(page.rows["row"], wanted.rows["row"])
        Page(page.html)


def test_zero_components_and_none(table):
    rank_one = pd.DataFrame(np.outer(np.arange(1.0, 9), [1, 2, 3]), columns=list("abc"))
    with pytest.warns(UserWarning, match="are zero"):
        nmf = NMFFeatures(2, penalty=0, shift=None).fit(rank_one)
    page = nmf.report(rank_one)
    assert "all loadings are zero" in Page(page.html).texts
    with pytest.raises(ValueError, match="nothing to report"):
        NMFFeatures(0).fit(table).report()
    with pytest.raises(ValueError, match="m is 0"):
        nmf.report(m=0)
