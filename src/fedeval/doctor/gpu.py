"""``medperf doctor``: GPUs, their driver, their memory, and whether the engine can hand them out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from fedeval.benchmark import Benchmark
from fedeval.doctor.finding import Finding, judge
from fedeval.nvml import GpuDevice


def check_gpus(
    benchmark: Benchmark, devices: Sequence[GpuDevice], runtimes: Collection[str] | None, require: bool = False
) -> Iterator[Finding]:
    """GPUs against the benchmark's limit.

    Parameters
    ----------
    devices : sequence of GpuDevice
        What `fedeval.gpu.present_gpus` found.
    runtimes : collection of str or None
        Runtimes of the container engine, and ``cdi`` or ``nvidia-container-runtime-hook`` where that is installed;
        None without containers.
    require : bool
        Whether a machine without a GPU is of no use.
    """
    limit = benchmark.limits["infer"].gpu_memory_mb
    expected = f"an NVIDIA GPU with {limit} MiB or more"
    if not devices:
        yield judge(
            "gpu", False, "none: models run on the CPU", expected,
            "the same time limit holds on a CPU; use a machine with a GPU for submissions that need one",
            "failed" if require else "warning",
        )  # fmt: skip
        return
    for device in devices:
        memory = "memory unknown" if device.memory_mb is None else f"{device.memory_mb:.0f} MiB"
        measured = f"{device.name or 'a GPU'}, {memory}, driver {device.driver or 'unknown'}"
        silent = device.memory_mb is None
        yield judge(
            f"gpu_{device.index}", not silent and (device.memory_mb or 0) >= limit, measured, expected,
            "the driver does not answer (try nvidia-smi), so GPU memory cannot be watched: reinstall it or reboot"
            if silent else "submissions that the benchmark allows would run out of memory here: use a larger GPU",
        )  # fmt: skip
    if runtimes is not None:
        able = any("nvidia" in name or name == "cdi" for name in runtimes)
        yield judge(
            "gpu_runtime", able, "present" if able else "the engine cannot hand GPUs to containers",
            "NVIDIA's container toolkit", "install nvidia-container-toolkit, then: nvidia-ctk runtime configure",
        )  # fmt: skip
