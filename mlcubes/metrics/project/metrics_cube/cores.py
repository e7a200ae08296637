"""How many cores, and what of its memory, the process may keep."""

import contextlib
import ctypes
import math
import os
from pathlib import Path

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of glibc's mallopt


def count_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores given to this process: its affinity, cut by the CPU quota of its control group, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, math.ceil(_load_quota(cgroup))))


def _load_quota(cgroup: Path) -> float:
    """CPU quota in cores by control groups version 2 or 1; a large number where there is none."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError, IndexError, ZeroDivisionError):
            quota, period = " ".join((cgroup / name).read_text() for name in names).split()[:2]
            if quota != "max" and int(quota) > 0:
                return int(quota) / int(period)
    return 2.0**20


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next case instead of giving it back.

    A fresh page costs a page fault; for the two images of a case together that is several times their decompression.
    Only a wish: without glibc nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 32 << 20)  # the most that every glibc accepts
        mallopt(_TRIM_THRESHOLD, 256 << 20)
