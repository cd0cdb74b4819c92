"""Choosing the number of components and the penalty, and seeing which components can be trusted.

How many components?  ``select_components`` (components): some cells are hidden, the others factorised, the hidden ones
                      predicted.
How much sparsity?    ``penalty_path`` (penalties): one fit after another, from no penalty to the one that empties the
                      model.
Which seed?           ``stability`` (stability): other starts and other samples of the rows, their components matched.

References: A. B. Owen and P. O. Perry (2009), Bi-cross-validation of the SVD and the nonnegative matrix factorization,
Annals of Applied Statistics 3; S. Wold (1978), Cross-validatory estimation of the number of components in factor and
principal components models, Technometrics 20 (hidden cells); J.-P. Brunet, P. Tamayo, T. R. Golub and J. P. Mesirov
(2004), Metagenes and molecular pattern discovery using matrix factorization, PNAS 101 (agreement of runs).
"""

from .components import ComponentSelection, select_components
from .penalties import PenaltyPath, penalty_path
from .stability import Stability, stability

__all__ = ["ComponentSelection", "PenaltyPath", "Stability", "penalty_path", "select_components", "stability"]
