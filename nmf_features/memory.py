"""How much memory there is: what a table larger than memory may use of it."""

import os
from contextlib import suppress
from pathlib import Path

SHARE = 4  # without a budget, this part of the free memory is used
GROUP = Path("/sys/fs/cgroup")


def budget_of(memory_budget):
    """Return a budget in bytes; None: a quarter of the memory that is free."""
    return int(free_memory() // SHARE if memory_budget is None else memory_budget)


def free_memory():
    """Return about how many bytes are free: in the machine, in the container, and in the limit of the process."""
    free = [1 << 32]  # where nothing is known
    with suppress(ValueError, OSError, AttributeError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")] or free
    with suppress(ValueError, OSError):
        limit, used = (int((GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        free.append(limit - used)
    with suppress(ImportError, ValueError, OSError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
        if limit != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[5])  # data and stack
            free.append(limit - pages * os.sysconf("SC_PAGE_SIZE"))
    return max(min(free), 1 << 26)
