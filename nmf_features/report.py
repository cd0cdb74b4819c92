"""A page about a fitted model: what its components are made of, what they explain, and how sure they are.

Plain HTML with its own style and without scripts, which shows in a notebook, in a mail, or as a file.
"""

from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd
from sklearn.utils import _safe_indexing

from . import frames
from .aligning import match
from .explaining import worst_rows
from .fitting import scores_of_table

WORST = 5  # rows that are named
STYLE = """<style>
.nmf-report { font: 14px/1.45 system-ui, sans-serif; color: #1f2328; background: #fff; padding: 2px 12px;
  max-width: 64em }
.nmf-report h3 { margin: .6em 0 .2em; font-size: 1.15em }
.nmf-report p, .nmf-report small { margin: .2em 0 .8em; color: #59636e }
.nmf-report table { border-collapse: collapse; margin: 0 0 1em; width: 100% }
.nmf-report table.short { width: auto }
.nmf-report tr { background: #fff !important }
.nmf-report td, .nmf-report th { text-align: left; vertical-align: top; padding: 6px 16px 6px 0; font-size: 14px }
.nmf-report td { border-top: 1px solid #d9dee3 }
.nmf-report th { color: #59636e; font-weight: 400 }
.nmf-report .n { text-align: right; white-space: nowrap }
.nmf-report .line { display: flex; align-items: center; gap: 8px; line-height: 1.3 }
.nmf-report .name { flex: none; width: 14em; overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
.nmf-report .room { flex: 1; min-width: 5em }
.nmf-report .bar { display: block; background: #0072b2; height: 10px }
.nmf-report .value { flex: none; width: 3.5em; color: #59636e; text-align: right }
</style>"""


@dataclass(frozen=True, eq=False)
class Report:
    """What :meth:`NMFFeatures.report` returns. A notebook shows it; ``html`` is the page as text.

    Attributes
    ----------
    components : pandas.DataFrame
        A row for each component: its ``label`` and the share ``explained``; ``reproducibility``, if stability was
        passed; ``mean_score`` and ``zero_scores`` (a share of the rows), if X was.
    top : pandas.DataFrame
        The largest loadings of each component, as of :meth:`NMFFeatures.top_features`.
    rows : pandas.DataFrame
        The rows of X that fit least, the worst first: ``row`` (its label), ``unexplained``, and the ``column`` with
        most of it.
    facts : dict of str to str
        What there is to say about the model as a whole.
    """

    components: pd.DataFrame
    top: pd.DataFrame
    rows: pd.DataFrame
    facts: dict

    @property
    def html(self) -> str:
        """The page, a text that needs nothing else."""
        k = len(self.components)
        facts = "; ".join(f"{escape(name)} {escape(value)}" for name, value in self.facts.items())
        titles = "".join(f"<th class='n'>{FIELDS[field][0]}</th>" for field in self._fields)
        lines = "".join(map(self._line, self.components.index))
        return (
            f"{STYLE}<div class='nmf-report'><h3>{k} {'component' if k == 1 else 'components'}</h3><p>{facts}</p>"
            f"<table><tr><th>component</th><th>largest loadings</th>{titles}</tr>{lines}</table>{self._worst()}</div>"
        )

    def _repr_html_(self):
        return self.html

    @property
    def _fields(self):
        return [field for field in self.components if field != "label"]

    def _line(self, name):
        """Return the table row of a component."""
        about, parts = self.components.loc[name], self.top[self.top["component"] == name]
        longest = self.top["value"].max()
        bars = "".join(
            f"<div class='line'><span class='name' title='{escape(str(term))}'>{escape(str(term))}</span>"
            f"<span class='room'><span class='bar' style='width: {100 * value / longest:.1f}%'></span></span>"
            f"<span class='value'>{value:.3f}</span></div>"
            for term, value in zip(parts["terms"], parts["value"], strict=True)
        )
        label = "" if about["label"] == name else f"<br><small>{escape(about['label'])}</small>"
        numbers = "".join(f"<td class='n'>{FIELDS[field][1].format(about[field])}</td>" for field in self._fields)
        return f"<tr><td>{escape(name)}{label}</td><td>{bars or 'all loadings are zero'}</td>{numbers}</tr>"

    def _worst(self):
        """Return the part about rows that fit least, if there are rows."""
        if not len(self.rows):
            return ""
        lines = "".join(
            f"<tr><td>{escape(str(row))}</td><td class='n'>{value:.4g}</td><td>{escape(str(column))}</td></tr>"
            for row, value, column in self.rows.itertuples(index=False)
        )
        titles = "<tr><th>row</th><th class='n'>unexplained, in units of the loss</th><th>most of it in</th></tr>"
        return f"<h3>Rows that fit least</h3><table class='short'>{titles}{lines}</table>"


def report(model, X=None, stability=None, m=5):
    """Return the Report of a fitted model with components."""
    columns, X = model.columns_, frames.as_table(X)
    names, rows = columns.component_names, NO_ROWS
    about = {"label": model.labels(), "explained": model.explained_}
    facts = {
        "of": f"{len(model.variables_)} columns",
        "loss": str(columns.loss.name),
        "penalty": f"{model.penalty:g}",
        "converged" if model.converged_ else "not converged": f"after {model.n_iter_} passes",
    }
    if hasattr(model, "target_explained_"):
        facts["explains of the target"] = f"{model.target_explained_:.1%} in training"
    if stability is not None:
        about["reproducibility"] = _reproducibility(model, stability)
    if X is not None:
        W, losses = scores_of_table(columns, columns.checked(X)), -model.score_samples(X)
        about["mean_score"], about["zero_scores"] = np.nanmean(W, axis=0), (W == 0).mean(axis=0)
        facts["explains"] = f"{model.score(X):.1%} of what the column means leave unexplained of {len(W)} rows"
        rows = _worst_rows(model, X, losses)
    components = pd.DataFrame(about, index=pd.Index(names, dtype=object))
    return Report(components, model.top_features(m), rows, facts)


def _worst_rows(model, X, losses):
    """Return the rows of X that fit least, by label, and the columns with most of what is unexplained there."""
    worst = worst_rows(losses, WORST)
    worst = worst[losses[worst] > 0]
    if not len(worst):
        return NO_ROWS
    cells = np.asarray(model.unexplained(_safe_indexing(X, worst)), dtype=float)
    index = X.index if isinstance(X, pd.DataFrame) else range(len(losses))
    terms = model.columns_.terms
    columns = [terms[j] for j in np.nanargmax(cells, axis=1)]
    return pd.DataFrame({"row": [index[i] for i in worst], "unexplained": losses[worst], "column": columns})


def _reproducibility(model, stability):
    """Return those of the components that are most like the model's: the order of the two may differ."""
    terms, known = model.columns_.terms, stability.components
    if [*known.columns] != terms or len(known) != model.n_components_:
        raise ValueError(
            f"stability is of {len(known)} components of the columns {[*known.columns]}; wanted that of "
            f"{model.n_components_} components of {terms}, as they are here."
        )
    rows, _, _ = match(known.to_numpy(), model.components_)
    return stability.reproducibility.to_numpy()[rows]


NO_ROWS = pd.DataFrame({"row": [], "unexplained": [], "column": []})
FIELDS = {  # title and format
    "explained": ("explained", "{:.1%}"),
    "reproducibility": ("comes back", "{:.2f}"),
    "mean_score": ("mean score", "{:.3g}"),
    "zero_scores": ("zero in", "{:.0%}"),
}
