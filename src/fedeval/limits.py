"""The limits of a benchmark: one frozen value, enforced by the engine and recorded with the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from fedeval.errors import BenchmarkError


@dataclass(frozen=True)
class Limits:
    """Hard limits of one container. Sizes are in MiB, times in seconds of wall clock.

    Attributes
    ----------
    per_case_s : float
        Wall time a case; a container that handles n cases has ``n * per_case_s`` in all.
    start_up_s : float
        Added once to the budget, for tasks whose start is not the submission's time (data_prep, metrics).
    memory_mb : int
        Memory with swap off; what is in tmpfs counts.
    gpu_memory_mb : int
        Memory on a GPU, where one is used.
    cpus : float or None
        CPU share; None gives all cores.
    pids : int
        Processes and threads.
    shm_mb : int
        ``/dev/shm``.
    tmp_mb : int
        ``/tmp`` and ``/var/tmp`` each.
    output_mb, output_files : int
        What a task may leave in its output folders.
    log_mb : int
        How much of the container's output is kept.
    """

    per_case_s: float = 180.0
    start_up_s: float = 0.0
    memory_mb: int = 40960
    gpu_memory_mb: int = 11264
    cpus: float | None = None
    pids: int = 1024
    shm_mb: int = 1024
    tmp_mb: int = 64
    output_mb: int = 4096
    output_files: int = 10000
    log_mb: int = 16

    def budget_s(self, cases: int) -> float:
        """Wall-clock budget of one container that handles `cases` cases, as in FeTS 2022: ``num_cases * 180`` s."""
        return self.start_up_s + max(cases, 1) * self.per_case_s

    def to_dict(self) -> dict[str, Any]:
        """Plain mapping for the run record."""
        return asdict(self)


def load_limits(section: Mapping[str, Any], base: Limits, where: str) -> Limits:
    """Limits of a benchmark file's section over `base`.

    Raises
    ------
    BenchmarkError
        An unknown key, or a value that is not a positive number.
    """
    known = {field.name for field in fields(Limits)}
    for key, value in section.items():
        if key not in known:
            raise BenchmarkError(f"{where}: unknown limit {key!r}", f"expected one of {', '.join(sorted(known))}")
        if not _is_limit(key, value):
            kind = "a positive number" if key.endswith("_s") or key == "cpus" else "a positive whole number"
            raise BenchmarkError(f"{where}: limit {key}", f"{value!r}; expected {kind}")
    return replace(base, **dict(section))


def _is_limit(key: str, value: Any) -> bool:
    """Zero is no limit: docker takes it for "unlimited"."""
    if isinstance(value, bool) or (value is None and key != "cpus"):
        return False
    if key.endswith("_s") or key == "cpus":
        smallest_is_zero = key == "start_up_s" and value == 0
        finite = isinstance(value, int | float) and math.isfinite(value)
        return value is None or (finite and (value > 0 or smallest_is_zero))
    return isinstance(value, int) and 0 < value < 1 << 31
