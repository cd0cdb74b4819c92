"""Tables of Dask: partitions stay where they are in all passes; only sums over their rows, and loadings, move.

Every step is a function of a partition that changes nothing in place: the scores of a pass are a new result, made from
those of the pass before. If a worker is lost, Dask makes its partitions and their scores again from the start, pass by
pass, and the fit ends with the same result. Whatever scheduler is active does the work.
"""

from contextlib import contextmanager, nullcontext
from copy import copy, deepcopy
from functools import partial
from uuid import uuid4

import numpy as np

from . import frames
from .columns import Columns, Learned
from .core.blocks import row_blocks
from .core.checks import check_weights
from .core.products import slices
from .core.projection import unit_scores
from .core.samples import below_least, merge_drawn, taken
from .core.tables import DrawnTable, Summary, block_read, rescale_scores, summary_of_block, total
from .files import is_of_dask
from .nearest import offer, some
from .pieces import Pieces, ScaledFacts, scaled
from .scaling import Scaling

FAN_IN = 8  # so many results are joined at once, on a worker
SUMMED = 64  # so many sums of partitions are added at once: they are smaller
INLINE = 1 << 22  # bytes that go with the tasks of a pass; what is larger, each worker gets once
LOOKS = 16  # after so many passes it is asked again which worker holds what: one may have been lost


def compute(tasks):
    """Return the results of tasks."""
    import dask

    with _lost_is_said():
        return dask.compute(*tasks)


def persist(tasks):
    """Return tasks whose results stay where they were made."""
    import dask

    with _lost_is_said():
        return list(dask.persist(*tasks))


@contextmanager
def _lost_is_said():
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("distributed", "concurrent", "asyncio"):
            raise
        raise RuntimeError(
            f"Dask's scheduler or workers were lost in the fit ({type(error).__name__}: {error}). The model is as it "
            "was before; start a cluster and fit again."
        ) from error


def is_dask(X):
    """Whether X is a frame or an array of Dask; what else Dask has is refused."""
    if is_of_dask(X) and _ndim(X) != 2:
        raise ValueError(f"X is {_what(X)}; wanted a frame of Dask, or an array of Dask with 2 dimensions.")
    return is_of_dask(X)


def is_array(X):
    """Whether X is an array of Dask."""
    return hasattr(X, "chunks")


def learn(model, X, y=None, sample_weight=None):
    """Choose the columns of a table of Dask, and learn their shift and scale; return a Learned with PiecesOfDask."""
    if model.target_weight:
        raise ValueError(
            "target_weight is above 0, and X is a table of Dask: a target needs all rows in one place. Pass "
            "X.compute(), or that of some rows."
        )
    _check_weights_of(X, sample_weight)
    targets = [] if is_array(X) else _named(X, y)
    by_name = [sample_weight] if isinstance(sample_weight, str) else []
    read = X.drop(columns=[name for name in targets if name not in by_name]) if targets else X
    X = read.drop(columns=by_name) if by_name else read
    columns, _ = Columns.chosen(model, sample_of(X))
    if columns.n_components == 0:
        return Learned(columns, X, None, None, None)
    pieces = PiecesOfDask.read(columns, read, sample_weight)
    if pieces.n == 0:
        raise ValueError("X has no rows that count: found 0 sample(s) while a minimum of 1 is required.")
    columns.scaling = Scaling.learn_from(pieces, model.shift, model.scale, columns.variables, model.clip)
    columns.report_constant(pieces.n)
    return Learned(columns, X, pieces, None, None)


def _ndim(X):
    """Return the number of dimensions of what Dask has; None if it has none, as a bag."""
    ndim = getattr(X, "ndim", None)
    return ndim if isinstance(ndim, int) else None  # a Delayed has every attribute


def _what(X):
    """Return a few words on an argument."""
    if isinstance(X, str):
        return repr(X)
    dimensions = f" with {_ndim(X)} dimension(s)" if _ndim(X) is not None else ""
    return f"of type {type(X).__module__.partition('.')[0]}.{type(X).__name__}{dimensions}"


def _check_weights_of(X, sample_weight):
    """Refuse weights that do not lie as the rows of X do."""
    if sample_weight is None or (is_of_dask(sample_weight) and _ndim(sample_weight) == 1):
        return
    if is_array(X):
        raise ValueError(
            f"sample_weight is {_what(sample_weight)}, and X is an array of Dask; wanted an array of Dask with "
            "1 dimension, and chunks of as many rows as X has."
        )
    if not isinstance(sample_weight, str) or sample_weight not in X.columns:
        _refuse_name("sample_weight", sample_weight, X, ", or a series of Dask")


