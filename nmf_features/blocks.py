"""Rows as blocks, worked through by several threads with the same bits for any number of them.

Given H the rows of W are independent, and H needs only sums over rows. So a pass over the data is a map over
row blocks and a sum. The partition depends on the shape alone, every block has a slot of its own, and slots
are added in their order: the number of threads cannot change a single bit. BLAS is held to one thread
meanwhile, since its threads would multiply with ours (and its results depend on their number).
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import joblib
from threadpoolctl import ThreadpoolController

BLOCK_BYTES = 1 << 20  # a block and its scores should stay in the cache of one core


def row_blocks(n, p, k):
    """Return slices that cover n rows; blocks of at least max(128, 4k) rows keep the products efficient."""
    rows = max(128, 4 * k, BLOCK_BYTES // (8 * (p + 2 * k)))
    rows = -(-rows // 64) * 64
    return [slice(start, min(start + rows, n)) for start in range(0, n, rows)]


def n_threads(n_jobs):
    """Threads for ``n_jobs``: None is all that the process may use (CPU affinity, quota, OMP_NUM_THREADS)."""
    if n_jobs is not None:
        return max(1, joblib.cpu_count() + 1 + n_jobs if n_jobs < 0 else n_jobs)
    cores = joblib.cpu_count()
    limit = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return min(cores, int(limit)) if limit.isdigit() and int(limit) > 0 else cores


@contextmanager
def workers(n_jobs, n_tasks):
    """Give a ``map`` over ``n_tasks`` pieces of work, in order, on at most ``n_jobs`` threads, BLAS on one each."""
    threads = min(n_threads(n_jobs), n_tasks)
    with _single_threaded_blas():
        if threads <= 1:
            yield map
            return
        with ThreadPoolExecutor(threads, thread_name_prefix="nmf_features") as pool:
            yield pool.map


@cache
def _blas():
    return ThreadpoolController()


_blas_lock = threading.Lock()
_blas_users, _blas_limit = 0, None


@contextmanager
def _single_threaded_blas():
    """Hold BLAS to one thread while any fit runs: the first to come sets the limit, the last to go lifts it."""
    global _blas_users, _blas_limit
    with _blas_lock:
        if _blas_users == 0:
            _blas_limit = _blas().limit(limits=1, user_api="blas")
        _blas_users += 1
    try:
        yield
    finally:
        with _blas_lock:
            _blas_users -= 1
            if _blas_users == 0:
                _blas_limit.restore_original_limits()
