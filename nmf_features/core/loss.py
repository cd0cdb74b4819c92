"""Loss: everything that anything asks of a loss, which is a sum over the cells.

    D(X, Y) = sum_ij d(x_ij, y_ij),    Y = W H,    x, y >= 0

A loss is a class with a few methods on arrays of cells; ``of_cells`` and ``slopes_of_cells`` have to be written, the
rest have defaults that suit a smooth loss that is zero at y = x. Nothing else knows which loss it is: the fast solver,
exact scores, ``score`` and the selection of components ask the loss.
"""

from .missing import column_means


class Loss:
    """A loss, d(x, y) for a cell x >= 0 and its fit y >= 0; a subclass says which.

    Attributes
    ----------
    squares : bool
        Whether it is 1/2 (x - y)^2: then W'W and W'X are all that the loadings need to know.
    counts : bool
        Whether it is x log(x / y) - x + y: then a zero adds y alone.
    convex : bool
        Whether it is convex in y. If not, scores are local minima.
    homogeneous : bool
        Whether d(c x, c y) is c^``degree`` times d(x, y). If not, X is fitted in the units it has.
    by_ratio : bool
        Whether cells count by their ratio to the fit, small ones as much as large ones.
    takes_zeros : bool
        Whether it is finite at x = 0.
    spares_zeros : bool
        Whether it is finite at y = 0, too.
    power : float
        What power of its cells, from 0 to 2, says how much a row counts when rows are sampled.
    steps : int
        Most steps that the scores of a row take. A curvature that only bounds the loss needs many.
    """

    squares = counts = homogeneous = by_ratio = False
    convex = takes_zeros = spares_zeros = True
    degree, power = 0.0, 1.0
    steps = 2000

    @property
    def name(self):
        """What messages call it."""
        return self

    def of_cells(self, x, y):
        """Return the loss of every cell, NaN where x is."""
        raise NotImplementedError

    def slopes_of_cells(self, x, y):
        """Return the derivative by y of every cell's loss, its positive part, and a curvature.

        The derivative is the positive part less something positive, which multiplicative steps need. The curvature is
        the second derivative where that serves; else one with which the quadratic model bounds the loss (a majoriser),
        or the second derivative at x = y (scoring). It is never negative. All three are new arrays like y: they are
        written to.
        """
        raise NotImplementedError

    def size_of_cells(self, x):
        """Return the size of the terms in the loss of every cell: its rounding is a share of that."""
        return x

    def least_fit(self, mean, least):
        """Return what keeps the fit off zero, for the mean and the least positive cell."""
        return 1e-12 * mean

    def exponent(self, squared):
        """Return the power of a multiplicative step with which it cannot raise the objective.

        ``squared`` says whether there is an L2 penalty.
        """
        return 0.5 if squared else 1.0

    def best_constants(self, X, weights=None, missing=None):
        """Return for every column the constant that fits it best, rows weighted: its mean, for most losses."""
        return column_means(X, weights, missing)

    def negative_log_likelihood(self, x, y):
        """Return -log p(x | y) of every cell, where the loss belongs to a distribution; else None.

        Parameters of a loss (a dispersion) can be compared by it, but not by the loss, which leaves out what does not
        depend on y.
        """
        return None
