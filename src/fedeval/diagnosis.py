"""Known causes of a failed task, recognised from its exit code and last lines, each with the mend.

Three of them, ``workdir``, ``tmpfs`` and ``permission``, are the classics of FeTS 2022: what conversion from docker to
singularity brings out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fedeval.engine.base import TaskOutcome


@dataclass(frozen=True)
class Cause:
    """A known cause: a pattern for the last lines, exit codes that mean it by themselves, and what to tell."""

    name: str
    pattern: str
    cause: str
    mend: str
    exit_codes: tuple[int, ...] = ()


CAUSES = (
    Cause(
        # A relative ENTRYPOINT shows as a path below the working folder, which is / or /tmp then.
        "workdir",
        r"(FileNotFoundError|No such file or directory)\W.*['\"](?!/)[\w.-]+[^'\"]*['\"]"
        r"|can't open file '(?:[^/']|/{1,2}[^/']+'|/tmp/)[^\n]*Errno 2\b",
        "a relative path: the working directory is not the image's WORKDIR",
        "use absolute paths in ENTRYPOINT and in the code",
    ),
    Cause(
        "home", r"No such file or directory\W.*['\"]/(root|tmp|home/[^/'\"]+)/\.\w",
        "a file in the home folder: that is empty, and not the one of the build",
        "put weights and settings beside the code, and give their absolute path",
    ),
    Cause(
        "architecture", r"([Ee]xec format error|cannot execute binary file)",
        "the image was built for another processor", "build it for linux/amd64: docker build --platform linux/amd64",
    ),
    Cause(
        "entrypoint", r"executable file not found in \$PATH",
        "the image's entrypoint cannot be started", "use an absolute path in ENTRYPOINT, to a program all may run",
        (126, 127),
    ),
    Cause(
        "shared_memory",
        r"(Bus error|out of shared memory|insufficient shared memory|/dev/shm|unable to write to file </torch"
        r"|unable to open shared memory object)",
        "shared memory did not suffice", "use fewer data-loader workers; the limit is shm_mb", (135,),
    ),
    Cause(
        "tmpfs", r"(Errno 28\b|No space left on device|ENOSPC)",
        "temporary space is small: /tmp and the home folder hold 64 MB each after conversion, 16 MB in older versions",
        "write scratch files below output_path, and remove them",
    ),
    Cause(
        "read_only", r"(Errno 30\b|Read-only file system)",
        "the container's file system is read-only", "write below output_path only; caches too (e.g. XDG_CACHE_HOME)",
    ),
    Cause(
        "permission", r"(PermissionError|Errno 13\b|Permission denied)",
        "the container does not run as root", "make code and weights readable by everyone: RUN chmod -R a+rX /project",
    ),
    Cause(
        "user", r"getpwuid\(\): uid not found",
        "the user of the container has no entry in /etc/passwd", "do not look the user up: HOME and USER are set",
    ),
    Cause(
        "gpu_memory",
        r"(CUDA out of memory|OutOfMemoryError|CUDA_ERROR_OUT_OF_MEMORY|CUBLAS_STATUS_ALLOC_FAILED"
        r"|cudaErrorMemoryAllocation|OOM when allocating tensor|RESOURCE_EXHAUSTED: Out of memory)",
        "the GPU's memory did not suffice", "use smaller patches or batches; the limit is gpu_memory_mb",
    ),
    Cause(
        "no_gpu",
        r"(No CUDA GPUs are available|Found no NVIDIA driver|no CUDA-capable device|not compiled with CUDA enabled"
        r"|torch\.cuda\.is_available\(\) is False|libcuda\.so|CUDA driver version is insufficient)",
        "the code needs a GPU and there is none here", "fall back to the CPU, or test on a machine with a GPU",
    ),
    Cause(
        "download",
        r"(Temporary failure in name resolution|Name or service not known|Network is unreachable|ConnectionError"
        r"|LocalEntryNotFoundError|URLError|Max retries exceeded|[Cc]ould not resolve host|unable to resolve host"
        r"|couldn't connect to)",
        "there is no network: a download was tried", "ship weights and models inside the image",
    ),
    Cause(
        "threads",
        r"(can't start new thread|Resource temporarily unavailable|Errno 11\b|pthread_create failed"
        r"|Thread creation failed)",
        "too many processes or threads", "use fewer workers; the limit is pids",
    ),
    Cause(
        "memory",
        r"(\bMemoryError|_ArrayMemoryError|Unable to allocate|can't allocate memory|Cannot allocate memory|bad_alloc)",
        "memory did not suffice", "load one case at a time, in a smaller type; the limit is memory_mb",
    ),
    Cause(
        "killed", r"", "the program was killed from outside or by lack of memory",
        "look at its memory; the limit is memory_mb", (137,),
    ),
)  # fmt: skip
"""The first that fits is told: what names one thing stands before what may have many reasons."""


def diagnose(outcome: TaskOutcome) -> Cause | None:
    """The first known cause that fits how a task ended, or None."""
    if outcome.ok or outcome.ended_by:
        return None
    text = "\n".join(outcome.last_lines)
    for cause in CAUSES:
        if outcome.exit_code in cause.exit_codes or (cause.pattern and re.search(cause.pattern, text)):
            return cause
    return None