def _named(X, y):
    """Return the columns that y names. Other targets are ignored, since there is no target_weight."""
    names = [y] if isinstance(y, str) else y if isinstance(y, list | tuple) else []
    names = [name for name in names if isinstance(name, str)]
    for name in names:
        if name not in X.columns:
            _refuse_name("y", name, X, "")
    return names


def _refuse_name(argument, name, X, other):
    labels = list(X.columns)
    wanted = offer([name], labels) if isinstance(name, str) else some(labels)
    raise ValueError(
        f"{argument} is {_what(name)}, and X is a frame of Dask; wanted the name of one of its columns, "
        f"{wanted}{other}."
    )


def sample_of(X):
    """Return a few made-up rows of the kind of X."""
    return np.ones((2, X.shape[1]), X.dtype) if is_array(X) else X._meta_nonempty


def refuse_output(model):
    """Refuse a kind of frame in memory as the output: scikit-learn would compute all rows."""
    if (kind := frames.configured(model)) != "default":
        raise ValueError(
            f"X is of Dask, and set_output or set_config asks for frames of {kind}, in memory; wanted "
            'set_output(transform="default"), with which the result is of Dask too, and lazy.'
        )


def transformed(model, X):
    """Return what ``model.transform`` makes of X, lazily; the model may be fitted anew before it is computed."""
    refuse_output(model)
    model = deepcopy(model)  # without callbacks, as every copy of a fitted model
    if not is_array(X):
        return X.map_partitions(model.transform, meta=model.transform(X._meta))
    X, example = X.rechunk({1: -1}), model.transform(np.empty((0, X.shape[1]), X.dtype))
    return X.map_blocks(model.transform, dtype=example.dtype, chunks=(X.chunks[0], (example.shape[1],)))


class PiecesOfDask(Pieces):
    """Partitions as matrices, each a result that Dask keeps: (rows, weights)."""

    def __init__(self, parts, firsts, n, dtype, ends):
        self.parts, self.firsts, self.n, self.dtype, self.ends = parts, firsts, n, np.dtype(dtype), ends

    @classmethod
    def read(cls, columns, X, weights):
        """Return the chosen columns of the rows of positive weight; weights may be the name of a column."""
        import dask

        rows = np.ravel((X.rechunk({1: -1}) if is_array(X) else X).to_delayed())
        v = np.ravel(weights.to_delayed()) if is_of_dask(weights) else [weights] * len(rows)
        if len(v) != len(rows):
            raise ValueError(f"sample_weight has {len(v)} partitions; wanted {len(rows)}, as X has.")
        read, chosen = dask.delayed(_read, pure=False), dask.delayed(columns.apart(), traverse=False)
        parts = persist([read(part, chosen, u) for part, u in zip(rows, v, strict=True)])
        told = compute([dask.delayed(_about)(part) for part in parts])
        kept = [i for i, about in enumerate(told) if about[0]]
        if not kept:
            return cls([], [], 0, np.float64, None)
        lengths, dtypes, ends = zip(*(told[i] for i in kept), strict=True)
        ends = np.fmin.reduce([low for low, _ in ends]), np.fmax.reduce([high for _, high in ends])
        firsts = np.cumsum([0, *lengths])
        return cls([parts[i] for i in kept], firsts[:-1].tolist(), int(firsts[-1]), max(dtypes), np.array(ends))

    def sum(self, function, *arguments):
        """Return the sums of the arrays that a function returns for pieces of all partitions, added on the workers."""
        import dask

        summed, packed = dask.delayed(_summed, pure=False), dask.delayed((function, arguments), traverse=False)
        tasks = [summed(part, first, packed) for part, first in zip(self.parts, self.firsts, strict=True)]
        return compute([_tree(tasks, _added)])[0]

    def scale(self, columns, e, m):
        """Scale all rows, in units of 4^e; return their facts, and a draw of m rows."""
        import dask

        scaled_, chosen = dask.delayed(_scaled, pure=False), dask.delayed(columns.apart(), traverse=False)
        item, done = dask.delayed(_item, pure=False), []
        places = _spread(_places(self.parts), np.diff([*self.firsts, self.n]), _threads(self.parts))
        for part, first, place in zip(self.parts, self.firsts, places, strict=True):
            with nullcontext() if place is None else dask.annotate(workers=place, allow_other_workers=True):
                whole = scaled_(part, first, chosen, e, m)
                done.append([item(whole, i) for i in range(3)])
        parts, facts, drawn = zip(*done, strict=True)
        # Most of what a partition draws is left out when all are joined: first numbers go, then the rows that stay.
        least, n = dask.delayed(_least, pure=False)(_tree(drawn, merge_drawn, m)), len(parts)
        kept = persist([*parts, *drawn, *facts, least])
        *facts, least = compute(kept[2 * n :])
        stay = dask.delayed(_taken, pure=False)
        staying = [stay(part, numbers, least) for part, numbers in zip(kept[:n], kept[n : 2 * n], strict=True)]
        [drawn] = compute([_tree(staying, merge_drawn, m)])
        self.parts = [part for part, fact in zip(kept, facts, strict=False) if fact.n]
        return ScaledFacts.joined(facts), drawn

    @contextmanager
    def workers(self, n):
        """Provide a map for what is done here."""
        yield map

    def table(self, n, drawn, missing, observed, means):
        """Return the table of the scaled rows."""
        return DaskTable(self.parts, n, self.dtype, drawn, missing, observed, means)


