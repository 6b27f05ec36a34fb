"""What a process needs in its environment, before it starts, to train fast on a CPU. Imports nothing heavy."""

import os
import platform
from collections.abc import Mapping


def recommended_environment(given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables to add before the interpreter is started again; what a person has set is left as it is.

    Threads: one for each core that the process may use, asleep while they wait: spinning threads on a busy machine are not
    slower by a third but many times slower, as each step of each layer waits for the one that was put aside. Their number
    shows in the last bits of a sum, so it does not follow the load: the same machine gives the same student.
    Memory: an allocator that keeps what is freed. Each step frees and takes the same tensors, and fresh pages cost more
    than the arithmetic on them; the process may hold twice the memory in return.
    Products: the library behind them keeps about half a megabyte for each shape it has met, 1024 shapes in each of two
    caches. The shapes of steps that come again (`products.until_recurring`) fit in 512; in 128 a step of a small model takes an
    eighth longer and holds as much.
    """
    wanted = {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": str(cores())}
    wanted |= dict.fromkeys(("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"), "512")
    if platform.libc_ver()[0] == "glibc":
        wanted |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
    return {name: value for name, value in wanted.items() if name not in given}


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
