"""Plots of X ~ W H: what the components are made of, what they say about rows, how well they fit, how sure they are.

Samples are rows here: the scores W belong to the rows of X, the loadings H to its columns. Where the literature puts
samples in columns the two change places.

    loadings.py          what are the components?               LoadingsDisplay (H)
    scores.py            what do they say about the rows?       ScoresDisplay (W)
    fit.py               how good is the fit?                   ReconstructionDisplay (by column), ConvergenceDisplay
                                                                (by pass)
    rows.py              why this row, and which do not      RowDisplay, UnexplainedDisplay
                         fit?
    selection.py         how many, how sparse, how sure?        ComponentSelectionDisplay, PenaltyPathDisplay,
                                                                StabilityDisplay

As in scikit-learn, ``from_...`` makes a display and draws it, and ``plot`` draws it again. If columns, components or
rows are left out, the line below the title says how many. matplotlib is imported when something is drawn. Colours suit
the paper: on the dark background of a style or of given axes texts are light, and the largest of a heat map is white.
"""

from .fit import ConvergenceDisplay, ReconstructionDisplay, reconstruction_shares
from .loadings import LoadingsDisplay
from .rows import RowDisplay, UnexplainedDisplay
from .scores import ScoresDisplay
from .selection import ComponentSelectionDisplay, PenaltyPathDisplay, StabilityDisplay

__all__ = [
    "ComponentSelectionDisplay",
    "ConvergenceDisplay",
    "LoadingsDisplay",
    "PenaltyPathDisplay",
    "ReconstructionDisplay",
    "RowDisplay",
    "ScoresDisplay",
    "StabilityDisplay",
    "UnexplainedDisplay",
    "reconstruction_shares",
]