# Functions of a partition


def _read(part, columns, weights):
    """Return the chosen columns of the rows of positive weight as a matrix, and these weights, also given by name."""
    if not frames.is_frame(part):
        part = np.asarray(part)
    else:
        if isinstance(weights, str):
            if weights not in part.columns:
                raise ValueError(f"A partition of X has the columns {some(part.columns)}, and lacks {weights!r}.")
            part, weights = part.drop(columns=weights), part[weights]
        _check_labels(frames.labels(part), columns.labels)
    matrix, fresh = columns.read(part)
    if weights is not None:
        weights = check_weights_of_part(np.asarray(weights, dtype=np.float64), matrix)
        if not weights.all():
            matrix, weights = matrix[weights > 0], weights[weights > 0]
    return (matrix if fresh else matrix.copy()), weights


def _check_labels(found, wanted):
    """Refuse a partition with other columns than the frame says, or in another order: they are read by position."""
    if found != wanted:
        lacking, new = [name for name in wanted if name not in found], [name for name in found if name not in wanted]
        how = f"lacks {some(lacking)}, and X has not {some(new)}" if lacking or new else "has another order"
        raise ValueError(
            f"A partition of X has the columns {some(found)}; wanted those that X says, {some(wanted)}, in this order. "
            f"It {how}. Choose them in each: X.map_partitions(lambda part: part[[...]])."
        )


def check_weights_of_part(weights, matrix):
    """Return the weights of a partition, which may all be zero."""
    return weights if not weights.any() and not np.isnan(weights).any() else check_weights(weights, matrix)


def _about(part):
    X = part[0]
    if not len(X):
        return 0, X.dtype, None
    return len(X), X.dtype, (np.fmin.reduce(X, axis=0), np.fmax.reduce(X, axis=0))


def _summed(part, first, packed):
    """Return the sums of what a function returns for pieces of a partition."""
    (X, v), (function, arguments) = part, packed
    totals = None
    for r in slices(X):
        part = function(X[r], None if v is None else v[r], first + r.start, *arguments)
        totals = part if totals is None else _added([totals, part])
    return totals


def _scaled(part, first, columns, e, m):
    """Return the scaled rows and their weights, facts, and a draw of m rows."""
    X, v = part
    Z, v, facts, drawn = scaled(X.copy(), v, first, columns, e, m, (np.inf, np.inf))
    return (Z, v), facts, drawn


def _item(results, i):
    return results[i]


def _least(drawn):
    return drawn.least


def _taken(part, drawn, least):
    return taken(below_least(drawn, least), part[0])


def _added(parts):
    return [sum(terms) for terms in zip(*parts, strict=True)]


def _total(parts):
    first, *others = parts
    if isinstance(first, tuple):  # a copy, since the others are added to it
        first = type(first)(*map(np.copy, first)) if hasattr(first, "_fields") else tuple(map(np.copy, first))
    return total([first, *others])


