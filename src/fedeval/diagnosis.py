"""Known causes of a failed task, recognised from its exit code and last lines, each with the mend.

The first entries are the failures that conversion from docker to singularity brings (FeTS 2022's three classics).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fedeval.engine.base import TaskOutcome


@dataclass(frozen=True)
class Cause:
    """A known cause: a pattern for the last lines, exit codes that go with it (empty: any), and what to tell."""

    name: str
    pattern: str
    cause: str
    mend: str
    exit_codes: tuple[int, ...] = ()


CAUSES = (
    Cause(
        "workdir", r"(FileNotFoundError|No such file or directory|can't open file)\W.*['\"](?!/)[\w.-]+[^'\"]*['\"]",
        "a relative path: the working directory is not the image's WORKDIR",
        "use absolute paths in ENTRYPOINT and in the code",
    ),
    Cause(
        "entrypoint", r"",
        "the image's entrypoint cannot be started", "use an absolute path in ENTRYPOINT, to a program all may run",
        (126, 127),
    ),
    Cause(
        "tmpfs", r"(Errno 28|No space left on device|ENOSPC)",
        "temporary space is small: /tmp and the home folder hold 64 MB at most",
        "write scratch files below output_path, and remove them",
    ),
    Cause(
        "read_only", r"(Errno 30|Read-only file system)",
        "the container's file system is read-only", "write below output_path only; caches too (e.g. XDG_CACHE_HOME)",
    ),
    Cause(
        "permission", r"(PermissionError|Errno 13|Permission denied)",
        "the container does not run as root", "make code and weights readable by everyone: RUN chmod -R a+rX /project",
    ),
    Cause(
        "gpu_memory", r"(CUDA out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED|cudaErrorMemoryAllocation)",
        "the GPU's memory did not suffice", "use smaller patches or batches; the limit is gpu_memory_mb",
    ),
    Cause(
        "no_gpu", r"(No CUDA GPUs are available|Found no NVIDIA driver|no CUDA-capable device)",
        "the code needs a GPU and there is none here", "fall back to the CPU, or test on a machine with a GPU",
    ),
    Cause(
        "architecture", r"(exec format error|Exec format error|cannot execute binary file)",
        "the image was built for another processor", "build it for linux/amd64: docker build --platform linux/amd64",
    ),
    Cause(
        "download",
        r"(Temporary failure in name resolution|Name or service not known|getaddrinfo failed|Network is unreachable"
        r"|ConnectionError|LocalEntryNotFoundError|URLError|Max retries exceeded)",
        "there is no network: a download was tried", "ship weights and models inside the image",
    ),
    Cause(
        "shared_memory", r"(Bus error|insufficient shared memory|/dev/shm)",
        "shared memory did not suffice", "use fewer data-loader workers; the limit is shm_mb", (135,),
    ),
    Cause(
        "threads", r"(can't start new thread|Resource temporarily unavailable|Errno 11|pthread_create failed)",
        "too many processes or threads", "use fewer workers; the limit is pids",
    ),
    Cause(
        "killed", r"", "the program was killed from outside or by lack of memory",
        "look at its memory; the limit is memory_mb", (137,),
    ),
)  # fmt: skip


def diagnose(outcome: TaskOutcome) -> Cause | None:
    """The first known cause that fits how a task ended, or None."""
    if outcome.ok or outcome.ended_by:
        return None
    text = "\n".join(outcome.last_lines)
    for cause in CAUSES:
        if outcome.exit_code in cause.exit_codes or (cause.pattern and re.search(cause.pattern, text)):
            return cause
    return None
