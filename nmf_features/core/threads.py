"""Threads: how many to use, and a map over pieces of work with the same bits for any number of threads.

Every piece has its own slot, and results come in the order of the pieces, whichever thread makes them. BLAS is given
products so small that it uses one thread for each (products.py).
"""

import os
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from itertools import count

import joblib


def n_threads(n_jobs):
    """Return the number of threads for ``n_jobs``; None: all it may use (CPU affinity, quota, OMP_NUM_THREADS)."""
    if n_jobs is not None:
        return max(1, joblib.cpu_count() + 1 + n_jobs if n_jobs < 0 else n_jobs)
    cores = joblib.cpu_count()
    limit = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return min(cores, int(limit)) if limit.isdigit() and int(limit) > 0 else cores


@contextmanager
def workers(n_jobs, n_tasks):
    """Provide a ``map``, in order, over ``n_tasks`` pieces of work on at most ``n_jobs`` threads."""
    threads = 1 if n_tasks <= 1 else min(n_threads(n_jobs), n_tasks)
    if threads <= 1:
        yield map
        return
    with ThreadPoolExecutor(threads - 1, thread_name_prefix="nmf_features") as pool:
        yield partial(_shared, pool, threads - 1)


def _shared(pool, others, function, *pieces):
    """Map over pieces on this thread and others: each takes the next piece that nobody has taken.

    To wake a thread takes long beside a short piece of work, so each is woken once. This one works where it would wait
    for a result; what is done with results that are there goes on beside the work of the others.
    """
    pieces = list(zip(*pieces, strict=False))
    results, failed, left = {}, [], count()

    def one():
        if failed or (i := next(left)) >= len(pieces):
            return False
        try:
            results[i] = function(*pieces[i])
        except BaseException as error:
            failed.append(error)
        return True

    def work():
        while one():
            pass

    helping = [pool.submit(work) for _ in range(min(others, len(pieces) - 1))]
    try:
        for i in range(len(pieces)):
            while i not in results and one():
                pass
            if i not in results:
                _end(helping)
            if failed:
                raise failed[0]
            yield results.pop(i)
    finally:
        failed.append(None)  # whoever asked may want no more
        _end(helping)


def _end(helping):
    """Wait for those that have begun; the others are not needed."""
    wait([helper for helper in helping if not helper.cancel()])
