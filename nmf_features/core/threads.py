"""Threads: how many to use, and a map over pieces of work with the same bits for any number of threads.

Every piece has its own slot, and results come in the order of the pieces. BLAS is given products so small that it uses
one thread for each (products.py).
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

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
    with ThreadPoolExecutor(threads, thread_name_prefix="nmf_features") as pool:
        yield pool.map
