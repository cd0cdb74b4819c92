"""Non-negative matrix factorisation components as features for tabular modelling."""

from importlib.metadata import version

from .estimator import NMFFeatures, nnmf
from .factorize import Factorization, factorize
from .losses import objective
from .scaling import NonNegativeScaler

__version__ = version("nmf-features")
__all__ = ["Factorization", "NMFFeatures", "NonNegativeScaler", "factorize", "nnmf", "objective"]
