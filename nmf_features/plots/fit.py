"""How good the fit is: column by column, and pass by pass."""

from typing import Any, Self

import numpy as np
import pandas as pd

from ..core.missing import leaves_out_unstored
from ..core.products import RESIDUAL_CELLS, product, slices
from ..core.units import safe_scale
from ..explaining import dense
from ..fitting import scores_of
from . import drawing
from .arguments import check_fitted, check_whole
from .inks import Inks

DASHES = ("-", "--", ":", "-.")


class ReconstructionDisplay:
    """How much of each column the components explain, 1 - D(x_j, fit_j) / D(x_j, mean_j).

    D is the loss of the fit, fit_j the column of W H and mean_j the column's training mean, all in shifted and scaled
    units and over the observed cells. Weighted by D(x_j, mean_j) the shares add up to ``NMFFeatures.score``.

    Parameters
    ----------
    shares : pandas.Series of length n_columns
        Share explained, by column; 1 at most, negative where the training mean fits better.
    score : float
        The same of all columns together.
    left_out : list, default ()
        Columns without a share: constant ones, in training or in X.

    Attributes
    ----------
    shares, score, left_out
        As given.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    reconstruction_shares : The numbers alone.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from nmf_features import NMFFeatures
    >>> from nmf_features.plots import ReconstructionDisplay
    >>> X = load_diabetes(as_frame=True, scaled=False).data
    >>> display = ReconstructionDisplay.from_estimator(NMFFeatures(n_components=3).fit(X), X)
    >>> display.shares.idxmin()
    'sex'
    """

    def __init__(self, shares: Any, score: Any, left_out: Any = ()) -> None:
        self.shares = shares
        self.score = score
        self.left_out = left_out

    @classmethod
    def from_estimator(cls, nmf: Any, X: Any, *, max_columns: int = 40, ax: Any = None) -> Self:
        """Draw how much of each column of X a fitted :class:`NMFFeatures` explains.

        Parameters
        ----------
        nmf : NMFFeatures
            Fitted, with at least one component.
        X : frame, array-like or sparse matrix of shape (n_samples, n_features)
            Data with the columns seen in ``fit``; new rows show whether the components hold for them too.
        max_columns : int, default 40
            Most columns that are drawn: half of them those explained best, half those explained worst.
        ax : matplotlib Axes, optional
            Where to draw. None makes a figure.

        Returns
        -------
        ReconstructionDisplay

        Raises
        ------
        ValueError
            For ``n_components=0``, or where no column varies.
        """
        check_fitted(nmf)
        drawing.pyplot()
        table = reconstruction_shares(nmf, X)
        known = table["share"].notna()
        return cls(
            table["share"][known], _share(table["error"].sum(), table["spread"].sum()), [*table.index[~known]]
        ).plot(max_columns=max_columns, ax=ax)

    def plot(self, *, max_columns: int = 40, ax: Any = None) -> Self:
        """Draw; the parameters are those of :meth:`from_estimator`.

        Returns
        -------
        self
        """
        check_whole("max_columns", max_columns)
        if not len(self.shares):
            raise ValueError(f"X has no column with a share to draw: none of {drawing.listed(self.left_out)} varies.")
        shares = self.shares.sort_values(ascending=False, kind="stable")
        p = len(shares)
        best, worst = (p, 0) if p <= max_columns else (max_columns - max_columns // 2, max_columns // 2)
        shown = pd.concat([shares.iloc[:best], shares.iloc[p - worst :]])
        at = np.arange(len(shown)) + np.where(np.arange(len(shown)) < best, 0, 1.6)
        self.figure_, self.ax_ = drawing.canvas(ax, (7, 0.24 * (at[-1] + 1) + 1.5))
        ax, quiet = self.ax_, Inks(self.ax_).quiet
        low = min(0.0, max(-0.5, 1.1 * shown.min()))
        _draw_shares(ax, at, shown.to_numpy(), low)
        drawing.name_rows(ax, at, shown.index)
        if best < p:
            ax.text(0.01, best + 0.3, f"{p - best - worst} columns between", color=quiet, fontsize="small", va="center")
        self._mark_score(ax, low)
        ax.set(xlim=(low, 1), ylim=(at[-1] + 0.7, -0.7))
        ax.set_xlabel("share explained: 0 is the training mean, 1 is exact", color=quiet)
        notes = [f"the best {best} and the worst {worst} of {p} columns"] if best < p else []
        if self.left_out:
            notes.append(f"constant, left out: {drawing.listed(self.left_out)}")
        drawing.title(ax, "How much of each column the components explain", "; ".join(notes), above=16)
        return self

    def _mark_score(self, ax, low):
        """Draw the share for all columns together, as a line with its number."""
        if not np.isfinite(self.score):
            return
        if self.score >= low:
            ax.axvline(self.score, color=Inks(ax).text, linewidth=1, zorder=3)
        x = max(self.score, low)
        where = (x - low) / (1 - low)
        side = "right" if where > 0.7 else "left" if where < 0.3 else "center"
        text = f"all columns: {drawing.decimal(self.score)}"
        drawing.write(ax, text, (x, 1), (0, 3), xycoords=("data", "axes fraction"), ha=side)


def reconstruction_shares(nmf: Any, X: Any) -> pd.DataFrame:
    """Return how much of each column a fitted :class:`NMFFeatures` explains.

    Parameters
    ----------
    nmf : NMFFeatures
        Fitted, with at least one component.
    X : frame, array-like or sparse matrix of shape (n_samples, n_features)
        Data with the columns seen in ``fit``.

    Returns
    -------
    pandas.DataFrame
        A row for every column that is factorised: ``share``, 1 - error / spread (NaN for columns that are constant, in
        training or in X); ``error``, D(x_j, fit_j); ``spread``, D(x_j, training mean of j). Both in shifted and
        scaled units, over the observed cells, up to a common factor where squares would overflow.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from nmf_features import NMFFeatures
    >>> from nmf_features.plots import reconstruction_shares
    >>> X = load_diabetes(as_frame=True, scaled=False).data
    >>> nmf = NMFFeatures(n_components=3).fit(X)
    >>> table = reconstruction_shares(nmf, X)
    >>> float(1 - table["error"].sum() / table["spread"].sum() - nmf.score(X))
    0.00
    """
    check_fitted(nmf)
    columns = nmf.columns_
    Z = columns.scaled(columns.checked(X))
    W = np.nan_to_num(scores_of(columns, Z), nan=0.0)  # rows with nothing observed do not count
    loss, unstored = columns.loss, leaves_out_unstored(columns.missing(Z))
    Z, e = safe_scale(Z, loss=loss)
    W, means = np.ldexp(W, -2 * e), np.ldexp(nmf.column_means_, -2 * e)
    error, spread = np.zeros(len(means)), np.zeros(len(means))
    for rows in slices(Z, RESIDUAL_CELLS):
        x = dense(Z[rows], unstored)
        for total, y in ((error, product(W[rows], nmf.components_)), (spread, np.broadcast_to(means, x.shape))):
            total += np.where(np.isnan(x), 0, loss.of_cells(x, y)).sum(axis=0)
    share = np.where(spread > 0, _share(error, spread), np.nan)
    return pd.DataFrame({"share": share, "error": error, "spread": spread}, index=drawing.index(columns.terms))


def _share(error, spread):
    """Return 1 - error / spread; 0 / 0 is NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1 - np.divide(error, spread)


def _draw_shares(ax, at, shares, low):
    """Draw a bar for each share; one that is cut off at ``low`` has its number beside it."""
    inks = Inks(ax)
    drawing.tidy(ax, grid="x")
    colours = [inks.blue if share >= 0 else inks.vermillion for share in shares]
    ax.barh(at, np.maximum(shares, low), height=0.7, color=colours)
    for y in np.flatnonzero(shares < low):
        ax.plot(low, at[y], "<", color=inks.paper, markersize=4, clip_on=False, zorder=4)
        drawing.write(ax, drawing.decimal(shares[y]), (0, at[y]), (4, 0), va="center", color=inks.vermillion)
    if low < 0:
        ax.axvline(0, color=inks.quiet, linewidth=0.8)


class ConvergenceDisplay:
    """The objective after each pass over the data, of one fit or of several on the same data.

    The plot shows how far the objective lies above the best of all, as a share of it, on a logarithmic scale; a
    straight line falls by the same factor in every pass. The best pass itself, at zero, is off that scale. For fits of
    few passes the objective itself is drawn.

    Parameters
    ----------
    histories : dict of str to array
        Objective after each pass, by name of the fit.
    converged : dict of str to bool, optional
        Whether the fits met their stopping rule.

    Attributes
    ----------
    histories, converged
        As given.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_features import factorize
    >>> from nmf_features.plots import ConvergenceDisplay
    >>> X = np.random.default_rng(0).gamma(1, size=(60, 9))
    >>> fits = {solver: factorize(X, 3, solver=solver) for solver in ("hals", "mu")}
    >>> display = ConvergenceDisplay.from_factorization(fits["hals"])
    >>> display = ConvergenceDisplay.from_histories({name: fit.history for name, fit in fits.items()})
    """

    def __init__(self, histories: Any, converged: Any = None) -> None:
        self.histories = histories
        self.converged = converged

    @classmethod
    def from_estimator(cls, nmf: Any, *, ax: Any = None) -> Self:
        """Draw the fit of an :class:`NMFFeatures`.

        Parameters
        ----------
        nmf : NMFFeatures
            Fitted, with at least one component.
        ax : matplotlib Axes, optional
            Where to draw. None makes a figure.

        Returns
        -------
        ConvergenceDisplay

        Raises
        ------
        ValueError
            For ``n_components=0``.
        """
        check_fitted(nmf)
        return cls({"NMFFeatures": nmf.history_}, {"NMFFeatures": nmf.converged_}).plot(ax=ax)

    @classmethod
    def from_factorization(cls, result: Any, *, ax: Any = None) -> Self:
        """Draw the fit of :func:`factorize`.

        Parameters
        ----------
        result : Factorization
            What ``factorize`` returned.
        ax : matplotlib Axes, optional
            Where to draw. None makes a figure.

        Returns
        -------
        ConvergenceDisplay
        """
        return cls({"factorize": result.history}, {"factorize": result.converged}).plot(ax=ax)

    @classmethod
    def from_histories(cls, histories: Any, converged: Any = None, *, ax: Any = None) -> Self:
        """Draw several fits of the same objective on the same data.

        Parameters
        ----------
        histories : dict of str to array-like
            Objective after each pass, by name of the fit.
        converged : dict of str to bool, optional
            Whether the fits met their stopping rule, by the same names; None says nothing of it.
        ax : matplotlib Axes, optional
            Where to draw. None makes a figure.

        Returns
        -------
        ConvergenceDisplay

        Raises
        ------
        ValueError
            If there is no history, or ``converged`` has other names.
        """
        if not histories:
            raise ValueError("histories is empty; wanted a dict of at least one name and its history.")
        if converged is not None and set(converged) != set(histories):
            raise ValueError(
                f"converged has the names {list(converged)}; wanted those of histories, {list(histories)}."
            )
        return cls({name: np.asarray(h, dtype=float) for name, h in histories.items()}, converged).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Draw; ``ax`` as in :meth:`from_estimator`.

        Returns
        -------
        self
        """
        self.figure_, self.ax_ = drawing.canvas(ax, (7, 4.2))
        ax, inks = self.ax_, Inks(self.ax_)
        finite = {name: np.where(np.isfinite(h), h, np.nan) for name, h in self.histories.items()}
        everything = np.concatenate([h[~np.isnan(h)] for h in finite.values()])
        best = everything.min(initial=np.inf)
        above = everything[everything > best] - best
        logarithmic = len(above) > 2 and above.max() > 30 * above.min()
        for i, (name, h) in enumerate(finite.items()):
            passes, values = np.arange(1, len(h) + 1), h
            if logarithmic:
                values = np.where(h > best, h - best, np.nan) / (best or above.max())
            again, colour = divmod(i, len(inks.series))
            style = {"color": inks.series[colour], "linestyle": DASHES[again % len(DASHES)]}
            ax.plot(passes, values, **style, linewidth=1.8, marker="o" if len(h) <= 40 else "", markersize=4)
            ax.lines[-1].set_label(f"{drawing.shown(name)}: {self._outcome(name)}")
        drawing.tidy(ax, grid="both")
        if logarithmic:
            ax.set_yscale("log")
            ax.minorticks_off()
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set_xlabel("passes over the data", color=inks.quiet)
        ax.set_ylabel("above the best objective (share of it)" if logarithmic else "objective", color=inks.quiet)
        several = len(finite) > 1
        if several:
            ax.legend(frameon=False, loc="best", fontsize="small", labelcolor=inks.text)
        drawing.title(ax, "Objective after each pass", "" if several else self._outcome(next(iter(finite))))
        return self

    def _outcome(self, name):
        """Return in words how a fit ended."""
        h, known = self.histories[name], self.converged is not None
        if not len(h):
            return "no pass was made"
        ended = (", converged" if self.converged[name] else ", not converged") if known else ""
        return f"{drawing.number(h[-1])} after {len(h)} {'pass' if len(h) == 1 else 'passes'}{ended}"
