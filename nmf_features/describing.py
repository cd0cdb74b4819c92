"""What a fitted NMFFeatures says of its components, and of the rows of a table.

tidy, top_features, target_table, labels, changes, report          its components
explain, contributions, score_samples, unexplained                 rows
drift                                                              columns of other rows
sql                                                                rows in a database
"""

from collections.abc import Callable
from numbers import Integral
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from . import frames
from ._warn import numpy_defaults
from .aligning import Loadings, changes
from .drift import drift
from .explaining import contributions, explain, unexplained
from .files import opened
from .pairs import fit_id
from .report import Report, report
from .sql import select
from .streaming import transform_to

Method = TypeVar("Method", bound=Callable)


def _saw_rows(model):
    """Refuse a model that knows loadings, but no training rows to compare with: one of ``load_tidy``."""
    if hasattr(model, "components_") and not hasattr(model, "objective_"):
        raise AttributeError(
            "A model of load_tidy has loadings alone; this compares with training rows. Fit NMFFeatures to have it."
        )
    return True


def needs_rows(method: Method) -> Method:
    """Mark a method that models of ``load_tidy`` do not have."""
    return available_if(_saw_rows)(method)


class DescribingMixin:
    """The methods of NMFFeatures that only read what was fitted."""

    @needs_rows
    @numpy_defaults
    def score_samples(self, X: Any) -> np.ndarray:
        """Return minus what the components leave unexplained of each row, -sum_j d(x_j, (w H)_j).

        Higher is better, as for every ``score_samples`` of scikit-learn: 0 is an exact fit, and rows far below the
        others are unlike the training rows. d is the loss of the fit, for the default loss half a square of a scaled
        column, so without its sign it is in the units of the loss. The penalty does not enter.

        Parameters
        ----------
        X : frame, array-like or sparse matrix of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples,)
            At most 0, over the observed cells; NaN for a row with nothing observed. W are the exact non-negative
            scores, as for :meth:`score`, also with ``projection="linear"``.

        See Also
        --------
        unexplained : The same, cell by cell.

        Examples
        --------
        >>> from sklearn.datasets import load_wine
        >>> from nmf_features import NMFFeatures
        >>> X = load_wine(as_frame=True).data
        >>> nmf = NMFFeatures(n_components=5).fit(X)
        >>> int(nmf.score_samples(X).argmin())  # the wine that fits least
        69
        """
        columns, table = self._for_explaining(X, "score")
        found = [np.zeros(0)]
        for _, D in unexplained(columns, table):
            found.append(-np.where(np.isnan(D).all(axis=1), np.nan, np.nansum(D, axis=1)))
        return np.concatenate(found)

    @needs_rows
    @numpy_defaults
    def unexplained(self, X: Any) -> Any:
        """Return what the components leave unexplained of each cell, d(x_ij, (W H)_ij), in the units of the loss.

        The sums of rows are ``-score_samples(X)``. The sums of columns say which columns do not fit; as shares of
        their spread they are those of :class:`~nmf_features.plots.ReconstructionDisplay`.

        Parameters
        ----------
        X : frame, array-like or sparse matrix of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        frame or array of shape (n_samples, n_columns)
            The same kind as X, with its index (an array for a sparse matrix: it has a number in every cell). Columns
            are those of ``components_``. NaN where a cell is missing.

        Examples
        --------
        >>> from sklearn.datasets import load_wine
        >>> from nmf_features import NMFFeatures
        >>> X = load_wine(as_frame=True).data
        >>> D = NMFFeatures(n_components=5).fit(X).unexplained(X)
        >>> D.loc[69].nlargest(2).round(1)  # in the wine that fits least
        hue    2.2
        ash    2.0
        Name: 69, dtype: float64
        """
        columns, table = self._for_explaining(X, "score")
        found = [D for _, D in unexplained(columns, table)]
        D = np.concatenate([np.zeros((0, len(columns.terms))), *found])
        return frames.make(D, columns.terms, like=table) if frames.is_frame(table) else D

    @needs_rows
    @numpy_defaults
    def drift(self, X: Any) -> pd.DataFrame:
        """Return how far the columns of X are from those of the fit: for those who score new rows again and again.

        Parameters
        ----------
        X : frame, array-like or sparse matrix of shape (n_samples, n_features)
            Data with the columns seen in ``fit``; best many rows, all that came since yesterday, say.

        Returns
        -------
        pandas.DataFrame
            A row for every column that is factorised: ``column``; ``below`` and ``above``, the shares of its observed
            cells that are outside the range of the training rows; ``explained``, the share of its sum of squares,
            shifted and scaled, that the components explain in X, 1 - |x_j - (W H)_j|^2 / |x_j|^2; and
            ``explained_in_fit``, the same share in the training rows, ``column_explained_``. NaN where there is nothing
            to divide by: no rows, a constant column, a model saved before there was ``drift``.

        See Also
        --------
        score_samples : Which rows do not fit.

        Notes
        -----
        Values are looked at before ``clip`` and ``out_of_range``, which warns of nothing here and refuses nothing; the
        share explained is of what remains after them. W are the exact non-negative scores, as for :meth:`score`.

        Examples
        --------
        >>> from sklearn.datasets import load_wine
        >>> from nmf_features import NMFFeatures
        >>> X = load_wine(as_frame=True).data
        >>> nmf = NMFFeatures(n_components=5).fit(X[:130])
        >>> found = nmf.drift(X[130:]).set_index("column")  # another kind of wine
        >>> found.loc[["ash", "hue", "color_intensity"]].round(2)
                         below  above  explained  explained_in_fit
        column
        ash               0.00   0.00       0.98              0.98
        hue               0.56   0.00      -0.96              0.98
        color_intensity   0.00   0.29       0.66              0.96
        """
        return drift(*self._for_explaining(X, "score"), getattr(self, "column_explained_", np.nan))

    @numpy_defaults
    def contributions(self, X: Any, *, kind: str = "share") -> np.ndarray:
        """Return what each column contributes to each score; see :meth:`explain`, which shows it as a frame.

        Parameters
        ----------
        X : frame, array-like or sparse matrix of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.
        kind : {"share", "signed"}, default "share"
            How scores are divided; see :meth:`explain`.

        Returns
        -------
        ndarray of shape (n_samples, n_components, n_columns)
            Columns are those of ``components_``. With "share" the last axis adds up to the scores; with "signed" it
            does so with the term of the penalty, which is what it lacks. All of it is held in memory.

        Examples
        --------
        >>> from sklearn.datasets import load_wine
        >>> from nmf_features import NMFFeatures
        >>> X = load_wine(as_frame=True).data
        >>> nmf = NMFFeatures(n_components=3).fit(X)
        >>> C = nmf.contributions(X)
        >>> C.shape
        (178, 3, 13)
        >>> float(abs(C.sum(axis=2) - nmf.transform(X)).max(axis=None))
        0.00
        """
        return contributions(*self._for_explaining(X), kind)

    @numpy_defaults
    def explain(self, X: Any, *, top: int = 10, kind: str = "share") -> Any:
        """Return which columns made each score of each row: contributions that add up to the score, to rounding.

        Contributions are measured from a baseline, at which a column contributes nothing: the training minimum with
        ``shift="min"`` (the lower quantile with ``clip``), with ``shift="mode"`` also a common value, 0 with
        ``shift=None``, the training mean with ``shift="split"`` (where ``name+`` is what lies above it, ``name-`` what
        lies below). x is the row, shifted, scaled and clipped; y = w H its fit; s, l1 and l2
        are ``component_scales_`` and ``score_penalties_``.

        "share", the default, divides a score among the columns in proportion to how each draws it up:

            c_tj = w_t h_tj b_j / (sum_i h_ti a_i + l1 / s_t + l2 w_t / s_t^2)

        where a - b is the slope of the loss of a cell. For beta-divergences b = x y^(beta - 2) and a = y^(beta - 1):
        for least squares x and y, for Kullback-Leibler x / y and 1. It is exact for every loss, since the slope of the
        objective is zero at the score, and never negative. A column that a component does not load contributes nothing.
        The penalty takes the same share of every contribution, so its line is 0.

        "signed" says what would raise the score. Among the scores that are not zero, least squares are linear in x:

            w = A x - M l1 / s,   A = M H V,   M = (H V H' + l2 / s^2)^-1,   c_tj = A_tj x_j

        with V = 1 and rows of H of these scores; -M l1 / s is the line of the penalty. A negative contribution means
        that the column speaks against the component: the more there is of it, the more of the row is left to another
        component, which loads it more. Contributions may be large and of both signs if components are alike. For other
        losses V holds v_j = slope_j / (y_j - x_j), for beta-divergences y_j^(beta - 2). The sum remains exact, but V is
        held as it is in this row, though it changes with x: this is a linearisation. For least squares, too, a large
        change of x can make other scores zero.

        With ``projection="linear"`` contributions of both kinds are x_j h_tj, and there is no penalty. A missing cell
        contributes nothing; all sums are over the observed cells, and l1 and l2 are multiplied by their share. If
        loadings are linearly dependent, scores of least norm are what is explained.

        Parameters
        ----------
        X : frame, array-like or sparse matrix of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.
        top : int, default 10
            Most columns that are named for each score: those of the largest contributions, without regard to sign.
        kind : {"share", "signed"}, default "share"
            How scores are divided.

        Returns
        -------
        frame
            Of the kind of X, pandas for arrays; a pandas frame has the index of X, each label as often as there are
            lines about the row. Sorted by ``row`` (its position in X), ``component``, and size, with the columns

            - ``term``: the column, as in :meth:`tidy`; columns without a contribution are left out. The last two lines
              of every score are "others", what all other columns contribute, and "penalty"; in brackets, as
              "(others)", where X has a column of that name.
            - ``contribution``: in the units of the score; NaN for a row with nothing observed.
            - ``value``: that of the column in X, in original units, before it is clipped.
            - ``baseline``: the value at which the column would contribute nothing.

        References
        ----------
        D. D. Lee and H. S. Seung (2001), Algorithms for non-negative matrix factorization, NIPS 13: their
        multiplicative step leaves a score as it is where shares add up to it. M. Sundararajan, A. Taly and Q. Yan
        (2017), Axiomatic attribution for deep networks, ICML: for least squares without penalty, signed contributions
        are their integrated gradients, along a path from the baseline on which the same scores are zero.

        Examples
        --------
        >>> from sklearn.datasets import load_wine
        >>> from nmf_features import NMFFeatures
        >>> X = load_wine(as_frame=True).data
        >>> nmf = NMFFeatures(n_components=3).fit(X)
        >>> lines = nmf.explain(X.head(1), top=2)
        >>> lines.loc[lines["component"] == "NNMF1", ["term", "contribution", "value", "baseline"]].round(1)
                                   term  contribution  value  baseline
        0                       alcohol           3.7   14.2      11.0
        0  od280/od315_of_diluted_wines           3.1    3.9       1.3
        0                        others          18.9    NaN       NaN
        0                       penalty           0.0    NaN       NaN
        """
        return explain(*self._for_explaining(X), top, kind)

    def tidy(self, target: bool = False) -> pd.DataFrame:
        """Return the loadings in long form, sorted by component, then term, as recipes' ``tidy()`` does.

        Parameters
        ----------
        target : bool, default False
            Whether ``target_loadings_`` follow, after those of the columns of each component.

        Returns
        -------
        pandas.DataFrame
            With the columns ``terms``, ``value`` and ``component``; zero loadings too. With ``target=True`` also
            ``target``, which marks the lines of targets.
        """
        table = self._long(lambda terms, _: sorted(range(len(terms)), key=lambda j: str(terms[j])))
        return self._with_targets(table) if target else table

    def top_features(self, m: int = 5, target: bool = False) -> pd.DataFrame:
        """Return the largest loadings of each component, largest first.

        Parameters
        ----------
        m : int, default 5
            How many of each; loadings of zero are left out, so a component may have fewer.
        target : bool, default False
            Whether ``target_loadings_`` follow, after those of the columns of each component.

        Returns
        -------
        pandas.DataFrame
            With the columns of :meth:`tidy`.

        Raises
        ------
        ValueError
            If ``m`` is not a whole number, 1 or more.
        """
        if not isinstance(m, Integral) or m < 1:
            raise ValueError(f"m is {m!r}; wanted a whole number of columns to show, 1 or more.")
        table = self._long(lambda _, loadings: np.argsort(-loadings, kind="stable")[:m])
        table = table[table["value"] > 0].reset_index(drop=True)
        return self._with_targets(table) if target else table

    def target_table(self) -> pd.DataFrame:
        """Return ``target_loadings_`` as a frame, a row for each component.

        Returns
        -------
        pandas.DataFrame of shape (n_components, n_targets)

        Raises
        ------
        ValueError
            If the components were found without a target.
        """
        check_is_fitted(self)
        if not hasattr(self, "target_loadings_"):
            raise ValueError(
                "There are no target loadings: fit with components, with a target_weight above 0, and with y."
            )
        return pd.DataFrame(self.target_loadings_, self.columns_.component_names, self.target_names_)

    def _with_targets(self, table):
        """Return a long table of loadings with those of targets after each component."""
        parts, target = [], self.target_table()
        for name, loadings in target.iterrows():
            rows = {"terms": target.columns, "value": loadings.to_numpy(), "component": name, "target": True}
            parts += [table[table["component"] == name].assign(target=False), pd.DataFrame(rows)]
        return pd.concat(parts, ignore_index=True)

    def labels(self, m: int = 3) -> list[str]:
        """Return short names of the components, after the columns that dominate them: "flavanoids + hue".

        A column is named if its loading is at least half of the largest of the component. Components that would name
        the same columns name more of them, up to ``m``; if they still do, or the label is the name of a column, the
        component's name by number is added in brackets. ``feature_names_out="labels"`` names the new columns so.

        Parameters
        ----------
        m : int, default 3
            Most columns that are named for each component.

        Returns
        -------
        list of str
            One for each component, all different. Loadings change from fit to fit, and labels with them.

        Raises
        ------
        ValueError
            If ``m`` is not a whole number, 1 or more.

        Examples
        --------
        >>> from sklearn.datasets import load_wine
        >>> from nmf_features import NMFFeatures
        >>> nmf = NMFFeatures(n_components=3).fit(load_wine(as_frame=True).data)
        >>> nmf.labels(m=2)  # the last two name the same columns
        ['total_phenols + alcohol', 'ash + alcalinity_of_ash (NNMF2)', 'alcalinity_of_ash + ash (NNMF3)']
        """
        if not isinstance(m, Integral) or m < 1:
            raise ValueError(f"m is {m!r}; wanted a whole number of columns to name, 1 or more.")
        return self.columns_.component_labels(int(m))

    def changes(self, earlier: Any = None) -> pd.DataFrame:
        """Return which components differ from those of an earlier fit, and how much.

        Parameters
        ----------
        earlier : NMFFeatures, pandas.DataFrame or dict, optional
            A fitted model, or the frame that its :meth:`tidy` returned. None: ``align_to``.

        Returns
        -------
        pandas.DataFrame
            A line for each component, then one for each earlier one without a partner, with the columns

            - ``component``, ``earlier``: the names; None where there is no partner.
            - ``similarity``: cosine of their loadings, 1 for the same; a column that only one fit has counts as 0 in
              the other.
            - ``moved``: the share of the component that lies on other columns than before, half the sum of the
              differences of loadings without their signs.
            - ``gained``, ``lost``: the columns whose loadings grew and shrank most.

        Examples
        --------
        >>> from sklearn.datasets import load_wine
        >>> from nmf_features import NMFFeatures
        >>> X = load_wine(as_frame=True).data
        >>> earlier = NMFFeatures(n_components=3).fit(X[:150])
        >>> later = NMFFeatures(n_components=3, align_to=earlier).fit(X)
        >>> later.changes()[["component", "earlier", "similarity", "moved"]].round(2)
          component earlier  similarity  moved
        0     NNMF1   NNMF1        0.88   0.25
        1     NNMF2   NNMF2        0.78   0.35
        2     NNMF3   NNMF3        0.92   0.24
        """
        if earlier is None and self.align_to is None:
            raise ValueError("There is no earlier fit to compare with: pass it, as a fitted model or its tidy().")
        check_is_fitted(self)
        earlier = Loadings.of(
            self.align_to if earlier is None else earlier, "align_to" if earlier is None else "earlier"
        )
        columns = self.columns_
        return changes(self.components_, columns.component_names, columns.terms if self.n_components_ else [], earlier)

    @needs_rows
    @numpy_defaults
    def report(self, X: Any = None, *, m: int = 5, stability: Any = None) -> Report:
        """Return a page about the components, which a notebook shows.

        It has the largest loadings of each component as bars, the share it explains of the training rows
        (``explained_``), and its label; with X also what all of them explain of X, mean scores, and the rows that fit
        least; with ``stability`` how well each component comes back.

        Parameters
        ----------
        X : frame, array-like or sparse matrix of shape (n_samples, n_features), optional
            Data with the columns seen in ``fit``.
        m : int, default 5
            Most columns of each component.
        stability : Stability, optional
            What :func:`stability` found with the same settings. It takes many fits, so it is not computed here.

        Returns
        -------
        Report
            With the numbers as frames, and ``html``, the page as text: to be written to a file, for example.

        Raises
        ------
        ValueError
            For ``n_components=0``, and for a ``stability`` of other columns or another number of components.

        Examples
        --------
        >>> from sklearn.datasets import load_wine
        >>> from nmf_features import NMFFeatures
        >>> X = load_wine(as_frame=True).data
        >>> page = NMFFeatures(n_components=3).fit(X).report(X)
        >>> page.components["explained"].round(2)
        NNMF1    0.36
        NNMF2    0.30
        NNMF3    0.27
        Name: explained, dtype: float64
        """
        check_is_fitted(self)
        if self.n_components_ == 0:
            raise ValueError("n_components=0: there is nothing to report.")
        return report(self, X, stability, m)

    def sql(self, table: str | list[str], dialect: str, *, keep: str | list[str] | None = None) -> str:
        """Return a SELECT with the scores of the rows of a database's table, for ``projection="linear"``.

        Shift, scale, clipping and products are written out, so the database needs nothing but the text. Values below
        the training minimum are raised to it, also with ``out_of_range="warn"``, without the warning. Missing values
        (NULL) are not refused as by ``transform``: scores that such a column enters are NULL.

        Parameters
        ----------
        table : str or list of str
            Name of the table; a list for one in a schema, ``["main", "cars"]``. All names are quoted.
        dialect : {"duckdb", "sqlite"}
            The database. Results were compared with those of ``transform``; they are computed in double precision.
        keep : str or list of str, optional
            Columns of the table that stand before the components, such as a key: a SELECT has no order of rows. None:
            those that ``transform`` would keep.

        Returns
        -------
        str
            The SELECT, with the columns that ``transform`` returns, if ``keep`` is None. SQLite takes up to 2,000.

        Raises
        ------
        ValueError
            With ``projection="nnls"``: exact scores are the solution of a least-squares problem for each row, which is
            found in steps, and a SELECT has no steps. With ``out_of_range="raise"``: it cannot refuse rows. If names
            are no text, or differ in case alone, which a database does not see.

        Examples
        --------
        >>> import sqlite3
        >>> from sklearn.datasets import load_wine
        >>> from nmf_features import NMFFeatures
        >>> X = load_wine(as_frame=True).data
        >>> nmf = NMFFeatures(n_components=2, projection="linear").fit(X)
        >>> database = sqlite3.connect(":memory:")
        >>> X.to_sql("wines", database, index_label="wine")
        178
        >>> database.execute(nmf.sql("wines", "sqlite", keep="wine")).fetchone()
        (0, 3.06, 2.45)
        >>> nmf.transform(X.head(1)).round(2)
           NNMF1  NNMF2
        0   3.06   2.45
        """
        check_is_fitted(self)
        return select(self.columns_, table, dialect, keep)

    @numpy_defaults
    def transform_to(self, source: Any, destination: Any) -> None:
        """Write a table in files with components in place of (or beside) the chosen columns, as Parquet.

        The rows are read, transformed and written a batch at a time, so the table may be larger than memory. The other
        columns keep their order, their types and their place before the components, also those that ``fit`` has not
        seen, or that it took as y and weights; those that it has seen may be absent. Rows keep their order.

        Parameters
        ----------
        source : str, path or pyarrow.dataset.Dataset
            As X in :meth:`fit`.
        destination : str or path
            A file, by a name that ends in ``.parquet``, or a folder, by any other name, which gets files whose names
            sort in the order of the rows. All of it appears, or nothing: until it is complete it has a temporary name
            beside its place, ``.{name}.nmf-features.tmp``, which is removed after an error. If the process is killed
            that name stays, until the same destination is written again. A file that exists is replaced; a folder
            must be new or empty. Of places that fsspec knows only files can be written.

        Raises
        ------
        ValueError
            As in :meth:`transform`, with the file and its row group; for columns that are not there, for a destination
            that is read or that another process writes, for a model of an array, whose columns have no names, and if
            the source changes while it is read.
        OSError
            If a file cannot be read or written.

        See Also
        --------
        transform : The same for rows in memory.

        Examples
        --------
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import pandas as pd
        >>> from sklearn.datasets import load_wine
        >>> from nmf_features import NMFFeatures
        >>> with TemporaryDirectory() as folder:
        ...     table, scored = Path(folder) / "wine.parquet", Path(folder) / "scored.parquet"
        ...     load_wine(as_frame=True).frame.to_parquet(table)
        ...     NMFFeatures(n_components=2).fit(table, y="target").transform_to(table, scored)
        ...     pd.read_parquet(scored).columns.tolist()
        ['target', 'NNMF1', 'NNMF2']
        """
        check_is_fitted(self)
        self._validate_params()
        transform_to(self.columns_, opened(source), destination, fit_id(self))

    def _for_explaining(self, X, score=None):
        """Return the columns and the checked table; refuse a model without components, if there is none to score."""
        check_is_fitted(self)
        if score and self.n_components_ == 0:
            raise ValueError("n_components=0: there is nothing to score.")
        columns = self.columns_
        return columns, columns.checked(X)

    def _long(self, order):
        """Return loadings in long form: of each component those at the positions ``order(terms, loadings)``."""
        check_is_fitted(self)
        columns, terms, values, components = self.columns_, [], [], []
        for name, loadings in zip(columns.component_names, self.components_, strict=True):
            at = order(columns.terms, loadings)
            terms += [columns.terms[j] for j in at]
            values += loadings[at].tolist()
            components += [name] * len(at)
        return pd.DataFrame({"terms": terms, "value": values, "component": pd.Series(components, dtype=object)})
