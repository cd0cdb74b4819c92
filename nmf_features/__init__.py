"""Non-negative matrix factorisation components as features for tabular modelling."""

from importlib.metadata import version

from .core.loss import Loss
from .core.negative_binomial import NegativeBinomial
from .core.objective import objective
from .estimator import NMFFeatures, nnmf
from .factorize import Factorization, factorize
from .report import Report
from .scaler import NonNegativeScaler
from .selection import ComponentSelection, PenaltyPath, Stability, penalty_path, select_components, stability
from .tidy_loadings import load_tidy

__version__ = version("nmf-features")
__all__ = [
    "ComponentSelection",
    "Factorization",
    "Loss",
    "NMFFeatures",
    "NegativeBinomial",
    "NonNegativeScaler",
    "PenaltyPath",
    "Report",
    "Stability",
    "factorize",
    "load_tidy",
    "nnmf",
    "objective",
    "penalty_path",
    "select_components",
    "stability",
]
