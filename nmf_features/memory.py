"""How much memory there is: what a table larger than memory may use of it."""

import os
from contextlib import suppress
from pathlib import Path

SHARE = 4  # without a budget, this part of the free memory is used
LEAST = 1 << 26
GROUPS = Path("/sys/fs/cgroup")


def budget_of(memory_budget):
    """Return a budget in bytes; None: a quarter of the memory that is free."""
    return int(free_memory() // SHARE if memory_budget is None else memory_budget)


def free_memory():
    """Return about how many bytes are free: in the machine, in the container, and in the limits of the process."""
    free = [1 << 32]  # where nothing is known
    with suppress(ValueError, OSError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")] or free
    with suppress(OSError):
        own = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
        paths = [path.lstrip("/") for _, kind, path in own if kind in ("", "memory")]
        for group in {root / path for root in (GROUPS, GROUPS / "memory") for path in ("", *paths)}:
            free += _free_in(group)
    with suppress(ImportError, ValueError, OSError):
        import resource

        used = [int(pages) * os.sysconf("SC_PAGE_SIZE") for pages in Path("/proc/self/statm").read_text().split()]
        for limit, so_far in ((resource.RLIMIT_DATA, used[5]), (resource.RLIMIT_AS, used[0])):
            most = resource.getrlimit(limit)[0]
            if most != resource.RLIM_INFINITY:
                free.append(most - so_far)
    return max(min(free), LEAST)


def _free_in(group):
    """Return a list with what a control group has left, empty if it has no limit. Cached files do not count."""
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with suppress(ValueError, OSError):
            most, so_far = (int((group / name).read_text()) for name in (limit, used))
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            return [most - so_far + int(stat.get(cached, 0))]
    return []
