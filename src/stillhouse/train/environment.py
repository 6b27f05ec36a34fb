"""What a process needs in its environment, before it starts, to train fast on a CPU. Imports nothing heavy."""

import os
import platform
from collections.abc import Mapping


def recommended_environment(given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables to add before the interpreter is started again; what a person has set is left as it is.

    Threads that sleep while they wait: with other work on the machine, spinning ones cost up to ten times the time. One
    thread for each core that this process may use, and not for each that happens to be free, because the number of
    threads shows in the last bits of a sum. An allocator that keeps freed memory: each step frees and takes the same
    tensors, and fresh pages cost more than the arithmetic on them (it may hold twice the memory in return).
    """
    wanted = {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": str(_cores())}
    if platform.libc_ver()[0] == "glibc":
        wanted |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
    return {name: value for name, value in wanted.items() if name not in given}


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
