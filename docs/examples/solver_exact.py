"""A solver: both halves of a pass solved exactly, by alternating non-negative least squares."""

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import nnls

from nmf_features.core.alternating import Alternating


class AlternatingExact(Alternating):
    """Alternating non-negative least squares: rows of scores and columns of loadings are minimisers.

    The objective never rises. One active-set problem for each row and column: for small tables.

    Reference: H. Kim and H. Park (2008), Nonnegative matrix factorization based on alternating
    nonnegativity constrained least squares and active set method, SIAM Journal on Matrix Analysis
    and Applications 30.
    """

    def improve(self, F, A, B, l1, weights, sweeps, enough):
        """Minimise 1/2 f' A f - f' (b - l1) over f >= 0 for every column f of F, in place."""
        A, B = A.astype(np.float64), B.astype(np.float64) - l1
        ridge = 1e-12 * np.trace(A) / len(A) + np.finfo(np.float64).tiny  # A may be singular
        U = cholesky(A + ridge * np.eye(len(A)))  # A = U' U, so the problem is |U f - U'^-1 b|^2
        targets = solve_triangular(U, B, trans="T")
        for j, target in enumerate(targets.T):
            F[:, j] = nnls(U, target)[0]
