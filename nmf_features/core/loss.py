"""Loss: the base class of losses, with all that the rest of the package asks of them.

    D(X, Y) = sum_ij d(x_ij, y_ij),    Y = W H,    x, y >= 0

A loss is a sum over the cells, and a class with a few methods on arrays of cells. ``of_cells`` and ``slopes_of_cells``
must be written; the rest have defaults that suit a smooth loss that is zero at y = x. Nothing else depends on which
loss it is: the fast solver, exact scores, ``score`` and the selection of components ask the object.
"""

from typing import Any

from .missing import column_means


class Loss:
    """A loss d(x, y) of a cell x >= 0 and its fit y >= 0; subclasses define it.

    Attributes
    ----------
    squares : bool
        Whether it is 1/2 (x - y)^2: then the loadings depend on the data through W'W and W'X alone.
    counts : bool
        Whether it is x log(x / y) - x + y: then a zero cell costs y.
    convex : bool
        Whether it is convex in y. If not, scores are local minima.
    homogeneous : bool
        Whether d(c x, c y) is c^``degree`` times d(x, y). If not, X is fitted in its own units.
    by_ratio : bool
        Whether cells are compared with their fit by ratio, so that small ones count as much as large ones.
    takes_zeros : bool
        Whether it is finite at x = 0.
    spares_zeros : bool
        Whether it is also finite at y = 0.
    power : float
        The power of the cells, from 0 to 2, by which a row is measured when rows are sampled.
    steps : int
        The most steps for the scores of a row. A curvature that is only a bound needs many.
    """

    squares = counts = homogeneous = by_ratio = False
    convex = takes_zeros = spares_zeros = True
    degree, power = 0.0, 1.0
    steps = 2000

    @property
    def name(self) -> str:
        """The name in messages."""
        return self

    def of_cells(self, x: Any, y: Any) -> Any:
        """Return the loss of every cell, NaN where x is NaN."""
        raise NotImplementedError

    def slopes_of_cells(self, x: Any, y: Any) -> Any:
        """Return the derivative of every cell's loss with respect to y, its positive part, and a curvature.

        Multiplicative steps need the positive part: the derivative is this part minus another positive one. The
        curvature is the second derivative where that is suitable. Else it is one with which the quadratic model is a
        majoriser, or the second derivative at x = y (Fisher scoring). It is never negative. All three must be new
        arrays of the shape of y, as they are written to.
        """
        raise NotImplementedError

    def size_of_cells(self, x: Any) -> Any:
        """Return the magnitude of the terms in every cell's loss: rounding errors are proportional to it."""
        return x

    def least_fit(self, mean: Any, least: Any) -> Any:
        """Return a lower bound that keeps the fit off zero, given the mean and the smallest positive cell."""
        return 1e-12 * mean

    def exponent(self, squared: Any) -> Any:
        """Return the exponent with which a multiplicative step cannot raise the objective.

        ``squared`` says whether there is an L2 penalty.
        """
        return 0.5 if squared else 1.0

    def best_constants(self, X: Any, weights: Any = None, missing: Any = None) -> Any:
        """Return the constant that fits each column best, with row weights: for most losses, its mean."""
        return column_means(X, weights, missing)

    def negative_log_likelihood(self, x: Any, y: Any) -> Any:
        """Return -log p(x | y) of every cell if the loss belongs to a distribution, else None.

        It can compare parameters of a loss, such as a dispersion. The loss itself cannot, since it leaves out terms
        that do not depend on y.
        """
        return None