def _tree(tasks, join, *arguments):
    """Return one task from many: a few at a time are joined on a worker, in order."""
    import dask

    joined = dask.delayed(join, pure=False)
    while len(tasks) > 1:
        tasks = [joined(tasks[i : i + FAN_IN], *arguments) for i in range(0, len(tasks), FAN_IN)]
    return tasks[0]


class DaskTable(DrawnTable):
    """The scaled rows of the partitions, and their scores, which Dask keeps too; see the top of this file."""

    def __init__(self, parts, n, dtype, drawn, missing, observed, means):
        super().__init__(n, drawn, dtype, missing, observed, means)
        self.parts, self.weights = parts, None
        self.n_blocks = max(1, n // row_blocks(drawn.X, self.k, self.per_row)[0].stop)
        self.states, self.kept, self.steps = [None] * len(parts), None, 0

    def fresh(self):
        """Return a table of the same rows that will have its own scores."""
        other = copy(self)
        other.states, other.kept, other.precision = [None] * len(self.parts), None, self.dtype
        other.factors = None
        return other

    def start(self, dtype, remembers):
        """Set all scores to zero; ``remembers`` says whether the scores of the previous pass are kept as well."""
        self.precision, self.factors = dtype, None
        self.states = [("now", "before") if remembers else ("now",)] * len(self.parts)

    def round_to(self, dtype):
        """Switch to another precision."""
        self.precision = dtype

    def map(self, function, *arguments):
        """Return function(block, Wt, *arguments) for every block, in order; it may change the scores Wt in place."""
        return self.sum_over(_listed, function, *arguments)  # the sum of lists

    def sum_over(self, function, *arguments):
        """Return the sum over all blocks of what a function returns, added on the workers."""
        return self._run(function, arguments, _total)

    def summary(self, least=True):
        """Return the summary of one read; without ``least``, the smallest positive cell is not looked for."""
        return self._run(summary_of_block, (least,), Summary.joined)

    def replace_scores(self, H, strengths, loss):
        """Replace the scores by exact ones; return which components have a positive one, and the sums of loadings."""
        self.factors = None  # the scores of before are not read from here on
        found = self._step(partial(_exact, H, strengths, loss, self._settings()), True, _total)
        used, sums = zip(*found, strict=True)
        return np.any(used, axis=0), sums[0]

    def keep(self):
        """Save the scores: they never change, so it is enough to remember them."""
        self.kept = self.states, self.factors

    def take_back(self):
        """Restore the saved scores."""
        self.states, self.factors = self.kept

    def _run(self, function, arguments, join):
        keeps = self.states[0] is not None
        result = self._step(partial(_apply, function, arguments, self._settings(), self.factors, join), keeps, join)
        if keeps:
            self.factors = None
        return result

    def _step(self, call, keeps, join):
        """Take call(part, state) of all partitions as the new states, if they are kept; return their results, joined.

        A state is a result and scores. The graph is made by hand, and as small as can be: passes over few rows take as
        long as Dask does. Results that lie on one worker are taken from their states by one task, and joined in the
        order of the partitions, so that the sums do not depend on who made what.
        """
        from dask.delayed import Delayed

        name, n, graph, first = uuid4().hex, len(self.parts), {}, (call,)
        for task in (*self.parts, *self.states):
            graph.update(getattr(task, "dask", {}))
        if n * self.k * self.shape[1] * 8 > INLINE:  # as large as loadings
            first, graph["call-" + name] = (_called, "call-" + name), call
        made = [("step-" + name, i) for i in range(n)]
        for key, part, state in zip(made, self.parts, self.states, strict=True):
            graph[key] = (*first, part.key, getattr(state, "key", state))
        if self.steps % LOOKS == 0:
            self.groups = _together(_places(self.states if hasattr(self.states[0], "dask") else self.parts))
        self.steps, level, ends = self.steps + 1, 0, []
        for groups in self.groups:
            picked = [("pick-" + name, group[0]) for group in groups]
            graph.update((key, (_results, [made[i] for i in group])) for key, group in zip(picked, groups, strict=True))
            ends.append((f"join-{name}", level, len(ends)))
            graph[ends[-1]] = (partial(_joined, join, groups), picked)
        while len(ends) > 1:
            level, parts = level + 1, [ends[i : i + SUMMED] for i in range(0, len(ends), SUMMED)]
            ends = [(f"join-{name}", level, i) for i in range(len(parts))]
            graph.update((key, (join, part)) for key, part in zip(ends, parts, strict=True))
        states = made if keeps else []
        *states, end = persist([Delayed(key, graph) for key in (*states, *ends)])
        if keeps:
            self.states = states
        return compute([end])[0]

    def _settings(self):
        return self.k, self.per_row, self.precision, self.missing, self.means


def _places(tasks):
    """Return the worker that holds each result; without a cluster they are all in one place."""
    kept = [task.dask[task.key] for task in tasks]
    if not hasattr(kept[0], "client"):
        return [None] * len(kept)
    from distributed import wait

    with _lost_is_said():
        wait(kept)
        held = kept[0].client.who_has(kept)
    return [min(held[task.key], default=None) for task in tasks]


def _threads(tasks):
    """Return the number of threads of every worker; None without a cluster, and where the user chose workers."""
    import dask

    client = getattr(tasks[0].dask[tasks[0].key], "client", None)
    return None if client is None or "workers" in dask.get_annotations() else client.nthreads()


def _spread(places, sizes, threads):
    """Return a worker for every partition: the one that has it, unless it holds more than its share of the rows.

    Passes over the rows take as long as the worker with the most of them, so a few partitions move once, before.
    """
    if threads is None or None in places:
        return [None] * len(places)
    held, share, moving = dict.fromkeys(threads, 0), sum(sizes) / sum(threads.values()), []
    for i in np.argsort(-sizes, kind="stable"):
        here = places[i]
        if here in held and (not held[here] or held[here] + sizes[i] / 2 <= share * threads[here]):
            held[here] += sizes[i]
        else:
            moving.append(i)
    for i in moving:
        places[i] = min(held, key=lambda worker: (held[worker] + sizes[i]) / threads[worker])
        held[places[i]] += sizes[i]
    return places


def _together(places):
    """Return the numbers of results, so many at a time as are added at once, those in one place together."""
    chunks = []
    for start in range(0, len(places), SUMMED):
        on = {}
        for i, place in enumerate(places[start : start + SUMMED], start):
            on.setdefault(place, []).append(i)
        chunks.append(list(on.values()))
    return chunks


def _called(call, part, state):
    return call(part, state)


def _listed(block, Wt, function, *arguments):
    return [function(block, Wt, *arguments)]


def _results(states):
    return [state[0] for state in states]


def _joined(join, groups, results):
    """Join results, which come in groups of numbered ones, in the order of their numbers."""
    found = {
        i: result for group, part in zip(groups, results, strict=True) for i, result in zip(group, part, strict=True)
    }
    return join([found[i] for i in sorted(found)])


def _apply(function, arguments, settings, factors, join, part, state):
    """Return what a function returns for the blocks of a partition, joined, and new scores."""
    (X, v), (k, per_row, dtype, missing, means) = part, settings
    rows, scores, results = row_blocks(X, k, per_row), _scores_of(state, len(X) * k, dtype), []
    memory = np.empty((min(rows[0].stop, len(X)), X.shape[1]), dtype)  # for all blocks: workers give back what is freed
    for r in rows:
        x = X[r] if missing is None else X[r].copy()  # in which cells are imputed
        block = block_read(x, None if v is None else v[r], r, missing, means).rounded(dtype, memory)
        Wt = {kind: all_[r.start * k : r.stop * k].reshape(k, -1) for kind, all_ in scores.items()}
        block.before = Wt.get("before")
        if factors is not None:
            rescale_scores(block, Wt["now"], factors)
        results.append(function(block, Wt.get("now"), *arguments))
    return join(results), scores


def _scores_of(state, size, dtype):
    """Return the scores of a state, as arrays of their own; at the start a state names those that there will be."""
    if state is None:
        return {}
    if isinstance(state[0], str):
        return {kind: np.zeros(size, dtype) for kind in state}
    return {kind: Wt.astype(dtype) for kind, Wt in state[1].items()}


def _exact(H, strengths, loss, settings, part, state):
    """Return which components have a positive score, with the sums of the loadings; and scores, those of now exact."""
    (X, _), (k, per_row, _, missing, _) = part, settings
    U, sums = unit_scores(X, H, strengths.l1_W, strengths.l2_W, 1, missing, loss=loss)
    used = U.any(axis=0)
    U /= sums.astype(U.dtype)
    now = np.concatenate([U[r].T.ravel() for r in row_blocks(X, k, per_row)])
    return [(used, sums)], {**_scores_of(state, len(X) * k, U.dtype), "now": now}
