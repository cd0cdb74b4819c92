"""Watch: what a fit tells after each pass, and whether it was asked to end early.

One Watch belongs to one fit and is handed down to every loop in it. A fit that was asked to stop makes no more passes:
the loops that are still to come do the least that a result needs, which is exact scores for the best loadings so far.
"""

from collections.abc import Callable
from typing import NamedTuple

from .units import in_units

# Stages of a fit; a fit may return to an earlier one
STARTS = "starts"  # many starts are tried, of long tables on few rows first
SAMPLE = "sample of the rows"
ALL_ROWS = "all rows"
COLUMNS = "columns"  # those of each component are chosen, where their number is limited
TARGET = "target"  # loadings are guided by a target


class Progress(NamedTuple):
    """How far a fit is.

    ``start`` counts the starts that were tried, and is 0 in other stages. ``passes`` counts the passes from the present
    loadings: over a sample and over all rows, and from each start, they are counted anew. ``objective`` is the lowest
    so far in this count (NaN while starts are tried), ``share_of_rows`` what a pass reads of the rows (of a wide table,
    which is transposed, of its columns). ``residual`` is called for the KKT residual, during the call of ``tell`` only.
    """

    stage: str
    start: int
    passes: int
    objective: float
    share_of_rows: float
    residual: Callable

    @property
    def kkt_residual(self):
        """How far the loadings of the pass are from stationary."""
        return float(self.residual())


class Watch:
    """Calls ``tell(progress)`` after each pass and each start, until that returns True: then the fit has to stop.

    ``last`` is the progress that was told last, ``fit`` the result, once there is one.
    """

    def __init__(self, tell=None):
        self.tell, self.last, self.fit, self.stopped = tell, None, None, False
        self.begin(None, 0)

    def begin(self, n_rows, exponent):
        """Say how many rows there are in all, and that objectives are in units of 2^exponent."""
        self.n_rows, self.exponent = n_rows, exponent

    def __call__(self, stage, rows, *, start=0, passes=0, objective=float("nan"), residual=lambda: float("nan")):
        """Tell of a pass over so many rows, or of a start; return whether the fit has to stop."""
        share = rows / (self.n_rows or rows)
        objective = float(in_units(objective, self.exponent)) if self.exponent else float(objective)
        progress = Progress(stage, start, passes, objective, share, residual)
        self.last = progress._replace(residual=None)  # which holds all scores
        if self.tell is not None and not self.stopped:
            self.stopped = bool(self.tell(progress))
        return self.stopped
