"""At most m columns for each component: which ones.

    minimise  D(X, W H) + penalties,   W, H >= 0,   at most m positive loadings in each row of H

Given the support, where loadings may be positive, this is the usual problem, and the loop (descent.py) solves it. The
choice of the support is combinatorial. Given W and the other components, it is exact for one component where cells are
least squares: h_j would become u_j = max(0, h_j - slope_j / curvature_j), which lowers the objective by
curvature_j u_j^2 / 2 compared with zero, so the m columns with the largest curvature_j u_j^2 are best. For other losses
this holds for the quadratic model. The search starts from the loadings of a fit without limit, and from those of
starts.py, and goes on like this:

- Narrow: fewer and fewer columns are kept, with some passes at each width. From the fit slowly, and once more, as from
  the others, down to m at once.
- Exchange: the columns that would be best now, as above, for all components together, or for one. Some passes follow,
  and what does not lower the objective is undone.
- Replace: one component after the other starts again from the row that is fitted worst, on all columns, and is
  narrowed. Again what does not lower the objective is undone.

Nothing is random, and of equal columns the first is taken. In large tables the search is made on a sample of the rows,
and all rows decide on exchanges after that.

References: J. Bolte, S. Sabach and M. Teboulle (2014), Proximal alternating linearized minimization, for the exact step
under a limit; R. Peharz and F. Pernkopf (2012), Sparse nonnegative matrix factorization with l0-constraints, who cut
to m and refit; X.-T. Yuan and T. Zhang (2013), Truncated power method for sparse eigenvalue problems, for shrinking m
slowly.
"""

from typing import NamedTuple

import numpy as np

SLOWLY = 0.9  # the share of the columns of a component that is kept from one width to the next
FEWER = 0.3  # the same for one component that starts again
PASSES, MORE_PASSES = 5, 20  # at each width and before an exchange is judged, and after the last exchange
FALL = 1e-4  # a smaller share is no progress
EQUAL = 1e-6  # scores of columns that differ by a smaller share are equal
EXCHANGES, TURNS = 50, 2  # most exchanges in a row, and most turns of every component to start again


class Limit(NamedTuple):
    """At most ``most`` columns for each component; ``width`` columns side by side count as one."""

    most: int
    width: int = 1

    @classmethod
    def of(cls, most, width, p):
        """Return the limit for p columns, None if it is none."""
        return None if most is None or most * width >= p else cls(int(most), width)

    def check(self, k, filled, loss):
        """Refuse a limit that leaves columns without a component, if the loss needs one for every ``filled`` column."""
        columns = int(self.columns(filled[None])[0])
        if not loss.spares_zeros and k * self.most < columns:
            raise ValueError(
                f"n_nonzero_loadings={self.most} leaves columns without a component: {k} components have at most "
                f"{k * self.most} of the {columns} columns, and loss={loss.name!r} is infinite at a fit of zero. Allow "
                f'{-(-columns // k)} or more, ask for more components, or pass loss="frobenius".'
            )

    def binds(self, H):
        """Whether a component has more columns than it may have."""
        return bool(self.columns(H).max(initial=0) > self.most)

    def columns(self, H):
        """Return how many columns each component has."""
        return (self.merged(H) > 0).sum(axis=1)

    def largest(self, scores, most, needed):
        """Return where the ``most`` largest scores of each row are; every ``needed`` column is kept in some row."""
        merged = self.merged(scores)
        kept, room = np.zeros(merged.shape, dtype=bool), np.full(len(merged), most)
        needed = np.flatnonzero(self.merged(needed[None])[0])
        best, second = np.sort(merged, axis=0)[[-1, -min(2, len(merged))]] if len(needed) else (merged[0], merged[0])
        for j in needed[_in_order((best - second)[needed])]:  # first those that have most to lose
            t = np.argmax(np.where(room > 0, merged[:, j], -1.0))
            kept[t, j], room[t] = True, room[t] - 1
        for t, row in enumerate(merged):
            free = np.flatnonzero(~kept[t])
            kept[t, free[_in_order(row[free])[: room[t]]]] = True
        return np.repeat(kept, self.width, axis=1)

    def merged(self, values):
        """Return the sums of the values of columns that count as one."""
        return values.reshape(len(values), -1, self.width).sum(axis=2)


