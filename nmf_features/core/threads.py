"""Threads: how many, and a map over pieces of work that gives the same bits for any number of them.

Every piece has a place of its own, and results come in the order of the pieces. BLAS gets products so small that it
takes one thread for each (products.py).
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import joblib


def n_threads(n_jobs):
    """Threads for ``n_jobs``: None is all that the process may use (CPU affinity, quota, OMP_NUM_THREADS)."""
    if n_jobs is not None:
        return max(1, joblib.cpu_count() + 1 + n_jobs if n_jobs < 0 else n_jobs)
    cores = joblib.cpu_count()
    limit = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return min(cores, int(limit)) if limit.isdigit() and int(limit) > 0 else cores


@contextmanager
def workers(n_jobs, n_tasks):
    """Give a ``map`` over ``n_tasks`` pieces of work, in order, on at most ``n_jobs`` threads."""
    threads = min(n_threads(n_jobs), n_tasks)
    if threads <= 1:
        yield map
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="nmf_features") as pool:
        yield pool.map
