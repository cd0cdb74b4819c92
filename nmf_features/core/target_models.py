"""What scores say about a target: linear models of it, and how what they leave unexplained depends on the scores.

Numbers are modelled by least squares, classes by multinomial logistic regression. A small ridge on the coefficients of
standardised scores keeps those of nearly equal components finite, and classes that are told apart without error. What
is left unexplained is a share of what the best constant leaves: it has no unit, and the size of the table cancels. The
coefficients are always the best ones for the scores at hand (variable projection), so the share is a function of the
scores alone.

Reference: G. H. Golub and V. Pereyra (1973), The differentiation of pseudo-inverses and nonlinear least squares
problems whose variables separate, SIAM Journal on Numerical Analysis 10.
"""

from dataclasses import dataclass

import numpy as np

from .kernels import packed_products, unpacked
from .products import gram, inner, product

RIDGE = 1e-3  # on coefficients of standardised scores, for each row
LEAST_SPREAD = 1e-12  # of scores, relative to the largest: less is rounding
STEPS, HALVINGS, CLOSE = 50, 20, 1e-12  # of Newton's method
WHOLE = 200  # coefficients: of more, the Hessian is not formed


@dataclass
class Readout:
    """A linear model of a target: its share of what a constant leaves, slopes (k x n) of it, and its coefficients.

    ``coefficients`` (k x outputs) are for one unit of each score, ``constant`` is what they are added to.
    """

    share: float
    slopes: np.ndarray
    coefficients: np.ndarray
    constant: np.ndarray


class TargetModel:
    """A target: what it is for each row, ``Y`` (outputs x rows), and weights of the rows.

    It is made from an array of rows by outputs, NaN where the target is not known. ``null`` is what the best constant
    leaves unexplained.
    """

    def __init__(self, Y, weights=None):
        self.rows = ~np.isnan(Y[:, 0])
        self.Y = np.ascontiguousarray(Y[self.rows].T)
        self.v = np.ones(self.Y.shape[1]) if weights is None else weights[self.rows] / weights[self.rows].mean()
        self.n = self.v.sum()
        self.mean = product(self.Y, self.v) / self.n
        self.null = self.loss(self.constant()[:, None] + np.zeros(self.Y.shape))

    def read(self, Wt):
        """Return the best Readout for the scores (k x n) of all rows."""
        slopes, mine = np.zeros(Wt.shape), Wt[:, self.rows].astype(np.float64)
        top = mine.max(axis=1, initial=0.0)
        e = np.frexp(np.where(top > 0, top, 1.0))[1]  # in units near the largest score no square overflows or vanishes
        mine = np.ldexp(mine, -e[:, None])
        mean = product(mine, self.v) / self.n
        Z = mine - mean[:, None]
        spread = np.sqrt(product(np.square(Z), self.v) / self.n)
        used = spread > LEAST_SPREAD
        unit = np.divide(1, spread, out=np.zeros(len(spread)), where=used)
        Z *= unit[:, None]
        value, B, constant, in_Z = self.fit(Z)
        # The scores are standardised: their mean and spread depend on them, too.
        shift, stretch = in_Z.sum(axis=1) / self.n, (in_Z * Z).sum(axis=1) / self.n
        in_Z -= self.v * (shift[:, None] + stretch[:, None] * Z)
        coefficients = B * unit[:, None]
        constant = constant - product(mean, coefficients)
        with np.errstate(over="ignore"):
            slopes[:, self.rows] = np.ldexp(in_Z * (unit / self.null)[:, None], -e[:, None])
            return Readout(value / self.null, slopes, np.ldexp(coefficients, -e[:, None]), constant)

    def share(self, read, Wt, Y, weights):
        """Return the unexplained share of a target in other rows, which have weights, by a Readout of these.

        Rows of a class that is not known here are left out; NaN if nothing is left.
        """
        known = ~np.isnan(Y[:, 0])
        known[known] = self.expects(Y[known])
        if not known.any():
            return np.nan
        other = type(self)(Y[known], weights[known])
        fitted = product(read.coefficients.T, Wt[:, known]) + read.constant[:, None]
        return other.loss(fitted) / other.loss(self.constant()[:, None] + np.zeros(fitted.shape))

    def expects(self, Y):
        """Return which rows of a target hold what is known here."""
        return np.ones(len(Y), dtype=bool)

    def constant(self):
        """Return the best constant."""
        raise NotImplementedError

    def loss(self, fitted):
        """Return the loss of what a linear model gives (outputs x rows)."""
        raise NotImplementedError

    def fit(self, Z):
        """Return the loss with the best coefficients for standardised scores, these, the constant, and slopes in Z."""
        raise NotImplementedError


