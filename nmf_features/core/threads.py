"""Threads: how many to use, and a map over pieces of work with the same bits for any number of threads.

Every piece has its own slot, and results come in the order of the pieces. BLAS is given products so small that it uses
one thread for each (products.py).
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain

import joblib

PARTS = 8  # of the work for each thread


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
    with ThreadPoolExecutor(threads, thread_name_prefix="nmf_features") as pool:
        yield partial(_map_in_parts, pool.map, PARTS * threads)


def _map_in_parts(map_, n_parts, function, *pieces):
    """Map in so many parts, or more: what a pool needs for each task is long beside a short piece of work."""
    pieces = list(zip(*pieces, strict=False))
    size = max(1, len(pieces) // n_parts)
    parts = [pieces[i : i + size] for i in range(0, len(pieces), size)]
    return chain.from_iterable(map_(lambda part: [function(*arguments) for arguments in part], parts))
