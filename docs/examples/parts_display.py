"""A plot: the fit of one row, taken apart."""

import numpy as np


class PartsDisplay:
    """How much of each column of a row comes from each component, w_t h_tj: the row's fit, taken apart.

    Parameters
    ----------
    parts : pandas.DataFrame of shape (n_components, n_columns)
        Amounts, in units of the shifted and scaled columns.

    Attributes
    ----------
    parts : pandas.DataFrame
        As given.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(self, parts):
        self.parts = parts

    @classmethod
    def from_estimator(cls, nmf, X, *, row=0, n_top=10, ax=None):
        """Draw the row of X at position ``row``, its ``n_top`` largest columns, for a fitted NMFFeatures."""
        loadings = nmf.tidy().pivot(index="component", columns="terms", values="value")
        scores = np.asarray(nmf.transform(X[row : row + 1]))[0, -len(loadings) :].astype(float)
        return cls(loadings.mul(scores, axis=0)).plot(n_top=n_top, ax=ax)

    def plot(self, *, n_top=10, ax=None):
        """Draw; the parameters are those of ``from_estimator``."""
        import matplotlib.pyplot as plt  # where it is used, so that importing the package stays quick

        top = self.parts[self.parts.sum().nlargest(n_top).index]
        if ax is None:
            _, ax = plt.subplots(figsize=(6, 0.4 * top.shape[1] + 1), layout="constrained")
        left = np.zeros(top.shape[1])
        for name, amounts in top.iterrows():
            ax.barh(top.columns.astype(str), amounts, left=left, label=name)
            left += amounts.to_numpy()
        ax.invert_yaxis()
        ax.set_xlabel("shifted and scaled units")
        ax.legend(frameon=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self