class Numbers(TargetModel):
    """A number, modelled by least squares."""

    def constant(self):
        """Return the mean."""
        return self.mean

    def loss(self, fitted):
        """Return the sum of squares."""
        return inner(self.v, np.square(self.Y - fitted).sum(axis=0))

    def fit(self, Z):
        """Return loss, coefficients, constant and slopes."""
        ridge, weighted = RIDGE * self.n, Z * self.v
        B = np.linalg.solve(
            product(weighted, Z.T) + ridge * np.eye(len(Z)), product(weighted, (self.Y - self.mean[:, None]).T)
        )
        fitted = product(B.T, Z) + self.mean[:, None]
        return self.loss(fitted) + ridge * inner(B, B), B, self.mean, 2 * self.v * product(B, fitted - self.Y)


class Classes(TargetModel):
    """Classes, an output of 0 and 1 for each, modelled by multinomial logistic regression.

    Newton's method starts from the coefficients for the scores before, which are near.
    """

    start = None

    def constant(self):
        """Return the logarithms of the frequencies."""
        return np.log(np.maximum(self.mean, np.finfo(float).tiny))

    def expects(self, Y):
        """Return which rows are of a class that is known here."""
        return Y @ (self.mean > 0) > 0

    def loss(self, fitted):
        """Return half the deviance."""
        return inner(self.v, _log_sums(fitted)[0] - (fitted * self.Y).sum(axis=0))

    def fit(self, Z):
        """Return loss, coefficients, constant and slopes."""
        Z = np.vstack([Z, np.ones(Z.shape[1])])
        ridge = np.full((len(Z), 1), RIDGE * self.n)
        ridge[-1] = 1e-9 * self.n  # only differences of the constants count
        if self.start is None:
            self.start = np.vstack([np.zeros((len(Z) - 1, len(self.mean))), self.constant()])
        B = self.start
        value, P = self._evaluate(Z, B, ridge)
        for _ in range(STEPS):
            gradient = product(Z, (self.v * (P - self.Y)).T) + ridge * B
            step = (self._step if B.size <= WHOLE else self._rough_step)(Z, P, ridge, gradient)
            promised, size = inner(gradient, step), 1.0
            if promised <= CLOSE * value:
                break
            for _ in range(HALVINGS):
                new, new_P = self._evaluate(Z, B - size * step, ridge)
                if new <= value - 1e-4 * size * promised:
                    break
                size /= 2
            else:
                break  # as good as rounding allows
            B, value, P = B - size * step, new, new_P
        self.start = B
        return value, B[:-1], B[-1], self.v * product(B[:-1], P - self.Y)

    def _evaluate(self, Z, B, ridge):
        """Return the penalised loss and the probabilities."""
        fitted = product(B.T, Z)
        logs, P = _log_sums(fitted)
        return inner(self.v, logs - (fitted * self.Y).sum(axis=0)) + inner(ridge * B, B) / 2, P

    def _step(self, Z, P, ridge, gradient):
        """Return Newton's step."""
        q, K = gradient.shape
        blocks = unpacked(
            -product(packed_products(P) * self.v, packed_products(Z).T), K
        )  # products of q(q+1)/2 x K x K
        own = product(P * self.v, packed_products(Z).T)
        blocks[:, range(K), range(K)] += own.T
        H = unpacked(blocks.reshape(len(blocks), -1), q)  # K^2 x q x q
        H = H.reshape(K, K, q, q).transpose(2, 0, 3, 1).reshape(q * K, q * K)
        H[range(q * K), range(q * K)] += np.repeat(ridge[:, 0], K)
        return np.linalg.solve(H, gradient.ravel()).reshape(q, K)

    def _rough_step(self, Z, P, ridge, gradient):
        """Return Newton's step, nearly, by conjugate gradients."""
        near = np.linalg.inv(gram(Z * np.sqrt(self.v)) / len(self.mean) + np.diag(ridge[:, 0]))
        step, rest = np.zeros_like(gradient), gradient.copy()
        direction = scaled = product(near, rest)
        size = inner(rest, scaled)
        enough = 1e-6 * size
        for _ in range(100):
            along = product(direction.T, Z)
            curved = self.v * P * (along - (P * along).sum(axis=0))
            curved = product(Z, curved.T) + ridge * direction
            length = size / inner(direction, curved)
            step, rest = step + length * direction, rest - length * curved
            scaled = product(near, rest)
            before, size = size, inner(rest, scaled)
            if not size > enough:
                break
            direction = scaled + size / before * direction
        return step


def _log_sums(fitted):
    """Return the logarithm of the sum of the exponentials of each column, and their shares of it."""
    top = fitted.max(axis=0)
    shares = np.exp(fitted - top)
    sums = shares.sum(axis=0)
    return top + np.log(sums), shares / sums