def _in_order(scores):
    """Return positions, largest score first; of scores that are equal up to rounding the first comes first."""
    order = np.argsort(-scores, kind="stable")
    falls = scores[order[1:]] < scores[order[:-1]] * (1 - EQUAL)
    return order[np.lexsort((order, np.concatenate([[0], np.cumsum(falls)])))] if len(order) else order


class Found(NamedTuple):
    """A support, its loadings, and their objective."""

    value: float
    H: np.ndarray
    support: np.ndarray

    def better_than(self, other):
        """Whether its objective is clearly lower."""
        return self.value < other.value - FALL * abs(other.value)


class SupportSearch:
    """The search on the table of a descent, for a limit; see the top of this file."""

    def __init__(self, run, limit):
        self.run, self.limit = run, limit
        # Where the loss is infinite at a fit of zero, every column needs a component.
        self.needed = run.used & (not run.loss.spares_zeros)

    def best(self, H, others=()):
        """Return the best of what is found from the loadings of a fit without limit, and from others."""
        best = None
        for start, share in [(H, SLOWLY), *((start, 0.0) for start in (H, *others))]:
            found = self.replaced(self.exchanged(self.narrowed(start, share)))
            best = found if best is None or found.better_than(best) else best
            if self.run.watch.stopped:
                break
        return best

    def narrowed(self, H, share):
        """Return loadings with as many columns as the limit allows, after fewer and fewer of them."""
        self.on(H, np.ones(H.shape, dtype=bool), PASSES)
        width = max(self.limit.columns(self.run.H).max(), self.limit.most + 1)
        while width > self.limit.most:
            width = max(self.limit.most, min(width - 1, int(share * width)))
            found = self.on(self.run.H, self.limit.largest(self.costs(), width, self.needed), PASSES)
        return found

    def exchanged(self, found):
        """Return what exchanges of columns lead to, the other components as they are."""
        found = self.on(found.H, found.support, PASSES)
        for _ in range(EXCHANGES):
            if self.run.watch.stopped:
                return found
            slope, curvature = self.run.derivatives()
            step = np.divide(slope, curvature, out=np.zeros(slope.shape), where=curvature > 0)
            u = np.maximum(self.run.H - step, 0)
            gains = curvature * u * u * np.where(found.support, 1 + EQUAL, 1)
            wanted = self.limit.largest(gains, self.limit.most, self.needed)
            changed = np.flatnonzero((wanted != found.support).any(axis=1))
            promised = (gains * wanted).sum(axis=1) - (gains * found.support).sum(axis=1)
            alone = [] if len(changed) < 2 else changed[_in_order(promised[changed]), None]
            for components in [changed, *alone]:
                support = found.support.copy()
                support[components] = wanted[components]
                if not len(components) or (self.needed & ~support.any(axis=0)).any():
                    continue
                new = self.on(np.where(support & ~found.support, u, found.H), support, PASSES)
                if new.better_than(found):
                    found = new
                    break
            else:
                break
        return self.on(found.H, found.support, MORE_PASSES)

    def replaced(self, found):
        """Return what is found where one component after the other starts again from the row that is fitted worst."""
        k, since = len(found.H), 0
        for turn in range(TURNS * k):
            t, since = turn % k, since + 1
            self.on(found.H, found.support, 1)
            row = self.run.worst_row()
            if not row.any():
                break
            support, H = found.support.copy(), self.run.H.copy()
            support[t], H[t] = True, row * (H.mean() / row.mean())
            new = self.on(H, support, PASSES)
            only = self.needed & ~np.delete(found.support, t, axis=0).any(axis=0)  # no other component has them
            width = H.shape[1] // self.limit.width
            while width > self.limit.most:
                width = max(self.limit.most, int(FEWER * width))
                support = support.copy()
                support[t] = self.limit.largest(self.costs()[t : t + 1], width, only)[0]
                new = self.on(self.run.H, support, PASSES)
            new = self.exchanged(new)
            found, since = (new, 0) if new.better_than(found) else (found, since)
            if since == k or self.run.watch.stopped:
                break
        return found

    def costs(self):
        """Return about how much the objective would rise without each loading."""
        return self.run.derivatives()[1] * np.square(self.run.H)

    def on(self, H, support, passes):
        """Make passes on a support."""
        self.run.restrict(support)
        self.run.run(H, self.run.n_iter + passes, True)
        return Found(self.run.value, self.run.H, support)
